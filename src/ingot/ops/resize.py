"""Resize: interpolation is separable, so each axis is a short list of weighted neighbours for each output
position.

`Resize.axes` resolves a node for concrete sizes; `Axis.taps` gives the neighbours and weights that every
user works from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.call import memory_order
from ingot.kernels.resize import Taps, resize
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import is_float, rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
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

Outputs = list[Facts | None] | None


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

    def source(self, mode: str) -> Array:
        """For each output position, its coordinate in the input (coordinate_transformation_mode `mode`)."""
        y = np.arange(self.output, dtype=np.float64)
        length = self.scale * self.size  # the output's size before it was rounded
        if mode == "half_pixel":
            return (y + 0.5) / self.scale - 0.5
        if mode == "asymmetric":
            return y / self.scale
        if mode == "align_corners":
            return y * 0.0 if length == 1 else y * (self.size - 1) / (length - 1)
        if mode == "pytorch_half_pixel":
            return y * 0.0 - 0.5 if length == 1 else (y + 0.5) / self.scale - 0.5
        if mode == "half_pixel_symmetric":
            return self.size / 2 * (1 - self.output / length) + (y + 0.5) / self.scale - 0.5
        span = (self.end - self.start) * (self.size - 1)  # tf_crop_and_resize
        return self.start * (self.size - 1) + (y * 0.0 + span / 2 if length == 1 else y * span / (length - 1))


def _cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


_COORDINATES = (
    "half_pixel",
    "asymmetric",
    "align_corners",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
    "tf_crop_and_resize",
)


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
            if any(shape[axis] == 0 for axis in axes):
                raise shape_error(node, f"an input of shape {show(shape)} has nothing to interpolate")
            factors = [n / shape[axis] for n, axis in zip(wanted, axes, strict=True)]
            policy = attr_str(node, "keep_aspect_ratio_policy", "stretch")
            if policy != "stretch":
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

    def taps(self, node: ir.Node, axis: Axis) -> tuple[Array, Array, Array | None]:
        """(neighbours [output, n] as indices into the input, their weights, which positions lie outside or
        None).
        """
        coordinates = attr_str(node, "coordinate_transformation_mode", "half_pixel")
        if coordinates not in _COORDINATES:
            raise ModelError(f"{label(node)}: coordinate_transformation_mode {coordinates!r} is unknown.")
        x = axis.source(coordinates)
        outside = (x < 0) | (x > axis.size - 1) if coordinates == "tf_crop_and_resize" else None
        mode = attr_str(node, "mode", "nearest")
        if mode == "nearest":
            index = self._nearest(node, x)[:, None]
            return np.clip(index, 0, axis.size - 1), np.ones(index.shape), outside
        # Downsampling with antialias stretches the kernel over all the pixels that an output pixel covers.
        shrink = min(axis.scale, 1.0) if attr_int(node, "antialias", 0) else 1.0
        radius = 1 if mode == "linear" else 2
        reach = math.floor(-radius / shrink) + 1
        count = 2 * radius if shrink == 1.0 else (2 - 2 * reach if mode == "linear" else 2 - reach - reach)
        # A whole coordinate counts as the right end of its cell, so that its left neighbour is the first.
        floor = np.ceil(x).astype(np.int64) - 1
        index = floor[:, None] + (np.arange(count) + reach)
        distance = (index - x[:, None]) * shrink
        if mode == "linear":
            weights = np.clip(1.0 - np.abs(distance), 0.0, 1.0)
        elif mode == "cubic":
            weights = _cubic(distance, attr_float(node, "cubic_coeff_a", -0.75))
        else:
            raise ModelError(
                f"{label(node)}: mode {mode!r} is not one of nearest, linear, cubic. Use one of them."
            )
        if attr_int(node, "exclude_outside", 0):
            weights = np.where((index < 0) | (index >= axis.size), 0.0, weights)
        if shrink != 1.0 or attr_int(node, "exclude_outside", 0):
            total = weights.sum(1, keepdims=True)
            weights = weights / np.where(total == 0, 1.0, total)
        return np.clip(index, 0, axis.size - 1), weights, outside

    @staticmethod
    def _nearest(node: ir.Node, x: Array) -> Array:
        mode = attr_str(node, "nearest_mode", "round_prefer_floor")
        if mode == "round_prefer_floor":
            return np.ceil(x - 0.5).astype(np.int64)
        if mode == "round_prefer_ceil":
            return np.floor(x + 0.5).astype(np.int64)
        if mode in ("floor", "ceil"):
            return (np.floor(x) if mode == "floor" else np.ceil(x)).astype(np.int64)
        raise ModelError(
            f"{label(node)}: nearest_mode {mode!r} is unknown. Use floor, ceil or a rounding mode."
        )

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
        y = widen(x)
        for axis in self.axes(node, x.shape, given(inputs, 1), given(inputs, 2), given(inputs, 3)):
            index, weights, outside = self.taps(node, axis)
            column = [-1 if i == axis.axis else 1 for i in range(x.ndim)]
            if index.shape[1] == 1:
                y = np.take(y, index[:, 0], axis.axis)
            else:
                y = sum(
                    (
                        np.take(y, index[:, j], axis.axis) * weights[:, j].reshape(column)
                        for j in range(index.shape[1])
                    ),
                    start=np.zeros((), np.float64),
                )
            if outside is not None:
                y = np.where(outside.reshape(column), attr_float(node, "extrapolation_value", 0.0), y)
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
        if facts.dtype != np.float32 and (not nearest or cropped or facts.dtype.itemsize not in (1, 2, 4, 8)):
            return False
        tables: dict[int, Taps] = {}
        for axis in self.axes(node, facts.shape, *settled):
            index, weights, outside = self.taps(node, axis)
            index = index.astype(np.int32)
            if outside is not None:
                index[outside, 0] = -1
            tables[axis.axis] = Taps(index, None if nearest else weights.astype(np.float32))
        if tables and all(n == 1 for d, n in enumerate(facts.shape) if d not in tables):
            return False
        view = plan.view(x)
        out = plan.output(value, memory_order(view), free_order=True)
        beyond = attr_float(node, "extrapolation_value", 0.0)
        plan.emit(resize(view, out, tables, plan.machine, beyond))
        return True
