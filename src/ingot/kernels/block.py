"""Small windows over images: blocks of output rows and pixels in registers, channels innermost.

A vector holds neighbouring channels of one pixel. A turn computes `rows` × `pixels` outputs of one vector of
channels: an input vector is loaded once for all outputs that it reaches, in both directions. The channels
are the innermost loop, so memory is read along its lines. A turn whose inputs lie partly outside of the
image takes a second version of the same code, in which the address of such a place is replaced by that of a
vector of neutral elements. Inputs whose channels do not lie side by side, or that are half precision, are
copied into scratch memory first, as float32.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ingot.codegen.builder import F32, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import (
    gather_element_at,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.lanes import index_lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import Layout
from ingot.kernels.iteration import TILES
from ingot.kernels.window import Finish, Place, in_groups, part_of

SLOTS = (
    "x", "x_image", "x_channel", "x_row", "x_column",
    "out", "out_image", "out_channel", "out_row", "out_column",
    "channels", "multiplier", "height", "width", "out_height", "out_width",
    "top", "left", "bands", "band_rows", "groups", "group_channels",
)  # fmt: skip

#: Which of them are addresses.
PLACES = (SLOTS.index("x"), SLOTS.index("out"))

#: Lines of L1 that the inputs of one turn may take over all channels of a tile, as a part of the cache.
_PART_OF_L1 = 2
#: What a turn costs beside its arithmetic, in vector instructions.
_TURN = 16.0

#: join(result so far, input vector, weights of that place of the window, if there are any)
Join = Callable[[Value, Value, Value], Value]


class Block(NamedTuple):
    """What of a window and its block changes the code."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    rows: int  # of output in a turn
    pixels: int  # of output in a turn, in each row
    gather: bool  # the input's channels do not lie side by side, or one of them feeds several output channels
    scatter: bool  # the output's channels do not lie side by side
    out: str  # the output's dtype
    masked: bool  # the channels are no multiple of the vector
    group: int = 1  # neighbouring input channels that make each output channel, the same ones for so many
    source: str = "float32"  # the input's dtype

    @property
    def packed(self) -> bool:
        """Whether inputs are copied to scratch memory first, as float32."""
        return self.gather or self.source != "float32"

    @property
    def lines(self) -> int:
        """Input rows that a turn reads."""
        return (self.rows - 1) * self.strides[0] + self.kernel[0]

    @property
    def columns(self) -> int:
        """Input columns that a turn spans."""
        return (self.pixels - 1) * self.strides[1] + (self.kernel[1] - 1) * self.dilations[1] + 1

    def users(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """For each column that the window reaches: the pixels that use it, and which column of the window it
        is for them.
        """
        width, stride, dilation = self.kernel[1], self.strides[1], self.dilations[1]
        for column in range(self.columns):
            pairs = [(pixel, column - pixel * stride) for pixel in range(self.pixels)]
            users = [(p, d // dilation) for p, d in pairs if d % dilation == 0 and 0 <= d < width * dilation]
            if users:
                yield column, users


def choose(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    out: Sequence[int],
    registers: int,
    weights: bool,
    load_cost: float = 1.5,
) -> tuple[int, int] | None:
    """Rows and pixels of a turn that take the fewest instructions for an output of `out` pixels, or None.

    registers: how many the results, an input vector and, with `weights`, the weights of the rows of the
    window that an input row meets may take. load_cost: instructions that an input vector is worth; by
    default a product and a half, as much of it comes from L2.
    """
    height, width = out
    turns = _turns(kernel, strides, dilations, registers, weights, load_cost)
    if not turns:
        return None
    # Threads share out rows, as the step before did: with one turn for all rows each would read what the
    # other wrote.
    most, least = -(-height // 2), 0.0
    best: tuple[int, int] | None = None
    for work, rows, pixels in turns:
        if rows > most and best is not None:  # there are fewer rows in those before
            break
        time = -(-height // rows) * -(-width // pixels) * work
        if best is None or time < least:
            best, least = (rows, pixels), time
    return best


@functools.lru_cache(1024)
def _turns(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    registers: int,
    weights: bool,
    load_cost: float,
) -> list[tuple[float, int, int]]:
    """The instructions, rows and pixels of every turn that fits the registers."""
    found: list[tuple[float, int, int]] = []
    for rows in range(1, (5 if dilations[0] == 1 else 2)):
        meets = min(rows, -(-kernel[0] // strides[0])) * kernel[1] if weights else 0
        for pixels in range(1, 15):
            if rows * pixels + meets + 1 > registers:
                break
            lines = (rows - 1) * strides[0] + kernel[0]
            columns = (pixels - 1) * strides[1] + min((kernel[1] - 1) * dilations[1] + 1, kernel[1] * pixels)
            work = rows * pixels * math.prod(kernel) + load_cost * lines * columns
            work += 2 * rows * pixels + _TURN
            # Fewer results than an FMA's latency hides are no gain.
            found.append((work * max(1.0, 8 / (rows * pixels)), rows, pixels))
    return found


def emit_blocks(
    k: Builder,
    block: Block,
    neutral: float,
    weights: Value | None,
    join: Join,
    prepare: Callable[[Place], Any],
    finish: Finish,
    unroll_finish: bool,
    together: int = 1,
    patterns: Value | None = None,
) -> None:
    """The loops over tiles, blocks of rows, blocks of pixels and channels.

    weights: [channels / lanes][rows][columns][lanes], or None. prepare(place of channel): values that
    finish(sums, places, prepared) uses. With `unroll_finish` it is emitted for each output of a whole block
    and stays in registers; without, once, for `together` pixels, in a loop over sums that went through
    scratch memory (for long epilogues). patterns: with groups, for each channel of a group the lanes that
    take its value, int32 [group][lanes]; weights are [channels / lanes][group][rows][columns][lanes] then.
    """
    lanes, rows, pixels = k.machine.lanes, block.rows, block.pixels
    type_, stored, read = vector(F32, lanes), memory_element(block.out), memory_element(block.source)
    height, width = block.kernel
    size = {name: k.arg(name) for name in SLOTS if name not in ("x", "out")}
    x, out = k.pointer("x"), k.pointer("out")
    outside, spilled = k.scratch, k.at(k.scratch, lanes, F32)
    patch = k.at(k.scratch, (1 + rows * pixels) * lanes, F32)
    store_element(k, k.splat(neutral, type_), outside, block.source)
    image_line_step = k.mul(size["x_row"], block.dilations[0])

    def pack(source: Value, top: Int, left: Int, offsets: Value | None, mask: Value | None) -> None:
        """Copy the inputs of a turn to the patch; `source` is where the first of them would lie. offsets: of
        the lanes, where they do not lie side by side.
        """
        with k.loop(0, block.lines) as line:
            y = k.add(top, k.mul(line, block.dilations[0]))
            row_exists = k.ir.icmp_unsigned("<", k.int(y), size["height"])
            pointer = k.at(source, k.mul(line, image_line_step), read)
            target = k.at(patch, k.mul(line, block.columns * lanes), F32)
            for column in range(block.columns):
                if column:
                    pointer = k.at(pointer, size["x_column"], read)
                exists = k.ir.icmp_unsigned("<", k.int(k.add(left, column)), size["width"])
                exists = k.ir.and_(exists, row_exists)
                if offsets is None:
                    place = k.ir.select(exists, pointer, outside)
                    value = load_element(k, place, block.source, lanes, mask=mask)
                else:
                    lanes_on = k.broadcast(exists, lanes)
                    lanes_on = lanes_on if mask is None else k.ir.and_(lanes_on, mask)
                    value = gather_element_at(k, pointer, block.source, lanes, offsets, lanes_on)
                    value = k.ir.select(exists, value, k.splat(neutral, type_))
                k.store(value, target, column * lanes)

    def accumulate(
        corner: Value, top: Int, left: Int, filters: Value | None, mask: Value | None, inside: bool
    ) -> list[Value]:
        """The results of a turn from what lies at `corner`: the patch, or the image's memory, of which a part
        may be missing unless it is `inside`.
        """
        results = [k.splat(neutral, type_) for _ in range(rows * pixels)]
        dilation = block.dilations[0]
        users = list(block.users())
        packed = block.packed
        line_step = block.columns * lanes if packed else image_line_step
        exist: dict[int, Value] = {}
        if not inside:
            for column, _ in users:
                place = k.int(k.add(left, column))
                exist[column] = k.ir.icmp_unsigned("<", place, size["width"])

        def line(y: Int, meets: list[int], own_filters: Value | None, pattern: Value | None) -> None:
            """Add input row y to the results of the output rows `meets`."""
            pointer, at = k.at(corner, k.mul(line_step, y), F32), 0
            column_step: Int = lanes if packed else size["x_column"]
            if not inside:
                position = k.add(top, k.mul(y, dilation))
                exists = k.ir.icmp_unsigned("<", k.int(position), size["height"])
                pointer = k.ir.select(exists, pointer, outside)
                column_step = k.choose(exists, column_step, 0)
            weights: dict[tuple[int, int], Value] = {}

            def weight(r: int, j: int) -> Value:
                if own_filters is None:
                    return None
                if (r, j) not in weights:
                    own = k.at(own_filters, k.mul(k.sub(y, r * block.strides[0]), width * lanes), F32)
                    weights[r, j] = k.load(own, type_, j * lanes)
                return weights[r, j]

            for column, reached in users:
                while at < column:
                    pointer, at = k.at(pointer, column_step, F32), at + 1
                place = pointer if inside else k.ir.select(exist[column], pointer, outside)
                value = k.load(place, type_, mask=mask)
                if pattern is not None:
                    value = k.permute(value, pattern)
                for r in meets:
                    for pixel, j in reached:
                        i = r * pixels + pixel
                        results[i] = join(results[i], value, weight(r, j))

        # Rows between `first` and `last` meet every output row of the block; the others some of them.
        first, last = (rows - 1) * block.strides[0], height
        looped = last - first >= 3 or (rows == 1 and last - first > 1 and height * width * pixels > 100)

        def part(own_filters: Value | None, pattern: Value | None) -> None:
            """Add all rows; with groups, of one of their channels."""
            y = 0
            while y < block.lines:
                if looped and y == first:
                    start: Int = first
                    stop: Int = last
                    if not inside and dilation == 1:  # rows outside of the image are left out
                        start, stop = k.max(first, k.sub(0, top)), k.min(last, k.sub(size["height"], top))
                    with k.loop(start, stop, carry=results) as index:
                        line(index, list(range(rows)), own_filters, pattern)
                    y = last
                    continue
                meets = [r for r in range(rows) if 0 <= y - r * block.strides[0] < height]
                if meets:
                    line(y, meets, own_filters, pattern)
                y += 1

        if patterns is None:
            part(filters, None)
        else:
            with k.loop(0, block.group, carry=results) as number:
                pattern = k.load(k.at(patterns, k.mul(number, lanes), I32), vector(I32, lanes))
                part(k.at(filters, k.mul(number, height * width * lanes), F32), pattern)
        return results

    with k.loop(k.begin, k.end) as tile:
        image, (first_row, last_row), (first_channel, last_channel) = part_of(k, size, tile)
        source = k.at(x, k.mul(image, size["x_image"]), read)
        target = k.at(out, k.mul(image, size["out_image"]), stored)
        with (
            k.loop(first_row, last_row, rows) as row,
            k.loop(0, size["out_width"], pixels) as column,
        ):
            row_count = k.min(k.sub(last_row, row), rows)
            count = k.min(k.sub(size["out_width"], column), pixels)
            top = k.sub(k.mul(row, block.strides[0]), size["top"])
            left = k.sub(k.mul(column, block.strides[1]), size["left"])
            bottom = k.add(top, (block.lines - 1) * block.dilations[0])
            whole = k.ir.and_(k.compare("==", row_count, rows), k.compare("==", count, pixels))
            # As unsigned numbers, places before the image lie far behind it.
            inside = k.ir.and_(
                k.ir.and_(k.compare(">=", top, 0), k.compare("<", bottom, size["height"])),
                k.ir.and_(
                    k.compare(">=", left, 0), k.compare("<", k.add(left, block.columns - 1), size["width"])
                ),
            )
            corner = k.at(source, k.add(k.mul(top, size["x_row"]), k.mul(left, size["x_column"])), read)
            here = k.at(target, k.add(k.mul(row, size["out_row"]), k.mul(column, size["out_column"])), stored)
            with k.loop(first_channel, last_channel, lanes) as channel:
                mask = k.lanes_below(k.sub(size["channels"], channel), lanes) if block.masked else None
                if block.gather:
                    numbers = k.ir.add(k.broadcast(k.int(channel), lanes), index_lanes(lanes, I64))
                    sources = k.ir.udiv(numbers, k.broadcast(size["multiplier"], lanes))
                    offsets = k.ir.mul(sources, k.broadcast(size["x_channel"], lanes))
                    pack(corner, top, left, offsets, mask)
                elif block.packed:
                    pack(k.at(corner, channel, read), top, left, None, mask)
                # A block of weights is as many vectors as the window has places.
                filters = (
                    None
                    if weights is None
                    else k.at(weights, k.mul(channel, block.group * height * width), F32)
                )
                if block.packed:
                    results = accumulate(patch, top, left, filters, mask, True)
                else:
                    own = k.at(corner, channel, read)
                    results = k.either(
                        inside,
                        lambda: accumulate(own, top, left, filters, mask, True),
                        lambda: accumulate(own, top, left, filters, mask, False),
                    )
                first = k.at(here, k.mul(channel, size["out_channel"]), stored)
                prepared = prepare(Place(image, channel, row, column, mask))

                def store(
                    values: list[Value], r: Int, numbers: Sequence[Int], mask: Value | None = mask,
                    first: Value = first, channel: Int = channel, prepared: Any = prepared,
                ) -> None:  # fmt: skip
                    places = [Place(image, channel, k.add(row, r), k.add(column, p), mask) for p in numbers]
                    for value, p in zip(finish(values, places, prepared), numbers, strict=True):
                        pointer = k.at(
                            first, k.add(k.mul(size["out_row"], r), k.mul(size["out_column"], p)), stored
                        )
                        if block.scatter:
                            left_over = k.sub(size["channels"], channel) if block.masked else None
                            scatter_element(k, value, pointer, block.out, size["out_channel"], left_over)
                        else:
                            store_element(k, value, pointer, block.out, mask=mask)

                def through_scratch(results: list[Value]) -> None:
                    for i, value in enumerate(results):
                        k.store(value, spilled, i * lanes)
                    with (
                        k.loop(0, row_count, at_least_once=True) as r,
                        in_groups(k, count, together) as numbers,
                    ):
                        saved = k.at(spilled, k.mul(k.mul(r, pixels), lanes), F32)
                        store([k.load(saved, type_, k.mul(p, lanes)) for p in numbers], r, numbers)

                if unroll_finish:
                    with k.when(whole):
                        for i, value in enumerate(results):
                            store([value], i // pixels, [i % pixels])
                    with k.when(k.ir.not_(whole)):
                        through_scratch(results)
                else:
                    through_scratch(results)


def block_arguments(
    x: Layout, out: Layout, block: Block, top: int, left: int, multiplier: int, machine: Machine
) -> tuple[list[int], int, int]:
    """The values of SLOTS for x [N, C, H, W] and out [N, C * multiplier, Ho, Wo], with 0 for the addresses
    at PLACES; the number of tiles, and the bytes of scratch memory.

    A tile is a band of output rows of some channels: as many as leave the inputs of a turn in L1 from one
    block of pixels to the next.
    """
    (_, shape, x_strides), (_, (images, channels, out_height, out_width), strides) = x, out
    lanes, vector_bytes, rows = machine.lanes, machine.vector_bytes, block.rows
    vectors = -(-channels // lanes)
    turn = block.lines * block.columns * vector_bytes
    most = max(1, machine.l1_bytes // _PART_OF_L1 // turn)
    groups = -(-vectors // most)
    group_channels = -(-vectors // max(groups, 1)) * lanes
    groups = -(-channels // max(group_channels, 1))
    # Higher bands read less twice; there should be tiles enough to share out.
    steps = -(-out_height // rows)
    band_rows = rows * max(1, min(4, steps * images * max(groups, 1) // TILES))
    bands = -(-out_height // band_rows)
    arguments = [
        0, *x_strides, 0, *strides,
        channels, multiplier, shape[2], shape[3], out_height, out_width,
        top, left, bands, band_rows, groups, group_channels,
    ]  # fmt: skip
    scratch = turn + (1 + rows * block.pixels) * vector_bytes
    return arguments, images * bands * groups if out_width else 0, scratch
