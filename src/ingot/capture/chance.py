"""Random numbers of Python's own, of which a recording would keep the draws of the one call that it saw; and
seeds, after which PyTorch's numbers are the same in every call.
"""

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
import torch

from ingot.capture.where import UNKNOWN, quoted, quoted_line, user_frame
from ingot.errors import ExportError

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
        yield lambda: found[0] if found else UNKNOWN
    finally:
        sys.setprofile(before)


class _Seeding:
    """Stands for torch's generator while a model is recorded: nothing is seeded, and who asks is noted."""

    def __init__(self, recorder: Recorder, generator: torch.Generator) -> None:
        self._recorder, self._generator = recorder, generator
        self._before: dict[int, tuple[Any, str | None]] = {}  # states that were asked for, by id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def manual_seed(self, seed: int) -> torch.Generator:
        """What draws from now on draws the same in every call."""
        del seed
        self._recorder.seeded = quoted_line()
        return self._generator

    def get_state(self) -> Any:
        """The state, by which `set_state` knows what was so before."""
        found = self._generator.get_state()
        self._before[id(found)] = found, self._recorder.seeded
        return found

    def set_state(self, state: Any) -> None:
        """As it was when the state was asked for, or a state of the model's own."""
        self._recorder.seeded = self._before.get(id(state), (state, quoted_line()))[1]

    def seed(self) -> int:
        """Another number each time."""
        raise ExportError(
            f"{quoted_line()}\nThis is another number in every call, and the export would keep one for ever. "
            "Take it out of forward, or pass the number in as an argument."
        )

    def initial_seed(self) -> int:
        """The process's own number."""
        number = self._generator.initial_seed()
        self._recorder.assume("constant", f"the seed of PyTorch's random numbers is {number}", "fixed")
        return number


@contextlib.contextmanager
def watched_seeds(recorder: Recorder) -> Generator[None]:
    """Note for the time of a recording where the model seeds PyTorch's random numbers, and seed nothing."""
    module: Any = torch.random
    generator = module.default_generator
    module.default_generator = _Seeding(recorder, generator)
    try:
        yield
    finally:
        module.default_generator = generator


def require_unseeded(recorder: Recorder, name: str) -> None:
    """Refuse to draw after a seed: the module gives the same numbers in every call."""
    if recorder.seeded is not None:
        raise ExportError(
            f"{recorder.seeded}\nforward seeds PyTorch's random numbers here and then draws some ({name}): "
            "the module gives the same in every call, which no random operator of ONNX does. Draw them once, "
            "outside of forward, and keep them in a buffer; or do not seed."
        )
