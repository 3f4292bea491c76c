"""Classes of the model's own that say themselves what their attributes are, or their class: what looks at
their objects asks none of that, be it rewritten or not.
"""

# The constructs are written as people write them.
# ruff: noqa: RUF012
# pyright: basic

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import ingot
from tests.capture.constructs.support import Case, Cases, T, both_signs, check

case = Cases()
SIGNS = both_signs()


class Box:
    """Holds one thing."""

    def __init__(self, v: Any) -> None:
        self.v = v


class Renamed:
    """Has names for its attributes besides their own, as configurations of `transformers` have."""

    attribute_map = {"width": "size"}

    def __init__(self, size: int) -> None:
        self.size = size
        self.deeper = None

    def __setattr__(self, key: str, value: Any) -> None:
        if key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        super().__setattr__(key, value)

    def __getattribute__(self, key: str) -> Any:
        if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
            key = super().__getattribute__("attribute_map")[key]
        return super().__getattribute__(key)


class OfItsKind(Renamed):
    """Asks for its class and its own attributes on the way."""

    def __getattribute__(self, key: str) -> Any:
        known = type(self).attribute_map
        held = object.__getattribute__(self, "__dict__")
        if key not in held and any(other == key for other in known):
            return held[known[key]]
        return object.__getattribute__(self, key)


class Weighed:
    """Decides by what it holds what an attribute is."""

    def __init__(self, x: T) -> None:
        self.x = x

    def __getattribute__(self, name: str) -> Any:
        if name == "signed":
            x = super().__getattribute__("x")
            if x.sum() > 0:
                return x * 2
            return x * 3
        return super().__getattribute__(name)


class Kept:
    """Keeps its attributes in a dict of its own."""

    def __init__(self, **held: Any) -> None:
        self.__dict__["held"] = held

    def __getattr__(self, name: str) -> Any:
        held = self.__dict__["held"]
        if name in held:
            return held[name]
        raise AttributeError(name)


class Twice:
    """Gives what it has no value for as twice what it holds."""

    __slots__ = ("v", "w")

    def __init__(self, v: T) -> None:
        self.v = v

    def __getattr__(self, name: str) -> Any:
        return self.v * 2


class Disguised(Box):
    """Says that it is a dict."""

    @property
    def __class__(self) -> Any:
        return dict


class Counted(Box):
    """Counts how often an attribute is asked for."""

    asked = 0

    def __getattribute__(self, name: str) -> Any:
        if name != "asked":
            self.asked = self.asked + 1
        return super().__getattribute__(name)


class _OfConfig(torch.nn.Module):
    """Keeps in an object what may be None, so that all code is rewritten, and asks its configuration."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: T) -> T:
        box = Box(x)
        if x.sum() > 0:
            box.v = None
        x = x * self.config.width
        if self.config.deeper is None:
            x = x + self.config.size
        return x if box.v is None else x + box.v


@case(*SIGNS)
class names_besides_their_own(_OfConfig):
    def __init__(self) -> None:
        super().__init__(Renamed(3))


@case(*SIGNS)
class its_own_class(_OfConfig):
    def __init__(self) -> None:
        super().__init__(OfItsKind(3))


@case(*SIGNS)
def made_in_branches(x: T) -> T:
    config = Renamed(2)
    if x.sum() > 0:
        config.width = 5
    return x * config.size + config.width


@case(*SIGNS)
def as_data_says(x: T) -> T:
    return Weighed(x).signed + Weighed(-x).signed


@case(*SIGNS)
def a_dict_of_its_own(x: T) -> T:
    kept, box = Kept(scale=2.0, shift=x), Box(x)
    if x.sum() > 0:
        kept.held["scale"] = 3.0
        box.v = None
    y = x * kept.scale + kept.shift
    return y if box.v is None else y + box.v


@case(*SIGNS)
def what_has_no_value(x: T) -> T:
    box = Twice(x) if x.sum() > 0 else Twice(-x)
    box.v = box.v + 1
    return box.w


@case(*SIGNS)
def another_class(x: T) -> T:
    box = Disguised(x) if x.sum() > 0 else Disguised(x * 2)
    box.v = box.v + 1
    return box.v if isinstance(box, dict) else box.v * 7


@case(*SIGNS)
def how_often_it_is_asked(x: T) -> T:
    box = Counted(x)
    if x.sum() > 0:
        x = x + 1
    x = x + box.v
    return x * box.asked


@case.parametrize()
def test_own_attributes(case: Case) -> None:
    """As in eager PyTorch."""
    check(case)


def test_an_argument_with_a_dict_of_its_own() -> None:
    """Its copy, which the call is recorded with, is not asked before it holds something."""

    def model(kept: Kept, y: T) -> Kept:
        return Kept(x=kept.x * kept.scale + y)

    program = ingot.export(model, (Kept(x=torch.ones(3), scale=2.0), torch.ones(3)))
    given = Kept(x=torch.arange(3.0), scale=2.0)
    np.testing.assert_array_equal(program(given, torch.ones(3)).x, model(given, torch.ones(3)).x)
