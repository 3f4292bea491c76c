"""Arrays of NumPy's that tensors become, or are made of: in Python they share the tensor's memory, in a
recording they have their own. What is written into one is refused where the tensor is read afterwards, or
outlives the call; what is written into the tensor, where the model still has the array.
"""

from __future__ import annotations

import sys
from array import array as array_of_numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ingot.capture.held import reachable
from ingot.capture.objects import is_a
from ingot.capture.where import quoted_line
from ingot.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from ingot.capture.entries import Entry
    from ingot.capture.record import Recorder


@dataclass(eq=False)
class Shown:
    """An array that the model was given for a tensor, or made one of, and what was in it."""

    array: npt.NDArray[Any]
    contents: bytes
    where: str
    of_model: bool = False  # `array` is a view of the model's own
    lost: bool = False  # nothing of the model's holds its memory any more, and so nothing ever will

    def is_alive(self) -> bool:
        """Whether the model may look into it. What it made a tensor of is looked for wherever it may be."""
        if not self.of_model:
            return sys.getrefcount(self.array) > 2  # ours, and that of the call
        self.lost = self.lost or not any(_shares(thing, self.array) for thing in reachable())
        return not self.lost


def _shares(thing: Any, array: npt.NDArray[Any]) -> bool:
    if is_a(thing, np.ndarray):
        return np.may_share_memory(thing, array)
    if is_a(thing, (bytearray, memoryview, array_of_numbers)):
        return np.may_share_memory(np.asarray(memoryview(cast("bytearray", thing))), array)
    return False


def show(g: Recorder, e: Entry, array: Any) -> None:
    """The model gets an array of a tensor's memory."""
    if isinstance(array, np.ndarray):
        given = cast("npt.NDArray[Any]", array)
        e.group.shown += (Shown(given, given.tobytes(), quoted_line()),)
        if not e.group.owned:
            g.shown += e.group.shown[-1:]


def made_of_array(g: Recorder, e: Entry, tensor: torch.Tensor) -> None:
    """The model makes a tensor, with its contents; of an array, where its memory is another's."""
    if tensor.is_cpu and not tensor.untyped_storage().resizable():
        with g.pause():  # `numpy` is the model's way to an array, which has memory of its own
            array: npt.NDArray[Any] = tensor.detach().numpy()
        e.group.shown += (Shown(array, array.tobytes(), quoted_line(), of_model=True),)


def require_unchanged(shown: Iterable[Shown]) -> None:
    """Raises ExportError where something was written into one of these arrays."""
    for one in shown:
        if one.array.tobytes() != one.contents:
            raise ExportError(
                f"{one.where}\nThis array shares the tensor's memory, and forward writes into it: the tensor "
                "changes with it, which no recording of operators sees. Write into the tensor itself "
                "(`t[:] = …`), or into a copy (`t.numpy().copy()`)."
            )


def require_unseen(shown: Iterable[Shown]) -> None:
    """Raises ExportError where a tensor is written into that the model has an array of."""
    for one in shown:
        if one.is_alive():
            raise ExportError(
                f"{quoted_line()}\nThis writes into a tensor that shares its memory with an array:\n"
                f"{one.where}\nThe array changes with it, which no recording of operators sees. Take a "
                "copy of one of them there (`t.numpy().copy()`, `torch.from_numpy(a).clone()`)."
            )
