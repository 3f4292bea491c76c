"""exp, log, tanh, erf and their kin on float32 vectors: 4 ULP over the whole range, NaN and Inf as in NumPy.

Each function takes a Builder and a register value and returns one of the same type. float64 goes to the C
library, lane by lane. Polynomials and rational functions are minimax fits of the relative error (Lawson's
iteration, coefficients rounded to float32 lowest degree first, numerators and denominators scaled so that
little is lost by it); the error of the fit is given beside each.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from ingot.codegen import library
from ingot.codegen.builder import I32, Builder, Value, element_of, lanes_of, vector
from ingot.codegen.lanes import Lanes, any_lane

_LOG2E = 1.4426950408889634
# ln 2 in two parts; the first has 9 bits, so its product with any exponent is exact without FMA too (Cody
# and Waite).
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_ROUND = 12582912.0  # 1.5 · 2^23: adding it rounds a float32 to an integer, which then stands in the low bits
_EXP = (
    0.4999999403953552,
    0.1666652113199234,
    0.04166826605796814,
    0.008368677459657192,
    0.001382073387503624,
)
_EXPM1 = (
    0.4999999701976776,
    0.1666654646396637,
    0.04166743531823158,
    0.00836626160889864,
    0.0013870657421648502,
)
_LOG = (
    *(
        0.3333331346511841,
        -0.25000008940696716,
        0.2000207155942917,
        -0.16667988896369934,
        0.14220358431339264,
    ),
    *(-0.12406233698129654, 0.11883548647165298, -0.11670097708702087, 0.06749267876148224),
)
_TWO_ATANH = (
    0.6666667461395264,
    0.3999894857406616,
    0.2861521244049072,
    0.21443885564804077,
    0.24245256185531616,
)
_TANH = (
    -0.3333328068256378,
    0.13331405818462372,
    -0.05373651534318924,
    0.02062816731631756,
    -0.0056922961957752705,
)
_ERF = (
    *(
        0.12837916612625122,
        -0.3761262595653534,
        0.11283578723669052,
        -0.026853347197175026,
        0.005187162198126316,
    ),
    *(-0.0007997853099368513, 7.806903158780187e-05),
)
_ERF_TAIL = (
    *(0.9753848314285278, -0.9984821677207947, 0.6957828998565674, -0.3290187418460846, 0.1001434475183487),
    *(-0.01756948232650757, 0.0013425853103399277),
)
_TAIL_P = (
    0.651018500328064,
    0.5706769824028015,
    0.23857948184013367,
    0.05290617421269417,
    0.00535961939021945,
)
_TAIL_Q = (
    *(1.302037000656128, 2.180229663848877, 1.5657058954238892, 0.6112696528434753, 0.13262449204921722),
    0.013434418477118015,
)
_SIN = (-0.16666655242443085, 0.008332191035151482, -0.00019518598855938762)
_COS = (0.0416666679084301, -0.001388898235745728, 2.48229771386832e-05, -2.89759071847584e-07)


def _is_double(x: Value) -> bool:
    return isinstance(element_of(x.type), ir.DoubleType)


# ---- exponentials ------------------------------------------------------------------------------------------


def _scale(x: Lanes, n: Lanes) -> Lanes:
    """x · 2^n for |x| in [0.5, 2) and a whole n in [-151, 129], rounded once."""
    k, lanes = x.k, lanes_of(x.type)
    if lanes == 16 and "+avx512f" in k.machine.features:
        mask = ir.IntType(16)
        scalef = k.declare("llvm.x86.avx512.mask.scalef.ps.512", x.type, [x.type, x.type, x.type, mask, I32])
        return Lanes(k, k.ir.call(scalef, [x.value, n.value, x.value, mask(-1), I32(4)]))
    # In two products, the first of which is exact: 2^n itself may be denormal or infinite where the result
    # is not.
    first = n.at_most(127.0).at_least(-125.0)
    power = ((first + (_ROUND + 127.0)).bits() << 23).floats()
    rest = (((n - first) + (_ROUND + 127.0)).bits() << 23).floats()
    return x * power * rest


def _reduce(x: Lanes) -> tuple[Lanes, Lanes]:
    """n and r with x = n · ln 2 + r, n whole, |r| <= ln 2 / 2."""
    n = x.fma(_LOG2E, _ROUND) - _ROUND
    return n, n.fma(-_LN2_LOW, n.fma(-_LN2_HIGH, x))


def _exp(x: Lanes, low: Lanes | None = None) -> Lanes:
    """exp(x + low) for x in [-104.5, 89]; `low` is a small correction. Error of the fit: 2^-28."""
    n, r = _reduce(x)
    if low is not None:
        r = r + low
    return _scale(r.polynomial(_EXP).fma(r * r, r) + 1.0, n)


def exp(k: Builder, x: Value) -> Value:
    """e^x."""
    if _is_double(x):
        return library.call(k, "exp", x)
    return _exp(Lanes(k, x).at_most(89.0).at_least(-104.5)).value


def _exp_in_range(x: Lanes) -> Lanes:
    """exp(x) for |x| <= 87, where its scale is a normal number."""
    shifted = x.fma(_LOG2E, _ROUND + 127.0)
    n = shifted - (_ROUND + 127.0)
    r = n.fma(-_LN2_LOW, n.fma(-_LN2_HIGH, x))
    return (r.polynomial(_EXP).fma(r * r, r) + 1.0) * (shifted.bits() << 23).floats()


def _exp_of_negative(x: Lanes) -> Lanes:
    """exp(x) for x <= 0."""
    return _exp(x.at_least(-104.5))


def expm1_of_negative(k: Builder, x: Value) -> Value:
    """e^x - 1 for x <= 0, without cancellation; of a positive x, 0."""
    if _is_double(x):
        return library.call(k, "expm1", Lanes(k, x).at_most(0.0).value)
    n, r = _reduce(Lanes(k, x).at_least(-20.0).at_most(0.0))
    power = ((n + (_ROUND + 127.0)).bits() << 23).floats()
    return r.polynomial(_EXPM1).fma(r * r, r).fma(power, power - 1.0).value


def sigmoid(k: Builder, x: Value) -> Value:
    """1 / (1 + e^-x), without overflow, so the lower tail keeps its digits."""
    v = Lanes(k, x)
    tail = Lanes(k, exp(k, (-v.abs()).value)) if _is_double(x) else _exp_of_negative(-v.abs())
    return (tail.where(v < 0.0, 1.0) / (tail + 1.0)).value


def softplus(k: Builder, x: Value) -> Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|). Error of the fit: 2^-32."""
    v = Lanes(k, x)
    if _is_double(x):
        tail = Lanes(k, library.call(k, "log1p", exp(k, (-v.abs()).value)))
        return (v.at_least(0.0) + tail).value
    u = _exp_of_negative(-v.abs())
    s = u / (u + 2.0)  # log1p(u) = 2 atanh(u / (2 + u))
    z = s * s
    return (v.at_least(0.0) + (z.polynomial(_TWO_ATANH) * z).fma(s, s + s)).value


