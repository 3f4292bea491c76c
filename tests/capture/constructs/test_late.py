"""Generators read their variables when something goes through them, not when they are made."""

from __future__ import annotations

import itertools

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import IngotError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check

SIGNS = both_signs()
case = Cases()


@case(*SIGNS)
def enumerated(x: T) -> T:
    k, out = 1.0, x * 0
    if x.sum() > 0:
        k = 2.0
    for i, v in enumerate(x * k for _ in range(3)):
        out = out + v * i
        k = k + 1
    return out


@case(*SIGNS)
def zipped(x: T) -> T:
    k, out = 1.0, x * 0
    if x.sum() > 0:
        k = 2.0
    for a, b in zip((x * k for _ in range(3)), (1, 2, 3), strict=True):
        out = out + a * b
        k = k * 2
    return out


@case(*SIGNS)
def mapped(x: T) -> T:
    k, out = 1.0, x * 0
    if x.sum() > 0:
        k = 2.0
    for v in map(torch.tanh, (x * k for _ in range(3))):
        out = out + v
        k = k * 2
    return out


@case(*SIGNS)
def next_of_it(x: T) -> T:
    k = 1.0
    rows = iter(x * k * i for i in range(4))
    first = next(rows)
    if x.sum() > 0:
        k = 3.0
    return first + next(rows)


@case(*SIGNS)
def written_meanwhile(x: T) -> T:
    y, out = x.clone(), x * 0
    if x.sum() > 0:
        y = y * 2
    for i, v in enumerate(y * j for j in range(3)):
        out = out + v
        y += i
    return out


@case(*SIGNS)
def kept_for_later(x: T) -> T:
    k = 1.0
    parts = itertools.chain(x * k * i for i in (1, 2))
    if x.sum() > 0:
        k = 3.0
    return sum(parts, x * 0)


@case(*SIGNS)
def functions_of_a_comprehension(x: T) -> tuple[T, T, T]:
    late = [lambda v: v * i for i in range(3)]  # noqa: B023  (as people write it)
    early = [lambda v, i=i: v * i for i in range(3)]
    at = int(x.sum() > 0)
    return late[0](x), early[1](x), late[at](x)


@case(*SIGNS)
def rows_of_any_number(x: T) -> T:
    k = 2.0 if x.sum() > 0 else 1.0
    out = x[0] * 0
    for i, v in enumerate(row * k for row in x):
        out = out + v * i
    k = k + 1
    return out * k


@case.parametrize()
def test_generators_read_late(case: Case) -> None:
    """As eager, for all inputs."""
    check(case)


def beside_rows(x: T) -> T:
    k, out = 1.0, x[0] * 0
    for row, v in zip(x[x[:, 0] > 0], (x[0] * k for _ in range(100)), strict=False):
        out = out + row * v
        k = k + row.sum()
    return out


def test_beside_rows_of_any_number_it_is_refused() -> None:
    """How far it is gone through, the run alone knows."""
    with pytest.raises(IngotError, match="whose variables something changes meanwhile"):
        capture(beside_rows, (SIGNS[0],))
