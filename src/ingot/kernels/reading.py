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
    phases: list[int] = field(init=False)
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
        self.phases = [0] if across == 1 else sorted({j * dw % across for j in range(columns)})
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
        return max(u for u in range(1, _LONGEST_STEP + 1) if runs % u == 0)


#: A geometry, made once for layers that are alike: what is known of one is kept under it.
geometry = functools.lru_cache(1024)(Geometry)


def choose(
    x: View, groups: int, channels: int, columns: int, pads: Sequence[int], dilation: int, lanes: int
) -> tuple[bool, Order]:
    """Whether to read x [N, C, H, W] in place, and the order of the contraction.

    channels: of a group. columns: of the filter, `dilation` apart.
    """
    _, sc, sh, sw = x.strides
    is_near = all(abs(s) * n < 2**28 for n, s in zip(x.shape[1:], (sc, sh, sw), strict=True))
    if x.dtype == np.float32 and not any(pads) and is_near and 1 in (sc, sw):
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
    if g.in_place:
        (channel, row, column), (dh, dw) = g.steps, g.dilations
        c = np.arange(g.channels) * channel
        i = np.arange(g.kernel[0]) * (row * dh)
        j = np.arange(g.kernel[1]) * (column * dw)
        if g.order == "planes":
            offsets = c[:, None, None] + i[:, None] + j
        else:
            offsets = i[:, None, None] + j[:, None] + c
        return offsets_table(offsets.reshape(-1)[:: g.unroll])
    plane = rows * g.line
    i = np.arange(g.kernel[0])[:, None, None] * (g.dilations[0] * g.line)
    if g.order != "blocks":
        start = np.arange(g.planes)[:, None, None] * plane + i.reshape(1, -1, 1)
        return offsets_table((start + np.arange(0, g.kernel[1] * g.values, g.unroll)).reshape(-1))
    column = np.arange(g.kernel[1]) * g.dilations[1]
    phase = np.searchsorted(g.phases, column % g.strides[1])
    taps = i + ((phase * g.columns + column // g.strides[1]) * g.lanes)[:, None]
    steps = np.arange(0, g.lanes, g.step)
    offsets = (np.arange(0, g.planes * plane, plane)[:, None, None, None] + taps + steps).reshape(-1)
    # The last block may be narrower: it has fewer steps at each tap.
    whole, left = divmod(g.channels, g.lanes)
    if left:
        last = whole * plane + taps + steps[: -(-left // g.step)]
        offsets = np.concatenate([offsets[: whole * taps.size * steps.size], last.reshape(-1)])
    return offsets_table(offsets)


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
    best: tuple[float, int, int] | None = None
    for height in range(1, min(most_rows, rows) + 1):
        width = min(columns, pixels // height)
        if width == 0:
            break
        time = 0.0
        for h, n in _parts(rows, height):
            for w, m in _parts(columns, width):
                # Two FMAs a cycle, four cycles until one is done, and half a cycle for what else a step does.
                time += n * m * (max(h * w * vectors / 2, 4) + 0.5)
        if best is None or time < best[0] * 0.98:
            best = time, height, width
    assert best is not None
    return best[1], best[2]


def _parts(total: int, most: int) -> list[tuple[int, int]]:
    """Sizes of nearly equal parts, each with how many there are."""
    count = -(-total // most)
    size, larger = divmod(total, count)
    return [(size + 1, larger), (size, count - larger)]
