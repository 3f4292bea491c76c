"""Dicts whose keys data decides: counts, first places, memos; and the order of tuples of numbers."""

# The constructs are written as people write them.
# ruff: noqa: RUF005, C408, C416
# pyright: basic

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
IDS = [torch.tensor(v) for v in ([3, 1, 4, 3], [1], [5, 5, 5, 2, 2], [2, 4, 6, 8, 6])]


@case(*IDS)
def counted_by_hand(ids: T) -> Any:
    counts = {}
    for k in ids.tolist():
        counts[k] = counts.get(k, 0) + 1
    more = 0
    for k, n in counts.items():
        if n > 1:
            more += k * n
    return torch.tensor([counts[k] for k in ids.tolist()]), len(counts), more


@case(*IDS)
def counters(ids: T) -> Any:
    counts, by_rows = Counter(ids.tolist()), Counter()
    for part in ids.split(2):
        by_rows.update(part.tolist())
    ((common, n),) = counts.most_common(1)
    return torch.tensor([by_rows[k] for k in range(6)]), common, n, max(counts, key=counts.get)


@case(*IDS)
def default_counts(ids: T) -> Any:
    counts = defaultdict(int)
    for k in ids.tolist():
        counts[k] += 2
    return torch.tensor(list(counts.keys())), torch.tensor(list(counts.values())), sum(counts.values())


@case(*IDS)
def numbered_anew(ids: T) -> T:
    numbers, out = {}, []
    for k in ids.tolist():
        if k not in numbers:
            numbers[k] = len(numbers)
        out.append(numbers[k])
    return torch.tensor(out)


@case(*IDS)
def comprehensions(ids: T) -> Any:
    last = {int(k): i for i, k in enumerate(ids)}
    sums = {i: k * 2 for i, k in enumerate(ids)}
    return torch.tensor([last[k] for k in sorted(last)]), torch.stack(list(sums.values()))


@case(*IDS)
def computed_once(ids: T) -> T:
    known, out = {}, []
    for v in ids:
        k = int(v)
        if k not in known:
            known[k] = torch.full((2,), float(k)) ** 2
        out.append(known[k])
    return torch.stack(out)


@case(*IDS)
def taken_out(ids: T) -> Any:
    held = dict()
    for k in ids.tolist():
        if k > 4:
            held.clear()
        elif k in held:
            del held[k]
        else:
            held[k] = k * 2
    return len(held), sum(held.values()), held.pop(4, -1), torch.tensor(list(held), dtype=torch.long)


@case(
    (IDS[0], torch.tensor(7)), (IDS[1], torch.tensor(2)), (IDS[2], torch.tensor(7)), (IDS[3], torch.tensor(0))
)
def two_that_add_up(ids: T, total: T) -> T:
    seen = {}
    for i, k in enumerate(ids.tolist()):
        if total.item() - k in seen:
            return torch.tensor([seen[total.item() - k], i])
        seen[k] = i
    return torch.tensor([-1, -1])


@case(*[(ids, ids.flip(0)) for ids in IDS])
def pairs_of_numbers(a: T, b: T) -> Any:
    counts = {}
    for u, v in zip(a.tolist(), b.tolist(), strict=True):
        counts[(u, v)] = counts.get((u, v), 0) + 1
    return len(counts), torch.tensor(sorted(counts.values()))


@case(*[(ids, random(len(ids), 2)) for ids in IDS])
def lists_of_each(ids: T, x: T) -> Any:
    sums, groups = {}, {}
    for k, v in zip(ids.tolist(), x, strict=True):
        sums[k] = sums[k] + v if k in sums else v
        groups[k] = groups.get(k, []) + [v[0].item()]
    return torch.stack([sums[k] for k in sorted(sums)]), torch.tensor([len(g) for g in groups.values()])


def _made() -> dict[int, int]:
    return {}


@case(*IDS)
def made_elsewhere(ids: T) -> T:
    doubled = _made()
    for k in ids.tolist():
        doubled[k] = k * 2
    return torch.tensor([doubled[k] for k in ids.tolist()])


@case(*IDS)
def known_keys_stay_pythons(ids: T) -> Any:
    by_number = {i: i * 2 for i in range(3)}
    by_name = {k: v for k, v in zip("ab", [ids, ids + 1], strict=True)}
    return ids * by_number[2] + by_name["b"], {k: v * 2 for k, v in by_name.items()}


@case(*[random(n) for n in (6, 1, 9)], torch.ones(4))
def order_of_pairs(x: T) -> Any:
    pairs = [(v, i) for i, v in enumerate(x.tolist())]
    pairs.sort(reverse=True)
    best = max(pairs, key=lambda p: (p[0], -p[1]))
    again = sorted(pairs, key=lambda p: (p[1] % 2, -p[0], p[1]))
    return torch.tensor([i for _, i in pairs]), torch.tensor([i for _, i in again]), best[1]


@case.parametrize()
def test_all_ways_agree_with_eager(case: Case) -> None:
    check(case)


def test_a_key_that_is_not_there_fails() -> None:
    def looked_up(ids: T, k: T) -> T:
        places = {int(v): i for i, v in enumerate(ids)}
        return ids * places[int(k)]

    calls = [(IDS[0], torch.tensor(4)), (IDS[0], torch.tensor(9))]
    check(Case("looked_up", lambda: looked_up, calls))


def test_lists_under_keys_of_data_are_not_changed_in_place() -> None:
    def grouped(ids: T) -> T:
        groups = {}
        for k in ids.tolist():
            if k not in groups:
                groups[k] = []
            groups[k].append(k)
        return torch.tensor([len(g) for g in groups.values()])

    with pytest.raises(
        DataDependentError, match=r"groups\[k\].append.*\n.*changes a list .*items\[i\] = \[\*items"
    ):
        capture(grouped, (IDS[0],))
