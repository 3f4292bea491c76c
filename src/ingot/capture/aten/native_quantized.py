"""Operators on PyTorch's own quantised tensors, which `torch.ao.quantization.convert` computes with, as float
operators between DequantizeLinear and QuantizeLinear.

An operator of `quantized::` sums integers exactly and rounds once; here its operands are dequantised, the
float operator runs, and its result is quantised. The two differ where a result lies half way between two
steps.
"""

# torch is untyped, and a quantised tensor's methods are looked up by name.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten.quantised_tensor import Quantised, of_tensor, quantised, spanning, unknown
from ingot.capture.aten.registry import instead

Tensor = torch.Tensor
_ops: Any = torch.ops
_aten: Any = torch.ops.aten


@instead(torch.quantize_per_tensor, _aten.quantize_per_tensor.default)
def quantize_per_tensor(input: Tensor, scale: Any, zero_point: Any, dtype: torch.dtype) -> Any:
    """One scale for all."""
    return quantised(input, scale, zero_point, dtype)


@instead(torch.quantize_per_channel, _aten.quantize_per_channel.default)
def quantize_per_channel(
    input: Tensor, scales: Tensor, zero_points: Tensor, axis: int, dtype: torch.dtype
) -> Any:
    """A scale for each index of an axis."""
    return quantised(input, scales, zero_points, dtype, axis)


@instead(torch.quantize_per_tensor_dynamic, _aten.quantize_per_tensor_dynamic.default)
def quantize_per_tensor_dynamic(input: Tensor, dtype: torch.dtype, reduce_range: bool) -> Any:
    """Steps that span the numbers."""
    return quantised(input, *spanning(input, dtype, reduce_range), dtype)


@instead(torch.dequantize, Tensor.dequantize, _aten.dequantize.self)
def dequantize(x: Any) -> Any:
    """The numbers of a quantised tensor; others as they are."""
    if isinstance(x, (list, tuple)):
        return [dequantize(v) for v in x]
    if isinstance(x, Tensor) and x.is_quantized:
        return of_tensor(x).dequantize()
    return x.dequantize() if isinstance(x, Quantised) else x


def _spanned(x: Tensor, reduce_range: bool) -> Quantised:
    halved = reduce_range and torch.backends.quantized.engine != "qnnpack"  # which ignores it
    return quantised(x, *spanning(x, torch.quint8, halved), torch.quint8)


def dynamic_linear(x: Tensor, packed: Any, reduce_range: bool) -> Tensor:
    """A linear layer of numbers that are quantised as far as they span."""
    return _layer("linear", _spanned(x, reduce_range), packed)


def _unpacked(kind: str, packed: Any) -> tuple[Quantised, Tensor | None]:
    with _disable_current_modes():
        weight, bias = getattr(_ops.quantized, f"{kind}_unpack")(packed)
        bias = None if bias is None else bias.detach()
    return of_tensor(weight), bias


def layer_of(kind: str, packed: Any) -> tuple[Quantised, Tensor | None, Callable[..., Tensor]]:
    """Weight and bias of a packed layer, and the function of activations, weight and bias that it is.

    kind: linear, convNd or conv_transposeNd
    """
    weight, bias = _unpacked(kind, packed)
    if kind == "linear":
        return weight, bias, F.linear
    at, axes = kind.replace("1d", "2d"), int(kind[-2])  # over a single axis it is packed as one over two
    transposed = kind.startswith("conv_transpose")
    asked = ("stride", "padding", *(["output_padding"] if transposed else []), "dilation", "groups")
    with _disable_current_modes():
        found: list[Any] = [getattr(_ops.quantized, f"{at}_{a}")(packed) for a in asked]
    sizes = {a: n if a == "groups" else list(n)[-axes:] for a, n in zip(asked, found, strict=True)}
    return weight, bias, partial(getattr(F, kind), **sizes)


def _layer(kind: str, x: Any, packed: Any) -> Tensor:
    weight, bias, apply = layer_of(kind, packed)
    return apply(dequantize(x), weight.dequantize(), bias)


def _steps(x: Any, made: Tensor, scale: Any, zero: Any) -> Quantised:
    return quantised(made, scale, zero, x.dtype)


def _with_packed(name: str) -> None:
    """`quantized::name`, with a ReLU, and with activations that are quantised in the call."""

    def static(relu: bool) -> Callable[..., Any]:
        def call(x: Any, packed: Any, *rest: Any) -> Any:
            if len(rest) != 2:
                raise unknown(f"quantized::{name} with its parameters")
            made = _layer(name, x, packed)
            return _steps(x, torch.relu(made) if relu else made, *rest)

        return call

    def dynamic(relu: bool) -> Callable[..., Any]:
        def call(x: Tensor, packed: Any, reduce_range: bool = False) -> Tensor:
            made = _layer(name, _spanned(x, reduce_range), packed)
            return torch.relu(made) if relu else made

        return call

    for relu in (False, True):
        full = f"{name}_relu" if relu else name
        for operator, call in ((full, static(relu)), (f"{full}_dynamic", dynamic(relu))):
            if hasattr(_ops.quantized, operator):
                _for(operator, call)


def _for(name: str, call: Callable[..., Any]) -> None:
    packet = getattr(_ops.quantized, name)
    instead(packet, *(getattr(packet, overload) for overload in packet.overloads()))(call)


_with_packed("linear")
for _axes in (1, 2, 3):
    _with_packed(f"conv{_axes}d")
    _with_packed(f"conv_transpose{_axes}d")


