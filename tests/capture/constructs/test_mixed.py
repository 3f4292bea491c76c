"""A tensor on one side of a branch, a number of Python's on the other: the same with either, or refused."""

# The constructs are written as people write them.

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, random

case = Cases()
SIGNS = both_signs()


@case(*SIGNS)
def sum_that_begins_with_a_number(x: T) -> T:
    total = 0
    if x[0].sum() > 0:
        total = total + x[0].sum()
    if x[-1].sum() > 0.5:
        total = total + x[-1].sum()
    return x * (total / 2 - 1)


@case(*SIGNS)
def tensor_or_number(x: T) -> tuple[T, ...]:
    k = x.max() if x.sum() > 0 else 2
    return x * k, torch.where(x > 0, k, x), torch.clamp(x, min=max(x.min(), 0)), x.double() * k


@case(*SIGNS)
def whole_tensor_or_whole_number(x: T) -> tuple[T, ...]:
    k = x.long().sum() if x.sum() > 0 else 2
    return torch.arange(3) * k, x * k, torch.arange(3) / (k * k + 1)


@case(*SIGNS, random(0, 3))
def sum_of_rounds(x: T) -> tuple[T, T]:
    total, most = 0, 0.0
    for row in x:
        if row.sum() > 0:
            total = total + row.sum()
        most = max(most, row.max())
    return x * (total / 2 - 1), x + most


@case(*SIGNS, random(0, 3))
def truth_of_rounds(x: T) -> T:
    found, every = False, True
    for row in x:
        found = found | (row > 0.5).any()
        every = every & (row > 0).all()
    return (x - 1) * found * every


@case(*SIGNS)
def truth_on_one_side(x: T) -> T:
    found = (x > 0.5).any() if x.sum() > 0 else False
    return x * found


@case(*SIGNS)
def a_number_that_no_tensor_of_the_rounds_has(x: T) -> T:
    best = 0.5
    for row in x:
        best = row.long().max()
    return x * best


@case(*SIGNS)
def added_in_place(x: T) -> tuple[T, T]:
    total = 0
    if x[0].sum() > 0:
        total = x[0].sum()
    total += x[-1].sum()
    total *= 2
    return x * total, total


@case.parametrize()
def test_mixed(case: Case) -> None:
    """As eager, for all inputs."""
    check(case)


def integers(x: T) -> T:
    k = x.max() if x.sum() > 0 else 2
    return torch.arange(3) * k


def integers_later(x: T) -> T:
    k = x.max() if x.sum() > 0 else 0
    if x.min() < -1:
        k = k + 1
    return torch.arange(3) * (k * 3)


def digits(x: T) -> T:
    k = x.max() if x.sum() > 0 else 0.1
    return x.double() * k


def half(x: T) -> T:
    k = x.half().max() if x.sum() > 0 else 70000.0
    return x * k


def small_integers(x: T) -> T:
    k = x.to(torch.int8).max() if x.sum() > 0 else 300
    return torch.arange(3) * k


def integers_of_rounds(x: T) -> T:
    total = 0
    for row in x[x[:, 0] > 0]:
        total = total + row.sum()
    return torch.arange(3) * total


def integers_in_rounds(x: T) -> T:
    total, found = 0, torch.arange(3)
    for row in x[x[:, 0] > 0]:
        found = found * total
        total = row.sum()
    return found


def number_of_a_round(x: T) -> T:
    k = x.long().sum()
    for row in x[x[:, 0] > 0]:
        k = k + 1 if row.sum() > 0 else 0.5
    return x * k


def opposite_truth(x: T) -> T:
    found = False
    for row in x[x[:, 0] > 0]:
        found = found | (row > 0).any()
    return x * ~found


def kept_before_it_is_added_to(x: T) -> T:
    total = x[0].sum() if x.sum() > 0 else 0
    before = total
    total += x[1].sum()
    return x * before + total


IN_LOOPS = [integers_of_rounds, integers_in_rounds, number_of_a_round, opposite_truth]


@pytest.mark.parametrize(
    "function",
    [integers, integers_later, digits, half, small_integers, *IN_LOOPS, kept_before_it_is_added_to],
)
def test_another_dtype_or_number_is_refused(function: Any) -> None:
    """PyTorch gives what no tensor can stand for."""
    what = r"number of Python's, and .*torch.tensor\((0.0|False)\)|on the other|hold both"
    with pytest.raises(DataDependentError, match=what):
        capture(function, (random(5, 3),))
