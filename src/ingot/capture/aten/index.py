"""Indexing: embedding, gather, scatter, advanced indexing and writes through indices."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.either import either
from ingot.capture.aten.elementwise import floor_div
from ingot.capture.aten.registry import composed, row
from ingot.capture.size_symbols import product
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_MASKS = (torch.bool, torch.uint8)
_QUICK_SUMS = (torch.float32, torch.float16, torch.bfloat16)
_FOUND = (torch.bool, torch.float32, torch.int32, torch.int64, torch.uint8)  # as NonZero has them everywhere


@row("embedding")
def embedding(
    g: Recorder, out: Tensor, weight: Tensor, indices: Tensor, *rest: Any, **kwargs: Any
) -> ir.Value:
    """Rows of a table."""
    return g.op("Gather", g.val(weight), g.val(indices), axis=0)


@row("_embedding_bag_forward_only", "_embedding_bag")
def embedding_bag(
    g: Recorder, out: Any, weight: Tensor, indices: Tensor, offsets: Tensor, *rest: Any, **kwargs: Any
) -> Any:
    """Sums, means or maxima of the rows of each bag."""
    last = kwargs.get("include_last_offset", rest[4] if len(rest) > 4 else False)
    g.note_offsets(offsets, indices.shape[0], 2 if last else 1)
    return g.traced(_bags, out, weight, indices, offsets, *rest, **kwargs)


def _bags(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor | None, ...]:
    """Offsets say where the bags begin; the last of them, if it is included, where the last bag ends.

    torch looks at that end only in its quick sums (and their means, whose counts go on): everywhere else
    the last bag takes what is left.
    """
    bags = offsets.shape[0] - (1 if include_last_offset else 0)
    begins = offsets.narrow(0, 0, bags)
    places = torch.arange(indices.shape[0], dtype=offsets.dtype)
    bag = torch.searchsorted(begins, places, right=True)  # from 1: in front of all bags is nothing kept
    rows = weight.index_select(0, indices)
    kept = torch.ones_like(bag) if padding_idx < 0 else (indices != padding_idx).long()
    count = torch.zeros(bags + 1, dtype=torch.int64).index_add(0, bag, kept).narrow(0, 1, bags).unsqueeze(1)
    if mode == 2:
        low = torch.full([bags + 1, weight.shape[1]], -math.inf, dtype=weight.dtype)
        rows = torch.where(kept.unsqueeze(1) == 1, rows, -math.inf).to(weight.dtype)
        most = low.scatter_reduce(0, bag.unsqueeze(1).expand_as(rows), rows, "amax").narrow(0, 1, bags)
        return torch.where(count > 0, most, 0.0).to(weight.dtype), None, None, None
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    if include_last_offset and padding_idx < 0 and weight.dtype in _QUICK_SUMS:
        kept = (places < offsets.narrow(0, bags, 1)).long()
    rows = torch.where(kept.unsqueeze(1) == 1, rows, 0.0).to(weight.dtype)
    total = torch.zeros(bags + 1, weight.shape[1], dtype=weight.dtype).index_add(0, bag, rows)
    total = total.narrow(0, 1, bags)
    return (total / torch.clamp_min(count, 1) if mode == 1 else total), None, None, None


@composed("embedding_renorm")
def embedding_renorm(weight: Tensor, indices: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Rows that are looked up made as short as `max_norm`, where they are longer."""
    used = torch.zeros(weight.shape[0], dtype=torch.bool)
    used = used.index_put([indices.reshape(-1).long()], torch.ones([], dtype=torch.bool)).unsqueeze(1)
    norms = torch.linalg.vector_norm(weight, norm_type, 1, keepdim=True)
    return torch.where(used & (norms > max_norm), weight * (max_norm / (norms + 1e-7)), weight)


@row("index_select")
def index_select(g: Recorder, out: Tensor, a: Tensor, dim: int, index: Tensor) -> ir.Value:
    """Positions of an axis."""
    if a.dim() == 0:  # the only position there is, as often as it is asked for
        return g.val(a) if out.dim() == 0 else g.op("Expand", g.val(a), g.shape(out.shape))
    at = g.val(index) if index.dim() else g.op("Unsqueeze", g.val(index), g.const([0]))
    return g.op("Gather", g.val(a), at, axis=dim % a.dim())


