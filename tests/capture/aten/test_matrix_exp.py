"""exp of matrices of any size."""

from __future__ import annotations

import pytest
import torch

from tests.capture.support import parity

Tensor = torch.Tensor


@pytest.mark.parametrize("size", [1e-9, 1.0, 300.0, 1e6])
def test_exp_of_matrices(size: float) -> None:
    """The rates of a chain of states, from its first moment to where it stays: what has decayed is no NaN."""
    torch.manual_seed(0)
    rates = torch.rand(2, 4, 4).double()
    rates = (rates - torch.diag_embed(rates.sum(-1))) * size
    parity(torch.matrix_exp, (rates,), (rates[:1],), tolerance=1e-9)
    parity(torch.matrix_exp, ((torch.eye(3) * -size).expand(2, 3, 3),))


def test_small_matrices_keep_their_digits() -> None:
    """exp(a) - 1 of a small a is a."""
    torch.manual_seed(0)
    parity(lambda a: torch.matrix_exp(a).tril(-1), (torch.randn(3, 3).double() * 1e-9,), tolerance=1e-12)


def test_nothing() -> None:
    """A batch without matrices, and matrices without rows."""
    parity(torch.matrix_exp, (torch.zeros(0, 3, 3),))
    parity(torch.matrix_exp, (torch.zeros(2, 0, 0),))
