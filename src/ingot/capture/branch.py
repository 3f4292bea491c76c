"""`if` as an If: both sides recorded into graphs of their own, then what they leave behind merged."""

# Values may be anything; torch is untyped.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import dis
import functools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy
import torch

from ingot.capture import checks, equality, gradients, recursion
from ingot.capture.cells import Cells
from ingot.capture.choice import Maybe
from ingot.capture.containers import Containers, is_among, kept, merged
from ingot.capture.handlers import inside_try
from ingot.capture.merge import UNBOUND, Filled, Merger, Side, Unmergeable, nothing_follows
from ingot.capture.objects import is_a
from ingot.capture.path import taken_apart
from ingot.capture.request import ACTIVE, functions, place, refuse
from ingot.capture.scalars import depends_on_data
from ingot.capture.scope import inside
from ingot.capture.sharing import lose
from ingot.capture.structure import inside as inside_of
from ingot.capture.where import is_formula_code, is_user_code, quoted_line
from ingot.capture.writes import put_value
from ingot.errors import DataDependentError, IngotError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Block = Callable[[], Any]


class Unjoined(DataDependentError):
    """Sizes decide a branch whose sides have no common form."""


def branch(
    g: Recorder,
    condition: Any,
    test: ir.Value,
    then: Block,
    other: Block,
    names: Sequence[str] = (),
    live: Sequence[str] = (),
    cells: Cells | None = None,
    strict: bool = False,
    held: Containers | None = None,
) -> Any:
    """An If over `test`, a BOOL of shape []: `then` where it holds, `other` where not.

    condition: the Python value that was tested; where it is about sizes alone it is known inside the sides
    names, live: variables that the sides write; those whose value matters afterwards
    cells: the variables of the sides, where these are not the blocks themselves
    strict: refuse a variable without a common form also where nobody may read it
    held: what the blocks may change otherwise, where that is known, as it is now
    Returns what the functions return, merged.

    Raises:
        DataDependentError: what the sides leave behind has no common form; names the variable.
        Exception: what both sides raise.
    """
    cells = cells or Cells(then, other)
    start = cells.get(names)
    held = held or Containers.of(cells, names)
    about_sizes = condition.node.expr if isinstance(condition, torch.SymBool) else None
    sides: list[Side] = []
    recursion.enter(g, about_sizes)
    try:
        for block, holds in ((then, True), (other, False)):
            known = about_sizes if holds or about_sizes is None else sympy.Not(about_sizes)
            while len(sides) < (1 if holds else 2):
                _narrow(g, cells, condition, holds)
                try:
                    with contextlib.nullcontext() if known is None else g.attempt():
                        sides.append(_recorded(g, block, known, cells, live, held))
                except Exception as error:
                    if not _fails_by_chance(g, known, error):
                        raise
                finally:
                    cells.put(start)
                    held.restore()
            gradients.switched_on_a_side(g, sides[-1].scope.switched)
    finally:
        g.branches.pop()
    first, second = sides
    if first.error is not None and second.error is not None:
        raise first.error if _taken(g, condition) else second.error
    if first.error is not None or second.error is not None:
        if about_sizes is not None and not depends_on_data(g, about_sizes):
            raise Unmergeable("an error on one side")
        return _one_way(g, test, first, second, then if second.error is not None else other, cells, condition)
    return _merged(g, condition, test, first, second, cells, live, held, start, strict)


def _fails_by_chance(g: Recorder, known: Any, error: Exception) -> bool:
    """Whether a side fails for its sizes, as an operator does, and is to be recorded with others."""
    if known is None or (isinstance(error, IngotError) and error is not ACTIVE.refusal):
        return False
    if not taken_apart(g.env, known):
        return False
    if error is ACTIVE.refusal:
        ACTIVE.refusal = None
    return True


def _taken(g: Recorder, condition: Any) -> bool:
    """Whether the example would take the first side."""
    return not isinstance(condition, torch.SymBool) or bool(g.env.value_or_none(g.env.expr(condition)))


def _narrow(g: Recorder, cells: Cells, condition: Any, holds: bool) -> None:
    """Inside the sides of a branch on `is None` it is known which it is."""
    if not isinstance(condition, torch.SymBool):
        return
    e = g.env.expr(condition)
    for name, cell in cells.all.items():
        value = cells.get([name])[name]
        if is_a(value, Maybe) and isinstance(value.ingot_is_none, torch.SymBool):
            of = g.env.expr(value.ingot_is_none)
            if e in (of, sympy.Not(of)):
                is_none = holds == (e == of)
                cell.cell_contents = None if is_none else value.ingot_value


