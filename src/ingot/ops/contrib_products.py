"""ONNX Runtime's products of integers that dequantise what they compute (com.microsoft)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.contrib_quantized import along_last, are_bytes, as_numbers, whole_of
from ingot.ops.linear import matmul_shape
from ingot.ops.lowering import Lowering
from ingot.ops.nodes import input_at
from ingot.ops.numeric import FLOAT32, INT32
from ingot.ops.quantize import dynamic_range
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    find,
    given,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.sums import integer_product, is_many, plus, product_of, scaled

_DOMAIN = "com.microsoft"


def _finished(
    plan: Lowering, value: ir.Value, sums: ir.Value, factor: ir.Value, bias: ir.Value | None
) -> bool:
    """`value` = sums · factor + bias in float32."""
    rank = len(plan.facts(value).shape)
    if bias is None:
        scaled(plan, value, sums, along_last(plan, factor, rank))
        return True
    product = plan.intermediate(plan.facts(value).shape, FLOAT32)
    scaled(plan, product, sums, along_last(plan, factor, rank))
    return plan.wait(value, "Add", [product, along_last(plan, bias, rank)])


@register("MatMulIntegerToFloat", since=1, domain=_DOMAIN)
class MatMulIntegerToFloat(Op):
    """A product of integers in float32: a, b, a_scale, b_scale, a_zero, b_zero, bias."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """float32, in matmul's shape."""
        shape = matmul_shape(node, need(node, inputs, 0).shape, need(node, inputs, 1).shape)
        return [Facts(FLOAT32, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums in int32, then float32."""
        a, b = present(inputs, 0), present(inputs, 1)
        zeros = [given(inputs, 4), given(inputs, 5)]
        (sums,) = find("", "MatMulInteger").evaluate(node, [a, b, *zeros])
        scales = [s.reshape(()) if s.size == 1 else s for s in (present(inputs, 2), present(inputs, 3))]
        y = sums.astype(np.float32) * (scales[0] * scales[1])
        return [y if (bias := given(inputs, 6)) is None else y + bias]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Sums, and what becomes of them before they are stored."""
        a, b, value = node.inputs[0], node.inputs[1], node.outputs[0]
        assert a is not None and b is not None
        a_scale, b_scale = node.inputs[2], node.inputs[3]
        if is_many(plan, a_scale) or (b_scale is not None and len(plan.facts(b_scale).shape) > 1):
            return False
        sums = plan.intermediate(plan.facts(value).shape, INT32)
        if not integer_product(plan, sums, a, input_at(node, 4), b, input_at(node, 5)):
            return False
        return _finished(plan, value, sums, product_of(plan, a_scale, b_scale), input_at(node, 6))


@register("DynamicQuantizeMatMul", since=1, domain=_DOMAIN)
class DynamicQuantizeMatMul(Op):
    """a quantised over its own range, times integers b: a, b, b_scale, b_zero, bias; float32."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """float32, in matmul's shape."""
        shape = matmul_shape(node, need(node, inputs, 0).shape, need(node, inputs, 1).shape)
        return [Facts(FLOAT32, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """DynamicQuantizeLinear, then MatMulIntegerToFloat."""
        whole = ir.Node("", "DynamicQuantizeLinear", [ir.Value(name="x")], num_outputs=3)
        a, scale, zero = find("", "DynamicQuantizeLinear").evaluate(whole, [present(inputs, 0)])
        product = [a, present(inputs, 1), scale, present(inputs, 2), zero, given(inputs, 3), given(inputs, 4)]
        return find(_DOMAIN, "MatMulIntegerToFloat").evaluate(node, product)

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The range, the integers, and their product."""
        a, b, b_scale, value = node.inputs[0], node.inputs[1], node.inputs[2], node.outputs[0]
        assert a is not None and b is not None and b_scale is not None
        facts = plan.facts(a)
        usable = facts.dtype == FLOAT32 and are_bytes(plan, b) and len(facts.shape) > 1
        if not usable or len(plan.facts(b_scale).shape) > 1 or len(plan.facts(b).shape) < 2:
            return False
        whole, scale, zero = dynamic_range(plan, a)
        sums = plan.intermediate(plan.facts(value).shape, INT32)
        done = integer_product(plan, sums, whole, zero, b, input_at(node, 3))
        assert done
        return _finished(plan, value, sums, product_of(plan, scale, b_scale), input_at(node, 4))


@register("QGemm", since=1, domain=_DOMAIN)
class QGemm(Op):
    """alpha · a' @ b' + c of integers: a, scale, zero, b, scale, zero, c (int32), and the output's scale and
    zero; without those the result is float32.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[rows of a', columns of b']."""
        a, b, zero = need(node, inputs, 0), need(node, inputs, 3), given(inputs, 8)
        if len(a.shape) != 2 or len(b.shape) != 2:
            raise shape_error(node, f"inputs {show(a.shape)} and {show(b.shape)} must both be matrices")
        m, k = a.shape[::-1] if attr_int(node, "transA", 0) else a.shape
        k2, n = b.shape[::-1] if attr_int(node, "transB", 0) else b.shape
        if k != k2:
            raise shape_error(node, f"inputs {show(a.shape)} and {show(b.shape)}: {k} columns meet {k2} rows")
        quantised = given(inputs, 7) is not None
        return [Facts(FLOAT32 if not quantised else a.dtype if zero is None else zero.dtype, (m, n))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums in int32, c among them."""
        a, b = present(inputs, 0), present(inputs, 3)
        left = a.T if attr_int(node, "transA", 0) else a
        right = b.T if attr_int(node, "transB", 0) else b
        product = find("", "MatMulInteger").evaluate(
            node, [left, right, present(inputs, 2), present(inputs, 5)]
        )
        sums = product[0] if (c := given(inputs, 6)) is None else product[0] + c
        scales = [s.reshape(()) if s.size == 1 else s for s in (present(inputs, 1), present(inputs, 4))]
        factor = np.float32(attr_float(node, "alpha", 1.0)) * scales[0] * scales[1]
        y_scale, y_zero = given(inputs, 7), given(inputs, 8)
        if y_scale is None:
            return [sums.astype(np.float32) * factor]
        real = sums.astype(np.float32) * (factor / y_scale.reshape(()))
        return [whole_of(real, np.ones((), np.float32), y_zero, a.dtype if y_zero is None else y_zero.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Sums, and what becomes of them before they are stored."""
        a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
        c, y_scale, y_zero = (input_at(node, i) for i in (6, 7, 8))
        value = node.outputs[0]
        assert a is not None and b is not None
        if is_many(plan, a_scale) or is_many(plan, a_zero) or (y_scale is not None and y_zero is None):
            return False
        shape = plan.facts(value).shape
        sums = plan.intermediate(shape, INT32)
        transposed = {name: bool(attr_int(node, name, 0)) for name in ("transA", "transB")}
        if not integer_product(
            plan, sums, a, a_zero, b, b_zero,
            transposed_a=transposed["transA"], transposed=transposed["transB"],
        ):  # fmt: skip
            return False
        if c is not None:
            sums = plus(plan, sums, c)
        alpha = plan.known(np.array(attr_float(node, "alpha", 1.0), np.float32))
        factor = product_of(plan, alpha, a_scale, b_scale, over=y_scale)
        if y_scale is None:
            return _finished(plan, value, sums, factor, None)
        return plan.wait(value, "Requantize", [sums, along_last(plan, factor, 2), *as_numbers(plan, y_zero)])
