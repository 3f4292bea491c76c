"""Operators from values to indices and back: TopK, OneHot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS, INTEGERS
from ingot.kernels.arrange import one_hot
from ingot.kernels.definitions import to_integer
from ingot.kernels.expression import supports
from ingot.kernels.order import evaluate_topk, topk, topk_counted
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import INT64, is_float, widen
from ingot.ops.registry import (
    Array,
    Bound,
    Facts,
    Op,
    Outputs,
    attr_int,
    first_input,
    known_ints,
    label,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

#: Of a TopK whose k only the run knows: its heap may take all of a row.
_LONGEST_ROW = 1 << 16


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
