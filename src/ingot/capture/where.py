"""Whose line is running: finds the user's frame under torch's and Ingot's own, for messages and metadata."""

# Frames are what this file is about.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import dis
import inspect
import itertools
import linecache
import os
import re
import sys
from collections.abc import Callable, Generator
from functools import lru_cache
from inspect import CO_VARARGS, CO_VARKEYWORDS
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeVar

import numpy as np

E = TypeVar("E", bound=BaseException)
UNKNOWN = "the model itself"  # for the line of what no code of the user asks for
NO_SOURCE = "(its source is not in a file)"  # the text of a line of a string's
_CONVERSIONS = {"__bool__", "__int__", "__index__", "__float__", "__trunc__", "__len__"}
# torch's own code of symbolic numbers.
_OF_NUMBERS = (
    "torch/__init__.py", "experimental/sym_node.py", "experimental/recording.py",
    "experimental/symbolic_shapes.py",
)  # fmt: skip
_RUNTIME = ("stage.py", "rounds.py", "lists.py", "runs.py", "equality.py")
#: What Ingot does in the place of torch's operators, or around the model: these do not ask in its name.
_NOT_FOR_THE_MODEL = (
    "dispatch.py", "intercept.py", "truths.py", "fakes.py", "alike.py", "torch_control.py", "recording.py",
    "run.py",
)  # fmt: skip
# Its functions that do what the model's own line says: what they raise, the line raises.
_FOR_THE_MODEL = ("item", "put", "update", "call", "with_symbols", "contains", "equal", "class_of")
_RECORDING = str(Path(__file__).with_name("recording.py"))
_SCRIPT = tuple(
    str(Path(__file__).with_name(name)) for name in ("torchscript.py", "script_nodes.py", "script_values.py")
)
_FORMATS = str(Path(__file__).with_name("formats.py"))
_PYTHON = str(Path(os.__file__).parent) + os.sep
_NUMPY = str(Path(np.__file__).parent) + os.sep
_INGOT = str(Path(__file__).parents[1]) + os.sep


_TYPED = ("<string>", "<stdin>")
_MADE = (
    "__eq__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__hash__",
)  # by dataclasses, for classes of the model's


# Where a graph that was made from Python is run, the lines it came from, innermost last.
_standing: list[tuple[str, int]] = []
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# As torch.jit.trace has it, innermost first.
_TRACED = re.compile(r"^(\S[^\n]*)\((\d+)\): \S+$", re.MULTILINE)


@contextlib.contextmanager
def standing_at(trace: str | None) -> Generator[None]:
    """Whatever runs now comes from the last user's line of a printed stack trace."""
    found = [(file, int(line)) for file, line in _FRAME.findall(trace or "")] or _traced(trace or "")
    users = [at for at in found if not at[0].startswith((_INGOT, _torch_folder(), "torch/", "<"))]
    if not found:
        yield
        return
    _standing.append((users or found)[-1])
    try:
        yield
    except Exception as error:
        if not hasattr(error, "ingot_line"):
            error.ingot_line = _standing[-1]  # pyright: ignore[reportAttributeAccessIssue]
        raise
    finally:
        _standing.pop()


def _traced(trace: str) -> list[tuple[str, int]]:
    """Lines of the model, innermost last; whoever called torch.jit.trace is none of it."""
    found = [(file, int(line)) for file, line in _TRACED.findall(trace)]
    tracer = str(Path(_torch_folder(), "jit", "_trace.py"))
    inside = list(itertools.takewhile(lambda at: at[0] != tracer, found))
    calls = str(Path(_torch_folder(), "nn", "modules", "module.py"))
    return [at for at in reversed(inside) if at[0] != calls]


@lru_cache(maxsize=1)
def _torch_folder() -> str:
    import torch

    return str(Path(torch.__file__).parent) + os.sep


@lru_cache(maxsize=1)
def _windows_folder() -> str:
    return _torch_folder() + f"signal{os.sep}"


def is_user_code(code: CodeType) -> bool:
    """Whether a function belongs neither to torch nor to Ingot; torch's windows count as a model's, for they
    have ways of their own for few places.
    """
    return _is_user_file(code.co_filename)


