"""Whether the model's own `try` or `contextlib.suppress` stands around what is running: an error that it
would catch decides what Python does next.
"""

# Frames are what this file is about; the table of handlers has no public reader.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false

from __future__ import annotations

import builtins
import contextlib
import dis
import itertools
import sys
from collections.abc import Generator
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

from ingot.capture.where import frames, is_recorded, is_user_code

# What operators never raise, whatever sizes they are given.
_NEVER_OF_SIZES = ("NotImplementedError", "ImportError", "ModuleNotFoundError", "KeyError", "NameError")

_suppressing: list[Any] = []  # what the model that is recorded has entered and not left


def inside_try(of_operator: bool = False, error: type[Exception] | None = None) -> bool:
    """Whether a frame of the model's is inside the body of a `try`, or of a `contextlib.suppress`.

    of_operator: only of one that may catch what an operator raises that is given sizes that do not fit
    error: only of one that may catch this error of Python's
    """
    return any(_may_catch(s, of_operator, error) for s in _suppressing) or any(
        is_user_code(at.f_code)
        and any(start <= at.f_lasti < end for start, end in _bodies(at.f_code, of_operator, error))
        for at in frames(sys._getframe(1))
    )


@contextlib.contextmanager
def suppressions_seen() -> Generator[None]:
    """For the time of a recording: which `contextlib.suppress` of the model's are entered. What another
    thread has entered, or a recording around this one, catches nothing of it.
    """
    kind: Any = contextlib.suppress
    enter, leave = kind.__enter__, kind.__exit__
    around = list(_suppressing)
    _suppressing.clear()

    def entered(self: Any) -> Any:
        if _of_the_model(sys._getframe(1)):
            _suppressing.append(self)
        return enter(self)

    def left(self: Any, *error: Any) -> Any:
        if self in _suppressing and _of_the_model(sys._getframe(1)):
            _suppressing.remove(self)
        return leave(self, *error)

    kind.__enter__, kind.__exit__ = entered, left
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = enter, leave
        _suppressing[:] = around


def _of_the_model(frame: FrameType) -> bool:
    return is_user_code(frame.f_code) and is_recorded(frame)


def _may_catch(suppress: Any, of_operator: bool, error: type[Exception] | None) -> bool:
    kinds: tuple[type[BaseException], ...] = suppress._exceptions
    if error is not None:
        return issubclass(error, kinds)
    return not of_operator or any(k.__name__ not in _NEVER_OF_SIZES for k in kinds)


@lru_cache(maxsize=4096)
def _bodies(code: CodeType, of_operator: bool, error: type[Exception] | None) -> tuple[tuple[int, int], ...]:
    """Where the bodies of `try` statements that catch are in a function's code: not those of `with`, nor of
    `finally` alone.
    """
    entries: list[Any] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    if not entries:
        return ()
    instructions = {i.offset: i for i in dis.get_instructions(code)}
    names = {offset: i.opname for offset, i in instructions.items()}
    order = sorted(names)
    after = dict(itertools.pairwise(order))
    found: list[tuple[int, int]] = []
    for entry in entries:
        at = after.get(entry.target, -1)
        if names.get(entry.target) == "PUSH_EXC_INFO":
            if names.get(at) == "POP_TOP":  # `except:`
                found.append((entry.start, entry.end))
                continue
            caught, at = _caught(instructions, after, at)
            while names.get(at) == "CHECK_EXC_MATCH" and (
                (of_operator and caught in _NEVER_OF_SIZES)
                or (error is not None and _is_other(caught, error))
            ):
                other = instructions[after[at]].argval  # the next `except`, where it is none of these
                if names.get(other) == "POP_TOP":  # `except:`
                    break
                caught, at = _caught(instructions, after, other)
            if names.get(at) in ("CHECK_EXC_MATCH", "POP_TOP"):
                found.append((entry.start, entry.end))
    return tuple(found)


def _is_other(caught: str, error: type[Exception]) -> bool:
    """Whether a name is that of an error of Python's that an `except` for it does not catch."""
    kind = vars(builtins).get(caught)
    return isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(error, kind)


def _caught(instructions: dict[int, Any], after: dict[int, int], at: int) -> tuple[str, int]:
    """The name of the one class that an `except` catches, and where it is compared."""
    loaded: list[str] = []
    while at in instructions and instructions[at].opname.startswith(("LOAD_", "BUILD_TUPLE", "CACHE")):
        loaded.append(str(instructions[at].argval))
        at = after.get(at, -1)
    return (loaded[0] if len(loaded) == 1 else ""), at
