"""The order of elements as integers, and what is sorted by it: TopK.

An element and its place become one integer, a *word*, that is larger where the element comes first, or where
it is equal and its place is lower. So one comparison of words decides, and no two are equal.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import I32, I64, Builder, Int, Value, lanes_of, vector
from ingot.codegen.elements import (
    INTEGERS,
    bytes_of,
    gather_element,
    is_float,
    is_signed,
    load_element,
    memory_element,
)
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes, any_lane
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.grid import Grid, Rows, plan

I128 = ir.IntType(128)


def evaluate_topk(x: np.ndarray, k: int, axis: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """The plain definition: a stable sort, in which NaN is the largest."""
    rows = np.moveaxis(x, axis, -1)
    if largest:
        # Reversed before and after, so that equals keep their order in a descending sort.
        order = rows.shape[-1] - 1 - np.argsort(rows[..., ::-1], axis=-1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(rows, axis=-1, kind="stable")
    order = np.moveaxis(order[..., :k], -1, axis).astype(np.int64)
    return np.take_along_axis(x, order, axis), order


def key_bits(dtype: str) -> int:
    """The width of an element's key: 32 or 64."""
    return 64 if bytes_of(dtype) == 8 else 32


def key_of(k: Builder, value: Value, dtype: str) -> Value:
    """Signed integers that order as the register values do: NaN above all numbers, both zeros alike."""
    type_ = vector(I64 if key_bits(dtype) == 64 else I32, lanes_of(value.type))
    if is_float(dtype):
        x = Lanes(k, value)
        bits = (x + 0.0).bits()  # -0 + 0 is +0
        sign = bits >> (key_bits(dtype) - 1)
        key = bits ^ (sign & ((1 << (key_bits(dtype) - 1)) - 1))  # negative ones: larger bits are lower
        return key.constant((1 << (key_bits(dtype) - 1)) - 1).where(x.is_nan(), key).value
    if dtype in INTEGERS and bytes_of(dtype) * 8 == key_bits(dtype):
        low = k.splat(-(1 << (key_bits(dtype) - 1)), type_)
        return value if is_signed(dtype) else k.ir.xor(value, low)
    return k.ir.sext(value, type_) if is_signed(dtype) else k.ir.zext(value, type_)


def word_type(dtype: str) -> Any:
    """The integer that holds a key and a place."""
    return I128 if key_bits(dtype) == 64 else I64


def word_of(k: Builder, key: Value, place: Int, dtype: str) -> Value:
    """Key above, the place from the end below."""
    type_, bits = word_type(dtype), key_bits(dtype)
    high = k.ir.shl(k.ir.sext(key, type_), ir.Constant(type_, bits))
    rest = k.ir.sub(I64((1 << 32) - 1), k.int(place))
    return k.ir.or_(high, k.ir.zext(rest, type_) if bits == 64 else rest)


def place_of(k: Builder, word: Value) -> Value:
    """The place in a word."""
    low = word if word.type == I64 else k.ir.trunc(word, I64)
    return k.ir.sub(I64((1 << 32) - 1), k.ir.and_(low, I64((1 << 32) - 1)))


def sift_down(k: Builder, heap: Value, start: Int, count: Value, type_: Any) -> None:
    """Moves heap[start] down to where none of its children is smaller: the smallest word is at the root."""
    item = k.load(heap, type_, start)
    last = k.sub(count, 1)

    def child(place: Value) -> tuple[Value, Value]:
        """The smaller child's place and word; any word of the heap where there is none."""
        left = k.min(k.add(k.mul(place, 2), 1), last)
        right = k.min(k.add(k.mul(place, 2), 2), last)
        a, b = k.load(heap, type_, left), k.load(heap, type_, right)
        less = k.ir.icmp_signed("<", b, a)
        return k.ir.select(less, right, left), k.ir.select(less, b, a)

    carry = [k.int(start)]
    found: list[Value] = []

    def goes_on() -> Value:
        found[:] = child(carry[0])
        inside = k.compare("<", k.add(k.mul(carry[0], 2), 1), count)
        return k.ir.and_(inside, k.ir.icmp_signed("<", found[1], item))

    with k.repeat(goes_on, carry):
        k.store(found[1], heap, carry[0])
        carry[0] = found[0]
    k.store(item, heap, carry[0])


