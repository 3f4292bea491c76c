"""Conditions on sizes, in words."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
from torch.utils._sympy import functions

from ingot.capture.one_of import OneOf
from ingot.capture.wording import in_words

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
