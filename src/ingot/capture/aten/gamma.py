"""The gamma function, its logarithm's derivatives (zeta) and its integrals (A&S 6)."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.linalg import bound
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import Row, row
from ingot.capture.aten.special import horner, in_float64, infinities, largest, nans
from ingot.capture.graph import GraphWriter

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


@in_float64("lgamma", "special_gammaln")
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
    right = torch.where(torch.isinf(shifted), infinities(x), stirling) - torch.log(product)
    distance = torch.abs(x - torch.floor(x + 0.5))
    mirrored = math.log(math.pi) - torch.log(torch.sin(math.pi * distance)) - right
    y = torch.where(left, mirrored, right)
    poles = (x <= 0) & (torch.floor(x) == x)
    return torch.where(poles | torch.isinf(x), infinities(x), y)


@in_float64("digamma", "special_psi", "special_digamma")
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
    y = torch.where((x < 0) & (torch.floor(x) == x), nans(x), y)
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
    turns = torch.ceil(10 + largest(-finite))
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
    total = torch.where(q <= 0, torch.where(torch.floor(s) == s, total, nans(s)), total)
    total = torch.where((q <= 0) & whole, infinities(s), total)
    total = torch.where(s == 1, infinities(s), total)
    return torch.where((s < 1) | torch.isnan(s) | torch.isnan(q), nans(s), total)


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
            turns = g.op("Cast", g.val(60 + 12 * torch.sqrt(largest(p0 + z0))), to=ir.DataType.INT64)
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
            return torch.where(bad | (torch.isinf(p) & torch.isinf(z)), nans(y), y)

        return g.operand(g.recorded(call), out.dtype)

    return emit


row("igamma", "special_gammainc")(_incomplete(False))
row("igammac", "special_gammaincc")(_incomplete(True))
