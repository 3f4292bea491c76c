"""What stands around an export is no part of the model: the variables of whoever calls it are neither looked
into nor touched.
"""

# The constructs are written as people write them.
# pyright: basic

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

import ingot
from ingot.capture import containers

T = torch.Tensor
KEPT = {"a": [1, 2], "b": {"c": 3}}


class Crowd(torch.nn.Module):
    """A branch replaces a list that its caller holds; the caller holds other things too."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: T) -> T:
        held = {"kept": [object() for _ in range(self.size)]}
        rows = [x]
        self.changed(rows, x)
        assert len(held["kept"]) == self.size
        return rows[0]

    def changed(self, rows: list[T], x: T) -> None:
        if x.sum() > 0:
            rows = [x * 7]
        rows[0] = rows[0] + 1


def test_the_callers_variables_are_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much they hold, as a notebook's or a test session's do."""
    monkeypatch.setattr(containers, "LIMIT", 5_000)
    crowd = [object() for _ in range(6_000)]
    program = ingot.export(Crowd(10), (torch.ones(2, 3),))
    assert len(crowd) == 6_000
    for x in (torch.ones(2, 3), -torch.ones(2, 3)):
        torch.testing.assert_close(
            torch.from_numpy(program.session().run(None, {"x": x.numpy()})[0]), Crowd(0)(x)
        )


def test_a_refusal_midway_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was being looked into when there was too much of it holds what it held."""
    monkeypatch.setattr(containers, "LIMIT", 5_000)

    def model(x: T) -> T:
        crowd = [object() for _ in range(6_000)]

        def summed() -> T:
            a, b = [x[0]], [x[0] * 2]
            for r in x:
                if r.sum() > 0:
                    a = b
                a[0] = a[0] + r
            return a[0] + b[0]

        return summed() + len(crowd) + len(KEPT)

    with pytest.raises(ingot.ExportError, match="more than 5000 Python objects"):
        ingot.export(model, (torch.ones(2, 3),))
    assert KEPT == {"a": [1, 2], "b": {"c": 3}}


class Odd(dict[str, int]):
    """Takes nothing in the ways of a dict."""

    def clear(self) -> None:
        raise RuntimeError("not cleared")

    def update(self, *_: object, **__: object) -> None:
        raise RuntimeError("not updated")


class Late:
    """Has slots, one of them empty at first, one private."""

    __slots__ = ("__n", "later")

    def __init__(self) -> None:
        self.__n = 1

    def change(self) -> None:
        self.__n += 1
        self.later = 5

    @property
    def seen(self) -> tuple[int, bool]:
        return self.__n, hasattr(self, "later")


class Kinds(set[int]):
    """A set by another name."""


def _changed(holder: Any) -> None:
    holder.ordered["c"] = 3
    holder.ordered.move_to_end("b")
    holder.odd["x"] = 2
    holder.late.change()
    holder.kinds.add(7)
    holder.objects[0] = "another"


class Holder(torch.nn.Module):
    """Keeps them, and changes them in every call."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.ordered = OrderedDict(a=1, b=2)
        self.ordered.move_to_end("a")
        self.odd, self.late, self.kinds = Odd(x=1), Late(), Kinds([1])
        self.objects = np.array([{"k": 1}, [1, 2]], object)

    def forward(self, x: T) -> T:
        if self.where == "always":
            _changed(self)
        elif x.sum() > 0:
            _changed(self)
            raise_on = torch.lobpcg(x @ x.T)[0]  # no ONNX operator
            return x + raise_on.sum()
        return x * 2


@pytest.mark.parametrize("where", ["always", "in a branch"])
def test_containers_with_ways_of_their_own_are_put_back(where: str) -> None:
    holder = Holder(where)
    first = holder.objects[0]
    with contextlib.suppress(ingot.ExportError):  # whatever becomes of it
        ingot.export(holder, (torch.ones(9, 9),))
    assert list(holder.ordered.items()) == [("b", 2), ("a", 1)]
    assert dict(holder.odd) == {"x": 1}
    assert holder.late.seen == (1, False)
    assert set(holder.kinds) == {1}
    assert holder.objects[0] is first
