"""What stands in for Python's own functions in rewritten code: `STANDINS` has it by the function's id.

It is called with the runtime, then the arguments, with Python's own names where the function takes them by
name, and gives for plain values what the function gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STANDINS: dict[int, Callable[..., Any]] = {}


def stands_for(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: put a stand-in into the table."""

    def register(standin: Callable[..., Any]) -> Callable[..., Any]:
        for f in functions:
            STANDINS[id(f)] = standin
        return standin

    return register
