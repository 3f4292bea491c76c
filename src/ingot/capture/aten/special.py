"""Special functions from operators that ONNX has: series, asymptotic expansions and recurrences, in float64.

Formulas are those of Abramowitz and Stegun, Handbook of Mathematical Functions (A&S), where nothing else is
said.
"""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.linalg import bound
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import Row, composed, row
from ingot.capture.graph import GraphWriter
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
EULER = 0.5772156649015329


def horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with these coefficients, the constant one first."""
    *rest, second, first = coefficients
    total = x * first + second
    for c in reversed(rest):
        total = total * x + c
    return total


def _wide(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """In float64, and back to what torch gives: float32 for integers."""

    def call(x: Tensor) -> Tensor:
        kept = x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
        return function(x.double()).to(kept)

    return call


def _unary(*names: str) -> Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]:
    def register(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        composed(*names)(_wide(function))
        return function

    return register


def _infinite(x: Tensor, sign: float = 1.0) -> Tensor:
    return torch.full_like(x, sign * math.inf)


def _nan(x: Tensor) -> Tensor:
    return torch.full_like(x, math.nan)


def _largest(x: Tensor) -> Tensor:
    """The largest element; 0 where there is none above it, or none at all."""
    return torch.amax(torch.cat([x.reshape(-1), x.new_zeros(1)]))


# -- gamma


@_unary("lgamma", "special_gammaln")
def lgamma(x: Tensor) -> Tensor:
    """log |Γ(x)|: Stirling's series from 8 on, below it by recurrence, and by reflection below 1/2."""
    left = x < 0.5
    z = torch.where(left, 1 - x, x)
    product = torch.ones_like(z)
    shifted = z
    for _ in range(8):
        small = shifted < 8
        product = torch.where(small, product * shifted, product)
        shifted = torch.where(small, shifted + 1, shifted)
    inverse = 1 / shifted
    series = horner(inverse * inverse, [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360])
    stirling = (shifted - 0.5) * torch.log(shifted) - shifted + 0.5 * math.log(2 * math.pi) + series * inverse
    right = torch.where(torch.isinf(shifted), _infinite(x), stirling) - torch.log(product)
    distance = torch.abs(x - torch.floor(x + 0.5))
    mirrored = math.log(math.pi) - torch.log(torch.sin(math.pi * distance)) - right
    y = torch.where(left, mirrored, right)
    poles = (x <= 0) & (torch.floor(x) == x)
    return torch.where(poles | torch.isinf(x), _infinite(x), y)


@_unary("digamma", "special_psi", "special_digamma")
def digamma(x: Tensor) -> Tensor:
    """The derivative of lgamma."""
    left = x < 0.5
    z = torch.where(left, 1 - x, x)
    total = torch.zeros_like(z)
    for _ in range(10):
        small = z < 10
        total = torch.where(small, total - 1 / z, total)
        z = torch.where(small, z + 1, z)
    inverse = 1 / (z * z)
    series = horner(inverse, [1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760])
    right = total + torch.log(z) - 0.5 / z - series * inverse
    turn = math.pi * (x - torch.floor(x))
    y = torch.where(left, right - math.pi * torch.cos(turn) / torch.sin(turn), right)
    y = torch.where((x < 0) & (torch.floor(x) == x), _nan(x), y)
    return torch.where(x == 0, -1 / x, y)


