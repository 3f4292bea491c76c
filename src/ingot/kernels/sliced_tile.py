"""Tile registers at work: the product of sliced pixels and sliced weights, and what becomes of its sums.

A block is up to two registers of pixels by two of output channels, so four of sums. The nine products of
slices have five weights; those of the three highest are computed, one weight at a time:

    sums[0] = high · high
    sums[1] = high · middle + middle · high
    sums[2] = high · low + middle · middle + low · high

and go through memory to become (sums[0] · 2¹⁶ + sums[1] · 2⁸ + sums[2]) · scales in float32. What is left
out is below 2⁻²³ of the product of the two largest values. Convolutions add a fourth sum: a band has one
scale, most of its values are far below the largest, and networks have fifty of them in a row:

    sums[3] = middle · low + low · middle
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.codegen.builder import F32, I8, I32, I64, VOID, Builder, Int, Value, vector
from ingot.codegen.elements import I16
from ingot.codegen.kernel import kernel
from ingot.kernels.contract import Reach, finisher
from ingot.kernels.expression import Expression
from ingot.kernels.slices import (
    DEPTH,
    LANES,
    PANEL,
    SLICES,
    STEP_BYTES,
    TILE_BYTES,
)

TILE_SLOTS = (
    "a", "slice", "width",  # bytes from slice to slice, from position to position
    "b", "table", "steps", "rows",  # of pixels in a register
    "first", "positions", "line", "columns",  # of the block, the band; from row to row, and of them valid
    "row_scales", "row_scale", "column_scales", "special", "apart",
    "out", "out_column", "out_row", "out_channel", "valid",
)  # fmt: skip

#: Which slices of the pixels and of the weights are multiplied for each sum.
LEVELS = (((0, 0),), ((0, 1), (1, 0)), ((0, 2), (1, 1), (2, 0)))
FINE_LEVELS = (*LEVELS, ((1, 2), (2, 1)))
MOST_ROWS = 16  # of a tile register

# Not a multiple of 4096: loads would wait for stores to addresses that look alike.
_LEVEL_BYTES = 2 * MOST_ROWS * PANEL * 4 + 192
#: Scratch memory: the integer sums, then one position's sums.
SUMS_BYTES = len(FINE_LEVELS) * _LEVEL_BYTES + PANEL * 4
_SUMS, _PIXELS, _WEIGHTS = 0, 4, 6  # tile registers


class Tiles:
    """The instructions on tile registers; register numbers are constants."""

    def __init__(self, k: Builder) -> None:
        self._k = k

    def _emit(self, name: str, numbers: Sequence[int], *arguments: Value) -> None:
        k = self._k
        types = [I8] * len(numbers) + [a.type for a in arguments]
        function = k.declare(f"llvm.x86.{name}", VOID, types)
        k.ir.call(function, [*map(I8, numbers), *arguments])

    def configure(self, pointer: Value) -> None:
        """Set rows and bytes of all registers, from 64 bytes of memory."""
        self._emit("ldtilecfg", [], pointer)

    def release(self) -> None:
        """Give the registers back: their state need not be kept any more."""
        self._emit("tilerelease", [])

    def zero(self, register: int) -> None:
        self._emit("tilezero", [register])

    def load(self, register: int, pointer: Value, stride: Int) -> None:
        """Rows `stride` bytes apart."""
        self._emit("tileloadd64", [register], pointer, self._k.int(stride))

    def store(self, register: int, pointer: Value, stride: Int) -> None:
        self._emit("tilestored64", [register], pointer, self._k.int(stride))

    def multiply(self, sums: int, pixels: int, weights: int) -> None:
        """sums (int32) += pixels · weights, both signed bytes."""
        self._emit("tdpbssd", [sums, pixels, weights])


@kernel(*TILE_SLOTS)
def sliced_tile(
    k: Builder,
    *,
    tall: int,
    wide: int,
    masked: bool,
    matrix: bool,
    each: bool,
    fine: bool,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    operands: tuple[str, ...],
) -> None:
    """A block of `tall` registers of pixels and `wide` of channels. Strides of out and operands are in bytes.

    The table holds for each step where it begins, in bytes, and how many values of the contraction it has.
    The calling kernel has configured the registers: `rows` rows of 64 bytes for sums and pixels, 16 for
    weights. matrix: positions are rows of the output, which has one column. each: every position has a scale
    of its own. fine: the fourth sum too.
    """
    del operands  # they are in the slots already
    tiles = Tiles(k)
    rows, steps, table = k.arg("rows"), k.arg("steps"), k.pointer("table")
    a, b, width, slice_ = k.pointer("a"), k.pointer("b"), k.arg("width"), k.arg("slice")
    below = k.mul(rows, width)  # from one register's pixels to the next one's
    row_bytes = wide * LANES * 4
    # The lowest sum reads all of the weights in the order in which they lie: from memory the hardware's
    # prefetcher brings them faster than instructions could, and the other sums find them in the cache.
    for level, products in reversed(list(enumerate(FINE_LEVELS if fine else LEVELS))):
        for number in range(tall * wide):
            tiles.zero(_SUMS + number)
        with k.loop(0, steps, at_least_once=True) as step:
            here = k.at(a, k.ir.sext(k.load(table, I32, k.mul(step, 2)), I64), I8)
            weights = k.at(b, k.mul(step, STEP_BYTES), I8)
            for of_pixels, of_weights in products:
                start = k.at(here, k.mul(slice_, of_pixels), I8)
                for i in range(tall):
                    tiles.load(_PIXELS + i, k.at(start, below, I8) if i else start, width)
                for j in range(wide):
                    tile = k.at(weights, (of_weights * 2 + j) * TILE_BYTES, I8)
                    tiles.load(_WEIGHTS + j, tile, DEPTH)
                for i in range(tall):
                    for j in range(wide):
                        tiles.multiply(_SUMS + i * wide + j, _PIXELS + i, _WEIGHTS + j)
        sums = k.at(k.scratch, level * _LEVEL_BYTES, I8)
        for i in range(tall):
            start = k.at(sums, k.mul(rows, row_bytes), I8) if i else sums
            for j in range(wide):
                tiles.store(_SUMS + i * wide + j, k.at(start, j * LANES * 4, I8), row_bytes)
    _finish(k, tall, wide, masked, matrix, each, fine, out, epilogue, reaches)


def _finish(
    k: Builder,
    tall: int,
    wide: int,
    masked: bool,
    matrix: bool,
    each: bool,
    fine: bool,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
) -> None:
    """Integers to float32, the epilogue, and out."""
    first, line, columns = k.arg("first"), k.arg("line"), k.arg("columns")
    count = k.min(k.mul(k.arg("rows"), tall), k.sub(k.arg("positions"), first))
    scales = k.at(k.pointer("row_scales"), k.mul(first, k.arg("row_scale")), I8)
    pixel = finisher(k, wide, masked, out, epilogue, reaches)
    total = _totals(k, wide, scales, each, fine)
    if matrix:
        with k.loop(0, count, at_least_once=True) as number:
            pixel(k.add(first, number), 0, total(number))
        return
    place = [k.rem(first, line), k.div(first, line)]
    with k.loop(0, count, carry=place, at_least_once=True) as number:
        column, row = place
        with k.when(k.compare("<", column, columns)):
            pixel(row, column, total(number))
        ends = k.compare("==", column, k.sub(line, 1))
        place[:] = [k.choose(ends, 0, k.add(column, 1)), k.choose(ends, k.add(row, 1), row)]


def _totals(k: Builder, wide: int, scales: Value, each: bool, fine: bool) -> Callable[[Value], list[Value]]:
    """What emits a position's sums in float32, from the integers in scratch memory."""
    ints, type_ = vector(I32, LANES), vector(F32, LANES)
    own = [k.load(k.pointer("column_scales"), type_, v * LANES) for v in range(wide)]
    is_special = k.ir.icmp_signed("!=", k.load(k.pointer("special"), I64), I64(0))
    row_scale = k.arg("row_scale")
    whole = k.at(k.scratch, len(FINE_LEVELS) * _LEVEL_BYTES, I8)

    def scaled(scale: Value) -> list[Value]:
        back = k.broadcast(k.load(scale, F32), LANES)
        return [k.ir.fmul(back, column) for column in own]

    same = [] if each else scaled(scales)

    def total(number: Value) -> list[Value]:
        here = k.at(k.scratch, k.mul(number, wide * LANES * 4), I8)
        scale = k.at(scales, k.mul(number, row_scale), I8)
        factors = scaled(scale) if each else same
        usual: list[Value] = []
        for v in range(wide):
            sums = [
                k.ir.sitofp(k.load(k.at(here, level * _LEVEL_BYTES, I8), ints, v * LANES), type_)
                for level in range(len(FINE_LEVELS) if fine else len(LEVELS))
            ]
            value = sums[2]
            for level in (3, 1, 0) if fine else (1, 0):  # the small ones first
                value = k.fma(sums[level], k.splat(256.0 ** (2 - level), type_), value)
            usual.append(k.ir.fmul(value, factors[v]))

        def corrected() -> list[Value]:
            power = k.broadcast(k.load(scale, F32, 1), LANES)
            for v, value in enumerate(usual):
                k.store(k.ir.fmul(value, power), whole, v * LANES)
            _add_special(k, number, wide, whole)
            return [k.load(whole, type_, v * LANES) for v in range(wide)]

        return k.either(is_special, corrected, lambda: usual)

    return total


