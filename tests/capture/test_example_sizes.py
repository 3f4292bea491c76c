"""Other sizes than the example's to record a model with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sympy
from torch.utils._sympy import functions  # pyright: ignore[reportMissingTypeStubs]

from ingot.capture.example_sizes import with_larger_sizes
from ingot.capture.size_facts import Guard
from ingot.capture.sizes import SizeEnv


def test_larger_sizes_by_which_a_formula_divides_by_0_are_none_to_look_at() -> None:
    """Windows of an image, as many as go into what is left of it: none is left of twice the example's."""
    env = SizeEnv()
    height = env.expr(env.new_dim("height", 8))
    windows = sympy.Symbol("windows", integer=True)
    env.definitions[windows] = functions.FloorDiv(64, functions.PythonMod(height, 16))
    env.small[sympy.Eq(functions.FloorDiv(height, 8), 1)] = {height}
    with pytest.raises(ZeroDivisionError):
        env.at({height: sympy.Integer(16)})
    recording: Any = SimpleNamespace(env=env)
    tried: list[dict[str, int]] = []

    def attempt(hints: dict[str, int]) -> Any:
        tried.append(hints)
        raise ValueError("the model takes no other size")

    assert with_larger_sizes(attempt, recording, SimpleNamespace()) is recording  # pyright: ignore[reportArgumentType]
    assert len(tried) == 1


@pytest.mark.parametrize("asked_first", [True, False])
@pytest.mark.parametrize("by_user", [True, False])
def test_a_recording_that_would_go_another_way_than_the_example_is_not_made(
    asked_first: bool, by_user: bool
) -> None:
    """A model that takes a window as large as what is left of a small image, and leaves one of size 1: larger
    images have more windows. It is tried where that was asked of a size of 1, or by an operator.
    """
    env = SizeEnv()
    height: Any = env.expr(env.new_dim("height", 8))
    small = sympy.Eq(functions.FloorDiv(height, 8), 1)
    env.small[small] = {height}
    guards = [Guard(height <= 8, "model.py:1", by_user), Guard(small, "model.py:2", True)]
    env.held.update((guard.whole, guard) for guard in (guards if asked_first else guards[::-1]))
    tried: list[dict[str, int]] = []

    def attempt(hints: dict[str, int]) -> Any:
        tried.append(hints)
        raise ValueError("the model takes no other size")

    recording: Any = SimpleNamespace(env=env)
    assert with_larger_sizes(attempt, recording, SimpleNamespace()) is recording  # pyright: ignore[reportArgumentType]
    assert len(tried) == (not (asked_first and by_user))
