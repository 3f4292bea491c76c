"""To and from small integers and narrow floats: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

A scale and a zero point belong to a tensor (a scalar), to each index along an axis (a vector) or to blocks of
it (a tensor of x's rank). What they mean to a vector of elements stands in `kernels.definitions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import name_of
from ingot.kernels.definitions import dequantize, dynamic_quantize, quantize
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step, supports
from ingot.kernels.reduce import reduce
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import FLOAT32
from ingot.ops.registry import (
    KNOWN_ELEMENTS,
    Array,
    DType,
    Facts,
    LazyFacts,
    Op,
    Outputs,
    add,
    attr_int,
    first_input,
    given,
    label,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

_UINT8 = np.dtype(np.uint8)


def _named(node: ir.Node, attribute: str, default: DType) -> DType:
    code = attr_int(node, attribute, 0)
    return ir.DataType(code).numpy() if code else default


def _axis(node: ir.Node, rank: int) -> int:
    """The attribute; of a vector along the only axis it does not matter."""
    return 0 if rank == 1 else normal_axis(node, attr_int(node, "axis", 1), rank)


def _block(node: ir.Node, x: tuple[int, ...], scale: tuple[int, ...]) -> int:
    """How many neighbours along the axis share a scale; 0 where all of the axis or none of it do.

    Raises ShapeError where a scale of this shape belongs to none of the three forms.
    """
    if math.prod(scale) == 1 and len(scale) <= 1:
        return 0
    axis, block = _axis(node, len(x)), attr_int(node, "block_size", 0)
    if block <= 0 and scale == (x[axis],):
        return 0
    rest = [n for d, n in enumerate(scale) if d != axis] == [n for d, n in enumerate(x) if d != axis]
    if block > 0 and len(scale) == len(x) and rest and scale[axis] == -(-x[axis] // block):
        return block
    raise shape_error(
        node,
        f"the scale {show(scale)} does not fit the input {show(x)} along axis {axis} in blocks of {block}",
        "It must be a scalar, a vector of the axis's length, or with block_size the input's shape with that "
        "axis divided by it, rounded up.",
    )


def spread(node: ir.Node, values: Array, shape: tuple[int, ...]) -> Array:
    """A scale or zero point as it broadcasts to `shape`; those of blocks are repeated."""
    block = _block(node, shape, values.shape)
    if values.size == 1 and values.ndim <= 1:
        return values.reshape(())
    axis = _axis(node, len(shape))
    if not block:
        return values.reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return np.repeat(values, block, axis).take(range(shape[axis]), axis)


class _Linear(Op):
    """What QuantizeLinear and DequantizeLinear share."""

    def result(self, node: ir.Node, inputs: Sequence[Facts | None]) -> DType:
        """The result's dtype."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The input's shape. Of large weights the result is computed when a kernel packs it."""
        x, scale, zero = need(node, inputs, 0), need(node, inputs, 1), given(inputs, 2)
        if zero is not None and zero.shape != scale.shape and math.prod(zero.shape) != math.prod(scale.shape):
            raise shape_error(
                node, f"the scale {show(scale.shape)} and the zero point {show(zero.shape)} differ in shape"
            )
        _block(node, x.shape, scale.shape)
        dtype = self.result(node, inputs)
        known = x.is_known and scale.is_known and (zero is None or zero.is_known)
        if known and math.prod(x.shape) > KNOWN_ELEMENTS:
            return [
                LazyFacts(dtype, x.shape, lambda: self.evaluate(node, [f and f.value for f in inputs])[0])
            ]
        return [Facts(dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `kernels.definitions`."""
        x, zero = present(inputs, 0), given(inputs, 2)
        scale = spread(node, present(inputs, 1), x.shape)
        zero = None if zero is None else spread(node, zero, x.shape)
        facts = [None if a is None else Facts(a.dtype, a.shape) for a in inputs]
        dtype = self.result(node, facts)
        dtypes = tuple(a.dtype.name for a in (x, scale, zero) if a is not None)
        function: Any = quantize if self.name == "QuantizeLinear" else dequantize
        with np.errstate(all="ignore"):
            result = function(x, scale, zero, dtypes=dtypes, dtype=dtype.name, **dict(self.attributes(node)))
            return [np.broadcast_to(np.asarray(result, dtype), x.shape).copy()]

    def attributes(self, node: ir.Node) -> tuple[tuple[str, Any], ...]:
        """Those of the step of an expression."""
        del node
        return ()

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A step of a fused kernel; with blocks, a kernel of its own over an axis cut in two."""
        x, value = first_input(node), node.outputs[0]
        parameters = [v for v in node.inputs[1:3] if v is not None]
        facts, shape = plan.facts(value), plan.facts(x).shape
        dtypes = [name_of(plan.facts(v).dtype) for v in (x, *parameters)]
        if not supports(self.name, dtypes, name_of(facts.dtype), dict(self.attributes(node))):
            return False
        block = _block(node, shape, plan.facts(parameters[0]).shape)
        if block:
            self._lower_blocks(node, plan, parameters, block)
            return True
        axis = _axis(node, len(shape)) if shape else 0
        operands = [plan.located(along(plan.view(v), axis, len(shape))) for v in parameters]
        return plan.wait(value, self.name, [x, *operands], self.attributes(node))

    def _lower_blocks(
        self, node: ir.Node, plan: Lowering, parameters: Sequence[ir.Value], block: int
    ) -> None:
        x, value = plan.view(first_input(node)), node.outputs[0]
        axis, out = _axis(node, x.rank), plan.output(value, free_order=True)
        views = [plan.view(v) for v in parameters]
        whole = x.shape[axis] // block
        dtypes = tuple(name_of(v.dtype) for v in (x, *views))
        step = Step(self.name, tuple(range(len(dtypes))), name_of(out.dtype), self.attributes(node))
        expression = Expression(dtypes, (step,), (len(dtypes),))

        def cut(view: Memory, first: int, blocks: int, size: int) -> Memory:
            """`blocks` blocks of x or out from block `first` on, each of `size`."""
            step = view.strides[axis]
            shape = (*view.shape[:axis], blocks, size, *view.shape[axis + 1 :])
            strides = (*view.strides[:axis], step * block, step, *view.strides[axis + 1 :])
            return view.with_dims(shape, strides, first * block * step)

        for first, blocks, size in ((0, whole, block), (whole, 1, x.shape[axis] % block)):
            if not blocks * size:
                continue
            own = [
                v.with_dims(
                    (*v.shape[:axis], blocks, 1, *v.shape[axis + 1 :]),
                    (*v.strides[: axis + 1], 0, *v.strides[axis + 1 :]),
                    first * v.strides[axis],
                )
                for v in views
            ]
            target = cut(out, first, blocks, size)
            plan.emit(
                elementwise(
                    expression, [cut(x, first, blocks, size), *own], [target], plan.machine, self.name
                )
            )


def _scalar(view: Memory) -> Memory:
    return view.with_dims((), ())


def along(view: Memory, axis: int, rank: int) -> Memory:
    """A scalar, or a vector along `axis`, as it broadcasts to `rank` dimensions."""
    if view.size == 1:
        return _scalar(view)
    shape, strides = [1] * rank, [0] * rank
    shape[axis], strides[axis] = view.size, view.strides[-1]
    return view.with_dims(shape, strides)


@register("QuantizeLinear", since=28)
class QuantizeLinear(_Linear):
    """saturate(round(x / scale) + zero_point)."""

    def result(self, node: ir.Node, inputs: Sequence[Facts | None]) -> DType:
        """The zero point's dtype, or the one named, or uint8."""
        zero = given(inputs, 2)
        return zero.dtype if zero is not None else _named(node, "output_dtype", _UINT8)

    def attributes(self, node: ir.Node) -> tuple[tuple[str, Any], ...]:
        """Those that differ from the defaults."""
        saturate, code = attr_int(node, "saturate", 1), attr_int(node, "precision", 0)
        named = (("precision", ir.DataType(code).numpy().name),) if code else ()
        return (*named, *(() if saturate else (("saturate", 0),)))


