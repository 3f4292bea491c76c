"""Operators of PyTorch's that round their operand to steps: the operand in steps, and how results are."""

# torch's operators are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Tensor = torch.Tensor
#: An operand in steps, not rounded, in float64; and the function from results to steps.
Read = tuple[Tensor, Callable[[Tensor], Tensor]]


def _by_channel(x: Tensor, parameter: Any, axis: int | None) -> Any:
    if axis is None or not isinstance(parameter, Tensor):
        return parameter
    return parameter.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])


def _steps(x: Tensor, scale: Any, zero: Any, low: int, high: int, axis: int | None = None) -> Tensor:
    """Numbers in steps, not rounded; in float64."""
    made = x.double() / _by_channel(x, scale, axis) + _by_channel(x, zero, axis)
    return made.clamp(low, high)


def _back(x: Tensor, scale: Any, zero: Any, axis: int | None = None) -> Callable[[Tensor], Tensor]:
    """From numbers that were quantised and back to steps, of which halves lack digits."""

    def read(y: Tensor) -> Tensor:
        made = y.double() / _by_channel(x, scale, axis) + _by_channel(x, zero, axis)
        return made.round() if y.dtype in (torch.float16, torch.bfloat16) else made

    return read


def _as_they_are(y: Tensor) -> Tensor:
    return y.double()


def _integers(x: Tensor, scale: Any, zero: Any, low: int, high: int, *_: Any) -> Read:
    return _steps(x, scale, zero, low, high), _as_they_are


def _integers_by_channel(x: Tensor, scale: Any, zero: Any, axis: int, low: int, high: int, *_: Any) -> Read:
    return _steps(x, scale, zero, low, high, axis), _as_they_are


def _faked(x: Tensor, scale: Any, zero: Any, low: int, high: int) -> Read:
    return _steps(x, scale, zero, low, high), _back(x, scale, zero)


def _faked_if(x: Tensor, scale: Any, zero: Any, on: Tensor, low: int, high: int) -> Read | None:
    return _faked(x, scale, zero, low, high) if bool(on.any()) else None


def _faked_by_channel(x: Tensor, scale: Any, zero: Any, axis: int, low: int, high: int) -> Read:
    return _steps(x, scale, zero, low, high, axis), _back(x, scale, zero, axis)


def _fused(
    x: Tensor, _observes: Any, on: Tensor, _least: Any, _most: Any, scale: Any, zero: Any, _part: Any,
    low: int, high: int, axis: int, per_row: bool = False, *_: Any,
) -> Read | None:  # fmt: skip
    if not bool(on.any()):
        return None
    chosen = axis if per_row else None
    return _steps(x, scale, zero, low, high, chosen), _back(x, scale, zero, chosen)


def _rounded(x: Tensor, decimals: int = 0) -> Read | None:
    return (x.double(), _as_they_are) if decimals == 0 and x.is_floating_point() else None


#: By the operator's name, from its arguments; None where this call rounds nothing.
QUANTISERS: dict[str, Callable[..., Read | None]] = {
    "quantize_per_tensor": _integers,
    "quantize_per_channel": _integers_by_channel,
    "fake_quantize_per_tensor_affine": _faked,
    "fake_quantize_per_tensor_affine_cachemask": _faked,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _faked_if,
    "fake_quantize_per_channel_affine": _faked_by_channel,
    "fake_quantize_per_channel_affine_cachemask": _faked_by_channel,
    "_fused_moving_avg_obs_fq_helper": _fused,
    "round": _rounded,
}  # fmt: skip
