"""Sizes under which the conditions of a branch hold."""

from __future__ import annotations

from typing import Any

import pytest
import sympy

from ingot.capture.path import NeverTaken, assuming, taken_apart
from ingot.capture.sizes import SizeEnv


def test_no_size_is_tried_that_another_one_is_divided_by() -> None:
    """A tensor of 60 // n rows stands before the branch: nothing in it has n = 0."""
    env = SizeEnv()
    n, m = env.new_dim("n", 4), env.new_dim("m", 4)
    env.derive(60 // n)
    with assuming(env, sympy.Eq(env.expr(n) * env.expr(m), 0)):
        found = [env.value(env.expr(d)) for d in (n, m)]
    assert found == [4, 0], f"n and m are {found}"


def test_sizes_that_a_condition_before_ties_change_together() -> None:
    """A past and a text are longer than a window of 6: a text of one token wants a longer past, which is as
    long as the other past.
    """
    env = SizeEnv()
    past, text, other = (env.new_dim(name, hint) for name, hint in (("past", 4), ("text", 3), ("other", 4)))
    with assuming(env, env.expr(past) + env.expr(text) > 6), assuming(env, env.expr(text) <= 1):
        found = [int(env.value(env.expr(d))) for d in (past, text, other)]
    assert found[1] <= 1, f"past, text and the other past are {found}"
    assert sum(found[:2]) > 6, f"past, text and the other past are {found}"
    assert found[2] == found[0], f"past, text and the other past are {found}"


def test_where_no_size_is_found_each_look_says_so() -> None:
    """The second look, which is answered from memory, too."""
    env = SizeEnv()
    past, text = env.new_dim("past", 4), env.new_dim("text", 3)
    whole, longer = env.expr(past) + env.expr(text) <= 6, env.expr(text) > 6
    for _ in range(2):
        with assuming(env, whole), pytest.raises(NeverTaken), assuming(env, longer):
            pytest.fail("a text of more than 6 fits into 6")
        assert [env.value(env.expr(d)) for d in (past, text)] == [4, 3], "the hints are not those before"


def test_sizes_that_are_equal_by_chance_are_taken_apart_once() -> None:
    """Tokens that are as many as a filter has taps: nothing does with one token and one tap."""
    env = SizeEnv()
    tokens, taps, rows = (env.new_dim(name, hint) for name, hint in (("tokens", 4), ("taps", 4), ("rows", 2)))
    one = sympy.Eq(env.expr(tokens), 1)

    def found() -> list[int]:
        before = env.saved()
        with assuming(env, one):
            hints = [int(env.hints[env.expr(d)]) for d in (taps, rows)]
        env.restore(before)
        return hints

    assert not taken_apart(env, one), "no sizes were looked for yet"
    assert found() == [1, 2]
    assert taken_apart(env, one)
    assert found() == [4, 2]
    assert not taken_apart(env, one), "there are no others"


def test_a_side_that_fails_is_tried_with_multiples_of_the_example_once() -> None:
    """An image of four pixels is one window; one of five is none, and one of eight is two."""
    env = SizeEnv()
    height = env.new_dim("height", 4)
    larger = sympy.Ne(env.expr(height), 4)

    def found() -> int:
        before = env.saved()
        with assuming(env, larger):
            hint = int(env.hints[env.expr(height)])
        env.restore(before)
        return hint

    assert found() == 5
    assert taken_apart(env, larger)
    assert found() == 8
    assert not taken_apart(env, larger), "there are no others"


def test_the_parts_of_a_condition_are_known_in_its_branch() -> None:
    """`if not (h != 4 or w != 4)`: as many pixels as a constant has, and nothing is fixed for good."""
    env = SizeEnv()
    h, w = (env.new_dim(name, 4) for name in "hw")
    before = env.saved()
    with assuming(env, sympy.Not(sympy.Or(sympy.Ne(env.expr(h), 4), sympy.Ne(env.expr(w), 4)))):
        assert h * w == 16
    env.restore(before)
    assert not env.fixed


def test_sizes_that_fail_are_left_by_their_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No size is none where both are at least one: SymPy is asked about none of those that are tried."""
    env, asked = SizeEnv(), list[Any]()
    height, width = (env.expr(env.new_dim(name, 4)) for name in ("height", "width"))
    half: Any = env.expr(env.derive(env.new_dim("length", 9) // 2))
    there: Any = [height > 0, width > 0, half >= 2]
    none: Any = [height <= 0, width <= 0]
    monkeypatch.setattr(env, "derive_hints", lambda symbols: asked.append(list(symbols)))
    with (
        assuming(env, sympy.And(*there)),
        pytest.raises(NeverTaken),
        assuming(env, sympy.Or(*none)),
    ):
        pass
    assert len(asked) < 50, f"SymPy was asked {len(asked)} times"
