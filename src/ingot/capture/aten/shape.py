"""Operators that move elements about: reshape, transpose, slice, concatenate, expand, roll."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import instead, row
from ingot.capture.checks import demand
from ingot.capture.size_symbols import product
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor
END = (1 << 63) - 1


def reshape_to(g: Recorder, x: ir.Value, before: Sequence[Any], after: Sequence[Any]) -> ir.Value:
    """Reshape with as little shape arithmetic as possible: 0 keeps a dimension, -1 takes the rest, which
    only sizes above 0 beside it tell.
    """
    same = len(before) == len(after) and all(g.same_size(a, b) for a, b in zip(before, after, strict=True))
    if same:
        return x
    sizes = [g.sizes.number(d) for d in after]
    if None not in sizes:
        return g.op("Reshape", x, g.const(sizes), allowzero=1 if 0 in sizes else None)
    added = unsqueezed_axes(g, before, after)
    if added is not None:
        return g.op("Unsqueeze", x, g.const(added))
    dropped = unsqueezed_axes(g, after, before)
    if dropped is not None:
        return g.op("Squeeze", x, g.const(dropped))
    if 0 in sizes:
        return g.op("Reshape", x, g.shape(after), allowzero=1)
    target: list[int | None] = [
        0 if n is None and i < len(before) and g.same_size(before[i], after[i]) else n
        for i, n in enumerate(sizes)
    ]
    open_places = [i for i, n in enumerate(target) if n is None]
    if not open_places:
        return g.op("Reshape", x, g.const(target))
    kept = [after[i] for i, n in enumerate(target) if n == 0]
    if len(open_places) == 1 and all(g.env.known(g.env.expr(d) > 0) for d in kept):
        target[open_places[0]] = -1
        return g.op("Reshape", x, g.const(target))
    return g.op("Reshape", x, g.shape(after), allowzero=1)


def unsqueezed_axes(g: Recorder, before: Sequence[Any], after: Sequence[Any]) -> list[int] | None:
    """The axes of `after` that are new 1s, when it is `before` with 1s put in; else None."""
    if len(after) <= len(before):
        return None
    axes: list[int] = []
    i = 0
    for j, d in enumerate(after):
        if i < len(before) and g.same_size(before[i], d):
            i += 1
        elif g.sizes.number(d) == 1:
            axes.append(j)
        else:
            return None
    return axes if i == len(before) else None


@row("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "unflatten")
def view(g: Recorder, out: Tensor, a: Tensor, *size: Any) -> ir.Value:
    """Another shape over the same elements."""
    if out.dtype != a.dtype:
        raise ExportError(
            f"view as {out.dtype} of a {a.dtype} tensor reinterprets bits, which ONNX cannot. Use .to()."
        )
    return reshape_to(g, g.val(a), a.shape, out.shape)


@row("flatten", "flatten.using_ints")
def flatten(g: Recorder, out: Tensor, a: Tensor, *dims: Any) -> ir.Value:
    """Dimensions merged."""
    return reshape_to(g, g.val(a), a.shape, out.shape)


@row("t", "numpy_T", "t_copy")
def t(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """A matrix transposed."""
    return g.op("Transpose", g.val(a), perm=list(range(a.dim()))[::-1]) if a.dim() > 1 else g.val(a)


@row("transpose", "transpose_copy")
def transpose(g: Recorder, out: Tensor, a: Tensor, dim0: int, dim1: int) -> ir.Value:
    """Two axes swapped."""
    rank = a.dim()
    if rank < 2 or dim0 % rank == dim1 % rank:
        return g.val(a)
    perm = list(range(rank))
    perm[dim0 % rank], perm[dim1 % rank] = perm[dim1 % rank], perm[dim0 % rank]
    return g.op("Transpose", g.val(a), perm=perm)


@row("permute", "permute_copy")
def permute(g: Recorder, out: Tensor, a: Tensor, dims: Sequence[int]) -> ir.Value:
    """Axes in another order."""
    perm = [d % a.dim() for d in dims]
    return g.val(a) if perm == list(range(a.dim())) else g.op("Transpose", g.val(a), perm=perm)


@row("unsqueeze", "unsqueeze_copy")
def unsqueeze(g: Recorder, out: Tensor, a: Tensor, dim: int) -> ir.Value:
    """A new axis of size 1."""
    return g.op("Unsqueeze", g.val(a), g.const([dim % out.dim()]))


@row("squeeze", "squeeze_copy")
def squeeze(g: Recorder, out: Tensor, a: Tensor, dim: Any = None) -> ir.Value:
    """Axes of size 1 dropped. A symbolic size is kept, so it must not be 1: the rank would be another."""
    if not a.dim():
        return g.val(a)
    dims = (
        range(a.dim())
        if dim is None
        else [d % a.dim() for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
    )
    axes = [d for d in dims if g.sizes.number(a.shape[d]) == 1]
    for d in dims:
        size: Any = a.shape[d]
        if g.sizes.number(size) is None:
            demand(g, size != 1, "An axis of size 1 would be dropped here")
    return g.op("Squeeze", g.val(a), g.const(axes)) if axes else g.val(a)


@row("expand", "expand_copy")
def expand(g: Recorder, out: Tensor, a: Tensor, size: Any, *, implicit: bool = False) -> ir.Value:
    """Axes of size 1 repeated."""
    if g.is_empty(out):  # onnxruntime drops an Expand from 1 to 0 alone
        return g.op("Expand", g.const(0, out.dtype), g.shape(out.shape))
    lead = out.dim() - a.dim()
    target = [1 if i >= lead and g.same_size(a.shape[i - lead], d) else d for i, d in enumerate(out.shape)]
    if lead == 0 and all(g.sizes.number(d) == 1 for d in target):
        return g.val(a)
    return g.op("Expand", g.val(a), g.shape(target))


@row("repeat")
def repeat(g: Recorder, out: Tensor, a: Tensor, repeats: Sequence[Any]) -> ir.Value:
    """The tensor tiled."""
    x = g.val(a)
    lead = len(repeats) - a.dim()
    if lead:
        x = g.op("Unsqueeze", x, g.const(list(range(lead))))
    if all(isinstance(r, int) and r == 1 for r in repeats):
        return x
    return g.op("Tile", x, g.shape(repeats))


@row("tile")
def tile(g: Recorder, out: Tensor, a: Tensor, repeats: Sequence[Any]) -> ir.Value:
    """As repeat, with missing leading counts taken as 1."""
    return repeat(g, out, a, [1] * (a.dim() - len(repeats)) + list(repeats))


@row("repeat_interleave.self_int")
def repeat_interleave(
    g: Recorder, out: Tensor, a: Tensor, repeats: Any, dim: Any = None, *, output_size: Any = None
) -> ir.Value:
    """Each element repeated along dim."""
    x, shape = g.val(a), list(a.shape)
    if dim is None:
        x, shape, dim = g.op("Reshape", x, g.const([-1])), [product(shape)], 0
    dim = dim % len(shape)
    wide = g.op("Unsqueeze", x, g.const([dim + 1]))
    counts = [1] * (len(shape) + 1)
    counts[dim + 1] = repeats
    return reshape_to(
        g, g.op("Expand", wide, g.shape(counts)), [*shape[: dim + 1], repeats, *shape[dim + 1 :]], out.shape
    )


def bound(g: Recorder, x: Any) -> ir.Value:
    """A slice bound as a tensor of shape [1]."""
    return g.const([min(x, END)]) if isinstance(x, int) else g.sizes.dim(x)


def slice_values(g: Recorder, x: ir.Value, dim: int, start: Any, end: Any, step: int = 1) -> ir.Value:
    """x[start:end:step] along dim."""
    args = [bound(g, start), bound(g, end), g.const([dim])]
    return g.op("Slice", x, *args, g.const([step])) if step != 1 else g.op("Slice", x, *args)


@row("slice", "slice_copy")
def slice_(
    g: Recorder, out: Tensor, a: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> ir.Value:
    """a[start:end:step] along dim."""
    dim = dim % a.dim()
    start = 0 if start is None else start
    end = END if end is None else end
    if step == 1 and isinstance(start, int) and start == 0 and g.same_size(out.shape[dim], a.shape[dim]):
        return g.val(a)
    return slice_values(g, g.val(a), dim, start, end, step)


@row("narrow")
def narrow(g: Recorder, out: Tensor, a: Tensor, dim: int, start: Any, length: Any) -> ir.Value:
    """length elements from start."""
    return slice_values(g, g.val(a), dim % a.dim(), start, start + length)


@row("select", "select_copy")
def select(g: Recorder, out: Tensor, a: Tensor, dim: int, index: Any) -> ir.Value:
    """One position of an axis, the axis dropped."""
    return g.op("Gather", g.val(a), g.scalar(index), axis=dim % a.dim())


@row("cat", "concat", "concatenate")
def cat(g: Recorder, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> ir.Value:
    """Tensors end to end; torch lets empty 1-D tensors through, they add nothing."""
    kept = [x for x in tensors if not (x.dim() == 1 and out.dim() != 1 and g.sizes.number(x.shape[0]) == 0)]
    values = [g.operand(x, out.dtype) for x in kept]
    return values[0] if len(values) == 1 else g.op("Concat", *values, axis=dim % out.dim())


@row("stack")
def stack(g: Recorder, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> ir.Value:
    """Tensors along a new axis."""
    axis = dim % out.dim()
    values = [g.op("Unsqueeze", g.operand(x, out.dtype), g.const([axis])) for x in tensors]
    return values[0] if len(values) == 1 else g.op("Concat", *values, axis=axis)


def _split(g: Recorder, out: Sequence[Tensor], a: Tensor, dim: int) -> list[ir.Value]:
    axis = dim % a.dim()
    if len(out) == 1:
        return [g.val(a)]
    lengths = g.shape([o.shape[axis] for o in out])
    return list(g.ops("Split", g.val(a), lengths, n=len(out), axis=axis))


@row("split", "split_with_sizes", "split_copy", "split_with_sizes_copy", "chunk", "tensor_split")
def split(g: Recorder, out: Sequence[Tensor], a: Tensor, sizes: Any, dim: int = 0) -> list[ir.Value]:
    """Consecutive pieces of an axis."""
    return _split(g, out, a, dim)


@row("unbind", "unbind_copy")
def unbind(g: Recorder, out: Sequence[Tensor], a: Tensor, dim: int = 0) -> list[ir.Value]:
    """Every position of an axis, the axis dropped."""
    axis = dim % a.dim()
    return [g.op("Gather", g.val(a), g.const(i), axis=axis) for i in range(len(out))]


@row("flip")
def flip(g: Recorder, out: Tensor, a: Tensor, dims: Sequence[int]) -> ir.Value:
    """Axes reversed."""
    n = len(dims)
    if n == 0 or not a.dim():
        return g.val(a)
    axes = [d % a.dim() for d in dims]
    return g.op("Slice", g.val(a), g.const([-1] * n), g.const([-END] * n), g.const(axes), g.const([-1] * n))


@row("roll")
def roll(g: Recorder, out: Tensor, a: Tensor, shifts: Any, dims: Any = ()) -> ir.Value:
    """Elements shifted round: x[-s:] then x[:-s]."""
    shifts = [shifts] if not isinstance(shifts, (list, tuple)) else list(shifts)
    dims = [dims] if not isinstance(dims, (list, tuple)) else list(dims)
    x = g.val(a)
    if not a.dim():
        return x
    if not dims:
        flat = g.op("Reshape", x, g.const([-1]))
        return g.op("Reshape", _rolled(g, flat, 0, shifts[0], a.numel()), g.op("Shape", x), allowzero=1)
    for s, d in zip(shifts, dims, strict=True):
        x = _rolled(g, x, d % a.dim(), s, a.shape[d])
    return x


def _rolled(g: Recorder, x: ir.Value, dim: int, shift: Any, length: Any) -> ir.Value:
    if (isinstance(shift, int) and shift == 0) or length == 0:
        return x
    if isinstance(shift, int) and isinstance(length, int) and length:
        start: Any = -shift % length
        if start == 0:
            return x
        at = g.const([start])
    else:
        at = g.op("Mod", g.op("Neg", bound(g, shift)), g.op("Max", g.sizes.dim(length), g.const([1])))
    axes = g.const([dim])
    first = g.op("Slice", x, at, g.const([END]), axes)
    return g.op("Concat", first, g.op("Slice", x, g.const([0]), at, axes), axis=dim)


@instead(torch.tensor_split, Tensor.tensor_split)
def tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, **kwargs: Any) -> Any:
    """Its C++ reads a tensor of indices where there is nothing to read."""
    names = ("tensor_indices_or_sections", "indices", "sections")
    at = next((kwargs[n] for n in names if n in kwargs), indices_or_sections)
    if isinstance(at, Tensor):
        at = at.item() if at.dim() == 0 else [i.item() for i in at.unbind(0)]
    return torch.ops.aten.tensor_split(input, at, dim)
