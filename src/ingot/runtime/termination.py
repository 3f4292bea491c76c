"""Runs that somebody wants to end: a thread's RunOptions, looked at between the stages of its run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator

from ingot.errors import InputError, TerminatedError
from ingot.runtime.options import RunOptions


class _Current(threading.local):
    options: RunOptions | None = None


_CURRENT = _Current()


@contextlib.contextmanager
def run_with(options: RunOptions) -> Generator[None]:
    """What this thread runs inside ends when the options say so; InputError for what are no options."""
    if not hasattr(options, "terminate"):
        raise InputError(f"run_options is of type {type(options).__name__}; give ingot.RunOptions()")
    before, _CURRENT.options = _CURRENT.options, options
    try:
        require_wanted()
        yield
    finally:
        _CURRENT.options = before


def require_wanted() -> None:
    """Raises TerminatedError where the run of this thread is to end."""
    options = _CURRENT.options
    if options is not None and options.terminate:
        raise TerminatedError(
            "the run was ended: terminate is True in its RunOptions. Set it to False to run again."
        )
