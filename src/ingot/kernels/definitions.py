"""The plain meaning, in NumPy, of the elementwise operators that are more than one NumPy call."""
# NumPy's stubs lose the type of a function of Any.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np

Array = Any  # floats come as float64, integers in their own type

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
#: Defaults of LeakyRelu and HardSigmoid as float32 holds them, which is what attributes are.
LEAKY_ALPHA, HARD_ALPHA = float(np.float32(0.01)), float(np.float32(0.2))


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of this name, or ml_dtypes'."""
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


def same(value: Array) -> Array:
    """Itself; a cast's conversion is that of the result's dtype."""
    return value


def cast(
    x: Array, *, dtypes: tuple[str, ...], dtype: str, saturate: int = 1, round_mode: str = "up"
) -> Array:
    """`x`, of dtypes[0], in another dtype: to nearest even, and once."""
    if dtype == dtypes[0]:
        return x.astype(numpy_dtype(dtype))
    if dtype == "float8_e8m0fnu":
        return _powers(x.astype(np.float32), bool(saturate), round_mode)
    target = numpy_dtype(dtype)
    if x.dtype.kind == "f" and target.kind in "iu":
        return to_integer(x, dtype)
    if hasattr(ml_dtypes, dtype) or hasattr(ml_dtypes, x.dtype.name):
        if dtype in ("int4", "uint4", "int2", "uint2"):
            return (to_integer(x, "int32") if x.dtype.kind == "f" else x.astype(np.int64)).astype(target)
        if dtype.startswith("float8") and saturate:
            largest = float(ml_dtypes.finfo(target).max)
            x = np.clip(x.astype(np.float64), -largest, largest)
        x = _to_odd(x.astype(np.float64)) if dtype in _NARROW_FLOATS else x.astype(np.int64)
    return x.astype(target)


def to_integer(x: Array, dtype: str) -> Array:
    """Floats toward zero as an integer dtype of 8 bits or more, as C compiles to on x86.

    ONNX leaves open what a number out of the range becomes; PyTorch and ONNX Runtime agree on this. They
    convert to int32, or to int64 for int64 and uint32, with its lowest number for NaN and what is out of its
    range; narrower dtypes take the lowest bits. For uint64, numbers from 2^63 on are converted less 2^63,
    which is added after. (For uint32, vectors in the libraries differ from single numbers below -2^31, from
    2^32 on, and for NaN: here all elements are as single ones.)
    """
    x = x.astype(np.float64)
    if dtype == "uint64":
        high = x >= 2.0**63
        low = to_integer(np.where(high, x - 2.0**63, x), "int64").view(np.uint64)
        return np.asarray(low ^ np.where(high, np.uint64(1 << 63), np.uint64(0)))
    wide, bound = (np.int64, 2.0**63) if dtype in ("int64", "uint32") else (np.int32, 2.0**31)
    return np.where((x >= -bound) & (x < bound), x, -bound).astype(wide).astype(numpy_dtype(dtype))


_NARROW_FLOATS = (
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
)  # fmt: skip


def _to_odd(x: Array) -> Array:
    """Float64 to float32; where inexact, the neighbour with an odd last bit, so that rounding the result once
    more is rounding `x`.
    """
    near = x.astype(np.float32)
    other = np.nextafter(near, np.where(x > near, np.inf, -np.inf).astype(np.float32))
    keep = (near == x) | (near.view(np.uint32) & 1 == 1) | ~np.isfinite(x)
    return np.where(keep, near, other)


