"""What an object keeps in slots is put back as it was; what is for reading alone is left alone."""

from __future__ import annotations

import multiprocessing
from typing import Any

from ingot.capture.watched import Slots, slots


class Base:
    """One slot of the class's own, whose name is mangled."""

    __slots__ = ("__hidden", "kept")

    def __init__(self) -> None:
        self.kept, self.__hidden = [1], 2


class Further(Base):
    """Another one, without a value at first."""

    __slots__ = ("late",)
    late: Any


def test_slots_of_all_classes_are_put_back() -> None:
    thing = Further()
    watched = Slots(thing)
    before = watched.now()
    assert set(before) == {"_Base__hidden", "kept"} and set(slots(Further)) == {*before, "late"}
    thing.kept, thing.late = [], 5
    watched.put(before)
    assert watched.now() == before and not hasattr(thing, "late")


def test_members_of_classes_written_in_c_are_not_slots() -> None:
    """A lock's, say, which progress bars have: they look the same, and cannot be written."""
    lock = multiprocessing.Lock()._semlock  # type: ignore[attr-defined]
    watched = Slots(lock)
    watched.put(watched.now())
    assert slots(type(lock)) == ()
