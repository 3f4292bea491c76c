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

from ingot.capture.by_numbers import NoNumber, compared, number, points

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

    @staticmethod
    def of_numbers(condition: bool, a: int, b: int) -> int:
        """What it is for some numbers."""
        return a if condition else b

    def _sympystr(self, printer: Any) -> str:
        condition, a, b = map(printer.doprint, self.args)
        return f"({a} if {condition} else {b})"


def _where_equal(condition: Any, e: Any) -> Any:
    """A formula where a condition holds that says which number a size is, or a part of the formula."""
    said = _said(condition)
    return e.xreplace({said.lhs: said.rhs}) if said is not None else e


def _said(condition: Any) -> Any:
    """The equation with a number that a condition is; None where it is none."""
    if isinstance(condition, sympy.Eq) and condition.rhs.is_number:
        return condition
    if isinstance(condition, (sympy.Le, sympy.Ge)) and condition.gts == 0 and condition.lts.is_nonnegative:
        return sympy.Eq(condition.lts, 0, evaluate=False)  # no padding, as it is not more than none
    if isinstance(condition, (sympy.Lt, sympy.Gt)) and condition.gts == 1 and _counts(condition.lts):
        return sympy.Eq(condition.lts, 0, evaluate=False)
    return None


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
        if _differ(e, condition):
            continue
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


def _differ(e: Any, condition: Any) -> bool:
    """Whether numbers show that a formula is not one on both sides of a condition: it differs for some, where
    the condition is what `_where_equal` takes it for. Nor may a comparison be the condition, its opposite, or
    always the same.
    """
    of_all = e.atoms(OneOf)
    choices = [choice for choice in of_all if choice.args[0] == condition]
    compares = isinstance(e, Relational)
    if not compares and not isinstance(e, sympy.Expr):
        return False
    if compares and any(a.has(OneOf, condition) for x in of_all for a in x.args if a != condition):
        return False  # either side may know more of it than what it chose
    said = _said(condition)
    said = _said(Not(condition)) if said is None else said
    differ = False
    answers = set[bool](), set[bool]()  # of either side
    agree = set[bool](), set[bool]()  # whether they are the condition's
    for numbers in points(e.free_symbols | condition.free_symbols):
        plain: dict[Any, Any] = {}
        try:
            if said is not None and not number(said, numbers, plain):
                continue
            holds = number(condition, numbers, plain)
            known = [{choice: number(choice.args[i], numbers, plain) for choice in choices} for i in (1, 2)]
            sides = [[number(a, numbers, x) for a in (e.args if compares else (e,))] for x in known]
        except NoNumber:
            continue
        differ = differ or sides[0] != sides[1]
        if compares:
            for side, answer, same in zip(sides, answers, agree, strict=True):
                answer.add(compared(type(e), side))
                same.add(compared(type(e), side) == holds)
        if differ and (not compares or all(len(found) == 2 for found in (*answers, *agree))):
            return True
    return False
