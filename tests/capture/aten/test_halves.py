"""Rows of halves: torch takes several steps in float32 and rounds once, where halves have no such number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import ingot
from tests.capture.support import parity

Tensor = torch.Tensor


def halves(*shape: int, size: float = 1.0) -> Tensor:
    """Drawn numbers of this size."""
    torch.manual_seed(0)
    return (torch.randn(*shape) * size).half()


def full(number: float) -> Tensor:
    """Three times the same number."""
    return torch.full((3,), number).half()


CASES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
    # Of the eps that none is given for, halves would make a thousandth.
    "rms_norm_of_small_numbers": (lambda x: F.rms_norm(x, (8,)), (halves(3, 8, size=0.01),)),
    "rms_norm_of_large_numbers": (lambda x: F.rms_norm(x, (8,), eps=1e-6), (halves(3, 8, size=400),)),
    "deviation_of_large_numbers": (
        lambda x: (x.std(-1), x.std(-1, correction=0)),
        (halves(3, 64, size=400),),
    ),
    "deviation_of_many": (lambda x: (*torch.var_mean(x, -1), x.std()), (halves(2, 5000, size=5),)),
    "variance_of_an_image": (lambda x: x.var((1, 2)), (halves(1, 300, 300),)),
    "addcmul": (lambda a, b: torch.addcmul(a, b, b, value=1e-3), (full(1), full(300))),
    "addcdiv": (lambda a, b: torch.addcdiv(a, b * 100, b, value=1e-8), (full(0), full(0.002))),
    "lerp": (lambda a, b: torch.lerp(a, b, 0.25), (full(-60000), full(60000))),
    "products": (lambda x: x.cumprod(-1), (1 + halves(2, 400, size=0.02),)),
    "norm": (lambda x: torch.linalg.vector_norm(x, 3, -1), (halves(3, 8, size=100),)),
    "baddbmm": (
        lambda q, k: torch.baddbmm(q[:, :, :3], q, k, beta=0, alpha=0.125),
        (halves(1, 3, 64, size=80), halves(1, 64, 3, size=80)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_in_float32(name: str) -> None:
    """Neither overflows nor rounds to nothing on the way; a row that does computes in halves again."""
    function, args = CASES[name]
    parity(function, args, tolerance=2e-3)


@pytest.mark.parametrize("factor", [1e-6, 3e5])
def test_a_wider_operand_in_place(factor: float) -> None:
    """A float32 that halves have not is not rounded to one before it is used."""

    def function(h: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        a, b = h * 1, h * 1
        a.mul_(f)
        b.div_(1 / f)
        return a, b

    parity(function, (halves(5, size=100 if factor < 1 else 0.01), torch.full((5,), factor)), tolerance=2e-3)


def test_rms_norm_of_bfloat16() -> None:
    """Its own smallest step, 0.008, is no eps for numbers of 0.05."""
    torch.manual_seed(0)
    x = (torch.randn(4, 8) * 0.05).bfloat16()
    program = ingot.export(torch.nn.RMSNorm(8).bfloat16().eval(), (x,))
    made = torch.from_numpy(program(x).astype("float32"))
    torch.testing.assert_close(made, F.rms_norm(x.float(), (8,)), rtol=0.02, atol=0)
