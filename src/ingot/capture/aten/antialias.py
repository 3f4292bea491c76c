"""Interpolation with a filter that widens when an image becomes smaller, as products of matrices: what
ONNX's Resize has no form of.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Tensor = torch.Tensor


def _triangle(x: Tensor) -> Tensor:
    return torch.clamp(1 - x, min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys's with a = -1/2, Pillow's."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"linear": _triangle, "cubic": _cubic}


def filtered(x: Tensor, size: Sequence[Any], scales: Sequence[Any], align_corners: bool, mode: str) -> Tensor:
    """[n, c, h, w] in another size.

    scales: of each axis, None where the sizes say it; of no account with align_corners
    """
    for axis, (t, scale) in enumerate(zip(size, scales, strict=True), x.dim() - len(size)):
        weights = _weights(x.shape[axis], t, scale, align_corners, FILTERS[mode], x.dtype)
        x = x @ weights.mT if axis == x.dim() - 1 else weights @ x
    return x


def _weights(
    n: Any, t: Any, scale: Any, align_corners: bool, weigh: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> Tensor:
    """What each of t elements takes of n, [t, n]: by the distance from its centre, under a filter that is as
    wide as the step, and not below one.
    """

    def number(value: Any) -> Tensor:
        return torch.full((), value, dtype=dtype)

    if align_corners:  # as torch has it, whose centres are half a step off all the same
        step = torch.where(number(t) > 1, number(n - 1) / torch.clamp(number(t - 1), min=1), 0.0)
    else:
        step = number(n) / number(t) if scale is None else number(1 / scale)
    centres = step * (torch.arange(t, dtype=dtype) + 0.5)
    apart = torch.arange(n, dtype=dtype) - centres.unsqueeze(1) + 0.5
    found = weigh(apart.abs() / torch.clamp(step, min=1))
    return found / found.sum(1, keepdim=True)
