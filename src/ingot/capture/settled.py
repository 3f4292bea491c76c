"""Numbers and tables that forward keeps, as sizes decide, which the next call finds as it wants them.

A window that is made smaller where the image is, a table of positions that grows with the longest text so
far: such state outlives the call, yet the call that made it and the next one give the same. Whether that is
so the module itself says: it is called twice in a row, at the example's sizes and at others; and where it
keeps more than numbers, at each of these after calls that left something else behind.
"""

# What a model holds may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ingot.capture.reach import NUMBERS
from ingot.capture.sample import LONGEST, drawn
from ingot.capture.state import ABSENT
from ingot.capture.warm import Begin, Calls, in_a_row, same
from ingot.capture.where import raise_if_ours

if TYPE_CHECKING:
    from ingot.capture.dims import DimTable
    from ingot.capture.run import Call
    from ingot.capture.state import StateSpec

_OTHERS = ((1, 2, 0), (2, 1, 0), (1, 1, 1), (3, 2, 1))  # times, over, plus: of all of the example's sizes
_APART = ((1, 2, 0), (3, 2, 1))  # of those alone that are alike
_GROWN = ((4, 1, 0), (16, 1, 0), (64, 1, 0))  # the same, of larger ones
_MOST = 1 << 20  # elements of inputs that are tried
_LARGE = 1 << 16  # elements of inputs for which a call of the module takes long
_ONE, _ALL = 2.5, 8  # times the example, where that is so: images of twice the width in a batch of two are 8

Row = list[Any]


