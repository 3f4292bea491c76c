"""On which core a sleeping thread wakes.

Linux wakes a thread where it slept or where the waker runs, if it knows of no idle core for certain. In a
virtual machine it seldom does, for the host may have taken an idle core away; then a worker waits for its
caller's core, for some milliseconds, beside one that has nothing to do. So the caller's core is taken from
those that the worker may wake on, and given back when it is awake.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable


def _core_function() -> Callable[[], int] | None:
    """What tells the core that the calling thread runs on; None where the system cannot say or place."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    try:
        return ctypes.PyDLL(None).sched_getcpu  # it returns at once: no need to let the interpreter go
    except (OSError, AttributeError):
        return None


_current_core = _core_function()


def keep_off_mine(thread: int) -> set[int] | None:
    """Let a thread of this process (its number in the system) run anywhere but on the caller's core.

    Returns the cores that the caller may run on, for `run_on`; None where nothing was changed.
    """
    if sys.platform != "linux" or _current_core is None:
        return None
    with contextlib.suppress(OSError):  # the thread has ended, or a sandbox forbids it
        cores = os.sched_getaffinity(0)
        others = cores - {_current_core()}
        if others:
            os.sched_setaffinity(thread, others)
            return cores
    return None


def run_on(cores: set[int]) -> None:
    """Let the calling thread run on these cores."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)
