"""Which function of torch's was given what the user gave torch, and that little is asked to find out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ingot.capture.where import given

_SOURCE = """
def outer(value, ask):
    return middle(value + 1, ask, value)

def middle(other, ask, *more):
    return inner(ask, other, key=more[0])

def inner(ask, other, **named):
    return ask()
"""


def _in_torch() -> Any:
    """Functions that look like torch's."""
    names: dict[str, Any] = {}
    exec(compile(_SOURCE, str(Path(torch.__file__).parent / "some.py"), "exec"), names)
    return names["outer"]


def test_the_innermost_that_was_given_what_the_user_gave() -> None:
    """Also among starred arguments; not what torch's functions give each other."""
    outer = _in_torch()
    assert outer(5, lambda: given(lambda x: isinstance(x, int) and x == 5, depth=2)) == "inner"
    assert outer(5, lambda: given(lambda x: isinstance(x, int) and x == 6, depth=2)) is None


def test_only_the_outermost_is_asked_where_it_was_not_given() -> None:
    """An operator that torch computes by Python asks hundreds of thousands of times, forty frames deep."""
    seen: list[Any] = []
    assert _in_torch()(5, lambda: given(lambda x: bool(seen.append(x)), depth=2)) is None
    assert seen[0] == 5 and len(seen) == 2, f"{len(seen)} values were looked at; outer() has two"
