"""sinh, cosh, tanh's inverse and theirs on vectors of float32 and float64: 4 ULP over the whole range.

NaN and Inf are as in NumPy.
"""

from __future__ import annotations

import math

from ingot.codegen.builder import Builder, Value
from ingot.codegen.lanes import Lanes
from ingot.codegen.math import exp_times, log_of, log_one_more
from ingot.codegen.precision import format_of


def _half_exp(v: Lanes) -> Lanes:
    """e^|v| / 2, which is finite where sinh and cosh are."""
    return exp_times(v.abs().at_most(format_of(v).exp_range[1] + 1.0), doublings=-1.0)


def sinh(k: Builder, x: Value) -> Value:
    """A polynomial in x² to 1, else h - 1 / 4h with h = e^|x| / 2."""
    v = Lanes(k, x)
    square, half = v * v, _half_exp(v)
    near = (v * square).fma(square.polynomial(format_of(v).sinh), v)
    return near.where(v.abs() < 1.0, (half - 0.25 / half).intrinsic("copysign", v)).value


def cosh(k: Builder, x: Value) -> Value:
    """h + 1 / 4h with h = e^|x| / 2."""
    half = _half_exp(Lanes(k, x))
    return (half + 0.25 / half).value


def asinh(k: Builder, x: Value) -> Value:
    """log1p(a + a² / (1 + √(1 + a²))) with a = |x|, and log 2a where a² rounds 1 away."""
    v = Lanes(k, x)
    a = v.abs()
    large = a > 2.0 ** (format_of(v).mantissa // 2 + 2)
    small = v.constant(0.0).where(large, a)
    square = small * small
    inner = small + square / ((square + 1.0).intrinsic("sqrt") + 1.0)
    y = log_of(a).where(large, log_one_more(inner)) + v.constant(math.log(2.0)).where(large, 0.0)
    return y.intrinsic("copysign", v).value


def acosh(k: Builder, x: Value) -> Value:
    """log1p(t + √(t² + 2t)) with t = x - 1, and log 2x where x² rounds 1 away; NaN below 1."""
    v = Lanes(k, x)
    large = v > 2.0 ** (format_of(v).mantissa // 2 + 2)
    t = v.constant(0.0).where(large, v - 1.0)
    y = log_one_more(t + t.fma(t, t + t).intrinsic("sqrt"))
    y = (log_of(v) + math.log(2.0)).where(large, y)
    return v.constant(math.nan).where(v < 1.0, y).value


def atanh(k: Builder, x: Value) -> Value:
    """½ log1p(2a / (1 - a)) with a = |x|."""
    v = Lanes(k, x)
    a = v.abs()
    return (log_one_more((a + a) / (1.0 - a)) * 0.5).intrinsic("copysign", v).value
