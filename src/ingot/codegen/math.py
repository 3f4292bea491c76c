"""exp, log, tanh, erf and their kin on vectors of float32 and float64: 4 ULP over the whole range.

NaN and Inf are as in NumPy. float64's powers go to the C library, lane by lane.

Each function takes a Builder and a register value and returns one of the same type. Polynomials and rational
functions here are float32's, minimax fits of the relative error (Lawson's iteration, coefficients rounded
to float32 lowest degree first, numerators and denominators scaled so that little is lost by it); the error of
the fit is given beside each. Those that both widths share are in `precision.py`.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math

from llvmlite import ir

from ingot.codegen import library
from ingot.codegen.builder import I32, Builder, Value, element_of, lanes_of, vector
from ingot.codegen.lanes import Lanes
from ingot.codegen.precision import DOUBLE, ERF, ERFC, FLOAT, LOG2E, format_of

_EXP = (
    0.4999999403953552,
    0.1666652113199234,
    0.04166826605796814,
    0.008368677459657192,
    0.001382073387503624,
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
#: erf(x) = x P(x²) / Q(x²) for |x| <= 3.97, error of the fit 2^-25
_ERF_P = (
    *(1.650144338607788, 0.28040987253189087, 0.07733946293592453, 0.005574576091021299),
    *(0.0004152641340624541, 2.9450175134115852e-06),
)
_ERF_Q = (
    *(1.46240234375, 0.7359735369682312, 0.16762888431549072, 0.0220290906727314),
    *(0.0017111684428527951, 5.5086416978156194e-05),
)


def _is_double(x: Value) -> bool:
    return isinstance(element_of(x.type), ir.DoubleType)


# ---- exponentials ------------------------------------------------------------------------------------------


def _scale(x: Lanes, n: Lanes) -> Lanes:
    """x · 2^n for |x| in [0.5, 2) and a whole n up to a few more than exponents go, rounded once."""
    k, lanes, own = x.k, lanes_of(x.type), format_of(x)
    wide = 8 if own is DOUBLE else 16
    if lanes == wide and "+avx512f" in k.machine.features:
        mask = ir.IntType(wide)
        name = f"llvm.x86.avx512.mask.scalef.{'pd' if own is DOUBLE else 'ps'}.512"
        scalef = k.declare(name, x.type, [x.type, x.type, x.type, mask, I32])
        return Lanes(k, k.ir.call(scalef, [x.value, n.value, x.value, mask(-1), I32(4)]))
    # In two products, the first of which is exact: 2^n itself may be denormal or infinite where the result
    # is not.
    first = n.at_most(float(own.bias)).at_least(2.0 - own.bias)
    return x * _two_to(first) * _two_to(n - first)


def _two_to(n: Lanes) -> Lanes:
    """2^n for a whole n whose power is a normal number."""
    own = format_of(n)
    return ((n + (own.round + own.bias)).bits() << own.mantissa).floats()


def _reduce(x: Lanes) -> tuple[Lanes, Lanes]:
    """n and r with x = n · ln 2 + r, n whole, |r| <= ln 2 / 2."""
    own = format_of(x)
    n = x.fma(LOG2E, own.round) - own.round
    return n, n.fma(-own.ln2[1], n.fma(-own.ln2[0], x))


def exp_times(x: Lanes, low: Lanes | None = None, doublings: float = 0.0) -> Lanes:
    """exp(x + low) · 2^doublings, finite where that is, for x in exp's range and a small `low`.

    Error of the fit: 2^-28, of float64 2^-60.
    """
    n, r = _reduce(x)
    if low is not None:
        r = r + low
    coefficients = DOUBLE.expm1 if format_of(x) is DOUBLE else _EXP
    return _scale(r.polynomial(coefficients).fma(r * r, r) + 1.0, n + doublings if doublings else n)


def exp(k: Builder, x: Value) -> Value:
    """e^x."""
    v = Lanes(k, x)
    low, high = format_of(v).exp_range
    return exp_times(v.at_most(high).at_least(low)).value


def _power_and_rest(x: Lanes) -> tuple[Lanes, Lanes]:
    """2^n and r with x = n · ln 2 + r, n whole, |r| <= ln 2 / 2.

    The power is 0 for n = -127 (-1023 in float64) and Inf for 128 (1024), and wrong beyond.
    """
    own = format_of(x)
    bias = own.round + own.bias
    shifted = x.fma(LOG2E, bias)
    n = shifted - bias
    return (shifted.bits() << own.mantissa).floats(), n.fma(-own.ln2[1], n.fma(-own.ln2[0], x))


def _exp_between(x: Lanes, low: Lanes | None = None) -> Lanes:
    """exp(x + low) for x in `Format.flushed` and a small `low`: 0 at its lower end, Inf at the upper one."""
    own = format_of(x)
    power, r = _power_and_rest(x)
    if low is not None:
        r = r + low
    return (r.polynomial(own.expm1 if own is DOUBLE else _EXP).fma(r * r, r) + 1.0) * power


def exp_or_zero(x: Lanes) -> Lanes:
    """exp(x) for x <= 89 (710 in float64): Inf there, 0 where it is not a normal number.

    For what is added to larger numbers, or divided by: it takes two thirds of the instructions of `exp`.
    """
    return _exp_between(x.at_least(format_of(x).flushed[0]))


def _exp_less_one(x: Lanes) -> Lanes:
    """e^x - 1 without cancellation, for x whose power of two is a normal number."""
    power, r = _power_and_rest(x)
    return r.polynomial(format_of(x).expm1).fma(r * r, r).fma(power, power - 1.0)


def expm1_of_negative(k: Builder, x: Value) -> Value:
    """e^x - 1 for x <= 0, without cancellation; of a positive x, 0."""
    return _exp_less_one(Lanes(k, x).at_least(-40.0).at_most(0.0)).value


def sigmoid(k: Builder, x: Value) -> Value:
    """1 / (1 + e^-x); 0 where e^-x is infinite, as in PyTorch."""
    return share(Lanes(k, x), 1.0).value


def share(x: Lanes, whole: Lanes | float) -> Lanes:
    """whole · sigmoid(x), with one division."""
    low, high = format_of(x).flushed
    denominator = _exp_between(-x.at_most(-low).at_least(-high)) + 1.0  # LLVM negates in multiply-adds
    return (denominator.constant(whole) if isinstance(whole, float) else whole) / denominator


def softplus(k: Builder, x: Value) -> Value:
    """log(1 + e^x) = max(x, 0) + log1p(e^-|x|)."""
    v = Lanes(k, x)
    u = exp_or_zero(-v.abs())
    if _is_double(x):
        return (v.at_least(0.0) + log_one_more(u)).value
    s = u / (u + 2.0)  # log1p(u) = 2 atanh(u / (2 + u))
    z = s * s
    return (v.at_least(0.0) + (z.polynomial(_TWO_ATANH) * z).fma(s, s + s)).value


def mish(k: Builder, x: Value) -> Value:
    """x · tanh(softplus(x)) = x · n / (n + 2) with n = e^x (e^x + 2)."""
    v = Lanes(k, x)
    e = exp_or_zero(v.at_most(22.0))  # beyond, the fraction is 1 (in float64 too: 2 / n < 2^-60)
    n = e * (e + 2.0)
    return (v * (n / (n + 2.0))).value


# ---- logarithm and power -----------------------------------------------------------------------------------


def log_of(u: Lanes, lost: Lanes | None = None) -> Lanes:
    """log(u + lost) of u > 0, an Inf or NaN itself; `lost`: too small for u. Error of the fit: 2^-30, 2^-59.

    2 atanh(f / (2 + f)) = f - (f² / 2 - s (f² / 2 + R(s²))) with f = u - 1 and s = f / (2 + f), after fdlibm.
    """
    k, own = u.k, format_of(u)
    denormal = u < own.least
    up = own.mantissa + 1
    bits = (u * 2.0**up).where(denormal, u).bits()
    exponent = (bits - own.root_half) >> own.mantissa  # of the mantissa's interval [√½, √2)
    f = (bits - (exponent << own.mantissa)).floats() - 1.0
    narrow = k.ir.trunc(exponent.value, vector(I32, lanes_of(u.type))) if own is DOUBLE else exponent.value
    e = Lanes(k, k.ir.sitofp(narrow, u.type))
    e = (e - float(up)).where(denormal, e)
    s = f / (f + 2.0)
    z, half = s * s, f * f * 0.5
    low = e * own.ln2[1] if lost is None else e.fma(own.ln2[1], lost / u)
    result = e.fma(own.ln2[0], f - (half - s.fma(z.fma(z.polynomial(own.two_atanh), half), low)))
    return result.where(u < math.inf, u)


def log_one_more(x: Lanes) -> Lanes:
    """log(1 + x) for x > -1, with the digits that 1 + x loses; of -1 -Inf, below NaN."""
    u = x + 1.0
    lost = (1.0 - (u - x)).where(u > 2.0, x - (u - 1.0))
    y = log_of(u, lost).where(u.compare("!=", 0.0), -math.inf)
    return y.constant(math.nan).where(u < 0.0, y)


def log(k: Builder, x: Value) -> Value:
    """The natural logarithm: -Inf of zeros, NaN of negative numbers. Error of the fit: 2^-30 (2^-59)."""
    v = Lanes(k, x)
    if _is_double(x):
        result = log_of(v).where(v.compare("!=", 0.0), -math.inf)
        return v.constant(math.nan).where(v < 0.0, result).value
    denormal = v < 2.0**-126
    bits = (v * 2.0**23).where(denormal, v).bits()
    exponent = (bits - 0x3F3504F3) >> 23  # of the mantissa's interval [sqrt(1/2), sqrt(2))
    f = (bits - (exponent << 23)).floats() - 1.0
    e = exponent.to_float()
    e = (e - 23.0).where(denormal, e)
    square = f * f
    y = e.fma(FLOAT.ln2[1], f.polynomial(_LOG) * f * square)
    result = e.fma(FLOAT.ln2[0], square.fma(-0.5, y) + f)
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
    log2m = s * z.polynomial([2.0 * LOG2E / (2 * i + 1) for i in range(7)])
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
    """The hyperbolic tangent: e / (e + 2) with e = e^2x - 1, of |x|."""
    v = Lanes(k, x)
    size = v.abs()
    e = _exp_less_one((size + size).at_most(44.0 if _is_double(x) else 20.0))
    return (e / (e + 2.0)).intrinsic("copysign", v).value


def erf(k: Builder, x: Value) -> Value:
    """The error function: a polynomial in x² below 1 (fit 2^-29), else 1 - e^(-x²) P(|x|) (2^-23.7)."""
    v = Lanes(k, x)
    if _is_double(x):
        size = v.abs().at_most(6.0)
        square = size * size
        tail = _exp_between(-square) * _scaled_tail(size)
        far = (1.0 - tail).intrinsic("copysign", v)
        return v.fma(square.polynomial(ERF), v).where(v.abs() < 1.0, far).value
    size = v.abs().at_most(4.2)  # from 4 on what is left rounds to 1, which sums with 1 rely on
    square = size * size
    near = v.fma(square.polynomial(_ERF), v)
    tail = _exp_between(-square) * size.polynomial(_ERF_TAIL)
    far = (1.0 - tail).intrinsic("copysign", v)
    return near.where(v.abs() < 1.0, far).value


def _scaled_tail(y: Lanes) -> Lanes:
    """e^(y²) erfc(y) of float64 values from 0 to 28. Error of the fit: 2^-53."""
    return ((y - 3.75) / (y + 3.75)).polynomial(ERFC) / y.fma(2.0, 1.0)


def gelu(k: Builder, x: Value) -> Value:
    """x · Φ(x) = x / 2 · (1 + erf(x / √2)), within 3 units in the last place of x (PyTorch: 4), not of the
    result: the sum cancels in the lower tail. float64 keeps the tail's digits.
    """
    v = Lanes(k, x)
    if _is_double(x):
        return _gelu_with_tail(v).value
    u, half = v * math.sqrt(0.5), v * 0.5
    square = (u * u).at_most(3.97**2)
    quotient = u * square.polynomial(_ERF_P) / square.polynomial(_ERF_Q)  # at 3.97 and beyond, 1 or more
    return half.fma(quotient.at_most(1.0).at_least(-1.0), half).value


def _gelu_with_tail(v: Lanes) -> Lanes:
    """The same of float64: Φ(-a) = e^(-a²/2) · ½ e^(a²/2) erfc(a / √2)."""
    k = v.k
    a = v.abs().at_most(37.66)  # the power is 0 there
    half = a * -0.5
    # a² is needed to more digits than it has: it stands in an exponent.
    if k.machine.fma:
        square = a * half
        rest = a.fma(half, -square)
    else:
        high = (a.bits() & -(1 << 27)).floats()
        square = high * high * -0.5
        rest = (a - high) * (a + high) * -0.5
    tail = _exp_between(square, rest) * _scaled_tail(a * math.sqrt(0.5)) * 0.5
    return v * tail.where(v < 0.0, 1.0 - tail)


def gelu_tanh(k: Builder, x: Value) -> Value:
    """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))) = x · sigmoid(2 √(2/π) (x + 0.044715 x³))."""
    v = Lanes(k, x)
    c = 2.0 * math.sqrt(2.0 / math.pi)
    inner = v * (v * v).fma(0.044715 * c, c)
    return share(inner, v).value
