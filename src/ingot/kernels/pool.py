"""Pooling: the largest, the mean or a norm of each window of an image of one, two or three dimensions.

A window is a product of intervals, so its maximum (or mean) can be taken along one axis after the other. That
is what happens for windows that overlap much, and for volumes; elsewhere one pass takes rows and columns
together.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ingot.codegen.builder import F32, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.block import PLACES as BLOCK_PLACES
from ingot.kernels.block import SLOTS as BLOCK_SLOTS
from ingot.kernels.block import Block, block_arguments, choose, emit_blocks
from ingot.kernels.call import Buffer, Call, Form, Layout, View, blank, constant, layout_of, strides_in_order
from ingot.kernels.contract import name_of
from ingot.kernels.made_again import remembered
from ingot.kernels.pack import DTYPES
from ingot.kernels.pool_lines import SLOTS as LINE_SLOTS
from ingot.kernels.pool_lines import emit_lines, fits, line_arguments, written_out
from ingot.kernels.window import (
    SLOTS,
    Finish,
    Place,
    Reader,
    Window,
    as_images,
    emit_windows,
    pixels_in_turn,
    refuse_other_dtypes,
    window_arguments,
)

Op = Literal["max", "average", "l1", "l2"]

_UNROLL_BLOCK = 49  # places of a window whose code is written out for a block of outputs
_UNROLL = 16  # columns of a window that are written out; more of them are a loop
_ONE = constant(np.ones(1, np.float32))


def definition(
    op: Op,
    x: np.ndarray,
    out_shape: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    count_include_pad: bool = False,
) -> np.ndarray:
    """The plain meaning in float64: x [N, C, …], out_shape [N, C, …], pads: all beginnings, then all ends."""
    rank = len(kernel)
    y = np.empty(out_shape)
    for position in itertools.product(*(range(n) for n in out_shape[2:])):
        picks: list[list[int]] = []
        counted = 1
        for d in range(rank):
            begin = position[d] * strides[d] - pads[d]
            taps = [begin + i * dilations[d] for i in range(kernel[d])]
            picks.append([t for t in taps if 0 <= t < x.shape[2 + d]])
            counted *= sum(-pads[d] <= t < x.shape[2 + d] + pads[rank + d] for t in taps)
        window = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *picks)].astype(np.float64)
        axes = tuple(range(2, 2 + rank))
        if op == "max":
            value = window.max(axes, initial=-np.inf)
        elif op == "average":
            value = window.sum(axes) / (counted if count_include_pad else math.prod(map(len, picks)))
        elif op == "l1":
            value = np.abs(window).sum(axes)
        else:
            value = np.sqrt((window * window).sum(axes))
        y[(slice(None), slice(None), *position)] = value
    return y


def _maximum(k: Builder, a: Value, b: Value) -> Value:
    """The larger one, NaN if either is NaN. `a > b ? a : b` is one instruction; it gives b if either is."""
    larger = k.ir.select(k.ir.fcmp_ordered(">", a, b), a, b)
    return k.ir.select(k.ir.fcmp_unordered("uno", a, a), a, larger)


_SCALES = ("row_scales", "row_scale_step", "column_scales", "column_scale_step")


def _joiner(k: Builder, op: Op) -> Callable[[Value, Value], Value]:
    """One more element of a window."""

    def join(so_far: Value, value: Value) -> Value:
        if op == "max":
            return _maximum(k, so_far, value)
        if op == "l2":
            return k.fma(value, value, so_far)
        return k.ir.fadd(so_far, k.intrinsic("fabs", value) if op == "l1" else value)

    return join


def _finisher(k: Builder, op: Op) -> Finish:
    """What a window's maximum or sum becomes."""
    row_scales, column_scales = k.pointer("row_scales"), k.pointer("column_scales")
    row_step, column_step = k.arg("row_scale_step"), k.arg("column_scale_step")

    def one(value: Value, place: Place) -> Value:
        if op == "average":
            of_row = k.load(row_scales, F32, k.mul(place.row, row_step))
            of_column = k.load(column_scales, F32, k.mul(place.column, column_step))
            return k.ir.fmul(value, k.broadcast(k.ir.fmul(of_row, of_column), k.machine.lanes))
        return k.intrinsic("sqrt", value) if op == "l2" else value

    return lambda values, places, _: [one(v, place) for v, place in zip(values, places, strict=True)]


