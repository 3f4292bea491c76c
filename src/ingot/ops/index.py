"""Operators that pick or place elements by position: slice, pad, gather, scatter, top-k, one-hot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS, INTEGERS
from ingot.errors import InputError, ModelError
from ingot.kernels.arrange import one_hot
from ingot.kernels.call import View as Memory
from ingot.kernels.call import constant, memory_order
from ingot.kernels.copy import copy
from ingot.kernels.definitions import to_integer
from ingot.kernels.expression import supports
from ingot.kernels.gather import Combine, gather, gather_elements, gather_nd, scatter_elements, scatter_nd
from ingot.kernels.order import evaluate_topk, topk, topk_counted
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import INT64, is_float, widen
from ingot.ops.registry import (
    Array,
    Bound,
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

#: Of a TopK whose k only the run knows: its heap may take all of a row.
_LONGEST_ROW = 1 << 16


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
            x = _part(x, axis, max(0, -pair[0]), x.shape[axis] - max(0, -pair[0]) - max(0, -pair[1]))
        done = out
        for axis, (before, _) in enumerate(amounts):
            done = _part(done, axis, max(0, before), x.shape[axis])
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
                border = _part(done, axis, start, count)
                if mode == "constant":
                    plan.emit(copy(filler.broadcast_to(border.shape), border, plan.machine))
                    continue
                first, step = source[mode]
                strides = [s if d != axis else s * step for d, s in enumerate(done.strides)]
                plan.emit(copy(done.with_dims(border.shape, strides, first * stride), border, plan.machine))
            done = _part(done, axis, -before, before + size + after)
        return True


def _part(view: Memory, axis: int, start: int, size: int) -> Memory:
    """`size` elements along `axis` from `start` on, which may lie outside the view (but in its memory)."""
    shape = (*view.shape[:axis], size, *view.shape[axis + 1 :])
    return view.with_dims(shape, view.strides, start * view.strides[axis])


def checked_indices(node: ir.Node, indices: Array, size: int, from_end: bool = True) -> Array:
    """Indices in 0 … size-1; negative ones count from the end (from_end), or are outside.

    Raises `InputError` naming the first index that is outside.
    """
    least = -size if from_end else 0
    if indices.size == 1:  # of a single row: a fifth of the time
        index = int(indices.item())
        if 0 <= index < size:
            return indices
    if indices.size and (int(indices.min()) < least or int(indices.max()) >= size):
        wrong = int(indices[(indices < least) | (indices >= size)].flat[0])
        raise InputError(
            f"{label(node)}: index {wrong} is outside a dimension of {size}. Check what makes the indices."
        )
    return np.where(indices < 0, indices + size, indices) if indices.dtype.kind == "i" else indices


def _index_flag(node: ir.Node, plan: Lowering) -> Memory:
    """What a kernel sets when an index is outside its dimension."""
    return plan.check(f"{label(node)}: an index is outside its dimension. Check what makes the indices.")


def _takes_indices(plan: Lowering, indices: ir.Value) -> bool:
    return plan.facts(indices).dtype.name in ("int32", "int64")


@register("Gather", since=13)
class Gather(Op):
    """Slices of x along `axis`, one for each index."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The indices' shape in the axis' place."""
        x, indices = need(node, inputs, 0), need(node, inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", 0), len(x.shape))
        if not x.shape:
            raise shape_error(node, "the input is a scalar, and has no axis to gather along")
        return [Facts(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.take."""
        x = present(inputs, 0)
        axis = normal_axis(node, attr_int(node, "axis", 0), x.ndim)
        indices = checked_indices(node, present(inputs, 1), x.shape[axis])
        return [np.asarray(x.take(indices.astype(np.intp, copy=False), axis))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One known index is a view; otherwise a kernel that copies rows, or elements."""
        x, indices, value = first_input(node), node.inputs[1], node.outputs[0]
        assert indices is not None
        facts = plan.facts(x)
        axis = normal_axis(node, attr_int(node, "axis", 0), len(facts.shape))
        alone = plan.facts(indices)
        if alone.is_known and math.prod(alone.shape) == 1:
            known = plan.constant(indices)
            assert known is not None
            index = int(checked_indices(node, known, facts.shape[axis]).reshape(()))
            view = plan.view(x)
            shape = (*view.shape[:axis], *known.shape, *view.shape[axis + 1 :])
            strides = (*view.strides[:axis], *[0] * known.ndim, *view.strides[axis + 1 :])
            plan.alias(value, view.with_dims(shape, strides, index * view.strides[axis]))
            return True
        if not _takes_indices(plan, indices) or (
            facts.shape[axis] == 0 and plan.facts(indices).shape != (0,)
        ):
            return False
        data, where, out = plan.view(x), plan.view(indices), plan.output(value)
        plan.emit(gather(data, where, axis, out, _index_flag(node, plan), plan.machine))
        return True


@register("GatherElements", since=13)
class GatherElements(Op):
    """y[i, j, …] = x with coordinate `axis` replaced by indices[i, j, …]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The indices' shape."""
        x, indices = need(node, inputs, 0), need(node, inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", 0), len(x.shape))
        _same_rank(node, x, indices)
        for i, (have, wanted) in enumerate(zip(x.shape, indices.shape, strict=True)):
            if i != axis and wanted > have:
                raise shape_error(
                    node, f"indices {show(indices.shape)} reach beyond the input {show(x.shape)}"
                )
        return [Facts(x.dtype, indices.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """NumPy's take_along_axis on the part of x that the indices cover."""
        x, indices = present(inputs, 0), present(inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", 0), x.ndim)
        indices = checked_indices(node, indices, x.shape[axis])
        return [x[_coordinates(indices, axis)]]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel."""
        x, indices = first_input(node), node.inputs[1]
        assert indices is not None
        shape = plan.facts(x).shape
        axis = normal_axis(node, attr_int(node, "axis", 0), len(shape))
        if not _takes_indices(plan, indices) or shape[axis] == 0:
            return False
        data, where, out = plan.view(x), plan.view(indices), plan.output(node.outputs[0])
        plan.emit(gather_elements(data, where, axis, out, _index_flag(node, plan), plan.machine))
        return True


def _same_rank(node: ir.Node, x: Facts, indices: Facts) -> None:
    if len(x.shape) != len(indices.shape):
        raise shape_error(
            node, f"the input {show(x.shape)} and the indices {show(indices.shape)} differ in rank"
        )


def _coordinates(indices: Array, axis: int) -> tuple[Array, ...]:
    grid = list(np.ogrid[tuple([slice(n) for n in indices.shape])])
    grid[axis] = indices
    return tuple(grid)


@register("GatherND", since=13)
class GatherND(Op):
    """The last dimension of the indices holds coordinates into x, after `batch_dims` shared dimensions."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The indices' shape without its last dimension, then what the coordinates leave of x."""
        x, indices = need(node, inputs, 0), need(node, inputs, 1)
        batch = attr_int(node, "batch_dims", 0)
        if (
            not indices.shape
            or len(x.shape) < batch + indices.shape[-1]
            or x.shape[:batch] != indices.shape[:batch]
        ):
            raise shape_error(
                node,
                f"indices {show(indices.shape)} do not point into {show(x.shape)} with batch_dims {batch}",
            )
        return [Facts(x.dtype, indices.shape[:-1] + x.shape[batch + indices.shape[-1] :])]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Advanced indexing, with the batch dimensions as coordinates of their own."""
        x, indices = present(inputs, 0), present(inputs, 1)
        batch = attr_int(node, "batch_dims", 0)
        outer = indices.ndim - 1
        coordinates: list[Array] = [
            np.arange(x.shape[d], dtype=np.int64).reshape([-1 if i == d else 1 for i in range(outer)])
            for d in range(batch)
        ]
        coordinates += [
            checked_indices(node, indices[..., j], x.shape[batch + j]) for j in range(indices.shape[-1])
        ]
        if not coordinates:
            return [np.broadcast_to(x, indices.shape[:-1] + x.shape)]
        return [np.asarray(x[tuple(coordinates)])]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel."""
        x, indices = first_input(node), node.inputs[1]
        assert indices is not None
        batch, count = attr_int(node, "batch_dims", 0), plan.facts(indices).shape[-1]
        reached = plan.facts(x).shape[batch : batch + count]
        if not _takes_indices(plan, indices) or not count or 0 in reached:
            return False
        data, where, out = plan.view(x), plan.view(indices), plan.output(node.outputs[0])
        plan.emit(gather_nd(data, where, batch, out, _index_flag(node, plan), plan.machine))
        return True


_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(node: ir.Node, y: Array, where: tuple[Array, ...], updates: Array) -> None:
    reduction = attr_str(node, "reduction", "none")
    if reduction == "none":
        y[where] = updates
    elif reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(y, where, updates)
    else:
        raise ModelError(f"{label(node)}: reduction {reduction!r} is not one of none, add, mul, max, min.")


@register("ScatterElements", since=18)
class ScatterElements(Op):
    """x with updates[i, j, …] placed where coordinate `axis` is indices[i, j, …]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x, which the indices may be longer than along `axis` alone."""
        x, indices, updates = (need(node, inputs, i) for i in range(3))
        axis = normal_axis(node, attr_int(node, "axis", 0), len(x.shape))
        _same_rank(node, x, indices)
        if any(n > m for d, (n, m) in enumerate(zip(indices.shape, x.shape, strict=True)) if d != axis):
            raise shape_error(
                node,
                f"indices {show(indices.shape)} reach beyond {show(x.shape)} in another axis than {axis}",
            )
        if updates.shape != indices.shape:
            raise shape_error(node, f"updates {show(updates.shape)} and indices {show(indices.shape)} differ")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Advanced assignment; repeated positions are combined by `reduction`."""
        y = present(inputs, 0).copy()
        axis = normal_axis(node, attr_int(node, "axis", 0), y.ndim)
        indices = checked_indices(node, present(inputs, 1), y.shape[axis])
        _scatter(node, y, _coordinates(indices, axis), present(inputs, 2))
        return [y]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A copy of x, then one kernel that writes into it."""
        x, indices, updates = node.inputs[:3]
        assert x is not None
        assert indices is not None
        assert updates is not None
        combine = _combine(node, plan, x, indices)
        if combine is None:
            return False
        views = plan.view(x), plan.view(indices), plan.view(updates)
        axis = normal_axis(node, attr_int(node, "axis", 0), views[0].rank)
        out = plan.output(node.outputs[0])
        plan.emit(scatter_elements(*views, axis, out, _index_flag(node, plan), plan.machine, combine))
        return True


def _combine(node: ir.Node, plan: Lowering, x: ir.Value, indices: ir.Value) -> Combine | None:
    """The node's reduction, None where no kernel knows it for these dtypes (or x has no elements to write
    to).
    """
    reduction, facts = attr_str(node, "reduction", "none"), plan.facts(x)
    name = {"add": "Add", "mul": "Mul", "min": "Min", "max": "Max"}.get(reduction)
    dtype = facts.dtype.name
    if not _takes_indices(plan, indices) or 0 in facts.shape:
        return None
    if name is None:
        return "none" if reduction == "none" else None
    return cast(Combine, reduction) if supports(name, (dtype, dtype), dtype) else None


@register("ScatterND", since=18)
class ScatterND(Op):
    """x with slices of updates placed at the coordinates that the indices' last dimension holds."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        x, indices, updates = (need(node, inputs, i) for i in range(3))
        if not indices.shape or indices.shape[-1] > len(x.shape):
            raise shape_error(node, f"indices {show(indices.shape)} do not point into {show(x.shape)}")
        wanted = indices.shape[:-1] + x.shape[indices.shape[-1] :]
        if updates.shape != wanted:
            raise shape_error(
                node, f"updates have shape {show(updates.shape)}, the indices want {show(wanted)}"
            )
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Advanced assignment; repeated positions are combined by `reduction`."""
        y, indices = present(inputs, 0).copy(), present(inputs, 1)
        where = tuple([checked_indices(node, indices[..., j], y.shape[j]) for j in range(indices.shape[-1])])
        _scatter(node, y, where, present(inputs, 2))
        return [y]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A copy of x, then one kernel that writes into it."""
        x, indices, updates = node.inputs[:3]
        assert x is not None
        assert indices is not None
        assert updates is not None
        combine = _combine(node, plan, x, indices)
        if combine is None or plan.facts(indices).shape[-1] == 0:
            return False
        views = plan.view(x), plan.view(indices), plan.view(updates)
        out = plan.output(node.outputs[0])
        plan.emit(scatter_nd(*views, out, _index_flag(node, plan), plan.machine, combine))
        return True


@register("TopK", since=24)
class TopK(Op):
    """The k largest or smallest along `axis`, and their positions; of equals, the first comes first."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while k is."""
        x, k = need(node, inputs, 0), known_ints(node, inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", -1), len(x.shape))
        if k is None:
            return None
        if len(k) != 1 or not 0 <= k[0] <= x.shape[axis]:
            raise shape_error(node, f"k is {show(k)}, the dimension has {x.shape[axis]} elements")
        shape = (*x.shape[:axis], k[0], *x.shape[axis + 1 :])
        outputs: list[Facts | None] = [Facts(x.dtype, shape), Facts(INT64, shape)]
        return outputs[: len(node.outputs)]

    def bound(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Bound | None] | None:
        """All of them, for rows whose order fits into a thread's scratch memory."""
        x, k = need(node, inputs, 0), need(node, inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", -1), len(x.shape))
        if x.dtype.name not in (*FLOATS, *INTEGERS) or not 0 < x.shape[axis] <= _LONGEST_ROW:
            return None
        if k.dtype != INT64 or math.prod(k.shape) != 1:
            return None
        bounds: list[Bound | None] = [Bound(x.dtype, x.shape, axis), Bound(INT64, x.shape, axis)]
        return bounds[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A stable sort; NaN counts as the largest."""
        x, k = present(inputs, 0), int(present(inputs, 1).reshape(()))
        axis = normal_axis(node, attr_int(node, "axis", -1), x.ndim)
        outputs = evaluate_topk(x, k, axis, bool(attr_int(node, "largest", 1)))
        return [*outputs[: len(node.outputs)]]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel for numbers."""
        x = first_input(node)
        facts = plan.facts(x)
        if facts.dtype.name not in (*FLOATS, *INTEGERS):
            return False
        axis = normal_axis(node, attr_int(node, "axis", -1), len(facts.shape))
        view, shape = plan.view(x), plan.facts(node.outputs[0]).shape
        values, places = (
            plan.output(node.outputs[i]) if i < len(node.outputs) else plan.temporary(shape, dtype)
            for i, dtype in enumerate((facts.dtype, INT64))
        )
        largest = bool(attr_int(node, "largest", 1))
        k = node.inputs[1]
        if k is not None and not plan.facts(k).is_known:
            error = plan.check(
                f"{label(node)}: k is negative, or more than the dimension's {shape[axis]} elements. "
                "Check what makes it."
            )
            where = plan.plain(k)
            plan.emit(
                topk_counted(
                    view, where, axis, values, places, plan.count, error, plan.machine, largest=largest
                )
            )
            return True
        plan.emit(topk(view, shape[axis], axis, values, places, plan.machine, largest=largest))
        return True


@register("OneHot", since=28)
class OneHot(Op):
    """A new axis of `depth` elements: `on` at the index, `off` elsewhere (everywhere for one outside)."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the depth is."""
        indices, values = need(node, inputs, 0), need(node, inputs, 2)
        depth = need(node, inputs, 1).value
        if depth is None:
            return None
        if depth.size != 1 or (count := int(depth.reshape(()))) < 0:
            raise shape_error(node, f"the depth is {depth.tolist()}, and must be one number, 0 or more")
        if values.shape != (2,):
            raise shape_error(node, f"values have shape {show(values.shape)}, and must be [2]: off, on")
        axis = normal_axis(node, attr_int(node, "axis", -1), len(indices.shape) + 1)
        return [Facts(values.dtype, (*indices.shape[:axis], count, *indices.shape[axis:]))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Compares the indices, as int64, with 0 … depth-1."""
        indices, values = present(inputs, 0), present(inputs, 2)
        indices = to_integer(widen(indices), "int64") if is_float(indices.dtype) else indices.astype(np.int64)
        depth = int(present(inputs, 1).reshape(()))
        axis = normal_axis(node, attr_int(node, "axis", -1), indices.ndim + 1)
        indices = np.expand_dims(indices, axis)
        positions = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(indices.ndim)])
        hit = np.where(indices < 0, indices + depth, indices) == positions
        return [np.where(hit, values[1:], values[:1])]  # arrays: of strings, scalars would be cut off

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """An expression of the position in the new axis."""
        indices, depth, values = node.inputs[:3]
        assert indices is not None
        assert values is not None
        known = plan.constant(depth)
        dtypes = [plan.facts(v).dtype.name for v in (indices, values)]
        if known is None or not supports("Cast", dtypes[:1], "int64") or not supports("Identity", dtypes[1:]):
            return False
        value = node.outputs[0]
        axis = normal_axis(node, attr_int(node, "axis", -1), len(plan.facts(value).shape))
        views = plan.view(indices), plan.view(values)
        out = plan.output(value)
        plan.emit(one_hot(views[0], int(known.reshape(())), views[1], axis, out, plan.machine))
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
