"""Reductions of integers of 8 and 16 bits: torch's result dtypes, where ONNX adds and compares fewer."""

# Cases are lambdas over torch, which is untyped.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.capture.support import parity

DTYPES = (torch.int8, torch.uint8, torch.int16)
CASES: dict[str, Callable[[torch.Tensor], Any]] = {
    "sum": lambda x: (x.sum(), x.sum(1), x.sum((0, 1), keepdim=True)),
    "sum as itself": lambda x: (x.sum(dtype=x.dtype), x.sum(1, dtype=x.dtype), x.sum(0, dtype=torch.int16)),
    "nansum": lambda x: (x.nansum(), x.nansum(0, dtype=x.dtype)),
    "prod": lambda x: ((x % 3).prod(), (x % 9).prod(1), (x % 99).prod(1, dtype=x.dtype)),
    "mean": lambda x: (x.mean(dtype=torch.float32), x.float().mean(0), x.mean(1, dtype=torch.float64)),
    "cumsum": lambda x: (x.cumsum(1), x.cumsum(0, dtype=x.dtype), x.cumsum(0, dtype=torch.int16)),
    "cumprod": lambda x: (x.cumprod(1), x.cumprod(0, dtype=x.dtype)),
    "max": lambda x: (x.max(), *x.max(1), *x.max(0, keepdim=True), x.amax((0, 1))),
    "min": lambda x: (x.min(), *x.min(1), *x.min(0, keepdim=True), x.amin(1)),
    "aminmax": lambda x: (*torch.aminmax(x), *torch.aminmax(x, dim=1)),
    "argmax": lambda x: (x.argmax(), x.argmax(1), x.argmin(0), x.argmin(0, keepdim=True)),
    "cummax": lambda x: (*x.cummax(1), *x.cummin(0)),
    "any": lambda x: (x.any(), x.any(1), x.all(), x.all(0)),
    "order": lambda x: (
        x.sort(dim=1, stable=True).values,
        x.argsort(dim=1, stable=True),
        x.topk(2, 1).values,
    ),
    "median": lambda x: (x.median(), x.median(1).values, x.kthvalue(2, 1).values),
    "norms": lambda x: (x.float().norm(), x.count_nonzero(), x.count_nonzero(1)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_reductions(name: str, dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    x, y = (torch.randint(limits.min, limits.max, shape, dtype=dtype) for shape in ((3, 7), (5, 2)))
    parity(CASES[name], (x,), (y,))
