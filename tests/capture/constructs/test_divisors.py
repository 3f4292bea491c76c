"""Whole numbers that data makes 0, and that divide: the model fails as eager does, also in sessions whose
integers divide by 0 without a word.
"""

# The constructs are written as people write them.

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check

case = Cases()
NUMBERS = [torch.tensor(v) for v in ([3.0, 2.0], [1.0, -1.0], [0.0, 0.0], [7.0])]
WHOLE = [(torch.tensor([7, -7, 5]), torch.tensor(d)) for d in ([2, -3, 1], [2, 0, 1], [0, 0, 0])]


@case(*WHOLE)
def whole_tensors(x: T, d: T) -> tuple[T, ...]:
    rounded = [torch.div(x, d, rounding_mode=m) for m in ("floor", "trunc")]
    return x // d, x % d, torch.fmod(x, d), *rounded


@case(*WHOLE)
def none_of_them(x: T, d: T) -> T:
    return x // d[:0].sum().clamp(min=2)


@case(*WHOLE)
def under_a_condition(x: T, d: T) -> T:
    return x // d if (d != 0).all() else x


@case(*[torch.tensor(v) for v in ([5, -3, 2], [0, 4], [1], [0, 0])])
def guarded_in_a_loop(x: T) -> tuple[T, ...]:
    wholes, floats = [], []
    for v in x.tolist():
        if v == 0:
            wholes.append(0)
            continue
        wholes.append(7 // v + 9 % v)
    for v in x.double().tolist():
        if v == 0:
            floats.append(0.0)
        else:
            floats.append(1 / v)
    return torch.tensor(wholes), torch.tensor(floats)


@case(*NUMBERS)
def counted_behind_a_branch(x: T) -> T:
    n = int(x.sum())
    y = x if n == 0 else x * 2
    return y + (7 // n > 2) * 3


@case(*NUMBERS)
def branch_behind_a_branch(x: T) -> T:
    n = int(x.sum())
    y = x if n == 0 else x * 2
    return y + 1 if 9 % n > 2 else y


@case(*NUMBERS)
def divmod_of_a_number(x: T) -> T:
    whole, rest = divmod(17, int(x.sum()))
    return x * whole + rest


@case(*NUMBERS)
def powers_of_a_number(x: T) -> T:
    return x + pow(3, 4, int(x.sum()))


@case(*NUMBERS)
def a_tensor_by_a_number(x: T) -> T:
    return torch.tensor([17, 4]) // int(x.sum())


@case.parametrize()
def test_divisors(case: Case) -> None:
    """Fails where eager PyTorch fails."""
    check(case)


def a_place(x: T) -> T:
    items = [x, x * 2]
    try:
        return items[int(x.sum())]
    except IndexError:
        return x * 0


def a_place_in_a_tensor(x: T) -> T:
    try:
        return x[int(x.sum())]
    except IndexError:
        return x[0]


def a_place_in_a_list_of_data(x: T) -> T:
    items = [v for v in x if v > 0]
    try:
        return items[1]
    except IndexError:
        return x[0]


def taken_out(x: T) -> T:
    items = [x]
    try:
        return items.pop(int(x.sum()))
    except LookupError:
        return x * 0


def a_key(x: T) -> T:
    try:
        return {1: x, 2: x * 2}[int(x.sum())]
    except KeyError:
        return x * 0


def a_divisor(x: T) -> T:
    n = int(x.sum())
    try:
        return x * (1 / n)
    except ZeroDivisionError:
        return x * 0


def divided(x: T) -> Any:
    n = int(x.sum())
    try:
        return x * divmod(17, n)[0]
    except (ZeroDivisionError, KeyError):
        return x * 0


def whole_divisors(x: T) -> T:
    try:
        return torch.arange(3) // x.long().sum()
    except RuntimeError:
        return torch.arange(3)


def a_whole_number(x: T) -> T:
    try:
        n = int(x.sum())
    except OverflowError:
        n = 7
    return x * n


CAUGHT = [
    (a_place, r"the list has this place.*Ask with `if`"),
    (a_place_in_a_tensor, r"the axis has this place.*Ask with `if`"),
    (a_place_in_a_list_of_data, r"the list has this place.*Ask with `if`"),
    (taken_out, r"the list has this place.*Ask with `if`"),
    (a_key, r"the dict has this key.*Ask with `in`"),
    (a_divisor, r"what divides is not 0.*if n != 0"),
    (divided, r"what divides is not 0.*if n != 0"),
    (whole_divisors, r"no integer that divides is 0.*with `if`"),
    (a_whole_number, r"what becomes a whole number is one.*isfinite"),
]


@pytest.mark.parametrize(("function", "words"), CAUGHT, ids=[f.__name__ for f, _ in CAUGHT])
def test_what_would_be_caught_is_refused(function: Any, words: str) -> None:
    """The way behind `except` is in no model."""
    with pytest.raises(DataDependentError, match=rf"test_divisors\.py:\d+: (.|\n)*{words}"):
        capture(function, (NUMBERS[0],))


def of_another_error(x: T) -> T:
    n = int(x.sum())
    try:
        return x * (1 / n) * [1.0, 2.0][n % 2]
    except KeyError:
        return x * 0


def test_what_catches_another_error_is_taken() -> None:
    """The run fails, as eager does."""
    check(Case("of_another_error", lambda: of_another_error, [(x,) for x in NUMBERS]))