def mish(k: Builder, x: Value) -> Value:
    """x · tanh(softplus(x)) = x · n / (n + 2) with n = e^x (e^x + 2)."""
    v = Lanes(k, x)
    e = Lanes(k, exp(k, v.at_most(22.0).value))  # beyond, the fraction is 1 (in float64 too: 2 / n < 2^-60)
    n = e * (e + 2.0)
    return (v * (n / (n + 2.0))).value


# ---- logarithm and power -----------------------------------------------------------------------------------


def log(k: Builder, x: Value) -> Value:
    """The natural logarithm: -Inf of zeros, NaN of negative numbers. Error of the fit: 2^-30."""
    if _is_double(x):
        return library.call(k, "log", x)
    v = Lanes(k, x)
    denormal = v < 2.0**-126
    bits = (v * 2.0**23).where(denormal, v).bits()
    exponent = (bits - 0x3F3504F3) >> 23  # of the mantissa's interval [sqrt(1/2), sqrt(2))
    f = (bits - (exponent << 23)).floats() - 1.0
    e = exponent.to_float()
    e = (e - 23.0).where(denormal, e)
    square = f * f
    y = e.fma(_LN2_LOW, f.polynomial(_LOG) * f * square)
    result = e.fma(_LN2_HIGH, square.fma(-0.5, y) + f)
    result = result.where(v < math.inf, v)  # Inf and NaN as they are
    result = result.where(v.compare("!=", 0.0), -math.inf)
    return v.constant(math.nan).where(v < 0.0, result).value