@row("gather")
def gather(
    g: Recorder, out: Tensor, a: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False
) -> ir.Value:
    """One element per position of the index; ONNX lets the other axes be shorter too."""
    if g.is_empty(index):  # torch does not even compare its rank
        return g.op("Expand", g.const(0, a.dtype), g.shape(list(out.shape)))
    places = g.operand(index, torch.int64) if index.dtype != torch.int32 else g.val(index)
    if a.dim() and index.dim():
        return g.op("GatherElements", g.val(a), places, axis=dim % a.dim())
    flat = [_with_axis(g, a, g.val(a)), _with_axis(g, index, places)]
    return g.op("Reshape", g.op("GatherElements", *flat, axis=0), g.shape(list(out.shape)), allowzero=1)


def _with_axis(g: Recorder, tensor: Tensor, value: ir.Value) -> ir.Value:
    """torch takes a number for a tensor of one axis here, ONNX does not."""
    return value if tensor.dim() else g.op("Reshape", value, g.const([1]))


@row("take")
def take(g: Recorder, out: Tensor, a: Tensor, index: Tensor) -> ir.Value:
    """Elements counted along all axes."""
    return g.op("Gather", g.op("Reshape", g.val(a), g.const([-1])), g.val(index), axis=0)


@row("take_along_dim")
def take_along_dim(g: Recorder, out: Tensor, a: Tensor, indices: Tensor, dim: Any = None) -> ir.Value:
    """gather, with the whole tensor flat when no dim is given."""
    if dim is None:
        return g.op(
            "Gather", g.op("Reshape", g.val(a), g.const([-1])), g.op("Reshape", g.val(indices), g.const([-1]))
        )
    return g.op("GatherElements", g.val(a), g.val(indices), axis=dim % a.dim())


@row("index", "_unsafe_index")
def index(g: Recorder, out: Tensor, a: Tensor, indices: Sequence[Tensor | None]) -> ir.Value:
    """a[i, j, :, mask]: index tensors broadcast against each other, masks count as the positions they
    select.
    """
    x, rank = g.val(a), a.dim()
    given = [(d, i) for d, i in enumerate(indices) if i is not None]
    if len(given) == 1 and given[0][1].dtype in (torch.bool, torch.uint8):
        return _masked(g, a, *given[0])
    expanded: list[tuple[int, ir.Value, int]] = []  # axis, positions, rank of positions
    axis = 0
    for i in indices:
        if i is None:
            axis += 1
        elif i.dtype in _MASKS:
            found = g.op("NonZero", g.operand(i, torch.bool))
            for k in range(i.dim()):
                expanded.append((axis + k, g.op("Gather", found, g.const(k), axis=0), 1))
            axis += i.dim()
        else:
            expanded.append((axis, g.operand(i, torch.int64), i.dim()))
            axis += 1
    if len(expanded) == 1:
        return g.op("Gather", x, expanded[0][1], axis=expanded[0][0])
    axes = [d for d, _, _ in expanded]
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    rest = [d for d in range(rank) if d not in axes]
    if axes != list(range(len(axes))):
        x = g.op("Transpose", x, perm=axes + rest)
    selected = max(r for _, _, r in expanded)
    x = g.op("GatherND", x, _stacked(g, [v for _, v, _ in expanded], [r for _, _, r in expanded]))
    if not adjacent or axes[0] == 0:
        return x
    # The selected axes go back to where the first index stood.
    before = axes[0]
    perm = [
        *range(selected, selected + before),
        *range(selected),
        *range(selected + before, selected + len(rest)),
    ]
    return g.op("Transpose", x, perm=perm)


def _stacked(g: Recorder, positions: list[ir.Value], ranks: list[int]) -> ir.Value:
    """Index tensors broadcast to one shape and put side by side on a last axis."""
    total = positions[0]
    for p in positions[1:]:
        total = g.op("Add", total, p)
    shape = g.op("Shape", total)
    wide = [g.op("Expand", p, shape) for p in positions]
    last = g.const([-1])
    return g.op("Concat", *[g.op("Unsqueeze", w, last) for w in wide], axis=-1)


