"""Quantised models: a scale for each token or group, and symmetric scales, as PyTorch computes them.

QuantizeLinear has one scale, or one for each index of one axis; for tokens this is PyTorch's own arithmetic,
so that both round alike.
"""

# torch's operators are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import torch

from ingot.capture.aten.registry import composed
from ingot.errors import ExportError

Tensor = torch.Tensor


@composed("quantized_decomposed::choose_qparams_per_token")
def choose_by_token(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scales that take the largest magnitude of each row to 127."""
    if dtype != torch.int8:
        raise ExportError(
            f"choose_qparams_per_token gives scales of int8 alone, as in PyTorch; found {dtype}. Pass "
            "torch.int8."
        )
    largest = x.abs().amax(-1, keepdim=True)
    largest = largest.float() if largest.dtype == torch.float16 else largest
    scales = largest.clamp(min=1e-5).div(127)
    return scales, torch.zeros_like(scales)


@composed("quantized_decomposed::choose_qparams_per_token_asymmetric")
def choose_by_token_asymmetric(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scales and zero points that span each row, 0 among it, by 256 steps, whatever the dtype."""
    low, high = -128, 127
    least = x.amin(-1, keepdim=True).clamp(max=0)
    most = x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((most - least) / float(high - low)).clamp(min=torch.finfo(torch.float32).eps)
    below, above = least / scale, most / scale
    zero = torch.where(low + below + (high + above) > 0, low - below, high - above)
    return scale.double(), zero.clamp(low, high).round().long()


@composed("quantized_decomposed::choose_qparams_symmetric.tensor")
def choose_symmetric(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One scale that takes the largest magnitude to the end of the range."""
    scale = x.abs().amax() / (float(high - low) / 2)
    scale = torch.maximum(scale.float(), torch.tensor(eps)).double().reshape(1)
    middle = 128 if dtype in (torch.uint8, torch.quint8) else 0
    return scale, torch.full((1,), middle)


@composed("quantized_decomposed::quantize_per_token")
def quantize_by_token(
    x: Tensor, scales: Tensor, zeros: Tensor, low: int, high: int, dtype: torch.dtype
) -> Tensor:
    """A scale for each row."""
    return x.mul(1.0 / scales).add(zeros).round().clamp(low, high).to(dtype)


@composed("quantized_decomposed::dequantize_per_token")
def dequantize_by_token(
    q: Tensor, scales: Tensor, zeros: Tensor, _low: int, _high: int, _dtype: torch.dtype, output: torch.dtype
) -> Tensor:
    """A scale for each row."""
    return ((q - zeros) * scales).to(output)


@composed("quantized_decomposed::dequantize_per_channel_group")
def dequantize_by_group(
    q: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    low: int,
    high: int,
    dtype: torch.dtype,
    group: int,
    output: torch.dtype,
) -> Tensor:
    """A scale for each group of a row: rows of groups by channel, so that the weight stays of integers."""
    group = q.shape[-1] if group > q.shape[-1] and scales.shape[-1] == 1 else group
    points = None if zeros is None else zeros.reshape(-1)
    by_channel = torch.ops.quantized_decomposed.dequantize_per_channel.default
    made = by_channel(q.reshape(-1, group), scales.reshape(-1), points, 0, low, high, dtype)
    return made.reshape_as(q).to(output)
