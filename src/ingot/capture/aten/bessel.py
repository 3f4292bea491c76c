"""Bessel functions, and Airy's: series near zero, asymptotic expansions beyond (A&S 9, 10)."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ingot.capture.aten.special import EULER, horner, in_float64, infinities, nans

Tensor = torch.Tensor
_TERMS = 40
_SQUARES = [1 / math.factorial(k) ** 2 for k in range(_TERMS)]
_NEXT = [1 / (math.factorial(k) * math.factorial(k + 1)) for k in range(_TERMS)]
_HARMONIC = [sum(1 / i for i in range(1, k + 1)) for k in range(_TERMS + 1)]


def _signs(coefficients: Sequence[float]) -> list[float]:
    return [c * (-1) ** k for k, c in enumerate(coefficients)]


def _hankel(order: int, count: int = 20) -> list[float]:
    """A&S 9.2.9: (4ν² - 1)(4ν² - 9) … / (k! 8^k)."""
    made, value = [1.0], 1.0
    for k in range(1, count):
        value *= (4 * order * order - (2 * k - 1) ** 2) / (8 * k)
        made.append(value)
    return made


def _wave(x: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """J and Y for large x (A&S 9.2.5, 9.2.6)."""
    a = _hankel(order)
    inverse = 1 / x
    p = horner(inverse * inverse, _signs(a[0::2]))
    q = horner(inverse * inverse, _signs(a[1::2])) * inverse
    size = torch.sqrt(2 / (math.pi * x))
    turn = x - (order / 2 + 0.25) * math.pi
    c, s = torch.cos(turn), torch.sin(turn)
    return size * (p * c - q * s), size * (p * s + q * c)


_NEAR = 12.0


def _parted(x: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """|x| < limit, and |x| for either way, kept harmless where the other is taken."""
    size = torch.abs(x)
    near = size < limit
    return (
        near,
        torch.where(near, size, torch.ones_like(x)),
        torch.where(near, torch.full_like(x, limit), size),
    )


@in_float64("special_bessel_j0")
def bessel_j0(x: Tensor) -> Tensor:
    """J0."""
    near, small, large = _parted(x, _NEAR)
    y = torch.where(near, horner(small * small / 4, _signs(_SQUARES)), _wave(large, 0)[0])
    return torch.where(torch.isinf(x), torch.zeros_like(x), y)


@in_float64("special_bessel_j1")
def bessel_j1(x: Tensor) -> Tensor:
    """J1."""
    near, small, large = _parted(x, _NEAR)
    y = torch.where(near, horner(small * small / 4, _signs(_NEXT)) * small / 2, _wave(large, 1)[0])
    return torch.where(torch.isinf(x), torch.zeros_like(x), torch.where(x < 0, -y, y))


def _second_kind(x: Tensor, y: Tensor) -> Tensor:
    """-∞ at zero, NaN below it, 0 at infinity."""
    y = torch.where(torch.isinf(x), torch.zeros_like(x), y)
    return torch.where(x == 0, infinities(x, -1), torch.where((x < 0) | torch.isnan(x), nans(x), y))


@in_float64("special_bessel_y0")
def bessel_y0(x: Tensor) -> Tensor:
    """Y0 (A&S 9.1.13)."""
    near, small, large = _parted(x, _NEAR)
    q = small * small / 4
    tail = [-c * h for c, h in zip(_signs(_SQUARES), _HARMONIC, strict=False)]
    y = (torch.log(small / 2) + EULER) * horner(q, _signs(_SQUARES)) + horner(q, tail)
    return _second_kind(x, torch.where(near, y * (2 / math.pi), _wave(large, 0)[1]))


def _psi_sums() -> list[float]:
    """ψ(k + 1) + ψ(k + 2)."""
    return [_HARMONIC[k] + _HARMONIC[k + 1] - 2 * EULER for k in range(_TERMS)]


@in_float64("special_bessel_y1")
def bessel_y1(x: Tensor) -> Tensor:
    """Y1 (A&S 9.1.11)."""
    near, small, large = _parted(x, _NEAR)
    q = small * small / 4
    j1 = horner(q, _signs(_NEXT)) * small / 2
    sums = horner(q, [c * s for c, s in zip(_signs(_NEXT), _psi_sums(), strict=True)]) * small / 2
    y = (2 * torch.log(small / 2) * j1 - 2 / small - sums) / math.pi
    return _second_kind(x, torch.where(near, y, _wave(large, 1)[1]))


_LARGE = 15.0


def _scaled_first(x: Tensor, order: int) -> Tensor:
    """exp(-|x|) I(|x|) (A&S 9.6.12, 9.7.1)."""
    near, small, large = _parted(x, _LARGE)
    q = small * small / 4
    series = horner(q, _NEXT) * small / 2 if order else horner(q, _SQUARES)
    far = horner(1 / large, _signs(_hankel(order))) / torch.sqrt(2 * math.pi * large)
    return torch.where(near, series * torch.exp(-small), far)


@in_float64("special_i0e")
def i0e(x: Tensor) -> Tensor:
    """exp(-|x|) I0(x)."""
    return _scaled_first(x, 0)


@in_float64("i0", "special_i0", "special_modified_bessel_i0")
def i0(x: Tensor) -> Tensor:
    """I0."""
    return _scaled_first(x, 0) * torch.exp(torch.abs(x))


@in_float64("special_i1e")
def i1e(x: Tensor) -> Tensor:
    """exp(-|x|) I1(x)."""
    y = _scaled_first(x, 1)
    return torch.where(x < 0, -y, y)


@in_float64("special_i1", "special_modified_bessel_i1")
def i1(x: Tensor) -> Tensor:
    """I1."""
    return i1e(x) * torch.exp(torch.abs(x))


_MIDDLE = 8.0


def _scaled_second(x: Tensor, order: int) -> Tensor:
    """exp(x) K(x) (A&S 9.6.11, 9.6.13, 9.7.2); ∞ at zero, NaN below it."""
    near, small, large = _parted(x, _MIDDLE)
    q = small * small / 4
    log = torch.log(small / 2)
    if order:
        sums = horner(q, [c * s for c, s in zip(_NEXT, _psi_sums(), strict=True)]) * small / 4
        y = 1 / small + log * horner(q, _NEXT) * small / 2 - sums
    else:
        tail = [c * h for c, h in zip(_SQUARES, _HARMONIC, strict=False)]
        y = horner(q, tail) - (log + EULER) * horner(q, _SQUARES)
    far = horner(1 / large, _hankel(order, 14)) * torch.sqrt(math.pi / (2 * large))
    y = torch.where(near, y * torch.exp(small), far)
    return torch.where(x == 0, infinities(x), torch.where((x < 0) | torch.isnan(x), nans(x), y))


@in_float64("special_scaled_modified_bessel_k0")
def scaled_k0(x: Tensor) -> Tensor:
    """exp(x) K0(x)."""
    return _scaled_second(x, 0)


@in_float64("special_scaled_modified_bessel_k1")
def scaled_k1(x: Tensor) -> Tensor:
    """exp(x) K1(x)."""
    return _scaled_second(x, 1)


@in_float64("special_modified_bessel_k0")
def k0(x: Tensor) -> Tensor:
    """K0."""
    return _scaled_second(x, 0) * torch.exp(-x)


@in_float64("special_modified_bessel_k1")
def k1(x: Tensor) -> Tensor:
    """K1."""
    return _scaled_second(x, 1) * torch.exp(-x)


@in_float64("special_spherical_bessel_j0")
def spherical_j0(x: Tensor) -> Tensor:
    """sin(x) / x."""
    safe = torch.where(x == 0, torch.ones_like(x), x)
    y = torch.where(torch.abs(x) < 1e-4, 1 - x * x / 6, torch.sin(safe) / safe)
    return torch.where(torch.isinf(x), torch.zeros_like(x), y)


@in_float64("special_airy_ai")
def airy_ai(x: Tensor) -> Tensor:
    """Ai: its series within 6 (A&S 10.4.2), asymptotic beyond (10.4.59, 10.4.60)."""
    limit = 6.0
    near = torch.abs(x) < limit
    small = torch.where(near, x, torch.zeros_like(x))
    f, g = [1.0], [1.0]
    for k in range(1, 45):
        f.append(f[-1] / ((3 * k - 1) * (3 * k)))
        g.append(g[-1] / ((3 * k) * (3 * k + 1)))
    cube = small * small * small
    series = 0.3550280538878172 * horner(cube, f) - 0.2588194037928068 * small * horner(cube, g)
    large = torch.where(near, torch.full_like(x, limit), torch.abs(x))
    turn = large * torch.sqrt(large) * (2 / 3)
    u, value = [1.0], 1.0
    for k in range(1, 14):
        value *= (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1))
        u.append(value)
    root = math.sqrt(math.pi) * torch.sqrt(torch.sqrt(large))
    decay = torch.exp(-turn) * horner(1 / turn, _signs(u)) / (2 * root)
    square = 1 / (turn * turn)
    phase = turn + math.pi / 4
    swing = torch.sin(phase) * horner(square, _signs(u[0::2]))
    swing = (swing - torch.cos(phase) * horner(square, _signs(u[1::2])) / turn) / root
    y = torch.where(near, series, torch.where(x > 0, decay, swing))
    return torch.where(torch.isinf(x), torch.zeros_like(x), y)
