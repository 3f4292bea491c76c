"""Which `try` may catch what an operator raises."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ingot.capture import recording
from ingot.capture.handlers import inside_try, suppressions_seen


def none_of_sizes() -> tuple[bool, bool]:
    """As transformers' StaticCache writes."""
    try:
        return inside_try(), inside_try(of_operator=True)
    except NotImplementedError:
        return True, True
    except ImportError as error:
        raise ValueError from error


def one_of_several() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except NotImplementedError:
        return True, True
    except RuntimeError:
        return False, False


def all_of_them() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except KeyError:
        return True, True
    except:  # noqa: E722  (what is asked about)
        return False, False


def in_a_tuple() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except (NotImplementedError, IndexError):
        return False, False


def of_another_module() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    except torch.cuda.OutOfMemoryError:
        return False, False


def at_the_end_alone() -> tuple[bool, bool]:
    try:
        return inside_try(), inside_try(of_operator=True)
    finally:
        torch.ones(1)


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (none_of_sizes, (True, False)),
        (one_of_several, (True, True)),
        (all_of_them, (True, True)),
        (in_a_tuple, (True, True)),
        (of_another_module, (True, True)),
        (at_the_end_alone, (False, False)),
    ],
)
def test_what_may_catch(ask: Callable[[], tuple[bool, bool]], found: tuple[bool, bool]) -> None:
    assert recorded(ask) == found


def recorded(ask: Callable[[], Any]) -> Any:
    """As a model that is recorded asks; beyond the recording nobody looks."""
    defined: dict[str, Any] = {}
    exec(compile("def record(ask): return ask()", recording.__file__, "exec"), defined)
    with suppressions_seen():
        return defined["record"](ask)


def in_a_suppress() -> tuple[bool, bool]:
    with contextlib.suppress(IndexError):
        return inside_try(), inside_try(error=KeyError)


def behind_one() -> tuple[bool, bool]:
    again = contextlib.suppress(IndexError)
    with again, again:
        pass
    return inside_try(), inside_try(error=IndexError)


def beside_one_of_another_thread() -> tuple[bool, bool]:
    entered, asked = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.suppress(IndexError):
            entered.set()
            asked.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait(60)
    try:
        return inside_try(), inside_try(error=IndexError)
    finally:
        asked.set()
        other.join()


def inside_of_another_recording() -> tuple[bool, bool]:
    with contextlib.suppress(IndexError):
        found = recorded(behind_one)
        return found[0], inside_try()


@pytest.mark.parametrize(
    ("ask", "found"),
    [
        (in_a_suppress, (True, False)),
        (behind_one, (False, False)),
        (beside_one_of_another_thread, (False, False)),
        (inside_of_another_recording, (False, True)),
    ],
)
def test_what_suppresses(ask: Callable[[], tuple[bool, bool]], found: tuple[bool, bool]) -> None:
    """Of the recording's own thread, and of no recording around it."""
    assert recorded(ask) == found
