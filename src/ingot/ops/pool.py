"""Pooling over windows (AveragePool, MaxPool, LpPool) and over everything (the Global pools)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS, INTEGERS
from ingot.kernels.argreduce import argreduce
from ingot.kernels.call import Call, row_major
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import name_of
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import fill
from ingot.kernels.expression import Step, expression_of
from ingot.kernels.pack import DTYPES
from ingot.kernels.pool import average_pool, lp_pool, max_pool
from ingot.kernels.reduce import reduce
from ingot.ops.lowering import Lowering, Steps, dtype_of, wide_of
from ingot.ops.numeric import INT64, is_float, is_native, rounded, widen
from ingot.ops.reduce import reduction
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    first_input,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.window import Window, channels_last, kernel_shape


class Pool(Op):
    """A window over [N, C, …]; each channel by itself."""

    def window(self, node: ir.Node, x: tuple[int, ...]) -> Window:
        """The resolved window for this input."""
        kernel = kernel_shape(node)
        if len(x) != len(kernel) + 2:
            raise shape_error(
                node,
                f"the input {show(x)} and kernel_shape {show(kernel)} do not belong together",
                "Use [N, C, …].",
            )
        if 0 in x[2:]:  # a window of padding alone has no largest number, and no mean
            raise shape_error(node, f"a pool of {show(x)}, which has no positions", "Use a larger input.")
        return Window.of(node, x[2:], kernel)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `window`."""
        x = need(node, inputs, 0)
        return [Facts(x.dtype, (*x.shape[:2], *self.window(node, x.shape).output))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Generated code for float32, half precision and up to three spatial dimensions; the output lies
        channels-last. Other dtypes are reductions of a view of all windows.
        """
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        rank, dtype = len(facts.shape) - 2, name_of(facts.dtype)
        window = self.window(node, facts.shape)
        if rank not in (1, 2, 3) or not self.is_native(node) or dtype not in DTYPES:
            return self.lower_windows(node, plan, window)
        view = plan.view(x)
        # As x lies: by its channels, or by its columns.
        order = None if rank < 3 and view.strides[-1] == 1 and view.strides[1] != 1 else channels_last(rank)
        out = plan.output(value, order, free_order=True)
        plan.emit(self.calls(node, view, out, window, plan))
        return True

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """But for places, which are counted through all images."""
        del inputs
        return len(node.outputs) == 1

    def is_native(self, node: ir.Node) -> bool:
        """Whether the kernels compute all that the node asks for."""
        return len(node.outputs) == 1

    def calls(self, node: ir.Node, x: Memory, out: Memory, window: Window, plan: Lowering) -> list[Call]:
        """The kernels' calls."""
        raise NotImplementedError

    def lower_windows(self, node: ir.Node, plan: Lowering, window: Window) -> bool:
        """Kernels over a view of all windows."""
        del node, plan, window
        return False


def _windows(plan: Lowering, x: Memory, window: Window, filler: float) -> Memory:
    """All windows of x [N, C, sizes...] as a view [N, C, output..., kernel...], with `filler` in the
    padding.
    """
    outer = x.shape[:2]
    reach = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(window.output, window.strides, window.kernel, window.dilations, strict=True)
    ]
    sizes = [max(r, b + n) for r, b, n in zip(reach, window.before, x.shape[2:], strict=True)]
    if any(window.before) or tuple(sizes) != x.shape[2:]:
        padded = plan.temporary((*outer, *sizes), x.dtype)
        first = sum(b * s for b, s in zip(window.before, padded.strides[2:], strict=True))
        middle = padded.with_dims(x.shape, padded.strides, first)
        plan.emit([fill(filler, padded, plan.machine), copy(x, middle, plan.machine)])
        x = padded
    own = x.strides[2:]
    steps = [*(a * b for a, b in zip(own, window.strides, strict=True))]
    steps += [a * b for a, b in zip(own, window.dilations, strict=True)]
    return x.with_dims((*outer, *window.output, *window.kernel), (*x.strides[:2], *steps))


