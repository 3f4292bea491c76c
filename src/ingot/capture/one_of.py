"""A size that is one of two, as a condition on sizes says, in formulas."""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import Not

_APART = 2  # conditions that a formula is looked at for


class OneOf(sympy.Function):
    """`a` where the condition holds, else `b`: a Piecewise that SymPy leaves as it is.

    Piecewise carries conditions through every formula around it, and a deep network's sizes never end.
    """

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, condition: Any, a: Any, b: Any) -> Any:
        """What is known by now; `b` too where the condition makes it `a`, as a length of 1 is the 1."""
        if a == b or condition == sympy.true:
            return a
        if condition == sympy.false or _where_equal(condition, b) == a:
            return b
        return a if isinstance(condition, sympy.Ne) and _where_equal(Not(condition), a) == b else None

    def _sympystr(self, printer: Any) -> str:
        condition, a, b = map(printer.doprint, self.args)
        return f"({a} if {condition} else {b})"


def _where_equal(condition: Any, e: Any) -> Any:
    """A formula where a condition holds that says which number a size is, or a part of the formula."""
    if isinstance(condition, sympy.Eq) and condition.rhs.is_number:
        return e.xreplace({condition.lhs: condition.rhs})
    if isinstance(condition, (sympy.Le, sympy.Ge)) and condition.gts == 0 and condition.lts.is_nonnegative:
        return e.xreplace({condition.lts: sympy.S.Zero})  # no padding, as it is not more than none
    if isinstance(condition, (sympy.Lt, sympy.Gt)) and condition.gts == 1 and _counts(condition.lts):
        return e.xreplace({condition.lts: sympy.S.Zero})
    return e


def _counts(e: Any) -> bool:
    return bool(e.is_integer and e.is_nonnegative)


def _answers(condition: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What a condition and its opposite are on either side of a branch on it."""
    opposite = Not(condition)
    return {condition: sympy.true, opposite: sympy.false}, {condition: sympy.false, opposite: sympy.true}


@functools.lru_cache(maxsize=4096)
def told_apart(e: Any) -> Any:
    """A formula over sizes that are one of two, as conditions say, where it turns out to be one for both."""
    conditions = {choice.args[0] for choice in e.atoms(OneOf)}
    if len(conditions) > _APART:
        return e
    for condition in sorted(conditions, key=str):
        sides = [
            e.xreplace({choice: choice.args[i] for choice in e.atoms(OneOf) if choice.args[0] == condition})
            for i in (1, 2)
        ]
        if isinstance(e, Relational):  # the very condition, asked again of what it chose
            sides = [side.xreplace(known) for side, known in zip(sides, _answers(condition), strict=True)]
        first, second = _where_equal(condition, sides[0]), _where_equal(Not(condition), sides[1])
        if first == second or _where_equal(condition, second) == first:
            e = second
        elif {first, second} == {sympy.true, sympy.false}:
            e = condition if first == sympy.true else Not(condition)
        elif _where_equal(Not(condition), first) == second:
            e = first
    return e
