"""`container[index]`, and what else is looked up by a number that only the run knows."""

# Arguments are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks, keyed, memos, scalars
from ingot.capture.choice import Maybe, present
from ingot.capture.forms import Differ
from ingot.capture.lists import Layers, Rows, TracedList, is_called_in_order, sliced
from ingot.capture.objects import is_a
from ingot.capture.request import cannot_wait, recorder
from ingot.capture.scalars import Symbolic, depends_on_data
from ingot.capture.standins.numbers import int_
from ingot.capture.standins.values import is_symbolic, number_in
from ingot.capture.structure import inside, parts_of, undecided
from ingot.capture.words import Word

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime


def item(rt: Runtime, container: Any, index: Any) -> Any:
    """container[index]."""
    container = present(container)
    plain = is_a(container, (list, tuple, dict, torch.nn.ModuleList, torch.nn.Sequential))
    thing: Any = container
    if is_a(index, slice):
        index = slice(*(number_in(p, int) for p in (index.start, index.stop, index.step)))
    elif is_a(index, tuple):
        index = tuple(
            slice(*(number_in(p, int) for p in (i.start, i.stop, i.step))) if is_a(i, slice) else i
            for i in index
        )
    if is_a(container, Rows):
        return container[number_in(index, int)]
    if is_a(container, TracedList) and not container.known and not is_a(index, slice):
        return container.element(number_in(index, int))
    if plain and is_a(index, slice) and is_symbolic(index.start, index.stop, index.step):
        require_alike(index.start, index.stop, index.step)
        chained = is_a(container, torch.nn.Sequential)
        if chained and not is_called_in_order(type(container)):
            what = f"takes a slice of a {type(container).__name__}, a Sequential with methods of its own,"
            cannot_wait(f"{what} at a place that data or a size decides")
        found = sliced(container, index)
        return Layers(found.parts()) if chained else found
    keyed = is_a(container, dict) and _is_composed(index)
    if not keyed and (not plain or is_a(index, (slice, tuple)) or not is_symbolic(index)):
        return thing[index]
    if memos.takes(container, index):
        found, value = memos.look(container, index)
        if not found:
            raise KeyError(index)
        return value
    return _switch(rt, container, number_in(index))


def put(rt: Runtime, container: Any, index: Any, value: Any) -> None:
    """container[index] = value: at a key or place that the run knows, which is there, as the model checks."""
    container = present(container)
    if is_a(container, list) and is_a(index, torch.Tensor) and is_symbolic(index):
        index = number_in(index, int)
    if not (type(container) in keyed.KINDS and (is_symbolic(index) or _is_composed(index))):
        container[index] = value
        return
    key = number_in(index)
    if memos.takes(container, key):
        memos.put(container, key, value)
    elif rt.contains(list(container), key) is False and not _is_of_data(key):
        memos.require_empty(container, key)
        container[key] = value  # a size may be a key of its own
    else:
        keyed.put(rt, container, key, value)


def require_alike(*numbers: Any) -> None:
    """One of Python's own values is about to be chosen by a number: by that of a round, which Python would
    know, it is another one each time.

    Raises:
        Differ: it is that of a round.
    """
    g = recorder()
    symbols = [g.env.expr(v).free_symbols for v in numbers if g.turns and is_a(v, Symbolic)]
    if not g.turns.isdisjoint(set[Any]().union(*symbols)):
        raise Differ


def _is_of_data(key: Any) -> bool:
    """Whether data decides a key, or a part of it, and none of them may be None, which no dict looks up."""
    g, parts = recorder(), list(inside(key))
    if any(is_a(v, Maybe) for v in parts):
        return False
    return any(is_a(v, Symbolic) and depends_on_data(g, g.env.expr(v)) for v in parts)


def _is_composed(key: Any) -> bool:
    """Whether a key of a dict is made of several values, of which the run knows one."""
    parts = parts_of(key)
    return parts is not None and not is_a(key, Word) and undecided(key)


def _switch(rt: Runtime, container: Any, index: Any) -> Any:
    """One of a few values by a number that the run knows."""
    require_alike(index)
    if is_a(container, Counter):
        return looked_up(rt, list(container.items()), index, 0)
    if is_a(container, dict):
        keyed.require_there(rt, container, index)
        pairs = list(container.items())
        return looked_up(rt, pairs[:-1], index, pairs[-1][1])
    values = list(container)
    index = int_(rt, index)
    index = rt.choose(index < 0, lambda: index + len(values), lambda: index)
    pairs = list(enumerate(values))
    checks.require_place(index, len(values), "the list")
    rt.check(rt.contains(range(len(values)), index), None)
    return looked_up(rt, pairs[:-1], index, pairs[-1][1])


def is_lookup(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call has one argument alone, a number that only the run knows."""
    return len(args) == 1 and not kwargs and is_symbolic(args[0])


def member(rt: Runtime, kind: enum.EnumType, value: Any) -> Any:
    """kind(value): the member of an enum that has a value that only the run knows."""
    missing: Any = getattr(kind, "_missing_", None)
    if issubclass(kind, enum.Flag) or missing.__func__ is not enum.Enum._missing_.__func__:
        what = "a number that data or a size decides, which may be more than its members"
        cannot_wait(f"makes {kind.__name__} of {what}")
    members: Any = list(kind)
    return _switch(rt, {m.value: m for m in members}, number_in(value))


def looked_up(rt: Runtime, pairs: list[tuple[Any, Any]], key: Any, otherwise: Any) -> Any:
    """The value that stands beside a key, or else something."""
    if is_a(key, torch.SymBool):
        known = dict(p for p in pairs if is_a(p[0], bool))
        if len(known) == 2:
            return rt.choose(key, lambda: known[True], lambda: known[False])
    found = otherwise
    for k, value in reversed(pairs):
        if scalars.counts_as(k) is not None or parts_of(k) is not None:
            found = rt.choose(rt.equal(key, k), lambda v=value: v, lambda f=found: f)
    return found
