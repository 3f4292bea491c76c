"""What outlives a call: everything a model holds, as it was before the call and as the call left it.

A model's own Python may keep tensors and numbers in buffers, attributes, lists, dicts and plain objects. They
are looked at before and after a recording; what changed is state, and everything is put back.
"""

# A model may hold anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import linecache
import textwrap
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any, Literal

import torch

from ingot.capture.attribute_names import ANY, attributes_in
from ingot.capture.mutable import Contents, changes_in_place, contents_of, put_back, refill, slots_of
from ingot.capture.objects import LIBRARIES, attributes, held_as, is_a, is_user_class, own_dict
from ingot.capture.positions import Unmoved, another, is_iterator
from ingot.capture.reach import (
    CONTAINERS,
    NUMBERS,
    OF_TORCH,
    Reach,
    Variable,
    line_that_changes,
)
from ingot.capture.scripts import Scripts
from ingot.capture.torchscript import Scripted
from ingot.capture.where import is_ingot_code, is_user_code, quoted_at
from ingot.errors import ExportError

_LISTS = (list, deque)
_WHOLE = frozenset(
    (bool, int, float, str, type(None), torch.Tensor, torch.nn.Parameter)
)  # most of what there is
ABSENT: Any = object()  # stands where nothing is
_ATTRIBUTES = "__dict__"  # the key of what a container has beside what it holds


@dataclasses.dataclass(frozen=True)
class StateSpec:
    """One thing that outlives a call: what it is called, and what it is before the first."""

    label: str  # "bn.running_mean", "cache.0"
    initial: Any  # a tensor or a Python number
    where: str  # the line that changes it
    labels: tuple[str, ...]  # every place that holds it
    size: str | None = None  # the dimension of an input whose size it is after a call
    static: frozenset[int] = frozenset()  # axes that have the same size after every call
    decided_by: Literal["data", "sizes", "nothing"] = "data"  # what a call leaves there
    first: tuple[int | str, ...] | None = None  # zeros of these sizes to begin with, some of them inputs'

    @property
    def input_name(self) -> str:
        """The model's input for it."""
        return f"state.{self.label}"

    @property
    def output_name(self) -> str:
        """The model's output that is the next call's input."""
        return f"next.{self.label}"


