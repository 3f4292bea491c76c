"""Whole numbers of Python's have no end, those of the graph have 64 bits: where one that data decides may be
beyond them, the run fails. So it does where `int`, `floor`, `ceil` and `round` are given what is no number.

What a loop counts up by little stays far below, which is known without a check.
"""

# SymPy and torch's symbolic numbers are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy
import torch

from ingot.capture import checks, extent
from ingot.capture.bounds import functions
from ingot.capture.extent import HIGHEST, LOWEST, MANY, beyond

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Numbers = Mapping[Any, Any]  # those that rounds give each other, by their places

_BELOW = 2.0**63 * (1 - 2.0**-40)  # what is below has 64 bits, whatever a few float operations round
_STEP = 1 << 15  # by how much one addition counts a number up, at the most
_COUNTED = MANY * _STEP  # what all additions of a run come to: 2**59
_WHAT = "the whole number has 64 bits, of which Python's may have more"
_LIMITS = (1 << 60, 1 << 61, 1 << 62)


# -- floats that become whole numbers


def require_whole(g: Recorder, value: ir.Value, dtype: torch.dtype) -> None:
    """The run fails where a float, a value of shape [], has no whole number of 64 bits."""
    if extent.of_value(value) <= _BELOW:
        return
    if dtype.itemsize == 2:  # in which 2**63 is none
        value, dtype = g.cast(value, dtype, torch.float32), torch.float32
    checks.require_uncaught(
        "what becomes a whole number is one",
        "Ask with `math.isfinite` or `torch.isfinite` before.",
        ValueError,
        OverflowError,
    )
    checks.require(
        g,
        g.op("Less", g.op("Abs", value), g.const(2.0**63, dtype)),
        "what becomes a whole number is no NaN and no infinity, and within 64 bits",
    )


def require_whole_number(g: Recorder, x: torch.SymFloat) -> None:
    """The same of a number that data decides."""
    e = g.env.expr(x)
    if g.env.of_data(e) and max(map(abs, extent.of_formula(g, e))) > _BELOW:
        require_whole(g, g.sizes.scalar_of(e), torch.float64)


# -- sums, products and powers


def operand(g: Recorder, x: Any, dtype: torch.dtype) -> ir.Value:
    """A tensor or number as a value; the run fails where it comes to a number of more than 64 bits."""
    if dtype != torch.int64 or not isinstance(x, int) or LOWEST <= x <= HIGHEST:
        return g.operand(x, dtype)
    checks.require(g, g.const(False, torch.bool), _WHAT)
    return g.const(0, dtype)


