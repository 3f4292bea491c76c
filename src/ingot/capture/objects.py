"""Plain objects that hold tensors, a transformer's cache among them: what is in them, and copies with other
contents. Needs no torch.

An object is asked for what it holds past the `__getattribute__`, `__getattr__` and `__class__` of its class,
which are code of the model's own: they may say something else, and what they do they would do once more. Code
that is rewritten comes back here, too.
"""

# Objects may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import sys
import threading
from collections import ChainMap, UserDict, UserList
from collections.abc import Callable, Iterable, Mapping
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

if TYPE_CHECKING:
    from typing_extensions import TypeIs

T = TypeVar("T")

# Objects of these are looked at as a whole: a logger knows all other loggers.
LIBRARIES = (frozenset(sys.stdlib_module_names) - {"types", "argparse", "__main__"}) | {
    "torch",
    "numpy",
    "sympy",
    "ingot",
    "_pytest",  # every assert of a test file names it, and it knows all tests
    "pluggy",
    "pytest",
}
#: Classes of Python's own that hold what they hold in attributes.
_OPEN = frozenset((UserDict, UserList, ChainMap, WeakKeyDictionary, WeakValueDictionary))
_BASIC = frozenset(("torch", "builtins", "ingot", "collections", "functools", "typing", "enum"))
_WHOLE = (type, FunctionType, BuiltinFunctionType, MethodType, ModuleType, functools.partial, enum.Enum)
_BARE = (list, tuple, dict)  # most of what has no place for attributes
_ABSENT: Any = object()


def is_a(x: object, kinds: type[T] | tuple[type[T], ...]) -> TypeIs[T]:
    """Whether a value is of a class, as its type says; isinstance asks the value for its `__class__`, too."""
    return issubclass(type(x), kinds)


def held_as(x: Any, name: str, absent: Any = None) -> Any:
    """What an object holds under a name; `absent` where that is nothing."""
    try:
        return _look_up(type(x))(x, name)
    except AttributeError:
        return absent


@functools.lru_cache(maxsize=4096)
def _look_up(kind: type) -> Callable[[Any, str], Any]:
    """How the objects of a class are asked for an attribute past its Python: as Python itself does it, or the
    C of a class that it is made of (a weak reference gives what it refers to).
    """
    found = (vars(c).get("__getattribute__") for c in kind.__mro__)
    return next(f for f in found if isinstance(f, WrapperDescriptorType))


def own_dict(x: Any) -> dict[str, Any]:
    """The dict of an object's attributes; a new one where it has no place for any."""
    return {} if type(x) in _BARE else held_as(x, "__dict__", {})


def values_of(x: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of the attributes of these names that have a value, by name."""
    found = {n: held_as(x, n, _ABSENT) for n in names}
    return {n: v for n, v in found.items() if v is not _ABSENT}


def attributes(x: Any) -> dict[str, Any] | None:
    """What a plain object holds, by the name of the attribute; None for what is looked at as a whole.

    Whole are tensors and modules, functions and classes, and whatever belongs to a library.
    """
    if is_a(x, _WHOLE) or not is_plain(type(x)):
        return None
    held = held_as(x, "__dict__")
    return held if isinstance(held, dict) else None


def runs_beside(x: Any) -> bool:
    """Whether an object is a thread that runs beside the one that records, and may change what it holds."""
    if not is_a(x, threading.Thread) or x is threading.current_thread():
        return False
    return any(thread is x for thread in threading.enumerate())


@functools.lru_cache(maxsize=4096)
def is_plain(kind: type) -> bool:
    """Whether a class is the user's own: neither torch's nor another library's, but for those of Python's
    that are written as a user's would be.
    """
    if kind in _OPEN:
        return True
    if kind.__module__.split(".")[0] in LIBRARIES:
        return False
    return not any(c.__module__.split(".")[0] == "torch" for c in kind.__mro__)


@functools.lru_cache(maxsize=4096)
def is_user_class(cls: type) -> bool:
    """Whether a class is the model's own, be it a module's."""
    return cls.__module__.split(".")[0] not in _BASIC


@functools.lru_cache(maxsize=4096)
def slots(cls: type) -> tuple[str, ...]:
    """Names of the attributes that a class of the model's own keeps in slots."""
    if not is_user_class(cls):
        return ()
    # Members of classes written in C have descriptors of the same kind, and may be for reading alone.
    own = (vars(c).values() for c in cls.__mro__ if "__slots__" in vars(c))
    return tuple(v.__name__ for values in own for v in values if isinstance(v, MemberDescriptorType))


@functools.lru_cache(maxsize=4096)
def is_of_attributes(cls: type) -> bool:
    """Whether an object of a class is what its attributes are, so that another one that holds the same may be
    made: a dataclass, or a class of the model's own that is nothing else besides, no function either.
    """
    # Whatever makes objects in its own way may give one of those that there are; what ends each, ends both.
    if not (cls.__new__ is object.__new__ or issubclass(cls, dict)) or hasattr(cls, "__del__"):
        return False
    if dataclasses.is_dataclass(cls):
        return not cls.__module__.startswith("ingot.")
    bases = [c for c in cls.__mro__ if c.__module__ not in ("abc", "typing") and c is not object]
    called = any("__call__" in vars(c) for c in bases)
    special = called or issubclass(cls, (enum.Enum, BaseException))
    return bool(bases) and not special and all(map(is_plain, bases))


def held_in(x: Any) -> dict[str, Any]:
    """What an object of such a class holds, by name: fields and slots that have a value, then what else was
    put into it.
    """
    kind, own = type(x), own_dict(x)
    names = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else slots(kind)
    rest = values_of(x, (n for n in names if n not in own))
    first = {n: own[n] if n in own else rest[n] for n in names if n in own or n in rest}
    return first | {n: own[n] for n in sorted(own.keys() - first.keys())}


def copied(x: Any) -> Any:
    """Another object that holds the same, for others to be put into it. No code of its class's own runs where
    it is what its attributes are.
    """
    kind = type(x)
    if not is_of_attributes(kind) or issubclass(kind, dict):
        return copy.copy(x)
    made: Any = object.__new__(kind)
    own_dict(made).update(own_dict(x))
    for name, value in values_of(x, slots(kind)).items():
        object.__setattr__(made, name, value)
    return made


def fill(made: Any, contents: Mapping[str, Any]) -> None:
    """Let an object hold this, whatever its class says to assignments."""
    own_dict(made).update(contents)
