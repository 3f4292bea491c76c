"""Cholesky's decomposition, and what is solved with it."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.linalg import (
    DECOMPOSED,
    batched,
    diagonal_of,
    info_of,
    like,
    line_at,
    positions,
    relies_on_success,
    without_elements,
)
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import composed, row
from ingot.capture.graph import GraphWriter
from ingot.capture.tensors import dtype_of

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


def _cholesky(g: Recorder, a: Tensor) -> ir.Value:
    """L with L Lᵀ = a as [b, n, n]; reads the lower triangle. NaN from the first column that fails."""
    dtype = dtype_of(a.dtype)
    x = batched(g, g.val(a), a)

    def body(b: GraphWriter, k: ir.Value, x: ir.Value, lower: ir.Value) -> list[ir.Value]:
        i, j = positions(b, x, 1), positions(b, x, 2)
        zero = b.const(0.0, dtype)
        column = line_at(b, x, k, 2)
        root = b.op("Sqrt", line_at(b, column, k, 1))
        column = b.op("Where", b.op("Less", i, k), zero, b.op("Div", column, root))
        x = b.op("Sub", x, b.op("Mul", column, b.op("Transpose", column, perm=[0, 2, 1])))
        return [x, b.op("Where", b.op("Equal", j, k), column, lower)]

    zeros = g.op("Expand", g.const(0.0, a.dtype), g.op("Shape", x))
    return loop(g, g.operand(a.shape[-1], torch.int64), [x, zeros], [dtype, dtype], [3, 3], body)[1]


def _failed(g: Recorder, lower: ir.Value, dtype: torch.dtype) -> ir.Value:
    return g.op("Not", g.op("Greater", diagonal_of(g, lower, dtype), g.const(0.0, dtype)))


@row("linalg_cholesky_ex")
def cholesky_ex(g: Recorder, out: Any, a: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """L, or its transpose from the upper triangle, and info."""
    if check_errors:
        relies_on_success(g, DECOMPOSED)
    if g.is_empty(a):
        return without_elements(g, out)
    source = g.recorded(lambda: a.mT) if upper else a
    lower = _cholesky(g, source)
    info = info_of(g, out[1], _failed(g, lower, a.dtype))
    value = g.op("Transpose", lower, perm=[0, 2, 1]) if upper else lower
    return [like(g, value, out[0].shape), info]


@row("cholesky")
def cholesky(g: Recorder, out: Tensor, a: Tensor, upper: bool = False) -> ir.Value:
    """L, or its transpose."""
    if g.is_empty(a):
        return without_elements(g, out)
    relies_on_success(g, "the matrix is positive definite")
    lower = _cholesky(g, g.recorded(lambda: a.mT) if upper else a)
    return like(g, g.op("Transpose", lower, perm=[0, 2, 1]) if upper else lower, out.shape)


@composed("cholesky_solve", "_cholesky_solve_helper")
def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    """x with (L Lᵀ) x = b."""
    lower = factor.mT if upper else factor
    y = torch.linalg.solve_triangular(lower, b, upper=False)
    return torch.linalg.solve_triangular(lower.mT, y, upper=True)


@composed("cholesky_inverse")
def cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    """The inverse of L Lᵀ."""
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype).expand_as(factor)
    return cholesky_solve(eye, factor, upper)
