"""A quantised tensor of PyTorch's own as integers with their scale and zero point, which QuantizeLinear makes
and DequantizeLinear reads.
"""

# torch is untyped, and a quantised tensor's methods are looked up by name.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import torch
from torch.overrides import handle_torch_function
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten.nothing import of_nothing_too
from ingot.capture.where import quoted_line
from ingot.errors import MissingOperatorError

Tensor = torch.Tensor
_INTEGERS = {torch.quint8: torch.uint8, torch.qint8: torch.int8}


class Quantised:
    """Integers that stand for `(integer - zero) * scale`; takes the place of a quantised tensor."""

    is_quantized = True
    device = torch.device("cpu")

    def __init__(self, integers: Tensor, scale: Any, zero: Any, dtype: torch.dtype, axis: int | None) -> None:
        self.integers, self.scale, self.zero, self.dtype, self.axis = integers, scale, zero, dtype, axis

    def dequantize(self) -> Tensor:
        """The numbers that it stands for."""
        limits = torch.iinfo(self.integers.dtype)
        kind = (limits.min, limits.max, self.integers.dtype)
        ops = _decomposed()
        if self.axis is None:
            return ops.dequantize_per_tensor(self.integers, self.scale, self.zero, *kind)
        return ops.dequantize_per_channel(self.integers, self.scale, self.zero, self.axis, *kind)

    def like(self, x: Tensor) -> Quantised:
        """Numbers in this one's steps."""
        return quantised(x, self.scale, self.zero, self.dtype)

    def to_tensor(self) -> Tensor:
        """The quantised tensor that this is, where its integers have contents."""
        torch_: Any = torch
        if self.axis is None:
            return torch_._make_per_tensor_quantized_tensor(self.integers, float(self.scale), int(self.zero))
        scales, zeros = torch.as_tensor(self.scale).double(), torch.as_tensor(self.zero).long()
        return torch_._make_per_channel_quantized_tensor(self.integers, scales, zeros, self.axis)

    def int_repr(self) -> Tensor:
        """The integers."""
        return self.integers

    def q_scale(self) -> Any:
        """The scale."""
        return self.scale

    def q_zero_point(self) -> Any:
        """The zero point."""
        return self.zero

    @property
    def shape(self) -> Any:
        """The sizes."""
        return self.integers.shape

    def __len__(self) -> int:
        return len(self.integers)

    def __getitem__(self, index: Any) -> Quantised:
        return self._moved(self.integers[index])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("size", "dim", "numel", "ndim", "ndimension", "is_contiguous", "stride"):
            return getattr(self.integers, name)
        call = getattr(Tensor, name, None)
        if call is None:
            raise unknown(name)
        return partial(handle_torch_function, call, (self,), self)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else None
        parts = first if isinstance(first, (list, tuple)) else [first]
        own = parts[0] if parts else None
        name: str = func.__name__.partition(".")[0]  # of an operator's overload
        if not isinstance(own, cls):
            raise unknown(name)
        if name in ("cat", "concat", "concatenate", "stack"):
            numbers = [p.dequantize() for p in parts if isinstance(p, cls)]
            return own.like(func(numbers, *args[1:], **(kwargs or {})))
        return own._called(name, *args[1:], function=func, **(kwargs or {}))

    def _called(self, name: str, *args: Any, function: Any, **kwargs: Any) -> Any:
        if name in _MOVING and self.axis is None:
            return self._moved(function(self.integers, *args, **kwargs))
        plain = name.removesuffix("_")
        if plain in _IN_OWN_STEPS:
            made = self.like(function(self.dequantize(), *args, **kwargs))
        elif plain in _IN_FIXED_STEPS:
            scale, zero = _IN_FIXED_STEPS[plain]
            zero -= 128 if self.dtype == torch.qint8 else 0
            made = quantised(function(self.dequantize(), *args, **kwargs), scale, zero, self.dtype)
        else:
            raise unknown(name)
        if name.endswith("_"):
            self.integers, self.scale, self.zero = made.integers, made.scale, made.zero
            return self
        return made

    def _moved(self, integers: Any) -> Any:
        if isinstance(integers, (list, tuple)):
            return type(integers)(map(self._moved, integers))
        return Quantised(integers, self.scale, self.zero, self.dtype, None)


