"""Equal values: torch leaves their order open, the model takes the first, and verification says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch._higher_order_ops import scan

import ingot
from ingot.capture.ties import FirstOfEqual
from ingot.errors import VerificationError

Tensor = torch.Tensor


class Proposals(torch.nn.Module):
    """A detector's queries: the best of many proposals, most of them masked and therefore alike."""

    def __init__(self, wrong: float = 1.0) -> None:
        super().__init__()
        self.score = torch.nn.Linear(8, 1)
        self.weight = torch.nn.Parameter(torch.tensor(wrong))

    def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        masked = x * (x[..., :1] > 2)
        order = self.score(masked).squeeze(-1).topk(20, dim=1).indices
        return place.gather(1, order), x.sum(-1) * self.weight


def _inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 600, 8), torch.arange(1200.0).reshape(2, 600)


def test_the_first_of_equal_values_is_named_where_torch_takes_another() -> None:
    """The scores of masked proposals are one number; which of them stay is torch's to choose."""
    program = ingot.export(Proposals(), _inputs())
    assert program.verification is not None
    lines = [u for u in program.verification.unverified if "equal values" in u]
    assert len(lines) == 1 and "topk at" in lines[0] and "test_ties.py:" in lines[0], lines


def test_ties_do_not_hide_another_mistake() -> None:
    """The other output is wrong, whichever proposals are taken; so is a choice of values that differ."""
    right, wrong = Proposals(), Proposals(1.001)
    wrong.score = right.score
    program = ingot.export(right, _inputs())
    with pytest.raises(VerificationError, match=r"output 'output_1'.* differs from the module by 0\.010"):
        ingot.verify(program, wrong)

    class Second(Proposals):
        def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
            first, rest = super().forward(x, place)
            return first.roll(1, 1), rest

    class Scanned(Proposals):
        def forward(self, x: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
            first, rest = super().forward(x, place)
            carried, _ = scan(lambda c, row: (c + row, c.clone()), torch.zeros(2), rest.T.contiguous())
            return first, carried * self.weight

    scanned, other = Scanned(), Scanned(1.001)
    other.score = scanned.score
    program = ingot.export(scanned, _inputs(), verify=False)
    with pytest.raises(VerificationError, match=r"output 'output_1'.* differs from the module"):
        ingot.verify(program, other)

    second = Second()
    second.score = right.score
    with pytest.raises(VerificationError, match="output 'output_0'"):
        ingot.verify(program, second)


def test_values_without_ties_are_compared_as_they_are() -> None:
    """No order is open among different values: nothing is reported."""
    program = ingot.export(Proposals(), (torch.rand(2, 600, 8) + 2.1, _inputs()[1]), dynamic_shapes=None)
    assert program.verification is not None and not program.verification.unverified


def test_a_file_is_verified_on_one_call_with_ties() -> None:
    """`verify` of a model and its arguments reports the same line."""
    program = ingot.export(Proposals(), _inputs())
    report = ingot.verify(program.model, program.capture.original, _inputs())  # type: ignore[union-attr]
    assert any("topk at" in u for u in report.unverified)


def test_a_topk_without_an_order_comes_in_order() -> None:
    """`sorted=False` leaves it to torch; the exported model's is the sorted one, and said to be."""

    class Unordered(torch.nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.topk(x, 40, sorted=False)

    program = ingot.export(Unordered(), (torch.randn(3, 90),))
    values, order = program(x := torch.randn(2, 90))
    np.testing.assert_array_equal(values, torch.topk(x, 40).values)
    np.testing.assert_array_equal(order, torch.topk(x, 40).indices)


CALLS = {
    "sort": lambda a: torch.sort(a, dim=0, descending=True),
    "sort, not stable": lambda a: torch.sort(a, dim=0, stable=False),
    "topk": lambda a: torch.topk(a, 5, 0),
    "smallest": lambda a: torch.topk(a, 5, 0, largest=False, sorted=False),
    "kthvalue": lambda a: torch.kthvalue(a, 3, 0),
    "kept": lambda a: torch.kthvalue(a, 3, 0, keepdim=True),
    "median": lambda a: torch.median(a, 0),
    "argsort": lambda a: (a, torch.argsort(a)),
}


@pytest.mark.parametrize("shape", [(), (1,), (64,), (100, 3), (64, 0)])
@pytest.mark.parametrize("call", CALLS)
def test_equal_values_come_by_their_index(call: str, shape: tuple[int, ...]) -> None:
    """Values stay those of torch; of equal ones the index is the lowest that is left."""
    a = torch.randint(0, 3, shape).float()
    if call not in ("sort", "sort, not stable", "median", "argsort") and (not shape or shape[0] < 5):
        pytest.skip("fewer elements than are asked for")
    wanted = CALLS[call](a)
    with FirstOfEqual():
        values, order = CALLS[call](a)
    if call != "argsort":
        torch.testing.assert_close(values.sort(0).values if values.dim() else values,
                                   wanted[0].sort(0).values if values.dim() else wanted[0])  # fmt: skip
    if call in ("sort", "sort, not stable", "topk") and shape:
        same = values[1:] == values[:-1]
        assert bool((order[1:] > order[:-1])[same].all())