@register("AveragePool", since=22)
class AveragePool(Pool):
    """The mean of each window; the padding counts as zeros with count_include_pad, else not at all."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums of the elements over sums of ones."""
        x = present(inputs, 0)
        window = self.window(node, x.shape)
        inner = tuple(range(-len(window.kernel), 0))
        total = window.windows(widen(x), 0).sum(inner)
        with np.errstate(all="ignore"):
            return [rounded(total / self._counts(node, window, x.shape[2:]), x.dtype)]

    @staticmethod
    def _counts(node: ir.Node, window: Window, sizes: tuple[int, ...]) -> Array:
        """How many elements each window has: [1, 1, output...]."""
        inner = tuple(range(-len(window.kernel), 0))
        ones = np.ones((1, 1, *sizes))
        if not attr_int(node, "count_include_pad", 0):
            return window.windows(ones, 0).sum(inner)
        widths = [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)]
        padded = np.pad(ones, widths, constant_values=1.0)
        # What ceil_mode adds beyond the padding is not there, and is not counted.
        none = (0,) * len(inner)
        whole = Window(window.kernel, window.strides, window.dilations, none, none, window.output)
        return whole.windows(padded, 0).sum(inner)

    def lower_windows(self, node: ir.Node, plan: Lowering, window: Window) -> bool:
        """Sums, and a step that divides them by how many elements there are."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        if name_of(facts.dtype) not in FLOATS or 0 in facts.shape:
            return False
        dtype, rank, wide = name_of(facts.dtype), len(window.kernel), wide_of(name_of(facts.dtype))
        windows = _windows(plan, plan.view(x), window, 0.0)
        total = plan.temporary(plan.facts(value).shape, dtype_of(wide))
        widened = expression_of((dtype,), (Step("Cast", (0,), wide),), (1,))
        axes = range(2 + rank, 2 + 2 * rank)
        plan.emit(reduce("ReduceSum", [windows], axes, total, plan.machine, widened))
        steps = Steps(plan, total.shape)
        counts = plan.known(self._counts(node, window, facts.shape[2:]).astype(wide))
        steps.cast(steps("Div", plan.located(total), counts), dtype, value)
        return True

    def calls(self, node: ir.Node, x: Memory, out: Memory, window: Window, plan: Lowering) -> list[Call]:
        """A mean of each window."""
        pads, whole = (*window.before, *window.after), bool(attr_int(node, "count_include_pad", 0))
        sizes = window.kernel, window.strides, pads, window.dilations
        return average_pool(x, out, *sizes, whole, plan.machine)


@register("MaxPool", since=22)
class MaxPool(Pool):
    """The largest of each window, and optionally its position in the flattened input."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Positions have the same shape."""
        x = need(node, inputs, 0)
        shape = (*x.shape[:2], *self.window(node, x.shape).output)
        outputs: list[Facts | None] = [Facts(x.dtype, shape), Facts(INT64, shape)]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The padding holds the lowest value. Positions count in C or Fortran order."""
        x = present(inputs, 0)
        window = self.window(node, x.shape)
        rank = len(window.kernel)
        lowest = -np.inf if is_float(x.dtype) else np.iinfo(x.dtype).min
        windows = window.windows(x if is_native(x.dtype) else widen(x), lowest)
        flat = windows.reshape(*windows.shape[: 2 + rank], math.prod(window.kernel))
        outputs = [rounded(flat.max(-1), x.dtype)]
        if len(node.outputs) > 1:
            order: Literal["C", "F"] = "F" if attr_int(node, "storage_order", 0) else "C"
            flat_index = np.arange(math.prod(x.shape[2:]), dtype=np.int64)
            spatial: Array = np.reshape(flat_index, x.shape[2:], order=order)
            planes = np.arange(x.shape[0] * x.shape[1], dtype=np.int64).reshape(*x.shape[:2], *[1] * rank)
            position = window.windows(planes * spatial.size + spatial, -1).reshape(flat.shape)
            # Only elements count: a window of nothing but -inf must not point into the padding. NaN is the
            # largest there is.
            inside = np.where(position >= 0, flat, -np.inf) if is_float(x.dtype) else flat
            largest = (inside == inside.max(-1, keepdims=True)) | (inside != inside)
            choice = np.argmax((position >= 0) & largest, -1)
            outputs.append(np.take_along_axis(position, choice[..., None], -1)[..., 0].astype(INT64))
        return outputs

    def calls(self, node: ir.Node, x: Memory, out: Memory, window: Window, plan: Lowering) -> list[Call]:
        """The largest of each window."""
        del node
        pads = (*window.before, *window.after)
        return max_pool(x, out, window.kernel, window.strides, pads, window.dilations, plan.machine)

    def lower_windows(self, node: ir.Node, plan: Lowering, window: Window) -> bool:
        """A reduction; for positions, the place of the largest in a copy of each window, and steps."""
        x, value, machine = first_input(node), node.outputs[0], plan.machine
        facts = plan.facts(x)
        if name_of(facts.dtype) not in (*FLOATS, *INTEGERS) or 0 in facts.shape:
            return False
        lowest = -math.inf if is_float(facts.dtype) else int(np.iinfo(facts.dtype).min)
        rank = len(window.kernel)
        windows = _windows(plan, plan.view(x), window, lowest)
        if len(node.outputs) == 1:
            out = plan.output(value)
            plan.emit(reduce("ReduceMax", [windows], range(2 + rank, 2 + 2 * rank), out, machine))
            return True
        copied = plan.copied(windows)
        shape = plan.facts(value).shape
        flat = (*shape, math.prod(window.kernel))
        lines = copied.with_dims(flat, row_major(flat))
        axis = len(shape)
        plan.emit(reduce("ReduceMax", [lines], (axis,), plan.output(value), machine))
        found = plan.temporary(shape, INT64)
        plan.emit(argreduce(lines, axis, found, machine))
        self._lower_positions(node, plan, window, plan.located(found), facts.shape)
        return True

    def _lower_positions(
        self, node: ir.Node, plan: Lowering, window: Window, choice: ir.Value, x: tuple[int, ...]
    ) -> None:
        """From places in windows to places in x, as steps."""
        rank, shape = len(window.kernel), plan.facts(node.outputs[1]).shape
        steps, sizes = Steps(plan, shape), x[2:]
        by_size = row_major(sizes)
        if attr_int(node, "storage_order", 0):
            by_size = tuple(reversed(row_major(sizes[::-1])))
        planes = np.arange(x[0] * x[1]).reshape(*x[:2], *[1] * rank) * math.prod(sizes)
        position = plan.known(planes)
        inner = row_major(window.kernel)
        for d in range(rank):
            own = steps("Mod", steps("Div", choice, inner[d]), window.kernel[d])
            start = np.arange(shape[2 + d]) * window.strides[d] - window.before[d]
            first = plan.known(start.reshape([-1 if i == 2 + d else 1 for i in range(2 + rank)]))
            at = steps("Add", steps("Mul", own, window.dilations[d]), first)
            # Where nothing is larger than the padding, the first element is meant.
            inside = steps("Mod", at, window.dilations[d])
            at = steps("Where", steps("Less", at, 0, dtype="bool"), inside, at, dtype="int64")
            into = node.outputs[1] if d == rank - 1 else None
            position = steps("Add", steps("Mul", at, by_size[d]), position, into=into)


@register("LpPool", since=22)
class LpPool(Pool):
    """(sum |x|^p)^(1/p) of each window."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The padding adds nothing."""
        x, p = present(inputs, 0), attr_int(node, "p", 2)
        window = self.window(node, x.shape)
        powers = np.abs(window.windows(widen(x), 0)) ** p
        return [rounded(powers.sum(tuple(range(-len(window.kernel), 0))) ** (1.0 / p), x.dtype)]

    def is_native(self, node: ir.Node) -> bool:
        """The kernels know the first and second norm."""
        return attr_int(node, "p", 2) in (1, 2)

    def calls(self, node: ir.Node, x: Memory, out: Memory, window: Window, plan: Lowering) -> list[Call]:
        """A norm of each window."""
        pads, p = (*window.before, *window.after), attr_int(node, "p", 2)
        return lp_pool(x, out, p, window.kernel, window.strides, pads, window.dilations, plan.machine)

    def lower_windows(self, node: ir.Node, plan: Lowering, window: Window) -> bool:
        """Sums of powers, and their roots."""
        x, value, p = first_input(node), node.outputs[0], float(attr_int(node, "p", 2))
        facts = plan.facts(x)
        dtype, rank, wide = name_of(facts.dtype), len(window.kernel), wide_of(name_of(facts.dtype))
        if dtype not in FLOATS or 0 in facts.shape:
            return False

        def power(first: tuple[Step, ...], exponent: float, last: str) -> tuple[Step, ...]:
            count = len(first)
            constant = Step("Constant", (), wide, (("value", exponent),))
            return (*first, constant, Step("Pow", (count, count + 1), wide), Step("Cast", (count + 2,), last))

        term = power((Step("Cast", (0,), wide), Step("Abs", (1,), wide)), p, wide)
        root = power((Step("Identity", (0,), wide),), 1.0 / p, dtype)
        windows, out = _windows(plan, plan.view(x), window, 0.0), plan.output(value)
        plan.emit(
            reduce(
                "ReduceSum",
                [windows],
                range(2 + rank, 2 + 2 * rank),
                out,
                plan.machine,
                expression_of((dtype,), term, (len(term),)),
                expression_of((wide,), root, (len(root),)),
            )
        )
        return True


