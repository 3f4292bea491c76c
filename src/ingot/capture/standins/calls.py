"""Functions and methods of Python's that look at a value, given a number that only the run knows: what they
cannot do without it is refused.
"""

# Arguments are whatever the model's Python has; not every stand-in needs the runtime.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import heapq
import sys
from collections import deque
from collections.abc import Callable
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any

from ingot.capture import memos, scalars
from ingot.capture.deques import TracedDeque
from ingot.capture.lists import TracedList
from ingot.capture.objects import is_a
from ingot.capture.open_dicts import OpenDict
from ingot.capture.request import ACTIVE, cannot_wait, recorder
from ingot.capture.scalars import Symbolic, depends_on_data, is_data
from ingot.capture.sets import TracedSet
from ingot.capture.standins.subscripts import looked_up
from ingot.capture.standins.table import STANDINS, stands_for
from ingot.capture.standins.values import made_of_symbols

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


@stands_for(isinstance)
def isinstance_(rt: Runtime, x: Any, kinds: Any) -> bool:
    """isinstance, where symbolic numbers are numbers and lists of unknown length lists."""
    if is_a(x, Symbolic):
        scalars.require_kind(recorder(), x, "isinstance")
        kind: Any = scalars.kind_of(x)
        return isinstance(kind(0), kinds) or isinstance(x, kinds)
    if is_a(x, (TracedDeque, TracedSet)):
        return isinstance(deque() if is_a(x, TracedDeque) else set[Any](), kinds)
    if is_a(x, OpenDict):
        return isinstance(dict[Any, Any](), kinds)
    return isinstance(x, kinds)


def _of_value(function: Any, what: str, asks: Callable[..., bool] | None = None) -> None:
    """A function of a number's value, where only the run knows that; `asks` says which formulas matter."""

    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        g = recorder() if args and is_a(args[0], Symbolic) else None
        if g is not None and is_data(g, args[0]) and (asks is None or asks(g, g.env.expr(args[0]))):
            cannot_wait(what)
        return function(*args, **kwargs)

    STANDINS[id(function)] = standin


for _function in (str, repr, format):
    _of_value(_function, "writes a number that data decides into a string", depends_on_data)
_of_value(hash, "takes the hash of a number that data or a size decides")


def _of_its_memory(function: Any) -> None:
    """A function of C's that takes elements out of a list's memory, past the list's own methods."""

    def standin(rt: Runtime, items: Any, *rest: Any) -> Any:
        if is_a(items, TracedList) and not items.known:
            cannot_wait("keeps a heap in a list that data decides the length of")
        return function(items, *rest)

    STANDINS[id(function)] = standin


for _function in (heapq.heapify, heapq.heappop, heapq.heappush, heapq.heappushpop, heapq.heapreplace):
    _of_its_memory(_function)


@stands_for(sys.getsizeof)
def getsizeof_(rt: Runtime, x: Any, *default: Any) -> int:
    """sys.getsizeof(x)."""
    if is_a(x, Symbolic):
        cannot_wait("asks how much memory Python takes for a number that data or a size decides")
    return sys.getsizeof(x, *default)


_CONTAINERS = (list, tuple, set, dict, str)
# Methods of Python's containers that want to know the number.
_NEED_NUMBERS = (
    "index", "count", "remove", "add", "discard", "setdefault", "format", "join", "pop", "insert",
)  # fmt: skip

_ASK_ONE = (
    "insert",
    "pop",
    "setdefault",
)  # for a place or key, and take a value beside it


# Functions of Python's that give for None what it is, instead of raising.
_TAKE_NONE = {id(f) for f in (isinstance, repr, format, hash, hasattr, callable)}


def takes_none(function: Any, args: Any) -> bool:
    """Whether a function of Python's gives something else for None than for a value, and does not raise."""
    if is_a(function, BuiltinMethodType) and is_a(function.__self__, _CONTAINERS):
        return function.__name__ in (*_NEED_NUMBERS, "get")
    if is_a(function, type):
        return function in (type, str)  # or what knows a module's own `type`, which equals Python's
    return id(function) in _TAKE_NONE or (function is getattr and len(args) == 3)


def with_symbols(rt: Runtime, function: Any, args: Any, kwargs: Any) -> Any:
    """A call with symbolic numbers: a dict looks them up, most others take them as they are."""
    owner = getattr(function, "__self__", None)
    if is_a(owner, dict) and function.__name__ in ("get", "setdefault") and made_of_symbols(args[0]):
        default = args[1] if len(args) > 1 else None
        if memos.takes(owner, args[0]):
            found, value = memos.look(owner, args[0])
            if not found and function.__name__ == "setdefault":
                memos.put(owner, args[0], default)
            return value if found else default
        if function.__name__ == "get":
            return looked_up(rt, list(owner.items()), args[0], default)
    if is_a(owner, _CONTAINERS) and is_a(function, BuiltinMethodType):
        method = function.__name__
        if is_a(owner, set) and recorder().made_by_call(owner):
            ACTIVE.marks.let_grow()
        asked = args[:1] if method in _ASK_ONE else args
        if method in _NEED_NUMBERS and any(map(made_of_symbols, asked)):
            cannot_wait(f"gives a number that data or a size decides to {type(owner).__name__}.{method}")
    return function(*args, **kwargs)
