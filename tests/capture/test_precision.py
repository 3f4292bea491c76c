"""Which outputs of float64 have fewer digits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.capture.precision import narrowest

T = torch.Tensor


def sum_widened(x: T) -> T:
    return x.sum().double() / 3


def value_computed_in_a_branch(x: T) -> T:
    return (x * 2).double() if x.sum() > 0 else x.double()


def widened_first(x: T) -> T:
    return x.double().sum() / 3


def sizes(x: T) -> T:
    return torch.arange(x.shape[0], dtype=torch.float64) / 3


def place_of_the_largest(x: T) -> T:
    return x.argmax().double() / 3


def choice(x: T) -> T:
    thirds, sevenths = (torch.ones(3, dtype=torch.float64) / n for n in (3, 7))
    return torch.where(x.sum() > 0, thirds, sevenths)


@pytest.mark.parametrize("function", [sum_widened, value_computed_in_a_branch])
def test_computed_in_float32(function: Callable[[T], T]) -> None:
    assert list(narrowest(capture(function, (torch.randn(5, 4),)).model).values()) == ["float32"]


@pytest.mark.parametrize("function", [widened_first, sizes, place_of_the_largest, choice])
def test_exact(function: Callable[[T], T]) -> None:
    """float32 decides at most which numbers these are: they are compared as float64."""
    assert narrowest(capture(function, (torch.randn(5, 4),)).model) == {}
