"""What onnxruntime cannot do exactly on some processors."""

from __future__ import annotations

import numpy as np

from ingot.codegen.machine import host

#: Without VNNI it adds pairs of products of bytes in 16 bits; weights of 7 bits leave them room.
SEVEN_BITS = not any(f"+{name}vnni" in host().features.split(",") for name in ("avx", "avx512"))


def weights_in_range(weights: np.ndarray) -> np.ndarray:
    """Weights of int8 or uint8 that it multiplies exactly on this processor."""
    return (weights // 2).astype(weights.dtype) if SEVEN_BITS else weights
