"""Floats as Python has them: the sign of 0, NaN, what each operation rounds, division by 0; halves beside
numbers that are none.
"""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import math
from typing import Any

import torch

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths

case = Cases()
SIGNS = both_signs()
NAN, INF, ZERO = (torch.full((2, 3), v) for v in (math.nan, math.inf, 0.0))


def told(v: Any) -> T:
    """A number with the sign of its 0."""
    return torch.full((2,), v).atan2(torch.tensor(-1.0))


@case(*lengths())
def zeros_of_sizes(x: T) -> Any:
    n = x.shape[0]
    return (
        told(n * -0.0),
        x * math.copysign(1, n * -0.0),
        told(-(n * 0.0)),
        told((n - 1) * -2.5),
        told(0.0 - n * 0.0),
    )


@case(*SIGNS, ZERO)
def zeros_of_data(x: T) -> Any:
    v = x.sum().item()
    count = int((x.sum() > 0).item())
    return told(v * 0.0), told(-(v * 0.0)), told(0.0 - v * 0.0), told(-v), told(v - v), told(count * -0.0)


@case(*SIGNS, INF, NAN)
def no_real_numbers(x: T) -> Any:
    v = x.sum().item()
    wide = torch.tensor([v * 0.0, v - v, v / v, (v + 1e10) - 1e10, (v * 0.1) * 10, v * 1e300 * 1e300])
    return wide, torch.tensor(v * 1e-200 * 1e-200)


@case(*SIGNS, INF, NAN)
def not_less_is_not_greater(x: T) -> Any:
    v = x.sum().item()
    out = torch.zeros(2)
    if not v < 1:
        out = out + 1
    if v <= v:
        out = out + 2
    if not (v >= 1 or v < 1):
        out = out + 4
    if 0 < v < 3:
        out = out + 8
    if v < math.inf:
        out = out + 16
    return out, v == v, v in [v, 1.0], v != v


@case(*SIGNS)
def asked_again(x: T) -> T:
    v = x.sum().item()
    if v > 0:
        return x if v > 0 else x.long()  # no side for what cannot be
    return x * 3 if not v > 0 else x.long()


@case(*lengths(3, 10, 29, 47))
def sizes_by_floats(x: T) -> Any:
    n = x.shape[0]
    if n * 0.29 * 100 >= n * 29:
        x = x + 1
    sizes = int(n * 0.29 * 100), int(n * 0.1 + n * 0.2), math.ceil(n * 1.1 * 10), int(n * 0.5 + 1.5 - n / 4)
    return x, [torch.zeros(s) for s in sizes]


@case(*SIGNS)
def wholes_and_rests(x: T) -> T:
    v = x.sum().item()
    return torch.tensor([v // 2, v % 3, -v // 2, v % -3, v // -3.5])


@case(*SIGNS, ZERO)
def divided_by_a_float(x: T) -> T:
    return x * (1 / x.sum().item())


@case(*SIGNS, ZERO)
def divided_by_an_int(x: T) -> T:
    n = int(x.sum().item() * 10)
    return x + 7 / n


@case.parametrize()
def test_floats(case: Case) -> None:
    """The model computes what Python does, and fails where Python raises."""
    check(case)


def masked(x: T) -> T:
    """A mask of halves by a number that none of them is: 0, where -inf * 0 is NaN."""
    return (1.0 - (x > 0).half()) * -1e9 + x


def divided(x: T) -> T:
    """0-dimensional tensors are such numbers too."""
    return x / torch.tensor(1e5) * torch.tensor(1e5)


def test_halves_beside_larger_numbers() -> None:
    """They are computed with in float32, as PyTorch does."""
    inputs: list[Any] = [(v.half(),) for v in SIGNS]
    for function in (masked, divided):
        check(Case(function.__name__, lambda f=function: f, inputs), tolerance=2e-3)
