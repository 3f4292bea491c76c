"""Objects of Python's and NumPy's that change in place and are looked at as a whole: what is in them, for
comparison, and how it is put back.
"""

# Whatever a model holds may be one of these.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import array
import contextvars
import functools
import os
import queue
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ingot.capture.objects import is_a, is_plain, slots, values_of
from ingot.capture.positions import Standing, is_kind

_UNSET: Any = object()


@dataclass(frozen=True)
class Contents:
    """What was in an object at one time."""

    kind: type
    data: Any

    def __repr__(self) -> str:
        """In words, for a message."""
        text = repr(self.data)
        return f"{self.kind.__name__}({text})" if len(text) < 40 else f"another {self.kind.__name__}"


class _Repeated:
    """The state of a generator of NumPy's, which holds arrays: equal where it is written alike."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.text = repr([a.tolist() if isinstance(a, np.ndarray) else a for a in _leaves(data)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Repeated) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


class _Held:
    """Objects by key: equal where the same objects are there, or the same numbers and strings."""

    def __init__(self, data: dict[Any, Any]) -> None:
        self.data = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Held) or self.data.keys() != other.data.keys():
            return False
        return all(v is other.data[k] or _alike(v, other.data[k]) for k, v in self.data.items())

    def __hash__(self) -> int:
        return hash(frozenset(self.data))

    def __repr__(self) -> str:
        return repr(list(self.data.values()))


def _alike(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (int, float, str, bytes)) and a == b


Look = Callable[[Any], Any]
Put = Callable[[Any, Any], object]


def _fill_ordered(x: Any, contents: dict[Any, Any]) -> None:
    for key, value in contents.items():  # its own update calls what a class makes of it
        OrderedDict.__setitem__(x, key, value)


_FILLS: dict[Any, Callable[[Any, Any], None]] = {
    list: list.extend,
    deque: deque.extend,
    set: set.update,
    OrderedDict: _fill_ordered,
    dict: dict.update,
}


def refill(x: Any, contents: Any) -> None:
    """Make a list, deque, set or dict hold this, whatever its own class makes of that."""
    kind = next(k for k in _FILLS if is_a(x, k))
    kind.clear(x)
    _FILLS[kind](x, contents)


def _put_array(x: Any, data: Any) -> None:
    if isinstance(data[0], bytes):
        x[...] = np.frombuffer(data[0], x.dtype).reshape(x.shape)
        return
    for place, value in zip(np.ndindex(x.shape), data[0].data.values(), strict=True):
        x[place] = value


def _put_environ(x: Any, data: Any) -> None:
    x.clear()
    x.update(data)


def _put_bytes(x: Any, data: Any) -> None:
    x[:] = array.array(x.typecode, data) if isinstance(x, array.array) else data


def _put_variable(x: Any, data: Any) -> None:
    if data is not _UNSET:
        x.set(data)


def _leave(_: Any, __: Any) -> None:
    """Nothing puts an iterator back."""


def _queued(x: Any) -> _Held:
    """What waits in a queue; a SimpleQueue shows it to those alone who take it out."""
    if not is_a(x, queue.SimpleQueue):
        return _Held(dict(enumerate(x.queue)))
    waiting = [x.get_nowait() for _ in range(x.qsize())]
    for value in waiting:
        x.put(value)
    return _Held(dict(enumerate(waiting)))


def _put_queue(x: Any, data: _Held) -> None:
    if not is_a(x, queue.SimpleQueue):
        refill(x.queue, data.data.values())
        return
    while not x.empty():
        x.get_nowait()
    for value in data.data.values():
        x.put(value)


def _array_contents(x: Any) -> Any:
    return x.tobytes() if x.dtype != object else _Held(dict(enumerate(x.flat))), x.shape, x.dtype.str


_KINDS: dict[type, tuple[Look, Put]] = {
    set: (
        lambda x: _Held({id(v): v for v in set.__iter__(x)}),
        lambda x, data: refill(x, data.data.values()),
    ),
    bytearray: (bytes, _put_bytes),
    array.array: (bytes, _put_bytes),
    np.ndarray: (_array_contents, _put_array),
    queue.Queue: (_queued, _put_queue),
    queue.SimpleQueue: (_queued, _put_queue),
    random.Random: (lambda x: x.getstate(), lambda x, data: x.setstate(data)),
    np.random.RandomState: (lambda x: _Repeated(x.get_state()), lambda x, data: x.set_state(data.data)),
    np.random.Generator: (
        lambda x: _Repeated(x.bit_generator.state),
        lambda x, data: setattr(x.bit_generator, "state", data.data),
    ),
    torch.Generator: (
        lambda x: x.get_state().numpy().tobytes(),
        lambda x, data: x.set_state(torch.frombuffer(bytearray(data), dtype=torch.uint8)),
    ),
    contextvars.ContextVar: (lambda x: x.get(_UNSET), _put_variable),
    type(os.environ): (dict, _put_environ),
}


#: What has no state to look at, and what is as large as a file.
_NOT_KEPT = (random.SystemRandom, np.memmap)


def _leaves(data: Any) -> list[Any]:
    if isinstance(data, dict):
        data = [part for item in data.items() for part in item]
    return [v for part in data for v in _leaves(part)] if isinstance(data, (list, tuple)) else [data]


@functools.lru_cache(maxsize=4096)
def _kind(kind: type) -> tuple[Look, Put] | None:
    if is_kind(kind):
        return Standing, _leave
    names = _slots(kind)
    return (
        ((lambda x: _slot_values(x, names)), lambda x, data: _put_slots(x, data, names))
        if names
        else None
        if issubclass(kind, _NOT_KEPT)
        else next((_KINDS[c] for c in kind.__mro__ if c in _KINDS), None)
    )


def _slots(kind: type) -> tuple[str, ...]:
    """Slots that the classes of the user's give an object without a `__dict__`."""
    return slots(kind) if is_plain(kind) and not kind.__dictoffset__ else ()


def slots_of(x: Any) -> dict[str, Any]:
    """What an object of the user's holds in slots, by the name of the attribute."""
    return _slot_values(x, _slots(type(x))).data


def _slot_values(x: Any, names: tuple[str, ...]) -> _Held:
    return _Held(values_of(x, names))


def _put_slots(x: Any, data: _Held, names: tuple[str, ...]) -> None:
    now = values_of(x, names)
    for name in names:
        if name in data.data:
            object.__setattr__(x, name, data.data[name])
        elif name in now:
            object.__delattr__(x, name)


def changes_in_place(x: Any) -> bool:
    """Whether `contents_of` has something for an object."""
    return _kind(type(x)) is not None


def contents_of(x: Any) -> Contents | None:
    """What is in an object that changes in place; None for any other."""
    found = _kind(type(x))
    return None if found is None else Contents(type(x), found[0](x))


def put_back(x: Any, contents: Contents) -> None:
    """Let an object hold what it held before."""
    found = _kind(type(x))
    assert found is not None, "whoever has contents has such an object"
    if contents_of(x) != contents:
        found[1](x, contents.data)
