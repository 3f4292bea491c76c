"""Resize: interpolation is separable, so each axis is a short list of weighted neighbours for each output
position.

`Resizing` is what a node says; `kernels/resize.py` makes the neighbours and weights of it for concrete sizes
that both the plain definition and the kernels work from.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.kernels.call import Call, View, memory_order
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.made_again import made_again, remembered
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


class _UnfitError(Exception):
    """Sizes that do not go with what a node says."""


@dataclass(frozen=True, slots=True)
class Resizing:
    """What a node says: which axes are resized, by scales or to sizes, what part of each is shown (roi: all
    starts, then all ends), and how elements are found and weighed.
    """

    axes: tuple[int, ...]
    scales: tuple[float, ...] | None
    sizes: tuple[int, ...] | None
    roi: tuple[float, ...]
    policy: str
    mode: str
    coordinates: str
    nearest_mode: str
    cubic_coeff_a: float
    exclude_outside: bool
    antialias: bool

    @classmethod
    def of(
        cls, node: ir.Node, rank: int, roi: Array | None, scales: Array | None, sizes: Array | None
    ) -> Resizing:
        """Raises `ShapeError` when scales or sizes do not belong to the axes."""
        axes = tuple(normal_axes(node, attr_ints(node, "axes") or range(rank), rank))
        wanted = factors = None
        if sizes is not None and sizes.size:
            wanted = tuple(sizes.ravel().tolist())
            if len(wanted) != len(axes):
                raise shape_error(node, f"{len(wanted)} sizes for {len(axes)} axes")
        elif scales is not None and scales.size:
            factors = tuple(map(float, scales.ravel().tolist()))
            if len(factors) != len(axes):
                raise shape_error(node, f"{len(factors)} scales for {len(axes)} axes")
        else:
            raise ModelError(f"{label(node)}: neither scales nor sizes are given. Give the node one of them.")
        coordinates = attr_str(node, "coordinate_transformation_mode", "half_pixel")
        shown = (0.0,) * len(axes) + (1.0,) * len(axes)
        if coordinates == "tf_crop_and_resize":
            if roi is None or roi.size != 2 * len(axes):
                raise ModelError(
                    f"{label(node)}: tf_crop_and_resize needs roi, two numbers for each axis. Give them."
                )
            shown = tuple(map(float, roi.ravel().tolist()))
        return cls(
            axes,
            factors,
            wanted,
            shown,
            attr_str(node, "keep_aspect_ratio_policy", "stretch"),
            attr_str(node, "mode", "nearest"),
            coordinates,
            attr_str(node, "nearest_mode", "round_prefer_floor"),
            attr_float(node, "cubic_coeff_a", -0.75),
            bool(attr_int(node, "exclude_outside", 0)),
            bool(attr_int(node, "antialias", 0)),
        )

    def goal(self, shape: tuple[int, ...]) -> list[int]:
        """The sizes of `axes` afterwards. Raises _UnfitError for such as cannot be."""
        before = [shape[axis] for axis in self.axes]
        if self.sizes is None:
            assert self.scales is not None
            goal = [_scaled(size, factor) for size, factor in zip(before, self.scales, strict=True)]
        else:
            stretched = self.policy == "stretch"
            if any(size == 0 and (n or not stretched) for n, size in zip(self.sizes, before, strict=True)):
                raise _UnfitError(f"an input of shape {show(shape)} has nothing to interpolate")
            goal = list(self.sizes if stretched else self._in_proportion(before)[0])
        if any(n < 0 for n in goal) or min(self.scales or (), default=1.0) <= 0:
            scales = f" with scales {list(self.scales)}" if self.scales is not None else ""
            raise _UnfitError(f"sizes {show(goal)}{scales} are not positive")
        return goal

    def leaves(self, shape: tuple[int, ...]) -> bool:
        """Whether nothing changes: every size and scale says "as it is"."""
        before, count = [shape[axis] for axis in self.axes], len(self.axes)
        if self.roi[:count] != (0.0,) * count or self.roi[count:] != (1.0,) * count:
            return False
        if self.scales is not None and not all(math.isclose(factor, 1.0) for factor in self.scales):
            return False
        if self.sizes is not None and self.policy != "stretch" and not self._in_proportion(before)[1]:
            return False
        return self.goal(shape) == before

    def tables(self, shape: tuple[int, ...]) -> dict[int, Taps]:
        """By axis that changes: which neighbours make each output position, and with what weights. An axis
        whose size and scale say "as it is" is left out.

        Raises _UnfitError as `goal` does, UnsupportedOperatorError for a mode that ONNX does not have.
        """
        before, goal, count = [shape[axis] for axis in self.axes], self.goal(shape), len(self.axes)
        if self.scales is not None:
            factors = list(self.scales)
        elif self.policy == "stretch":
            factors = [n / size if size else 1.0 for n, size in zip(goal, before, strict=True)]
        else:
            assert self.sizes is not None
            factors = [_common(self.sizes, before, self.policy)] * count
        found: dict[int, Taps] = {}
        shown = zip(self.roi[:count], self.roi[count:], strict=True)
        for axis, size, n, factor, roi in zip(self.axes, before, goal, factors, shown, strict=True):
            if n == size and math.isclose(factor, 1.0) and roi == (0.0, 1.0):
                continue
            make = _taps if max(size, n) <= MOST_KEPT else taps
            found[axis] = make(
                self.mode,
                size,
                n,
                factor,
                coordinates=self.coordinates,
                nearest_mode=self.nearest_mode,
                cubic_coeff_a=self.cubic_coeff_a,
                exclude_outside=self.exclude_outside,
                antialias=self.antialias,
                roi=roi,
            )
        return found

    def _in_proportion(self, before: Sequence[int]) -> tuple[tuple[int, ...], bool]:
        assert self.sizes is not None
        return _in_proportion(self.sizes, tuple(before), self.policy)


#: Tables are kept for axes of this many elements: images of many sizes have few heights and widths.
MOST_KEPT = 2048
_taps = functools.lru_cache(128)(taps)


@remembered(1024)
def _in_proportion(
    sizes: tuple[int, ...], before: tuple[int, ...], policy: str
) -> tuple[tuple[int, ...], bool]:
    """Sizes that keep the aspect ratio, and whether the scale that says so is 1."""
    factor = _common(sizes, before, policy)
    return tuple([math.floor(factor * size + 0.5) for size in before]), math.isclose(factor, 1.0)


def _common(sizes: Sequence[int], before: Sequence[int], policy: str) -> float:
    """The scale of all axes."""
    factors = [n / size for n, size in zip(sizes, before, strict=True)]
    return min(factors) if policy == "not_larger" else max(factors)


def _scaled(size: int, factor: float) -> int:
    """A size by a scale, rounded down: in float32, as ONNX's own shape inference: 10 · 0.7 is 7 there, and
    6.99… in float64.
    """
    if factor.is_integer() and size * int(factor) < 1 << 24:  # exact, and a size that is noted stays one
        return size * int(factor)
    return _scaled_in_float32(size, factor)


@remembered(1024)
def _scaled_in_float32(size: int, factor: float) -> int:
    return int(np.floor(np.float32(factor) * np.float32(size)))


@contextlib.contextmanager
def _in_the_name_of(node: ir.Node) -> Generator[None]:
    """What is wrong with a node's sizes or words is said with its name."""
    try:
        yield
    except _UnfitError as error:
        raise shape_error(node, str(error)) from None
    except UnsupportedOperatorError as error:
        raise ModelError(f"{label(node)}: {error}") from error