def pow(k: Builder, x: Value, y: Value) -> Value:
    """x^y as C's pow: float32 through float64, where polynomials of 10 digits are enough for 1 ULP."""
    if _is_double(x):
        return library.call(k, "pow", x, y)
    base, power = Lanes(k, x).double(), Lanes(k, y).double()
    size = base.abs()
    bits = size.bits()
    exponent = (bits - 0x3FE6A09E667F3BCD) >> 52
    m = (bits - (exponent << 52)).floats()
    s = (m - 1.0) / (m + 1.0)
    z = s * s  # <= 0.0295: the series of atanh to s^13 is good to 2^-39
    log2m = s * z.polynomial([2.0 * _LOG2E / (2 * i + 1) for i in range(7)])
    log2 = Lanes(k, k.ir.sitofp(k.ir.trunc(exponent.value, vector(I32, lanes_of(x.type))), base.type)) + log2m
    log2 = log2.where(size < math.inf, size).where(size.compare("!=", 0.0), -math.inf)
    w = (power * log2).at_most(200.0).at_least(-200.0)
    round_ = 6755399441055744.0  # 1.5 · 2^52
    shifted = w + (round_ + 1023.0)
    fraction = w - (shifted - (round_ + 1023.0))
    two_to = (fraction * math.log(2.0)).polynomial([1.0 / math.factorial(i) for i in range(10)])
    result = two_to * (shifted.bits() << 52).floats()

    whole = power.intrinsic("floor").equals(power)
    half = power * 0.5
    odd = k.ir.and_(whole, half.intrinsic("floor").compare("!=", half))
    negative = k.ir.icmp_signed("<", base.bits().value, k.zero(base.integers))
    result = result.where(size.compare("!=", 1.0), 1.0 + (power - power).where(power.is_nan(), 0.0))
    result = (-result).where(k.ir.and_(odd, negative), result)
    no_root = k.ir.and_(k.ir.and_(base < 0.0, size < math.inf), k.ir.not_(whole))
    result = result.constant(math.nan).where(no_root, result)
    one = k.ir.or_(base.equals(1.0), power.equals(0.0))
    result = result.constant(1.0).where(one, result)
    return result.single().value


# ---- error function and its kin ----------------------------------------------------------------------------


def tanh(k: Builder, x: Value) -> Value:
    """The hyperbolic tangent: a polynomial in x² below 0.625 (fit 2^-28), else 1 - 2 / (e^2x + 1).

    One rational function for the whole range is a little faster, and 5 ULP off where it nears 1.
    """
    if _is_double(x):
        return library.call(k, "tanh", x)
    v = Lanes(k, x)
    size, square = v.abs(), v * v
    near = (v * square).fma(square.polynomial(_TANH), v)
    e = _exp_in_range((size * 2.0).at_most(20.0))
    far = (1.0 - 2.0 / (e + 1.0)).intrinsic("copysign", v)
    return near.where(size < 0.625, far).value


