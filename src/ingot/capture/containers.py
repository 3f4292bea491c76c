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
import itertools
import operator
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from ingot.capture.objects import LIBRARIES, held_as, is_a, is_user_class, runs_beside, slots
from ingot.capture.open_dicts import OpenDict
from ingot.capture.positions import is_kind, position
from ingot.capture.request import ACTIVE
from ingot.capture.sets import TracedSet
from ingot.capture.tags import tags
from ingot.capture.watched import Beside, Global, OfClass, Position, Slots, Tags, Watched, Whole
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
        self._referrers: defaultdict[int, int] = defaultdict(int)
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
            now.append(before if _holds(container, before) else _copy(container))
        return now

    def is_changed(self) -> bool:
        """Whether one of them holds something else than at first."""
        return any(now is not before for now, before in zip(self.contents(), self.before, strict=True))

    def changed(self, *sides: Sequence[Any]) -> set[int]:
        """Ids of the containers and objects that hold something else in one of these contents."""
        return {
            id(container.thing if is_a(container, Slots) else container)
            for side in sides
            for container, before, now in zip(self.found, self.before, side, strict=True)
            if now is not before
        }

    def put(self, contents: Sequence[Any]) -> None:
        """Make them hold this."""
        for container, held in zip(self.found, contents, strict=True):
            if not _holds(container, held):
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
        seen, referrers = self._seen, self._referrers
        while todo:
            thing = todo.pop()
            step = _step_from(type(thing))
            if step is None:
                continue
            place = id(thing)
            referrers[place] += 1
            if place in seen:
                continue
            seen[place] = thing
            if len(seen) > LIMIT:
                raise ExportError(
                    f"a branch that depends on data can reach more than {LIMIT} Python objects, too "
                    "many to see "
                    "which of them it changes. Move the branch into a function that gets what it needs."
                )
            todo.extend(step(self, thing))

    # What can be reached from a thing in one step; mutable things are noted.

    def _tensor(self, thing: Any) -> Iterable[Any]:
        self.found.append(Tags(thing))
        return tags(thing).values()

    def _frozen(self, thing: Any) -> Iterable[Any]:
        return thing

    def _list(self, thing: Any) -> Iterable[Any]:
        self.found.append(thing)
        held = list.__iter__(thing) if is_a(thing, list) else thing
        return [*held, *self._attributes(thing)] if is_user_class(type(thing)) else held

    def _dict(self, thing: Any) -> Iterable[Any]:
        self.found.append(thing)
        held = itertools.chain.from_iterable(dict.items(thing))
        return [*held, *self._attributes(thing)] if is_user_class(type(thing)) else held

    def _class(self, thing: Any) -> Iterator[Any]:
        if thing.__module__.split(".")[0] not in LIBRARIES and not issubclass(thing, enum.Enum):
            self.found.append(OfClass(thing))
            yield from self.found[-1].now().values()
            yield from thing.__bases__

    def _cell(self, thing: Any) -> Iterable[Any]:
        self.found.append(thing)
        return (cell_contents(thing),)

    def _iterator(self, thing: Any) -> Iterable[Any]:
        self.found.append(Position(thing))
        return position(thing)

    def _method(self, thing: Any) -> Iterable[Any]:
        return thing.__self__, thing.__func__

    def _builtin(self, thing: Any) -> Iterable[Any]:
        return (thing.__self__,)

    def _partial(self, thing: Any) -> Iterable[Any]:
        return thing.func, thing.args, thing.keywords

    def _function(self, thing: Any) -> Iterable[Any]:
        found = [*(thing.__closure__ or ()), *(thing.__defaults__ or ())]
        if is_user_code(thing.__code__):
            found += thing.__defaults__, thing.__kwdefaults__, vars(thing) or None
            found += self._globals(thing)
        return found

    def _in_variables(self, thing: Any) -> Iterable[Any]:
        return (vars(thing),)

    def _sharing(self, thing: Any) -> Iterable[Any]:
        return thing.function, *thing.cells.values()

    def _undecided(self, thing: Any) -> Iterable[Any]:
        return vars(thing).values()

    def _object(self, thing: Any) -> Iterable[Any]:
        held, kind = self._attributes(thing), type(thing)
        own = issubclass(kind, torch.nn.Module) or is_user_class(kind)
        return [*held, *_methods(kind), kind] if own else held

    def _attributes(self, thing: Any) -> list[Any]:
        """What an object holds, wherever that is."""
        held, found = held_as(thing, "__dict__"), list[Any]()
        if runs_beside(thing):
            self.found.append(Beside(thing, _assigned_by(type(thing))))
            found += self.found[-1].now().values()
        elif is_a(held, dict):
            self._of_objects.add(id(held))
            found.append(held)
        if slots(type(thing)):
            self.found.append(Slots(thing))
            found += self.found[-1].now().values()
        elif not is_a(thing, (list, deque, set, dict)) and changes_in_place(thing):
            self.found.append(Whole(thing))
        return found

    def _globals(self, function: FunctionType) -> list[Any]:
        """The globals that a function names, and of Python modules among them what it names there."""
        table, names = function.__globals__, _names_in(function.__code__)
        found = [table[name] for name in names.read if name in table]
        for module in [x for x in found if is_a(x, ModuleType)]:
            found += self._of_module(module, names, [])
        if names.written:
            self.found += [Global(table, name) for name in sorted(names.written)]
        return found

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


