"""How far PyTorch's own quantised layers may be from the sums that they stand for: on processors without an
instruction for products of bytes some of its kernels add them in pairs of 16 bits, and lose what is beyond
(`vpmaddubsw`).

Source: `reduce_range` in PyTorch's documentation of quantisation, which keeps activations below 128 for this
reason. It keeps those that were calibrated there; others may be larger.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from typing import Any

import torch

from ingot.capture.aten.native_quantized import layer_of
from ingot.capture.aten.quantised_tensor import Quantised

Tensor = torch.Tensor
_X, _W = 128, 65  # the smallest factors of a product beyond half of 16 bits: others fit in pairs
_HIGHEST, _HEAVIEST = 255, 127  # the largest factors that there are


def loses(x: Any, packed: Any, kind: str) -> bool:
    """Whether PyTorch's kernel for such a layer and activations of this size loses sums here: it is asked for
    sums of the largest products that there are, of which every pair is beyond 16 bits.

    Which kernel a layer takes hangs on the processor, on the engine and on the layer's own sizes.
    """
    weight, _, apply = layer_of(kind, packed)
    sizes: dict[str, Any] = dict(getattr(apply, "keywords", {}))
    ops: Any = torch.ops.quantized
    make: Any = torch._make_per_tensor_quantized_tensor  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    full = make(torch.full_like(weight.integers, _HEAVIEST), 1.0, 0)
    order = ("stride", "padding", "output_padding", "dilation", "groups")
    again = getattr(ops, f"{kind}_prepack")(full, None, *(sizes[n] for n in order if n in sizes))
    rows = torch.full_like(x.integers, _HIGHEST)
    exact = apply(rows.double(), torch.full_like(weight.integers, _HEAVIEST, dtype=torch.float64))
    step = max(float(exact.max()) / _HIGHEST, 1.0) if exact.numel() else 1.0
    found = getattr(ops, kind)(make(rows, 1.0, 0), again, step, 0).int_repr()
    return bool(((found.double() - exact / step).abs() > 1).any())


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
