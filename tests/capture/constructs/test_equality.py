"""`==`, `!=`, `in` and `is` of values of which data decides parts."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check

case = Cases()
SIGNS = both_signs()


@dataclasses.dataclass
class Kind:
    """A value object."""

    n: int
    name: str = "a"


@dataclasses.dataclass(frozen=True)
class Level:
    """One that is a key."""

    n: int


@dataclasses.dataclass(order=True)
class Ordered:
    """One that knows which is less."""

    n: int


@case(*SIGNS)
def a_dataclass(x: T) -> Any:
    v = Kind(1)
    if x.sum() > 0:
        v = Kind(2, "b")
    w = Kind(1)
    if x.sum() > 0:
        w.n = 2
    found = [v == Kind(2, "b"), w == Kind(1), w != Kind(1), w in [Kind(2), Kind(3)]]
    return [x + 1 if f else x for f in found]


@case(*SIGNS)
def a_key(x: T) -> Any:
    v = Level(1) if x.sum() > 0 else Level(2)
    w = (1, "a") if x.sum() > 0 else (2, "b")
    y = x + 1 if v in {Level(1), Level(5)} else x
    return y + {Level(1): 5, Level(2): 7}[v] + {(1, "a"): 5, (2, "b"): 8}[w]


@case(*SIGNS)
def lists_and_dicts(x: T) -> Any:
    a, b, c = [1], ["a", "a"], {"k": 1}
    if x.sum() > 0:
        a.append(2)
        b[1] = "b"
        c = {"k": 2}
    d = (1, 2) if x.sum() > 0 else (1, 3)
    found = [
        a == [1, 2],
        a != [1],
        b == ["a", "b"],
        b in [["a", "b"]],
        c == {"k": 1},
        c != {"k": 1},
        d == (1, 2),
    ]
    found += ["b" in {"k": b[1]}.values(), 2 in a]
    return [x + 1 if f else x for f in found]


@case(*SIGNS)
def perhaps_none(x: T) -> Any:
    n = None
    if x.sum() > 0:
        n = 3
    return x + 1 if n == 3 else x, x + 1 if n != 3 else x


@case(*SIGNS)
def one_of_two_tensors(x: T) -> Any:
    a, b = x * 2, x * 3
    t = a if x.sum() > 0 else b

    def same(p: T, q: T) -> int:
        return 1 if p is q else 0

    seen = []
    if x.sum() > 0:
        seen.append(b)
    y = x + 1 if t is a else x
    y = y + 2 if any(t is s for s in [b]) else y
    return y * 2 if b in seen else y, x + same(t, a)


@case(*SIGNS)
def numbers_among_others(x: T) -> Any:
    v, flag = x.sum().item(), bool(x.sum() > 0)
    found = [v in (0.0, 1.0), [v] == [v], flag in (1, 7), [flag] == [flag], int(v) in range(0, 1 << 60, 2)]
    found += [flag is True, flag is (v > 0), flag is 1, 5 in range(1 << 60), flag in range(1, 3)]  # noqa: F632
    return [x + 1 if f else x for f in found]


@case(*SIGNS)
def none_or_a_value_is(x: T) -> Any:
    m = x if x.sum() > 0 else None
    k = x if x.mean() > 1 else None
    return [x + 1 if f else x for f in (m is k, m is x, k is not x, m is None, x is m)]


@case(*SIGNS)
def lists_that_data_fills(x: T) -> Any:
    some = [r.sum().item() for r in x if not r.sum() < 0]
    every = [r.sum().item() for r in x]
    found = [some != every, some == list(some), some == every]
    return [x + 1 if f else x for f in found]


@case.parametrize()
def test_equality(case: Case) -> None:
    """As eager has it, on both sides of the branch."""
    check(case)


def test_an_order_that_python_alone_finds_is_refused() -> None:
    """A dataclass compares its fields by itself, where the example would decide."""

    def less(x: T) -> T:
        v = Ordered(1)
        if x.sum() > 0:
            v.n = 3
        return x + 1 if v < Ordered(2) else x

    with pytest.raises(DataDependentError, match="Data decides this condition"):
        capture(less, (SIGNS[0],))


def test_rows_of_a_list_are_no_objects() -> None:
    """Which of them one is, only values could say."""

    def first(x: T) -> T:
        rows = [r for r in x if r.sum() > 0]
        best, n = rows[0], 0
        for r in rows:
            if r is best:
                n = n + 1
        return x + n

    with pytest.raises(DataDependentError, match="whether two tensors are one object"):
        capture(first, (SIGNS[0],))