def _zeta(g: Recorder, s: Tensor, q: Tensor) -> Tensor:
    """Hurwitz' zeta function in float64: Σ (q + k)^-s, its tail by Euler and Maclaurin (Cephes' zeta)."""
    double = ir.DataType.DOUBLE

    def body(b: GraphWriter, k: ir.Value, s: ir.Value, a: ir.Value, total: ir.Value) -> list[ir.Value]:
        on = b.op("Or", b.op("Less", k, b.const(10)), b.op("LessOrEqual", a, b.const(9.0, double)))
        term = b.op("Pow", a, b.op("Neg", s))
        total = b.op("Where", on, b.op("Add", total, term), total)
        return [s, b.op("Where", on, b.op("Add", a, b.const(1.0, double)), a), total]

    s, q = torch.broadcast_tensors(s, q)
    finite = torch.where(torch.isfinite(q), q, torch.zeros_like(q))
    turns = torch.ceil(10 + _largest(-finite))
    count = g.op("Cast", g.val(turns), to=ir.DataType.INT64)
    states = [g.val(x) for x in (s, q, torch.zeros_like(q))]
    made = loop(g, count, states, [double] * 3, [q.dim()] * 3, body)
    w, total = (bound(g, q.shape, torch.float64, v) for v in made[1:])
    # The loop has added w^-s for its last w - 1; the tail begins at w.
    power = torch.pow(w, -s)
    total = total + w * power / (s - 1) + 0.5 * power
    factor, below = s * power / w, w * w
    bernoulli = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)
    for i, c in enumerate(bernoulli):
        total = total + c * factor
        factor = factor * (s + 2 * i + 1) * (s + 2 * i + 2) / below
    whole = torch.floor(q) == q
    total = torch.where(q <= 0, torch.where(torch.floor(s) == s, total, _nan(s)), total)
    total = torch.where((q <= 0) & whole, _infinite(s), total)
    total = torch.where(s == 1, _infinite(s), total)
    return torch.where((s < 1) | torch.isnan(s) | torch.isnan(q), _nan(s), total)


@row("special_zeta")
def zeta(g: Recorder, out: Tensor, s: Any, q: Any) -> ir.Value:
    """Hurwitz' zeta function."""

    def call() -> Tensor:
        both = [
            x.double() if isinstance(x, Tensor) else torch.full((), x, dtype=torch.float64) for x in (s, q)
        ]
        return _zeta(g, *both)

    return g.operand(g.recorded(call), out.dtype)


@row("polygamma", "special_polygamma")
def polygamma(g: Recorder, out: Tensor, n: Any, x: Any) -> ir.Value:
    """The n-th derivative of digamma: (-1)^(n + 1) n! ζ(n + 1, x)."""
    if isinstance(n, Tensor):  # the in-place form has them the other way round
        n, x = x, n

    def call() -> Tensor:
        wide = x.double()
        if n == 0:
            return digamma(wide)
        order = torch.full((), n + 1, dtype=torch.float64)
        return (-1) ** (n + 1) * math.factorial(n) * _zeta(g, order, wide)

    return g.operand(g.recorded(call), out.dtype)


def _incomplete(upper: bool) -> Row:
    """Γ's regularised integrals: a series below a + 1, a continued fraction above (A&S 6.5.29, 6.5.31)."""
    double = ir.DataType.DOUBLE

    def emit(g: Recorder, out: Tensor, a: Tensor, x: Tensor) -> ir.Value:
        def series(
            b: GraphWriter, k: ir.Value, a: ir.Value, x: ir.Value, term: ir.Value, total: ir.Value
        ) -> list[ir.Value]:
            below = b.op("Add", a, b.op("Add", b.op("Cast", k, to=double), b.const(1.0, double)))
            term = b.op("Div", b.op("Mul", term, x), below)
            return [a, x, term, b.op("Add", total, term)]

        def fraction(
            b: GraphWriter, k: ir.Value, a: ir.Value, b0: ir.Value, c: ir.Value, d: ir.Value, h: ir.Value
        ) -> list[ir.Value]:
            """Lentz' way, as Numerical Recipes' gcf."""
            one, two = b.const(1.0, double), b.const(2.0, double)
            i = b.op("Add", b.op("Cast", k, to=double), one)
            an = b.op("Mul", i, b.op("Sub", a, i))
            b0 = b.op("Add", b0, two)
            d = b.op("Div", one, b.op("Add", b.op("Mul", an, d), b0))
            c = b.op("Add", b0, b.op("Div", an, c))
            return [a, b0, c, d, b.op("Mul", h, b.op("Mul", c, d))]

        def call() -> Tensor:
            p, z = torch.broadcast_tensors(a.double(), x.double())
            fine = torch.isfinite(p) & torch.isfinite(z) & (p > 0) & (z > 0)
            p0, z0 = torch.where(fine, p, torch.ones_like(p)), torch.where(fine, z, torch.ones_like(z))
            lower = z0 < p0 + 1
            turns = g.op("Cast", g.val(60 + 12 * torch.sqrt(_largest(p0 + z0))), to=ir.DataType.INT64)
            rank = p.dim()
            # Where the other way is taken its operands are kept harmless.
            one = torch.ones_like(p0)
            ps, zs = torch.where(lower, p0, one), torch.where(lower, z0, one)
            states = [g.val(v) for v in (ps, zs, one, one)]
            total = loop(g, turns, states, [double] * 4, [rank] * 4, series)[3]
            front = p0 * torch.log(z0) - z0
            sum_ = bound(g, p.shape, torch.float64, total)
            small = sum_ * torch.exp(front - lgamma(p0 + 1))
            pf, zf = torch.where(lower, one, p0), torch.where(lower, one * 3, z0)
            b0 = zf + 1 - pf
            d = 1 / b0
            states = [g.val(v) for v in (pf, b0, one * 1e300, d, d)]
            made = loop(g, turns, states, [double] * 5, [rank] * 5, fraction)[4]
            large = bound(g, p.shape, torch.float64, made) * torch.exp(front - lgamma(p0))
            y = torch.where(lower, 1 - small, large) if upper else torch.where(lower, small, 1 - large)
            none, all_ = (1.0, 0.0) if upper else (0.0, 1.0)
            y = torch.where((z == 0) & (p > 0), torch.full_like(y, none), y)
            y = torch.where((p == 0) & (z > 0), torch.full_like(y, all_), y)
            y = torch.where(torch.isinf(p) & (p > 0) & torch.isfinite(z), torch.full_like(y, none), y)
            y = torch.where(torch.isinf(z) & torch.isfinite(p) & (z > 0), torch.full_like(y, all_), y)
            bad = (p < 0) | (z < 0) | torch.isnan(p) | torch.isnan(z) | ((p == 0) & (z == 0))
            return torch.where(bad | (torch.isinf(p) & torch.isinf(z)), _nan(y), y)

        return g.operand(g.recorded(call), out.dtype)

    return emit


