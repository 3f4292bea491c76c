"""Lists, dicts, sets, objects and cells that a block of Python may change: their contents before, during and
after.

A branch must not leave behind what it did to them while it was only being recorded.
"""

# Walks over whatever the model holds.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import dis
import enum
import functools
import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import (
    BuiltinMethodType,
    CellType,
    CodeType,
    FunctionType,
    GeneratorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import torch

from ingot.capture.cells import contents as cell_contents
from ingot.capture.cells import write as write_cell
from ingot.capture.choice import Choice, Maybe
from ingot.capture.lists import TracedList, Yields
from ingot.capture.merge import UNBOUND, Merger, Unmergeable
from ingot.capture.mutable import refill
from ingot.capture.request import ACTIVE
from ingot.capture.where import frames, is_user_code, quoted_line
from ingot.capture.words import Word, leaves_of
from ingot.errors import DataDependentError, ExportError

LIMIT = 400_000  # objects looked at for one branch
_PLAIN = (
    torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, torch.dtype, torch.device, type, ModuleType,
    str, int, float, complex, bytes, type(None), enum.Enum, CodeType,
)  # fmt: skip
_NOT_WALKED = (
    "sympy", "ingot", "onnx_ir", "torch.fx", "torch._", "torch.utils", "threading", "logging", "re",
)  # fmt: skip


class Containers:
    """Everything mutable that can be reached from some values, with what it held at first."""

    def __init__(self, roots: Iterable[Any], cells: Mapping[str, CellType] | None = None) -> None:
        """cells: the variables among the roots, by name"""
        self.found: list[Any] = []
        self._referrers: Counter[int] = Counter()
        self._seen: dict[int, Any] = {}  # which are kept, so that no id is used twice
        self._cells = cells or {}
        self._is_whole = False  # whether what calls the block has been looked into
        self._walk(list(roots))
        self._ids = {id(c.thing if isinstance(c, _Slots) else c) for c in self.found}
        self.before = [_copy(c) for c in self.found]

    def contents(self) -> list[Any]:
        """What they hold now; the very object of `before` where nothing changed."""
        now: list[Any] = []
        for container, before in zip(self.found, self.before, strict=True):
            held = _copy(container)
            now.append(before if _identical(held, before) else held)
        return now

    def is_changed(self) -> bool:
        """Whether one of them holds something else than at first."""
        return any(now is not before for now, before in zip(self.contents(), self.before, strict=True))

    def put(self, contents: Sequence[Any]) -> None:
        """Make them hold this."""
        for container, held in zip(self.found, contents, strict=True):
            if not _identical(_copy(container), held):
                _fill(container, held)

    def has(self, thing: Any) -> bool:
        """Whether a container or object was there: what changes it others see."""
        if isinstance(thing, _PLAIN):
            return False
        if isinstance(thing, Word):
            return all(self.has(v) for v in leaves_of(thing))
        own: Any = thing if isinstance(thing, (list, dict, deque, set)) else getattr(thing, "__dict__", thing)
        return (id(own) in self._ids or id(thing) in self._ids) and not _is_frozen(thing)

    def is_shared(self, thing: Any, before: Any) -> bool:
        """Whether such a one may be found elsewhere than in a place that held `before`: also where the block
        does not look, but those that call it do.
        """
        if not self.has(thing):
            return False
        if thing is not before or isinstance(thing, Word):
            return True
        if not self._is_whole:
            self._is_whole, found = True, self.found
            self._seen.update((id(cell), cell) for cell in self._cells.values())  # their contents are roots
            self.found = []
            try:
                self._walk(list(self._around()))
            finally:
                self.found = found  # what `before` tells of
        return self._referrers[id(thing)] > 1

    def _around(self) -> Iterator[Any]:
        """What the variables hold that the model's functions have which are running, but for those of the
        block, and the globals that they name.
        """
        own = {name: contents for name, cell in self._cells.items() for contents in [cell_contents(cell)]}
        for frame in frames(sys._getframe()):
            code = frame.f_code
            if not is_user_code(code):
                continue
            for name, value in frame.f_locals.items():
                cellular = name in code.co_freevars or name in code.co_cellvars
                if not (cellular and name in own and own[name] is value):
                    yield value
                elif name in code.co_cellvars:
                    del own[name]  # a call of the same function further out has another
            yield from (frame.f_globals[n] for n in _global_names(code)[0] if n in frame.f_globals)

    def restore(self) -> None:
        """Make them hold what they held at first."""
        self.put(self.before)

    def _walk(self, todo: list[Any]) -> None:
        while todo:
            thing = todo.pop()
            if isinstance(thing, _PLAIN):
                continue
            self._referrers[id(thing)] += 1
            if id(thing) in self._seen:
                continue
            self._seen[id(thing)] = thing
            if len(self._seen) > LIMIT:
                raise ExportError(
                    f"a branch that depends on data can reach more than {LIMIT} Python objects, too "
                    "many to see "
                    "which of them it changes. Move the branch into a function that gets what it needs."
                )
            todo.extend(self._inside(thing))

    def _inside(self, thing: Any) -> Iterator[Any]:
        """What can be reached from a thing in one step; mutable things are noted."""
        if isinstance(thing, tuple):
            yield from thing
        elif isinstance(thing, (list, deque, set)):
            self.found.append(thing)
            yield from list.__iter__(thing) if isinstance(thing, list) else thing
        elif isinstance(thing, dict):
            self.found.append(thing)
            yield from thing.values()
        elif isinstance(thing, CellType):
            self.found.append(thing)
            yield cell_contents(thing)
        elif isinstance(thing, Iterator) and _is_pythons(type(thing)):
            self.found.append(_Position(thing))
            yield from _position(thing)
        elif isinstance(thing, MethodType):
            yield thing.__self__
            yield thing.__func__
        elif isinstance(thing, BuiltinMethodType):
            yield thing.__self__
        elif isinstance(thing, functools.partial):
            yield from (thing.func, thing.args, thing.keywords)
        elif isinstance(thing, FunctionType):
            yield from thing.__closure__ or ()
            if is_user_code(thing.__code__):
                yield from self._globals(thing)
        elif isinstance(thing, Yields):
            yield vars(thing)
        elif isinstance(thing, (Maybe, Choice, Word)):
            yield from vars(thing).values()
        elif not type(thing).__module__.startswith(_NOT_WALKED):
            held = getattr(thing, "__dict__", None)
            if isinstance(held, dict):
                yield held
            if _slots(type(thing)):
                self.found.append(_Slots(thing))
                yield from _copy(self.found[-1]).values()
            if isinstance(thing, torch.nn.Module) or is_user_class(type(thing)):
                yield from _methods(type(thing))

    def _globals(self, function: FunctionType) -> Iterator[Any]:
        table = function.__globals__
        read, written = _global_names(function.__code__)
        for name in read:
            if name in table:
                yield table[name]
        for name in sorted(written):
            self.found.append(_Global(table, name))


class _Position:
    """Where an iterator stands that was made before the block: nothing can put it back there."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator
        self.known = _position(iterator)

    def now(self) -> list[Any]:
        """What tells where it stands; the very same list where it has not moved."""
        found = _position(self.iterator)
        return self.known if _as_before(found, self.known) else found

    def refuse(self) -> None:
        """Raise the error for an iterator that has moved."""
        raise DataDependentError(
            f"{quoted_line()}\n"
            f"Data decides whether, or how often, this block takes an element of a "
            f"{type(self.iterator).__name__} that was made before it: ONNX has no iterators. Make the "
            "iterator inside the block, or keep the elements in a list or tensor and count with a number."
        )


def _position(iterator: Any) -> list[Any]:
    if isinstance(iterator, GeneratorType):
        frame = iterator.gi_frame
        return [None] if frame is None else [frame.f_lasti, *frame.f_locals.values()]
    try:
        _, made_of, *state = iterator.__reduce__()
    except TypeError:  # says nothing about itself
        return []
    return [*made_of, *state]


def _as_before(a: list[Any], b: list[Any]) -> bool:
    def same(x: Any, y: Any) -> bool:
        return x is y or (type(x) is type(y) and isinstance(x, (int, float, str, range)) and x == y)

    return len(a) == len(b) and all(map(same, a, b))


class _Global:
    """A variable of a module that a function assigns."""

    def __init__(self, table: dict[str, Any], name: str) -> None:
        self.table = table
        self.name = name


class _Slots:
    """The attributes of an object that has no dict."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing


@functools.lru_cache(maxsize=4096)
def _slots(cls: type) -> tuple[str, ...]:
    """Names of the attributes that a class of the model's own keeps in slots."""
    if not is_user_class(cls):
        return ()
    found = (v for c in cls.__mro__ for v in vars(c).values() if isinstance(v, MemberDescriptorType))
    return tuple(v.__name__ for v in found)


@functools.lru_cache(maxsize=8192)
def _global_names(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    read: set[str] = set()
    written: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(str(instruction.argval))
        elif instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            written.add(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more, other = _global_names(constant)
            read |= more
            written |= other
    return frozenset(read), frozenset(written)


@functools.lru_cache(maxsize=4096)
def _methods(cls: type) -> tuple[Any, ...]:
    """Functions of a class and its bases that are no library's."""
    found: list[Any] = []
    for base in cls.__mro__:
        if is_user_class(base):
            for value in vars(base).values():
                inner: Any = getattr(value, "__func__", getattr(value, "fget", value))
                if isinstance(inner, FunctionType):
                    found.append(inner)
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def is_user_class(cls: type) -> bool:
    """Whether a class is the model's own."""
    return not cls.__module__.startswith(
        ("torch", "builtins", "ingot", "collections", "functools", "typing", "enum")
    )


def _is_frozen(thing: Any) -> bool:
    """Whether it is a dataclass that nobody can change."""
    made: Any = getattr(type(thing), "__dataclass_params__", None)
    return made is not None and bool(made.frozen)


def _is_pythons(cls: type) -> bool:
    return cls.__module__ in ("builtins", "itertools")


def _copy(container: Any) -> Any:
    if isinstance(container, _Position):
        return container.now()
    if isinstance(container, CellType):
        return [cell_contents(container)]
    if isinstance(container, _Slots):
        thing = container.thing
        return {n: getattr(thing, n) for n in _slots(type(thing)) if hasattr(thing, n)}
    if isinstance(container, _Global):
        return [container.table.get(container.name, UNBOUND)]
    if isinstance(container, (list, deque)):
        return list(list.__iter__(container)) if isinstance(container, list) else list(container)
    if isinstance(container, set):
        return set(container)
    if isinstance(container, OrderedDict):  # whose order is its own
        return {k: dict.__getitem__(container, k) for k in OrderedDict.__iter__(container)}
    return dict(dict.items(container))


def _identical(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if len(a) != len(b):
        return False
    if isinstance(a, dict):
        return all(k in b and v is b[k] for k, v in a.items()) and list(a) == list(b)
    if isinstance(a, set):
        return bool(a == b)
    return all(x is y for x, y in zip(a, b, strict=True))


def _fill(container: Any, held: Any) -> None:
    if isinstance(container, _Position):
        container.refuse()
    elif isinstance(container, CellType):
        write_cell(container, held[0])
    elif isinstance(container, _Slots):
        for n in _copy(container).keys() - held.keys():
            object.__delattr__(container.thing, n)
        for n, value in held.items():
            object.__setattr__(container.thing, n, value)
    elif isinstance(container, _Global):
        if held[0] is UNBOUND:
            container.table.pop(container.name, None)
        else:
            container.table[container.name] = held[0]
    else:
        refill(container, held)


def merged(merger: Merger, container: Any, before: Any, a: Any, b: Any) -> Any:
    """The contents of one container after a branch, from those of its sides.

    Raises:
        Unmergeable: when the sides leave it with other keys, or lengths.
    """
    if isinstance(container, TracedList):
        return merger.merge_lists(a, b, before)
    if isinstance(a, dict):
        if a.keys() != b.keys():
            only = sorted(map(repr, a.keys() ^ b.keys()))
            raise Unmergeable(
                f"{', '.join(only)} set on one side only",
                "Set the key or attribute before the branch too, to a value of the kind that it gets.",
            )
        if isinstance(container, OrderedDict) and list(a) != list(b):
            orders = [", ".join(map(repr, v)) for v in (a, b)]
            raise Unmergeable(
                f"with the keys {orders[0]} on one side and {orders[1]} on the other, in this order"
            )
        return {k: merger.merge(a[k], b[k], before.get(k, UNBOUND)) for k in a}
    if isinstance(a, set):
        if a != b:
            raise Unmergeable("a set with other elements on each side")
        return a
    if len(a) != len(b):
        if isinstance(container, list) and merger.by_data and merger.g.made_by_call(container):
            ACTIVE.marks.take_everything()  # whoever has made it makes one that may grow
        raise Unmergeable(
            f"a {type(container).__name__} of {len(a)} on one side and of {len(b)} on the other, which code "
            "that is not the model's own has made, or no list display"
        )
    held = before if len(before) == len(a) else [UNBOUND] * len(a)
    return [merger.merge(*parts) for parts in zip(a, b, held, strict=True)]


def kept(contents: Any) -> Iterable[Any]:
    """The values in one container's contents."""
    return contents.values() if isinstance(contents, Mapping) else contents