def _masked(g: Recorder, a: Tensor, axis: int, mask: Tensor) -> ir.Value:
    x, m = g.val(a), g.operand(mask, torch.bool)
    if mask.dim() == 1:
        return g.op("Compress", x, m, axis=axis)
    if axis == 0:
        return g.op("GatherND", x, g.op("Transpose", g.op("NonZero", m), perm=[1, 0]))
    flat = g.op("Reshape", m, g.const([-1]))
    masked = product(a.shape[axis : axis + mask.dim()])
    shape = [*a.shape[:axis], masked, *a.shape[axis + mask.dim() :]]
    merged = g.op("Reshape", x, g.shape(shape), allowzero=1)
    return g.op("Compress", merged, flat, axis=axis)


@row("masked_select")
def masked_select(g: Recorder, out: Tensor, a: Tensor, mask: Tensor) -> ir.Value:
    """The elements where the mask holds, flat."""
    x, m = g.val(a), g.val(mask)
    if len(a.shape) != len(mask.shape) or any(
        not g.same_size(p, q) for p, q in zip(a.shape, mask.shape, strict=True)
    ):
        m = g.op("Expand", m, g.op("Shape", x))  # to the size that both have together
        x = g.op("Expand", x, g.op("Shape", m))
    flat = g.const([-1])
    return g.op("Compress", g.op("Reshape", x, flat), g.op("Reshape", m, flat), axis=0)


