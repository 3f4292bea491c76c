"""Operators that pick or place elements by indices: the Gather and Scatter families."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.kernels.call import View as Memory
from ingot.kernels.expression import supports
from ingot.kernels.gather import Combine, gather, gather_elements, gather_nd, scatter_elements, scatter_nd
from ingot.ops.lowering import Lowering
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_str,
    first_input,
    label,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)


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

    quick = True

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
