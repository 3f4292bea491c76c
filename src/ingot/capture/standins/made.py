"""Containers that code makes by a call, which data may fill: `dict(…)`, `set(…)`, `deque(…)`."""

# Arguments are whatever the model's Python has.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from ingot.capture.deques import TracedDeque
from ingot.capture.dicts import TracedDict
from ingot.capture.lists import TracedList
from ingot.capture.request import ACTIVE
from ingot.capture.sets import set_of
from ingot.capture.standins.sequences import list_, rows_of
from ingot.capture.standins.table import stands_for

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


@stands_for(set)
def set_(rt: Runtime, iterable: Any = ()) -> Any:
    """set(items)."""
    return set_of(iterable if rows_of(iterable) is None else list_(rt, iterable))


@stands_for(dict)
def dict_(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
    """dict(…): data may say which keys it has."""
    if not ACTIVE.marks.may_grow:
        return dict(*args, **kwargs)
    made = TracedDict()
    made.update(*args, **kwargs)
    return made


@stands_for(deque)
def deque_(rt: Runtime, iterable: Any = (), maxlen: Any = None) -> Any:
    """deque(items, maxlen): data may say how many there are."""
    if not ACTIVE.marks.may_grow or not isinstance(maxlen, (int, type(None))):
        return deque(iterable, maxlen)
    return TracedDeque(list_(rt, iterable).parts(), maxlen)


@stands_for(defaultdict)
def defaultdict_(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
    """defaultdict(list): its lists may grow as data says."""
    return defaultdict(*(TracedList if a is list else a for a in args[:1]), *args[1:], **kwargs)
