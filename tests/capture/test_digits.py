"""Rows that keep what digits torch keeps: whole results of whole powers, small and large ones."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

import ingot
from tests.capture.support import op_types, parity

F32, F64 = torch.float32, torch.float64
NAN, INF = math.nan, math.inf


def _values(function: object, x: torch.Tensor) -> npt.NDArray[np.float64]:
    """The exported model's, from Ingot's session."""
    return ingot.export(function, (x,), verify=False)(x).astype(np.float64)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_logarithms_of_powers_are_whole(dtype: torch.dtype) -> None:
    """floor(log2(8192)) is 13: no last digit is lost on the way."""
    info = torch.finfo(dtype)
    twos = 2.0 ** torch.arange(math.log2(info.tiny), math.log2(info.max), dtype=dtype)
    tens = torch.tensor([10.0**k for k in range(-37, 38)], dtype=dtype)
    parity(lambda x, y: (torch.floor(torch.log2(x)), torch.floor(torch.log10(y))), (twos, tens))


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("base", [2, 10])
def test_logarithms_next_to_1(dtype: torch.dtype, base: int) -> None:
    """Every digit, also where the result is next to 0, and the ends of the range."""
    log = torch.log2 if base == 2 else torch.log10
    steps = torch.arange(-5, 6, dtype=dtype) * torch.finfo(dtype).eps
    x = torch.cat([1 + steps, torch.tensor([0.0, -1.0, INF, NAN, 3.0], dtype=dtype)])
    relative = 4 * torch.finfo(dtype).eps
    np.testing.assert_allclose(_values(log, x), log(x).double().numpy(), rtol=relative)


@pytest.mark.parametrize(("dtype", "last", "digits"), [(F32, 9.0, 1e-6), (F64, 26.0, 1e-14)])
def test_complementary_error_function(dtype: torch.dtype, last: float, digits: float) -> None:
    """Relative digits to the end of the range: log(erfc(9)) is -83.6."""
    x = torch.linspace(-6, last, 500, dtype=dtype)
    np.testing.assert_allclose(_values(torch.erfc, x), torch.erfc(x).double().numpy(), rtol=digits)
    ends = torch.tensor([INF, -INF, NAN, 0.0, 50.0, -50.0], dtype=dtype)
    np.testing.assert_allclose(_values(torch.erfc, ends), torch.erfc(ends).double().numpy(), rtol=digits)
    scaled = torch.special.erfcx
    np.testing.assert_allclose(_values(scaled, x.double()), scaled(x.double()).numpy(), rtol=1e-13)
    parity(lambda x: torch.log(torch.erfc(x)), (x,), (x[:7],))
    parity(torch.special.log_ndtr, (-x,), (x,))


def test_rounds_to_tens() -> None:
    """6500 in thousands is 6000: a thousandth is no number of floats."""
    x = torch.tensor([6500.0, 1500.0, 25.0, 35.0, 12345.675, -6500.0])
    parity(lambda x: (x.round(decimals=-3), x.round(decimals=-1), x.round(decimals=2)), (x,), (x[:2],))


def test_lerp_reaches_both_ends() -> None:
    """A weight of 1 gives the end exactly, however far the start is; a constant one costs no node more."""
    a, b = torch.tensor([1e8, 1e8, 1e8, 3.0]), torch.tensor([1.0, 1.0, 1.0, 5.0])
    weight = torch.tensor([1.0, 0.75, 0.25, -2.0])
    parity(lambda a, b, w: torch.lerp(a, b, w), (a, b, weight), (b, a, weight))
    constant = parity(lambda a, b: torch.lerp(a, b, 1.0), (a, b), (b, a))
    assert len(op_types(constant)) == 3, "Sub, Mul, Add"
    parity(lambda a, b: torch.lerp(a, b, 0.3), (a, b), (b, a))


def test_large_complex_divisors() -> None:
    """Neither square overflows, nor are both 0."""
    z = torch.tensor([[1e20, 1e20], [1e-30, 1e-25], [1.0, 2.0], [-3e38, 0.0], [INF, 1.0], [2.0, -1e30]])

    def divided(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        c = torch.view_as_complex(z)
        made = 1 / c, c.reciprocal(), (2 + 3j) / c, c / c[1:2], c / (1e20 + 1e25j)
        return tuple(torch.view_as_real(m)[:, k] for m in made for k in (0, 1))

    parity(divided, (z,), (z[1:3],))
