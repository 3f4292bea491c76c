"""torch.cond, torch.while_loop, torch.scan."""

from __future__ import annotations

import torch
from torch._higher_order_ops import scan, while_loop

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, positive, random

case = Cases()
SIGNS = both_signs()


@case(*SIGNS)
def torch_cond(x: T) -> T:
    return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))


@case(*SIGNS)
def torch_cond_with_a_closure(x: T) -> tuple[T, T]:
    y = x.abs()

    def yes() -> tuple[T, T]:
        return y + 1, x

    def no() -> tuple[T, T]:
        return y - 1, -x

    return torch.cond(x.sum() > 0, yes, no)


@case(*SIGNS)
def torch_cond_on_a_size(x: T) -> T:
    return torch.cond(x.shape[0] > 4, lambda v: v.sin(), lambda v: v.cos(), (x,))


@case(*[positive(5, 3) * k for k in (1, 0.01, 100)])
def torch_while_loop(x: T) -> tuple[T, T]:
    n, y = while_loop(
        lambda i, v: (v.sum() < 50) & (i < 8), lambda i, v: (i + 1, v * 1.5), (torch.tensor(0), x)
    )
    return n, y


@case(*lengths())
def torch_scan(x: T) -> tuple[T, T]:
    carry, ys = scan(lambda h, row: (h * 0.5 + row, h + row), torch.zeros(3), x)
    return carry, ys


@case(*[random(n, m) for n, m in ((5, 3), (1, 4), (2, 1), (3, 9))])
def torch_scan_of_columns(x: T) -> tuple[T, T, T]:
    def step(h: T, column: T) -> tuple[T, tuple[T, T]]:
        return h * 0.5 + column, (h + column, h.sum())

    carry, (ys, sums) = scan(step, torch.zeros(x.shape[0]), x, dim=1, reverse=True)
    last, (negative, _) = scan(step, torch.zeros(x.shape[0]), x, dim=-1)
    return carry + last, ys + negative, sums


@case(*lengths())
def torch_scan_backwards(x: T) -> tuple[T, T]:
    carry, ys = scan(lambda h, row: (h * 0.5 + row, h * row), torch.ones(3), x, reverse=True)
    return carry, ys


@case.parametrize()
def test_torch_control_flow(case: Case) -> None:
    """torch's own operators for control flow."""
    check(case)
