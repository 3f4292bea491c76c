"""Orders that data decides: sorted, sort, max and min with a key, heapq; and what itertools gives of rows."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import heapq
import itertools
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
EIGHT = [random(n, 4, seed=s) for s, n in enumerate((5, 1, 2, 3, 4, 8, 7, 6))]


@case(*EIGHT)
def beam_tuples(x: T) -> Any:
    beams = [(x[0, 0] * 0, x[0])]
    for row in x:
        cands = []
        for score, vec in beams:
            for k in range(2):
                cands.append((score + row[k], vec + row * k))
        cands.sort(key=lambda c: c[0].item(), reverse=True)
        beams = cands[:2]
    return beams[0][1], beams[0][0]


@case(*EIGHT)
def sorted_rows(x: T) -> Any:
    rows = sorted(x, key=lambda r: r.sum().item())
    return torch.stack(rows)


@case(*EIGHT)
def sorted_range(x: T) -> Any:
    order = sorted(range(x.shape[0]), key=lambda i: x[i, 0].item(), reverse=True)
    return x[order]


@case(*EIGHT)
def sorted_known(x: T) -> Any:
    scores = [x[:, k].sum() for k in range(4)]
    order = sorted(range(4), key=lambda k: scores[k].item())
    return x[:, order], order[0]


@case(*EIGHT)
def sorted_tuples_known(x: T) -> Any:
    pairs = [(x[:, k].sum().item(), k) for k in range(4)]
    pairs.sort(reverse=True)
    total = x[:, 0] * 0
    for rank, (s, k) in enumerate(pairs[:2]):
        total = total + x[:, k] * (rank + 1) + s
    return total


@case(*EIGHT)
def sort_grown(x: T) -> Any:
    kept = []
    for row in x:
        if row[0] > -0.5:
            kept.append(row)
    kept.sort(key=lambda r: float(r[1]))
    return torch.stack(kept) if kept else x


@case(*EIGHT)
def topk_heap(x: T) -> Any:
    best = heapq.nlargest(2, [(x[:, k].sum().item(), k) for k in range(4)])
    return x[:, best[0][1]] * best[1][0]


@case(*EIGHT)
def max_range_key(x: T) -> Any:
    i = max(range(x.shape[0]), key=lambda i: x[i, 0].item())
    j = min(x, key=lambda r: r.sum())
    return x[i], j


@case(*EIGHT)
def sort_numbers_plain(x: T) -> Any:
    v = [x.sum().item(), x.mean().item(), 0.25, x.max().item()]
    v.sort()
    return x * v[0] + v[2]


@case(*EIGHT)
def sort_objects(x: T) -> Any:
    items = [
        {"w": x[:, 0], "s": x[:, 0].sum()},
        {"w": x[:, 1], "s": x[:, 1].sum()},
        {"w": x[:, 2], "s": x[:, 2].sum()},
    ]
    items.sort(key=lambda d: d["s"].item(), reverse=True)
    items[0]["w"] = items[0]["w"] * 2
    return items[0]["w"] + items[1]["w"]


@case(*EIGHT)
def sort_strings(x: T) -> Any:
    names = sorted(("a", "b"), key=lambda n: (x[:, 0] if n == "a" else x[:, 1]).sum().item())
    return x * (2 if names[0] == "a" else 3)


@case(*EIGHT)
def permute2(x: T) -> Any:
    tot = x[0] * 0
    for i, j in itertools.permutations(range(len(x)), 2):
        tot = tot + x[i] * j
    return tot


@case(*EIGHT)
def combine2(x: T) -> Any:
    pairs = [torch.dot(a, b) for a, b in itertools.combinations(x, 2)]
    return sum(pairs) if len(pairs) else x.sum() * 0


@case(*EIGHT)
def pair_wise(x: T) -> Any:
    return [b - a for a, b in itertools.pairwise(x)][-1] if x.shape[0] > 1 else x[0]


@case(*EIGHT)
def product2(x: T) -> Any:
    tot = x[0] * 0
    for i, r in itertools.product(range(3), x):
        tot = tot * 0.5 + r * i
    return tot


@case(*EIGHT)
def chained(x: T) -> Any:
    tot = x[0] * 0
    for r in itertools.chain(x, x * 2):
        tot = tot * 0.5 + r
    return tot


NAN = float("nan")
ORDERS = [torch.tensor(v) for v in ([NAN, 1.0, 2.0], [1.0, NAN, 0.0], [2.0, 1.0, NAN], [NAN, NAN], [3.0])]


@pytest.mark.parametrize("best", [max, min])
def test_nan_beats_nothing(best: Any) -> None:
    """The first element stays the best unless another beats it."""

    def by_key(x: T) -> Any:
        kept = [r for r in x if r != 7]
        return best(kept, key=lambda v: v), best([v.item() for v in kept])

    program = ingot.export(by_key, (torch.tensor([1.0, 3.0, 2.0]),))
    for x in ORDERS:
        for want, got in zip(by_key(x), program(x), strict=True):
            np.testing.assert_array_equal(got, np.float32(want), f"{best.__name__} of {x}")


@pytest.mark.parametrize("reverse", [False, True])
def test_nan_has_no_order(reverse: bool) -> None:
    """Where Python leaves it hangs on how it sorts: the model fails."""

    def ordered(x: T) -> T:
        return torch.stack(sorted(x, key=lambda v: -v, reverse=reverse))

    program = ingot.export(ordered, (torch.tensor([1.0, 3.0, 2.0]),))
    for x in ORDERS:
        if x.isnan().any():
            with pytest.raises(ingot.IngotError, match="no NaN among what is sorted by"):
                program(x)
        else:
            np.testing.assert_array_equal(program(x), ordered(x))


@case(*EIGHT)
def most_of_a_dict(x: T) -> Any:
    counts = {"above": int((x > 0.5).sum()), "below": int((x < -0.5).sum()), "between": 4}
    most = max(counts, key=counts.get)
    least, number = min(counts.items(), key=lambda pair: pair[1])
    return x * {"above": 1.0, "below": 2.0, "between": 3.0}[most], number, x - len(least)


@case(*EIGHT, random(0, 4))
def sums_so_far(x: T) -> Any:
    kept = [row for row in x if row.sum() > 0]
    products = list(itertools.accumulate(kept, lambda a, b: a * 0.5 + b))
    most = torch.tensor(list(itertools.accumulate(x[:, 0].tolist(), max, initial=0.0)))
    places = torch.tensor(list(itertools.accumulate(x.argmax(1).tolist())), dtype=torch.int64)
    return torch.stack(products) if products else x, most, places


@case(*EIGHT)
def sums_until_one_is_large(x: T) -> T:
    total = x.new_zeros(4)
    for i, row in enumerate(itertools.accumulate(x.unbind(0))):
        if row.sum() > 2:
            break
        total = total + row * i
    return total


@case.parametrize()
def test_sorting(case: Case) -> None:
    """The order is eager's, and no size is fixed."""
    captured = check(case)
    assert not [a for a in captured.assumptions if a.kind in ("branch", "narrowed")]
