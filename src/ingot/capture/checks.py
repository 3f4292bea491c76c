"""Conditions that data must meet, as `assert` and `raise` say: the exported model fails where one does not
hold.

ONNX has no operator that raises. What every runtime must refuse is a Reshape of one element to two: so a
check is `Reshape(token, Where(ok, [1], [2]))`, whose result is the token of the next check. At the end the
outputs take their value through `Expand(output, token[0:0])`, which changes nothing and needs every check.
Inside branches and loops a check is a boolean that is carried out of them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch

from ingot.capture.choice import Maybe
from ingot.capture.extent import of_formula
from ingot.capture.handlers import inside_try
from ingot.capture.objects import is_a
from ingot.capture.request import recorder, refuse
from ingot.capture.where import quoted_line, source_line
from ingot.capture.wording import in_bounds
from ingot.errors import DataDependentError, ExportError
from ingot.ops.registry import CHECK, SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ingot.capture.graph import Body
    from ingot.capture.record import Recorder
    from ingot.capture.size_facts import Guard

CHECKED = "ingot.checked"  # metadata of a node by which an output needs the checks


def require(g: Recorder, condition: ir.Value, what: str) -> None:
    """The model fails unless `condition`, a BOOL of shape [], holds."""
    g.assume("condition", what, "checked")
    _enforce(g, condition, source_line(), what)


def require_no_nan(g: Recorder, numbers: torch.Tensor, what: str) -> None:
    """The model fails where a NaN is among numbers, of which Python's answer hangs on more than they say."""
    if numbers.is_floating_point():
        none = torch.logical_not(torch.isnan(numbers).any())
        require(g, g.operand(none, torch.bool), what)


def require_true(g: Recorder, truth: torch.Tensor, what: str) -> None:
    """The model fails where a tensor of one truth is not true, unless no input decides it."""
    real = g.real(truth)
    if real is None or not real:
        require(g, g.val(truth), what)


def require_present(is_none: Any) -> None:
    """The model fails where what may be None is, as something is done with it that Python would raise for."""
    require_once(sympy.Not(recorder().env.expr(is_none)), f"what is used is not None: `{line()}`")


def require_divisor(divisor: Any) -> None:
    """The model fails where a number that data decides, and that divides, is 0."""
    g = recorder()
    if not isinstance(divisor, (torch.SymInt, torch.SymFloat)) or not g.env.of_data(g.env.expr(divisor)):
        return
    found: Any = divisor != 0
    if isinstance(found, torch.SymBool) and g.env.known(g.env.expr(found)) is None:
        require_uncaught("what divides is not 0", "Ask for it before: `if n != 0`.", ZeroDivisionError)
        require(g, g.scalar(found), "what divides is not 0")


def require_once(condition: Any, what: str) -> None:
    """As `require`, of a formula, unless it is known here, or was required before."""
    g = recorder()
    if condition in g.required or g.env.known(condition) is True:
        return
    if _resolved(g, condition, _implied(g)) != sympy.true:
        require(g, g.sizes.scalar_of(condition), what)
        g.required[condition] = True


def as_known(x: Any) -> Any:
    """What may be None as None or its value, where the branch that is recorded says which of them it is."""
    g = recorder()
    if not is_a(x, Maybe) or not isinstance(x.ingot_is_none, torch.SymBool):
        return x
    is_none = _resolved(g, g.env.expr(x.ingot_is_none), _implied(g))
    return None if is_none == sympy.true else x.ingot_value if is_none == sympy.false else x


def _implied(g: Recorder) -> set[Any]:
    """What is known in the branch that is recorded, as `and` and `or` have made its condition: those are
    numbers that an If chooses.
    """
    found, todo = set[Any](), list(g.env.path)
    while todo:
        e = todo.pop()
        found.add(e)
        symbol = next(iter(e.free_symbols), None)
        if isinstance(e, sympy.And):
            todo += e.args
        elif symbol in g.merged and e in (sympy.Eq(symbol, 1), sympy.Ne(symbol, 1)):
            holds = sympy.true if isinstance(e, sympy.Eq) else sympy.false
            condition, then, other = g.merged[symbol]
            for side, kept, is_it in ((other, then, condition), (then, other, sympy.Not(condition))):
                if side == sympy.Not(holds):  # so that the other one was taken
                    todo += [is_it, kept if holds == sympy.true else sympy.Not(kept)]
    return found


def _resolved(g: Recorder, e: Any, known: set[Any]) -> Any:
    """A condition as what an If has chosen for it, where it is known which way that went."""
    if e in known or not e.free_symbols:
        return sympy.true if e in known else e
    symbol = next(iter(e.free_symbols))
    if symbol in g.merged and e in (sympy.Eq(symbol, 1), sympy.Ne(symbol, 1)):
        condition, then, other = g.merged[symbol]
        condition = _resolved(g, condition, known)
        if condition in (sympy.true, sympy.false) or sympy.Not(condition) in known:
            side = then if condition == sympy.true else other
            return _resolved(g, side if isinstance(e, sympy.Eq) else sympy.Not(side), known)
    return e


