"""Sizes and tensors that the model's Python writes into strings, and whether the strings matter.

Most of them are logged. A recording shows the example's numbers in them, notes the line, and is made once
more with other numbers: where the model is another one then, the string decided something. What is written
into the message of a `torch._assert` nobody reads, unless it fails: that needs no other recording.
"""

# torch's symbolic numbers and frames are untyped.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
import re
import sys
from collections.abc import Callable, Generator, Sequence
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ingot.capture.handlers import inside_try
from ingot.capture.request import request
from ingot.capture.sources import is_source_of, parsed, text_of
from ingot.capture.where import (
    is_ingot_code,
    is_library_code,
    is_user_code,
    quoted,
    quoted_line,
    runs_scripts,
)

_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool)
_METHODS = ("__repr__", "__str__", "__format__")


class _Untold:
    """Stands in an error's text for a number that only the run knows."""

    def __str__(self) -> str:
        return "…"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return "…"


UNTOLD = _Untold()
_FIELD = re.compile(r"%(\(\w+\))?[-+ #0]*\d*(\.\d+)?[a-zA-Z%]")


def filled_in(text: str, values: Any, told: Callable[[Any], Any]) -> str:
    """`text % values` with what is told of each value; where that is nothing, its field is one for a text."""
    if isinstance(values, dict):
        shown: Any = {k: told(v) for k, v in values.items()}
        parts = list(shown.values())
    else:
        parts = [told(v) for v in (values if isinstance(values, tuple) else (values,))]
        shown = tuple(parts)
    if all(p is not UNTOLD for p in parts):
        return text % values
    return _FIELD.sub(lambda m: "%%" if m[0] == "%%" else f"%{m[1] or ''}s", text) % shown


class Texts:
    """The lines that wrote a size or tensor into a string."""

    def __init__(self, varied: bool) -> None:
        self.varied = varied  # show other numbers than the example's
        self.lines: list[str] = []  # but for those of which it is certain that nobody reads them

    def of(self, x: Any) -> Any:
        """The number or text that is shown for a value."""
        if isinstance(x, torch.Tensor):
            return "another tensor, not zero: -1e-7" if self.varied else "a tensor"
        env: Any = x.node.shape_env
        value: Any = env.value(env.expr(x))
        if isinstance(x, torch.SymBool):
            return bool(value) != self.varied
        if isinstance(x, torch.SymFloat):
            return float(value) * (1001.7 if self.varied else 1)
        return int(value) * (1001 if self.varied else 1) + (7 if self.varied else 0)


def _asking(x: Any) -> tuple[str, bool] | None:
    """The user's line, if it is the user's own code or script that asks, and whether what it writes may be
    read. Code of the model's own that writes a number of data is rewritten: there it is seen what becomes of
    the string.
    """
    at: FrameType | None = sys._getframe(2)
    while at is not None and is_ingot_code(at.f_code):
        if runs_scripts(at.f_code):
            return quoted_line(), True
        at = at.f_back
    if at is None or not is_user_code(at.f_code):
        return None
    if not isinstance(x, torch.Tensor) and not is_library_code(at.f_code):
        env: Any = x.node.shape_env
        if env.of_data(env.expr(x)):
            request(at)
    return quoted(at), not _is_message(at)


def _is_message(frame: FrameType) -> bool:
    """Whether a frame writes the message of a `torch._assert` that nobody catches."""
    code = frame.f_code
    named = _message_of(code, frame.f_lasti)
    if not named or named[0] in (*code.co_varnames, *code.co_cellvars, *code.co_freevars):
        return False
    found = frame.f_globals.get(named[0])
    for name in named[1:]:
        found = vars(found).get(name) if isinstance(found, ModuleType) else None
    return found is torch._assert and not inside_try(error=AssertionError)


@functools.lru_cache(maxsize=4096)
def _message_of(code: CodeType, at: int) -> Sequence[str]:
    """The names, `torch` and `_assert`, of the function whose message an instruction writes; else none."""
    line, last, column, end = next(itertools.islice(code.co_positions(), at // 2, None))
    if line is None or last is None or column is None or end is None or not is_source_of(code):
        return ()
    for names, message in _messages(text_of(code.co_filename)):
        begins, ends = (message.lineno, message.col_offset), (message.end_lineno, message.end_col_offset)
        if begins <= (line, column) and (last, end) <= ends:
            return names
    return ()


_ELSEWHERE = (ast.Call, ast.NamedExpr, ast.Lambda, ast.Await, ast.Yield, ast.YieldFrom, ast.comprehension)


@functools.lru_cache(maxsize=64)
def _messages(source: str) -> Sequence[tuple[Sequence[str], ast.JoinedStr]]:
    """The f-strings that functions called `_assert` are given in a file, with the names of these. Of what is
    written there, nothing goes anywhere else.
    """
    found: list[tuple[Sequence[str], ast.JoinedStr]] = []
    for call in ast.walk(parsed(source)):
        match call:
            case ast.Call(args=[_, ast.JoinedStr() as message], keywords=[]):
                names = tuple(ast.unparse(call.func).split("."))
                inside = ast.walk(message)
                if names[-1] == "_assert" and not any(isinstance(part, _ELSEWHERE) for part in inside):
                    found.append((names, message))
            case _:
                pass
    return found


@contextlib.contextmanager
def watched_texts(varied: bool = False) -> Generator[Texts]:
    """Show numbers to the user's own `str`, `repr`, `format` and f-strings for the time of a recording."""
    texts = Texts(varied)
    kept: list[tuple[Any, str, Any]] = []

    def shown(kind: Any, method: str) -> Callable[..., str]:
        plain = getattr(kind, method)

        def show(self: Any, *spec: str) -> str:
            asking = _asking(self)
            if asking is None:
                return plain(self, *spec)
            line, may_be_read = asking
            if may_be_read:
                texts.lines.append(line)
            found = texts.of(self)
            return format(found, *spec) if method == "__format__" else str(found)

        return show

    for kind in (*_NUMBERS, FakeTensor):
        for method in _METHODS:
            kept.append((kind, method, vars(kind).get(method)))
            setattr(kind, method, shown(kind, method))
    try:
        yield texts
    finally:
        for kind, method, before in kept:
            if before is None:
                delattr(kind, method)
            else:
                setattr(kind, method, before)