def _powers(x: Array, saturate: bool, round_mode: str) -> Array:
    """Float32's exponents as float8_e8m0fnu, whatever the sign; infinities and NaN become NaN."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    exponent, fraction = bits >> 23 & 255, bits & 0x7FFFFF
    up = {
        "up": fraction > 0,
        "down": np.zeros_like(fraction, bool),
        "nearest": (fraction > 1 << 22) | ((fraction == 1 << 22) & (exponent > 0)),
    }[round_mode]
    if saturate:
        up = up & (exponent != 254)
    code = np.where(exponent == 255, 255, exponent + up)
    return code.astype(np.uint8).view(ml_dtypes.float8_e8m0fnu).reshape(x.shape)


def bounds_of(dtype: str) -> tuple[int, int]:
    """The lowest and the highest value of an integer dtype."""
    bounds = ml_dtypes.iinfo(numpy_dtype(dtype))
    return int(bounds.min), int(bounds.max)


def quantizing_dtype(dtypes: tuple[str, ...], precision: str | None) -> str:
    """In which dtype QuantizeLinear divides: the one that is named, or what NumPy makes of x and scale."""
    if precision is not None:
        return precision
    x, scale = dtypes[:2]
    if x == "int32":
        return "float64"
    return x if x == scale else "float32"


def quantize(
    x: Array,
    scale: Array,
    zero: Array | None = None,
    *,
    dtypes: tuple[str, ...],
    dtype: str,
    saturate: int = 1,
    precision: str | None = None,
) -> Array:
    """Saturate(round(x / scale) + zero), the quotient rounded to its dtype; NaN takes the lower bound."""
    divide_in = numpy_dtype(quantizing_dtype(dtypes, precision))
    ratio = (x.astype(divide_in) / scale.astype(divide_in)).astype(np.float64)
    if not dtype.lstrip("u").startswith("int"):
        return cast(ratio, dtypes=("float64",), dtype=dtype, saturate=saturate)
    low, high = bounds_of(dtype)
    shift = 0.0 if zero is None else zero.astype(np.float64)
    whole = np.clip(np.rint(ratio), low - shift, high - shift) + shift
    return np.where(np.isnan(ratio), low, whole).astype(np.int64).astype(numpy_dtype(dtype))


def dynamic_quantize(x: Array) -> tuple[Array, Array, Array]:
    """DynamicQuantizeLinear of finite float32: x as uint8 over its range with 0 in it, the scale (1 of zeros
    alone), the zero point.
    """
    high, low = x.max(initial=0.0), x.min(initial=0.0)
    scale = np.asarray(np.float32(1.0) if high == low else (high - low) / np.float32(255.0))
    zero = np.asarray(np.rint(np.clip((np.float32(0.0) - low) / scale, 0.0, 255.0)).astype(np.uint8))
    return quantize(x, scale, zero, dtypes=("float32", "float32"), dtype="uint8"), scale, zero


def requantize(x: Array, factor: Array, zero: Array, *, dtypes: tuple[str, ...], dtype: str) -> Array:
    """Saturate(round(x · factor) + zero), both float32 and their product rounded to it."""
    del dtypes
    low, high = bounds_of(dtype)
    product = (x.astype(np.float32) * factor.astype(np.float32)).astype(np.float64)
    shift = zero.astype(np.float64)
    whole = np.clip(np.rint(product), low - shift, high - shift) + shift
    return np.where(np.isnan(product), low, whole).astype(np.int64).astype(numpy_dtype(dtype))


def dequantize(
    x: Array, scale: Array, zero: Array | None = None, *, dtypes: tuple[str, ...], dtype: str
) -> Array:
    """(x - zero) · scale in float32, rounded to the result's dtype; narrow floats have no zero point."""
    if dtypes[0].startswith("float"):
        difference = x
    else:
        difference = x.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))
    product = difference.astype(np.float32) * scale.astype(np.float32)
    return product.astype(numpy_dtype(dtype))


def add(*xs: Array) -> Array:
    """The sum of all operands."""
    return functools.reduce(np.add, xs)


def multiply(*xs: Array) -> Array:
    """The product of all operands."""
    return functools.reduce(np.multiply, xs)


def multiply_add(x: Array, factor: Array, term: Array) -> Array:
    """X · factor + term."""
    return x * factor + term


def _smaller(a: Array, b: Array) -> Array:
    return np.where((b < a) | (b != b), b, a)


def _larger(a: Array, b: Array) -> Array:
    return np.where((b > a) | (b != b), b, a)


def minimum(*xs: Array) -> Array:
    """The smallest operand, the first where +0 meets -0, or NaN if there is one."""
    return functools.reduce(_smaller, xs)


def maximum(*xs: Array) -> Array:
    """The largest operand, the first where +0 meets -0, or NaN if there is one."""
    return functools.reduce(_larger, xs)


def clip(x: Array, low: Array, high: Array) -> Array:
    """Min(Max(x, low), high)."""
    return minimum(maximum(x, low), high)


def divide(a: Array, b: Array) -> Array:
    """The quotient; of integers truncated towards zero, and 0 where b is 0."""
    if a.dtype.kind not in "iu":
        return a / b
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)


def modulo(a: Array, b: Array, fmod: int = 0) -> Array:
    """The remainder with the sign of the divisor, or (fmod=1) of the dividend."""
    return np.fmod(a, b) if fmod else np.mod(a, b)


def power(a: Array, b: Array) -> Array:
    """C's pow on floats; integers exactly, modulo what a's type holds, whatever the exponent's is."""
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        a_wide, b_wide = a.astype(np.float64), b.astype(np.float64)
        real, is_half = np.power(a_wide, b_wide), b_wide == 0.5
        if is_half.any():  # NumPy may take the root, which differs for -Inf and -0
            real = np.where(is_half, np.where(np.isneginf(a_wide), np.inf, np.sqrt(a_wide + 0.0)), real)
        return real.astype(a.dtype) if a.dtype.kind == "f" else to_integer(real, a.dtype.name)
    odd, whole, square, rest = b % 2 != 0, np.ones_like(a), a, np.where(b < 0, 0, b).astype(b.dtype)
    while rest.any():
        whole, square, rest = np.where(rest % 2 != 0, whole * square, whole), square * square, rest // 2
    small = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0))
    return np.where(b < 0, small.astype(a.dtype), whole)


