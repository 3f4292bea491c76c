"""Large windows sliding over images: the loops, borders and tails that depthwise convolution and pooling
share (block.py has those of small windows).

A vector holds neighbouring channels of one pixel. A turn computes `pixels` neighbouring pixels of an output
row, whose sums stay in registers over the whole window; an input vector is loaded once for all the pixels it
reaches. Rows outside of the image are left out by bounds. A turn that touches a column outside of it takes a
second version of the same code, in which such a column's address is replaced by that of a vector of neutral
elements: no pixel is computed by scalar code.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ingot.codegen.builder import F32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import (
    gather_element_at,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.lanes import index_lanes
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import View
from ingot.kernels.contract import name_of

SLOTS = (
    "x", "x_image", "x_channel", "x_row", "x_column",
    "out", "out_image", "out_channel", "out_row", "out_column",
    "channels", "multiplier", "height", "width", "out_height", "out_width",
    "rows", "stride", "dilation", "top", "left",
    "bands", "band_rows", "groups", "group_channels",
)  # fmt: skip

Load = Callable[[int], Value]  # column of the window -> the vector there
Reader = Callable[[Int], Load]  # first column -> loads of the columns from there on


@dataclass(frozen=True, slots=True)
class Window:
    """What of a window changes the code: columns, their stride and dilation, pixels in a turn, how channels
    are reached.
    """

    columns: int
    stride: int
    dilation: int
    pixels: int
    gather: bool  # the input's channels do not lie side by side, or one of them feeds several output channels
    scatter: bool  # the output's channels do not lie side by side
    out: str  # the output's dtype
    masked: bool  # the channels are no multiple of the vector
    source: str = "float32"  # the input's dtype

    def users(self, taps: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """For each column that `taps` neighbouring taps of the window reach: the pixels that use it, and
        their taps.
        """
        for column in range((self.pixels - 1) * self.stride + (taps - 1) * self.dilation + 1):
            pairs = [(pixel, column - pixel * self.stride) for pixel in range(self.pixels)]
            users = [
                (pixel, distance // self.dilation)
                for pixel, distance in pairs
                if distance % self.dilation == 0 and 0 <= distance < taps * self.dilation
            ]
            if users:
                yield column, users


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the output a vector lies: image, first channel, row, column; and which lanes of it exist."""

    image: Int
    channel: Int
    row: Int
    column: Int
    mask: Value | None


#: finish(sums of some pixels, their places, what was prepared for their channels): what is stored
Finish = Callable[[Sequence[Value], Sequence[Place], Any], list[Value]]


@contextmanager
def in_groups(k: Builder, count: Int, together: int) -> Generator[list[Int]]:
    """A loop over 0 … count - 1 (one at least), `together` numbers at a time; the last may come twice."""
    with k.loop(0, count, together, at_least_once=True) as first:
        yield [first, *(k.min(k.add(first, i), k.sub(count, 1)) for i in range(1, together))]


