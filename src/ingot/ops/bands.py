"""Bands of rows: an image is computed a few rows at a time, and used while they are in the cache.

A convolution of narrow groups reads more than it computes. Where its input is large, and only it reads it,
the rows that make a band of its output are computed just before, into memory that the next band takes again:
rows that both need stay, further up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.contract import Epilogue
from ingot.kernels.made_again import remembered
from ingot.ops.window import Window

#: The part of L2 that a band of the input may take: the rest is for its own input, weights and the output.
_PART_OF_L2 = 0.5
#: A smaller image, as a part of L2, stays there by itself.
_LARGE = 1.0


def reached(window: Window, count: int) -> int:
    """How many rows of an image (and of the padding) so many rows of output reach."""
    return (count - 1) * window.strides[0] + (window.kernel[0] - 1) * window.dilations[0] + 1


def is_cut(window: Window) -> bool:
    """Whether every row of output reaches a row of the image, so that bands of it have inputs."""
    reach = reached(window, 1)
    return window.before[0] < reach and window.after[0] < reach


def lines(height: int, window: Window, first: int, count: int) -> tuple[int, int, tuple[int, int, int, int]]:
    """The rows begin..end of an image of `height` that `count` rows of output from `first` on reach, and the
    padding around them (top, left, bottom, right).
    """
    low = first * window.strides[0] - window.before[0]
    high = low + reached(window, count)
    begin, end = max(low, 0), min(high, height)
    return begin, end, (begin - low, window.before[1], high - end, window.after[1])


@dataclass(frozen=True, slots=True)
class Rows:
    """How to compute some rows of a convolution of x [N, C, H, W]: `emit` gets the part of x for them, where
    they go, the padding around that part and the epilogue.
    """

    x: View
    window: Window
    emit: Callable[[View, View, Sequence[int], Epilogue | None], list[Call]]

    @property
    def source(self) -> tuple[int, Window]:
        """The height of x, and the window over it."""
        return self.x.shape[2], self.window

    def __call__(self, out: View, epilogue: Epilogue | None, image: int, first: int) -> list[Call]:
        """The rows of one image from `first` on that go to `out` [1, C, rows, W]."""
        part, around = band(self.x, self.window, image, first, out.shape[2])
        return self.emit(part, out, around, epilogue)


def band(
    x: View, window: Window, image: int, first: int, count: int
) -> tuple[View, tuple[int, int, int, int]]:
    """The part of x [N, C, H, W] for `count` rows of output of one image, and the padding around it."""
    begin, end, pads = lines(x.shape[2], window, first, count)
    shape = (1, x.shape[1], end - begin, x.shape[3])
    return x.with_dims(shape, x.strides, image * x.strides[0] + begin * x.strides[2]), pads


@dataclass(frozen=True, slots=True)
class Band:
    """Some rows of output and the rows of the image that they reach.

    first, count: the rows of output. begin, end: those of the image, of which the band before has the first
    `kept`. top, bottom: the padding around them. source: the padding around what the others come from.
    """

    first: int
    count: int
    begin: int
    end: int
    kept: int
    top: int
    bottom: int
    source: tuple[int, int, int, int]

    @property
    def kind(self) -> tuple[object, ...]:
        """What bands have in common that lie alike."""
        return self.count, self.end - self.begin, self.kept, self.top, self.bottom, self.source


@remembered(256)
def runs_of(
    height: int, window: Window, rows: int, source: tuple[int, Window]
) -> tuple[tuple[Band, ...], ...]:
    """The bands of `rows` rows (the last has the rest) of the output over an image so high: those that
    lie alike are one run. source: the height of what the image is computed from, and the window over it.
    """
    bands: list[Band] = []
    for first in range(0, window.output[0], rows):
        count = min(rows, window.output[0] - first)
        begin, end, (top, _, bottom, _) = lines(height, window, first, count)
        kept = max(bands[-1].end - begin, 0) if bands else 0
        _, _, pads = lines(*source, begin + kept, end - begin - kept)
        bands.append(Band(first, count, begin, end, kept, top, bottom, pads))
    return tuple(tuple(run) for _, run in itertools.groupby(bands, lambda band: band.kind))


@remembered(256, "answer")
def rows_in_band(x: tuple[int, ...], window: Window, machine: Machine) -> int | None:
    """Rows of output for each band of an input [N, C, H, W] of float32; None where bands do not pay."""
    if len(x) != 4 or not math.prod(x) or not is_cut(window) or not window.output[0]:
        return None
    row = x[1] * x[3] * 4
    if math.prod(x[1:]) * 4 < _LARGE * machine.l2_bytes:
        return None
    stride, once = window.strides[0], reached(window, 1)
    most = (int(_PART_OF_L2 * machine.l2_bytes) // row - once) // stride + 1
    if most < 1:
        return None
    bands = -(-window.output[0] // most)
    count = -(-window.output[0] // bands)
    # Rows that stay move up by as many as are new: no further, or some would be written before they are read.
    return count if bands == 1 or once - stride <= count * stride else None
