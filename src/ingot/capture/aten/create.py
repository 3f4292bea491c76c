"""Tensors made from nothing: zeros, ones, full, arange, linspace, eye, one-hot."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import Row, row
from ingot.capture.aten.spaced import require_count, require_way, spaced

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def filled(g: Recorder, shape: Sequence[Any], value: Any, dtype: torch.dtype) -> ir.Value:
    """One number everywhere."""
    number = g.operand(value, dtype)
    return g.op("Expand", number, g.shape(shape)) if len(shape) else number


def _constant(value: int) -> Row:
    return lambda g, out, *args, **kwargs: filled(g, out.shape, value, out.dtype)


# Contents of `empty` are whatever torch finds in memory; here they are zeros: see `unwritten`.
row(
    "zeros",
    "zeros_like",
    "new_zeros",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "zero",
)(_constant(0))
row("ones", "ones_like", "new_ones")(_constant(1))


@row("full")
def full(g: Recorder, out: Tensor, size: Any, value: Any, **kwargs: Any) -> ir.Value:
    """A given number everywhere."""
    return filled(g, out.shape, value, out.dtype)


@row("full_like", "fill")
def full_like(g: Recorder, out: Tensor, a: Tensor, value: Any, **kwargs: Any) -> ir.Value:
    """A given number, in the shape of another tensor."""
    return filled(g, out.shape, value, out.dtype)


@row("new_full")
def new_full(g: Recorder, out: Tensor, a: Tensor, size: Any, value: Any, **kwargs: Any) -> ir.Value:
    """A given number, with the dtype of another tensor."""
    return filled(g, out.shape, value, out.dtype)


@row("scalar_tensor")
def scalar_tensor(g: Recorder, out: Tensor, value: Any, **kwargs: Any) -> ir.Value:
    """A number as a tensor."""
    return g.operand(value, out.dtype)


def _arange(g: Recorder, out: Tensor, start: Any, end: Any, step: Any) -> ir.Value:
    require_way(start, end, step)
    if not out.dtype.is_floating_point and not any(
        isinstance(v, (float, torch.SymFloat)) for v in (start, end, step)
    ):
        values = g.op("Range", *[g.operand(v, torch.int64) for v in (start, end, step)])
        return g.cast(values, torch.int64, out.dtype)
    wide = torch.float64 if out.dtype.is_floating_point else torch.int64  # of start and step
    count = g.op("Range", g.const(0), g.operand(out.shape[0], torch.int64), g.const(1))
    scaled = g.op("Mul", g.cast(count, torch.int64, wide), g.operand(step, wide))
    return g.cast(g.op("Add", scaled, g.operand(start, wide)), wide, out.dtype)


@row("arange")
def arange(g: Recorder, out: Tensor, end: Any, **kwargs: Any) -> ir.Value:
    """0, 1 … end - 1."""
    return _arange(g, out, 0, end, 1)


@row("arange.start")
def arange_start(g: Recorder, out: Tensor, start: Any, end: Any, **kwargs: Any) -> ir.Value:
    """start, start + 1 … end - 1."""
    return _arange(g, out, start, end, 1)


@row("arange.start_step")
def arange_step(g: Recorder, out: Tensor, start: Any, end: Any, step: Any = 1, **kwargs: Any) -> ir.Value:
    """start, start + step … before end."""
    return _arange(g, out, start, end, step)


@row("linspace")
def linspace(g: Recorder, out: Tensor, start: Any, end: Any, steps: Any, **kwargs: Any) -> ir.Value:
    """Evenly spaced from start to end, both included."""
    require_count("linspace", steps)
    return g.operand(g.recorded(spaced, start, end, steps, out.dtype), out.dtype)


@row("eye", "eye.m")
def eye(g: Recorder, out: Tensor, n: Any, m: Any = None, **kwargs: Any) -> ir.Value:
    """Ones on the diagonal."""
    require_count("eye", n, m)
    rows = g.op("Range", g.const(0), g.operand(n, torch.int64), g.const(1))
    columns = g.op("Range", g.const(0), g.operand(n if m is None else m, torch.int64), g.const(1))
    same = g.op("Equal", g.op("Unsqueeze", rows, g.const([1])), columns)
    return g.cast(same, torch.bool, out.dtype)