class GlobalPool(Op):
    """One number for each channel of [N, C, …]."""

    def combine(self, node: ir.Node, x: Array, axes: tuple[int, ...]) -> Array:
        """The pool over `axes`, keeping them; x is in float64."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """[N, C, 1, …]."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2:
            raise shape_error(node, f"the input {show(x.shape)} has no channels", "Use [N, C, …].")
        return [Facts(x.dtype, (*x.shape[:2], *[1] * (len(x.shape) - 2)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `combine`."""
        x = present(inputs, 0)
        with np.errstate(all="ignore"):
            return [rounded(self.combine(node, widen(x), tuple(range(2, x.ndim))), x.dtype)]

    #: the reduction that computes it
    reduction: ClassVar[str | None] = None

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """A reduction over the spatial dimensions."""
        x = first_input(node)
        axes = tuple(range(2, len(plan.facts(x).shape)))
        return self.reduction is not None and reduction(plan, self.reduction, x, axes, node.outputs[0])

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """Always."""
        del node, inputs
        return True


@register("GlobalAveragePool", since=22)
class GlobalAveragePool(GlobalPool):
    """The mean."""

    reduction = "ReduceMean"

    def combine(self, node: ir.Node, x: Array, axes: tuple[int, ...]) -> Array:
        """np.mean."""
        del node
        return x.mean(axes, keepdims=True)


@register("GlobalMaxPool", since=22)
class GlobalMaxPool(GlobalPool):
    """The largest."""

    reduction = "ReduceMax"

    def combine(self, node: ir.Node, x: Array, axes: tuple[int, ...]) -> Array:
        """np.max."""
        del node
        return x.max(axes, keepdims=True, initial=-np.inf)


@register("GlobalLpPool", since=22)
class GlobalLpPool(GlobalPool):
    """(sum |x|^p)^(1/p)."""

    def combine(self, node: ir.Node, x: Array, axes: tuple[int, ...]) -> Array:
        """The p-norm."""
        p = attr_int(node, "p", 2)
        return (np.abs(x) ** p).sum(axes, keepdims=True) ** (1.0 / p)
