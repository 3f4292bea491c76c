"""Lists that grow as data says, wherever they were made; and lists that a variable is given anew."""

# The constructs are written as people write them.
# ruff: noqa: RUF005, SIM108
# pyright: basic

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import torch

from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
EIGHT = [random(n, 4, seed=s) for s, n in enumerate((5, 1, 2, 3, 4, 8, 7, 6))]


@dataclasses.dataclass
class Result:
    """What is kept."""

    boxes: list[T] = dataclasses.field(default_factory=list)
    scores: list[T] = dataclasses.field(default_factory=list)
    count: int = 0


class Tracker:
    """Lists that an object makes for itself."""

    def __init__(self) -> None:
        self.tracks: list[T] = []
        self.ages: list[int] = []

    def add(self, t: T) -> None:
        self.tracks.append(t)
        self.ages.append(0)


@case(*EIGHT)
def dict_of_lists(x: T) -> Any:
    out = {"boxes": [], "scores": []}
    for row in x:
        if row[0] > 0:
            out["boxes"].append(row[:2])
            out["scores"].append(row[2])
    if len(out["boxes"]) == 0:
        return x.new_zeros(0, 2), x.new_zeros(0)
    return torch.stack(out["boxes"]), torch.stack(out["scores"])


@case(*EIGHT)
def lists_per_class(x: T) -> Any:
    kept = [[] for _ in range(3)]
    for row in x:
        c = int(row[:3].argmax())
        for k in range(3):
            if c == k:
                kept[k].append(row)
    return [torch.stack(k).sum(0) if k else torch.zeros(4) for k in kept]


@case(*EIGHT)
def class_by_data(x: T) -> Any:
    kept = [[] for _ in range(3)]
    for row in x:
        kept[int(row[:3].argmax())].append(row)
    return [torch.stack(k).sum(0) if k else torch.zeros(4) for k in kept]


@case(*EIGHT)
def dataclass_lists(x: T) -> Any:
    r = Result()
    for row in x:
        if row.sum() > 0:
            r.boxes.append(row)
            r.scores.append(row.max())
            r.count += 1
    if r.count == 0:
        return torch.zeros(1, 4), torch.zeros(1)
    return torch.stack(r.boxes), torch.stack(r.scores)


@case(*EIGHT)
def tracker_object(x: T) -> Any:
    t = Tracker()
    for row in x:
        if row.max() > 1:
            t.add(row)
    return torch.stack(t.tracks) if t.tracks else x[:0]


@case(*EIGHT)
def dict_comprehension_lists(x: T) -> Any:
    groups = {k: [] for k in ("pos", "neg")}
    for row in x:
        groups["pos" if row.sum() > 0 else "neg"].append(row)
    return {k: torch.stack(v).mean(0) if v else torch.zeros(4) for k, v in groups.items()}


@case(*EIGHT)
def defaultdict_lists(x: T) -> Any:
    groups = collections.defaultdict(list)
    groups["a"], groups["b"]
    for row in x:
        if row.sum() > 0:
            groups["a"].append(row)
        else:
            groups["b"].append(row)
    return [torch.stack(v).mean(0) if len(v) > 0 else torch.zeros(4) for v in groups.values()]


@case(*EIGHT)
def plain_all(x: T) -> Any:
    boxes = []
    for row in x:
        boxes.append(row[:2])
    return torch.stack(boxes)


@case(*EIGHT)
def grow_by_plus(x: T) -> Any:
    out = []
    for r in x:
        out = out + [r * 2]
    return torch.stack(out)


@case(*EIGHT)
def grow_by_plus_start(x: T) -> Any:
    out = [x[0]]
    for r in x:
        if r.sum() > 0:
            out = out + [r * 2]
        else:
            out = [*out, r]
    return torch.stack(out)


@case(*EIGHT)
def grow_numbers(x: T) -> Any:
    ids = []
    i = 0
    while i < x.shape[0]:
        ids = ids + [int(x[i].argmax())]
        i = i + 1
    return torch.tensor(ids), len(ids)


@case(*EIGHT)
def sliding(x: T) -> Any:
    win = [x[0], x[0]]
    tot = x[0] * 0
    for r in x:
        win = win[1:] + [r]
        tot = tot + win[0] * win[1]
    return tot


@case(*EIGHT)
def seen_before(x: T) -> Any:
    seen = []
    for r in x:
        k = int(r.argmax())
        if k in seen:
            x = x + 1
        else:
            seen.append(k)
    return x, len(seen)


@case(*EIGHT)
def numbers_are_no_words(x: T) -> Any:
    seen = []
    for r in x:
        seen.append(int(r.argmax()))
    return x if "a" in seen or None in seen else x * 2


@case.parametrize()
def test_grown(case: Case) -> None:
    """Their lengths are eager's."""
    captured = check(case)
    assert not [a for a in captured.assumptions if a.kind in ("branch", "narrowed")]