def _recorded(
    g: Recorder, block: Block, known: Any, cells: Cells, live: Sequence[str], held: Containers
) -> Side:
    """One side, in a body of its own."""
    held_before = dict(g.env.held)
    with inside(g, known) as scope:
        side = Side(scope)
        try:
            side.result = block()
        except Exception as error:
            if not raised_by_user(error):
                raise
            side.error = error
            return side
        side.variables = cells.get(live)
        side.contents = held.contents()
        for value in (side.result, *side.variables.values()):
            side.lower(g, value)
        for before, now in zip(held.before, side.contents, strict=True):
            if now is not before:
                side.lower(g, list(kept(now)))
        checks.demanded_inside(g, held_before)
    return side


def raised_by_user(error: Exception) -> bool:
    """Whether the model's own `raise` or `assert` raised this, rather than an operation that failed."""
    if getattr(error, "ingot_asserted", False):
        return True
    at: TracebackType | None = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or not is_user_code(at.tb_frame.f_code) or is_formula_code(at.tb_frame.f_code):
        return False
    return any(
        i.offset == at.tb_lasti and i.opname == "RAISE_VARARGS"
        for i in dis.get_instructions(at.tb_frame.f_code)
    )


def _one_way(
    g: Recorder, test: ir.Value, first: Side, second: Side, block: Block, cells: Cells, condition: Any
) -> Any:
    """One side always raises: the model checks that the other one is taken, and goes on with it.

    Raises:
        DataDependentError: the model would catch it.
    """
    if inside_try():
        refuse(
            DataDependentError(
                f"{quoted_line()}\n"
                "Data decides whether this raises, inside a `try` or `suppress` that may catch it: an "
                "ONNX model cannot catch errors. Choose with an `if` instead of raising."
            )
        )
    for side in (first, second):
        side.scope.body.discard()
    error = first.error or second.error
    ok = g.op("Not", test) if first.error is not None else test
    checks.require(g, ok, f"not {type(error).__name__}({error}): `{checks.line()}`")
    if isinstance(condition, torch.SymBool):
        e = g.env.expr(condition)
        known = sympy.Not(e) if first.error is not None else e
        _narrow(g, cells, condition, first.error is None)
        g.env.path.append(known)  # for the rest of what is recorded here
    return block()


def _merged(
    g: Recorder,
    condition: Any,
    test: ir.Value,
    first: Side,
    second: Side,
    cells: Cells,
    live: Sequence[str],
    held: Containers,
    start: Mapping[str, Any],
    strict: bool,
) -> Any:
    merger = Merger(g, condition, test, first, second)
    by_data = not isinstance(condition, torch.SymBool) or depends_on_data(g, g.env.expr(condition))
    changed = held.changed(first.contents, second.contents)

    def is_shared(thing: Any, before: Any) -> bool:
        # What a side has changed holds what it held before again, until the sides are joined.
        return held.is_shared(thing, before) or (held.has(thing) and is_among(thing, changed))

    merger.lasting, merger.shared, merger.by_data = held.has, is_shared, by_data
    result = _merge(merger, "the value of the expression", first.result, second.result, by_data)
    variables: dict[str, Any] = {}
    poisoned: dict[str, str] = {}
    for name in live:
        unbound = any(side.variables[name] is UNBOUND for side in (first, second))
        if unbound and g.lost_variables.get(id(cells.cell(name))) is not None:
            variables[name] = UNBOUND  # it has a value there, which has no form
            continue
        try:
            is_none = [side.variables[name] is None for side in (first, second)]
            if strict and ACTIVE.marks.must_run and any(is_none) and not all(is_none):
                raise Unmergeable("None on one side")
            before = start.get(name, UNBOUND)
            variables[name] = merger.merge(first.variables[name], second.variables[name], before)
        except Unmergeable as why:
            if strict:
                raise refused(f"the variable {name!r}", why, by_data) from why
            variables[name] = UNBOUND
            poisoned[name] = str(why)
            if not by_data:
                merger.unjoined = True
    contents: list[Any] = []
    tables = not by_data and _changes_tables(g, held, first, second)
    for container, before, a, b in zip(held.found, held.before, first.contents, second.contents, strict=True):
        if a is before and b is before:
            contents.append(before)
            continue
        ordered = held.is_ordered(container)
        contents.append(_merge_contents(merger, container, before, a, b, by_data, tables, ordered))
    writes: list[tuple[Any, Any]] = []
    bases = {id(e): e for side in (first, second) for e, _ in side.scope.written}
    for key, e in bases.items():
        values = [
            next((v for entry, v in side.scope.written if id(entry) == key), None) for side in (first, second)
        ]
        with g.passing_on():
            values = [g.val_of(e) if v is None else v for v in values]
        writes.append((e, merger.slot(lambda v: v, values[0], values[1])))
    ok: Any = None
    merger.joins.plan()
    found = first.scope.body.check, second.scope.body.check
    if found != (None, None):
        ok = merger.slot(lambda v: v, *(check or checks.true(g) for check in found))
    merger.outputs = outputs = _emit(g, test, merger, first, second)
    if ok is not None:
        checks.carry(g, outputs[ok.index], [side.scope.body for side in (first, second)])
    for e, slot in writes:
        put_value(g, e, outputs[slot.index])
        if all(side.scope.unwritten.get(e.group, e.group.unwritten) is None for side in (first, second)):
            e.group.unwritten = None
    if not by_data and (merger.unjoined or merger.sized) and g.env.is_plain(g.env.expr(condition)):
        here = place(), functions()
        g.env.chosen.update(dict.fromkeys(merger.sized, here))
        if merger.unjoined:
            ACTIVE.marks.unjoined.append(here)
    merger.joins.tie(outputs)
    for side in (first, second):
        lose(side.scope.lost)
    filled = Filled(outputs)
    cells.put({n: filled(v) for n, v in variables.items()})
    g.lost_variables.update({id(cells.cell(n)): cells.cell(n) for n in poisoned})
    g.poisoned.update({n: f"{why}, at {quoted_line()}" for n, why in poisoned.items()})
    held.put([c if c is before else filled(c) for c, before in zip(contents, held.before, strict=True)])
    outcome = filled(result)
    gradients.alone(merger.tensors)
    gradients.switched_by_sides(g, first.scope.switched, second.scope.switched)
    for made, a, b in merger.objects:
        equality.stands_for(filled.of(made), condition, a, b)
    return outcome


