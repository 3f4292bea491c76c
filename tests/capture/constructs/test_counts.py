"""Numbers of elements that data or a size decides: where PyTorch refuses one below 0, the model fails."""

from __future__ import annotations

import torch

from ingot.capture.attempt import capture
from tests.capture.constructs.support import Case, Cases, T, check, lengths

NUMBERS = [torch.tensor([n]) for n in (3, 0, 1, -1, -5)]
case = Cases()


@case(*NUMBERS)
def up_to(x: T) -> T:
    return torch.arange(x.item())


@case(*NUMBERS)
def from_one(x: T) -> tuple[T, T]:
    return torch.arange(1, x.item() + 1, dtype=torch.float32), torch.arange(5, 4 - x.item(), -1)


@case(*NUMBERS)
def in_steps(x: T) -> T:
    return torch.arange(0, 10, x.item())


@case(*NUMBERS)
def in_parts(x: T) -> tuple[T, T]:
    return torch.arange(x.item() / 2), torch.arange(0.0, x.item() * 0.5, 0.5)


@case(*NUMBERS)
def where_it_is_asked(x: T) -> T:
    return torch.arange(x.item() - 1) if x.sum() > 0 else torch.arange(1)


@case(*NUMBERS)
def matrix(x: T) -> T:
    return torch.eye(x.item())


@case(*NUMBERS)
def evenly(x: T) -> T:
    return torch.linspace(0, 1, x.item())


@case(*NUMBERS)
def window(x: T) -> T:
    return torch.hann_window(x.item())


@case(*NUMBERS)
def triangle(x: T) -> T:
    return torch.tril_indices(x.item(), 3)


@case(*NUMBERS)
def part(x: T) -> T:
    return torch.arange(4).narrow(0, 1, x.item())


@case(*NUMBERS)
def part_from(x: T) -> T:
    return torch.arange(10).narrow(0, x.item(), 2)


@case(*lengths(), torch.zeros(0, 3), torch.zeros(1, 3))
def of_sizes(x: T) -> tuple[T, T]:
    return torch.arange(x.shape[0] - 2), torch.arange(1, x.shape[0])


@case.parametrize()
def test_the_run_fails_where_pytorch_does(case: Case) -> None:
    """And gives what it gives elsewhere."""
    check(case)


def test_what_is_no_count_below_0_needs_no_check() -> None:
    """Sizes, and numbers of truths."""

    def model(x: T) -> tuple[T, ...]:
        kept = x[x > 0]
        n = int((x > 0).sum()) * 2
        h = x.shape[0]
        return torch.arange(n), torch.arange(kept.shape[0] * 2), torch.arange(h, 2 * h), torch.eye(n)

    assert not capture(model, (torch.randn(3, 2),)).assumptions
