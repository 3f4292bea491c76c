"""Models that go another way where a tensor has no contents."""

from __future__ import annotations

import pytest
import torch

import ingot
from ingot.errors import VerificationError

T = torch.Tensor


def _is_fake(x: object) -> bool:
    return isinstance(x, torch._subclasses.FakeTensor)


def shortcut(x: T, mask: T) -> T:
    """As masks are made in transformers: none at all for a mask of ones, unless somebody traces."""
    if not _is_fake(mask) and mask.all():
        return x * mask
    return x * mask.float()


def other_function(x: T, mask: T) -> T:
    if not _is_fake(mask) and mask.all():
        return x + 1
    return x * mask.float()


def out_of_reach(x: T, mask: T) -> T:
    return x * mask if _is_fake(mask) else x * float(str(int(mask.sum())))


X = torch.randn(2, 4)
ONES = torch.ones(2, 4, dtype=torch.int64)
PADDED = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])


def test_the_traced_way_is_taken_where_it_is_the_same_function() -> None:
    program = ingot.export(shortcut, (X, ONES))
    assert not any(node.op_type == "If" for node in program.model.graph)


@pytest.mark.parametrize("mask", [ONES, PADDED], ids=["ones", "padded"])
def test_the_other_way_is_taken_where_tracing_makes_another_function(mask: T) -> None:
    program = ingot.export(other_function, (X, mask))
    for given in (ONES, PADDED):
        torch.testing.assert_close(torch.from_numpy(program(X, given)), other_function(X, given))


def test_what_is_another_function_when_traced_and_cannot_be_exported_otherwise_is_refused() -> None:
    with pytest.raises(VerificationError, match=r"asks whether it is traced .*test_traced.py"):
        ingot.export(out_of_reach, (X, ONES))
