"""What conditions on sizes say of one size: an inequality as a line, the least and the most, an equation of
minima as a bound.
"""

# SymPy and torch's functions for it are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, Or
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

INEQUALITIES = (sympy.Gt, sympy.Ge, sympy.Lt, sympy.Le)


@functools.lru_cache(maxsize=1 << 14)
def line_of(condition: Any) -> tuple[Any, Any, Any] | None:
    """An inequality of one whole number as `slope * number + constant >= 0`; None for anything else."""
    if not isinstance(condition, INEQUALITIES) or len(condition.free_symbols) != 1:
        return None
    (symbol,) = condition.free_symbols
    if not symbol.is_integer:
        return None
    greater = isinstance(condition, (sympy.Gt, sympy.Ge))
    difference: Any = condition.lhs - condition.rhs if greater else condition.rhs - condition.lhs
    if isinstance(condition, (sympy.Gt, sympy.Lt)):
        difference -= 1
    slope = difference.coeff(symbol)
    constant = difference - slope * symbol
    if not (slope.is_Integer and slope and constant.is_Integer):
        return None
    return symbol, int(slope), int(constant)


def bounds_of(conditions: Iterable[Any]) -> dict[Any, tuple[Any, Any]]:
    """The least and the most that each whole number is by these conditions."""
    found: dict[Any, tuple[Any, Any]] = {}
    for symbol, slope, constant in filter(None, map(line_of, conditions)):
        low, high = found.get(symbol) or _unbounded(symbol)
        if slope > 0:
            low = max(low, -(constant // slope))
        else:
            high = min(high, constant // -slope)
        found[symbol] = low, high
    return found


def follows(e: Any, bounds: Mapping[Any, tuple[Any, Any]]) -> bool | None:
    """Whether an inequality of one whole number holds for all between its bounds, or for none."""
    line = line_of(e)
    if line is None:
        return None
    symbol, slope, constant = line
    ends = [slope * n + constant for n in bounds.get(symbol) or _unbounded(symbol)]
    if min(ends) >= 0:
        return True
    return False if max(ends) < 0 else None


def implied(e: Any, bounds: Mapping[Any, tuple[Any, Any]]) -> bool:
    """Whether a condition is known to hold for all whole numbers between these bounds."""
    if isinstance(e, Or):
        e = Or(*(_of_one(a, bounds) for a in e.args))
        return e == True or any(implied(a, bounds) for a in e.args if isinstance(e, Or))  # noqa: E712
    if isinstance(e, And):
        return all(implied(a, bounds) for a in e.args)
    e = _of_one(e, bounds)
    if not isinstance(e, Relational):
        return e == True  # noqa: E712  (a SymPy object)
    ends = {s: bounds.get(s) or _unbounded(s) for s in e.free_symbols}
    if not all(s.is_integer for s in ends):
        return False
    found = bound_sympy(e, {s: ValueRanges(*map(_end, both)) for s, both in ends.items()})
    return found.is_singleton() and bool(found.lower)


def _of_one(e: Any, bounds: Mapping[Any, tuple[Any, Any]]) -> Any:
    """A formula without the minima that one of their parts always is."""
    known: dict[Any, Any] = {}
    for least in e.atoms(sympy.Min, functions().Min):
        for a in least.args:
            if all(follows(sympy.Le(a, b), bounds) for b in least.args if b != a):
                known[least] = a
                break
    return e.xreplace(known) if known else e


def _end(n: Any) -> Any:
    return int_oo if n == math.inf else -int_oo if n == -math.inf else n


def _unbounded(symbol: Any) -> tuple[Any, Any]:
    """The least and the most of what no condition is about: a size is at least 0, data may be anything."""
    return 0 if symbol.is_nonnegative else -math.inf, math.inf


def _as_min(e: Any) -> Any:
    """n - max(a, b) as min(n - a, n - b): the length of a slice that counts from the end."""
    highest_of = (sympy.Max, functions().Max)
    if isinstance(e, highest_of) and len(e.args) == 2 and sympy.S.Zero in e.args:
        least = _as_min(e.args[0] + e.args[1])
        return least if least.is_nonnegative else e
    highest = [t for t in e.args if isinstance(-t, highest_of)] if e.is_Add else []
    if len(highest) != 1:
        return e
    rest = e - highest[0]
    return sympy.Min(*(rest - a for a in (-highest[0]).args))


def as_bound(equation: Any) -> Any:
    """min(n, s) == s says s <= n; an equation that its definitions made true or false stays."""
    if not isinstance(equation, sympy.Eq):
        return equation
    left, right = map(_as_min, equation.args)
    for side, other in ((left, right), (right, left)):
        if isinstance(side, (sympy.Min, functions().Min)) and other in side.args:
            rest = [a for a in side.args if a != other]
            return And(*[sympy.Le(other, a) for a in rest])
    return equation


@functools.lru_cache(maxsize=1)
def functions() -> Any:
    """torch's own SymPy functions, two of them mended."""
    from ingot.capture.division import functions as mended

    return mended
