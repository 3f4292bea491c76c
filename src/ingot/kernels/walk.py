"""The walk of kernels that reduce: at each kept place, over the reduced dimensions, in vectors.

Vectors lie along the innermost dimension of the first operand. If that is reduced, lanes are combined at the
end (`across` is False); else each lane belongs to an output of its own (`across`). Sums are blocked and
compensated, so their error does not grow with their length.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ingot.codegen.builder import Builder, Int, Value, element_of, size_of
from ingot.codegen.elements import (
    gather_element,
    load_element,
    memory_element,
    scatter_element,
    store_element,
)
from ingot.codegen.lanes import Lanes
from ingot.codegen.machine import Machine
from ingot.kernels.call import View
from ingot.kernels.contract import name_of
from ingot.kernels.iteration import TILES, Space, collapse, round_up
from ingot.kernels.made_again import remembered

_BLOCK = 256  # steps of a loop whose sums are added up before they join the total
#: Bytes of a strip of columns, and how many rows of it are read before the next columns, nearly as they lie.
_STRIP, _STRIP_ROWS = 1024, 16
#: Rows of at most so many elements are gathered, for which no hardware fetches ahead; how far we do.
_GATHERED, _AHEAD = 32, 4096


class Layout(NamedTuple):
    """What of a walk changes the code. Operands are numbered in the order of their views."""

    dtypes: tuple[str, ...]
    classes: tuple[str, ...]  # along the vectors: "c" contiguous, "s" strided, "b" the same
    kept: int  # outer loops over kept dimensions
    reduced: int  # loops over reduced dimensions
    across: bool
    lanes: int
    ways: int  # vectors at a time
    short: int = 0  # vectors of an item that stays in registers; 0: it has more
    whole: bool = True  # of a short item: its last vector has all lanes
    strip: int = 0  # columns of an item across whose rows are too many for a cache; 0: a few vectors of them

    def slots(self) -> tuple[str, ...]:
        """The names of the argument slots."""
        return _slots(self)


@functools.lru_cache(1024)
def _slots(layout: Layout) -> tuple[str, ...]:
    names = ["n", "items", "per_tile", *(f"k{d}" for d in range(layout.kept))]
    names += [f"r{d}" for d in range(layout.reduced)]
    for i in range(len(layout.classes)):
        names += [f"p{i}", f"n{i}", *(f"k{d}_{i}" for d in range(layout.kept))]
        names += [f"r{d}_{i}" for d in range(layout.reduced)]
    return tuple(names)


@dataclass(slots=True)
class Plan:
    """A walk for given views: the layout, the arguments, and the figures a Call needs."""

    layout: Layout
    args: list[int | View]
    tiles: int
    count: int  # elements reduced for each output
    scratch: int  # bytes that hold one float for each element of an item


def plan(
    views: Sequence[View],
    shape: Sequence[int],
    axes: Sequence[int],
    machine: Machine,
    widest: int,
    weight: int,
    most_held: int = 0,
    strips: bool = False,
) -> Plan:
    """Plan a walk over `shape`, reduced along `axes`. All views have that shape; results stride 0 there.

    widest: bytes of the largest register element. weight: instructions on a vector, roughly: long formulas
    fill the pipeline with fewer vectors at a time, and would spill with more. most_held: the most vectors of
    an item that the kernel can hold in registers; those are visited by `Walk.row`. strips: whether it knows
    what to do with strips (`Walk.strip`).
    """
    dtypes = tuple([name_of(v.dtype) for v in views])
    steps = tuple([v.strides for v in views])
    kept, reduced = spaces_of(steps, tuple(shape), frozenset(axes))
    layout, sizes, further, tiles, count, held = loops(
        dtypes, kept, reduced, machine, widest, weight, most_held, strips
    )
    args: list[int | View] = [*sizes]
    for view, own in zip(views, further, strict=True):
        args.append(view)
        args += own
    return Plan(layout, args, tiles, count, held)


@remembered(1024, "sizes")
def spaces_of(
    steps: tuple[tuple[int, ...], ...], shape: tuple[int, ...], axes: frozenset[int]
) -> tuple[Space, Space]:
    """The dimensions that are kept and those that are reduced, as few as they are for views of these strides:
    that follows from how sizes and strides are made of those of the model's inputs.
    """
    inner = [d for d in range(len(shape)) if d in axes]
    outer = [d for d in range(len(shape)) if d not in axes]
    spaces: list[Space] = []
    for dims in (outer, inner):
        space = collapse([shape[d] for d in dims], [[s[d] for d in dims] for s in steps])
        if not space.sizes:
            space = Space((1,), tuple((1 if dims is inner else 0,) for _ in steps))
        spaces.append(space)
    return spaces[0], spaces[1]


@remembered(1024)  # layers that are alike, and shapes that come again
def loops(
    dtypes: tuple[str, ...],
    kept: Space,
    reduced: Space,
    machine: Machine,
    widest: int,
    weight: int,
    most_held: int,
    strips: bool,
) -> tuple[Layout, tuple[int, ...], tuple[tuple[int, ...], ...], int, int, int]:
    """The layout, the sizes of its loops, each view's strides in them, and the rest of a Plan; see `plan`."""
    lanes = machine.vector_bytes // widest
    ways = 4 if weight < (12 if machine.registers > 16 else 6) else 2
    count, items = math.prod(reduced.sizes), math.prod(kept.sizes)
    nearness = [abs(s.strides[0][-1]) or 1 << 60 for s in (kept, reduced)]
    across = (nearness[0] < nearness[1] or reduced.sizes[-1] * 2 <= lanes) and kept.sizes[-1] * 2 > lanes
    vectors = kept if across else reduced
    n = vectors.sizes[-1]
    short = strip = 0
    if len(reduced.sizes) == 1 and count * widest > 0:
        short = count if across else -(-n // lanes)
        short = short if short <= most_held else 0
    if across:
        ways = 1 if short else ways
        ways = max(1, min(ways, -(-n // lanes)))
        if count * ways * lanes * widest > machine.l2_bytes // 2:
            ways = 1  # so that what a kernel keeps of an item stays in the cache, or at least small
        if strips and len(reduced.sizes) == 1 and count * n * widest > machine.l2_bytes // 2 and not short:
            ways, strip = min(4, -(-n // lanes)), _STRIP // widest
        items = math.prod(kept.sizes[:-1]) * -(-n // (strip or ways * lanes))
        kept_dims, reduced_dims = len(kept.sizes) - 1, len(reduced.sizes)
        held = 3 * strip if strip else count * ways * lanes
    else:
        kept_dims, reduced_dims = len(kept.sizes), len(reduced.sizes) - 1
        held = math.prod(reduced.sizes[:-1]) * round_up(n, lanes)
    classes = tuple({1: "c", 0: "b"}.get(s[-1], "s") for s in vectors.strides)
    work = max(1, count * ((strip or ways * lanes) if across else 1))
    per_tile = max(1, min(-(-items // TILES), max(1, 8192 // work)), -(-items // (4 * TILES)))
    whole = across or n % lanes == 0
    layout = Layout(
        dtypes, classes, kept_dims, reduced_dims, across, lanes, ways, short, not short or whole, strip
    )
    sizes = (n, items, per_tile, *kept.sizes[:kept_dims], *reduced.sizes[:reduced_dims])
    further = tuple(
        (vectors.strides[i][-1], *kept.strides[i][:kept_dims], *reduced.strides[i][:reduced_dims])
        for i in range(len(dtypes))
    )
    return layout, sizes, further, -(-items // per_tile), count, held * max(4, widest)


class Place:
    """One vector of elements: how to load and store each operand there."""

    def __init__(
        self, walk: Walk, pointers: Sequence[Value], column: Int, left: Int | None, held: Int
    ) -> None:
        self._walk, self._pointers, self._column = walk, pointers, column
        self._left = left
        #: the mask of lanes that are elements, or None for all
        self.mask: Value | None = None if left is None else walk.k.lanes_below(left, walk.layout.lanes)
        #: where in the scratch memory this vector's elements are kept, in elements
        self.held = held

    def load(self, i: int) -> Value:
        """Operand i; lanes off the mask are 0."""
        k, layout = self._walk.k, self._walk.layout
        kind, dtype, lanes = layout.classes[i], layout.dtypes[i], layout.lanes
        if kind == "b":
            return k.broadcast(load_element(k, self._pointers[i], dtype, 1), lanes)
        if kind == "c":
            return load_element(k, self._pointers[i], dtype, lanes, self._column, self.mask)
        step = self._walk.steps[i]
        where = k.at(self._pointers[i], k.mul(self._column, step), memory_element(dtype))
        return gather_element(k, where, dtype, lanes, step, self._left)

    def store(self, i: int, value: Value) -> None:
        """Store operand i; only the lanes of the mask."""
        k, layout = self._walk.k, self._walk.layout
        kind, dtype = layout.classes[i], layout.dtypes[i]
        if kind == "c":
            store_element(k, value, self._pointers[i], dtype, self._column, self.mask)
            return
        step = self._walk.steps[i]
        where = k.at(self._pointers[i], k.mul(self._column, step), memory_element(dtype))
        scatter_element(k, value, where, dtype, step, self._left)


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A value gathered over a walk: what it starts as, and how two of them become one."""

    start: Value  # a vector
    combine: Callable[[Value, Value], Value]
    is_sum: bool  # of floats: its blocks are added with compensation


def _compensated(total: Lanes, block: Lanes, lost: Lanes) -> tuple[Lanes, Lanes]:
    """The total with a block added, and what rounding took from it (Kahan)."""
    term = block - lost
    after = total + term
    lost = (after - total) - term
    return after, lost.where(lost.equals(lost), 0.0)  # Inf - Inf says nothing was lost


Visit = Callable[[Place, list[Value]], list[Value]]


class Walk:
    """The walk of one kernel: emits the loops."""

    def __init__(self, k: Builder, layout: Layout) -> None:
        self.k, self.layout = k, layout
        operands = range(len(layout.classes))
        self.n, self.items, self.per_tile = k.arg("n"), k.arg("items"), k.arg("per_tile")
        self.kept = [k.arg(f"k{d}") for d in range(layout.kept)]
        self.reduced = [k.arg(f"r{d}") for d in range(layout.reduced)]
        self.steps: list[Int] = [
            {"c": 1, "b": 0}[c] if c in "cb" else k.arg(f"n{i}") for i, c in enumerate(layout.classes)
        ]
        self.start = [k.pointer(f"p{i}") for i in operands]
        self.kept_steps = [[k.arg(f"k{d}_{i}") for d in range(layout.kept)] for i in operands]
        self.reduced_steps = [[k.arg(f"r{d}_{i}") for d in range(layout.reduced)] for i in operands]
        self.elements = [memory_element(dtype) for dtype in layout.dtypes]
        self.base: list[Value] = []
        self.lefts: list[Int | None] = []

    def each(self, body: Callable[[], None]) -> None:
        """Emit `body` for each item of the thread's tiles: a kept place, or with `across` a block of them."""
        k, layout = self.k, self.layout
        width = layout.strip or layout.ways * layout.lanes
        first = k.mul(k.begin, self.per_tile)
        with k.loop(first, k.min(k.mul(k.end, self.per_tile), self.items)) as item:
            rest, column = item, 0
            if layout.across:
                blocks = k.ceil_div(self.n, width)
                rest, column = k.div(item, blocks), k.mul(k.rem(item, blocks), width)
            offsets: list[Int] = [k.mul(column, step) for step in self.steps]
            for d in reversed(range(layout.kept)):
                index = rest if d == 0 else k.rem(rest, self.kept[d])
                rest = rest if d == 0 else k.div(rest, self.kept[d])
                offsets = [
                    k.add(o, k.mul(index, s[d])) for o, s in zip(offsets, self.kept_steps, strict=True)
                ]
            self.base = [k.at(p, o, e) for p, o, e in zip(self.start, offsets, self.elements, strict=True)]
            if not layout.across:
                body()
                return
            left = k.sub(self.n, column)
            if layout.strip:
                self.lefts = [k.min(left, width)]
                body()
                return
            self._fetch_ahead()
            whole = k.compare(">=", left, width)
            with k.when(whole):
                self.lefts = [None] * layout.ways
                body()
            with k.when(k.ir.not_(whole)):
                self.lefts = [k.sub(left, u * layout.lanes) for u in range(layout.ways)]
                body()

    def _fetch_ahead(self) -> None:
        """Fetch what the items to come gather from short rows."""
        k, width = self.k, self.layout.ways * self.layout.lanes
        for kind, step, base, element in zip(
            self.layout.classes[:1], self.steps, self.base, self.elements, strict=False
        ):
            if kind != "s":
                continue
            span = k.choose(k.compare("<=", step, _GATHERED), k.mul(step, width), 0)
            with k.loop(0, span, 64 // size_of(element)) as place:
                k.prefetch(base, k.add(place, _AHEAD // size_of(element)), element)

    def strip(self, visit: Visit, accumulator: Accumulator, finish: Callable[[Place, Value], None]) -> None:
        """Reduce the item's strip of columns and hand each vector of results to `finish`. The sums of a
        few rows are added to others in scratch memory, which join the total every _BLOCK rows, as in `sweep`.
        """
        k, layout = self.k, self.layout
        ways, lanes, start = layout.ways, layout.lanes, accumulator.start
        (count,), rows = self.lefts, self.reduced[0]
        assert count is not None
        totals, lost, sums = (
            k.at(k.scratch, part * layout.strip, element_of(start.type)) for part in range(3)
        )
        whole = k.sub(count, k.rem(count, ways * lanes))

        def each_group(body: Callable[[Int, list[Int | None]], None]) -> None:
            with k.loop(0, whole, ways * lanes) as column:
                body(column, [None] * ways)
            with k.loop(whole, count, lanes) as column:
                body(column, [k.sub(count, column)])

        def begin(column: Int, lefts: list[Int | None]) -> None:
            for u in range(len(lefts)):
                k.store(start, totals, k.add(column, u * lanes))
                k.store(k.zero(start.type), lost, k.add(column, u * lanes))

        def clear(column: Int, lefts: list[Int | None]) -> None:
            for u in range(len(lefts)):
                k.store(start, sums, k.add(column, u * lanes))

        def join(column: Int, lefts: list[Int | None]) -> None:
            for u in range(len(lefts)):
                at = k.add(column, u * lanes)
                total, block = k.load(totals, start.type, at), k.load(sums, start.type, at)
                if not accumulator.is_sum:
                    k.store(accumulator.combine(total, block), totals, at)
                    continue
                total, rest = _compensated(
                    Lanes(k, total), Lanes(k, block), Lanes(k, k.load(lost, start.type, at))
                )
                k.store(total.value, totals, at)
                k.store(rest.value, lost, at)

        def hand_out(column: Int, lefts: list[Int | None]) -> None:
            for u, left in enumerate(lefts):
                at = k.add(column, u * lanes)
                result = Lanes(k, k.load(totals, start.type, at))
                if accumulator.is_sum:
                    result = result - Lanes(k, k.load(lost, start.type, at))
                finish(Place(self, self.base, at, left, 0), result.value)

        each_group(begin)
        with k.loop(0, rows, _BLOCK) as first:
            last = k.min(rows, k.add(first, _BLOCK))
            each_group(clear)
            with k.loop(first, last, _STRIP_ROWS) as some:
                end = k.min(last, k.add(some, _STRIP_ROWS))

                def add(column: Int, lefts: list[Int | None], some: Int = some, end: Int = end) -> None:
                    values = [start for _ in lefts]
                    with k.loop(some, end, carry=values) as row:
                        here = [
                            k.at(p, k.mul(row, s[0]), e)
                            for p, s, e in zip(self.base, self.reduced_steps, self.elements, strict=True)
                        ]
                        for u, left in enumerate(lefts):
                            place = Place(self, here, k.add(column, u * lanes), left, 0)
                            values[u : u + 1] = visit(place, values[u : u + 1])
                    for u, value in enumerate(values):
                        at = k.add(column, u * lanes)
                        value = accumulator.combine(k.load(sums, start.type, at), value)
                        k.store(value, sums, at)

                each_group(add)
            each_group(join)
        each_group(hand_out)

    @contextmanager
    def _nest(self, dims: int, carry: list[Value]) -> Generator[tuple[list[Value], Int]]:
        """Loops over the first `dims` reduced dimensions: pointers there, and the number of the turn."""
        k = self.k
        with ExitStack() as stack:
            pointers, turn = list(self.base), 0
            for d in range(dims):
                index = stack.enter_context(k.loop(0, self.reduced[d], carry=carry))
                pointers = [
                    k.at(p, k.mul(index, s[d]), e)
                    for p, s, e in zip(pointers, self.reduced_steps, self.elements, strict=True)
                ]
                turn = k.add(k.mul(turn, self.reduced[d]), index)
            yield pointers, turn

    def sweep(self, visit: Visit, accumulators: Sequence[Accumulator] = ()) -> list[list[Value]]:
        """Visit every vector of the item. `visit(place, values)` returns new values of the accumulators.

        Returns for each accumulator its vectors: one for each way with `across`, else a single one.
        """
        k, layout = self.k, self.layout
        ways, lanes = layout.ways, layout.lanes
        outputs = ways if layout.across else 1
        # For each accumulator and output: the total, and of sums the part that rounding took from it.
        totals = [a.start for a in accumulators for _ in range(outputs)]
        totals += [k.zero(a.start.type) for a in accumulators for _ in range(outputs)]

        def join(blocks: list[Value]) -> None:
            half = len(totals) // 2
            for i, block in enumerate(blocks):
                accumulator = accumulators[i // outputs]
                if not accumulator.is_sum:
                    totals[i] = accumulator.combine(totals[i], block)
                    continue
                total, lost = (Lanes(k, value) for value in (totals[i], totals[half + i]))
                after, lost = _compensated(total, Lanes(k, block), lost)
                totals[i], totals[half + i] = after.value, lost.value

        if layout.across:
            last = layout.reduced - 1
            with self._nest(last, totals) as (pointers, turn):
                rows = self.reduced[last]
                with k.loop(0, rows, _BLOCK, carry=totals) as first:
                    values = [a.start for a in accumulators for _ in range(ways)]
                    with k.loop(first, k.min(rows, k.add(first, _BLOCK)), carry=values) as row:
                        here = [
                            k.at(p, k.mul(row, s[last]), e)
                            for p, s, e in zip(pointers, self.reduced_steps, self.elements, strict=True)
                        ]
                        held = k.mul(k.add(k.mul(turn, rows), row), ways * lanes)
                        for u in range(ways):
                            place = Place(self, here, u * lanes, self.lefts[u], k.add(held, u * lanes))
                            values[u::ways] = visit(place, values[u::ways])
                    join(values)
        else:
            width = k.mul(k.ceil_div(self.n, lanes), lanes)
            with self._nest(layout.reduced, totals) as (pointers, turn):
                held = k.mul(turn, width)
                with k.loop(0, self.n, _BLOCK * ways * lanes, carry=totals) as first:
                    stop = k.min(self.n, k.add(first, _BLOCK * ways * lanes))
                    whole = k.sub(stop, k.rem(k.sub(stop, first), ways * lanes))
                    values = [a.start for a in accumulators for _ in range(ways)]
                    with k.loop(first, whole, ways * lanes, carry=values) as column:
                        for u in range(ways):
                            at = k.add(column, u * lanes)
                            place = Place(self, pointers, at, None, k.add(held, at))
                            values[u::ways] = visit(place, values[u::ways])
                    with k.loop(whole, stop, lanes, carry=values) as column:
                        place = Place(self, pointers, column, k.sub(stop, column), k.add(held, column))
                        old = values[0::ways]
                        new = visit(place, old)
                        values[0::ways] = [
                            k.ir.select(place.mask, a, b) for a, b in zip(new, old, strict=True)
                        ]
                    joined: list[Value] = []
                    for i, a in enumerate(accumulators):
                        parts = values[i * ways : (i + 1) * ways]
                        while len(parts) > 1:
                            parts = [a.combine(x, y) for x, y in zip(parts[::2], parts[1::2], strict=True)]
                        joined += parts
                    join(joined)
        half = len(totals) // 2
        results: list[list[Value]] = []
        for i, accumulator in enumerate(accumulators):
            span = slice(i * outputs, (i + 1) * outputs)
            finals = totals[:half][span]
            if accumulator.is_sum:
                lost = totals[half:][span]
                finals = [(Lanes(k, t) - Lanes(k, c)).value for t, c in zip(finals, lost, strict=True)]
            results.append(finals)
        return results

    def row(self) -> list[Place]:
        """The vectors of a short item, in order."""
        k, layout = self.k, self.layout
        places: list[Place] = []
        for u in range(layout.short):
            if layout.across:
                pointers = [
                    k.at(p, k.mul(s[0], u), e)
                    for p, s, e in zip(self.base, self.reduced_steps, self.elements, strict=True)
                ]
                places.append(Place(self, pointers, 0, self.lefts[0], 0))
                continue
            column = u * layout.lanes
            partial = u == layout.short - 1 and not layout.whole
            places.append(Place(self, self.base, column, k.sub(self.n, column) if partial else None, 0))
        return places

    def gathered(self, accumulator: Accumulator, places: Sequence[Place], values: Sequence[Value]) -> Value:
        """`values` of a short item's places combined pairwise, as every vector of the item needs them."""
        parts = [
            v if p.mask is None or self.layout.across else self.k.ir.select(p.mask, v, accumulator.start)
            for p, v in zip(places, values, strict=True)
        ]
        while len(parts) > 1:
            pairs = [accumulator.combine(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)]
            parts = pairs + parts[len(parts) // 2 * 2 :]
        return self.lanes_of(parts, accumulator.combine)[0]

    def lanes_of(self, values: Sequence[Value], combine: Callable[[Value, Value], Value]) -> list[Value]:
        """What vectors of elements need of a result: itself if `across`, else all lanes combined."""
        if self.layout.across:
            return list(values)
        return [self.k.broadcast(self.k.reduce_lanes(combine, values[0]), self.layout.lanes)]

    def outputs(self) -> list[Place]:
        """Where the item's results go: a place for each result vector (without `across`, lane 0 of one)."""
        if not self.layout.across:
            return [Place(self, self.base, 0, 1, 0)]
        return [Place(self, self.base, u * self.layout.lanes, left, 0) for u, left in enumerate(self.lefts)]
