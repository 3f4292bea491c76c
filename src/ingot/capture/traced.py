"""What a model asks about being traced.

A library may go another way where a tensor is one of those without contents: `transformers` builds masks
that it would leave away for a mask of ones. Mostly that is the same function, with fewer branches on data, so
that it is told the truth first; where verification finds that it is another one, the model is recorded as it
runs otherwise.
"""

# Frames are what this file is about.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from ingot.capture.where import is_user_code, quoted_line

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


@contextlib.contextmanager
def watched_questions(recorder: Recorder) -> Generator[None]:
    """Note the lines of the model's that ask whether a tensor is a `torch._subclasses.FakeTensor`; the answer
    is no where it is recorded as it runs untraced.
    """
    package: Any = torch._subclasses
    package.FakeTensor = _Asked("FakeTensor", (), {"recorder": recorder})
    try:
        yield
    finally:
        package.FakeTensor = FakeTensor


class _Asked(type):
    """Stands for the class where code gets it from torch's package."""

    recorder: Recorder

    def __instancecheck__(cls, instance: Any) -> bool:
        found = isinstance(instance, FakeTensor)
        if not found or not is_user_code(sys._getframe(1).f_code):
            return found
        cls.recorder.asked_traced.append(quoted_line())
        return not cls.recorder.untraced

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, FakeTensor)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is FakeTensor

    def __hash__(cls) -> int:
        return hash(FakeTensor)

    def __getattr__(cls, name: str) -> Any:
        return getattr(FakeTensor, name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return FakeTensor(*args, **kwargs)
