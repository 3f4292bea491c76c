"""What rows of special functions are written with: polynomials, and results in float64.

Formulas of the rows are those of Abramowitz and Stegun, Handbook of Mathematical Functions (A&S), where
nothing else is said.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ingot.capture.aten.registry import composed

Tensor = torch.Tensor
EULER = 0.5772156649015329


def horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with these coefficients, the constant one first."""
    *rest, second, first = coefficients
    total = x * first + second
    for c in reversed(rest):
        total = total * x + c
    return total


def _wide(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In float64, and back to what torch gives: float32 for integers."""

    def call(x: Tensor) -> Tensor:
        kept = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
        return function(x.double()).to(kept)

    return call


def in_float64(*names: str) -> Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]:
    def register(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        composed(*names)(_wide(function))
        return function

    return register


def infinities(x: Tensor, sign: float = 1.0) -> Tensor:
    return torch.full_like(x, sign * math.inf)


def nans(x: Tensor) -> Tensor:
    return torch.full_like(x, math.nan)


def largest(x: Tensor) -> Tensor:
    """The largest element; 0 where there is none above it, or none at all."""
    return torch.amax(torch.cat([x.reshape(-1), x.new_zeros(1)]))
