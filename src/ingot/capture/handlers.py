"""Whether the model's own `try` stands around what is running: an error that it would catch decides what
Python does next.
"""

# Frames are what this file is about; the table of handlers has no public reader.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false

from __future__ import annotations

import dis
import itertools
import sys
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from ingot.capture.where import is_user_code

_RECORDING = str(Path(__file__).with_name("recording.py"))


def inside_try() -> bool:
    """Whether a frame of the model's is inside the body of a `try`."""
    at: FrameType | None = sys._getframe(1)
    while at is not None:
        if at.f_code.co_filename == _RECORDING and at.f_code.co_name == "record":
            return False
        if is_user_code(at.f_code) and any(start <= at.f_lasti < end for start, end in _bodies(at.f_code)):
            return True
        at = at.f_back
    return False


@lru_cache(maxsize=4096)
def _bodies(code: CodeType) -> tuple[tuple[int, int], ...]:
    """Where the bodies of `try` statements that catch are in a function's code: not those of `with`, nor of
    `finally` alone.
    """
    entries: list[Any] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    if not entries:
        return ()
    names = {i.offset: i.opname for i in dis.get_instructions(code)}
    order = sorted(names)
    after = dict(itertools.pairwise(order))
    found: list[tuple[int, int]] = []
    for entry in entries:
        at = after.get(entry.target, -1)
        if names.get(entry.target) == "PUSH_EXC_INFO":
            if names.get(at) == "POP_TOP":  # `except:`
                found.append((entry.start, entry.end))
                continue
            while names.get(at, "").startswith(("LOAD_", "BUILD_TUPLE", "CACHE")):
                at = after.get(at, -1)
            if names.get(at) == "CHECK_EXC_MATCH":
                found.append((entry.start, entry.end))
    return tuple(found)
