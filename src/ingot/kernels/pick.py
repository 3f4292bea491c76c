"""Elements picked by a table along each axis: what Resize's mode nearest is.

A row of the output is made vector by vector: its elements lie in one or two vectors of the input's row, which
an instruction permutes. `pick` says where that is so; `resize.py` gathers elsewhere.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import I32, I64, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View, constant
from ingot.kernels.copy import as_bits
from ingot.kernels.pack import aligned_copy

_SLOTS = ("x", "out", "lanes", "first", "count", "width", "rows", "row_block", "row_blocks")
_TILE_BYTES = 1 << 15


def _slots(tabled: Sequence[bool]) -> tuple[str, ...]:
    names = [(f"n{d}", f"table{d}" if t else f"step{d}", f"out{d}") for d, t in enumerate(tabled)]
    return tuple(name for group in names for name in group)


@kernel(*_SLOTS)
def _pick(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    tabled: tuple[bool, ...],
    itemsize: int,
    loads: int,
    narrow: bool,
    short: bool,
) -> None:
    """Rows of picked elements, in blocks along the last of the outer dimensions.

    tabled: which outer dimensions have a table of offsets instead of a stride. loads: vectors of x that an
    output vector is picked from; 0 where rows are copied as they are. narrow: x's row is shorter than those.
    short: out's row is shorter than a vector.
    """
    element = ir.IntType(8 * itemsize)
    vector_bytes, unit = k.machine.permutation(itemsize) or (k.machine.vector_bytes, itemsize)
    lanes = vector_bytes // itemsize
    whole_vector, moved = vector(element, lanes), vector(ir.IntType(8 * unit), vector_bytes // unit)
    x, out, table, first = (k.pointer(name) for name in _SLOTS[:4])
    count, width, rows, row_block, row_blocks = (k.arg(name) for name in _SLOTS[4:])
    rank = len(tabled)
    sizes, steps_out = ([k.arg(f"{name}{d}") for d in range(rank)] for name in ("n", "out"))
    places = [k.pointer(f"table{d}") if t else k.arg(f"step{d}") for d, t in enumerate(tabled)]

    def offset(d: int, index: Int) -> Int:
        return k.load(places[d], I64, index) if tabled[d] else k.mul(index, places[d])

    def picked(line: Value, block: Int) -> Value:
        begin = k.ir.sext(k.load(first, I32, block), I64)
        pattern = k.load(k.at(table, k.mul(block, moved.count), moved.element), moved)
        found: list[Value] = []
        for number in range(loads):
            mask = k.lanes_below(k.sub(width, number * lanes), lanes) if narrow else None
            value = k.load(k.at(k.at(line, begin, element), number * lanes, element), whole_vector, mask=mask)
            found.append(k.permute(k.ir.bitcast(value, moved), pattern))
        value = found[0]
        if loads == 2:
            beyond = k.ir.icmp_unsigned(">=", pattern, k.splat(moved.count, moved))
            value = k.ir.select(beyond, found[1], value)
        return k.ir.bitcast(value, whole_vector)

    def row(line: Value, target: Value) -> None:
        if short:
            mask = k.lanes_below(count, lanes)
            k.store(picked(line, 0) if loads else k.load(line, whole_vector, mask=mask), target, mask=mask)
            return
        # The last vector ends where the row does, whatever it has in common with the one before.
        last = k.sub(count, lanes)
        with k.loop(0, k.ceil_div(count, lanes), at_least_once=True) as block:
            column = k.min(k.mul(block, lanes), last)
            value = picked(line, block) if loads else k.load(k.at(line, column, element), whole_vector)
            k.store(value, k.at(target, column, element))

    with k.loop(k.begin, k.end) as tile:
        rest, first_row = k.div(tile, row_blocks), k.mul(k.rem(tile, row_blocks), row_block)
        source, target = x, out
        for d in reversed(range(rank - 1)):
            index = rest if d == 0 else k.rem(rest, sizes[d])
            rest = rest if d == 0 else k.div(rest, sizes[d])
            source = k.at(source, offset(d, index), element)
            target = k.at(target, k.mul(index, steps_out[d]), element)
        with k.loop(first_row, k.min(rows, k.add(first_row, row_block))) as r:
            line = k.at(source, offset(rank - 1, r), element)
            row(line, k.at(target, k.mul(r, steps_out[rank - 1]), element))


def pick(x: View, out: View, axes: Mapping[int, np.ndarray], machine: Machine) -> Call | None:
    """out[i, j, …] = x[axes[0][i], axes[1][j], …]; an axis that has no table (int, at least 0) is x's own.

    None where rows of out are not made of neighbours in x: memory runs in other orders, or more than two
    vectors of x make one of out, or no instruction permutes elements of this size.
    """
    if x.dtype.itemsize == 8:  # as pairs of words, which more CPUs permute
        words = np.dtype(np.uint32)
        x, out = (
            View(v.buffer, v.offset, words, (*v.shape, 2), (*(2 * s for s in v.strides), 1)) for v in (x, out)
        )
    x, out = as_bits(x), as_bits(out)
    itemsize = x.dtype.itemsize
    dims = sorted(range(out.rank), key=lambda d: (out.shape[d] != 1, -abs(out.strides[d])))
    patterns = _Patterns(machine, itemsize)
    # The innermost dimensions that make a row: where in x its elements lie.
    row, dense = np.zeros(1, np.int64), True
    while dims and len(row) < 4 * patterns.lanes and out.strides[dims[-1]] == len(row):
        d = dims[-1]
        places = _places(x, out, axes, d)
        longer = (places[:, None] + row).ravel()
        still = dense and d not in axes and x.strides[d] == len(row)
        if not still and patterns.loads(longer) is None:
            break
        row, dense = longer, still
        dims.pop()
    if len(row) == 1:
        return None
    start = int(row.min())
    row -= start
    outer: list[tuple[int, np.ndarray | int, int]] = []  # size, offsets or stride in x, stride in out
    for d in dims:
        size, step = out.shape[d], out.strides[d]
        if size == 1:
            start += int(_places(x, out, axes, d)[0])
        elif d in axes:
            outer.append((size, _places(x, out, axes, d), step))
        else:
            own: int = x.strides[d]
            if (
                outer
                and not isinstance(outer[-1][1], np.ndarray)
                and outer[-1][1:] == (size * own, size * step)
            ):
                size *= outer.pop()[0]
            outer.append((size, own, step))
    outer = outer or [(1, 0, 0)]
    loads = 0 if dense else patterns.loads(row) or 0
    width = int(row.max()) + 1
    lanes, first = patterns.tables(row, loads) if loads else (np.zeros(1, np.uint8), np.zeros(1, np.int32))
    rows = outer[-1][0]
    row_block = min(rows, max(1, _TILE_BYTES // (len(row) * itemsize)))
    tabled = tuple(isinstance(places, np.ndarray) for _, places, _ in outer)
    tables = [constant(aligned_copy(lanes)), constant(first)]
    source = x.with_dims(x.shape, x.strides, start)
    args: list[int | View | Kernel] = [
        source, out, *tables, len(row), width, rows, row_block, -(-rows // row_block)
    ]  # fmt: skip
    for size, places, step in outer:
        if isinstance(places, np.ndarray):
            tables.append(constant(places))
            args += [size, tables[-1], step]
        else:
            args += [size, places, step]
    narrow = width < loads * patterns.lanes
    return Call(
        _pick(
            operands=_slots(tabled),
            tabled=tabled,
            itemsize=itemsize,
            loads=loads,
            narrow=narrow,
            short=len(row) < patterns.lanes,
        ),
        args,
        tiles=math.prod(size for size, _, _ in outer[:-1]) * -(-rows // row_block),
        reads=[x, *tables],
        writes=[out],
        label="resize",
    )


def _places(x: View, out: View, axes: Mapping[int, np.ndarray], d: int) -> np.ndarray:
    """Offsets in x of the elements along dimension d."""
    table, step = axes.get(d), operator.index(x.strides[d])
    return (np.arange(out.shape[d]) if table is None else table.astype(np.int64)) * step


class _Patterns:
    """How vectors of a row are picked from vectors of x, by this machine."""

    def __init__(self, machine: Machine, itemsize: int) -> None:
        found = machine.permutation(itemsize)
        self.permutes = found is not None
        self.itemsize = itemsize
        self.vector_bytes, self.unit = found or (machine.vector_bytes, itemsize)
        self.lanes = self.vector_bytes // itemsize

    def blocks(self, row: np.ndarray) -> np.ndarray:
        """[vectors, lanes], the last of which ends where the row does; of a short row it repeats the end."""
        if len(row) < self.lanes:
            return np.pad(row, (0, self.lanes - len(row)), mode="edge")[None]
        starts = np.minimum(np.arange(0, len(row), self.lanes), len(row) - self.lanes)
        return row[starts[:, None] + np.arange(self.lanes)]

    def loads(self, row: np.ndarray) -> int | None:
        """Vectors of x that one of the row is picked from: 1 or 2. None where there are more."""
        if not self.permutes:
            return None
        blocks = self.blocks(row)
        reach = int((blocks.max(1) - blocks.min(1)).max()) + 1
        return next((n for n in (1, 2) if reach <= n * self.lanes), None)

    def tables(self, row: np.ndarray, loads: int) -> tuple[np.ndarray, np.ndarray]:
        """Which lanes make each vector, in units of the permutation; and where its first load begins: where
        all of them lie within the row.
        """
        blocks = self.blocks(row)
        first = np.minimum(blocks.min(1), max(0, int(row.max()) + 1 - loads * self.lanes))
        parts = self.itemsize // self.unit
        lanes = (blocks - first[:, None])[..., None] * parts + np.arange(parts)
        return lanes.astype(f"uint{8 * self.unit}").ravel(), first.astype(np.int32)