def _add_special(k: Builder, number: Value, wide: int, whole: Value) -> None:
    """Add to one position's sums the products, in float32, of its values that stand apart."""
    start, table = k.at(k.pointer("apart"), k.mul(number, k.arg("width")), F32), k.pointer("table")
    with k.loop(0, k.arg("steps")) as step:
        entry = k.at(table, k.mul(step, 2), I32)
        offset, depths = (k.ir.sext(k.load(entry, I32, i), I64) for i in range(2))
        here = k.at(start, offset, F32)
        with k.loop(0, depths, LANES) as first:
            left = k.sub(depths, first)
            values = k.load(k.at(here, first, F32), vector(F32, LANES), mask=k.lanes_below(left, LANES))
            found = k.ir.bitcast(k.ir.fcmp_unordered("!=", values, k.zero(values.type)), I16)
            with (
                k.when(k.ir.icmp_signed("!=", found, I16(0))),
                k.loop(first, k.add(first, k.min(left, LANES))) as depth,
            ):
                value = k.load(k.at(here, depth, F32), F32)
                with k.when(k.ir.fcmp_unordered("!=", value, F32(0.0))):
                    _add_product(k, value, step, depth, wide, whole)


def _add_product(k: Builder, value: Value, step: Value, depth: Value, wide: int, whole: Value) -> None:
    """Add value · the weights of this step and depth, put together from their slices."""
    ints, type_ = vector(I32, LANES), vector(F32, LANES)
    quad, byte = k.div(depth, 4), k.rem(depth, 4)
    shift = k.broadcast(k.ir.trunc(k.sub(24, k.mul(byte, 8)), I32), LANES)
    weights = k.at(k.pointer("b"), k.add(k.mul(step, STEP_BYTES), k.mul(quad, DEPTH)), I8)
    for v in range(wide):
        weight = k.splat(0, ints)
        for number in range(SLICES):
            word = k.load(k.at(weights, (number * 2 + v) * TILE_BYTES, I8), ints)
            digit = k.ir.ashr(k.ir.shl(word, shift), k.splat(24, ints))
            weight = k.ir.add(k.ir.shl(weight, k.splat(8, ints)), digit)
        scale = k.load(k.pointer("column_scales"), type_, v * LANES)  # of the lowest sum: 2¹⁶ times theirs
        real = k.ir.fmul(k.ir.sitofp(weight, type_), k.ir.fmul(scale, k.splat(2.0**-16, type_)))
        before = k.load(whole, type_, v * LANES)
        k.store(k.fma(k.broadcast(value, LANES), real, before), whole, v * LANES)
