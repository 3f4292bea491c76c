"""Arithmetic on vectors as Python expressions: `(x * x).fma(a, b)` emits the instructions.

`Lanes` wraps a float or integer value of a Builder, scalar or vector; Python numbers become constants of its
type. It is for formulas (vector mathematics, the operators of expressions); kernels with loops speak to the
Builder itself.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from ingot.codegen.builder import I1, I32, I64, Builder, Value, element_of, lanes_of, suffix, vector

Number = int | float


class Lanes:
    """A float or integer vector under computation. Masks, which comparisons give, are plain Values."""

    __slots__ = ("k", "value")

    def __init__(self, k: Builder, value: Value) -> None:
        self.k, self.value = k, value

    # ---- operands and types

    @property
    def type(self) -> Any:
        """The LLVM type."""
        return self.value.type

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return not isinstance(element_of(self.type), ir.IntType)

    @property
    def integers(self) -> Any:
        """The type of integer lanes of the same width."""
        width = 64 if isinstance(element_of(self.type), ir.DoubleType) else 32
        return vector(ir.IntType(width), lanes_of(self.type))

    def _own(self, other: Lanes | Number) -> Value:
        if isinstance(other, Lanes):
            return other.value
        return self.k.splat(float(other) if self.is_float else int(other), self.type)

    def _new(self, value: Value) -> Lanes:
        return Lanes(self.k, value)

    def constant(self, number: Number) -> Lanes:
        """`number` in every lane, in this value's type."""
        return self._new(self._own(number))

    # ---- arithmetic

    def __add__(self, other: Lanes | Number) -> Lanes:
        emit = self.k.ir.fadd if self.is_float else self.k.ir.add
        return self._new(emit(self.value, self._own(other)))

    def __sub__(self, other: Lanes | Number) -> Lanes:
        emit = self.k.ir.fsub if self.is_float else self.k.ir.sub
        return self._new(emit(self.value, self._own(other)))

    def __mul__(self, other: Lanes | Number) -> Lanes:
        emit = self.k.ir.fmul if self.is_float else self.k.ir.mul
        return self._new(emit(self.value, self._own(other)))

    def __truediv__(self, other: Lanes | Number) -> Lanes:
        return self._new(self.k.ir.fdiv(self.value, self._own(other)))

    def __radd__(self, other: Number) -> Lanes:
        return self + other

    def __rmul__(self, other: Number) -> Lanes:
        return self * other

    def __rsub__(self, other: Number) -> Lanes:
        return self.constant(other) - self

    def __rtruediv__(self, other: Number) -> Lanes:
        return self.constant(other) / self

    def __neg__(self) -> Lanes:
        return self._new(self.k.ir.fneg(self.value)) if self.is_float else self.constant(0) - self

    def fma(self, factor: Lanes | Number, term: Lanes | Number) -> Lanes:
        """self * factor + term."""
        return self._new(self.k.fma(self.value, self._own(factor), self._own(term)))

    def abs(self) -> Lanes:
        """The magnitude; of integers too (the lowest one stays itself)."""
        if self.is_float:
            return self.intrinsic("fabs")
        function = self.k.declare(f"llvm.abs.{suffix(self.type)}", self.type, [self.type, I1])
        return self._new(self.k.ir.call(function, [self.value, I1(0)]))

    def intrinsic(self, name: str, *others: Lanes | Number) -> Lanes:
        """An LLVM intrinsic overloaded on this type: sqrt, floor, copysign, smax …"""
        return self._new(self.k.intrinsic(name, self.value, *(self._own(o) for o in others)))

    def polynomial(self, coefficients: Sequence[float]) -> Lanes:
        """c[0] + c[1] x + c[2] x² …, by Horner's rule."""
        total = self.constant(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = total.fma(self, c)
        return total

    # ---- integers and bits

    def __and__(self, other: Lanes | int) -> Lanes:
        return self._new(self.k.ir.and_(self.value, self._own(other)))

    def __or__(self, other: Lanes | int) -> Lanes:
        return self._new(self.k.ir.or_(self.value, self._own(other)))

    def __xor__(self, other: Lanes | int) -> Lanes:
        return self._new(self.k.ir.xor(self.value, self._own(other)))

    def __lshift__(self, count: Lanes | int) -> Lanes:
        return self._new(self.k.ir.shl(self.value, self._own(count)))

    def __rshift__(self, count: Lanes | int) -> Lanes:
        """An arithmetic shift: the sign moves in."""
        return self._new(self.k.ir.ashr(self.value, self._own(count)))

    def shift_down(self, count: Lanes | int) -> Lanes:
        """A logical shift to the right: zeros move in."""
        return self._new(self.k.ir.lshr(self.value, self._own(count)))

    def bits(self) -> Lanes:
        """The bits of a float as an integer."""
        return self._new(self.k.ir.bitcast(self.value, self.integers))

    def floats(self) -> Lanes:
        """The float whose bits these are."""
        double = element_of(self.type) == I64
        element = ir.DoubleType() if double else ir.FloatType()
        return self._new(self.k.ir.bitcast(self.value, vector(element, lanes_of(self.type))))

    def to_float(self) -> Lanes:
        """A signed integer's value as the float of its width."""
        double = element_of(self.type) == I64
        element = ir.DoubleType() if double else ir.FloatType()
        return self._new(self.k.ir.sitofp(self.value, vector(element, lanes_of(self.type))))

    def double(self) -> Lanes:
        """A float32 as float64."""
        return self._new(self.k.ir.fpext(self.value, vector(ir.DoubleType(), lanes_of(self.type))))

    def single(self) -> Lanes:
        """A float64 rounded to float32."""
        return self._new(self.k.ir.fptrunc(self.value, vector(ir.FloatType(), lanes_of(self.type))))

    # ---- comparisons: masks

    def compare(self, relation: str, other: Lanes | Number, signed: bool = True) -> Value:
        """The mask of lanes where the relation holds; of floats it is false for NaN, except "!="."""
        if self.is_float:
            if relation == "!=":
                return self.k.ir.fcmp_unordered("!=", self.value, self._own(other))
            return self.k.ir.fcmp_ordered(relation, self.value, self._own(other))
        emit = self.k.ir.icmp_signed if signed else self.k.ir.icmp_unsigned
        return emit(relation, self.value, self._own(other))

    def __lt__(self, other: Lanes | Number) -> Value:
        return self.compare("<", other)

    def __le__(self, other: Lanes | Number) -> Value:
        return self.compare("<=", other)

    def __gt__(self, other: Lanes | Number) -> Value:
        return self.compare(">", other)

    def __ge__(self, other: Lanes | Number) -> Value:
        return self.compare(">=", other)

    def equals(self, other: Lanes | Number) -> Value:
        """The mask of equal lanes."""
        return self.compare("==", other)

    def is_nan(self) -> Value:
        """The mask of lanes that are not a number."""
        return self.k.ir.fcmp_unordered("uno", self.value, self.value)

    def where(self, mask: Value, other: Lanes | Number) -> Lanes:
        """This value in the lanes of `mask`, the other one elsewhere."""
        return self._new(self.k.ir.select(mask, self.value, self._own(other)))

    def at_most(self, bound: Lanes | Number) -> Lanes:
        """The smaller one; a NaN in this value stays, one in `bound` is ignored. One instruction on x86."""
        bound = self.constant(bound) if not isinstance(bound, Lanes) else bound
        return bound.where(bound < self, self)

    def at_least(self, bound: Lanes | Number) -> Lanes:
        """The larger one; a NaN in this value stays, one in `bound` is ignored. One instruction on x86."""
        bound = self.constant(bound) if not isinstance(bound, Lanes) else bound
        return bound.where(bound > self, self)


def any_lane(k: Builder, mask: Value) -> Value:
    """Whether the mask holds in some lane, as an i1."""
    lanes = lanes_of(mask.type)
    if lanes == 1:
        return mask
    bits = k.ir.bitcast(mask, ir.IntType(lanes))
    return k.ir.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))


def index_lanes(lanes: int, element: Any = I32) -> Value:
    """The constant 0, 1, 2 …"""
    return ir.Constant(vector(element, lanes), list(range(lanes))) if lanes > 1 else element(0)
