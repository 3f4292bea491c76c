"""Python's own random numbers: a recording would keep the draws of the one call that it saw."""

# Frames and NumPy's generators are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.capture.where import quoted, user_frame

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

_LARGE = 1 << 16  # bytes of a constant that are not compared: weights are the same memory


def drawn() -> tuple[Any, Any]:
    """Where `random` and `numpy.random` are in their sequences."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, np.asarray(keys).tobytes(), *rest)


def written(recorder: Recorder) -> list[str]:
    """What a recording wrote, for comparison with another: nodes, and the contents of small constants."""
    nodes = [str(node) for node in recorder.graph.nodes]
    arrays = [
        f"{name} {array.tobytes().hex()}"
        for name, value in recorder.graph.initializers.items()
        if value.const_value is not None and (array := value.const_value.numpy()).nbytes <= _LARGE
    ]
    return [*nodes, *arrays]


@contextlib.contextmanager
def watching() -> Generator[Callable[[], str]]:
    """Tell afterwards at which line of the user's something was drawn."""
    found: list[str] = []

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event != "c_call" or found:
            return
        owner = getattr(argument, "__self__", None)
        if isinstance(owner, (random.Random, np.random.RandomState)):
            at = user_frame(frame)
            while at is not None and at.f_code.co_filename == random.__file__:
                at = user_frame(at.f_back) if at.f_back is not None else None
            found.append(quoted(at))

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield lambda: found[0] if found else "<unknown>"
    finally:
        sys.setprofile(before)
