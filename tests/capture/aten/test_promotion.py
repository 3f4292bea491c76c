"""Dtypes that operands, scalars and writes in place decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.capture.support import parity

Tensor = torch.Tensor


def test_comparisons_in_place() -> None:
    """What is written is 0 or 1 in the tensor's own dtype."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        a, b, c, d = x.clone(), x.clone(), x.clone(), (x * 2).long()
        a.gt_(0.5)
        b.logical_not_()
        c.logical_and_(x > 0)
        d.eq_(2)
        return a, b * 2, c + x, d + 1

    parity(function, (torch.tensor([[-1.0, 0.0, 1.0], [0.7, 0.2, -0.0]]),))


def test_a_number_among_integers() -> None:
    """A float is not cut to the boundaries' dtype."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return torch.searchsorted(x, 2.5), torch.bucketize(2.5, x), torch.searchsorted(x, 2)

    parity(function, (torch.tensor([0, 1, 2, 3, 4]),))


def test_places_in_integers() -> None:
    """torch rounds start and step to the dtype, and the last of evenly spaced ones is the end."""

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        n = x.shape[0]
        return torch.arange(0, n, 1.5, dtype=torch.int64), torch.linspace(0, n, 50, dtype=torch.int64)

    parity(function, (torch.zeros(8),), *((torch.zeros(n),) for n in (1, 2, 3, 9, 49)))


def test_evenly_spaced_frames() -> None:
    """Which frames a video model takes: the steps are float32's, whose whole part is another one at times."""

    def function(x: Tensor) -> Tensor:
        return torch.linspace(0, x.shape[0] - 1, 8).long()

    parity(function, (torch.zeros(20),), *((torch.zeros(n),) for n in range(8, 300, 7)))


def test_truth_values() -> None:
    """Their squares are integers; alpha counts."""

    def function(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return torch.square(a), torch.add(a, b, alpha=False)

    parity(function, (torch.tensor([True, False]), torch.tensor([[True, True], [False, True]])))


def test_bounds_of_truth_values() -> None:
    """ONNX's Clip takes none, nor do Max and Min."""

    def function(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return torch.clamp_min(a, b), a.clamp_max(b[0])

    parity(function, (torch.tensor([True, False]), torch.tensor([True, False])))


def test_factors_of_whole_numbers() -> None:
    """Beside a product of whole numbers, torch cuts the factors to whole ones."""

    def function(c: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.addbmm(c, a, b, beta=0.6, alpha=1.7),
            torch.addbmm(c, a, b, beta=2, alpha=3),
            torch.baddbmm(c, a, b, beta=2, alpha=3),
        )

    for dtype in (torch.int64, torch.int8):
        shapes = ((2, 2), (3, 2, 4), (3, 4, 2))
        parity(function, tuple(torch.arange(math.prod(s)).reshape(s).to(dtype) for s in shapes))


POWERS: list[Callable[[Tensor], Any]] = [lambda x, n=n: x**n for n in (0, 1, 2, 3, 5, 12)]


@pytest.mark.parametrize("power", POWERS)
def test_powers_of_integers(power: Callable[[Tensor], Any]) -> None:
    """Exact, and wrapping where they are beyond the dtype; no float is on the way."""
    parity(power, (torch.tensor([12345, -12345, 987654321, 3, 0, -1]),))
    parity(power, (torch.tensor([[123, -7], [5, 2]], dtype=torch.int8),))


def test_rests_of_large_integers() -> None:
    """Beyond the 53 bits of a float64."""
    x = torch.tensor([2**53 + 1, -(2**53) - 1, 7, -7])
    parity(lambda x: (torch.fmod(x, 10), torch.fmod(x, torch.tensor(-3))), (x,))


def test_zeros_with_a_sign() -> None:
    """What lies between -1 and 0 is rounded to -0."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        return 1 / torch.trunc(x), 1 / torch.div(x, 2, rounding_mode="trunc")

    parity(function, (torch.tensor([-0.0, 0.0, -0.5, 0.5, -3.5, 3.5, math.inf, -math.inf, math.nan]),))


DOUBLES: dict[str, Callable[[Tensor], Tensor]] = {
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "rrelu": F.rrelu,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "elu": lambda x: F.elu(x, 0.3),
    "addmm": lambda x: torch.addmm(x, x, x.t(), beta=0.1, alpha=0.3),
}


@pytest.mark.parametrize("name", DOUBLES)
def test_float64_is_not_cut_to_attributes(name: str) -> None:
    """An attribute of a node is a float32: 0.01 is none."""
    torch.manual_seed(0)
    parity(DOUBLES[name], (torch.randn(6, 6).double() * 3,), tolerance=1e-12)


def test_means_of_what_may_be_nothing() -> None:
    """NaN, also in a runtime whose ReduceMean of nothing is 0."""

    def function(x: Tensor) -> tuple[Tensor, ...]:
        y = x[x > 0]
        return y.mean(), y.var(), y.var(correction=0), torch.std_mean(y, correction=0)[1]

    some, none = torch.tensor([1.0, -1.0, 4.0]), torch.full((3,), -1.0)
    parity(function, (some,), (none,))


def test_covariances_of_integers() -> None:
    """They are floats; weights have a dtype of their own."""

    def function(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        whole = torch.tensor([1, 2, 0, 3])
        weighed = (
            torch.cov(x, aweights=w),
            torch.cov(x, fweights=whole, aweights=w),
            torch.cov(x, fweights=whole),
        )
        return torch.cov(x), *weighed, torch.cov(x[0], correction=0), torch.corrcoef(x)

    x, w = torch.tensor([[1, 5, 2, 8], [3, -1, 4, 0]]), torch.tensor([0.5, 2.0, 1.0, 0.25])
    parity(function, (x, w))
    parity(lambda x, w: torch.cov(x, aweights=w), (x.half(), w))
    parity(lambda x, w: torch.cov(x, aweights=w), (x.float(), w.double()))
