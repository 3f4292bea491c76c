"""The register tile that matrix multiplication and convolution share, and what becomes of its sums.

A tile is `rows` × `columns` pixels by `vectors` vectors of output channels, all of it in registers over the
whole contraction. One step of it reads `unroll` values of each pixel and as many rows of weights:

    for step in table:  # offsets of the steps in the pixels' memory, in floats
        for c in range(unroll):
            for each pixel p and vector v:
                sum[p, v] += a[table[step] + p * pitch + c] * b[step * unroll + c, v]

So the layout of the pixels is a matter of the table and of two constants: matrices, images of channel
blocks and images read as they lie all run through it. The epilogue is computed on the sums before they are
stored.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from ingot.codegen.builder import F32, I8, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import (
    bytes_of,
    gather_element,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.codegen.products import add_bytes, add_pairs
from ingot.kernels import expression as expressions
from ingot.kernels.call import View, constant
from ingot.kernels.expression import Expression

TILE_SLOTS = (
    "a", "b", "out", "table", "steps", "count", "a_row", "out_column", "out_row", "out_channel", "valid",
    "next", "next_step", "next_tile",
)  # fmt: skip

#: What every 32 bits of a tile's factors are: a float, four bytes (unsigned ones of pixels, signed ones of
#: weights), or two signed 16-bit integers.
Numbers = Literal["float32", "bytes", "words"]

UNROLL = 4  # values of the contraction in a step, where nothing else decides

PANEL_VECTORS = 2  # vectors in a row of packed weights

# Tiles that should share a panel, even where their input takes more than its part of the cache: the panel
# comes from memory, and is used that often. Measured: 10 to 20 % at 3072 rows of weights.
SHARING = 6

# Scratch memory of a thread: arguments for the tile, arguments for the packing, one tile's sums, then what
# is packed.
FRAME_BYTES = 1024
SUMS_BYTES = 2048
PACKED_AT = 2 * FRAME_BYTES + SUMS_BYTES
MOST_OPERANDS = (FRAME_BYTES // 8 - len(TILE_SLOTS)) // 4

# An epilogue of more instructions than this is emitted once, in a loop over sums that went through memory.
_SHORT_EPILOGUE = 8

#: The dimensions of images.
AXES = ("image", "channel", "row", "column")
_ALONG_AXES = ("", *(f"_{axis}" for axis in AXES))


@dataclass(slots=True)
class Epilogue:
    """What becomes of each sum before it is stored. Never changed once it is made.

    Leaf 0 of `expression` is the sum, the others are `operands`, in order, each broadcastable to the shape
    of the output (at most MOST_OPERANDS). It has one result, the output's element.
    """

    expression: Expression
    operands: Sequence[View] = ()


@dataclass(frozen=True, slots=True)
class Reach:
    """How a view is reached along the output's channels, and whether it changes from pixel to pixel."""

    dtype: str
    channels: Literal["contiguous", "repeated", "strided"]
    per_pixel: bool = True
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.dtype, self.channels, self.per_pixel)))

    def __hash__(self) -> int:
        return self._hash


class Shape(NamedTuple):
    """Sizes of a register tile: most pixels, and vectors of output channels."""

    pixels: int
    vectors: int


@functools.lru_cache(256)
def register_tile(machine: Machine, channels: int | None = None, numbers: Numbers = "float32") -> Shape:
    """The largest tile whose sums, one step's weights and a temporary fit in the registers.

    Up to one vector of `channels` leaves registers for more pixels; 8 sums hide the latency of an FMA.
    """
    single = channels is not None and channels <= machine.lanes
    if numbers == "words" and not machine.byte_products:  # each product needs a register of its own
        if machine.registers >= 32:
            return Shape(24, 1) if single else Shape(12, 2)
        return Shape(8, 1) if single else Shape(4, 2)
    if machine.registers >= 32:
        if machine.vector_bytes == 16:  # AArch64, whose FMA reads no pixel from memory by itself
            return Shape(24, 1) if single else Shape(12, 2)
        return Shape(28, 1) if single else Shape(14, 2)
    if single:
        return Shape(8, 1)
    return Shape(6, 2) if machine.fma else Shape(4, 2)  # without FMA each product needs a register of its own


