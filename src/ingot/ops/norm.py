"""Normalisations of batches, layers, groups and instances. In float64, rounded once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.kernels.call import Call, View, constant, memory_order
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.expression import Step, converted, expression_of, identity
from ingot.kernels.normalize import group_norm, normalize
from ingot.kernels.reduce import reduce
from ingot.ops.lowering import Lowering, Steps, dtype_of, wide_of
from ingot.ops.numeric import is_float, rounded, widen
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
    first_input,
    given,
    is_weight,
    need,
    normal_axes,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.softmax import SameShape


@register("BatchNormalization", since=15)
class BatchNormalization(Op):
    """scale · (x - mean) / sqrt(var + epsilon) + bias for each channel of [N, C, …].

    In training mode mean and var are the batch's own, and two more outputs carry the running ones on.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Every parameter must be [C]."""
        x = need(node, inputs, 0)
        if not x.shape:
            raise shape_error(node, "the input is a scalar, and must be [N, C, …]")
        channels = x.shape[1] if len(x.shape) > 1 else 1
        outputs: list[Facts | None] = [Facts(x.dtype, x.shape)]
        for i in range(1, 5):
            parameter = need(node, inputs, i)
            if parameter.shape != (channels,):
                raise shape_error(
                    node, f"input {i} has shape {show(parameter.shape)}, and must be [{channels}]"
                )
            if i > 2:
                outputs.append(Facts(parameter.dtype, parameter.shape))
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula."""
        x, mean, var = present(inputs, 0), present(inputs, 3), present(inputs, 4)
        wide = widen(x)
        column = (-1, *[1] * (x.ndim - 2))
        scale, bias, m, v = (widen(present(inputs, i)) for i in range(1, 5))
        outputs: list[Array] = []
        if attr_int(node, "training_mode", 0):
            momentum = attr_float(node, "momentum", 0.9)
            axes = tuple(i for i in range(x.ndim) if i != 1)
            batch_mean, batch_var = wide.mean(axes), wide.var(axes)
            outputs = [
                rounded(m * momentum + batch_mean * (1 - momentum), mean.dtype),
                rounded(v * momentum + batch_var * (1 - momentum), var.dtype),
            ]
            m, v = batch_mean, batch_var
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(v + attr_float(node, "epsilon", 1e-5))
            y = (wide - m.reshape(column)) * factor.reshape(column) + bias.reshape(column)
        return [rounded(y, x.dtype), *outputs][: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """x · factor + offset in a fused kernel, where the parameters are constants."""
        weights = [v for v in node.inputs[1:5] if v is not None and plan.facts(v).is_known]
        x, value = first_input(node), node.outputs[0]
        if attr_int(node, "training_mode", 0) or len(node.outputs) > 1 or len(weights) < 4:
            return False
        facts = plan.facts(x)
        dtype, wide = name_of(facts.dtype), wide_of(name_of(facts.dtype))

        def make() -> list[View]:
            parameters = [plan.constant(v) for v in weights]
            scale, bias, mean, var = (widen(p) for p in parameters if p is not None)
            factor = scale / np.sqrt(var + attr_float(node, "epsilon", 1e-5))
            column = (-1, *[1] * (len(facts.shape) - 2))
            offset = bias - mean * factor
            return [constant(v.reshape(column).astype(wide)) for v in (factor, offset)]

        if dtype not in FLOATS:
            return False
        key = ("normalise", node, len(facts.shape)) if all(map(is_weight, weights)) else None
        factor, offset = map(plan.located, plan.pack(key, make))
        if dtype == wide:
            product = plan.intermediate(facts.shape, facts.dtype)
            return plan.wait(product, "Mul", [x, factor]) and plan.wait(value, "Add", [product, offset])
        steps = Steps(plan, facts.shape)
        steps.cast(steps("Add", steps("Mul", steps.cast(x, wide), factor), offset), dtype, value)
        return True

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """With constant parameters."""
        known = all(facts is not None and facts.is_known for facts in inputs[1:5])
        return known and len(node.outputs) == 1 and not attr_int(node, "training_mode", 0)


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """((x - mean) / sqrt(var + epsilon), mean, 1 / sqrt(var + epsilon)) over axes; x in float64."""
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    inverse = 1.0 / np.sqrt((centred * centred).mean(axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def _fits(node: ir.Node, x: Facts, parameter: Facts | None, what: str) -> None:
    if parameter is not None and broadcast(node, x.shape, parameter.shape) != x.shape:
        raise shape_error(
            node, f"the {what} {show(parameter.shape)} does not broadcast to the input {show(x.shape)}"
        )


@register("LayerNormalization", since=17)
class LayerNormalization(Op):
    """scale · (x - mean) / sqrt(var + epsilon) + bias, over the dimensions from `axis` on."""

    def stash(self, node: ir.Node) -> DType:
        """The dtype of the second and third output."""
        return ir.DataType(attr_int(node, "stash_type", 1)).numpy()

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x, then two with 1 in the normalised dimensions."""
        x = need(node, inputs, 0)
        axis = normal_axis(node, attr_int(node, "axis", -1), len(x.shape))
        _fits(node, x, need(node, inputs, 1), "scale")
        _fits(node, x, given(inputs, 2), "bias")
        stash = Facts(self.stash(node), (*x.shape[:axis], *[1] * (len(x.shape) - axis)))
        outputs: list[Facts | None] = [Facts(x.dtype, x.shape), stash, stash]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula."""
        x, bias = present(inputs, 0), given(inputs, 2)
        axis = normal_axis(node, attr_int(node, "axis", -1), x.ndim)
        with np.errstate(all="ignore"):
            y, mean, inverse = _standardised(
                widen(x), tuple(range(axis, x.ndim)), attr_float(node, "epsilon", 1e-5)
            )
            y = y * widen(present(inputs, 1))
            if bias is not None:
                y = y + widen(bias)
        stash = self.stash(node)
        return [rounded(y, x.dtype), rounded(mean, stash), rounded(inverse, stash)][: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A standardisation, then scale and bias as steps after it; mean and deviation by reductions."""
        wanted = [plan.wants(v) for v in node.outputs[1:]]
        if any(wanted) and not self._lower_statistics(node, plan, wanted):
            return False
        return _lower_over_axes(node, plan, "variance")

    def _lower_statistics(self, node: ir.Node, plan: Lowering, wanted: list[bool]) -> bool:
        """The mean, and 1 / sqrt(var + epsilon)."""
        x, machine = first_input(node), plan.machine
        facts, stash = plan.facts(x), name_of(self.stash(node))
        if name_of(facts.dtype) not in FLOATS or stash not in FLOATS:
            return False
        view, dtype = plan.view(x), name_of(facts.dtype)
        wide = "float64" if "float64" in (dtype, stash) else "float32"
        axis = normal_axis(node, attr_int(node, "axis", -1), len(facts.shape))
        kept, axes = facts.shape[:axis], range(axis, len(facts.shape))
        shape = (*kept, *[1] * len(axes))
        widened = expression_of((dtype,), (Step("Cast", (0,), wide),), (1,))
        mean, variance = (plan.temporary(kept, wide) for _ in range(2))
        plan.emit(reduce("ReduceMean", [view], axes, mean, machine, widened))
        apart = (Step("Cast", (0,), wide), Step("Sub", (2, 1), wide), Step("Mul", (3, 3), wide))
        squares = expression_of((dtype, wide), apart, (4,))
        spread = mean.with_dims(shape, (*mean.strides, *[0] * len(axes)))
        plan.emit(reduce("ReduceMean", [view, spread], axes, variance, machine, squares))
        if wanted[0]:
            Steps(plan, shape).cast(plan.located(spread), stash, node.outputs[1])
        if len(wanted) > 1 and wanted[1]:
            steps = Steps(plan, shape)
            own = plan.located(variance.with_dims(shape, spread.strides))
            deviation = steps("Sqrt", steps("Add", own, attr_float(node, "epsilon", 1e-5)))
            steps.cast(steps("Reciprocal", deviation), stash, node.outputs[2])
        return True