@lru_cache(maxsize=4096)  # by file: to hash code is to hash all that it holds
def _is_user_file(name: str) -> bool:
    return not name.startswith((_INGOT, _torch_folder(), "<")) or name.startswith(_windows_folder())


def _decides(code: CodeType) -> bool:
    """Whether what a function asks of a size, the model's own Python (or script) asks."""
    return is_user_code(code) or runs_scripts(code)


def runs_scripts(code: CodeType) -> bool:
    """Whether a piece of Ingot's own code does what a script says."""
    return code.co_filename in _SCRIPT


def is_library_code(code: CodeType) -> bool:
    """Whether a function is of Python's own library, NumPy's or what torch itself computes formulas with."""
    file = code.co_filename
    pythons = file.startswith(_PYTHON) and "site-packages" not in file
    return pythons or is_formula_code(code) or file.startswith(_NUMPY)


def is_formula_code(code: CodeType) -> bool:
    """Whether a function is of what torch computes formulas with."""
    return f"{os.sep}sympy{os.sep}" in code.co_filename


def is_ingot_code(code: CodeType) -> bool:
    """Whether a piece of code is Ingot's own."""
    return code.co_filename.startswith(_INGOT)


@lru_cache(maxsize=4096)
def _is_layer(name: str) -> bool:
    file = Path(name)
    return file.parent == Path(_torch_folder(), "nn", "modules") and file.name != "module.py"


@lru_cache(maxsize=1024)
def short_path(filename: str) -> str:
    """The file's path below the import root it was found under: stable between machines."""
    roots = [os.path.realpath(p) + os.sep for p in [*sys.path, str(Path.cwd())] if p]
    real = os.path.realpath(filename)
    hits = [r for r in roots if real.startswith(r)]
    return real[len(max(hits, key=len)) :] if hits else real


def frames(innermost: FrameType | None) -> Generator[FrameType]:
    """What is running, looking outwards: whoever called export is no part of it."""
    at = innermost
    while at is not None and not _records(at):
        yield at
        at = at.f_back


def is_recorded(frame: FrameType) -> bool:
    """Whether a frame runs for the model that is recorded: no other thread's does."""
    at: FrameType | None = frame
    while at is not None and not _records(at):
        at = at.f_back
    return at is not None


def _records(frame: FrameType) -> bool:
    return frame.f_code.co_filename == _RECORDING and frame.f_code.co_name == "record"


def user_frame(frame: FrameType | None = None) -> FrameType | None:
    """The innermost frame of the model that belongs neither to torch nor to Ingot, looking outwards from
    `frame`; where a model is made of torch's layers alone, the innermost line of a layer.
    """
    at = frame or sys._getframe(1)
    layer: FrameType | None = None
    while at is not None and not _is_user_file(file := at.f_code.co_filename):
        if file == _RECORDING and _records(at):
            return layer  # whoever called export is no part of the model
        if layer is None and _is_layer(file):
            layer = at
        at = at.f_back
    return at


def source_line(frame: FrameType | None = None) -> str:
    """`package/file.py:12` of the user's innermost frame, or UNKNOWN."""
    if _standing:
        return f"{short_path(_standing[-1][0])}:{_standing[-1][1]}"
    at = model_frame(frame or sys._getframe(1))
    return f"{short_path(at.f_code.co_filename)}:{at.f_lineno}" if at is not None else UNKNOWN


def quoted_line(frame: FrameType | None = None) -> str:
    """`file.py:12: the line's own text`, with the full path, for error messages."""
    file, line = _place(frame or sys._getframe(1))
    return quoted_at(file, line) if file else UNKNOWN


def quoted(frame: FrameType | None) -> str:
    """`file.py:12: the line's own text` of a frame."""
    return UNKNOWN if frame is None else quoted_at(frame.f_code.co_filename, frame.f_lineno)


def returned_at(model: Any) -> str:
    """`file.py:12: return …` of the model's own function, its last where it has several."""
    if _is_graph(model):
        return "the model's forward"
    found = _last_return(model)
    return quoted_at(*found) if found is not None else UNKNOWN


