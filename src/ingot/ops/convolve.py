"""Convolutions as sums over any dimensions: of every dtype, with any number of spatial dimensions, weights
that are constant or not, and padding that adds or removes. `conv.py` has the faster ones of float32.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from ingot.kernels.call import View, Weights, constant, row_major
from ingot.kernels.contraction import Dim, contraction, pack_strips, packing_key
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import fill
from ingot.ops.lowering import Lowering
from ingot.ops.window import channels_last


@dataclass(frozen=True, slots=True)
class Filters:
    """Weights of a convolution: constant ones [O, C / group, taps …], kept for the session under `key`, or a
    view; and the strides of a group, an output channel, an input channel and each dimension of taps.
    """

    source: View | Weights
    key: Hashable
    taps: tuple[int, ...]
    group: int
    output: int
    input: int
    tap: tuple[int, ...]


def filters_of(source: View | Weights, group: int, key: Hashable) -> Filters:
    """Of [O, C / group, taps …]; constant weights are read as they lie in a contiguous array."""
    shape = source.shape
    output, input_, *tap = source.strides if isinstance(source, View) else row_major(shape)
    return Filters(source, key, shape[2:], shape[0] // group * output, output, input_, tuple(tap))


def padded(plan: Lowering, x: View, before: Sequence[int], after: Sequence[int]) -> View:
    """x [N, C, …] with zeros around it; negative numbers remove."""
    inner, steps, offset = list(x.shape), list(x.strides), 0
    for axis, (b, a) in enumerate(zip(before, after, strict=True), 2):
        first = min(max(0, -b), inner[axis])
        inner[axis] = max(0, inner[axis] - first - max(0, -a))
        offset += first * steps[axis]
    x = x.with_dims(inner, steps, offset)
    if max(*before, *after) <= 0:
        return x
    rank = len(before)
    sizes = [n + max(0, b) + max(0, a) for n, b, a in zip(inner[2:], before, after, strict=True)]
    whole = plan.temporary((*inner[:2], *sizes), x.dtype, channels_last(rank))
    plan.emit(fill(0, whole, plan.machine))
    corner = sum(max(0, b) * s for b, s in zip(before, whole.strides[2:], strict=True))
    plan.emit(copy(x, whole.with_dims(inner, whole.strides, corner), plan.machine))
    return whole


def convolve(
    plan: Lowering,
    x: View,
    filters: Filters,
    out: View,
    group: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    first: Sequence[int] | None = None,
) -> None:
    """out [N, O, …] = x [N, C, …], padded already, with these filters. first: where in x the first output
    begins; default: at its corner.
    """
    images, outputs, *sizes = out.shape
    inputs, each = x.shape[1] // group, outputs // group
    sn, sc, *space = x.strides
    on, oc, *places = out.strides
    dims = [
        Dim(images, sn, 0, on),
        Dim(group, inputs * sc, filters.group, each * oc),
        *(Dim(n, stride * s, 0, o) for n, stride, s, o in zip(sizes, strides, space, places, strict=True)),
        Dim(each, 0, filters.output, oc),
        *(
            Dim(n, step * s, w, None)
            for n, step, s, w in zip(filters.taps, dilations, space, filters.tap, strict=True)
        ),
        Dim(inputs, sc, filters.input, None),
    ]
    start = 0 if first is None else sum(f * s for f, s in zip(first, space, strict=True))
    source, weights, machine = x.with_dims(x.shape, x.strides, start), filters.source, plan.machine
    if isinstance(weights, View):
        factor = weights
    elif each * 2 * weights.dtype.itemsize < machine.vector_bytes:
        # Few outputs in a group leave vectors empty; the pixels fill them instead.
        key = None if filters.key is None else ("filters", filters.key)
        factor = plan.pack(key, lambda: constant(np.ascontiguousarray(weights.read())))
    else:
        key = None if filters.key is None else ("strips", filters.key, packing_key(dims))
        factor = plan.pack(key, lambda: pack_strips(weights.read(), dims, machine))
    plan.emit(contraction(source, factor, out, dims, machine, "conv"))
