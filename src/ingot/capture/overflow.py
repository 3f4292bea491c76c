"""How far PyTorch's own quantised layers may be from the sums that they stand for: processors without an
instruction for products of bytes add them in pairs of 16 bits, and lose what is beyond (`vpmaddubsw`).

Source: `reduce_range` in PyTorch's documentation of quantisation, which keeps activations below 128 for this
reason. It keeps those that were calibrated there; others may be larger.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import Any

import torch

from ingot.capture.aten.native_quantized import layer_of
from ingot.capture.aten.quantised_tensor import Quantised

Tensor = torch.Tensor
_X, _W = 128, 65  # the smallest factors of a product beyond half of 16 bits: others fit in pairs


def lost(x: Any, packed: Any, kind: str) -> Tensor | None:
    """The most that overflows may take from each sum, as a number of the layer's result; None where no two
    products are that large.

    Two products lose what they have beyond 2 · 16383, so that each loses no more than it has beyond 8319, the
    largest of small factors.
    """
    weight, _, apply = layer_of(kind, packed)
    if not isinstance(x, Quantised) or x.axis is not None or float(x.zero) >= _X:
        return None
    rows, columns = x.integers.double(), weight.integers.double().abs()
    large, heavy = (rows >= _X).double(), (columns >= _W).double()
    if not bool(large.any() and heavy.any()):
        return None
    steps = apply(rows * large, columns * heavy) - (_X * _W - 1) * apply(large, heavy)
    return steps * float(x.scale) * float(torch.as_tensor(weight.scale).max())