@row("nonzero")
def nonzero(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """Positions of what is not zero, one row each; onnxruntime finds them in few dtypes."""
    x = g.val(a) if a.dtype in _FOUND else g.operand(a, torch.bool)
    if a.dim() == 0:  # no coordinates: a row without any if it is there
        found = g.op("NonZero", g.op("Reshape", x, g.const([1])))
        return g.op("Slice", g.op("Transpose", found, perm=[1, 0]), g.const([0]), g.const([0]), g.const([1]))
    return g.op("Transpose", g.op("NonZero", x), perm=[1, 0])


@row("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    indices: Sequence[Tensor | None],
    values: Tensor,
    accumulate: bool = False,
    unsafe: bool = False,
) -> ir.Value:
    """a[indices] = values, or += values."""
    x, rank = g.val(a), a.dim()
    value = g.operand(values, a.dtype)
    given = [(d, i) for d, i in enumerate(indices) if i is not None]
    if len(given) == 1 and given[0][1].dtype in _MASKS and not accumulate:
        axis, mask = given[0]
        m = g.operand(mask, torch.bool)
        after = rank - axis - mask.dim()
        if after:
            m = g.op("Unsqueeze", m, g.const([mask.dim() + k for k in range(after)]))
        if values.dim() == 0 or (
            values.dim() == 1 and g.sizes.number(values.shape[0]) == 1 and axis == 0 and not after
        ):
            return either(g, m, value, x, a.dtype)
    expanded: list[tuple[int, ir.Value, int]] = []
    axis = 0
    for i in indices:
        if i is None:
            axis += 1
        elif i.dtype in _MASKS:
            found = g.op("NonZero", g.operand(i, torch.bool))
            expanded += [(axis + k, g.op("Gather", found, g.const(k), axis=0), 1) for k in range(i.dim())]
            axis += i.dim()
        else:
            expanded.append((axis, g.operand(i, torch.int64), i.dim()))
            axis += 1
    axes = [d for d, _, _ in expanded]
    rest = [d for d in range(rank) if d not in axes]
    stay = axes[0] != 0 and axes == list(range(axes[0], axes[0] + len(axes)))  # where they stand in values
    perm = axes + rest
    moved = g.op("Transpose", x, perm=perm) if perm != list(range(rank)) else x
    at = _stacked(g, [v for _, v, _ in expanded], [r for _, _, r in expanded])
    selected = max(r for _, _, r in expanded)
    # Updates have the shape of the positions followed by the axes that are not indexed.
    tail = g.op("Slice", g.op("Shape", moved), g.const([len(axes)]), g.const([1 << 31]), g.const([0]))
    lead = g.op("Slice", g.op("Shape", at), g.const([0]), g.const([-1]), g.const([0]))
    if stay and adjacent_values(values, selected, len(rest)):
        before = axes[0]
        missing = selected + len(rest) - values.dim()
        if missing:
            value = g.op("Unsqueeze", value, g.const(list(range(missing))))
        order = [
            *range(before, before + selected),
            *range(before),
            *range(before + selected, selected + len(rest)),
        ]
        value = g.op("Transpose", value, perm=order)
    updates = g.op("Expand", value, g.op("Concat", lead, tail, axis=0))
    y = g.op("ScatterND", moved, at, updates, reduction="add" if accumulate else None)
    back = [perm.index(d) for d in range(rank)]
    return g.op("Transpose", y, perm=back) if perm != list(range(rank)) else y


def adjacent_values(values: Tensor, selected: int, rest: int) -> bool:
    """Whether the values have axes that must follow the indexed ones to the front."""
    return values.dim() > 0 and selected + rest > 0


@row("scatter.src", "scatter.value", "scatter.reduce", "scatter.value_reduce")
def scatter(
    g: Recorder, out: Tensor, a: Tensor, dim: int, index: Tensor, src: Any, *, reduce: str | None = None
) -> ir.Value:
    """a with elements replaced at the index."""
    return _scatter(g, a, dim, index, src, {"add": "add", "multiply": "mul", None: None}[reduce])


@row("scatter_add")
def scatter_add(g: Recorder, out: Tensor, a: Tensor, dim: int, index: Tensor, src: Tensor) -> ir.Value:
    """a with elements added at the index."""
    return _scatter(g, a, dim, index, src, "add")


@row("scatter_reduce.two")
def scatter_reduce(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> ir.Value:
    """a reduced with elements at the index; without a itself, places that are written start at the identity.

    A mean is the sum over the count; torch rounds those of integers down.
    """
    kinds = {"sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}
    if reduce not in kinds:
        raise ExportError(
            f"scatter_reduce with reduce={reduce!r} has no ONNX form; wanted one of {', '.join(kinds)}."
        )
    if g.is_empty(index):
        return g.val(a)
    count = start = None
    if reduce == "mean" or not include_self:
        none = g.op("Expand", g.const(0), g.shape(a.shape or [1]))
        axis, at = dim % max(a.dim(), 1), _with_axis(g, index, g.operand(index, torch.int64))
        ones = g.op("Expand", g.const(1), g.op("Shape", at))
        count = g.op("ScatterElements", none, at, ones, axis=axis, reduction="add")
        count = count if a.dim() else g.op("Reshape", count, g.const([], torch.int64))
    if not include_self:
        written = g.op("Greater", count, g.const(0))
        start = either(g, written, g.const(_identity(reduce, a.dtype), a.dtype), g.val(a), a.dtype)
    total = _scatter(g, a, dim, index, src, kinds[reduce], start)
    if reduce != "mean":
        return total
    assert count is not None
    count = g.op("Add", count, g.const(1)) if include_self else g.op("Max", count, g.const(1))
    count = g.cast(count, torch.int64, a.dtype)
    return floor_div(g, total, count, a.dtype) if not a.is_floating_point() else g.op("Div", total, count)


def _identity(reduce: str, dtype: torch.dtype) -> Any:
    """What changes nothing in a reduction."""
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    if dtype.is_floating_point:
        return -math.inf if reduce == "amax" else math.inf
    return torch.iinfo(dtype).min if reduce == "amax" else torch.iinfo(dtype).max


def _scatter(
    g: Recorder,
    a: Tensor,
    dim: int,
    index: Tensor,
    src: Any,
    reduction: str | None,
    start: ir.Value | None = None,
) -> ir.Value:
    if g.is_empty(index):  # nothing to write; torch does not compare ranks
        return g.val(a) if start is None else start
    at = _with_axis(g, index, g.operand(index, torch.int64))
    if isinstance(src, Tensor) and src.dim():
        updates = g.operand(src, a.dtype)
        if any(not g.same_size(p, q) for p, q in zip(src.shape, index.shape or [1], strict=True)):
            # torch reads only the corner of src that the index covers
            rank = src.dim()
            corner = [g.const([0] * rank), g.op("Shape", at), g.const(list(range(rank)))]
            updates = g.op("Slice", updates, *corner)
    else:
        updates = g.op("Expand", g.operand(src, a.dtype), g.op("Shape", at))
    start = _with_axis(g, a, g.val(a) if start is None else start)
    made = g.op("ScatterElements", start, at, updates, axis=dim % max(a.dim(), 1), reduction=reduction)
    return made if a.dim() else g.op("Reshape", made, g.const([], torch.int64))


def _if_any(index: Tensor, written: Tensor, kept: Tensor) -> Tensor:
    """What is written to the only place there is, unless nothing is written."""
    return torch.where(torch.full((), index.numel()) > 0, written, kept)


@composed("index_fill")
def index_fill(a: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """a with whole positions of an axis set to a value."""
    if a.dim() == 0:
        filled = value.to(a.dtype) if isinstance(value, Tensor) else torch.full_like(a, value)
        return _if_any(index, filled, a)
    if not isinstance(value, Tensor):
        value = torch.full([], value, dtype=a.dtype)
    return torch.ops.aten.index_put(a, [*[None] * (dim % a.dim()), index.reshape(-1)], value.to(a.dtype))


@composed("index_copy")
def index_copy(a: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """a with whole positions of an axis replaced."""
    if a.dim() == 0:
        return _if_any(index, source.reshape(-1).sum(0).to(a.dtype), a)
    source = source if source.dim() else source.reshape([1] * a.dim())
    return torch.ops.aten.index_put(a, [*[None] * (dim % a.dim()), index.reshape(-1)], source)


@composed("index_add")
def index_add(a: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """a with whole positions of an axis added to."""
    source = source if alpha == 1 else source * alpha
    if a.dim() == 0:
        return a + source.reshape(-1).sum(0)
    source = source if source.dim() else source.reshape([1] * a.dim())
    return torch.ops.aten.index_put(a, [*[None] * (dim % a.dim()), index.reshape(-1)], source, True)


@composed("index_reduce")
def index_reduce(
    a: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """a reduced with whole positions of an axis."""
    if a.dim() == 0:
        return index_reduce(
            a.reshape(1), 0, index.reshape(-1), source.reshape(-1), reduce, include_self=include_self
        ).reshape([])
    axis = dim % a.dim()
    shape = [-1 if d == axis else 1 for d in range(a.dim())]
    at = index.reshape(shape).expand_as(source)
    return torch.scatter_reduce(a, axis, at, source, reduce, include_self=include_self)


@composed("put")
def put(a: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """a with elements replaced (or added to), counted along all axes."""
    flat = a.reshape(-1).index_put([index.reshape(-1)], source.reshape(-1), accumulate)
    return flat.reshape(a.shape)


@composed("masked_scatter")
def masked_scatter(a: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Where the mask holds, the source's elements one after the other."""
    a, mask = torch.broadcast_tensors(a, mask)
    place = torch.cumsum(mask.reshape(-1).long(), 0) - 1
    filled = torch.cat([source.reshape(-1), source.new_zeros(1)])  # no element is taken where there is none
    taken = filled.index_select(0, torch.clamp(place, 0, source.numel()))
    return torch.where(mask, taken.reshape(a.shape), a)


@row("nonzero_static")
def nonzero_static(g: Recorder, out: Tensor, a: Tensor, *, size: int, fill_value: int = -1) -> ir.Value:
    """The first `size` positions of what is not zero, filled up."""
    found = nonzero(g, out, a)
    found = g.op("Slice", found, g.const([0]), g.const([size]), g.const([0]))
    rest = g.op("Sub", g.const([size]), g.op("Shape", found, start=0, end=1))
    more = g.op("Expand", g.const(fill_value), g.op("Concat", rest, g.const([a.dim()]), axis=0))
    return g.op("Concat", found, more, axis=0)


@row("select_scatter")
def select_scatter(g: Recorder, out: Tensor, a: Tensor, src: Tensor, dim: int, index: Any) -> ir.Value:
    """a with one position of an axis replaced."""
    axis = dim % a.dim()
    at = g.op("Unsqueeze", g.scalar(index), g.const([0]))
    at = g.op("Where", g.op("Less", at, g.const(0)), g.op("Add", at, g.sizes.dim(a.shape[axis])), at)
    shape = [1 if d == axis else n for d, n in enumerate(a.shape)]
    positions = g.op("Expand", at, g.shape(shape))
    return g.op(
        "ScatterElements", g.val(a), positions, g.op("Unsqueeze", g.val(src), g.const([axis])), axis=axis
    )


@composed("slice_scatter")
def slice_scatter(
    a: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    """a with the elements of a slice replaced."""
    made = a.clone()
    torch.ops.aten.slice(made, dim, start, end, step).copy_(src)
    return made
