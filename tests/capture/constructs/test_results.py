"""What functions return where data decides: dicts, tuples and dataclasses, on one way or from inside a loop,
and None or a value, which the caller finds out.
"""

# The constructs are written as people write them.
# ruff: noqa: E731, SIM108

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError, ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, copied, positive

case = Cases()
SIGNS = both_signs()
SOME = [*both_signs(), *[positive(n, 3) - 0.5 for n in (4, 7)]]
SIZES = [positive(5, 3) * k for k in (0.1, 1, 5, 50)]


@case(*SOME)
def loop_returns_a_dict(x: T) -> dict[str, T]:
    for row in x:
        if row.sum() > 2:
            return {"row": row, "n": x.sum()}
    return {"row": x[0], "n": x.sum() * 0}


@case(*SOME)
def loop_returns_a_dict_with_an_index(x: T) -> dict[str, T | int]:
    for i, row in enumerate(x):
        if row.sum() > 2:
            return {"row": row, "i": i}
    return {"row": x[0], "i": -1}


@case(*SIGNS)
def dicts_in_another_order(x: T) -> T:
    if x.sum() > 0:
        d = {"u": 1.0, "v": 2.0, "w": x}
    else:
        d = {"w": x * 3, "v": 1.0, "u": 2.0}
    return d["w"] * d["u"]


