"""Conditions as numbers: `(n > 4) + 1`, `a ^ b` and `a == 1` of conditions that data or a size decides; and
floats as Python computes with them.

Python's bool is 1 or 0 wherever it is counted or compared. torch's SymBool asks for its value there, compares
unequal to 1, or has no such operator: while a model runs, SymBool, SymInt and SymFloat have the operators of
this file instead.
"""

# torch's symbolic numbers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import functools
import math
import operator
import sys
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch.fx.experimental.sym_node import SymNode

from ingot.capture import checks, endless, floats
from ingot.capture.mathematics import of_tensors
from ingot.capture.request import cannot_wait, recorder, recording
from ingot.capture.scalars import as_tensor, depends_on_data, item, of_both, of_truth
from ingot.capture.where import is_user_code

_NUMBERS = (bool, int, float, torch.SymBool, torch.SymInt, torch.SymFloat)
_DIGITS = 18  # of which every number has 64 bits
_DECIMALS = 8  # of which ten to their power has few bits
_HALVES = 2.0**27 + 1  # times a float, and the product less itself: its upper half
_WHOLE_ONLY = 2.0**52  # from which on floats have no decimals
_REAL, _WHOLE = (float, torch.SymFloat), (int, torch.SymInt)
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "lshift", "rshift")
_BITWISE = ("and", "or", "xor")
_COMPARED = ("lt", "le", "gt", "ge", "eq", "ne")
_UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "pos": lambda n: n,
    "abs": lambda n: n,
    "invert": lambda n: -1 - n,
}


def _counted(x: Any) -> Any:
    """A condition as 1 or 0; a number as it is."""
    if isinstance(x, torch.SymBool):
        return of_truth(recorder(), x)
    return int(x) if isinstance(x, bool) else x


def _differ(a: torch.SymBool, b: Any) -> Any:
    """Whether just one of two conditions holds."""
    if isinstance(b, bool):
        return torch.sym_not(a) if b else a
    return (a & torch.sym_not(b)) | (torch.sym_not(a) & b)


def _agree(a: torch.SymBool, b: Any) -> Any:
    """Whether both hold or neither does."""
    return torch.sym_not(_differ(a, b))


#: What two conditions are to each other, rather than as numbers.
_OF_CONDITIONS: dict[str, Callable[[torch.SymBool, Any], Any]] = {
    "xor": _differ,
    "ne": _differ,
    "eq": _agree,
    "and": torch.SymBool.__and__,
    "or": torch.SymBool.__or__,
}


