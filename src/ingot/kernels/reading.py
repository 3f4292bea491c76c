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
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ingot.kernels.call import View, constant
from ingot.kernels.contract import UNROLL, offsets_table

Order = Literal["blocks", "planes", "pixels"]
_LONGEST_STEP = 8


@dataclass(frozen=True)
class Geometry:
    """A convolution's numbers that decide how its input is read. Pairs are (rows, columns)."""

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

    @functools.cached_property
    def reach(self) -> int:
        """Columns from the first tap of the filter to the last."""
        return (self.kernel[1] - 1) * self.dilations[1]

    @functools.cached_property
    def rows_step(self) -> int:
        """The distance in the input of two packed rows."""
        return self.strides[0] if self.kernel[0] == 1 else 1

    @functools.cached_property
    def extra_rows(self) -> int:
        """Packed rows that one output row needs, but for the first."""
        return (self.kernel[0] - 1) * self.dilations[0]

    @functools.cached_property
    def advance(self) -> int:
        """Packed rows from one output row to the next."""
        return self.strides[0] // self.rows_step

    @functools.cached_property
    def phases(self) -> list[int]:
        """Which columns, modulo the stride, are read."""
        return sorted({j * self.dilations[1] % self.strides[1] for j in range(self.kernel[1])})

    @functools.cached_property
    def values(self) -> int:
        """Values of a pixel that lie side by side in a packed line."""
        return self.channels if self.order == "pixels" else 1

    @functools.cached_property
    def planes(self) -> int:
        """Blocks of channels, or planes of lines."""
        each = {"blocks": self.lanes, "planes": 1, "pixels": self.channels}[self.order]
        return max(1, -(-self.channels // each))

    @functools.cached_property
    def columns(self) -> int:
        """Columns of a phase that are read, or floats of a line."""
        if self.order == "blocks":
            return self.out_width + self.reach // self.strides[1]
        floats = ((self.out_width - 1) * self.strides[1] + self.reach + 1) * self.values
        return -(-floats // self.lanes) * self.lanes

    @functools.cached_property
    def line(self) -> int:
        """Floats from one packed row to the next."""
        return self.columns * (len(self.phases) * self.lanes if self.order == "blocks" else 1)

    @functools.cached_property
    def pitch(self) -> int:
        """Floats from one output pixel's values to the next one's."""
        if self.in_place:
            return self.strides[1] * self.steps[2]
        return self.lanes if self.order == "blocks" else self.strides[1] * self.values

    @functools.cached_property
    def row_pitch(self) -> int:
        """Floats from one output row's values to the next one's."""
        return self.strides[0] * self.steps[1] if self.in_place else self.advance * self.line

    @functools.cached_property
    def unroll(self) -> int:
        """Values of the contraction in a step: a divisor of the runs in which they lie side by side."""
        if self.order == "blocks":
            return self.step
        dense = self.dilations[1] == 1 and (not self.in_place or self.steps[2] == self.values)
        if self.order == "planes":
            runs = self.kernel[1] if dense else 1
        else:
            runs = self.channels * (self.kernel[1] if dense else 1)
        return max(u for u in range(1, _LONGEST_STEP + 1) if runs % u == 0)

    @functools.cached_property
    def row_floats(self) -> int:
        """Floats of memory that one output row's input takes, to choose how many of them stay in the
        cache.
        """
        if self.in_place:
            return self.channels * self.width * self.strides[0]
        return self.planes * self.line * self.advance


def choose(
    x: View, groups: int, channels: int, columns: int, pads: Sequence[int], dilation: int, lanes: int
) -> tuple[bool, Order]:
    """Whether to read x [N, C, H, W] in place, and the order of the contraction.

    channels: of a group. columns: of the filter, `dilation` apart.
    """
    _, sc, sh, sw = x.strides
    far = max(abs(s) * n for n, s in zip(x.shape[1:], (sc, sh, sw), strict=True))
    if x.dtype == np.float32 and not any(pads) and far < 2**28 and 1 in (sc, sw):
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
