"""What is changed while a branch or loop is recorded, so that it can be put back: the cost is that of the
changes, however large the model around them is.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

_ABSENT: Any = object()
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class Journal:
    """Notes what tables and objects held before each change, while somebody wants it back."""

    def __init__(self) -> None:
        self._open = 0
        self._notes: list[tuple[dict[Any, Any], Any, Any, Any]] = []  # where, the key, what it held; whose

    def note(self, where: dict[Any, Any], key: Any, owner: Any) -> None:
        """Something is about to be put there."""
        if self._open:
            self._notes.append((where, key, where.get(key, _ABSENT), owner))

    def begin(self) -> int:
        """A moment that `put_back` can return to."""
        self._open += 1
        return len(self._notes)

    def keep(self, since: int) -> None:
        """What has changed since that moment stays."""
        self._open -= 1
        if not self._open:
            del self._notes[since:]

    def now(self) -> int:
        """This moment, for `changed`."""
        return len(self._notes)

    def changed(self, since: int, kind: type[T], key: str) -> list[T]:
        """Objects of a kind whose attribute has another value than at that moment, in order of change."""
        before: dict[int, tuple[T, Any]] = {}
        for _, name, value, owner in self._notes[since:]:
            if name == key and isinstance(owner, kind):
                before.setdefault(id(owner), (owner, value))
        return [owner for owner, value in before.values() if getattr(owner, key) != value]

    def put_back(self, since: int) -> None:
        """Everything as it was at that moment."""
        still_open, self._open = self._open - 1, 0  # nothing of this is noted
        while len(self._notes) > since:
            where, key, value, _ = self._notes.pop()
            if value is _ABSENT:
                where.pop(key, None)
            else:
                where[key] = value
        self._open = still_open


class Table(dict[K, V]):
    """A dict whose changes by `table[key] = value` are noted."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def __setitem__(self, key: K, value: V) -> None:
        self._journal.note(self, key, self)
        super().__setitem__(key, value)


class Tracked:
    """An object whose attributes named in `put_back` are noted when they change; `journal` comes first."""

    put_back: ClassVar[frozenset[str]] = frozenset()
    journal: Journal

    def __setattr__(self, name: str, value: Any) -> None:
        fields = vars(self)
        if name in fields and name in self.put_back:
            self.journal.note(fields, name, self)
        fields[name] = value
