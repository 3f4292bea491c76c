"""What `itertools` gives of as many elements as the run says."""

# Elements may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.lists import Rows, TracedList
from ingot.capture.standins.sequences import by_place, rows_of
from ingot.capture.standins.table import STANDINS

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


_FORMS: dict[Any, Callable[..., Any]] = {}


def _standin(plain: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Stands in where the run says how many there are, and the form of the call has one."""

    def note(made: Callable[..., Any]) -> Callable[..., Any]:
        def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
            waits = any(rows_of(a) is not None for a in (*args, *kwargs.values()))
            found = made(rt, *args, **kwargs) if waits else None
            return plain(*args, **kwargs) if found is None else found

        _FORMS[plain] = standin
        return made

    return note


def register() -> None:
    """Put these among the stand-ins."""
    STANDINS.update({id(plain): standin for plain, standin in _FORMS.items()})


@_standin(itertools.product)
def product_(rt: Runtime, *columns: Any, repeat: int = 1) -> Rows:
    """product(…): the last column is the fastest."""
    parts = [by_place(rt, c) for c in columns] * repeat
    length: Any = 1
    for p in parts:
        length = length * p.length

    def at(place: Any) -> tuple[Any, ...]:
        found: list[Any] = []
        for p in reversed(parts):
            found.append(p.at(place % p.length))
            place = place // p.length
        return tuple(reversed(found))

    return Rows(length, at)


@_standin(itertools.combinations)
def combinations_(rt: Runtime, iterable: Any, r: Any) -> Rows | None:
    """combinations(items, 2); of other sizes, and of elements that each place gives anew, None."""
    if r != 2:
        return None
    rows = by_place(rt, iterable)
    first, second = torch.ones(rows.length, rows.length).triu(1).nonzero().unbind(1)
    return Rows(first.shape[0], lambda k: (rows.at(first[k].item()), rows.at(second[k].item())))


@_standin(itertools.permutations)
def permutations_(rt: Runtime, iterable: Any, r: Any = None) -> Rows | None:
    """permutations(items, 2)."""
    if r != 2:
        return None
    rows = by_place(rt, iterable)
    left = torch.sym_max(rows.length - 1, 1)

    def at(place: Any) -> tuple[Any, Any]:
        first, second = place // left, place % left
        return rows.at(first), rows.at(second + rt.choose(second >= first, lambda: 1, lambda: 0))

    return Rows(rows.length * (rows.length - 1), at)


@_standin(itertools.pairwise)
def pairwise_(rt: Runtime, items: Any) -> Rows:
    """pairwise(items)."""
    rows = by_place(rt, items)
    return Rows(torch.sym_max(rows.length - 1, 0), lambda i: (rows.at(i), rows.at(i + 1)))


@_standin(itertools.accumulate)
def accumulate_(rt: Runtime, iterable: Any, func: Any = None, *, initial: Any = None) -> Any:
    """accumulate(items, function), as a list."""
    total, found = initial, TracedList([] if initial is None else [initial])

    def body(item: Any) -> None:
        nonlocal total
        before, function = total, func or operator.add
        sides = (lambda: item), (lambda: rt.call(function, before, item))
        total = rt.choose(rt.same(before, None), *sides)
        list.append(found, total)

    rt.each(by_place(rt, iterable), body, None, ("total",), ("total",), ("total",))
    return found


@_standin(itertools.chain)
def chain_(rt: Runtime, *columns: Any) -> Any:
    """chain(…), as a list."""
    made: Any = rt.list_of(columns[0], lambda v: v, [])
    for c in columns[1:]:
        made = made + rt.list_of(c, lambda v: v, [])
    return made