def require_fits(g: Recorder, e: Any) -> None:
    """The run fails where a sum, product, power, quotient or size of whole numbers has more than 64 bits, if
    it may.
    """
    if isinstance(e, (functions().FloorDiv, sympy.Abs)):
        _require_turnable(g, *e.args)
        return
    low, high = extent.of_formula(g, e)
    if low >= LOWEST and high <= HIGHEST:
        return
    line = _line(e)
    if line is None:
        holds = [g.op("Less", _magnitude(g, e), g.const(_BELOW, torch.float64))]
    else:
        symbol, slope, constant = line
        ends = sorted(((LOWEST - constant, HIGHEST - constant)), reverse=slope < 0)
        least, most = -(-ends[0] // slope), ends[1] // slope
        before = extent.of_formula(g, symbol)
        if least > most or least > before[1] or most < before[0]:
            raise beyond(e)
        asked = [sympy.Ge(symbol, least)] * (before[0] < least) + [sympy.Le(symbol, most)] * (
            before[1] > most
        )
        holds = [g.sizes.scalar_of(c) for c in asked if g.env.known(c) is not True]
        g.narrowed[symbol] = max(before[0], least), min(before[1], most)
    if holds:
        whole = functools.reduce(lambda a, b: g.op("And", a, b), holds)
        checks.require(g, whole, _WHAT)


def require_sum_fits(g: Recorder, rows: torch.Tensor) -> None:
    """The same of the sum of Python's whole numbers, the elements of a tensor."""
    value = g.operand(rows, torch.int64)
    if extent.of_value(value) * MANY <= HIGHEST:
        return
    sizes = g.op("Abs", g.cast(value, torch.int64, torch.float64))
    total = g.op("ReduceSum", sizes, keepdims=0)
    checks.require(g, g.op("Less", total, g.const(_BELOW, torch.float64)), _WHAT)


def _require_turnable(g: Recorder, x: Any, by: Any = sympy.S.NegativeOne) -> None:
    """The run fails where the lowest number of 64 bits would get another sign: divided by -1, or by `abs`."""
    least, most = extent.of_formula(g, by)
    if extent.of_formula(g, x)[0] <= LOWEST and least <= -1 <= most:
        fits: Any = sympy.Not(sympy.And(sympy.Lt(x, LOWEST + 1), sympy.Eq(by, -1)))  # pyright: ignore[reportArgumentType]
        checks.require(g, g.sizes.scalar_of(fits), _WHAT)


def _line(e: Any) -> tuple[Any, int, int] | None:
    """A formula of one number as the number, its slope and what is added; None for others."""
    if len(e.free_symbols) != 1:
        return None
    (symbol,) = e.free_symbols
    slope = e.coeff(symbol)
    constant = e - slope * symbol
    whole = slope.is_Integer and slope != 0 and constant.is_Integer
    return (symbol, int(slope), int(constant)) if whole else None


def _magnitude(g: Recorder, e: Any) -> ir.Value:
    """No less than a formula, whatever its sign, and its parts: a DOUBLE of shape []."""
    if e.is_number:
        return g.const(math.inf if abs(e) > 2**1000 else abs(float(e)), torch.float64)
    parts: list[ir.Value] = []
    if isinstance(e, (sympy.Add, sympy.Mul)):
        parts = [_magnitude(g, a) for a in e.args]
        return functools.reduce(lambda a, b: g.op("Add" if e.is_Add else "Mul", a, b), parts)
    if isinstance(e, (sympy.Pow, functions().PowByNatural)):
        exponent = g.cast(g.sizes.scalar_of(e.args[1]), torch.int64, torch.float64)
        return g.op("Pow", _magnitude(g, e.args[0]), exponent)
    return g.op("Abs", g.cast(g.sizes.scalar_of(e), torch.int64, torch.float64))


# -- what rounds count


@dataclass(frozen=True)
class Growth:
    """What becomes of a number: it stays what it was, or is set to one whose size is `most` at the most; and
    whether little was added.
    """

    most: float = 0
    counted: bool = False

    def __or__(self, other: Growth) -> Growth:
        return Growth(max(self.most, other.most), self.counted or other.counted)

    @property
    def reaches(self) -> float:
        """How large it may be."""
        return self.most + _COUNTED * self.counted


class Counters:
    """The whole numbers of one loop, and the limits that rounds keep them in."""

    def __init__(self, g: Recorder) -> None:
        self.g = g
        self._limits: dict[Any, float] = {}  # infinity: beyond 64 bits, perhaps

    def begin(self, starts: Numbers, given: Numbers) -> None:
        """A round is about to be recorded, in which numbers are taken to be within their limits."""
        for key, number in given.items():
            if isinstance(number, torch.SymInt):
                first = Growth(self._size(starts.get(key, 0)), True)
                limit = self._limits.setdefault(key, _limit(first.reaches))
                self._put(number, limit)

    def hold(self, starts: Numbers, given: Numbers, left: Numbers) -> bool:
        """Whether what a round leaves is within the limits; they are widened where not."""
        same = True
        for key, number in given.items():
            limit = self._limits.get(key, math.inf)
            if not isinstance(number, torch.SymInt) or limit == math.inf:
                continue
            growth = Growth(self._size(starts.get(key, 0))) | self._growth(
                self.g.env.expr(left[key]), self.g.env.expr(number)
            )
            if growth.reaches > limit:
                self._limits[key], same = _limit(growth.reaches), False
        return same

    def end(self, starts: Numbers, given: Numbers, left: Numbers, results: Numbers) -> None:
        """What the last round leaves, to whatever is behind the loop."""
        env = self.g.env
        for key, number in results.items():
            limit = self._limits.get(key, math.inf)
            if isinstance(number, torch.SymInt) and limit < math.inf and key in given:
                self._put(number, limit)
                growth = self._growth(env.expr(left[key]), env.expr(given[key]))
                self.g.grown[env.expr(number)] = env.expr(starts.get(key, 0)), growth

    def _put(self, number: torch.SymInt, limit: float) -> None:
        if limit < math.inf:
            self.g.extents[self.g.env.expr(number)] = -limit, limit

    def _size(self, number: Any) -> float:
        return max(map(abs, extent.of_formula(self.g, self.g.env.expr(number))))

    def _growth(self, e: Any, symbol: Any) -> Growth:
        """What has become of a number, as a formula says what it is now."""
        g = self.g
        if e == symbol:
            return Growth()
        if e in g.merged:
            _, then, other = g.merged[e]
            return self._growth(then, symbol) | self._growth(other, symbol)
        if e in g.grown and self._leads(e, symbol):
            start, growth = g.grown[e]
            return self._growth(start, symbol) | growth
        if not self._leads(e, symbol):
            return Growth(max(map(abs, extent.of_formula(g, e))))
        for a in e.args if e.is_Add else ():
            if a.is_Symbol and self._leads(a, symbol) and self._is_little(e - a):
                return self._growth(a, symbol) | Growth(counted=True)
        return Growth(math.inf)

    def _leads(self, e: Any, symbol: Any) -> bool:
        """Whether a formula is made of a number."""
        g = self.g
        todo, seen = list(e.free_symbols), set[Any]()
        while todo:
            s = todo.pop()
            if s == symbol:
                return True
            if s in seen:
                continue
            seen.add(s)
            made_of = [*g.merged.get(s, ()), *g.grown.get(s, ())[:1]]
            todo += [t for part in made_of for t in part.free_symbols]
        return False

    def _is_little(self, e: Any) -> bool:
        """Whether it is a small number, or a size: a count of elements that the run goes through."""
        low, high = extent.of_formula(self.g, e)
        return bool((low >= -_STEP and high <= _STEP) or (e.is_Symbol and e.is_nonnegative))


def _limit(reached: float) -> float:
    return next((n for n in _LIMITS if reached <= n), math.inf)
