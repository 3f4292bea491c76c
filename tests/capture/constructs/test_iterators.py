"""Iterators over as many rows as a size says, beside others that have an end or not: each element is given
once.
"""

# The constructs are written as people write them.
# ruff: noqa: B905

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, lengths, random

case = Cases()
ROWS = lengths()


@case(*ROWS)
def counted(x: T) -> T:
    total = x.sum()
    for i, row in zip(itertools.count(), x):
        total = total + row.sum() * i
    for row, i in zip(x, itertools.count(3, 2)):
        total = total + row.sum() * i
    return total


@case(*ROWS)
def the_same_again_and_again(x: T) -> T:
    doubled = torch.stack(list(map(lambda row, k: row * k, x, itertools.repeat(2))))
    for row, k in zip(x, itertools.repeat(3.0, 2)):
        doubled = doubled + row * k
    return doubled


@case(*ROWS)
def in_turn(x: T) -> T:
    total = x.sum()
    for row, w in zip(x, itertools.cycle([1.0, 2.0, 3.0])):
        total = total + row.sum() * w
    parts = [x.sum(0), x.amax(0)]
    return total + torch.stack([row + w for row, w in zip(x, itertools.cycle(parts))])


@case(*ROWS)
def some_of_an_iterator(x: T) -> T:
    return torch.stack([row * w for row, w in zip(x, map(float, range(1, 5)))])


@case(*ROWS)
def first_pair(x: T) -> Any:
    a, b = next(zip(x, x + 1))
    i, row = next(enumerate(x, 2))
    return a + b, row + i


@case(*ROWS)
def first_and_others(x: T) -> T:
    rows = iter(x)
    most = next(rows)
    for row in rows:
        most = torch.maximum(most, row)
    return most


@case(*[random(n, 3, seed=n) for n in (5, 2, 3, 7)])
def next_in_rounds(x: T) -> T:
    rows, total = iter(x), torch.zeros(3)
    for k in range(x.shape[0] // 2):
        total = total + next(rows) * next(rows) + k
    return total


@case(*ROWS)
def turned_around(x: T) -> Any:
    total = torch.zeros(3)
    for i, row in enumerate(reversed(x)):
        total = total + row * i
    return reversed(x) * 2, total


@case((random(3, 3), random(3, 3, seed=1)), (random(2, 3), random(2, 3)), (random(2, 3), random(4, 3)))
def as_many_of_each(x: T, y: T) -> T:
    total = x.sum(0)
    for a, b in zip(x, y, strict=True):
        total = total + a * b
    return total


class Frames:
    """Goes through the rows of a tensor."""

    def __init__(self, x: T) -> None:
        self.x = x

    def __iter__(self) -> Iterator[T]:
        return iter(self.x)


class Doubled(Frames):
    """Gives them doubled."""

    def __iter__(self) -> Iterator[T]:
        for row in self.x:
            yield row * 2


@case(*ROWS)
def of_a_class(x: T) -> Any:
    frames, total = Frames(x), torch.zeros(3)
    for row in frames:
        total = total + row
        if total.sum() > 1:
            break
    for row in Doubled(x):
        total = total * 0.5 + row
    rows = iter(frames)
    return total, next(rows) + sum(rows, torch.zeros(3)), any(row.sum() > 2 for row in frames)


@case(*ROWS)
def of_a_class_in_functions(x: T) -> Any:
    frames = Frames(x)
    weighed = torch.stack([row * i for i, row in enumerate(Doubled(x))])
    pairs = torch.stack([a * b for a, b in zip(frames, x)])
    return weighed, pairs, torch.stack(list(map(torch.exp, frames))), max(Frames(x.sum(1)))


@case(*ROWS)
class OfLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3) for _ in range(3)])

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.layers)

    def forward(self, x: T) -> T:
        for layer in self:
            x = layer(x)
            if x.sum() > 0:
                break
        return x


class Epochs:
    """Counts how often it was begun."""

    def __init__(self) -> None:
        self.epoch = self.at = 0

    def __iter__(self) -> Epochs:
        self.epoch, self.at = self.epoch + 1, 0
        return self

    def __next__(self) -> int:
        self.at += 1
        if self.at > 3:
            raise StopIteration
        return self.at


@case(*ROWS)
def begun_once_each(x: T) -> Any:
    epochs = Epochs()
    for k in epochs:
        x = x * k if x.sum() > 0 else x - k
    pairs = [k * 2 for k in epochs]
    return x + len(list(epochs)), pairs, epochs.epoch


@case.parametrize()
def test_iterators(case: Case) -> None:
    """As eager, for all lengths."""
    check(case)


class Halves(Frames):
    """Gives parts of a tensor by an expression."""

    def __iter__(self) -> Iterator[T]:
        return (part * 2 for part in self.x.chunk(2, 1))


def stops_in_an_expression(x: T) -> T:
    total = x.sum()
    for half in Halves(x):
        total = total + half.sum()
        if total > 0:
            break
    return total


def test_an_expression_that_iter_gives() -> None:
    """What it does for an element behind the last, nobody would do: the message says how to write it."""
    with pytest.raises(DataDependentError, match=r"what `__iter__` gives.*Write it with `yield`"):
        capture(stops_in_an_expression, (random(3, 4),))
