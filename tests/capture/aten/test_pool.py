"""Pooling over windows of unequal lengths: what is in one is in no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.capture.support import parity

Tensor = torch.Tensor
POOLS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "1d": (lambda x: F.adaptive_avg_pool1d(x, 3), (2, 2, 7)),
    "2d": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (1, 2, 7, 5)),
    "3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 2, 3)), (1, 2, 3, 5, 4)),
    "2d_of_more_than_there_are": (lambda x: F.adaptive_avg_pool2d(x, (9, 8)), (2, 7, 5)),
    "2d_of_as_many_as_there_are": (lambda x: F.adaptive_avg_pool2d(x, (7, 5)), (1, 2, 7, 5)),
    "2d_along_one": (lambda x: F.adaptive_avg_pool2d(x, (3, None)), (1, 2, 7, 5)),  # type: ignore[arg-type]
    "largest": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), (1, 2, 7, 5)),
}


def with_numbers(shape: tuple[int, ...], dtype: torch.dtype, *numbers: float) -> Tensor:
    """Drawn numbers, and these ones among them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for i, n in enumerate(numbers):
        x.view(-1)[3 + 5 * i] = n
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("dynamic", ["auto", None])
def test_only_windows_that_hold_them_have_nan_and_infinities(
    name: str, dtype: torch.dtype, dynamic: str | None
) -> None:
    """Also of other sizes; next to numbers whose sum no half is, which torch adds in halves in 3-D."""
    function, shape = POOLS[name]
    inf, large = float("inf"), 1.0 if name == "3d" else 6e4
    more = [(*shape[:-2], shape[-2] + 2, shape[-1] + 1)] if dynamic else []
    inputs = [
        (with_numbers(s, dtype, *numbers),)
        for s in (shape, *more)
        for numbers in ((), (float("nan"),), (inf, -inf), (large, large, -inf))
    ]
    parity(function, *inputs, dynamic_shapes=dynamic, tolerance=2e-5 if dtype == torch.float32 else 2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_where_the_largest_of_a_whole_plane_is(spatial: int, dtype: torch.dtype) -> None:
    """Of planes of any size: the first of equal ones."""
    pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)[spatial - 1]
    shapes = [(2, 3, *[4, 5, 3][:spatial]), (1, 2, *[2, 1, 6][:spatial]), (3, 1, *[1, 1, 1][:spatial])]
    inputs = [(with_numbers(s, dtype).round(),) for s in shapes]
    parity(lambda x: pool(x, 1, return_indices=True), *inputs)
