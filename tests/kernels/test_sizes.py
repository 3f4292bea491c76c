"""What is noted of sizes: for other sizes for which its conditions hold, a computation has the same course
and the numbers of the notes; nothing looks at a size unnoticed.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.compiler.recipe_text import Writer
from ingot.compiler.steps import Lowered
from ingot.kernels.call import Buffer, View, constant
from ingot.kernels.made_again import either, made_again, remembered
from ingot.kernels.notes import Notes, noted
from ingot.kernels.sizes import Size


def course(
    sizes: Sequence[Any], program: Sequence[tuple[str, int, int, int]]
) -> tuple[list[Any], list[bool]]:
    """Numbers that follow from sizes, and the answers that were given on the way."""
    numbers, answers = [*sizes, 3], list[bool]()
    for op, i, j, c in program:
        a, b = numbers[i % len(numbers)], numbers[j % len(numbers)]
        if op == "smaller":
            answers.append(bool(a - c < b))
            numbers.append(min(a, b))
        elif op == "equal":
            answers.append(bool(a == b + c))
        elif op == "nothing":
            answers.append(not a)
        elif op == "divide":
            numbers.append(a // (c + 1))
        elif op == "divide by size":
            if b > 0:
                numbers.append(a * c // b)
        elif op == "remainder":
            numbers.append(a % (c + 1))
        else:
            numbers.append(
                {"add": a + b * c, "subtract": a - b - c, "multiply": a * b if len(numbers) < 6 else a}
            )
            numbers[-1] = numbers[-1][op]
    return numbers, answers


OPS = ["smaller", "equal", "nothing", "divide", "divide by size", "remainder", "add", "subtract", "multiply"]


def again(notes: Notes, result: Any) -> Callable[..., Any]:
    return Writer(notes).function(lambda writer: writer.text(tuple(result)))


@given(st.integers(0, 1 << 32))
def test_other_sizes_take_the_same_course_or_are_refused(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randrange(8), draw.randrange(8)]
    program = [
        (draw.choice(OPS), draw.randrange(8), draw.randrange(8), draw.randrange(8))
        for _ in range(draw.randrange(13))
    ]
    others = [(draw.randrange(8), draw.randrange(8)) for _ in range(12)]
    with noted(sizes) as notes:
        numbers, answers = course(notes.given, program)
    assert [n.value if isinstance(n, Size) else n for n in numbers] == course(sizes, program)[0]
    function = again(notes, numbers)
    assert function(*sizes) == tuple(course(sizes, program)[0])
    for other in others:
        found, (wanted, wanted_answers) = function(*other), course(other, program)
        if found is not None:
            assert (found, answers) == (tuple(wanted), wanted_answers), (
                f"{program} noted for {sizes}, again {other}"
            )


@pytest.mark.parametrize(
    "look",
    [
        lambda n: list(range(n)),
        lambda n: np.zeros(n),
        lambda n: np.zeros((2, n)),
        lambda n: [0] * n,
        lambda n: "abcdefghij"[n],
        lambda n: f"{n}",
        lambda n: n / 2,
        lambda n: n * 0.5,
        lambda n: 0.5 * n,
        lambda n: n < 2.5,
        lambda n: math.sqrt(n),
        lambda n: n << 1,
        lambda n: 2**n,
        lambda n: np.array([n, 2], np.int64),
        lambda n: round(float(n)),
    ],
)
def test_who_needs_the_number_gets_it_and_that_is_noted(look: Callable[[Any], Any]) -> None:
    with noted([4, 5]) as notes:
        found = look(notes.given[0])
    assert repr(found) == repr(look(4))
    function = again(notes, [1])
    assert function(4, 9) == (1,)
    assert function(5, 5) is None
    assert notes.pins


def test_who_wants_no_pins_hears_of_the_first() -> None:
    with noted([4, 5], may_pin=False) as notes, pytest.raises(TypeError, match="must be what it is"):
        list(range(notes.given[1]))


def test_arithmetic_and_questions_do_not_pin() -> None:
    with noted([4, 6]) as notes:
        a, b = notes.given
        assert (a * b + a) // a is not None
        assert (768 * a) % 64 == 0
        assert 768 * a // 64 // a == 12
        assert max(a, b) is b
        assert a * b == b * a
        assert np.int64(2) * a == a + a
        assert math.prod((2, a, b)) == 2 * a * b
    assert not notes.pins
    assert again(notes, [1])(2, 50) == (1,)
    assert again(notes, [1])(50, 2) is None, "the larger of both was the second"
    assert again(notes, [1])(0, 2) is None, "it divided"


def test_a_size_is_no_key_and_does_not_outlive_its_plan() -> None:
    with noted([4]) as notes:
        (a,) = notes.given
        with pytest.raises(TypeError, match="unhashable"):
            hash(a)
        with pytest.raises(TypeError, match="unhashable"):
            functools.cache(lambda n: n)(a)
        with pytest.raises(TypeError, match="compared"):
            _ = np.arange(3) == a
    with pytest.raises(TypeError, match="after the plan"):
        _ = a + 1


def test_what_is_remembered_is_done_again() -> None:
    @remembered(8)
    def halves(n: int) -> tuple[str, tuple[int, ...]]:
        return "even" if n % 2 == 0 else "odd", (n // 2, n - n // 2)

    @remembered(8, "decision")
    def is_large(n: int) -> bool:
        return n > 100

    @remembered(8, "sizes")
    def double(n: int) -> int:
        return 2 * n

    with noted([6]) as notes:
        (n,) = notes.given
        kind, (low, high) = halves(n)
        assert kind == "even"
        assert not is_large(n)
        result = [low + 1, high, double(n)]
    function = again(notes, result)
    assert function(6) == (4, 3, 12)
    assert function(20) == (11, 10, 40)
    assert function(7) is None, "it is odd"
    assert function(102) is None, "it is large"
    assert [double(5), halves(5)] == [10, ("odd", (2, 3))]


def test_a_number_that_may_be_missing_is_looked_at() -> None:
    @remembered(8)
    def third(n: int) -> int | None:
        return None if n % 3 else n // 3

    with noted([6]) as notes:
        result = [third(notes.given[0])]
    assert again(notes, result)(9) == (3,)
    assert again(notes, result)(10) is None


def test_tables_are_those_of_the_other_sizes() -> None:
    @remembered(8)
    def table(n: int) -> View:
        return constant(np.arange(n))

    with noted([6]) as notes:
        (n,) = notes.given
        found = table(n)
        assert found.size > 3
        own = View(Buffer(8 * n), 0, np.dtype(np.int64), (n,), (1,))
    function = Writer(notes).function(lambda writer: f"{writer.view(found)}, {writer.view(own)}")
    other, memory = function(9)
    assert other.buffer.array.tolist() == list(range(9))
    assert (memory.shape, memory.buffer.nbytes) == ((9,), 72)
    assert function(2) is None


def test_calls_that_differ_are_made_again() -> None:
    """A function that is left as it is gets the views of the other plan."""
    seen: list[tuple[int, ...]] = []

    @made_again
    def touch(x: View) -> list[Any]:
        seen.append(x.shape)
        return []

    with noted([6]) as notes:
        (n,) = notes.given
        (step,) = touch(View(Buffer(4 * n), 0, np.dtype(np.float32), (n,), (1,)))
    assert not seen
    function = Writer(notes).function(lambda writer: f"[{writer.step(step)}]")
    assert function(11) == []
    assert seen == [(11,)]


def test_a_recipe_has_few_names_at_a_time() -> None:
    """A frame with a name for everything would fill what Python sets aside for frames."""
    count, seen = 100, list[tuple[int, ...]]()

    @made_again
    def touch(x: View) -> list[Any]:
        seen.append((x.buffer.nbytes, *x.shape))
        return []

    with noted([6, 7]) as notes:
        a, b = notes.given
        steps: list[Any] = []
        for number in range(count):
            n = a * b + number
            steps += touch(View(Buffer(4 * n), 0, np.dtype(np.float32), (n, a), (1, n)))
    lowered = Lowered(steps, [])
    function = Writer(notes).function(lambda writer: writer.plan(lowered, []))
    assert function(3, 5) == ([], [], [])
    assert seen == [(4 * (15 + number), 15 + number, 3) for number in range(count)]
    assert function.__code__.co_nlocals < count / 2, "each name of a recipe's function is for one thing alone"


def test_what_one_course_needs_is_worked_out_in_it() -> None:
    asked: list[int] = []

    @remembered(8, "answer")
    def half(n: int) -> int | None:
        return None if n % 2 else n // 2

    @remembered(8)
    def size(n: int) -> int:
        asked.append(n)
        return n + 1

    @made_again
    def note(x: View) -> list[Any]:
        del x
        return []

    with noted([6]) as notes:
        (n,) = notes.given
        found, more = half(n), size(n)
        view = View(Buffer(4 * more), 0, np.dtype(np.float32), (more,), (1,))
        steps = either(found, lambda: note(view), lambda _: [])
    function = Writer(notes).function(lambda writer: f"[{', '.join(map(writer.step, steps))}]")
    asked.clear()
    assert function(8) == []
    assert not asked, "the other course alone wants it"
    assert function(9) == []
    assert asked == [9]


def test_of_two_courses_the_answer_chooses() -> None:
    """What one course makes is nothing to the other, and constants of both keep their names."""
    taken: list[tuple[Any, ...]] = []

    @remembered(8, "answer")
    def half(n: int) -> int | None:
        return None if n % 2 else n // 2

    @made_again
    def note(x: View, what: tuple[str, Any]) -> list[Any]:
        taken.append((*what, x.shape))
        return []

    def course(n: Any) -> list[Any]:
        out = View(Buffer(4 * n), 0, np.dtype(np.float32), (n, 2), (2, 1))
        found = half(n)
        return [
            *either(found, lambda: note(out, ("odd", None)), lambda h: note(out, ("even", h))),
            *note(out, ("after", None)),
        ]

    with noted([6]) as notes:
        steps = course(notes.given[0])
    function = Writer(notes).function(lambda writer: f"[{', '.join(map(writer.step, steps))}]")
    for n in (6, 9, 10):
        taken.clear()
        assert function(n) == []
        again = list(taken)
        taken.clear()
        course(n)
        assert again == taken
