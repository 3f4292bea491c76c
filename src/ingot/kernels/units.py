"""Bytes packed for the register tile: in units of 32 bits, which take the place of a float32 in contract.py.

    bytes  four neighbours of the contraction; pixels unsigned, weights signed
    words  two neighbours, each widened to 16 bits

Bytes of the other sign are moved by 128 (their highest bit is turned over), and their zero point with them.
With weights b' less their zero points and pixels a' as they are packed,

    Σ (a - a_zero) · (b - b_zero) = Σ a' · b' - a_zero' · Σ b'

so the pixels' zero point costs one vector for each column (`IntegerWeights.sums`), and padding is filled with
it. Units of weights behind the end are 0; those of pixels hold whatever lies there.

A machine that multiplies bytes gets bytes, unless a zero point of the weights leaves them no sign bit: then,
and on other machines, words.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import I8, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import I16
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.lanes import index_lanes
from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, View, constant, row_major
from ingot.kernels.contract import PANEL_VECTORS, UNROLL, Numbers, name_of
from ingot.kernels.pack import PACK_SLOTS, PackedWeights, aligned_floats, run_now

#: How many values lie in a unit.
VALUES: dict[str, int] = {"bytes": 4, "words": 2}
DTYPES = ("int8", "uint8")


def steps_of(units: int, numbers: Numbers, machine: Machine) -> int:
    """Units in a step of the tile: few of them are not rounded up to many.

    One where products and sums are instructions of their own: LLVM adds up the products of a step first, and
    spills them.
    """
    if numbers == "words" and not machine.byte_products:
        return 1
    return UNROLL if units % UNROLL == 0 or units > 2 * UNROLL else 2 if units % 2 == 0 else 1


def flips(numbers: Numbers, dtype: str) -> bool:
    """Whether the pixels' highest bits are turned over."""
    return numbers == "bytes" and dtype == "int8"


def _widened(k: Builder, value: Value, element: ir.IntType, signed: bool) -> Value:
    type_ = ir.VectorType(element, value.type.count) if isinstance(value.type, ir.VectorType) else element
    return k.ir.sext(value, type_) if signed else k.ir.zext(value, type_)


class _Units:
    """How pixels become units."""

    def __init__(self, k: Builder, dtype: str, numbers: Numbers) -> None:
        self.k, self.numbers = k, numbers
        self.values, self.signed = VALUES[numbers], dtype == "int8"
        self._flip = flips(numbers, dtype)

    def whole(self, pointer: Value, units: int) -> Value:
        """`units` units of values that lie side by side."""
        k = self.k
        value = k.load(pointer, vector(I8, units * self.values))
        if self.numbers == "words":
            value = _widened(k, value, I16, self.signed)
        elif self._flip:
            value = k.ir.xor(value, k.splat(-128, value.type))
        return k.ir.bitcast(value, vector(I32, units))

    def joined(self, values: Sequence[Value]) -> Value:
        """One unit of each lane, from bytes that lie apart."""
        k, width = self.k, 32 // self.values
        parts: list[Value] = []
        for i, value in enumerate(values):
            if self._flip:
                value = k.ir.xor(value, k.splat(-128, value.type))
            wide: Value = _widened(k, value, I32, self.signed and self.numbers == "words")
            if self.signed and self.numbers == "words":
                wide = k.ir.and_(wide, k.splat((1 << width) - 1, wide.type))
            parts.append(k.ir.shl(wide, k.splat(i * width, wide.type)))
        return functools.reduce(k.ir.or_, parts)


def repeated(k: Builder, pointer: Value, dtype: str, numbers: Numbers) -> Value:
    """A unit (i32) of nothing but the byte that lies there: what padding is filled with."""
    units = _Units(k, dtype, numbers)
    return units.joined([k.load(pointer, I8)] * units.values)


