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


class Missing:
    """Says that nothing is there, by being itself."""


class Bare:
    """The same without any place for attributes."""

    __slots__ = ()


@dataclass(frozen=True)
class Config:
    """Nobody can change it."""

    scale: int


class Ring:
    """Holds itself."""

    def __init__(self, v: Any) -> None:
        self.v, self.me = v, [self]


class Closed(Box):
    """Ends once."""

    def __del__(self) -> None:
        self.v = None


class Made(Box):
    """Is made in a way of its own."""

    def __new__(cls, *_: Any) -> Any:
        return super().__new__(cls)


MISSING, NOTHING = Missing(), Missing()
BARE, BARER = Bare(), Bare()
LEFT, RIGHT = object(), object()
FIRST, SECOND = Config(2), Config(2)


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


@case(*SIGNS)
def which_of_two_that_hold_nothing(x: T) -> T:
    m = MISSING if x.sum() > 0 else NOTHING
    k = MISSING if x.sum() > 1 else None
    y = x * 2 if m is MISSING else x * 3
    return y + 1 if k is MISSING else y


@case(*SIGNS)
def which_of_two_that_are_equal(x: T) -> T:
    m = FIRST if x.sum() > 0 else SECOND
    y = x * m.scale if m is FIRST else x * 3
    return y + 1 if m is SECOND else y


@case(*SIGNS)
def which_of_two_that_are_new(x: T) -> Any:
    a, b = Config(3), Config(3)
    m = a if x.sum() > 0 else b
    y = x * m.scale
    return [y + 1 if found else y for found in (m is a, m is b, m == a, m in [a])]


@case(*SIGNS)
def one_in_two_places(x: T) -> Any:
    box: Any = None
    if x.sum() > 0:
        box = Box(x * 2)
        pair = (box, [box])
    if box is None:
        return x
    return x + (1 if pair[0] is box else 2) + (1 if pair[1][0] is box else 2)


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


def one_of_two_objects(x: T) -> T:
    m = LEFT if x.sum() > 0 else RIGHT
    return x * 2 if m is LEFT else x * 3


def an_object_or_none(x: T) -> T:
    m = LEFT if x.sum() > 0 else None
    return x * 2 if m is LEFT else x * 3


def one_of_two_without_attributes(x: T) -> T:
    m = BARE if x.sum() > 0 else BARER
    return x * 2 if m is BARE else x * 3


def whether_it_is_the_first(x: T) -> T:
    first = track = Track(x)
    for row in x:
        age = 1 if track is first else 2
        track = Track(x * row.sum(), track.age + age)
    return track.box * track.age


def ring(x: T) -> T:
    made = Ring(x * 2) if x.sum() > 0 else Ring(x * 3)
    return made.v


def ring_on_one_side(x: T) -> T:
    if x.sum() > 0:
        made = Ring(x * 2)
    if x.sum() > 0:
        x = made.v
    return x


def ring_in_a_loop(x: T) -> T:
    made = Ring(x[0])
    while made.v.sum() < 9:
        made = Ring(made.v + 1)
    return made.v


def ring_in_a_list(x: T) -> T:
    out = []
    for row in x:
        if row.sum() > 0:
            out.append(Ring(row))
    return out[0].v


def parent_and_child(x: T) -> T:
    def family(v: T) -> Node:
        node = Node(v)
        node.parent = Node(v * 2, node)
        return node

    node = family(x) if x.sum() > 0 else family(x * 3)
    return node.parent.v


def closed(x: T) -> T:
    box = Closed(x * 2) if x.sum() > 0 else Closed(x * 3)
    return box.doubled(x)


def made_in_its_own_way(x: T) -> T:
    box = Made(x * 2) if x.sum() > 0 else Made(x * 3)
    return box.doubled(x)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (one_of_two_objects, "a object on one side and a object on the other"),
        (an_object_or_none, "None on one side and a object"),
        (one_of_two_without_attributes, "a Bare on one side and a Bare on the other"),
        (whether_it_is_the_first, "asks whether two Tracks are one object"),
        (ring, "a Ring that holds itself on one side"),
        (ring_on_one_side, "a Ring that holds itself on one side only"),
        (ring_in_a_loop, "a Ring that holds itself before a round"),
        (ring_in_a_list, "a Ring that holds itself in it"),
        (parent_and_child, "a Node that holds itself"),
        (closed, "a Closed on one side and a Closed on the other"),
        (made_in_its_own_way, "a Made on one side and a Made on the other"),
        (other_dtypes, "a Box whose 'v' is a float32 tensor"),
        (other_attributes, "a Box with 'scale' on one side only"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_objects_that_have_no_form(model: Any, words: str) -> None:
    """The error names the object, or its attribute; which of two it is is never a guess."""
    with pytest.raises(ExportError, match=words):
        capture(model, (SIGNS[0],))
