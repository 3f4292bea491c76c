"""`len`, `range`, `zip`, `map`, `list` … of as many elements as the run says."""

# Arguments are whatever the model's Python has; not every stand-in needs the runtime.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks
from ingot.capture.choice import Maybe, present
from ingot.capture.dicts import is_grown, looped_over
from ingot.capture.lists import Late, Passing, Rows, TracedList
from ingot.capture.objects import is_a
from ingot.capture.open_dicts import OpenDict
from ingot.capture.positions import another, made_of_what
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.runs import Perhaps
from ingot.capture.scalars import of_truth
from ingot.capture.sets import TracedSet
from ingot.capture.standins.subscripts import item
from ingot.capture.standins.table import STANDINS, stands_for
from ingot.capture.standins.values import number_in, own_answer
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


_ENDLESS = (itertools.count, itertools.repeat, itertools.cycle)
#: Which arguments Python's own functions go through: from the first, to the last.
_THROUGH: dict[int, tuple[int, float]] = {
    **{id(f): (0, 1) for f in (iter, enumerate, list, tuple, set, sorted, sum, any, all, max, min)},
    **{id(f): (1, 2) for f in (filter, functools.reduce)},
    id(zip): (0, math.inf),
    id(map): (1, math.inf),
}
_LONGEST = 10_000  # elements that an iterator beside rows may have


@stands_for(len)
def len_(rt: Runtime, x: Any) -> Any:
    """len(x)."""
    if is_a(x, TracedList) and not x.known:
        return x.count()
    if is_a(x, Rows):
        return x.length
    if is_grown(x) or (is_a(x, (TracedSet, OpenDict)) and not x.known):
        return x.count()
    if is_a(x, torch.Tensor) and x.dim():
        return x.shape[0]
    own = own_answer(x, "__len__")
    if is_a(own, torch.SymInt):
        checks.demand(recorder(), own >= 0, "`__len__` returns a number below 0")
        return own
    return own if type(own) is int and own >= 0 else len(present(x))


