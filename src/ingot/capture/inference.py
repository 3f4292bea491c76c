"""torch.inference_mode in the model's code.

Inside it torch hands on operators that it takes apart elsewhere (swapaxes, narrow, chunk …), and tensors have
no versions. A recording has no gradients anyway: the mode changes nothing there but what the model is told.
What was made in it, weights among it, is a tensor as any other there.
"""

# What torch's C++ part holds is untyped.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch
from torch._subclasses.meta_utils import tls


@contextlib.contextmanager
def without_inference_mode() -> Generator[None]:
    """For the time of a recording, also one that is started inside the mode."""
    modes = [torch.is_inference_mode_enabled()]

    class Mode:
        """Stands for the guard that torch's context manager enters."""

        def __init__(self, mode: bool) -> None:
            self.mode = mode

        def __enter__(self) -> None:
            modes.append(self.mode)

        def __exit__(self, *error: object) -> None:
            modes.pop()

    binding: Any = torch._C
    package: Any = torch
    guard, asked = binding._InferenceMode, package.is_inference_mode_enabled
    disabled = getattr(tls, "disable_inference_mode", False)
    # Not where it is off already: torch turns gradients on with it.
    with torch.inference_mode(False) if modes[0] else contextlib.nullcontext():
        binding._InferenceMode, package.is_inference_mode_enabled = Mode, lambda: modes[-1]
        tls.disable_inference_mode = True  # a fake of what was made in the mode is made outside of it
        try:
            yield
        finally:
            binding._InferenceMode, package.is_inference_mode_enabled = guard, asked
            tls.disable_inference_mode = disabled