row("igamma", "special_gammainc")(_incomplete(False))
row("igammac", "special_gammaincc")(_incomplete(True))


# -- error functions


@composed("erfinv", "special_erfinv")
def erfinv(x: Tensor) -> Tensor:
    """Giles' polynomials for single precision (GPU Computing Gems, 2011); two steps of Newton's in
    float64.
    """
    x = x if x.dtype.is_floating_point else x.to(torch.get_default_dtype())
    w = -torch.log((1 - x) * (1 + x))
    near = [1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06]
    near += [-3.5233877e-06, 3.43273939e-07, 2.81022636e-08]
    far = [2.83297682, 1.00167406, 0.00943887047, -0.0076224613, 0.00573950773, -0.00367342844]
    far += [0.00134934322, 0.000100950558, -0.000200214257]
    tail = horner(torch.sqrt(torch.clamp_min(w, 0)) - 3, far)
    y = x * torch.where(w < 5, horner(w - 2.5, near), tail)
    if x.dtype == torch.float64:
        for _ in range(2):
            y = y - (torch.erf(y) - x) * (math.sqrt(math.pi) / 2) * torch.exp(y * y)
    y = torch.where(torch.abs(x) == 1, x * math.inf, y)
    return torch.where(torch.abs(x) > 1, _nan(x), y)


# Of (1 + 2 z) exp(z²) erfc(z) for z >= 0 in powers of (z - c) / (z + c), which runs from -1 to 1, by
# interpolation at Chebyshev's points. c is 4 in float64, within 5e-16, and 2.5 in float32, within 5e-8.
_ERFC_64 = [
    1.2329951186255526, -0.139621116840557, 0.015379652102618402, 0.06809705425420673,
    -0.10103906603618064, 0.0937328350110569, -0.06633036581541651, 0.03716751538360477,
    -0.016197734020451597, 0.005031971017234254, -0.0007577735257382458, -0.0001992610018544279,
    0.00015062257137043143, -2.4387691264306046e-05, -1.1224122281497544e-05, 5.6894090899650724e-06,
    2.968409172531307e-07, -8.019174684327191e-07, 7.202517584836005e-08, 9.290772873032215e-08,
    -1.673812797437216e-08, -6.984021100158542e-09, 1.6403183696752708e-09,
]  # fmt: skip
_ERFC_32 = [
    1.26483818, -0.122357491, -0.0990244476, 0.157644631, -0.102968894,
    0.0326763726, 0.000942164442, -0.00417866144, 0.000468581915, 0.000404788142,
    -6.60132742e-05,
]  # fmt: skip


