"""The loops of elementwise kernels: rows of vectors over strided operands, cut into tiles."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingot.codegen.builder import Builder, Int, Value
from ingot.kernels.call import View
from ingot.kernels.iteration import Space, block_of, collapse
from ingot.kernels.made_again import remembered

_SIZES = ("n", "n_block", "n_blocks", "m", "m_block", "m_blocks")


class Grid(NamedTuple):
    """What of the loops changes the code.

    classes: how each operand moves along the innermost dimension: "c" to the next element, "s" by a stride,
    "b" not at all; "u" is one value for the whole call. rank: dimensions outside of the two innermost.
    """

    classes: tuple[str, ...]
    rank: int

    def slots(self) -> tuple[str, ...]:
        """The names of the argument slots."""
        return _slots(self)


@functools.lru_cache(1024)
def _slots(grid: Grid) -> tuple[str, ...]:
    names = [*_SIZES, *(f"o{d}" for d in range(grid.rank))]
    for i, kind in enumerate(grid.classes):
        names.append(f"p{i}")
        if kind != "u":
            names += [f"m{i}", *(f"o{d}_{i}" for d in range(grid.rank))]
        if kind == "s":
            names.append(f"n{i}")
    return tuple(names)


@dataclass(slots=True)
class GridPlan:
    """A grid for given views, its arguments and its tiles."""

    grid: Grid
    args: list[int | View]
    tiles: int


def plan(
    outputs: Sequence[View],
    inputs: Sequence[View],
    shape: Sequence[int],
    lanes: int,
    weight: int,
) -> GridPlan:
    """Plan loops over `shape`. Operands are numbered inputs first, then outputs; all have that shape.

    weight: instructions on a vector, roughly.
    """
    space = collapsed(tuple(shape), tuple([v.strides for v in (*outputs, *inputs)]))
    grid, sizes, steps, tiles = _remembered_loops(space, len(outputs), lanes, weight)
    args: list[int | View] = [*sizes]
    for view, own in zip((*inputs, *outputs), steps, strict=True):
        args.append(view)
        args += own
    return GridPlan(grid, args, tiles)


#: Which dimensions are left follows from how sizes and strides are made of those of the model's inputs, so it
#: is noted where these are.
collapsed = remembered(1024, "sizes")(collapse)


def loops(
    space: Space, count: int, lanes: int, weight: int
) -> tuple[Grid, tuple[int, ...], tuple[tuple[int, ...], ...], int]:
    """The grid, the sizes of its loops, each operand's further arguments, and the tiles.

    space: strides are of the `count` outputs first; operands are numbered inputs first.
    """
    space = _arrange(space, lanes)
    sizes: tuple[int, ...] = space.sizes or (1,)
    strides: tuple[tuple[int, ...], ...] = (*space.strides[count:], *space.strides[:count])
    if not space.sizes:
        strides = ((1,),) * len(strides)
    inputs = len(strides) - count
    classes = tuple(
        [
            "c" if s[-1] == 1 else "s" if s[-1] or i >= inputs else "b" if any(s) else "u"
            for i, s in enumerate(strides)
        ]
    )
    n, m, outer = sizes[-1], (sizes[-2] if len(sizes) > 1 else 1), sizes[:-2]
    size = math.prod(sizes)
    elements = block_of(size, max(512, (1 << 16) // (weight + 4)))  # some microseconds of work in a tile
    if "s" in classes and m > 1:
        n_block = min(n, 8 * lanes)  # squarish, so that the lines a gather touches are used again from L1
    else:
        n_block = n if n < 2 * elements else block_of(n, elements, 4 * lanes)
    n_block = max(1, n_block)
    m_block = max(1, min(m, elements // n_block))
    n_blocks, m_blocks = -(-n // n_block), -(-m // m_block)
    further: list[tuple[int, ...]] = []
    for kind, steps in zip(classes, strides, strict=True):
        if kind == "u":
            further.append(())
            continue
        *places, step = steps
        row = places.pop() if places else 0
        further.append((row, *places, step) if kind == "s" else (row, *places))
    tiles = math.prod(outer) * m_blocks * n_blocks if size else 0
    numbers = (n, n_block, n_blocks, m, m_block, m_blocks, *outer)
    return Grid(classes, len(outer)), numbers, tuple(further), tiles


_remembered_loops = remembered(1024)(loops)  # layers that are alike, and shapes that come again


def _arrange(space: Space, lanes: int) -> Space:
    """Choose the dimension for the vectors, and next to it a long one: the loop over rows in a tile."""
    rank = len(space.sizes)
    if rank < 2 or (rank == 2 and 2 * space.sizes[1] >= lanes):
        return space
    order = list(range(rank))
    if 2 * space.sizes[-1] < lanes:
        # Too narrow for a vector: a long dimension is better, even with gathers.
        long = [d for d in order[:-1] if space.sizes[d] >= 2 * lanes]
        if long:
            inner = max(long, key=lambda d: (sum(s[d] in (0, 1) for s in space.strides), d))
            order.remove(inner)
            order.append(inner)
    if rank > 2:
        rows = next((d for d in reversed(order[:-1]) if space.sizes[d] >= 8), order[-2])
        order.remove(rows)
        order.insert(rank - 2, rows)
    if order == sorted(order):
        return space
    return Space(
        tuple([space.sizes[d] for d in order]), tuple([tuple([s[d] for d in order]) for s in space.strides])
    )


class Rows:
    """The loops of one kernel. `elements` are the operands' LLVM types in memory."""

    def __init__(self, k: Builder, grid: Grid, elements: Sequence[Any]) -> None:
        self.k, self.grid, self.elements = k, grid, elements
        self._sizes = [k.arg(name) for name in _SIZES]
        self._outer = [k.arg(f"o{d}") for d in range(grid.rank)]
        classes = list(enumerate(grid.classes))
        #: where each operand starts
        self.start = [k.pointer(f"p{i}") for i, _ in classes]
        self._rows = [0 if kind == "u" else k.arg(f"m{i}") for i, kind in classes]
        #: each operand's stride along the vectors
        self.steps: list[Int] = [k.arg(f"n{i}") if kind == "s" else int(kind == "c") for i, kind in classes]
        self._places = [
            [0 if kind == "u" else k.arg(f"o{d}_{i}") for d in range(grid.rank)] for i, kind in classes
        ]

    @contextmanager
    def each(self, begin: Int | None = None, end: Int | None = None) -> Generator[tuple[list[Value], Value]]:
        """The body runs for each row of tiles begin to end (default: this thread's): pointers and length."""
        k = self.k
        begin, end = k.begin if begin is None else begin, k.end if end is None else end
        n, n_block, n_blocks, m, m_block, m_blocks = self._sizes
        with k.loop(begin, end) as tile:
            rest, column = k.div(tile, n_blocks), k.mul(k.rem(tile, n_blocks), n_block)
            rest, first = k.div(rest, m_blocks), k.mul(k.rem(rest, m_blocks), m_block)
            offsets: list[Int] = [
                k.add(k.mul(column, c), k.mul(first, s)) for c, s in zip(self.steps, self._rows, strict=True)
            ]
            for d in reversed(range(self.grid.rank)):
                index = rest if d == 0 else k.rem(rest, self._outer[d])
                rest = rest if d == 0 else k.div(rest, self._outer[d])
                offsets = [k.add(o, k.mul(index, p[d])) for o, p in zip(offsets, self._places, strict=True)]
            base = [k.at(p, o, e) for p, o, e in zip(self.start, offsets, self.elements, strict=True)]
            count = k.min(n_block, k.sub(n, column))
            with k.loop(0, k.min(m_block, k.sub(m, first))) as r:
                yield (
                    [
                        k.at(p, k.mul(r, s), e)
                        for p, s, e in zip(base, self._rows, self.elements, strict=True)
                    ],
                    count,
                )
