"""Sizes under which the conditions of a branch hold."""

from __future__ import annotations

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
