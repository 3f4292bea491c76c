"""Quantised models: PT2E's operators and FakeQuantize as QuantizeLinear and DequantizeLinear."""

# Rows take whatever the call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch

from ingot.capture.aten.registry import row
from ingot.capture.tensors import dtype_of, zero_copy
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor

# Dtypes that QuantizeLinear gives, and the opset that brought them.
_BY_OPSET = {torch.uint8: 13, torch.int8: 13, torch.uint16: 21, torch.int16: 21}


def _scale(g: Recorder, scale: Any, dtype: torch.dtype) -> ir.Value:
    """A scale in the dtype of the numbers; torch keeps it in float32 or float64."""
    real = g.real(scale) if isinstance(scale, Tensor) else None
    if real is not None:
        array = zero_copy(real)
        return g.const(array.reshape(()) if array.size == 1 and array.ndim < 2 else array, dtype)
    if not isinstance(scale, Tensor):
        return g.const(float(scale), dtype)
    return g.cast(_without_axes(g, scale), scale.dtype, dtype)


def _is_weight(x: ir.Value) -> bool:
    """A constant, or one as integers."""
    node = x.producer()
    if node is None or node.op_type not in ("QuantizeLinear", "Clip"):
        return x.const_value is not None
    return node.inputs[0] is not None and _is_weight(node.inputs[0])


def _zero_point(g: Recorder, zero: Any, dtype: torch.dtype, of: ir.Value) -> ir.Value:
    made = _shared_zero_point(g, zero, dtype)
    if made.const_value is None or not _is_weight(of):
        return made
    # Each weight has one of its own: ONNX Runtime adds 128 to both (session.x64quantprecision), and loads no
    # model in which it would do so twice.
    return g.graph.initializer("zero_point", ir.Tensor(made.const_value.numpy(), dtype=made.dtype))


def _shared_zero_point(g: Recorder, zero: Any, dtype: torch.dtype) -> ir.Value:
    _require_whole(g, zero)
    real = g.real(zero) if isinstance(zero, Tensor) else None
    if real is not None:
        array = zero_copy(real)
        return g.const(array.reshape(()) if array.size == 1 and array.ndim < 2 else array, dtype)
    if not isinstance(zero, Tensor):
        return g.const(int(zero), dtype)
    return g.cast(_without_axes(g, zero), zero.dtype, dtype)


def _require_whole(g: Recorder, zero: Any) -> None:
    """ATen rounds the sum of a quotient and its zero point, ONNX adds them after rounding."""
    if not isinstance(zero, Tensor) or not zero.is_floating_point():
        return
    real = g.real(zero)
    if real is None or not np.array_equal(zero_copy(real), np.rint(zero_copy(real))):
        raise ExportError(
            "a zero point that is no integer has no form in ONNX. Choose a quantisation scheme with "
            "integer zero points."
        )


def _without_axes(g: Recorder, x: Tensor) -> ir.Value:
    return g.op("Squeeze", g.val(x)) if x.dim() == 1 and g.sizes.number(x.shape[0]) == 1 else g.val(x)


def quantized(
    g: Recorder,
    x: Tensor,
    scale: Any,
    zero: Any,
    low: int,
    high: int,
    dtype: torch.dtype,
    axis: int | None = None,
) -> ir.Value:
    """clamp(round(x / scale) + zero, low, high) in `dtype`."""
    if _BY_OPSET.get(dtype, 99) > g.opset:
        raise _too_early(g, "QuantizeLinear gives", dtype)
    plain = g.cast(g.val(x), x.dtype, torch.float32)  # torch divides halves so
    factor = _scale(g, scale, torch.float32)
    made = g.op("QuantizeLinear", plain, factor, _zero_point(g, zero, dtype, plain), axis=axis)
    made.type = ir.TensorType(dtype_of(dtype))
    limits = torch.iinfo(dtype)
    if low <= limits.min and high >= limits.max:
        return made
    return g.op("Clip", made, g.const(int(low), dtype), g.const(int(high), dtype))


