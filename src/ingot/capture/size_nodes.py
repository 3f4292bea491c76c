"""Size formulas as ONNX nodes, each made once."""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, BooleanFunction, Not, Or

from ingot.capture import floats
from ingot.capture.bounds import functions
from ingot.capture.division import downwards
from ingot.capture.extent import HIGHEST, LOWEST, Range, beyond
from ingot.capture.graph import GraphWriter
from ingot.capture.journal import Journal, Table
from ingot.capture.one_of import OneOf
from ingot.capture.size_symbols import StaleRead
from ingot.capture.sizes import SizeEnv
from ingot.capture.where import quoted_line
from ingot.errors import ExportError

# Functions of torch.sym_* that have an operator of the same meaning.
_OPAQUE = {
    f"OpaqueUnaryFn_{name}": name.capitalize()
    for name in ("sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "exp", "log")
}
_BITWISE = {f"BitwiseFn_bitwise_{name}": f"Bitwise{name.capitalize()}" for name in ("and", "or", "xor")}


class SizeWriter:
    """Size formulas as ONNX nodes: every value is int64 (or float64) of shape [1], and made once."""

    def __init__(
        self,
        graph: GraphWriter,
        env: SizeEnv,
        journal: Journal,
        require_fits: Callable[[Any], None],
        range_of: Callable[[Any], Range],
    ) -> None:
        """require_fits: called before a sum, product, power, quotient or size of whole numbers becomes nodes;
        range_of: the least and the most that a formula may be
        """
        self.graph = graph
        self.require_fits, self.range_of = require_fits, range_of
        self.env = env
        self.sources: dict[sympy.Symbol, tuple[ir.Value, int]] = Table(journal)
        self.scalars: dict[Any, ir.Value] = Table(journal)  # numbers computed from data: values of shape []
        self.formulas: dict[ir.Value | None, Any] = {}  # of tensors of one integer that sizes of inputs give
        self.written: list[Any] = []  # formulas that nodes were made for, in order
        self._made: dict[Any, ir.Value] = Table(journal)
        self._shapes: dict[tuple[Any, ...], ir.Value] = Table(journal)

    def dim(self, size: Any) -> ir.Value:
        """The size as a tensor of shape [1]."""
        return self.lower(self.env.expr(size))

    def scalar(self, size: Any) -> ir.Value:
        """The size as a tensor of shape []."""
        return self.scalar_of(self.env.expr(size))

    def scalar_of(self, e: Any) -> ir.Value:
        """A formula as a tensor of shape []."""
        if e in (sympy.true, sympy.false):
            return self.graph.const(bool(e), ir.DataType.BOOL)
        if e.is_number:
            return self.graph.const(_number(e), _dtype(e))
        found = self._scalar(e)
        opposite = self._scalar(Not(e)) if isinstance(e, (BooleanFunction, Relational)) else None
        if found is None and opposite is not None:
            found = self.scalars[e] = self.graph.op("Not", opposite)
        if found is None and isinstance(e, (And, Or)):
            op_type = "And" if isinstance(e, And) else "Or"
            parts = [self.scalar_of(a) for a in e.args]
            found = self.scalars[e] = functools.reduce(lambda a, b: self.graph.op(op_type, a, b), parts)
        if found is None:
            found = self.scalars[e] = self.graph.op("Squeeze", self.lower(e), self.graph.const([0]))
        return found

    def _scalar(self, e: Any) -> ir.Value | None:
        """The value of shape [] that a formula has already, where the body being written may use it."""
        found = self.scalars.get(e)
        return found if found is not None and self.graph.visible(found) else None

    def again(self, values: Mapping[Any, ir.Value]) -> None:
        """Numbers of a body that was recorded before, while more is written there: the values they had."""
        for e, value in values.items():
            if isinstance(e, sympy.Basic) and not e.is_number and self._scalar(e) is None:
                self.scalars[e] = value

    def equal(self, a: Any, b: Any) -> bool:
        """Whether two sizes are the same formula."""
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        first, second = self.env.expr(a), self.env.expr(b)
        if first == second:
            return True
        # Each recording of a round gives a minimum, division … a name of its own.
        derived = (e.free_symbols & self.env.definitions.keys() for e in (first, second))
        return all(derived) and bool(self.env.expand(first) == self.env.expand(second))

    def visible(self, symbol: Any) -> bool:
        """Whether a symbol has a value that the body being written may use."""
        if self._scalar(symbol) is not None:
            return True
        return symbol in self.sources and self.graph.visible(self.sources[symbol][0])

    def in_scope(self, size: Any) -> bool:
        """Whether a size can be computed in the body that is being written."""
        return isinstance(size, int) or self.env.holds_outside(self.env.expr(size), self.visible)

    def number(self, size: Any) -> int | None:
        """The size as an int when it is static."""
        if isinstance(size, int):
            return size
        e = self.env.expr(size)
        return int(e) if e.is_number else None

    def shape(self, sizes: Sequence[Any]) -> ir.Value:
        """All sizes as one int64 tensor of shape [rank]."""
        key = tuple(self.env.expr(s) for s in sizes)
        found = self._shapes.get(key)
        if found is None or not self.graph.visible(found):
            found = self._shapes[key] = self._shape(key)
        return found

    def _shape(self, key: tuple[Any, ...]) -> ir.Value:
        if all(e.is_number for e in key):
            return self.graph.const([int(e) for e in key])
        sources = [self.sources.get(e) if e.is_Symbol else None for e in key]
        first = sources[0]
        if (
            first is not None
            and first[1] >= 0
            and all(s == (first[0], first[1] + i) for i, s in enumerate(sources))
        ):
            return self.graph.op("Shape", first[0], start=first[1], end=first[1] + len(key))
        parts = [
            [self.graph.const([int(e) for e in run])] if static else [self.lower(e) for e in run]
            for static, run in (
                (k, list(r)) for k, r in itertools.groupby(key, key=lambda e: bool(e.is_number))
            )
        ]
        flat = [p for part in parts for p in part]
        return flat[0] if len(flat) == 1 else self.graph.op("Concat", *flat, axis=0)

    def lower(self, e: Any) -> ir.Value:
        """A SymPy formula as nodes."""
        found = self._made.get(e)
        if found is None or not self.graph.visible(found):
            if e in (sympy.true, sympy.false):
                return self.graph.const([bool(e)], ir.DataType.BOOL)
            if e.is_number:
                return self.graph.const([_number(e)], _dtype(e))
            scalar = self._scalar(e)
            made = self.graph.op("Reshape", scalar, self.graph.const([1])) if scalar is not None else None
            if made is None:
                self.written.append(e)
                made = self._lower(e)
            found = self._made[e] = made
        return found

    def _lower(self, e: Any) -> ir.Value:
        g, f = self.graph, functions()
        if e.is_Symbol:
            if e in self.env.stale:
                raise StaleRead(self.env.stale[e])
            if e not in self.sources and e in self.env.definitions:
                return self.lower(self.env.definitions[e])
            if e not in self.sources:
                raise ExportError(
                    f"{quoted_line()}\nThis needs {self.env.names.get(e, 'a number')}, which does not come "
                    "from any input or result. Take it from a tensor's shape or elements."
                )
            value, axis = self.sources[e]
            if axis < 0:  # a number computed in the graph, not a dimension
                return value
            return g.op("Shape", value, start=axis, end=axis + 1)
        if isinstance(e, (floats.Arithmetic, floats.Comparison)):
            op_type, parts = e.op_type, e.args
            if floats.turned(e) is not None:
                op_type, parts = "Neg", e.args[:1]
            elif isinstance(e, floats.FloatSum) and floats.turned(e.args[1]) is not None:
                # Not as a sum: runtimes drop what adds 0, though 0.0 + -0.0 is 0.0.
                op_type, parts = "Sub", (e.args[0], floats.turned(e.args[1]))
            return g.op(op_type, *map(self._double, parts))
        counted = (sympy.Add, sympy.Mul, sympy.Pow, f.PowByNatural, f.FloorDiv, sympy.Abs)
        if isinstance(e, counted) and _is_whole(e):
            self.require_fits(e)
        if isinstance(e, sympy.Add):
            plus = [a for a in e.args if not a.could_extract_minus_sign()]
            minus = [-a for a in e.args if a.could_extract_minus_sign()]
            total = self._fold("Add", plus, e) if plus else g.const([0], _dtype(e))
            return g.op("Sub", total, self._fold("Add", minus, e)) if minus else total
        if isinstance(e, sympy.Mul):
            return self._fold("Mul", e.args, e)
        if isinstance(e, (sympy.Max, f.Max)):
            return self._fold("Max", e.args, e)
        if isinstance(e, (sympy.Min, f.Min)):
            return self._fold("Min", e.args, e)
        if isinstance(e, (f.FloorDiv, f.CleanDiv)):
            return self._floor_div(e.args[0], e.args[1])
        if isinstance(e, f.CeilToInt | f.FloorToInt | f.TruncToInt | f.RoundToInt):
            return self._to_int(e)
        if isinstance(e, (sympy.Mod, f.Mod, f.PythonMod)):
            lower = self._low_bits if _is_power_of_two(e.args[1]) else self.lower
            x, y = lower(e.args[0]), self.lower(e.args[1])
            if self._may_overflow(*e.args):  # processors fail at it; 1 leaves the same as -1, nothing
                y = g.op("Where", g.op("Equal", y, g.const([-1])), g.const([1]), y)
            return g.op("Mod", x, y)
        if isinstance(e, f.ModularIndexing):
            return g.op("Mod", self._floor_div(e.args[0], e.args[1]), self.lower(e.args[2]))
        if isinstance(e, f.ToFloat):
            return g.op("Cast", self.lower(e.args[0]), to=ir.DataType.DOUBLE)
        if isinstance(e, (f.FloatTrueDiv, f.IntTrueDiv)):
            return g.op("Div", self._double(e.args[0]), self._double(e.args[1]))
        if isinstance(e, f.PowByNatural):
            return self._power(*e.args)
        if isinstance(e, sympy.Pow) and e.exp.is_Integer and e.exp > 0:
            return functools.reduce(lambda a, b: g.op("Mul", a, b), [self.lower(e.base)] * int(e.exp))
        if isinstance(e, (f.FloatPow, sympy.Pow)):
            return g.op("Pow", self._double(e.args[0]), self._double(e.args[1]))
        if isinstance(e, sympy.Abs):
            return g.op("Abs", self.lower(e.args[0]))
        if isinstance(e, Relational):
            return self._relation(e)
        if isinstance(e, Not):
            return g.op("Not", self.lower(e.args[0]))
        if isinstance(e, (And, Or)):
            op_type = "And" if isinstance(e, And) else "Or"
            return functools.reduce(lambda a, b: g.op(op_type, a, b), [self.lower(a) for a in e.args])
        if isinstance(e, OneOf):
            return g.op("Where", *(self.lower(part) for part in e.args))
        if type(e).__name__ in _OPAQUE:
            return g.op(_OPAQUE[type(e).__name__], self._double(e.args[0]))
        if type(e).__name__ == "OpaqueUnaryFn_log2":
            return self._log2(self._double(e.args[0]))
        if type(e).__name__ in _BITWISE:
            masked = _BITWISE[type(e).__name__] == "BitwiseAnd" and any(map(_is_mask, e.args))
            return g.op(_BITWISE[type(e).__name__], *map(self._low_bits if masked else self.lower, e.args))
        function = type(e).__name__.rpartition("_")[2].removesuffix("Decimal").lower()
        raise ExportError(
            f"{quoted_line()}\nA number that a size or data decides goes through {function!r} here, which "
            "ONNX has no operator for. Compute it from +, -, *, //, %, min and max, or with tensors; where a "
            "size decides it, dynamic_shapes can make that dimension static."
        )

    def _log2(self, x: ir.Value) -> ir.Value:
        """Whole for powers of two, as C's is: the nearest power's, and the logarithm of what is left."""
        g = self.graph

        def double(value: float) -> ir.Value:
            return g.const([value], ir.DataType.DOUBLE)

        whole = g.op("Round", g.op("Div", g.op("Log", x), double(math.log(2))))
        whole = g.op("Max", g.op("Min", whole, double(1023.0)), double(-1074.0))
        rest = g.op("Div", x, g.op("Pow", double(2.0), whole))
        return g.op("Add", whole, g.op("Div", g.op("Log", rest), double(math.log(2))))

    def _relation(self, e: Any) -> ir.Value:
        types: dict[type, str] = {
            sympy.Eq: "Equal",
            sympy.Gt: "Greater",
            sympy.Ge: "GreaterOrEqual",
            sympy.Lt: "Less",
            sympy.Le: "LessOrEqual",
        }
        whole = _is_whole(e.lhs) and _is_whole(e.rhs)
        beyond_all = [whole and a.is_number and not LOWEST <= a <= HIGHEST for a in e.args]
        if any(beyond_all):  # whatever the other is, as it has 64 bits
            told = e.func(*(a if is_beyond else 0 for a, is_beyond in zip(e.args, beyond_all, strict=True)))
            return self.graph.const([bool(told)], ir.DataType.BOOL)
        lower = self.lower if whole else self._double
        a, b = lower(e.lhs), lower(e.rhs)
        if isinstance(e, sympy.Ne):
            return self.graph.op("Not", self.graph.op("Equal", a, b))
        return self.graph.op(types[type(e)], a, b)

    def _power(self, base: Any, exponent: Any) -> ir.Value:
        """A power of 64 bits: runtimes compute it as a float, which keeps powers of two alone."""
        g, low, times = self.graph, self.lower(base), self.lower(exponent)
        if base.is_Integer and base > 0 and int(base) & (int(base) - 1) == 0:
            return g.op("Pow", low, times)
        one, two = g.const([1]), g.const([2])
        found = one
        for bit in range(6):  # 2**63 is more than 64 bits, and so is any other base's power
            last = g.op("Equal", g.op("Mod", times, two), one)
            found = g.op("Mul", found, g.op("Where", last, low, one))
            if bit < 5:
                low, times = g.op("Mul", low, low), g.op("Div", times, two)
        return found

    def _fold(self, op_type: str, args: Sequence[Any], whole: Any) -> ir.Value:
        lower = self._wrapped if _is_whole(whole) else self._double
        return functools.reduce(lambda a, b: self.graph.op(op_type, a, b), [lower(a) for a in args])

    def _wrapped(self, e: Any) -> ir.Value:
        """An operand of what comes out right whatever wraps on the way to it."""
        n = int(e) if e.is_Integer else 0
        return self.lower(e if LOWEST <= n <= HIGHEST else sympy.Integer((n - LOWEST) % (1 << 64) + LOWEST))

    def _low_bits(self, e: Any) -> ir.Value:
        """A whole number but for multiples of 2**64, as its parts make it, of which none is checked."""
        g, known = self.graph, self._made.get(e)
        if (known is not None and g.visible(known)) or self._scalar(e) is not None:
            return self.lower(e)
        if e.is_Integer:
            return self._wrapped(e)
        if isinstance(e, sympy.Pow) and e.exp.is_Integer and e.exp > 0:
            return functools.reduce(lambda a, b: g.op("Mul", a, b), [self._low_bits(e.base)] * int(e.exp))
        op_type = {sympy.Add: "Add", sympy.Mul: "Mul"}.get(e.func) or _BITWISE.get(type(e).__name__)
        if op_type is None or not _is_whole(e):
            return self.lower(e)
        return functools.reduce(lambda a, b: g.op(op_type, a, b), map(self._low_bits, e.args))

    def _double(self, e: Any) -> ir.Value:
        if e.is_number:
            return self.graph.const([float(e)], ir.DataType.DOUBLE)
        value = self.lower(e)
        return self.graph.op("Cast", value, to=ir.DataType.DOUBLE) if _is_whole(e) else value

    def _floor_div(self, a: Any, b: Any) -> ir.Value:
        g, x, y = self.graph, self.lower(a), self.lower(b)
        if all(self._is_not_negative(e) for e in (a, b)):
            return g.op("Div", x, y)
        (low, high), (least, most) = self.range_of(a), self.range_of(b)
        far = max(-least, most)
        if low - far >= LOWEST and high + far <= HIGHEST:  # ONNX divides towards zero
            return g.op("Div", g.op("Sub", x, g.op("Mod", x, y)), y)
        one = g.const([1])
        if self._may_overflow(a, b):  # which is checked, but processors fail before
            lowest = g.op("Equal", x, g.const([LOWEST]))
            y = g.op("Where", g.op("And", lowest, g.op("Equal", y, g.const([-1]))), one, y)
        return downwards(g.op, x, y, one)

    def _may_overflow(self, a: Any, b: Any) -> bool:
        """Whether a quotient may be that of the lowest number and -1."""
        least, most = self.range_of(b)
        return bool(least <= -1 <= most and self.range_of(a)[0] <= LOWEST)

    def _is_not_negative(self, e: Any) -> bool:
        if e.has(OneOf):  # of which torch's bounds know nothing
            return bool(e.is_nonnegative)
        return bool(self.env.bound_sympy(e).lower >= 0)

    def _to_int(self, e: Any) -> ir.Value:
        rounding = {"CeilToInt": "Ceil", "FloorToInt": "Floor", "RoundToInt": "Round", "TruncToInt": None}
        value = self._double(e.args[0])
        op_type = rounding[type(e).__name__]
        if op_type:
            value = self.graph.op(op_type, value)
        return self.graph.op("Cast", value, to=ir.DataType.INT64)


def _is_power_of_two(e: Any) -> bool:
    return bool(e.is_Integer and 0 < e <= HIGHEST) and int(e) & (int(e) - 1) == 0


def _is_mask(e: Any) -> bool:
    """Whether a number keeps bits that 64 have, and the sign that all others are 0."""
    return bool(e.is_Integer and 0 <= e <= HIGHEST)


def _number(e: Any) -> int | float:
    if not e.is_integer:
        return float(e)
    if not LOWEST <= e <= HIGHEST:
        raise beyond(e)
    return int(e)


def _dtype(e: Any) -> ir.DataType:
    return ir.DataType.INT64 if _is_whole(e) else ir.DataType.DOUBLE


def _is_whole(e: Any) -> bool:
    """Whether a formula gives whole numbers; that bitwise operators do, SymPy has not been told."""
    parts = [p for p in sympy.preorder_traversal(e) if type(p).__name__ in _BITWISE]
    return bool((e.xreplace({p: sympy.Dummy(integer=True) for p in parts}) if parts else e).is_integer)
