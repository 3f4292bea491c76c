"""Sets of numbers of which data decides the elements."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, check

case = Cases()
WORDS = [torch.tensor(v) for v in ([3, 1, 3, 2, 1], [0], [5, 5, 5], [4, 3, 2, 1, 0, 4], [7, 8])]


@case(*WORDS)
def first_of_each(x: T) -> T:
    seen = set()
    out = []
    for v in x.tolist():
        if v not in seen:
            seen.add(v)
            out.append(v)
    return torch.tensor(out)


@case(*WORDS)
def how_many_there_are(x: T) -> T:
    return torch.tensor([len(set(x.tolist())), len({v % 2 for v in x.tolist()})])


@case(*WORDS)
def in_order(x: T) -> T:
    return torch.tensor(sorted({v * 2 for v in x.tolist()}))


@case(*WORDS)
def taken_out_again(x: T) -> T:
    open_ = set()
    for v in x.tolist():
        if v in open_:
            open_.remove(v)
        else:
            open_.add(v)
    open_.discard(3)
    return torch.tensor(len(open_)) + (max(open_) if open_ else -1)


@case(*WORDS)
def between_sets(x: T) -> T:
    a, b = set(x.tolist()), {1, 2, 3}
    return torch.tensor([len(a | b), len(a & b), len(a - b), len(b - a), int(1 in a)])


@case(*[torch.tensor(v) for v in ([[0, 1], [1, 2], [0, 1]], [[2, 2]], [[1, 0], [0, 1], [1, 0], [1, 1]])])
def edges_once(pairs: T) -> T:
    seen = set()
    kept = []
    for a, b in pairs.tolist():
        edge = (min(a, b), max(a, b))
        if edge in seen:
            continue
        seen.add(edge)
        kept.append([a, b])
    return torch.tensor(kept)


@case(*WORDS)
def under_a_branch(x: T) -> T:
    stops = {1, 2}
    if x.sum() > 9:
        stops.add(3)
    return torch.tensor([int(v in stops) for v in x.tolist()])


@case.parametrize()
def test_sets(case: Case) -> None:
    check(case)


def gone_through(x: T) -> T:
    seen = set(x.tolist())
    return torch.tensor([v * 2 for v in seen])


def of_tensors(x: T) -> T:
    seen = set()
    for v in x:
        if v > 1:
            seen.add(v)
    return torch.tensor(len(seen))


@pytest.mark.parametrize(
    ("model", "words"),
    [(gone_through, r"in an order that Python alone has.*Go through `sorted\("), (of_tensors, "a set")],
)
def test_what_no_onnx_value_says_is_refused(model: Any, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        capture(model, (WORDS[0],))
