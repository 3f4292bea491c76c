"""Packed sequences through recurrent layers, with other lengths than the example's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ingot.capture.attempt import capture
from tests.capture.support import OrtError, ort_runner, parity, same


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


class Padded(nn.Module):
    """A layer whose outputs are padded to a length that is given."""

    def __init__(self, length: int | None) -> None:
        super().__init__()
        self.layer = nn.GRU(5, 6, batch_first=True)
        self.length = length

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The padded outputs."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        length = x.size(1) if self.length is None else self.length
        return pad_packed_sequence(self.layer(packed)[0], batch_first=True, total_length=length)[0]


@pytest.mark.parametrize("length", [None, 8], ids=str)
def test_padded_to_a_length(length: int | None) -> None:
    """Longer than the longest, or as long; where it is shorter torch raises, and the model fails."""
    torch.manual_seed(0)
    module = Padded(length).eval()

    def call(*lengths: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(len(lengths), steps, 5), torch.tensor(lengths)

    others = [call(4, 4, steps=6), call(3, steps=3), call(1, 8, 3, steps=8)]
    captured = parity(module, call(5, 7, 2, steps=7), *others)
    if length is not None:
        x, n = call(2, 9, steps=9)
        with pytest.raises(OrtError):
            ort_runner(captured.model)({"x": x.numpy(), "lengths": n.numpy()}, captured.output_names)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_trace_of_packed_sequences(kind: Any) -> None:
    """Its graph has operators of TorchScript's for what Python's functions do."""
    torch.manual_seed(0)

    def call(*lengths: int, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(len(lengths), steps, 5), torch.tensor(lengths)

    module = torch.jit.trace(Layer(kind, True, False, True).eval(), call(7, 5, steps=7), check_trace=False)
    parity(module, call(7, 5, steps=7), call(7, 2, steps=7), call(3, 4, steps=6))
