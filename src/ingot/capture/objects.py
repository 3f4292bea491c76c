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
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

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
    """Whether a class is the user's own: neither torch's nor another library's."""
    if kind.__module__.split(".")[0] in LIBRARIES:
        return False
    return not any(c.__module__.split(".")[0] == "torch" for c in kind.__mro__)


@functools.lru_cache(maxsize=4096)
def is_user_class(cls: type) -> bool:
    """Whether a class is the model's own, be it a module's."""
    return cls.__module__.split(".")[0] not in _BASIC


def names_in(x: Any) -> list[str]:
    """What an object of a dataclass holds, by name: the fields that have a value, then what else was put into
    it.
    """
    fields = [f.name for f in dataclasses.fields(x) if hasattr(x, f.name)]
    return [*fields, *sorted(getattr(x, "__dict__", {}).keys() - set(fields))]


def copied(x: Any) -> Any:
    """Another object that holds the same, for `fill` to change."""
    return copy.copy(x)


def fill(made: Any, contents: Mapping[str, Any]) -> None:
    """Let an object hold this, whatever its class says to assignments."""
    vars(made).update(contents)
