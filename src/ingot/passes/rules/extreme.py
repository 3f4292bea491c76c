"""Extremes that see a NaN: files spell it out for runtimes that do not; Ingot's kernels see it anyway."""

from __future__ import annotations

import math

import onnx_ir as ir

from ingot.ops.registry import attr_int
from ingot.passes.edit import constant_shape, ints_of, scalar_of
from ingot.passes.rewrite import Result, Rewriting, made_by, rule


def _flagged(value: ir.Value | None) -> ir.Value | None:
    """x of Cast(IsNaN(x))."""
    flags = made_by(value, "Cast")
    found = None if flags is None else made_by(flags.inputs[0], "IsNaN")
    return None if found is None else found.inputs[0]


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """Over which axes, all of them if none is named, and whether they stay; None where that is not known."""
    kept = attr_int(node, "keepdims", 1)
    if node.op_type.startswith("Arg"):
        return (kept, attr_int(node, "axis", 0))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = () if given is None else ints_of(given)
    return None if axes is None or attr_int(node, "noop_with_empty_axes", 0) else (kept, *axes)


@rule("Where", needs=("IsNaN",))
def extreme(g: Rewriting, node: ir.Node) -> Result:
    """Where(any(IsNaN(x)), NaN, ReduceMax(x)) == ReduceMax(x), as Ingot's kernels have it; so with ReduceMin;
    Where(any(IsNaN(x)), ArgMax(IsNaN(x)), ArgMax(x)) == ArgMax(x); so with ArgMin.
    """
    found = made_by(node.inputs[0], "Cast")
    some = None if found is None else made_by(found.inputs[0], "ReduceMax")
    x = None if some is None else _flagged(some.inputs[0])
    y = made_by(node.inputs[2], "ReduceMax", "ReduceMin", "ArgMax", "ArgMin")
    if some is None or x is None or y is None or y.inputs[0] is not x:
        return None
    if _axes(y) is None or _axes(some) != _axes(y):
        return "the two reductions are of other axes"
    if y.op_type.startswith("Reduce"):
        number = scalar_of(node.inputs[1])
        if number is None or not math.isnan(number):
            return None
        if constant_shape(node.inputs[1]):
            return "the NaN has axes, and may give the result more of them"
    else:
        first = made_by(node.inputs[1], "ArgMax")
        if first is None or _flagged(first.inputs[0]) is not x or _axes(first) != _axes(y):
            return None
        if any(attr_int(n, "select_last_index", 0) for n in (first, y)):
            return "the last of equal elements is wanted"
    if g.standard:
        return "other runtimes may lose the NaN"
    return [y.outputs[0]]


RULES = (extreme,)
