"""Constant factors, constant sums and BatchNormalization go into the weights before them.

New weights are computed in float64 and rounded once; the old ones stay for whoever else uses them. In a
session large ones are computed when they are read, which is when a kernel packs them: until then they are a
view of the file and a factor for each channel. The factor is then rounded to the weight's dtype first, since
float64 takes several times as long. What the weight's dtype would not hold, large or small, stays outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ingot.mapped import forget_pages
from ingot.ops.create import tensor_array
from ingot.ops.nodes import set_inputs
from ingot.ops.numeric import is_float, is_native
from ingot.ops.registry import Array, attr_float, attr_int
from ingot.ops.tensors import tensor_of
from ingot.passes.edit import add_initializer, constant_of, constant_shape, constant_tensor
from ingot.passes.rewrite import Result, Rewriting, made_by, only_use, rule

#: A weight with other uses is copied only up to this size, in bytes.
_COPIED = 1 << 20
#: Smaller weights are computed at once, in bytes.
_LAZY = 1 << 16
#: Elements that are looked at together: they stay in the cache from one look to the next.
_BLOCK = 1 << 18

_OVERFLOW = "the new weights would overflow"
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(slots=True)
class _Weighted:
    """A node y = x ∘ w (+ b) with constant w and b, and how a factor for each output channel goes into w."""

    node: ir.Node
    weight: ir.TensorProtocol
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bias: Array | None
    channels: int

    @classmethod
    def of(cls, node: ir.Node) -> _Weighted | str:
        """The node's constants, or why they are none."""
        weight_value = node.inputs[1]
        weight = constant_tensor(weight_value)
        dtype = None if weight is None else weight.dtype.numpy()
        if weight is None or dtype is None or not is_float(dtype):
            return "its weight is not a float constant"
        shape = cast("tuple[int, ...]", weight.shape.dims)
        bias_value = node.inputs[2] if len(node.inputs) > 2 else None
        bias = constant_of(bias_value)
        if bias_value is not None and bias is None:
            return "its bias is not a constant"
        shared = weight_value is not None and len(weight_value.uses()) > 1
        if shared and weight.nbytes > _COPIED:
            return "its weight is used elsewhere, too, and large"
        if node.op_type == "MatMul" and len(shape) != 2:
            return "its weight is not a matrix"
        if node.op_type == "Gemm":
            if attr_float(node, "alpha", 1.0) != 1.0 or (
                bias is not None and attr_float(node, "beta", 1.0) != 1.0
            ):
                return "it has factors of its own"
            channels = shape[0 if attr_int(node, "transB", 0) else 1]
            if bias is not None and bias.shape not in ((channels,), (1, channels), (1,), ()):
                return "its bias is not one number for each column"
        elif node.op_type == "ConvTranspose":
            channels = shape[1] * attr_int(node, "group", 1)
        else:
            channels = shape[0] if node.op_type == "Conv" else shape[-1]
        return cls(node, weight, shape, dtype, bias, channels)

    def scaled(self, factor: Array, lazy: bool) -> ir.TensorProtocol | str:
        """The weight with each output channel multiplied, or why it does not hold that; factor [channels]."""
        weight, array = self.weight, tensor_array(self.weight)
        if not self._is_normal(array, np.abs(factor)):
            return "the new weights would be too small for their dtype"
        if lazy and weight.nbytes > _LAZY and is_native(self.dtype) and self._is_factor(factor):
            if not _fits(array, float(np.abs(factor).max(initial=0.0))):
                return _OVERFLOW

            def compute() -> ir.TensorProtocol:
                array = tensor_array(weight)
                with np.errstate(all="ignore"):
                    product = np.multiply(*self._times(array, factor.astype(array.dtype)))
                forget_pages(array)
                return tensor_of(product.reshape(self.shape))

            return ir.LazyTensor(compute, weight.dtype, cast("ir.Shape", weight.shape))
        scaled = _product(*self._times(array, factor))
        return _OVERFLOW if scaled is None else tensor_of(scaled.reshape(self.shape))

    @property
    def _layout(self) -> tuple[int, int, int, int]:
        """The weight's shape as [groups, rows, columns, rest]: output channels are groups by columns."""
        shape = self.shape
        if self.node.op_type == "ConvTranspose":
            groups = attr_int(self.node, "group", 1)
            return groups, shape[0] // groups, shape[1], math.prod(shape[2:])
        if self.node.op_type == "Conv" or (self.node.op_type == "Gemm" and attr_int(self.node, "transB", 0)):
            return shape[0], 1, 1, math.prod(shape[1:])
        return 1, shape[0], shape[1], 1

    def _times(self, array: Array, factor: Array) -> tuple[Array, Array]:
        """The weight, and a factor for each output channel, as they broadcast."""
        groups, _, columns, _ = self._layout
        return array.reshape(self._layout), factor.reshape(groups, 1, columns, 1)

    def _is_factor(self, factor: Array) -> bool:
        """Whether the weight's dtype has normal numbers for the factor."""
        return bool(((np.abs(factor) >= _least(self.dtype)) | (factor == 0)).all())

    def _is_normal(self, array: Array, factor: Array) -> bool:
        """Whether each channel's largest product (factor: magnitudes) is a normal number of the dtype, so
        that what its denormal ones lose is nothing beside it; or the tensor's largest is 2^26 times as large.
        """
        view, least = array.reshape(self._layout), _least(self.dtype)
        for part in (view[:, :8, :, :8], view):  # a few of each channel nearly always prove it
            largest = np.maximum(part.max((1, 3), initial=0), -part.min((1, 3), initial=0)).reshape(-1)
            sizes = largest.astype(np.float64) * factor
            if sizes.max(initial=0.0) >= least * 2**26:
                return True
            nothing = factor == 0 if part is not view else (factor == 0) | (largest == 0)
            if ((sizes >= least) | nothing).all():
                return True
        return False

    def rewritten(self, g: Rewriting, factor: Array | None, shift: Array | None) -> Result:
        """The node with factor and shift [channels] (in float64) in its constants."""
        weight = self.weight if factor is None else self.scaled(factor, lazy=not g.standard)
        bias = None if self.bias is None else self.bias.astype(np.float64)
        if bias is not None and factor is not None:
            bias = bias * factor
        if shift is not None:
            bias = shift if bias is None else bias + shift
        if bias is not None and bias.shape != (self.channels,):
            bias = np.broadcast_to(bias.reshape(-1), (self.channels,))
        new_bias = None if bias is None else _rounded(bias, self.dtype)
        if isinstance(weight, str):
            return weight
        if bias is not None and new_bias is None:
            return _OVERFLOW
        x, w = self.node.inputs[0], self.node.inputs[1]
        assert w is not None
        if factor is not None:
            w = add_initializer(self.node_graph, w.name or "weight", weight)
        b = None
        if new_bias is not None:
            b = add_initializer(
                self.node_graph, f"{(w.name or 'weight').split('#')[0]}.bias", tensor_of(new_bias)
            )
        if self.node.op_type == "MatMul":
            y = g.op("MatMul", x, w)
            return [g.op("Add", y, b) if b is not None else y]
        if self.bias is None and b is not None:
            self.node.attributes.pop("beta", None)  # a Gemm's, which had nothing to multiply
        # Nobody else uses its result, so it may become the new node.
        set_inputs(self.node, [x, w] if b is None else [x, w, b])
        return self.node.outputs

    @property
    def node_graph(self) -> ir.Graph:
        """The graph of the node, which the new weights join."""
        assert self.node.graph is not None
        return self.node.graph


