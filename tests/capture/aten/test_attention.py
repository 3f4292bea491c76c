"""Attention of halves, and masks as low as numbers go: as torch computes it, in float32."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.capture.support import parity

Tensor = torch.Tensor
HIDDEN = torch.tensor([[False, True, False], [True, True, True], [True, False, False]])


def operands(dtype: torch.dtype, size: float) -> tuple[Tensor, ...]:
    """Queries, keys and values of this size."""
    drawn = torch.Generator().manual_seed(0)
    return tuple((torch.randn(1, 2, 3, 4, generator=drawn) * size).to(dtype) for _ in range(3))


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("size", [1.0, 250.0])
@pytest.mark.parametrize("more", [{}, {"is_causal": True}, {"scale": 4.0}])
def test_scores_that_no_half_is(opset: int, size: float, more: dict[str, object]) -> None:
    """They are multiplied and scaled in float32."""
    function = partial(F.scaled_dot_product_attention, **more)  # type: ignore[arg-type]
    parity(function, operands(torch.float16, size), opset=opset, tolerance=2e-3)


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("low", [-1e4, -32752.0, -65504.0, "least", -float("inf")])
@pytest.mark.parametrize("is_known", [True, False])
def test_masks(opset: int, dtype: torch.dtype, low: float | str, is_known: bool) -> None:
    """A row of the lowest numbers alone is a mean by its scores, as far as those count beside them; a row of
    -inf is 0.
    """
    number = torch.finfo(dtype).min if isinstance(low, str) else low
    mask = torch.zeros(3, 3, dtype=dtype).masked_fill(HIDDEN, number)
    for size in (1.0, 250.0):
        given = operands(dtype, size)
        tolerance = 2e-4 if dtype == torch.float32 else 2e-3
        if is_known:
            function = partial(F.scaled_dot_product_attention, attn_mask=mask)
            parity(function, given, opset=opset, tolerance=tolerance)
        else:
            parity(F.scaled_dot_product_attention, (*given, mask), opset=opset, tolerance=tolerance)


@pytest.mark.parametrize("opset", [20, 23])
def test_masks_of_truths(opset: int) -> None:
    """Rows that see nothing are 0, whatever their scores."""
    for size in (1.0, 250.0):
        given = (*operands(torch.float16, size), ~HIDDEN)
        parity(F.scaled_dot_product_attention, given, opset=opset, tolerance=2e-3)


class Step(torch.nn.Module):
    """A decoder's step: one token needs no mask, and its bias is of one row for all; more have a row each."""

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        batch, tokens = x.shape[:2]
        query = x.view(batch, tokens, 2, 4).transpose(1, 2)
        key = torch.cat([past, query], 2)
        keys = key.shape[2]
        bias = torch.zeros(1, 2, tokens, keys) - torch.arange(keys)
        mask = (
            None if tokens == 1 else torch.ones(batch, 1, tokens, keys, dtype=torch.bool).tril(keys - tokens)
        )
        return F.scaled_dot_product_attention(query, key, key, attn_mask=self.both(bias, mask)), key

    def both(self, bias: Tensor, mask: Tensor | None) -> Tensor:
        """One bias, with the mask in it where there is one."""
        if mask is None:
            return bias
        return torch.where(mask, bias, -1e9)


@pytest.mark.parametrize("opset", [20, 23])
def test_a_mask_that_is_of_one_row_for_some_sizes(opset: int) -> None:
    """An axis of 1 is repeated, as torch does, and not taken for the scores' own: the example's is one."""
    drawn = torch.Generator().manual_seed(0)

    def given(batch: int, tokens: int, past: int) -> tuple[Tensor, Tensor]:
        made = partial(torch.randn, generator=drawn)
        return made(batch, tokens, 8), made(batch, 2, past, 4)

    parity(
        Step(), given(2, 1, 1), given(3, 1, 4), given(1, 1, 2), given(2, 3, 2), given(1, 5, 1), opset=opset
    )
