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


LARGE = [torch.full((2, 3), v) for v in (1.0, 2.0**52, 2.0**53, -(2.0**53), 2.0**60, math.inf, math.nan)]


@case(*LARGE)
def beside_ints_that_no_float_is(x: T) -> Any:
    """Python rounds neither."""
    v, n, many = x[0, 0].item(), 2**53 + 1, 10**400
    first = [v == n, v != n, v < n, v <= n, v > n, v >= n, n > v, n <= v]
    return [*first, v < -n, v >= -n, v < many, v == many, v > many, v >= -many, many >= v]


WHOLE = [torch.tensor([n, n - 1, 3 - n]) for n in (2, 1, 0, -2, 2**53, 2**53 + 1, 2**62 + 1, 2**63 - 1)]


@case(*WHOLE)
def ints_that_no_float_is(x: T) -> Any:
    """Beside floats that are known."""
    n, f, half = x[0].item(), 2.0**53, 1.5
    first = [n == f, n != f, n < f, n <= f, n > f, n >= f, f >= n, f < n]
    second = [n == half, n != half, n < half, n <= half, n > half, n >= half, half > n]
    return [*first, *second, n < 1e300, n >= -math.inf, n == math.nan, n != math.nan, n < 2.0**63]


@case(*WHOLE)
def ints_beside_floats_of_data(x: T) -> Any:
    """Which are the same but for rounding."""
    n, v, w = x[0].item(), float(x[0].item()), float(x[1].item())
    first = [n == v, n != v, n < v, n <= v, n > v, n >= v, v == n, v < n, v >= n]
    nan = v * math.inf * 0.0
    return [*first, n == w, n < w, n >= w, n < nan, n == nan, n != nan, n <= v * 1e300 * 1e300]


@case(*[(v,) for v in (torch.tensor([0.5, 2.0]), NAN[0], ZERO[0], torch.tensor([7.0, math.nan]))])
def asked_where_it_is_a_number(x: T) -> int:
    total = 0
    for v in x.tolist():
        if v == v:
            total += min(3, int(abs(v)))
    return total


@case.parametrize()
def test_floats(case: Case) -> None:
    """The model computes what Python does, and fails where Python raises."""
    check(case)


def test_sizes_by_whole_floats_stay_sizes() -> None:
    """`n // 2.0` is a formula of the size: two of them are as long, and no data decides them."""

    def halves(x: T) -> Any:
        n, scale = x.shape[0], 0.3
        first, same = x[: int(n // 2.0)], torch.ones(int(n // 2.0), 1)
        scaled = [int(n * scale // 3 * 3), int(n * 0.5 // 4), int(n / 2 % 3 * 2), int(n % 3.0)]
        return first + same, [torch.zeros(s + 1) for s in scaled], n * scale % 2.0, n * 0.1 // 1

    inputs: list[Any] = [(v,) for v in lengths(3, 10, 30, 47)]
    captured = check(Case("halves", lambda: halves, inputs))
    found = {node.op_type for node in captured.model.graph}
    assert "Where" not in found, f"the quotients are computed as tensors are, with {sorted(found)}"


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


def rounded_to_digits(x: T) -> T:
    v = x.sum().item()
    return torch.tensor([round(v, 0), round(v, 1), round(v, 2), round(v, 8)], dtype=torch.float64)


def test_rounding_to_digits_is_pythons() -> None:
    """Also where the number is next to half way between two decimals, or half way."""
    near = [2.675, 1.115, 1.005, 0.125, -0.375, 2.5, -0.5, -0.001, 1e20, float("inf"), float("nan"), 0.285]
    inputs: list[Any] = [(torch.tensor([v], dtype=torch.float64),) for v in near]
    check(Case("rounded_to_digits", lambda: rounded_to_digits, inputs), tolerance=0)


def scaled_by_a_rounded_size(x: T) -> T:
    return x * round(x.shape[0] / 3, 2)


def test_rounding_of_sizes_to_digits() -> None:
    check(
        Case("scaled_by_a_rounded_size", lambda: scaled_by_a_rounded_size, [(v,) for v in lengths(3, 10, 7)])
    )
