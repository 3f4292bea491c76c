"""Operators that move elements about: reshape, transpose, slice, concatenate, pad, expand, roll, windows."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.registry import composed, instead, row, whole
from ingot.capture.checks import demand
from ingot.capture.entries import WHOLE_VIEWS
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
    if n == 0:
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
        # Only a constant border may be negative in ONNX. The nearest element is one of the whole tensor's;
        # of a mirrored one, what is cut is cut first.
        if mode == "edge":
            for axis, low, high in zip(axes, begins, ends, strict=True):
                size = g.op("Squeeze", g.op("Shape", x, start=axis, end=axis + 1), g.const([0]))
                count = g.op("Add", size, g.operand(low + high, torch.int64))
                at = g.op("Sub", g.op("Range", g.const(0), count, g.const(1)), g.operand(low, torch.int64))
                last = g.op("Sub", size, g.const(1))
                x = g.op("Gather", x, g.op("Min", g.op("Max", at, g.const(0)), last), axis=axis)
            return x
        for axis, low, high in zip(axes, begins, ends, strict=True):
            if low < 0 or high < 0:
                x = slice_values(g, x, axis, max(-low, 0), high if high < 0 else END)
        begins, ends = ([max(p, 0) for p in ps] for ps in (begins, ends))
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


def _fake_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    *lead, c, h, w = input.shape
    r = upscale_factor
    return input.new_empty([*lead, c // r**2, h * r, w * r])


def _fake_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    *lead, c, h, w = input.shape
    r = downscale_factor
    return input.new_empty([*lead, c * r**2, h // r, w // r])


def _fake_channels(input: Tensor, groups: int) -> Tensor:
    return input.detach()


@whole(torch.pixel_shuffle, meta=_fake_shuffle)
@row("pixel_shuffle")
def pixel_shuffle(g: Recorder, out: Tensor, input: Tensor, upscale_factor: int) -> ir.Value:
    """Channels to space: [.., c r², h, w] to [.., c, h r, w r]."""
    a, factor = input, upscale_factor
    if a.dim() == 4:
        return g.op("DepthToSpace", g.val(a), blocksize=factor, mode="CRD")
    *lead, c, h, w = a.shape
    n = len(lead)
    parted = [*lead, c // factor**2, factor, factor, h, w]
    x = reshape_to(g, g.val(a), a.shape, parted)
    x = g.op("Transpose", x, perm=[*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return reshape_to(g, x, [*lead, c // factor**2, h, factor, w, factor], out.shape)


@whole(torch.pixel_unshuffle, meta=_fake_unshuffle)
@row("pixel_unshuffle")
def pixel_unshuffle(g: Recorder, out: Tensor, input: Tensor, downscale_factor: int) -> ir.Value:
    """Space to channels, the inverse of pixel_shuffle."""
    a, factor = input, downscale_factor
    *lead, c, h, w = a.shape
    n = len(lead)
    x = reshape_to(g, g.val(a), a.shape, [*lead, c, h // factor, factor, w // factor, factor])
    x = g.op("Transpose", x, perm=[*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return reshape_to(g, x, [*lead, c, factor, factor, h // factor, w // factor], out.shape)


@whole(torch.channel_shuffle, meta=_fake_channels)
@row("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(g: Recorder, out: Tensor, input: Tensor, groups: int) -> ir.Value:
    """Channels of the groups interleaved."""
    a = input
    n, c, *rest = a.shape
    parted = [n, groups, c // groups, *rest]
    x = reshape_to(g, g.val(a), a.shape, parted)
    x = g.op("Transpose", x, perm=[0, 2, 1, *range(3, len(parted))])
    return reshape_to(g, x, [n, c // groups, groups, *rest], a.shape)


def window_indices(g: Recorder, count: Any, step: int, size: int, spread: int) -> ir.Value:
    """[count, size] positions: window * step + offset * spread."""
    starts = g.op("Mul", g.op("Range", g.const(0), g.operand(count, torch.int64), g.const(1)), g.const(step))
    offsets = g.const([i * spread for i in range(size)])
    return g.op("Add", g.op("Unsqueeze", starts, g.const([1])), offsets)


@row("unfold", "unfold_copy")
def unfold(g: Recorder, out: Tensor, a: Tensor, dim: int, size: int, step: int) -> ir.Value:
    """Sliding windows along dim, as a new last axis."""
    if a.dim() == 0:
        return g.op("Reshape", g.val(a), g.const([1])) if size else g.op("Expand", g.val(a), g.const([0]))
    dim, rank = dim % a.dim(), a.dim()
    x = g.op("Gather", g.val(a), window_indices(g, out.shape[dim], step, size, 1), axis=dim)
    perm = [i for i in range(rank + 1) if i != dim + 1] + [dim + 1]
    return x if perm == list(range(rank + 1)) else g.op("Transpose", x, perm=perm)


@row("im2col")
def im2col(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    kernel: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> ir.Value:
    """Image patches as columns: [n, c kh kw, positions]; [c kh kw, positions] of one image."""
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = kernel, dilation, padding, stride
    h, w = a.shape[-2:]
    image = g.val(a) if a.dim() == 4 else g.op("Unsqueeze", g.val(a), g.const([0]))
    rows = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    x = padded(g, image, 4, [pw, pw, ph, ph], "constant")
    x = g.op("Gather", x, window_indices(g, rows, sh, kh, dh), axis=2)  # n c rows kh w
    x = g.op("Gather", x, window_indices(g, columns, sw, kw, dw), axis=4)  # n c rows kh columns kw
    x = g.op("Transpose", x, perm=[0, 1, 3, 5, 2, 4])
    return g.op("Reshape", x, g.shape(out.shape), allowzero=1)


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


@instead(torch.tensor_split, Tensor.tensor_split)
def tensor_split(input: Tensor, indices_or_sections: Any = None, dim: int = 0, **kwargs: Any) -> Any:
    """Its C++ reads a tensor of indices where there is nothing to read."""
    names = ("tensor_indices_or_sections", "indices", "sections")
    at = next((kwargs[n] for n in names if n in kwargs), indices_or_sections)
    if isinstance(at, Tensor):
        at = at.item() if at.dim() == 0 else [i.item() for i in at.unbind(0)]
    return torch.ops.aten.tensor_split(input, at, dim)
