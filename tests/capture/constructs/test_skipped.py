"""What Python does not come to is not done: operands behind a comparison that does not hold, elements behind
the one that decides `any` and `all`, what a generator does after the last element that somebody takes.
"""

# The constructs are written as people write them.

from __future__ import annotations

import contextlib
import functools
import itertools
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, positive, random

case = Cases()
MIXED = [random(5, 3), *both_signs()[1:], positive(4, 3) * 9, -positive(4, 3) * 9]


@case(*MIXED)
def operand_that_appends(x: T) -> T:
    seen: list[T] = []

    def limit() -> float:
        seen.append(x.sum())
        return 5.0

    inside = 0 < x.sum() < limit()
    return x * len(seen) + (1 if inside else 0)


@case(*MIXED)
def operand_that_asserts(x: T) -> T:
    def limit(v: T) -> float:
        assert v > -1
        return 4.0

    return x * 2 if x.sum() > 0 > -limit(x.min()) else x


@case(*MIXED)
def operand_that_is_not_there(x: T) -> T:
    return x[2] * 2 if 2 < x.shape[0] < 9 + int(x[2, 0] > 100) else x[0]


@case(*MIXED)
def four_operands_that_count(x: T) -> T:
    count = [0.0]

    def seen(v: Any) -> Any:
        count[0] = count[0] + 1
        return v

    inside = -10 < seen(x.sum()) < seen(x.max() * 5) < seen(8.0)
    return x + count[0] + (10 if inside else 0)


@case(*MIXED)
def operand_that_assigns(x: T) -> T:
    v = 0.0
    inside = 0 < x.sum() < (v := float(x.max()))
    return x + v + (1 if inside else 0)


@case(*MIXED)
def comparison_of_rows(x: T) -> T:
    return torch.stack([r * 2 if 0 < r.sum() < r.max() * 2 < 4 else r for r in x])


@case(*MIXED)
def any_that_appends(x: T) -> T:
    seen: list[T] = []

    def holds(v: T) -> T:
        seen.append(v)
        return v.sum() > 0

    found = any(holds(r) for r in (x[0], x[0] * 2 - 1, -x[0]))
    return torch.stack(seen).sum(0) + (1 if found else 0)


@case(*MIXED)
def any_of_rows_that_appends(x: T) -> T:
    seen: list[T] = []

    def holds(v: T) -> T:
        seen.append(v)
        return v.sum() > 0

    found = any(holds(r) for r in x)
    return torch.stack(seen).sum(0) + (1 if found else 0)


@case(*MIXED)
def all_of_rows_that_asserts(x: T) -> T:
    def holds(v: T) -> T:
        assert v.min() > -2
        return v.sum() > 0

    return x * 2 if all(holds(r) for r in x) else x


@case(*MIXED)
def all_with_a_test_that_counts(x: T) -> T:
    count = [0.0]

    def holds(v: T) -> T:
        count[0] = count[0] + 1
        return v.sum() > 0

    found = all(holds(r) for r in x if r.max() > 0.1)
    found_here = any(holds(r) for r in (x[0], -x[0], x[0] * 2) if r.max() > 0.1)
    return x + count[0] + (5 if found else 0) + (9 if found_here else 0)


@case(*MIXED)
def any_over_two_loops_that_counts(x: T) -> T:
    count = [0.0]

    def holds(a: T, b: float) -> T:
        count[0] = count[0] + 1
        return a.sum() + b > 0

    found = any(holds(a, b) for a in (x[0], x[0] * 2) for b in (-1.0, 0.5))
    rows = all(holds(a, b) for a in x for b in (1.0, 0.5))
    return x + count[0] + (5 if found else 0) + (9 if rows else 0)


@case(*MIXED)
def any_of_a_map_that_counts(x: T) -> T:
    count = [0.0]

    def holds(v: T) -> T:
        count[0] = count[0] + 1
        return v.sum() > 0

    found = any(map(holds, (x[0], x[0] * 2 - 1, -x[0])))
    return x + count[0] + (5 if found else 0)


@case(*MIXED)
def next_that_appends(x: T) -> T:
    seen: list[T] = []

    def holds(v: T) -> T:
        seen.append(v)
        return v.sum() > 0

    got = next((r for r in (x[0], x[0] * 2 - 1, -x[0]) if holds(r)), x[0] * 7)
    return got + torch.stack(seen).sum(0)


@case(*MIXED)
def generator_that_counts_what_is_taken(x: T) -> T:
    count = [0.0]

    def sums() -> Any:
        for r in (x[0], -x[0], x[0] * 2):
            count[0] = count[0] + 1
            yield r.sum()

    found = False
    for v in sums():
        if v > 0:
            found = True
            break
    return x + count[0] + (5 if found or any(v > 1 for v in sums()) else 0) + count[0]


@case(*MIXED)
def map_that_counts_what_is_taken(x: T) -> T:
    count = [0.0]

    def doubled(v: T) -> T:
        count[0] = count[0] + 1
        return v * 2

    y = x[0]
    for v in map(doubled, (x[0], -x[0], x[0] * 2)):
        if v.sum() > 0:
            break
        y = y + v
    return y + count[0]