def _neutral(op: Op) -> float:
    return -math.inf if op == "max" else 0.0


def _nothing(_place: Place) -> None:
    return None


@kernel(*SLOTS, *_SCALES)
def pool(k: Builder, *, window: Window, op: Op) -> None:
    """out[n, c, y, x] = op over i, j of x[n, c, y·s + i·d − top, x·s + j·d − left], the places inside of the
    image.

    A mean is the sum times row_scales[y] · column_scales[x]; a step of 0 means one scale for all of them.
    """
    type_, neutral = vector(F32, k.machine.lanes), _neutral(op)
    join = _joiner(k, op)

    def accumulate(results: list[Value], _line: Int, _channel: Int, reader: Reader) -> None:
        def taps(first: Int, count: int) -> None:
            load = reader(first)
            for column, users in window.users(count):
                value = load(column)
                for pixel, _ in users:
                    results[pixel] = join(results[pixel], value)

        whole = window.columns // _UNROLL * _UNROLL
        with k.loop(0, whole, _UNROLL, carry=results) as first:
            taps(first, _UNROLL)
        if window.columns > whole:
            taps(whole, window.columns - whole)

    finish = _finisher(k, op)
    emit_windows(
        k, window, neutral, lambda: k.splat(neutral, type_), accumulate, _nothing, finish, unroll_finish=True
    )


@kernel(*BLOCK_SLOTS, *_SCALES)
def pool_block(k: Builder, *, block: Block, op: Op) -> None:
    """The same for small windows: see kernels/block.py."""
    join, finish = _joiner(k, op), _finisher(k, op)
    emit_blocks(
        k, block, _neutral(op), None, lambda so_far, value, _: join(so_far, value), _nothing, finish,
        unroll_finish=True,
    )  # fmt: skip


@kernel(*LINE_SLOTS, *_SCALES)
def pool_lines(k: Builder, *, rows: int, columns: int, stride: int, source: str, out: str, op: Op) -> None:
    """The same for images whose columns lie side by side: see kernels/pool_lines.py."""
    row_scales, column_scales = k.pointer("row_scales"), k.pointer("column_scales")
    row_step, column_step = k.arg("row_scale_step"), k.arg("column_scale_step")
    lanes = k.machine.lanes

    def finish(value: Value, column: Int, row: Int, mask: Value | None) -> Value:
        if op == "average":
            of_row = k.broadcast(k.load(row_scales, F32, k.mul(row, row_step)), lanes)
            one = lambda: [k.broadcast(k.load(column_scales, F32), lanes)]  # noqa: E731
            own = lambda: [k.load(column_scales, vector(F32, lanes), column, mask)]  # noqa: E731
            (of_column,) = k.either(k.compare("==", column_step, 0), one, own)
            return k.ir.fmul(value, k.ir.fmul(of_row, of_column))
        return k.intrinsic("sqrt", value) if op == "l2" else value

    join_columns = _joiner(k, "max" if op == "max" else "average")
    emit_lines(
        k, rows, columns, stride, source, out, _neutral(op), _joiner(k, op), join_columns, finish
    )  # fmt: skip


def max_pool(
    x: View,
    out: View,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    machine: Machine,
) -> list[Call]:
    """The largest element of each window, NaN where it has one; x [N, C, spatial…], out [N, C, spatial…],
    of float32, float16 or bfloat16 each.

    pads: the beginnings of all axes, then their ends (which out's shape implies; they are not read).
    Raises UnsupportedOperatorError for other dtypes and for more than three spatial axes.
    """
    return _pool("max", x, out, kernel, strides, pads, dilations, False, machine)


def average_pool(
    x: View,
    out: View,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    count_include_pad: bool,
    machine: Machine,
) -> list[Call]:
    """The mean of each window; places in the padding count where `count_include_pad`, those beyond it
    (ceil_mode) never.
    """
    return _pool("average", x, out, kernel, strides, pads, dilations, count_include_pad, machine)


