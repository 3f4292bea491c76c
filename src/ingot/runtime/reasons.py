"""Why a run failed, in the model's own words: a size outside of its declared range, or a check that does not
hold.

The first node that cannot go on may be one in the middle of the graph, which says so in words of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ingot.compiler.facts import failed_check
from ingot.compiler.index import Index
from ingot.errors import IngotError, InputError
from ingot.ops.registry import Array, Facts
from ingot.runtime.options import NodeArg

Ranges: TypeAlias = dict[str, tuple[int, int | None]]


def reason(ranges: str, index: Index, inputs: Sequence[NodeArg], feeds: Sequence[Any]) -> IngotError | None:
    """What to say of inputs with which a run has failed; None where the model itself says nothing of them.

    ranges: what the model's metadata has under `RANGES`
    """
    arrays: list[Array | None] = [a if isinstance(a, np.ndarray) else None for a in feeds]
    given = {v: Facts(a.dtype, a.shape) for v, a in zip(index.inputs, arrays, strict=True) if a is not None}
    return _outside(_read(ranges), inputs, arrays) or failed_check(index, given)


def _read(ranges: str) -> Ranges:
    """The range of each dimension that has one; none where somebody else has written the entry."""
    try:
        return {str(name): (int(low), high) for name, (low, high) in json.loads(ranges).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _outside(ranges: Ranges, inputs: Sequence[NodeArg], arrays: Sequence[Array | None]) -> InputError | None:
    """An input with a dimension that is outside of its range."""
    for arg, array in zip(inputs, arrays, strict=True):
        sizes = () if array is None else array.shape
        for axis, (name, size) in enumerate(zip(arg.shape, sizes, strict=False)):
            low, high = ranges.get(str(name), (0, None))
            if size < low or (high is not None and size > high):
                declared = f"at least {low}" if high is None else f"{low} to {high}"
                return InputError(
                    f"input {arg.name!r} has shape {list(sizes)}: dimension {axis}, {name!r}, is {size}, and "
                    f"the model was exported for {declared}. Give inputs of such sizes, or export the model "
                    "with another range."
                )
    return None
