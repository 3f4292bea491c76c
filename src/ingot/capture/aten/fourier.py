"""Fourier transforms of a length that the call gives: the input is cut or padded to it, whichever its size
needs. torch's C++ asks which of the two it is.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from ingot.capture.aten.registry import instead

_fft: Any = torch.fft
#: Those whose input has but half of the spectrum along the last axis.
_OF_HALF = frozenset((_fft.irfft, _fft.hfft, _fft.irfft2, _fft.hfft2, _fft.irfftn, _fft.hfftn))


def _resized(x: Any, axis: int, length: Any) -> Any:
    size = x.shape[axis]
    if isinstance(size, int) or statically_known_true(size == length):
        return x
    axis %= x.dim()
    padding = [0, 0] * (x.dim() - axis - 1) + [0, length]
    return torch.nn.functional.pad(x, padding).narrow(axis, 0, length)


def _along_one(function: Any) -> Callable[..., Any]:
    def transformed(input: Any, n: Any = None, dim: int = -1, norm: Any = None) -> Any:
        if n is not None:
            input = _resized(input, dim, n // 2 + 1 if function in _OF_HALF else n)
        return function(input, n, dim, norm)

    return transformed


def _along_several(function: Any, last: tuple[int, ...] | None) -> Callable[..., Any]:
    def transformed(input: Any, s: Any = None, dim: Any = last, norm: Any = None) -> Any:
        if s is not None:
            axes: Sequence[int] = range(-len(s), 0) if dim is None else dim
            for place, (axis, length) in enumerate(zip(axes, s, strict=True), 1):
                half = place == len(s) and function in _OF_HALF
                if not isinstance(length, int) or length > 0:  # -1 leaves an axis alone
                    input = _resized(input, axis, length // 2 + 1 if half else length)
        return function(input, s, dim, norm)

    return transformed


for _name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft"):
    instead(getattr(_fft, _name))(_along_one(getattr(_fft, _name)))
    instead(getattr(_fft, f"{_name}2"))(_along_several(getattr(_fft, f"{_name}2"), (-2, -1)))
    instead(getattr(_fft, f"{_name}n"))(_along_several(getattr(_fft, f"{_name}n"), None))
