"""Lists as long as data says of tuples, dicts and dataclasses; places in them that data decides."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs.support import Case, Cases, T, check, random

case = Cases()
ROWS = [random(n, 4, seed=s) for s, n in enumerate((5, 1, 2, 3, 8))]
DOWN = -ROWS[0].abs()  # of which nothing is kept


@dataclasses.dataclass
class Track:
    """A box that is followed."""

    score: Any
    box: T
    kind: str = "box"


@case(*ROWS, DOWN)
def tuples(x: T) -> Any:
    tracks = []
    for row in x:
        if row[0] > 0:
            tracks.append((row[0].item(), row))
    tracks.sort(key=lambda t: t[0], reverse=True)
    if not tracks:
        return x.new_zeros(0), x.new_zeros(0, 4)
    return torch.tensor([t[0] for t in tracks]), torch.stack([t[1] for t in tracks])


@case(*ROWS, DOWN)
def dicts(x: T) -> Any:
    tracks = []
    for row in x:
        if row[0] > 0:
            tracks.append({"s": row[0], "box": row * 2})
    high = [t["box"] for t in tracks if t["s"] > 0.5]
    return len(tracks), torch.stack(high) if high else x[:0]


@case(*ROWS, DOWN)
def objects(x: T) -> T:
    tracks = []
    for row in x:
        if row[0] > 0:
            tracks.append(Track(row[0], row))
        elif tracks:
            tracks.pop()
    return torch.stack([t.box * t.score for t in tracks if t.kind == "box"]) if tracks else x[:0]


@case(*ROWS)
def looped_over(x: T) -> Any:
    tracks = []
    for n, row in enumerate(x):
        tracks.append((n, row.max().item(), row))
    total = 0
    for n, most, row in tracks:
        total = total + row * n + most
    for n in range(len(tracks)):
        tracks[n] = (n * 2, *tracks[n][1:])
    places, _, rows = zip(*tracks)  # noqa: B905
    return total, torch.tensor(places), torch.stack(rows), max(tracks, key=lambda t: t[1])[2]


@case(*ROWS)
def beams(x: T) -> Any:
    beams = [(x[0] * 0, 0.0)]
    for row in x:
        new = []
        for sequence, score in beams:
            for k in range(2):
                new.append((sequence + row * k, score + row[k].item()))
        beams = sorted(new, key=lambda t: -t[1])[:2]
    return beams[0][0], beams[0][1]


@case(*ROWS)
def the_best_of_dicts(x: T) -> T:
    tracks = [{"s": row.sum(), "box": row} for row in x]
    best = tracks[0]
    for t in tracks:
        if t["s"] > best["s"]:
            best = t
    return best["box"]


@case(*ROWS)
def counted_in_a_list(x: T) -> Any:
    load, total = [0] * 4, 0
    for row in x:
        e = int(row[:4].argmax())
        total = total + row * load[e]
        load[e] += 1
    return torch.tensor(load), total, load[0]


@case(*ROWS)
def counted_once(x: T) -> Any:
    load = [0.0, 0.0, 0.0, 0.0]
    e = x[:, :4].sum(0).argmax()
    load[e] += 1.5
    load[e] = load[e] * 2
    return torch.tensor(load)


@case(*ROWS)
def counted_in_a_dict(x: T) -> Any:
    load = dict.fromkeys(range(4), 0)
    for row in x:
        load[int(row[:4].argmax())] += 1
    return [load[k] for k in range(4)]


@case(*ROWS)
def summed_where_they_are(x: T) -> Any:
    first = torch.zeros(x.shape[1])
    load = [first, torch.ones(x.shape[1]), first]
    load[int(x[:, :3].sum(0).argmax())] += x[0]
    return torch.stack(load), first


@case(*ROWS, DOWN)
def pairs_as_a_tensor(x: T) -> T:
    pairs = []
    for i, row in enumerate(x):
        if row.sum() > 0:
            pairs.append((i, i + x.shape[0]))
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2)


@case(*ROWS, DOWN)
def lists_side_by_side_as_a_tensor(x: T) -> tuple[T, T]:
    rows, columns, sums = [], [], []
    for i, row in enumerate(x):
        if row.sum() > 0:
            rows.append(i)
            columns.append(int(row.argmax()))
            sums.append(row.sum().item())
    pairs = (
        torch.tensor([rows, columns], dtype=torch.int64).T if rows else torch.zeros(0, 2, dtype=torch.int64)
    )
    return pairs, torch.tensor(([sums, rows], [sums, sums]), dtype=torch.float32)


@case(*ROWS, DOWN)
def lists_of_lists_as_a_tensor(x: T) -> T:
    found = []
    for i, row in enumerate(x):
        if row.sum() > 0:
            found.append([[row[0], i], [2, row[1].item()]])
    return torch.tensor(found).view(-1, 2, 2)


@case(*(random(n, seed=s) for s, n in enumerate((9, 1, 2, 5, 30))))
def segments_that_begin_with_none(x: T) -> T:
    segments, start = [], None
    for i, p in enumerate(x):
        if p > 0 and start is None:
            start = i
        elif p <= 0 and start is not None:
            segments.append([start, i])
            start = None
    if start is not None:
        segments.append([start, len(x)])
    return torch.tensor(segments, dtype=torch.int64).reshape(-1, 2)


@case(torch.tensor([1, 0, 1]), torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1]))
def none_as_an_element_of_a_tensor(x: T) -> T:
    found, last = [], 7 if x[0] > 0 else None
    for i, p in enumerate(x):
        if p > 0:
            found.append([last, i])
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 2)


@case.parametrize()
def test_tracks(case: Case) -> None:
    """As eager has them, for any number of rows."""
    captured = check(case)
    assert not [a for a in captured.assumptions if a.kind in ("branch", "narrowed")]


def changed_in_the_list(x: T, n: T) -> Any:
    tracks = []
    for i in range(int(n)):
        tracks.append({"s": x[i], "age": 0})
    for t in tracks:
        t["age"] += 1
    return torch.tensor([t["age"] for t in tracks])


def changed_outside(x: T, n: T) -> Any:
    tracks, last = [], None
    for i in range(int(n)):
        last = {"s": x[i], "age": 0}
        tracks.append(last)
    last["age"] = 5
    return torch.tensor([t["age"] for t in tracks])


def changed_by_the_next_round(x: T, n: T) -> Any:
    tracks, last = [], {"s": x[0], "age": 0}
    for i in range(int(n)):
        last["age"] = last["age"] + 1
        last = {"s": x[i], "age": 0}
        tracks.append(last)
    return torch.tensor([t["age"] for t in tracks])


def changed_where_it_was_taken_out(x: T, n: T) -> Any:
    tracks = []
    for i in range(int(n)):
        tracks.append(Track(x[i], x))
    best = tracks[0]
    for t in tracks:
        if t.score.sum() > best.score.sum():
            best = t
    best.score = best.score * 2
    return torch.stack([t.score for t in tracks])


@pytest.mark.parametrize(
    "function",
    [changed_in_the_list, changed_outside, changed_by_the_next_round, changed_where_it_was_taken_out],
)
def test_what_a_list_has_a_copy_of_is_not_changed(function: Any) -> None:
    """The list would not see it; the message says what does the same."""
    with pytest.raises(
        DataDependentError, match=r"the model changes a (dict|Track).*Put another one in its place"
    ):
        capture(function, (random(4, 3), torch.tensor(3)))
