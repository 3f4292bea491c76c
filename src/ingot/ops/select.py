"""Operators that keep as many elements as the data says: NonZero, Compress, Unique."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import DTYPES
from ingot.kernels.contract import name_of
from ingot.kernels.select import compress, evaluate_nonzero, nonzero
from ingot.kernels.unique import evaluate_unique, unique
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import INT64
from ingot.ops.registry import (
    Array,
    Bound,
    Facts,
    Op,
    attr_int,
    first_input,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

Bounds = list[Bound | None] | None


@register("NonZero", since=13)
class NonZero(Op):
    """The coordinates of the elements that are not 0: [rank, count]; count depends on the data."""

    def bound(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Bounds:
        """All elements."""
        x = need(node, inputs, 0)
        if name_of(x.dtype) not in DTYPES:
            return None
        return [Bound(INT64, (len(x.shape), math.prod(x.shape)), 1)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In row-major order."""
        return [evaluate_nonzero(present(inputs, 0))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Kernels that count and write."""
        x, out = plan.plain(first_input(node)), plan.output(node.outputs[0])
        plan.emit(nonzero(x, out, plan.count, plan.machine))
        return True


@register("Compress", since=11)
class Compress(Op):
    """The slices of x along `axis` (without one: its elements) whose place in a list of bools is true."""

    def _axis(self, node: ir.Node, x: tuple[int, ...], picks: tuple[int, ...]) -> int | None:
        axis = normal_axis(node, attr_int(node, "axis", 0), len(x)) if "axis" in node.attributes else None
        length = math.prod(x) if axis is None else x[axis]
        if len(picks) != 1 or picks[0] > length:
            raise shape_error(node, f"the condition has shape {show(picks)} for {length} places of {show(x)}")
        return axis

    def bound(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Bounds:
        """As many as the condition has."""
        x, picks = need(node, inputs, 0), need(node, inputs, 1)
        axis = self._axis(node, x.shape, picks.shape)
        if x.dtype.itemsize not in (1, 2, 4, 8):
            return None
        if axis is None:
            return [Bound(x.dtype, picks.shape, 0)]
        return [Bound(x.dtype, (*x.shape[:axis], picks.shape[0], *x.shape[axis + 1 :]), axis)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.compress."""
        x, picks = present(inputs, 0), present(inputs, 1)
        return [np.compress(picks, x, self._axis(node, x.shape, picks.shape))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Kernels that count and move slices."""
        x, picks = first_input(node), node.inputs[1]
        assert picks is not None
        condition, data = plan.plain(picks), plan.plain(x)
        axis = self._axis(node, data.shape, condition.shape)
        if axis is None:
            axis, data = 0, data.with_dims((data.size,), (1,))
        out = plan.output(node.outputs[0])
        plan.emit(compress(data, condition, axis, out, plan.count, plan.machine))
        return True


@register("Unique", since=28)
class Unique(Op):
    """The different slices of x along `axis` (without one: elements), in order or (sorted=0) as they come;
    where each is first, which one each of x is, and how often it is there.
    """

    def _axis(self, node: ir.Node, rank: int) -> int | None:
        return normal_axis(node, attr_int(node, "axis", 0), rank) if "axis" in node.attributes else None

    def bound(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Bounds:
        """All of them."""
        x = need(node, inputs, 0)
        axis = self._axis(node, len(x.shape))
        if name_of(x.dtype) not in DTYPES:
            return None
        shape = (math.prod(x.shape),) if axis is None else x.shape
        n = shape[axis or 0]
        line = Bound(INT64, (n,), 0)
        bounds: Bounds = [Bound(x.dtype, shape, axis or 0), line, Bound(INT64, (n,), None), line]
        return bounds[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.unique; strings in the order of their characters."""
        x, in_order = present(inputs, 0), bool(attr_int(node, "sorted", 1))
        axis = self._axis(node, x.ndim)
        if x.dtype == object:
            _, ranks = np.unique(x.astype(str), return_inverse=True)
            ranks = ranks.reshape(x.shape if axis is not None else -1)
            _, *rest = evaluate_unique(ranks, axis or 0, in_order=in_order)
            y = np.take(x if axis is not None else x.reshape(-1), rest[0], axis or 0)
            return [y, *rest][: len(node.outputs)]
        found = evaluate_unique(x if axis is not None else x.reshape(-1), axis or 0, in_order=in_order)
        return list(found)[: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A sort on one thread, then the slices are taken."""
        x = first_input(node)
        data = plan.plain(x)
        axis = self._axis(node, data.rank)
        if axis is None:
            data, axis = data.with_dims((data.size,), (1,)), 0
        outer, inner = math.prod(data.shape[:axis]), math.prod(data.shape[axis + 1 :])
        n = data.shape[axis]
        if axis:
            data = plan.copied(data.transpose((axis, *range(axis), *range(axis + 1, data.rank))))
        rows = data.with_dims((n, outer * inner), (outer * inner, 1))
        y, first, back, counts = (
            plan.output(node.outputs[i]) if i < len(node.outputs) else plan.temporary((n,), INT64)
            for i in range(4)
        )
        in_order = bool(attr_int(node, "sorted", 1))
        plan.emit(
            unique(rows, outer, inner, y, first, back, counts, plan.count, plan.machine, in_order=in_order)
        )
        return True