def dequantized(
    g: Recorder, q: ir.Value, scale: Any, zero: Any, dtype: torch.dtype, result: torch.dtype, axis: int | None
) -> ir.Value:
    """(q - zero) * scale, computed in float32."""
    if _BY_OPSET.get(dtype, 0) > g.opset:
        raise _too_early(g, "DequantizeLinear takes", dtype)
    point = _zero_point(g, zero, dtype, q) if zero is not None else None
    made = g.op("DequantizeLinear", q, _scale(g, scale, torch.float32), point, axis=axis)
    return g.cast(made, torch.float32, result)


def _too_early(g: Recorder, does: str, dtype: torch.dtype) -> ExportError:
    return ExportError(
        f"{does} no {str(dtype).removeprefix('torch.')} in opset {g.opset}; wanted uint8 or int8, or 16 bits "
        "with opset_version=21."
    )


@row("quantized_decomposed::quantize_per_tensor")
def quantize_per_tensor(
    g: Recorder, out: Tensor, x: Tensor, scale: Any, zero: Any, low: int, high: int, dtype: torch.dtype
) -> ir.Value:
    """One scale for all."""
    return quantized(g, x, scale, zero, low, high, dtype)


@row("quantized_decomposed::quantize_per_channel")
def quantize_per_channel(
    g: Recorder,
    out: Tensor,
    x: Tensor,
    scales: Tensor,
    zeros: Tensor,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
) -> ir.Value:
    """A scale for each index of an axis."""
    return quantized(g, x, scales, zeros, low, high, dtype, axis % x.dim())


