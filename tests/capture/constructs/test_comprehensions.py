"""Comprehensions of several loops over rows, `:=` in them, and `next` of as many as data or a size says."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import (
    Case,
    Cases,
    T,
    both_signs,
    check,
    lengths,
    negative,
    positive,
    random,
)

case = Cases()

# -- several loops


@case(*lengths())
def pairs_of_rows(x: T) -> T:
    return torch.stack([a * b.sum() for a in x for b in x])


@case(*[(random(n, 3), random(m, 3)) for n, m in ((4, 2), (1, 5), (3, 1), (2, 2))])
def pairs_that_fit(x: T, y: T) -> T:
    found = [a - b for a in x if a[0] > 0 for b in y if (a * b).sum() > 0]
    return torch.stack(found) if found else x[:0]


@case(*lengths())
def places_before(x: T) -> T:
    return torch.tensor([i * j for i in range(x.shape[0]) for j in range(i)], dtype=torch.int64)


@case(*lengths())
def summed_over_pairs(x: T) -> T:
    return sum((a * b for a in x for b in x[1:] if a[0] < b[0]), x[0])


@case(*lengths())
def columns_of_rows(x: T) -> T:
    return torch.stack([v * k for row in x for k, v in enumerate(row)])


@case(*lengths())
def of_three_loops(x: T) -> T:
    return torch.stack([a[0] + b[1] * k for a in x for b in x for k in (1, 2)])


@case(*both_signs())
def an_inner_list_that_data_fills(x: T) -> T:
    groups = [row[row > 0] for row in x]
    flat = [v * 2 for group in groups for v in group]
    return torch.stack(flat) if flat else x.sum(1)


@case(*lengths())
def names_given_twice(x: T) -> T:
    return torch.stack([a for a, _, _ in x]) + torch.stack([v for row in x for _, v, _ in [row]])


@case(*lengths())
def maps_of_lists(x: T) -> T:
    found = max((row.sum() for row in x), default=x.new_zeros(()))
    return found + min((a - b for a in x[:, 0] for b in x[:, 1]), default=x.new_ones(()))


# -- assignments inside


@case(*both_signs())
def kept_where_it_is_computed(x: T) -> T:
    kept = [y for row in x if (y := row * 2 - 0.5).sum() > 0]
    return torch.stack(kept) if kept else x


@case(*lengths())
def the_last_one_is_seen(x: T) -> T:
    out = [(last := row.sum()) * 2 for row in x]
    return torch.stack(out) + last


@case(*lengths())
def named_as_the_runtime_names(x: T) -> T:
    item = left = x[0]
    out = [left for row in x if (left := row + item).sum() > 0]
    return torch.stack(out).sum(0) + left if out else left


# -- next


@case(*both_signs())
def first_that_fits(x: T) -> T:
    return next((row for row in x if row.sum() > 0.5), x.sum(0))


@case(positive(5, 3), negative(4, 3), *[random(n, 3, seed=n) for n in (1, 2, 3, 8)])
def first_that_must_be(x: T) -> T:
    return next(row * 2 for row in x if row[0] > 0.3)


@case(*lengths(3, 0))
def the_first(x: T) -> T:
    return next(row * 2 for row in x)


@case(*both_signs())
def first_or_none(x: T) -> T:
    found = next((row for row in x if row[1] > 0.5), None)
    return x.mean(0) if found is None else found * 3


@case(*both_signs())
def place_of_the_first(x: T) -> T:
    at = next((i for i, row in enumerate(x) if row.sum() > 1), -1)
    return torch.tensor(at) + x.sum()


@case(*both_signs())
def first_pair(x: T) -> T:
    return next((a + b for a in x for b in x if (a * b).sum() > 1), x[0])


@case(*both_signs())
def not_further_than_it_must(x: T) -> T:
    seen = []

    def fits(row: T) -> T:
        seen.append(row.sum())
        return row.sum() > 0

    found = next((row for row in x if fits(row)), x[0])
    return found * len(seen) + torch.stack(seen).sum()


@case(*both_signs())
def elements_behind_do_not_fail(x: T) -> T:
    def root(row: T) -> T:
        assert row.sum() >= 0
        return row.abs().sqrt()

    return next((root(row) for row in x if row.sum() > 0), x[0])


@case(*both_signs())
def first_of_a_generator(x: T) -> T:
    def steps() -> T:
        y = x[0]
        for row in x:
            y = y * 0.5 + row
            yield y

    return next((y * 2 for y in steps() if y.sum() < 0), x.sum(0))


@case(*both_signs())
def first_of_a_list_that_data_fills(x: T) -> T:
    tracks = [{"row": row, "score": row.sum()} for row in x if row[0] > 0]
    best = next((t for t in tracks if t["score"] > 0.2), None)
    return x.sum(0) if best is None else best["row"] * best["score"]


@case.parametrize()
def test_comprehensions(case: Case) -> None:
    check(case)


def test_what_would_be_caught_is_refused() -> None:
    def caught(x: T) -> T:
        try:
            return next(row for row in x if row.sum() > 0)
        except StopIteration:
            return x[0]

    with pytest.raises(ExportError, match=r"inside a `try`.*Give it a default"):
        capture(caught, (random(5, 3),))
