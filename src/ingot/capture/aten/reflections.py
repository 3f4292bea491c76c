"""QR by LAPACK's reflections."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.linalg import (
    batched,
    bound,
    count_of,
    identity,
    like,
    line_at,
    positions,
    smaller,
    without_elements,
)
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import row
from ingot.capture.graph import GraphWriter
from ingot.capture.tensors import dtype_of

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


def _reflected(g: Recorder, a: Tensor) -> tuple[ir.Value, ir.Value]:
    """LAPACK's geqrf: R on and above the diagonal, the reflections' vectors below it [b, n, m]; their factors
    [b, k].
    """
    key = ("qr", id(g.val(a)))
    known = g.memo.get(key)
    if known is not None:
        return known
    dtype = dtype_of(a.dtype)
    x = batched(g, g.val(a), a)
    count = smaller(a.shape[-2], a.shape[-1])
    taus = g.op(
        "Expand",
        g.const(0.0, a.dtype),
        g.op("Concat", g.op("Shape", x, start=0, end=1), g.sizes.dim(count), axis=0),
    )

    def body(b: GraphWriter, k: ir.Value, x: ir.Value, taus: ir.Value) -> list[ir.Value]:
        i, j = positions(b, x, 1), positions(b, x, 2)
        zero, one = b.const(0.0, dtype), b.const(1.0, dtype)
        column = line_at(b, x, k, 2)  # [b, n, 1]
        alpha = line_at(b, column, k, 1)
        rest = b.op("Where", b.op("Greater", i, k), column, zero)
        below = b.op("ReduceSumSquare", rest, b.const([1]), keepdims=1)
        norm = b.op("Sqrt", b.op("Add", b.op("Mul", alpha, alpha), below))
        beta = b.op("Where", b.op("Less", alpha, zero), norm, b.op("Neg", norm))
        none = b.op("Equal", below, zero)  # nothing below the diagonal: no reflection
        beta = b.op("Where", none, alpha, beta)
        safe = b.op("Where", none, one, beta)
        tau = b.op("Where", none, zero, b.op("Div", b.op("Sub", beta, alpha), safe))
        scale = b.op("Where", none, one, b.op("Sub", alpha, beta))
        v = b.op("Where", b.op("Equal", i, k), one, b.op("Div", rest, scale))
        turned = b.op("Transpose", v, perm=[0, 2, 1])
        dots = b.op("MatMul", turned, x)  # [b, 1, m]
        moved = b.op("Sub", x, b.op("Mul", tau, b.op("Mul", v, dots)))
        right = b.op("Greater", j, k)
        x = b.op("Where", right, moved, x)
        mine = b.op("Where", b.op("Equal", i, k), beta, b.op("Where", b.op("Greater", i, k), v, column))
        x = b.op("Where", b.op("Equal", j, k), mine, x)
        size = b.op("Squeeze", b.op("Shape", taus, start=1, end=2), b.const([0]))
        at = b.op("Unsqueeze", b.op("Equal", b.op("Range", b.const(0), size, b.const(1)), k), b.const([0]))
        return [x, b.op("Where", at, b.op("Squeeze", tau, b.const([2])), taus)]

    made = loop(g, g.operand(count, torch.int64), [x, taus], [dtype, dtype], [3, 2], body)
    known = g.memo[key] = (made[0], made[1])
    return known


def _applied(
    g: Recorder,
    packed: ir.Value,
    taus: ir.Value,
    count: Any,
    target: ir.Value,
    dtype: torch.dtype,
    forward: bool,
) -> ir.Value:
    """Q target (reflections from the last to the first) or Qᵀ target, target being [b, n, k]."""
    kind = dtype_of(dtype)

    def body(b: GraphWriter, turn: ir.Value, packed: ir.Value, taus: ir.Value, y: ir.Value) -> list[ir.Value]:
        k = turn
        if not forward:
            size = b.op("Squeeze", b.op("Shape", taus, start=1, end=2), b.const([0]))
            k = b.op("Sub", b.op("Sub", size, b.const(1)), turn)
        i = positions(b, packed, 1)
        column = line_at(b, packed, k, 2)
        v = b.op("Where", b.op("Greater", i, k), column, b.const(0.0, kind))
        v = b.op("Where", b.op("Equal", i, k), b.const(1.0, kind), v)
        tau = b.op("Unsqueeze", line_at(b, taus, k, 1), b.const([2]))
        dots = b.op("MatMul", b.op("Transpose", v, perm=[0, 2, 1]), y)
        return [packed, taus, b.op("Sub", y, b.op("Mul", tau, b.op("Mul", v, dots)))]

    states = [packed, taus, target]
    return loop(g, g.operand(count, torch.int64), states, [kind] * 3, [3, 2, 3], body)[2]


@row("geqrf")
def geqrf(g: Recorder, out: Any, a: Tensor) -> list[ir.Value]:
    """The packed factorisation and its factors."""
    if g.is_empty(a):
        return without_elements(g, out)
    packed, taus = _reflected(g, a)
    return [like(g, packed, out[0].shape), like(g, taus, out[1].shape)]


@row("linalg_qr")
def qr(g: Recorder, out: Any, a: Tensor, mode: str = "reduced") -> list[ir.Value]:
    """Q with orthonormal columns and R."""
    if g.is_empty(a):
        made = g.recorded(
            lambda: [
                torch.eye(*o.shape[-2:], dtype=o.dtype).expand(o.shape)
                if i == 0 and o.dim() > 1
                else torch.zeros(o.shape, dtype=o.dtype)
                for i, o in enumerate(out)
            ]
        )
        return [g.val(m) for m in made]
    packed, taus = _reflected(g, a)
    n, count = a.shape[-2], smaller(a.shape[-2], a.shape[-1])
    whole = bound(g, a.shape, a.dtype, like(g, packed, a.shape))
    rows = n if mode == "complete" else count
    upper = g.val(g.recorded(lambda: whole.narrow(-2, 0, rows).triu()))
    if mode == "r":
        return [without_elements(g, out[0]), upper]
    eye = identity(g, n, g.op("Shape", packed, start=0, end=1), a.dtype)
    if mode == "reduced":
        eye = g.op("Slice", eye, g.const([0]), g.sizes.dim(count), g.const([2]))
    q = _applied(g, packed, taus, count, eye, a.dtype, False)
    return [like(g, q, out[0].shape), upper]


@row("linalg_householder_product")
def householder_product(g: Recorder, out: Tensor, a: Tensor, tau: Tensor) -> ir.Value:
    """The first columns of the product of reflections."""
    if g.is_empty(a):
        return without_elements(g, out)
    packed = batched(g, g.val(a), a)
    if g.is_empty(tau):
        eye = identity(g, a.shape[-2], g.op("Shape", packed, start=0, end=1), a.dtype)
        return like(g, g.op("Slice", eye, g.const([0]), g.sizes.dim(a.shape[-1]), g.const([2])), out.shape)
    taus = g.op("Reshape", g.val(tau), g.shape([count_of(a), tau.shape[-1]]), allowzero=1)
    eye = identity(g, a.shape[-2], g.op("Shape", packed, start=0, end=1), a.dtype)
    eye = g.op("Slice", eye, g.const([0]), g.sizes.dim(a.shape[-1]), g.const([2]))
    return like(g, _applied(g, packed, taus, tau.shape[-1], eye, a.dtype, False), out.shape)


@row("ormqr")
def ormqr(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    tau: Tensor,
    other: Tensor,
    left: bool = True,
    transpose: bool = False,
) -> ir.Value:
    """Q c, Qᵀ c, c Q or c Qᵀ for Q given by its reflections."""
    if g.is_empty(a) or g.is_empty(other):
        return without_elements(g, out)
    target = other if left else g.recorded(lambda: other.mT)
    packed = batched(g, g.val(a), a)
    taus = g.op("Reshape", g.val(tau), g.shape([count_of(a), tau.shape[-1]]), allowzero=1)
    forward = transpose if left else not transpose
    y = _applied(g, packed, taus, tau.shape[-1], batched(g, g.val(target), target), a.dtype, forward)
    made = bound(g, target.shape, a.dtype, like(g, y, target.shape))
    return g.val(made if left else g.recorded(lambda: made.mT))
