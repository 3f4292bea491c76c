"""Iterators of Python's that outlive a call: where they stand, and others in their place that a run may move.

Nothing can put an iterator back to where it stood.
"""

# Iterators may be over anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from types import GeneratorType
from typing import Any, NoReturn

from ingot.capture.request import refuse
from ingot.capture.signature import leaves
from ingot.capture.size_symbols import StaleRead
from ingot.capture.where import quoted_line
from ingot.errors import ExportError


def is_iterator(x: Any) -> bool:
    """Whether it is one of Python's own."""
    return is_kind(type(x))


def is_kind(kind: type) -> bool:
    """Whether a class is one of Python's own iterators."""
    return issubclass(kind, Iterator) and kind.__module__ in ("builtins", "itertools")


def position(iterator: Any) -> list[Any]:
    """What tells where an iterator stands; nothing where it does not say."""
    if isinstance(iterator, GeneratorType):
        frame = iterator.gi_frame
        return [None] if frame is None else [frame.f_lasti, *frame.f_locals.values()]
    found = made_of_what(iterator)
    return [] if found is None else [*found[1], *found[2]]


def made_of_what(iterator: Any) -> tuple[Any, tuple[Any, ...], list[Any]] | None:
    """What makes another one: a function, its arguments, and perhaps the state to set."""
    try:
        with warnings.catch_warnings():  # newer versions of Python are to forget how
            warnings.simplefilter("ignore", DeprecationWarning)
            kind, made_of, *state = iterator.__reduce__()
    except TypeError:
        return None
    return kind, made_of, state


class Standing:
    """Where an iterator stands: equal where others stand at the same place of the same things."""

    def __init__(self, iterator: Any) -> None:
        self._held = iterator  # which keeps the ids
        self._parts = list(_deep(iterator))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Standing) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(len(self._parts))

    def __repr__(self) -> str:
        return ", ".join(str(v) for _, v in self._parts if v is not None)


def _deep(x: Any) -> Iterator[tuple[Any, Any]]:
    """Plain values as they are, other things by their ids, of an iterator and those that it goes through."""
    if is_iterator(x):
        yield type(x), None
        for part in position(x):
            yield from _deep(part)
    elif isinstance(x, tuple):
        for part in x:
            yield from _deep(part)
    elif isinstance(x, (bool, int, float, str, bytes, range)):
        yield type(x), x
    else:
        yield id(x), len(x) if isinstance(x, list) else None


class _Unknown(Exception):
    """There is no other one."""


def another(iterator: Any, made: dict[int, Any]) -> Any | None:
    """An iterator that stands at the same place of the same things; None where there is no other.

    made: what was made of which one, by id
    """
    try:
        return _another(iterator, made)
    except _Unknown:
        return None


def _another(iterator: Any, made: dict[int, Any]) -> Any:
    if id(iterator) not in made:
        found = made_of_what(iterator)
        if found is None:
            raise _Unknown
        kind, made_of, state = found
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            new = kind(*(_another(v, made) if is_iterator(v) else v for v in made_of))
            for s in state:
                if s is not None:
                    new.__setstate__(_state(s, made))
        made[id(iterator)] = new
    return made[id(iterator)]


def _state(x: Any, made: dict[int, Any]) -> Any:
    """What an iterator has kept of its elements, as its own."""
    if isinstance(x, (tuple, list)):
        return type(x)(_state(v, made) for v in x)
    return _another(x, made) if is_iterator(x) else x


def _raises(_: Any, *__: Any) -> NoReturn:
    raise StaleRead("a number that is counted from call to call")


class Passed:
    """A number of a counter that outlives the call, in a later one: it may be passed on, and nothing may be
    made of it, no text and no key either. It has no value, as C code reads that of an int unasked.
    """

    __slots__ = ()
    __class__: Any = int  # to isinstance, and whoever asks so


for _name in (*vars(int), "__str__", "__reduce__", "__reduce_ex__"):
    if _name not in ("__new__", "__doc__", "__getattribute__"):
        setattr(Passed, _name, _raises if _name.startswith("__") else property(_raises))


class Later:
    """Stands where an iterator does that an earlier call has moved: what it gives may decide nothing."""

    def __init__(self, label: str, iterator: Any) -> None:
        self.label = label
        self.count = iterator if isinstance(iterator, itertools.count) else None

    def __iter__(self) -> Later:
        return self

    def __next__(self) -> Any:
        if self.count is None or not isinstance(next(self.count), int):
            raise StaleRead(self.label)
        return Passed()

    def __repr__(self) -> NoReturn:
        raise StaleRead(self.label)


def gives_passed(output: Any) -> bool:
    """Whether a number of such a counter is among what a call returns."""
    return any(type(leaf.value) is Passed for leaf in leaves(output))


class Unmoved:
    """Stands where an iterator does of which there is no other: nobody takes an element of it."""

    def __init__(self, label: str, iterator: Any) -> None:
        self.label, self.kind = label, type(iterator).__name__

    def __iter__(self) -> Unmoved:
        return self

    def __next__(self) -> NoReturn:
        refuse(
            ExportError(
                f"{quoted_line()}\nforward takes an element of {self.label!r}, a {self.kind} that outlives "
                "the call: the next call finds it elsewhere, and no input of a model says where. Make it in "
                "forward, or keep its elements in a list or tensor and count with a number of the module's."
            )
        )
