"""Elements of lists that change places, several parts of one assignment, and lists that `tolist` makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.capture.constructs.support import Case, Cases, T, check, positive, random

case = Cases()
WHOLE = [torch.tensor(v) for v in ([3, 1, 2], [1], [5, 4, 3, 2], [1, 2, 3], [2, 1, 2, 1, 9, 0], [7, -1])]
PLACES = [(random(n, 3, seed=n), torch.tensor(p)) for n, p in ((4, 1), (4, 0), (3, 2), (3, -1), (3, 3))]


@case(*WHOLE)
def sorted_by_swaps(x: T) -> Any:
    a, swaps = x.tolist(), 0
    for i in range(len(a)):
        done = True
        for j in range(len(a) - 1 - i):
            if a[j] > a[j + 1]:
                a[j], a[j + 1] = a[j + 1], a[j]
                swaps += 1
                done = False
        if done:
            break
    return torch.tensor(a), swaps


@case(positive(4, 3), -positive(4, 3), positive(1, 3), -positive(6, 3))
def tensors_in_a_branch(x: T) -> Any:
    items = [x.sum(0), x.mean(0), x[0]]
    if x[0, 0] > 0:
        items[0], items[1] = items[1], items[0]
    k, items[0], *rest = 2, items[2], items[0], items[1]
    k, items[k] = 1, items[0] * 2  # the new k
    return items[0], items[1], items[2], rest[0], rest[1]


@case(*PLACES)
def at_a_place_of_data(x: T, at: T) -> Any:
    items, p = [x[0] * 1, x[1] * 2, x[2] * 3], int(at)
    items[0], items[p] = items[p], items[0]
    a = x[:, 0].tolist()
    x[0, 0] = 7.0  # the list has what was there
    a[0], a[p] = a[p], a[0]
    a.append(3.0)
    b, _, d = x[1].tolist()
    a.extend([b, d])
    return torch.stack(items), torch.tensor(a), len(a)


@case(random(4, 3), random(1, 3), random(5, 3), random(6, 2))
def permutation(x: T) -> T:
    order = list(range(x.shape[0]))
    for k in range(x.shape[0]):
        p = k + int(x[k:, 0].argmax())
        order[k], order[p] = order[p], order[k]
    return torch.tensor(order)


@case(*WHOLE)
def behind_others(x: T) -> Any:
    kept: list[int] = []
    for v in x.tolist():
        if v > 1:
            kept.append(v)
    offsets, some = [0] + x.tolist(), [0, 1] + kept  # noqa: RUF005
    all_of_them = sum([some, x.tolist(), [5]], [])  # noqa: RUF017
    counted = list(range(3)) + kept
    lists = [offsets, some, all_of_them, counted]
    return [torch.tensor(items) for items in lists], [len(items) for items in lists]


@case(*WHOLE)
class BehindItsOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = [4, 5]

    def forward(self, x: T) -> Any:
        whole, grown = self.first + x.tolist(), sorted([3, 1])
        grown += x.tolist()
        grown.extend(whole)
        return torch.tensor(whole), len(whole), torch.tensor(grown), len(self.first)


@case(*(random(n, 3, seed=n) for n in (4, 2, 7)))
def rows_behind_others(x: T) -> int:
    first = [x[0].tolist()]
    return len(first + x.tolist())


@case(*WHOLE)
def as_often(x: T) -> Any:
    items, rows = x.tolist(), [x, x + 1]
    same, those = items, rows
    items *= 2
    rows *= 2
    more = 2 * items
    return torch.tensor(same), len(same), torch.stack(those), len(those), torch.tensor(more)


@case.parametrize()
def test_swapped(case: Case) -> None:
    check(case)