@contextlib.contextmanager
def returning(model: Any) -> Generator[None]:
    """Whatever is written now belongs to what the model's own function returns."""
    found = None if _is_graph(model) else _last_return(model)
    if found is not None:
        _standing.append(found)
    try:
        yield
    finally:
        if found is not None:
            _standing.pop()


def _is_graph(model: Any) -> bool:
    code = _code_of(model)
    return code is not None and is_ingot_code(code)  # what runs a graph


def _code_of(model: Any) -> CodeType | None:
    function = getattr(model, "forward", model)
    return getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)


def _last_return(model: Any) -> tuple[str, int] | None:
    code = _code_of(model)
    found = [i.positions for i in dis.get_instructions(code) if i.opname == "RETURN_VALUE"] if code else []
    lines = [p.lineno for p in found if p is not None and p.lineno is not None]
    return (code.co_filename, max(lines)) if code is not None and lines else None


def quoted_at(file: str, line: int) -> str:
    """`file.py:12: the line's own text`."""
    return f"{file}:{line}: {linecache.getline(file, line).strip() or NO_SOURCE}"


def raised_at(error: BaseException, otherwise: str = UNKNOWN) -> str:
    """`file.py:12: the line's own text` of the model's innermost line that an error came through; `otherwise`
    where it came through torch's own alone.
    """
    found, at = otherwise, error.__traceback__
    line: tuple[str, int] | None = getattr(error, "ingot_line", None)
    while at is not None:
        code = at.tb_frame.f_code
        if is_user_code(code) and not is_library_code(code):
            found = quoted_at(code.co_filename, at.tb_lineno)
        elif line is not None and (runs_scripts(code) or code.co_filename == _FORMATS):
            found = quoted_at(*line)
        at = at.tb_next
    return found


def models_own(error: E) -> E:
    """Note that the model's own code raises this error, though Ingot raises it in its place."""
    error.ingot_asserted = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    return error


def raise_if_ours(error: BaseException) -> None:
    """Raise an error again that Ingot's own code made by mistake: it says nothing about the model.

    What torch raises from C++ ends in a frame of Ingot's as well: only the kinds count that it never raises.
    """
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if getattr(error, "ingot_asserted", False):  # the model's own assert, which a rewritten function raises
        return
    if at is not None and _is_runtime(at.tb_frame) and at.tb_frame.f_code.co_name in _FOR_THE_MODEL:
        return
    if (
        not isinstance(error, (AttributeError, NameError, KeyError, AssertionError, ImportError))
        or at is None
    ):
        return
    file = at.tb_frame.f_code.co_filename
    if file.startswith(_INGOT) and file not in _SCRIPT:
        raise error


def _place(frame: FrameType) -> tuple[str, int]:
    """File and line of what is running; no file where it cannot be told."""
    if _standing:
        return _standing[-1]
    at = model_frame(frame) or _without_a_file(frame)
    return (at.f_code.co_filename, at.f_lineno) if at is not None else ("", 0)


def model_frame(frame: FrameType | None) -> FrameType | None:
    """The line of the model that runs, or has called what runs; None where there is none."""
    return _out_of_the_library(user_frame(frame))


def _out_of_the_library(frame: FrameType | None) -> FrameType | None:
    """The line of the model that called Python's own library (an enum, say); the library's where none did."""
    at = frame
    while at is not None and is_library_code(at.f_code):
        at = at.f_back
        while at is not None and not is_user_code(at.f_code):
            if _records(at):
                return frame
            at = at.f_back
    return at or frame


