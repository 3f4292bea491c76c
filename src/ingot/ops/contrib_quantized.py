"""ONNX Runtime's operators of small integers (com.microsoft): the QLinear* family, products that dequantise
what they compute, and weights of a few bits in blocks.

Where ONNX Runtime computes in float32 between integers, the same steps are taken in the same order, so that
results are the same bits; where sums are added up in another order (windows of averages, Softmax), a value
at the middle between two steps may take either.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import View as Memory
from ingot.kernels.call import constant
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.definitions import dequantize, quantize
from ingot.kernels.expression import Step, expression_of
from ingot.kernels.few_bits import few_bits, supports
from ingot.kernels.few_bits_integers import definition as bytes_definition
from ingot.kernels.few_bits_integers import few_bits_integers, pack_few_bits
from ingot.kernels.few_bits_integers import supports as supports_bytes
from ingot.kernels.gemm import matmul
from ingot.kernels.pack import pack_weights
from ingot.kernels.reduce import reduce
from ingot.kernels.units import DTYPES
from ingot.ops.compose import computed
from ingot.ops.linear import matmul_shape
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import FLOAT32, INT32, unpacked
from ingot.ops.quantize import dynamic_range
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    attr_ints,
    broadcast,
    find,
    given,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.sums import input_of, integer_product, is_many, placed, plus, product_of, scaled

_DOMAIN = "com.microsoft"


def _real(x: Array, scale: Array, zero: Array | None, axis: int = -1) -> Array:
    """(x - zero) · scale in float32; vectors belong to `axis`."""

    def spread(values: Array) -> Array:
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])

    zeros = None if zero is None else spread(zero)
    return dequantize(x, spread(scale), zeros, dtypes=(x.dtype.name, "float32"), dtype="float32")


def _whole(x: Array, scale: Array, zero: Array | None, dtype: DType) -> Array:
    """Saturate(round(x / scale) + zero)."""
    zeros = None if zero is None else zero.reshape(())
    return quantize(x, scale.reshape(()), zeros, dtypes=("float32", "float32"), dtype=dtype.name)


def _waiting(plan: Lowering, op: str, operands: Sequence[ir.Value], dtype: Any = FLOAT32) -> ir.Value:
    """A new value that waits as an elementwise operator's result."""
    shape = np.broadcast_shapes(*(plan.facts(v).shape for v in operands))
    value = plan.intermediate(shape, dtype)
    assert plan.wait(value, op, operands), f"{op} of these dtypes has no kernel"
    return value


def _numbers(plan: Lowering, *values: ir.Value | None) -> list[ir.Value]:
    """Scales and zero points of whole tensors, as they broadcast; absent ones are left out."""
    return [placed(plan, v, 0, 0) for v in values if v is not None]


def _are_bytes(plan: Lowering, *values: ir.Value | None) -> bool:
    return all(v is None or name_of(plan.facts(v).dtype) in DTYPES for v in values)


def _number(zero: Array | None) -> Any:
    return np.int32(0) if zero is None else zero.reshape(()).astype(np.int32)