@kernel(*PACK_SLOTS)
def pack_units(k: Builder, *, mode: str, dtype: str, numbers: Numbers) -> None:
    """Blocks begin..end of one matrix of pixels, as `pack` does it: target[block][row][lanes of units].

    mode: "copy" where a row's values lie side by side, "transpose" where rows do, else "gather". inner: how
    many values a row has. Strides are in bytes.
    """
    units, lanes = _Units(k, dtype, numbers), k.machine.lanes
    rows, inner = k.arg("rows"), k.arg("inner")
    source_row, source_inner = k.arg("source_row"), k.arg("source_inner")
    source, target = k.pointer("source"), k.pointer("target")
    block_units = k.mul(k.arg("pitch"), lanes)

    def one(line: Value, unit: Int, goal: Value) -> None:
        """A single unit; behind the last value that one is repeated."""
        values: list[Value] = []
        for i in range(units.values):
            at = k.min(k.add(k.mul(unit, units.values), i), k.sub(inner, 1))
            values.append(k.load(k.at(line, k.mul(at, source_inner), I8), I8))
        k.store(units.joined(values), goal)

    def count_of(block: Value) -> Int:
        """Units of a block that have a value."""
        return k.min(k.sub(k.ceil_div(inner, units.values), k.mul(block, lanes)), lanes)

    with k.loop(k.begin, k.end) as block:
        first = k.mul(block, lanes)  # unit
        count = count_of(block)
        goal = k.at(target, k.mul(block, block_units), I32)
        if mode == "copy":
            left = k.sub(inner, k.mul(first, units.values))
            full = k.min(k.div(left, units.values), lanes)
            with k.loop(0, rows) as row:
                line = k.at(source, k.mul(row, source_row), I8)
                here, there = k.at(line, k.mul(first, units.values), I8), k.at(goal, k.mul(row, lanes), I32)
                whole = k.compare("==", full, lanes)
                with k.when(whole):
                    k.store(units.whole(here, lanes), there)
                with k.when(k.ir.not_(whole)):
                    pieces = k.mul(k.div(full, UNROLL), UNROLL)
                    with k.loop(0, pieces, UNROLL) as unit:
                        at = k.at(here, k.mul(unit, units.values), I8)
                        k.store(units.whole(at, UNROLL), there, unit)
                    with k.loop(pieces, full) as unit:
                        at = k.at(here, k.mul(unit, units.values), I8)
                        k.store(units.whole(at, 1), k.at(there, unit, I32))
                    with k.loop(full, count) as unit:
                        one(line, k.add(first, unit), k.at(there, unit, I32))
            continue_rows: Int = rows
        elif mode == "transpose":
            continue_rows = k.mul(k.div(rows, lanes), lanes)
            with k.loop(0, count) as unit:
                lines: list[Value] = []
                for i in range(units.values):
                    at = k.min(k.add(k.mul(k.add(first, unit), units.values), i), k.sub(inner, 1))
                    lines.append(k.at(source, k.mul(at, source_inner), I8))
                with k.loop(0, continue_rows, lanes) as row:
                    found = [k.load(k.at(line, row, I8), vector(I8, lanes)) for line in lines]
                    where = k.at(k.at(goal, k.mul(row, lanes), I32), unit, I32)
                    k.scatter(units.joined(found), where, lanes)
        else:
            continue_rows = 0
        if mode != "copy":
            with k.loop(continue_rows, rows) as row, k.loop(0, count) as unit:
                line = k.at(source, k.mul(row, source_row), I8)
                one(line, k.add(first, unit), k.at(k.at(goal, k.mul(row, lanes), I32), unit, I32))


FACTOR_SLOTS = (
    "source", "source_inner", "source_column", "source_matrix",  # address; bytes to the next of each
    "zero", "zero_column", "zero_matrix",
    "target", "target_matrix", "sums", "sums_matrix",  # units from matrix to matrix
    "depth", "rows", "columns", "panels",
)  # fmt: skip


