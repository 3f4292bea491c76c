"""Functions of float64 that are written in others: their digits, and the signs of their zeros."""

# Cases are functions of torch, which is untyped.
# pyright: basic

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ingot.capture.aten import doubles
from ingot.capture.attempt import capture
from tests.capture.support import ort_runner

T = torch.Tensor
FUNCTIONS: dict[str, Callable[[T], T]] = {
    "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh, "Atan": torch.atan,
    "Atanh": torch.atanh, "Cosh": torch.cosh, "Erf": torch.erf, "Mish": torch.nn.functional.mish,
    "Sinh": torch.sinh, "Tan": torch.tan,
}  # fmt: skip
SIZES = torch.logspace(-300, 300, 601, dtype=torch.float64)
NEAR = torch.logspace(-15, -1, 57, dtype=torch.float64)
TURNS = torch.arange(-40, 41, dtype=torch.float64) * (math.pi / 2)
POINTS = torch.cat(
    (
        torch.linspace(-30, 30, 2001, dtype=torch.float64), SIZES, -SIZES, 1 - NEAR, 1 + NEAR, NEAR - 1,
        TURNS, TURNS + 1e-9, torch.tensor([0.0, 1, -1, 709.5, 710.4, -710.4, 711]).double(),
        torch.tensor([math.inf, -math.inf, math.nan]).double(),
    )
)  # fmt: skip
ODD = ("Asin", "Asinh", "Atan", "Atanh", "Erf", "Mish", "Sinh", "Tan")
STEPS = 16  # units of the last place, torch's own error among them


@pytest.mark.parametrize("name", FUNCTIONS)
def test_digits_of_float64(name: str) -> None:
    """At every size, and where the function is 0, infinite or steep."""
    got, want = doubles.FORMS[name](POINTS), FUNCTIONS[name](POINTS)
    assert torch.equal(torch.isnan(got), torch.isnan(want)), POINTS[torch.isnan(got) != torch.isnan(want)]
    off = (got - want).abs() > STEPS * 2.0**-53 * want.abs()
    assert not off.any(), (POINTS[off], got[off], want[off])


def test_gelu_keeps_the_digits_of_its_tail() -> None:
    """Where PyTorch's own sum has lost them."""
    x = torch.linspace(-37, 30, 500, dtype=torch.float64)
    want = x / 2 * torch.special.erfc(-x / math.sqrt(2))
    torch.testing.assert_close(doubles.gelu(x), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ODD)
def test_signs_of_zeros(name: str) -> None:
    """As PyTorch has them, in ONNX Runtime as well."""
    zeros = torch.tensor([0.0, -0.0], dtype=torch.float64)
    captured = capture(FUNCTIONS[name], (zeros,))
    (got,) = ort_runner(captured.model)(captured.feeds([zeros]), captured.output_names)
    np.testing.assert_array_equal(np.signbit(got), torch.signbit(FUNCTIONS[name](zeros)).numpy())
