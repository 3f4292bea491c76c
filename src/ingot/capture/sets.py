"""Sets of numbers, or tuples of numbers, of which data decides the elements.

They take the place of all such sets that the model's own code makes once it turns out that one of them is
such a set. What goes through one is refused: Python has its elements in an order of its own.
"""

# Elements may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ingot.capture.checks import require_uncaught
from ingot.capture.choice import Parts
from ingot.capture.lists import Rows, TracedList
from ingot.capture.request import ACTIVE, cannot_say, cannot_wait
from ingot.capture.scalars import Symbolic, kind_of
from ingot.capture.structure import inside, undecided


class TracedSet(Parts):
    """A set; `items` are its elements, each once."""

    items: TracedList

    def __init__(self, values: Any = ()) -> None:
        self.items = TracedList()
        self.update(values)

    def parts(self) -> list[Any]:
        """As Parts has it."""
        return [self.items]

    def of_parts(self, parts: list[Any]) -> TracedSet:
        """As Parts has it."""
        made = TracedSet()
        (made.items,) = parts
        return made

    def count(self) -> Any:
        """How many elements it has."""
        return self.items.count()

    @property
    def known(self) -> bool:
        """Whether Python knows how many there are."""
        return self.items.known

    def has(self, value: Any) -> Any:
        """`value in self`."""
        from ingot.capture.stage import RUNTIME

        if any(isinstance(v, torch.Tensor) for v in inside(value)):
            cannot_wait("looks for a tensor in a set of which data decides the elements, or puts it there")
        return RUNTIME.contains(self.items, value)

    def add(self, value: Any) -> None:
        """As set.add."""
        from ingot.capture.stage import RUNTIME

        there = self.has(value)
        RUNTIME.choose(there, _nothing, lambda: list.append(self.items, value))

    def update(self, *others: Any) -> None:
        """As set.update."""
        from ingot.capture.stage import RUNTIME

        for other in others:
            values = other.items if isinstance(other, TracedSet) else other
            RUNTIME.each(values, lambda v: self.add(v), None, (), (), ())

    def discard(self, value: Any) -> None:
        """As set.discard."""
        self._keep(lambda v: _differ(v, value))

    def remove(self, value: Any) -> None:
        """As set.remove."""
        from ingot.capture.stage import RUNTIME

        require_uncaught("a set has the element", "Ask with `in` before, or use `discard`.", KeyError)
        RUNTIME.check(self.has(value), None)
        self.discard(value)

    def clear(self) -> None:
        """As set.clear."""
        list.clear(self.items)

    def copy(self) -> TracedSet:
        """As set.copy."""
        made = TracedSet()
        made.items = TracedList(self.items.parts())
        return made

    def _keep(self, fits: Any) -> None:
        from ingot.capture.stage import RUNTIME

        kept = RUNTIME.list_of(self.items, _itself, [fits])
        list.__setitem__(self.items, slice(None), kept.parts())

    def union(self, *others: Any) -> TracedSet:
        """As set.union."""
        made = self.copy()
        made.update(*others)
        return made

    def intersection(self, *others: Any) -> TracedSet:
        """As set.intersection."""
        made = self.copy()
        for other in others:
            made._keep(_as_set(other).has)
        return made

    def difference(self, *others: Any) -> TracedSet:
        """As set.difference."""
        from ingot.capture.stage import RUNTIME

        made = self.copy()
        for other in others:
            held = _as_set(other)
            made._keep(lambda v, held=held: RUNTIME.opposite(held.has(v)))
        return made

    def __or__(self, other: Any) -> TracedSet:
        return self.union(other)

    def __and__(self, other: Any) -> TracedSet:
        return self.intersection(other)

    def __sub__(self, other: Any) -> TracedSet:
        return self.difference(other)

    def __ror__(self, other: Any) -> TracedSet:
        return self.union(other)

    def __rand__(self, other: Any) -> TracedSet:
        return self.intersection(other)

    def __rsub__(self, other: Any) -> TracedSet:
        return _as_set(other).difference(self)

    def __ior__(self, other: Any) -> TracedSet:
        self.update(other)
        return self

    def _plain(self) -> set[Any]:
        """The same of Python's, whose order is its own."""
        if not self.known or undecided(self.items):
            cannot_say(
                "goes through a set of which data decides the elements, in an order that Python alone has",
                "Go through `sorted(…)` of it, or keep a list.",
            )
        return set(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._plain())

    def pop(self) -> Any:
        """As set.pop."""
        value = self._plain().pop()
        self.discard(value)
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(set, name):
            raise AttributeError(name)
        return cannot_wait(f"calls set.{name} of a set of which data decides the elements")

    def __contains__(self, value: Any) -> bool:
        found = self.has(value)
        return found if isinstance(found, bool) else cannot_wait("asks a set for what data decides")

    def __len__(self) -> int:
        return list.__len__(self.items) if self.known else cannot_wait("needs the length of a set of data's")

    def __eq__(self, other: object) -> bool:
        cannot_wait("compares a set of which data decides the elements")

    __hash__ = None  # type: ignore[assignment]


def set_of(values: Iterable[Any]) -> Any:
    """`{a, b}`, or a set of a list: such a set where there are any, and it has numbers in it."""
    grown = isinstance(values, Rows) or (isinstance(values, TracedList) and not values.known)
    listed = [] if grown else list(values)
    if not ACTIVE.marks.may_grow:
        if grown or any(map(_waits, listed)):
            ACTIVE.marks.let_grow()
        return set(listed)
    return TracedSet(values if grown else listed) if all(map(_is_number, listed)) else set(listed)


def sorted_set(items: Any) -> Any:
    """What is sorted, or of which the largest is wanted: the order of a set's elements does not matter."""
    return items.items if isinstance(items, TracedSet) else items


def _as_set(values: Any) -> TracedSet:
    return values if isinstance(values, TracedSet) else TracedSet(values)


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_number, value))
    return kind_of(value) not in (None, torch.Tensor)


def _waits(value: Any) -> bool:
    """Whether a number that only the run knows is in a value."""
    return any(map(_waits, value)) if isinstance(value, tuple) else isinstance(value, Symbolic)


def _differ(a: Any, b: Any) -> Any:
    from ingot.capture.stage import RUNTIME

    return RUNTIME.opposite(RUNTIME.equal(a, b))


def _itself(value: Any) -> Any:
    return value


def _nothing() -> None:
    return None