@kernel(*FACTOR_SLOTS)
def pack_factor(k: Builder, *, dtype: str, numbers: Numbers, columns: str, has_zero: bool) -> None:
    """Panels begin..end of matrices [depth, columns] of weights, and the sums of their columns.

    columns: "contiguous" where a row's values lie side by side, "deep" where a column's do, else "strided".
    Of words the zero point is subtracted; of bytes the highest bits of unsigned ones are turned over.
    """
    lanes = k.machine.lanes
    panels, wide = k.arg("panels"), PANEL_VECTORS * lanes
    with k.loop(k.begin, k.end) as work:
        panel, matrix = k.rem(work, panels), k.div(work, panels)
        source, zero = (
            k.at(k.pointer(name), k.mul(matrix, k.arg(f"{name}_matrix")), I8) for name in ("source", "zero")
        )
        target = k.at(k.pointer("target"), k.mul(matrix, k.arg("target_matrix")), I32)
        target = k.at(target, k.mul(panel, k.mul(k.arg("rows"), wide)), I32)
        sums = k.at(k.pointer("sums"), k.mul(matrix, k.arg("sums_matrix")), I32)
        for v in range(PANEL_VECTORS):
            first = k.add(k.mul(panel, wide), v * lanes)
            left = k.max(k.sub(k.arg("columns"), first), 0)
            whole = k.compare(">=", left, lanes)
            mask = k.lanes_below(left, lanes)
            here = k.at(source, k.mul(first, k.arg("source_column")), I8)
            factor = _Factor(k, dtype, numbers, columns, k.at(target, v * lanes, I32))
            zeros: Value = None
            if has_zero:
                at = k.at(zero, k.mul(first, k.arg("zero_column")), I8)
                zeros = factor.wide(_bytes(k, at, k.arg("zero_column"), lanes, mask))
            for on, condition in ((None, whole), (mask, k.ir.not_(whole))):
                with k.when(condition):
                    k.store(factor.pack(here, zeros, on), k.at(sums, first, I32))


class _Factor:
    """One vector of columns."""

    def __init__(self, k: Builder, dtype: str, numbers: Numbers, columns: str, target: Value) -> None:
        self.k, self.lanes = k, k.machine.lanes
        self.values, self.width = VALUES[numbers], 32 // VALUES[numbers]
        self.signed, self.turned = dtype == "int8", numbers == "bytes" and dtype == "uint8"
        self.columns, self.target = columns, target
        self.words = vector(I32, self.lanes)

    def wide(self, value: Value) -> Value:
        """Bytes as 32-bit integers."""
        return _widened(self.k, value, I32, self.signed)

    def pack(self, here: Value, zeros: Value | None, mask: Value | None) -> Value:
        """All of its units; returns the sums of its columns."""
        k, total = self.k, [self.k.splat(0, self.words)]
        whole: Int = 0
        if self.columns == "deep" and self.values == 4 and zeros is None:
            whole = k.div(k.arg("depth"), self.values)
            self._deep(here, mask, whole, total)
        with k.loop(whole, k.arg("rows"), carry=total) as row:
            unit = k.splat(0, self.words)
            for i in range(self.values):
                value = self._value(here, k.add(k.mul(row, self.values), i), zeros, mask)
                total[0] = k.ir.add(total[0], value)
                value = k.ir.and_(value, k.splat((1 << self.width) - 1, self.words))
                unit = k.ir.or_(unit, k.ir.shl(value, k.splat(i * self.width, self.words)))
            k.store(unit, k.at(self.target, k.mul(row, PANEL_VECTORS * self.lanes), I32))
        return total[0]

    def _value(self, here: Value, depth: Int, zeros: Value | None, mask: Value | None) -> Value:
        """One row of the matrix; 0 behind its end."""
        k, lanes = self.k, self.lanes
        exists = k.broadcast(k.compare("<", depth, k.arg("depth")), lanes)
        last = k.sub(k.arg("depth"), 1)
        line = k.at(here, k.mul(k.min(depth, last), k.arg("source_inner")), I8)
        if self.columns == "contiguous":
            value = k.load(line, vector(I8, lanes), mask=mask)
        else:
            value = _bytes(k, line, k.arg("source_column"), lanes, mask)
        value = self.wide(value)
        if self.turned:
            value = k.ir.sub(value, k.splat(128, self.words))
        if zeros is not None:
            value = k.ir.sub(value, zeros)
        there = exists if mask is None else k.ir.and_(exists, mask)
        return k.ir.select(there, value, k.splat(0, self.words))

    def _deep(self, here: Value, mask: Value | None, rows: Int, total: list[Value]) -> None:
        """Whole units, whose four bytes lie side by side."""
        k, lanes = self.k, self.lanes
        offsets = k.ir.mul(index_lanes(lanes, I64), k.broadcast(k.arg("source_column"), lanes))
        with k.loop(0, rows, carry=total) as row:
            unit = k.gather_at(k.at(here, k.mul(row, 4), I8), offsets, self.words, mask, step=I8)
            if self.turned:
                unit = k.ir.xor(unit, k.splat(0x80808080 - (1 << 32), self.words))
                if mask is not None:
                    unit = k.ir.select(mask, unit, k.splat(0, self.words))
            for shift in (24, 16, 8, 0):
                byte = k.ir.ashr(k.ir.shl(unit, k.splat(shift, self.words)), k.splat(24, self.words))
                total[0] = k.ir.add(total[0], byte)
            k.store(unit, k.at(self.target, k.mul(row, PANEL_VECTORS * lanes), I32))


