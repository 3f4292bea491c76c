"""What a user sees of a wait: a line on stderr while kernels are compiled, once that takes a second."""

from __future__ import annotations

import sys
import time

from ingot.codegen import store

#: A shorter wait is not mentioned.
SECONDS = 1.0
#: Above onnxruntime's level of warnings, a session is silent.
_WARNING = 2


class Progress:
    """Told how many kernels are compiled, from none of them to all. A terminal has one line that changes;
    a log gets one line, and another at the end.
    """

    def __init__(self, severity: int = _WARNING) -> None:
        self._silent = severity > _WARNING
        self._began = 0.0
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` are compiled."""
        now = time.monotonic()
        if done == 0:
            self._began, self._shown = now, False
        stream = sys.stderr  # None in a program without a console
        if self._silent or now - self._began < SECONDS or stream is None:  # pyright: ignore[reportUnnecessaryComparison]
            return
        text = f"ingot: compiling kernels for this CPU, {done} of {total}"
        if stream.isatty():
            print(f"\r{text}", end="\n" if done == total else "", file=stream, flush=True)
        elif not self._shown:
            print(f"{text}; they are kept in {store.directory()}", file=stream, flush=True)
        elif done == total:
            print(f"ingot: compiled {total} kernels in {now - self._began:.1f} s", file=stream, flush=True)
        self._shown = True
