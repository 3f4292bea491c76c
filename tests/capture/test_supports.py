"""Distributions of torch: what they ask of parameters and values is a check of the model."""

# torch.distributions is untyped.
# pyright: basic

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import distributions as d

import ingot
from ingot.errors import IngotError
from tests.capture.support import parity

T = torch.Tensor
R = torch.randn
MADE_BEFORE = d.MultivariateNormal(torch.zeros(3), torch.eye(3))


@pytest.fixture(autouse=True)
def validating() -> Iterator[None]:
    """As torch begins: torch.compile switches it off for the whole process."""
    before = d.Distribution._validate_args
    d.Distribution.set_default_validate_args(True)
    yield
    d.Distribution.set_default_validate_args(before)


def test_likelihoods() -> None:
    """Of one axis and of several, of mixtures; of distributions made in forward and before."""

    def f(x: T, deviation: T) -> tuple[T, ...]:
        normal = d.Normal(torch.zeros(3), deviation)
        mixed = d.MixtureSameFamily(d.Categorical(torch.ones(3)), normal)
        chosen = d.Categorical(logits=x)
        return (
            normal.log_prob(x),
            mixed.log_prob(x[:, 0]),
            MADE_BEFORE.log_prob(x),
            chosen.log_prob(x.argmax(-1)),
            chosen.entropy(),
        )

    parity(f, (R(4, 3), torch.ones(3)), (R(1, 3), torch.rand(3) + 0.1), tolerance=1e-4)


def test_outside_of_the_support() -> None:
    """A parameter, or a value, that torch refuses fails the run, with the line."""

    def f(x: T, deviation: T) -> T:
        return d.Normal(torch.zeros(3), deviation).log_prob(x.exp()) + d.Gamma(2.0, 1.0).log_prob(x)

    program = ingot.export(f, (torch.ones(4, 3), torch.ones(3)))
    x, deviation = torch.rand(2, 3) + 0.1, torch.rand(3) + 0.1
    torch.testing.assert_close(torch.as_tensor(program(x, deviation)), f(x, deviation))
    for refused in ((-x, deviation), (x, -deviation)):
        with pytest.raises(ValueError, match=r"constraint|support"):
            f(*refused)
        with pytest.raises(IngotError, match=r"test_supports\.py:\d+: the distribution's constraints hold"):
            program(*refused)
