"""Numbers that forward keeps, as sizes decide, which the next call with such sizes finds as it wants them.

A window that is made smaller where the image is: such a number outlives the call, yet the call that made it
and the next one give the same. Whether that is so the module itself says: it is called twice in a row, at the
example's sizes and at others.
"""

# What a model holds may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.capture.sample import drawn
from ingot.capture.warm import in_a_row, same
from ingot.capture.where import raise_if_ours

if TYPE_CHECKING:
    from ingot.capture.dims import DimTable
    from ingot.capture.run import Call
    from ingot.capture.state import StateSpec

_OTHERS = ((1, 2, 0), (2, 1, 0), (1, 1, 1), (3, 2, 1))  # times, over, plus: of the example's sizes


def settle(call: Call, table: DimTable, states: Sequence[StateSpec]) -> bool:
    """Whether a second call gives what the first gave, and leaves these states as the first left them."""
    rng = np.random.default_rng(0)
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
        if len(first) != len(second) or not all(map(same, first, second)):
            return False
        labels = [s.label for s in states if s.label in calls.after[0]]
        if not all(same(calls.after[0][n], calls.after[1].get(n)) for n in labels):
            return False
    return True


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