@register("RMSNormalization", since=23)
class RMSNormalization(SameShape):
    """scale · x / sqrt(mean(x²) + epsilon), over the dimensions from `axis` on."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        x = need(node, inputs, 0)
        normal_axis(node, attr_int(node, "axis", -1), len(x.shape))
        _fits(node, x, need(node, inputs, 1), "scale")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula."""
        x = present(inputs, 0)
        wide = widen(x)
        axes = tuple(range(normal_axis(node, attr_int(node, "axis", -1), x.ndim), x.ndim))
        with np.errstate(all="ignore"):
            root = np.sqrt((wide * wide).mean(axes, keepdims=True) + attr_float(node, "epsilon", 1e-5))
            return [rounded(wide / root * widen(present(inputs, 1)), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A division by the root, then the scale as a step after it."""
        return _lower_over_axes(node, plan, "rms")


def _lower_over_axes(node: ir.Node, plan: Lowering, kind: Literal["variance", "rms"]) -> bool:
    """Normalise from `axis` on; what the node's further inputs scale and shift waits as elementwise steps."""
    x, value, machine = first_input(node), node.outputs[0], plan.machine
    facts = plan.facts(x)
    further = [v for v in node.inputs[1:3] if v is not None]
    if name_of(facts.dtype) not in FLOATS or any(name_of(plan.facts(v).dtype) not in FLOATS for v in further):
        return False
    axis = normal_axis(node, attr_int(node, "axis", -1), len(facts.shape))
    epsilon = attr_float(node, "epsilon", 1e-5)
    prologue, views = plan.inline(x)
    dtype, wide = name_of(facts.dtype), wide_of(name_of(facts.dtype))

    def emit(out: View, epilogue: Epilogue | None) -> list[Call]:
        after = epilogue or Epilogue(identity(wide), ())
        call = normalize(
            kind,
            views[0],
            out,
            range(axis, out.rank),
            machine,
            eps=epsilon,
            operands=views[1:],
            prologue=converted(prologue, wide),
            extras=after.operands,
            epilogue=after.expression,
        )
        return [call]

    so_far = plan.intermediate(facts.shape, dtype_of(wide))
    plan.anchor(so_far, emit, memory_order(views[0]), free_order=True)
    # Counted, not compared: scale and bias may be one value.
    for left, op, operand in zip(range(len(further))[::-1], ("Mul", "Add"), further, strict=False):
        factor = Steps(plan, plan.facts(operand).shape).cast(operand, wide)
        target = plan.intermediate(facts.shape, dtype_of(wide)) if left or dtype != wide else value
        plan.wait(target, op, [so_far, factor])
        so_far = target
    if dtype != wide:  # rounded once
        Steps(plan, facts.shape).cast(so_far, dtype, value)
    return True


@register("GroupNormalization", since=21)
class GroupNormalization(SameShape):
    """Each of `num_groups` groups of channels standardised, then scale and bias for each channel."""

    def groups(self, node: ir.Node, x: tuple[int, ...]) -> int:
        """The number of groups; it must divide the channels."""
        groups = attr_int(node, "num_groups", 1)
        if len(x) < 2 or groups < 1 or x[1] % groups:
            raise shape_error(node, f"the channels of {show(x)} do not divide into {groups} groups")
        return groups

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x; scale and bias are [C]."""
        x = need(node, inputs, 0)
        self.groups(node, x.shape)
        for i in (1, 2):
            if need(node, inputs, i).shape != x.shape[1:2]:
                raise shape_error(
                    node, f"input {i} has shape {show(need(node, inputs, i).shape)}, not [{x.shape[1]}]"
                )
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula, on [N, groups, everything else]."""
        x = present(inputs, 0)
        grouped = widen(x).reshape(x.shape[0], self.groups(node, x.shape), -1 if x.size else 0)
        with np.errstate(all="ignore"):
            y = _standardised(grouped, (2,), attr_float(node, "epsilon", 1e-5))[0].reshape(x.shape)
        column = (-1, *[1] * (x.ndim - 2))
        y = y * widen(present(inputs, 1)).reshape(column) + widen(present(inputs, 2)).reshape(column)
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel, in the input's own memory order."""
        return _lower_groups(node, plan, self.groups(node, plan.facts(first_input(node)).shape))

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """With constant parameters."""
        del node
        return all(facts is None or facts.is_known for facts in inputs[1:])


@register("InstanceNormalization", since=22)
class InstanceNormalization(SameShape):
    """Each channel of each instance standardised by itself, then scale and bias for each channel."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x [N, C, ...]; scale and bias are [C]."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2:
            raise shape_error(
                node, f"the input has shape {show(x.shape)}, and must have a rank of at least 2"
            )
        for name, facts in (("scale", need(node, inputs, 1)), ("bias", need(node, inputs, 2))):
            if facts.shape != (x.shape[1],):
                raise shape_error(
                    node, f"{name} has shape {show(facts.shape)}, and must be {show((x.shape[1],))}"
                )
        return super().infer(node, inputs)

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the formula."""
        x = present(inputs, 0)
        column = (-1, *[1] * (x.ndim - 2))
        with np.errstate(all="ignore"):
            y = _standardised(widen(x), tuple(range(2, x.ndim)), attr_float(node, "epsilon", 1e-5))[0]
        y = y * widen(present(inputs, 1)).reshape(column) + widen(present(inputs, 2)).reshape(column)
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A group for each channel."""
        return _lower_groups(node, plan, plan.facts(first_input(node)).shape[1])

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """With constant parameters."""
        del node
        return all(facts is None or facts.is_known for facts in inputs[1:])


def _lower_groups(node: ir.Node, plan: Lowering, groups: int) -> bool:
    x, scale, bias = node.inputs[:3]
    assert x is not None
    assert scale is not None
    assert bias is not None
    facts = plan.facts(x)
    if not is_float(facts.dtype) or any(plan.facts(v).dtype != facts.dtype for v in (scale, bias)):
        return False
    view = plan.view(x)
    out = plan.output(node.outputs[0], memory_order(view), free_order=True)
    epsilon = attr_float(node, "epsilon", 1e-5)
    if groups:  # no channels, no elements
        plan.emit(group_norm(view, plan.view(scale), plan.view(bias), groups, out, epsilon, plan.machine))
    return True


@register("MeanVarianceNormalization", since=13)
class MeanVarianceNormalization(SameShape):
    """(x - mean) / (sqrt(var) + 1e-9) over `axes`, by default all but the channels."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """By the operator's function body."""
        x = present(inputs, 0)
        wide = widen(x)
        axes = normal_axes(node, attr_ints(node, "axes") or (0, 2, 3), x.ndim)
        mean = wide.mean(axes, keepdims=True)
        var = np.maximum((wide * wide).mean(axes, keepdims=True) - mean * mean, 0.0)
        return [rounded((wide - mean) / (np.sqrt(var) + 1e-9), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A standardisation: sqrt(var + 1e-18) is the same number, but where both are next to nothing."""
        x, value, machine = first_input(node), node.outputs[0], plan.machine
        facts = plan.facts(x)
        if name_of(facts.dtype) not in FLOATS:
            return False
        axes = normal_axes(node, attr_ints(node, "axes") or (0, 2, 3), len(facts.shape))
        prologue, views = plan.inline(x)

        def emit(out: View, epilogue: Epilogue | None) -> list[Call]:
            after = epilogue or Epilogue(identity(name_of(facts.dtype)), ())
            call = normalize(
                "variance",
                views[0],
                out,
                axes,
                machine,
                eps=1e-18,
                operands=views[1:],
                prologue=prologue,
                extras=after.operands,
                epilogue=after.expression,
            )
            return [call]

        plan.anchor(value, emit, memory_order(views[0]), free_order=True)
        return True


@register("LRN", since=13)
class LRN(SameShape):
    """x / (bias + alpha / size · sum of squares over `size` neighbouring channels) ^ beta."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The window is centred, with the extra channel of an even size after it."""
        x, size = present(inputs, 0), attr_int(node, "size", 1)
        wide = widen(x)
        before, after = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
        total = np.zeros_like(wide)
        for channel in range(x.shape[1]):
            part = wide[:, max(0, channel - before) : channel + after + 1]
            total[:, channel] = (part * part).sum(1)
        alpha, beta = attr_float(node, "alpha", 1e-4), attr_float(node, "beta", 0.75)
        return [rounded(wide / (attr_float(node, "bias", 1.0) + alpha / size * total) ** beta, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Squares among channels of zeros, and steps that add shifted views of them."""
        x, value, machine = first_input(node), node.outputs[0], plan.machine
        facts, size = plan.facts(x), attr_int(node, "size", 1)
        dtype = name_of(facts.dtype)
        if dtype not in FLOATS or size < 1:
            return False
        view, wide = plan.view(x), wide_of(dtype)
        before, channels = (size - 1) // 2, facts.shape[1]
        shape = (facts.shape[0], channels + size - 1, *facts.shape[2:])
        padded = plan.temporary(shape, wide, memory_order(view))

        def part(first: int, count: int) -> View:
            own = (shape[0], count, *shape[2:])
            return padded.with_dims(own, padded.strides, first * padded.strides[1])

        for first, count in ((0, before), (before + channels, size - 1 - before)):
            if count:
                plan.emit(fill(0.0, part(first, count), machine))
        square = expression_of((dtype,), (Step("Cast", (0,), wide), Step("Mul", (1, 1), wide)), (2,))
        plan.emit(elementwise(square, [view], [part(before, channels)], machine))
        steps = Steps(plan, facts.shape)
        total = plan.located(part(0, channels))
        for shift in range(1, size):
            total = steps("Add", total, plan.located(part(shift, channels)))
        scaled = steps("Mul", total, attr_float(node, "alpha", 1e-4) / size)
        base = steps("Add", scaled, attr_float(node, "bias", 1.0))
        power = steps("Pow", base, attr_float(node, "beta", 0.75))
        steps.cast(steps("Div", steps.cast(x, wide), power), dtype, value)
        return True
