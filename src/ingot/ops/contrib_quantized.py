"""ONNX Runtime's operators that compute on float32 between integers (com.microsoft): the QLinear* family.

The same steps are taken in the same order, so that results are the same bits; where sums are added up in
another order (windows of averages, Softmax), a value at the middle between two steps may take either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ingot.kernels.contract import name_of
from ingot.kernels.definitions import dequantize, quantize
from ingot.kernels.expression import Step, expression_of
from ingot.kernels.reduce import reduce
from ingot.kernels.units import DTYPES
from ingot.ops.compose import computed
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
    attr_ints,
    broadcast,
    find,
    given,
    need,
    normal_axis,
    present,
    register,
)
from ingot.ops.sums import is_many, placed

_DOMAIN = "com.microsoft"


def real_of(x: Array, scale: Array, zero: Array | None, axis: int = -1) -> Array:
    """(x - zero) · scale in float32; vectors belong to `axis`."""

    def spread(values: Array) -> Array:
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if d == axis % x.ndim else 1 for d in range(x.ndim)])

    zeros = None if zero is None else spread(zero)
    return dequantize(x, spread(scale), zeros, dtypes=(x.dtype.name, "float32"), dtype="float32")


def whole_of(x: Array, scale: Array, zero: Array | None, dtype: DType) -> Array:
    """Saturate(round(x / scale) + zero)."""
    zeros = None if zero is None else zero.reshape(())
    return quantize(x, scale.reshape(()), zeros, dtypes=("float32", "float32"), dtype=dtype.name)


def waiting(plan: Lowering, op: str, operands: Sequence[ir.Value], dtype: Any = FLOAT32) -> ir.Value:
    """A new value that waits as an elementwise operator's result."""
    shape = np.broadcast_shapes(*(plan.facts(v).shape for v in operands))
    value = plan.intermediate(shape, dtype)
    assert plan.wait(value, op, operands), f"{op} of these dtypes has no kernel"
    return value


def as_numbers(plan: Lowering, *values: ir.Value | None) -> list[ir.Value]:
    """Scales and zero points of whole tensors, as they broadcast; absent ones are left out."""
    return [placed(plan, v, 0, 0) for v in values if v is not None]


def are_bytes(plan: Lowering, *values: ir.Value | None) -> bool:
    return all(v is None or name_of(plan.facts(v).dtype) in DTYPES for v in values)


def number_of(zero: Array | None) -> Any:
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
        reals = [real_of(*part) for part in parts] + self.extra(node, parts[0][0].shape)
        (result,) = find("", self.float_op).evaluate(self._node(node, len(reals)), reals)
        scale, zero = self._end(inputs)
        return [self.quantised(result.astype(np.float32), scale, zero, parts[0][0].dtype)]

    def quantised(self, real: Array, scale: Array, zero: Array | None, dtype: DType) -> Array:
        """What the float operator's result becomes."""
        return whole_of(real, scale, zero, dtype)

    def lower_quantised(
        self, plan: Lowering, value: ir.Value, real: ir.Value, scale: ir.Value, zero: ir.Value | None
    ) -> bool:
        """See `quantised`."""
        return plan.wait(value, "QuantizeLinear", [real, *as_numbers(plan, scale, zero)])

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Steps before and after the float operator's kernel."""
        return self._lowered(node, plan, node.inputs)

    def _lowered(self, node: ir.Node, plan: Lowering, inputs: Sequence[ir.Value | None]) -> bool:
        parts, (scale, zero) = self._parts(inputs), self._end(inputs)
        if not are_bytes(plan, *(x for x, _, _ in parts)) or any(
            is_many(plan, v) for part in parts for v in part[1:]
        ):
            return False
        operands = [x for x, _, _ in parts]
        for x in {x for x in operands if operands.count(x) > 1}:
            plan.view(x)  # more than one kernel may read it
        reals = [waiting(plan, "DequantizeLinear", [x, *as_numbers(plan, s, z)]) for x, s, z in parts]
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
        moved = real / scale.reshape(()) + np.float32(number_of(zero))
        return whole_of(moved.astype(np.float32), np.ones((), np.float32), None, dtype)

    def lower_quantised(
        self, plan: Lowering, value: ir.Value, real: ir.Value, scale: ir.Value, zero: ir.Value | None
    ) -> bool:
        """See `quantised`."""
        real = waiting(plan, "Div", [real, *as_numbers(plan, scale)])
        if zero is not None:
            real = waiting(plan, "Add", [real, waiting(plan, "Cast", as_numbers(plan, zero))])
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
        sums = (x.astype(np.int32) - number_of(zero)).sum(tuple(range(2, x.ndim)), np.int32, keepdims=True)
        factor = scale.reshape(()) / (y_scale.reshape(()) * np.float32(count))
        real = sums.astype(np.float32) * np.float32(factor)
        return [whole_of(real, np.ones((), np.float32), y_zero, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A reduction and a step after it; scales and zero points must be known."""
        x, value = node.inputs[0], node.outputs[0]
        known = [plan.constant(input_at(node, i)) for i in range(1, 5)]
        absent = [input_at(node, i) is None for i in range(1, 5)]
        assert x is not None
        facts = plan.facts(x)
        if not are_bytes(plan, x) or any(
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
        less = waiting(
            plan,
            "Sub",
            [plan.located(whole), plan.known(np.asarray(number_of(zero) * count, np.int32))],
            INT32,
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
        known = [plan.constant(input_at(node, i)) for i in (1, 2, 4, 5, 6, 7)]
        absent = [input_at(node, i) is None for i in (1, 2, 4, 5, 6, 7)]
        if not are_bytes(plan, a, b) or any(
            k is None and not gone for k, gone in zip(known, absent, strict=True)
        ):
            return False
        if any(k is not None and k.size != 1 for k in known):
            return False
        scales = [np.asarray(known[i], np.float32).reshape(()) for i in (0, 2, 4)]
        zeros = [number_of(known[i]) for i in (1, 3, 5)]
        wide = [waiting(plan, "Cast", [v], INT32) for v in (a, b)]
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
        parts = [waiting(plan, "Sub", [v, plan.known(np.asarray(z))], INT32)
                 for v, z in ((a, zeros[0]), (b, zeros[1]))]  # fmt: skip
        real = waiting(plan, "Cast", [waiting(plan, "Mul", parts, INT32)])
        real = waiting(plan, "Mul", [real, plan.known(factor)])
        return waiting(plan, "Add", [real, plan.known(np.asarray(np.float32(zeros[2])))])


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
        first = waiting(plan, "MultiplyAdd", [waiting(plan, "Cast", [b]), right, fixed])
        return waiting(plan, "MultiplyAdd", [waiting(plan, "Cast", [a]), left, first])


def _repeats(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether `a` has one number for each row of `b`."""
    return (not a or a[-1] == 1) and bool(b) and b[-1] != 1


def along_last(plan: Lowering, value: ir.Value, rank: int) -> ir.Value:
    return placed(plan, value, rank - 1, rank)