def linear_of_halves(x: Tensor, packed: Any) -> Tensor:
    """A linear layer whose weight is kept in float16."""
    with _disable_current_modes():
        weight, bias = _ops.quantized.linear_unpack_fp16(packed)
        weight, bias = weight.detach().half(), None if bias is None else bias.detach()
    return F.linear(x, weight.to(x.dtype), bias)


_for("linear_dynamic_fp16", linear_of_halves)
_for("linear_relu_dynamic_fp16", lambda x, packed: torch.relu(linear_of_halves(x, packed)))


def _pairs(name: str, compute: Callable[[Any, Any], Tensor], relu: bool) -> None:
    def call(qa: Any, qb: Any, scale: Any = None, zero_point: Any = None) -> Any:
        if not (isinstance(qa, Quantised) and isinstance(qb, Quantised)) or scale is None:
            raise unknown(f"quantized::{name} of a number")
        made = compute(qa.dequantize(), qb.dequantize())
        return _steps(qa, torch.relu(made) if relu else made, scale, zero_point)

    _for(name, call)


for _name, _compute in (("add", torch.add), ("mul", torch.mul), ("matmul", torch.matmul)):
    _pairs(_name, _compute, relu=False)
    if _name != "matmul":
        _pairs(f"{_name}_relu", _compute, relu=True)


def _joined(relu: bool, qx: Sequence[Any], dim: int, scale: Any = None, zero_point: Any = None) -> Any:
    made = torch.cat([p.dequantize() for p in qx], dim)
    made = torch.relu(made) if relu else made
    return qx[0].like(made) if scale is None else _steps(qx[0], made, scale, zero_point)


_for("cat", partial(_joined, False))
_for("cat_relu", partial(_joined, True))


def _plain(name: str, compute: Callable[..., Tensor]) -> None:
    """An operator whose last arguments are the steps of its result."""

    def call(
        x: Any, *args: Any, output_scale: Any = None, output_zero_point: Any = None, **kwargs: Any
    ) -> Any:
        if output_scale is None:
            args, (output_scale, output_zero_point) = args[:-2], args[-2:]
        return _steps(x, compute(x.dequantize(), *args, **kwargs), output_scale, output_zero_point)

    _for(name, call)


_plain("hardswish", F.hardswish)
_plain("sigmoid", torch.sigmoid)
_plain("leaky_relu", lambda x, slope, inplace=False: F.leaky_relu(x, slope))
_plain("softmax", torch.softmax)
_plain("layer_norm", F.layer_norm)
_plain("group_norm", F.group_norm)
_plain("instance_norm", lambda x, weight, bias, eps: F.instance_norm(x, None, None, weight, bias, eps=eps))
for _name in ("batch_norm", "batch_norm1d", "batch_norm2d", "batch_norm3d"):
    _plain(_name, lambda x, w, b, mean, var, eps: F.batch_norm(x, mean, var, w, b, eps=eps))
    if hasattr(_ops.quantized, f"{_name}_relu"):
        _plain(
            f"{_name}_relu",
            lambda x, w, b, mean, var, eps: torch.relu(F.batch_norm(x, mean, var, w, b, eps=eps)),
        )
_for(
    "elu",
    lambda x, scale, zero, alpha=1, factor=1, inner=1: _steps(
        x, torch.ops.aten.elu(x.dequantize(), alpha, factor, inner), scale, zero
    ),
)
_for("celu", lambda x, scale, zero, alpha=1: _steps(x, F.celu(x.dequantize(), alpha), scale, zero))
_for("threshold", lambda x, threshold, value: x.like(F.threshold(x.dequantize(), threshold, value)))
_for("relu6", lambda x, inplace=False: x.like(F.relu6(x.dequantize())))
_for("clamp", lambda x, min=None, max=None: x.like(torch.clamp(x.dequantize(), min, max)))


def _rows_of(packed: Any, indices: Tensor | None, pruned: bool) -> Tensor:
    """Rows of a quantised embedding, whose zero points may be no integers; all of them for no indices.

    Rows of four bits keep their scale, and what is added, in float16.
    """
    if pruned:
        raise unknown("an embedding with pruned rows")
    with _disable_current_modes():
        q = _ops.quantized.embedding_bag_unpack(packed)
        scale, zero = (v.float()[:, None] for v in (q.q_per_channel_scales(), q.q_per_channel_zero_points()))
        integers = (q.dequantize() / scale + zero).round().to(torch.uint8)
        added = -zero * scale
        if q.dtype == torch.quint4x2:
            scale, added = scale.half().float(), added.half().float()
    if indices is not None:
        integers, scale, added = (F.embedding(indices, v) for v in (integers, scale, added))
    return integers.float() * scale + added


def embedding(packed: Any, indices: Tensor, pruned_weights: bool = False) -> Tensor:
    """Rows by their indices."""
    return _rows_of(packed, indices, pruned_weights)


def embedding_bag(
    packed: Any,
    indices: Tensor,
    offsets: Tensor | None = None,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    pruned_weights: bool = False,
    per_sample_weights: Tensor | None = None,
    compressed_indices_mapping: Tensor | None = None,
    include_last_offset: bool = False,
) -> Tensor:
    """Sums of rows, whatever the mode: PyTorch's kernel does not look at it."""
    rows = _rows_of(packed, None, pruned_weights or compressed_indices_mapping is not None)
    weights = None if per_sample_weights is None else per_sample_weights.float()
    return F.embedding_bag(
        indices,
        rows,
        offsets,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=include_last_offset,
    )


for _bits in ("byte", "4bit"):
    _for(f"embedding_{_bits}", embedding)
    _for(f"embedding_bag_{_bits}", embedding_bag)
