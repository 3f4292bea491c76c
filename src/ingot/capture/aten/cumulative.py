"""Running products, extremes and log-sums along an axis, as scans."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.loops import scan
from ingot.capture.aten.reduce import HALVES
from ingot.capture.aten.registry import Row, row
from ingot.capture.graph import GraphWriter
from ingot.capture.tensors import dtype_of, inner_dtype

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def _start(g: Recorder, a: Tensor, axis: int, value: Any, dtype: torch.dtype) -> ir.Value:
    """One number in the shape of a slice."""
    sizes = [n for d, n in enumerate(a.shape) if d != axis]
    number = g.const(value, dtype)
    return g.op("Expand", number, g.shape(sizes)) if sizes else number


@row("cumprod")
def cumprod(g: Recorder, out: Tensor, a: Tensor, dim: int, *, dtype: Any = None) -> ir.Value:
    """Running product, of halves in float32."""
    if a.dim() == 0 or g.is_empty(a):
        return g.operand(a, out.dtype)
    inner = inner_dtype(out.dtype)
    x, axis, kind = g.operand(a, inner), dim % a.dim(), dtype_of(inner)

    def body(b: GraphWriter, total: ir.Value, item: ir.Value) -> list[ir.Value]:
        made = b.op("Mul", total, item)
        return [made, made]

    one = _start(g, a, axis, 1, inner)
    made = scan(g, [one], [x], axis, [kind, kind], a.dim() - 1, body, 1)[1]
    return g.cast(made, inner, out.dtype)


@row("logcumsumexp")
def logcumsumexp(g: Recorder, out: Tensor, a: Tensor, dim: int) -> ir.Value:
    """log of the running sum of exp: the larger of two plus log(1 + exp(-distance))."""
    x = g.val(a)
    if a.dim() == 0 or g.is_empty(a):
        return x
    axis, kind = dim % a.dim(), dtype_of(out.dtype)

    def body(b: GraphWriter, total: ir.Value, item: ir.Value) -> list[ir.Value]:
        high, low = b.op("Max", total, item), b.op("Min", total, item)
        # Equal infinities have no distance; they add at most log 2 to what is infinite anyway.
        same = b.op("Equal", high, low)
        apart = b.op("Where", same, b.const(0.0, kind), b.op("Sub", low, high))
        made = b.op("Add", high, b.op("Log", b.op("Add", b.const(1.0, kind), b.op("Exp", apart))))
        return [made, made]

    start = _start(g, a, axis, -math.inf, out.dtype)
    return scan(g, [start], [x], axis, [kind, kind], a.dim() - 1, body, 1)[1]


def _extreme(compare: str, worst: str) -> Row:
    def emit(g: Recorder, out: Any, a: Tensor, dim: int) -> list[ir.Value]:
        if a.dim() == 0 or g.is_empty(a):
            return [g.val(a), g.op("Expand", g.const(0), g.shape(a.shape))]
        dtype = torch.int32 if a.dtype in (torch.bool, *HALVES) else a.dtype
        x, axis, kind = g.operand(a, dtype), dim % a.dim(), dtype_of(dtype)
        integer = ir.DataType.INT64

        def body(b: GraphWriter, best: ir.Value, at: ir.Value, i: ir.Value, item: ir.Value) -> list[ir.Value]:
            better = b.op(compare, item, best)
            if dtype.is_floating_point:  # a NaN is taken, and kept but for the next NaN
                better = b.op("And", better, b.op("Not", b.op("IsNaN", best)))
                better = b.op("Or", better, b.op("IsNaN", item))
            best, at = b.op("Where", better, item, best), b.op("Where", better, i, at)
            return [best, at, b.op("Add", i, b.const(1, integer)), best, at]

        limits: Any = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
        if dtype.is_floating_point:
            start = -math.inf if worst == "min" else math.inf
        else:
            start = limits.min if worst == "min" else limits.max
        zeros = _start(g, a, axis, 0, torch.int64)
        states = [_start(g, a, axis, start, dtype), zeros, zeros]
        made = scan(g, states, [x], axis, [kind, integer, integer, kind], a.dim() - 1, body, 2)
        return [g.cast(made[3], dtype, a.dtype), made[4]]

    return emit


# Of equal elements torch takes the last.
row("cummax")(_extreme("GreaterOrEqual", "min"))
row("cummin")(_extreme("LessOrEqual", "max"))
