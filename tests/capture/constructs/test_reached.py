"""What a branch or loop changes outside of its own variables: globals, attributes of classes, functions and
containers, other Python modules, defaults, arrays, and dicts' orders. One side must not see what the other
one did.
"""

# The constructs are written as people write them.
# ruff: noqa: SIM108
# pyright: basic

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ingot.capture.attempt import capture
from ingot.errors import DataDependentError
from tests.capture.constructs import keeper
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, copied, positive

case = Cases()
SIGNS = both_signs()
count = 0


@case(*SIGNS)
def a_global(x: T) -> T:
    global count
    count = 0
    if x.sum() > 0:
        count = count + 1
    return x * count


@case(*SIGNS)
def a_variable_of_another_module(x: T) -> T:
    keeper.scale = 1.0
    if x.sum() > 0:
        keeper.scale = 2.0
    return x * keeper.scale


@case(*SIGNS)
class AttributeOfAClass(nn.Module):
    scale = 1.0

    def forward(self, x: T) -> T:
        AttributeOfAClass.scale = 3.0
        if x.sum() > 0:
            type(self).scale = 2.0
        return x * AttributeOfAClass.scale


@case(*SIGNS)
class DictOfAClass(nn.Module):
    kept = {"scale": 1.0}  # noqa: RUF012

    def forward(self, x: T) -> T:
        if x.sum() > 0:
            self.kept["scale"] = 2.0
        else:
            self.kept["scale"] = 3.0
        return x * self.kept["scale"]


def counting(x: T) -> T:
    counting.calls += 1  # type: ignore[attr-defined]
    return x


counting.calls = 0  # type: ignore[attr-defined]


@case(*SIGNS)
def attribute_of_a_function(x: T) -> T:
    counting.calls = 0  # type: ignore[attr-defined]
    if x.sum() > 0:
        x = counting(x)
    return x * counting.calls  # type: ignore[attr-defined]


class Bag(dict[str, Any]):
    """Has attributes beside its items."""

    scale = 1.0


class Stack(list[Any]):
    """Has attributes beside its elements."""

    scale = 1.0


@case(*SIGNS)
class AttributeOfADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = Bag(a=1)
        self.bag.scale = 5.0

    def forward(self, x: T) -> T:
        self.bag.scale = 1.0
        if x.sum() > 0:
            self.bag.scale = 2.0
        return x * self.bag.scale


@case(*SIGNS)
def attributes_of_containers(x: T) -> T:
    bag, stack = Bag(a=x), Stack([x])
    bag.scale = stack.scale = 1.0
    if x.sum() > 0:
        bag.scale = 2.0
    for r in x:
        if r.sum() > 0:
            stack.scale = stack.scale + 1
    return bag["a"] * bag.scale + stack[0] * stack.scale


class Point:
    """Holds a number."""

    def __init__(self) -> None:
        self.scale = 1.0


@case(*SIGNS)
def objects_that_are_keys(x: T) -> T:
    points, frozen = {Point(): 1}, frozenset({Point()})
    if x.sum() > 0:
        for p in (*points, *frozen):
            p.scale = 2.0
    return x * next(iter(points)).scale * next(iter(frozen)).scale


class Outputs(OrderedDict[str, Any]):
    """Has its fields as items and as attributes, in step."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]
            if getattr(self, f.name) is not None:
                self[f.name] = getattr(self, f.name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.keys():
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)


@dataclass
class Encoded(Outputs):
    hidden: Any = None
    pooled: Any = None


@case(*SIGNS)
def fields_that_are_items(x: T) -> T:
    out = Encoded(x, x + 1)
    if x.sum() > 0:
        out.hidden = x * 2
        out["pooled"] = x * 3
    return out.hidden + out["hidden"] + out.pooled * out["pooled"]


class Box:
    """Holds a number."""

    __module__ = "regnet"
    n = 1.0


@case(*SIGNS)
class InAModuleNamedAlikeRe(nn.Module):
    """A Python module whose name begins as that of a library does into which nobody looks."""

    __module__ = "regnet"

    def __init__(self) -> None:
        super().__init__()
        self.box = Box()

    def forward(self, x: T) -> T:
        self.box.n = 1.0
        if x.sum() > 0:
            self.box.n = 3.0
        return x * self.box.n


@case(*SIGNS)
def what_map_calls(x: T) -> T:
    log = []

    def weighed(r: T) -> T:
        log.append(1.0)
        return r * len(log)

    return torch.stack(list(map(weighed, x)))


@case(*SIGNS)
def attributes_in_any_order(x: T) -> T:
    p = Point()
    if x.sum() > 0:
        p.u = 1.0
        p.v = 2.0
    else:
        p.v = 3.0
        p.u = 2.0
    return x * p.u - p.v


@case(*SIGNS)
def dict_with_keys_in_any_order(x: T) -> Any:
    if x.sum() > 0:
        d = {"u": 1.0, "v": x}
    else:
        d = {"v": x * 3, "u": 2.0}
    d["w"] = 2.0
    more, copy = d | {"z": 1.0}, d.copy()
    return x * d["u"] * more["w"] * copy.get("u") + len(copy) + ("u" in d)


@case.parametrize()
def test_reached(case: Case) -> None:
    """As in eager PyTorch."""
    check(case)


def array(x: T) -> T:
    kept = np.ones(2)
    if x.sum() > 0:
        kept[0] = 3.0
    return x * float(kept[0])


def some_bytes(x: T) -> T:
    kept = bytearray(2)
    for r in x:
        if r.sum() > 0:
            kept[0] = 3
    return x * kept[0]


def seen_before(x: T, seen: list[int] = []) -> T:  # noqa: B006
    seen.append(1)
    return x


def default(x: T) -> T:
    if x.sum() > 0:
        x = seen_before(x)
    return x * len(seen_before.__defaults__[0])  # type: ignore[index]


LOG: list[int] = []


def global_list(x: T) -> T:
    if x.sum() > 0:
        LOG.append(1)
    return x * len(LOG)


def made_in_another_order(x: T) -> T:
    d = {}
    if x.sum() > 0:
        d["a"] = x
        d["b"] = x + 1
    else:
        d["b"] = x + 1
        d["a"] = x
    return torch.cat(list(d.values()))


def gone_through(x: T) -> T:
    if x.sum() > 0:
        d = {"a": x, "b": x + 1}
    else:
        d = {"b": x + 1, "a": x}
    return torch.cat(list(d.values()))


def moved_to_the_end(x: T) -> T:
    d = {"a": x, "b": x + 1}
    n = 0
    while n < x.sum():
        d["a"] = d.pop("a") + 1
        n += 1
    return torch.cat(list(d.values()))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (array, "a numpy.ndarray with other contents .* Keep what the branch changes in a tensor"),
        (some_bytes, "bytearray with other contents"),
        (default, "Make the list in a function of the model's own in this call"),
        (global_list, "Make the list in a function of the model's own in this call"),
        (made_in_another_order, "Set the keys in the same order on both sides"),
        (gone_through, "Make them in the same order on both sides"),
        (moved_to_the_end, "with its keys in another order"),
    ],
)
def test_what_no_value_can_hold_is_refused(model: Any, said: str) -> None:
    """With the line, and what to do."""
    with pytest.raises(DataDependentError, match=f"(?s){__file__}.*{said}"):
        capture(model, copied((positive(5, 3),)))


def test_attributes_of_containers_are_put_back() -> None:
    """A dict of a class of the user's has the attributes that it had."""
    model = AttributeOfADict()
    capture(model, copied((positive(5, 3),)))
    assert vars(model.bag) == {"scale": 5.0}, "the export left an attribute of model.bag changed"