def erf(k: Builder, x: Value) -> Value:
    """The error function: a polynomial in x² below 1 (fit 2^-29), else 1 - e^(-x²) P(|x|) (2^-23.7)."""
    if _is_double(x):
        return library.call(k, "erf", x)
    v = Lanes(k, x)
    size = v.abs().at_most(3.93)
    square = size * size
    near = v.fma(square.polynomial(_ERF), v)
    tail = _exp_in_range(-square) * size.polynomial(_ERF_TAIL)
    far = (1.0 - tail).intrinsic("copysign", v)
    return near.where(v.abs() < 1.0, far).value


def gelu(k: Builder, x: Value) -> Value:
    """x · Φ(x), with the digits of the lower tail: Φ(-a) = e^(-a²/2) P(a) / Q(a), error of the fit 2^-26.

    1 + erf(x / √2) would cancel there.
    """
    v = Lanes(k, x)
    if _is_double(x):
        return (v * 0.5 * Lanes(k, library.call(k, "erfc", (v * -math.sqrt(0.5)).value))).value
    a = v.abs().at_most(14.5)
    # a² is needed to more digits than a float32 has: it stands in an exponent.
    if k.machine.fma:
        square = a * a
        rest = a.fma(a, -square)
    else:
        high = (a.bits() & -4096).floats()
        square = high * high
        rest = (a - high) * (a + high)
    tail = _exp(square * -0.5, rest * -0.5) * a.polynomial(_TAIL_P) / a.polynomial(_TAIL_Q)
    return (v * tail.where(v < 0.0, 1.0 - tail)).value


def gelu_tanh(k: Builder, x: Value) -> Value:
    """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) = x · sigmoid(2 √(2/π) (x + 0.044715 x³))."""
    v = Lanes(k, x)
    c = 2.0 * math.sqrt(2.0 / math.pi)
    inner = v * (v * v).fma(0.044715 * c, c)
    return (v * Lanes(k, sigmoid(k, inner.value))).value


# ---- circular functions ------------------------------------------------------------------------------------


def _circular(k: Builder, x: Value, name: str, quarter: int) -> Value:
    """sin(x + quarter · π/2), the reduction in float64; a vector with a huge lane goes to the C library."""
    v = Lanes(k, x)

    def near() -> list[Value]:
        d = v.double()
        round_ = 6755399441055744.0  # 1.5 · 2^52
        shifted = d.fma(2.0 / math.pi, round_)
        n = shifted - round_
        # π/2 in two parts (fdlibm's); the first has 33 bits: exact times n without FMA too
        r = n.fma(-6.07710050650619224932e-11, n.fma(-1.57079632673412561417, d)).single()
        z = r * r
        sine = (z * z.polynomial(_SIN)).fma(r, r)
        cosine = (z * z).fma(z.polynomial(_COS), z.fma(-0.5, 1.0))
        turns = Lanes(k, k.ir.trunc(shifted.bits().value, v.integers)) + quarter
        value = cosine.where((turns & 1).equals(1), sine)
        return [(value.bits() ^ ((turns & 2) << 30)).floats().value]

    def far() -> list[Value]:
        return [Lanes(k, library.call(k, name, v.double().value)).single().value]

    return k.either(any_lane(k, v.abs() > 1e6), far, near)[0]


def sin(k: Builder, x: Value) -> Value:
    """The sine; NaN of infinities."""
    return library.call(k, "sin", x) if _is_double(x) else _circular(k, x, "sin", 0)


def cos(k: Builder, x: Value) -> Value:
    """The cosine; NaN of infinities."""
    return library.call(k, "cos", x) if _is_double(x) else _circular(k, x, "cos", 1)


def through_double(name: str) -> Callable[[Builder, Value], Value]:
    """A rare function: the C library's on float64, lane by lane."""

    def function(k: Builder, x: Value) -> Value:
        if _is_double(x):
            return library.call(k, name, x)
        return Lanes(k, library.call(k, name, Lanes(k, x).double().value)).single().value

    return function
