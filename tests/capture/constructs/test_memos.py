"""Dicts of the module's that keep what was computed under a size: the exported model computes it anew, where
that is the same, and is refused else, with what to do.
"""

# The constructs are written as people write them.

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
SIZES = [random(n, 3, seed=n) for n in (5, 1, 2, 9, 5, 3)]


def table(n: Any, width: int = 3) -> T:
    return torch.arange(n)[:, None] * 0.5 + torch.arange(width)


class Keeping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Any, Any] = {}
        self.layer = nn.Linear(3, 3)


@case(*SIZES)
class AsAWhole(Keeping):
    def forward(self, x: T) -> T:
        n = x.shape[0]
        if n not in self.kept:
            self.kept[n] = self.layer(table(n))
        return x + self.kept[n]


@case(*SIZES)
class ByTuples(Keeping):
    def __init__(self) -> None:
        super().__init__()
        self.kept["scale"] = torch.ones(3) * 2

    def forward(self, x: T) -> T:
        key = (int(x.shape[0]), x.dtype, x.device)
        if key not in self.kept:
            self.kept[key] = (table(x.shape[0]).to(x.dtype), torch.cos(table(x.shape[0])))
        a, b = self.kept[key]
        return x * a * self.kept["scale"] + b


@case(*SIZES)
class ByGet(Keeping):
    def forward(self, x: T) -> T:
        found = self.kept.get(x.shape[0])
        if found is None:
            found = self.kept[x.shape[0]] = table(x.shape[0])
        return x + found + self.kept.setdefault(x.shape[0], found)


@case(*SIZES)
class ByKeyError(Keeping):
    def forward(self, x: T) -> T:
        try:
            found = self.kept[x.shape[0]]
        except KeyError:
            found = self.kept[x.shape[0]] = table(x.shape[0])
        return x + found


@case(*SIZES, random(4, 4))
class OfTwoSizes(Keeping):
    def row(self, n: Any) -> T:
        if n not in self.kept:
            self.kept[n] = table(n, 1)[:, 0]
        return self.kept[n]

    def forward(self, x: T) -> T:
        return x + self.row(x.shape[0])[:, None] + self.row(x.shape[1])


@case(*[v for n in (5, 1, 3) for v in (random(n, 3).abs(), -random(n, 3).abs())])
class UnderACondition(Keeping):
    def forward(self, x: T) -> T:
        n = 2 * x.shape[0] + 1
        if x.sum() > 0:
            if n not in self.kept:
                self.kept[n] = table(n, 1)
            x = x + self.kept[n][: x.shape[0]]
        if n not in self.kept:
            self.kept[n] = table(n, 1)
        return x * self.kept[n][-1]


@case(*SIZES)
class ByDataToo(Keeping):
    def forward(self, x: T) -> T:
        n = int(x[0].abs().sum()) + 1
        if n not in self.kept:
            self.kept[n] = torch.arange(n).float().sum()
        return x + self.kept[n]


KEPT: dict[Any, T] = {}


@case(*SIZES)
def outside_of_the_module(x: T) -> T:
    n = x.shape[0]
    if n not in KEPT:
        KEPT[n] = table(n)
    return x + KEPT[n]


@case(*SIZES)
class ByHalves(Keeping):
    def forward(self, x: T) -> T:
        n = (x.shape[0] + 1) // 2
        if n not in self.kept:
            self.kept[n] = torch.cat([table(n), torch.ones(n + 1, 3)])
        return x[:n] + self.kept[n][:n]


@case.parametrize()
def test_memos(case: Case) -> None:
    captured = check(case)
    (said,) = [a for a in captured.assumptions if a.kind == "state"]
    assert (said.status, "computes it in each call" in said.what) == ("proved", True)


class OfContents(Keeping):
    def forward(self, x: T) -> T:
        if x.shape[0] not in self.kept:
            self.kept[x.shape[0]] = x.mean(0)
        return x + self.kept[x.shape[0]]


class OfAnotherSize(Keeping):
    def forward(self, x: T) -> T:
        if x.shape[0] not in self.kept:
            self.kept[x.shape[0]] = torch.zeros(x.shape[0], x.shape[1]) + x.shape[1]
        return x + self.kept[x.shape[0]]


class OfChance(Keeping):
    def forward(self, x: T) -> T:
        if x.shape[0] not in self.kept:
            self.kept[x.shape[0]] = torch.randn(x.shape[0], 3)
        return x + self.kept[x.shape[0]]


class Written(Keeping):
    def forward(self, x: T) -> T:
        if x.shape[0] not in self.kept:
            self.kept[x.shape[0]] = table(x.shape[0])
        found = self.kept[x.shape[0]]
        found += 1
        return x + found


class Counted(Keeping):
    def forward(self, x: T) -> T:
        if x.shape[0] not in self.kept:
            self.kept[x.shape[0]] = table(x.shape[0])
        return x + self.kept[x.shape[0]] + len(self.kept)


class TwoThings(Keeping):
    def forward(self, x: T) -> T:
        n, k = x.shape
        if n not in self.kept:
            self.kept[n] = torch.arange(n) * 1.0
        if k not in self.kept:
            self.kept[k] = torch.arange(k) * 2.0
        return x + self.kept[n][:, None] + self.kept[k]


class Filled(AsAWhole):
    def __init__(self) -> None:
        super().__init__()
        self.kept = {5: torch.ones(5, 3)}


REFUSED = [
    (OfContents, "follows from more than its key (a tensor or size of the inputs)"),
    (OfAnotherSize, "follows from more than its key (a tensor or size of the inputs)"),
    (OfChance, "follows from more than its key (random numbers)"),
    (Written, "is written to afterwards"),
    (Counted, "the dict is used here for more than what is kept under one key"),
    (TwoThings, "two things in one dict follow from their keys in different ways"),
    (Filled, "has entries from before the export, for 5"),
]


@pytest.mark.parametrize(("kind", "why"), REFUSED, ids=[k.__name__ for k, _ in REFUSED])
def test_memos_that_show_are_refused(kind: type[Keeping], why: str) -> None:
    module = kind()
    before = dict(module.kept)
    with pytest.raises(ExportError, match=re.escape(why)):
        capture(module, (random(5, 3),))
    assert module.kept == before
