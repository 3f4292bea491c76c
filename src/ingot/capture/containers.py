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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch

from ingot.capture import memos
from ingot.capture.cells import Cells, Sharing
from ingot.capture.cells import contents as cell_contents
from ingot.capture.cells import write as write_cell
from ingot.capture.choice import Choice, Maybe, Unordered
from ingot.capture.dicts import TracedDict
from ingot.capture.lists import Rows, TracedList, Yields
from ingot.capture.merge import UNBOUND, Merger, Unmergeable
from ingot.capture.mutable import changes_in_place, refill
from ingot.capture.objects import LIBRARIES, held_as, is_a, is_user_class, slots
from ingot.capture.positions import is_iterator, position
from ingot.capture.request import ACTIVE
from ingot.capture.sets import TracedSet
from ingot.capture.tags import tags
from ingot.capture.watched import Global, OfClass, Position, Slots, Tags, Watched, Whole
from ingot.capture.where import frames, is_user_code
from ingot.capture.words import Word, leaves_of
from ingot.errors import ExportError

LIMIT = 400_000  # objects looked at for one branch
_PLAIN = (
    torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, torch.dtype, torch.device, ModuleType,
    str, int, float, complex, bytes, type(None), enum.Enum, CodeType,
)  # fmt: skip
_NOT_WALKED = frozenset(("sympy", "ingot", "onnx_ir", "threading", "logging", "re"))
_OF_TORCH = ("torch.fx", "torch._", "torch.utils")  # the same


class _Names(NamedTuple):
    """What code names: globals that it reads, globals that it assigns, attributes, those that it assigns."""

    read: frozenset[str]
    written: frozenset[str]
    attributes: frozenset[str]
    stored: frozenset[str]


