"""Dicts at keys that data decides, numbers or tuples of numbers: a list of the keys, each once, and one of
what stands under them.

They take the place of those dicts alone that a line makes for which it turns out that data decides the keys.
"""

# Keys and values may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ingot.capture.checks import require_uncaught
from ingot.capture.choice import Parts
from ingot.capture.lists import Rows, TracedList
from ingot.capture.request import ACTIVE, Restart, cannot_wait, place, recorder
from ingot.capture.runs import LEAF
from ingot.capture.structure import inside
from ingot.capture.where import models_own

_NONE: Any = object()  # stands for an argument that is not given


class OpenDict(Parts):
    """A dict; `names` are its keys in their order, `held` what stands under each.

    make: what stands under a key that it has not, and then has, as a defaultdict; or None
    zero: whether a key that it has not counts as 0, as in a Counter
    """

    names: TracedList
    held: TracedList

    def __init__(self, make: Callable[[], Any] | None = None, zero: bool = False) -> None:
        self.names, self.held = TracedList(), TracedList()
        self.make, self.zero = make, zero

    def parts(self) -> list[Any]:
        """As Parts has it."""
        return [self.names, self.held]

    def of_parts(self, parts: list[Any]) -> OpenDict:
        """As Parts has it."""
        made = OpenDict(self.make, self.zero)
        made.names, made.held = parts
        return made

    def is_like(self, other: Any) -> bool:
        """As Parts has it."""
        return self.make is other.make and self.zero is other.zero

    def count(self) -> Any:
        """How many keys it has."""
        return self.names.count()

    @property
    def known(self) -> bool:
        """Whether Python knows how many there are."""
        return self.names.known

    def has(self, key: Any) -> Any:
        """`key in self`."""
        from ingot.capture.stage import RUNTIME

        if any(isinstance(v, torch.Tensor) for v in inside(key)):
            cannot_wait("looks for a tensor in a dict at keys of data, or puts it there")
        return RUNTIME.contains(self.names, key)

    def _at(self, key: Any) -> Any:
        """The place of a key that is there."""
        run = self.names.run()
        wanted = [key] if run.like is LEAF else list(key)
        same = [c.tensors()[0].eq(v) for c, v in zip(run.columns, wanted, strict=True)]
        there = torch.stack(same).all(0)
        return torch.cat([there, there.new_ones(1)]).long().argmax().item()

    def __getitem__(self, key: Any) -> Any:
        from ingot.capture.stage import RUNTIME

        there = self.has(key)
        if self.zero:
            return self._either(there, key, lambda: 0)
        if self.make is not None:
            return self.setdefault(key, self.make())
        if there is False:
            error = KeyError(key)
            models_own(error)  # the side of a branch that does this raises always
            raise error
        if RUNTIME.waits(there):
            require_uncaught("the dict has this key", "Ask with `in` or `.get(…)` before.", KeyError)
            RUNTIME.check(there, None)
        return self.held.element(self._at(key))

    def _either(self, there: Any, key: Any, other: Callable[[], Any]) -> Any:
        from ingot.capture.stage import RUNTIME

        return RUNTIME.choose(there, lambda: self.held.element(self._at(key)), other)

    def get(self, key: Any, default: Any = None) -> Any:
        """As dict.get."""
        return self._either(self.has(key), key, lambda: default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As dict.setdefault."""
        from ingot.capture.stage import RUNTIME

        RUNTIME.choose(self.has(key), _nothing, lambda: self._add(key, default))
        return self.held.element(self._at(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        from ingot.capture.stage import RUNTIME

        there = self.has(key)
        RUNTIME.choose(there, lambda: self.held.put(self._at(key), value), lambda: self._add(key, value))

    def _count(self, key: Any) -> None:
        self[key] = self[key] + 1

    def _add(self, key: Any, value: Any) -> None:
        list.append(self.names, key)
        list.append(self.held, value)

    def __delitem__(self, key: Any) -> None:
        self.pop(key)

    def pop(self, key: Any, default: Any = _NONE) -> Any:
        """As dict.pop."""
        from ingot.capture.stage import RUNTIME

        if default is not _NONE:
            return RUNTIME.choose(self.has(key), lambda: self.pop(key), lambda: default)
        require_uncaught("the dict has this key", "Ask with `in` before.", KeyError)
        RUNTIME.check(self.has(key), None)
        at = self._at(key)
        self.names.take(at)
        return self.held.take(at)

    def clear(self) -> None:
        """As dict.clear."""
        list.clear(self.names)
        list.clear(self.held)

    def copy(self) -> OpenDict:
        """As dict.copy."""
        return self.of_parts([TracedList(v.parts()) for v in (self.names, self.held)])

    def update(self, other: Any) -> None:
        """As dict.update, also with pairs; as Counter.update."""
        from ingot.capture.stage import RUNTIME

        if self.zero and not isinstance(other, (dict, OpenDict)):
            RUNTIME.each(other, lambda key: self._count(key), None, (), (), ())
            return
        pairs = other.items() if isinstance(other, (dict, OpenDict)) else other
        RUNTIME.each(pairs, lambda pair: self.__setitem__(*pair), None, (), (), ())

    def keys(self) -> TracedList:
        """As dict.keys."""
        return TracedList(self.names.parts())

    def values(self) -> TracedList:
        """As dict.values."""
        return TracedList(self.held.parts())

    def items(self) -> TracedList:
        """As dict.items."""
        from ingot.capture.stage import RUNTIME

        pairs = RUNTIME.list_of(RUNTIME.call(zip, self.names, self.held), lambda pair: tuple(pair), [])
        return TracedList(pairs.parts() if isinstance(pairs, TracedList) else pairs)

    def most_common(self, n: Any = None) -> Any:
        """As Counter.most_common."""
        from ingot.capture.stage import RUNTIME

        order = RUNTIME.call(sorted, self.items(), key=lambda pair: pair[1], reverse=True)
        return order if n is None else RUNTIME.item(order, slice(None, n))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(dict, name):
            raise AttributeError(name)
        return cannot_wait(f"calls dict.{name} of a dict of which data decides the keys")

    def __contains__(self, key: Any) -> bool:
        found = self.has(key)
        return found if isinstance(found, bool) else cannot_wait("asks a dict for what data decides")

    def __len__(self) -> int:
        return list.__len__(self.names) if self.known else cannot_wait("needs the length of a dict of data's")

    def __bool__(self) -> bool:
        return len(self) > 0

    def __eq__(self, other: object) -> bool:
        cannot_wait("compares a dict of which data decides the keys")

    __hash__ = None  # type: ignore[assignment]


def is_open_here() -> bool:
    """Whether data decides the keys of a dict that this line makes."""
    return bool(ACTIVE.marks.open_at) and place() in ACTIVE.marks.open_at


def noted(made: Any) -> Any:
    """A dict that rewritten code makes here, which may have to be a table."""
    if ACTIVE.recorder is not None:
        ACTIVE.recorder.dicts[id(made)] = made, place()
    return made


def open_dict_of(pairs: Any, make: Callable[[], Any] | None = None, zero: bool = False) -> OpenDict:
    """A dict with these keys and values."""
    made = OpenDict(make, zero)
    made.update(pairs)
    return made


def counted(items: Any) -> OpenDict:
    """A Counter of what is in a list of any length."""
    made = OpenDict(zero=True)
    made.update(items)
    return made


def want_open(container: Any) -> None:
    """Start again with such a dict in the place of one that rewritten code makes, where it can be one."""
    if not isinstance(container, dict):
        return
    found = recorder().dicts.get(id(container))
    if found is None and recorder().made_by_call(container):
        ACTIVE.marks.take_everything()  # whoever has made it
    if found is None or found[1] in ACTIVE.marks.open_at or any(type(k) is not int for k in container):
        return
    ACTIVE.marks.open_at.add(found[1])
    ACTIVE.pending = Restart()
    raise ACTIVE.pending


def is_grown(items: Any) -> bool:
    """Whether it is a list as long as data says."""
    return isinstance(items, Rows) or (isinstance(items, TracedList) and not items.known)


def _nothing() -> None:
    return None
