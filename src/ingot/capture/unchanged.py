"""The module as it has to be while it is recorded or called, and as it was afterwards."""

# torch's shape environment and fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ingot.capture.state import Snapshot


@contextlib.contextmanager
def unchanged(function: Any, keep_batch_norm: bool = False) -> Generator[Snapshot]:
    """eval() for the time of the run; mode and everything the model holds as before afterwards.

    With `keep_batch_norm`, BatchNorm layers in training mode stay in it.
    """
    found = list(function.modules()) if isinstance(function, torch.nn.Module) else []
    modules = [m for m in found if hasattr(m, "training")]  # a frozen script has no mode
    modes = [m.training for m in modules]
    for m in modules:
        m.training = m.training and keep_batch_norm and isinstance(m, _BatchNorm)
    script = isinstance(function, torch.jit.ScriptModule)  # what it holds is not Python's
    snapshot = Snapshot(None if script else function)
    try:
        yield snapshot
    finally:
        snapshot.restore()
        for m, mode in zip(modules, modes, strict=True):
            m.training = mode