def _product(weight: Array, factor: Array) -> Array | None:
    """weight · factor, computed in float64 block by block; None where it overflows the weight's dtype."""
    if not is_native(weight.dtype):
        return _rounded(weight.astype(np.float64) * factor, weight.dtype)
    result = np.empty(weight.shape, weight.dtype)
    with np.errstate(over="ignore"):
        np.multiply(weight, factor, out=result, dtype=np.float64, casting="unsafe")
    return result if np.isfinite(result).all() else None


def _fits(weight: Array, factor: float) -> bool:
    """Whether no product of the weight with a factor up to this one overflows the weight's dtype."""
    if factor <= 1.0:
        return True  # what is infinite in the result was so before
    most = float(np.finfo(weight.dtype).max) * 0.99 / factor  # the factor may be rounded up
    flat = weight.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        if not (block.max() <= most and block.min() >= -most):
            return False
    return True


def _least(dtype: np.dtype[Any]) -> float:
    """The least normal number of a dtype."""
    bounds = cast("np.finfo[Any]", ml_dtypes.finfo(dtype))
    return float(bounds.smallest_normal)


def _rounded(array: Array, dtype: np.dtype[Any]) -> Array | None:
    with np.errstate(over="ignore"):
        result = array.astype(dtype, order="C")
    wide = result if is_native(dtype) else result.astype(np.float64)
    return result if np.isfinite(wide).all() else None


def _per_channel(constant: ir.Value, weighted: _Weighted) -> Array | str:
    """A constant operand as one number for each output channel [channels], in float64."""
    shape = constant_shape(constant)
    array = None if shape is None else constant_of(constant)
    if shape is None or array is None or not is_float(array.dtype):
        return "the other operand is not a float constant"
    if weighted.node.op_type in ("Conv", "ConvTranspose"):
        rank = len(weighted.shape)
        if len(shape) > rank:
            return "the constant has more dimensions than the output"
        shape = (1,) * (rank - len(shape)) + shape
        others, size = (*shape[:1], *shape[2:]), shape[1]
    else:
        if len(shape) > 2 or (len(shape) == 2 and weighted.node.op_type != "Gemm"):
            return "the constant may have more dimensions than the output"
        others, size = shape[:-1], shape[-1] if shape else 1
    if any(n != 1 for n in others) or size not in (1, weighted.channels):
        return "the constant is not one number for each output channel"
    values = array.astype(np.float64).reshape(-1)
    if not np.isfinite(values).all():
        return "the constant is not finite"
    return values if values.size == weighted.channels else values.repeat(weighted.channels)


