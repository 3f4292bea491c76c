"""Deques of rewritten code of which data decides the length: lists that take elements at both ends.

They take the place of all deques that the model's own code makes once it turns out that one of them is such a
deque.
"""

# Elements may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ingot.capture.lists import TracedList
from ingot.capture.request import cannot_wait


class TracedDeque(TracedList):
    """A deque; `maxlen`, a number of Python's, is how many elements it has at the most, or None."""

    maxlen: int | None = None

    def __init__(self, items: Iterable[Any] = (), maxlen: int | None = None) -> None:
        super().__init__(items)
        self.maxlen = maxlen
        self._drop_first()

    def of_parts(self, parts: list[Any]) -> TracedDeque:
        """As Parts has it."""
        made = TracedDeque()
        list.extend(made, parts)
        made.maxlen = self.maxlen
        return made

    def is_like(self, other: Any) -> bool:
        """As Parts has it."""
        return isinstance(other, TracedDeque) and self.maxlen == other.maxlen

    def _drop_first(self) -> None:
        """Leave as many as there may be, the last ones."""
        if self.maxlen is None:
            return
        if self.known:
            list.__setitem__(self, slice(None), self.parts()[-self.maxlen :] if self.maxlen else [])
            return
        run = self.run()
        self.become(run.cut(slice(torch.sym_max(run.count - self.maxlen, 0), None)))

    def append(self, value: Any) -> None:
        """As deque.append."""
        list.append(self, value)
        self._drop_first()

    def appendleft(self, value: Any) -> None:
        """As deque.appendleft."""
        parts = self.parts()
        if self.maxlen is not None and not (self.known and len(parts) < self.maxlen):
            self._drop_last(self.maxlen - 1)
            parts = self.parts()
        list.__setitem__(self, slice(None), [value, *parts][: self.maxlen])

    def _drop_last(self, most: int) -> None:
        if self.known:
            list.__setitem__(self, slice(None), self.parts()[: max(most, 0)])
        else:
            run = self.run()
            self.become(run.cut(slice(0, torch.sym_min(run.count, max(most, 0)))))

    def popleft(self) -> Any:
        """As deque.popleft."""
        return self.pop(0)

    def extend(self, more: Any) -> None:
        """As deque.extend."""
        super().extend(more)
        self._drop_first()

    def extendleft(self, more: Any) -> None:
        """As deque.extendleft."""
        for value in more:
            self.appendleft(value)

    def __iadd__(self, more: Any) -> TracedDeque:  # type: ignore[misc, override]
        self.extend(more)
        return self

    def copy(self) -> TracedDeque:
        """As deque.copy."""
        return self.of_parts(self.parts())

    def rotate(self, n: Any = 1) -> None:
        """As deque.rotate."""
        if not (self.known and isinstance(n, int)):
            cannot_wait("turns a deque of which data decides the length, or by as much as data says")
        parts = self.parts()
        at = -n % len(parts) if parts else 0
        list.__setitem__(self, slice(None), parts[at:] + parts[:at])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TracedDeque) and TracedList.__eq__(self, other)

    __hash__ = None  # type: ignore[assignment]
