"""Formulas over sizes, worked out by Python's own numbers instead of SymPy."""

# SymPy and torch's functions for it are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.capture import one_of
from ingot.capture.bounds import functions
from ingot.capture.by_numbers import NoNumber, number, points
from ingot.capture.one_of import OneOf, told_apart

SIZES: list[Any] = [sympy.Symbol(f"s{i}", integer=True, nonnegative=True) for i in range(3)]
RELATIONS: list[Any] = [sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge]
Draw = Any
UNDEFINED = (ZeroDivisionError, ValueError, AssertionError)  # AssertionError: torch's, of a remainder below 0


def _formula(draw: Draw, depth: int) -> Any:
    if not depth:
        return draw(st.sampled_from([*SIZES, *map(sympy.Integer, range(4))]))
    a, b, made = _formula(draw, depth - 1), _formula(draw, depth - 1), functions()
    step = sympy.Integer(draw(st.sampled_from([2, 4, 7])))
    kind = draw(st.integers(0, 7))
    if kind < 4:
        return (a + b, a * b, a + 1, a - 1)[kind]
    if kind < 6:
        return (sympy.Max, sympy.Min)[kind - 4](a, b)
    return (made.FloorDiv, made.Mod)[kind - 6](a, step)


def _condition(draw: Draw) -> Any:
    """What conditions choose sizes by: something left over, a length of 1, none, more than another."""
    size, other = draw(st.sampled_from(SIZES)), draw(st.sampled_from([*SIZES, *map(sympy.Integer, range(4))]))
    left = functions().Mod(size, sympy.Integer(draw(st.sampled_from([2, 4]))))
    made = draw(st.sampled_from(RELATIONS))(*draw(st.sampled_from([(size, other), (left, sympy.S.Zero)])))
    return sympy.Ne(size, 0) if made in (sympy.true, sympy.false) else made


def _chosen(draw: Draw, condition: Any) -> Any:
    size = draw(st.sampled_from(SIZES))
    padded = size - functions().Mod(size, 4) + 4
    sides = draw(st.sampled_from([None, (padded, size), (size, sympy.S.One), (size, sympy.S.Zero)]))
    return OneOf(condition, *(sides or (_formula(draw, 1), _formula(draw, 1))))


@st.composite
def formulas(draw: Draw) -> Any:
    """A formula, or a comparison of two, with sizes in it that one or two conditions choose."""
    condition = _condition(draw)
    first = _chosen(draw, condition)
    second = _chosen(draw, condition if draw(st.booleans()) else _condition(draw))
    around = draw(st.sampled_from([first, first + second, first - second, functions().FloorDiv(first, 4)]))
    other = draw(st.sampled_from([second, sympy.S.Zero, sympy.S.One, second + 1, _formula(draw, 1)]))
    relation = draw(st.sampled_from([None, *RELATIONS]))
    return around if relation is None else relation(around, other)


@given(formulas())
@settings(max_examples=400, deadline=None)
def test_numbers_are_those_of_sympy(e: Any) -> None:
    """Sums, products, quotients, remainders, extremes, comparisons and what conditions choose."""
    for numbers in points(e.free_symbols):
        try:
            found = number(e, numbers, {})
        except NoNumber:
            continue
        assert e.xreplace({s: sympy.Integer(n) for s, n in numbers.items()}) == found


@given(formulas())
@settings(max_examples=400, deadline=None)
def test_numbers_tell_no_formula_apart_that_sympy_finds_to_be_one(e: Any) -> None:
    """What is not asked of SymPy, as numbers differ, it would have said no to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_of, "_differ", lambda *_: False)
        try:
            wanted = told_apart.__wrapped__(e)
        except UNDEFINED:
            return
    assert told_apart.__wrapped__(e) == wanted


def test_sizes_of_a_deep_network_are_told_apart_by_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is padded to patches, and its feature maps to windows again and again: what comes out is
    another size for either answer to whether it had to be.
    """
    asked = list[Any]()
    monkeypatch.setattr(one_of, "_where_equal", lambda condition, e: asked.append(condition) or e)
    size: Any = OneOf(
        sympy.Ne(functions().Mod(SIZES[0], 4), 0), SIZES[0] - functions().Mod(SIZES[0], 4) + 4, SIZES[0]
    )
    asked.clear()
    for _ in range(4):
        size = functions().FloorDiv(size + 1, 2)
        windows = functions().FloorDiv(size + functions().Mod(7 - functions().Mod(size, 7), 7), 7)
        for e in (size, windows, sympy.Eq(windows * 7, size), sympy.Ne(windows, 1)):
            assert told_apart.__wrapped__(e) == e
    assert not asked, f"SymPy was asked {len(asked)} times"
