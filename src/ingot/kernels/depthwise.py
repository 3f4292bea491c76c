"""Depthwise convolution: each output channel is the convolution of one input channel with its own filter.

Groups of a few channels, less than a vector, are computed by the same loops: a permutation of the loaded
vector gives every lane the value of its group's first channel, then of its second …
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.block import PLACES as BLOCK_PLACES
from ingot.kernels.block import SLOTS as BLOCK_SLOTS
from ingot.kernels.block import Block, block_arguments, choose, emit_blocks
from ingot.kernels.call import Call, Form, Layout, View, blank, constant, layout_of
from ingot.kernels.contract import AXES, Epilogue, Reach, name_of
from ingot.kernels.epilogue import finisher, is_short, operands_of, together
from ingot.kernels.expression import Expression
from ingot.kernels.made_again import remembered
from ingot.kernels.pack import DTYPES, aligned_floats, without_denormals
from ingot.kernels.window import (
    SLOTS,
    Reader,
    Window,
    emit_windows,
    pixels_in_turn,
    refuse_other_dtypes,
    window_arguments,
)

#: With more columns the weights of a group's filters would not fit the registers.
_MOST_COLUMNS = 7


@dataclass(frozen=True, slots=True)
class DepthwiseWeights:
    """Filters in the order in which the kernel reads them: [channels / lanes][group][kh][kw][lanes],
    zero-padded. group: input channels that make an output channel.
    """

    view: View
    channels: int
    kernel: tuple[int, int]
    group: int = 1


def suits_groups(weights: Sequence[int], groups: int, machine: Machine) -> bool:
    """Whether filters of shape [M, C / groups, kh, kw] are of groups that share a vector with others."""
    width = weights[1]
    return (
        weights[0] == groups * width
        and width in (2, 4, 8)
        and width < machine.lanes
        and machine.permutes
        and weights[-1] <= _MOST_COLUMNS
    )


def pack_depthwise(weights: np.ndarray, machine: Machine) -> DepthwiseWeights:
    """Pack filters [C, group, kh, kw] (or [C, group, k] for one dimension) for `machine`, without denormal
    numbers.
    """
    if weights.ndim == 3:
        weights = weights[:, :, None, :]
    channels, group, rows, columns = weights.shape
    lanes = machine.lanes
    blocks = -(-channels // lanes)
    padded = np.zeros((blocks * lanes, group, rows, columns), np.float32)
    padded[:channels] = without_denormals(weights.astype(np.float32, copy=False))
    packed = aligned_floats(padded.size).reshape(blocks, group, rows, columns, lanes)
    packed[...] = padded.reshape(blocks, lanes, group, rows, columns).transpose(0, 2, 3, 4, 1)
    return DepthwiseWeights(constant(packed), channels, (rows, columns), group)


def definition(
    x: np.ndarray,
    weights: np.ndarray,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> np.ndarray:
    """The plain meaning: x [N, C, H, W], weights [C * m, 1, kh, kw] (or [C, group, kh, kw]), pads (top, left,
    bottom, right), in float64.
    """
    group = weights.shape[1]
    multiplier = weights.shape[0] // max(x.shape[1], 1)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    padded = padded.repeat(multiplier, axis=1)
    if group > 1:  # one channel of each group at a time, as depthwise filters
        total = 0.0
        for c in range(group):
            taken = x[:, np.arange(weights.shape[0]) // group * group + c]
            total = total + definition(taken, weights[:, c : c + 1], strides, pads, dilations)
        return np.asarray(total)
    (kh, kw), (sh, sw), (dh, dw) = weights.shape[2:], strides, dilations
    height = (padded.shape[2] - (kh - 1) * dh - 1) // sh + 1
    width = (padded.shape[3] - (kw - 1) * dw - 1) // sw + 1
    y = np.zeros((*padded.shape[:2], height, width))
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
            columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
            y += padded[:, :, rows, columns] * weights[:, 0, i, j].astype(np.float64)[:, None, None]
    return y


@kernel(*SLOTS, "weights")
def depthwise(
    k: Builder,
    *,
    window: Window,
    held: int,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    operands: tuple[str, ...],
) -> None:
    """out[n, c, y, x] = epilogue(Σ x[n, c // multiplier, y·s + i·d − top, x·s + j·d − left] · w[c, i, j],
    operands).

    `held` columns of the filter wait in registers at a time: with the sums of all pixels they must fit.
    """
    del operands  # they are in the slots already
    lanes = k.machine.lanes
    type_ = vector(F32, lanes)
    weights, rows = k.pointer("weights"), k.arg("rows")
    tap = lanes * window.columns

    def accumulate(sums: list[Value], line: Int, channel: Int, reader: Reader) -> None:
        # Blocks of weights lie rows * columns * lanes apart, and channel is the block's number times lanes.
        block = k.at(weights, k.mul(k.mul(channel, rows), window.columns), F32)
        filter_row = k.at(block, k.mul(line, tap), F32)

        def taps(first: Int, count: int) -> None:
            load, here = reader(first), k.at(filter_row, k.mul(first, lanes), F32)
            loaded = [k.load(here, type_, j * lanes) for j in range(count)]
            for column, users in window.users(count):
                value = load(column)
                for pixel, j in users:
                    sums[pixel] = k.fma(value, loaded[j], sums[pixel])

        with k.loop(0, window.columns // held * held, held, carry=sums) as first:
            taps(first, held)
        if window.columns % held:
            taps(window.columns // held * held, window.columns % held)

    prepare, finish = finisher(k, epilogue, reaches)
    emit_windows(
        k, window, 0.0, lambda: k.zero(type_), accumulate, prepare, finish,
        unroll_finish=is_short(epilogue), together=together(epilogue, k.machine),
    )  # fmt: skip


@kernel(*BLOCK_SLOTS, "weights", "patterns")
def depthwise_block(
    k: Builder,
    *,
    block: Block,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    operands: tuple[str, ...],
) -> None:
    """The same for small windows: see kernels/block.py."""
    del operands  # they are in the slots already

    def join(so_far: Value, value: Value, weight: Value) -> Value:
        return k.fma(value, weight, so_far)

    prepare, finish = finisher(k, epilogue, reaches)
    patterns = None if block.group == 1 else k.pointer("patterns")
    emit_blocks(
        k, block, 0.0, k.pointer("weights"), join, prepare, finish,
        unroll_finish=is_short(epilogue), together=together(epilogue, k.machine), patterns=patterns,
    )  # fmt: skip


@functools.cache
def _patterns(group: int, lanes: int) -> View:
    """For each channel of a group: in which lane every lane finds its own group's."""
    return constant((np.arange(lanes) // group * group + np.arange(group)[:, None]).astype(np.int32))


@functools.cache
def _places(operands: int) -> tuple[int, ...]:
    """Where the addresses of x, out, the weights, the patterns and an epilogue's operands go."""
    first = len(BLOCK_SLOTS)
    each = 1 + len(AXES)
    return (*BLOCK_PLACES, first, first + 1, *range(first + 2, first + 2 + each * operands, each))


def depthwise_conv2d(
    x: View,
    weights: DepthwiseWeights,
    out: View,
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    epilogue: Epilogue | None,
    machine: Machine,
) -> list[Call]:
    """x [N, C, H, W] and out [N, C * multiplier, Ho, Wo] (with groups: [N, C, Ho, Wo]) of float32, float16
    or bfloat16, any strides; fast where channels lie side by side.

    pads: top, left, bottom, right; what lies beyond the bottom and the right follows from out's shape.
    Raises UnsupportedOperatorError for another dtype of x, or of out where no epilogue converts to it.
    """
    expression, extra = (epilogue.expression, epilogue.operands) if epilogue else (None, ())
    refuse_other_dtypes("depthwise convolution", x, *([] if expression else [out]), of=DTYPES)
    form = _form(
        layout_of(x), layout_of(out),
        tuple([(v.dtype, v.broadcast_to(out.shape).strides) for v in extra]), expression,
        weights.channels, weights.kernel, weights.group, strides, pads[:2], dilations, machine,
    )  # fmt: skip
    reads = [x, weights.view, *form.constants, *extra]
    return [form.call([x, out, *reads[1:]], reads, [out])]


@remembered(1024)  # layers that are alike, and shapes that come again
def _form(
    x_layout: Layout,
    out_layout: Layout,
    extra: tuple[tuple[np.dtype, tuple[int, ...]], ...],
    epilogue: Expression | None,
    out_channels: int,
    kernel_size: tuple[int, int],
    group: int,
    strides: tuple[int, int],
    pads: tuple[int, int],
    dilations: tuple[int, int],
    machine: Machine,
) -> Form:
    """All of a call but its memory: that of x, out, the weights, `constants`, and the epilogue's operands, of
    which `extra` are dtypes and strides.
    """
    (x_dtype, x_shape, x_strides), (out_dtype, out_shape, out_strides) = x_layout, out_layout
    (rows, columns), (top, left) = kernel_size, pads
    multiplier = out_channels // max(x_shape[1], 1)
    gather, scatter = x_strides[1] != 1 or multiplier != 1, out_strides[1] != 1
    masked = out_channels % machine.lanes != 0
    reaches, operands, slots = operands_of(extra, out_shape[1])
    # One register for the input vector, and without FMA another for the product, or for the permutation.
    registers = machine.registers - (1 if machine.fma and group == 1 else 2)
    cost = 1.5 if group == 1 else 2.0
    turn = choose(kernel_size, strides, dilations, out_shape[2:], registers, weights=True, load_cost=cost)
    flops, label = 2 * math.prod(out_shape) * group * rows * columns, "depthwise" if group == 1 else "grouped"
    if turn is not None:
        block = Block(
            kernel_size, strides, dilations, *turn, gather, scatter, name_of(out_dtype), masked, group,
            name_of(x_dtype),
        )  # fmt: skip
        arguments, tiles, scratch = block_arguments(
            x_layout, out_layout, block, top, left, max(multiplier, 1), machine
        )
        return Form(
            depthwise_block(block=block, epilogue=epilogue, reaches=reaches, operands=operands),
            [*arguments, 0, 0, *slots],
            _places(len(extra)),
            tiles,
            scratch,
            flops,
            label,
            constants=(_patterns(group, machine.lanes),),
        )
    x, out = blank(x_layout), blank(out_layout)
    pixels = pixels_in_turn(out.shape[3])
    window = Window(
        columns,
        strides[1],
        dilations[1],
        pixels,
        gather,
        scatter,
        name_of(out.dtype),
        masked,
        name_of(x.dtype),
    )
    of_window, tiles = window_arguments(
        x, out, rows, strides[0], dilations[0], top, left, max(multiplier, 1), machine
    )
    # Sums, the held columns of the filter and one input must fit the registers; chunks are made nearly equal.
    most = max(machine.registers - pixels - 2, 1)
    held = -(-columns // -(-columns // most))
    args: list[int | View | Kernel] = [*of_window, x]  # x: the weights go there
    places = [place for place, arg in enumerate(args) if isinstance(arg, View)]
    places += range(len(args), len(args) + len(slots), 1 + len(AXES))
    return Form(
        depthwise(window=window, held=held, epilogue=epilogue, reaches=reaches, operands=operands),
        [*args, *slots],
        tuple(places),
        tiles,
        (pixels + 1) * machine.vector_bytes,
        flops,
        label,
    )
