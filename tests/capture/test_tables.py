"""Tables that a module keeps, and makes longer in forward where an input is longer than they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import ingot
from ingot.errors import ExportError

T = torch.Tensor
WIDTH = 6


class Sinusoidal(nn.Module):
    """Sinusoids of any length, as speech and translation models have them."""

    def __init__(self, rows: int = 8, shown: Callable[[T], T] | None = None) -> None:
        super().__init__()
        self.shown = shown  # what of the whole table shows in the result
        self.make(rows)

    def make(self, rows: int) -> None:
        scale = torch.exp(torch.arange(WIDTH // 2).float() * (-math.log(10000) / (WIDTH // 2 - 1)))
        angles = torch.arange(rows).float().unsqueeze(1) * scale.unsqueeze(0)
        table = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1).view(rows, -1)
        table[1, :] = 0  # padding
        self.weights = nn.Buffer(table, persistent=False)

    @torch.no_grad()
    def forward(self, x: T) -> T:
        length = x.shape[1]
        if length + 2 > self.weights.size(0):
            self.make(length + 4)
        found = self.weights.index_select(0, torch.arange(length) + 2).view(1, length, WIDTH)
        return x + found if self.shown is None else x + found + self.shown(self.weights)


SHOWN: dict[str, Callable[[T], T]] = {
    "its sum": lambda table: table.sum(),
    "its last row": lambda table: table[-1],
    "how long it is": lambda table: torch.ones(1) * table.shape[0],
}


@pytest.mark.parametrize("shown", SHOWN)
def test_a_table_of_which_all_shows_is_state(shown: str) -> None:
    """Where the example itself makes it longer."""
    with pytest.raises(ExportError, match="forward changes 'weights'"):
        ingot.export(Sinusoidal(8, SHOWN[shown]), (torch.randn(2, 12, WIDTH),))
