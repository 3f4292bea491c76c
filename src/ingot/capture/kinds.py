"""What a symbolic number says that it is: `type(n)` and abstract classes answer as the number does that it
stands for; and how a module's code uses Python's own types.

In the globals of the model's modules `type` is bound to a type that knows sizes, as `int` is
(`symbolic_int`).
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import builtins
import dis
import numbers
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ingot.capture.objects import is_a
from ingot.capture.sources import codes_in

_KINDS: dict[type, type] = {
    torch.SymInt: builtins.int,
    torch.SymFloat: builtins.float,
    torch.SymBool: builtins.bool,
    FakeTensor: torch.Tensor,
}
Globals = dict[str, Any]

numbers.Integral.register(torch.SymInt)
numbers.Real.register(torch.SymFloat)


def type_of(x: Any) -> type:
    """What `type(x)` is of what a symbolic number, or a tensor without contents, stands for."""
    kind = builtins.type(x)
    return _KINDS.get(kind, kind)


def _type_asked(x: Any) -> type:
    if is_a(x, torch.SymFloat):
        from ingot.capture.request import recorder  # which needs this file
        from ingot.capture.scalars import require_kind

        require_kind(recorder(), x, "its type")
    return type_of(x)


class _Meta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            kind = _type_asked(args[0])
            return cls.shown.get(kind, kind)  # type: ignore[attr-defined]  # pyright: ignore
        return builtins.type(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, builtins.type)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, builtins.type)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is builtins.type

    def __hash__(cls) -> int:
        return hash(builtins.type)


def type_that_knows(shown: dict[type, type]) -> type:
    """A `type` for the globals of a module, in which some types go by others."""
    return _Meta("type", (builtins.type,), {"shown": shown})


def functions_of(module: Globals) -> Iterator[CodeType]:
    """The code of the functions and methods that a module defines."""
    name = module.get("__name__")
    for value in list(module.values()):
        if isinstance(value, FunctionType) and value.__module__ == name:
            yield from codes_in(value.__code__)
        elif isinstance(value, builtins.type) and value.__module__ == name:
            for method in vars(value).values():
                function = getattr(method, "__func__", getattr(method, "fget", method))
                if isinstance(function, FunctionType):
                    yield from codes_in(function.__code__)


def dtype_is_int(codes: Iterable[CodeType]) -> bool:
    """Whether code may say `dtype=int`, which must be Python's own: torch looks for that object."""
    return any("int" in code.co_names and _says_dtype(code) for code in codes)


@lru_cache(maxsize=4096)
def _says_dtype(code: CodeType) -> bool:
    # A global that is about to be called is loaded together with a NULL.
    passed = any(
        i.argval == "int" and i.opname == "LOAD_GLOBAL" and not (i.arg or 0) & 1
        for i in dis.get_instructions(code)
    )
    return passed and any(isinstance(c, tuple) and "dtype" in c for c in code.co_consts)


@lru_cache(maxsize=4096)
def asks_what_a_number_is(code: CodeType) -> bool:
    """Whether code asks `n is 5`, `c is True` (as a `match` does), `n is m` or `n.__class__`: of a size or a
    condition on sizes, another object than what it stands for. Or whether something is a bool or a float,
    which no class but Python's own can say.
    """
    if "isinstance" in code.co_names and not {"bool", "float"}.isdisjoint(code.co_names):
        return True
    before: list[dis.Instruction] = []
    for i in dis.get_instructions(code):
        if i.opname == "IS_OP" and _may_be_numbers(code, before[-2:]):
            return True
        itself = bool(before) and before[-1].argval in ("self", "cls")
        if i.opname == "LOAD_ATTR" and i.argval == "__class__" and not itself:
            return True
        before.append(i)
    return False


@lru_cache(maxsize=4096)
def asks_for_int(code: CodeType) -> bool:
    """Whether code asks if something is an int, which Python's own class does not say of a size."""
    return {"isinstance", "int"} <= {*code.co_names}


@lru_cache(maxsize=4096)
def asks_what_is_same(code: CodeType) -> bool:
    """Whether code asks if two things are one, neither of which is a constant: `a is b`."""
    pairs = pairwise(dis.get_instructions(code))
    return any(step.opname == "IS_OP" and before.opname != "LOAD_CONST" for before, step in pairs)


def _may_be_numbers(code: CodeType, loaded: list[dis.Instruction]) -> bool:
    constants = [builtins.type(i.argval) for i in loaded if i.opname == "LOAD_CONST"]
    if int in constants or (bool in constants and _takes_sizes(code)):
        return True
    variables = ("LOAD_FAST", "LOAD_DEREF", "BINARY_SUBSCR", "CALL")
    return _takes_sizes(code) and bool(loaded) and loaded[-1].opname in variables


def _takes_sizes(code: CodeType) -> bool:
    return not {"shape", "size", "numel", "item", "len"}.isdisjoint(code.co_names)
