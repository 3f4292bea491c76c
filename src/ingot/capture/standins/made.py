"""Containers that code makes by a call, which data may fill: `dict(…)`, `set(…)`, `deque(…)`."""

# Arguments are whatever the model's Python has.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any

from ingot.capture.deques import TracedDeque
from ingot.capture.dicts import TracedDict
from ingot.capture.lists import TracedList
from ingot.capture.objects import is_a
from ingot.capture.open_dicts import OpenDict, counted, is_grown, is_open_here, noted, open_dict_of
from ingot.capture.request import ACTIVE
from ingot.capture.sets import set_of
from ingot.capture.standins.sequences import list_, rows_of
from ingot.capture.standins.table import stands_for
from ingot.capture.structure import undecided

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


@stands_for(set)
def set_(rt: Runtime, iterable: Any = ()) -> Any:
    """set(items)."""
    return set_of(iterable if rows_of(iterable) is None else list_(rt, iterable))


@stands_for(dict)
def dict_(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
    """dict(…): data may say which keys it has."""
    if is_open_here() or any(is_a(a, OpenDict) or is_grown(a) for a in args):
        return open_dict_of(*args) if args else open_dict_of(list(kwargs.items()))
    if not ACTIVE.marks.may_grow:
        return noted(dict(*args, **kwargs))
    made = TracedDict()
    made.update(*args, **kwargs)
    return noted(made)


@stands_for(Counter)
def counter_(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
    """Counter(items): of as many as data says, and at keys that it decides."""
    if is_open_here() or (args and (rows_of(args[0]) is not None or any(map(undecided, args)))):
        return counted(args[0] if args else [])
    return noted(Counter(*args, **kwargs))


@stands_for(deque)
def deque_(rt: Runtime, iterable: Any = (), maxlen: Any = None) -> Any:
    """deque(items, maxlen): data may say how many there are."""
    if not ACTIVE.marks.may_grow or not isinstance(maxlen, (int, type(None))):
        return deque(iterable, maxlen)
    return TracedDeque(list_(rt, iterable).parts(), maxlen)


@stands_for(defaultdict)
def defaultdict_(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
    """defaultdict(list): its lists may grow as data says."""
    makers = [TracedList if a is list else a for a in args[:1]]
    if is_open_here() and len(args) < 2 and not kwargs:
        return OpenDict(makers[0] if makers else None)
    return noted(defaultdict(*makers, *args[1:], **kwargs))
