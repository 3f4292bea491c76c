"""What Python does beside its result, once and where it is done: operands that change something, orders of
keys, objects that call others equal, zeros with a sign, None or a value among the arguments.
"""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, check, negative, positive, random

case = Cases()
SOME = [*[random(n, 4, seed=n) for n in (5, 1, 3, 4)], positive(3, 4), negative(3, 4), positive(5, 4)]


class Box:
    """Equal to others of its number, whatever else they hold."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.items: list[T] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.n == other.n

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Kept:
    """Makes its list."""

    n: int
    items: list[T] = dataclasses.field(default_factory=list)


class OwnWay(Kept):
    """A dataclass's child that is made in its own way."""

    def __init__(self, n: int, **more: Any) -> None:
        super().__init__(n)
        self.more = len(more)


@dataclasses.dataclass(init=False)
class Unmade(Kept):
    """A dataclass with an `__init__` of its own."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.items = []


@case(*SOME)
def operand_that_notes(x: T) -> Any:
    log = []

    def note(answer: Any) -> Any:
        log.append(1)
        return answer

    if x.shape[0] > 3 and note(True):
        x = x * 2
    if x.shape[0] > 4 or note(x.shape[1] > 9):
        x = x * 3
    if x.shape[0] > 3 and note(x.sum() > 0):
        x = x * 5
    if x.sum() > 0 and note(x.shape[0] > 3):
        x = x * 7
    return x + len(log)


@case(*SOME)
def order_of_keys(x: T) -> Any:
    kept = OrderedDict(a=x, b=x + 1)
    if x.sum() > 0:
        kept["c"] = x * 2
        kept.move_to_end("a")
    else:
        kept["c"] = x * 4
        kept.move_to_end("a")
    for r in x:
        kept["b"] = kept["b"] + r
    first, *_, last = kept
    return kept[first], kept[last], kept.popitem()[1], len(kept)


@case(*SOME)
def zeros_with_a_sign(x: T) -> Any:
    s, t = 0.0 if x.sum() > 0 else -0.0, 0.0
    for _ in x:
        t = -t
    return torch.copysign(x.abs(), torch.full_like(x, s)), torch.copysign(x.abs(), torch.full_like(x, t))


@case(*SOME)
def dataclasses_made_in_their_own_way(x: T) -> Any:
    own, unmade = OwnWay(1), Unmade(2)
    for r in x:
        if r.sum() > 0:
            unmade.items.append(r)
    return x + own.more, len(unmade.items)


@case(*SOME)
def none_among_what_python_is_asked(x: T) -> Any:
    y, z = (None, None) if x.sum() > 0 else (3, x * 2)
    if isinstance(y, int):
        x = x * 2
    if type(y) is type(None):
        x = x * 3
    if hasattr(z, "shape"):
        x = x * 5
    if f"{None if x.shape[0] > 3 else 'few'}" == "None":
        x = x * 7
    return x * {None: 2, 3: 5}.get(y, 0) + {None: 2, 3: 5}[y] + getattr(z, "ndim", 9)


@case(*SOME)
def one_of_two_boxes(x: T) -> Any:
    """One that is there, or an equal one."""
    box = Box(1)
    one = box if x.sum() > 0 else Box(1)
    one.items.append(x)
    return x + len(box.items)


@case(*SOME)
def boxes_of_tensors(x: T) -> Any:
    """Equal ones, which hold other tensors."""
    box = Box(1)
    box.items = x if x.sum() > 0 else x * 2
    if x.sum() > 0:
        box = Box(1)
        box.items = x * 3
    else:
        box = Box(1)
        box.items = x * 4
    return box.items


@case.parametrize()
def test_effects(case: Case) -> None:
    """As in eager PyTorch."""
    check(case)


def key_of_none(x: T) -> Any:
    """None or a number is a key."""
    kept: dict[Any, T] = {}
    kept[None if x.sum() > 0 else 3] = x
    return x + (None in kept)


def set_of_none(x: T) -> Any:
    """None or a number is in a set."""
    y = None if x.sum() > 0 else 3
    return x + len({y, None})


@pytest.mark.parametrize("model", [key_of_none, set_of_none])
def test_what_python_alone_would_ask_of_none_is_refused(model: Any) -> None:
    with pytest.raises(ExportError, match="of which data decides whether it is None"):
        capture(model, (torch.ones(3, 4),))


def moved(x: T) -> T:
    """The first key is another on each side."""
    kept = OrderedDict(a=x, b=x + 1)
    if x.sum() > 0:
        kept.move_to_end("a")
    return next(iter(kept.values()))


def test_what_no_value_holds_is_refused() -> None:
    with pytest.raises(ExportError, match="ONNX value can hold both"):
        capture(moved, (torch.ones(3, 4),))
