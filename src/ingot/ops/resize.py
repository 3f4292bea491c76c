"""Resize: interpolation is separable, so each axis is a short list of weighted neighbours for each output
position.

`Resize.axes` resolves a node for concrete sizes; `kernels/resize.py` makes the neighbours and weights of it
that both the plain definition and the kernels work from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.kernels.call import memory_order
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.resize import Taps, definition, resize, taps
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import is_float, is_integer, rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    attr_ints,
    attr_str,
    first_input,
    given,
    label,
    need,
    normal_axes,
    present,
    register,
    shape_error,
    show,
)


@dataclass(frozen=True, slots=True)
class Axis:
    """One resized axis: sizes before and after, the scale that maps between them, and the part of it that
    is shown.
    """

    axis: int
    size: int
    output: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@register("Resize", since=19)
class Resize(Op):
    """x interpolated (nearest, linear or cubic) to new sizes along some axes, given by scales or by sizes."""

    def axes(
        self,
        node: ir.Node,
        shape: tuple[int, ...],
        roi: Array | None,
        scales: Array | None,
        sizes: Array | None,
    ) -> list[Axis]:
        """The axes that change, in order. An axis whose size and scale say "as it is" is left out.

        Raises `ShapeError` when scales or sizes do not belong to the axes.
        """
        axes = normal_axes(node, attr_ints(node, "axes") or range(len(shape)), len(shape))
        if sizes is not None and sizes.size:
            wanted = [int(n) for n in sizes.ravel().tolist()]
            if len(wanted) != len(axes):
                raise shape_error(node, f"{len(wanted)} sizes for {len(axes)} axes")
            policy = attr_str(node, "keep_aspect_ratio_policy", "stretch")
            stretched = policy == "stretch"
            if any(shape[a] == 0 and (n or not stretched) for n, a in zip(wanted, axes, strict=True)):
                raise shape_error(node, f"an input of shape {show(shape)} has nothing to interpolate")
            factors = [n / shape[a] if shape[a] else 1.0 for n, a in zip(wanted, axes, strict=True)]
            if not stretched:
                factor = min(factors) if policy == "not_larger" else max(factors)
                factors = [factor] * len(axes)
                wanted = [math.floor(factor * shape[axis] + 0.5) for axis in axes]
        elif scales is not None and scales.size:
            factors = [float(s) for s in scales.ravel().tolist()]
            if len(factors) != len(axes):
                raise shape_error(node, f"{len(factors)} scales for {len(axes)} axes")
            # In float32, as ONNX's own shape inference: 10 · 0.7 is 7 there, and 6.99… in float64.
            wanted = [
                int(np.floor(np.float32(n) * np.float32(shape[a])))
                for n, a in zip(factors, axes, strict=True)
            ]
        else:
            raise ModelError(f"{label(node)}: neither scales nor sizes are given. Give the node one of them.")
        if min(wanted, default=0) < 0 or min(factors, default=1.0) <= 0:
            raise shape_error(node, f"sizes {show(wanted)} with scales {factors} are not positive")
        crop = attr_str(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        starts, ends = [0.0] * len(axes), [1.0] * len(axes)
        if crop:
            if roi is None or roi.size != 2 * len(axes):
                raise ModelError(
                    f"{label(node)}: tf_crop_and_resize needs roi, two numbers for each axis. Give them."
                )
            flat = [float(r) for r in roi.ravel().tolist()]
            starts, ends = flat[: len(axes)], flat[len(axes) :]
        result: list[Axis] = []
        for axis, n, factor, start, end in zip(axes, wanted, factors, starts, ends, strict=True):
            same = n == shape[axis] and math.isclose(factor, 1.0) and (start, end) == (0.0, 1.0)
            if not same:
                result.append(Axis(axis, shape[axis], n, factor, start, end))
        return result

    def tables(
        self,
        node: ir.Node,
        shape: tuple[int, ...],
        roi: Array | None,
        scales: Array | None,
        sizes: Array | None,
    ) -> dict[int, Taps]:
        """By axis that changes: which neighbours make each output position, and with what weights.

        Raises `ShapeError` as `axes` does, `ModelError` for a mode that ONNX does not have.
        """
        found: dict[int, Taps] = {}
        for axis in self.axes(node, shape, roi, scales, sizes):
            try:
                found[axis.axis] = taps(
                    attr_str(node, "mode", "nearest"),
                    axis.size,
                    axis.output,
                    axis.scale,
                    coordinates=attr_str(node, "coordinate_transformation_mode", "half_pixel"),
                    nearest_mode=attr_str(node, "nearest_mode", "round_prefer_floor"),
                    cubic_coeff_a=attr_float(node, "cubic_coeff_a", -0.75),
                    exclude_outside=bool(attr_int(node, "exclude_outside", 0)),
                    antialias=bool(attr_int(node, "antialias", 0)),
                    roi=(axis.start, axis.end),
                )
            except UnsupportedOperatorError as error:
                raise ModelError(f"{label(node)}: {error}") from error
        return found

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while scales or sizes are."""
        x = need(node, inputs, 0)
        settled: list[Array | None] = []
        for i in (1, 2, 3):
            facts: Facts | None = given(inputs, i)
            if facts is not None and facts.value is None and facts.shape != (0,):
                return None
            settled.append(None if facts is None else facts.value)
        shape = list(x.shape)
        for axis in self.axes(node, x.shape, *settled):
            shape[axis.axis] = axis.output
        return [Facts(x.dtype, tuple(shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One axis after the other, in float64; integers are rounded and clipped."""
        x = present(inputs, 0)
        tables = self.tables(node, x.shape, given(inputs, 1), given(inputs, 2), given(inputs, 3))
        y = definition(widen(x), tables, attr_float(node, "extrapolation_value", 0.0))
        if not is_float(x.dtype) and y.dtype != x.dtype:
            limits = np.iinfo(x.dtype)
            y = np.clip(np.rint(y), limits.min, limits.max)
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A gather of weighted neighbours, two axes at a time; the output lies as the input does."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        settled = [plan.constant(v) for v in [*node.inputs[1:], None, None, None][:3]]
        nearest = attr_str(node, "mode", "nearest") == "nearest"
        cropped = attr_str(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        moved = nearest and not cropped and facts.dtype.kind != "c" and facts.dtype.itemsize in (1, 2, 4, 8)
        wide = _WIDE.get(name_of(facts.dtype))
        if not moved and (wide is None or (nearest and is_integer(facts.dtype))):
            return False
        tables = self.tables(node, facts.shape, *settled)
        view = plan.view(x)
        if not tables:
            plan.alias(value, view)
            return True
        beyond = attr_float(node, "extrapolation_value", 0.0)
        if moved or wide == facts.dtype.name:
            out = plan.output(value, memory_order(view), free_order=True)
            plan.emit(resize(view, out, tables, plan.machine, beyond))
            return True
        shape, order = plan.facts(value).shape, memory_order(view)
        widened, between = plan.temporary(view.shape, wide, order), plan.temporary(shape, wide, order)
        calls = resize(widened, between, tables, plan.machine, beyond)
        plan.emit([copy(view, widened, plan.machine), *calls])
        if not is_integer(facts.dtype):
            plan.emit(copy(between, plan.output(value, order, free_order=True), plan.machine))
            return True
        steps, limits = Steps(plan, shape), np.iinfo(facts.dtype)
        whole = steps("Round", plan.located(between))
        steps.cast(steps("Clip", whole, float(limits.min), float(limits.max)), facts.dtype.name, into=value)
        return True


#: In which dtype the kernels interpolate. float64 does not hold every integer of 64 bits: the host has them.
_WIDE = {
    **dict.fromkeys(("float32", "float16", "bfloat16"), "float32"),
    **dict.fromkeys(("float64", "int8", "uint8", "int16", "uint16", "int32", "uint32"), "float64"),
}
