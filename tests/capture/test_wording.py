"""Conditions on sizes, in words."""

from __future__ import annotations

from typing import Any, cast

import pytest
import sympy
from torch.utils._sympy import functions

from ingot.capture.one_of import OneOf
from ingot.capture.wording import in_users_terms, in_words

batch, length = (sympy.Symbol(n, integer=True, nonnegative=True) for n in ("batch", "length"))
half: Any = functions.FloorDiv(length, 2)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (sympy.Eq(batch, 4), "batch = 4"),
        (sympy.Eq(batch, 2 * length), "batch = 2*length"),
        (sympy.Ne(batch, 1), "batch is not 1"),
        (sympy.Ge(batch, 1), "batch is at least 1"),
        (sympy.Le(1, batch, evaluate=False), "batch is at least 1"),
        (sympy.Lt(batch, length), "batch is less than length"),
        (sympy.Gt(batch, length + 1), "batch is more than length + 1"),
        (sympy.Le(functions.Max(1, batch), length), "max(1, batch) is at most length"),
        (sympy.Eq(functions.Mod(length, 4), 0), "length is a multiple of 4"),
        (sympy.Ne(functions.Mod(length, 4), 0), "length is not a multiple of 4"),
        (sympy.Eq(length, 2 * half), "length is a multiple of 2"),
        (sympy.Eq(batch * length, 2 * batch * half), "length is a multiple of 2, or batch is 0"),
        (sympy.Eq(3 * half + 1, batch), "batch = 3*(length // 2) + 1"),
        (sympy.And(batch > 1, length < 9), "batch is more than 1 and length is less than 9"),
        (sympy.Or(batch > 1, sympy.And(batch < 9, length > 2)),
         "(batch is less than 9 and length is more than 2) or batch is more than 1"),
        (sympy.Eq(OneOf(batch > 1, length, batch), 3), "(length if batch is more than 1 else batch) = 3"),
    ],
)  # fmt: skip
def test_words(condition: Any, words: str) -> None:
    """Names of dimensions, numbers on the right, and no name of SymPy's or torch's."""
    assert in_words(condition) == words


def test_a_product_of_divisions_is_no_multiple(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many windows as fit into an image that was padded for them: SymPy would simplify it for long."""
    monkeypatch.setattr(sympy, "cancel", lambda _: pytest.fail("simplified"))
    divided, rest = cast("tuple[Any, Any]", (functions.FloorDiv, functions.Mod))
    height, width = (n + rest(7 - rest(n, 7), 7) for n in (batch, length))
    rows, columns = (divided(n, 7) for n in (height, width))
    words = in_words(sympy.Eq(height * width, 49 * rows * columns, evaluate=False))
    assert " = " in words
    assert " is a multiple of " not in words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("'Rows' object is not iterable", "a list that data fills is not iterable"),
        ("cannot unpack non-iterable Many object", "cannot unpack non-iterable a list that data fills"),
        ("must be real number, not Perhaps", "must be real number, not a list that data fills"),
        ("expected Tensor as element 0, but got Rows",
         "expected Tensor as element 0, but got a list that data fills"),
        ("object of type 'Many' has no len()", "object of type a list that data fills has no len()"),
        ("unhashable type: 'TracedDict'", "unhashable type: a dict that data fills"),
        ("unsupported operand type(s) for +: 'int' and 'Rows'",
         "unsupported operand type(s) for +: 'int' and a list that data fills"),
        ("SymInt found", "a whole number that data or a size decides found"),
        ("Many heads need as many Rows", "Many heads need as many Rows"),
        ("'Rows'", "'Rows'"),  # of a KeyError
        ("'Net' object has no attribute 'Perhaps'", "'Net' object has no attribute 'Perhaps'"),
        ("Columns and 'Rows' must be even", "Columns and 'Rows' must be even"),
    ],
)  # fmt: skip
def test_names_of_classes(said: str, words: str) -> None:
    """Ingot's own are not shown; a model's errors have words of their own."""
    assert in_users_terms(said) == words
