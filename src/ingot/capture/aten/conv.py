"""Convolutions of any rank, plain and transposed, with their bias."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import checks
from ingot.capture.aten.pool import each
from ingot.capture.aten.registry import row

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


@row("convolution", "_convolution", "convolution_overrideable")
def convolution(
    g: Recorder,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *flags: Any,
) -> ir.Value:
    """Conv or ConvTranspose; lists of one element stand for every axis."""
    spatial, kernel = weight.dim() - 2, weight.shape[2:]
    padding = list(padding) * (spatial if len(padding) == 1 else 1)
    if isinstance(groups, torch.SymInt) and not transposed:
        return g.traced(_of_free_groups, out, x, weight, bias, stride, padding, dilation, groups)
    if isinstance(x.shape[1], torch.SymInt) and not transposed:
        checks.insist(g, x.shape[1] > 0, "a convolution of no channels gives no channels in torch")
    if not transposed and not _known(padding):
        return g.traced(_padded_before, out, x, weight, bias, stride, padding, dilation, groups)
    pads = each(padding, spatial)
    attributes: dict[str, Any] = {
        # A filter's size that is dynamic is left to the weight.
        "kernel_shape": list(kernel) if _known(kernel) else None,
        "strides": each(stride, spatial),
        "pads": pads + pads,
        "dilations": each(dilation, spatial),
        "group": int(groups),
    }
    operands = [g.val(x), g.val(weight), *([g.val(bias)] if bias is not None else [])]
    if not transposed:
        return g.op("Conv", *operands, **attributes)
    extra = each(output_padding, spatial)
    if all(e < s for e, s in zip(extra, attributes["strides"], strict=True)):
        return g.op("ConvTranspose", *operands, **attributes, output_padding=extra if any(extra) else None)
    # ONNX's is below the stride. So much less is cut off at the end; what is more than that lies behind the
    # last element, where nothing but the bias is.
    cut = [max(p - e, 0) for p, e in zip(pads, extra, strict=True)]
    behind = [max(e - p, 0) for p, e in zip(pads, extra, strict=True)]
    y = g.op("ConvTranspose", *operands[:2], **{**attributes, "pads": pads + cut})
    y = g.op("Pad", y, g.const([0] * (2 * x.dim() - spatial) + behind))
    if bias is None:
        return y
    return g.op("Add", y, g.op("Unsqueeze", g.val(bias), g.const(list(range(1, spatial + 1)))))


def _padded_before(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[Any],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """A convolution whose padding is a size, as where it is half of a filter's: Conv has numbers there."""
    none = [0] * len(padding)
    return torch.convolution(_padded(x, padding), weight, bias, stride, none, dilation, False, none, groups)


def _padded(x: Tensor, padding: Sequence[Any]) -> Tensor:
    return torch.nn.functional.pad(x, [p for p in reversed(padding) for _ in range(2)])


def _of_free_groups(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: Any,
) -> Tensor:
    """A convolution whose number of groups is a size, as where a batch has a filter for each image: Conv has
    a number there. One product of matrices for each group, of its filters and of all that they see.
    """
    inside, kernel = weight.shape[1], weight.shape[2:]
    rank = len(kernel)
    steps, spread = each(stride, rank), each(dilation, rank)
    padded = _padded(x, padding)
    # One after the last place that is seen by the filter's first tap.
    ends = [n - d * (k - 1) for n, d, k in zip(padded.shape[2:], spread, kernel, strict=True)]
    size = [(end + step - 1) // step for end, step in zip(ends, steps, strict=True)]
    if _known(kernel):
        axes = [
            [slice(d * at, d * at + end, step) for at in range(k)]
            for d, end, step, k in zip(spread, ends, steps, kernel, strict=True)
        ]
        seen = torch.stack([padded[(..., *taps)] for taps in itertools.product(*axes)], 2)
    else:
        seen = padded.flatten(2)[..., _places(padded.shape[2:], kernel, size, steps, spread)]
    # [n, groups, channels of a group * taps, places]
    taps = math.prod(kernel)
    columns = seen.reshape(x.shape[0], groups, inside * taps, math.prod(size))
    filters = weight.reshape(groups, -1, inside * taps)
    made = torch.matmul(filters, columns).reshape(x.shape[0], weight.shape[0], *size)
    return made if bias is None else made + bias.reshape([-1] + [1] * rank)


def _known(sizes: Sequence[Any]) -> bool:
    return not any(isinstance(n, torch.SymInt) for n in sizes)


def _places(
    image: Sequence[Any],
    kernel: Sequence[Any],
    size: Sequence[Any],
    steps: Sequence[int],
    spread: Sequence[int],
) -> Tensor:
    """Where in the flattened image each tap of a filter looks for each of the results: [taps, places]."""
    at = torch.zeros(1, 1, dtype=torch.int64)
    for n, k, made, step, d in zip(image, kernel, size, steps, spread, strict=True):
        along = torch.arange(k)[:, None] * d + torch.arange(made) * step
        # [taps so far, k, size so far, made]
        at = (at[:, None, :, None] * n + along[:, None]).flatten(0, 1).flatten(1)
    return at
