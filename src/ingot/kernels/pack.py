"""Packing: a strided matrix as blocks of a few vectors' width, in the order in which the register tile
reads them.

    target[block][row][width] = source[row, block * width + lane]      zero from `inner` on, and in rows up
    to `fill`

With rows of pixels and a width of one vector this is the tile's left side, with rows of the contraction and
a width of its vectors it is the panels of weights.
"""
# llvmlite has no type information.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from llvmlite import ir

from ingot.codegen import cache
from ingot.codegen.builder import F32, I8, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import bytes_of, gather_element, load_element
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.codegen.pages import lent
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, View, constant
from ingot.kernels.contract import PANEL_VECTORS, UNROLL, name_of

PACK_SLOTS = (
    "source", "source_row", "source_inner", "source_outer", "source_batch",  # address; strides in bytes
    "target", "pitch", "target_batch",  # address; rows from block to block; floats from batch to batch
    "rows", "fill", "inner", "blocks", "batches", "order",
)  # fmt: skip
DTYPES = ("float32", "float16", "bfloat16")
#: Denormal weights (below 2^-126) count as zero in a tensor whose largest is at least this: they are then
#: below 2^-26 of it. CPUs take a hundred cycles for a product with a denormal number; networks trained with
#: weight decay have channels of nothing else, which took three quarters of a text detector's time.
LEAST_LARGEST = 2.0**-100
_CHUNK = 1 << 14  # weights looked at together for a large one
_AHEAD = 2048  # bytes that a copy fetches ahead of its reading: 2 to 14 % of a convolution
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@kernel(*PACK_SLOTS)
def pack(
    k: Builder, *, mode: str, width: int, dtype: str, ordered: bool = False, flush: bool = False
) -> None:
    """Blocks begin..end of a batch of `batches` inner and any number of outer matrices, each of `blocks`
    blocks.

    mode: "copy" where neighbours in a block lie side by side in the source, "transpose" where rows do, else
    "gather". width: vectors in a block. With `ordered` (of "transpose"), row r goes to row order[r] of its
    block. flush: denormal numbers become zeros of their sign.
    """
    blocks, batches = k.arg("blocks"), k.arg("batches")
    first_matrix = k.div(k.begin, blocks)
    with k.loop(first_matrix, k.ceil_div(k.end, blocks)) as matrix:
        begin = k.max(k.sub(k.begin, k.mul(matrix, blocks)), 0)
        end = k.min(k.sub(k.end, k.mul(matrix, blocks)), blocks)
        batch, outer = k.rem(matrix, batches), k.div(matrix, batches)
        start = k.add(k.mul(outer, k.arg("source_outer")), k.mul(batch, k.arg("source_batch")))
        source = k.at(k.pointer("source"), start, I8)
        target = k.at(k.pointer("target"), k.mul(matrix, k.arg("target_batch")), F32)
        packer = _Packer(k, width, dtype, source, target, ordered, flush)
        whole = k.min(end, k.div(k.arg("inner"), width * k.machine.lanes))
        if mode == "transpose":
            packer.transposed(begin, whole, tail=False)
            packer.transposed(k.max(begin, whole), end, tail=True)
        else:
            packer.by_rows(begin, whole, end, gather=mode == "gather")
        packer.fill(begin, end)


