"""Generators that data steers: what loops over them does its part where they yield."""

# The constructs are written as people write them; the generators' own types say nothing.
# pyright: basic

from __future__ import annotations

import functools

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, positive

case = Cases()
SIGNS = both_signs()
ROWS = lengths()
SOME = [*both_signs(), *[positive(n, 3) - 0.5 for n in (4, 7)]]


@case(*SIGNS)
def generator_with_a_branch(x: T) -> T:
    def parts(t):
        yield t
        if t.sum() > 0:
            yield t * 2
        yield t + 1

    total = torch.zeros_like(x)
    for p in parts(x):
        total = total + p
    return total


@case(*[positive(5, 3) * k for k in (0.1, 1, 5, 50, 200)])
def generator_with_a_while(x: T) -> T:
    def halves(t):
        while t.sum() > 10:
            t = t / 2
            yield t

    total = torch.zeros_like(x)
    for p in halves(x):
        total = total + p
    return total


@case(*SIGNS)
def generator_listed(x: T) -> T:
    def parts(t):
        yield t
        if t.sum() > 0:
            yield t * 2

    return torch.cat(list(parts(x)), 0)


@case(*SOME)
def generator_over_rows(x: T) -> T:
    def chosen(t):
        for row in t:
            if row.sum() > 0:
                yield row

    rows = list(chosen(x))
    return torch.stack(rows) if len(rows) > 0 else x


@case(*ROWS)
def generator_over_rows_plain(x: T) -> T:
    def scaled(t):
        for i, row in enumerate(t):
            yield row * i

    h = x[0] * 0
    for r in scaled(x):
        h = h * 0.5 + r
    return h


@case(*SOME)
def generator_with_return(x: T) -> T:
    def until(t):
        for row in t:
            if row.sum() > 2:
                return
            yield row

    h = x[0] * 0
    for r in until(x):
        h = h * 0.5 + r
    return h


@case(*SIGNS)
def generator_yield_from(x: T) -> T:
    def inner(t):
        if t.sum() > 0:
            yield t
        yield t * 3

    def outer(t):
        yield from inner(t)
        yield t * 5

    return sum(outer(x))


@case(*SOME)
def generator_break_outside(x: T) -> T:
    def rows(t):
        for row in t:
            if row.sum() > -1:
                yield row

    h = x[0] * 0
    for r in rows(x):
        if r.sum() > 2:
            break
        h = h + r
    return h


@case(*SIGNS)
def generator_method(x: T) -> T:
    class M:
        def parts(self, t):
            if t.sum() > 0:
                yield "a", t
            else:
                yield "b", -t

    out = x
    for _k, v in M().parts(x):
        out = out + v
    return out


@case(*SIGNS)
def generator_that_changes_its_argument(x: T) -> T:
    def parts(t):
        yield t
        if t.sum() > 0:
            t = t * 3
        yield t

    total = x * 0
    for p in parts(x):
        total = total * 2 + p
    return total


@case(*SIGNS)
def generator_with_names(x: T) -> T:
    def parts(t):
        if t.sum() > 0:
            yield "double", t
        yield "plain", t

    out = x
    for kind, value in parts(x):
        scale = 2 if kind == "double" else 1
        out = out + value * scale
    return out


@case(*SOME)
def generator_of_a_generator(x: T) -> T:
    def rows(t):
        for row in t:
            if row.sum() > -1:
                yield row

    def pairs(t):
        before = t[0] * 0
        for row in rows(t):
            yield before, row
            before = row

    total = x[0] * 0
    for a, b in pairs(x):
        if b.sum() < 0:
            continue
        total = total + a - b * 2
    return total


@case(*SIGNS)
def generator_in_a_comprehension(x: T) -> T:
    def parts(t):
        yield t
        if t.sum() > 0:
            yield t * 2

    return torch.cat([p + 1 for p in parts(x)]) + sum(p.sum() for p in parts(x))


def _total(part):
    return part.sum(0)


@case(*ROWS)
def map_of_two_columns(x: T) -> T:
    return torch.stack(list(map(lambda a, b: a * b, x, reversed(x))))


@case(*ROWS)
def map_of_parts(x: T) -> T:
    return torch.stack(list(map(_total, torch.split(x, 2))))


@case(*ROWS)
def map_of_numbers(x: T) -> int:
    return sum(map(int, (x[:, 0] * 3).tolist()))


@case(*SIGNS)
def filter_of_rows(x: T) -> T:
    kept = list(filter(lambda row: row.sum() > 0, x))
    return torch.stack(kept) if kept else torch.zeros(1, 3)


@case(*SIGNS)
def filter_of_a_few(x: T) -> int:
    return len(list(filter(lambda t: t.sum() > 0, [x, -x, x * 2])))


@case(*ROWS)
def reduce_of_rows(x: T) -> T:
    return functools.reduce(lambda a, b: a * 0.5 + b, x)


@case(*ROWS)
def reduce_from_a_start(x: T) -> T:
    return functools.reduce(torch.maximum, x.unbind(0), torch.zeros(3))


@case.parametrize()
def test_generators(case: Case) -> None:
    """A loop over a generator is the loop that eager runs."""
    check(case)


def test_a_generator_goes_on_only_once() -> None:
    """Where data decides how far a loop got, nothing goes on from there."""

    def model(x: T) -> T:
        def rows(t):
            for row in t:
                if row.sum() > 0:
                    yield row

        it = rows(x)
        total = x[0] * 0
        for row in it:
            total = total + row
            if row.sum() > 3:
                break
        for row in it:
            total = total - row
        return total

    with pytest.raises(DataDependentError, match="goes on with a generator"):
        capture(model, (SIGNS[0],))
