"""Lists that grow as data says, wherever they were made; and lists that a variable is given anew."""

# The constructs are written as people write them.
# ruff: noqa: RUF005, SIM108
# pyright: basic

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
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


@case(*[torch.tensor(v) for v in ([2.0, 3, 1], [-4.0, 1, 0], [0.0, 0, 0])])
def lists_of_a_length_below_0(x: T) -> Any:
    n = int(x.sum())
    out, none, ends = [1.0] * n, [] * n, []
    ends.insert(n, x[0].item())
    ends.insert(n, 2.0)
    return x * len(out) + len(none) + ends[0], 3 in none


@case(*EIGHT)
def lists_made_longer(x: T) -> Any:
    some = [r for r in x if r.sum() > 0]
    some.extend([r * 2 for r in x if r.sum() <= 0])
    some += [r * 3 for r in x if r.max() > 1]
    some.extend(r * 4 for r in x)
    some += [x[0]]
    return torch.stack(some)


@case(*EIGHT)
def numbers_put_side_by_side(x: T) -> Any:
    sums = [r.sum() for r in x if r.sum() > -9]
    return torch.hstack(sums), torch.vstack(sums)


@case(
    *[
        (torch.arange(9.0) + s, torch.tensor(n), torch.tensor(k))
        for s, n, k in ((0, 5, 1), (1, 4, -1), (2, 7, -3))
    ]
)
def ranges_from_the_end(x: T, n: T, k: T) -> Any:
    return x * range(int(n))[int(k)]


@case(*[torch.full((n, 2), 200, dtype=torch.uint8) for n in (3, 1, 2)])
def sums_in_their_own_dtype(x: T) -> Any:
    return sum(x), sum([r for r in x if r[0] > 3]), sum(x.to(torch.int32)), sum(x > 3)


@case(*[torch.tensor(v) for v in ([1.0, 2.0], [math.nan, 2.0], [2.0, math.nan], [-1.0, math.nan])])
def nan_beats_nothing(x: T) -> Any:
    a, b = x[0].item(), x[1].item()
    return max(a, b), min(a, b), max(0.0, b), min(b, 0.0), min(max(a, 0.0), 1.0)


@case(*EIGHT)
def written_in_place_where_it_is(x: T) -> Any:
    y = x * 1
    m = y if x.sum() > 0 else None
    if x.sum() > 0:
        m += 1
    return y


@case.parametrize()
def test_grown(case: Case) -> None:
    """Their lengths are eager's."""
    captured = check(case)
    assert not [a for a in captured.assumptions if a.kind in ("branch", "narrowed")]


def copies_of_copies(x: T) -> T:
    """An element of the first list is written to; the second one has copies of its elements."""
    out = [x[:2].T, x[1:].T] if x.shape[0] > 3 else [x.T]
    first, kept = out[0], list(out)
    for r in x:
        if r.sum() > 0:
            kept.append(x.T[:, :1])
    first += 1
    return torch.cat(kept, 1)


def split_into_columns(x: T) -> T:
    """A function that takes no list of any length."""
    return torch.column_stack([r for r in x if r.sum() > 0])


def ordered(x: T) -> T:
    """Lists are compared by order, of which data decides the length of one."""
    out = [1.0]
    if x.sum() > 0:
        out.append(2.0)
    return x * 2 if out > [1.0] else x


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (copies_of_copies, "the model writes into it, or into what it may be, and then reads the other one"),
        (
            split_into_columns,
            r"torch.column_stack takes a list as long as data says here. Make it one tensor",
        ),
        (ordered, "calls list.__gt__ on a list"),
    ],
)
def test_what_has_no_form_is_refused(model: Any, said: str) -> None:
    """With the line."""
    with pytest.raises(DataDependentError, match=f"(?s){__file__}.*{said}"):
        capture(model, (EIGHT[0].clone(),))
