"""`max`, `min`, `sum`, `any` and `all` of numbers that only the run knows, or of as many as it says."""

# Arguments are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, ItemsView, KeysView, ValuesView
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import endless, scalars, sorting
from ingot.capture.checks import of_empty
from ingot.capture.lists import Rows, TracedList
from ingot.capture.objects import is_a
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.runs import LEAF
from ingot.capture.scalars import depends_on_data, is_data
from ingot.capture.sets import sorted_set
from ingot.capture.standins.sequences import list_, rows_of
from ingot.capture.standins.table import STANDINS, stands_for
from ingot.capture.standins.values import is_symbolic, number_in
from ingot.capture.where import quoted_line

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


_IN_ORDER = (list, tuple, dict, KeysView, ItemsView, ValuesView)


def _extreme(name: str, plain: Callable[..., Any], two: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def standin(rt: Runtime, *args: Any, **kwargs: Any) -> Any:
        values: Any = sorted_set(args[0]) if len(args) == 1 else args
        args = (values,) if len(args) == 1 else args
        if isinstance(values, Rows) or (isinstance(values, torch.Tensor) and "key" in kwargs):
            values = list_(rt, values)
            args = (values,)
        grown = isinstance(values, TracedList) and not values.known
        if grown and kwargs.keys() == {"key"}:
            rows: Any = values
            by = sorting.keys_of(rt, rows, kwargs["key"])
            if is_a(by, TracedList) and not by.known and by.run().like is not LEAF:  # several numbers
                order = sorting.order_of(by, name == "max")
                return list_(rt, values).element(order.select(0, 0).item())
            keys = by.rows()[0]
            if keys.dim() > 1:
                cannot_wait("compares tensors of several elements")
            listed: Any = values
            return listed.element(best_of(keys, name).item())
        if grown and kwargs.keys() == {"default"}:
            listed: Any = values
            return rt.choose(listed.count() > 0, lambda: standin(rt, values), lambda: kwargs["default"])
        if kwargs.keys() == {"key"} and isinstance(values, _IN_ORDER) and not grown and values:
            return _best_by(rt, list(values), kwargs["key"], name)
        if kwargs or isinstance(values, (str, dict)):
            return plain(*args, **kwargs)
        if isinstance(values, TracedList) and not values.known:
            rows, kind = values.rows()
            found = getattr(rows, name)(0).values if rows.dim() > 1 else rows[best_of(rows, name)]
            return found if kind is torch.Tensor else found.item()
        if isinstance(values, torch.Tensor):
            return (
                values[best_of(values, name)] if values.dim() == 1 and is_symbolic(values) else plain(*args)
            )
        values = list(values)
        if not values or not is_symbolic(*values):
            return plain(values)
        best = values[0]
        for v in values[1:]:
            if isinstance(best, torch.Tensor) and isinstance(v, torch.Tensor) and best.dtype == v.dtype:
                # Python keeps the first unless the next one beats it; NaN beats nothing.
                best = torch.where(v > best if name == "max" else v < best, v, best)
            elif isinstance(best, torch.Tensor) or isinstance(v, torch.Tensor):
                best = rt.choose(v > best if name == "max" else v < best, lambda v=v: v, lambda b=best: b)
            else:
                best = two(best, v)
        return best

    return standin


def best_of(keys: torch.Tensor, name: str) -> torch.Tensor:
    """The place of the first largest ("max") or smallest of some numbers: NaN beats none, and none beats a
    NaN that comes first.
    """
    if not keys.is_floating_point():
        return getattr(keys.to(torch.int64) if keys.dtype == torch.bool else keys, f"arg{name}")()
    lost = torch.isnan(keys)
    least = keys.masked_fill(lost, -math.inf if name == "max" else math.inf)
    return getattr(least, f"arg{name}")().masked_fill(lost[0], 0)


def _best_by(rt: Runtime, values: list[Any], key: Any, name: str) -> Any:
    """max or min of values by a key: the first one that no other beats."""
    best, height = values[0], number_in(rt.call(key, values[0]))
    for v in values[1:]:
        other = number_in(rt.call(key, v))
        beats = other > height if name == "max" else other < height
        best, height = rt.choose(beats, lambda v=v, n=other: (v, n), lambda b=best, h=height: (b, h))
    return best


def _of_two(name: str, plain: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """One of two numbers, the first of which stays unless the second beats it: NaN beats none."""

    def two(best: Any, v: Any) -> Any:
        g = recorder()
        beats: Any = v > best if name == "max" else v < best
        known = beats if isinstance(beats, bool) else g.env.known(g.env.expr(beats))
        if known is not None:
            return v if known else best
        kinds = scalars.kinds_of(g, best) or scalars.kinds_of(g, v)
        found = sorted({k.__name__ for k in map(scalars.counts_as, (best, v)) if k is not None})
        if len(found) > 1:
            kinds = kinds or f"{' or '.join(found)}, as {quoted_line()} decides"
        if not any(isinstance(x, torch.SymFloat) and depends_on_data(g, g.env.expr(x)) for x in (best, v)):
            return scalars.note_kinds(g, plain(best, v), kinds)
        kept, other = (scalars.as_tensor(g, x, torch.float64) for x in (best, v))
        made = torch.where(other > kept if name == "max" else other < kept, other, kept).item()
        return scalars.note_kinds(g, made, kinds)

    return two


STANDINS[id(max)] = _extreme("max", max, _of_two("max", torch.sym_max))
STANDINS[id(min)] = _extreme("min", min, _of_two("min", torch.sym_min))


@stands_for(sum)
def sum_(rt: Runtime, items: Any, start: Any = 0) -> Any:
    """sum(items, start)."""
    if isinstance(items, TracedList) and not items.known:
        rows, kind = items.rows()
        if kind is int:
            endless.require_sum_fits(recorder(), rows)
        elif items.may_be_empty:
            of_empty(rows.shape[0], "`sum` gives the number 0", "zeros of what the elements are")
        total = _summed(rows)
        return start + (total if kind is torch.Tensor else total.item())
    if isinstance(items, torch.Tensor) and rows_of(items) is not None:
        of_empty(items.shape[0], "`sum` gives the number 0", "zeros of what the elements are")
        return start + _summed(items)
    if isinstance(items, Rows):
        return sum_(rt, rt.list_of(items, lambda v: v, []), start)
    values = list(items)
    if all(type(v) in (int, float) for v in (start, *values)):
        return sum(values, start)  # which rounds floats in a way of its own from Python 3.12 on
    return functools.reduce(operator.add, values, start)


def _summed(rows: torch.Tensor) -> torch.Tensor:
    """The sum of rows, in their own dtype, as `+` gives it; of conditions, their number."""
    total = rows.sum(0)
    return total if rows.dtype == torch.bool else total.to(rows.dtype)


@stands_for(any)
def any_(rt: Runtime, items: Any) -> Any:
    """any(items)."""
    return _quantified(rt, items, "any")


@stands_for(all)
def all_(rt: Runtime, items: Any) -> Any:
    """all(items)."""
    return _quantified(rt, items, "all")


def _quantified(rt: Runtime, items: Any, name: str) -> Any:
    from ingot.capture.early import joined

    if isinstance(items, Rows):
        items = rt.list_of(items, lambda v: v, [])
    if isinstance(items, TracedList) and not items.known:
        items = items.rows()[0]
    if isinstance(items, torch.Tensor) and (rows_of(items) is not None or is_data(recorder(), items)):
        return rt.truth(getattr(items.to(torch.bool), name)())
    return joined(rt, items, rt.truth, name == "any")
