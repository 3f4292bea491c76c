"""What a block of Python may change beside lists, dicts, sets and cells: variables of Python modules and of
classes, slots of objects, attributes of tensors, what is in an array, where an iterator stands. Each says
what it holds now, and takes it back.
"""

# Whatever the model holds may be one of these.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from typing import Any

import torch

from ingot.capture import tags
from ingot.capture.merge import UNBOUND, Unmergeable
from ingot.capture.mutable import Contents, contents_of, put_back
from ingot.capture.objects import own_dict, slots, values_of
from ingot.capture.positions import position
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError


class Watched:
    """Something of one thing that may change."""

    thing: Any  # whose it is, where others may hold that

    def now(self) -> Any:
        """What it holds: a list or a dict."""
        raise NotImplementedError

    def put(self, held: Any) -> None:
        """Let it hold this, which `now` gave once."""
        raise NotImplementedError


class Global(Watched):
    """A variable of a Python module that a function assigns."""

    def __init__(self, table: dict[str, Any], name: str) -> None:
        self.thing = self
        self.table = table
        self.name = name

    def now(self) -> list[Any]:
        """As Watched has it."""
        return [self.table.get(self.name, UNBOUND)]

    def put(self, held: list[Any]) -> None:
        """As Watched has it."""
        if held[0] is UNBOUND:
            self.table.pop(self.name, None)
        else:
            self.table[self.name] = held[0]


class Slots(Watched):
    """The attributes of an object that are in no dict."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def now(self) -> dict[str, Any]:
        """As Watched has it."""
        return values_of(self.thing, slots(type(self.thing)))

    def put(self, held: dict[str, Any]) -> None:
        """As Watched has it."""
        for n in self.now().keys() - held.keys():
            object.__delattr__(self.thing, n)
        for n, value in held.items():
            object.__setattr__(self.thing, n, value)


class Beside(Slots):
    """The attributes of a thread that runs beside, but for those that its own methods assign: what they are
    changes at any time, whatever a model does.
    """

    def __init__(self, thing: Any, own: Collection[str]) -> None:
        super().__init__(thing)
        self._own = own

    def now(self) -> dict[str, Any]:
        """As Watched has it."""
        return {n: value for n, value in own_dict(self.thing).copy().items() if n not in self._own}


class OfClass(Watched):
    """The attributes of a class, but for functions and what else is called to give one."""

    def __init__(self, cls: type) -> None:
        self.thing = cls
        self._all: dict[str, Any] = {}  # when it was looked at
        self._found: dict[str, Any] = {}

    def now(self) -> dict[str, Any]:
        """As Watched has it; the very same dict where nothing of the class is another."""
        table = vars(self.thing)
        same = len(table) == len(self._all) and all(map(operator.is_, table.values(), self._all.values()))
        if not same or list(table) != list(self._all):
            self._all = dict(table)
            self._found = {
                n: value
                for n, value in table.items()
                if not n.startswith("__") and not hasattr(type(value), "__get__")
            }
        return self._found

    def put(self, held: dict[str, Any]) -> None:
        """As Watched has it."""
        now = self.now()
        for n in now.keys() - held.keys():
            delattr(self.thing, n)
        for n, value in held.items():
            if n not in now or now[n] is not value:
                setattr(self.thing, n, value)


class Whole(Watched):
    """What is in an array of NumPy's, a bytearray, a generator of random numbers."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.known = [contents_of(thing)]

    def now(self) -> list[Contents | None]:
        """The very same list where it has not changed."""
        found = contents_of(self.thing)
        return self.known if found == self.known[0] else [found]

    def put(self, held: list[Contents]) -> None:
        """As Watched has it."""
        put_back(self.thing, held[0])

    def merged(self, a: list[Contents], b: list[Contents]) -> list[Contents]:
        """What is in it after a branch.

        Raises:
            Unmergeable: the sides leave something else in it.
        """
        if a[0] == b[0]:
            return a
        raise Unmergeable(
            f"{self} with other contents on each side",
            "Keep what the branch changes in a tensor, a number or a list.",
        )

    def __str__(self) -> str:
        return f"a {type(self.thing).__module__.split('.')[0]}.{type(self.thing).__name__}"


class Tags(Watched):
    """The attributes of a tensor that are the model's own."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.thing = tensor

    def now(self) -> dict[str, Any]:
        """As Watched has it."""
        return tags.tags(self.thing)

    def put(self, held: dict[str, Any]) -> None:
        """As Watched has it."""
        tags.put(self.thing, held)


class Position(Watched):
    """Where an iterator stands that was made before the block: nothing can put it back there."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.thing = self
        self.iterator = iterator
        self.known = position(iterator)

    def now(self) -> list[Any]:
        """What tells where it stands; the very same list where it has not moved."""
        found = position(self.iterator)
        return self.known if _as_before(found, self.known) else found

    def put(self, held: list[Any]) -> None:
        """Raise the error for an iterator that has moved."""
        del held
        raise DataDependentError(
            f"{quoted_line()}\n"
            f"Data decides whether, or how often, this block takes an element of a "
            f"{type(self.iterator).__name__} that was made before it: ONNX has no iterators. Make the "
            "iterator inside the block, or keep the elements in a list or tensor and count with a number."
        )


def _as_before(a: list[Any], b: list[Any]) -> bool:
    def same(x: Any, y: Any) -> bool:
        return x is y or (type(x) is type(y) and isinstance(x, (int, float, str, range)) and x == y)

    return len(a) == len(b) and all(map(same, a, b))
