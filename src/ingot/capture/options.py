"""One of a few values of Python's (words, members of enums, functions, containers) as the number that a loop
carries for it.
"""

# Stands for values of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.choice import Choice
from ingot.capture.merge import plainly_equal
from ingot.capture.scalars import number
from ingot.capture.words import Word, chosen, is_plain, leaves_of

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


@dataclass(eq=False)
class Options:
    """The values that a variable may have, by their number."""

    values: list[Any]

    @classmethod
    def of(cls, held: Sequence[Any], lasts: Callable[[Any], bool]) -> Options | None:
        """Those of what a variable holds at some times; None where it holds something else once.

        lasts: whether a container was there before the loop, and is the same one in every round
        """
        found: list[Any] = []
        for value in (v for h in held for v in _leaves(h)):
            if not (is_plain(value) or _is_function(value) or lasts(value)):
                return None
            if not any(_same(value, v) for v in found):
                found.append(value)
        return cls(found) if found else None

    def wider(self, held: Any, lasts: Callable[[Any], bool]) -> Options | None:
        """The same with more values, if there are; the very same where there are none."""
        found = Options.of([*self.values, held], lasts)
        return self if found is not None and len(found.values) == len(self.values) else found

    def number_of(self, g: Recorder, held: Any) -> ir.Value:
        """The number of what a variable holds, int64 of shape []."""
        if isinstance(held, (Word, Choice)):
            numbers = [self.number_of(g, v) for v in held.ingot_sides]
            return g.op("Where", g.scalar(held.ingot_condition), *numbers)
        (found,) = [n for n, v in enumerate(self.values) if _same(v, held)]
        return g.const(found, torch.int64)

    def held(self, g: Recorder, value: ir.Value) -> Any:
        """What a variable holds whose number is this."""
        made = number(g, value, int, 0)
        whole: Any = self.values[-1]
        for n, then in reversed(list(enumerate(self.values[:-1]))):
            sides: Any = then, whole
            whole = Choice(made == n, sides) if _is_function(then) else chosen(made == n, *sides)
        return whole


def _leaves(x: Any) -> list[Any]:
    if isinstance(x, Choice):
        return [v for side in x.ingot_sides for v in _leaves(side)]
    return leaves_of(x)


def _is_function(x: Any) -> bool:
    return callable(x) and not is_plain(x)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are one to Python: words by what they say, others by what they are."""
    return a is b or (is_plain(a) and is_plain(b) and plainly_equal(a, b))
