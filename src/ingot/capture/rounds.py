"""Loops of rewritten code: one after the other where Python knows the rounds, else as a Loop.

Python knows how many rounds a `for` over a range has, and data may end it before. Where there are many, and
they do the same, they are a Loop too: written out, a hundred rounds are a hundred branches.
"""

# Values are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import checks, early, turns
from ingot.capture.branch import branch
from ingot.capture.cells import Cells
from ingot.capture.forms import Differ, Peel
from ingot.capture.lists import Rows, TracedList, Yields
from ingot.capture.loop import Loop, Round
from ingot.capture.merge import UNBOUND
from ingot.capture.objects import is_a
from ingot.capture.request import ACTIVE, place, recorder
from ingot.capture.standins import sequences, values
from ingot.capture.where import quoted_line, raise_if_ours
from ingot.capture.words import Word
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

UNROLLED = 10_000
FEW = 8  # rounds that are written out, however alike they are
LARGE = 2_000  # nodes that rounds with branches of their own may have, written out


@dataclass(frozen=True)
class Work:
    """What each round of a loop does.

    go: asked before each round, whether it is run
    names, head, live: variables that rounds write; those read in the next round; those read behind the loop
    """

    body: Callable[[Any], Any]
    go: Callable[[], Any] | None
    cells: Cells
    names: Sequence[str]
    head: Sequence[str]
    live: Sequence[str]

    @property
    def kept(self) -> list[str]:
        """Variables whose value matters after a round."""
        return list(dict.fromkeys([*self.head, *self.live]))

    def loop(self, rt: Runtime, body: Callable[[Any], Any], peeled: bool, fixed: int | None = None) -> Loop:
        """The rounds as a Loop; `body` takes the number of the round."""
        parts = self.cells, self.names, self.head, self.live
        return Loop(recorder(), body, self.go, rt.test, *parts, peeled, fixed)


def repeat(
    rt: Runtime,
    test: Callable[[], Any],
    body: Callable[[], Any],
    names: Sequence[str],
    head: Sequence[str],
    live: Sequence[str],
) -> None:
    """`while test(): body()`."""
    _repeat(rt, test, Work(lambda _: body(), test, Cells(body, test), names, head, live), False)


def _repeat(rt: Runtime, test: Callable[[], Any], work: Work, peeled: bool) -> None:
    """The rounds that are left; `peeled`: the first one was recorded by itself."""
    for _ in range(UNROLLED):
        condition = values.weighed(test())
        if rt.waits(condition):
            first = rt.truth(condition)

            def rest() -> None:
                work.body(None)
                _repeat(rt, test, work, True)

            if not _recorded(work.loop(rt, work.body, peeled), None, rt.test(first)):
                _first_apart(rt, work, first, rest)
            return
        if not rt.truth(condition):
            return
        work.body(None)
    raise DataDependentError(
        f"{quoted_line()}\nThis loop ran {UNROLLED} times while being recorded. Loop over a tensor or a size."
    )


def each(
    rt: Runtime,
    items: Any,
    body: Callable[[Any], Any],
    go: Callable[[], Any] | None,
    names: Sequence[str],
    head: Sequence[str],
    live: Sequence[str],
    found_later: Sequence[Any] = (),
    is_kept: bool = False,
) -> None:
    """`for item in items: body(item)`, while `go()`.

    found_later: what others may go on with, if it is an iterator that the items come from; with `is_kept`,
        the items themselves too
    """
    found_later = (*found_later, items) if is_kept else found_later
    items = sequences.begun(items)
    early.refuse_passed((items,))
    if is_a(items, Word):
        sides = [partial(each, rt, v, body, go, names, head, live, found_later) for v in items.ingot_sides]
        kept = list(dict.fromkeys([*head, *live]))
        rt.branch(items.ingot_condition, sides[0], sides[1], names, kept, Cells(body, go))
        return
    work = Work(body, go, Cells(body, go), names, head, live)
    if is_a(items, Yields):
        _each_yielded(rt, items, work)
        return
    try:
        rows = sequences.gone_through(items)
    except DataDependentError:
        if not (is_a(items, TracedList) and items.is_counted):
            raise
        rows, items = None, items.parts()  # no tensor holds them all
    if rows is None:
        _each_known(rt, items, work, found_later)
    else:
        early.refuse_iterators(found_later)
        _each_row(rt, rows, Work(body, go, Cells(body, go, around=[rows]), names, head, live), 0)


def _each_row(rt: Runtime, rows: Rows, work: Work, start: int) -> None:
    """The rounds from a row on, of which those before were recorded by themselves."""
    going = work.go() if work.go is not None else True
    if not rt.waits(going) and not rt.truth(going):
        return
    first = rt.test(going) if work.go is not None else None
    loop = work.loop(rt, lambda i: work.body(rows.at(i + start)), start > 0)

    def rest() -> None:
        work.body(rows.at(0))
        _each_row(rt, rows, work, 1)

    if not _recorded(loop, rows.length - start, first):
        _first_apart(rt, work, rt.both(going, lambda: rows.length > start), rest)


