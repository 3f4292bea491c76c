"""Pooling over windows (AveragePool, MaxPool, LpPool) and over everything (the Global pools)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import Call
from ingot.kernels.call import View as Memory
from ingot.kernels.pool import average_pool, lp_pool, max_pool
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import INT64, is_float, is_native, rounded, widen
from ingot.ops.reduce import reduction
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_int,
    first_input,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.window import Window, channels_last, kernel_shape

Outputs = list[Facts | None] | None


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
        return Window.of(node, x[2:], kernel)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `window`."""
        x = need(node, inputs, 0)
        return [Facts(x.dtype, (*x.shape[:2], *self.window(node, x.shape).output))]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Generated code for float32 and up to three spatial dimensions; the output lies channels-last."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        rank = len(facts.shape) - 2
        if facts.dtype.name != "float32" or rank not in (1, 2, 3) or not self.is_native(node):
            return False
        window = self.window(node, facts.shape)
        out = plan.output(value, channels_last(rank), free_order=True)
        plan.emit(self.calls(node, plan.view(x), out, window, plan))
        return True

    def is_native(self, node: ir.Node) -> bool:
        """Whether the kernels compute all that the node asks for."""
        return len(node.outputs) == 1

    def calls(self, node: ir.Node, x: Memory, out: Memory, window: Window, plan: Lowering) -> list[Call]:
        """The kernels' calls."""
        raise NotImplementedError


@register("AveragePool", since=22)
class AveragePool(Pool):
    """The mean of each window; the padding counts as zeros with count_include_pad, else not at all."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Sums of the elements over sums of ones."""
        x = present(inputs, 0)
        window = self.window(node, x.shape)
        inner = tuple(range(-len(window.kernel), 0))
        total = window.windows(widen(x), 0).sum(inner)
        ones = np.ones((1, 1, *x.shape[2:]))
        if attr_int(node, "count_include_pad", 0):
            widths = [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)]
            padded = np.pad(ones, widths, constant_values=1.0)
            # What ceil_mode adds beyond the padding is not there, and is not counted.
            none = (0,) * len(inner)
            whole = Window(window.kernel, window.strides, window.dilations, none, none, window.output)
            count = whole.windows(padded, 0).sum(inner)
        else:
            count = window.windows(ones, 0).sum(inner)
        with np.errstate(all="ignore"):
            return [rounded(total / count, x.dtype)]

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
        flat = windows.reshape(*windows.shape[: 2 + rank], -1)
        outputs = [rounded(flat.max(-1), x.dtype)]
        if len(node.outputs) > 1:
            order: Literal["C", "F"] = "F" if attr_int(node, "storage_order", 0) else "C"
            flat_index = np.arange(math.prod(x.shape[2:]), dtype=np.int64)
            spatial: Array = np.reshape(flat_index, x.shape[2:], order=order)
            planes = np.arange(x.shape[0] * x.shape[1], dtype=np.int64).reshape(*x.shape[:2], *[1] * rank)
            position = window.windows(planes * spatial.size + spatial, -1).reshape(flat.shape)
            # Only elements count: a window of nothing but -inf must not point into the padding.
            inside = np.where(position >= 0, flat, -np.inf) if is_float(x.dtype) else flat
            choice = np.argmax(
                np.where((position >= 0) & (inside == inside.max(-1, keepdims=True)), 1, 0), -1
            )
            outputs.append(np.take_along_axis(position, choice[..., None], -1)[..., 0].astype(INT64))
        return outputs

    def calls(self, node: ir.Node, x: Memory, out: Memory, window: Window, plan: Lowering) -> list[Call]:
        """The largest of each window."""
        del node
        pads = (*window.before, *window.after)
        return max_pool(x, out, window.kernel, window.strides, pads, window.dilations, plan.machine)


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
