"""com.microsoft's operators that standard ones cannot say: Inverse.

The others are rewritten when a file is opened (`passes/contrib.py`).
"""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# What NumPy makes of arrays of any dtype has none that is known.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import ShapeError
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)

DOMAIN = "com.microsoft"


@register("Inverse", since=1, domain=DOMAIN)
class Inverse(Op):
    """The inverses of matrices [..., n, n]."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> list[Facts | None] | None:
        """The shape of x."""
        x = need(node, inputs, 0)
        if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
            raise shape_error(node, f"the input has shape {show(x.shape)}, and must be square matrices")
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """In float64; raises ShapeError for a matrix that has none."""
        x = present(inputs, 0)
        try:
            return [rounded(np.linalg.inv(widen(x)), x.dtype)]
        except np.linalg.LinAlgError as error:
            raise ShapeError(f"{label(node)}: a matrix has no inverse ({error}). Check the input.") from error
