"""sin, cos, tan and their inverses on vectors of float32 and float64: 4 ULP over the whole range.

NaN and Inf are as in NumPy.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable

from ingot.codegen import library
from ingot.codegen.builder import Builder, Value
from ingot.codegen.lanes import Lanes, any_lane
from ingot.codegen.precision import COS, DOUBLE, SIN, format_of

_SIN = (-0.16666655242443085, 0.008332191035151482, -0.00019518598855938762)
_COS = (0.0416666679084301, -0.001388898235745728, 2.48229771386832e-05, -2.89759071847584e-07)
#: π/2 in parts of 33 bits (fdlibm's), exact times an integer of 20 bits without FMA too, and what is left
_HALF_PI = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624871116645580e-21)
_HALF_PI_LEFT = 8.47842766036889956997e-32
#: beyond, the number of quarter turns has more than 20 bits: the C library's
_FAR = 1e6

#: sine, cosine and the number of quarter turns -> the function
Choose = Callable[[Lanes, Lanes, Lanes], Lanes]


def _turned(k: Builder, x: Value, name: str, choose: Choose) -> Value:
    """A function of the angle within its quarter turn; a vector with a huge lane goes to the C library."""
    v = Lanes(k, x)
    is_double = format_of(v) is DOUBLE

    def near() -> list[Value]:
        return [choose(*(_parts(v) if is_double else _short_parts(v))).value]

    def far() -> list[Value]:
        if is_double:
            return [library.call(k, name, x)]
        return [Lanes(k, library.call(k, name, v.double().value)).single().value]

    return k.either(any_lane(k, v.abs() > _FAR), far, near)[0]


def _short_parts(v: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """Sine and cosine of what float32 values leave of quarter turns, and their number; reduced in float64."""
    d = v.double()
    shifted = d.fma(2.0 / math.pi, DOUBLE.round)
    n = shifted - DOUBLE.round
    r = n.fma(-_HALF_PI[1], n.fma(-_HALF_PI[0], d)).single()
    z = r * r
    sine = (z * z.polynomial(_SIN)).fma(r, r)
    cosine = (z * z).fma(z.polynomial(_COS), z.fma(-0.5, 1.0))
    return sine, cosine, Lanes(v.k, v.k.ir.trunc(shifted.bits().value, v.integers))


def _parts(v: Lanes) -> tuple[Lanes, Lanes, Lanes]:
    """The same of float64 values, reduced in two of them: `r + low`."""
    shifted = v.fma(2.0 / math.pi, DOUBLE.round)
    n = shifted - DOUBLE.round
    r, low = n.fma(-_HALF_PI[0], v), n * -_HALF_PI_LEFT
    for part in _HALF_PI[1:]:
        term = n * part
        after = r - term
        low = low + ((r - after) - term)
        r = after
    whole = r + low
    low = (r - whole) + low
    r, z = whole, whole * whole
    sine = r + low.fma(z.fma(-0.5, 1.0), r * z * z.polynomial(SIN))
    half = z * 0.5
    one_less = 1.0 - half
    cosine = one_less + (((1.0 - one_less) - half) + (z * z).fma(z.polynomial(COS), -(r * low)))
    return sine, cosine, shifted.bits()


def _of_quarter(quarter: int) -> Choose:
    """The sine of an angle `quarter` quarter turns further."""

    def choose(sine: Lanes, cosine: Lanes, turns: Lanes) -> Lanes:
        turns = turns + quarter
        value = cosine.where((turns & 1).equals(1), sine)
        sign = 64 - 2 if format_of(value) is DOUBLE else 32 - 2
        return (value.bits() ^ ((turns & 2) << sign)).floats()

    return choose


def _ratio(sine: Lanes, cosine: Lanes, turns: Lanes) -> Lanes:
    odd = (turns & 1).equals(1)
    return cosine.where(odd, sine) / (-sine).where(odd, cosine)


def sin(k: Builder, x: Value) -> Value:
    """The sine; NaN of infinities."""
    return _turned(k, x, "sin", _of_quarter(0))


def cos(k: Builder, x: Value) -> Value:
    """The cosine; NaN of infinities."""
    return _turned(k, x, "cos", _of_quarter(1))


def tan(k: Builder, x: Value) -> Value:
    """The tangent; NaN of infinities."""
    return _turned(k, x, "tan", _ratio)


def _arc(v: Lanes) -> tuple[Lanes, Lanes, Value]:
    """s and p with asin(s) = s + p, where |x| is s up to ½, and 1 - 2 s² in the lanes of the mask."""
    a = v.abs()
    upper = a > 0.5
    z = ((1.0 - a) * 0.5).where(upper, a * a)
    s = z.intrinsic("sqrt").where(upper, a)  # NaN beyond 1
    return s, s * z * z.polynomial(format_of(v).asin), upper


def asin(k: Builder, x: Value) -> Value:
    """A polynomial in x² to ½, else π/2 - 2 asin √((1 - |x|) / 2)."""
    v = Lanes(k, x)
    s, p, upper = _arc(v)
    beyond = math.pi / 2 - (2.0 * s - (format_of(v).lost_of_half_pi - 2.0 * p))
    return beyond.where(upper, s + p).intrinsic("copysign", v).value


def acos(k: Builder, x: Value) -> Value:
    """π/2 - asin(x) to ½, else 2 asin √((1 - |x|) / 2), or π less that."""
    v = Lanes(k, x)
    s, p, upper = _arc(v)
    lost = format_of(v).lost_of_half_pi
    signed, rest = s.intrinsic("copysign", v), p.intrinsic("copysign", v)
    near = math.pi / 2 - (signed - (lost - rest))
    twice = 2.0 * (s + p)
    negative = math.pi - (2.0 * s - (2.0 * lost - 2.0 * p))
    return negative.where(v < 0.0, twice).where(upper, near).value


def atan(k: Builder, x: Value) -> Value:
    """A polynomial in t² with t = a, (a - 1) / (a + 1) and -1 / a of a = |x|, which are at most tan(π/8)."""
    v = Lanes(k, x)
    own, a = format_of(v), v.abs()
    far, middle = a > math.tan(3 * math.pi / 8), a > math.tan(math.pi / 8)
    top = v.constant(-1.0).where(far, (a - 1.0).where(middle, a))
    t = top / a.where(far, (a + 1.0).where(middle, 1.0))
    z = t * t
    start = v.constant(math.pi / 2).where(far, v.constant(math.pi / 4).where(middle, 0.0))
    lost = v.constant(own.lost_of_half_pi).where(far, v.constant(own.lost_of_quarter_pi).where(middle, 0.0))
    y = start + (t + (t * z).fma(z.polynomial(own.atan), lost))
    return y.intrinsic("copysign", v).value
