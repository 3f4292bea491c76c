"""Which outputs of float64 have fewer digits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import ingot
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_wide_output_of_narrow_numbers(dtype: torch.dtype) -> None:
    """Autocast computes in half precision what the model gives in float32: it has those digits."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)
            )

        def forward(self, x: T) -> T:
            with torch.autocast("cpu", dtype=dtype):
                y = self.layers(x)
            return y.float()

    program = ingot.export(Net(), (torch.randn(2, 64),))
    assert narrowest(program.model).popitem()[1] == str(dtype).removeprefix("torch.")
    assert program.verification is not None
    assert program.verification.worst > 2e-4, "float32's own tolerance would do"


def test_narrow_weights_that_are_widened_are_exact() -> None:
    """What was only kept in half precision is computed in float32, and held to that."""
    weight = torch.randn(4, 4).bfloat16()
    assert set(narrowest(capture(lambda x: x @ weight.float(), (torch.randn(5, 4),)).model).values()) == {
        "float32"
    }
