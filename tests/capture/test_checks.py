"""Checks of tensors, and arguments that sizes make None: what torch functions take either way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

import ingot
from tests.capture.support import parity


def test_a_check_of_all_elements_is_in_the_graph() -> None:
    """torch._check_tensor_all: the run fails where an element does not hold, as the module's call does."""

    def root(x: torch.Tensor) -> torch.Tensor:
        torch._check_tensor_all(x >= 0, lambda: "negative")
        return x.sqrt()

    program = ingot.export(root, (torch.rand(3),))
    assert [a.status for a in program.assumptions if a.kind == "condition"] == ["checked"]
    np.testing.assert_allclose(program(torch.tensor([4.0, 9.0])), [2.0, 3.0])
    with pytest.raises(ingot.IngotError):
        program(torch.tensor([1.0, -1.0]))


def test_a_mask_that_a_size_makes_none() -> None:
    """Attention takes None for its mask: the branch goes through the call, and no mask is invented."""

    class Masked(torch.nn.Module):
        def forward(self, q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            chosen = None if q.shape[1] > 4 else mask
            return scaled_dot_product_attention(q, q, q, attn_mask=chosen)

    torch.manual_seed(0)
    calls = [(torch.randn(2, n, 8), torch.randn(n, n)) for n in (3, 7, 4, 5)]
    captured = parity(Masked(), calls[0], *calls[1:])
    assert not captured.recording.env.fixed or all(f.size == 8 for f in captured.recording.env.fixed.values())