def _merge(merger: Merger, what: str, a: Any, b: Any, by_data: bool) -> Any:
    try:
        return merger.merge(a, b)
    except Unmergeable as why:
        raise refused(what, why, by_data) from why


def _changes_tables(g: Recorder, held: Containers, first: Side, second: Side) -> bool:
    """Whether a side puts another tensor into what the model holds."""
    for container, before, a, b in zip(held.found, held.before, first.contents, second.contents, strict=True):
        if a is before and b is before:
            continue
        known = {id(v) for v in kept(before)}
        new = [v for now in (a, b) if now is not before for v in kept(now) if id(v) not in known]
        if any(is_a(v, torch.Tensor) for v in inside_of(new)) and not g.made_by_call(container):
            return True
    return False


def _merge_contents(
    merger: Merger, container: Any, before: Any, a: Any, b: Any, by_data: bool, tables: bool, ordered: bool
) -> Any:
    """tables: whether the branch changes tables that the model keeps; ordered: as `merged` has it"""
    # Numbers that a model keeps about sizes decide what its layers do: they follow the example, written down.
    follow = functools.cache(lambda: not by_data and not merger.g.made_by_call(container))
    merger.numbers_follow, merger.tables = follow, tables
    try:
        made = merged(merger, container, before, a, b, ordered)
        if ACTIVE.maybes and any(is_a(v, Maybe) for v in kept(made)):
            ACTIVE.marks.take_everything()  # whoever looks into it must see that it may be None
        return made
    except Unmergeable as why:
        raise refused("a list, dict or object that this branch changes", why, by_data or follow()) from why
    finally:
        merger.numbers_follow, merger.tables = nothing_follows, False


def refused(what: str, why: Unmergeable, by_data: bool = True) -> DataDependentError:
    """The error for what has no common form."""
    kind = DataDependentError if by_data else Unjoined
    return kind(
        f"{quoted_line()}\n"
        f"Data decides this branch, and {what} would be {why}: no ONNX value can hold both. {why.edit}"
    )


def _emit(g: Recorder, test: ir.Value, merger: Merger, first: Side, second: Side) -> list[Any]:
    """The If node, and what its outputs become."""
    if not merger.slots:
        first.scope.body.discard()
        second.scope.body.discard()
        return []
    g.locate()
    for slot in merger.slots:  # both are of one dtype
        slot.then.type = slot.then.type or slot.other.type
        slot.other.type = slot.other.type or slot.then.type
    graphs = [
        g.graph.graph_of(side.scope.body, [getattr(s, part) for s in merger.slots], part)
        for side, part in ((first, "then"), (second, "other"))
    ]
    made = g.ops("If", test, n=len(merger.slots), then_branch=graphs[0], else_branch=graphs[1])
    for slot, value in zip(merger.slots, made, strict=True):
        value.type = slot.then.type
    return [slot.make(value) for slot, value in zip(merger.slots, made, strict=True)]