class _Through(Op):
    """A float operator on integers: dequantised before it, quantised after it, in one kernel where they can.

    Inputs: x, scale, zero for each of `operands`, then the output's scale and zero (which may be absent).
    """

    operands: ClassVar[int] = 1
    float_op: ClassVar[str]

    def attributes(self, node: ir.Node) -> list[ir.Attr]:
        """Those of the float operator."""
        return [a for name, a in node.attributes.items() if name != "opset"]

    def extra(self, node: ir.Node, shape: tuple[int, ...]) -> list[Array]:
        """Further inputs of the float operator."""
        del node, shape
        return []

    def _node(self, node: ir.Node, count: int) -> ir.Node:
        values = [ir.Value(name=f"x{i}") for i in range(count)]
        return ir.Node("", self.float_op, values, self.attributes(node), name=node.name)

    def _parts(self, values: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
        return [(values[3 * i], values[3 * i + 1], given(values, 3 * i + 2)) for i in range(self.operands)]

    def _end(self, values: Sequence[Any]) -> tuple[Any, Any]:
        return values[3 * self.operands], given(values, 3 * self.operands + 1)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The float operator's shape, the first operand's dtype."""
        facts = [need(node, inputs, self._position(i)) for i in range(self._count(node))]
        floats: list[Facts | None] = [Facts(FLOAT32, f.shape) for f in facts]
        floats += [Facts(a.dtype, a.shape, a) for a in self.extra(node, facts[0].shape)]
        results = find("", self.float_op).infer(self._node(node, len(floats)), floats)
        return None if results is None else [f and Facts(facts[0].dtype, f.shape) for f in results]

    def _count(self, node: ir.Node) -> int:
        del node
        return self.operands

    def _position(self, operand: int) -> int:
        return 3 * operand

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float32 between the integers."""
        parts = self._parts(inputs)
        reals = [_real(*part) for part in parts] + self.extra(node, parts[0][0].shape)
        (result,) = find("", self.float_op).evaluate(self._node(node, len(reals)), reals)
        scale, zero = self._end(inputs)
        return [self.quantised(result.astype(np.float32), scale, zero, parts[0][0].dtype)]

    def quantised(self, real: Array, scale: Array, zero: Array | None, dtype: DType) -> Array:
        """What the float operator's result becomes."""
        return _whole(real, scale, zero, dtype)

    def lower_quantised(
        self, plan: Lowering, value: ir.Value, real: ir.Value, scale: ir.Value, zero: ir.Value | None
    ) -> bool:
        """See `quantised`."""
        return plan.wait(value, "QuantizeLinear", [real, *_numbers(plan, scale, zero)])

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Steps before and after the float operator's kernel."""
        return self._lowered(node, plan, node.inputs)

    def _lowered(self, node: ir.Node, plan: Lowering, inputs: Sequence[ir.Value | None]) -> bool:
        parts, (scale, zero) = self._parts(inputs), self._end(inputs)
        if not _are_bytes(plan, *(x for x, _, _ in parts)) or any(
            is_many(plan, v) for part in parts for v in part[1:]
        ):
            return False
        operands = [x for x, _, _ in parts]
        for x in {x for x in operands if operands.count(x) > 1}:
            plan.view(x)  # more than one kernel may read it
        reals = [_waiting(plan, "DequantizeLinear", [x, *_numbers(plan, s, z)]) for x, s, z in parts]
        reals += [plan.known(a) for a in self.extra(node, plan.facts(parts[0][0]).shape)]
        value = node.outputs[0]
        real = computed(plan, self.float_op, reals, plan.facts(value).shape, FLOAT32, self.attributes(node))
        return self.lower_quantised(plan, value, real, scale, zero)


def _through(name: str, float_op: str, doc: str) -> None:
    cls = type(name, (_Through,), {"__doc__": doc, "float_op": float_op})
    register(name, since=1, domain=_DOMAIN)(cls)


_through("QLinearSigmoid", "Sigmoid", "Sigmoid of dequantised integers, quantised.")
_through("QLinearLeakyRelu", "LeakyRelu", "LeakyRelu of dequantised integers, quantised.")


@register("QLinearAveragePool", since=1, domain=_DOMAIN)
class QLinearAveragePool(_Through):
    """AveragePool of dequantised integers, quantised; the zero point is added before it is rounded."""

    float_op = "AveragePool"

    def quantised(self, real: Array, scale: Array, zero: Array | None, dtype: DType) -> Array:
        """Saturate(round(real / scale + zero))."""
        moved = real / scale.reshape(()) + np.float32(_number(zero))
        return _whole(moved.astype(np.float32), np.ones((), np.float32), None, dtype)

    def lower_quantised(
        self, plan: Lowering, value: ir.Value, real: ir.Value, scale: ir.Value, zero: ir.Value | None
    ) -> bool:
        """See `quantised`."""
        real = _waiting(plan, "Div", [real, *_numbers(plan, scale)])
        if zero is not None:
            real = _waiting(plan, "Add", [real, _waiting(plan, "Cast", _numbers(plan, zero))])
        return plan.wait(value, "QuantizeLinear", [real, plan.known(np.ones((), np.float32))])


@register("QLinearGlobalAveragePool", since=1, domain=_DOMAIN)
class QLinearGlobalAveragePool(_Through):
    """The mean of each channel, quantised: a sum of integers, times one factor."""

    float_op = "GlobalAveragePool"

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The sum is exact."""
        x, scale, zero, y_scale, y_zero = (given(inputs, i) for i in range(5))
        assert x is not None and scale is not None and y_scale is not None
        count = math.prod(x.shape[2:])
        sums = (x.astype(np.int32) - _number(zero)).sum(tuple(range(2, x.ndim)), np.int32, keepdims=True)
        factor = scale.reshape(()) / (y_scale.reshape(()) * np.float32(count))
        real = sums.astype(np.float32) * np.float32(factor)
        return [_whole(real, np.ones((), np.float32), y_zero, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A reduction and a step after it; scales and zero points must be known."""
        x, value = node.inputs[0], node.outputs[0]
        known = [plan.constant(input_of(node, i)) for i in range(1, 5)]
        absent = [input_of(node, i) is None for i in range(1, 5)]
        assert x is not None
        facts = plan.facts(x)
        if not _are_bytes(plan, x) or any(
            k is None and not gone for k, gone in zip(known, absent, strict=True)
        ):
            return False
        scale, zero, y_scale, y_zero = known
        assert scale is not None and y_scale is not None
        if not math.prod(facts.shape[2:]):
            return False
        count = math.prod(facts.shape[2:])
        sums = plan.temporary(facts.shape[:2], INT32)
        widened = expression_of((name_of(facts.dtype),), (Step("Cast", (0,), "int32"),), (1,))
        axes = range(2, len(facts.shape))
        plan.emit(reduce("ReduceSum", [plan.view(x)], axes, sums, plan.machine, widened))
        shape = plan.facts(value).shape
        whole = sums.reshape(shape)
        assert whole is not None
        less = _waiting(
            plan, "Sub", [plan.located(whole), plan.known(np.asarray(_number(zero) * count, np.int32))], INT32
        )
        factor = np.asarray(scale.reshape(()) / (y_scale.reshape(()) * np.float32(count)), np.float32)
        end = plan.known(np.zeros((), facts.dtype) if y_zero is None else y_zero.reshape(()))
        return plan.wait(value, "Requantize", [less, plan.known(factor), end])


@register("QLinearSoftmax", since=1, domain=_DOMAIN)
class QLinearSoftmax(_Through):
    """Softmax of dequantised integers, quantised; below opset 13 over all axes from `axis` on.

    A result counts in whole parts of 1, as ONNX Runtime has it: with the usual scale, the float32 next to
    1 / 255, those are 1 / 254.
    """

    float_op = "Softmax"

    def _flattened(self, node: ir.Node, rank: int) -> int | None:
        """The first of several axes that are normalised as one."""
        if attr_int(node, "opset", 13) >= 13:
            return None
        axis = normal_axis(node, attr_int(node, "axis", -1), rank)
        return axis if axis < rank - 1 else None

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Several axes as rows."""
        x = present(inputs, 0)
        axis = self._flattened(node, x.ndim)
        own = [*inputs[:3], _parts_of_one(present(inputs, 3)), *inputs[4:]]
        if axis is None:
            return super().evaluate(node, own)
        rows = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        line = ir.Node(
            _DOMAIN, "QLinearSoftmax", node.inputs, [ir.AttrInt64("axis", -1), ir.AttrInt64("opset", 13)]
        )
        return [super().evaluate(line, [rows, *own[1:]])[0].reshape(x.shape)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One axis, and a scale that is known."""
        x, scale = node.inputs[0], plan.constant(node.inputs[3])
        assert x is not None
        if scale is None or self._flattened(node, len(plan.facts(x).shape)) is not None:
            return False
        own = plan.known(_parts_of_one(scale))
        return self._lowered(node, plan, [*node.inputs[:3], own, *node.inputs[4:]])


def _parts_of_one(scale: Array) -> Array:
    """The scale whose inverse is the whole part of this one's."""
    with np.errstate(divide="ignore"):
        return np.asarray(1 / np.floor(1 / scale.astype(np.float32).reshape(-1)[:1]), np.float32)


@register("QLinearReduceMean", since=1, domain=_DOMAIN)
class QLinearReduceMean(_Through):
    """The mean over `axes` of dequantised integers, quantised."""

    float_op = "ReduceMean"

    def attributes(self, node: ir.Node) -> list[ir.Attr]:
        """Axes are an input of the newest ReduceMean."""
        return [a for name, a in node.attributes.items() if name != "axes"]

    def extra(self, node: ir.Node, shape: tuple[int, ...]) -> list[Array]:
        """The axes; absent, all of them."""
        axes = attr_ints(node, "axes")
        return [np.array(tuple(range(len(shape))) if axes is None else axes, np.int64)]


@register("QLinearConcat", since=1, domain=_DOMAIN)
class QLinearConcat(_Through):
    """Concat of dequantised integers, quantised: the output's scale and zero, then all x, scale, zero."""

    float_op = "Concat"

    def _count(self, node: ir.Node) -> int:
        return (len(node.inputs) - 2) // 3

    def _position(self, operand: int) -> int:
        return 2 + 3 * operand

    def _parts(self, values: Sequence[Any]) -> list[tuple[Any, Any, Any]]:
        return [(values[i], values[i + 1], given(values, i + 2)) for i in range(2, len(values) - 1, 3)]

    def _end(self, values: Sequence[Any]) -> tuple[Any, Any]:
        return values[0], values[1]


class _Pairwise(Op):
    """Add and Mul of integers, with ONNX Runtime's roundings: a, scale, zero, b, scale, zero, scale, zero."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The broadcast shape."""
        a, b = need(node, inputs, 0), need(node, inputs, 3)
        return [Facts(a.dtype, broadcast(node, a.shape, b.shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The same steps as the kernel's."""
        del node
        a, b = present(inputs, 0), present(inputs, 3)
        scales = [present(inputs, i).reshape(()) for i in (1, 4, 6)]
        zeros = [
            np.int32(0) if (z := given(inputs, i)) is None else z.reshape(()).astype(np.int32)
            for i in (2, 5, 7)
        ]
        real = self.real(a.astype(np.int32), b.astype(np.int32), scales, zeros)
        one = np.ones((), np.float32)
        return [quantize(real, one, None, dtypes=("float32", "float32"), dtype=a.dtype.name)]

    def real(self, a: Array, b: Array, scales: list[Array], zeros: list[Any]) -> Array:
        """The result before it is rounded, with the zero point in it; int32 in, float32 out."""
        raise NotImplementedError

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Steps of one kernel; scales and zero points must be known."""
        a, b, value = node.inputs[0], node.inputs[3], node.outputs[0]
        assert a is not None and b is not None
        known = [plan.constant(input_of(node, i)) for i in (1, 2, 4, 5, 6, 7)]
        absent = [input_of(node, i) is None for i in (1, 2, 4, 5, 6, 7)]
        if not _are_bytes(plan, a, b) or any(
            k is None and not gone for k, gone in zip(known, absent, strict=True)
        ):
            return False
        if any(k is not None and k.size != 1 for k in known):
            return False
        scales = [np.asarray(known[i], np.float32).reshape(()) for i in (0, 2, 4)]
        zeros = [_number(known[i]) for i in (1, 3, 5)]
        wide = [_waiting(plan, "Cast", [v], INT32) for v in (a, b)]
        real = self.steps(plan, wide[0], wide[1], scales, zeros)
        return plan.wait(value, "QuantizeLinear", [real, plan.known(np.ones((), np.float32))])

    def steps(
        self, plan: Lowering, a: ir.Value, b: ir.Value, scales: list[Array], zeros: list[Any]
    ) -> ir.Value:
        """`real` as waiting values."""
        raise NotImplementedError


@register("QLinearMul", since=1, domain=_DOMAIN)
class QLinearMul(_Pairwise):
    """The product of two dequantised tensors, quantised."""

    def real(self, a: Array, b: Array, scales: list[Array], zeros: list[Any]) -> Array:
        """The exact product of integers, times one factor."""
        factor = scales[0] * scales[1] / scales[2]
        product = ((a - zeros[0]) * (b - zeros[1])).astype(np.float32) * factor
        return product + np.float32(zeros[2])

    def steps(
        self, plan: Lowering, a: ir.Value, b: ir.Value, scales: list[Array], zeros: list[Any]
    ) -> ir.Value:
        """See `real`."""
        factor = np.asarray(scales[0] * scales[1] / scales[2], np.float32)
        parts = [_waiting(plan, "Sub", [v, plan.known(np.asarray(z))], INT32)
                 for v, z in ((a, zeros[0]), (b, zeros[1]))]  # fmt: skip
        real = _waiting(plan, "Cast", [_waiting(plan, "Mul", parts, INT32)])
        real = _waiting(plan, "Mul", [real, plan.known(factor)])
        return _waiting(plan, "Add", [real, plan.known(np.asarray(np.float32(zeros[2])))])


@register("QLinearAdd", since=1, domain=_DOMAIN)
class QLinearAdd(_Pairwise):
    """The sum of two dequantised tensors, quantised: three multiply-adds, each rounded once; the last is that
    of the operand whose rows do not repeat.
    """

    def _factors(self, scales: list[Array], zeros: list[Any], is_turned: bool) -> tuple[Any, Any, Any]:
        """Of the first operand, of the second, and what is fixed."""
        first, second = (1, 0) if is_turned else (0, 1)
        left, right = scales[first] / scales[2], scales[second] / scales[2]
        moved = np.float64(left) * zeros[first] + np.float64(right * np.float32(zeros[second]))
        return left, right, np.float32(zeros[2]) - np.float32(moved)

    def real(self, a: Array, b: Array, scales: list[Array], zeros: list[Any]) -> Array:
        """In float64, rounded where ONNX Runtime rounds."""
        is_turned = _repeats(a.shape, b.shape)
        left, right, fixed = (np.float64(f) for f in self._factors(scales, zeros, is_turned))
        if is_turned:
            a, b = b, a
        return ((b * right + fixed).astype(np.float32) + a * left).astype(np.float32)

    def steps(
        self, plan: Lowering, a: ir.Value, b: ir.Value, scales: list[Array], zeros: list[Any]
    ) -> ir.Value:
        """See `real`."""
        is_turned = _repeats(plan.facts(a).shape, plan.facts(b).shape)
        factors = self._factors(scales, zeros, is_turned)
        left, right, fixed = (plan.known(np.asarray(f, np.float32)) for f in factors)
        if is_turned:
            a, b = b, a
        first = _waiting(plan, "MultiplyAdd", [_waiting(plan, "Cast", [b]), right, fixed])
        return _waiting(plan, "MultiplyAdd", [_waiting(plan, "Cast", [a]), left, first])


def _repeats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether `a` has one number for each row of `b`."""
    return (not a or a[-1] == 1) and bool(b) and b[-1] != 1


def _last(plan: Lowering, value: ir.Value, rank: int) -> ir.Value:
    return placed(plan, value, rank - 1, rank)


def _finished(
    plan: Lowering, value: ir.Value, sums: ir.Value, factor: ir.Value, bias: ir.Value | None
) -> bool:
    """`value` = sums · factor + bias in float32."""
    rank = len(plan.facts(value).shape)
    if bias is None:
        scaled(plan, value, sums, _last(plan, factor, rank))
        return True
    product = plan.intermediate(plan.facts(value).shape, FLOAT32)
    scaled(plan, product, sums, _last(plan, factor, rank))
    return plan.wait(value, "Add", [product, _last(plan, bias, rank)])


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
        if not integer_product(plan, sums, a, input_of(node, 4), b, input_of(node, 5)):
            return False
        return _finished(plan, value, sums, product_of(plan, a_scale, b_scale), input_of(node, 6))


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
        usable = facts.dtype == FLOAT32 and _are_bytes(plan, b) and len(facts.shape) > 1
        if not usable or len(plan.facts(b_scale).shape) > 1 or len(plan.facts(b).shape) < 2:
            return False
        whole, scale, zero = dynamic_range(plan, a)
        sums = plan.intermediate(plan.facts(value).shape, INT32)
        done = integer_product(plan, sums, whole, zero, b, input_of(node, 3))
        assert done
        return _finished(plan, value, sums, product_of(plan, scale, b_scale), input_of(node, 4))


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
        return [_whole(real, np.ones((), np.float32), y_zero, a.dtype if y_zero is None else y_zero.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Sums, and what becomes of them before they are stored."""
        a, a_scale, a_zero, b, b_scale, b_zero = node.inputs[:6]
        c, y_scale, y_zero = (input_of(node, i) for i in (6, 7, 8))
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
        return plan.wait(value, "Requantize", [sums, _last(plan, factor, 2), *_numbers(plan, y_zero)])


# ---- weights of a few bits, in blocks ----------------------------------------------------------------------


@register("MatMulNBits", since=1, domain=_DOMAIN)
class MatMulNBits(Op):
    """a @ b for weights of `bits` bits: a [..., K], b [N, blocks, bytes], scales [N, blocks], zero points
    (packed bytes, or of the scales' dtype), g_idx [K] (which block each row of b belongs to), bias [N].

    accuracy_level 4 allows rows of a to become bytes, as ONNX Runtime then does; else they stay floats.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[..., N], of a's dtype."""
        a, depth = need(node, inputs, 0), attr_int(node, "K", 0)
        if not a.shape or a.shape[-1] != depth:
            raise shape_error(node, f"the input {show(a.shape)} must end in K = {depth}")
        return [Facts(a.dtype, (*a.shape[:-1], attr_int(node, "N", 0)))]

    def weights(self, node: ir.Node, inputs: Sequence[Array | None]) -> Array:
        """The matrix [K, N] in float32."""
        depth, n = attr_int(node, "K", 0), attr_int(node, "N", 0)
        bits, block = attr_int(node, "bits", 4), attr_int(node, "block_size", 32)
        blocks = -(-depth // block)
        whole = unpacked(present(inputs, 1).reshape(n, blocks, -1), bits)[..., :block].astype(np.float32)
        scales, zeros = present(inputs, 2).reshape(n, blocks).astype(np.float32), given(inputs, 3)
        if zeros is None:
            zero = np.full((n, blocks), 1 << (bits - 1), np.float32)
        elif zeros.dtype == np.uint8:
            zero = unpacked(zeros.reshape(n, -1), bits)[:, :blocks].astype(np.float32)
        else:
            zero = zeros.reshape(n, blocks).astype(np.float32)
        groups = given(inputs, 4)
        if groups is not None:
            rows = whole.reshape(n, -1)[:, :depth]
            return ((rows - zero[:, groups[:depth]]) * scales[:, groups[:depth]]).T
        return ((whole - zero[..., None]) * scales[..., None]).reshape(n, -1)[:, :depth].T

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A product in float64, rounded once; of bytes where a's rows become those."""
        a, bias = present(inputs, 0), given(inputs, 5)
        dtypes = [None if v is None else v.dtype for v in [*inputs, *[None] * 3][:5]]
        if _rows_become_bytes(node, dtypes):
            w, scales, zeros = _parts(node, [v for v in inputs[1:4] if v is not None])
            y = bytes_definition(a.reshape(-1, a.shape[-1]), w, scales, zeros).reshape(*a.shape[:-1], -1)
        else:
            y = a.astype(np.float64) @ self.weights(node, inputs).astype(np.float64)
        return [(y if bias is None else y + bias.astype(np.float64)).astype(a.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A product with constant weights, dequantised when they are packed."""
        a, value, bias = node.inputs[0], node.outputs[0], input_of(node, 5)
        arrays = [None, *(plan.constant(input_of(node, i)) for i in range(1, 5))]
        missing = [i for i in range(1, 5) if arrays[i] is None and input_of(node, i) is not None]
        assert a is not None
        if (
            missing
            or name_of(plan.facts(a).dtype) not in ("float32", "float16")
            or len(plan.facts(a).shape) < 2
        ):
            return False
        own = all(v is None or v.is_initializer() for v in node.inputs[1:5])
        key = ("few bits", node.inputs[1], *(input_of(node, i) for i in (2, 3, 4))) if own else None
        rows_as = self._takes_bits(node, plan, a)
        if rows_as is not None:
            known = [array for array in arrays[1:] if array is not None]
            return self._lower_bits(node, plan, a, known, key, rows_as)
        machine, source = plan.machine, plan.view(a)
        packed = plan.pack(key, lambda: pack_weights(self.weights(node, arrays), machine))
        facts = plan.facts(value)
        product = value if bias is None else plan.intermediate(facts.shape, facts.dtype)
        plan.anchor(product, lambda out, epilogue: matmul(source, packed, out, epilogue, machine))
        return bias is None or plan.wait(value, "Add", [product, _last(plan, bias, len(facts.shape))])

    def _takes_bits(self, node: ir.Node, plan: Lowering, a: ir.Value) -> Literal["floats", "bytes"] | None:
        """As what the rows of a meet weights that are read as they are, if they are: four bits, and few rows
        or rows that may be bytes.
        """
        facts, block = plan.facts(a), attr_int(node, "block_size", 32)
        dtypes = [None if v is None else plan.facts(v).dtype for v in [*node.inputs, *[None] * 3][:5]]
        rows = math.prod(facts.shape[:-1])
        if rows and _rows_become_bytes(node, dtypes):
            return "bytes"
        plain = attr_int(node, "bits", 4) == 4 and dtypes[4] is None and facts.dtype == dtypes[2] == FLOAT32
        return "floats" if plain and supports(rows, facts.shape[-1], block, plan.machine) else None

    def _lower_bits(
        self,
        node: ir.Node,
        plan: Lowering,
        a: ir.Value,
        arrays: Sequence[Array],
        key: Hashable,
        rows_as: Literal["floats", "bytes"],
    ) -> bool:
        """A kernel that widens the weights in registers."""
        value, bias, machine = node.outputs[0], input_of(node, 5), plan.machine
        n, depth, block = attr_int(node, "N", 0), attr_int(node, "K", 0), attr_int(node, "block_size", 32)

        def kept() -> list[Memory]:
            w, scales, zeros = _parts(node, arrays)
            floats = [scales] if zeros is None else [scales, zeros.astype(np.float32)]
            return [constant(np.ascontiguousarray(array)) for array in (w, *floats)]

        rows, facts = math.prod(plan.facts(a).shape[:-1]), plan.facts(value)
        source = plan.plain(a)
        product = value if bias is None else plan.intermediate(facts.shape, facts.dtype)
        out = plan.output(product)
        flat = out.reshape((rows, n))
        target = plan.temporary((rows, n), FLOAT32) if flat is None or flat.strides[1] != 1 else flat
        if rows_as == "bytes":
            own = None if key is None else ("rows as bytes", key)
            packed = plan.pack(own, lambda: pack_few_bits(*_parts(node, arrays), block, machine))
            plan.emit(few_bits_integers(source.with_dims((rows, depth), (depth, 1)), packed, target, machine))
        else:
            weights, scales, *zeros = plan.pack(None if key is None else ("as they are", key), kept)
            shape = (rows, depth // (2 * machine.lanes), 2, machine.lanes)
            halves = plan.copied(source.with_dims(shape, (depth, 2 * machine.lanes, 1, 2)))
            plan.emit(few_bits(halves, weights, scales, zeros[0] if zeros else None, target, block, machine))
        if target is not flat:
            whole = target.reshape(facts.shape)
            assert whole is not None
            plan.emit(copy(whole, out, machine))
        return bias is None or plan.wait(value, "Add", [product, _last(plan, bias, len(facts.shape))])


def _rows_become_bytes(node: ir.Node, dtypes: Sequence[DType | None]) -> bool:
    """Whether a MatMulNBits of inputs of these dtypes (rows, weights, scales, zero points, groups) multiplies
    bytes: its accuracy level allows it, and weights are of four bits, as are their zero points.
    """
    a, _, scales, zeros, groups = dtypes
    allowed = attr_int(node, "accuracy_level", 0) == 4 and attr_int(node, "bits", 4) == 4
    plain = groups is None and a == scales == FLOAT32 and zeros in (None, np.uint8)
    return allowed and plain and supports_bytes(attr_int(node, "K", 0), attr_int(node, "block_size", 32))


def _parts(node: ir.Node, arrays: Sequence[Array]) -> tuple[Array, Array, Array | None]:
    """Weights of four bits, scales and zero points, a row for each column."""
    n = attr_int(node, "N", 0)
    w, scales = arrays[0].reshape(n, -1), arrays[1].reshape(n, -1)
    zeros = arrays[2].reshape(n, -1) if len(arrays) > 2 else None
    if zeros is not None and zeros.dtype == np.uint8:
        zeros = unpacked(zeros, 4)[:, : scales.shape[1]]
    return w, scales, zeros


@register("GatherBlockQuantized", since=1, domain=_DOMAIN)
class GatherBlockQuantized(Op):
    """Rows of a table of integers, dequantised: data, indices, scales, zero points. Data of uint8 holds
    numbers of `bits` bits, the lowest first; blocks lie along quantize_axis.
    """

    def _geometry(self, node: ir.Node, data: Facts | Array) -> tuple[int, int, int, int]:
        """How many numbers a byte holds, and gather_axis, quantize_axis, block_size."""
        rank = len(data.shape)
        bits = attr_int(node, "bits", 4)
        per_byte = 8 // bits if data.dtype == np.uint8 else 1
        axes = [normal_axis(node, attr_int(node, name, d), rank) for name, d in
                (("gather_axis", 0), ("quantize_axis", 1))]  # fmt: skip
        return per_byte, axes[0], axes[1], attr_int(node, "block_size", 128)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The indices' shape in the place of the gathered axis; the scales' dtype."""
        data, indices, scales = (need(node, inputs, i) for i in range(3))
        per_byte, axis, _, _ = self._geometry(node, data)
        shape = (*data.shape[:-1], data.shape[-1] * per_byte)
        return [Facts(scales.dtype, (*shape[:axis], *indices.shape, *shape[axis + 1 :]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Gathered before it is dequantised, where the blocks allow it."""
        data, indices, scales, zeros = *(present(inputs, i) for i in range(3)), given(inputs, 3)
        per_byte, axis, blocked, block = self._geometry(node, data)
        bits = attr_int(node, "bits", 4)

        def rows(array: Array) -> Array:
            return np.take(array, indices, axis)

        def repeat(array: Array, size: int) -> Array:
            return np.repeat(array, block, blocked).take(range(size), blocked)

        size = data.shape[blocked] * (per_byte if blocked == data.ndim - 1 else 1)
        whole: Array = data if per_byte == 1 else unpacked(data, bits)
        if zeros is None:
            zero: Array = np.full(scales.shape, 1 << (bits - 1) if data.dtype == np.uint8 else 0, np.float32)
        else:
            zero = zeros if per_byte == 1 else unpacked(zeros, bits)[..., : scales.shape[-1]]
        real = rows(whole).astype(np.float32) - rows(repeat(zero.astype(np.float32), size))
        return [(real * rows(repeat(scales, size)).astype(np.float32)).astype(scales.dtype)]
