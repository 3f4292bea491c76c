"""Packed sequences through recurrent layers, with other lengths than the example's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ingot.capture.attempt import capture
from tests.capture.support import ort_runner, same


class Layer(nn.Module):
    """A recurrent layer over sequences of different lengths."""

    def __init__(self, kind: Any, both: bool, sort: bool, first: bool) -> None:
        super().__init__()
        self.layer = kind(5, 6, num_layers=2, bidirectional=both, batch_first=first)
        self.sort, self.first = sort, first

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> Any:
        """Outputs, lengths and last states."""
        packed = pack_padded_sequence(x, lengths, self.first, enforce_sorted=self.sort)
        y, state = self.layer(packed)
        padded, found = pad_packed_sequence(y, self.first)
        return padded * 2, found, state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
def test_packed(kind: Any, both: bool) -> None:
    """Equal to torch for every set of lengths, the longest shorter than the padding too."""
    torch.manual_seed(0)
    module = Layer(kind, both, not both, both).eval()

    def call(lengths: list[int], steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (len(lengths), steps) if both else (steps, len(lengths))
        return torch.randn(*shape, 5), torch.tensor(lengths)

    captured = capture(module, call([7, 5, 2], 7))
    run = ort_runner(captured.model)
    for lengths, steps in (
        ([7, 5, 2], 7),
        ([4, 4], 6),
        ([3], 3),
        ([1, 8, 3, 5] if both else [8, 5, 3, 1], 9),
    ):
        x, n = call(lengths, steps)
        with torch.no_grad():
            padded, found, state = module(x, n)
        got = run({"x": x.numpy(), "lengths": n.numpy()}, captured.output_names)
        states = state if isinstance(state, tuple) else (state,)
        for name, g, w in zip(captured.output_names, got, (padded, found, *states), strict=True):
            same(name, np.asarray(g), w.numpy(), 2e-5)
