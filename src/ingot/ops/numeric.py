"""In which type the plain definitions compute: floats in float64 and rounded once at the end, integers as
they are.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ingot.kernels.definitions import to_integer
from ingot.ops.registry import Array, DType

FLOAT32: DType = np.dtype(np.float32)
FLOAT64: DType = np.dtype(np.float64)
BOOL: DType = np.dtype(np.bool_)
INT32: DType = np.dtype(np.int32)
INT64: DType = np.dtype(np.int64)
STRING: DType = np.dtype(object)

_SMALL_FLOATS = frozenset(
    np.dtype(getattr(ml_dtypes, name))
    for name in (
        "bfloat16",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn",
        "float6_e2m3fn",
        "float6_e3m2fn",
    )
    if hasattr(ml_dtypes, name)
)
_SMALL_INTS = frozenset(np.dtype(getattr(ml_dtypes, name)) for name in ("int4", "uint4", "int2", "uint2"))


def is_float(dtype: DType) -> bool:
    """True for every real floating type, ml_dtypes' included."""
    return dtype in _SMALL_FLOATS or (dtype.kind == "f")


def is_integer(dtype: DType) -> bool:
    """True for every integer type, 4-bit and 2-bit ones included; not bool."""
    return dtype.kind in "iu" or dtype in _SMALL_INTS


def is_native(dtype: DType) -> bool:
    """True for NumPy's own types, False for ml_dtypes'. (`isbuiltin` differs for an explicit byte order.)"""
    return dtype.num < 256


def widen(x: Array) -> Array:
    """Floats as float64; anything else unchanged."""
    return x.astype(np.float64) if is_float(x.dtype) and x.dtype != FLOAT64 else x


def rounded(x: Any, dtype: DType) -> Array:
    """`x` as an array of `dtype`, rounded once; floats to integers toward zero."""
    x = np.asarray(x)
    if is_float(x.dtype) and is_integer(dtype) and is_native(dtype):
        return to_integer(x, dtype.name)
    return x.astype(dtype, copy=False)


__all__ = ["BOOL", "FLOAT64", "INT64", "STRING", "is_float", "is_integer", "is_native", "rounded", "widen"]


def unpacked(packed: Array, bits: int) -> Array:
    """Numbers of 2, 4 or 8 bits, the lowest bits of a byte first, along the last axis."""
    if bits == 8:
        return packed
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return (packed[..., None] >> shifts & ((1 << bits) - 1)).reshape(*packed.shape[:-1], -1)
