"""Clocks, the system's randomness, and generators that begin with it: functions of Python's and NumPy's whose
answer nobody can repeat.
"""

# Frames are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Generator
from types import FrameType
from typing import Any

from ingot.capture.objects import held_as
from ingot.capture.where import is_ingot_code, is_library_code, is_user_code, quoted

# Python modules with functions whose answer nobody can repeat, and what these are called: clocks, the
# system's randomness, generators that begin with it unless they are given a seed.
UNREPEATABLE = frozenset(("time", "datetime", "os", "posix", "uuid", "secrets", "random", "_random", "numpy"))
UNSTEADY = frozenset(
    (
        "time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time",
        "process_time_ns", "now", "utcnow", "today", "urandom", "uuid1", "uuid4", "token_bytes", "token_hex",
        "randbelow", "randbits", "SystemRandom", "getpid", "getloadavg", "localtime", "gmtime", "ctime",
        "asctime", "strftime", "clock_gettime", "clock_gettime_ns", "thread_time", "thread_time_ns", "times",
        "Random", "RandomState", "default_rng", "SeedSequence", "PCG64", "PCG64DXSM", "MT19937", "Philox",
        "SFC64",
    )
)  # fmt: skip


def is_unrepeatable(x: Any) -> bool:
    """Whether something is a clock's function, or one that gives the system's randomness."""
    owner: Any = held_as(x, "__self__")  # of a method of a class of these modules
    module = held_as(x, "__module__") or held_as(owner, "__module__", "")
    return str(module).partition(".")[0] in UNREPEATABLE and held_as(x, "__name__", "") in UNSTEADY


@contextlib.contextmanager
def watching_clocks() -> Generator[list[str]]:
    """The lines of the user's at which a clock or the system's randomness is asked meanwhile. What measures
    Python's garbage collections (Hypothesis, servers) runs anywhere, and is no part of a model.
    """
    found: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event != "c_call" or not is_unrepeatable(argument):
            return
        at: FrameType | None = frame
        while at is not None and (is_ingot_code(at.f_code) or is_library_code(at.f_code)):
            at = at.f_back
        if at is None or not is_user_code(at.f_code) or _is_collecting(at):
            return
        if quoted(at) not in found:
            found.append(quoted(at))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(before)


def _is_collecting(frame: FrameType | None) -> bool:
    """Whether a callback of Python's garbage collector runs in a frame or around it."""
    codes = {held_as(held_as(f, "__func__", f), "__code__") for f in gc.callbacks} - {None}
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False
