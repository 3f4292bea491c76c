"""Numbers that Python would know in each round of a Loop, from that of the round.

Python's whole numbers have no end, the graph's have 64 bits: rounds in which one may be beyond are no Loop.
"""

# SymPy and torch's ranges of values are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from ingot.capture.forms import Differ
from ingot.capture.one_of import OneOf
from ingot.capture.scalars import Symbolic

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1

Numbers = Mapping[Any, Any]  # those that rounds give each other, by their places


def begin(g: Recorder, turn: Any, trips: int, starts: Numbers, given: Numbers) -> None:
    """A round is about to be recorded, of `trips` that Python knows: what comes in is taken for Python's own
    until data turns out to decide it.
    """
    g.turns.add(turn)
    g.counted[turn] = ValueRanges(0, trips - 1)
    for key, number in given.items():
        if is_known(g, starts.get(key, 0)):
            g.counted.update(dict.fromkeys(g.env.expr(number).free_symbols))


def require_bounded(
    g: Recorder, trips: int, starts: Numbers, given: Numbers, left: Numbers, made: Sequence[Any]
) -> None:
    """Whole numbers of Python's have 64 bits in every round.

    left: what a round leaves in the places of what it was given
    made: formulas that it computes in the graph

    Raises:
        Differ: they may have more.
    """
    places = {s: key for key, number in given.items() for s in g.env.expr(number).free_symbols}
    after = {s: g.env.expr(left[key]) for s, key in places.items() if s in g.counted}
    while data := [s for s, e in after.items() if not _bases(g, e) <= g.counted.keys()]:
        for s in data:
            del after[s], g.counted[s]
    whole = {s: e for s, e in after.items() if isinstance(given[places[s]], torch.SymInt)}
    while whole:
        ranges = {s: _carried(g, s, starts.get(places[s], 0), e, trips) for s, e in whole.items()}
        found = {s: r for s, r in ranges.items() if r is not None}
        if not found:
            raise Differ
        g.counted.update(found)
        whole = {s: e for s, e in whole.items() if s not in found}
    for e in made:
        parts = [a for a in (e.args if isinstance(e, (sympy.Add, sympy.Mul)) else (e,)) if is_known(g, a)]
        known = e.func(*parts) if len(parts) > 1 else parts[0] if parts else sympy.S.Zero
        if _is_whole(known) and not known.is_Symbol and _is_said(g, known) and _bound(g, known) is None:
            raise Differ


def end(g: Recorder, given: Numbers, results: Numbers) -> None:
    """What the last round leaves is known to a loop around: no data ends this one before."""
    for key, number in results.items():
        inner = [s for s in g.env.expr(given[key]).free_symbols if s in g.counted]
        if inner:
            g.counted.update(dict.fromkeys(g.env.expr(number).free_symbols, g.counted[inner[0]]))


def is_known(g: Recorder, value: Any) -> bool:
    """Whether Python would know a number, a condition or a formula if the rounds were written out."""
    return _bases(g, g.env.expr(value)) <= g.counted.keys()


def _bases(g: Recorder, e: Any) -> set[Any]:
    """The symbols that decide a formula in the end."""
    found: set[Any] = set()
    bases: set[Any] = set()
    todo = list(e.free_symbols)
    while todo:
        symbol = todo.pop()
        if symbol in found:
            continue
        found.add(symbol)
        made_of = g.merged.get(symbol)
        if made_of is None and symbol in g.env.definitions:
            made_of = (g.env.definitions[symbol],)
        if made_of is None:
            bases.add(symbol)
        else:
            todo += [s for part in made_of for s in part.free_symbols]
    return bases


def _is_said(g: Recorder, e: Any) -> bool:
    """Whether no loop around has still to say the range of a whole number."""
    return not any(s.is_integer and _of_symbol(g, s) is None for s in _bases(g, e))


def _is_whole(e: Any) -> bool:
    return isinstance(e, sympy.Expr) and bool(e.is_integer)


def _carried(g: Recorder, symbol: Any, start: Any, after: Any, trips: int) -> Any:
    """The range of a number that rounds give each other; None where it may be beyond, or is not known yet."""
    if isinstance(start, Symbolic):
        return None
    if symbol not in _bases(g, after):
        return _either([ValueRanges.wrap(int(start)), _bound(g, after)])
    step = _step(g, after, symbol)
    if step is None:
        return None
    found = ValueRanges(start + min(0, step.lower) * trips, start + max(0, step.upper) * trips)
    return found if _fits(found) else None


def _step(g: Recorder, after: Any, symbol: Any) -> Any:
    """How far a round takes a number, as a range."""
    if after in g.merged:
        _, *sides = g.merged[after]
        return _either([_step(g, side, symbol) for side in sides])
    return _bound(g, after - symbol)


def _bound(g: Recorder, e: Any) -> Any:
    """The range of a formula; None where it is not known to have 64 bits."""
    e = g.env.expand(e)
    ranges = {s: _of_symbol(g, s) for s in e.free_symbols}
    if None in ranges.values() or e.has(OneOf):
        return None
    try:
        found = bound_sympy(e, ranges)
    except (NotImplementedError, KeyError, AttributeError, AssertionError):  # a function without bounds
        return None
    return found if _fits(found) else None


def _of_symbol(g: Recorder, symbol: Any) -> Any:
    if symbol in g.env.truths:
        return ValueRanges(0, 1)
    if symbol in g.merged:
        _, *sides = g.merged[symbol]
        return _either([_bound(g, side) for side in sides])
    return g.counted.get(symbol)


def _either(ranges: Sequence[Any]) -> Any:
    first, second = ranges
    return None if first is None or second is None else first | second


def _fits(found: Any) -> bool:
    return bool(found.lower >= _LOWEST) and bool(found.upper <= _HIGHEST)