def lp_pool(
    x: View,
    out: View,
    p: int,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    machine: Machine,
) -> list[Call]:
    """The norm (Σ |x|^p)^(1/p) of each window, for p of 1 or 2; other p raise UnsupportedOperatorError."""
    if p not in (1, 2):
        raise UnsupportedOperatorError(
            f"LpPool: found p = {p}, the native kernel computes p = 1 and 2; leave it to the host"
        )
    return _pool("l1" if p == 1 else "l2", x, out, kernel, strides, pads, dilations, False, machine)


@dataclass(frozen=True, slots=True)
class _Axis:
    """How a window lies along one axis. `scales`: for a mean, 1 / count for each place of the output."""

    window: int = 1
    stride: int = 1
    begin: int = 0
    dilation: int = 1
    scales: View = _ONE


def _pool(
    op: Op,
    x: View,
    out: View,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    count_include_pad: bool,
    machine: Machine,
) -> list[Call]:
    refuse_other_dtypes(f"{op} pooling", x, out, of=DTYPES)
    rank = len(kernel)
    if rank not in (1, 2, 3):
        raise UnsupportedOperatorError(
            f"{op} pooling: found {rank} spatial axes, the native kernel has 1 to 3; leave it to the host"
        )
    if out.size == 0:
        return []
    axes = [_Axis(kernel[d], strides[d], pads[d], dilations[d]) for d in range(rank)]
    if op == "average":
        for d, axis in enumerate(axes):
            end = pads[rank + d] if count_include_pad else 0
            begin = pads[d] if count_include_pad else 0
            low, high, outputs = -begin, x.shape[2 + d] + end, out.shape[2 + d]
            scales = _scales(axis.window, axis.stride, axis.begin, axis.dilation, low, high, outputs)
            axes[d] = replace(axis, scales=scales)

    spatial = list(range(2, 2 + rank))
    if fits(x, out):
        rows = axes[0] if rank == 2 else _Axis()
        pairs = as_images(x, out, ([0], [1], spatial[:-1], spatial[-1:]))
        return [_call(op, source, target, rows, axes[-1], machine) for source, target in pairs]
    if rank == 1:
        return _pass(op, x, out, ([0], [], spatial), _Axis(), axes[0], machine)
    calls: list[Call] = []
    rows, columns = axes[-2:]
    before, last = out, rank + 1
    if rank == 3:  # the first axis comes last
        before = _intermediate(out, {2: x.shape[2]})
    if _is_cheaper_by_axis(rows, columns):
        between = _intermediate(before, {last - 1: x.shape[last - 1]})
        calls += _pass(op, x, between, ([0], spatial[:-1], [last]), _Axis(), columns, machine)
        calls += _pass(op, between, before, ([0, *spatial[:-2]], [last - 1], [last]), rows, _Axis(), machine)
    else:
        calls += _pass(op, x, before, ([0, *spatial[:-2]], [last - 1], [last]), rows, columns, machine)
    if rank == 3:
        calls += _pass(op, before, out, ([0], [2], spatial[1:]), axes[0], _Axis(), machine)
    return calls


@remembered(64)
def _scales(window: int, stride: int, begin: int, dilation: int, low: int, high: int, outputs: int) -> View:
    """1 / count of each output's taps in low..high."""
    last = (outputs - 1) * stride + (window - 1) * dilation - begin
    if low <= -begin and last < high:  # all of them
        return constant(np.full(outputs, 1 / window, np.float32))
    taps = np.arange(window) * dilation - begin + np.arange(outputs)[:, None] * stride
    with np.errstate(divide="ignore"):
        return constant((1 / ((low <= taps) & (taps < high)).sum(1)).astype(np.float32))


def _is_cheaper_by_axis(rows: _Axis, columns: _Axis) -> bool:
    """Whether two passes take fewer operations per output than one; a pass over memory weighs 8."""
    together = rows.window * columns.window
    return columns.window * rows.stride + rows.window + 8 < together