def demand(g: Recorder, condition: torch.SymBool | bool, why: str) -> None:
    """The model is another one where a condition on sizes does not hold, and no operator would notice: it
    fails there. `why` says what Python does in words of the user's.

    Raises:
        RuntimeError: it does not hold for the example's sizes.
    """
    e = g.env.expr(condition) if isinstance(condition, torch.SymBool) else sympy.sympify(bool(condition))
    if g.env.known(e):
        return
    if not g.env.value(e):
        raise RuntimeError(f"{why}, for the sizes of the example and not for all")
    if g.graph.body is g.graph.root and not g.env.of_data(e):
        g.env.demand(e, why)  # perhaps it turns out to hold always
    else:
        require(g, g.sizes.scalar_of(e), why)


def of_empty(count: Any, python: str, model: str) -> None:
    """Note that a list of so many elements gives something of another kind in Python than in the model where
    it turns out empty, as verification may find at this line for sizes of 0. An export whose verification
    meets it for other sizes is refused.
    """
    g = recorder()
    if isinstance(count, torch.SymInt):
        g.empty_lists[f"{source_line()}: of an empty list {python}, and the exported model {model}"] = None


def insist_not_below(g: Recorder, n: Any, least: Any, said: str) -> None:
    """As `insist` of a number that is not to be below another."""
    whole = all(isinstance(x, (int, torch.SymInt)) for x in (n, least))
    if not whole or of_formula(g, g.env.expr(n) - g.env.expr(least))[0] < 0:
        insist(g, n >= least, said)


def insist(g: Recorder, condition: torch.SymBool | bool, said: str) -> None:
    """The model fails where PyTorch raises, because a number that sizes or data decide does not fit."""
    e = g.env.expr(condition) if isinstance(condition, torch.SymBool) else sympy.sympify(bool(condition))
    if g.env.of_data(e):
        require_once(e, said)
    else:
        demand(g, condition, said)


def demanded(g: Recorder) -> None:
    """At the end of a recording: what the model demands of sizes, the way that its own Python took for the
    example's, and declared ranges that something was decided by; not what is known to hold by now.
    """
    mattering = [guard for guard in g.env.held.values() if _matters(g, guard)]
    certain = g.env.bounds(mattering)  # which are checked, whatever else is
    for guard in mattering:
        if g.env.follows_from(certain, guard):
            continue
        condition = _here(g, guard)
        if condition is None:
            raise ExportError(
                f"{guard.where}\nThe model goes the way of the example here, by a size that is made inside "
                "of a branch or loop, and could not check it elsewhere. Ask for the size outside of it."
            )
        text = _text(guard)
        _enforce(g, _as_value(g, guard, condition), guard.where, text)
    _states_fit(g)
    for symbol, (low, high) in g.env.ranges.items():
        if symbol in g.env.leaned and g.sizes.visible(symbol):
            bounds: list[Any] = [(symbol, low)] if low else []
            bounds += [] if high is None else [(high, symbol)]
            for larger, smaller in bounds:
                holds = g.sizes.scalar_of(sympy.Ge(larger, smaller))
                _enforce(g, holds, "the declared range", in_bounds(g.env.names[symbol], low, high))


def _states_fit(g: Recorder) -> None:
    """A dimension of state that is an input's too has its size: operators would spread one of size 1."""
    for dropped, (kept, where, _) in g.env.unified.items():
        found = [g.sizes.sources.get(symbol) for symbol in (dropped, kept)]
        both = [f for f in found if f is not None and (f[0] in g.state_inputs or f[0].producer() is None)]
        if len(both) == 2 and any(value in g.state_inputs for value, _ in both):
            sizes = [g.op("Shape", value, start=axis, end=axis + 1) for value, axis in both]
            same = g.op("Squeeze", g.op("Equal", *sizes), g.const([0]))
            _enforce(g, same, where, f"{g.env.names[dropped]} is {g.env.names[kept]}")


def demanded_inside(g: Recorder, before: Mapping[Any, Guard], going: Any = None) -> None:
    """At the end of a body: what was demanded in it (not `before`) of sizes that are known in it alone, or
    behind branches on what is known in it alone.

    going: the condition under which a loop runs such a body; what is demanded in rounds is, without one, too
    """
    parent = g.graph.body.parent
    assert parent is not None, "the root's are checked at the end of the recording"
    for key, guard in list(g.env.held.items()):
        if key in before or not _matters(g, guard):
            continue
        condition, under = _here(g, guard), _known_under(g, guard)
        with g.graph.writing(parent):
            outside = set(_known_under(g, guard))
            if _here(g, guard) is not None and all(e in outside or e == going for e in under):
                continue
        if condition is not None:
            g.env.inside.append(g.env.held.pop(key))
            text = _text(guard)
            g.assume("branch" if guard.by_user else "condition", text, "checked", guard.where)
            _enforce(g, _as_value(g, guard, condition), guard.where, text)