def _bytes(k: Builder, pointer: Value, step: Int, lanes: int, mask: Value | None) -> Value:
    """Bytes that lie `step` apart; lanes off the mask are not read and are 0."""
    offsets = k.ir.mul(index_lanes(lanes, I64), k.broadcast(k.int(step), lanes))
    return k.gather_at(pointer, offsets, vector(I8, lanes), mask)


@dataclass(frozen=True, slots=True)
class IntegerWeights(PackedWeights):
    """Panels of units; `k` counts units, `depth` the contraction's values. `sums`: int32 [*batch, columns
    rounded up to whole panels], of the weights as they are packed.
    """

    numbers: Numbers
    depth: int
    sums: View
    step: int  # units in a step of the tile

    def columns(self) -> View:
        """The sums [*batch, 1, n]."""
        shape, strides = self.sums.shape, self.sums.strides
        return self.sums.with_dims((*shape[:-1], 1, self.n), (*strides[:-1], 0, 1))


def check_bytes(subject: str, dtype: np.dtype) -> str:
    """The dtype's name, if a matrix of it can be packed as units."""
    name = name_of(dtype)
    if name not in DTYPES:
        raise UnsupportedOperatorError(
            f"{subject}: found {name}, generated products of integers want {' or '.join(DTYPES)}; "
            "let the host compute it"
        )
    return name


def numbers_for(dtype: str, zero: np.ndarray | None, has_zero: bool, machine: Machine) -> Numbers:
    """Bytes where the machine multiplies them and weights of this zero point are signed bytes, else words.

    zero: the weights' zero point where it is known.
    """
    if not machine.byte_products or (has_zero and zero is None):
        return "words"
    middle = 128 if dtype == "uint8" else 0
    found = np.zeros((), np.int32) if zero is None else zero.astype(np.int32)
    return "bytes" if bool((found == middle).all()) else "words"


