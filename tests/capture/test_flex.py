"""flex_attention: functions of scores and of places, and masks of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import AuxRequest, and_masks, create_block_mask, flex_attention

import ingot
from tests.capture.support import parity

T = torch.Tensor


class Attention(nn.Module):
    """Attention whose mask is made for the sizes of the call."""

    def __init__(self, mask: Callable[..., T] | None = None, blocks: int = 128, **options: Any) -> None:
        super().__init__()
        self.mask, self.blocks, self.options = mask, blocks, options
        self.slopes = nn.Parameter(torch.tensor([0.5, 0.25, 0.125, 1.0]))

    def biased(self, score: T, b: T, h: T, i: T, j: T) -> T:
        """ALiBi's, of a parameter that is read at the head."""
        return score - self.slopes[h] * (i - j).abs() + b * 0.1

    def forward(self, q: T, k: T, v: T) -> Any:
        mask = None
        if self.mask is not None:
            sizes = q.shape[-2], k.shape[-2]
            mask = create_block_mask(self.mask, None, None, *sizes, device="cpu", BLOCK_SIZE=self.blocks)
        return flex_attention(q, k, v, score_mod=self.biased, block_mask=mask, **self.options)


def _causal(_b: T, _h: T, i: T, j: T) -> T:
    return i >= j


def _window(_b: T, _h: T, i: T, j: T) -> T:
    return (i - j).abs() < 3


def _qkv(batch: int, queries: int, keys: int, heads: int = 4) -> tuple[T, T, T]:
    make = torch.Generator().manual_seed(batch + queries)
    sizes = (batch, 4, queries, 8), (batch, heads, keys, 8), (batch, heads, keys, 4)
    q, k, v = (torch.randn(*s, generator=make) for s in sizes)
    return q, k, v


@pytest.mark.parametrize(
    "mask", [None, _causal, and_masks(_causal, _window)], ids=["plain", "causal", "both"]
)
def test_scores_and_masks(mask: Any) -> None:
    """More blocks than the example has, fewer keys than queries, and rows that see nothing."""
    parity(Attention(mask), _qkv(1, 5, 7), _qkv(3, 4, 2), _qkv(1, 150, 140))


def test_blocks_of_another_size() -> None:
    parity(Attention(_causal, blocks=4), _qkv(1, 5, 7), _qkv(1, 9, 3))


def test_what_else_it_gives() -> None:
    """Fewer heads of keys, a scale, the sums behind the softmax."""
    parity(Attention(None, enable_gqa=True, scale=0.3), _qkv(2, 5, 7, 2), _qkv(1, 4, 9, 2))
    parity(Attention(_causal, return_aux=AuxRequest(lse=True)), _qkv(1, 5, 5), _qkv(2, 7, 7))


def test_a_mask_by_data() -> None:
    """Documents in one row: the mask reads an input at the places, and verification compares it."""

    def documents(q: T, k: T, v: T, of: T) -> T:
        mask = create_block_mask(
            lambda _b, _h, i, j: (of[i] == of[j]) & (i >= j), None, None, q.shape[2], k.shape[2], device="cpu"
        )
        return flex_attention(q, k, v, block_mask=mask)

    of = torch.tensor([0, 0, 1, 1, 1])
    parity(documents, (*_qkv(1, 5, 5), of), (*_qkv(2, 7, 7), torch.tensor([0, 1, 1, 2, 2, 2, 2])))
    assert ingot.export(documents, (*_qkv(1, 5, 5), of)).verification is not None


def test_a_mask_of_a_fixed_size() -> None:
    """Made before the call: it fits sequences of its own length alone, as in PyTorch."""
    mask = create_block_mask(_causal, None, None, 6, 6, device="cpu")
    captured = parity(lambda q, k, v: flex_attention(q, k, v, block_mask=mask), _qkv(1, 6, 6), _qkv(2, 6, 6))
    told = " ".join(a.what for a in captured.assumptions)
    assert "q_dim2" in told and "6" in told, f"nothing says that the length is 6: {told}"
