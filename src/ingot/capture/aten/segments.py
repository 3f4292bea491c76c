"""Runs of elements: reduced each to one, or each element repeated as often as data says."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import composed, row
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_REDUCTIONS = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}
_EMPTY = {"sum": 0.0, "mean": math.nan, "prod": 1.0, "max": -math.inf, "min": math.inf}


@composed("segment_reduce")
def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Tensor:
    """Each run along an axis reduced to one element: runs by their lengths or their offsets, which have the
    axes before this one, too. `initial` takes part in each; a mean of it divides by the run's length.
    """
    size = data.shape[axis]
    if lengths is None:
        if offsets is None:
            raise ExportError("segment_reduce takes lengths or offsets; found neither. Give one of them.")
        count = offsets.shape[-1] - 1
        first, ends = offsets[..., :1].long(), offsets[..., 1:].long()
        lengths = ends - offsets[..., :-1].long()
    else:
        lengths = lengths.long()
        count = lengths.shape[-1]
        first, ends = torch.zeros(1, dtype=torch.int64), torch.cumsum(lengths, -1)
        if not unsafe:
            whole = (lengths.sum(-1) == size).all() & (lengths >= 0).all()
            torch.ops.aten._assert_async.msg(whole, "segment_reduce: lengths add up to the size of the axis")
    places = torch.arange(size)
    # Runs follow each other: an element's is the number of runs that end at it or before.
    run = (ends.unsqueeze(-2) <= places.unsqueeze(-1)).sum(-1)
    inside = (places >= first) & (run < count)
    run = torch.where(inside, run, count)  # one more, for elements of no run
    rest = data.dim() - axis - 1
    at = run.reshape([*run.shape, *[1] * rest]).expand(data.shape)
    shape = [*data.shape[:axis], count + 1, *data.shape[axis + 1 :]]
    start = _EMPTY[reduce if reduce != "mean" else "sum"] if initial is None else float(initial)
    total = torch.full(shape, start, dtype=data.dtype)
    total = torch.scatter_reduce(total, axis, at, data, _REDUCTIONS[reduce]).narrow(axis, 0, count)
    if reduce != "mean":
        return total
    long = lengths.reshape([*lengths.shape, *[1] * rest])
    nothing = torch.full_like(total, math.nan) if initial is None else total
    return torch.where(long == 0, nothing, total / long.to(data.dtype))


@row("repeat_interleave.Tensor")
def repeated_places(g: Recorder, out: Tensor, repeats: Tensor, *, output_size: Any = None) -> ir.Value:
    """The position of each number, as often as the number says: how many runs end at a place or before."""
    ends = g.op("CumSum", g.operand(repeats, torch.int64), g.const(0))
    size = g.op("ReduceSum", g.operand(repeats, torch.int64), keepdims=1)
    marks = g.op("Expand", g.const(0), g.op("Add", size, g.const([1])))
    ones = g.op("Expand", g.const(1), g.op("Shape", ends))
    marks = g.op("ScatterElements", marks, ends, ones, axis=0, reduction="add")
    found = g.op("Slice", g.op("CumSum", marks, g.const(0)), g.const([0]), size, g.const([0]))
    return g.cast(found, torch.int64, out.dtype)