def _scaled_erfc(z: Tensor) -> Tensor:
    """exp(z²) erfc(z) for z >= 0."""
    c, coefficients = (4.0, _ERFC_64) if z.dtype == torch.float64 else (2.5, _ERFC_32)
    return horner(1 - 2 * c / (z + c), coefficients) / (1 + 2 * z)


@composed("erfc")
def erfc(x: Tensor) -> Tensor:
    """The complementary error function; 1 - erf(x) keeps none of its digits from 4 on.

    The square in exp(-z²) is taken apart, so that its rounding is not multiplied: of one part it is exact,
    the other is small.
    """
    x = x if x.dtype == torch.float64 else x.float()
    size = torch.abs(x)
    z = torch.where(size > 30, 30, size)  # from there on it is 0
    part = torch.round(z * 16) / 16
    y = _scaled_erfc(size) * (torch.exp(-part * part) * torch.exp((part - z) * (part + z)))
    return torch.where(x < 0, 2 - y, y)


@_unary("special_erfcx")
def erfcx(x: Tensor) -> Tensor:
    """The complementary error function times exp(x²); below zero 2 exp(x²) less that of -x."""
    y = _scaled_erfc(torch.abs(x))
    return torch.where(x < 0, 2 * torch.exp(x * x) - y, y)


@_unary("special_ndtri")
def ndtri(p: Tensor) -> Tensor:
    """The normal distribution's quantile: Acklam's rational functions, within 1.2e-9."""
    a = [2.506628277459239, -30.66479806614716, 138.3577518672690, -275.9285104469687, 220.9460984245205]
    a += [-39.69683028665376]
    b = [
        1.0,
        -13.28068155288572,
        66.80131188771972,
        -155.6989798598866,
        161.5858368580409,
        -54.47609879822406,
    ]
    c = [2.938163982698783, 4.374664141464968, -2.549732539343734, -2.400758277161838, -0.3223964580411365]
    c += [-0.007784894002430293]
    d = [1.0, 3.754408661907416, 2.445134137142996, 0.3224671290700398, 0.007784695709041462]
    q = p - 0.5
    middle = q * horner(q * q, a) / horner(q * q, b)
    low = torch.minimum(p, 1 - p)
    far = torch.sqrt(-2 * torch.log(low))
    tail = horner(far, c) / horner(far, d)
    y = torch.where(low < 0.02425, torch.where(p < 0.5, tail, -tail), middle)
    y = torch.where(p == 0, _infinite(p, -1), torch.where(p == 1, _infinite(p), y))
    return torch.where((p < 0) | (p > 1), _nan(p), y)


@_unary("special_log_ndtr")
def log_ndtr(x: Tensor) -> Tensor:
    """log of the normal distribution function."""
    t = x * math.sqrt(0.5)
    tail = torch.log(erfcx(-t) / 2) - t * t
    return torch.where(x < -1, tail, torch.log1p(-erfc(t) / 2))


# -- Bessel functions

_TERMS = 40
_SQUARES = [1 / math.factorial(k) ** 2 for k in range(_TERMS)]
_NEXT = [1 / (math.factorial(k) * math.factorial(k + 1)) for k in range(_TERMS)]
_HARMONIC = [sum(1 / i for i in range(1, k + 1)) for k in range(_TERMS + 1)]


def _signs(coefficients: Sequence[float]) -> list[float]:
    return [c * (-1) ** k for k, c in enumerate(coefficients)]


def _hankel(order: int, count: int = 20) -> list[float]:
    """A&S 9.2.9: (4ν² - 1)(4ν² - 9) … / (k! 8^k)."""
    made, value = [1.0], 1.0
    for k in range(1, count):
        value *= (4 * order * order - (2 * k - 1) ** 2) / (8 * k)
        made.append(value)
    return made


