"""Common divisors and multiples of integers."""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.loops import loop
from ingot.capture.aten.registry import composed, row
from ingot.capture.graph import GraphWriter

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_TURNS = 92  # that Euclid's algorithm takes at most, for two neighbouring Fibonacci numbers of 63 bits


@row("gcd")
def gcd(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """Greatest common divisors, by Euclid's algorithm; 0 of two zeros."""
    shape = g.shape(list(out.shape))
    states = [g.op("Expand", g.op("Abs", g.operand(v, torch.int64)), shape) for v in (a, b)]

    def body(w: GraphWriter, _: ir.Value, x: ir.Value, y: ir.Value) -> list[ir.Value]:
        zero = w.const(0)
        done = w.op("Equal", y, zero)
        rest = w.op("Mod", x, w.op("Where", done, w.const(1), y))
        return [w.op("Where", done, x, y), w.op("Where", done, zero, rest)]

    kinds = [ir.DataType.INT64] * 2
    found = loop(g, g.const(_TURNS), states, kinds, [out.dim()] * 2, body)[0]
    return g.cast(found, torch.int64, out.dtype)


@composed("lcm")
def lcm(a: Tensor, b: Tensor) -> Tensor:
    """Least common multiples; 0 with a zero."""
    a, b = a.long(), b.long()  # the sign goes before a small dtype wraps
    common = torch.gcd(a, b)
    return torch.abs(a.div(torch.where(common == 0, 1, common), rounding_mode="trunc") * b)
