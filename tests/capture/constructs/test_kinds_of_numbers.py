"""Numbers that are an int or a float as data decides, of `max(v, 0)` and its like: PyTorch gives what is
made of them another dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check

INPUTS = [torch.tensor(v) for v in ([1.5, 2.0, 0.0], [-1.5, -2.0], [-1.5], [-1.5, 7.0], [0.0, -0.0])]
case = Cases()


def first(x: T) -> float:
    return x[0].item()


@case(*INPUTS)
def beside_floats(x: T) -> tuple[T, T, T]:
    v = max(first(x), 0)
    return x * v, torch.full((2,), v, dtype=torch.float64), x.clamp(min=min(v, 1)) + v // 2


@case(*INPUTS)
def made_one(x: T) -> tuple[T, ...]:
    n, v = torch.arange(3), max(first(x), 0)
    return n * float(v), n * int(v), n * round(v), n * (v + 0.5), n * (v / 2), n * math.sqrt(v)


@case(*INPUTS)
def of_two_floats(x: T) -> tuple[T, float]:
    return torch.arange(2) * max(first(x), 0.0), min(first(x), 1.0)


@case(*INPUTS)
def over_rounds(x: T) -> T:
    most = 0
    for v in x:
        most = max(most, v.item())
    return x * most


@case.parametrize()
def test_where_the_kind_makes_no_difference(case: Case) -> None:
    """Or where the model has chosen one."""
    check(case)


def tensor(x: T) -> T:
    return torch.tensor(max(first(x), 0))


def full(x: T) -> T:
    return torch.full((2,), max(0, first(x)))


def product(x: T) -> T:
    return torch.arange(3) * max(first(x), 1)


def more(x: T) -> T:
    return torch.arange(3) * (max(first(x), 0) + 1)


def negative(x: T) -> T:
    return torch.arange(3) * -min(first(x), 0)


def quotient(x: T) -> T:
    return torch.arange(3) * (max(first(x), 0) // 2)


def chosen(x: T) -> T:
    return torch.where(x > 0, max(first(x), 2), torch.tensor(1))


def evenly(x: T) -> T:
    return torch.arange(max(first(x), 2))


def output(x: T) -> Any:
    return min(first(x), 1)


def truth(x: T) -> T:
    return torch.arange(2) * max(first(x), True)


def whole(x: T) -> T:
    return x + 1 if isinstance(max(first(x), 0), int) else x


def kind(x: T) -> T:
    return x + 1 if type(max(first(x), 0)) is int else x


def of_a_branch(x: T) -> T:
    return torch.arange(2) * ((first(x) if x.sum() > 0 else 0) * 2)


def of_rounds(x: T) -> T:
    most = 0
    for v in x:
        most = max(most, v.item())
    return torch.arange(2) * most


def zeros_of_pythons_int() -> T:
    """What makes `int` Python's own in this module: it is given to torch."""
    return torch.zeros(3, dtype=int)  # pyright: ignore


def kinds_of(n: Any) -> int:
    return 2 if isinstance(n, float) else 3 if isinstance(n, int) else 5


asked = Cases()


@asked(*INPUTS)
def of_sizes(x: T) -> tuple[T, T, T]:
    n = x.shape[0]
    here = isinstance(n * 0.5, float) and isinstance(n, int) and not isinstance(n, float)
    return x * kinds_of(n), x * kinds_of(n / 2), x * 2 if here else x


@asked(*INPUTS)
def of_numbers_of_data(x: T) -> tuple[T, T]:
    return x * kinds_of(first(x)), x * kinds_of(int(first(x)))


@asked.parametrize()
def test_what_a_number_is_may_be_asked(case: Case) -> None:
    """A size is an int, what is computed of it perhaps a float."""
    check(case)


@pytest.mark.parametrize(
    "function",
    [
        *(tensor, full, product, more, negative, quotient, chosen, evenly, output, truth),
        *(whole, kind, of_a_branch, of_rounds),
    ],
)
def test_where_it_does_the_export_is_refused(function: Callable[[T], T]) -> None:
    """With both kinds, and the line that decides which it is."""
    with pytest.raises(DataDependentError, match=r"(float or int|bool or float), as .*test_kinds_of_numbers"):
        capture(function, (INPUTS[0],))