@kernel("length", "step", "count", "values_step", "places_step")
def _topk(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    dtype: str,
    grid: Grid,
    largest: bool,
    along: bool,
    late: bool,
    lanes: int,
) -> None:
    """A heap of the best so far; a vector is looked at element by element only where one is better than its
    worst.
    """
    element, type_, bits = memory_element(dtype), word_type(dtype), key_bits(dtype)
    rows = Rows(k, grid, [element, element, I64])
    length = k.arg("length")
    count = _within(k, k.load(k.pointer("count"), I64), length) if late else k.arg("count")
    step: Int = 1 if along else k.arg("step")
    values_step, places_step = k.arg("values_step"), k.arg("places_step")
    heap = k.scratch

    def keys(x: Value) -> Value:
        key = key_of(k, x, dtype)
        return key if largest else k.ir.not_(key)

    def word_at(source: Value, i: Int) -> Value:
        x = load_element(k, source, dtype, 1, k.mul(i, step))
        return word_of(k, keys(x), i, dtype)

    def improve(source: Value, i: Value) -> None:
        word = word_at(source, i)
        with k.when(k.ir.icmp_signed(">", word, k.load(heap, type_))):
            k.store(word, heap)
            sift_down(k, heap, 0, count, type_)

    def row(source: Value, values: Value, places: Value) -> None:
        with k.loop(0, count) as i:
            k.store(word_at(source, i), heap, i)
        half = k.div(count, 2)
        with k.loop(0, half) as i:
            sift_down(k, heap, k.sub(k.sub(half, 1), i), count, type_)
        with k.loop(count, length, lanes) as i:
            left = k.sub(length, i)
            inside = k.lanes_below(left, lanes)
            if along:
                x = load_element(k, source, dtype, lanes, i, inside)
            else:
                where = k.at(source, k.mul(i, step), element)
                x = gather_element(k, where, dtype, lanes, step, left)
            worst = k.load(heap, type_)
            worst = k.ir.trunc(k.ir.lshr(worst, ir.Constant(type_, bits)), ir.IntType(bits))
            better = k.ir.icmp_signed(">", keys(x), k.broadcast(worst, lanes))
            with (
                k.when(any_lane(k, k.ir.and_(better, inside))),
                k.loop(i, k.min(length, k.add(i, lanes))) as j,
            ):
                improve(source, j)
        with k.loop(1, count) as i:  # the worst goes to the end, again and again
            last = k.sub(count, i)
            word, other = k.load(heap, type_), k.load(heap, type_, last)
            k.store(word, heap, last)
            k.store(other, heap)
            sift_down(k, heap, 0, last, type_)
        with k.loop(0, count) as i:
            place = place_of(k, k.load(heap, type_, i))
            k.store(place, places, k.mul(i, places_step))
            x = k.load(source, element, k.mul(place, step))
            k.store(x, values, k.mul(i, values_step))

    with rows.each() as (pointers, n), k.loop(0, n) as column:
        steps = zip(pointers, rows.steps, rows.elements, strict=True)
        begins = [k.at(p, k.mul(column, s), e) for p, s, e in steps]
        if late:
            with k.when(k.compare(">", count, 0)):
                row(*begins)
        else:
            row(*begins)


def _within(k: Builder, asked: Value, length: Value) -> Value:
    """A count that is no longer than a row."""
    return k.max(k.min(asked, length), 0)


@kernel("asked", "values", "places", "outer", "length", "inner", "count", "error")
def _close_up(k: Builder, *, size: int) -> None:
    """What was found of each row, right behind what was found of the row before it; how much that is."""
    length, inner, asked = k.arg("length"), k.arg("inner"), k.load(k.pointer("asked"), I64)
    with k.loop(k.begin, k.end):
        count = _within(k, asked, length)
        k.store(count, k.pointer("count"))
        with k.when(k.compare("!=", count, asked)):
            k.store(I64(1), k.pointer("error"))
        found, whole = k.mul(count, inner), k.mul(length, inner)
        for name, element in (("values", ir.IntType(8 * size)), ("places", I64)):
            memory = k.pointer(name)
            with k.loop(1, k.arg("outer")) as row:
                begin, end = (
                    k.at(memory, k.mul(row, whole), element),
                    k.at(memory, k.mul(row, found), element),
                )
                with k.loop(0, found) as i:  # from the front: it is written where it was read already
                    k.store(k.load(begin, element, i), end, i)


def topk(
    x: View, k: int | View, axis: int, values: View, places: View, machine: Machine, *, largest: bool = True
) -> Call:
    """ONNX TopK: the k largest (or smallest) of x along `axis` (not negative), the first of them first.

    values: x's dtype; places: int64; both with k in the place of the axis. k: where it lies (an int64), for
    results as long as x, of which the first k are written; it counts as one from 0 to that. Of equals, the
    one with the lower place comes first; NaN counts as the largest.
    """
    length = x.shape[axis]
    if length >= 2**31:
        raise ValueError(f"TopK of {length} elements in a row: it wants fewer than 2^31")
    rest = [d for d in range(x.rank) if d != axis]

    def without(view: View) -> View:
        return view.with_dims([view.shape[d] for d in rest], [view.strides[d] for d in rest])

    source, targets = without(x), [without(values), without(places)]
    lanes = machine.vector_bytes // max(4, x.dtype.itemsize)
    late = isinstance(k, View)  # a size that is noted for other sizes (`sizes.py`) is no int
    most = length if late else k
    walk = plan(targets, [source], source.shape, 1, 2 * length + 64 * most)
    dtype = x.dtype.name
    return Call(
        _topk(
            operands=walk.grid.slots(),
            dtype=dtype,
            grid=walk.grid,
            largest=largest,
            along=x.strides[axis] == 1 or length == 1,
            late=late,
            lanes=lanes,
        ),
        [length, x.strides[axis], k, values.strides[axis], places.strides[axis], *walk.args],
        tiles=walk.tiles if most else 0,
        reads=[x, k] if late else [x],
        writes=[values, places],
        scratch=most * key_bits(dtype) // 4,
        flops=x.size * 2 + values.size * 40,
        label="TopK",
    )


def topk_counted(
    x: View,
    k: View,
    axis: int,
    values: View,
    places: View,
    count: View,
    error: View,
    machine: Machine,
    *,
    largest: bool,
) -> list[Call]:
    """The same for a k that only the run knows: results lie in the front of memory for all of x, as if it had
    been known. count: an int64 that becomes k, error: one that becomes 1 where k is no such number.
    """
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    size, length = values.dtype.itemsize, x.shape[axis]
    close = Call(
        _close_up(size=size),
        [k, values, places, outer, length, inner, count, error],
        1,
        [k, values, places],
        [values, places, count, error],
        label="TopK",
    )
    return [topk(x, k, axis, values, places, machine, largest=largest), close]


__all__ = ["evaluate_topk", "key_bits", "key_of", "place_of", "topk", "topk_counted", "word_of", "word_type"]
