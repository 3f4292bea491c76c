"""Dicts, lists and objects of which a list as long as data says has copies, in tensors: nobody may change
them, as the others would not see it.
"""

# Stands for values of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ingot.capture.objects import held_in, is_a, is_of_attributes
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError


@dataclass
class Copies:
    """Those of one recording, with what was in them when they were copied."""

    found: dict[int, tuple[Any, list[Any], str]] = field(default_factory=dict[int, Any])

    def note(self, things: Iterable[Any], line: str | None = None) -> None:
        """Of those of the things that can be changed there are copies."""
        for thing in things:
            if is_mutable(thing) and id(thing) not in self.found:
                self.found[id(thing)] = thing, _state(thing), line or quoted_line()

    def has(self, thing: Any) -> bool:
        """Whether there are copies of a thing, or it is one."""
        return id(thing) in self.found

    def follow(self, made: Any, *of: Any) -> None:
        """A thing was made in the place of others: of it there are copies where there are of one of them."""
        for thing in of:
            if id(thing) in self.found:
                self.note([made], self.found[id(thing)][2])

    def require_unchanged(self) -> None:
        """Raise DataDependentError where one was changed."""
        for thing, before, line in self.found.values():
            now = _state(thing)
            if len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True)):
                kind = "list" if is_a(thing, list) else "dict" if is_a(thing, dict) else type(thing).__name__
                instead = "items[i] = [*items[i], …]" if kind == "list" else "items[i] = {**items[i], …}"
                raise DataDependentError(
                    f"{line}\nData or a size decides how long a list is here, so that its elements are kept "
                    f"in tensors, and the model changes a {kind} that it has put into it or "
                    f"taken out of it, which the other would not see. Put another one in its place "
                    f"(`{instead}`), or keep a list for each part."
                )


def is_mutable(x: Any) -> bool:
    """Whether it is a container that can be changed."""
    if is_a(x, (list, dict)):
        return True
    made: Any = getattr(type(x), "__dataclass_params__", None)
    return is_of_attributes(type(x)) and not (made is not None and made.frozen)


def _state(x: Any) -> list[Any]:
    """What is in it now."""
    if is_a(x, list):
        return list(list.__iter__(x))
    if is_a(x, dict):
        return [v for pair in dict.items(x) for v in pair]
    return list(held_in(x).values())