def _of_one(compute: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An operator of SymBool's with one operand."""
    return lambda condition: compute(_counted(condition))


def _of_condition(name: str, compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operator of SymBool's."""
    logical = _OF_CONDITIONS.get(name)

    def method(self: torch.SymBool, other: Any) -> Any:
        if not isinstance(other, _NUMBERS):
            return NotImplemented
        if logical is not None and isinstance(other, (bool, torch.SymBool)):
            return logical(self, other)
        return compute(_counted(self), _counted(other))

    return method


def _remainder(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a % b`, whose 0 has the sign of b."""
    rest = torch.remainder(a, b)
    return torch.where(rest == 0, torch.copysign(rest, b), rest)


def _formula_or_tensors(
    formula: Callable[[Any, Any], Any], compute: Callable[..., torch.Tensor]
) -> Callable[[Any, Any], Any]:
    """A formula where there is one: sizes stay such."""
    computed: Callable[[Any, Any], Any] = of_tensors(compute)

    def of_two(a: Any, b: Any) -> Any:
        found = formula(a, b)
        return computed(a, b) if found is None else found

    return of_two


_whole = _formula_or_tensors(floats.whole_quotient, torch.floor_divide)
_rest = _formula_or_tensors(floats.rest, _remainder)
_OF_FLOATS: dict[str, Callable[[Any, Any], Any]] = {
    **floats.OPERATORS,
    "__floordiv__": _whole,
    "__rfloordiv__": floats.swapped(of_tensors(torch.floor_divide)),
    "__mod__": _rest,
    "__rmod__": floats.swapped(of_tensors(_remainder)),
}
_SHIFTS = {"__lshift__": True, "__rshift__": True, "__rlshift__": False, "__rrshift__": False}
_DIVIDING = ("__truediv__", "__floordiv__", "__mod__")
_DIVIDED = ("__rtruediv__", "__rfloordiv__", "__rmod__")


def _require_divisor(divisor: Any) -> None:
    """The run fails where Python raises, because the model's own code divides by 0."""
    if is_user_code(sys._getframe(2).f_code):
        checks.require_divisor(divisor)


def _as_here(divisor: Any) -> Any:
    """A divisor that is 0 for the sizes it was computed with, with what it is for those of this branch."""
    if isinstance(divisor, torch.SymInt) and divisor.node.hint == 0 and recording():
        env = recorder().env
        if now := env.value_or_none(env.expr(divisor)):
            return torch.SymInt(SymNode(divisor.node.expr, divisor.node.shape_env, int, int(now)))
    return divisor


def _require_shift(by: Any) -> None:
    """The run fails where Python raises, because a number is shifted by less than 0."""
    g, found = recorder(), by >= 0
    if isinstance(found, torch.SymBool):
        checks.require_once(g.env.expr(found), "what is shifted by is not negative")


def _kept(made: Any, a: Any, b: Any) -> Any:
    """What is made of two numbers, with the mark of those that may be of another kind."""
    return of_both(recorder(), made, a, b) if recording() else made  # not where bounds are found later


def _of_number(name: str, plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operator of SymInt's or SymFloat's, beside a condition too."""
    of_floats = _OF_FLOATS.get(name)

    def method(self: Any, other: Any, *modulus: Any) -> Any:
        if modulus and modulus[0] is not None:  # of `pow(self, other, modulus)`
            return method(self, other) % modulus[0]
        if name in _DIVIDING:
            _require_divisor(other)
            other = _as_here(other)
        elif name in _DIVIDED:
            _require_divisor(self)
            self = _as_here(self)
        other = _counted(other) if isinstance(other, torch.SymBool) else other
        if name in _SHIFTS and isinstance(other, _WHOLE):
            _require_shift(other if _SHIFTS[name] else self)
        real = isinstance(other, _REAL) or (isinstance(self, torch.SymFloat) and isinstance(other, _WHOLE))
        made = of_floats(self, other) if of_floats is not None and real else plain(self, other)
        if "truediv" in name or isinstance(made, torch.SymBool):
            return made
        return _kept(made, self, other)

    return method


def _whole_number(plain: Callable[..., Any]) -> Callable[..., Any]:
    """`int`, `floor`, `ceil` or `round` of a float: the run fails where Python raises."""

    def method(self: torch.SymFloat, *digits: Any) -> Any:
        if digits and digits[0] is not None:
            return _to_digits(self, *digits)
        endless.require_whole_number(recorder(), self)
        return _kept(plain(self), self, 0)

    return method


def _to_digits(x: torch.SymFloat, digits: Any) -> Any:
    """`round(x, digits)`: the float next to the nearest decimal, of two the even one."""
    if not isinstance(digits, int) or not 0 <= digits <= _DECIMALS:
        cannot_wait(f"rounds a number to other than 0 to {_DECIMALS} digits behind the point")
    return of_tensors(functools.partial(_nearest_decimal, ten=10.0**digits))(x)


def _nearest_decimal(x: torch.Tensor, ten: float) -> torch.Tensor:
    """What x * ten rounds to, divided by it. The product is rounded, and where it is half way between two
    whole numbers, what it lacks of the exact one decides: the product of x's two halves says that.
    """
    scaled = x * ten
    parts = x * _HALVES
    high = parts - (parts - x)
    lacking = (high * ten - scaled) + (x - high) * ten
    below = scaled.floor()
    is_half = (scaled - below == 0.5) & (lacking != 0)
    nearest = torch.where(is_half, below + (lacking > 0), scaled.round())
    has_decimals = x.abs() * ten < _WHOLE_ONLY  # no NaN and no infinity either
    return torch.where(has_decimals, torch.copysign(nearest / ten, x), x)


def _is_whole(self: torch.SymFloat) -> Any:
    """`x.is_integer()`."""
    g = recorder()
    if not depends_on_data(g, g.env.expr(self)):
        return torch.sym_float(math.floor(self)) == self
    x = as_tensor(g, self, torch.float64)
    return item(g, x.isfinite() & (x == x.floor()))


def _negative(self: torch.SymFloat) -> Any:
    return _kept(floats.negative(self), self, 0)


def _to_tens(self: torch.SymInt, digits: Any = None) -> Any:
    """`round(n, -2)`: the nearest of the hundreds, of two the even one. torch's own leaves n as it is."""
    if digits is None or (isinstance(digits, int) and digits >= 0):
        return self
    if not isinstance(digits, int) or digits < -_DIGITS:
        cannot_wait(f"rounds a whole number to other than 1 to {_DIGITS} digits before the point")
    ten = 10**-digits
    up = self + ten // 2
    times = up // ten
    between = 1 - torch.sym_min(up % ten, 1)
    return (times - between * (times % 2)) * ten


def _methods() -> Generator[tuple[type, str, Callable[..., Any]]]:
    """The operators that stand in for torch's."""
    for name in (*_ARITHMETIC, *_BITWISE, *_COMPARED):
        compute = getattr(operator, f"__{name}__")
        forms: list[tuple[str, Callable[[Any, Any], Any]]] = [(f"__{name}__", compute)]
        if name not in _COMPARED:
            forms.append((f"__r{name}__", lambda b, a, c=compute: c(a, b)))
        for method, called in forms:
            yield torch.SymBool, method, _of_condition(name, called)
            for kind in (torch.SymInt, torch.SymFloat):
                plain: Any = getattr(kind, method, None)
                if plain is not None:
                    yield kind, method, _of_number(method, plain)
    for name, compute in _UNARY.items():
        yield torch.SymBool, f"__{name}__", _of_one(compute)
    yield torch.SymInt, "__invert__", _UNARY["invert"]
    yield torch.SymInt, "__round__", _to_tens
    for name in ("trunc", "floor", "ceil", "round"):
        yield torch.SymFloat, f"__{name}__", _whole_number(getattr(torch.SymFloat, f"__{name}__"))
    yield torch.SymFloat, "__neg__", _negative
    yield torch.SymFloat, "is_integer", _is_whole


@contextlib.contextmanager
def counted() -> Generator[None]:
    """For the time of a recording: conditions are numbers where Python's are."""
    missing = object()
    saved = [(kind, name, vars(kind).get(name, missing)) for kind, name, _ in _METHODS]
    for kind, name, method in _METHODS:
        setattr(kind, name, method)
    try:
        yield
    finally:
        for kind, name, plain in saved:
            if plain is missing:
                delattr(kind, name)
            else:
                setattr(kind, name, plain)


_METHODS = list(_methods())
