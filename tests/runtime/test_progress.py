"""What is said while kernels are compiled."""

from __future__ import annotations

import io
import sys
import time

import pytest

from ingot.runtime import progress
from ingot.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, seconds: float, severity: int = 2) -> str:
    """What four kernels print that are compiled in so many seconds each."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", stream)
    tell = Progress(severity)
    for done in range(5):
        tell(done, 4)
        clock[0] += seconds
    return stream.getvalue()


def test_a_short_wait_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(io.StringIO(), monkeypatch, 0.2) == ""
    assert told(Terminal(), monkeypatch, 0.2) == ""


def test_a_log_gets_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = told(io.StringIO(), monkeypatch, 0.6).splitlines()
    assert first.startswith("ingot: compiling kernels for this CPU, 2 of 4; they are kept in /")
    assert last == "ingot: compiled 4 kernels in 2.4 s"


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = told(Terminal(), monkeypatch, 0.6)
    assert text.split("\r")[1:] == [
        f"ingot: compiling kernels for this CPU, {done} of 4" + "\n" * (done == 4) for done in (2, 3, 4)
    ]


def test_silence_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(io.StringIO(), monkeypatch, 0.6, severity=3) == ""


def test_a_program_without_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(progress, "SECONDS", -1.0)
    Progress()(0, 1)