def _weights(source: View, numbers: Numbers, machine: Machine) -> IntegerWeights:
    """Where weights [*batch, depth, n] will lie once they are packed."""
    depth, n = source.shape[-2:]
    batch = tuple(1 if s == 0 else m for m, s in zip(source.shape[:-2], source.strides[:-2], strict=True))
    units, panel = -(-depth // VALUES[numbers]), PANEL_VECTORS * machine.lanes
    step = steps_of(units, numbers, machine)
    rows, panels = -(-units // step) * step, -(-n // panel)
    count = math.prod(batch)
    buffers = Buffer(count * panels * rows * panel * 4), Buffer(count * panels * panel * 4)
    view = View(buffers[0], 0, np.dtype(np.int32), (buffers[0].nbytes // 4,), (1,))
    sums = View(buffers[1], 0, np.dtype(np.int32), (*batch, panels * panel), (0,) * (len(batch) + 1))
    sums = sums.with_dims(sums.shape, row_major(sums.shape))
    return IntegerWeights(view, units, n, batch, rows, panel, numbers, depth, sums, step)


def pack_factor_calls(
    source: View, zero: View | None, numbers: Numbers, machine: Machine
) -> tuple[list[Call], IntegerWeights]:
    """Calls that pack weights [*batch, depth, n] of int8 or uint8, less their zero point, which broadcasts to
    [*batch, 1, n]. Dimensions that repeat (stride 0) are packed once.
    """
    check_bytes("second factor of a product of integers", source.dtype)
    packed = _weights(source, numbers, machine)
    if not packed.sums.buffer.nbytes:
        return [], packed
    inner, column = source.strides[-2:]
    columns = "contiguous" if column == 1 else "deep" if inner == 1 else "strided"
    zero = zero if numbers == "words" else None
    zeros = None if zero is None else zero.broadcast_to((*source.shape[:-2], 1, packed.n))
    code = pack_factor(
        dtype=name_of(source.dtype), numbers=numbers, columns=columns, has_zero=zero is not None
    )
    matrix, calls = packed.matrix, list[Call]()
    outer, (count, step, zero_step) = packed.batch[:-1], (1, 0, 0)
    if packed.batch:
        count, step = packed.batch[-1], source.strides[-3]
        zero_step = 0 if zeros is None else zeros.strides[-3]
    for number, index in enumerate(itertools.product(*(range(n) for n in outer))):

        def at(view: View, index: tuple[int, ...] = index) -> View:
            moved = sum(i * s for i, s in zip(index, view.strides, strict=False))
            return replace(view, offset=view.offset + moved * view.dtype.itemsize)

        first = number * count
        arguments: list[int | View | Kernel] = [
            at(source), inner, column, step,
            0 if zeros is None else at(zeros), 0 if zeros is None else zeros.strides[-1], zero_step,
            packed.view.with_dims((count * matrix,), (1,), first * matrix), matrix,
            packed.sums.with_dims((count * packed.panels * packed.panel,), (1,),
                                  first * packed.panels * packed.panel), packed.panels * packed.panel,
            packed.depth, packed.rows, packed.n, packed.panels,
        ]  # fmt: skip
        reads = [source] if zeros is None else [source, zeros]
        writes = [packed.view, packed.sums]
        calls.append(Call(code, arguments, count * packed.panels, reads, writes, label="pack"))
    return calls, packed


def pack_integers(
    array: np.ndarray, zero: np.ndarray | None, numbers: Numbers, machine: Machine
) -> IntegerWeights:
    """Pack constant matrices [*batch, depth, n] of int8 or uint8; see `pack_factor_calls`."""
    if array.strides[-1] != 1:
        array = np.ascontiguousarray(array)
    calls, packed = pack_factor_calls(
        constant(array), None if zero is None else constant(zero), numbers, machine
    )
    memory, sums = aligned_floats(packed.view.size), np.zeros(packed.sums.shape, np.int32)
    buffers = {id(packed.view.buffer): memory.ctypes.data, id(packed.sums.buffer): sums.ctypes.data}

    def address(argument: int | View | Kernel) -> int:
        assert not isinstance(argument, Kernel)
        if isinstance(argument, int):
            return argument
        own = buffers.get(id(argument.buffer))
        return (argument.buffer.address if own is None else own) + argument.offset

    for call in calls:
        run_now(call.kernel, [address(a) for a in call.args], call.tiles, machine)
    return replace(packed, view=constant(memory.view(np.int32)), sums=constant(sums))
