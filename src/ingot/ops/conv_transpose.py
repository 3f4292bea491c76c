"""Transposed convolutions, as ordinary ones for each phase of the strides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import Call, Weights
from ingot.kernels.call import View as Memory
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.contraction import DTYPES
from ingot.kernels.conv import conv2d, pack_conv_weights, supports
from ingot.kernels.elementwise import fill
from ingot.ops.conv import bias_fits, weights_key, with_bias
from ingot.ops.convolve import Filters, convolve, filters_of, padded
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_ints,
    attr_str,
    first_input,
    given,
    need,
    one_dtype,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.window import Window, channels_last

#: Convolutions that one of ConvTranspose becomes; with longer strides the host is no slower.
_MOST_PHASES = 1 << 12


@register("ConvTranspose", since=22)
class ConvTranspose(Op):
    """The gradient of Conv with respect to its input: x [N, C, …] with w [C, M / group, …]: [N, M, …]."""

    def window(self, node: ir.Node, x: tuple[int, ...], w: tuple[int, ...]) -> Window:
        """The Conv window that maps the output back onto x: `output` is this operator's output size.

        Raises `ShapeError` when input, weight and group do not belong together.
        """
        group, rank = attr_int(node, "group", 1), len(x) - 2
        if rank < 1 or len(x) != len(w):
            raise shape_error(
                node, f"the input {show(x)} and the weight {show(w)} must have one rank, at least 3"
            )
        if x[1] != w[0] or x[1] % group:
            raise shape_error(
                node,
                f"weight has {w[0]} input channels, the input has {x[1]}, in {group} groups",
                f"Give an input whose second dimension is {w[0]}.",
            )
        strides = attr_ints(node, "strides") or (1,) * rank
        dilations = attr_ints(node, "dilations") or (1,) * rank
        extra = attr_ints(node, "output_padding") or (0,) * rank
        if min((*w[2:], *strides, *dilations)) < 1:
            found = f"kernel {show(w[2:])}, strides {show(strides)} and dilations {show(dilations)}"
            raise shape_error(node, f"{found} must be positive")
        largest = [max(s, d) for s, d in zip(strides, dilations, strict=True)]
        if any(not 0 <= e < most for e, most in zip(extra, largest, strict=True)):
            raise shape_error(
                node,
                f"output_padding {show(extra)} must be less than strides {show(strides)} or dilations "
                f"{show(dilations)}, and not below 0",
                "Give the size with output_shape.",
            )
        pads = attr_ints(node, "pads") or (0,) * (2 * rank)
        wanted, auto = attr_ints(node, "output_shape"), attr_str(node, "auto_pad", "NOTSET")
        full = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(x[2:], strides, w[2:], dilations, extra, strict=True)
        ]
        if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
            wanted = tuple(n * s for n, s in zip(x[2:], strides, strict=True))
        if wanted is not None:
            wanted = wanted[-rank:]
            total = [max(f - o, 0) for f, o in zip(full, wanted, strict=True)]
            half = [t // 2 for t in total]
            rest = [t - h for t, h in zip(total, half, strict=True)]
            before, after = (half, rest) if auto == "SAME_UPPER" else (rest, half)
            output = list(wanted)
        else:
            before, after = ([0] * rank, [0] * rank) if auto == "VALID" else (pads[:rank], pads[rank:])
            output = [f - b - a for f, b, a in zip(full, before, after, strict=True)]
        if any(n < 1 for n in output):
            raise shape_error(node, f"pads {show((*before, *after))} leave nothing of {show(full)}")
        return Window(w[2:], strides, dilations, tuple(before), tuple(after), tuple(output))

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """See `window`."""
        x, w = need(node, inputs, 0), need(node, inputs, 1)
        window = self.window(node, x.shape, w.shape)
        channels = w.shape[1] * attr_int(node, "group", 1)
        one_dtype(node, inputs)
        bias_fits(node, given(inputs, 2), channels)
        return [Facts(x.dtype, (x.shape[0], channels, *window.output))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Every kernel position adds its product to the strided part of the output that it reaches."""
        x, w, bias = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        window = self.window(node, x.shape, w.shape)
        group, rank = attr_int(node, "group", 1), x.ndim - 2
        sizes = x.shape[2:]
        # Wide enough for every position; the padding is cut off at the end.
        full = [
            max((n - 1) * s + (k - 1) * d + 1, b + o)
            for n, s, k, d, b, o in zip(
                sizes,
                window.strides,
                window.kernel,
                window.dilations,
                window.before,
                window.output,
                strict=True,
            )
        ]
        y = np.zeros((x.shape[0], w.shape[1] * group, *full), np.float64)
        width = w.shape[1]
        for g, (part, kernels) in enumerate(
            zip(np.split(widen(x), group, 1), np.split(widen(w), group, 0), strict=True)
        ):
            for position in np.ndindex(*window.kernel):
                product = np.tensordot(part, kernels[(slice(None), slice(None), *position)], ([1], [0]))
                where = [
                    slice(p * d, p * d + (n - 1) * s + 1, s)
                    for p, d, n, s in zip(position, window.dilations, sizes, window.strides, strict=True)
                ]
                channels = slice(g * width, (g + 1) * width)
                y[(slice(None), channels, *where)] += np.moveaxis(product, -1, 1)
        kept = [slice(b, b + o) for b, o in zip(window.before, window.output, strict=True)]
        y = y[(slice(None), slice(None), *kept)]
        if bias is not None:
            y = y + widen(bias).reshape(-1, *[1] * rank)
        return [rounded(y, x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Output pixels whose positions agree modulo the stride are an ordinary convolution, each such phase
        its own.
        """
        x, w = first_input(node), node.inputs[1]
        assert w is not None
        facts, weights = plan.facts(x), plan.weights(w)
        rank, group = len(facts.shape) - 2, attr_int(node, "group", 1)
        if name_of(facts.dtype) not in DTYPES:
            return False
        window = self.window(node, facts.shape, plan.facts(w).shape)
        firsts = [
            range(min(stride, size)) for stride, size in zip(window.strides, window.output, strict=True)
        ]
        if math.prod(map(len, firsts)) > _MOST_PHASES:
            return False
        source, machine = plan.view(x), plan.machine
        axes = [
            [_phase(window, d, size, first) for first in firsts[d]] for d, size in enumerate(facts.shape[2:])
        ]
        phases = list(itertools.product(*axes))
        unreached = any(not phase.taps for axis in axes for phase in axis)
        if weights is None or not supports(name_of(facts.dtype), rank) or unreached:
            out = plan.output(with_bias(plan, node, rank), channels_last(rank))
            _in_phases(plan, source, w, out, group, phases, window.strides)
            return True
        packed = [
            plan.pack(
                weights_key("phase", w, group, *(phase.taps for phase in parts)),
                partial(pack_conv_weights, _filters(weights, group, parts), machine, group),
            )
            for parts in phases
        ]

        def emit(out: Memory, epilogue: Epilogue | None) -> list[Call]:
            operands = [] if epilogue is None else [v.broadcast_to(out.shape) for v in epilogue.operands]
            calls: list[Call] = []
            for parts, own in zip(phases, packed, strict=True):
                target, *rest = [_every(v, parts, window.strides) for v in (out, *operands)]
                image = source
                for axis, phase in enumerate(parts, 2):
                    image = _crop(image, axis, phase.before, phase.after)
                pads = tuple(max(0, p) for p in (*(p.before for p in parts), *(p.after for p in parts)))
                dilations = tuple(phase.dilation for phase in parts)
                after = None if epilogue is None else Epilogue(epilogue.expression, rest)
                calls += conv2d(image, own, target, (1,) * rank, pads, dilations, after, machine)
            return calls

        plan.anchor(with_bias(plan, node, rank), emit, channels_last(rank))
        return True


@dataclass(frozen=True, slots=True)
class _Phase:
    """Along one axis: every stride-th output from `first` on, as a convolution with these taps (in its
    order), dilation and padding; negative padding removes.
    """

    first: int
    count: int
    taps: tuple[int, ...]
    dilation: int
    before: int
    after: int


def _phase(window: Window, axis: int, size: int, first: int) -> _Phase:
    """Output o gets input i by tap k where o + pad = i · stride + k · dilation.

    So all taps of `first` and every stride-th output after it leave the same remainder of k · dilation by the
    stride.
    """
    stride, dilation, pad = window.strides[axis], window.dilations[axis], window.before[axis]
    reached = [k for k in range(window.kernel[axis]) if (first + pad - k * dilation) % stride == 0]
    count = -(-(window.output[axis] - first) // stride)
    steps = [
        (first + pad - k * dilation) // stride for k in reached
    ]  # the input that each tap reads for `first`
    apart = steps[0] - steps[1] if len(steps) > 1 else 1
    lowest = steps[-1] if steps else 0
    after = (lowest + count - 1 + apart * (len(steps) - 1)) - (size - 1)
    return _Phase(first, count, tuple(reversed(reached)), apart, -lowest, after)


def _in_phases(
    plan: Lowering,
    x: Memory,
    w: ir.Value,
    out: Memory,
    group: int,
    phases: Sequence[tuple[_Phase, ...]],
    strides: Sequence[int],
) -> None:
    """A transposed convolution as sums over any dimensions, on an image that is padded once for all phases;
    pixels that no tap reaches are 0.
    """
    weights = plan.weights(w)
    rank = x.rank - 2
    if x.size == 0 or 0 in plan.facts(w).shape:
        phases = [tuple([replace(phase, taps=()) for phase in parts]) for parts in phases]
    reached = [parts for parts in phases if all(phase.taps for phase in parts)]
    before = [max([parts[d].before for parts in reached], default=0) for d in range(rank)]
    after = [max([parts[d].after for parts in reached], default=0) for d in range(rank)]
    image = padded(plan, x, before, after)
    for parts in phases:
        target = _every(out, parts, strides)
        if not all(phase.taps for phase in parts):
            plan.emit(fill(0, target, plan.machine))
            continue
        if weights is not None:
            key = weights_key("taps", w, group, *(phase.taps for phase in parts))
            filters = filters_of(_filters(weights, group, parts), group, key)
        else:
            filters = _turned_filters(plan.view(w), group, parts)
        first = [b - phase.before for b, phase in zip(before, parts, strict=True)]
        dilations = [phase.dilation for phase in parts]
        convolve(plan, image, filters, target, group, (1,) * rank, dilations, first)


def _turned_filters(w: Memory, group: int, parts: Sequence[_Phase]) -> Filters:
    """The taps of a phase of weights [C, M / group, …] that are not constant."""
    taps = [phase.taps for phase in parts]
    start = sum(own[0] * s for own, s in zip(taps, w.strides[2:], strict=True))
    steps = [(own[1] - own[0]) * s if len(own) > 1 else 0 for own, s in zip(taps, w.strides[2:], strict=True)]
    view = w.with_dims(w.shape, w.strides, start)
    inner = w.shape[0] // group * w.strides[0]
    return Filters(view, None, tuple(map(len, taps)), inner, w.strides[1], w.strides[0], tuple(steps))


def _filters(weights: Weights, group: int, parts: Sequence[_Phase]) -> Weights:
    """The taps of a phase as filters of an ordinary convolution."""
    inputs, outputs = weights.shape[:2]
    taps = [phase.taps for phase in parts]

    def read() -> Array:
        grouped = weights.read().reshape(group, -1, *weights.shape[1:]).swapaxes(1, 2)
        filters = grouped.reshape(outputs * group, -1, *weights.shape[2:])
        return filters[(slice(None), slice(None), *np.ix_(*taps))]

    return Weights((outputs * group, inputs // group, *map(len, taps)), weights.dtype, read)


def _every(view: Memory, parts: Sequence[_Phase], strides: Sequence[int]) -> Memory:
    """The pixels of these phases."""
    shape, steps, offset = list(view.shape), list(view.strides), 0
    for axis, (phase, stride) in enumerate(zip(parts, strides, strict=True), 2):
        offset += phase.first * steps[axis]
        shape[axis], steps[axis] = phase.count, steps[axis] * stride
    return view.with_dims(shape, steps, offset)


def _crop(view: Memory, axis: int, before: int, after: int) -> Memory:
    """Without what negative padding removes."""
    start, end = max(0, -before), max(0, -after)
    shape = (*view.shape[:axis], view.shape[axis] - start - end, *view.shape[axis + 1 :])
    return view.with_dims(shape, view.strides, start * view.strides[axis])