class _Packer:
    """The loops over one matrix."""

    def __init__(
        self, k: Builder, width: int, dtype: str, source: Value, target: Value, ordered: bool, flush: bool
    ) -> None:
        self.k, self.width, self.dtype, self.flush = k, width, dtype, flush
        self.source, self.target = source, target
        self.lanes = k.machine.lanes
        self.rows, self.inner = k.arg("rows"), k.arg("inner")
        self.source_row, self.source_inner = k.arg("source_row"), k.arg("source_inner")
        self.block = k.mul(k.arg("pitch"), width * self.lanes)
        self.order = k.pointer("order") if ordered else None

    def by_rows(self, begin: Int, whole: Int, end: Int, gather: bool) -> None:
        """Rows outermost, four at a time, so that the source is read along its rows."""
        k = self.k
        fours = k.mul(k.div(self.rows, 4), 4)
        for first, last, together in ((0, fours, 4), (fours, self.rows, 1)):
            with k.loop(first, last, together) as row:
                lines = [
                    k.at(self.source, k.mul(k.add(row, r), self.source_row), I8) for r in range(together)
                ]
                goal = k.at(self.target, k.mul(row, self.width * self.lanes), F32)
                with k.loop(begin, whole) as block:
                    self._move(lines, goal, block, gather, tail=False)
                with k.loop(k.max(begin, whole), end) as block:
                    self._move(lines, goal, block, gather, tail=True)

    def _move(self, lines: list[Value], goal: Value, block: Value, gather: bool, tail: bool) -> None:
        k, lanes = self.k, self.lanes
        here = k.at(goal, k.mul(block, self.block), F32)
        column = k.mul(block, self.width * lanes)
        left = k.sub(self.inner, column)
        size = bytes_of(self.dtype)
        for r, line in enumerate(lines):
            start = k.at(line, k.mul(column, size), I8)
            if not gather and not tail:
                for byte in range(0, self.width * lanes * size, 64):
                    k.prefetch(start, _AHEAD + byte, I8)
            for v in range(self.width):
                count = k.sub(left, v * lanes) if tail else None
                if gather:
                    first = k.at(line, k.mul(k.add(column, v * lanes), self.source_inner), I8)
                    stride = k.ir.ashr(self.source_inner, I64(size.bit_length() - 1))
                    value = gather_element(k, first, self.dtype, lanes, stride, count)
                else:
                    mask = k.lanes_below(count, lanes) if tail else None
                    value = load_element(k, k.at(start, v * lanes * size, I8), self.dtype, lanes, 0, mask)
                k.store(self._usual(value), here, (r * self.width + v) * lanes)

    def _usual(self, value: Value) -> Value:
        """The value; with `flush` no denormal one."""
        if not self.flush:
            return value
        k, words = self.k, vector(I32, self.lanes)
        bits = k.ir.bitcast(value, words)
        exponent = k.ir.and_(bits, k.splat(0x7F800000, words))
        is_small = k.ir.icmp_signed("==", exponent, k.splat(0, words))
        sign = k.ir.and_(bits, k.splat(-(1 << 31), words))
        return k.ir.bitcast(k.ir.select(is_small, sign, bits), vector(F32, self.lanes))

    def transposed(self, begin: Int, end: Int, tail: bool) -> None:
        """Blocks outermost: lanes × lanes squares are turned in registers."""
        k, lanes = self.k, self.lanes
        whole_rows = 0 if tail else k.mul(k.div(self.rows, lanes), lanes)
        with k.loop(begin, end) as block, k.loop(0, self.width) as v:
            column = k.mul(k.add(k.mul(block, self.width), v), lanes)
            lines = k.at(self.source, k.mul(column, self.source_inner), I8)
            goal = k.at(k.at(self.target, k.mul(block, self.block), F32), k.mul(v, lanes), F32)
            present = k.sub(self.inner, column)
            if not tail:
                with k.loop(0, whole_rows, lanes) as row:
                    self._square(lines, goal, row, None, None)
            with k.loop(whole_rows, self.rows, lanes) as row:
                self._square(lines, goal, row, k.sub(self.rows, row), present if tail else None)

    def _square(self, lines: Value, goal: Value, row: Int, rows: Int | None, present: Int | None) -> None:
        """Rows row.. of one vector's width; only `rows` of them, and only `present` source lines, exist."""
        k, lanes = self.k, self.lanes
        start = k.at(lines, k.mul(row, bytes_of(self.dtype)), I8)
        values: list[Value] = []
        within = k.lanes_below(rows, lanes) if rows is not None else None
        for j in range(lanes):
            mask = within
            if present is not None:
                there = k.broadcast(k.compare("<", j, present), lanes)
                mask = there if within is None else k.ir.and_(within, there)
            line = k.at(start, k.mul(self.source_inner, j), I8)
            values.append(self._usual(load_element(k, line, self.dtype, lanes, 0, mask)))
        for r, value in enumerate(transpose(k, values)):
            with k.when(True if rows is None else k.compare("<", r, rows)):
                k.store(value, self._goal(goal, row, r))

    def _goal(self, goal: Value, row: Int, r: int) -> Value:
        k, step = self.k, self.width * self.lanes
        if self.order is None:
            return k.at(k.at(goal, k.mul(row, step), F32), r * step, F32)
        at = k.ir.sext(k.load(k.at(self.order, row, I32), I32, r), I64)
        return k.at(goal, k.mul(at, step), F32)

    def fill(self, begin: Int, end: Int) -> None:
        """Rows of zeros after the last one."""
        k, zero = self.k, self.k.zero(vector(F32, self.lanes))
        with k.loop(begin, end) as block, k.loop(self.rows, k.arg("fill")) as row:
            here = k.at(
                self.target, k.add(k.mul(block, self.block), k.mul(row, self.width * self.lanes)), F32
            )
            for v in range(self.width):
                k.store(zero, here, v * self.lanes)


