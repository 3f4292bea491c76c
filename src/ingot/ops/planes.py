"""Convolutions of three spatial dimensions as sums of two-dimensional ones, a plane of the filters at a time.

    out[:, :, z] = epilogue(Σ_t x[:, :, z · stride - before + t · dilation] ∗ w[:, :, t])

The planes that a filter reaches beyond the image are left out, so nothing is padded along the first
dimension. A few planes of the output at a time stay in the cache while the planes of the filters go by.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from ingot.kernels.call import Call, Series, Weights, series
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue
from ingot.kernels.expression import Expression, Step, expression_of
from ingot.ops.lowering import Lowering
from ingot.ops.window import Window, channels_last

#: Emits one plane of the filters on images [N, C, H, W]: which plane, the images, out, the epilogue.
Plane = Callable[[int, Memory, Memory, Epilogue | None], Sequence[Call]]

_ADD = Step("Add", (0, 1), "float32")
_SUM = expression_of(("float32", "float32"), (_ADD,), (2,))


def flat(window: Window) -> Window:
    """The window of one plane: without its first dimension."""
    return Window(*(part[1:] for part in (
        window.kernel, window.strides, window.dilations, window.before, window.after, window.output
    )))  # fmt: skip


def plane_of(weights: Weights, tap: int) -> Weights:
    """Filters [O, C, kh, kw] of one plane of [O, C, kd, kh, kw]."""
    return Weights(
        (*weights.shape[:2], *weights.shape[3:]),
        weights.dtype,
        lambda: np.ascontiguousarray(weights.read()[:, :, tap]),
    )


def reached(window: Window, depth: int) -> list[tuple[int, ...]]:
    """For each plane of the output, which planes of the filters reach one of the image's `depth`."""
    stride, dilation, before = window.strides[0], window.dilations[0], window.before[0]
    return [
        tuple([t for t in range(window.kernel[0]) if 0 <= z * stride - before + t * dilation < depth])
        for z in range(window.output[0])
    ]


def conv_by_planes(
    plan: Lowering, x: Memory, window: Window, one: Plane
) -> Callable[[Memory, Epilogue | None], Sequence[Call | Series]]:
    """How to emit a convolution of x [N, C, D, H, W] whose filters reach x from every plane of the output.

    Sums wait in the output where that is float32, else in memory of their own.
    """
    planes = reached(window, x.shape[2])
    stride, dilation, before = window.strides[0], window.dilations[0], window.before[0]

    def emit(out: Memory, epilogue: Epilogue | None) -> Sequence[Call | Series]:
        sums = out
        if out.dtype != np.float32 and any(len(taps) > 1 for taps in planes):
            sums = plan.temporary(out.shape, np.float32, channels_last(3))
        operands = [] if epilogue is None else [v.broadcast_to(out.shape) for v in epilogue.operands]
        plane_bytes = 4 * out.shape[1] * math.prod(out.shape[3:])
        at_once = max(1, plan.machine.l2_bytes // 2 // max(plane_bytes, 1))

        def some(image: int, first: int, count: int, taps: tuple[int, ...]) -> list[Call]:
            """`count` planes of the output, from plane `first` of an image on."""
            kept, target, *rest = (_planes(v, image, first, count) for v in (sums, out, *operands))
            calls: list[Call] = []
            for tap in taps:
                images = _planes(x, image, first * stride - before + tap * dilation, count, stride)
                is_last, is_first = tap == taps[-1], tap == taps[0]
                if not is_last:
                    calls += one(tap, images, kept, None if is_first else Epilogue(_SUM, [kept]))
                elif is_first:
                    after = None if epilogue is None else Epilogue(epilogue.expression, rest)
                    calls += one(tap, images, target, after)
                else:
                    expression = _SUM if epilogue is None else _of_sum(epilogue.expression)
                    calls += one(tap, images, target, Epilogue(expression, [*rest, kept]))
            return calls

        calls: list[Call | Series] = []
        for image in range(out.shape[0]):
            first = 0
            for taps, run in itertools.groupby(planes):
                end = first + len(list(run))
                step = at_once if len(taps) > 1 else end - first
                if whole := (end - first) // step:

                    def turn(
                        n: int,
                        image: int = image,
                        first: int = first,
                        step: int = step,
                        taps: tuple[int, ...] = taps,
                    ) -> list[Call]:
                        return some(image, first + n * step, step, taps)

                    calls += series(turn, whole)
                if rest := (end - first) % step:
                    calls += some(image, end - rest, rest, taps)
                first = end
        return calls

    return emit


def _planes(v: Memory, image: int, first: int, count: int, step: int = 1) -> Memory:
    """`count` planes of one image of v [N, C, D, H, W], `step` apart, as images."""
    n, c, d, h, w = v.strides
    return v.with_dims((count, v.shape[1], *v.shape[3:]), (d * step, c, h, w), image * n + first * d)


def _of_sum(expression: Expression) -> Expression:
    """The expression of a sum in float32 and one more, which comes last, instead of its first leaf."""
    leaves, dtype = len(expression.leaves), expression.leaves[0]
    added = [Step("Add", (0, leaves), "float32")]
    if dtype != "float32":
        added.append(Step("Cast", (leaves + 1,), dtype))

    def moved(value: int) -> int:
        if value == 0:
            return leaves + len(added)
        return value if value < leaves else value + 1 + len(added)

    steps = [
        Step(step.op, tuple(map(moved, step.operands)), step.dtype, step.attrs) for step in expression.steps
    ]
    whole = ("float32", *expression.leaves[1:], "float32")
    return expression_of(whole, (*added, *steps), tuple(map(moved, expression.results)))