@register("DequantizeLinear", since=28)
class DequantizeLinear(_Linear):
    """(x - zero_point) · scale."""

    def result(self, node: ir.Node, inputs: Sequence[Facts | None]) -> DType:
        """The scale's dtype, or the one named."""
        return _named(node, "output_dtype", need(node, inputs, 1).dtype)


# ONNX Runtime's, of the same meaning, had more types at older opsets.
add(type("MicrosoftQuantizeLinear", (QuantizeLinear,), {}), "QuantizeLinear", 1, "com.microsoft")
add(type("MicrosoftDequantizeLinear", (DequantizeLinear,), {}), "DequantizeLinear", 1, "com.microsoft")


@register("DynamicQuantizeLinear", since=11)
class DynamicQuantizeLinear(Op):
    """x as uint8 over its own range, the scale and the zero point.

    Of zeros alone the specification divides 0 by 0; the scale is 1 then, as ONNX Runtime has it.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """uint8 like x, then two scalars."""
        x = need(node, inputs, 0)
        if x.dtype != FLOAT32:
            raise ModelError(f"{label(node)}: the input is {x.dtype}, and must be float32. Insert a Cast.")
        outputs: list[Facts | None] = [Facts(_UINT8, x.shape), Facts(FLOAT32, ()), Facts(_UINT8, ())]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `kernels.definitions`."""
        with np.errstate(all="ignore"):
            return list(dynamic_quantize(present(inputs, 0))[: len(node.outputs)])

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The range by two reductions; the rest are steps of fused kernels."""
        x = first_input(node)
        if plan.facts(x).dtype != FLOAT32:
            return False
        values: list[ir.Value | None] = [v if plan.wants(v) else None for v in node.outputs]
        dynamic_range(plan, x, *values, *[None] * (3 - len(values)))
        return True


def dynamic_range(
    plan: Lowering,
    x: ir.Value,
    quantized: ir.Value | None = None,
    scale: ir.Value | None = None,
    zero: ir.Value | None = None,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """DynamicQuantizeLinear: x over its range with 0 in it, as uint8; its scale and its zero point, each as
    the value given or a new one.
    """
    shape = plan.facts(x).shape
    quantized = plan.intermediate(shape, _UINT8) if quantized is None else quantized
    scale = plan.intermediate((), FLOAT32) if scale is None else scale
    zero = plan.intermediate((), _UINT8) if zero is None else zero

    def constant(number: float) -> ir.Value:
        return plan.known(np.array(number, np.float32))

    def step(op: str, *operands: ir.Value) -> ir.Value:
        value = plan.intermediate((), FLOAT32)
        assert plan.wait(value, op, operands)
        return value

    ends: list[ir.Value] = []
    view, nothing = plan.view(x), constant(0.0)
    for reduction, bound in (("ReduceMax", "Max"), ("ReduceMin", "Min")):
        end = plan.temporary((), FLOAT32)
        plan.emit(reduce(reduction, [view], range(view.rank), end, plan.machine))
        ends.append(plan.located(plan.view(step(bound, plan.located(end), nothing))))
    high, low = ends
    width = step("Sub", high, low)
    is_flat = plan.intermediate((), np.dtype(np.bool_))
    assert plan.wait(is_flat, "Equal", [high, low])
    assert plan.wait(scale, "Where", [is_flat, constant(1.0), step("Div", width, constant(255.0))])
    held = plan.located(plan.view(scale))
    # The reference rounds 0 - low / scale within the type's bounds.
    shifted = step("Sub", nothing, step("Div", low, held))
    bounded = step("Round", step("Clip", shifted, nothing, constant(255.0)))
    assert plan.wait(zero, "Cast", [bounded])
    assert plan.wait(quantized, "QuantizeLinear", [x, held, plan.located(plan.view(zero))])
    return quantized, held, zero