def emit_windows(
    k: Builder,
    window: Window,
    neutral: float,
    start: Callable[[], Value],
    accumulate: Callable[[list[Value], Int, Int, Reader], None],
    prepare: Callable[[Place], Any],
    finish: Finish,
    unroll_finish: bool,
    together: int = 1,
) -> None:
    """The loops over tiles, channel blocks, rows and pixels.

    start(): the sums before the first row. accumulate(sums, row of the window, channel, reader) adds one row
    of the window. prepare(place of channel): values kept in registers for all rows of the channel block,
    handed to finish. finish(sums, places, prepared): what is stored. With `unroll_finish` it is emitted for
    each pixel and stays in registers; without, once, for `together` pixels, in a loop over sums that went
    through scratch memory (for long epilogues).
    """
    lanes, pixels = k.machine.lanes, window.pixels
    type_, stored, read = vector(F32, lanes), memory_element(window.out), memory_element(window.source)
    size = {name: k.arg(name) for name in SLOTS if name not in ("x", "out")}
    x, out = k.pointer("x"), k.pointer("out")
    outside, spilled = k.scratch, k.at(k.scratch, lanes, F32)
    store_element(k, k.splat(neutral, type_), outside, window.source)
    reach = (pixels - 1) * window.stride + (window.columns - 1) * window.dilation

    with k.loop(k.begin, k.end) as tile:
        image, (first_row, last_row), (first_channel, last_channel) = part_of(k, size, tile)
        with k.loop(first_channel, last_channel, lanes) as channel:
            mask = k.lanes_below(k.sub(size["channels"], channel), lanes) if window.masked else None
            source = k.at(x, k.mul(image, size["x_image"]), read)
            target = k.at(
                out, k.add(k.mul(image, size["out_image"]), k.mul(channel, size["out_channel"])), stored
            )
            offsets: Value = None
            if window.gather:
                steps = k.ir.add(k.broadcast(k.int(channel), lanes), index_lanes(lanes, I64))
                sources = k.ir.udiv(steps, k.broadcast(size["multiplier"], lanes))
                offsets = k.ir.mul(sources, k.broadcast(size["x_channel"], lanes))
            else:
                source = k.at(source, channel, read)
            prepared = prepare(Place(image, channel, 0, 0, mask))

            with k.loop(first_row, last_row) as row:
                top = k.sub(k.mul(row, size["stride"]), size["top"])
                above = k.choose(k.compare("<", top, 0), k.ceil_div(k.sub(0, top), size["dilation"]), 0)
                below = k.max(k.sub(size["height"], top), 0)
                first, last = k.int(above), k.min(size["rows"], k.ceil_div(below, size["dilation"]))
                target_row = k.at(target, k.mul(row, size["out_row"]), stored)
                with k.loop(0, size["out_width"], pixels) as column:
                    count = k.min(k.sub(size["out_width"], column), pixels)
                    left = k.sub(k.mul(column, window.stride), size["left"])
                    start_of_row = k.at(source, k.mul(left, size["x_column"]), read)
                    here = k.at(target_row, k.mul(column, size["out_column"]), stored)

                    def sums(
                        inside: bool, left: Int = left, start_of_row: Value = start_of_row
                    ) -> list[Value]:
                        values = [start() for _ in range(pixels)]
                        with k.loop(first, last, carry=values) as line:
                            y = k.add(top, k.mul(line, size["dilation"]))
                            pointer = k.at(start_of_row, k.mul(y, size["x_row"]), read)
                            reader = _reader(
                                k, window, size, pointer, left, offsets, mask, outside, neutral, inside
                            )
                            accumulate(values, line, channel, reader)
                        return values

                    def store(
                        values: list[Value], pixels: list[Int], here: Value = here, column: Int = column
                    ) -> None:
                        places = [Place(image, channel, row, k.add(column, pixel), mask) for pixel in pixels]
                        for value, pixel in zip(finish(values, places, prepared), pixels, strict=True):
                            pointer = k.at(here, k.mul(pixel, size["out_column"]), stored)
                            if window.scatter:
                                left_over = k.sub(size["channels"], channel) if window.masked else None
                                scatter_element(k, value, pointer, window.out, size["out_channel"], left_over)
                            else:
                                store_element(k, value, pointer, window.out, mask=mask)

                    def whole() -> list[Value]:
                        values = sums(inside=True)
                        if not unroll_finish:
                            return values
                        for pixel, value in enumerate(values):
                            store([value], [pixel])
                        return []

                    def border() -> list[Value]:
                        values = sums(inside=False)
                        if not unroll_finish:
                            return values
                        through_scratch(values)
                        return []

                    def through_scratch(values: list[Value], count: Int = count) -> None:
                        for pixel, value in enumerate(values):
                            k.store(value, spilled, pixel * lanes)
                        with in_groups(k, count, together) as numbers:
                            store([k.load(spilled, type_, k.mul(n, lanes)) for n in numbers], numbers)

                    enough = k.ir.and_(k.compare(">=", left, 0), k.compare("==", count, pixels))
                    inside = k.ir.and_(enough, k.compare("<", k.add(left, reach), size["width"]))
                    values = k.either(inside, whole, border)
                    if values:
                        through_scratch(values)


def part_of(
    k: Builder, size: dict[str, Value], tile: Value
) -> tuple[Value, tuple[Value, Value], tuple[Value, Value]]:
    """What a tile is: its image, rows from and to, and channels from and to. size: the kernel's slots."""
    group, others = k.rem(tile, size["groups"]), k.div(tile, size["groups"])
    band, image = k.rem(others, size["bands"]), k.div(others, size["bands"])
    first_row = k.mul(band, size["band_rows"])
    last_row = k.min(k.add(first_row, size["band_rows"]), size["out_height"])
    first_channel = k.mul(group, size["group_channels"])
    last_channel = k.min(k.add(first_channel, size["group_channels"]), size["channels"])
    return image, (first_row, last_row), (first_channel, last_channel)