class Containers:
    """Everything mutable that can be reached from some values, with what it held at first."""

    def __init__(
        self,
        roots: Iterable[Any],
        cells: Mapping[str, CellType] | None = None,
        blocks: Iterable[FunctionType] = (),
        own: Iterable[CellType] = (),
    ) -> None:
        """cells: the variables among the roots, by name; blocks: functions whose globals may be changed

        own: variables that are no containers, whoever has them: what the block makes of them is known by name
        """
        self.found: list[Any] = []
        self._referrers: Counter[int] = Counter()
        self._seen: dict[int, Any] = {}  # which are kept, so that no id is used twice
        self._of_objects: set[int] = set()  # ids of dicts that hold the attributes of objects
        self._cells = cells or {}
        self._is_whole = False  # whether what calls the block has been looked into
        self._seen.update((id(cell), cell) for cell in own)
        self._walk([*roots, *(v for f in blocks for v in self._globals(f))])
        self._ids = {id(c.thing if is_a(c, Slots) else c) for c in self.found}
        self.before = [_copy(c) for c in self.found]

    @classmethod
    def of(cls, cells: Cells, names: Iterable[str]) -> Containers:
        """What the functions of a block can get at, but for these variables of its own."""
        names = list(names)
        return cls(cells.reachable(names), cells.all, cells.functions, map(cells.cell, names))

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

    def changed(self, *sides: Sequence[Any]) -> set[int]:
        """Ids of the containers and objects that hold something else in one of these contents."""
        return {
            id(container.thing if is_a(container, Slots) else container)
            for container, before, *now in zip(self.found, self.before, *sides, strict=True)
            if any(held is not before for held in now)
        }

    def put(self, contents: Sequence[Any]) -> None:
        """Make them hold this."""
        for container, held in zip(self.found, contents, strict=True):
            if not _identical(_copy(container), held):
                _fill(container, held)

    def has(self, thing: Any) -> bool:
        """Whether a container or object was there: what changes it others see."""
        if is_a(thing, _PLAIN):
            return False
        if is_a(thing, Word):
            return all(self.has(v) for v in leaves_of(thing))
        return is_among(thing, self._ids) and not _is_frozen(thing)

    def is_ordered(self, container: Any) -> bool:
        """Whether it is a dict whose keys stand in an order that somebody may ask for."""
        known = is_a(container, dict) and not is_a(container, Unordered)
        return known and id(container) not in self._of_objects

    def is_shared(self, thing: Any, before: Any) -> bool:
        """Whether such a one may be found elsewhere than in a place that held `before`: also where the block
        does not look, but those that call it do.
        """
        if not self.has(thing):
            return False
        if thing is not before or is_a(thing, Word):
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
            yield from (frame.f_globals[n] for n in _names(code).read if n in frame.f_globals)

    def restore(self) -> None:
        """Make them hold what they held at first."""
        self.put(self.before)

    def _walk(self, todo: list[Any]) -> None:
        while todo:
            thing = todo.pop()
            if is_a(thing, _PLAIN) and not is_a(thing, torch.Tensor):
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
        kind = type(thing)
        if issubclass(kind, torch.Tensor):
            self.found.append(Tags(thing))
            yield from tags(thing).values()
        elif issubclass(kind, (tuple, frozenset)):
            yield from thing
        elif issubclass(kind, (list, deque, set)):
            self.found.append(thing)
            yield from list.__iter__(thing) if issubclass(kind, list) else thing
            yield from self._attributes(thing) if is_user_class(kind) else ()
        elif issubclass(kind, dict):
            self.found.append(thing)
            for key, value in dict.items(thing):
                yield key
                yield value
            yield from self._attributes(thing) if is_user_class(kind) else ()
        elif issubclass(kind, type):
            if thing.__module__.split(".")[0] not in LIBRARIES and not issubclass(thing, enum.Enum):
                self.found.append(OfClass(thing))
                yield from self.found[-1].now().values()
                yield from thing.__bases__
        elif issubclass(kind, CellType):
            self.found.append(thing)
            yield cell_contents(thing)
        elif is_iterator(thing):
            self.found.append(Position(thing))
            yield from position(thing)
        elif issubclass(kind, MethodType):
            yield thing.__self__
            yield thing.__func__
        elif issubclass(kind, BuiltinMethodType):
            yield thing.__self__
        elif issubclass(kind, functools.partial):
            yield from (thing.func, thing.args, thing.keywords)
        elif issubclass(kind, FunctionType):
            yield from (*(thing.__closure__ or ()), *(thing.__defaults__ or ()))
            if is_user_code(thing.__code__):
                yield from (thing.__defaults__, thing.__kwdefaults__, vars(thing) or None)
                yield from self._globals(thing)
        elif issubclass(kind, (Yields, Rows, TracedSet)):
            yield vars(thing)
        elif issubclass(kind, Sharing):
            yield from (thing.function, *thing.cells.values())
        elif issubclass(kind, (Maybe, Choice, Word)):
            yield from vars(thing).values()
        elif _is_walked(kind):
            yield from self._attributes(thing)
            if issubclass(kind, torch.nn.Module) or is_user_class(kind):
                yield from _methods(kind)
                yield kind

    def _attributes(self, thing: Any) -> Iterator[Any]:
        """What an object holds, wherever that is."""
        held = held_as(thing, "__dict__")
        if is_a(held, dict):
            self._of_objects.add(id(held))
            yield held
        if slots(type(thing)):
            self.found.append(Slots(thing))
            yield from self.found[-1].now().values()
        elif not is_a(thing, (list, deque, set, dict)) and changes_in_place(thing):
            self.found.append(Whole(thing))

    def _globals(self, function: FunctionType) -> Iterator[Any]:
        """The globals that a function names, and of Python modules among them what it names there."""
        table, names = function.__globals__, _names(function.__code__)
        for name in names.read & table.keys():
            if is_a(table[name], ModuleType):
                yield from self._of_module(table[name], names, [])
            else:
                yield table[name]
        self.found += [Global(table, name) for name in sorted(names.written)]

    def _of_module(self, module: ModuleType, names: _Names, around: list[ModuleType]) -> Iterator[Any]:
        table = vars(module)
        if module.__name__.split(".")[0] in LIBRARIES or module in around:
            return
        for name in names.attributes & table.keys():
            if is_a(table[name], ModuleType):
                yield from self._of_module(table[name], names, [*around, module])
            else:
                yield table[name]
        for name in sorted(names.stored & table.keys()):
            self.found.append(Global(table, name))


def is_among(thing: Any, ids: Collection[int]) -> bool:
    """Whether a container's id, or that of what holds an object's attributes, is one of these."""
    own: Any = thing if is_a(thing, (list, dict, deque, set)) else held_as(thing, "__dict__", thing)
    return id(own) in ids or id(thing) in ids


@functools.lru_cache(maxsize=8192)
def _names(code: CodeType) -> _Names:
    read, written, attributes, stored = set[str](), set[str](), set[str](), set[str]()
    sets = {
        ("LOAD_GLOBAL", "LOAD_NAME"): read,
        ("STORE_GLOBAL", "DELETE_GLOBAL"): written,
        ("LOAD_ATTR", "LOAD_METHOD"): attributes,
        ("STORE_ATTR", "DELETE_ATTR"): stored,
    }
    for instruction in dis.get_instructions(code):
        for operations, names in sets.items():
            if instruction.opname in operations:
                names.add(str(instruction.argval))
    inside = [_names(c) for c in code.co_consts if is_a(c, CodeType)]
    whole = zip((read, written, attributes, stored), *inside, strict=True)
    return _Names(*(frozenset().union(*parts) for parts in whole))