class StateFound(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """Carries what a call was seen to change: the recording starts again with inputs in its place."""

    left = False  # as of `StateMatters`
    unsettled = False

    def __init__(self, states: Sequence[StateSpec]) -> None:
        super().__init__(", ".join(s.label for s in states))
        self.states = list(states)


class StateMatters(ExportError):
    """The model reads what an earlier call left behind, and the caller did not ask for state."""

    unsettled = False  # whether the next call is known to want them otherwise than they are left

    def __init__(self, states: Sequence[StateSpec], left: bool = False) -> None:
        first = states[0]
        self.left = left  # where nothing of its kind stood before
        super().__init__(
            f"{first.where}\n"
            f"forward changes {first.label!r} here, and a later call reads it: state, which outlives the "
            'call; an ONNX model keeps none. Export with state="inputs": it becomes an input and an output '
            "of the model, and ingot.Stateful(session) carries it from call to call."
        )
        self.states = list(states)


def _kind(x: Any) -> type | None:
    """bool, int or float, also of a symbolic number."""
    if isinstance(x, (bool, torch.SymBool)):
        return bool
    if isinstance(x, (int, torch.SymInt)):
        return int
    return float if isinstance(x, (float, torch.SymFloat)) else None


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a value is: an entry of a root (a module's or object's dict, a variable), and keys from there."""

    root: Any
    key: Any
    path: tuple[Any, ...] = ()

    def get(self) -> Any:
        """What is there now."""
        try:
            return functools.reduce(_step, self.path, self.root[self.key])
        except (KeyError, IndexError, AttributeError, TypeError):
            return ABSENT

    def set(self, value: Any) -> None:
        """Put a value there; tuples on the way are made anew."""
        if not self.path:
            self.root[self.key] = value
            return
        parent = Place(self.root, self.key, self.path[:-1])
        container, last = parent.get(), self.path[-1]
        if is_a(container, tuple):
            parts = [value if i == last else v for i, v in enumerate(container)]
            parent.set(type(container)(*parts) if hasattr(container, "_fields") else type(container)(parts))
        elif is_a(container, (dict, *_LISTS)):
            container[last] = value
        elif (own := held_as(container, "__dict__")) is not None:
            own[last] = value
        else:
            object.__setattr__(container, last, value)


def _step(container: Any, key: Any) -> Any:
    if key is _ATTRIBUTES:
        return own_dict(container)
    if is_a(container, dict):
        return dict.__getitem__(container, key)
    if is_a(container, (tuple, *_LISTS)):
        return container[key]
    own = held_as(container, "__dict__")
    return held_as(container, key, ABSENT) if own is None else own[key]


def _stored(x: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """What a dict holds: one with methods of its own gives something else to whoever asks."""
    keys = OrderedDict.__iter__(x) if is_a(x, OrderedDict) else dict.__iter__(x)
    return [(k, dict.__getitem__(x, k)) for k in keys]


def _elements(x: Any) -> list[Any]:
    """What a list, tuple, deque or set holds."""
    kind: Any = next(k for k in (list, tuple, deque, set) if is_a(x, k))
    return list(kind.__iter__(x))


def _parts(x: Any) -> Iterator[tuple[Any, Any]] | None:
    """What a container or a plain object holds; None for what is looked at as a whole."""
    if type(x) in _WHOLE:
        return None
    if is_a(x, dict):
        return iter([*_stored(x), *_own(x)])
    if is_a(x, (tuple, *_LISTS)):
        return iter([*enumerate(_elements(x)), *_own(x)])
    held = None if changes_in_place(x) else attributes(x)
    return None if held is None else iter((_class_values(type(x)) | held).items())


def _own(container: Any) -> list[tuple[Any, Any]]:
    """The attributes of a container, whose class is the user's own then, under their key."""
    held = held_as(container, "__dict__") if is_user_class(type(container)) else None
    return [] if held is None else [(_ATTRIBUTES, held)]


@functools.lru_cache(maxsize=4096)
def _class_values(kind: type) -> dict[str, Any]:
    """Numbers and tensors that are attributes of a class: an object has them until it is given its own."""
    found: dict[str, Any] = {}
    for cls in reversed(kind.__mro__):
        if cls.__module__.split(".")[0] not in LIBRARIES:
            found |= {k: v for k, v in vars(cls).items() if type(v) in (torch.Tensor, *NUMBERS)}
    return {k: v for k, v in found.items() if not k.startswith("__")}


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that a call changed."""

    label: str
    before: Any
    after: Any
    place: Place

    @property
    def is_state(self) -> bool:
        """Whether one tensor or number stands where another one stood: an input can take its place."""
        if isinstance(self.before, torch.Tensor):
            return isinstance(self.after, torch.Tensor)
        return _kind(self.before) is not None and _kind(self.before) == _kind(self.after)


class Snapshot:
    """Everything that a model holds, before a run."""

    def __init__(self, function: Any) -> None:
        self.places: dict[str, Place] = {}
        self.before: dict[str, Any] = {}
        self._saved: list[tuple[Any, Any]] = []
        self._iterators: list[tuple[str, Place, Any]] = []
        self._seen: set[int] = set()
        self.scripts = Scripts(function)
        self._owners = dict(function.named_modules()) if isinstance(function, torch.nn.Module) else {}
        holders = [*map(self.scripts.stands_for, self._owners.values()), getattr(function, "__self__", None)]
        self._classes = {id(held_as(h, "__dict__")): type(h) for h in holders}  # of whose dict
        reach = Reach(function, self.scripts)
        self._meet: Callable[[str, Any], object] | None = reach.meet
        self._roots: list[tuple[str, Any]] = []
        for label, root in reach.roots():
            self._roots.append((label, root))
            for container in (root, *_hooks(root)):
                self._save(container)
            self.before.update(self._look(label, root, self.places))
        self._meet = None
        self.shield()
        self.unsteady = reach.unsteady  # may be another model each time it is recorded
        self.codes, self.makers = reach.codes, reach.makers
        self._caches = [(cache, cache.cache_info().misses) for cache in reach.caches]
        self.first_line = _first_line(function)

    def _look(self, label: str, root: Any, places: dict[str, Place]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        own = _class_values(self._classes[id(root)]) if id(root) in self._classes else {}
        for key, value in [*_entries(root), *((k, v) for k, v in own.items() if k not in root)]:
            self._visit(f"{label}.{key}" if label else str(key), Place(root, key), value, found, places)
        for key, layer in _layers(root).items():  # which modules there are, not what is in them
            name = f"{label}.{key}" if label else str(key)
            found[name], places[name] = layer, Place(_layers(root), key)
        return found

    def _visit(
        self, label: str, place: Place, value: Any, found: dict[str, Any], places: dict[str, Place]
    ) -> None:
        parts = _parts(value)
        if self._meet is not None and type(value) not in _WHOLE:
            self._meet(label, value)
        if parts is None:
            if label not in found:
                contents = None if type(value) in _WHOLE else contents_of(value)
                if contents is not None and self._meet is not None:
                    self._saved.append((value, contents))
                    if is_iterator(value):
                        self._iterators.append((label, place, value))
                found[label], places[label] = value if contents is None else contents, place
            held = {} if type(value) in _WHOLE or id(value) in self._seen else slots_of(value)
            if held:
                self._seen.add(id(value))
            for key, part in held.items():  # the slots themselves are looked at above
                if _parts(part) is not None or slots_of(part):
                    inner = Place(place.root, place.key, (*place.path, key))
                    self._visit(f"{label}.{key}", inner, part, found, places)
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if not is_a(value, tuple):
            self._save(value if is_a(value, CONTAINERS) else own_dict(value))
        for key, part in parts:
            inner = Place(place.root, place.key, (*place.path, key))
            self._visit(f"{label}.{key}", inner, part, found, places)

    def _save(self, container: Any) -> None:
        if isinstance(container, Variable):
            self._saved.append((container, container[container.name]))
        else:
            contents = dict(_stored(container)) if is_a(container, dict) else _elements(container)
            self._saved.append((container, contents))

    def shield(self) -> None:
        """Let a run find other iterators in the places of those that are there, and move them."""
        made: dict[int, Any] = {}
        for label, place, iterator in self._iterators:
            found = another(iterator, made)
            if found is None:
                found = self.before[label] = Unmoved(label, iterator)
            place.set(found)

    def begin(self, label: str, place: Place, value: Any) -> None:
        """Let the model hold another value from the start."""
        place.set(value)
        self.before[label] = value
        self.places.setdefault(label, place)

    def changes(self) -> list[Change]:
        """What is not as it was."""
        saved, self._saved = self._saved, []  # a second look saves nothing
        self._seen = set()
        after: dict[str, Any] = {}
        places: dict[str, Place] = {}
        try:
            for label, root in self._roots:
                for name, value in self._look(label, root, places).items():
                    after.setdefault(name, value)
        finally:
            self._saved = saved
        labels = [*self.before, *(label for label in after if label not in self.before)]
        places = self.places | places
        both = [(n, self.before.get(n, ABSENT), after.get(n, ABSENT)) for n in labels]
        return [Change(n, a, b, places[n]) for n, a, b in both if not _same(a, b)]

    def labels_of(self, tensor: torch.Tensor) -> list[str]:
        """Every place where the model holds this tensor."""
        return [label for label, value in self.before.items() if value is tensor]

    def holds(self, container: Any) -> bool:
        """Whether the model has had a list, dict or object's attributes since before the call."""
        return any(kept is container for kept, _ in self._saved)

    def idle_tags(self, tensor: torch.Tensor) -> dict[str, Any]:
        """What stands on a parameter or buffer since before the call under names that no code may read."""
        held = vars(tensor)
        before = next((contents for kept, contents in self._saved if kept is held), {})
        read = frozenset[str]().union(*map(attributes_in, (*self.codes, *self.makers))) if before else ()
        return {} if ANY in read else {n: v for n, v in before.items() if n not in read}

    def names_of(self, held: Any) -> list[str]:
        """The attributes and variables that have held a container since before the call, by name."""
        found: dict[str, None] = {}
        for container, contents in self._saved:
            if isinstance(container, Variable) and contents is held:
                found[container.name] = None
            elif isinstance(container, dict):
                found |= {str(k): None for k, v in contents.items() if v is held}
        return list(found)

    def line_of(self, label: str) -> str:
        """The line of a method that assigns what the label names, as the source has it."""
        path, _, rest = label.rpartition(".")
        names = [rest]
        while path not in self._owners and path:
            path, _, name = path.rpartition(".")
            names.append(name)
        owner = self._owners.get(path)
        owner = None if owner is None else self.scripts.stands_for(owner)
        if isinstance(owner, Scripted):
            return owner.line_of(names[-1]) or self.first_line
        while path and type(owner).__module__ == torch.nn.ModuleList.__module__:  # whoever has the list
            path, _, name = path.rpartition(".")
            owner = self._owners.get(path, owner)
            names.append(name)
        found = _assignment(type(owner), names[-1]) if owner is not None else None
        return found or line_that_changes(self.codes, label.split(".")[::-1]) or self.first_line

    def restore(self) -> None:
        """Put everything back, so that no fake tensor stays behind."""
        for cache, misses in self._caches:
            if cache.cache_info().misses != misses:  # nobody can take out of it what was added
                cache.cache_clear()
        for container, contents in self._saved:
            if isinstance(contents, Contents):
                put_back(container, contents)
            elif isinstance(container, Variable):
                if container[container.name] is not contents:
                    container[container.name] = contents
            else:
                refill(container, contents)


def _first_line(function: Any) -> str:
    """Where the model's own code begins."""
    code = getattr(getattr(function, "forward", function), "__code__", None)
    if code is None or is_ingot_code(code):  # what runs a graph
        return "the model's forward"
    file, line = code.co_filename, code.co_firstlineno
    while linecache.getline(file, line).lstrip().startswith("@"):  # a decorator, on a line of its own
        line += 1
    return quoted_at(file, line)


def _same(a: Any, b: Any) -> bool:
    if a is b or (isinstance(a, Contents) and a == b):
        return True
    plain = (str, bytes, *NUMBERS)
    return type(a) is type(b) and isinstance(a, plain) and bool(a == b or (a != a and b != b))


def _entries(root: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(root, Variable):
        yield root.name, root[root.name]
        return
    yield from ((k, v) for k, v in list(root.items()) if k not in OF_TORCH)


def _layers(root: Any) -> dict[str, Any]:
    """The modules in a module, of which its dict is given."""
    held = root.get("_modules") if isinstance(root, dict) and "_parameters" in root else None
    return held if isinstance(held, dict) else {}


def _hooks(root: Any) -> list[Any]:
    """A module's dicts and sets of torch's, which stay the same objects when hooks are put into them."""
    if not isinstance(root, dict) or "_parameters" not in root:
        return []
    return [v for k, v in root.items() if k in OF_TORCH and isinstance(v, CONTAINERS)]


def _assignment(kind: type, name: str) -> str | None:
    """The line in a class's methods, `__init__` aside, that assigns `self.name` or an item of it."""
    for cls in kind.__mro__:
        for method in vars(cls).values():
            if not isinstance(method, FunctionType) or method.__name__ == "__init__":
                continue
            if not is_user_code(method.__code__):
                continue
            try:
                lines, first = inspect.getsourcelines(method)
                tree = ast.parse(textwrap.dedent("".join(lines)))
            except (OSError, SyntaxError, TypeError):
                continue
            for node in ast.walk(tree):
                if _assigns(node, name):
                    at = first + getattr(node, "lineno", 1) - 1
                    return quoted_at(method.__code__.co_filename, at)
    return None


def _assigns(node: ast.AST, name: str) -> bool:
    """Whether a statement writes to `….name` or an item of it, deletes one, or calls a method of it."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = [t for target in node.targets for t in getattr(target, "elts", [target])]
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    elif isinstance(node, ast.Delete):
        targets = node.targets
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func.value] if isinstance(node.value.func, ast.Attribute) else []
    for target in targets:
        at = target.value if isinstance(target, ast.Subscript) else target
        if isinstance(at, ast.Attribute) and at.attr == name:
            return True
    return False


def in_words(x: Any) -> str:
    """What stood in a place, for a message."""
    if isinstance(x, torch.Tensor):
        return f"{x.dtype} {list(x.shape)}"
    return "nothing" if x is ABSENT else repr(x)
