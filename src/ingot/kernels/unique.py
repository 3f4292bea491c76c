"""Unique: elements (or slices) in order, equal ones counted once. A merge sort on one thread."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import I64, Builder, Value
from ingot.codegen.elements import load_element, memory_element
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Buffer, Call, View, constant
from ingot.kernels.iteration import block_of
from ingot.kernels.order import key_bits, key_of, word_type

_INDEX = (1 << 32) - 1


def order_keys(x: np.ndarray) -> np.ndarray:
    """Integers that order as the elements do: NaN above all numbers, both zeros alike."""
    if x.dtype.name == "bfloat16":
        x = x.astype(np.float32)
    if x.dtype.kind != "f":
        return x
    bits = (x + x.dtype.type(0)).view(f"i{x.dtype.itemsize}")
    highest = np.iinfo(bits.dtype).max
    return np.where(np.isnan(x), highest, np.where(bits < 0, bits ^ highest, bits))


def evaluate_unique(
    x: np.ndarray, axis: int, *, in_order: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The plain definition: the different slices of x along `axis` (of equal ones the first), where each is
    first, which one each slice of x is, how many are equal. `in_order` of their elements, or of their places.
    """
    if x.shape[axis] == 0:
        none = np.zeros(0, np.int64)
        return x, none, none, none
    keys = np.ascontiguousarray(order_keys(np.moveaxis(x, axis, 0)).reshape(x.shape[axis], -1))
    if keys.shape[1] == 0:  # slices of nothing are equal
        first, back, counts = np.array([0]), np.zeros(len(keys), np.int64), np.array([len(keys)])
    else:
        _, first, back, counts = np.unique(keys, True, True, True, axis=0)
    back = back.reshape(-1)
    if not in_order:
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        first, back, counts = first[order], place[back], counts[order]
    first, back, counts = (a.astype(np.int64) for a in (first, back, counts))
    return np.take(x, first, axis), first, back, counts


class _Items:
    """What is sorted: words of a key and a place, or the places of rows that are compared element by
    element.
    """

    def __init__(self, k: Builder, x: Value, dtype: str, width: Value, rows: bool) -> None:
        self._k, self._x, self._dtype, self._width, self._rows = k, x, dtype, width, rows
        self.type = I64 if rows else word_type(dtype)

    def make(self, i: Value) -> Value:
        """The item of a place."""
        k = self._k
        if self._rows:
            return k.int(i)
        key = key_of(k, load_element(k, self._x, self._dtype, 1, i), self._dtype)
        bits = key_bits(self._dtype)
        high = k.ir.shl(k.ir.sext(key, self.type), ir.Constant(self.type, bits))
        return k.ir.or_(high, k.ir.zext(i, self.type) if bits == 64 else i)

    def place(self, item: Value) -> Value:
        """The place of an item."""
        k = self._k
        if self._rows:
            return item
        return k.ir.and_(item if item.type == I64 else k.ir.trunc(item, I64), I64(_INDEX))

    def _differ_at(self, a: Value, b: Value) -> tuple[Value, Value]:
        """The keys of the first elements in which two rows differ, or of the last ones."""
        k, last = self._k, self._k.sub(self._width, 1)
        first = [k.mul(v, self._width) for v in (a, b)]

        def keys(j: Value) -> tuple[Value, Value]:
            x, y = (load_element(k, self._x, self._dtype, 1, k.add(f, j)) for f in first)
            return key_of(k, x, self._dtype), key_of(k, y, self._dtype)

        at: list[Value] = [I64(0)]

        def equal() -> Value:
            x, y = keys(at[0])
            return k.ir.and_(k.ir.icmp_signed("==", x, y), k.compare("<", at[0], last))

        with k.repeat(equal, at):
            at[0] = k.add(at[0], 1)
        return keys(at[0])

    def less(self, a: Value, b: Value) -> Value:
        """Whether a comes before b, which has a higher place where they are equal."""
        if self._rows:
            a, b = self._differ_at(a, b)
        return self._k.ir.icmp_signed("<", a, b)

    def same(self, a: Value, b: Value) -> Value:
        """Whether they are equal but for their places."""
        k = self._k
        if self._rows:
            return k.ir.icmp_signed("==", *self._differ_at(a, b))
        bits = ir.Constant(self.type, key_bits(self._dtype))
        return k.ir.icmp_signed("==", k.ir.ashr(a, bits), k.ir.ashr(b, bits))


