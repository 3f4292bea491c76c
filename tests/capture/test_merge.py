"""What the sides of a branch leave behind: when two of Python's objects are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ingot.capture.choice import Choice
from ingot.capture.merge import plainly_equal


class Compared:
    """An object whose `==` is a function of the test's."""

    def __init__(self, compare: Any) -> None:
        self.compare = compare

    def __eq__(self, other: object) -> bool:
        return self.compare(other)

    __hash__ = object.__hash__


def _always(_: object) -> bool:
    return True


def _raising(error: Exception) -> Any:
    def compare(_: object) -> bool:
        raise error

    return compare


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (3, 3, True),
        (3, 4, False),
        (3, 3.0, False),
        (True, 1, False),
        ("a", "a", True),
        (float("nan"), float("nan"), False),
        (np.ones(3), np.ones(3), False),
        (np.ones(1), np.ones(1), True),
        (Compared(_always), Compared(_always), True),
        (Compared(_always), Compared(lambda _: True), False),
        (0.0, -0.0, False),
        (-0.0, -0.0, True),
        (complex(0.0, 0.0), complex(0.0, -0.0), False),
        (Compared(_raising(RuntimeError("never compared"))), Compared(None), False),
        (Compared(_raising(KeyError("of the model's own"))), Compared(None), False),
    ],
)
def test_equal_to_python(a: Any, b: Any, equal: bool) -> None:
    """By their own `==`, if their attributes are the same; what it raises says that they are not."""
    assert plainly_equal(a, b) is equal


def test_mistakes_of_ingot_are_not_taken_for_an_answer() -> None:
    """An error that Ingot's own code makes by mistake says nothing about the objects."""
    mistaken = Compared(lambda _: Choice.__call__(None))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        plainly_equal(mistaken, Compared(None))
