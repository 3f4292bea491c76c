"""One of two values as a truth says, in a form that other runtimes compute too: onnxruntime's Where takes
neither truths nor every integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

# A dtype that has a Where, and gives all numbers of the other back (those of uint64 wrap around, and back).
_BY = {torch.int16: torch.int32, torch.uint16: torch.int32, torch.uint64: torch.int64}


def either(g: Recorder, condition: ir.Value, a: ir.Value, b: ir.Value, dtype: torch.dtype) -> ir.Value:
    """a where the condition holds, else b, both of `dtype`; the three are broadcast."""
    if dtype == torch.bool:
        return g.op("Or", g.op("And", condition, a), g.op("And", g.op("Not", condition), b))
    by = _BY.get(dtype, dtype)
    return g.cast(g.op("Where", condition, g.cast(a, dtype, by), g.cast(b, dtype, by)), by, dtype)
