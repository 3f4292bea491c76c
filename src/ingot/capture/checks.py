"""Conditions that data must meet, as `assert` and `raise` say: the exported model fails where one does not
hold.

ONNX has no operator that raises. What every runtime must refuse is a Reshape of one element to two: so a
check is `Reshape(token, Where(ok, [1], [2]))`, whose result is the token of the next check. At the end the
outputs take their value through `Expand(output, token[0:0])`, which changes nothing and needs every check.
Inside branches and loops a check is a boolean that is carried out of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch

from ingot.capture.where import quoted_line, source_line
from ingot.ops.registry import CHECK, SOURCE

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


def require(g: Recorder, condition: ir.Value, what: str) -> None:
    """The model fails unless `condition`, a BOOL of shape [], holds."""
    g.assume("condition", what, "checked")
    _enforce(g, condition, source_line(), what)


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


def demanded(g: Recorder) -> None:
    """At the end of a recording: what the model demands of sizes, and what is not known to hold by now."""
    for guard in list(g.env.held.values()):
        if guard.demanded and g.env.known(g.env.expand(guard.condition)) is None:
            _enforce(g, g.sizes.scalar_of(g.env.canon(guard.condition)), guard.where, guard.text)


def _enforce(g: Recorder, condition: ir.Value, where: str, what: str) -> None:
    if g.graph.body is g.graph.root:
        ones = g.op("Where", condition, g.const([1]), g.const([2]))
        before = g.token if g.token is not None else g.const([0])
        scope, g.graph.scope = g.graph.scope, f"check at {where}"
        g.token = g.op("Reshape", before, ones)
        g.graph.scope = scope
        node = g.token.producer()
        assert node is not None
        node.metadata_props[CHECK] = what or "a check inside of this branch or loop"
        node.metadata_props[SOURCE] = where
        return
    if g.check is not None:
        condition = g.op("And", g.check, condition)
    g.check = condition


def line() -> str:
    """The text of the user's line."""
    return quoted_line().split(": ", 1)[-1]


def through_checks(g: Recorder, value: ir.Value) -> ir.Value:
    """An output that needs every check."""
    if g.token is None:
        return value
    nothing = g.op("Slice", g.token, g.const([0]), g.const([0]))
    made = g.op("Expand", value, nothing)
    made.shape, made.type = value.shape, value.type
    return made


def all_hold(g: Recorder, a: ir.Value | None, b: ir.Value | None) -> ir.Value | None:
    """Both checks, where there are any."""
    if a is None or b is None:
        return a if b is None else b
    return g.op("And", a, b)


def true(g: Recorder) -> ir.Value:
    """The condition that always holds."""
    return g.const(True, torch.bool)