@made_again
def _resized(x: View, out: View, resizing: Resizing, machine: Machine, beyond: float) -> list[Call]:
    """See `kernels.resize.resize`."""
    return resize(x, out, resizing.tables(x.shape), machine, beyond)


@register("Resize", since=19)
class Resize(Op):
    """x interpolated (nearest, linear or cubic) to new sizes along some axes, given by scales or by sizes."""

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
        resizing = Resizing.of(node, len(shape), *settled)
        with _in_the_name_of(node):
            for axis, size in zip(resizing.axes, resizing.goal(x.shape), strict=True):
                shape[axis] = size
        return [Facts(x.dtype, tuple(shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One axis after the other, in float64; integers are rounded and clipped."""
        x = present(inputs, 0)
        resizing = Resizing.of(node, x.ndim, given(inputs, 1), given(inputs, 2), given(inputs, 3))
        with _in_the_name_of(node):
            tables = resizing.tables(x.shape)
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
        resizing = Resizing.of(node, len(facts.shape), *settled)
        view = plan.view(x)
        if resizing.leaves(facts.shape):
            plan.alias(value, view)
            return True
        beyond = attr_float(node, "extrapolation_value", 0.0)
        if moved or wide == facts.dtype.name:
            out = plan.output(value, memory_order(view), free_order=True)
            with _in_the_name_of(node):
                plan.emit(_resized(view, out, resizing, plan.machine, beyond))
            return True
        shape, order = plan.facts(value).shape, memory_order(view)
        widened, between = plan.temporary(view.shape, wide, order), plan.temporary(shape, wide, order)
        with _in_the_name_of(node):
            calls = _resized(widened, between, resizing, plan.machine, beyond)
        plan.emit([copy(view, widened, plan.machine), *calls])
        if not is_integer(facts.dtype):
            plan.emit(copy(between, plan.output(value, order, free_order=True), plan.machine))
            return True
        steps, limits = Steps(plan, shape), np.iinfo(facts.dtype)
        whole = steps("Round", plan.located(between))
        steps.cast(steps("Clip", whole, float(limits.min), float(limits.max)), facts.dtype.name, into=value)
        return True

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """By known scales: sizes are those of all images."""
        scales, sizes = given(inputs, 2), given(inputs, 3)
        if scales is None or scales.value is None or not scales.value.size or sizes is not None:
            return False
        rank = len(need(node, inputs, 0).shape)
        axes = normal_axes(node, attr_ints(node, "axes") or range(rank), rank)
        moved = dict(zip(axes, scales.value.ravel().tolist(), strict=True))
        cropped = attr_str(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        return moved.get(0, 1.0) == 1.0 and not cropped


#: In which dtype the kernels interpolate. float64 does not hold every integer of 64 bits: the host has them.
_WIDE = {
    **dict.fromkeys(("float32", "float16", "bfloat16"), "float32"),
    **dict.fromkeys(("float64", "int8", "uint8", "int16", "uint16", "int32", "uint32"), "float64"),
}
