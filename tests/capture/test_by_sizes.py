"""Functions that torch's C++ composes of others by numbers of their sizes: every size stays free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import ingot
from tests.capture.support import parity

R = torch.randn
T = torch.Tensor


def places(*shape: int) -> T:
    """Coordinates that grow unevenly."""
    return (torch.rand(*shape) + 0.2).cumsum(0)


def padded(x: T) -> T:
    """A list of rows that grows, padded."""
    rows = []
    for i in range(x.shape[0]):
        rows.append(x[i])
    return torch.nn.utils.rnn.pad_sequence(rows)


CASES: dict[str, tuple[Callable[..., Any], tuple[T, ...], tuple[T, ...]]] = {
    "kron": (torch.kron, (R(4, 6), R(3, 2)), (R(1, 5), R(2, 7))),
    "kron of itself": (lambda x: torch.kron(x, x), (R(4, 6),), (R(3, 1),)),
    "kron of other ranks": (torch.kron, (R(3), R(2, 4, 5)), (R(6), R(1, 2, 3))),
    "take_along_dim": (lambda x: x.take_along_dim(x.argsort(1), 1), (R(4, 6),), (R(3, 2),)),
    "take_along_dim, broadcast": (
        lambda x, i: torch.take_along_dim(x, i, -1),
        (R(4, 6), torch.tensor([[0, 5, 2]])), (R(2, 3), torch.tensor([[1, 1]])),
    ),
    "take_along_dim, flat": (lambda x: torch.take_along_dim(x, x.argmax()), (R(4, 6),), (R(3, 2),)),
    "vander": (torch.vander, (R(4),), (R(6),)),
    "vander, few": (lambda x: torch.vander(x, 3, increasing=True), (R(4),), (R(6),)),
    "vander of integers": (torch.vander, (torch.arange(4),), (torch.arange(6),)),
    "gradient": (torch.gradient, (R(4, 6),), (R(3, 7),)),
    "gradient, steps": (
        lambda x: torch.gradient(x, spacing=[0.5, 2.0], dim=(1, 0), edge_order=2), (R(4, 6),), (R(3, 7),),
    ),
    "gradient, places": (
        lambda x, p: torch.gradient(x, spacing=(p,), dim=0)[0], (R(5, 3), places(5)), (R(7, 2), places(7)),
    ),
    "gradient, places and edges": (
        lambda x, p: torch.gradient(x, spacing=(p,), dim=0, edge_order=2)[0],
        (R(5, 3), places(5)), (R(7, 2), places(7)),
    ),
    "multi_dot": (
        lambda *m: torch.linalg.multi_dot(m), (R(4, 6), R(6, 3), R(3, 5)), (R(2, 7), R(7, 4), R(4, 1)),
    ),
    "multi_dot of vectors": (
        lambda *m: torch.linalg.multi_dot(m), (R(6), R(6, 3), R(3, 5), R(5)), (R(7), R(7, 4), R(4, 2), R(2)),
    ),
    "corrcoef": (torch.corrcoef, (R(4, 6),), (R(3, 5),)),
    "pad_sequence": (padded, (R(4, 6),), (R(4, 3),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_sizes_stay_free(name: str) -> None:
    """Parity on other sizes than the example's."""
    function, example, other = CASES[name]
    parity(function, example, other)


def test_sizes_that_torch_counts_with_are_fixed() -> None:
    """An operator that torch's C++ alone can take apart makes the sizes static that it asks for, and says
    so.
    """
    program = ingot.export(torch.nn.functional.pdist, (R(4, 6),))
    fixed = [str(a) for a in program.assumptions if a.kind == "narrowed"]
    assert any("is 4" in f for f in fixed), "the number of points decides how many pairs there are"