def _recorded(loop: Loop, trips: Any, first: ir.Value | None) -> bool:
    """Record a loop. False where its first round must be recorded by itself."""
    try:
        loop.record(trips, first)
    except Peel:
        return False
    return True


def _first_apart(rt: Runtime, work: Work, some: Any, rest: Callable[[], None]) -> None:
    """The first round by itself and those after it, as `rest` records them: an If, as there may be none.
    Where what it leaves has no common form with what is there without it, the model checks that there is one.
    """
    if rt.waits(some):
        g = recorder()
        condition = rt.truth(some)
        try:
            with _attempt():
                test = g.scalar(condition)
                branch(g, condition, test, rest, _nothing, work.names, work.live, work.cells, strict=True)
            return
        except Exception as error:  # whatever it is that has no such form
            raise_if_ours(error)
            checks.require(g, rt.test(condition), f"`{checks.line()}` runs at least once")
    rest()


def _each_known(rt: Runtime, items: Any, work: Work, found_later: Sequence[Any]) -> None:
    """A loop whose rounds Python knows, of which data may skip the last ones, or some: written out, until the
    rest is a Loop.
    """
    apart = work.go is None  # whether the first round must be recorded by itself, or says whether it pays
    written = recorder().graph.nodes
    since = len(written)
    left = early.rounds(items)
    for turn in itertools.count():
        going = work.go() if work.go is not None else True
        waits = rt.waits(going)
        if waits:
            early.require_known(items)
        elif not rt.truth(going):
            return
        taken = next(left, None)  # not before: a `break` leaves it to others
        if taken is None:
            return
        there, make = taken
        if waits:
            early.refuse_iterators(found_later)
        if turn == int(apart) and isinstance(items, range) and len(items) > FEW:
            known = work.go is None or turn > 0 or not rt.waits(going)
            pays = known and (work.go is not None or _is_large(written[since:], len(items)))
            try:
                if pays and _as_loop(rt, items[turn:], work, going, peeled=apart):
                    return
            except Peel:
                apart = True
        going = rt.both(going, lambda there=there: there)
        if not rt.waits(going):
            if rt.truth(going):
                work.body(make())
            continue
        g = recorder()
        condition = rt.truth(going)
        branch(
            g,
            condition,
            g.scalar(condition),
            lambda make=make: work.body(make()),
            _nothing,
            work.names,
            work.kept,
            Cells(work.body, work.go, around=[make]),
        )


def _is_large(round_: Sequence[ir.Node], rounds: int) -> bool:
    """Whether rounds like the first one have branches of their own, and would be too many nodes."""
    new = list(_inside(round_))
    return len(new) * rounds > LARGE and any(node.op_type in ("If", "Loop") for node in new)


def _as_loop(rt: Runtime, items: range, work: Work, going: Any, peeled: bool) -> bool:
    """Rounds that Python knows as a Loop, where they are alike; whether they are.

    They are not where each takes something else of Python's (the layers of a list), nor where what they leave
    behind has forms that no Loop carries.

    going: whether there is a first one of them

    Raises:
        Peel: it must be recorded by itself.
    """
    here = place()
    if here in ACTIVE.marks.unrolled:
        return False
    first = rt.test(going)
    loop = work.loop(rt, lambda i: work.body(items.start + i * items.step), peeled, fixed=len(items))
    try:
        with _attempt():
            done = loop.settled()
            _require_alike(loop, done, work)
            loop.write(done, len(items), first)
        return True
    except Peel:
        raise
    except Differ:
        pass
    except Exception as error:  # whatever it is that has no such form: written out, it may have
        raise_if_ours(error)
    ACTIVE.marks.unrolled.add(here)
    return False


def _require_alike(loop: Loop, done: Round, work: Work) -> None:
    """Data must decide whether there is another round; of rounds that Python counts, sizes must stay.

    Raises:
        Differ: Python would know, or sizes change.
    """
    if work.go is None:
        alike = not loop.changes_sizes()
    else:
        alike = isinstance(done.going, torch.SymBool) and not turns.is_known(recorder(), done.going)
    if not alike:
        done.scope.body.discard()
        raise Differ


@contextlib.contextmanager
def _attempt() -> Generator[None]:
    """A recording that may be given up: nothing of it is left then, as if it had not been tried."""
    g = recorder()
    modules, refusals = len(g.modules), (ACTIVE.refusal, ACTIVE.final)
    try:
        with g.attempt():
            yield
    except BaseException:
        del g.modules[modules:]
        ACTIVE.refusal, ACTIVE.final = refusals
        raise


def _inside(nodes: Iterable[ir.Node]) -> Iterable[ir.Node]:
    """Nodes, with those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _inside(attribute.as_graph())


def _each_yielded(rt: Runtime, items: Yields, work: Work) -> None:
    """A loop over a generator: the loop's body runs where the generator yields."""
    body, go, cells, kept = work.body, work.go, work.cells, work.kept  # branches look for what `emit` has
    passing = [n for n in work.names if n not in kept]  # no round finds them as the one before left them

    def emit(value: Any) -> Any:
        body(value)
        cells.put(dict.fromkeys(passing, UNBOUND))
        return False if go is None else rt.opposite(go())

    items.give(emit)


def _nothing() -> None:
    return None
