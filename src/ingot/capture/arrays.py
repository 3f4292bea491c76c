"""Arrays of NumPy's that tensors become, or are made of: in Python they share the tensor's memory, in a
recording they have their own. What is written into one is refused where the tensor is read afterwards, or
outlives the call; what is written into the tensor, where the model still has the array.
"""

# Frames are where the model keeps its arrays.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ingot.capture.where import frames, is_user_code, quoted_line
from ingot.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from ingot.capture.entries import Entry
    from ingot.capture.record import Recorder


@dataclass(frozen=True)
class Shown:
    """An array that the model was given for a tensor, or made one of, and what was in it."""

    array: npt.NDArray[Any]
    contents: bytes
    where: str
    of_model: bool = False  # `array` is a view of the model's own

    def is_alive(self) -> bool:
        """Whether the model may look into it. What it made a tensor of is looked for in the variables of its
        functions that run, and in attributes of what these hold.
        """
        if not self.of_model:
            return sys.getrefcount(self.array) > 2  # ours, and that of the call
        held: list[Any] = [
            value
            for frame in frames(sys._getframe(1))
            if is_user_code(frame.f_code)
            for local in frame.f_locals.values()
            for value in (local, *_attributes(local).values())
        ]
        arrays = (cast("npt.NDArray[Any]", value) for value in held if isinstance(value, np.ndarray))
        return any(np.may_share_memory(array, self.array) for array in arrays)


def _attributes(thing: Any) -> dict[str, Any]:
    """What an object holds, without the Python of its class."""
    try:
        return dict(object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}


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