def _wave(x: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """J and Y for large x (A&S 9.2.5, 9.2.6)."""
    a = _hankel(order)
    inverse = 1 / x
    p = horner(inverse * inverse, _signs(a[0::2]))
    q = horner(inverse * inverse, _signs(a[1::2])) * inverse
    size = torch.sqrt(2 / (math.pi * x))
    turn = x - (order / 2 + 0.25) * math.pi
    c, s = torch.cos(turn), torch.sin(turn)
    return size * (p * c - q * s), size * (p * s + q * c)


_NEAR = 12.0


def _parted(x: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """|x| < limit, and |x| for either way, kept harmless where the other is taken."""
    size = torch.abs(x)
    near = size < limit
    return (
        near,
        torch.where(near, size, torch.ones_like(x)),
        torch.where(near, torch.full_like(x, limit), size),
    )


@_unary("special_bessel_j0")
def bessel_j0(x: Tensor) -> Tensor:
    """J0."""
    near, small, large = _parted(x, _NEAR)
    y = torch.where(near, horner(small * small / 4, _signs(_SQUARES)), _wave(large, 0)[0])
    return torch.where(torch.isinf(x), torch.zeros_like(x), y)


@_unary("special_bessel_j1")
def bessel_j1(x: Tensor) -> Tensor:
    """J1."""
    near, small, large = _parted(x, _NEAR)
    y = torch.where(near, horner(small * small / 4, _signs(_NEXT)) * small / 2, _wave(large, 1)[0])
    return torch.where(torch.isinf(x), torch.zeros_like(x), torch.where(x < 0, -y, y))


def _second_kind(x: Tensor, y: Tensor) -> Tensor:
    """-∞ at zero, NaN below it, 0 at infinity."""
    y = torch.where(torch.isinf(x), torch.zeros_like(x), y)
    return torch.where(x == 0, _infinite(x, -1), torch.where((x < 0) | torch.isnan(x), _nan(x), y))


@_unary("special_bessel_y0")
def bessel_y0(x: Tensor) -> Tensor:
    """Y0 (A&S 9.1.13)."""
    near, small, large = _parted(x, _NEAR)
    q = small * small / 4
    tail = [-c * h for c, h in zip(_signs(_SQUARES), _HARMONIC, strict=False)]
    y = (torch.log(small / 2) + EULER) * horner(q, _signs(_SQUARES)) + horner(q, tail)
    return _second_kind(x, torch.where(near, y * (2 / math.pi), _wave(large, 0)[1]))


def _psi_sums() -> list[float]:
    """ψ(k + 1) + ψ(k + 2)."""
    return [_HARMONIC[k] + _HARMONIC[k + 1] - 2 * EULER for k in range(_TERMS)]


@_unary("special_bessel_y1")
def bessel_y1(x: Tensor) -> Tensor:
    """Y1 (A&S 9.1.11)."""
    near, small, large = _parted(x, _NEAR)
    q = small * small / 4
    j1 = horner(q, _signs(_NEXT)) * small / 2
    sums = horner(q, [c * s for c, s in zip(_signs(_NEXT), _psi_sums(), strict=True)]) * small / 2
    y = (2 * torch.log(small / 2) * j1 - 2 / small - sums) / math.pi
    return _second_kind(x, torch.where(near, y, _wave(large, 1)[1]))


_LARGE = 15.0


def _scaled_first(x: Tensor, order: int) -> Tensor:
    """exp(-|x|) I(|x|) (A&S 9.6.12, 9.7.1)."""
    near, small, large = _parted(x, _LARGE)
    q = small * small / 4
    series = horner(q, _NEXT) * small / 2 if order else horner(q, _SQUARES)
    far = horner(1 / large, _signs(_hankel(order))) / torch.sqrt(2 * math.pi * large)
    return torch.where(near, series * torch.exp(-small), far)


@_unary("special_i0e")
def i0e(x: Tensor) -> Tensor:
    """exp(-|x|) I0(x)."""
    return _scaled_first(x, 0)


@_unary("i0", "special_i0", "special_modified_bessel_i0")
def i0(x: Tensor) -> Tensor:
    """I0."""
    return _scaled_first(x, 0) * torch.exp(torch.abs(x))


@_unary("special_i1e")
def i1e(x: Tensor) -> Tensor:
    """exp(-|x|) I1(x)."""
    y = _scaled_first(x, 1)
    return torch.where(x < 0, -y, y)


@_unary("special_i1", "special_modified_bessel_i1")
def i1(x: Tensor) -> Tensor:
    """I1."""
    return i1e(x) * torch.exp(torch.abs(x))


_MIDDLE = 8.0


def _scaled_second(x: Tensor, order: int) -> Tensor:
    """exp(x) K(x) (A&S 9.6.11, 9.6.13, 9.7.2); ∞ at zero, NaN below it."""
    near, small, large = _parted(x, _MIDDLE)
    q = small * small / 4
    log = torch.log(small / 2)
    if order:
        sums = horner(q, [c * s for c, s in zip(_NEXT, _psi_sums(), strict=True)]) * small / 4
        y = 1 / small + log * horner(q, _NEXT) * small / 2 - sums
    else:
        tail = [c * h for c, h in zip(_SQUARES, _HARMONIC, strict=False)]
        y = horner(q, tail) - (log + EULER) * horner(q, _SQUARES)
    far = horner(1 / large, _hankel(order, 14)) * torch.sqrt(math.pi / (2 * large))
    y = torch.where(near, y * torch.exp(small), far)
    return torch.where(x == 0, _infinite(x), torch.where((x < 0) | torch.isnan(x), _nan(x), y))


@_unary("special_scaled_modified_bessel_k0")
def scaled_k0(x: Tensor) -> Tensor:
    """exp(x) K0(x)."""
    return _scaled_second(x, 0)


@_unary("special_scaled_modified_bessel_k1")
def scaled_k1(x: Tensor) -> Tensor:
    """exp(x) K1(x)."""
    return _scaled_second(x, 1)


@_unary("special_modified_bessel_k0")
def k0(x: Tensor) -> Tensor:
    """K0."""
    return _scaled_second(x, 0) * torch.exp(-x)


@_unary("special_modified_bessel_k1")
def k1(x: Tensor) -> Tensor:
    """K1."""
    return _scaled_second(x, 1) * torch.exp(-x)


@_unary("special_spherical_bessel_j0")
def spherical_j0(x: Tensor) -> Tensor:
    """sin(x) / x."""
    safe = torch.where(x == 0, torch.ones_like(x), x)
    y = torch.where(torch.abs(x) < 1e-4, 1 - x * x / 6, torch.sin(safe) / safe)
    return torch.where(torch.isinf(x), torch.zeros_like(x), y)


@_unary("special_airy_ai")
def airy_ai(x: Tensor) -> Tensor:
    """Ai: its series within 6 (A&S 10.4.2), asymptotic beyond (10.4.59, 10.4.60)."""
    limit = 6.0
    near = torch.abs(x) < limit
    small = torch.where(near, x, torch.zeros_like(x))
    f, g = [1.0], [1.0]
    for k in range(1, 45):
        f.append(f[-1] / ((3 * k - 1) * (3 * k)))
        g.append(g[-1] / ((3 * k) * (3 * k + 1)))
    cube = small * small * small
    series = 0.3550280538878172 * horner(cube, f) - 0.2588194037928068 * small * horner(cube, g)
    large = torch.where(near, torch.full_like(x, limit), torch.abs(x))
    turn = large * torch.sqrt(large) * (2 / 3)
    u, value = [1.0], 1.0
    for k in range(1, 14):
        value *= (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / (216 * k * (2 * k - 1))
        u.append(value)
    root = math.sqrt(math.pi) * torch.sqrt(torch.sqrt(large))
    decay = torch.exp(-turn) * horner(1 / turn, _signs(u)) / (2 * root)
    square = 1 / (turn * turn)
    phase = turn + math.pi / 4
    swing = torch.sin(phase) * horner(square, _signs(u[0::2]))
    swing = (swing - torch.cos(phase) * horner(square, _signs(u[1::2])) / turn) / root
    y = torch.where(near, series, torch.where(x > 0, decay, swing))
    return torch.where(torch.isinf(x), torch.zeros_like(x), y)


# -- orthogonal polynomials

# How each begins, and what its next one is made of the last two: (a x + b) q - c p, over d, for number k.
_Step = Callable[[GraphWriter, ir.Value, ir.Value, ir.Value, ir.Value], ir.Value]


def _number(b: GraphWriter, k: ir.Value, times: float, plus: float) -> ir.Value:
    double = ir.DataType.DOUBLE
    scaled = b.op("Mul", b.op("Cast", k, to=double), b.const(times, double))
    return b.op("Add", scaled, b.const(plus, double))


def _chebyshev(b: GraphWriter, k: ir.Value, x: ir.Value, p: ir.Value, q: ir.Value) -> ir.Value:
    twice = b.op("Add", x, x)
    return b.op("Sub", b.op("Mul", twice, q), p)


def _hermite_h(b: GraphWriter, k: ir.Value, x: ir.Value, p: ir.Value, q: ir.Value) -> ir.Value:
    twice = b.op("Add", x, x)
    return b.op("Sub", b.op("Mul", twice, q), b.op("Mul", _number(b, k, 2, 2), p))


def _hermite_he(b: GraphWriter, k: ir.Value, x: ir.Value, p: ir.Value, q: ir.Value) -> ir.Value:
    return b.op("Sub", b.op("Mul", x, q), b.op("Mul", _number(b, k, 1, 1), p))


def _laguerre(b: GraphWriter, k: ir.Value, x: ir.Value, p: ir.Value, q: ir.Value) -> ir.Value:
    first = b.op("Mul", b.op("Sub", _number(b, k, 2, 3), x), q)
    return b.op("Div", b.op("Sub", first, b.op("Mul", _number(b, k, 1, 1), p)), _number(b, k, 1, 2))


def _legendre(b: GraphWriter, k: ir.Value, x: ir.Value, p: ir.Value, q: ir.Value) -> ir.Value:
    first = b.op("Mul", b.op("Mul", _number(b, k, 2, 3), x), q)
    return b.op("Div", b.op("Sub", first, b.op("Mul", _number(b, k, 1, 1), p)), _number(b, k, 1, 2))


def _polynomial(start: Callable[[Tensor], Tensor], step: _Step, shifted: bool = False) -> Row:
    """By recurrence up to the largest degree asked for; 0 for negative degrees."""

    def emit(g: Recorder, out: Tensor, x: Any, n: Any) -> ir.Value:
        double = ir.DataType.DOUBLE

        def body(
            b: GraphWriter, k: ir.Value, x: ir.Value, n: ir.Value, p: ir.Value, q: ir.Value, y: ir.Value
        ) -> list[ir.Value]:
            r = step(b, k, x, p, q)
            here = b.op("Equal", n, b.op("Add", k, b.const(2)))
            return [x, n, q, r, b.op("Where", here, r, y)]

        def call() -> Tensor:
            z, degree = (
                v.double() if isinstance(v, Tensor) else torch.full((), v, dtype=torch.float64)
                for v in (x, n)
            )
            z, degree = torch.broadcast_tensors(2 * z - 1 if shifted else z, degree)
            whole = degree.long()
            one, first = torch.ones_like(z), start(z)
            y = torch.where(whole == 0, one, torch.where(whole == 1, first, torch.zeros_like(z)))
            turns = g.op("Max", g.op("Sub", g.val(_largest(whole)), g.const(1)), g.const(0))
            states = [g.val(v) for v in (z, whole, one, first, y)]
            kinds = [double, ir.DataType.INT64, double, double, double]
            return bound(g, z.shape, torch.float64, loop(g, turns, states, kinds, [z.dim()] * 5, body)[4])

        return g.operand(g.recorded(call), out.dtype)

    return emit


_CHEBYSHEV: dict[str, Callable[[Tensor], Tensor]] = {
    "t": lambda x: x,
    "u": lambda x: 2 * x,
    "v": lambda x: 2 * x - 1,
    "w": lambda x: 2 * x + 1,
}
for _kind, _start in _CHEBYSHEV.items():
    row(f"special_chebyshev_polynomial_{_kind}")(_polynomial(_start, _chebyshev))
    row(f"special_shifted_chebyshev_polynomial_{_kind}")(_polynomial(_start, _chebyshev, True))
row("special_hermite_polynomial_h")(_polynomial(lambda x: 2 * x, _hermite_h))
row("special_hermite_polynomial_he")(_polynomial(lambda x: x, _hermite_he))
row("special_laguerre_polynomial_l")(_polynomial(lambda x: 1 - x, _laguerre))
row("special_legendre_polynomial_p")(_polynomial(lambda x: x, _legendre))


# -- parts of numbers


@composed("signbit")
def signbit(x: Tensor) -> Tensor:
    """Below zero, or the zero that is; a NaN's sign is out of sight and counts as none."""
    if not x.dtype.is_floating_point:
        return x < 0
    return (x < 0) | ((x == 0) & (1 / x < 0))


@composed("copysign")
def copysign(a: Tensor, b: Any) -> Tensor:
    """|a| with the sign of b."""
    dtype = torch.result_type(a, b)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    size = torch.abs(a.to(dtype))
    if not isinstance(b, Tensor):
        return -size if math.copysign(1.0, b) < 0 else size
    return torch.where(signbit(b), -size, size)


@composed("atan2")
def atan2(y: Tensor, x: Tensor) -> Tensor:
    """The angle of the point (x, y), by C's rules for zeros with a sign and for infinities."""
    dtype = torch.result_type(y, x)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    y, x = y.to(dtype), x.to(dtype)
    one, pi = (torch.full([], n, dtype=dtype) for n in (1.0, math.pi))
    # Two infinities are as far off as two ones are; at the origin, the signs alone tell.
    far = (torch.abs(y) == math.inf) & (torch.abs(x) == math.inf)
    up = torch.where(far, copysign(one, y), y)
    along = torch.where(far | ((y == 0) & (x == 0)), copysign(one, x), x)
    angle = torch.atan(up / along)
    return torch.where(signbit(x), angle + copysign(pi, y), angle)


@composed("frexp")
def frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """x = mantissa 2^exponent with 1/2 ≤ |mantissa| < 1; 0, infinities and NaN have exponent 0."""
    wide = torch.abs(x.double())
    plain = torch.isfinite(wide) & (wide > 0)
    safe = torch.where(plain, wide, torch.ones_like(wide))
    exponent = torch.floor(torch.log2(safe)) + 1
    mantissa = safe * torch.exp2(-exponent)
    high, low = mantissa >= 1, mantissa < 0.5
    exponent = torch.where(high, exponent + 1, torch.where(low, exponent - 1, exponent))
    mantissa = torch.where(high, mantissa / 2, torch.where(low, mantissa * 2, mantissa))
    mantissa = torch.where(x < 0, -mantissa, mantissa).to(x.dtype)
    return torch.where(plain, mantissa, x), torch.where(plain, exponent, torch.zeros_like(wide)).int()


@row("nextafter")
def nextafter(g: Recorder, out: Tensor, a: Tensor, b: Tensor) -> ir.Value:
    """The float32 beside a on b's side, by steps that float64 holds exactly."""
    if out.dtype != torch.float32:
        raise ExportError(f"nextafter is for float32 here; found {out.dtype}, whose steps ONNX cannot hold.")

    def call(a: Tensor, b: Tensor) -> Tensor:
        x, y = torch.broadcast_tensors(a, b)
        mantissa, exponent = frexp(x)
        up = y > x
        outwards = up == (x > 0)
        # Below a power of two the steps are half as wide.
        narrow = ~outwards & (torch.abs(mantissa) == 0.5)
        power = torch.clamp_min(exponent - torch.where(narrow, 25, 24), -149).double()
        step = torch.where(x == 0, torch.full_like(x, 2.0**-149).double(), torch.exp2(power))
        moved = (x.double() + torch.where(up, step, -step)).float()
        largest = torch.finfo(torch.float32).max
        inwards = torch.where(x > 0, torch.full_like(x, largest), torch.full_like(x, -largest))
        moved = torch.where(torch.isinf(x), inwards, moved)
        moved = torch.where(x == y, y, moved)
        return torch.where(torch.isnan(x) | torch.isnan(y), _nan(x), moved)

    return g.val(g.recorded(call, a, b))


@composed("hypot")
def hypot(a: Tensor, b: Tensor) -> Tensor:
    """sqrt(a² + b²), scaled by the larger so that neither square overflows."""
    from ingot.capture.complex_numbers import modulus

    return modulus(a, b)


@composed("angle")
def angle(x: Tensor) -> Tensor:
    """0, or π below zero."""
    y = torch.where(x < 0, math.pi, 0.0).to(
        x.dtype if x.dtype.is_floating_point else torch.get_default_dtype()
    )
    return torch.where(torch.isnan(x), x, y) if x.dtype.is_floating_point else y


@composed("fmax")
def fmax(a: Tensor, b: Tensor) -> Tensor:
    """The larger; of a number and a NaN the number."""
    if not (a.dtype.is_floating_point or b.dtype.is_floating_point):
        return torch.maximum(a, b)
    return torch.where(torch.isnan(a), b, torch.where(torch.isnan(b), a, torch.maximum(a, b)))


@composed("fmin")
def fmin(a: Tensor, b: Tensor) -> Tensor:
    """The smaller; of a number and a NaN the number."""
    if not (a.dtype.is_floating_point or b.dtype.is_floating_point):
        return torch.minimum(a, b)
    return torch.where(torch.isnan(a), b, torch.where(torch.isnan(b), a, torch.minimum(a, b)))
