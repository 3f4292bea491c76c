"""Arrays of NumPy's that tensors become: in Python they share the tensor's memory, in a recording they have
their own. What is written into one is refused where the tensor is read afterwards, or outlives the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ingot.capture.where import quoted_line
from ingot.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ingot.capture.entries import Entry
    from ingot.capture.record import Recorder


@dataclass(frozen=True)
class Shown:
    """An array that the model was given for a tensor, and what was in it."""

    array: npt.NDArray[Any]
    contents: bytes
    where: str


def show(g: Recorder, e: Entry, array: Any) -> None:
    """The model gets an array of a tensor's memory."""
    if isinstance(array, np.ndarray):
        given = cast("npt.NDArray[Any]", array)
        e.group.shown += (Shown(given, given.tobytes(), quoted_line()),)
        if not e.group.owned:
            g.shown += e.group.shown[-1:]


def require_unchanged(shown: Iterable[Shown]) -> None:
    """Raises ExportError where something was written into one of these arrays."""
    for one in shown:
        if one.array.tobytes() != one.contents:
            raise ExportError(
                f"{one.where}\nThis array shares the tensor's memory, and forward writes into it: the tensor "
                "changes with it, which no recording of operators sees. Write into the tensor itself "
                "(`t[:] = …`), or into a copy (`t.numpy().copy()`)."
            )
