"""One call for views: worked out once for all that lie alike, in whatever plan.

`alike` is for functions that give several calls, or memory of their own; it remembers for one plan.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, cast

import numpy as np

from ingot.kernels.call import Buffer, Call, Form, View, form_of
from ingot.kernels.made_again import remembered

P = ParamSpec("P")


class _Laid(NamedTuple):
    """An argument's view without its memory."""

    number: int
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Roles(NamedTuple):
    """Which of the arguments' views go where, by number."""

    places: tuple[int, ...]
    reads: tuple[int, ...]
    writes: tuple[int, ...]


def formed(make: Callable[P, Call]) -> Callable[P, Call]:
    """Decorator of a function that gives a call for views, and that cares how they lie and not where. What
    the call touches begins where those views do; constants are not among it.
    """

    @remembered(1024, "roles")
    def form(args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> tuple[Form, _Roles]:
        numbers: dict[Buffer, int] = {}

        def number_of(view: View) -> int:
            assert view.offset == 0
            return numbers[view.buffer]

        own = {name: _placed(value, numbers) for name, value in kwargs}
        call = make(*_placed(args, numbers), **own)  # pyright: ignore[reportCallIssue]
        found = form_of(call)
        places = [cast(View, call.args[place]) for place in found.places]
        found.args = [0 if isinstance(arg, View) else arg for arg in found.args]
        reads, writes = tuple(map(number_of, call.reads)), tuple(map(number_of, call.writes))
        return found, _Roles(tuple(map(number_of, places)), reads, writes)

    @functools.wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> Call:
        views: list[View] = []
        found, roles = form(_laid(args, views), tuple([(k, _laid(v, views)) for k, v in kwargs.items()]))
        places, reads, writes = ([views[n] for n in numbers] for numbers in roles)
        return found.call(places, reads, writes)

    return call


def _placed(value: Any, numbers: dict[Buffer, int]) -> Any:
    """A value with views of memory of their own in the place of layouts, whose numbers are noted."""
    if type(value) is _Laid:
        buffer = Buffer(0)
        numbers[buffer] = value.number
        return View(buffer, 0, value.dtype, value.shape, value.strides)
    if type(value) is tuple:
        return tuple([_placed(part, numbers) for part in cast("tuple[Any, ...]", value)])
    return value


def _laid(value: Any, views: list[View]) -> Any:
    """A value with layouts in the place of its views, which go to `views`."""
    kind = cast("type[Any]", type(value))
    if kind is View:
        views.append(value)
        return _Laid(len(views) - 1, value.dtype, value.shape, value.strides)
    if kind is tuple or kind is list:
        return tuple([_laid(part, views) for part in cast("Sequence[Any]", value)])
    return value