def settle(call: Call, table: DimTable, states: Sequence[StateSpec]) -> bool:
    """Whether a second call gives what the first gave, and leaves these states as the first left them."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    alone: list[Row] = []  # what the module gives for each row when it begins with it
    for i, sizes in enumerate(_affordable(call, table)):
        row = _row(call, table, sizes, rng)
        try:
            calls = in_a_row(call, [row, row], {}, keep_batch_norm=False)
        except Exception as error:  # whatever the module's own Python says to other sizes
            raise_if_ours(error)
            if i == 0:
                return False
            continue
        first, second = calls.outputs
        if not _equal(first, second):
            return False
        labels = [s.label for s in states if s.label in calls.after[0]]
        if not all(same(calls.after[0][n], calls.after[1].get(n)) for n in labels):
            return False
        rows.append(row)
        alone.append(first)
    tables = {s.label: s.initial for s in states if not isinstance(s.initial, NUMBERS)}
    if not tables:
        return True
    try:
        return _same_after(call, table, tables, rows, alone, rng)
    except Exception as error:  # what the module says to one size after another
        raise_if_ours(error)
        return False


def _same_after(
    call: Call,
    table: DimTable,
    tables: Mapping[str, Any],
    rows: Sequence[Row],
    alone: Sequence[Row],
    rng: np.random.Generator,
) -> bool:
    """Whether the module gives for each row what it gives alone, whatever calls before it left behind."""
    left = _left(in_a_row(call, rows, {}, keep_batch_norm=False))
    larger = _changing(call, table, tables, left, rng)
    if not larger and not left.keys() & tables.keys():
        return False  # nothing that was tried shows what it does
    orders = [({}, range(len(rows))), *((x, range(len(rows))) for x in larger), ({}, range(len(rows))[::-1])]
    # Each by itself too: a smaller one may put back what the larger one has left.
    orders += [(x, [i]) for x in larger for i in range(len(rows))]
    for begin, order in orders:
        outputs = in_a_row(call, [rows[i] for i in order], begin, keep_batch_norm=False).outputs
        if not all(_equal(alone[i], x) for i, x in zip(order, outputs, strict=True)):
            return False
    return True


def _left(calls: Calls) -> dict[str, Begin]:
    """What the last of some calls left behind, for others to begin with."""
    found = {n: Begin(calls.places[n], calls.before.get(n), x) for n, x in calls.after[-1].items()}
    return {n: x for n, x in found.items() if x.value is not ABSENT}


def _equal(a: Row, b: Row) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def _changing(
    call: Call,
    table: DimTable,
    tables: Mapping[str, Any],
    left: Mapping[str, Begin],
    rng: np.random.Generator,
) -> list[dict[str, Begin]]:
    """What calls leave behind whose sizes are so large that they change one of the tables again after the
    calls that left `left`.
    """
    held = {**tables, **{n: x.value for n, x in left.items()}}
    lengths = {
        int(n) for label in tables for x in [held[label]] if isinstance(x, torch.Tensor) for n in x.shape
    }
    beyond = [(0, 1, n + 1) for n in sorted(lengths)]
    found: list[dict[str, Begin]] = []
    for scales in ([_GROWN[0]], beyond, *([scale] for scale in _GROWN[1:])):
        for names, scale in itertools.product(_alike(call, table), scales):
            sizes = _times(table, names, *scale)
            row = _row(call, table, sizes, rng)
            elements = sum(x.numel() for x in row if isinstance(x, torch.Tensor))
            if elements > _MOST or any(sizes[n] > LONGEST for n in names):
                continue
            try:
                after = _left(in_a_row(call, [row], left, keep_batch_norm=False))
            except Exception as error:  # whatever the module's own Python says to other sizes
                raise_if_ours(error)
                continue
            if not all(same(held[n], after[n].value) for n in tables if n in after):
                found.append(after)
        if found:
            break
    return found


def _affordable(call: Call, table: DimTable) -> Iterator[dict[str, int]]:
    """Sizes to try, each once, without those for which the module would run for long."""
    seen: list[dict[str, int]] = []
    unit = total = 0
    for sizes in _sizes(call, table):
        elements = sum(math.prod(d if isinstance(d, int) else sizes[d] for d in s.dims) for s in call.specs)
        unit = unit or max(elements, _LARGE)  # the example comes first
        if sizes not in seen and elements <= _ONE * unit and total + elements <= _ALL * unit:
            seen.append(sizes)
            total += elements
            yield sizes


def _sizes(call: Call, table: DimTable) -> Iterator[dict[str, int]]:
    """The example's sizes; then all of them smaller and larger, and those alone that are alike: many models
    have sizes of their own, which no other will do for.
    """
    yield dict(table.sizes)
    every = {*table.sizes} - table.of_state
    for scale in _OTHERS:
        yield _times(table, every, *scale)
    for names in _alike(call, table):
        if names != every:
            yield from (_times(table, names, *scale) for scale in _APART)


def _alike(call: Call, table: DimTable) -> list[set[str]]:
    """Dimensions that the example has of one size: the lengths of tokens and of their mask. Those of one axis
    by themselves too: a width may be as large as the length by chance.
    """
    groups: dict[tuple[int, ...], set[str]] = {}
    for spec in call.specs:
        for axis, name in enumerate(spec.dims):
            if isinstance(name, str):
                size = table.sizes[name]
                groups.setdefault((size,), set()).add(name)
                groups.setdefault((size, axis), set()).add(name)
    return [g for i, g in enumerate(groups.values()) if g not in [*groups.values()][:i]]


def _times(table: DimTable, names: set[str], times: int, over: int, plus: int) -> dict[str, int]:
    """The example's sizes with some of them changed, inside of their ranges."""
    sizes = dict(table.sizes)
    for name in names:
        low, high = table.ranges.get(name, (1, None))
        other = max(sizes[name] * times // over + plus, low, 1)
        sizes[name] = other if high is None else min(other, high)
    return sizes


def _row(call: Call, table: DimTable, sizes: dict[str, int], rng: np.random.Generator) -> Row:
    return [_input(spec, table, sizes, rng) for spec in call.specs]


def _input(spec: Any, table: DimTable, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    if spec.number is not None:
        return table.numbers[spec.name]
    if spec.example is not None and sizes == table.sizes:
        return spec.example
    return drawn(spec, sizes, rng)
