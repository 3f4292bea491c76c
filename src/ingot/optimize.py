"""`ingot.optimize`: a simpler model that is the same function, for any runtime."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ingot.loading import Source, load
from ingot.passes.pipeline import optimise


def optimize(model: Source, *, explain: Callable[[str], None] | None = None) -> ir.Model:
    """A simplified copy of `model`: constants folded, BatchNormalization and factors in the weights,
    patterns joined.

    Only standard ONNX operators are written, at the model's own opset (18, if it is older). Numbers may
    change by rounding where weights are folded. `model`: a path, bytes, ModelProto or `ir.Model`, which is
    left as it is. `explain` gets a line for each stage and rule. Raises `ModelError` for what cannot be
    loaded.
    """
    loaded = load(model)
    return optimise(loaded.clone() if loaded is model else loaded, explain=explain)
