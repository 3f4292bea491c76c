"""Operators that only sessions know: what rules joined because sizes decide how to compute it.

Files that Ingot writes never contain them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue
from ingot.kernels.interpolate import MOST_NEIGHBOURS, Source, interpolate_sum
from ingot.kernels.made_again import made_again, remembered
from ingot.kernels.resize import identity_taps
from ingot.ops.compose import computed
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import Array, Facts, Op, find, given, need, register, shape_error, show
from ingot.ops.resize import Resizing
from ingot.ops.window import channels_last

T = TypeVar("T")

#: A convolution moves before an interpolation that makes at least so many pixels of one.
_ENLARGED = 2


@dataclass(frozen=True, slots=True)
class _Branch(Generic[T]):
    """One part of the concatenation: an image, what resizes it, and the filters for its channels."""

    x: T
    scales: T | None
    sizes: T | None
    w: T


@dataclass(frozen=True, slots=True)
class _Enlarged:
    """A branch that was filtered first: the filtered image, how what it was made of is resized, the shape of
    that, and the pixels that make one of the result.
    """

    view: Memory
    resizing: Resizing
    shape: tuple[int, ...]
    neighbours: int


def _branches(inputs: Sequence[T | None]) -> Iterator[_Branch[T]]:
    """The input list is bias, then x, scales, sizes, w for each branch."""
    for i in range(1, len(inputs), 4):
        x, scales, sizes, w = inputs[i : i + 4]
        assert x is not None and w is not None
        yield _Branch(x, scales, sizes, w)


@register("ConvOfResized", since=1, domain="ingot")
class ConvOfResized(Op):
    """Σ Conv(Resize(x_i), w_i) + bias, with filters of one pixel: a Conv of a Concat of resized images.

    Inputs: bias (or none); for each branch x_i [N, C_i, H_i, W_i], scales, sizes (neither: not resized), w_i
    [M, C_i, 1, 1]. Attributes: those of Resize. Interpolation takes each channel by itself and the filter
    each pixel, both are linear, so a branch that is enlarged is filtered first.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The images' size after resizing; unknown while a size is."""
        resize, found = find("", "Resize"), list[tuple[int, ...]]()
        filters = 0
        for branch in _branches(inputs):
            facts: Facts | None = branch.x
            if branch.scales is not None or branch.sizes is not None:
                resized = resize.infer(node, [branch.x, None, branch.scales, branch.sizes])
                if resized is None:
                    return None
                facts = resized[0]
            assert facts is not None
            if len(facts.shape) != 4 or facts.shape[1] != branch.w.shape[1]:
                raise shape_error(
                    node,
                    f"a branch has shape {show(facts.shape)}, and its weight {show(branch.w.shape)} wants "
                    f"4 dimensions with {branch.w.shape[1]} channels",
                )
            found.append((facts.shape[0], *facts.shape[2:]))
            filters = branch.w.shape[0]
        if any(shape != found[0] for shape in found):
            raise shape_error(
                node, f"its images, {' and '.join(map(show, found))} without channels, differ in size"
            )
        images, *size = found[0]
        return [Facts(need(node, inputs, 1).dtype, (images, filters, *size))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Resized, filtered and added up in float64."""
        resize, total, bias = find("", "Resize"), None, given(inputs, 0)
        dtype: np.dtype[Any] = np.dtype(np.float32)
        for branch in _branches(inputs):
            x, dtype = branch.x, branch.x.dtype
            if branch.scales is not None or branch.sizes is not None:
                (x,) = resize.evaluate(node, [widen(x), None, branch.scales, branch.sizes])
            with np.errstate(all="ignore"):
                term = np.einsum("nchw,mc->nmhw", widen(x), widen(branch.w[:, :, 0, 0]))
                total = term if total is None else total + term
        assert total is not None
        return [rounded(total if bias is None else total + widen(bias)[:, None, None], dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Each branch by a Conv and a Resize, in the cheaper order; the sum is a step after the last Conv."""
        value, bias = node.outputs[0], node.inputs[0]
        facts = plan.facts(value)
        branches = list(_branches(node.inputs))
        if facts.dtype != np.float32 or any(plan.weights(b.w) is None for b in branches):
            return False
        terms: list[ir.Value] = []
        enlarged: list[_Enlarged] = []
        for branch in branches:
            source = _filtered_first(node, branch, facts, plan)
            if source is None:
                terms.append(_resized_first(node, branch, facts, plan))
            elif source.neighbours + sum(s.neighbours for s in enlarged) <= MOST_NEIGHBOURS:
                enlarged.append(source)
            else:
                terms.append(_interpolated([source], facts, plan))
        if bias is not None:
            view = plan.view(bias)
            terms.append(plan.located(view.with_dims((view.size, 1, 1), (*view.strides, 0, 0))))
        if enlarged:  # last, so that it is the one that adds the others to its sums
            terms.append(_interpolated(enlarged, facts, plan))
        return plan.wait(value, "Sum", terms)


def _resized_first(node: ir.Node, branch: _Branch[ir.Value], out: Facts, plan: Lowering) -> ir.Value:
    """The branch's term as it is spelled: resized, then filtered."""
    x = plan.facts(branch.x)
    image, shape = branch.x, (out.shape[0], x.shape[1], *out.shape[2:])
    if x.shape != shape:
        inputs = [branch.x, None, branch.scales, branch.sizes]
        image = computed(plan, "Resize", inputs, shape, x.dtype, list(node.attributes.values()))
    return computed(plan, "Conv", [image, branch.w], out.shape, out.dtype)


def _filtered_first(node: ir.Node, branch: _Branch[ir.Value], out: Facts, plan: Lowering) -> _Enlarged | None:
    """A branch that is enlarged enough, filtered, and how it is interpolated."""
    x, channels = plan.facts(branch.x).shape, out.shape[1]
    if x[0] != out.shape[0] or math.prod(out.shape[2:]) < _ENLARGED * math.prod(x[2:]):
        return None
    resizing = Resizing.of(node, 4, None, plan.constant(branch.scales), plan.constant(branch.sizes))
    neighbours = _neighbours(resizing, x)
    if neighbours is None or neighbours > MOST_NEIGHBOURS:
        return None
    small = computed(plan, "Conv", [branch.x, branch.w], (x[0], channels, *x[2:]), out.dtype)
    view = plan.view(small)
    if view.strides[1] != 1:
        view = plan.copied(view, channels_last(2))
    return _Enlarged(view, resizing, x, neighbours)


@remembered(256, "decision")
def _neighbours(resizing: Resizing, shape: tuple[int, ...]) -> int | None:
    """Pixels of an image of this shape that make one of the result; None where other axes than an image's are
    resized, or something lies outside.
    """
    tables = resizing.tables(shape)
    if not tables.keys() <= {2, 3} or any((table.index < 0).any() for table in tables.values()):
        return None
    return math.prod(table.count for table in tables.values())


def _interpolated(sources: Sequence[_Enlarged], out: Facts, plan: Lowering) -> ir.Value:
    """Their sum, which waits for an epilogue."""
    value = plan.intermediate(out.shape, out.dtype)

    def emit(target: Memory, epilogue: Epilogue | None) -> list[Call]:
        return _interpolations(tuple(sources), target, epilogue, plan.machine)

    plan.anchor(value, emit, channels_last(2))
    return value


@made_again
def _interpolations(
    sources: tuple[_Enlarged, ...], out: Memory, epilogue: Epilogue | None, machine: Machine
) -> list[Call]:
    """See `kernels.interpolate.interpolate_sum`."""
    made: list[Source] = []
    for source in sources:
        tables, shape = source.resizing.tables(source.shape), source.view.shape
        rows, columns = (tables.get(d) or identity_taps(shape[d]) for d in (2, 3))
        made.append(Source(source.view, rows, columns))
    return interpolate_sum(made, out, epilogue, machine)
