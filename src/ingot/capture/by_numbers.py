"""What formulas over whole numbers are for some numbers, worked out by Python's own.

SymPy takes a hundred times as long to put numbers into a formula; and whether two formulas are one it need
not be asked where they differ for some numbers.
"""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import sympy

from ingot.capture.bounds import functions

Numbers = Mapping[Any, int]


#: Sizes for the symbols of a formula, as `times * place + plus`: those of images, and what is a little less;
#: none and one; few; those of texts; such that leave something over.
SIZES = (
    *((448, 448), (448, 444), (0, 0), (32, 96), (0, 1), (4, 4), (448, 432), (0, 2)),
    *((12, 100), (37, 1000), (2, 641), (7, 7)),
)


class NoNumber(Exception):
    """A formula with something in it that is not worked out here, or that has no value for these numbers."""


def number(e: Any, numbers: Numbers, known: dict[Any, Any]) -> Any:
    """A formula's integer or truth value. A function of our own says it itself, in `of_numbers`.

    known: what parts of formulas are for these numbers, as far as that is known; it grows

    Raises:
        NoNumber
    """
    found = known.get(e)
    if found is None:
        if e.is_Symbol:
            if e not in numbers:
                raise NoNumber
            found = numbers[e]
        elif e.is_Integer:
            found = int(e)
        else:
            rule = _rules().get(type(e)) or getattr(type(e), "of_numbers", None)
            if rule is None:
                raise NoNumber
            found = rule(*(number(a, numbers, known) for a in e.args))
        known[e] = found
    return found


def points(symbols: Collection[Any]) -> Iterator[dict[Any, int]]:
    """Numbers for the symbols of a formula, several times; none where one of them may be no whole number."""
    if all(s.is_integer and s.is_nonnegative for s in symbols):
        in_order = sorted(symbols, key=str)
        yield from ({s: times * i + plus for i, s in enumerate(in_order)} for times, plus in SIZES)


def compared(relation: type, values: Sequence[Any]) -> bool:
    """Whether two numbers are as a kind of comparison says."""
    return bool(_rules()[relation](*values))


def _divided(a: int, b: int) -> int:
    if b <= 0:  # of which torch's functions have more to say
        raise NoNumber
    return a // b


def _left(a: int, b: int) -> int:
    if b <= 0:
        raise NoNumber
    return a % b


def _power(a: int, b: int) -> int:
    if not 0 <= b < 64:
        raise NoNumber
    return a**b


@functools.lru_cache(maxsize=1)
def _rules() -> dict[type, Callable[..., Any]]:
    torchs = functions()
    return {
        sympy.Add: lambda *a: sum(a),
        sympy.Mul: lambda *a: math.prod(a),
        sympy.Pow: _power,
        sympy.Max: max,
        sympy.Min: min,
        torchs.Max: max,
        torchs.Min: min,
        torchs.FloorDiv: _divided,
        torchs.Mod: _left,
        torchs.PythonMod: _left,
        sympy.Mod: _left,
        sympy.Eq: operator.eq,
        sympy.Ne: operator.ne,
        sympy.Lt: operator.lt,
        sympy.Le: operator.le,
        sympy.Gt: operator.gt,
        sympy.Ge: operator.ge,
        sympy.And: lambda *a: all(a),
        sympy.Or: lambda *a: any(a),
        sympy.Not: operator.not_,
    }
