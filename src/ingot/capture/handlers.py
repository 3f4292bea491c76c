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
import sys
from collections.abc import Generator
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, Literal

from ingot.capture.where import frames, is_recorded, is_user_code

# What operators never raise, whatever sizes they are given.
_NEVER_OF_SIZES = ("NotImplementedError", "ImportError", "ModuleNotFoundError", "KeyError", "NameError")

#: What becomes of an error in a function: it is caught there, it goes on to the caller, or another one does.
End = Literal["caught", "leaves", "another"]

_suppressing: list[Any] = []  # what the model that is recorded has entered and not left


def inside_try(of_operator: bool = False, error: type[Exception] | None = None) -> bool:
    """Whether a frame of the model's is inside the body of a `try`, or of a `contextlib.suppress`.

    of_operator: only of one that may catch what an operator raises that is given sizes that do not fit
    error: only of one that may catch this error of Python's
    """
    if any(_may_catch(s, of_operator, error) for s in _suppressing):
        return True
    for at in frames(sys._getframe(1)):
        end = _end(at.f_code, at.f_lasti, of_operator, error) if is_user_code(at.f_code) else "leaves"
        if end == "caught":
            return True
        if end == "another":
            of_operator, error = False, None  # of what an `except` raises instead nothing is known
    return False


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
def _end(code: CodeType, at: int, of_operator: bool, error: type[Exception] | None) -> End:
    """What becomes of an error at an instruction, along every way through the handlers of the function.

    An `except` that only raises passes it on as another one. A `with` lets it through, and so does a
    `finally`.
    """
    entries: list[Any] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    handler = next((e.target for e in entries if e.start <= at < e.end), None)
    if handler is None:
        return "leaves"
    instructions = list(dis.get_instructions(code))
    places = {i.offset: place for place, i in enumerate(instructions)}
    todo, seen, another = [places[handler]], set[int](), False
    while todo:
        place = todo.pop()
        if place in seen or place >= len(instructions):
            continue
        seen.add(place)
        here, name = instructions[place], instructions[place].opname
        if name in ("RERAISE", "RAISE_VARARGS"):
            raised = name == "RAISE_VARARGS" and here.arg != 0
            end = _end(code, here.offset, *((False, None) if raised else (of_operator, error)))
            if end == "caught":
                return end
            another |= raised or end == "another"
            continue
        if name == "POP_EXCEPT" and instructions[place + 1].opname != "RERAISE":
            return "caught"
        jumps = here.opcode in dis.hasjrel or here.opcode in dis.hasjabs
        if name == "WITH_EXCEPT_START":
            todo.append(_jump_behind(instructions, place) + 1)
        elif name == "CHECK_EXC_MATCH" and _passes(_caught(instructions, place), of_operator, error):
            todo.append(places[instructions[_jump_behind(instructions, place)].argval])
        else:
            todo += [places[here.argval]] if jumps else []
            todo += [] if name.startswith("JUMP_") else [place + 1]
    return "another" if another else "leaves"


def _jump_behind(instructions: list[dis.Instruction], place: int) -> int:
    """Where the next conditional jump is."""
    return next(p for p in range(place, len(instructions)) if "JUMP_" in instructions[p].opname)


def _passes(caught: str, of_operator: bool, error: type[Exception] | None) -> bool:
    """Whether an `except` for this class does not catch it."""
    return (of_operator and caught in _NEVER_OF_SIZES) or (error is not None and _is_other(caught, error))


def _is_other(caught: str, error: type[Exception]) -> bool:
    """Whether a name is that of an error of Python's that an `except` for it does not catch."""
    kind = vars(builtins).get(caught)
    return isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(error, kind)


def _caught(instructions: list[dis.Instruction], place: int) -> str:
    """The name of the one class that an `except` compares with; empty where there are several."""
    loaded: list[str] = []
    while instructions[place - 1].opname.startswith(("LOAD_", "BUILD_TUPLE")):
        place -= 1
        loaded.append(str(instructions[place].argval))
    return loaded[0] if len(loaded) == 1 else ""
