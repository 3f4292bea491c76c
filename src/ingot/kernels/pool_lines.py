"""Pooling of images whose columns lie side by side (planes of channels): vectors of neighbouring columns.

A window is a product of intervals. For each row of the output, the rows of the window are first combined
into one line in scratch memory, with neutral elements where the padding is; then the columns of each window
of that line. So each element is loaded once for each row of windows, and no pixel at an edge is special.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ingot.codegen.builder import F32, I32, Builder, Int, Value, vector
from ingot.codegen.elements import load_element, memory_element, store_element
from ingot.codegen.machine import Machine
from ingot.kernels.call import View
from ingot.kernels.iteration import TILES, round_up

SLOTS = (
    "x", "x_image", "x_channel", "x_row", "out", "out_image", "out_channel", "out_row",
    "channels", "height", "width", "out_height", "out_width",
    "window_rows", "window_columns", "row_stride", "column_stride", "row_dilation", "column_dilation",
    "top", "left", "bands", "band_rows", "blocks", "block_columns",
)  # fmt: skip
#: rows and columns of a window that are written out; more of them are a loop
_UNROLL = 8
#: floats of a line in scratch memory
_LINE = 4096
#: elements of the window that a tile reads at least: some microseconds
_TILE = 1 << 15

#: (value so far, what is loaded) -> both; of the rows of a window, and of its columns
Join = Callable[[Value, Value], Value]
#: (value, first column, row, mask of the columns that exist) -> what is stored
Finish = Callable[[Value, Int, Int, Value | None], Value]


def fits(x: View, out: View) -> bool:
    """Whether columns lie side by side in x and out [N, C, spatial…], and channels do not."""
    sides = x.strides[-1] == out.strides[-1] == 1
    return sides and (x.strides[1] != 1 or x.shape[1] == 1) and out.shape[-1] >= 4 and x.rank <= 4


def emit_lines(
    k: Builder,
    rows: int,
    columns: int,
    stride: int,
    source: str,
    target: str,
    neutral: float,
    join_rows: Join,
    join_columns: Join,
    finish: Finish,
) -> None:
    """The loops. rows, columns: of the window, where they are written out; 0: a loop. stride: of columns, 1
    or 2 (with neighbouring taps, where it is 2), or 0: any.
    """
    lanes = k.machine.lanes
    type_, read, stored = vector(F32, lanes), memory_element(source), memory_element(target)
    size = {name: k.arg(name) for name in SLOTS if name not in ("x", "out")}
    x, out = k.pointer("x"), k.pointer("out")
    nothing, line = k.splat(neutral, type_), k.scratch
    column_stride: Int = stride or size["column_stride"]

    def fill(first: Int, last: Int) -> None:
        with k.loop(first, last, lanes) as place:
            k.store(nothing, line, place)

    def combine_rows(top: Int, plane: Value, start: Int, low: Int, high: Int) -> None:
        """line[c - start] = all rows of the window in column c, for the columns low to high of the image."""
        dilation = size["row_dilation"]
        above = k.choose(k.compare("<", top, 0), k.ceil_div(k.sub(0, top), dilation), 0)
        below = k.ceil_div(k.max(k.sub(size["height"], top), 0), dilation)
        first, last = k.int(above), k.min(size["window_rows"], below)
        step = k.mul(size["x_row"], dilation)
        corner = k.at(plane, k.mul(size["x_row"], top), read)

        def vectors(value_at: Callable[[Int, Value | None], Value]) -> None:
            whole = k.sub(high, k.rem(k.sub(high, low), lanes))
            with k.loop(low, whole, lanes) as column:
                k.store(value_at(column, None), line, k.sub(column, start))
            with k.loop(whole, high, lanes) as column:
                mask = k.lanes_below(k.sub(high, column), lanes)
                k.store(value_at(column, mask), line, k.sub(column, start))

        def written_out(column: Int, mask: Value | None) -> Value:
            value, pointer = nothing, corner
            for row in range(rows):
                pointer = k.at(pointer, step, read) if row else pointer
                value = join_rows(value, load_element(k, pointer, source, lanes, column, mask))
            return value

        def looped(column: Int, mask: Value | None) -> Value:
            carry = [nothing]
            with k.loop(first, last, carry=carry) as row:
                pointer = k.at(corner, k.mul(step, row), read)
                carry[:] = [join_rows(carry[0], load_element(k, pointer, source, lanes, column, mask))]
            return carry[0]

        if not rows:
            vectors(looped)
            return
        inside = k.ir.and_(k.compare("==", first, 0), k.compare("==", last, rows))
        with k.when(inside):
            vectors(written_out)
        with k.when(k.ir.not_(inside)):
            vectors(looped)

    def halves(place: Int) -> tuple[Value, Value]:
        """Every second float of the line from `place` on, and those between."""
        low, high = k.load(line, type_, place), k.load(line, type_, k.add(place, lanes))
        pick = [ir.Constant(vector(I32, lanes), [2 * i + odd for i in range(lanes)]) for odd in (0, 1)]
        return k.ir.shuffle_vector(low, high, pick[0]), k.ir.shuffle_vector(low, high, pick[1])

    def combine_columns(place: Int) -> Value:
        """The columns of the windows that begin at `place` of the line and behind it."""
        dilation = size["column_dilation"]
        if stride == 2 and columns:
            values: list[Value] = []
            for pair in range(0, columns, 2):
                values += halves(k.add(place, pair))
            value = values[0]
            for other in values[1:columns]:
                value = join_columns(value, other)
            return value

        def tap(number: Int) -> Value:
            where = k.add(place, k.mul(dilation, number))
            if stride == 1:
                return k.load(line, type_, where)
            return k.gather(k.at(line, where, F32), type_, column_stride)

        if columns:
            value = tap(0)
            for number in range(1, columns):
                value = join_columns(value, tap(number))
            return value
        carry = [tap(0)]
        with k.loop(1, size["window_columns"], carry=carry) as number:
            carry[:] = [join_columns(carry[0], tap(number))]
        return carry[0]

    with k.loop(k.begin, k.end) as tile:
        block, rest = k.rem(tile, size["blocks"]), k.div(tile, size["blocks"])
        band, rest = k.rem(rest, size["bands"]), k.div(rest, size["bands"])
        channel, image = k.rem(rest, size["channels"]), k.div(rest, size["channels"])
        plane, target_plane = (
            k.at(base, k.add(k.mul(image, size[f"{name}_image"]), k.mul(channel, size[f"{name}_channel"])), e)
            for base, name, e in ((x, "x", read), (out, "out", stored))
        )
        first_column = k.mul(block, size["block_columns"])
        count = k.min(size["block_columns"], k.sub(size["out_width"], first_column))
        start = k.sub(k.mul(first_column, column_stride), size["left"])
        reach = k.add(
            k.mul(k.sub(count, 1), column_stride),
            k.mul(k.sub(size["window_columns"], 1), size["column_dilation"]),
            1,
        )
        # Columns of the image; none of them where the whole block is padding, before or behind it.
        low = k.min(k.max(start, 0), size["width"])
        high = k.max(low, k.min(k.add(start, reach), size["width"]))
        first_row = k.mul(band, size["band_rows"])
        last_row = k.min(k.add(first_row, size["band_rows"]), size["out_height"])
        with k.loop(first_row, last_row) as row:
            top = k.sub(k.mul(row, size["row_stride"]), size["top"])
            fill(0, k.min(k.sub(low, start), reach))
            combine_rows(top, plane, start, low, high)
            fill(k.max(k.sub(high, start), 0), reach)
            here = k.at(target_plane, k.add(k.mul(row, size["out_row"]), first_column), stored)
            whole = k.sub(count, k.rem(count, lanes))
            with k.loop(0, whole, lanes) as column:
                value = combine_columns(k.mul(column, column_stride))
                value = finish(value, k.add(first_column, column), row, None)
                store_element(k, value, here, target, column)
            with k.loop(whole, count, lanes) as column:
                mask = k.lanes_below(k.sub(count, column), lanes)
                value = combine_columns(k.mul(column, column_stride))
                value = finish(value, k.add(first_column, column), row, mask)
                store_element(k, value, here, target, column, mask)


def written_out(size: int) -> int:
    """The parameter for so many rows or columns of a window."""
    return size if size <= _UNROLL else 0


def line_arguments(
    x: View,
    out: View,
    window: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    begins: tuple[int, int],
    machine: Machine,
) -> tuple[list[int | View], int, int]:
    """The slots' values for x [N, C, H, W] and out [N, C, Ho, Wo], the tiles, and the bytes of scratch."""
    images, channels, out_height, out_width = out.shape
    span = (window[1] - 1) * dilations[1] + 1
    blocks = max(1, -(-(out_width * strides[1]) // _LINE))
    block_columns = round_up(-(-out_width // blocks), machine.lanes)
    blocks = -(-out_width // block_columns)
    planes = images * channels * blocks
    row_work = block_columns * strides[1] * window[0]
    band_rows = max(1, min(out_height, max(_TILE // row_work, -(-out_height * planes // TILES))))
    bands = -(-out_height // band_rows)
    arguments: list[int | View] = [
        x, *x.strides[:3], out, *out.strides[:3],
        channels, x.shape[2], x.shape[3], out_height, out_width,
        *window, *strides, *dilations, *begins,
        bands, band_rows, blocks, block_columns,
    ]  # fmt: skip
    floats = block_columns * strides[1] + span + 3 * machine.lanes
    return arguments, planes * bands if out.size else 0, floats * 4
