"""Normalisations, kept whole: layer, group, batch, instance, root mean square, local response."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch

from ingot.capture.aten.reduce import deviation, reduced
from ingot.capture.aten.registry import composed, row, whole
from ingot.capture.aten.shape import reshape_to
from ingot.capture.checks import demand
from ingot.capture.fakes import checked, dense
from ingot.capture.request import recorder
from ingot.capture.size_symbols import product
from ingot.capture.tensors import inner_dtype

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def _fake_over_last(input: Tensor, normalized_shape: Sequence[Any], *args: Any, **kwargs: Any) -> Tensor:
    for i, n in enumerate(normalized_shape):
        checked(input, i - len(normalized_shape), n, "the normalisation")
    return dense(recorder(), input)


def _fake_channels(
    input: Tensor, weight: Any = None, bias: Any = None, mean: Any = None, *args: Any, **kwargs: Any
) -> Tensor:
    for vector in (weight, mean):
        if vector is not None and input.dim() > 1:  # torch takes one axis where it has no element
            checked(input, 1, vector.shape[0], "the normalisation")
    return dense(recorder(), input)


def _fake_groups(input: Tensor, num_groups: int, weight: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    if weight is not None:
        checked(input, 1, weight.shape[0], "the normalisation")
    torch._check(
        input.shape[1] % num_groups == 0, lambda: f"{num_groups} groups of {input.shape[1]} channels"
    )
    return dense(recorder(), input)


@whole(torch.layer_norm, meta=_fake_over_last)
def layer_norm(
    g: Recorder,
    out: Tensor,
    input: Tensor,
    normalized_shape: Sequence[Any],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> ir.Value:
    """LayerNormalization over the last axes."""
    scale = g.val(weight) if weight is not None else _filled(g, normalized_shape, 1.0, input.dtype)
    operands = [g.val(input), scale, *([g.val(bias)] if bias is not None else [])]
    return g.op("LayerNormalization", *operands, axis=-len(normalized_shape), epsilon=float(eps))


def _filled(g: Recorder, shape: Sequence[Any], value: float, dtype: torch.dtype) -> ir.Value:
    if all(isinstance(d, int) for d in shape):
        return g.const(np.full(tuple(shape), value), dtype)
    return g.op("Expand", g.const(value, dtype), g.shape(shape))


@row("native_layer_norm")
def native_layer_norm(
    g: Recorder, out: Any, x: Tensor, shape: Sequence[Any], weight: Any, bias: Any, eps: float
) -> list[ir.Value]:
    """LayerNormalization; its mean and 1/deviation by nodes of their own, for whoever uses them."""
    axes = list(range(x.dim() - len(shape), x.dim()))
    variance, mean = deviation(g, x, axes, 0, True)
    inner = inner_dtype(x.dtype)
    inverse = _inverse_root(g, variance, eps, inner)
    return [
        layer_norm(g, out[0], x, shape, weight, bias, eps),
        *(g.cast(v, inner, o.dtype) for v, o in zip((mean, inverse), out[1:], strict=True)),
    ]


def _inverse_root(g: Recorder, variance: ir.Value, eps: float, dtype: torch.dtype) -> ir.Value:
    return g.op("Reciprocal", g.op("Sqrt", g.op("Add", variance, g.const(float(eps), dtype))))


@composed("native_group_norm")
def native_group_norm(
    x: Tensor, weight: Any, bias: Any, n: Any, c: Any, rest: Any, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """group_norm, the groups' means and 1/deviations."""
    parted = x.to(inner_dtype(x.dtype)).reshape(n, groups, c // groups * rest)
    variance, mean = torch.var_mean(parted, -1, correction=0)
    inverse = 1 / torch.sqrt(variance + eps)
    y = ((parted - mean.unsqueeze(-1)) * inverse.unsqueeze(-1)).reshape(x.shape)
    per_channel = [1, -1, *[1] * (x.dim() - 2)]
    y = y if weight is None else y * weight.reshape(per_channel)
    return y if bias is None else y + bias.reshape(per_channel), mean, inverse


@whole(torch.rms_norm, meta=_fake_over_last)
def rms_norm(
    g: Recorder,
    out: Tensor,
    input: Tensor,
    normalized_shape: Sequence[Any],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> ir.Value:
    """x / sqrt(mean(x²) + eps) * weight, of halves in float32; so is the eps that none is given for."""
    inner = inner_dtype(input.dtype)
    epsilon = torch.finfo(inner).eps if eps is None else float(eps)
    n = len(normalized_shape)
    if g.opset >= 23:
        scale = g.val(weight) if weight is not None else _filled(g, normalized_shape, 1.0, input.dtype)
        return g.op("RMSNormalization", g.val(input), scale, axis=-n, epsilon=epsilon)
    x = g.operand(input, inner)
    axes = g.const([input.dim() - n + i for i in range(n)])
    mean = g.op("ReduceMean", g.op("Mul", x, x), axes, keepdims=1)
    root = g.op("Sqrt", g.op("Add", mean, g.const(epsilon, inner)))
    y = g.op("Div", x, root)
    y = y if weight is None else g.op("Mul", y, g.operand(weight, inner))
    return g.cast(y, inner, input.dtype)


def _per_channel(g: Recorder, vector: Tensor, rank: int) -> ir.Value:
    """[c] as [c, 1, 1 …], to stand against [n, c, spatial …]."""
    return g.op("Unsqueeze", g.val(vector), g.const(list(range(1, rank - 1)))) if rank > 2 else g.val(vector)


@whole(torch.group_norm, meta=_fake_groups)
def group_norm(
    g: Recorder,
    out: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> ir.Value:
    """GroupNormalization from opset 21; before it an instance normalisation over the groups."""
    x, dtype = g.val(input), input.dtype
    channels = g.sizes.number(input.shape[1])
    if g.is_empty(input):
        return x
    if channels is None:
        whole: Any = input.shape[1] % num_groups == 0
        demand(g, whole, "group_norm would refuse channels that do not make up groups here")
    if channels is None or dtype == torch.float64:
        return _in_steps(g, input, num_groups, weight, bias, eps)
    if g.opset >= 21:
        scale = g.val(weight) if weight is not None else _filled(g, [channels], 1.0, dtype)
        shift = g.val(bias) if bias is not None else _filled(g, [channels], 0.0, dtype)
        return g.op("GroupNormalization", x, scale, shift, num_groups=int(num_groups), epsilon=float(eps))
    parted = [input.shape[0], num_groups, channels // num_groups * product(input.shape[2:])]
    grouped = reshape_to(g, x, input.shape, parted)
    one, zero = _filled(g, [num_groups], 1.0, dtype), _filled(g, [num_groups], 0.0, dtype)
    y = g.op("InstanceNormalization", grouped, one, zero, epsilon=float(eps))
    y = reshape_to(g, y, parted, input.shape)
    if weight is not None:
        y = g.op("Mul", y, _per_channel(g, weight, input.dim()))
    return y if bias is None else g.op("Add", y, _per_channel(g, bias, input.dim()))


def _in_steps(g: Recorder, x: Tensor, groups: Any, weight: Any, bias: Any, eps: float) -> ir.Value:
    """Group normalisation of any number of channels, and of float64: onnxruntime has InstanceNormalization of
    float32 alone, and ONNX's GroupNormalization takes its statistics in float32.
    """
    n, c, *rest = x.shape
    made = g.recorded(native_group_norm, x, weight, bias, n, c, product(rest), groups, eps)[0]
    return g.operand(made, x.dtype)


@whole(torch.batch_norm, meta=_fake_channels)
def batch_norm(
    g: Recorder,
    out: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> ir.Value:
    """BatchNormalization with the running statistics, or with the batch's own where there are none, or in
    training; then the running ones move towards them.
    """
    if g.is_empty(input):  # torch leaves running statistics alone, too
        return g.val(input)
    channels = [input.shape[1]]
    scale = g.val(weight) if weight is not None else _filled(g, channels, 1.0, input.dtype)
    shift = g.val(bias) if bias is not None else _filled(g, channels, 0.0, input.dtype)
    if running_mean is not None and running_var is not None and not training:
        return g.op(
            "BatchNormalization",
            g.val(input),
            scale,
            shift,
            g.val(running_mean),
            g.val(running_var),
            epsilon=float(eps),
        )
    axes = [0, *range(2, input.dim())]
    variance, mean = deviation(g, input, axes, 0, False)
    if running_mean is not None and running_var is not None:
        inner = inner_dtype(input.dtype)
        count = g.cast(g.sizes.scalar(input.numel() // input.shape[1]), torch.int64, inner)
        bessel = g.op("Div", count, g.op("Sub", count, g.const(1, inner)))
        _move(g, running_mean, mean, inner, momentum)
        _move(g, running_var, g.op("Mul", variance, bessel), inner, momentum)
    return g.op("BatchNormalization", g.val(input), scale, shift, mean, variance, epsilon=float(eps))


def _move(g: Recorder, running: Tensor, value: ir.Value, dtype: torch.dtype, momentum: float) -> None:
    """running = (1 - momentum) * running + momentum * value (of this dtype), in its place."""
    value = g.cast(value, dtype, running.dtype)
    old = g.op("Mul", g.val(running), g.const(1 - momentum, running.dtype))
    g.overwrite(running, g.op("Add", old, g.op("Mul", value, g.const(momentum, running.dtype))))


@whole(torch.instance_norm, meta=_fake_channels)
def instance_norm(
    g: Recorder,
    out: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> ir.Value:
    """InstanceNormalization, or batch normalisation by running statistics; those move towards the batch's
    mean of the input's where these are used.
    """
    if not use_input_stats:
        return batch_norm(g, out, input, weight, bias, running_mean, running_var, False, momentum, eps)
    if running_mean is not None and running_var is not None:
        axes = list(range(2, input.dim()))
        variance, mean = deviation(g, input, axes, 1, False)
        for running, found in ((running_mean, mean), (running_var, variance)):
            of_batch = reduced(g, "ReduceMean", found, [0], False)
            _move(g, running, of_batch, inner_dtype(input.dtype), momentum)
    if g.is_empty(input):
        return g.val(input)
    if input.dtype == torch.float64:
        return _in_steps(g, input, input.shape[1], weight, bias, eps)
    channels = [input.shape[1]]
    scale = g.val(weight) if weight is not None else _filled(g, channels, 1.0, input.dtype)
    shift = g.val(bias) if bias is not None else _filled(g, channels, 0.0, input.dtype)
    return g.op("InstanceNormalization", g.val(input), scale, shift, epsilon=float(eps))
