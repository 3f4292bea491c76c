"""Diagonals, triangles, and elements by their places in memory."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import composed, row
from ingot.capture.entries import WHOLE_VIEWS
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


def diagonal_places(
    g: Recorder, rank: int, dim1: int, dim2: int, offset: int, length: Any
) -> tuple[list[int], ir.Value]:
    """The order of axes with these two in front, and the places [length, 2] of their diagonal."""
    d1, d2 = dim1 % rank, dim2 % rank
    perm = [d1, d2, *[d for d in range(rank) if d not in (d1, d2)]]
    i = g.op("Range", g.const(0), g.operand(length, torch.int64), g.const(1))
    first = g.op("Add", i, g.const(max(-offset, 0)))
    second = g.op("Add", i, g.const(max(offset, 0)))
    pairs = [g.op("Unsqueeze", v, g.const([1])) for v in (first, second)]
    return perm, g.op("Concat", *pairs, axis=1)


@row("diagonal", "diagonal_copy")
def diagonal(g: Recorder, out: Tensor, a: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> ir.Value:
    """The elements [i, i + offset] of two axes, as a last axis."""
    rank = a.dim()
    perm, places = diagonal_places(g, rank, dim1, dim2, offset, out.shape[-1])
    x = g.op("GatherND", g.op("Transpose", g.val(a), perm=perm), places)
    return x if rank == 2 else g.op("Transpose", x, perm=[*range(1, rank - 1), 0])


@row("tril")
def tril(g: Recorder, out: Tensor, a: Tensor, diagonal: int = 0) -> ir.Value:
    """The lower triangle."""
    return _trilu(g, a, diagonal, 0)


@row("triu")
def triu(g: Recorder, out: Tensor, a: Tensor, diagonal: int = 0) -> ir.Value:
    """The upper triangle."""
    return _trilu(g, a, diagonal, 1)


def _trilu(g: Recorder, a: Tensor, diagonal: int, upper: int) -> ir.Value:
    x = g.cast(g.val(a), a.dtype, torch.int32) if a.dtype == torch.bool else g.val(a)
    y = g.op("Trilu", x, g.const(diagonal), upper=upper)
    return g.cast(y, torch.int32, torch.bool) if a.dtype == torch.bool else y


def _is_plain(a: Tensor) -> bool:
    """Whether a tensor's elements lie in order from the beginning of its memory."""
    return a.is_contiguous() and a.storage_offset() == 0


def _in_memory(
    g: Recorder, a: Tensor, size: Sequence[Any], stride: Sequence[Any], offset: Any
) -> tuple[Tensor, Tensor]:
    """The tensor that owns a's memory, flat, and the places in it that a strided view shows."""
    entry = g.entry(a)
    start: Any = a.storage_offset() if offset is None else offset
    part = False
    while entry.view is not None:
        parent = entry.view.parent
        part = part or entry.view.op not in WHOLE_VIEWS
        if _is_plain(entry.tensor) and not _is_plain(parent.tensor):
            break  # reshaped: it lies as its own sizes say, and so do the strides that were read
        entry = parent
    root = entry.tensor
    if g.lies_otherwise is not None:  # and so what operators make of it, element by element
        raise ExportError(
            f"The example's {g.lies_otherwise!r} does not lie in memory as its elements are counted, and "
            "as_strided takes elements by their places there: inputs of ONNX always lie so. Pass it with "
            ".contiguous()."
        )
    if part or not _is_plain(root):
        raise ExportError(
            "as_strided depends on memory layout, which ONNX does not have; it is followed in a tensor that "
            "is contiguous. Use view, unfold or slicing."
        )
    g.assume(
        "values", "as_strided takes the tensor's memory to be contiguous, as it is in the export", "fixed"
    )
    n = len(size)
    places: Any = torch.zeros([1] * n, dtype=torch.int64) + start
    for axis in range(n):
        steps = torch.arange(size[axis]) * stride[axis]
        places = places + steps.reshape([-1 if d == axis else 1 for d in range(n)])
    return root.reshape(-1), places


@row("as_strided", "as_strided_copy")
def as_strided(
    g: Recorder, out: Tensor, a: Tensor, size: Any, stride: Any, storage_offset: Any = None
) -> ir.Value:
    """Elements by their places in memory."""
    same = len(out.shape) == a.dim() and all(
        g.same_size(x, y) for x, y in zip(out.shape, a.shape, strict=True)
    )
    start: Any = a.storage_offset()
    moved = storage_offset is not None and not g.same_size(storage_offset, start)
    if same and tuple(out.stride()) == tuple(a.stride()) and not moved:
        return g.val(a)

    def call() -> Tensor:
        flat, places = _in_memory(g, a, size, stride, storage_offset)
        return flat.index_select(0, places.reshape(-1)).reshape(out.shape)

    return g.val(g.recorded(call))


@row("as_strided_scatter")
def as_strided_scatter(
    g: Recorder, out: Tensor, a: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: Any = None
) -> ir.Value:
    """a with elements replaced, by their places in memory."""

    def call() -> Tensor:
        flat, places = _in_memory(g, a, size, stride, storage_offset)
        return flat.index_put([places.reshape(-1)], src.reshape(-1)).reshape(a.shape)

    return g.val(g.recorded(call))


@composed("diagonal_scatter")
def diagonal_scatter(a: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """a with a diagonal replaced."""
    moved = a.movedim((dim1, dim2), (0, 1))
    i = torch.arange(src.shape[-1])
    rows, columns = i + max(-offset, 0), i + max(offset, 0)
    return moved.index_put([rows, columns], src.movedim(-1, 0)).movedim((0, 1), (dim1, dim2))
