"""Windows that slide over axes, and channels that become pixels."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.pad import padded
from ingot.capture.aten.registry import row, whole
from ingot.capture.aten.shape import reshape_to
from ingot.capture.fakes import dense
from ingot.capture.request import recorder

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


def _fake_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    *lead, c, h, w = input.shape
    r = upscale_factor
    return input.new_empty([*lead, c // r**2, h * r, w * r])


def _fake_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    *lead, c, h, w = input.shape
    r = downscale_factor
    return input.new_empty([*lead, c * r**2, h // r, w // r])


def _fake_channels(input: Tensor, groups: int) -> Tensor:
    return dense(recorder(), input)


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
