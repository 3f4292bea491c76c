"""Gradients that forward takes of what it computes: forces of an energy, guidance, sensitivities."""

# The constructs are written as people write them.

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, positive, random

Of = Callable[["Net", T], T]


class Net(nn.Module):
    """The gradient of what layers make of the input."""

    def __init__(self, of: Of) -> None:
        super().__init__()
        self.of = of
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 2))
        self.attention = nn.MultiheadAttention(3, 1, batch_first=True)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: T) -> T:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return torch.autograd.grad(self.of(self, x).sum(), x)[0]


def layers(net: Net, x: T) -> T:
    return net.layers(x).pow(2)


def norms(net: Net, x: T) -> T:
    return net.norm(x).pow(2) + F.normalize(x).pow(3)


def attention(net: Net, x: T) -> T:
    return net.attention(x[None], x[None], x[None])[0].pow(2)


def half_of_it(net: Net, x: T) -> T:
    return net.layers(x.detach()).sum() * net.layers(x).sum() + x.pow(3).sum()


@pytest.mark.parametrize("of", [layers, norms, attention, half_of_it])
def test_gradients_through_layers(of: Of) -> None:
    """They are all of it: an operator that stays whole in a model keeps track of none."""
    check(Case(of.__name__, lambda: Net(of), [(random(n, 3, seed=n),) for n in (4, 2, 7)]), tolerance=1e-4)


case = Cases()
SIGNS = both_signs()


def leaf(x: T) -> T:
    return x.detach().requires_grad_()


def gradient(y: T, x: T) -> T:
    return torch.autograd.grad(y.sum(), x, retain_graph=True)[0]


@case(*SIGNS)
def of_the_largest(x: T) -> T:
    with torch.enable_grad():
        x = leaf(x)
        scores = (x * x.sum()).pow(2)
        row = scores[x[:, 0].argmax()]
        return gradient(row[row.argmin()] * 2 + scores[:, x[-1].argmax() - 3].sum() + 0.1 * x.sum(), x)


@case(*SIGNS)
def in_each_round(x: T) -> T:
    for _ in range(int((x > 0).sum()) % 4):
        with torch.enable_grad():
            x = leaf(x)
            x = x - gradient(x**3, x) / 10
    return x.detach()


@case(*SIGNS)
def of_what_a_branch_leaves(x: T) -> T:
    with torch.enable_grad():
        x = leaf(x) * 2
        x = x + 1 if x.sum() > 0 else x - 1
        return gradient(x**2, x)


@case(*SIGNS)
def beside_a_branch(x: T) -> T:
    weight = torch.nn.Parameter(torch.arange(3.0))
    with torch.enable_grad():
        shift = weight + 1 if x.sum() > 0 else weight * 2
        x = leaf(x)
        return gradient(x**2 + shift, x)


@case(*SIGNS)
def forwards(x: T) -> tuple[T, T, T]:
    """What a change of the input changes: also beside tensors that it does not."""
    _, joined = torch.func.jvp(lambda v: v.sin() * v + x.cumsum(0) * v.mean(0), (x,), (x.cos(),))
    _, masked = torch.func.jvp(lambda v: torch.where(v > 0, v, -2 * v).logsumexp(-1), (x,), (x.cos(),))
    return joined, masked, torch.func.hessian(lambda v: (v.sin() * v).sum())(x[0])


@case(*SIGNS)
def beside_tensors_with_tangents(x: T) -> T:
    with torch.autograd.forward_ad.dual_level():
        y = torch.autograd.forward_ad.make_dual(x, x.exp()).sin() * x.T.sum()
        return torch.autograd.forward_ad.unpack_dual(y).tangent


@case(*SIGNS)
def of_a_place_of_what_is_written_later(x: T) -> T:
    with torch.enable_grad():
        x = leaf(x)
        y = x * 2
        row = y[x[:, 0].argmax()]
        part = row[1:]
        y[0] = x[0] ** 3
        y.mul_(x)
        return gradient(part * row.sum(), x)


@case(*SIGNS)
def of_a_place_of_what_becomes_tracked_later(x: T) -> T:
    with torch.enable_grad():
        y = torch.zeros(x.shape)
        row = y[x[:, 0].argmax()]
        x = leaf(x)
        y.add_(x**2)
        return gradient(row**2 + y[0], x)


