"""Runs the rounds of a loop whose arrays change their sizes, or whose rows are stacked and not counted
before, in native code that serves all sizes (`compiler/loose.py`).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from ingot.codegen.pages import address_of, aligned
from ingot.compiler.index import Index
from ingot.compiler.loose import SEQUENCE, LooseLoop, loose_loop
from ingot.compiler.loose_nodes import UnsuitedError
from ingot.compiler.recipe import Shapes
from ingot.kernels.contract import name_of
from ingot.kernels.loose import (
    DIMS,
    END,
    MOST_DIMS,
    MOST_ELEMENTS,
    NEXT,
    NO_MEMORY,
    NO_ROOM,
    OTHER,
    OTHER_END,
    OWN,
    OWN_END,
    RANK,
    SCRATCH_BYTES,
    STATUS,
    WORDS,
)
from ingot.kernels.loose_loop import DONE, LIVE
from ingot.ops.control import Advance
from ingot.ops.registry import Array
from ingot.ops.sequence import Rows
from ingot.runtime.loose_plans import CODE, PartPlans, Planner
from ingot.runtime.recipes import Recipes

#: Bytes for the arrays of a round at first, and at most; where they take more, plans pay.
FIRST_BYTES, MOST_BYTES = 1 << 16, 1 << 23
#: Bytes of a list of rows at first. It grows as long as there is memory.
FIRST_LIST_BYTES = 1 << 14
#: Rounds of one call: between calls the keyboard can interrupt.
MOST_ROUNDS = 1 << 12
#: Rounds one after the other that had to be computed in another way, after which all others are.
MOST_FAILURES = 3
#: A round whose nodes with plans take less is over before Python has made ready one by a plan of the whole
#: body; estimates are of a fast core.
SHORT_ROUND_NS = 5000.0
#: Rounds by plans of the whole body until it is seen again whether sizes change: at first, how many times as
#: many each further time, and at most.
FIRST_PAUSE, LONGER_PAUSE, MOST_PAUSE = 4, 4, 256

_HEADER = 8 * WORDS


class LooseLoops:
    """The native rounds of one body, for each combination of dtypes."""

    def __init__(self, index: Index, planner: Planner) -> None:
        self._index, self._planner = index, planner
        self._found: dict[tuple[str, ...], LooseLoop | None] = {}
        self._free: dict[tuple[str, ...], list[_Tables]] = {}
        #: of each node that has plans
        self._recipes: dict[tuple[str, ...], list[Recipes]] = {}

    def begin(self, carried: Sequence[Any], captured: Sequence[Any]) -> LooseRounds | None:
        """What runs the rounds of one loop with these values; None where none of this is for it."""
        kinds = tuple(map(_kind, (*carried, *captured)))
        if kinds not in self._found:
            try:
                count = len(carried)
                found = loose_loop(self._index, kinds[:count], kinds[count:], self._planner.machine)
            except UnsuitedError:
                found = None
            self._found[kinds] = found
        plan = self._found[kinds]
        if plan is None or not all(map(_fits, captured)):
            return None
        free = self._free.setdefault(kinds, [])
        try:
            tables = free.pop()
        except IndexError:
            recipes = self._recipes.setdefault(kinds, [Recipes() for _ in plan.parts])
            tables = _Tables(plan, self._planner, recipes)
        return LooseRounds(tables, captured, free)


class LooseRounds:
    """The rounds of one loop. What it captures stays the same."""

    def __init__(self, tables: _Tables, captured: Sequence[Array], free: list[_Tables]) -> None:
        self._tables, self._free, self._failures = tables, free, 0
        #: Nodes that have plans: whether they are short, or their sizes change. If not, plans of the whole
        #: body are better; how many rounds go by until it is tried again, and then.
        self._stays, self._paused, self._pause = False, 0, FIRST_PAUSE
        self._sizes: list[Shapes] | None = None
        self._captured = [_plain(array) for array in captured]
        for word, array in zip(tables.plan.captured, self._captured, strict=True):
            tables.describe(word, array)
        if not tables.prepare():
            self._failures = MOST_FAILURES

    def end(self) -> None:
        """Let others have the tables."""
        self._tables.forget()
        self._free.append(self._tables)

    def advance(self, start: int, trips: int | None, carried: Sequence[Any]) -> Advance | None:
        """Rounds from `start` on, as many as can be computed here; None for none."""
        tables, plan = self._tables, self._tables.plan
        if self._failures >= MOST_FAILURES or not all(map(_fits, carried)):
            return None
        arrays: list[Array] = []
        for value, place in zip(carried, plan.carried, strict=True):
            if place is not None:
                if value.dtype != place[1]:
                    return None
                arrays.append(_plain(value))
                tables.describe(place[0], arrays[-1])
        is_trial = bool(plan.parts) and not self._stays
        if is_trial and self._paused:
            self._paused -= 1
            return None
        if is_trial:
            tables.took()
        done, live, is_enough = tables.run(start, start + 1 if is_trial else trips)
        if done == start:
            self._failures = self._failures + 1 if is_enough else MOST_FAILURES
            return None
        self._failures = 0
        if is_trial:
            self._look(tables.sizes(), tables.took())
            if self._stays and live and done != trips:
                done, live, _ = tables.go_on(trips)
        rows = tables.rows()
        after = [
            value if place is None else tables.array(*place)
            for value, place in zip(carried, plan.carried, strict=True)
        ]
        put_out = rows[: len(rows) - len(plan.sequences)]
        for number, found in zip(plan.sequences, rows[len(put_out) :], strict=True):
            after[number] = _longer(cast("list[Any]", after[number]), found)
        return Advance(done, live, after, put_out)

    def _look(self, sizes: list[Shapes], nanoseconds: int) -> None:
        """After a round that was a trial, with what its nodes read, and how long they took."""
        if nanoseconds < SHORT_ROUND_NS:
            self._stays = True
        elif self._sizes is not None:
            self._stays = sizes != self._sizes
            self._paused, self._pause = self._pause, min(LONGER_PAUSE * self._pause, MOST_PAUSE)
        self._sizes = sizes


@dataclass(slots=True)
class _Tables:
    """The tables of a loop with real addresses in them, and their memory. One run at a time."""

    plan: LooseLoop
    planner: Planner
    recipes: list[Recipes]
    words: np.ndarray = field(init=False)
    cells: memoryview = field(init=False)
    calls: list[tuple[Any, int]] = field(init=False)
    scratch: np.ndarray = field(default_factory=lambda: aligned(SCRATCH_BYTES))
    #: of what is computed once, and the two halves for rounds
    steady: np.ndarray = field(default_factory=lambda: aligned(FIRST_BYTES))
    halves: np.ndarray = field(default_factory=lambda: aligned(2 * FIRST_BYTES))
    lists: list[np.ndarray] = field(init=False)
    parts: list[PartPlans] = field(init=False)
    #: smaller halves, in which what is carried may lie
    old: list[np.ndarray] = field(default_factory=list[np.ndarray])

    def __post_init__(self) -> None:
        plan = self.plan
        self.words = plan.words.copy()
        self.cells = memoryview(cast(Any, self.words))  # the same words, quicker to write one by one
        base = self.words.ctypes.data
        self.words[plan.links[:, 0]] = base + 8 * plan.links[:, 1]
        self.calls = [(CODE(code), base + 8 * word) for code, word in (plan.first, plan.again)]
        self.lists = [aligned(FIRST_LIST_BYTES) for _ in plan.lists]
        self.parts = [
            PartPlans(part, recipes, self.planner, self.words)
            for part, recipes in zip(plan.parts, self.recipes, strict=True)
        ]

    def describe(self, word: int, array: Array) -> None:
        """Say where an array lies, and its sizes."""
        cells = self.cells
        cells[word], cells[word + RANK] = address_of(array), array.ndim
        for axis, size in enumerate(array.shape, word + DIMS):
            cells[axis] = size

    def array(self, word: int, dtype: np.dtype[Any]) -> Array:
        """A copy of what lies there."""
        cells, first = self.cells, word + DIMS
        made = np.empty(cells[first : first + cells[word + RANK]].tolist(), dtype)
        ctypes.memmove(made.ctypes.data, cells[word], made.nbytes)
        return made

    def prepare(self) -> bool:
        """Compute what no round changes; False: that is for others."""
        while True:
            begin = self.steady.ctypes.data
            self._put(((NEXT, begin), (END, begin + len(self.steady)), (STATUS, 0)))
            status = self._call(0)
            if status == 0:
                return True
            if status != NO_MEMORY or 2 * len(self.steady) > MOST_BYTES:
                return False
            self.steady = aligned(2 * len(self.steady))

    def run(self, start: int, trips: int | None) -> tuple[int, bool, bool]:
        """Rounds: the number of the next one, whether it is wanted, and whether there was enough memory."""
        cells, plan = self.cells, self.plan
        report = plan.report
        cells[report + DONE], cells[report + LIVE] = start, 1
        self._use_halves()
        for (word, _), memory in zip(plan.lists, self.lists, strict=True):
            begin = memory.ctypes.data
            cells[word], cells[word + 1] = begin, begin + len(memory)
        return self.go_on(trips)

    def go_on(self, trips: int | None) -> tuple[int, bool, bool]:
        """The same for rounds after those that were run last."""
        cells, plan = self.cells, self.plan
        report, bounds = plan.report, plan.bounds
        while True:
            done = cells[report + DONE]
            most = done + MOST_ROUNDS
            cells[bounds], cells[bounds + 1] = done, most if trips is None else min(most, trips)
            status = self._call(1)
            done, live = cells[report + DONE], bool(cells[report + LIVE])
            if status == 0:
                if not live or (trips is not None and done >= trips):
                    return done, live, True
            elif status == NO_MEMORY:
                if len(self.halves) > MOST_BYTES:
                    return done, True, False
                self.old.append(self.halves)
                self.halves = aligned(2 * len(self.halves))
                self._use_halves()
            elif status == NO_ROOM:
                self._grow_lists()
            else:
                return done, True, True

    def sizes(self) -> list[Shapes]:
        """The shapes of what the nodes that have plans read last."""
        return [part.sizes() for part in self.parts]

    def took(self) -> int:
        """Nanoseconds that the nodes that have plans took since this was asked last, roughly: each of those
        that ran counts once.
        """
        return sum([part.took() for part in self.parts])

    def rows(self) -> list[Array | list[Array]]:
        """What was appended to each list: stacked where all have one shape."""
        found: list[Array | list[Array]] = []
        for (word, dtype), memory in zip(self.plan.lists, self.lists, strict=True):
            found.append(_unpacked(memory[: self.cells[word] - memory.ctypes.data], dtype))
        return found

    def forget(self) -> None:
        """Let go of memory that only this loop needed."""
        self.old.clear()
        self.lists = [m if len(m) <= MOST_BYTES else aligned(FIRST_LIST_BYTES) for m in self.lists]

    def _call(self, number: int) -> int:
        code, arguments = self.calls[number]
        self.cells[self.plan.state + STATUS] = 0
        code(arguments, 0, 1, self.scratch.ctypes.data)
        for part in self.parts:
            if part.error is not None:
                error, part.error = part.error, None
                raise error
        return self.cells[self.plan.state + STATUS]

    def _put(self, words: Sequence[tuple[int, int]]) -> None:
        for word, value in words:
            self.cells[self.plan.state + word] = value

    def _use_halves(self) -> None:
        begin, size = self.halves.ctypes.data, len(self.halves) // 2
        middle, end = begin + size, begin + 2 * size
        self._put(
            ((NEXT, begin), (END, middle), (OWN, begin), (OWN_END, middle), (OTHER, middle), (OTHER_END, end))
        )

    def _grow_lists(self) -> None:
        """Twice the memory for each list, with what is in it."""
        for number, (word, _) in enumerate(self.plan.lists):
            before = self.lists[number]
            used, memory = self.cells[word] - before.ctypes.data, aligned(2 * len(before))
            memory[:used] = before[:used]
            begin = memory.ctypes.data
            self.lists[number] = memory
            self.cells[word], self.cells[word + 1] = begin + used, begin + len(memory)


def _longer(sequence: list[Any], more: Array | list[Array]) -> list[Any]:
    """A sequence with what was appended to it."""
    if not isinstance(more, np.ndarray):
        return [*sequence, *more]
    if isinstance(sequence, Rows):
        return sequence.followed_by(more)
    return [*sequence, *map(np.array, more)] if sequence else Rows(more)


def _unpacked(memory: np.ndarray, dtype: np.dtype[Any]) -> Array | list[Array]:
    """The arrays of a list: each has its words, then its elements up to a multiple of eight bytes."""
    if not len(memory):
        return []
    shape, record, nbytes = _first(memory, dtype)
    if len(memory) % record == 0:
        records = memory.reshape(-1, record)
        own = records[:, 8 * RANK : 8 * (DIMS + len(shape))]
        if (own == own[0]).all():
            return records[:, _HEADER : _HEADER + nbytes].copy().view(dtype).reshape(len(records), *shape)
    found: list[Array] = []
    while len(memory):
        shape, record, nbytes = _first(memory, dtype)
        found.append(memory[_HEADER : _HEADER + nbytes].copy().view(dtype).reshape(shape))
        memory = memory[record:]
    return found


def _first(memory: np.ndarray, dtype: np.dtype[Any]) -> tuple[list[int], int, int]:
    """Of the first array of a list its shape, how many bytes it takes there, and how many elements have."""
    words = memory[:_HEADER].view(np.int64).tolist()
    shape = words[DIMS : DIMS + words[RANK]]
    nbytes = math.prod(shape) * dtype.itemsize
    return shape, _HEADER + -(-nbytes // 8) * 8, nbytes


def _kind(value: Any) -> str:
    return SEQUENCE if isinstance(value, list) else name_of(value.dtype) if _fits(value) else "other"


def _fits(value: Any) -> bool:
    """Whether it is a sequence, or an array that is not too large."""
    if isinstance(value, np.ndarray):
        return value.ndim <= MOST_DIMS and value.size < MOST_ELEMENTS
    return isinstance(value, list)


def _plain(array: Array) -> Array:
    return np.asarray(array, order="C")
