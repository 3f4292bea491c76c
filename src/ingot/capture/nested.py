"""Lists in what a list of any length holds. Those of one length are a part of each element, as tuples are;
those of several lengths, or of one that data decides, are rows of tensors, whose number differs from element
to element.
"""

# Elements may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ingot.capture.lists import TracedList
from ingot.capture.request import recorder
from ingot.capture.runs import LEAF, Column, Even, Many, Perhaps, Ragged, leaves_in, same_form
from ingot.capture.scalars import kind_of
from ingot.capture.sharing import link_copy, link_within
from ingot.capture.structure import parts_of, rebuilt
from ingot.capture.words import is_thing, leaves_of
from ingot.errors import DataDependentError

Writing = Callable[[int], AbstractContextManager[Any]]
Formed = tuple[list[Any], list[list[Column]]]  # for each run a form, and the columns of its leaves


class Nothing:
    """The kind of the elements of lists that have none: those of others are of any."""


def as_element(x: Any) -> Any:
    """An element in which each list whose length data decides is one run, where it can be."""
    if kind_of(x) is not None or isinstance(x, Many):
        return x
    if isinstance(x, Perhaps):
        value = as_element(x.value)
        return x if value is x.value else Perhaps(x.there, value)
    if isinstance(x, TracedList) and not x.known:
        parts = x.parts()
        if len(parts) == 1 and isinstance(parts[0], Many):
            return x
        try:
            return x.of_parts([x.run()])
        except DataDependentError:  # each of its elements stays a part of its own
            return x
    parts = parts_of(x) or []
    changed = [as_element(v) for v in parts]
    return x if all(a is b for a, b in zip(parts, changed, strict=True)) else rebuilt(x, changed)


def lists_differ(a: Any, b: Any) -> bool:
    """Whether two values are alike but for how many elements there are in lists inside of them."""
    if isinstance(a, TracedList) and isinstance(b, TracedList):
        unknown = not (a.known and b.known)
        return unknown or len(a) != len(b) or lists_differ(a.parts(), b.parts())
    if is_thing(a) and isinstance(b, TracedList):  # one of two lists, and what a round makes of it
        return all(isinstance(v, TracedList) for v in leaves_of(a)) and not any(v is b for v in leaves_of(a))
    if type(a) is not type(b) or kind_of(a) is not None:
        return False
    pairs = parts_of(a) or [], parts_of(b) or []
    return len(pairs[0]) == len(pairs[1]) and any(map(lists_differ, *pairs))


def of_empty_list() -> Many:
    """The run of one element that is an empty list."""
    like = TracedList([Many([Even(LEAF, Nothing)], LEAF)])
    return Many([Even(torch.zeros([1, 0], dtype=torch.int64), torch.Tensor)], like)


def here(_: int) -> AbstractContextManager[Any]:
    """All runs stand in the graph that is written."""
    return nullcontext()


def formed(runs: Sequence[Many], writing: Writing = here) -> list[Many]:
    """The runs with lists of several lengths in their elements as rows; `writing` says where a run stands."""
    if all(same_form(runs[0].like, r.like) for r in runs[1:]):
        return list(runs)
    counts = [lambda r=r: r.count for r in runs]
    forms, columns = _formed([r.like for r in runs], [r.columns for r in runs], counts, writing)
    return [Many(own, form) for own, form in zip(columns, forms, strict=True)]