@functools.lru_cache(maxsize=4096)
def _methods(cls: type) -> tuple[Any, ...]:
    """Functions of a class and its bases that are no library's."""
    found: list[Any] = []
    for base in cls.__mro__:
        if is_user_class(base):
            for value in vars(base).values():
                inner: Any = getattr(value, "__func__", getattr(value, "fget", value))
                if is_a(inner, FunctionType):
                    found.append(inner)
    return tuple(found)


def _is_frozen(thing: Any) -> bool:
    """Whether it is a dataclass that nobody can change."""
    made: Any = getattr(type(thing), "__dataclass_params__", None)
    return made is not None and bool(made.frozen)


@functools.lru_cache(maxsize=4096)
def _is_walked(cls: type) -> bool:
    """Whether there may be something of the model's in what an object holds."""
    name = cls.__module__
    return name.split(".")[0] not in _NOT_WALKED and not name.startswith(_OF_TORCH)


def _copy(container: Any) -> Any:
    if is_a(container, Watched):
        return container.now()
    if is_a(container, CellType):
        return [cell_contents(container)]
    if is_a(container, (list, deque)):
        return list(list.__iter__(container)) if is_a(container, list) else list(container)
    if is_a(container, set):
        return set(container)
    if is_a(container, OrderedDict):  # whose order is its own
        return {k: dict.__getitem__(container, k) for k in OrderedDict.__iter__(container)}
    return dict(dict.items(container))


def _identical(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if len(a) != len(b):
        return False
    if is_a(a, dict):
        return all(k in b and v is b[k] for k, v in a.items()) and list(a) == list(b)
    if is_a(a, set):
        return bool(a == b)
    return all(x is y for x, y in zip(a, b, strict=True))


def _fill(container: Any, held: Any) -> None:
    if is_a(container, Watched):
        container.put(held)
    elif is_a(container, CellType):
        write_cell(container, held[0])
    else:
        refill(container, held)


def merged(merger: Merger, container: Any, before: Any, a: Any, b: Any, ordered: bool) -> Any:
    """The contents of one container after a branch, from those of its sides.

    ordered: whether it is one whose keys stand in an order that somebody may ask for

    Raises:
        Unmergeable: when the sides leave it with other keys, or lengths, or keys in another order.
    """
    if is_a(container, TracedList):
        return merger.merge_lists(a, b, before)
    if is_a(container, Whole):
        return container.merged(a, b)
    if is_a(a, dict):
        a, b = memos.common(a, b)
        if is_a(container, TracedDict) and merger.by_data:
            return merger.merge_keys(container, a, b, before)
        if a.keys() != b.keys():
            if ordered and type(container) is dict and merger.by_data and merger.g.made_by_call(container):
                ACTIVE.marks.let_grow()
            only = sorted(map(repr, a.keys() ^ b.keys()))
            raise Unmergeable(
                f"{', '.join(only)} set on one side only",
                "Set the key or attribute before the branch too, to a value of the kind that it gets.",
            )
        if ordered and list(a) != list(b):
            orders = [", ".join(map(repr, v)) for v in (a, b)]
            raise Unmergeable(
                f"with the keys {orders[0]} on one side and {orders[1]} on the other, in this order",
                "Set the keys in the same order on both sides.",
            )
        return {k: merger.merge(a[k], b[k], before.get(k, UNBOUND)) for k in a}
    if is_a(a, set):
        if a != b:
            if merger.by_data and merger.g.made_by_call(container):
                ACTIVE.marks.let_grow()
            raise Unmergeable("a set with other elements on each side")
        return a
    if len(a) != len(b):
        if is_a(container, (list, deque)) and merger.by_data and merger.g.made_by_call(container):
            if is_a(container, deque):
                ACTIVE.marks.let_grow()
            ACTIVE.marks.take_everything()  # whoever has made it makes one that may grow
        raise Unmergeable(
            f"a {type(container).__name__} of {len(a)} on one side and of {len(b)} on the other, which code "
            "that is not the model's own has made, or no list display, or an earlier call",
            "Make the list in a function of the model's own in this call (`out = []`), or keep a number.",
        )
    held = before if len(before) == len(a) else [UNBOUND] * len(a)
    return [merger.merge(*parts) for parts in zip(a, b, held, strict=True)]


def kept(contents: Any) -> Iterable[Any]:
    """The values in one container's contents."""
    return contents.values() if is_a(contents, Mapping) else contents
