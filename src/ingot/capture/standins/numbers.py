"""`bool`, `int`, `round`, `divmod`, `math.floor` … of numbers that only the run knows."""

# Arguments are whatever the model's Python has; not every stand-in needs the runtime.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks, scalars
from ingot.capture.choice import present
from ingot.capture.request import recorder
from ingot.capture.scalars import Symbolic
from ingot.capture.standins.table import STANDINS, stands_for
from ingot.capture.standins.values import is_symbolic, number_in, weighed
from ingot.capture.symbolic_int import SymbolicInt

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


@stands_for(bool)
def bool_(rt: Runtime, x: Any = False) -> Any:
    """bool(x)."""
    x = weighed(x)
    return rt.truth(x) if rt.waits(x) else bool(x)


@stands_for(int, SymbolicInt)
def int_(rt: Runtime, x: Any = 0, *rest: Any, **more: Any) -> Any:
    """int(x): towards zero."""
    x = number_in(present(x), int)
    if isinstance(x, torch.SymInt):
        return x
    if isinstance(x, torch.SymFloat):
        return torch.sym_int(x)
    if isinstance(x, torch.SymBool):
        return scalars.of_truth(recorder(), x)
    return builtins.int(x, *rest, **more)


@stands_for(float)
def float_(rt: Runtime, x: Any = 0.0) -> Any:
    """float(x)."""
    x = number_in(present(x), float)
    if isinstance(x, torch.SymBool):
        x = int_(rt, x)
    if isinstance(x, torch.SymFloat) and scalars.kinds_of(recorder(), x) is not None:
        return scalars.as_tensor(recorder(), x, torch.float64).item()
    return torch.sym_float(x) if isinstance(x, (torch.SymInt, torch.SymFloat)) else builtins.float(x)


@stands_for(abs)
def abs_(rt: Runtime, x: Any) -> Any:
    """abs(x)."""
    return abs(present(x))


@stands_for(round)
def round_(rt: Runtime, number: Any, ndigits: Any = None) -> Any:
    """round(x)."""
    x = number_in(present(number))
    return round(x) if ndigits is None else round(x, ndigits)


@stands_for(divmod)
def divmod_(rt: Runtime, a: Any, b: Any) -> Any:
    """divmod(a, b)."""
    a, b = number_in(present(a)), number_in(present(b))
    if not is_symbolic(a, b):
        return divmod(a, b)
    checks.require_divisor(b)
    return a // b, a % b


@stands_for(pow)
def pow_(rt: Runtime, base: Any, exp: Any, mod: Any = None) -> Any:
    """pow(a, b) and pow(a, b, m)."""
    if mod is None or not is_symbolic(base, exp, mod):
        return pow(base, exp, mod)
    checks.require_divisor(mod)
    return (base**exp) % mod


def _math(function: Callable[..., Any], symbolic: Callable[..., Any]) -> None:
    def standin(rt: Runtime, *args: Any) -> Any:
        args = tuple(number_in(present(a)) for a in args)
        return symbolic(*args) if any(isinstance(a, Symbolic) for a in args) else function(*args)

    STANDINS[id(function)] = standin


_math(math.floor, lambda x: x if isinstance(x, torch.SymInt) else math.floor(x))
_math(math.ceil, lambda x: x if isinstance(x, torch.SymInt) else math.ceil(x))
_math(math.trunc, lambda x: x if isinstance(x, torch.SymInt) else torch.sym_int(x))
_math(math.pow, lambda a, b: torch.sym_float(a) ** torch.sym_float(b))