def _matters(g: Recorder, guard: Guard) -> bool:
    """Whether a condition on sizes must be checked: nothing else would fail, and it may not hold."""
    if not (guard.demanded or guard.by_user):
        return False
    with g.env.doubting():
        return g.env.known(g.env.expand(guard.condition)) is None


def _here(g: Recorder, guard: Guard) -> Any:
    """The condition over sizes that are known where nodes are written now; None where it has no such form."""
    with g.env.doubting():
        for condition in (g.env.canon(guard.condition), g.env.expand(g.env.canon(guard.condition))):
            if g.env.holds_outside(condition, g.sizes.visible):
                return condition
    return None


def _known_under(g: Recorder, guard: Guard) -> list[Any]:
    """The conditions of the branches it stands in that are known where nodes are written now."""
    return [e for e in map(g.env.canon, guard.under) if g.env.holds_outside(e, g.sizes.visible)]


def _as_value(g: Recorder, guard: Guard, condition: Any) -> ir.Value:
    """The condition as a BOOL of shape [], true where the branch that it stands in is not taken."""
    under = _known_under(g, guard)
    whole = functools.reduce(lambda a, b: sympy.Or(a, sympy.Not(b)), under, condition)
    try:
        return g.sizes.scalar_of(whole)
    except ExportError as error:  # no form in ONNX
        raise ExportError(
            f"{guard.where}\nThe model goes the way of the example's sizes here, and cannot check that "
            f"others would go it too: {error}"
        ) from error


def _text(guard: Guard) -> str:
    way = "take the example's way" if guard.by_user else "fit each other"
    return guard.text or f"sizes {way} at this line"


def _enforce(g: Recorder, condition: ir.Value, where: str, what: str) -> None:
    if g.graph.body is g.graph.root:
        ones = g.op("Where", condition, g.const([1]), g.const([2]))
        before = g.token if g.token is not None else g.const([0])
        scope, g.graph.scope = g.graph.scope, f"check at {where}"
        g.token = g.op("Reshape", before, ones)
        g.graph.scope = scope
        node = g.token.producer()
        assert node is not None
        node.metadata_props[CHECK] = what
        node.metadata_props[SOURCE] = where
        return
    g.graph.body.checked[where] = what
    _join(g, condition)


def _join(g: Recorder, condition: ir.Value) -> None:
    """One more condition of the body that is being written."""
    body = g.graph.body
    body.check = condition if body.check is None else both(g, body.check, condition)


def carry(g: Recorder, condition: ir.Value, bodies: Sequence[Body]) -> None:
    """Checks that were made inside of these bodies, and noted there, go on outside."""
    found = {where: what for body in bodies for where, what in body.checked.items()}
    if g.graph.body is not g.graph.root:
        g.graph.body.checked |= found
        _join(g, condition)
    elif len(found) == 1:
        _enforce(g, condition, *found.popitem())
    else:
        listed = "; ".join(f"{where}: {what}" for where, what in found.items())
        _enforce(g, condition, source_line(), f"one of the checks inside of this branch or loop: {listed}")


def require_uncaught(what: str, edit: str, *errors: type[Exception]) -> None:
    """Raises DataDependentError where the model would catch what Python raises if a check does not hold: one
    of these errors.
    """
    if any(inside_try(error=error) for error in errors):
        refuse(
            DataDependentError(
                f"{quoted_line()}\nData or a size decides whether {what}, inside a `try` that may catch that "
                f"it is not so: an ONNX model cannot catch errors. {edit}"
            )
        )


def require_place(index: Any, size: Any, what: str) -> None:
    """The same of a place in a list or along an axis, which data decides, or how many there are."""
    if not inside_try(error=IndexError):
        return
    env = recorder().env
    asked = (index >= -size, index < size) if not isinstance(index, torch.Tensor) else (None,)
    conditions = [env.expr(c) if isinstance(c, torch.SymBool) else c for c in asked]
    if any(
        c is None or (not isinstance(c, bool) and env.of_data(c) and not env.known(c)) for c in conditions
    ):
        require_uncaught(f"{what} has this place", "Ask with `if` before.", IndexError)


def line() -> str:
    """The text of the user's line."""
    return quoted_line().split(": ", 1)[-1]


def through_checks(g: Recorder, value: ir.Value) -> ir.Value:
    """An output that needs every check."""
    if g.token is None:
        return value
    nothing = g.op("Slice", g.token, g.const([0]), g.const([0]))
    made = g.op("Expand", value, nothing)
    node = made.producer()
    assert node is not None, "op() makes a node"
    node.metadata_props[CHECKED] = ""
    made.shape, made.type = value.shape, value.type
    return made


def both(g: Recorder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Two conditions as one, of a declared dtype: of a body that never runs nothing else may tell it."""
    made = g.op("And", a, b)
    made.type, made.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
    return made


def true(g: Recorder) -> ir.Value:
    """The condition that always holds."""
    return g.const(True, torch.bool)
