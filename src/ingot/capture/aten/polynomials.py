"""Orthogonal polynomials, by recurrence up to the degree that is asked for."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.linalg import bound
from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import Row, row
from ingot.capture.aten.special import largest
from ingot.capture.graph import GraphWriter

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


Tensor = torch.Tensor


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
            turns = g.op("Max", g.op("Sub", g.val(largest(whole)), g.const(1)), g.const(0))
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
