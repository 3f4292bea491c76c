"""How the register tile finds the values of a convolution: the image in place, or a band of it packed.

The tile needs that neighbouring output pixels lie a constant apart, that a step's values lie side by side,
and a table of where each step begins. Without padding an image offers that as it lies. Otherwise a band of
rows is packed:

    blocks  [channels / lanes][row][phase][column][lanes]   for many channels; column x of phase f is input
            x · stride + f
    lines   [plane][row][column]                            for few: rows as they lie, between zeros; a plane
            is a channel of a planar image, or the whole of an interleaved one

The order of the contraction, and with it that of the weights, follows from the arrangement:

    blocks  block of channels, row and column of the filter, channel (each block rounded up to whole steps)
    planes  channel, row, column
    pixels  row, column, channel
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ingot.kernels.call import View, constant
from ingot.kernels.contract import UNROLL, offsets_table

Order = Literal["blocks", "planes", "pixels"]
_LONGEST_STEP = 8


@dataclass(slots=True, eq=False)
class Geometry:
    """A convolution's numbers that decide how its input is read. Pairs are (rows, columns).

    Never changed once it is made; what follows from the numbers is worked out with it.
    """

    in_place: bool
    order: Order
    channels: int  # of a group
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    left: int  # columns of zeros
    width: int  # of the input
    out_width: int
    lanes: int
    steps: tuple[int, int, int]  # of the input, in elements: to the next channel, row, column
    step: int = UNROLL  # values of a block of channels in a step

    #: columns from the first tap of the filter to the last
    reach: int = field(init=False)
    #: the distance in the input of two packed rows
    rows_step: int = field(init=False)
    #: packed rows that one output row needs, but for the first
    extra_rows: int = field(init=False)
    #: packed rows from one output row to the next
    advance: int = field(init=False)
    #: which columns, modulo the stride, are read
    phases: tuple[int, ...] = field(init=False)
    #: values of a pixel that lie side by side in a packed line
    values: int = field(init=False)
    #: blocks of channels, or planes of lines
    planes: int = field(init=False)
    #: columns of a phase that are read, or floats of a line
    columns: int = field(init=False)
    #: floats from one packed row to the next
    line: int = field(init=False)
    #: floats from one output pixel's values to the next one's
    pitch: int = field(init=False)
    #: floats from one output row's values to the next one's
    row_pitch: int = field(init=False)
    #: floats of memory that one output row's input takes, to choose how many of them stay in the cache
    row_floats: int = field(init=False)
    #: values of the contraction in a step: a divisor of the runs in which they lie side by side
    unroll: int = field(init=False)

    def __post_init__(self) -> None:
        (rows, columns), (down, across), (dh, dw) = self.kernel, self.strides, self.dilations
        is_blocks, channels = self.order == "blocks", self.channels
        self.reach = reach = (columns - 1) * dw
        self.rows_step = down if rows == 1 else 1
        self.extra_rows = (rows - 1) * dh
        self.advance = down // self.rows_step
        self.phases = phases_of(columns, across, dw)
        self.values = values = channels if self.order == "pixels" else 1
        each = self.lanes if is_blocks else values
        self.planes = max(1, -(-channels // each))
        if is_blocks:
            self.columns = self.out_width + reach // across
            self.line = self.columns * len(self.phases) * self.lanes
        else:
            floats = ((self.out_width - 1) * across + reach + 1) * values
            self.columns = self.line = -(-floats // self.lanes) * self.lanes
        if self.in_place:
            self.pitch, self.row_pitch = across * self.steps[2], down * self.steps[1]
            self.row_floats = channels * self.width * down
        else:
            self.pitch = self.lanes if is_blocks else across * values
            self.row_pitch = self.advance * self.line
            self.row_floats = self.planes * self.row_pitch
        self.unroll = self.step if is_blocks else self._unroll()

    def _unroll(self) -> int:
        dense = self.dilations[1] == 1 and (not self.in_place or self.steps[2] == self.values)
        runs = self.values * (self.kernel[1] if dense else 1)
        return _step_of(runs)


@functools.cache
def _step_of(runs: int) -> int:
    """The longest step that divides such runs."""
    return max(u for u in range(1, _LONGEST_STEP + 1) if runs % u == 0)


@functools.cache
def phases_of(columns: int, stride: int, dilation: int) -> tuple[int, ...]:
    """Which columns, modulo the stride, so many columns of a filter read."""
    return tuple(sorted({j * dilation % stride for j in range(columns)}))


#: A geometry, made once for layers that are alike: what is known of one is kept under it.
geometry = functools.lru_cache(1024)(Geometry)


def choose(
    x: View, groups: int, channels: int, columns: int, pads: Sequence[int], dilation: int, lanes: int
) -> tuple[bool, Order]:
    """Whether to read x [N, C, H, W] in place, and the order of the contraction.

    channels: of a group. columns: of the filter, `dilation` apart.
    """
    _, sc, sh, sw = x.strides
    is_plain = x.dtype == np.float32 and not any(pads) and 1 in (sc, sw)
    if is_plain and all(abs(s) * n < 2**28 for n, s in zip(x.shape[1:], (sc, sh, sw), strict=True)):
        return True, "pixels" if sc == 1 else "planes"
    if channels < lanes and dilation == 1 and columns > 1:
        if sw == 1:
            return False, "planes"
        if sc == 1 and sw == channels and groups == 1:
            return False, "pixels"
    return False, "blocks"


@functools.lru_cache(256)
def table(g: Geometry, rows: int) -> View:
    """Where each step begins; in a band of `rows` packed rows, or in the image."""
    distances = g.steps if g.in_place else (rows * g.line, g.line, g.columns)

    weights = _weights(
        g.in_place, g.order, g.channels, g.kernel, g.strides[1], g.dilations, g.lanes, g.step, g.unroll
    )
    return offsets_table(np.array((*distances, 1)) @ weights)


@functools.lru_cache(256)
def _weights(
    in_place: bool,
    order: Order,
    channels: int,
    kernel: tuple[int, int],
    stride: int,
    dilations: tuple[int, int],
    lanes: int,
    step: int,
    unroll: int,
) -> np.ndarray:
    """How often each step's beginning has each of three distances, and what is added: they are the same for
    all sizes of the image. int64 [4, steps]
    """

    def begin(*distances: int) -> np.ndarray:
        if in_place:
            return _in_image(order, channels, kernel, dilations, unroll, *distances)
        if order == "blocks":
            return _in_blocks(channels, kernel, stride, dilations, lanes, step, *distances)
        return _in_lines(order, channels, kernel, dilations, unroll, *distances)

    added = begin(0, 0, 0)
    return np.stack([begin(1, 0, 0) - added, begin(0, 1, 0) - added, begin(0, 0, 1) - added, added])


def _in_image(
    order: Order,
    channels: int,
    kernel: tuple[int, int],
    dilations: tuple[int, int],
    unroll: int,
    channel: int,
    row: int,
    column: int,
) -> np.ndarray:
    """Where each step begins in an image whose channels, rows and columns lie so far apart."""
    c = np.arange(channels) * channel
    i = np.arange(kernel[0]) * (row * dilations[0])
    j = np.arange(kernel[1]) * (column * dilations[1])
    offsets = c[:, None, None] + i[:, None] + j if order == "planes" else i[:, None, None] + j[:, None] + c
    return offsets.reshape(-1)[::unroll]


def _in_lines(
    order: Order,
    channels: int,
    kernel: tuple[int, int],
    dilations: tuple[int, int],
    unroll: int,
    plane: int,
    line: int,
    _: int,
) -> np.ndarray:
    """Where each step begins in a band whose planes and lines lie so far apart."""
    planes, values = (1, channels) if order == "pixels" else (channels, 1)
    i = np.arange(kernel[0])[:, None] * (dilations[0] * line)
    start = np.arange(max(1, planes))[:, None, None] * plane + i
    return (start + np.arange(0, kernel[1] * values, unroll)).reshape(-1)


def _in_blocks(
    channels: int,
    kernel: tuple[int, int],
    stride: int,
    dilations: tuple[int, int],
    lanes: int,
    step: int,
    plane: int,
    line: int,
    columns: int,
) -> np.ndarray:
    """Where each step begins in a band whose blocks of channels and lines lie so far apart, of lines with so
    many columns of each phase.
    """
    i = np.arange(kernel[0])[:, None, None] * (dilations[0] * line)
    column = np.arange(kernel[1]) * dilations[1]
    phase = np.searchsorted(phases_of(kernel[1], stride, dilations[1]), column % stride)
    taps = i + ((phase * columns + column // stride) * lanes)[:, None]
    steps = np.arange(0, lanes, step)
    # The last block may be narrower: it has fewer steps at each tap.
    whole, left = divmod(channels, lanes) if channels else (1, 0)
    offsets = (np.arange(whole)[:, None, None, None] * plane + taps + steps).reshape(-1)
    if left:
        last = whole * plane + taps + steps[: -(-left // step)]
        offsets = np.concatenate([offsets, last.reshape(-1)])
    return offsets


@functools.lru_cache(256)
def ranges(g: Geometry, pixel_bytes: int) -> View:
    """For each phase the columns that lie in the image, from and to, and the bytes to the first in its row.

    Of lines, only how many floats of zeros are on their left.
    """
    if g.order != "blocks":
        return constant(np.array([[g.left * g.values, 0, 0]], np.int64))
    rows: list[tuple[int, int, int]] = []
    for phase in g.phases:
        low = max(0, -(-(g.left - phase) // g.strides[1]))
        high = min(g.columns, -(-(g.width + g.left - phase) // g.strides[1]))
        first = low * g.strides[1] + phase - g.left
        rows.append((low, high, first * pixel_bytes) if low < high else (g.columns, g.columns, 0))
    return constant(np.array(rows, np.int64))


def weight_rows(
    order: Order, channels: int, taps: int, lanes: int, step: int = UNROLL
) -> tuple[np.ndarray, int]:
    """Which row of a panel the weight of (channel, tap) is, flat, and how many rows the panel has."""
    channel = np.arange(channels)[:, None]
    tap = np.arange(taps)
    if order == "planes":
        return (channel * taps + tap).reshape(-1), channels * taps
    if order == "pixels":
        return (tap * channels + channel).reshape(-1), channels * taps
    block = channel // lanes
    width = -(-np.minimum(lanes, channels - block * lanes) // step) * step
    rows = block * lanes * taps + tap * width + channel % lanes
    return rows.reshape(-1), taps * -(-channels // step) * step


@functools.lru_cache(1024)
def tile_shape(rows: int, columns: int, pixels: int, vectors: int, most_rows: int) -> tuple[int, int]:
    """Rows and columns of the register tiles that cover an image in the least time.

    A tile has at most `pixels` pixels in at most `most_rows` rows.
    """
    _, height, width = fastest_tiles(rows, columns, pixels, vectors, most_rows)
    return height, width


def fastest_tiles(
    rows: int, columns: int, pixels: int, vectors: int, most_rows: int
) -> tuple[float, int, int]:
    """Cycles that a step takes in all register tiles of an image, and their `tile_shape`."""
    best: tuple[float, int, int] | None = None
    for height in range(1, min(most_rows, rows) + 1):
        width = min(columns, pixels // height)
        if width == 0:
            break
        # Nearly equal parts each way, of which some have one more.
        down, across = -(-rows // height), -(-columns // width)
        (h, tall), (w, wide) = divmod(rows, down), divmod(columns, across)
        time = (down - tall) * (across - wide) * step_cycles(h * w * vectors)
        if tall:
            time += tall * (across - wide) * step_cycles((h + 1) * w * vectors)
        if wide:
            time += wide * ((down - tall) * step_cycles(h * (w + 1) * vectors))
            if tall:
                time += wide * tall * step_cycles((h + 1) * (w + 1) * vectors)
        if best is None or time < best[0] * 0.98:
            best = time, height, width
    assert best is not None
    return best


def step_cycles(products: int) -> float:
    """Of a step of a register tile with so many: two a cycle, four cycles until one is done, and half a cycle
    for the rest.
    """
    return (products / 2 if products > 8 else 4.0) + 0.5
