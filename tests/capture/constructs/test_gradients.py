"""Gradients that forward takes of what it computes: forces of an energy, guidance, sensitivities."""

# The constructs are written as people write them.

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.capture.constructs.support import Case, T, check, random

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
