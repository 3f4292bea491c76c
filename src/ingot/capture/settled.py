"""Numbers and tables that forward keeps, as sizes decide, which the next call finds as it wants them.

A window that is made smaller where the image is, a table of positions that grows with the longest text so
far: such state outlives the call, yet the call that made it and the next one give the same. Whether that is
so the module itself says: it is called twice in a row, at the example's sizes and at others; and where it
keeps more than numbers, at all of these again after a call that left a larger one behind.
"""

# What a model holds may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ingot.capture.reach import NUMBERS
from ingot.capture.sample import drawn
from ingot.capture.warm import in_a_row, same
from ingot.capture.where import raise_if_ours

if TYPE_CHECKING:
    from ingot.capture.dims import DimTable
    from ingot.capture.run import Call
    from ingot.capture.state import StateSpec

_OTHERS = ((1, 2, 0), (2, 1, 0), (1, 1, 1), (3, 2, 1))  # times, over, plus: of the example's sizes
_GROWN = (4, 16, 64)  # times one of the example's sizes
_MOST = 1 << 20  # elements of inputs that are tried


def settle(call: Call, table: DimTable, states: Sequence[StateSpec]) -> bool:
    """Whether a second call gives what the first gave, and leaves these states as the first left them."""
    rng = np.random.default_rng(0)
    rows: list[list[Any]] = []
    alone: list[list[Any]] = []  # what the module gives for each row when it begins with it
    for i, sizes in enumerate(_sizes(table)):
        row = [_input(spec, table, sizes, rng) for spec in call.specs]
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
    tables = {s.label for s in states if not isinstance(s.initial, NUMBERS)}
    if not tables:
        return True
    larger = _changing(call, table, tables, rng)
    try:
        calls = in_a_row(call, [*larger, *rows], {}, keep_batch_norm=False)
    except Exception as error:  # what the module says to one size after another
        raise_if_ours(error)
        return False
    return all(map(_equal, alone, calls.outputs[len(larger) :]))


def _equal(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(same, a, b))


def _changing(call: Call, table: DimTable, labels: set[str], rng: np.random.Generator) -> list[list[Any]]:
    """A call whose sizes are so large that it changes one of these, or none."""
    for times in _GROWN:
        for grown in table.sizes:
            sizes = {n: size * times if n == grown else size for n, size in table.sizes.items()}
            if any(sizes[n] > high for n, (_, high) in table.ranges.items() if n in sizes and high):
                continue
            row = [_input(spec, table, sizes, rng) for spec in call.specs]
            if sum(x.numel() for x in row if isinstance(x, torch.Tensor)) > _MOST:
                continue
            try:
                calls = in_a_row(call, [row], {}, keep_batch_norm=False)
            except Exception as error:  # whatever the module's own Python says to other sizes
                raise_if_ours(error)
                continue
            if labels & calls.after[0].keys():
                return [row]
    return []


def _sizes(table: DimTable) -> Iterator[dict[str, int]]:
    """The example's sizes, then all of them smaller and larger."""
    yield dict(table.sizes)
    for times, over, plus in _OTHERS:
        sizes: dict[str, int] = {}
        for name, n in table.sizes.items():
            low, high = table.ranges.get(name, (1, None))
            other = max(n * times // over + plus, low, 1)
            sizes[name] = other if high is None else min(other, high)
        yield sizes


def _input(spec: Any, table: DimTable, sizes: dict[str, int], rng: np.random.Generator) -> Any:
    if spec.number is not None:
        return table.numbers[spec.name]
    if spec.example is not None and sizes == table.sizes:
        return spec.example
    return drawn(spec, sizes, rng)