def split(total: int, most: int) -> tuple[int, int, int]:
    """`total` items in the fewest nearly equal parts of at most `most`.

    Returns how many parts, how many of them have one item more, and the size of the others.
    """
    parts = -(-total // most)
    size, taller = divmod(total, max(parts, 1))
    return parts, taller, size


def partial_sums(pixels: int, most: int, unroll: int) -> int:
    """How many sums each output of a tile is split into: enough of them hide the latency of an FMA."""
    wanted = 4 if pixels == 1 else 2 if pixels < 4 else 1
    return wanted if wanted * pixels <= most and unroll % wanted == 0 else 1


@functools.cache
def name_of(dtype: np.dtype) -> str:
    """The dtype's name (NumPy makes it anew each time, in microseconds)."""
    return dtype.name


def reach_of(view: View, channel_stride: int, pixel_strides: Sequence[int], channels: int) -> Reach:
    """The class of a view with these strides, in elements."""
    return reach(name_of(view.dtype), channel_stride, any(pixel_strides), channels)


def reach(dtype: str, channel_stride: int, per_pixel: bool, channels: int) -> Reach:
    """The same from what counts of a view."""
    if channel_stride == 1 or channels == 1:
        return _reach(dtype, "contiguous", per_pixel)
    return _reach(dtype, "strided" if channel_stride else "repeated", per_pixel)


@functools.cache
def _reach(dtype: str, kind: Literal["contiguous", "repeated", "strided"], per_pixel: bool) -> Reach:
    return Reach(dtype, kind, per_pixel)


def fetches(views: Sequence[View], machine: Machine) -> bool:
    """Whether the tiles of an output and operands of these sizes fetch them ahead: they are not in the cache.

    Measured: 7 to 19 % faster where they are not, up to 7 % slower where they are.
    """
    return sum(v.size * v.dtype.itemsize for v in views) > machine.l2_bytes // 2


def offsets_table(offsets: np.ndarray) -> View:
    """A table of steps as the tile reads it."""
    return constant(np.ascontiguousarray(offsets, np.int32))


@functools.cache
def operand_names(count: int) -> tuple[str, ...]:
    """The slots of an epilogue's operands: address, and bytes to the next column, row and channel."""
    if count > MOST_OPERANDS:
        raise ValueError(f"an epilogue has {count} operands; a tile takes at most {MOST_OPERANDS}")
    return operand_slots(count, ("", "_column", "_row", "_channel"))


def axis_slots(count: int) -> tuple[str, ...]:
    """The slots of operands that are read by their places: address, and bytes along each of AXES."""
    return operand_slots(count, _ALONG_AXES)


@functools.cache
def operand_slots(count: int, arrays: tuple[str, ...]) -> tuple[str, ...]:
    """The slots of a kernel's further operands. arrays: the ends of the names of each one's slots."""
    return tuple(f"x{i}{part}" for i in range(count) for part in arrays)


class Part(NamedTuple):
    """What a tile does that computes a part of the sums only: they begin with what lies at "start" (`starts`)
    instead of zeros; they go to "keep" as they are (`keeps`); what lies at "plus" is added (`adds`); at last
    comes the end of every tile (`finishes`). From tile to tile the pixels are "further" floats away, the
    sums `rows` rows of vectors, and the outputs `apart`.
    """

    rows: int
    apart: int
    starts: bool = False
    keeps: bool = False
    adds: bool = False
    finishes: bool = False


#: Further slots of such a tile; they come before those of the epilogue's operands.
PART_SLOTS = ("further", "start", "keep", "plus")


class Frame:
    """Arguments that a kernel prepares in memory for a kernel it calls."""

    def __init__(self, k: Builder, pointer: Value, slots: Sequence[str]) -> None:
        self._k, self.pointer = k, pointer
        self._index = {slot: i for i, slot in enumerate(slots)}

    def set(self, slot: str, value: Int) -> None:
        """Put an integer or a pointer into `slot`."""
        self._k.store(self._k.int(value), self.pointer, self._index[slot])


class Ahead(NamedTuple):
    """Which weights tiles fetch into L2 before they are needed, and how much of them at a time.

    Where several tiles share a panel, each fetches its part of the next panel: memory then works all the
    time, not only while the first tile waits for it. Fewer tiles fetch what they will need themselves,
    `near` bytes ahead. One pixel or a few wait for memory whatever they do. Measured on weights that come
    from memory: 5 to 40 % faster than if every tile fetches a little ahead, which is 10 to 35 % faster than
    if none does.
    """

    lines: int  # of 64 bytes in each step
    near: int  # bytes, or 0 for the next panel
    step: int  # bytes from what one step fetches to what the next one does
    tile: int  # bytes from tile to tile

    @staticmethod
    def of(tiles: int, pixels: int, steps: int, step_bytes: int) -> Ahead:
        """For `tiles` tiles that share a panel of `steps` steps."""
        if pixels < 4:
            return Ahead(0, 0, 0, 0)
        if tiles < 4:
            return Ahead(-(-step_bytes // 64), 8192, step_bytes, 0)
        step = -(-step_bytes // tiles)
        return Ahead(-(-step_bytes // 256), 0, step, step * steps)


@kernel(*TILE_SLOTS)
def tile(
    k: Builder,
    *,
    rows: int,
    columns: int,
    pitch: int,
    unroll: int,
    vectors: int,
    panel: int,
    sums: int,
    masked: bool,
    fetch: bool,
    fetched: int,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    operands: tuple[str, ...],
    numbers: Numbers = "float32",
    part: Part | None = None,
) -> None:
    """`count` tiles side by side. Pointers are of the first; strides of `out` and operands are in bytes, of
    a in floats.

    Each step fetches `fetched` lines of weights from `next` on, and each tile, with `fetch`, its output and
    operands. `panel` vectors lie in a row of weights, of which `vectors` are computed and `valid` channels
    stored. numbers: what every 32 bits of pixels and weights are; sums of integers are int32. part: where it
    is not the whole product that a tile computes.
    """
    del operands  # they are in the slots already
    lanes = k.machine.lanes
    unit = F32 if numbers == "float32" else I32
    type_ = vector(unit, lanes)
    a, b, table, steps = k.pointer("a"), k.pointer("b"), k.pointer("table"), k.arg("steps")
    a_row = k.arg("a_row") if rows > 1 else 0
    next_step = k.arg("next_step")
    pixels = rows * columns
    further = k.arg("further") if part else columns * pitch
    apart = part.apart if part else columns
    with k.loop(0, k.arg("count"), at_least_once=True) as number:
        corner = k.at(a, k.mul(number, further), F32)
        following = k.at(k.pointer("next"), k.mul(number, k.arg("next_tile")), I8)
        if fetch:
            _fetch_ends(k, k.mul(number, apart), rows, columns, vectors, out, reaches)

        total = [k.zero(type_) for _ in range(sums * pixels * vectors)]
        if part is not None and part.starts:
            start = _kept(k, "start", number, part.rows * vectors)
            total[: pixels * vectors] = [k.load(start, type_, i * lanes) for i in range(pixels * vectors)]
        with k.loop(0, steps, carry=total) as step:
            here = k.at(corner, k.ir.sext(k.load(table, I32, step), I64), F32)
            lines = [k.at(here, k.mul(a_row, row), F32) for row in range(rows)]
            weights = k.at(b, k.mul(step, unroll * panel * lanes), F32)
            if fetched:
                ahead = k.at(following, k.mul(step, next_step), I8)
                for line in range(fetched):
                    k.prefetch(ahead, line * 64, I8, locality=2)
            for c in range(unroll):
                if c:
                    # Emits nothing, but keeps LLVM from loading weights early or holding pixels for later:
                    # the sums fill the registers, and either makes it spill them.
                    k.ir.fence("seq_cst", "singlethread")
                held = [k.load(weights, type_, (c * panel + v) * lanes) for v in range(vectors)]
                for p in range(pixels):
                    value = k.load(lines[p // columns], unit, p % columns * pitch + c)
                    value = k.broadcast(value, lanes)
                    for v in range(vectors):
                        at = ((c % sums) * pixels + p) * vectors + v
                        total[at] = _multiply(k, numbers, value, held[v], total[at])
        add = k.ir.fadd if numbers == "float32" else k.ir.add
        while len(total) > pixels * vectors:
            half = len(total) // 2
            total = [add(x, y) for x, y in zip(total[:half], total[half:], strict=True)]
        if part is not None and part.keeps:
            keep = _kept(k, "keep", number, part.rows * vectors)
            for i, value in enumerate(total):
                k.store(value, keep, i * lanes)
        if part is not None and part.adds:
            plus = _kept(k, "plus", number, part.rows * vectors)
            total = [k.ir.fadd(value, k.load(plus, type_, i * lanes)) for i, value in enumerate(total)]
        if part is None or part.finishes:
            _finish(k, total, k.mul(number, apart), rows, columns, vectors, masked, out, epilogue, reaches)


def _kept(k: Builder, slot: str, number: Value, vectors: int) -> Value:
    """Where the sums of one of the tiles lie that are of so many vectors each."""
    return k.at(k.pointer(slot), k.mul(number, vectors * k.machine.lanes), F32)


class Tiling(NamedTuple):
    """What the register tiles of a product have in common: the most positions of one, vectors of a panel,
    outputs of the last panel, whether it is the only one, and what `tile` says of the others.
    """

    most: int
    panel: int
    last: int
    is_single: bool
    lanes: int
    fetch: bool
    fetched: int
    pitch: int
    unroll: int


@functools.lru_cache(2048)
def register_tiles(
    heights: tuple[int, ...],
    widths: tuple[int, ...],
    tiling: Tiling,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    numbers: Numbers,
) -> list[Kernel]:
    """A tile for each height and width, for whole panels and then for the last one."""
    own = {} if numbers == "float32" else {"numbers": numbers}
    sizes = list(itertools.product((tiling.is_single, True), heights, widths))
    made: dict[tuple[bool, int, int], Kernel] = {}
    for size in sizes:
        if size in made:
            continue
        is_last, rows, columns = size
        made[size] = tile(
            rows=rows,
            columns=columns,
            pitch=tiling.pitch,
            unroll=tiling.unroll,
            panel=tiling.panel,
            vectors=-(-tiling.last // tiling.lanes) if is_last else tiling.panel,
            fetch=tiling.fetch,
            fetched=tiling.fetched,
            sums=partial_sums(rows * columns, tiling.most, tiling.unroll),
            masked=is_last and tiling.last % tiling.lanes != 0,
            out=out,
            epilogue=epilogue,
            reaches=reaches,
            operands=operand_names(len(reaches)),
            **own,
        )
    return [made[size] for size in sizes]


def _multiply(k: Builder, numbers: Numbers, value: Value, weights: Value, total: Value) -> Value:
    """total + value · weights, lane by lane."""
    if numbers == "float32":
        return k.fma(value, weights, total)
    return (add_bytes if numbers == "bytes" else add_pairs)(k, total, value, weights)


def _fetch_ends(
    k: Builder,
    first_column: Int,
    rows: int,
    columns: int,
    vectors: int,
    out: Reach,
    reaches: tuple[Reach, ...],
) -> None:
    """Start fetching what the epilogue will read and write: by the end of the contraction it is there."""
    ends = {"out": out, **{f"x{i}": reach for i, reach in enumerate(reaches) if reach.per_pixel}}
    for name, reach in ends.items():
        if reach.channels != "contiguous":
            continue
        column = k.arg(f"{name}_column")
        corner = k.at(k.pointer(name), k.mul(first_column, column), I8)
        for row in range(rows):
            here = k.at(corner, k.mul(k.arg(f"{name}_row"), row), I8) if row else corner
            for p in range(columns):
                for line in range(0, vectors * k.machine.vector_bytes, 64):
                    k.prefetch(k.at(here, k.mul(column, p), I8), line, I8, write=name == "out")


@dataclass(frozen=True, slots=True)
class _Reader:
    """One operand of the epilogue inside a tile."""

    reach: Reach
    corner: Value
    column: Value
    row: Value
    channel: Value  # in elements


def elements(k: Builder, stride: Value, dtype: str) -> Value:
    """A stride in bytes, perhaps negative, in elements."""
    return k.ir.ashr(stride, I64(bytes_of(dtype).bit_length() - 1))


def _finish(
    k: Builder,
    total: list[Value],
    first_column: Int,
    rows: int,
    columns: int,
    vectors: int,
    masked: bool,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
) -> None:
    """Apply the epilogue to a tile's sums and store them."""
    lanes = k.machine.lanes
    pixel = finisher(k, vectors, masked, out, epilogue, reaches, first_column)
    if epilogue is None or epilogue.weight <= _SHORT_EPILOGUE:
        for p in range(rows * columns):
            pixel(p // columns, p % columns, total[p * vectors : (p + 1) * vectors])
        return
    for i, value in enumerate(total):
        k.store(value, k.scratch, i * lanes)
    with k.loop(0, rows) as row, k.loop(0, columns) as column:
        saved = k.at(k.scratch, k.mul(k.add(k.mul(row, columns), column), vectors * lanes), F32)
        pixel(row, column, [k.load(saved, total[0].type, v * lanes) for v in range(vectors)])


def finisher(
    k: Builder,
    vectors: int,
    masked: bool,
    out: Reach,
    epilogue: Expression | None,
    reaches: tuple[Reach, ...],
    first_column: Int = 0,
) -> Callable[[Int, Int, Sequence[Value]], None]:
    """What emits `pixel(row, column, sums)`: apply the epilogue to one pixel's vectors of sums and store
    them, in slots "out", "x0" … and their strides; columns count from `first_column` on.
    """
    lanes = k.machine.lanes
    valid = k.arg("valid") if masked or out.channels == "strided" else vectors * lanes
    masks = [k.lanes_below(k.sub(valid, v * lanes), lanes) if masked else None for v in range(vectors)]
    out_column, out_row = k.arg("out_column"), k.arg("out_row")
    corner = k.at(k.pointer("out"), k.mul(out_column, first_column), I8)
    out_channel = elements(k, k.arg("out_channel"), out.dtype) if out.channels == "strided" else 1
    readers: list[_Reader] = []
    for i, reach in enumerate(reaches):
        column, row = (k.arg(f"x{i}_{d}") if reach.per_pixel else 0 for d in ("column", "row"))
        start = k.at(k.pointer(f"x{i}"), k.mul(column, first_column), I8)
        channel = elements(k, k.arg(f"x{i}_channel"), reach.dtype) if reach.channels == "strided" else 1
        readers.append(_Reader(reach, start, column, row, channel))

    def read(reader: _Reader, row: Int, column: Int, v: int) -> Value:
        where = k.at(reader.corner, k.add(k.mul(reader.row, row), k.mul(reader.column, column)), I8)
        dtype, kind = reader.reach.dtype, reader.reach.channels
        if kind == "contiguous":
            return load_element(k, where, dtype, lanes, v * lanes, masks[v])
        if kind == "repeated":
            return k.broadcast(load_element(k, where, dtype, 1), lanes)
        first = k.at(where, k.mul(reader.channel, v * lanes), memory_element(dtype))
        return gather_element(k, first, dtype, lanes, reader.channel, k.sub(valid, v * lanes))

    fixed = {
        (i, v): read(reader, 0, 0, v)
        for i, reader in enumerate(readers)
        if not reader.reach.per_pixel
        for v in range(vectors)
    }

    def pixel(row: Int, column: Int, sums: Sequence[Value]) -> None:
        where = k.at(corner, k.add(k.mul(out_row, row), k.mul(out_column, column)), I8)
        values = list(sums)
        if epilogue is not None:

            def leaf(i: int, v: int) -> Value:
                return fixed[i, v] if (i, v) in fixed else read(readers[i], row, column, v)

            leaves = [[value, *(leaf(i, v) for i in range(len(readers)))] for v, value in enumerate(values)]
            values = [results[0] for results in expressions.emit_vectors(k, epilogue, leaves, lanes)]
        for v, value in enumerate(values):
            if out.channels == "contiguous":
                store_element(k, value, where, out.dtype, v * lanes, masks[v])
            else:
                first = k.at(where, k.mul(out_channel, v * lanes), memory_element(out.dtype))
                scatter_element(k, value, first, out.dtype, out_channel, k.sub(valid, v * lanes))

    return pixel