def transpose(k: Builder, rows: Sequence[Value]) -> list[Value]:
    """The columns of a square of n vectors of n lanes, in log2(n) exchanges of half of each pair of
    vectors.
    """
    values, n = list(rows), len(rows)
    distance = 1
    while distance < n:
        low = [i if not i & distance else i - distance + n for i in range(n)]
        high = [i + distance if not i & distance else i + n for i in range(n)]
        masks = [ir.Constant(ir.VectorType(I32, n), m) for m in (low, high)]
        for i in range(n):
            if not i & distance:
                a, b = values[i], values[i + distance]
                values[i], values[i + distance] = (k.ir.shuffle_vector(a, b, m) for m in masks)
        distance *= 2
    return values


def pack_mode(view_shape: tuple[int, int], row: int, inner: int) -> str:
    """How to read a matrix of this shape with strides (elements) `row` and `inner`."""
    rows, columns = view_shape
    if inner == 1 or columns == 1:
        return "copy"
    return "transpose" if row == 1 or rows == 1 else "gather"


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """Matrices [*batch, k, n] as panels: [*batch][panels][k rounded up][lanes of a tile's vectors], in
    `view`.
    """

    view: View
    k: int
    n: int
    batch: tuple[int, ...]
    rows: int  # k rounded up to whole steps
    panel: int  # floats in a row of a panel

    @property
    def panels(self) -> int:
        return -(-self.n // self.panel)

    @property
    def matrix(self) -> int:
        """Floats from one matrix of the batch to the next."""
        return self.panels * self.rows * self.panel


def aligned_floats(count: int) -> np.ndarray:
    """Uninitialised float32 memory at a multiple of 64 bytes."""
    return lent(4 * count).view(np.float32)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A copy from whose lines vectors are loaded whole: across two of them, a step of a recurrent layer took
    half as long more.
    """
    memory = aligned_floats(-(-array.nbytes // 4)).view(np.uint8)[: array.nbytes]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def check_packable(subject: str, dtype: np.dtype) -> str:
    """The dtype's name, if a matrix of it can be packed as float32."""
    name = name_of(dtype)
    if name not in DTYPES:
        raise UnsupportedOperatorError(
            f"{subject}: found {name}, generated products want {', '.join(DTYPES)}; "
            "cast it, or let the host compute it"
        )
    return name


def run_now(kernel: Kernel, arguments: Sequence[int], tiles: int, machine: Machine) -> None:
    """Run a kernel that needs no scratch at once, on this thread (which lets go of the interpreter's
    lock).
    """
    values = np.array(arguments, np.int64)
    code = cache.addresses([kernel], machine)[kernel]
    _FUNCTION(code)(values.ctypes.data, 0, tiles, None)


def matters(array: np.ndarray) -> bool:
    """Whether a number of at least LEAST_LARGEST is among these (contiguous) weights; one is found soon,
    where there is one.
    """
    flat = array.reshape(-1)
    return any(
        bool((np.abs(flat[start : start + _CHUNK]) >= LEAST_LARGEST).any())
        for start in range(0, flat.size, _CHUNK)
    )


def without_denormals(array: np.ndarray) -> np.ndarray:
    """The same weights, with zeros for denormal numbers where a number of at least LEAST_LARGEST is among
    them: the plain definition of what packing does to them.
    """
    flushed = np.where(np.abs(array) < np.finfo(np.float32).tiny, np.float32(0), array)
    return flushed if matters(flushed) else array


def pack_weights(array: np.ndarray, machine: Machine) -> PackedWeights:
    """Pack constant matrices [..., K, N] of any strides into panels, K padded to whole steps. Denormal
    numbers become zeros, see LEAST_LARGEST.

    Raises UnsupportedOperatorError for a dtype that is not float32, float16 or bfloat16.
    """
    dtype = check_packable("weights", array.dtype)
    batch, (rows, columns) = array.shape[:-2], array.shape[-2:]
    flat = array.reshape(math.prod(batch), rows, columns)  # a view wherever one can express it
    packed = _layout(rows, columns, batch, machine)
    memory = aligned_floats(math.prod(batch) * packed.matrix)
    mode = pack_mode((rows, columns), *(s // array.itemsize for s in flat.strides[1:]))
    params: dict[str, Hashable] = {"mode": mode, "width": packed.panel // machine.lanes, "dtype": dtype}
    arguments = [
        flat.ctypes.data, flat.strides[1], flat.strides[2], 0, flat.strides[0],
        memory.ctypes.data, packed.rows, packed.matrix,
        rows, packed.rows, columns, packed.panels, max(flat.shape[0], 1), 0,
    ]  # fmt: skip
    if memory.size:
        _pack_now(params, arguments, flat.shape[0] * packed.panels, memory, machine)
    return replace(packed, view=constant(memory))


def pack_ordered(array: np.ndarray, order: np.ndarray, rows: int, machine: Machine) -> PackedWeights:
    """Pack contiguous matrices [batch, N, K], already turned; row k goes to row order[k] of `rows`, the
    others are 0. Denormal numbers become zeros, see LEAST_LARGEST.
    """
    dtype = check_packable("weights", array.dtype)
    matrices, columns, depth = array.shape
    packed = replace(_layout(depth, columns, (matrices,), machine), rows=rows)
    memory = aligned_floats(matrices * packed.matrix)
    if rows != depth:
        memory[:] = 0
    params: dict[str, Hashable] = {
        "mode": "transpose",
        "width": packed.panel // machine.lanes,
        "dtype": dtype,
        "ordered": True,
    }
    table = np.ascontiguousarray(order, np.int32)
    size = array.itemsize
    arguments = [
        array.ctypes.data, size, depth * size, 0, columns * depth * size,
        memory.ctypes.data, rows, packed.matrix,
        depth, 0, columns, packed.panels, max(matrices, 1), table.ctypes.data,
    ]  # fmt: skip
    if memory.size:
        _pack_now(params, arguments, matrices * packed.panels, memory, machine)
    return replace(packed, view=constant(memory))


def _pack_now(
    params: dict[str, Hashable], arguments: list[int], tiles: int, memory: np.ndarray, machine: Machine
) -> None:
    """Pack into `memory` without denormal numbers; again with them where nothing large is there."""
    for flush in (True, False):
        run_now(pack(**params, flush=flush), arguments, tiles, machine)
        if matters(memory):
            break


def pack_calls(source: View, machine: Machine) -> tuple[list[Call], PackedWeights]:
    """Calls that pack matrices [..., K, N] known only while running. Dimensions that repeat (stride 0) are
    packed once.
    """
    dtype = check_packable("second factor of a matrix product", source.dtype)
    rows, columns = source.shape[-2:]
    row, inner = source.strides[-2:]
    batch = tuple(1 if s == 0 else n for n, s in zip(source.shape[:-2], source.strides[:-2], strict=True))
    packed = _layout(rows, columns, batch, machine)
    buffer = Buffer(math.prod(batch) * packed.matrix * 4)
    packed = replace(packed, view=View(buffer, 0, np.dtype(np.float32), (buffer.nbytes // 4,), (1,)))
    if not buffer.nbytes:
        return [], packed
    dims: list[tuple[int, int]] = []  # size, stride; neighbours that follow each other are one
    for size, stride in zip(batch, source.strides[:-2], strict=True):
        if dims and dims[-1][1] == size * stride:
            dims[-1] = (dims[-1][0] * size, stride)
        elif size > 1:
            dims.append((size, stride))
    (outer_n, outer), (inner_n, between) = [(1, 0)] * (2 - len(dims)) + dims[-2:]
    kernel = pack(
        mode=pack_mode((rows, columns), row, inner), width=packed.panel // machine.lanes, dtype=dtype
    )
    size, calls = source.dtype.itemsize, list[Call]()
    for number, index in enumerate(itertools.product(*(range(n) for n, _ in dims[:-2]))):
        offset = sum(i * stride for i, (_, stride) in zip(index, dims, strict=False))
        target = packed.view.with_dims(
            (outer_n * inner_n * packed.matrix,), (1,), number * outer_n * inner_n * packed.matrix
        )
        arguments: list[int | View | Kernel] = [
            replace(source, offset=source.offset + offset * size),
            row * size, inner * size, outer * size, between * size,
            target, packed.rows, packed.matrix,
            rows, packed.rows, columns, packed.panels, inner_n, 0,
        ]  # fmt: skip
        tiles = outer_n * inner_n * packed.panels
        calls.append(Call(kernel, arguments, tiles, [source], [target], label="pack"))
    return calls, packed


def _layout(rows: int, columns: int, batch: tuple[int, ...], machine: Machine) -> PackedWeights:
    """Where panels of such matrices lie; the memory is still to be given."""
    panel = PANEL_VECTORS * machine.lanes
    nowhere = View(Buffer(0), 0, np.dtype(np.float32), (0,), (1,))
    return PackedWeights(nowhere, rows, columns, batch, -(-rows // UNROLL) * UNROLL, panel)
