"""Plain objects that hold tensors, a transformer's cache among them: what is in them, and copies with other
contents. Needs no torch.
"""

# Objects may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import sys
from collections import ChainMap, UserDict, UserList
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

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


def attributes(x: Any) -> dict[str, Any] | None:
    """What a plain object holds, by the name of the attribute; None for what is looked at as a whole.

    Whole are tensors and modules, functions and classes, and whatever belongs to a library.
    """
    if isinstance(x, _WHOLE) or not hasattr(x, "__dict__") or not is_plain(type(x)):
        return None
    held = vars(x)
    return held if isinstance(held, dict) else None


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
    names = [f.name for f in dataclasses.fields(x)] if dataclasses.is_dataclass(x) else slots(type(x))
    own: dict[str, Any] = getattr(x, "__dict__", {})
    first = {n: own[n] if n in own else getattr(x, n) for n in names if n in own or hasattr(x, n)}
    return first | {n: own[n] for n in sorted(own.keys() - first.keys())}


def copied(x: Any) -> Any:
    """Another object that holds the same, for `fill` to change."""
    return copy.copy(x)


def fill(made: Any, contents: Mapping[str, Any]) -> None:
    """Let an object hold this, whatever its class says to assignments."""
    vars(made).update(contents)
