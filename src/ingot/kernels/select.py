"""Elements that are picked by what they are: NonZero and Compress. How many there are is counted first.

Three kernels: each tile counts its own, one thread adds the counts up to where each tile's begin, and each
tile writes its own there. Results lie as if the count had been known, in memory for the most there can be.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import I64, Builder, Value, vector
from ingot.codegen.elements import is_float, load_element, memory_element, store_element
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.lanes import any_lane
from ingot.codegen.machine import Machine
from ingot.kernels.call import Buffer, Call, View
from ingot.kernels.copy import as_bits
from ingot.kernels.iteration import block_of


def evaluate_nonzero(x: np.ndarray) -> np.ndarray:
    """The plain definition: coordinates of the elements that are not 0, [rank, count] in row-major order; a
    scalar counts as one element with no coordinates.
    """
    if x.ndim == 0:
        return np.zeros((0, int(x != 0)), np.int64)
    return np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)


def _is_picked(k: Builder, value: Value, dtype: str) -> Value:
    if dtype == "bool":
        return value
    if is_float(dtype):
        return k.ir.fcmp_unordered("une", value, k.zero(value.type))
    return k.ir.icmp_signed("!=", value, k.zero(value.type))


def _each_picked(
    k: Builder, dtype: str, lanes: int, first: Value, last: Value, body: Callable[[Value, Value], None]
) -> None:
    """body(i, place) for each picked element of x[first:last]; the first has the place of this tile."""
    x, start = k.pointer("x"), k.load(k.pointer("counts"), I64, k.div(first, k.arg("per_tile")))
    carry = [start]
    with k.loop(first, last, lanes, carry=carry) as i:
        inside = k.lanes_below(k.sub(last, i), lanes)
        picked = k.ir.and_(_is_picked(k, load_element(k, x, dtype, lanes, i, inside), dtype), inside)

        def look(i: Value = i) -> list[Value]:
            place = list(carry)
            with k.loop(i, k.min(last, k.add(i, lanes)), carry=place) as j:

                def take(j: Value = j) -> list[Value]:
                    body(j, place[0])
                    return [k.add(place[0], 1)]

                own = _is_picked(k, load_element(k, x, dtype, 1, j), dtype)
                place[:] = k.either(own, take, lambda: list(place))
            return place

        carry[:] = k.either(any_lane(k, picked), look, lambda: list(carry))


@kernel("x", "size", "per_tile", "counts")
def _count(k: Builder, *, dtype: str, lanes: int) -> None:
    x, size, per_tile, counts = k.pointer("x"), k.arg("size"), k.arg("per_tile"), k.pointer("counts")
    with k.loop(k.begin, k.end) as tile:
        first = k.mul(tile, per_tile)
        last = k.min(size, k.add(first, per_tile))
        total = [k.zero(vector(I64, lanes))]
        with k.loop(first, last, lanes, carry=total) as i:
            inside = k.lanes_below(k.sub(last, i), lanes)
            picked = k.ir.and_(_is_picked(k, load_element(k, x, dtype, lanes, i, inside), dtype), inside)
            total[0] = k.ir.add(total[0], k.ir.zext(picked, vector(I64, lanes)))
        k.store(k.reduce_lanes(k.ir.add, total[0]), counts, tile)


@kernel("counts", "tiles", "count")
def _add_up(k: Builder) -> None:
    """Counts become the sums of those before; the last sum is the count."""
    counts = k.pointer("counts")
    with k.loop(k.begin, k.end):
        total: list[Value] = [I64(0)]
        with k.loop(0, k.arg("tiles"), carry=total) as i:
            own = k.load(counts, I64, i)
            k.store(total[0], counts, i)
            total[0] = k.add(total[0], own)
        k.store(total[0], k.pointer("count"))


@kernel("x", "size", "per_tile", "counts", "count", "out")
def _coordinates(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    dtype: str,
    rank: int,
    lanes: int,
) -> None:
    out, count = k.pointer("out"), k.load(k.pointer("count"), I64)
    sizes = [k.arg(f"n{d}") for d in range(rank)]

    def write(i: Value, place: Value) -> None:
        rest = i
        for d in reversed(range(rank)):
            index = k.rem(rest, sizes[d]) if d else rest
            rest = k.div(rest, sizes[d]) if d else rest
            k.store(k.int(index), out, k.add(k.mul(count, d), place))

    with k.loop(k.begin, k.end) as tile:
        first = k.mul(tile, k.arg("per_tile"))
        _each_picked(k, dtype, lanes, first, k.min(k.arg("size"), k.add(first, k.arg("per_tile"))), write)


@kernel("x", "size", "per_tile", "counts", "count", "data", "outer", "inner", "length", "out")
def _slabs(k: Builder, *, dtype: str, moved: str, lanes: int, wide: int) -> None:
    """data [outer, length, inner] to out [outer, count, inner], both contiguous."""
    data, out, element = k.pointer("data"), k.pointer("out"), memory_element(moved)
    count = k.load(k.pointer("count"), I64)
    outer, inner, length = k.arg("outer"), k.arg("inner"), k.arg("length")

    def write(i: Value, place: Value) -> None:
        with k.loop(0, outer) as o:
            source = k.at(data, k.mul(k.add(k.mul(o, length), i), inner), element)
            target = k.at(out, k.mul(k.add(k.mul(o, count), place), inner), element)
            with k.loop(0, inner, wide) as j:
                mask = k.lanes_below(k.sub(inner, j), wide) if wide > 1 else None
                store_element(k, load_element(k, source, moved, wide, j, mask), target, moved, j, mask)

    with k.loop(k.begin, k.end) as tile:
        first = k.mul(tile, k.arg("per_tile"))
        _each_picked(k, dtype, lanes, first, k.min(k.arg("size"), k.add(first, k.arg("per_tile"))), write)


@dataclass(frozen=True, slots=True)
class _Counted:
    """The calls that count, and what those that write need: views, and how the elements are shared out."""

    calls: list[Call]
    counts: View
    args: list[int | View | Kernel]
    tiles: int
    lanes: int

    @classmethod
    def of(cls, picks: View, count: View, machine: Machine, work: int) -> _Counted:
        """work: bytes that are written for each element."""
        lanes, size = machine.vector_bytes // max(4, picks.dtype.itemsize), picks.size
        per_tile = block_of(size, max(64, (1 << 16) >> work.bit_length()), lanes)
        tiles = -(-size // per_tile)
        counts = View(Buffer(8 * max(1, tiles)), 0, np.dtype(np.int64), (max(1, tiles),), (1,))
        args: list[int | View | Kernel] = [picks, size, per_tile, counts]
        kernel = _count(dtype=picks.dtype.name, lanes=lanes)
        first = Call(kernel, args, tiles, [picks], [counts], flops=size, label="count")
        return cls([first, add_up(counts, tiles, count)], counts, [*args, count], tiles, lanes)


def add_up(counts: View, tiles: int, count: View) -> Call:
    """Each of `tiles` counts becomes the sum of those before it, and `count` the sum of all."""
    return Call(_add_up(), [counts, tiles, count], 1, [counts], [counts, count], label="count")


def nonzero(x: View, out: View, count: View, machine: Machine) -> list[Call]:
    """ONNX NonZero of a contiguous x: its coordinates [rank, count] at the front of out's memory.

    out: int64, as much memory as x.rank · x.size. count: int64, how many there are.
    """
    counted = _Counted.of(x, count, machine, 8 * x.rank)
    kernel = _coordinates(
        operands=tuple(f"n{d}" for d in range(x.rank)), dtype=x.dtype.name, rank=x.rank, lanes=counted.lanes
    )
    args: list[int | View | Kernel] = [*counted.args, out, *x.shape]
    reads = [x, counted.counts, count]
    return [*counted.calls, Call(kernel, args, counted.tiles, reads, [out], flops=x.size, label="NonZero")]


def compress(data: View, picks: View, axis: int, out: View, count: View, machine: Machine) -> list[Call]:
    """ONNX Compress of contiguous data along `axis` by the bools `picks` (no more than the axis has).

    out: memory for all of data; the picked ones lie at its front. count: int64, how many there are.
    """
    outer, inner = math.prod(data.shape[:axis]), math.prod(data.shape[axis + 1 :])
    counted = _Counted.of(picks, count, machine, outer * inner * data.dtype.itemsize)
    data, out = as_bits(data), as_bits(out)
    kernel = _slabs(
        dtype=picks.dtype.name,
        moved=data.dtype.name,
        lanes=counted.lanes,
        wide=machine.vector_bytes // data.dtype.itemsize if inner > 1 else 1,
    )
    args: list[int | View | Kernel] = [*counted.args, data, outer, inner, data.shape[axis], out]
    reads = [picks, counted.counts, count, data]
    return [*counted.calls, Call(kernel, args, counted.tiles, reads, [out], label="Compress")]
