"""Convolutions of narrow groups (depthwise ones among them) on the plan: whole, or in bands of rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, Series, series
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue
from ingot.kernels.depthwise import DepthwiseWeights, depthwise_conv2d, suits_groups
from ingot.ops.bands import lines, rows_in_band
from ingot.ops.lowering import Lowering
from ingot.ops.window import Window, channels_last


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
    count = rows_in_band(facts.shape, window, machine)
    made = None if count is None else plan.by_rows(x)
    if count is None or made is None:
        source = plan.view(x)

        def whole(out: Memory, epilogue: Epilogue | None) -> list[Call]:
            return depthwise(source, w, out, window, epilogue, machine)

        return whole
    compute, height = made, count
    (a, b), (c, d) = window.strides, window.dilations

    def banded(out: Memory, epilogue: Epilogue | None) -> list[Call | Series]:
        images, _, rows, width = out.shape
        extra = [] if epilogue is None else [v.broadcast_to(out.shape) for v in epilogue.operands]

        def one_band(image: int, first: int) -> list[Call]:
            shape = (1, out.shape[1], min(height, rows - first), width)
            target, *operands = [
                v.with_dims(shape, v.strides, image * v.strides[0] + first * v.strides[2])
                for v in (out, *extra)
            ]
            begin, end, (top, left, bottom, right) = lines(facts.shape[2], window, first, shape[2])
            source = plan.temporary(
                (1, facts.shape[1], end - begin, facts.shape[3]), facts.dtype, channels_last(2)
            )
            calls = compute(source, image, begin)
            after = None if epilogue is None else Epilogue(epilogue.expression, operands)
            around = (top, left, bottom, right)
            return calls + depthwise_conv2d(source, w, target, (a, b), around, (c, d), after, machine)

        # Bands without padding above and below lie alike.
        def all_bands(image: int) -> list[Call | Series]:
            calls: list[Call | Series] = []
            for _, run in itertools.groupby(range(0, rows, height), lambda first: padding(first)):
                calls += series([partial(one_band, image, first) for first in run])
            return calls

        def padding(first: int) -> tuple[int, int, int]:
            count = min(height, rows - first)
            _, _, (top, _, bottom, _) = lines(facts.shape[2], window, first, count)
            return count, top, bottom

        return series([partial(all_bands, image) for image in range(images)])

    return banded


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
