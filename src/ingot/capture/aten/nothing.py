"""Operators that PyTorch refuses to apply to no elements, of which none is the largest: so does the model."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks
from ingot.capture.request import ACTIVE

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


def require_some(g: Recorder, a: torch.Tensor, axes: Sequence[int] | None, name: str) -> None:
    """The run fails where one of these axes (None: all) has no elements, unless all are known to have."""
    if g.of_nothing:
        return
    for axis in range(a.dim()) if axes is None else axes:
        size: Any = a.shape[axis]
        if isinstance(size, int):
            continue  # torch has looked at it
        checks.insist(g, size > 0, f"torch.{name} would refuse an axis without elements here")


@contextlib.contextmanager
def of_nothing_too() -> Generator[None]:
    """Of no elements these are what ONNX makes of them, for rows that do not look at it then."""
    g = ACTIVE.recorder
    if g is not None:
        g.of_nothing += 1
    try:
        yield
    finally:
        if g is not None:
            g.of_nothing -= 1