class RestOfLayers(torch.nn.Module):
    """Python knows where it goes on, in a function that data makes rewritten."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 3) for _ in range(4)])
        self.stem = self.layers[1]

    def forward(self, x: T) -> T:
        layers = iter(self.layers)
        for layer in layers:
            x = layer(x)
            if layer is self.stem:
                break
        for layer in layers:
            x = torch.relu(layer(x))
        return x * 2 if x.sum() > 0.3 else x


case(*MIXED)(RestOfLayers)


@case(*MIXED)
def next_behind_a_break(x: T) -> T:
    values = iter([1.0, 2.0, 3.0, 4.0])
    for v in values:
        x = x + v
        if v > 1.5:
            break
    x = x * next(values)
    return x + 1 if x.sum() > 0 else x


@case(*MIXED)
def all_of_an_iterator_that_nobody_goes_on_with(x: T) -> T:
    values = zip([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], strict=True)
    for a, b in values:
        x = x * a + b
        if x.sum() > 5:
            break
    return x


@case(*MIXED)
def generator_that_reads_a_variable_late(x: T) -> T:
    k = 1.0
    parts = (v * k for v in (x, x + 1))
    if x.sum() > 0:
        k = 2.0
    return sum(parts)


@case(*MIXED)
def partial_of_a_function_that_reads_late(x: T) -> T:
    k = 1.0
    f = functools.partial(lambda v: v * k)
    if x.sum() > 0:
        k = 2.0
    return f(x)


@case(*MIXED)
def sum_of_what_may_be_nothing(x: T) -> T:
    return x + sum([row * 2 for row in x if row.sum() > 0])


@case(*MIXED)
def managers_that_name_each_other(x: T) -> T:
    for row in x:
        if row.sum() > 0:
            with contextlib.nullcontext(row * 2) as a, contextlib.nullcontext(a + 1) as b:
                x = x + b
    return x


@case(*MIXED)
def and_with_zero_or_none(x: T) -> T:
    n = x.shape[0] - 1 if x.sum() > 0 else None
    found = n and n + 1
    return x * (100 if found is None else found)


@case.parametrize()
def test_skipped(case: Case) -> None:
    check(case)


def witness(x: T) -> T:
    v = x[0]
    return v if any((v := r).sum() > 0 for r in (x[0], -x[0], x[0] * 0 + 1)) else v * 3


def half_of_an_iterator(x: T) -> T:
    rows = iter([x[0], -x[0], x[0] * 2])
    found = any(v.sum() > 0 for v in rows)
    return sum(rows, x[0]) + (1 if found else 0)


def half_of_a_generator(x: T) -> T:
    rows = (v * 2 for v in (x[0], -x[0]))
    for v in rows:
        if v.sum() > 0:
            break
    return sum(rows, x[0])


def rest_of_an_iterator(x: T) -> T:
    values = iter([1.0, 2.0, 3.0, 4.0])
    for v in values:
        x = x + v
        if x.sum() > 5:
            break
    for v in values:
        x = x * v
    return x


def rest_behind_others(x: T) -> T:
    values = iter([1.0, 2.0, 3.0, 4.0])
    for place, v in enumerate(values):
        x = x + v * place
        if x.sum() > 5:
            break
    return x + sum(values)


def rest_beside_rows(x: T) -> T:
    values = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    total = x.sum(0) if x.sum() > 0 else x[0]
    for row, v in zip(x[x[:, 0] > 0], values, strict=False):
        total = total + row * v
    return total * next(values)


def rest_beside_the_rows_of_a_list(x: T) -> T:
    values = itertools.count(1.0)
    first = x[0] if x.sum() > 0 else -x[0]
    rows = [row * v for row, v in zip(x[x[:, 0] > 0], values, strict=False)]
    return sum(rows, first) * next(values)


def passed_twice(x: T) -> T:
    total = x[0] if x.sum() > 0 else -x[0]
    pairs = enumerate(x[x[:, 0] > 0])
    for place, row in pairs:
        total = total + row * place
        if row.sum() > 0:
            break
    return total + sum(row for _, row in pairs)


class Kept(torch.nn.Module):
    """Has an iterator as its attribute."""

    def forward(self, x: T) -> T:
        self.values = iter([1.0, 2.0, 3.0, 4.0])
        for v in self.values:
            x = x + v
            if x.sum() > 5:
                break
        return x + next(self.values, 0)


@pytest.mark.parametrize(
    "function",
    [
        witness,
        half_of_an_iterator,
        half_of_a_generator,
        rest_of_an_iterator,
        rest_behind_others,
        rest_beside_rows,
        rest_beside_the_rows_of_a_list,
        passed_twice,
        Kept(),
    ],
)
def test_iterators_that_stay_where_data_decides_are_refused(function: Any) -> None:
    wanted = r"how far this goes through an iterator.* in a list or tensor|something has looped over before"
    with pytest.raises(DataDependentError, match=wanted):
        capture(function, (random(5, 3),))
