"""Pooling: maximum, average, adaptive."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.nothing import of_nothing_too
from ingot.capture.aten.reduce import extreme
from ingot.capture.aten.registry import Row, composed, instead, row, whole
from ingot.capture.request import recorder
from ingot.capture.size_symbols import product

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_nn: Any = torch._C._nn  # pyright: ignore[reportAttributeAccessIssue]  (made in C++)


def each(values: Any, spatial: int) -> list[int]:
    """A number for each axis, of one for all or one for each."""
    listed = list(values) if isinstance(values, (list, tuple)) else [values]
    return [int(v) for v in listed] * (spatial if len(listed) == 1 else 1)


def _batched(g: Recorder, x: Tensor, spatial: int) -> tuple[ir.Value, bool]:
    """torch lets the batch axis be left out, ONNX does not."""
    value = g.val(x)
    return (value, False) if x.dim() == spatial + 2 else (g.op("Unsqueeze", value, g.const([0])), True)


def _unbatched(g: Recorder, value: ir.Value, added: bool) -> ir.Value:
    return g.op("Squeeze", value, g.const([0])) if added else value


@row("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(
    g: Recorder,
    out: Any,
    x: Tensor,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    spatial: int = 0,
) -> Any:
    """MaxPool; the positions of the maxima, within one plane, by a node of their own."""
    spatial = spatial or (
        len(kernel) if isinstance(kernel, (list, tuple)) and len(kernel) > 1 else _spatial(out, x)
    )
    window = each(kernel, spatial)
    pads = each(padding, spatial)
    value, added = _batched(g, x, spatial)
    attributes: dict[str, Any] = {
        "kernel_shape": window,
        "strides": each(stride, spatial) if stride not in ((), [], None) else window,
        "pads": pads + pads,
        "dilations": each(dilation, spatial),
        "ceil_mode": int(ceil_mode),
    }
    y = _unbatched(g, g.op("MaxPool", value, **attributes), added)
    if not isinstance(out, (list, tuple)):
        return y
    # ONNX counts through batch and channels. Whoever does not use the positions loses this node.
    at = g.ops("MaxPool", value, n=2, **attributes)[1]
    plane = g.operand(product(x.shape[-spatial:]), torch.int64)
    return [y, _unbatched(g, g.op("Mod", at, plane), added)]


def _spatial(out: Any, x: Tensor) -> int:
    return max(x.dim() - 2, 1)


def _fake_max_1d(
    input: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Through the 2-D operator, which takes symbolic sizes."""
    k, p, d = (each(v, 1)[0] for v in (kernel_size, padding, dilation))
    s = k if stride in ((), [], None) else each(stride, 1)[0]
    flat = torch.max_pool2d(input.unsqueeze(-2), (1, k), (1, s), (0, p), (1, d), ceil_mode)
    return flat.squeeze(-2)


