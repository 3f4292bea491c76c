"""What results look like is the same whether torch says so or it is worked out here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from ingot.capture import fakes
from ingot.capture.attempt import capture
from ingot.program import Program

Tensor = torch.Tensor
Function = Callable[..., Any]


def masks(ids: Tensor) -> Tensor:
    """The mask of an autoregressive text, of which parts are packed."""
    at = torch.arange(ids.shape[1])
    causal = at[None, :] <= at[:, None]
    parts = (ids > 2).cumsum(-1)
    rows = torch.arange(ids.shape[0])
    same = parts[rows[:, None, None], at[:, None]] == parts[rows[:, None, None], at]
    return (causal[None] & same)[:, None].expand(-1, 3, -1, -1)


def whole_numbers(ids: Tensor) -> Tensor:
    """Sums, differences, products and comparisons, with numbers too."""
    more = torch.maximum(ids + ids.t().sum(0)[:, None] * 0, ids * 2 - 1)
    return ((more - ids) | ids) ^ (more != 3).to(torch.int64)


def reordered(ids: Tensor) -> Tensor:
    """Axes in another order, new ones, and reshapes of what comes of it."""
    x = ids.unsqueeze(1).permute(2, 0, 1).transpose(0, 2)
    return x.reshape(-1) + x.contiguous().view(-1)


def joined(ids: Tensor) -> Tensor:
    """One behind the other, in either axis, and elements of that."""
    wide = torch.cat([ids, ids + 1, ids], dim=-1)
    high = torch.cat([wide, wide.flip(0)])
    return high[:, torch.tensor([0, 2])].cumsum(0)


def reduced(ids: Tensor) -> tuple[Tensor, ...]:
    """Along some axes, which stay or go."""
    x = ids.float()[:, None, :] / 3
    kept = x - x.mean(-1, keepdim=True)
    return kept, x.sum((0, 2)), x.amax([1]), x.transpose(0, 2).amin(-1)


def written(ids: Tensor) -> Tensor:
    """In place, where the result may not be larger than what is written to."""
    x = ids.clone()
    x += ids[:1]
    x[:, 1:].mul_(2)
    return x


CASES: list[Function] = [masks, whole_numbers, reordered, joined, reduced, written]
_OF_TORCH: Any = frozenset[str]()


@pytest.mark.parametrize("shape", [(2, 5), (5, 2), (3, 3), (1, 4)])
@pytest.mark.parametrize("function", CASES)
def test_the_model_is_the_same_without_asking_torch(
    function: Function, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(shape[0] * shape[1]).reshape(shape) % 5
    quick = capture(function, (ids,))
    monkeypatch.setattr(fakes, "_OF_ANY_DTYPE", _OF_TORCH)
    slow = capture(function, (ids,))
    assert ir.to_proto(quick.model).SerializeToString() == ir.to_proto(slow.model).SerializeToString()
    assert quick.assumptions == slow.assumptions


@pytest.mark.parametrize("function", CASES)
def test_the_model_is_right_for_other_sizes(function: Function) -> None:
    import ingot

    program: Program = ingot.export(function, (torch.arange(15).reshape(3, 5) % 5,))
    for shape in ((3, 5), (2, 2), (4, 7), (5, 3)):
        ids = torch.arange(shape[0] * shape[1]).reshape(shape) % 4
        wanted, got = function(ids), program(ids)
        wanted, got = (v if isinstance(v, tuple) else (v,) for v in (wanted, got))
        for w, g in zip(wanted, got, strict=True):
            np.testing.assert_allclose(g, w.numpy(), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused_as_torch_refuses_it() -> None:
    def larger(x: Tensor, y: Tensor) -> Tensor:
        return x.clone().add_(y)

    with pytest.raises(Exception, match=r"doesn.t match|match the"):
        capture(larger, (torch.ones(2, 1, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)))