@case(*SIGNS)
def switched_on_where_it_is_wanted(x: T) -> T:
    y = x * 1
    if x.sum() > 0:
        with torch.enable_grad():
            y.requires_grad_()
            y = x - gradient(y**2, y)
    else:
        y = y * (5 if y.requires_grad else 7)
    return y


@case(*SIGNS)
def switched_on_by_both_sides(x: T) -> T:
    y = x * 1
    if x.sum() > 0:
        y.requires_grad_()
    else:
        y.requires_grad = True
    with torch.enable_grad():
        return gradient(y**3, y) if y.requires_grad else x


@case.parametrize()
def test_gradients(case: Case) -> None:
    """As eager: what data decides is beside them, or a place."""
    check(case)


def through_a_branch(x: T) -> T:
    y = x**3 if x.sum() > 0 else x**2
    return gradient(y + x, x)


def through_a_branch_without_gradients(x: T) -> T:
    y = x**3
    with torch.no_grad():
        z = y if x.sum() > 0 else x
    return gradient(z + x, x)


def through_one_side(x: T) -> T:
    if x.sum() > 0:
        y = x**3
    if x.sum() > 0:
        return gradient(y + x, x)
    return x


def through_another_of_the_branch(x: T) -> T:
    if x.sum() > 0:
        a = leaf(x)
        b = a**2
    else:
        a = leaf(x + 1)
        b = a**3
    return gradient(a + b, a)


def through_rounds(x: T) -> T:
    y = x
    while y.sum() < 10:
        y = y.abs() * 2 + 1
    return gradient(y + x, x)


def through_rounds_before(x: T) -> T:
    y, total = torch.zeros(3), torch.zeros_like(x)
    for row in x.detach()[: int((x[:, 0] > 0.5).sum()) + 1]:
        y = y + row * x.sum()
        total = total + gradient(y + x, x)
    return total


def through_a_list(x: T) -> T:
    y = torch.stack([row**2 for row in x[: int((x[:, 0] > 0.5).sum()) + 1]])
    return gradient(y.sum(0) + x, x)


def through_a_write(x: T) -> T:
    y = x * 1
    if x.sum() > 0:
        y.mul_(x)
    return gradient(y + x, x)


def through_a_write_into_zeros(x: T) -> T:
    y = torch.zeros(x.shape)
    if x.sum() > 0:
        y.add_(x)
    return gradient(y + x, x)


def through_a_write_before_an_error(x: T) -> T:
    y = x * 1
    if x.sum() > 0:
        y.mul_(x)
    else:
        raise ValueError("negative")
    return gradient(y, x)


def through_a_write_at_a_place(x: T) -> T:
    y = x * 1
    y[x[:, 0].argmax()] = x.sum(0)
    return gradient(y + x, x)


def through_a_write_into_a_row(x: T) -> T:
    y = torch.zeros(x.shape)
    row = y[x[:, 0].argmax()]
    row += x.sum(0)
    return gradient(y + x, x)


@pytest.mark.parametrize(
    "function",
    [
        through_a_branch,
        through_a_branch_without_gradients,
        through_one_side,
        through_another_of_the_branch,
        through_rounds,
        through_rounds_before,
        through_a_list,
        through_a_write,
        through_a_write_into_zeros,
        through_a_write_before_an_error,
        through_a_write_at_a_place,
        through_a_write_into_a_row,
    ],
)
def test_gradients_through_what_data_decides_are_refused(function: Callable[[T], T]) -> None:
    """Also where there is another way beside it, of which alone they would be."""

    def model(x: T) -> T:
        with torch.enable_grad():
            return function(leaf(x))

    with pytest.raises(DataDependentError, match=r"test_gradients\.py:\d+.*\nThis takes a gradient through"):
        capture(model, (positive(5, 3),))


def test_switched_on_by_one_side() -> None:
    """Whether it is on behind the branch, data decides."""

    def model(x: T) -> T:
        y = x * 1
        if x.sum() > 0:
            y.requires_grad_()
        return x * 2 if y.requires_grad else x * 3

    with pytest.raises(
        DataDependentError, match=r"test_gradients\.py:\d+.*\nData or a size decides whether a"
    ):
        capture(model, (positive(5, 3),))
