"""Attributes that the model's code puts on tensors, which a branch or loop by data or sizes changes."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths

case = Cases()
SIGNS = both_signs()


@case(*SIGNS)
def number_in_a_branch(x: T) -> T:
    y: Any = x * 2
    y.scale = 1.0
    if x.sum() > 0:
        y.scale = 2.0
    return y * y.scale


@case(*SIGNS)
def tensor_in_a_branch(x: T) -> T:
    y: Any = x * 2
    y.mask = x > 0
    if x.sum() > 0:
        y.mask = x < 1
    return y * y.mask


@case(*SIGNS)
def counted_in_a_loop(x: T) -> T:
    y: Any = x * 2
    y.count = 0
    for row in x:
        if row.sum() > 0:
            y.count += 1
    return y * y.count


@case(*SIGNS)
def of_what_a_branch_joins(x: T) -> T:
    y: Any = None
    if x.sum() > 0:
        y = x * 2
        y.scale = 2.0
    else:
        y = x * 3
        y.scale = 5.0
    return y * getattr(y, "scale", 7.0)


@case(*SIGNS)
def of_what_may_be_none(x: T) -> T:
    y: Any = None
    if x.sum() > 0:
        y = x * 2
        y.scale = 2.0
    return x if y is None else y * getattr(y, "scale", 7.0)


@case(*lengths())
def by_a_size(x: T) -> T:
    y: Any = x * 2
    y.scale = 1.0
    if x.shape[0] > 3:
        y.scale = 2.0
    return y * y.scale


class Marked(torch.nn.Module):
    """Has a mark for optimisers on its weight, which no code of its own reads."""

    def __init__(self) -> None:
        super().__init__()
        self.query: Any = torch.nn.Parameter(torch.ones(3))
        self.query.no_decay = True

    def forward(self, x: T) -> T:
        h, out = self.query, [self.query]
        for row in x:
            h = h + row
            if row.sum() > 0:
                out.append(self.query)
        either = self.query if x.sum() > 0 else x[0]
        return h + either + torch.stack(out).sum(0)


case(*SIGNS)(Marked)


@case(*SIGNS)
class SpeltOut(Marked):
    """Makes the names of its own attributes alone, whose methods are no tensor's."""

    def forward(self, x: T) -> T:
        either: Any = getattr(self, f"{'QUERY'.lower()}") if x.sum() > 0 else x[0]
        return x + either * getattr(either, "ndim", 5)


@case.parametrize()
def test_tags(case: Case) -> None:
    """Later code finds what its own way has put there."""
    check(case)


def one_side(x: T) -> T:
    if x.sum() > 0:
        y: Any = x * 2
        y.scale = 2.0
    else:
        y = x * 3
    return y * getattr(y, "scale", 7.0)


def through_a_loop(x: T) -> T:
    y: Any = x[0] * 2
    y.scale = 2.0
    while y.sum() > 1:
        y = y / 2
    return y * getattr(y, "scale", 7.0)


def into_a_list(x: T) -> T:
    out = []
    for row in x:
        if row.sum() > 0:
            kept: Any = row * 2
            kept.scale = 2
            out.append(kept)
    return out[0] * getattr(out[0], "scale", 3)


class Read(Marked):
    """Reads it."""

    def forward(self, x: T) -> T:
        h = self.query
        while h.sum() < x.sum():
            h = h + 1
        return h + getattr(h, "no_decay", 2)


class MadeName(Marked):
    """Makes the name that it reads it by."""

    def forward(self, x: T) -> T:
        either: Any = self.query if x.sum() > 0 else x[0]
        return x + getattr(either, f"no_{'decay'.lower()}", 2)


class Kept(torch.nn.Module):
    """Counts its calls on its own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight: Any = torch.nn.Parameter(torch.ones(3))
        self.weight.calls = 0.0

    def forward(self, x: T) -> T:
        self.weight.calls = self.weight.calls + 1
        return x * self.weight * self.weight.calls


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (one_side, "attribute 'scale' on one side only"),
        (through_a_loop, "a tensor with the attribute 'scale'"),
        (into_a_list, "a tensor with the attribute 'scale'"),
        (Kept(), "weight.calls"),
        (Read(), "a tensor with the attribute 'no_decay'"),
        (MadeName(), "attribute 'no_decay' on one side only"),
    ],
    ids=["one_side", "through_a_loop", "into_a_list", "kept", "read", "made_name"],
)
def test_tags_that_have_no_form(model: Any, words: str) -> None:
    """The error names the attribute."""
    with pytest.raises(ExportError, match=words):
        capture(model, (SIGNS[0],))
