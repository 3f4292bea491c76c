"""Puts rewritten code in the place of functions that are alive, for the time of a recording.

`function.__code__` is swapped, so that methods, closures, partials, hooks, caches and callbacks from C all
keep working: no caller is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Sequence
from types import CodeType, FunctionType

from ingot.capture.alive import functions
from ingot.capture.rewrite import Key, keys_in, rewritten
from ingot.capture.sources import is_part, is_source_of
from ingot.errors import ExportError

_OPTIMIZED = 1  # co_flags of a function's code; module and class bodies run through function objects too


@contextlib.contextmanager
def swapped(marks: Sequence[Key], apart: Sequence[Key] = (), others: Collection[str] = ()) -> Generator[None]:
    """Every live function that holds marked code runs its rewritten form; see `rewrite.rewritten`.

    others: files of code that may be marked later

    Raises:
        ExportError: a marked function has no source, or no live function holds it.
    """
    originals: dict[FunctionType, CodeType] = {}
    made: dict[FunctionType, CodeType] = {}
    wanted = set(marks), set(apart)
    try:
        found = _owners(marks, others)
        for mark, owners in sorted(found.items(), key=lambda item: item[0].file):  # of which few are parsed
            if not owners:
                raise ExportError(
                    f"{mark.file}:{mark.line}: {mark.name} depends on data, and no function that is "
                    "alive holds "
                    "it. Define it where it stays: at the top of a module or in a class."
                )
            unlike = {f for f in owners if not is_source_of(f.__code__)}  # of the same place, by name
            for function in [f for f in owners if f not in unlike] or owners:
                if function not in originals:
                    originals[function] = code = function.__code__
                    made[function] = rewritten(code, *wanted)
        for function, code in made.items():
            function.__code__ = code
        yield
    finally:
        for function, code in originals.items():
            function.__code__ = code


def _owners(marks: Sequence[Key], others: Collection[str]) -> dict[Key, list[FunctionType]]:
    """Live functions whose code, or code inside it, is marked; not operands and blocks that an earlier
    recording made of theirs, which stand at the same places.
    """
    found: dict[Key, list[FunctionType]] = {m: [] for m in marks}
    if not marks:
        return found
    for function in functions({m.file for m in marks}, others):
        code = function.__code__
        if function.__name__[0] == "<" and function.__name__ != "<lambda>":
            continue  # a comprehension that is running belongs to the function around it
        if code.co_flags & _OPTIMIZED and not is_part(code):
            for mark in keys_in(code):
                if mark in found:
                    found[mark].append(function)
    return found
