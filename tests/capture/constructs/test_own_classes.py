"""Classes of the model's own whose objects hold more than their fields or elements, or make something else of
them: as arguments and results, on the sides of branches, in loops and lists.
"""

# The constructs are written as people write them.
# ruff: noqa: SIM108
# pyright: basic

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, positive

case = Cases()
SIGNS = both_signs()


@dataclass
class Row:
    """Has attributes that are no fields."""

    x: T
    weight: Any = field(init=False)  # which is given later

    def __post_init__(self) -> None:
        self.area = self.x.sum()


class Capped(list[Any]):
    """Keeps two elements at most."""

    def append(self, value: Any) -> None:
        if len(self) < 2:
            super().append(value)


class Pair(tuple[Any, ...]):
    """Adds element by element."""

    def __add__(self, other: Any) -> Any:
        return self[0] + other[0]


@case(*SIGNS)
def numbers_beside_the_fields(x: T) -> T:
    if x.sum() > 0:
        row = Row(x)
        row.scale = 2.0
    else:
        row = Row(-x)
        row.scale = 3.0
    return row.x * row.scale + row.area


@case(*SIGNS)
def a_loop_that_changes_them(x: T) -> T:
    row = Row(x)
    row.scale = 1.0
    while row.area < 10 and row.area > 0:
        more = Row(row.x * 2)
        more.scale = row.scale + 1
        row = more
    return row.x * row.scale


@case(*SIGNS)
def rows_in_a_list(x: T) -> T:
    rows = [Row(r) for r in x if r.sum() > 0]
    total = x.sum() * 0
    for row in rows:
        total = total + row.area
    return total


@case(*SIGNS)
def a_field_that_is_given_later(x: T) -> T:
    if x.sum() > 0:
        row = Row(x)
    else:
        row = Row(x * 2)
    row.weight = 3.0
    return row.x * row.weight


@case(*SIGNS)
def lists_and_tuples_of_its_own(x: T) -> T:
    if x.sum() > 0:
        kept, pair = Capped([x]), Pair((x, 1))
        kept.scale = 2.0
    else:
        kept, pair = Capped([x * 2]), Pair((x * 3, 2))
        kept.scale = 3.0
    kept.append(x)
    kept.append(x)
    return kept[0] * kept.scale * len(kept) + (pair + pair)


@case(*SIGNS)
def values_and_indices(x: T) -> T:
    if x.sum() > 0:
        best = x.max(1)
    else:
        best = (-x).max(1)
    return best.values + best.indices


@case.parametrize()
def test_own_classes(case: Case) -> None:
    """As in eager PyTorch."""
    check(case)


@dataclass
class Halved:
    """Makes something else of what it is given, each time that it is made."""

    x: T

    def __post_init__(self) -> None:
        self.x = self.x / 2
        self.shift = self.x * 0 + 1


def test_an_object_that_is_passed_is_not_made_again() -> None:
    """What `__post_init__` did to the example was done before the call."""

    def model(a: Halved, y: T) -> Halved:
        return Halved(a.x + a.shift + y)

    program = ingot.export(model, (Halved(torch.ones(3)), torch.ones(3)))
    given = Halved(torch.arange(3.0))
    found, wanted = program(given, torch.ones(3)), model(given, torch.ones(3))
    for name in ("x", "shift"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


def test_dicts_that_make_their_values() -> None:
    """defaultdict takes its function first, and no items."""

    def model(groups: dict[str, list[T]]) -> dict[str, list[T]]:
        out = defaultdict(list)
        for name, parts in groups.items():
            out[name].append(parts[0] * 2)
        return out

    given = defaultdict(list, {"a": [torch.ones(2)], "b": [torch.zeros(3)]})
    found = ingot.export(model, (given,))(given)
    assert type(found) is defaultdict
    np.testing.assert_array_equal(found["a"][0], [2, 2])


def test_what_a_call_leaves_in_its_arguments_is_an_output_or_said() -> None:
    """Numbers that data decides are outputs; words, and what is taken away, are noted."""

    def model(x: T, state: dict[str, Any]) -> T:
        state["many"] = int((x > 0).sum())
        state["mode"] = "up" if x.sum() > 0 else "down"
        return x + state.pop("once").sum()

    state = {"mode": "up", "once": torch.ones(2)}
    program = ingot.export(model, (positive(2, 3), state))
    assert [v.name for v in program.model.graph.outputs] == ["output", "next.state_many"]
    said = [a.what for a in program.assumptions if a.kind == "input-changed"]
    assert any("one of two values in argument 'state_mode'" in s for s in said), said
    assert any("nothing in argument 'state_once'" in s for s in said), said


def test_one_dict_in_two_places_may_not_be_changed() -> None:
    """The exported model has inputs for each place."""

    def changes(a: dict[str, T], b: dict[str, T]) -> T:
        a["x"] = a["x"] + 1
        return b["x"] * 2

    def reads(a: dict[str, T], b: dict[str, T]) -> T:
        return a["x"] + b["x"]

    given = {"x": positive(3)}
    with pytest.raises(ExportError, match="'a' and 'b' are one list, dict or dataclass"):
        capture(changes, (given, given))
    capture(reads, (given, given))
    capture(changes, (given, dict(given)))
