"""A series is the calls of all its turns: the same tables, and memory that no turn spoils for another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest

from ingot.codegen.machine import host
from ingot.compiler.plan import Plan, _lives, make_plan
from ingot.compiler.steps import Lowered
from ingot.kernels.call import Buffer, Call, Series, View, constant, series
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step

_F32 = np.dtype(np.float32)
_SUM = Expression(("float32", "float32"), (Step("Add", (0, 1), "float32"),), (2,))


def part(buffer: Buffer, first: int, size: int) -> View:
    return View(buffer, 4 * first, _F32, (size,), (1,))


class Memory:
    """What the calls of these tests work on: images of `rows` rows of 8 floats."""

    def __init__(self, images: int, rows: int) -> None:
        self.images, self.rows, count = images, rows, images * rows * 8
        self.x, self.y, self.kept = Buffer(4 * count, "input"), Buffer(4 * count, "output"), Buffer(4 * count)
        self.weights = constant(np.arange(count, dtype=np.float32))

    def add(self, a: View, b: View, out: View) -> Call:
        return elementwise(_SUM, [a, b], [out], host())

    def one(self, image: int, row: int) -> list[Call]:
        """y = (x + w) + kept, through memory of its own."""
        at, own = (image * self.rows + row) * 8, Buffer(32)
        w = View(self.weights.buffer, 4 * at, _F32, (8,), (1,))
        return [
            self.add(part(self.x, at, 8), w, part(own, 0, 8)),
            self.add(part(own, 0, 8), part(self.kept, at, 8), part(self.y, at, 8)),
        ]

    def first(self) -> Call:
        count = self.images * self.rows * 8
        return self.add(part(self.x, 0, count), part(self.x, 0, count), part(self.kept, 0, count))

    def every_row(self, image: int) -> list[Call | Series]:
        return series(partial(self.one, image), self.rows)


def plan_of(steps: Sequence[Call | Series]) -> Plan:
    return make_plan(Lowered(list(steps), []), host(), 2)


@pytest.mark.parametrize(("images", "rows"), [(1, 2), (1, 5), (2, 1), (3, 1), (2, 2), (3, 4)])
def test_the_tables_are_those_of_all_calls(images: int, rows: int) -> None:
    memory = Memory(images, rows)
    repeated = series(memory.every_row, images)
    assert len(repeated) == 1
    assert isinstance(repeated[0], Series)
    single = list(itertools.chain.from_iterable(memory.one(i, r) for i in range(images) for r in range(rows)))
    a, b = plan_of([memory.first(), *repeated]), plan_of([memory.first(), *single])
    for plan in (a, b):  # they are filled in later
        plan.words[plan.arena_words] = 0
        plan.words[[patch.word for patch in (*plan.input_patches, *plan.output_patches)]] = 0
    assert a.words.tolist() == b.words.tolist()
    assert a.rows.tolist() == b.rows.tolist()
    assert a.arena_words.tolist() == b.arena_words.tolist()
    assert a.arena_offsets.tolist() == b.arena_offsets.tolist()
    assert a.arena_bytes == b.arena_bytes
    assert (a.input_patches, a.output_patches, a.parts) == (b.input_patches, b.output_patches, b.parts)
    assert [row[:4] for row in a.told] == [row[:4] for row in b.told]


def test_what_all_turns_read_lives_as_long_as_the_series() -> None:
    """`kept` is read by the second call of a turn alone, and by the next turn again."""
    memory = Memory(3, 4)
    (repeated,) = series(memory.every_row, 3)
    last = memory.add(part(memory.x, 0, 8), part(memory.x, 0, 8), part(Buffer(32), 0, 8))
    row, lives = _lives([memory.first(), repeated, last], [])
    assert len(row) == 4  # each call of the body counts once
    assert lives[memory.kept] == (0, 2)
    assert isinstance(repeated, Series)
    (own,) = repeated.own
    assert lives[own] == (1, 2)

    def reads_first(turn: int) -> list[Call]:
        x, y = part(memory.x, 8 * turn, 8), part(memory.y, 8 * turn, 8)
        return [memory.add(x, part(memory.kept, 8 * turn, 8), y), memory.add(x, x, part(Buffer(32), 0, 8))]

    (repeated,) = series(reads_first, 3)
    _, lives = _lives([memory.first(), repeated], [])
    assert lives[memory.kept] == (0, 2), "the second turn reads it after the first turn's second call"


def test_turns_that_differ_are_no_series() -> None:
    memory = Memory(1, 4)

    def longer(turn: int) -> list[Call]:
        size = 8 * (turn + 1)
        return [memory.add(part(memory.x, 0, size), part(memory.x, 0, size), part(memory.y, 0, size))]

    calls = series(longer, 3)
    assert [call.writes[0].shape for call in calls if isinstance(call, Call)] == [(8,), (16,), (24,)]
