"""Convolutions of any rank, plain and transposed, with their bias."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

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
    if isinstance(groups, torch.SymInt) and not transposed:
        return g.traced(_of_free_groups, out, x, weight, bias, stride, padding, dilation, groups)
    spatial = weight.dim() - 2

    pads = each(padding, spatial)
    attributes: dict[str, Any] = {
        "kernel_shape": [int(k) for k in weight.shape[2:]],
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
    inside, kernel = weight.shape[1], [int(n) for n in weight.shape[2:]]
    rank = len(kernel)
    steps, pads, spread = (each(v, rank) for v in (stride, padding, dilation))
    padded = torch.nn.functional.pad(x, [p for p in reversed(pads) for _ in range(2)])
    # One after the last place that is seen by the filter's first tap.
    ends = [n - d * (k - 1) for n, d, k in zip(padded.shape[2:], spread, kernel, strict=True)]
    axes = [
        [slice(d * at, d * at + end, step) for at in range(k)]
        for d, end, step, k in zip(spread, ends, steps, kernel, strict=True)
    ]
    seen = [padded[(..., *taps)] for taps in itertools.product(*axes)]
    size = seen[0].shape[2:]
    # [n, groups, channels of a group * taps, places]
    columns = torch.stack(seen, 2).reshape(x.shape[0], groups, inside * len(seen), -1)
    filters = weight.reshape(groups, -1, inside * len(seen))
    made = torch.matmul(filters, columns).reshape(x.shape[0], weight.shape[0], *size)
    return made if bias is None else made + bias.reshape([-1] + [1] * rank)
