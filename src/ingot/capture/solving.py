"""Sizes for which a condition holds, found by computing it for a whole range: what only a few sizes meet (an
image with as many patches as there are positions) is not among the usual ones.
"""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

_MOST = 4096  # a size
_FEW = 32  # of the sizes on a line: others may not meet what else is known
_USUAL = (
    sympy.Symbol, sympy.Integer, sympy.Add, sympy.Mul,
    BooleanAtom, Relational, sympy.And, sympy.Or, sympy.Not,
)  # fmt: skip
_FUNCTIONS = {
    "FloorDiv": operator.floordiv, "CleanDiv": operator.floordiv, "Mod": operator.mod,
    "PythonMod": operator.mod, "Max": max, "Min": min, "Abs": abs,
}  # fmt: skip


def solved(
    condition: Any, sizes: Mapping[sympy.Symbol, Any], usual: Sequence[int]
) -> Iterator[dict[sympy.Symbol, Any]]:
    """Sizes under which a condition holds, each with the rest of `sizes` as they are: those that it
    compares with each other as one first, then each by itself, then each for usual numbers of another.

    Nothing where the condition has what is not computed here.
    """
    symbols = list(sizes)
    holds = _computed(condition, symbols)
    if holds is None:
        return
    now = [int(n) for n in sizes.values()]
    lines = [[symbols.index(s) for s in tied] for tied in _tied(condition, symbols)]
    for line in [*lines, *([i] for i in range(len(symbols)))]:
        for numbers in itertools.islice(_on_line(holds, now, line), _FEW):
            yield dict(zip(symbols, map(sympy.Integer, numbers), strict=True))
    for i, j in itertools.permutations(range(len(symbols)), 2):
        for n in usual:
            for numbers in itertools.islice(_on_line(holds, [*now[:i], n, *now[i + 1 :]], [j]), 2):
                yield dict(zip(symbols, map(sympy.Integer, numbers), strict=True))


def _on_line(holds: Callable[..., bool], now: Sequence[int], line: Sequence[int]) -> Iterator[list[int]]:
    """The numbers for which it holds, with one for all places of the line."""
    numbers = list(now)
    for n in range(_MOST + 1):
        for i in line:
            numbers[i] = n
        try:
            if holds(*numbers):
                yield list(numbers)
        except ArithmeticError:  # divided by a size of 0
            continue


def _computed(condition: Any, symbols: Sequence[sympy.Symbol]) -> Callable[..., bool] | None:
    """The condition as a function of Python's; None where it has others than the usual operators."""
    if not condition.free_symbols <= {*symbols} or not all(
        map(_is_usual, sympy.preorder_traversal(condition))
    ):
        return None
    return sympy.lambdify(symbols, condition, modules=[_FUNCTIONS, "math"])


def _is_usual(part: Any) -> bool:
    return isinstance(part, _USUAL) or type(part).__name__ in _FUNCTIONS


def _tied(condition: Any, symbols: Sequence[sympy.Symbol]) -> list[list[sympy.Symbol]]:
    """Symbols that it compares with each other."""
    found: list[list[sympy.Symbol]] = []
    for equation in sorted(condition.atoms(sympy.Eq, sympy.Ne), key=str):
        if {equation.lhs, equation.rhs} <= {*symbols}:
            pair = {equation.lhs, equation.rhs}
            joined = [g for g in found if not pair.isdisjoint(g)]
            found = [g for g in found if g not in joined]
            found.append([s for s in symbols if s in pair or any(s in g for g in joined)])
    return found