class Outputs(OrderedDict[str, Any]):
    """Has its fields as items, too, and looks at them when it is made."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is not None:
                self[f.name] = value


@dataclass
class Scored(Outputs):
    value: T
    score: T | None = None


@case(*SIGNS)
def items_of_a_dataclass_that_is_a_dict(x: T) -> T:
    if x.sum() > 0:
        o = Scored(x * 2, x.sum())
    else:
        o = Scored(x * 3, x.sum() - 1)
    return o["value"] * o["score"] + o.value


@case(*SIZES)
def loop_makes_dataclasses_that_are_dicts(x: T) -> T:
    o = Scored(x)
    while o.value.sum() < 100:
        o = Scored(o["value"] * 2)
    return o["value"] + o.value


class Kept:
    """Where a branch may leave something: all code that may ask for it is rewritten."""

    def __init__(self) -> None:
        self.v: T | None = None


@case(*SIGNS)
def returns_a_dataclass_that_is_a_dict(x: T) -> Scored:
    kept = Kept()
    if x.sum() > 0:
        kept.v = x * 2
    y = x * 3
    if kept.v is not None:
        y = kept.v + 1
    return Scored(y, x.sum())


@dataclass
class Linked:
    name: str = "ab"
    other: Any = None


RING = Linked()
RING.other = Linked("c", RING)


@case(*SIGNS)
def returns_objects_that_hold_each_other(x: T) -> T:
    def chosen(t: T) -> tuple[T, Linked]:
        if t.sum() > 0:
            return t, RING
        return -t, RING

    y, ring = chosen(x)
    return y + len(ring.name)


@case(*SIZES)
def endless_loop_returns_a_dict(x: T) -> dict[str, T | int]:
    n = 0
    while True:
        x = x * 1.5
        n += 1
        if x.sum() > 60:
            return {"x": x, "n": n}
        if n > 6:
            return {"x": x * 0, "n": n}


@case(*SOME)
def loop_returns_a_dict_with_words(x: T) -> T:
    def found(t: T) -> dict[str, object]:
        for row in t:
            if row.sum() > 2:
                return {"kind": "row", "value": row, "mask": None}
        return {"kind": "row", "value": t[0], "mask": None}

    result = found(x)
    assert result["kind"] == "row"
    return result["value"] * (2 if result["mask"] is None else 3)


@case(*SOME)
def loop_returns_a_pair_or_none(x: T) -> T:
    def find(t: T) -> tuple[T, int] | None:
        for i, row in enumerate(t):
            if row.sum() > 2:
                return row, i
        return None

    found = find(x)
    if found is None:
        return x * 0
    return x + found[0] * found[1]


@case(*SIGNS)
def helper_returns_a_tensor_or_none(x: T) -> T:
    def find(t: T) -> T | None:
        if t.sum() > 0:
            return t * 2
        return None

    r = find(x)
    if r is None:
        return x - 1
    return r


@case(*SIGNS)
def lambda_returns_a_tensor_or_none(x: T) -> T:
    find = lambda t: t * 2 if t.sum() > 0 else None
    r = find(x)
    return x - 1 if r is None else r


@case(*SIGNS)
def helper_returns_a_pair_with_none(x: T) -> T:
    def find(t: T) -> tuple[T, T | None]:
        if t.sum() > 0:
            return t * 2, t
        return t, None

    a, b = find(x)
    if b is not None:
        a = a + b
    return a


@case(*SIGNS)
def function_reads_what_may_be_none(x: T) -> T:
    r = None
    if x.sum() > 0:
        r = x * 3

    def g() -> T:
        return x if r is None else r * 2

    return g()


@dataclass
class Result:
    """What a step gives."""

    value: T
    steps: int = 0
    name: str = "step"


class Pair(NamedTuple):
    """Two tensors."""

    a: T
    b: T


@case(*SIGNS)
def dataclasses_on_both_sides(x: T) -> tuple[T, int]:
    if x.sum() > 0:
        result = Result(x * 2, 3)
    else:
        result = Result(x - 1)
    return result.value, result.steps


@case(*SIGNS)
def dataclass_of_a_helper(x: T) -> T:
    def step(t: T) -> Result:
        if t.sum() > 0:
            return Result(t * 2, 3)
        return Result(t)

    first = step(x)
    second = step(-first.value)
    return second.value * second.steps + first.steps


@case(*SOME)
def dataclass_carried_by_a_loop(x: T) -> T:
    state = Result(x[0] * 0)
    for row in x:
        state = Result(state.value * 0.5 + row, state.steps + 1)
        if row.sum() > 2:
            break
    return state.value * state.steps


@case(*SIGNS)
def dataclass_or_none(x: T) -> T:
    def step(t: T) -> Result | None:
        return Result(t * 2, 3) if t.sum() > 0 else None

    result = step(x)
    return x if result is None else result.value + result.steps


@case(*SOME)
def named_tuple_carried_by_a_loop(x: T) -> Pair:
    pair = Pair(x[0], x[0])
    for row in x:
        pair = Pair(pair.b, pair.a + row)
    return pair


class Sums(NamedTuple):
    """A tensor, and numbers beside it."""

    total: T
    rows: int = 0
    kind: str = "sum"


@case(*SOME)
def named_tuple_with_other_numbers(x: T) -> tuple[T, T, T]:
    sums = Sums(x.new_zeros(3))
    for row in x:
        if row.sum() > 0:
            sums = sums._replace(total=sums.total + row, rows=sums.rows + 1)
    return sums.total, torch.tensor(sums.rows), x * sums._asdict()["rows"]


@case(*SOME)
def place_that_is_none_before_the_rounds(x: T) -> tuple[T, T, T]:
    best, place = -float("inf"), None
    for i, row in enumerate(x):
        if row.sum() > best:
            best, place = row.sum().item(), i
    return torch.tensor(best), torch.tensor(place), torch.tensor([place, 1])


@case(*SOME)
def numbers_under_keys(x: T) -> T:
    found: dict[str, Any] = {}
    n = int(x.argmax())
    found.setdefault("a", n)
    found.setdefault("a", 5)
    return x * found.pop("a", 0) + found.pop("b", n)


@case.parametrize()
def test_results(case: Case) -> None:
    """Every caller gets what eager's gets."""
    check(case)


def test_none_or_a_dict_is_no_output() -> None:
    """A model returns tensors, on every way the same ones."""

    def model(x: T) -> dict[str, T] | None:
        if x.sum() > 0:
            return {"a": x}
        return None

    with pytest.raises(ExportError, match="what kind of thing the model returns"):
        capture(model, copied((SIGNS[0],)))


def test_a_loop_that_turns_a_dict_around_is_refused() -> None:
    """Its parts would be taken for each other's."""

    def model(x: T) -> T:
        d = {"u": x, "v": x * 2}
        while d["u"].sum() < 10:
            d = {"v": d["u"] * 2, "u": d["v"] + 1}
        return d["u"] - d["v"]

    with pytest.raises(DataDependentError, match="the variable 'd'"):
        capture(model, copied((SIGNS[0],)))
