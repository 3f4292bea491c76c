"""Borders around a tensor."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import row

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


def padded(
    g: Recorder, x: ir.Value, rank: int, pad: Sequence[Any], mode: str, value: ir.Value | None = None
) -> ir.Value:
    """torch's pad list (last axis first) as an ONNX Pad."""
    count = len(pad) // 2
    if all(isinstance(p, int) and p == 0 for p in pad):
        return x
    axes = [rank - 1 - i for i in range(count)]
    begins, ends = list(pad[0::2]), list(pad[1::2])
    if mode != "constant" and any(isinstance(p, int) and p < 0 for p in pad):
        # Only a constant border may be negative in ONNX. An element of another is one of the whole tensor's.
        for axis, low, high in zip(axes, begins, ends, strict=True):
            size = g.op("Squeeze", g.op("Shape", x, start=axis, end=axis + 1), g.const([0]))
            last = g.op("Sub", size, g.const(1))
            count = g.op("Add", size, g.operand(low + high, torch.int64))
            at = g.op("Sub", g.op("Range", g.const(0), count, g.const(1)), g.operand(low, torch.int64))
            if mode == "edge":
                at = g.op("Min", g.op("Max", at, g.const(0)), last)
            else:
                at = g.op("Sub", last, g.op("Abs", g.op("Sub", last, g.op("Abs", at))))
            x = g.op("Gather", x, at, axis=axis)
        return x
    widths: list[Any] = [0] * (
        2 * rank
    )  # of all axes: behind a Transpose, onnxruntime forgets the input `axes`
    for axis, low, high in zip(axes, begins, ends, strict=True):
        widths[axis], widths[rank + axis] = low, high
    return g.op("Pad", x, g.shape(widths), value, mode=mode if mode != "constant" else None)


@row("constant_pad_nd")
def constant_pad(g: Recorder, out: Tensor, a: Tensor, pad: Sequence[Any], value: Any = 0) -> ir.Value:
    """A border of one value; negative widths cut."""
    fill = None if isinstance(value, (int, float)) and value == 0 else g.operand(value, a.dtype)
    if a.dtype == torch.bool:
        fill = g.const(int(value), torch.uint8) if fill is not None else None
        whole = padded(g, g.cast(g.val(a), torch.bool, torch.uint8), a.dim(), pad, "constant", fill)
        return g.cast(whole, torch.uint8, torch.bool)
    return padded(g, g.val(a), a.dim(), pad, "constant", fill)


@row("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(g: Recorder, out: Tensor, a: Tensor, pad: Sequence[Any]) -> ir.Value:
    """A mirrored border."""
    return padded(g, g.val(a), a.dim(), pad, "reflect")


@row("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(g: Recorder, out: Tensor, a: Tensor, pad: Sequence[Any]) -> ir.Value:
    """A border of the nearest element."""
    return padded(g, g.val(a), a.dim(), pad, "edge")
