"""Quantisation: to and from small integers, and products of them. onnx.reference evaluates them; shapes are
inferred here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.ops.linear import matmul_shape
from ingot.ops.registry import Array, Facts, Op, attr_int, given, need, present, register
from ingot.ops.window import Window

Outputs = list[Facts | None] | None
_INT32 = np.dtype(np.int32)
_FLOAT32 = np.dtype(np.float32)
_UINT8 = np.dtype(np.uint8)


def _named(node: ir.Node, attribute: str, default: np.dtype[Any]) -> np.dtype[Any]:
    code = attr_int(node, attribute, 0)
    return ir.DataType(code).numpy() if code else default


@register("QuantizeLinear", since=28)
class QuantizeLinear(Op):
    """saturate(round(x / scale) + zero_point)."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The zero point's dtype, or the one named, or uint8."""
        x, zero = need(node, inputs, 0), given(inputs, 2)
        dtype = zero.dtype if zero is not None else _named(node, "output_dtype", _UINT8)
        return [Facts(dtype, x.shape)]


@register("DequantizeLinear", since=28)
class DequantizeLinear(Op):
    """(x - zero_point) · scale."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The scale's dtype, or the one named."""
        x, scale = need(node, inputs, 0), need(node, inputs, 1)
        return [Facts(_named(node, "output_dtype", scale.dtype), x.shape)]


@register("DynamicQuantizeLinear", since=11)
class DynamicQuantizeLinear(Op):
    """x as uint8 over its own range, the scale and the zero point."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """uint8 like x, then two scalars."""
        x = need(node, inputs, 0)
        outputs: list[Facts | None] = [Facts(_UINT8, x.shape), Facts(_FLOAT32, ()), Facts(_UINT8, ())]
        return outputs[: len(node.outputs)]


@register("MatMulInteger", since=10)
class MatMulInteger(Op):
    """(a - a_zero) @ (b - b_zero) in int32."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """int32, in matmul's shape."""
        return [Facts(_INT32, matmul_shape(node, need(node, inputs, 0).shape, need(node, inputs, 1).shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """a's zero point belongs to its rows, b's to its columns."""
        a, b = (present(inputs, i).astype(np.int32) for i in (0, 1))
        a_zero, b_zero = given(inputs, 2), given(inputs, 3)
        if a_zero is not None:
            a = a - (
                a_zero.astype(np.int32)[..., None]
                if a_zero.ndim == 1 and a_zero.size > 1
                else a_zero.astype(np.int32)
            )
        if b_zero is not None:
            b = b - b_zero.astype(np.int32)
        return [np.matmul(a, b)]


@register("QLinearMatMul", since=21)
class QLinearMatMul(Op):
    """A quantised product: inputs a, scale, zero, b, scale, zero, and the output's scale and zero."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The last zero point's dtype, in matmul's shape."""
        shape = matmul_shape(node, need(node, inputs, 0).shape, need(node, inputs, 3).shape)
        return [Facts(need(node, inputs, 7).dtype, shape)]


def _conv_facts(node: ir.Node, x: Facts, w: Facts, dtype: np.dtype[Any]) -> Outputs:
    window = Window.of(node, x.shape[2:], w.shape[2:])
    return [Facts(dtype, (x.shape[0], w.shape[0], *window.output))]


@register("ConvInteger", since=10)
class ConvInteger(Op):
    """Conv of integers less their zero points, in int32."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """int32, in Conv's shape."""
        return _conv_facts(node, need(node, inputs, 0), need(node, inputs, 1), _INT32)


@register("QLinearConv", since=10)
class QLinearConv(Op):
    """A quantised Conv: inputs x, scale, zero, w, scale, zero, the output's scale and zero, and a bias."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The output zero point's dtype, in Conv's shape."""
        return _conv_facts(node, need(node, inputs, 0), need(node, inputs, 3), need(node, inputs, 7).dtype)
