"""Everything that the model's functions can reach while they run, whatever holds it: their variables and the
globals that they name, what stands in containers, attributes, slots, and variables around functions.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.attribute_names import globals_in
from ingot.capture.objects import LIBRARIES, is_a
from ingot.capture.where import frames, is_user_code

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None), range))
# What holds nothing of the model's, or what Ingot and torch keep for it.
_CLOSED = (
    torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, ModuleType, BuiltinFunctionType, CodeType,
    FrameType,
)  # fmt: skip
_CONTAINERS = (list, dict, tuple, set, deque)


def reachable() -> Generator[Any]:
    """Each thing once, breadth first."""
    waiting = deque(_variables())
    seen: set[int] = set()
    alive: list[Any] = []  # dicts of attributes are made anew: their ids must stay theirs
    while waiting:
        thing = waiting.popleft()
        if type(thing) in _PLAIN or id(thing) in seen:
            continue
        seen.add(id(thing))
        alive.append(thing)
        yield thing
        if is_a(thing, FunctionType):
            waiting.extend(_of_function(thing))
        elif not _is_closed(thing):
            waiting.extend(gc.get_referents(thing))


def _variables() -> Generator[Any]:
    for frame in frames(sys._getframe(1)):  # pyright: ignore[reportPrivateUsage]
        if is_user_code(frame.f_code):
            yield from frame.f_locals.values()
            yield from _named(frame.f_code, frame.f_globals)


def _named(code: CodeType, scope: dict[str, Any]) -> Iterable[Any]:
    return [scope[name] for name in globals_in(code) if name in scope]


def _of_function(function: FunctionType) -> Iterable[Any]:
    """A function's scope is a whole Python module: of that, what it names."""
    if not is_user_code(function.__code__):
        return ()
    held = (function.__closure__, function.__defaults__, function.__kwdefaults__, vars(function))
    return (*held, *_named(function.__code__, function.__globals__))


def _is_closed(thing: Any) -> bool:
    if is_a(thing, _CONTAINERS):
        return False
    if is_a(thing, type):
        return thing.__module__.split(".")[0] in LIBRARIES
    return is_a(thing, _CLOSED) or type(thing).__module__.split(".")[0] in ("ingot", "sympy")
