"""`int(x.shape[0])` in a model is meant to be harmless, but Python's `int` makes a number of a symbolic size.

Models write it all the time. For modules that do, a recording starts again with their global name `int` bound
to a type that returns sizes as they are and is `int` in every other way.
"""

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import builtins
import contextlib
import dis
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ingot.capture.kinds import Globals, type_that_knows
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.scalars import of_truth
from ingot.capture.where import is_ingot_code, is_user_code

# Methods of dicts and sets that take a key.
_LOOKUPS = ("get", "setdefault", "pop", "add", "discard", "remove", "index", "count", "update")


class KeepSymbolic(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """Carries the globals of the module that called `int()` on a size."""

    def __init__(self, module_globals: dict[str, Any]) -> None:
        super().__init__()
        self.module_globals = module_globals


class _Meta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], torch.SymInt):
            return args[0]
        if len(args) == 1 and isinstance(args[0], torch.SymFloat):
            return torch.sym_int(args[0])
        if len(args) == 1 and isinstance(args[0], torch.SymBool):
            return of_truth(recorder(), args[0])
        return builtins.int(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, (builtins.int, torch.SymInt))

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, builtins.int)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is builtins.int

    def __hash__(cls) -> int:
        return hash(builtins.int)


class SymbolicInt(builtins.int, metaclass=_Meta):
    """`int`, except that a symbolic size stays one."""


SymbolicInt.__name__ = SymbolicInt.__qualname__ = "int"  # models ask for that too


def identity(x: Any) -> int:
    """`id(x)`, of which a symbolic number has another than the number that it stands for."""
    if isinstance(x, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        cannot_wait("asks for the identity of a number that data or a size decides")
    return id(x)


def _hash(size: Any) -> int:
    """Sizes are keys of caches (`functools.lru_cache`): one formula of one recording is one key.

    A dict or set of the model's own would not find the number that the formula stands for.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename == "<string>" and frame.f_code.co_name == "__hash__":
        frame = frame.f_back  # a dataclass's
    asks = frame is not None and is_user_code(frame.f_code) and (_looks_up(frame) or _calls_hash(frame))
    if asks or (frame is not None and is_ingot_code(frame.f_code) and _for_a_container(frame)):
        raise TypeError("unhashable type: non-nested SymInt")
    return hash((id(size.node.shape_env), size.node.expr))


def _for_a_container(frame: FrameType) -> bool:
    """Whether the runtime of rewritten code looks something up, rather than call what has a cache."""
    file = Path(frame.f_code.co_filename)
    if file.name != "stage.py" and file.parent.name != "standins":
        return False
    called = frame.f_locals.get("function")
    return called in (None, hash) or isinstance(getattr(called, "__self__", None), (dict, set, frozenset))


def _looks_up(frame: FrameType) -> bool:
    """Whether the frame uses a key itself, rather than call a function that has a cache."""
    before = [i for i in dis.get_instructions(frame.f_code) if i.offset <= frame.f_lasti]
    if not before or before[-1].opname not in ("CALL", "PRECALL", "CALL_FUNCTION_EX"):
        return True
    methods = [i.argval for i in before if i.opname == "LOAD_METHOD"]
    return bool(methods) and methods[-1] in _LOOKUPS


def _calls_hash(frame: FrameType) -> bool:
    """Whether the frame asks for a hash by name, to compute with it."""
    return "hash" in frame.f_code.co_names


@contextlib.contextmanager
def _hashable_sizes() -> Generator[None]:
    kind: Any = torch.SymInt
    kept = kind.__hash__
    kind.__hash__ = _hash
    try:
        yield
    finally:
        kind.__hash__ = kept


_TYPE, _TYPE_BESIDE_INT = type_that_knows({}), type_that_knows({builtins.int: SymbolicInt})


@contextlib.contextmanager
def shadowed(calls_int: Sequence[Globals], models_own: Sequence[Globals]) -> Generator[None]:
    """Bind `int` and `type` in the globals of modules that call `int()` on sizes, `type` in those of the
    model's own, and let sizes be keys.
    """
    missing = object()
    saved: list[tuple[Globals, str, Any]] = []

    def bind(g: Globals, name: str, value: Any) -> None:
        saved.append((g, name, g.get(name, missing)))
        g[name] = value

    for g in models_own:
        bind(g, "type", _TYPE)
        if "id" not in g:
            bind(g, "id", identity)
    for g in calls_int:
        bind(g, "int", SymbolicInt)
        bind(g, "type", _TYPE_BESIDE_INT)
    try:
        with _hashable_sizes():
            yield
    finally:
        for g, name, value in reversed(saved):
            if value is missing:
                del g[name]
            else:
                g[name] = value