@stands_for(range)
def range_(rt: Runtime, *args: Any) -> Any:
    """range(…), of numbers that the run knows too."""
    args = tuple(number_in(present(a), int) for a in args)
    if not any(is_a(a, torch.SymInt) for a in args):
        return range(*args)
    start, stop, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
    if is_a(step, torch.SymInt):
        checks.demand(recorder(), step != 0, "range() takes no step of 0")
        env = recorder().env
        turns = (env.expr(stop) - env.expr(start)) / env.expr(step)
        if turns.is_Integer:  # `range(0, n, n)`: Python's own loop
            return [start + i * step for i in range(int(turns))]
        span = rt.choose(step > 0, lambda: stop - start + step - 1, lambda: start - stop - step - 1)
        size = rt.choose(step > 0, lambda: step, lambda: -step)
    else:
        span, size = (stop - start + (step - 1), step) if step > 0 else (start - stop + (-step - 1), -step)
    return Rows(torch.sym_max(span // size, 0), lambda i: start + i * step)


def rows_of(items: Any) -> Rows | None:
    """What is looped over as long as the run says; None for what Python can loop over."""
    if is_a(items, Rows):
        return items
    if is_a(items, TracedList) and not items.known:
        run = items.run()
        return Rows(run.count, run.reader())
    if is_a(items, torch.Tensor) and items.dim() and is_a(items.shape[0], torch.SymInt):
        return Rows(items.shape[0], lambda i: items.select(0, i))
    if is_a(items, Maybe):
        return rows_of(present(items))
    return None


def _looped_over(x: Any) -> Any:
    return x.keys() if is_a(x, OpenDict) else looped_over(x)


def begun(items: Any) -> Any:
    """What a loop goes through: of an object what the model's own `__iter__` gives, of a dict that data gives
    keys a list of them. An iterator's own, Python's loop calls.
    """
    own = None if isinstance(items, Iterator) else own_answer(items, "__iter__")
    return _looped_over(items) if own is None else own


def all_begun(function: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a function is given, with those begun that it goes through."""
    if (function is max or function is min) and len(args) > 1:
        return args
    first, end = _THROUGH.get(id(function), (0, 0))
    return tuple(begun(a) if first <= i < end else a for i, a in enumerate(args))


def gone_through(items: Any) -> Rows | None:
    """The same, of which nothing is left to others where Python has an iterator."""
    rows = rows_of(items)
    return rows.left() if is_a(rows, Passing) else rows


def by_place(rt: Runtime, items: Any) -> Rows:
    """Something to loop over by place, as long as Python or the run says; of no length where it has no end.

    Raises:
        DataDependentError: it has no end, and no form of its own.
    """
    rows = gone_through(items)
    if rows is not None:
        return rows
    if is_a(items, Late):
        cannot_wait(
            "goes through a generator, whose variables something changes meanwhile, beside as many rows as "
            "data or a size says"
        )
    if not is_a(items, Iterator):
        known = list(items)
        return Rows(len(known), lambda i: item(rt, known, i))
    recorder().passed[id(items)] = items  # how far it is taken, the run alone knows
    found = _without_end(rt, items) if is_a(items, _ENDLESS) else None
    if found is not None:
        return found
    taken = list(itertools.islice(items, _LONGEST + 1))
    if len(taken) > _LONGEST:
        cannot_wait("goes through an iterator without an end beside as many rows as data or a size says")
    return Rows(len(taken), lambda i: item(rt, taken, i))


def _without_end(rt: Runtime, items: Any) -> Rows | None:
    """A count, or what is given again and again, from where it stands."""
    how = made_of_what(items)
    if how is None:  # newer versions of Python do not say
        return None
    kind, made_of, state = how
    if kind is itertools.count:
        start, step = made_of if len(made_of) > 1 else (*made_of, 1)
        return Rows(None, lambda i: start + i * step)
    if kind is itertools.repeat:
        value, *times = made_of
        return Rows(times[0] if times else None, lambda _: value)
    copy = another(made_of[0], {}) if kind is itertools.cycle and not state[0][0] else None
    if copy is None:
        return None
    known = by_place(rt, copy)
    return Rows(None if known.length else 0, lambda i: known.at(i % known.length))


@stands_for(iter)
def iter_(rt: Runtime, items: Any, *until: Any) -> Any:
    """iter(items)."""
    rows = None if until else rows_of(items)
    if rows is None:
        return iter(items, *until)
    return rows if is_a(rows, Passing) else Passing(rows.length, rows.at)


@stands_for(next)
def next_(rt: Runtime, iterator: Any, *default: Any) -> Any:
    """next(iterator, default)."""
    return iterator.take(*default) if is_a(iterator, Passing) else next(iterator, *default)


@stands_for(enumerate)
def enumerate_(rt: Runtime, iterable: Any, start: Any = 0) -> Any:
    """enumerate(items, start)."""
    try:
        rows = gone_through(iterable)
    except DataDependentError:
        if not (is_a(iterable, TracedList) and iterable.is_counted):
            raise
        return TracedList(_with_places(iterable.parts(), start))  # no tensor holds them all
    if rows is None:
        return enumerate(iterable, start)
    return Passing(rows.length, lambda i: (i + start, rows.at(i)))


def _with_places(parts: Sequence[Any], place: Any) -> Iterator[Any]:
    """Elements that are there or not, each with how many there are before it."""
    for v in parts:
        if is_a(v, Perhaps):
            yield Perhaps(v.there, (place, v.value))
            place = place + of_truth(recorder(), v.there)
        else:
            yield place, v
            place = place + 1


@stands_for(reversed)
def reversed_(rt: Runtime, items: Any) -> Any:
    """reversed(items), which is another tensor of a tensor."""
    rows = None if is_a(items, torch.Tensor) else rows_of(items)
    return reversed(items) if rows is None else Passing(rows.length, lambda i: rows.at(rows.length - 1 - i))


@stands_for(zip)
def zip_(rt: Runtime, *columns: Any, strict: bool = False) -> Any:
    """zip(…): as many as the shortest has."""
    if all(rows_of(c) is None for c in columns):
        return zip(*columns, strict=strict)
    parts = [by_place(rt, c) for c in columns]
    first, *others = (p.length for p in parts if p.length is not None)
    for n in others:
        if strict:
            checks.demand(recorder(), first == n, "zip(strict=True) takes as many of each")
        else:
            first = torch.sym_min(first, n)
    if strict and any(p.length is None for p in parts):
        cannot_wait("gives zip(strict=True) an iterator without an end")
    return Passing(first, lambda i: tuple(p.at(i) for p in parts))


@stands_for(map)
def map_(rt: Runtime, function: Any, *columns: Any) -> Any:
    """map(function, …): as many as the shortest has."""

    def call(*args: Any) -> Any:
        return rt.call(function, *args)

    rows = gone_through(zip_(rt, *columns))
    if rows is None:
        return map(call, *columns)
    return Passing(rows.length, lambda i: call(*rows.at(i)))


@stands_for(filter)
def filter_(rt: Runtime, function: Any, items: Any) -> Any:
    """filter(function, items), of what has an end."""
    if rows_of(items) is None and not is_a(items, (list, tuple)):
        return filter(function, items)
    fits = (lambda v: v) if function is None else (lambda v: rt.call(function, v))
    found = rt.list_of(items, lambda v: v, [fits])
    return iter(found) if found.known else found


@stands_for(functools.reduce)
def reduce_(rt: Runtime, function: Any, items: Any, *start: Any) -> Any:
    """functools.reduce(function, items, start)."""
    rows = gone_through(items)
    if rows is None:
        return functools.reduce(lambda a, b: rt.call(function, a, b), items, *start)
    total = start[0] if start else rows.at(0)

    def body(item: Any) -> None:
        nonlocal total
        total = rt.call(function, total, item)

    rt.each(rows if start else rows[1:], body, None, ("total",), ("total",), ("total",))
    return total


@stands_for(list, tuple)
def list_(rt: Runtime, *args: Any) -> Any:
    """list(items)."""
    if not args:
        return TracedList()
    items = _looped_over(args[0])
    if is_a(items, TracedList):
        return TracedList(items.parts())
    rows = rows_of(items)
    if rows is None:
        return TracedList(*args)
    return rt.list_of(rows, lambda v: v, [])


STANDINS[id(tuple)] = lambda rt, *args: (
    tuple(*args) if not args or rows_of(args[0]) is None else list_(rt, *args)
)


def spread(rt: Runtime, function: Any, items: Any) -> Any:
    """function(*items)."""
    if is_a(items, TracedList) and not items.known:
        columns = items.run().unzipped() if function is zip else None
        if columns is None:
            cannot_wait("passes on as many arguments as data says")
        return [TracedList([c]) for c in columns]
    return rt.call(function, *items)
