"""`math` and NumPy's functions of sizes, and of numbers that data decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.capture.attempt import capture
from tests.capture.constructs.support import Case, Cases, T, check, lengths, positive, random

case = Cases()
NUMBERS = [torch.tensor([x, 0.5]) for x in (2.0, 0.25, -0.5, 0.0, 1.0, 100.0, math.inf, math.nan)]
FINITE = NUMBERS[:6]


@case(*lengths(4))
def numpy_of_sizes(x: T) -> Any:
    n, width = x.shape
    return x / np.sqrt(width), x * np.exp(-n / 7), x + np.rint(n * 0.5), x - np.log1p(n), x * np.hypot(n, 1)


@case(*lengths(4))
def numpy_chooses_sizes(x: T) -> Any:
    n = x.shape[0]
    return x[: np.minimum(n, 3)], x[np.maximum(n - 3, 0) :], x * np.clip(n, 2, 4)


@case(*lengths(4))
def math_of_sizes(x: T) -> Any:
    n = x.shape[0]
    top = int(2 * math.log(n)) + 1
    return x[:top], math.gcd(n, 6), math.isqrt(n), math.exp(-n), math.hypot(n, 1), math.log(n, 2.5)


@case(torch.ones(1000), torch.ones(1), torch.ones(10), torch.ones(999), torch.ones(100_000))
def digits_of_a_size(x: T) -> Any:
    return int(math.log10(x.shape[0])), torch.zeros(int(math.log10(x.sum().item())))


WHOLE = [1, 0, 2**29, 94906267**2 - 1, (2**30 + 1) ** 2 - 1, 3037000499**2 - 1, 3037000499**2, 2**63 - 1]

POWERS = [8.0, 2.0**29, 2.0**48, 2.0**-30, 1e308, 5e-324, 0.99, 3.0]


@case(*[torch.tensor([3, n]) for n in WHOLE])
def root_of_a_whole_number(x: T) -> Any:
    return x * math.isqrt(int(x[1]))


@case(
    *[
        torch.tensor([x], dtype=torch.float64)
        for x in (8.0, 2.0**29, 2.0**48, 2.0**-30, 1e308, 5e-324, 0.99, 3.0)
    ]
)
def bits_of_a_number(x: T) -> Any:
    y = x.item()
    return math.ceil(math.log2(y)), math.floor(math.log2(y)), math.log2(y)


@case(*lengths(4), torch.ones(1 << 15, 1), torch.ones(1 << 13, 1))
def bits_of_a_size(x: T) -> Any:
    return math.ceil(math.log2(x.shape[0])), torch.zeros(int(math.log2(x.shape[0])))


@case(*FINITE)
def math_of_data(x: T) -> Any:
    y = x[0].item()
    return (
        math.hypot(y, 1), math.fmod(y, 0.3), math.copysign(2.0, y), math.degrees(y),
        math.radians(y), math.fabs(y), math.expm1(y / 100), math.exp(-abs(y)),
    )  # fmt: skip


@case(*FINITE)
def logarithms_of_data(x: T) -> Any:
    y = x[0].item()
    return x * math.log(y), math.log10(y), math.log1p(y), math.log(y, 10)


@case(*FINITE)
def root_of_data(x: T) -> T:
    return x * math.sqrt(x[0].item())


@case(*NUMBERS)
def what_a_number_is(x: T) -> Any:
    y = x[0].item()
    if math.isnan(y):
        return torch.zeros(2), 0
    return (x * 2, 1) if math.isinf(y) or not math.isfinite(y) else (x, 2)


@case(*NUMBERS)
def numpy_of_data(x: T) -> Any:
    y = x[0].item()
    return x * np.minimum(y, 1.5), x * np.clip(y, 0.0, 1.0), x + np.sqrt(abs(y))


@case(*lengths(4))
def bits(x: T) -> Any:
    n = x.shape[0]
    padded = torch.nn.functional.pad(x, (0, 0, 0, (1 << (n - 1).bit_length()) - n))
    for i in range(n.bit_length()):
        x = x + x.roll(1 << i, 0)
    return padded, x, (int(x.sum() * 1e6)).bit_length(), (n - 5).bit_length()


@case(*lengths(4))
def whether_it_is_whole(x: T) -> Any:
    n = x.shape[0]
    half, third = n * 0.5, float(x.sum().round()) / 3
    y = x * 2 if half.is_integer() else x
    return (y + 1 if third.is_integer() else y), x * pow(n, 2, 5)


@case(*[torch.tensor([v, 1.0]) for v in (2.0, 2.5, -3.0, 0.0, 1e30, math.inf, -math.inf, math.nan)])
def whether_data_is_whole(x: T) -> T:
    return x * 2 if x[0].item().is_integer() else x + 1


@case.parametrize()
def test_mathematics(case: Case) -> None:
    """The model is the same function."""
    check(case)


@pytest.mark.parametrize("function", [np.sqrt, np.log2, math.log, math.isqrt])
def test_no_dimension_is_fixed(function: Any) -> None:
    """As `math.sqrt` of a size fixes none."""
    captured = capture(lambda x: x * function(x.shape[0]), (positive(5, 3),))
    assert not [a for a in captured.assumptions if a.status == "fixed"]


@pytest.mark.parametrize("function", [math.erf, lambda y: math.atan2(y, 2.0), lambda y: np.arctan2(y, 2.0)])
def test_what_onnxruntime_has_for_float32_alone(function: Any) -> None:
    """Python's numbers are float64."""
    program = ingot.export(lambda x: x * function(x[0].item()), (torch.ones(2),))
    for x in (-0.3, 0.0, 2.5):
        np.testing.assert_allclose(program(torch.tensor([x, 1.0])), [x * function(x), function(x)], rtol=1e-6)


def test_arrays_are_numpys_own() -> None:
    """A function of an array that the model holds stays a constant."""

    def scaled(x: T) -> T:
        return x * float(np.clip(np.sqrt(np.arange(4.0)), 0, 1).sum()) + np.minimum(2, 3)

    check(Case("scaled", lambda: scaled, [(random(3, 2),), (random(1, 2),)]))
