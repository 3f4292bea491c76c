"""What torch leaves open, as an exported model has it: all of it at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from ingot.capture.bases import OwnBases
from ingot.capture.distances import FromDifferences
from ingot.capture.ties import FirstOfEqual


@contextlib.contextmanager
def as_the_model() -> Generator[Callable[[], list[str]]]:
    """While entered, a module's operators give what a model gives where torch leaves it open.

    What is yielded tells the lines where that made a difference, each with what the model does there.
    """
    with FirstOfEqual() as first, FromDifferences() as direct, OwnBases() as own:

        def told() -> list[str]:
            said = {
                "the order of equal values, which torch leaves open ({}): the model takes the first": first,
                "the digits that torch loses in distances of more than 25 rows ({}): the model takes them "
                "from differences, as torch does for fewer": direct,
                "the signs of vectors, and bases of equal values, which torch leaves open ({}): the model "
                "has its own": own,
            }
            return [text.format(line) for text, mode in said.items() for line in mode.lines]

        yield told