def _series(x: Array) -> Array:
    """The error function for |x| < 3: its series without alternating signs (Abramowitz and Stegun 7.1.6)."""
    term, total = x, x
    for n in range(1, 80):
        term = term * (2.0 * x * x) / (2 * n + 1)
        total = total + term
    return 2.0 / np.sqrt(np.pi) * np.exp(-x * x) * total


def _scaled_complement(x: Array) -> Array:
    """The complement times exp(x²), for x >= 2: its continued fraction (Abramowitz and Stegun 7.1.14)."""
    fraction = x
    for n in range(120, 0, -1):
        fraction = x + (n / 2.0) / fraction
    return 1.0 / (np.sqrt(np.pi) * fraction)


def erfc(x: Array) -> Array:
    """1 - erf(x), with the digits of the upper tail."""
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        near = 1.0 - _series(np.clip(x, -6.0, 3.0))
        far = np.exp(-x * x) * _scaled_complement(np.maximum(x, 2.0))
        return np.where(x >= 2.0, np.where(np.isinf(x), 0.0, far), np.where(x < -6.0, 2.0, near))


def erf(x: Array) -> Array:
    """The error function."""
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        size = np.abs(x)
        value = np.where(size < 2.0, _series(np.minimum(size, 2.0)), 1.0 - erfc(size))
        return np.where(np.isnan(x), x, np.copysign(value, x))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    tail = np.exp(-np.abs(x))
    return np.where(x < 0, tail, 1.0) / (1.0 + tail)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def mish(x: Array) -> Array:
    """x tanh(softplus(x))."""
    return x * np.tanh(softplus(x))


def gelu(x: Array, approximate: str = "none") -> Array:
    """x times the normal distribution function of x, or that through its formula with tanh."""
    if approximate == "tanh":
        return x * sigmoid(2.0 * np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x))
    return 0.5 * x * erfc(-x * np.sqrt(0.5))


def relu(x: Array) -> Array:
    """max(x, 0), and -0 for -0."""
    return maximum(x, x.dtype.type(0))


def leaky_relu(x: Array, alpha: float = LEAKY_ALPHA) -> Array:
    """x, or alpha x below 0."""
    return np.where(x < 0, alpha * x, x)


def prelu(x: Array, slope: Array) -> Array:
    """x, or slope x below 0."""
    return np.where(x < 0, slope * x, x)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """x, or alpha (exp(x) - 1) below 0."""
    return np.where(x < 0, alpha * np.expm1(x), x)


def selu(x: Array, alpha: float = SELU_ALPHA, gamma: float = SELU_GAMMA) -> Array:
    """gamma times elu(x)."""
    return gamma * elu(x, alpha)


def celu(x: Array, alpha: float = 1.0) -> Array:
    """max(x, 0) + min(0, alpha (exp(x / alpha) - 1))."""
    return np.maximum(x, 0.0) + np.minimum(0.0, alpha * np.expm1(x / alpha))


def thresholded_relu(x: Array, alpha: float = 1.0) -> Array:
    """x above alpha, else 0: NaN is above nothing."""
    return np.where(x > alpha, x, 0.0)


def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return x / (1.0 + np.abs(x))


def hard_sigmoid(x: Array, alpha: float = HARD_ALPHA, beta: float = 0.5) -> Array:
    """alpha x + beta, within [0, 1]."""
    return np.clip(alpha * x + beta, 0.0, 1.0)


def hard_swish(x: Array) -> Array:
    """x times x / 6 + 1/2, that within [0, 1]."""
    return x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)


def swish(x: Array, alpha: float = 1.0) -> Array:
    """x sigmoid(alpha x)."""
    return x * sigmoid(alpha * x)


def shrink(x: Array, lambd: float = 0.5, bias: float = 0.0) -> Array:
    """0 within ±lambd; outside moved by bias towards zero."""
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, np.zeros_like(x)))


def swiglu(a: Array, b: Array, alpha: float = 1.0) -> Array:
    """swish(a) · b."""
    return swish(a, alpha) * b


def is_inf(x: Array, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Whether x is an infinity of a wanted sign."""
    return (np.isneginf(x) & bool(detect_negative)) | (np.isposinf(x) & bool(detect_positive))


def bit_shift(x: Array, count: Array, direction: str = "LEFT") -> Array:
    """x shifted by `count` bits, LEFT or RIGHT; 0 (or all sign) where that is its width or more."""
    width = x.dtype.itemsize * 8
    inside = (count >= 0) & (count < width)
    safe = np.where(inside, count, width - 1).astype(x.dtype)
    moved = np.left_shift(x, safe) if direction == "LEFT" else np.right_shift(x, safe)
    beyond = moved if direction == "RIGHT" and x.dtype.kind == "i" else 0
    return np.where(inside, moved, beyond).astype(x.dtype)
