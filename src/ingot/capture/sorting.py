"""`sorted`, `list.sort` and `heapq.nlargest`: elements in the order of numbers that the run knows."""

# Elements may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks
from ingot.capture.choice import present
from ingot.capture.lists import TracedList
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.runs import LEAF, Many, stacked
from ingot.capture.scalars import DTYPE, Symbolic, counts_as, is_data, kind_of
from ingot.capture.sets import sorted_set
from ingot.capture.standins.sequences import list_, rows_of
from ingot.capture.standins.table import STANDINS
from ingot.capture.standins.values import tensor_of
from ingot.capture.structure import parts_of

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


def sorted_(rt: Runtime, items: Any, *, key: Any = None, reverse: Any = False) -> Any:
    """sorted(items)."""
    items = sorted_set(items)
    if rows_of(items) is not None:
        listed = list_(rt, items)
        return TracedList([listed.run().take(order_of(keys_of(rt, listed, key), reverse))])
    values = list(items)
    keys = values if key is None else [rt.call(key, v) for v in values]
    if not any(map(_waits, keys)):
        places = sorted(range(len(values)), key=lambda n: keys[n], reverse=reverse)
        return TracedList(values[n] for n in places)
    return TracedList(_picked(rt, values, _order(_columns(keys), reverse)))


def sort(rt: Runtime, items: list[Any], **options: Any) -> None:
    """items.sort()."""
    made = sorted_(rt, items, **options)
    list.__setitem__(items, slice(None), made.parts())


def largest(rt: Runtime, n: Any, iterable: Any, key: Any = None) -> Any:
    """heapq.nlargest(n, items)."""
    return rt.item(sorted_(rt, iterable, key=key, reverse=True), slice(None, n))


def smallest(rt: Runtime, n: Any, iterable: Any, key: Any = None) -> Any:
    """heapq.nsmallest(n, items)."""
    return rt.item(sorted_(rt, iterable, key=key), slice(None, n))


STANDINS[id(sorted)] = sorted_
STANDINS[id(heapq.nlargest)] = largest
STANDINS[id(heapq.nsmallest)] = smallest


def keys_of(rt: Runtime, items: TracedList, key: Any) -> TracedList:
    """The keys of as many elements as the run says."""
    return items if key is None else rt.list_of(items, lambda v: present(rt.call(key, v)), [])


def order_of(keys: TracedList, reverse: Any) -> torch.Tensor:
    """The places of elements in the order of their keys."""
    return _order(_columns(keys), reverse)


def _waits(key: Any) -> bool:
    """Whether only the run knows a key."""
    if isinstance(key, tuple):
        return any(map(_waits, key))
    return isinstance(key, (torch.Tensor, *Symbolic)) and is_data(recorder(), key)


def _columns(keys: TracedList | list[Any]) -> list[torch.Tensor]:
    """Numbers to sort by, the first ones first; each column of shape [elements]."""
    if isinstance(keys, TracedList) and not keys.known:
        run = keys.run()
        if not _is_of_numbers(run.like):
            cannot_wait("sorts by something else than numbers, or tuples of as many, as long as data says")
        if any(c.rank for c in run.columns):
            cannot_wait("sorts by tensors of several elements")
        return [stacked(run, n) for n in range(len(run.columns))]
    parts = list(keys)
    if all(isinstance(k, tuple) and len(k) == len(parts[0]) for k in parts):
        return [column for part in zip(*parts, strict=True) for column in _columns(list(part))]
    if all(isinstance(k, str) for k in parts):
        ranks = {word: n for n, word in enumerate(sorted(set(parts)))}
        return [torch.tensor([ranks[k] for k in parts])]
    if any(counts_as(k) is None or (isinstance(k, torch.Tensor) and k.numel() != 1) for k in parts):
        cannot_wait("sorts by keys that are no numbers, where data decides some of them")
    return [tensor_of([k.reshape(()) if isinstance(k, torch.Tensor) else k for k in parts], wide(parts))]


def _is_of_numbers(form: Any) -> bool:
    """Whether keys are numbers, or tuples or lists of as many."""
    if form is LEAF:
        return True
    return type(form) in (tuple, list, TracedList) and all(
        not isinstance(v, Many) and _is_of_numbers(v) for v in parts_of(form) or ()
    )


def wide(values: Sequence[Any]) -> torch.dtype | None:
    """The dtype of numbers beside tensors: one that has the values of all."""
    if all(isinstance(v, torch.Tensor) for v in values):
        return None
    floats = any(
        counts_as(v) is float or (isinstance(v, torch.Tensor) and v.is_floating_point()) for v in values
    )
    return torch.float64 if floats else torch.int64


def _order(columns: list[torch.Tensor], reverse: Any) -> torch.Tensor:
    """The places of elements in the order of their keys; equal ones stay in the order they are in.

    NaN beats nothing and nothing beats it: where Python leaves it hangs on how it sorts, and the model fails.
    """
    for column in columns:
        checks.require_no_nan(recorder(), column, "no NaN among what is sorted by")
    order: Any = None
    for column in reversed(columns):
        keys = column if column.dtype != torch.bool else column.to(torch.int64)
        there = keys if order is None else keys.index_select(0, order)
        found = torch.sort(there, dim=0, descending=bool(reverse), stable=True).indices
        order = found if order is None else order.index_select(0, found)
    return order


def _picked(rt: Runtime, values: list[Any], order: torch.Tensor) -> list[Any]:
    """Elements at the places that the run knows, as many as there are."""
    kinds = {kind_of(v) for v in values}
    if all(type(v) is tuple and len(v) == len(values[0]) for v in values):
        columns = [_picked(rt, list(part), order) for part in zip(*values, strict=True)]
        return list(zip(*columns, strict=True))
    if all(v is values[0] for v in values):
        return values
    if kinds == {torch.Tensor} and _are_alike(values):
        return list(torch.stack(values).index_select(0, order).unbind(0))
    (kind,) = kinds if len(kinds) == 1 else (None,)
    if kind in DTYPE:
        moved = tensor_of(values, DTYPE[kind]).index_select(0, order)
        return [moved.select(0, n).item() for n in range(len(values))]
    return [rt.item(values, order.select(0, n)) for n in range(len(values))]


def _are_alike(values: list[torch.Tensor]) -> bool:
    """Whether tensors can be rows of one."""
    first = values[0]
    return all(
        v.dtype == first.dtype
        and v.dim() == first.dim()
        and all(map(recorder().same_size, v.shape, first.shape))
        for v in values
    )
