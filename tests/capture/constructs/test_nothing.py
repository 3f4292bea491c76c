"""Reductions of what data leaves empty: where PyTorch refuses them, the model fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.capture.attempt import capture
from ingot.errors import VerificationError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, random

SIGNS = both_signs()
case = Cases()


@case(*SIGNS)
def largest_of_all(x: T) -> tuple[T, T]:
    kept = x[x > 0]
    return kept.max(), kept.amin()


@case(*SIGNS)
def largest_along(x: T) -> tuple[T, T, T]:
    kept = x[x.sum(1) > 0]
    values, places = kept.max(0)
    return values, places, kept.amax((0, 1))


@case(*SIGNS)
def places_of_the_largest(x: T) -> tuple[T, T]:
    kept = x[x.sum(1) > 0]
    return kept.argmax(0), kept.argmin()


@case(*SIGNS)
def largest_along_what_is_there(x: T) -> T:
    return x[x.sum(1) > 0].max(1).values  # of no rows there are no largest


@case(*SIGNS)
def limits(x: T) -> tuple[T, ...]:
    return tuple(torch.aminmax(x[x > 0]))


@case(*SIGNS)
def in_a_branch(x: T) -> T:
    y = x * 2
    if x.shape[0] > 1 and x[0, 0] < 5:
        y = y + x[x > 0].max()
    return y


@case(*SIGNS)
def in_rounds(x: T) -> T:
    total = x.new_zeros(())
    for row in x:
        total = total + row[row > -0.3].amax()
    return total


@case(*SIGNS)
def largest_norm(x: T) -> T:
    return torch.linalg.vector_norm(x[x > 0], float("inf"))


@case(*SIGNS)
def middle_ones(x: T) -> tuple[T, T]:
    kept = x[x.sum(1) > 0]
    return kept.median(0).values, kept.nanmedian(0).values


@case(*SIGNS)
def the_most_frequent(x: T) -> T:
    return x[x.sum(1) > 0].round().mode(0).values


@case(*SIGNS)
def largest_of_a_list(x: T) -> T:
    return max([row.sum() for row in x if row.sum() > 0])


@case(*SIGNS)
def largest_by_a_key(x: T) -> T:
    return max([row for row in x if row.sum() > 0], key=lambda row: row.mean())


@case.parametrize()
def test_nothing_stops(case: Case) -> None:
    """Where eager raises."""
    captured = check(case)
    checked = [a.what for a in captured.assumptions if "without elements" in a.what]
    assert bool(checked) != (case.name == "largest_along_what_is_there")


defined = Cases()


@defined(*SIGNS)
def middle_of_all(x: T) -> tuple[T, ...]:
    kept = x[x > 0]
    whole = kept.mul(9).long()
    spread = kept.std(), kept.var(unbiased=False), *torch.var_mean(kept)
    return kept.median(), kept.nanmedian(), whole.median(), kept.mean(), kept.sum(), kept.prod(), *spread


@defined(*SIGNS)
def counted(x: T) -> tuple[T, T]:
    kept = x[x > 0]
    return torch.histc(kept, 4), torch.histogram(kept, 3).hist


@defined(*SIGNS)
def asked_for(x: T) -> T:
    kept = x[x.sum(1) > 0]
    if kept.numel() == 0:
        return x.new_zeros(())
    return kept.max() + kept.argmax() + kept.median()


@defined(*SIGNS)
def asked_by_length(x: T) -> T:
    kept = x[x.sum(1) > 0][:, 0]
    return kept.amax() if len(kept) else x.new_zeros(())


@defined(*SIGNS)
def with_one_more(x: T) -> T:
    return torch.cat([x[x > 0], x.new_zeros(1)]).max()


@defined.parametrize()
def test_what_has_a_result_needs_no_check(case: Case) -> None:
    """Of nothing too, or where it is known that there is something."""
    assert not [a for a in check(case).assumptions if a.kind == "condition"]


@pytest.mark.parametrize("function", [lambda x: x.amax(), lambda x: x.max(), lambda x: x.argmax(0)])
def test_an_empty_input_stops(function: Callable[[T], T]) -> None:
    """A size of an input is checked as those that operators of PyTorch refuse are."""
    program = ingot.export(function, (random(4, 3),))
    with pytest.raises(ingot.IngotError, match="without elements"):
        program(torch.zeros(0, 3))


def test_the_line_is_said() -> None:
    """The run's error names the line, and what PyTorch says of it."""

    def largest(x: T) -> T:
        return x[x > 0].max()

    program = ingot.export(largest, (random(4, 3),))
    with pytest.raises(ingot.IngotError, match=r"test_nothing\.py:\d+.*torch\.max would refuse"):
        program(-torch.ones(2, 3))


def test_a_static_size_needs_no_check() -> None:
    """A number of elements that the model fixes."""
    captured = capture(lambda x: torch.stack([x, x * 2]).max(0).values, (random(4, 3),))
    assert not [a for a in captured.assumptions if a.status == "checked"]


def sum_of_rows(x: T) -> T:
    total: Any = sum(row * row.sum() for row in x)
    return total


def sum_of_a_tensor(x: T) -> T:
    total: Any = sum(x)
    return total


def half_of_a_sum(x: T) -> T:
    total: Any = sum(row for row in x)
    return total * 0.5


def tensor_of_places(x: T) -> T:
    return torch.tensor(sorted(range(len(x)), key=lambda i: float(x[i, 0])))


def tensor_of_the_sum_of_some(x: T) -> T:
    return torch.tensor(sum([float(v) for v in x[:, 0] if v > 0]))


@pytest.mark.parametrize("function", [sum_of_rows, sum_of_a_tensor, half_of_a_sum, tensor_of_places])
def test_a_list_that_may_be_empty_is_told(function: Callable[[T], T]) -> None:
    """Python's number 0, or PyTorch's float32, is no tensor of such elements: the report says where."""
    program = ingot.export(function, (random(4, 3),))
    assert program.verification is not None
    told = next(line for line in program.verification.unverified if "of an empty list" in line)
    assert "test_nothing.py:" in told
    for n in (1, 3, 7):
        x = random(n, 3).abs()
        np.testing.assert_allclose(program(x), function(x), rtol=1e-5)


def test_a_list_that_data_leaves_empty_is_refused() -> None:
    """No size excuses it: the model meets such rows, and gives float32 where Python has a whole number."""
    with pytest.raises(VerificationError, match=r"int64 \[\], the exported model float32"):
        ingot.export(tensor_of_the_sum_of_some, (random(4, 3),))
