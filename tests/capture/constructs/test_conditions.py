"""Conditions of which only the truth is asked: `and` and `or` of lists, numbers and tensors in `if`, `while`,
`not`, ternaries and comprehensions.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
ROWS = [
    random(5),
    random(1),
    random(0),
    random(9, seed=3),
    torch.tensor([3.0, 2, 1]),
    torch.tensor([1.0, 2, 3, 3, 0]),
    torch.zeros(3),
]


@case(*ROWS)
def monotonic_stack(x: T) -> Any:
    stack, popped = [], 0
    for v in x.tolist():
        while stack and stack[-1] < v:
            stack.pop()
            popped += 1
        stack.append(v)
    return torch.tensor(stack), popped


@case(*ROWS)
def next_greater(x: T) -> T:
    stack: list[int] = []
    out = [-1] * x.shape[0]
    for i in range(x.shape[0]):
        while stack and x[stack[-1]] < x[i]:
            out[stack.pop()] = i
        stack.append(i)
    return torch.tensor(out, dtype=torch.long)


@case(*ROWS)
def truths_and_tensors(x: T) -> Any:
    n, seen, last = 0, False, None
    for v in x:
        if seen and v > 0:
            n += 1
        if (seen or v > 1) and not (last is not None and last > v):
            n += 10
        seen = seen or bool(v > 0)
        last = v
    return n, seen


@case(*ROWS)
def lists_and_numbers(x: T) -> Any:
    kept, k = [], x.long()
    for i, v in enumerate(x):
        if kept if v > 0 else k[i]:
            kept.append(v)
        if (k[i] and v > 0) or kept:
            kept.append(v + 1)
    some = [v for v in x if v > 0 and kept]
    assert kept or x.shape[0] < 9 or some
    return len(kept), len(some), 1 if kept and x.sum() > 0 else 2


@case(*ROWS, torch.tensor([1.0, float("nan"), -7]))
def counted_where_it_is_a_number(x: T) -> T:
    bins = [0, 0, 0, 0]
    for v in x.tolist():
        if v == v:
            bins[min(3, int(abs(v)))] += 1
        if not (v != v or v < 0):
            bins[max(0, min(3, int(v)))] += 10
    return torch.tensor(bins)


@case.parametrize()
def test_conditions(case: Case) -> None:
    check(case)
