"""Products and convolutions of small integers: MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.kernels.contract import name_of
from ingot.kernels.definitions import requantize
from ingot.kernels.units import DTYPES
from ingot.ops.linear import matmul_shape
from ingot.ops.lowering import Lowering
from ingot.ops.nodes import input_at
from ingot.ops.numeric import FLOAT32, INT32
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    attr_int,
    given,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.sums import integer_conv, integer_product, is_many, placed, plus, product_of
from ingot.ops.window import Window


def _less(x: Array, zero: Array | None, axis: int) -> Array:
    """x - zero in int32; a vector of zero points belongs to `axis`."""
    wide = x.astype(np.int32)
    if zero is None:
        return wide
    if zero.ndim == 1 and zero.size > 1:
        zero = zero.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])
    return wide - (zero.reshape(()) if zero.size == 1 else zero).astype(np.int32)


@register("MatMulInteger", since=10)
class MatMulInteger(Op):
    """(a - a_zero) @ (b - b_zero) in int32."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """int32, in matmul's shape."""
        a, b = need(node, inputs, 0).shape, need(node, inputs, 1).shape
        shape = matmul_shape(node, a, b)
        _check_parts(node, "a", a[-2:-1], given(inputs, 2))
        _check_parts(node, "b", b[-1:], given(inputs, 3))
        return [Facts(INT32, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """a's zero point belongs to its rows, b's to its columns."""
        del node
        a, b = (
            _less(present(inputs, 0), given(inputs, 2), -2),
            _less(present(inputs, 1), given(inputs, 3), -1),
        )
        return [np.asarray(np.matmul(a, b))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A product of integers."""
        a, b = node.inputs[0], node.inputs[1]
        assert a is not None and b is not None
        return integer_product(plan, node.outputs[0], a, input_at(node, 2), b, input_at(node, 3))


def _check_parts(node: ir.Node, name: str, count: tuple[int, ...], facts: Facts | None) -> None:
    """A scale or zero point is one number, or one for each row of a, or column of b."""
    if facts is not None and len(facts.shape) == 1 and facts.shape[0] != 1 and facts.shape != count:
        raise shape_error(
            node,
            f"a scale or zero point of {name} has shape {show(facts.shape)}, and must be [] or {show(count)}",
        )


@register("QLinearMatMul", since=21)
class QLinearMatMul(Op):
    """A quantised product: inputs a, scale, zero, b, scale, zero, and the output's scale and zero."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The last zero point's dtype, in matmul's shape."""
        a, b = need(node, inputs, 0).shape, need(node, inputs, 3).shape
        shape = matmul_shape(node, a, b)
        for i in (1, 2):
            _check_parts(node, "a", a[-2:-1], given(inputs, i))
            _check_parts(node, "b", b[-1:], given(inputs, i + 3))
        return [Facts(need(node, inputs, 7).dtype, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums in int32, times the factor in float32, rounded to nearest even."""
        del node
        a, b = (
            _less(present(inputs, 0), given(inputs, 2), -2),
            _less(present(inputs, 3), given(inputs, 5), -1),
        )
        a_scale, b_scale, y_scale = (_float(present(inputs, i)) for i in (1, 4, 6))
        if a_scale.ndim == 1:
            a_scale = a_scale[:, None]
        zero = present(inputs, 7)
        return [_requantized(np.matmul(a, b), a_scale * b_scale / y_scale, zero)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A product of integers that is quantised before it is stored."""
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs
        assert a is not None and b is not None and y_zero is not None
        shape = plan.facts(node.outputs[0]).shape
        scalars = [v for v in (a_scale, y_scale, y_zero) if is_many(plan, v)]
        floats = all(v is not None and plan.facts(v).dtype == FLOAT32 for v in (a_scale, b_scale, y_scale))
        if scalars or not floats or (b_scale is not None and len(plan.facts(b_scale).shape) > 1):
            return False
        if name_of(plan.facts(y_zero).dtype) not in DTYPES:
            return False
        sums = plan.intermediate(shape, INT32)
        if not integer_product(plan, sums, a, a_zero, b, b_zero):
            return False
        factor = placed(plan, product_of(plan, a_scale, b_scale, over=y_scale), len(shape) - 1, len(shape))
        zero = placed(plan, y_zero, 0, len(shape))
        return plan.wait(node.outputs[0], "Requantize", [sums, factor, zero])


def _float(array: Array) -> Array:
    """A scale as float32: a number or what it is."""
    array = array.astype(np.float32)
    return array.reshape(()) if array.size == 1 else array


def _requantized(sums: Array, factor: Array, zero: Array) -> Array:
    dtype = zero.dtype.name
    shift = zero.reshape(()) if zero.size == 1 else zero
    return requantize(sums, factor, shift, dtypes=("int32", "float32", dtype), dtype=dtype)


def _conv_facts(node: ir.Node, x: Facts, w: Facts, dtype: DType) -> Outputs:
    window = _window(node, x.shape, w.shape)
    return [Facts(dtype, (x.shape[0], w.shape[0], *window.output))]


def _window(node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Window:
    group = attr_int(node, "group", 1)
    if len(x) < 3 or len(x) != len(w) or x[1] != w[1] * group or w[0] % group:
        raise shape_error(node, f"input {show(x)} and weight {show(w)} in {group} groups do not fit")
    return Window.of(node, x[2:], w[2:])


def _convolved(node: ir.Node, x: Array, w: Array, group: int) -> Array:
    """The convolution of integers less their zero points, in int32."""
    window = _window(node, x.shape, w.shape)
    rank = x.ndim - 2
    windows = window.windows(x, 0)
    contracted = [1, *range(2 + rank, 2 + 2 * rank)]
    parts = [
        np.tensordot(columns, kernels, (contracted, [*range(1, 2 + rank)]))
        for columns, kernels in zip(np.split(windows, group, 1), np.split(w, group, 0), strict=True)
    ]
    return np.moveaxis(np.concatenate(parts, -1), -1, 1)


@register("ConvInteger", since=10)
class ConvInteger(Op):
    """Conv of integers less their zero points, in int32."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """int32, in Conv's shape."""
        return _conv_facts(node, need(node, inputs, 0), need(node, inputs, 1), INT32)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One tensordot for each group."""
        x, w = _less(present(inputs, 0), given(inputs, 2), 0), _less(present(inputs, 1), given(inputs, 3), 0)
        return [_convolved(node, x, w, attr_int(node, "group", 1))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A convolution of integers."""
        return conv_sums(node, plan, node.outputs[0], (0, 2), (1, 3))


def conv_sums(
    node: ir.Node, plan: Lowering, value: ir.Value, of_x: tuple[int, int], of_w: tuple[int, int]
) -> bool:
    """`value` = the sums of a node's convolution; its inputs and their zero points have these numbers."""
    (x, x_zero), (w, w_zero) = ([input_at(node, i) for i in pair] for pair in (of_x, of_w))
    assert x is not None and w is not None
    window = _window(node, plan.facts(x).shape, plan.facts(w).shape)
    return integer_conv(plan, value, x, x_zero, w, w_zero, window, attr_int(node, "group", 1))


@register("QLinearConv", since=10)
class QLinearConv(Op):
    """A quantised Conv: inputs x, scale, zero, w, scale, zero, the output's scale and zero, and a bias."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The output zero point's dtype, in Conv's shape."""
        return _conv_facts(node, need(node, inputs, 0), need(node, inputs, 3), need(node, inputs, 7).dtype)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums in int32, the bias among them, times the factor in float32, rounded to nearest even."""
        x, w = _less(present(inputs, 0), given(inputs, 2), 0), _less(present(inputs, 3), given(inputs, 5), 0)
        sums, bias = _convolved(node, x, w, attr_int(node, "group", 1)), given(inputs, 8)
        columns = (-1, *[1] * (x.ndim - 2))
        if bias is not None:
            sums = sums + bias.astype(np.int32).reshape(columns)
        factor = _float(present(inputs, 1)) * _float(present(inputs, 4)) / _float(present(inputs, 6))
        factor = factor.reshape(columns) if factor.ndim else factor
        return [_requantized(sums, factor, present(inputs, 7))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A convolution of integers that is quantised before it is stored."""
        x_scale, w_scale, y_scale, y_zero = (node.inputs[i] for i in (1, 4, 6, 7))
        shape, bias = plan.facts(node.outputs[0]).shape, input_at(node, 8)
        assert y_zero is not None and y_scale is not None and x_scale is not None
        if any(is_many(plan, v) for v in (x_scale, y_scale, y_zero)):
            return False
        if name_of(plan.facts(y_zero).dtype) not in DTYPES:
            return False
        sums = plan.intermediate(shape, INT32)
        if not conv_sums(node, plan, sums, (0, 2), (3, 5)):
            return False
        if bias is not None:
            sums = plus(plan, sums, placed(plan, bias, 1, len(shape)))
        factor = placed(plan, product_of(plan, x_scale, w_scale, over=y_scale), 1, len(shape))
        zero = placed(plan, y_zero, 0, len(shape))
        return plan.wait(node.outputs[0], "Requantize", [sums, factor, zero])
