"""Objects of plain classes of the model's own: made anew on a side of a branch, changed on the other, with
parts that may be None, in loops and lists.
"""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check

case = Cases()
SIGNS = both_signs()


class Box:
    """Holds one thing."""

    def __init__(self, v: Any = None) -> None:
        self.v = v

    def doubled(self, x: T) -> T:
        return x if self.v is None else self.v * 2

    @property
    def is_full(self) -> bool:
        return self.v is not None


class Track:
    """Holds a tensor and a number, in slots."""

    __slots__ = ("age", "box")

    def __init__(self, box: T, age: Any = 0) -> None:
        self.box, self.age = box, age

    def step(self) -> T:
        self.age += 1
        return self.box * self.age


@dataclass
class Row:
    """The same as a dataclass."""

    box: T
    age: int = 0


class Node:
    """Knows another one."""

    def __init__(self, v: T, parent: Any = None) -> None:
        self.v, self.parent = v, parent


@case(*SIGNS)
def made_on_both_sides(x: T) -> T:
    box = Box(x * 2) if x.sum() > 0 else Box(x * 3)
    box.v = box.v + 1
    return box.v


@case(*SIGNS)
def made_on_one_side(x: T) -> Any:
    box = seen = Box(x)
    if x.sum() > 0:
        box = Box(x * 2)
    box.v = box.v + 1
    return box.v + seen.v, box is seen


@case(*SIGNS)
def made_or_none(x: T) -> T:
    box = None
    if x.sum() > 0:
        box = Box(x * 2)
    return box.v if box is not None else x


@case(*SIGNS)
def of_a_common_parent(x: T) -> T:
    root = Node(x)
    node = Node(x * 2, root) if x.sum() > 0 else Node(x * 3, root)
    node.parent.v = node.parent.v + 1
    return node.v + root.v


@case(*SIGNS)
def made_or_changed(x: T) -> T:
    track: Any = Row(x)
    if x.sum() > 0:
        track = Row(x * 3, track.age + 1)
    else:
        track.age += 5
        track.box = x * 7
    return track.box + track.age


@case(*SIGNS)
def list_made_or_changed(x: T) -> T:
    out = [x * 2]
    if x.sum() > 0:
        out = [x]
    else:
        out.append(x * 3)
    return torch.stack(out).sum(0)


@case(*SIGNS)
def in_a_loop(x: T) -> T:
    track = Track(x)
    for row in x:
        if row.sum() > 0:
            track = Track(x * row, track.age + 1)
        else:
            track.step()
    return track.step() + track.age


@case(*SIGNS)
def in_a_list(x: T) -> T:
    tracks = []
    for row in x:
        if row.sum() > 0:
            tracks.append(Track(row, 1))
        else:
            tracks.append(Track(row * 2, 2))
    return torch.stack([t.box * t.age for t in tracks])


@case(*SIGNS)
def parts_that_may_be_none(x: T) -> Any:
    box = Box(x) if x.sum() > 0 else Box()
    return box.doubled(x), x + box.is_full


@case(*SIGNS)
def set_to_what_may_be_none(x: T) -> T:
    box = Box()
    if x.sum() > 0:
        box.v = x * 3
    return box.doubled(x)


@case(*SIGNS)
def pair_that_may_hold_none(x: T) -> T:
    def first(pair: Any) -> T:
        return pair[1] if pair[0] is None else pair[0] * 2

    pair = (None, x) if x.sum() > 0 else (x * 2, x)
    return first(pair)


@case.parametrize()
def test_plain_objects(case: Case) -> None:
    """Their attributes are joined, and later code sees those of its own way."""
    check(case)


def other_dtypes(x: T) -> T:
    box = Box(x) if x.sum() > 0 else Box(x.long())
    return box.v * 2


def other_attributes(x: T) -> T:
    box: Any = Box(x)
    if x.sum() > 0:
        box = Box(x)
        box.scale = 3
    else:
        box = Box(x * 2)
    return box.v * getattr(box, "scale", 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (other_dtypes, "a Box whose 'v' is a float32 tensor"),
        (other_attributes, "a Box with 'scale' on one side only"),
    ],
    ids=["other_dtypes", "other_attributes"],
)
def test_attributes_that_have_no_form(model: Any, words: str) -> None:
    """The error names the attribute."""
    with pytest.raises(ExportError, match=words):
        capture(model, (SIGNS[0],))
