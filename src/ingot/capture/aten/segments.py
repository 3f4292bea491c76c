"""Runs of elements: reduced each to one, or each element repeated as often as data says."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import composed, instead, row
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_REDUCTIONS = {"sum": "sum", "mean": "sum", "prod": "prod", "max": "amax", "min": "amin"}
_torch: Any = torch
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


@instead(_torch._convert_indices_from_coo_to_csr, torch.ops.aten._convert_indices_from_coo_to_csr.default)
def runs_of_rows(input: Tensor, size: Any, *, out_int32: bool = False) -> Tensor:
    """Where each row's run begins among sorted numbers of rows, and where the last one ends: [size + 1]."""
    counts = torch.zeros(size + 1, dtype=torch.int64)
    counts = counts.scatter_add(0, input.long() + 1, torch.ones_like(input, dtype=torch.int64))
    return counts.cumsum(0).to(torch.int32 if out_int32 else torch.int64)


@instead(_torch._convert_indices_from_csr_to_coo, torch.ops.aten._convert_indices_from_csr_to_coo.default)
def rows_of_runs(
    crow_indices: Tensor, col_indices: Tensor, *, out_int32: bool = False, transpose: bool = False
) -> Tensor:
    """The row and the column of each element, of where rows begin and of columns: [2, elements]."""
    rows = torch.repeat_interleave(crow_indices.diff(), output_size=col_indices.shape[0])
    both = [col_indices, rows] if transpose else [rows, col_indices]
    return torch.stack([x.to(torch.int32 if out_int32 else torch.int64) for x in both])
