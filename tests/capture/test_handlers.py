"""Which `try` may catch what an operator raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ingot.capture import recording
from ingot.capture.handlers import inside_try


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
    defined: dict[str, Any] = {}
    exec(compile("def record(ask): return ask()", recording.__file__, "exec"), defined)
    assert defined["record"](ask) == found  # a recording, beyond which nobody looks