# What only moves elements, what gives numbers in the steps of its operand, and in steps of its own.
_MOVING = frozenset(
    [
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "permute",
        "transpose",
        "t",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "contiguous",
        "clone",
        "detach",
        "to",
        "cpu",
        "select",
        "narrow",
        "chunk",
        "split",
        "unbind",
        "flip",
        "roll",
        "movedim",
        "swapaxes",
        "repeat",
        "index_select",
        "pixel_shuffle",
        "pixel_unshuffle",
        "channel_shuffle",
        "__getitem__",
    ]
)
_IN_OWN_STEPS = frozenset(
    [
        "relu",
        "relu6",
        "hardtanh",
        "clamp",
        "leaky_relu",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "mean",
        "upsample_nearest1d",
        "upsample_nearest2d",
        "upsample_nearest3d",
        "upsample_bilinear2d",
        "pad",
        "constant_pad_nd",
        "amax",
        "amin",
    ]
)
_IN_FIXED_STEPS = {"sigmoid": (1 / 256, 0), "hardsigmoid": (1 / 256, 0), "tanh": (2 / 256, 128)}


def unknown(name: str) -> MissingOperatorError:
    """The refusal of an operator by name."""
    return MissingOperatorError(
        f"{quoted_line()}\n{name} of PyTorch's own quantised tensors has no form in ONNX here. Export the "
        "model as it is before convert(), with its FakeQuantize layers, or one that PT2E or torchao "
        "quantised."
    )


def _decomposed() -> Any:
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # which registers them
    ops: Any = torch.ops
    return ops.quantized_decomposed


def quantised(x: Tensor, scale: Any, zero: Any, dtype: torch.dtype, axis: int | None = None) -> Quantised:
    """Numbers in steps."""
    integers = _INTEGERS.get(dtype)
    if integers is None:
        raise unknown(f"{dtype}")
    limits = torch.iinfo(integers)
    kind = (limits.min, limits.max, integers)
    if axis is None:
        made = _decomposed().quantize_per_tensor(x, scale, zero, *kind)
    else:
        made = _decomposed().quantize_per_channel(x, scale, zero, axis, *kind)
    return Quantised(made, scale, zero, dtype, axis)


def of_tensor(q: Tensor) -> Quantised:
    """A quantised tensor that the model holds: a weight."""
    with _disable_current_modes():
        if q.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
            scale, zero, axis = (
                q.q_per_channel_scales().float(),
                q.q_per_channel_zero_points(),
                q.q_per_channel_axis(),
            )
            return Quantised(q.int_repr(), scale, zero, q.dtype, axis)
        return Quantised(q.int_repr(), q.q_scale(), q.q_zero_point(), q.dtype, None)


_SMALLEST = 6.1e-5  # scale that PyTorch gives


def spanning(x: Tensor, dtype: torch.dtype, reduce_range: bool) -> tuple[Tensor, Tensor]:
    """Scale and zero point of steps that span a tensor's numbers and 0.

    Source: `ChooseQuantizationParams` in aten/src/ATen/native/quantized/cpu/QuantUtils.h.
    """
    limits = torch.iinfo(_INTEGERS[dtype])
    low, high = (limits.min // 2, limits.max // 2) if reduce_range else (limits.min, limits.max)
    with of_nothing_too():
        least, most = x.amin().clamp(max=0).double(), x.amax().clamp(min=0).double()
    scale = (most - least) / (high - low)
    inverse = 1 / scale.float()
    scale = torch.where(torch.isinf(inverse), 0.1, scale)
    larger = torch.clamp(_SMALLEST / scale, min=1)
    scale, least, most = scale * larger, least * larger, most * larger
    by_least, by_most = low - least / scale, high - most / scale
    nearer = abs(low) + (least / scale).abs() < abs(high) + (most / scale).abs()
    zero = torch.where(nearer, by_least, by_most).round().clamp(low, high)
    return scale.float(), zero.to(torch.int64)
