"""Deques of which data decides the length."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

from collections import deque

import torch

from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths

case = Cases()
GRAPHS = [
    torch.tensor([[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]),
    torch.zeros(4, 4, dtype=torch.int64),
    torch.ones(3, 3, dtype=torch.int64),
    torch.eye(5, dtype=torch.int64).roll(1, 1),
]


@case(*GRAPHS)
def breadth_first(adjacent: T) -> T:
    n = adjacent.shape[0]
    distance = torch.full((n,), -1)
    distance[0] = 0
    queue = deque([0])
    while queue:
        u = queue.popleft()
        for v in range(n):
            if adjacent[u, v] > 0 and distance[v] < 0:
                distance[v] = distance[u] + 1
                queue.append(v)
    return distance


@case(*both_signs())
def the_last_few_that_fit(x: T) -> T:
    kept: deque[T] = deque(maxlen=2)
    for row in x:
        if row.sum() > 0.3:
            kept.append(row)
    return torch.stack(list(kept)) if kept else x[:1]


@case(*both_signs())
def at_both_ends(x: T) -> T:
    ends: deque[T] = deque([x.sum(0)])
    for row in x:
        if row[0] > 0:
            ends.appendleft(row)
        else:
            ends.append(row * 2)
    first = ends.popleft()
    last = ends.pop()
    return first - last + len(ends)


@case(*lengths())
def as_long_as_ever(x: T) -> T:
    past = deque([torch.zeros(3)] * 3, maxlen=3)
    out = []
    for row in x:
        out.append(row + past[0])
        past.append(row)
    return torch.stack(out)


@case(*both_signs())
def the_first_few_that_fit(x: T) -> T:
    kept: deque[T] = deque(maxlen=3)
    for row in x:
        if row.sum() > 0.3:
            kept.appendleft(row)
    kept.extend([x[0], x[-1]])
    return torch.stack(list(kept))


@case.parametrize()
def test_deques(case: Case) -> None:
    check(case)
