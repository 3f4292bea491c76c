"""A Python module that a model's forward may change."""

from __future__ import annotations

count = 0
scale = 1.0


def bump() -> int:
    """One more each time."""
    global count
    count += 1
    return count