def _formed(
    forms: list[Any],
    columns: list[list[Column]],
    counts: Sequence[Callable[[], Any]],
    writing: Writing,
) -> Formed:
    """The same of a part of the elements."""
    unlike = not all(same_form(forms[0], f) for f in forms[1:])
    if unlike and all(type(f) in (list, TracedList) for f in forms):
        made = _as_rows(forms, columns, counts, writing)
        if made is not None:
            return made
    parts = [None if f is LEAF or isinstance(f, Many) else parts_of(f) for f in forms]
    known = [p for p in parts if p is not None]
    alike = len({type(f) for f in forms}) == 1 and len({len(p) for p in known}) == 1
    if not unlike or len(known) < len(parts) or not alike:
        return forms, columns
    left = [list(own) for own in columns]
    new: list[list[Any]] = [[] for _ in forms]
    found: list[list[Column]] = [[] for _ in forms]
    for place in zip(*known, strict=True):
        own = [[rest.pop(0) for _ in leaves_in(f)] for f, rest in zip(place, left, strict=True)]
        for n, (form, its) in enumerate(zip(*_formed(list(place), own, counts, writing), strict=True)):
            new[n].append(form)
            found[n] += its
    return [rebuilt(f, n) for f, n in zip(forms, new, strict=True)], found


def _as_rows(
    forms: Sequence[Any],
    columns: Sequence[list[Column]],
    counts: Sequence[Callable[[], Any]],
    writing: Writing,
) -> Formed | None:
    """The lists of all runs as rows; None where their elements are not alike."""
    found: list[tuple[Many, list[Column]] | None] = []
    for n, (form, own) in enumerate(zip(forms, columns, strict=True)):
        parts = list(list.__iter__(form))
        if not parts or _is_of_nothing(parts):
            found.append(None)
            continue
        with writing(n):
            made = (parts[0], own) if _is_run(parts) else _stacked(parts, own)
        if made is None:
            return None
        found.append(made)
    some = next((f for f in found if f is not None), None)
    if some is None:
        return None
    inner, its = some
    for n, made in enumerate(found):
        if made is None:
            with writing(n):
                found[n] = inner, [_none_of(c, counts[n]()) for c in its]
    rows = [f for f in found if f is not None]
    return [TracedList([own]) for own, _ in rows], [its for _, its in rows]


def _is_run(parts: Sequence[Any]) -> bool:
    """Whether a list's elements are in one run already, in rows."""
    return (
        len(parts) == 1 and isinstance(parts[0], Many) and all(isinstance(c, Even) for c in parts[0].columns)
    )


def _is_of_nothing(parts: Sequence[Any]) -> bool:
    return _is_run(parts) and any(c.kind is Nothing for c in parts[0].columns)


def _stacked(parts: Sequence[Any], columns: Sequence[Column]) -> tuple[Many, list[Column]] | None:
    """A list of a known length as rows."""
    first, *others = parts
    leaves = len(leaves_in(first))
    plain = not any(isinstance(p, (Many, Perhaps)) for p in parts)
    if not plain or not leaves or not all(same_form(first, p) for p in others):
        return None
    made: list[Column] = []
    kinds: list[type] = []
    for n in range(leaves):
        same = [c for c in columns[n::leaves] if isinstance(c, Even)]
        if len(same) < len(parts) or not all(_is_of_one_shape(same[0], c) for c in same[1:]):
            return None
        rows = torch.stack([c.rows for c in same], 1)
        link_copy(recorder(), rows, [c.rows for c in same])
        if len({id(recorder().entry(c.rows).group) for c in same}) < len(same):
            link_within(recorder(), rows)
        made.append(Even(rows, torch.Tensor))
        kinds.append(same[0].kind)
    return Many([Even(LEAF, kind) for kind in kinds], first), made


def _is_of_one_shape(a: Even, b: Even) -> bool:
    if a.kind is not b.kind or a.rows.dtype != b.rows.dtype or a.rank != b.rank:
        return False
    same = recorder().same_size
    return all(same(m, n) for m, n in zip(a.rows.shape[1:], b.rows.shape[1:], strict=True))


def _none_of(column: Column, count: Any) -> Column:
    """As many empty lists, whose elements would be as those of a column."""
    if isinstance(column, Ragged):
        flat = column.flat.new_zeros([0, *column.flat.shape[1:]])
        return Ragged(flat, torch.zeros([count], dtype=torch.int64), column.axis)
    return Even(column.rows.new_zeros([count, 0, *column.rows.shape[2:]]), torch.Tensor)