def _max_pool_whole(spatial: int) -> Row:
    def emit(
        g: Recorder,
        out: Tensor,
        input: Tensor,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        return max_pool(g, out, input, each(kernel_size, spatial), stride, padding, dilation, ceil_mode)

    return emit


whole(torch.max_pool1d, meta=_fake_max_1d)(_max_pool_whole(1))
whole(torch.max_pool2d)(_max_pool_whole(2))


@row("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(
    g: Recorder,
    out: Tensor,
    x: Tensor,
    kernel: Sequence[int],
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> ir.Value:
    """AveragePool; another divisor is a multiplication after it."""
    spatial = len(kernel)
    window, pads = each(kernel, spatial), each(padding, spatial)
    value, added = _batched(g, x, spatial)
    if ceil_mode and divisor_override is not None:
        # Zeros all round, as many as the last window reaches over: then every window is whole.
        steps = each(stride, spatial) if stride not in ((), [], None) else window
        results, sizes = out.shape[-spatial:], x.shape[-spatial:]
        reach = [
            torch.sym_max((r - 1) * s + k - n - p, 0)
            for r, s, k, n, p in zip(results, steps, window, sizes, pads, strict=True)
        ]
        widths = g.shape([0, 0, *pads, 0, 0, *reach])
        value, pads, ceil_mode = g.op("Pad", value, widths), [0] * spatial, False
    y = g.op(
        "AveragePool",
        value,
        kernel_shape=window,
        strides=each(stride, spatial) if stride not in ((), [], None) else window,
        pads=pads + pads,
        ceil_mode=int(ceil_mode),
        count_include_pad=int(count_include_pad or divisor_override is not None),
    )
    if divisor_override is not None:
        count = 1
        for k in window:
            count *= k
        y = g.op("Mul", y, g.const(count / divisor_override, x.dtype))
    return _unbatched(g, y, added)


@row("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
def adaptive_avg_pool(g: Recorder, out: Tensor, x: Tensor, size: Any) -> ir.Value:
    """Averages over windows that cut each axis into `size` nearly equal parts.

    One part is a global average; parts of equal static length an AveragePool; else the elements of each
    window are taken out, axis by axis: no other window has to do with an infinity or NaN in one.
    """
    sizes = size if isinstance(size, (list, tuple)) else [size]
    spatial = len(sizes)
    parts = [g.sizes.number(s) for s in sizes]
    lengths = list(x.shape[-spatial:])
    static = [g.sizes.number(n) for n in lengths]
    if all(p == 1 for p in parts) and x.dtype == torch.float64:  # which onnxruntime has no global pool of
        return g.op("ReduceMean", g.val(x), g.const(list(range(x.dim() - spatial, x.dim()))), keepdims=1)
    if all(p == 1 for p in parts):
        value, added = _batched(g, x, spatial)
        return _unbatched(g, g.op("GlobalAveragePool", value), added)
    if all(n is not None and p and n % p == 0 for n, p in zip(static, parts, strict=True)):
        value, added = _batched(g, x, spatial)
        window = [int(n or 0) // int(p or 1) for n, p in zip(static, parts, strict=True)]
        return _unbatched(g, g.op("AveragePool", value, kernel_shape=window, strides=window), added)
    return g.val(g.recorded(_windowed_mean, x, sizes))


def _windows(n: Any, size: Any) -> tuple[Tensor, Tensor, Any]:
    """Where `size` nearly equal parts of n elements begin and end, [i n // size, (i + 1) n / size rounded
    up), and as many elements as the longest of them has, or one more.
    """
    window = torch.arange(size)
    longest = n // size + torch.sym_min(n % size, 2)
    return window * n // size, -((window + 1) * n // -size), longest


def _windowed_mean(x: Tensor, sizes: Sequence[Any]) -> Tensor:
    """Averages over as many windows as `sizes` says for each of the last axes, axis by axis; in float32 for
    halves, as torch sums them.
    """
    dtype, spatial = x.dtype, len(sizes)
    x = x.float() if dtype in (torch.float16, torch.bfloat16) else x
    g = recorder()
    for i in reversed(range(spatial)):
        axis, size = x.dim() - spatial + i, sizes[i]
        n: Any = x.shape[axis]
        if g.same_size(n, size):
            continue
        starts, ends, longest = _windows(n, size)
        index = starts.unsqueeze(1) + torch.arange(longest)
        inside = (index < ends.unsqueeze(1)).reshape(size, longest, *[1] * (spatial - 1 - i))
        index = torch.minimum(index, ends.unsqueeze(1) - 1).reshape(-1)
        shape = [*x.shape[:axis], size, longest, *x.shape[axis + 1 :]]
        x = torch.where(inside, x.index_select(axis, index).reshape(shape), 0).sum(axis + 1)
        x = x / (ends - starts).to(x.dtype).reshape(size, *[1] * (spatial - 1 - i))
    return x.to(dtype)


for _function, _axes in (
    (torch.adaptive_avg_pool1d, 1),
    (_nn.adaptive_avg_pool2d, 2),
    (_nn.adaptive_avg_pool3d, 3),
):
    # output_size may be one number for all axes here; the output has a size for each.
    whole(_function)(
        lambda g, out, input, output_size, axes=_axes: adaptive_avg_pool(
            g, out, input, list(out.shape[-axes:])
        )
    )


@row("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(g: Recorder, out: Any, x: Tensor, size: Any) -> Any:
    """Maxima over windows that cut each axis into nearly equal parts, and where they are in their plane."""
    sizes = list(size) if isinstance(size, (list, tuple)) else [size]
    spatial = len(sizes)
    lengths = [g.sizes.number(n) for n in x.shape[-spatial:]]
    if all(n is not None and s and n % s == 0 for n, s in zip(lengths, sizes, strict=True)):
        window = [int(n or 0) // s for n, s in zip(lengths, sizes, strict=True)]
        return max_pool(g, out, x, window, spatial=spatial)
    if all(s == 1 for s in sizes) and None in lengths:
        place = g.recorded(_place_of_largest, x, spatial)  # which whoever does not use it loses
        if x.dtype == torch.float64:
            axes = list(range(x.dim() - spatial, x.dim()))
            return [extreme(g, "ReduceMax", g.val(x), x.dtype, axes, True), g.val(place)]
        value, added = _batched(g, x, spatial)
        return [_unbatched(g, g.op("GlobalMaxPool", value), added), g.val(place)]
    return [g.val(v) for v in g.recorded(windowed_max, x, sizes)]


def _place_of_largest(x: Tensor, spatial: int) -> Tensor:
    """Of each plane, which the last axes are."""
    lead = x.shape[:-spatial]
    with of_nothing_too():
        found = torch.argmax(x.reshape([*lead, product(x.shape[-spatial:])]), -1)
    return found.reshape([*lead, *[1] * spatial])


@instead(torch.adaptive_max_pool1d)
def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """The same over one axis, whose places torch takes out of two."""
    if input.dim() in (2, 3) and output_size in (1, (1,), [1]):
        value, place = input.max(-1, keepdim=True)
        return value, place
    return torch.adaptive_max_pool1d(input, output_size)


def windowed_max(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Maxima over as many windows as `sizes` says, [i n // size, (i + 1) n / size rounded up) of n, for each
    of the last axes, and where they are in their plane; axis by axis, the last one first, which finds the
    first of equal ones.
    """
    spatial = len(sizes)
    at = torch.arange(product(x.shape[-spatial:])).reshape(x.shape[-spatial:]).expand(x.shape)
    for i in reversed(range(spatial)):
        axis, size = x.dim() - spatial + i, sizes[i]
        n: Any = x.shape[axis]
        starts, ends, longest = _windows(n, size)  # of shorter ones the last place again
        index = torch.minimum(starts.unsqueeze(1) + torch.arange(longest), ends.unsqueeze(1) - 1).reshape(-1)
        shape = [*x.shape[:axis], size, longest, *x.shape[axis + 1 :]]
        x = x.index_select(axis, index).reshape(shape)
        at = at.index_select(axis, index).reshape(shape)
        x, where = torch.max(x, dim=axis + 1, keepdim=True)
        at = torch.gather(at, axis + 1, where).squeeze(axis + 1)
        x = x.squeeze(axis + 1)
    return x, at


@composed("fractional_max_pool2d", "fractional_max_pool3d")
def fractional_max_pool(
    x: Tensor, kernel: Sequence[int], size: Sequence[int], samples: Tensor
) -> tuple[Tensor, Tensor]:
    """Maxima over windows at random steps (Graham 2014): start i is int((i + u) a) - int(u a), the last ends
    at the edge.
    """
    spatial = len(kernel)
    batched = x.dim() == spatial + 2
    x = x if batched else x.unsqueeze(0)
    n, c = x.shape[:2]
    at = torch.arange(product(x.shape[2:])).reshape(x.shape[2:]).expand(x.shape)
    for i in reversed(range(spatial)):
        axis, length, k, parts = 2 + i, x.shape[2 + i], kernel[i], size[i]
        # torch keeps the sample of the last axis first in two dimensions, of the first axis in three.
        u = samples.select(-1, i if spatial == 3 else spatial - 1 - i).unsqueeze(-1)
        steps = torch.arange(parts, dtype=x.dtype)
        a = (length - k) / (parts - 1) if parts > 1 else 0.0
        starts = torch.trunc((steps + u) * a) - torch.trunc(u * a)
        starts = torch.where(steps == parts - 1, float(length - k), starts).long()
        index = starts.unsqueeze(-1) + torch.arange(k)
        lead = [n, c, *[1] * i, parts * k, *[1] * (spatial - 1 - i)]
        whole = [*x.shape[:axis], parts * k, *x.shape[axis + 1 :]]
        index = index.reshape(lead).expand(whole)
        shape = [*x.shape[:axis], parts, k, *x.shape[axis + 1 :]]
        x, at = torch.gather(x, axis, index).reshape(shape), torch.gather(at, axis, index).reshape(shape)
        x, where = torch.max(x, dim=axis + 1, keepdim=True)
        at, x = torch.gather(at, axis + 1, where).squeeze(axis + 1), x.squeeze(axis + 1)
    return (x, at) if batched else (x.squeeze(0), at.squeeze(0))
