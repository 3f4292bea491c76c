"""Operators that take a part of each axis, or put something around it: Slice, Pad, ReverseSequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.kernels.call import constant, memory_order
from ingot.kernels.copy import copy
from ingot.kernels.expression import supports
from ingot.kernels.gather import gather_elements
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_str,
    facts_of,
    first_input,
    given,
    known_ints,
    label,
    need,
    normal_axes,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)


def _optional_ints(
    node: ir.Node, inputs: Sequence[Facts | None], index: int
) -> tuple[bool, tuple[int, ...] | None]:
    """(whether the value is settled, its elements or None where the input is absent)."""
    if given(inputs, index) is None:
        return True, None
    value = known_ints(node, inputs, index)
    return value is not None, value


def _ints(array: Any) -> tuple[int, ...] | None:
    return None if array is None else tuple(array.ravel().tolist())


def slice_bounds(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """`slice(start, end, step).indices(size)`, also of sizes that are noted; but a start below the dimension
    is its first element, also for a negative step: there ONNX differs from Python.
    """
    low, high = (0, size) if step > 0 else (-1, size - 1)
    first, stop = (position + size if position < 0 else position for position in (max(start, -size), end))
    return min(max(first, low), high), min(max(stop, low), high), step


@register("Slice", since=13)
class Slice(Op):
    """x[start:end:step] along each named axis, by Python's rules for a range outside the dimension."""

    quick = True

    @staticmethod
    def slices(
        node: ir.Node,
        shape: tuple[int, ...],
        starts: Sequence[int],
        ends: Sequence[int],
        axes: Sequence[int] | None,
        steps: Sequence[int] | None,
    ) -> list[tuple[int, int, int]]:
        """For each dimension of x: (first, stop, step), clamped to it; stop is -1 below 0 for a negative
        step. See `slice_bounds`.
        """
        result = [(0, size, 1) for size in shape]
        axes = normal_axes(node, axes if axes is not None else range(len(starts)), len(shape))
        steps = steps or [1] * len(starts)
        if not len(starts) == len(ends) == len(axes) == len(steps):
            raise shape_error(
                node, f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps"
            )
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            if step == 0:
                raise shape_error(node, f"the step of axis {axis} is 0", "Use a step other than 0.")
            result[axis] = slice_bounds(start, end, step, shape[axis])
        return result

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while a bound is."""
        x = need(node, inputs, 0)
        starts, ends = known_ints(node, inputs, 1), known_ints(node, inputs, 2)
        axes_known, axes = _optional_ints(node, inputs, 3)
        steps_known, steps = _optional_ints(node, inputs, 4)
        if starts is None or ends is None or not axes_known or not steps_known:
            return None
        ranges = self.slices(node, x.shape, starts, ends, axes, steps)
        return [Facts(x.dtype, tuple([max(-((a - b) // step), 0) for a, b, step in ranges]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A view of the input."""
        x = present(inputs, 0)
        starts, ends = _ints(present(inputs, 1)), _ints(present(inputs, 2))
        assert starts is not None
        assert ends is not None
        axes, steps = _ints(given(inputs, 3)), _ints(given(inputs, 4))
        ranges = self.slices(node, x.shape, starts, ends, axes, steps)
        return [x[tuple([slice(a, b if b >= 0 else None, step) for a, b, step in ranges])]]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A view of the input's memory."""
        bounds = [_ints(plan.constant(v)) for v in node.inputs[1:]] + [None, None]
        starts, ends, axes, steps = bounds[:4]
        assert starts is not None
        assert ends is not None
        view = plan.view(first_input(node))
        ranges = self.slices(node, view.shape, starts, ends, axes, steps)
        shape = plan.facts(node.outputs[0]).shape
        offset = sum(first * stride for (first, _, _), stride in zip(ranges, view.strides, strict=True))
        strides = [stride * step for (_, _, step), stride in zip(ranges, view.strides, strict=True)]
        plan.alias(node.outputs[0], view.with_dims(shape, strides, offset if 0 not in shape else 0))
        return True