def _without_a_file(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of code that was made out of a string, or typed."""
    while frame is not None and frame.f_code.co_filename not in _TYPED:
        frame = frame.f_back
    return frame


def add_line(error: Exception) -> None:
    """Put the user's line before an error's message, unless it names that line already."""
    file, line = _place(sys._getframe(1))
    if not file or f"{Path(file).name}:{line}" in str(error):
        return
    text = linecache.getline(file, line).strip()
    error.args = (f"{file}:{line}: {text}\n{error}",)


def asked_by_user(depth: int = 2) -> bool:
    """Whether the user's own line turns a size into a bool or a number, rather than torch looking at it for
    itself.

    `if x.shape[0] == 4:` goes through `SymBool.__bool__` in torch/__init__.py, called from the user's frame;
    torch's
    C++ asks the shape environment without it.
    """
    return converting_frame(depth=depth + 1) is not None


def converting_frame(conversion: str | None = None, depth: int = 2) -> FrameType | None:
    """The user's frame that turns a size into a bool or number (by the given dunder), if that is what is
    going on.
    """
    at: FrameType | None = sys._getframe(depth)
    while at is not None:
        name = at.f_code.co_filename
        if name.endswith("torch/__init__.py") and at.f_code.co_name in _CONVERSIONS:
            caller = at.f_back
            while caller is not None and _asks_for_another(caller):
                at, caller = (at if is_ingot_code(caller.f_code) else caller), caller.f_back
            wanted = not conversion or at.f_code.co_name == conversion
            return caller if wanted and caller is not None and _decides(caller.f_code) else None
        if not name.startswith((_INGOT, _torch_folder())):
            return None
        at = at.f_back
    return None


def given(is_it: Callable[[Any], bool], depth: int = 2) -> str | None:
    """The innermost function of torch's that was given something which the user's line gave torch as an
    argument; what torch's functions give each other does not count.
    """
    at: FrameType | None = sys._getframe(depth)
    frames: list[FrameType] = []
    while at is not None and not is_user_code(at.f_code):
        if _computes(at.f_code.co_filename):
            frames.append(at)
        at = at.f_back
    # What frames hold is dear to ask: the outermost, which the user called, answers for all where it says no.
    if not frames or not any(map(is_it, _arguments(frames[-1]))):
        return None
    return next(f.f_code.co_name for f in frames if any(map(is_it, _arguments(f))))


@lru_cache(maxsize=4096)
def _computes(file: str) -> bool:
    """Whether functions of the file are neither Ingot's own nor those of a size that is asked something."""
    return not file.startswith(_INGOT) and not file.endswith(_OF_NUMBERS)


def _arguments(frame: FrameType) -> list[Any]:
    code, held = frame.f_code, frame.f_locals
    count = code.co_argcount + code.co_kwonlyargcount
    starred = sum(bool(code.co_flags & flag) for flag in (CO_VARARGS, CO_VARKEYWORDS))
    values = [held.get(name) for name in code.co_varnames[: count + starred]]
    for more in values[count:]:
        values.extend(more.values() if isinstance(more, dict) else more or ())  # type: ignore[attr-defined]  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]  (of any kind)
    return values


def called_by_user(function: str, depth: int = 2) -> bool:
    """Whether the outermost torch frame, that of `function` or something like it, was called by the user."""
    at: FrameType | None = sys._getframe(depth)
    inner: FrameType | None = None
    while at is not None and not is_user_code(at.f_code):
        inner, at = (inner if is_ingot_code(at.f_code) else at), at.f_back
    return inner is not None and inner.f_code.co_name.startswith(function)


def _asks_for_another(frame: FrameType) -> bool:
    """Whether a frame only passes a question on: one conversion calls another, what rewritten code calls asks
    in the user's name, be it by a function of C's, and so do the comparisons that a dataclass makes for
    itself.
    """
    name = frame.f_code.co_filename
    inner = name.endswith("torch/__init__.py") and frame.f_code.co_name.startswith("__")
    made = name.startswith("<") and frame.f_code.co_name in _MADE
    return inner or made or (is_ingot_code(frame.f_code) and _is_for_the_model(name))


@lru_cache(maxsize=1024)
def _is_for_the_model(file: str) -> bool:
    """Whether a file of Ingot's does what the model's own Python says."""
    path = Path(file)
    return path.name not in _NOT_FOR_THE_MODEL and path.parent.name != "aten" and file not in _SCRIPT


def _is_runtime(frame: FrameType) -> bool:
    file = Path(frame.f_code.co_filename)
    return is_ingot_code(frame.f_code) and (file.name in _RUNTIME or file.parent.name == "standins")


def torch_expects(depth: int = 2) -> bool:
    """Whether torch asks in order to raise an error if the answer is no."""
    at: FrameType | None = sys._getframe(depth)
    for _ in range(8):
        if at is None:
            break
        if at.f_code.co_name in ("expect_true", "_check_with"):
            return True
        at = at.f_back
    return False
