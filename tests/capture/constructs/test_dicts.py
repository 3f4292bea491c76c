"""Dicts of which data decides whether they have some of their keys, constants of the code."""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

from typing import Any

import pytest
import torch

from ingot.capture.attempt import capture
from ingot.errors import ExportError
from tests.capture.constructs.support import Case, Cases, T, both_signs, check, lengths, negative, positive

case = Cases()


@case(*both_signs())
def set_under_a_branch(x: T) -> T:
    out = {"sum": x.sum(0)}
    if x.sum() > 0:
        out["scaled"] = x[0] * 2
    if "scaled" in out:
        return out["scaled"] + out["sum"]
    return out["sum"]


@case(*both_signs())
def asked_with_a_default(x: T) -> T:
    found = {}
    if x[0].sum() > 0:
        found["first"] = x[0]
    if x[-1].sum() > 0:
        found["last"] = x[-1]
    return found.get("first", x.mean(0)) * found.get("last", x.sum(0)) + len(found)


@case(*both_signs())
def a_key_that_must_be_there(x: T) -> T:
    out = {}
    if x.sum() > 0:
        out["total"] = x.sum(0)
    return out["total"] * 2  # a KeyError where it is not


@case(*both_signs())
def gone_through(x: T) -> T:
    parts = {"a": x[0]}
    if x[0, 0] > 0:
        parts["b"] = x[-1]
    total = torch.zeros(3)
    for i, (name, value) in enumerate(parts.items()):
        total = total + value * (i + 1) * len(name)
    for name in parts:
        total = total + parts[name]
    return total + sum(parts.values())


@case(*both_signs())
def one_of_two_dicts(x: T) -> T:
    options = {"scale": x[0]} if x.sum() > 0 else {"scale": x[0], "shift": x[-1]}
    return x * options["scale"] + options.get("shift", torch.ones(3))


@case(*both_signs())
def a_key_that_one_of_two_dicts_gets(x: T) -> T:
    a, b = {"n": x}, {"n": x * 2}
    d = a if x.sum() > 0 else b
    d["extra"] = x + 1
    return d["extra"] + len(a) - a.get("extra", x)


@case(*both_signs())
def taken_out(x: T) -> T:
    held = {"a": x[0], "b": x.sum(0)}
    if x.sum() > 0:
        del held["a"]
    return held.pop("a", x[-1]) + len(held) + held["b"]


@case(*both_signs())
def written_over_another(x: T) -> T:
    defaults = {"scale": x[0], "shift": x[-1]}
    given = {}
    if x.sum() > 0:
        given["scale"] = x.sum(0)
    merged = {**defaults} | given
    merged.update(shift=merged["shift"] * 2)
    return x * merged["scale"] + merged["shift"]


@case(*both_signs())
def set_if_it_is_not(x: T) -> T:
    cache = {}
    if x[0, 0] > 0:
        cache["k"] = x[0]
    first = cache.setdefault("k", x.sum(0))
    return first + cache["k"]


@case(*lengths(3, 0))
def gained_in_a_loop(x: T) -> T:
    cache = {}
    for row in x:
        cache["last"] = row
        cache["sum"] = cache["sum"] + row if "sum" in cache else row
    return cache.get("sum", torch.ones(3)) * cache.get("last", torch.ones(3))


@case(*both_signs())
def gained_in_some_rounds(x: T) -> T:
    seen = {"n": torch.zeros(())}
    for row in x:
        if row.sum() > 0.5:
            seen["best"] = row if "best" not in seen else torch.maximum(seen["best"], row)
        seen["n"] = seen["n"] + 1
    return (seen["best"] if "best" in seen else x[0]) * seen["n"]


@case(*both_signs())
def gained_while(x: T) -> T:
    state: dict[str, Any] = {"x": x.abs()}
    while state["x"].sum() > 1:
        state["x"] = state["x"] / 2
        state["rounds"] = state.get("rounds", 0) + 1
    return state["x"] * state.get("rounds", 7)


@case(*lengths())
def gained_and_asked_for(x: T) -> T:
    cache = {}
    for row in x:
        cache["h"] = row + cache["h"] if "h" in cache else row
    return cache["h"]


class Cached(torch.nn.Module):
    """Layers that share what the first one of them has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def share(self, x: T, shared: dict[str, T]) -> T:
        if "h" not in shared:
            shared["h"] = self.layer(x)
        return shared["h"] * x

    def forward(self, x: T) -> T:
        shared: dict[str, T] = {}
        y = x
        for row in x:
            if row.sum() > 0:
                y = y + self.share(x, shared)
        return y


case(*both_signs())(Cached)


@case.parametrize()
def test_dicts(case: Case) -> None:
    check(case)


def keyed_by_data(x: T) -> T:
    counts: dict[Any, int] = {"all": 0}
    for v in x.long().flatten().tolist():
        counts[v] = counts.get(v, 0) + 1
    return torch.tensor(len(counts))


def returned(x: T) -> dict[str, T]:
    out = {"a": x}
    if x.sum() > 0:
        out["b"] = x * 2
    return out


def in_an_order_of_data(x: T) -> T:
    out = {}
    if x.sum() > 0:
        out["a"] = x[0]
    out["b"] = x[-1]
    out["a"] = x.sum(0)
    return torch.stack(list(out.values()))


def caught(x: T) -> T:
    out = {}
    if x.sum() > 0:
        out["a"] = x[0]
    try:
        return out["a"]
    except KeyError:
        return x[-1]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (keyed_by_data, "Data or a size decides the key here"),
        (returned, "data decides what kind of thing the model returns"),
        (in_an_order_of_data, "of which data decides in which order it has its keys"),
        (caught, r"decides whether a dict has the key, inside a `try`.*Ask with `in`"),
    ],
)
def test_what_no_onnx_value_says_is_refused(model: Any, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        capture(model, (positive(5, 3),))
    with pytest.raises(ExportError, match=words):
        capture(model, (negative(5, 3),))