def _intermediate(like: View, sizes: dict[int, int]) -> View:
    """A fresh channels-last image of float32: the shape of `like`, other sizes along some axes."""
    shape = tuple(sizes.get(d, n) for d, n in enumerate(like.shape))
    order = (0, *range(2, len(shape)), 1)
    return View(Buffer(math.prod(shape) * 4), 0, np.dtype(np.float32), shape, strides_in_order(shape, order))


def _pass(
    op: Op,
    x: View,
    out: View,
    roles: tuple[list[int], list[int], list[int]],
    rows: _Axis,
    columns: _Axis,
    machine: Machine,
) -> list[Call]:
    """One pass over x; `roles` says which axes are its images, rows and columns."""
    pairs = as_images(x, out, (roles[0], [1], *roles[1:]))
    return [_call(op, source, target, rows, columns, machine) for source, target in pairs]


def _call(op: Op, x: View, out: View, rows: _Axis, columns: _Axis, machine: Machine) -> Call:
    """x [N, C, H, W], out [N, C, Ho, Wo]."""
    many = rows.scales.size > 1, columns.scales.size > 1
    numbers = [(axis.window, axis.stride, axis.begin, axis.dilation) for axis in (rows, columns)]
    form = _form(op, layout_of(x), layout_of(out), numbers[0], numbers[1], many, machine)
    return form.call([x, out, rows.scales, columns.scales], [x, rows.scales, columns.scales], [out])


@remembered(1024)  # layers that are alike, and shapes that come again
def _form(
    op: Op,
    x_layout: Layout,
    out_layout: Layout,
    rows: tuple[int, int, int, int],
    columns: tuple[int, int, int, int],
    many: tuple[bool, bool],
    machine: Machine,
) -> Form:
    """All of a call but its memory: that of x, out, and the scales of rows and columns. rows, columns:
    window, stride, begin and dilation. many: whether there are scales for each.
    """
    x, out = blank(x_layout), blank(out_layout)
    gather = x.strides[1] != 1 and x.shape[1] > 1
    scatter = out.strides[1] != 1 and x.shape[1] > 1
    masked = x.shape[1] % machine.lanes != 0
    kernel, strides, begins, dilations = zip(rows, columns, strict=True)
    turn = None
    lines = fits(x, out)
    if not lines and math.prod(kernel) <= _UNROLL_BLOCK:
        # Beside the results: an input vector, and what a maximum takes to keep NaN.
        turn = choose(kernel, strides, dilations, out.shape[2:], machine.registers - 3, weights=False)
    if lines:
        arguments, tiles, scratch = line_arguments(x, out, kernel, strides, dilations, begins, machine)
        in_pairs = strides[1] == 2 and dilations[1] == 1 and written_out(kernel[1])
        code = pool_lines(
            rows=written_out(kernel[0]),
            columns=written_out(kernel[1]),
            stride=strides[1] if strides[1] == 1 or in_pairs else 0,
            source=name_of(x.dtype),
            out=name_of(out.dtype),
            op=op,
        )
    elif turn is not None:
        block = Block(
            kernel,
            strides,
            dilations,
            *turn,
            gather,
            scatter,
            name_of(out.dtype),
            masked,
            source=name_of(x.dtype),
        )
        of_block, tiles, scratch = block_arguments(x_layout, out_layout, block, *begins, 1, machine)
        arguments: list[int | View] = [*of_block]
        for place in BLOCK_PLACES:
            arguments[place] = x
        code = pool_block(block=block, op=op)
    else:
        pixels = pixels_in_turn(out.shape[3])
        window = Window(
            kernel[1],
            strides[1],
            dilations[1],
            pixels,
            gather,
            scatter,
            name_of(out.dtype),
            masked,
            name_of(x.dtype),
        )
        arguments, tiles = window_arguments(x, out, kernel[0], strides[0], dilations[0], *begins, 1, machine)
        code = pool(window=window, op=op)
        scratch = (pixels + 1) * machine.vector_bytes
    args: list[int | View | Kernel] = [*arguments, _ONE, int(many[0]), _ONE, int(many[1])]
    return Form(
        code,
        args,
        places=tuple([place for place, arg in enumerate(args) if isinstance(arg, View)]),
        tiles=tiles,
        scratch=scratch,
        flops=out.size * math.prod(kernel),
        label=f"{op} pool",
    )