_Step = Callable[[Containers, Any], Iterable[Any]]
_STEPS: tuple[tuple[Any, _Step | None], ...] = (
    (torch.Tensor, Containers._tensor),
    (_PLAIN, None),
    ((tuple, frozenset), Containers._frozen),
    ((list, deque, set), Containers._list),
    (dict, Containers._dict),
    (type, Containers._class),
    (CellType, Containers._cell),
    (Iterator, Containers._iterator),
    (MethodType, Containers._method),
    (BuiltinMethodType, Containers._builtin),
    (functools.partial, Containers._partial),
    (FunctionType, Containers._function),
    ((Yields, Rows, TracedSet, OpenDict), Containers._in_variables),
    (Sharing, Containers._sharing),
    ((Maybe, Choice, Word), Containers._undecided),
)


@functools.lru_cache(maxsize=4096)
def _step_from(kind: type) -> _Step | None:
    """How to go on from the things of a class; None where nothing can be reached from them."""
    for kinds, step in _STEPS:
        if issubclass(kind, kinds) and (kinds is not Iterator or is_kind(kind)):
            return step
    return Containers._object if _is_walked(kind) else _nothing


def _nothing(_: Containers, __: Any) -> Iterable[Any]:
    return ()


def is_among(thing: Any, ids: Collection[int]) -> bool:
    """Whether a container's id, or that of what holds an object's attributes, is one of these."""
    own: Any = thing if is_a(thing, (list, dict, deque, set)) else held_as(thing, "__dict__", thing)
    return id(own) in ids or id(thing) in ids


def _names_in(code: CodeType) -> _Names:
    """What code names, known by the code's id, for which the code is kept: to hash it is to hash all that it
    holds.
    """
    known = _known_names.get(id(code))
    if known is None:
        if len(_known_names) >= _MOST_NAMES:
            _known_names.clear()
        known = _known_names[id(code)] = code, _names(code)
    return known[1]


_MOST_NAMES = 8192
_known_names: dict[int, tuple[CodeType, _Names]] = {}


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


@functools.lru_cache(maxsize=4096)
def _assigned_by(cls: type) -> frozenset[str]:
    """The attributes that the methods of a class assign, but for those that it begins with."""
    assigned = (_names(f.__code__).stored for f in _methods(cls) if f.__name__ != "__init__")
    return frozenset[str]().union(*assigned)


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
    kind = type(container)
    if kind is dict:
        return container.copy()
    if issubclass(kind, Watched):
        return container.now()
    if kind is CellType:
        return [cell_contents(container)]
    if issubclass(kind, (list, deque)):
        return list(list.__iter__(container)) if issubclass(kind, list) else list(container)
    if issubclass(kind, set):
        return set(container)
    if issubclass(kind, OrderedDict):  # whose order is its own
        return {k: dict.__getitem__(container, k) for k in OrderedDict.__iter__(container)}
    return dict(dict.items(container))


def _holds(container: Any, held: Any) -> bool:
    """Whether a container holds this."""
    if type(container) in (dict, list):  # without a copy
        return _identical(container, held)
    return _identical(_copy(container), held)


def _identical(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if len(a) != len(b):
        return False
    if type(a) is dict:
        return all(map(operator.is_, a.values(), b.values())) and list(a) == list(b)
    if type(a) is set:
        return bool(a == b)
    return all(map(operator.is_, a, b))


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
