"""Sizes under which the conditions of a branch hold."""

from __future__ import annotations

import sympy

from ingot.capture.path import assuming
from ingot.capture.sizes import SizeEnv


def test_no_size_is_tried_that_another_one_is_divided_by() -> None:
    """A tensor of 60 // n rows stands before the branch: nothing in it has n = 0."""
    env = SizeEnv()
    n, m = env.new_dim("n", 4), env.new_dim("m", 4)
    env.derive(60 // n)
    with assuming(env, sympy.Eq(env.expr(n) * env.expr(m), 0)):
        found = [env.value(env.expr(d)) for d in (n, m)]
    assert found == [4, 0], f"n and m are {found}"