@row("quantized_decomposed::dequantize_per_tensor")
def dequantize_per_tensor(
    g: Recorder,
    out: Tensor,
    q: Tensor,
    scale: Any,
    zero: Any,
    low: int,
    high: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> ir.Value:
    """One scale for all."""
    return dequantized(g, g.val(q), scale, zero, q.dtype, out.dtype, None)


@row("quantized_decomposed::dequantize_per_channel")
def dequantize_per_channel(
    g: Recorder,
    out: Tensor,
    q: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
    *,
    out_dtype: torch.dtype | None = None,
) -> ir.Value:
    """A scale for each index of an axis."""
    return dequantized(g, g.val(q), scales, zeros, q.dtype, out.dtype, axis % q.dim())


@row("quantized_decomposed::choose_qparams.tensor")
def choose_qparams(
    g: Recorder, out: Any, x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype
) -> list[ir.Value]:
    """Scale and zero point of what a tensor holds, 0 among it: of a dynamically quantised activation."""
    zero = g.const(0.0, x.dtype)
    least = g.op("Min", g.op("ReduceMin", g.val(x), keepdims=0), zero)
    most = g.op("Max", g.op("ReduceMax", g.val(x), keepdims=0), zero)
    spread = g.op("Div", g.op("Sub", most, least), g.const(float(high - low), x.dtype))
    scale = g.op("Max", spread, g.const(float(eps), x.dtype))
    steps = g.op("Round", g.op("Div", least, scale))
    point = g.op("Sub", g.const(float(low), x.dtype), steps)
    kept = g.op("Clip", point, g.const(float(low), x.dtype), g.const(float(high), x.dtype))
    found = [g.cast(v, x.dtype, o.dtype) for v, o in zip((scale, kept), out, strict=True)]
    axes = g.const([0])
    return [g.op("Unsqueeze", v, axes) if o.dim() else v for v, o in zip(found, out, strict=True)]


def _faked(
    g: Recorder, x: Tensor, scale: Any, zero: Any, low: int, high: int, axis: int | None = None
) -> ir.Value:
    """Quantised and back."""
    if x.dtype == torch.float64:  # which QuantizeLinear does not take
        _require_whole(g, zero)
        return g.val(g.recorded(lambda: _in_doubles(x, scale, zero, low, high, axis)))
    dtypes = [d for d in _BY_OPSET if torch.iinfo(d).min <= low and high <= torch.iinfo(d).max]
    if not dtypes:
        raise ExportError(
            f"values of {low} to {high} fit no dtype that QuantizeLinear gives. Quantise to 8 or 16 bits."
        )
    exact = [d for d in dtypes if (torch.iinfo(d).min, torch.iinfo(d).max) == (low, high)]
    dtype = (exact or dtypes)[0]
    return dequantized(
        g, quantized(g, x, scale, zero, low, high, dtype, axis), scale, zero, dtype, x.dtype, axis
    )


def _in_doubles(x: Tensor, scale: Any, zero: Any, low: int, high: int, axis: int | None) -> Tensor:
    """The same by the formula: the scale and its inverse are float32, and the results of one scale for all.

    Source: `_fake_quantize_tensor_helper` in QuantizedOpKernels.cpp of ATen.
    """
    along = [1] * x.dim()
    if axis is not None:
        along[axis] = -1
    factor = (
        scale.to(torch.float32) if isinstance(scale, Tensor) else torch.tensor(scale, dtype=torch.float32)
    )
    point = zero.to(torch.float64) if isinstance(zero, Tensor) else torch.tensor(zero, dtype=torch.float64)
    factor, point = (v.reshape(along) if axis is not None else v.reshape(()) for v in (factor, point))
    steps = torch.round(x * (1 / factor).to(torch.float64)) + point
    kept = steps.clamp(low, high) - point
    return (kept.to(torch.float32) * factor if axis is None else kept * factor).to(torch.float64)


def _is_on(g: Recorder, flag: Tensor) -> bool:
    """A switch, which no input may decide."""
    real = g.real(flag)
    return bool(zero_copy(real).any() if real is not None else g.python_number(flag))


@row("fake_quantize_per_tensor_affine")
def fake_quantize_per_tensor(
    g: Recorder, out: Tensor, x: Tensor, scale: Any, zero: Any, low: int, high: int
) -> ir.Value:
    """QuantizeLinear and DequantizeLinear, one scale for all."""
    return _faked(g, x, scale, zero, low, high)


@row("fake_quantize_per_tensor_affine_cachemask")
def fake_quantize_per_tensor_masked(
    g: Recorder, out: Any, x: Tensor, scale: Any, zero: Any, low: int, high: int
) -> list[ir.Value | None]:
    """The same; the mask is for gradients."""
    return [_faked(g, x, scale, zero, low, high), None]


@row("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams")
def fake_quantize_if_enabled(
    g: Recorder, out: Any, x: Tensor, scale: Tensor, zero: Tensor, enabled: Tensor, low: int, high: int
) -> list[ir.Value | None]:
    """The same where a constant says that it is on."""
    if not _is_on(g, enabled):
        return [g.val(x), None]
    return [_faked(g, x, scale, zero, low, high), None]


@row("fake_quantize_per_channel_affine")
def fake_quantize_per_channel(
    g: Recorder, out: Tensor, x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int
) -> ir.Value:
    """QuantizeLinear and DequantizeLinear, a scale for each index of an axis."""
    return _faked(g, x, scale, zero, low, high, axis % x.dim())


@row("fake_quantize_per_channel_affine_cachemask")
def fake_quantize_per_channel_masked(
    g: Recorder, out: Any, x: Tensor, scale: Tensor, zero: Tensor, axis: int, low: int, high: int
) -> list[ir.Value | None]:
    """The same; the mask is for gradients."""
    return [_faked(g, x, scale, zero, low, high, axis % x.dim()), None]


@row("_fused_moving_avg_obs_fq_helper")
def fused_observer(
    g: Recorder,
    out: Any,
    x: Tensor,
    observer_on: Tensor,
    fake_quant_on: Tensor,
    least: Tensor,
    most: Tensor,
    scale: Tensor,
    zero: Tensor,
    averaging: float,
    low: int,
    high: int,
    axis: int,
    per_row: bool = False,
    symmetric: bool = False,
) -> list[ir.Value | None]:
    """FakeQuantize with its observer in one; it must be off, or every call would move the scales."""
    if _is_on(g, observer_on):
        raise ExportError(
            "this FakeQuantize still observes: each call would move its scales. Call "
            "model.apply(torch.ao.quantization.disable_observer) before the export."
        )
    if not _is_on(g, fake_quant_on):
        return [g.val(x), None]
    return [_faked(g, x, scale, zero, low, high, axis % x.dim() if per_row else None), None]
