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


@pytest.mark.parametrize("function", [integers, integers_later, digits, half, small_integers])
def test_another_dtype_or_number_is_refused(function: Any) -> None:
    """PyTorch gives what no tensor can stand for."""
    with pytest.raises(
        DataDependentError, match=r"number of Python's, and .*torch.tensor\(0.0\)|on the other"
    ):
        capture(function, (random(5, 3),))