def _operands(node: ir.Node) -> tuple[ir.Node, ir.Value, bool] | str | None:
    """(the weighted node, the constant operand, whether the constant is on the left) of a Mul, Add, Sub or
    Div.
    """
    a, b = node.inputs
    for value, constant, left in ((a, b, False), (b, a, True)):
        producer = made_by(value, *_WEIGHTED)
        if (
            producer is not None
            and value is not None
            and constant is not None
            and constant_shape(constant) is not None
        ):
            if not only_use(value):
                return "the product is used elsewhere, too"
            if producer.graph is not node.graph:
                return "the product is in another graph"
            return producer, constant, left
    return None


@rule("BatchNormalization")
def batch_norm_into_weights(g: Rewriting, node: ir.Node) -> Result:
    """BatchNormalization(x ∘ w + b; s, t, m, v) == x ∘ (w · k) + ((b - m) · k + t), k = s / sqrt(v +
    epsilon).
    """
    x = node.inputs[0]
    producer = made_by(x, "Conv", "ConvTranspose", "Gemm")
    if producer is None or x is None:
        return None
    if attr_int(node, "training_mode", 0):
        return "it is in training mode"
    if not only_use(x) or producer.graph is not node.graph:
        return "the product is used elsewhere, too"
    parameters = [constant_of(value) for value in node.inputs[1:5]]
    weighted = _Weighted.of(producer)
    if isinstance(weighted, str):
        return weighted
    wide = [p.astype(np.float64) for p in parameters if p is not None]
    if len(wide) != 4:
        return "its parameters are not all constants"
    scale, bias, mean, var = wide
    factor = scale / np.sqrt(var + attr_float(node, "epsilon", 1e-5))
    if not np.isfinite(factor).all():
        return "its factors are not finite"
    return weighted.rewritten(g, factor, bias - mean * factor)


@rule("Mul", "Div", needs=_WEIGHTED)
def factor_into_weights(g: Rewriting, node: ir.Node) -> Result:
    """(x ∘ w + b) · c == x ∘ (w · c) + b · c."""
    found = _operands(node)
    if not isinstance(found, tuple):
        return found
    producer, constant, left = found
    if node.op_type == "Div" and left:
        return None
    weighted = _Weighted.of(producer)
    if isinstance(weighted, str):
        return weighted
    factor = _per_channel(constant, weighted)
    if isinstance(factor, str):
        return factor
    if node.op_type == "Div":
        if not factor.all():
            return "it divides by 0"
        factor = 1.0 / factor
    return weighted.rewritten(g, factor, None)


@rule("Add", "Sub", needs=_WEIGHTED)
def sum_into_bias(g: Rewriting, node: ir.Node) -> Result:
    """(x ∘ w + b) + c == x ∘ w + (b + c)."""
    found = _operands(node)
    if not isinstance(found, tuple):
        return found
    producer, constant, left = found
    if producer.op_type == "MatMul" or (node.op_type == "Sub" and left):
        return None  # MatMul has no bias of its own
    weighted = _Weighted.of(producer)
    if isinstance(weighted, str):
        return weighted
    shift = _per_channel(constant, weighted)
    if isinstance(shift, str):
        return shift
    return weighted.rewritten(g, None, shift if node.op_type == "Add" else -shift)


@rule("Mul", "Div", needs=("MatMul",))
def factor_through_matmul_bias(g: Rewriting, node: ir.Node) -> Result:
    """(x @ w + b) · c == x @ (w · c) + b · c."""
    for i in (0, 1) if node.op_type == "Mul" else (0,):
        total, constant = node.inputs[i], node.inputs[1 - i]
        addition = made_by(total, "Add")
        if addition is None or total is None or constant is None or constant_shape(constant) is None:
            continue
        for j in (0, 1):
            product, bias = addition.inputs[j], addition.inputs[1 - j]
            matmul = made_by(product, "MatMul")
            if matmul is None or product is None or bias is None or constant_shape(bias) is None:
                continue
            if not only_use(total) or not only_use(product) or matmul.graph is not node.graph:
                return "the sum or the product is used elsewhere, too"
            weighted = _Weighted.of(matmul)
            if isinstance(weighted, str):
                return weighted
            factor, shift = _per_channel(constant, weighted), _per_channel(bias, weighted)
            if isinstance(factor, str):
                return factor
            if isinstance(shift, str):
                return shift
            if node.op_type == "Div":
                if not factor.all():
                    return "it divides by 0"
                factor = 1.0 / factor
            return weighted.rewritten(g, factor, shift * factor)
    return None


RULES = (batch_norm_into_weights, factor_into_weights, sum_into_bias, factor_through_matmul_bias)
