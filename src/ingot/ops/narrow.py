"""Convolutions of narrow groups (depthwise ones among them) on the plan: whole, or in bands of rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Series, arena_view, series
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue
from ingot.kernels.copy import copy
from ingot.kernels.depthwise import DepthwiseWeights, depthwise_conv2d, suits_groups
from ingot.kernels.made_again import either, made_again
from ingot.ops.bands import Band, is_cut, reached, rows_in_band, runs_of
from ingot.ops.lowering import Lowering, SomeRows
from ingot.ops.window import Window, channels_last

#: An image whose channels lie apart is copied first where each element is read so many times: a vector of
#: channels is gathered each time otherwise.
_TURNED = 4


def is_narrow(weights: tuple[int, ...], group: int, machine: Machine) -> bool:
    """Whether filters of this shape are of groups that share a vector of channels."""
    return group > 1 and (weights[1] == 1 or suits_groups(weights, group, machine))


def narrow_conv(
    plan: Lowering, x: ir.Value, w: DepthwiseWeights, window: Window
) -> Callable[[Memory, Epilogue | None], Sequence[Call | Series]]:
    """How to emit a convolution of narrow groups: in bands of rows, each after the rows of input that it
    needs, where the whole input would not stay in the cache.
    """
    facts, machine = plan.facts(x), plan.machine
    made = plan.by_rows(x) if len(facts.shape) == 4 and is_cut(window) else None
    if made is None:
        source = plan.view(x)
        if source.strides[1] != 1 and math.prod(window.kernel) >= _TURNED * math.prod(window.strides):
            source = plan.copied(source, channels_last(source.rank - 2))

        def whole(out: Memory, epilogue: Epilogue | None) -> list[Call]:
            return depthwise(source, w, out, window, epilogue, machine)

        return whole
    count, some, all_rows = rows_in_band(facts.shape, window, machine), made.some, made.whole

    def emit(out: Memory, epilogue: Epilogue | None) -> Sequence[Call | Series]:
        def after_all() -> list[Call | Series]:
            source, calls = all_rows()
            return calls + depthwise(source, w, out, window, epilogue, machine)

        def banded(height: int) -> list[Call | Series]:
            return _in_bands(some, facts.shape, facts.dtype, w, window, height, out, epilogue, machine)

        return either(count, after_all, banded)

    return emit


@made_again
def _in_bands(
    compute: SomeRows,
    shape: tuple[int, ...],
    dtype: np.dtype,
    w: DepthwiseWeights,
    window: Window,
    height: int,
    out: Memory,
    epilogue: Epilogue | None,
    machine: Machine,
) -> list[Call | Series]:
    """The convolution in bands of `height` rows; `compute` gives the rows of its input, of this shape.

    All bands have their rows of input in one memory, row r of the image at r less the first that the band
    reaches: what the next one reaches, too, moves up by a band.
    """
    images, channels, _, width = out.shape
    extra = [] if epilogue is None else [v.broadcast_to(out.shape) for v in epilogue.operands]
    (a, b), (c, d) = window.strides, window.dilations

    step = height * a
    memory = arena_view((1, shape[1], reached(window, height), shape[3]), dtype, channels_last(2))

    def one_band(image: int, band: Band) -> list[Call]:
        target, *operands = [
            v.with_dims(
                (1, channels, band.count, width), v.strides, image * v.strides[0] + band.first * v.strides[2]
            )
            for v in (out, *extra)
        ]
        calls: list[Call] = []
        if band.kept:
            stay = memory.part(2, band.top + step, band.kept)
            calls.append(copy(stay, memory.part(2, band.top, band.kept), machine))
        if fresh := band.end - band.begin - band.kept:
            calls += compute(memory.part(2, band.top + band.kept, fresh), image, band.begin + band.kept)
        after = None if epilogue is None else Epilogue(epilogue.expression, operands)
        source = memory.part(2, band.top, band.end - band.begin)
        around = (band.top, window.before[1], band.bottom, window.after[1])
        return calls + depthwise_conv2d(source, w, target, (a, b), around, (c, d), after, machine)

    def all_bands(image: int) -> list[Call | Series]:
        calls: list[Call | Series] = []
        for run in runs_of(shape[2], window, height, compute.source):

            def turn(n: int, run: Sequence[Band] = run) -> list[Call]:
                return one_band(image, run[n])

            calls += series(turn, len(run))
        return calls

    return series(all_bands, images)


def depthwise(
    x: Memory, w: DepthwiseWeights, out: Memory, window: Window, epilogue: Epilogue | None, machine: Machine
) -> list[Call]:
    """The depthwise kernel (of narrow groups, too), with one spatial dimension as an image of one row."""
    strides, dilations = window.strides, window.dilations
    pads = (*window.before, *window.after)
    if x.rank == 3:
        operands = [] if epilogue is None else [v.broadcast_to(out.shape) for v in epilogue.operands]
        x, out, *operands = [
            v.with_dims((*v.shape[:2], 1, v.shape[2]), (*v.strides[:2], 0, v.strides[2]))
            for v in (x, out, *operands)
        ]
        epilogue = None if epilogue is None else Epilogue(epilogue.expression, operands)
        strides, dilations, pads = (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
    a, b = strides
    c, d = dilations
    top, left, bottom, right = pads
    return depthwise_conv2d(x, w, out, (a, b), (top, left, bottom, right), (c, d), epilogue, machine)