def _reader(
    k: Builder,
    window: Window,
    size: dict[str, Value],
    row: Value,
    left: Int,
    offsets: Value,
    mask: Value | None,
    outside: Value,
    neutral: float,
    inside: bool,
) -> Reader:
    """Loads of the columns of one row of the window; `row` points to the first pixel's leftmost column."""
    lanes, element = k.machine.lanes, memory_element(window.source)

    def reader(first: Int) -> Load:
        skipped = k.mul(first, window.dilation)
        # Each address is the one before plus the stride: one addition, and no register for each multiple.
        pointers = [k.at(row, k.mul(skipped, size["x_column"]), element)]

        def load(column: int) -> Value:
            while len(pointers) <= column:
                pointers.append(k.at(pointers[-1], size["x_column"], element))
            pointer, exists = pointers[column], None
            if not inside:
                position = k.add(left, skipped, column)
                exists = k.ir.icmp_unsigned("<", k.int(position), size["width"])
            if window.gather:
                lanes_on = (
                    mask
                    if mask is not None
                    else k.splat(1, vector(exists.type, lanes))
                    if exists is not None
                    else None
                )
                if exists is not None:
                    lanes_on = k.ir.and_(lanes_on, k.broadcast(exists, lanes))
                value = gather_element_at(k, pointer, window.source, lanes, offsets, lanes_on)
                return value if exists is None else k.ir.select(exists, value, k.splat(neutral, value.type))
            if exists is not None:
                pointer = k.ir.select(exists, pointer, outside)
            if window.source != "float32":
                # Emits nothing, but keeps LLVM from converting all of a row's vectors first.
                k.ir.fence("seq_cst", "singlethread")
            return load_element(k, pointer, window.source, lanes, mask=mask)

        return load

    return reader


def refuse_other_dtypes(subject: str, *views: View, of: Sequence[str] = ("float32",)) -> None:
    """Raise UnsupportedOperatorError unless every view holds one of these dtypes."""
    for view in views:
        if name_of(view.dtype) not in of:
            raise UnsupportedOperatorError(
                f"{subject}: found {view.dtype.name} elements, the native kernel wants {' or '.join(of)}; "
                "cast them, or leave this node to the host"
            )


def pixels_in_turn(out_width: int) -> int:
    """Pixels to compute at once: rows are split into nearly equal runs of at most 8, which hide the latency
    of an FMA.
    """
    return -(-out_width // -(-out_width // 8)) if out_width else 1


def window_arguments(
    x: View,
    out: View,
    rows: int,
    stride: int,
    dilation: int,
    top: int,
    left: int,
    multiplier: int,
    machine: Machine,
) -> tuple[list[int | View], int]:
    """The values of SLOTS for x [N, C, H, W] and out [N, C * multiplier, Ho, Wo], and the number of tiles.

    A tile is a band of output rows of a few channel blocks: a band's rows stay in L1 from one output row to
    the next, and the tiles of a band follow each other, so that neighbouring channels are read while their
    rows are in L2.
    """
    images, channels, out_height, out_width = out.shape
    blocks = -(-channels // machine.lanes)
    # A channel block's rows lie far apart, on few sets of L1: higher bands measured up to 1.7 times slower.
    band_rows = max(1, min(8, out_height))
    bands = -(-out_height // band_rows)
    arguments: list[int | View] = [
        x, *x.strides, out, *out.strides,
        channels, multiplier, x.shape[2], x.shape[3], out_height, out_width,
        rows, stride, dilation, top, left,
        bands, band_rows, blocks, machine.lanes,
    ]  # fmt: skip
    return arguments, images * bands * blocks if out.size else 0


def as_images(x: View, out: View, roles: Sequence[Sequence[int]]) -> Iterator[tuple[View, View]]:
    """x and out as pairs of views with one axis for each role (images, channels, rows, columns; or others).

    `roles` shares the axes out. Axes of one role must be walked as one, so, unless x and out agree in size
    along them, there is only one; where their strides do not allow that, there is a pair for each index of
    the outer ones.
    """
    merged: list[tuple[int, int, int, int]] = []  # of each role: sizes and strides in x and out
    outer: list[tuple[int, int, int]] = []
    for role in roles:
        runs: list[tuple[int, int, int, int]] = []
        for d in role:
            axis = (x.shape[d], out.shape[d], x.strides[d], out.strides[d])
            if axis[:2] == (1, 1):
                continue
            if runs and runs[-1][2:] == (axis[0] * axis[2], axis[1] * axis[3]):
                runs[-1] = (axis[0] * runs[-1][0], axis[1] * runs[-1][1], *axis[2:])
            else:
                runs.append(axis)
        runs = runs or [(1, 1, 0, 0)]
        outer += [(run[0], run[2], run[3]) for run in runs[:-1]]
        merged.append(runs[-1])
    sizes, out_sizes, strides, out_strides = zip(*merged, strict=True)
    for index in itertools.product(*(range(n) for n, _, _ in outer)):
        offset, out_offset = (
            sum(i * run[side] for i, run in zip(index, outer, strict=True)) for side in (1, 2)
        )
        yield x.with_dims(sizes, strides, offset), out.with_dims(out_sizes, out_strides, out_offset)
