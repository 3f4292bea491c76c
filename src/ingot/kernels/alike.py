"""Calls that are alike are worked out once for a plan.

How a kernel is called depends on how its views lie, and not on where, and a network's layers repeat. A
function marked `alike` is run for the first of them; for the others its calls are made again with their
memory in the place of the first one's. Kernels whose calls are few and always the same work out a `Form` of
their own instead.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, cast

from ingot.kernels.call import Buffer, Call, Form, View, form_of
from ingot.kernels.contract import Epilogue
from ingot.kernels.notes import is_noting
from ingot.kernels.pack import PackedWeights

P = ParamSpec("P")


@dataclass(slots=True)
class _Pattern:
    """One call of the first ones: its views by number."""

    form: Form
    places: list[int]
    reads: list[int]
    writes: list[int]


@dataclass(slots=True)
class _Calls:
    """What a function gave: its calls, and the views in them, each with the number of its buffer.

    Buffers are those of the arguments, in order, then those that the function made; None: a constant's.
    """

    views: list[tuple[View, int | None]]
    patterns: list[_Pattern]
    offsets: list[int]  # of the arguments' buffers: where the first view of each began
    made: list[int]  # bytes of each buffer that the function made

    def again(self, buffers: list[Buffer], offsets: list[int]) -> list[Call]:
        """The calls in other memory."""
        places = [*buffers, *map(Buffer, self.made)] if self.made else buffers
        moved = [new - old for new, old in zip(offsets, self.offsets, strict=True)]
        moved += [0] * len(self.made)
        views = [
            view
            if number is None
            else View(places[number], view.offset + moved[number], view.dtype, view.shape, view.strides)
            for view, number in self.views
        ]
        return [
            pattern.form.call(
                [views[n] for n in pattern.places],
                [views[n] for n in pattern.reads],
                [views[n] for n in pattern.writes],
            )
            for pattern in self.patterns
        ]


class _Memory(threading.local):
    """What was worked out for the plan that this thread is making."""

    #: calls as they were made, until the same are wanted again
    calls: dict[Hashable, _Calls | tuple[_Arguments, list[Call]]] | None = None


_memory = _Memory()


@contextlib.contextmanager
def remembering() -> Generator[None, None, None]:
    """While a plan is made: what is worked out for it is kept until the end."""
    before, _memory.calls = _memory.calls, {}
    try:
        yield
    finally:
        _memory.calls = before


def alike(make: Callable[P, list[Call]]) -> Callable[P, list[Call]]:
    """Decorator of a function that gives calls for views, and that cares how they lie and not where."""

    @functools.wraps(make)
    def made_once(*args: P.args, **kwargs: P.kwargs) -> list[Call]:
        known = _memory.calls
        if known is None or is_noting():
            return make(*args, **kwargs)
        arguments = _Arguments()
        key = (make, arguments.key(args), arguments.key(tuple(kwargs.items())))
        found = known.get(key)
        if found is None:
            calls = make(*args, **kwargs)
            known[key] = arguments, calls.copy()
            return calls
        if isinstance(found, tuple):
            found = known[key] = found[0].pattern(found[1])
        return found.again(arguments.buffers, arguments.offsets)

    return made_once


#: What is looked into for views; everything else counts as it is.
_PARTS = {kind: tuple(f.name for f in fields(kind)) for kind in (Epilogue, PackedWeights)}
_KINDS = frozenset((View, list, tuple, *_PARTS))


class _Arguments:
    """The arguments of a function as a key that says how views lie, and the memory they lie in."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.offsets: list[int] = []

    def key(self, value: Any) -> Hashable:
        kind = cast("type[Any]", type(value))
        if kind is View:
            buffer = value.buffer
            # By identity, and there are few.
            if buffer in self.buffers:
                number = self.buffers.index(buffer)
            else:
                number = len(self.buffers)
                self.buffers.append(buffer)
                self.offsets.append(value.offset)
            return number, value.offset - self.offsets[number], value.dtype, value.shape, value.strides
        if kind is list or kind is tuple:
            return tuple([self.key(v) if type(v) in _KINDS else v for v in cast("list[Any]", value)])
        names = _PARTS.get(kind)
        if names is not None:
            return kind, self.key([getattr(value, name) for name in names])
        return value

    def pattern(self, calls: list[Call]) -> _Calls:
        """Calls that were made for these arguments."""
        numbers = {id(buffer): number for number, buffer in enumerate(self.buffers)}
        made: list[int] = []
        views: list[tuple[View, int | None]] = []
        known: dict[int, int] = {}

        def number_of(view: View) -> int:
            number = known.get(id(view))
            if number is None:
                buffer = view.buffer
                if id(buffer) not in numbers and buffer.kind == "arena":
                    numbers[id(buffer)] = len(self.buffers) + len(made)
                    made.append(buffer.nbytes)
                number = known[id(view)] = len(views)
                views.append((view, numbers.get(id(buffer))))
            return number

        patterns: list[_Pattern] = []
        for call in calls:
            if call.form is None:
                call.form = form_of(call)
            places = [number_of(cast(View, call.args[place])) for place in call.form.places]
            reads, writes = list(map(number_of, call.reads)), list(map(number_of, call.writes))
            patterns.append(_Pattern(call.form, places, reads, writes))
        return _Calls(views, patterns, self.offsets, made)
