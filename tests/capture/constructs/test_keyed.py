"""Dicts at keys that data says, of every kind that Python has."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, check

case = Cases()
#: Kinds 0 to 2, all of them, some, and one that there is not.
KINDS = [torch.tensor(v) for v in ([0, 1, 2, 1, 0], [2], [1, 1, 1], [0, 2, 2, 0, 0, 1])]
NONE = torch.tensor([0, 3])


@case(*KINDS, NONE)
def counted(x: T) -> T:
    counts = {0: 0, 1: 0, 2: 0}
    for kind in x.tolist():
        counts[kind] += 1
    return torch.tensor(list(counts.values()))


@case(*KINDS)
def counted_with_a_default(x: T) -> T:
    counts = defaultdict(int, {0: 0, 1: 0, 2: 0})
    for kind in x.tolist():
        counts[kind] += 1
    return torch.tensor([counts[k] for k in sorted(counts)])


@case(*KINDS)
def counted_by_a_counter(x: T) -> T:
    counts = Counter({0: 0, 1: 0, 2: 0})
    for kind in x.tolist():
        counts[kind] += 1
    return torch.tensor(list(counts.values()))


@case(*KINDS, NONE)
def asked_of_a_counter(x: T) -> T:
    weights = Counter({0: 3, 1: 5, 2: 7})
    total = 0
    for kind in x.tolist():
        total = total + weights[kind]  # 0 where it has none
    return torch.tensor(total)


@case(*KINDS)
def kept_in_order(x: T) -> T:
    last = OrderedDict((k, torch.zeros((), dtype=torch.int64)) for k in (2, 0, 1))
    for i in range(x.shape[0]):
        last[int(x[i])] = x[: i + 1].sum()
    return torch.stack(list(last.values()))


@case(*KINDS)
def gathered_with_a_default(x: T) -> T:
    groups: dict[int, list[T]] = defaultdict(list)
    for kind in range(3):
        groups[kind] = []
    for i in range(x.shape[0]):
        groups[int(x[i])].append(x[i] * i)
    return torch.stack([x.sum(), *groups[1]])


@case.parametrize()
def test_keys_that_data_says(case: Case) -> None:
    """The one that eager finds; the model fails where it finds none."""
    check(case)


def new_in_a_plain_one(x: T) -> T:
    counts: dict[Any, int] = {"all": 0}
    for kind in x.tolist():
        if kind not in counts:
            counts[kind] = 0
    return torch.tensor(len(counts))


def test_keys_that_data_makes_beside_others() -> None:
    """What to write instead is said."""
    with pytest.raises(ExportError, match=r"the dict has the keys 'all'.*Give it every key"):
        capture(new_in_a_plain_one, (KINDS[0],))