@register("Pad", since=25)
class Pad(Op):
    """x with elements added before and after each named axis; negative amounts remove some."""

    @staticmethod
    def amounts(
        node: ir.Node, rank: int, pads: Sequence[int], axes: Sequence[int] | None
    ) -> list[tuple[int, int]]:
        """(before, after) for each dimension of x."""
        axes = normal_axes(node, axes if axes is not None else range(rank), rank)
        if len(pads) != 2 * len(axes):
            raise shape_error(
                node, f"{len(pads)} pads for {len(axes)} axes", "Give two numbers for each axis."
            )
        result = [(0, 0)] * rank
        for i, axis in enumerate(axes):
            result[axis] = (pads[i], pads[len(axes) + i])
        return result

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the amounts are."""
        x, pads = need(node, inputs, 0), known_ints(node, inputs, 1)
        axes_known, axes = _optional_ints(node, inputs, 3)
        if pads is None or not axes_known:
            return None
        amounts = self.amounts(node, len(x.shape), pads, axes)
        shape = tuple([size + before + after for size, (before, after) in zip(x.shape, amounts, strict=True)])
        left = [
            size + min(0, before) + min(0, after)
            for size, (before, after) in zip(x.shape, amounts, strict=True)
        ]
        if any(size < 0 for size in left):
            raise shape_error(node, f"pads {show(pads)} remove more than {show(x.shape)} has")
        mode = attr_str(node, "mode", "constant")
        if mode != "constant" and any(old == 0 and new > 0 for old, new in zip(left, shape, strict=True)):
            raise shape_error(node, f"mode {mode!r} has nothing to copy from in {show(x.shape)}")
        return [Facts(x.dtype, shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.pad, after removing what negative amounts remove."""
        self.infer(node, [None if array is None else facts_of(array) for array in inputs])
        x, value = present(inputs, 0), given(inputs, 2)
        pads = _ints(present(inputs, 1))
        assert pads is not None
        amounts = self.amounts(node, x.ndim, pads, _ints(given(inputs, 3)))
        x = x[tuple([slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(x.shape, amounts, strict=True)])]
        added = [(max(0, before), max(0, after)) for before, after in amounts]
        mode = attr_str(node, "mode", "constant")
        if mode == "constant":
            shape = [n + before + after for n, (before, after) in zip(x.shape, added, strict=True)]
            fill = np.zeros((), x.dtype) if value is None else value.reshape(()).astype(x.dtype)
            result = np.full(shape, fill, x.dtype)
            result[tuple([slice(b, b + n) for n, (b, _) in zip(x.shape, added, strict=True)])] = x
            return [result]
        if mode == "edge":
            return [np.pad(x, added, "edge")]
        if mode == "reflect":
            return [np.pad(x, added, "reflect")]
        if mode == "wrap":
            return [np.pad(x, added, "wrap")]
        raise ModelError(
            f"{label(node)}: mode {mode!r} is not one of constant, reflect, edge, wrap. Use one of them."
        )

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A copy of the middle, then the borders axis by axis, each a view of what is there already."""
        value, mode = node.outputs[0], attr_str(node, "mode", "constant")
        x, pads = plan.view(first_input(node)), _ints(plan.constant(node.inputs[1]))
        assert pads is not None
        fill_with = node.inputs[2] if len(node.inputs) > 2 else None
        axes = _ints(plan.constant(node.inputs[3] if len(node.inputs) > 3 else None))
        amounts = self.amounts(node, x.rank, pads, axes)
        for (before, after), size in zip(amounts, x.shape, strict=True):
            left = size + min(0, before) + min(0, after)  # what negative amounts leave is what is reflected
            if max(before, after) > {"reflect": left - 1, "wrap": left}.get(mode, max(before, after)):
                return False  # a border wider than that is reflected more than once
        number = plan.constant(fill_with)
        if fill_with is not None and number is None:
            return False
        filler = constant(np.zeros((), x.dtype) if number is None else number.reshape(()))
        out = plan.output(value, memory_order(x), free_order=True)
        for axis, pair in enumerate(amounts):  # negative amounts remove
            x = x.part(axis, max(0, -pair[0]), x.shape[axis] - max(0, -pair[0]) - max(0, -pair[1]))
        done = out
        for axis, (before, _) in enumerate(amounts):
            done = done.part(axis, max(0, before), x.shape[axis])
        plan.emit(copy(x, done, plan.machine))
        for axis, (before, after) in enumerate(amounts):
            before, after, size = max(0, before), max(0, after), done.shape[axis]
            stride = done.strides[axis]
            for count, start, source in (
                (before, -before, {"reflect": (before, -1), "edge": (0, 0), "wrap": (size - before, 1)}),
                (after, size, {"reflect": (size - 2, -1), "edge": (size - 1, 0), "wrap": (0, 1)}),
            ):
                if count == 0:
                    continue
                border = done.part(axis, start, count)
                if mode == "constant":
                    plan.emit(copy(filler.broadcast_to(border.shape), border, plan.machine))
                    continue
                first, step = source[mode]
                strides = [s if d != axis else s * step for d, s in enumerate(done.strides)]
                plan.emit(copy(done.with_dims(border.shape, strides, first * stride), border, plan.machine))
            done = done.part(axis, -before, before + size + after)
        return True


@register("ReverseSequence", since=28)
class ReverseSequence(Op):
    """The first sequence_lens[b] steps of each batch entry in reverse; the others stay."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x, which has two dimensions at least; a length for each batch entry."""
        x, lengths = need(node, inputs, 0), need(node, inputs, 1)
        batch = normal_axis(node, attr_int(node, "batch_axis", 1), len(x.shape))
        if lengths.shape != (x.shape[batch],):
            raise shape_error(
                node,
                f"sequence_lens have shape {show(lengths.shape)}, and must be {show((x.shape[batch],))}",
            )
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One slice for each batch entry. A length outside of the time axis is refused."""
        y, lengths = present(inputs, 0).copy(), present(inputs, 1)
        time, batch = attr_int(node, "time_axis", 0), attr_int(node, "batch_axis", 1)
        view = np.moveaxis(y, (batch, time), (0, 1))
        if y.size and (lengths.min() < 0 or lengths.max() > view.shape[1]):
            raise InputError(self._outside(node, view.shape[1]))
        for row, length in zip(view, lengths.tolist(), strict=True):
            row[:length] = row[:length][::-1].copy()
        return [y]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Where each element comes from, as steps; then a gather along time."""
        x, lengths, value = first_input(node), node.inputs[1], node.outputs[0]
        assert lengths is not None
        facts = plan.facts(x)
        if not supports("Identity", [facts.dtype.name]):
            return False
        time, batch = (
            normal_axis(node, attr_int(node, name, default), len(facts.shape))
            for name, default in (("time_axis", 0), ("batch_axis", 1))
        )
        own = [n if d in (time, batch) else 1 for d, n in enumerate(facts.shape)]
        source = plan.view(lengths)
        length = plan.located(
            source.with_dims(own, [source.strides[0] if d == batch else 0 for d in range(len(own))])
        )
        now = plan.known(np.arange(own[time]).reshape([n if d == time else 1 for d, n in enumerate(own)]))
        steps = Steps(plan, own)
        back = steps("Sub", steps("Sub", length, now), 1)
        from_ = steps("Where", steps("Less", now, length, dtype="bool"), back, now, dtype="int64")
        # A length that is too long leads to a step that is not there; a negative one has to be led to one.
        from_ = steps("Where", steps("Less", length, 0, dtype="bool"), own[time], from_, dtype="int64")
        data, places, out = plan.view(x), plan.view(from_).broadcast_to(facts.shape), plan.output(value)
        flag = plan.check(self._outside(node, own[time]))
        plan.emit(gather_elements(data, places, time, out, flag, plan.machine))
        return True

    @staticmethod
    def _outside(node: ir.Node, steps: int) -> str:
        return f"{label(node)}: a length is outside 0 … {steps}, the steps there are. Check sequence_lens."
