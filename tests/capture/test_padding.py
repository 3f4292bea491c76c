"""nn.TransformerEncoder with padding: in inference, rows padded at their ends come out as zeros there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import ingot


class Padded(nn.Module):
    def __init__(self, batch_first: bool, mask_check: bool, norm: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first)
        last = nn.LayerNorm(16) if norm else None
        self.encoder = nn.TransformerEncoder(layer, 2, last, mask_check=mask_check)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        return self.encoder(x, src_key_padding_mask=padding)


def padding_of(lengths: list[int], longest: int) -> torch.Tensor:
    return torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("mask_check", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_what_is_padded_is_zero(mask_check: bool, norm: bool) -> None:
    """Also where the example's padding was none, and where it is not at the ends: then nothing is zero."""
    torch.manual_seed(0)
    module = Padded(True, mask_check, norm).eval()
    program = ingot.export(module, (torch.randn(3, 6, 16), padding_of([6, 4, 2], 6)))
    masks = [padding_of([5, 1], 5), padding_of([4, 4, 4], 4), padding_of([1], 7)]
    if mask_check:  # without it, eager takes any mask for one that pads the ends
        masks.append(padding_of([5, 3], 6).flip(1))
    for mask in masks:
        x = torch.randn(*mask.shape, 16)
        with torch.no_grad():
            want = module(x, mask).numpy()
        np.testing.assert_allclose(program(x, mask), want, atol=2e-6, err_msg=str(mask))


def test_sequence_first_takes_no_nested_tensors() -> None:
    torch.manual_seed(1)
    module = Padded(False, True, True).eval()
    x, mask = torch.randn(6, 3, 16), padding_of([6, 4, 2], 6)
    program = ingot.export(module, (x, mask))
    with torch.no_grad():
        np.testing.assert_allclose(program(x, mask), module(x, mask).numpy(), atol=2e-6)


def test_a_causal_mask_is_a_mask() -> None:
    """Whether a mask is the causal one is asked of its contents; the mask says it as well."""
    torch.manual_seed(2)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = nn.Transformer(16, 4, 1, 1, 32, batch_first=True)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            mask = self.transformer.generate_square_subsequent_mask(y.shape[1])
            return self.transformer(x, y, tgt_mask=mask)

    module = Both().eval()
    program = ingot.export(module, (torch.randn(2, 6, 16), torch.randn(2, 4, 16)))
    x, y = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    with torch.no_grad():
        np.testing.assert_allclose(program(x, y), module(x, y).numpy(), atol=2e-6)


def test_a_sequence_that_is_all_padding() -> None:
    """PyTorch's fast path gives NaN there, and its plain steps numbers."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            return self.encoder(x, src_key_padding_mask=padding)

    x, mask = torch.randn(3, 6, 16), padding_of([6, 1, 0], 6)
    program = ingot.export(Wrapped().eval(), (x, mask))
    assert any("all padding" in line for line in program.verification.unverified)
    got = program(x, mask)
    with torch.no_grad():
        fast = encoder(x, src_key_padding_mask=mask).numpy()
    assert np.isnan(fast[2]).all() and np.isfinite(got[2]).all()
    np.testing.assert_allclose(got[0], fast[0], atol=2e-6)