@kernel("x", "n", "width", "from", "to", "firsts", "ids", "first", "back", "counts", "count")
def _find_unique(k: Builder, *, dtype: str, rows: bool, in_order: bool) -> None:
    n = k.arg("n")
    items = _Items(k, k.pointer("x"), dtype, k.arg("width"), rows)
    with k.loop(k.begin, k.end):
        start = k.pointer("from")
        with k.loop(0, n) as i:
            k.store(items.make(i), start, i)
        run: list[Value] = [I64(1), start, k.pointer("to")]
        with k.repeat(lambda: k.compare("<", run[0], n), run):
            half, source, target = run
            with k.loop(0, n, k.mul(half, 2)) as low:
                middle, high = k.min(n, k.add(low, half)), k.min(n, k.add(low, k.mul(half, 2)))
                at: list[Value] = [low, middle]
                with k.loop(low, high, carry=at) as i:
                    left = k.load(source, items.type, k.min(at[0], k.sub(middle, 1)))
                    right = k.load(source, items.type, k.min(at[1], k.sub(n, 1)))
                    later = items.less(right, left)
                    has_left, has_right = k.compare("<", at[0], middle), k.compare("<", at[1], high)
                    takes = k.ir.and_(has_right, k.ir.or_(k.ir.not_(has_left), later))
                    k.store(k.ir.select(takes, right, left), target, i)
                    moved = k.ir.zext(takes, I64)
                    at[:] = [k.add(at[0], k.sub(1, moved)), k.add(at[1], moved)]
            run[:] = [k.mul(half, 2), target, source]
        done = run[1]
        first, back, counts, firsts, ids = (
            k.pointer(name) for name in ("first", "back", "counts", "firsts", "ids")
        )
        # Which group each place is in, numbered in order: `firsts` and `counts` by that number.
        state: list[Value] = [I64(-1)]
        with k.loop(0, n, carry=state) as i:
            item = k.load(done, items.type, i)
            before = k.load(done, items.type, k.max(k.sub(i, 1), 0))
            opens = k.ir.or_(k.compare("==", i, 0), k.ir.not_(items.same(before, item)))
            place, group = items.place(item), k.add(state[0], k.ir.zext(opens, I64))
            with k.when(opens):
                k.store(place, first if in_order else firsts, group)
                k.store(I64(0), counts, group)
            k.store(k.add(k.load(counts, I64, group), 1), counts, group)
            k.store(group, back, place)
            state[0] = group
        found = k.add(state[0], 1)
        k.store(found, k.pointer("count"))
        if in_order:
            return
        # Numbered anew, by where each group is first; a count is that of the places that follow.
        numbers: list[Value] = [I64(0)]
        with k.loop(0, n, carry=numbers) as i:
            group = k.load(back, I64, i)
            is_first = k.compare("==", k.load(firsts, I64, group), i)
            with k.when(is_first):
                k.store(numbers[0], ids, group)
                k.store(i, first, numbers[0])
                k.store(I64(0), counts, numbers[0])
            number = k.load(ids, I64, group)
            k.store(number, back, i)
            k.store(k.add(k.load(counts, I64, number), 1), counts, number)
            numbers[0] = k.add(numbers[0], k.ir.zext(is_first, I64))


@kernel("x", "first", "count", "outer", "inner", "per_tile", "out")
def _take_unique(k: Builder, *, dtype: str) -> None:
    """The slices, [count of x, outer, inner], as they lie in the result: [outer, count, inner]."""
    element, count = memory_element(dtype), k.load(k.pointer("count"), I64)
    outer, inner, per_tile = k.arg("outer"), k.arg("inner"), k.arg("per_tile")
    width = k.mul(outer, inner)
    with k.loop(k.mul(k.begin, per_tile), k.min(count, k.mul(k.end, per_tile))) as group:
        source = k.mul(k.load(k.pointer("first"), I64, group), width)
        with k.loop(0, outer) as o, k.loop(0, inner) as j:
            value = k.load(k.pointer("x"), element, k.add(source, k.add(k.mul(o, inner), j)))
            where = k.add(k.mul(k.add(k.mul(o, count), group), inner), j)
            k.store(value, k.pointer("out"), where)


def unique(
    x: View,
    outer: int,
    inner: int,
    out: View,
    first: View,
    back: View,
    counts: View,
    count: View,
    machine: Machine,
    *,
    in_order: bool,
) -> list[Call]:
    """ONNX Unique of the slices of contiguous x [n, outer · inner]; see `evaluate_unique`.

    out lies as [outer, count, inner]; it, first and counts are memory for n. All but out are int64.
    """
    del machine
    n, data = x.shape[0], x
    if outer * inner == 0:  # slices of nothing are equal
        x, rows = constant(np.zeros((max(n, 1), 1), np.uint8)), False
    else:
        rows = outer * inner > 1
    if n >= 2**31:
        raise ValueError(f"Unique of {n} elements: it wants fewer than 2^31")
    dtype = x.dtype.name
    item = 8 if rows else key_bits(dtype) // 4

    def line(nbytes: int) -> View:
        return View(Buffer(max(16, n * nbytes)), 0, np.dtype(np.uint8), (max(16, n * nbytes),), (1,))

    spaces = [line(item), line(item), line(8), line(8)]
    found = Call(
        _find_unique(dtype=dtype, rows=rows, in_order=in_order),
        [x, n, outer * inner, *spaces, first, back, counts, count],
        tiles=1,
        reads=[x],
        writes=[*spaces, first, back, counts, count],
        flops=n * 40,
        label="Unique",
    )
    per_tile = block_of(n, max(1, 4096 // max(1, outer * inner)))
    taken = Call(
        _take_unique(dtype=data.dtype.name),
        [data, first, count, outer, inner, per_tile, out],
        tiles=-(-n // per_tile),
        reads=[data, first, count],
        writes=[out],
        label="Unique",
    )
    return [found, taken]
