"""Python's float arithmetic on numbers that only the run knows: each operation rounds, keeps the sign of 0
and gives NaN where Python's does, in the order that the model has it.

SymPy's own sums and products are those of real numbers: `v - v` is 0 to it, `n * 0.1 * 10` is `n`, and what
is not less is greater or equal. Its forms stay where they are exact, as for halves of sizes.
"""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, ClassVar

import sympy
import torch
from sympy.logic.boolalg import BooleanFunction
from torch.fx.experimental.sym_node import SymNode
from torch.utils._sympy import interp
from torch.utils._sympy.functions import (
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    IntTrueDiv,
    Mod,
    ToFloat,
    TruncToInt,
)

_MINUS_ONE = sympy.Float(-1.0)
_INT64 = 2.0**63  # more than any whole number of a run
_PARTS = 2**20  # what a number may be a whole number of parts of, so that sums and products of such are exact


class MinusZero(sympy.Function):
    """-0.0, which SymPy has no number for: the argument is 0, as which it is bounded."""

    nargs = 1
    is_real = True
    is_integer = False  # to SymPy, which has 0 for a whole number

    def __float__(self) -> float:
        return -0.0


class Arithmetic(sympy.Function):
    """An operation on two floats."""

    is_real = True
    op_type: ClassVar[str]  # ONNX's operator
    sign: ClassVar[str]
    compute: ClassVar[Callable[[Any, Any], Any]]

    @classmethod
    def eval(cls, a: Any, b: Any) -> Any:
        """The number, of numbers."""
        return constant(cls.compute(float(a), float(b))) if a.is_number and b.is_number else None


class FloatSum(Arithmetic):
    """`a + b`."""

    op_type, sign, compute = "Add", "+", operator.add


class FloatProduct(Arithmetic):
    """`a * b`."""

    op_type, sign, compute = "Mul", "*", operator.mul


class Comparison(BooleanFunction):
    """A comparison of floats that may be NaN, of which nothing follows for the opposite one."""

    op_type: ClassVar[str]
    sign: ClassVar[str]
    compute: ClassVar[Callable[[Any, Any], Any]]

    @classmethod
    def eval(cls, a: Any, b: Any) -> Any:
        """What holds of numbers."""
        known = a.is_number and b.is_number
        return sympy.sympify(cls.compute(float(a), float(b))) if known else None


class FloatLess(Comparison):
    """`a < b`."""

    op_type, sign, compute = "Less", "<", operator.lt


class FloatLessOrEqual(Comparison):
    """`a <= b`."""

    op_type, sign, compute = "LessOrEqual", "<=", operator.le


class FloatEqual(Comparison):
    """`a == b`."""

    op_type, sign, compute = "Equal", "==", operator.eq


# What torch finds bounds with: those of a float operation are those of the ends, rounded as they are.
_BOUNDS: dict[Any, Any] = interp.handlers()
_BOUNDS.update({FloatSum: "add", FloatProduct: "mul", MinusZero: "identity"})


def constant(x: float) -> Any:
    """A float in a formula."""
    return MinusZero(sympy.S.Zero) if x == 0 and math.copysign(1, x) < 0 else sympy.Float(x)


def _formula(x: Any) -> Any:
    """A number as a float in a formula."""
    if isinstance(x, torch.SymFloat):
        return x.node.shape_env.expr(x)
    if isinstance(x, torch.SymInt):
        return ToFloat(x.node.shape_env.expr(x))
    return constant(float(x))


def _is_exact(e: Any) -> bool:
    """Whether SymPy's sums and products of it are Python's: whole numbers, and such parts as no float rounds,
    of which none is -0.0.
    """
    if e.is_number:
        whole = float(e) * _PARTS
        return not isinstance(e, MinusZero) and abs(whole) < _PARTS * _PARTS and whole == math.floor(whole)
    if isinstance(e, ToFloat):
        return True
    if e.is_Add:
        return all(a.is_number or _is_exact(abs(a.as_coeff_Mul()[0]) * a.as_coeff_Mul()[1]) for a in e.args)
    if not e.is_Mul:
        return False
    factor, rest = e.as_coeff_Mul()
    factors = rest.args if rest.is_Mul else (rest,)
    positive = factor > 0 and (len(factors) == 1 or all(map(_is_size, factors)))
    return bool(positive and _is_exact(factor) and all(map(_is_exact, factors)))


def _is_size(e: Any) -> bool:
    """Whether it is a whole number that is not negative."""
    return isinstance(e, ToFloat) and bool(e.args[0].is_nonnegative)


def _number(e: Any, like: Any, kind: Any) -> Any:
    """A formula as Python has it; `like` is a symbolic number of the same recording."""
    if e in (sympy.true, sympy.false):
        return bool(e)
    if e.is_number:
        return float(e)
    made = torch.SymFloat if kind is float else torch.SymBool
    return made(SymNode(e, like.node.shape_env, kind, None))


def _symbolic(a: Any, b: Any) -> Any:
    return a if isinstance(a, (torch.SymInt, torch.SymFloat)) else b


def _arithmetic(exact: Any, rounded: Any) -> Callable[[Any, Any], Any]:
    def compute(a: Any, b: Any) -> Any:
        left, right = _formula(a), _formula(b)
        known = left.is_number and right.is_number
        found = exact(left, right) if not known and _is_exact(left) and _is_exact(right) else None
        if found is None or not _is_exact(found):
            found = rounded(left, right)
        return _number(found, _symbolic(a, b), float)

    return compute


def _divided(a: Any, b: Any) -> Any:
    left, right = _formula(a), _formula(b)
    if right.is_number and (left.is_number or not float(right)):
        return float(left) / float(right) if left.is_number else 1 / float(right)  # which raises
    found = FloatTrueDiv(left, right)
    return _number(found, _symbolic(a, b), float)


_PLAIN: dict[str, Any] = {
    "lt": sympy.Lt, "le": sympy.Le, "gt": sympy.Gt, "ge": sympy.Ge, "eq": sympy.Eq, "ne": sympy.Ne,
}  # fmt: skip
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def _of_floats(name: str, a: Any, b: Any) -> Any:
    """How two floats compare."""
    if name in ("gt", "ge"):
        return _of_floats(_MIRRORED[name], b, a)
    if name == "ne":
        return sympy.Not(FloatEqual(a, b))
    return {"lt": FloatLess, "le": FloatLessOrEqual, "eq": FloatEqual}[name](a, b)


def _with_number(name: str, n: Any, x: float) -> Any:
    """How a whole number compares with a known float: Python rounds neither."""
    if not -_INT64 <= x < _INT64:  # NaN too
        return sympy.sympify(getattr(operator, name)(0, x))
    if name in ("eq", "ne"):
        return _PLAIN[name](n, int(x)) if x.is_integer() else sympy.sympify(name == "ne")
    return _PLAIN[name](n, math.ceil(x) if name in ("lt", "ge") else math.floor(x))


def _with_float(name: str, n: Any, x: Any) -> Any:
    """How a whole number compares with a float: where it is the float but for rounding, as the float's whole
    number has it. Of 2.0**63 there is none: that is more than any.
    """
    if name == "ne":
        return sympy.Not(_with_float("eq", n, x))
    real, within = ToFloat(n), FloatLess(x, constant(_INT64))
    told = _PLAIN[name](n, TruncToInt(x))
    if name in ("lt", "le"):
        told = sympy.Or(sympy.Not(within), told)
        return sympy.Or(FloatLess(real, x), sympy.And(FloatEqual(real, x), told))
    told = sympy.And(FloatEqual(real, x), within, told)
    return told if name == "eq" else sympy.Or(FloatLess(x, real), told)


def _between_floats(name: str, n: int) -> tuple[str, float] | bool:
    """How a float compares with an int, by one that is a float itself: `v < n` is `v <= x` for the float
    below. What holds of every float, where that is all there is to say.
    """
    try:
        x = float(n)
    except OverflowError:
        x = math.inf if n > 0 else -math.inf
    if x == n:
        return name, x
    if name in ("eq", "ne"):
        return name == "ne"
    if name in ("lt", "le"):
        return "le", x if x < n else math.nextafter(x, -math.inf)
    return "ge", x if x > n else math.nextafter(x, math.inf)


def _comparison(name: str) -> Callable[[Any, Any], Any]:
    def compute(a: Any, b: Any) -> Any:
        like, named = _symbolic(a, b), name
        env = like.node.shape_env
        for whole, other, way in ((a, b, name), (b, a, _MIRRORED[name])):
            if isinstance(whole, torch.SymInt) and env.of_data(env.expr(whole)):
                n, x = env.expr(whole), _formula(other)
                if x.is_number:
                    return _number(_with_number(way, n, float(x)), like, bool)
                if env.of_data(x) or not _is_exact(x):
                    return _number(_with_float(way, n, x), like, bool)
        if isinstance(b, int):
            near = _between_floats(name, b)
            if isinstance(near, bool):
                return near
            named, b = near
        left, right = _formula(a), _formula(b)
        either = sympy.Tuple(left, right)
        exact = not env.of_data(either) or all(map(_is_exact, (left, right)))
        found = _PLAIN[named](left, right) if exact else _of_floats(named, left, right)
        return _number(found, like, bool)

    return compute


def swapped(compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operator that Python calls on the second operand."""
    return lambda b, a: compute(a, b)


def negative(x: torch.SymFloat) -> Any:
    """`-x`."""
    return _number(_turned(_formula(x)), x, float)


def _turned(e: Any) -> Any:
    return FloatProduct(e, _MINUS_ONE)


def _difference(a: Any, b: Any) -> Any:
    """`a - b`, which a + -b is in every bit."""
    return FloatSum(a, _turned(b))


def turned(e: Any) -> Any | None:
    """What a formula is the negative of, where it is one that `_turned` makes."""
    return e.args[0] if isinstance(e, FloatProduct) and e.args[1] == _MINUS_ONE else None


def _scale(e: Any) -> float:
    """How many times the sizes that it is made of a formula may be, at the most: of sums, products and
    quotients of sizes and of numbers above 0, which are no NaN and no -0.0. Infinity for others.
    """
    if e.is_number:
        return max(float(e), 1.0) if e.is_Number and e > 0 else math.inf
    if isinstance(e, ToFloat):
        return 1.0 if e.args[0].is_nonnegative else math.inf
    parts: Any = e.args
    if isinstance(e, (IntTrueDiv, FloatTrueDiv)):
        if not (parts[1].is_number and parts[1] > 0):
            return math.inf
        divided = ToFloat(parts[0]) if isinstance(e, IntTrueDiv) else parts[0]
        return _scale(divided) / min(float(parts[1]), 1.0)
    if e.is_Add or isinstance(e, FloatSum):
        return sum(map(_scale, parts))
    return math.prod(map(_scale, parts)) if e.is_Mul or isinstance(e, FloatProduct) else math.inf


def _quotient(a: Any, b: Any) -> tuple[Any, Any, Any] | None:
    """What is divided in `a // b` and `a % b`, by what, and how often that goes, where a is made of sizes and
    b is a whole number; None for others. Below 2**53 no quotient by such a number rounds up to the next one.
    """
    if isinstance(b, (torch.SymInt, torch.SymFloat)) or not 1 <= b < _PARTS or b != int(b):
        return None
    left = _formula(a)
    if a.node.shape_env.of_data(left) or _scale(left) >= _PARTS:
        return None
    if isinstance(left, ToFloat):
        return left.args[0], int(b), FloorDiv(left.args[0], sympy.Integer(int(b)))
    return left, float(b), FloorToInt(FloatTrueDiv(left, constant(float(b))))


def whole_quotient(a: Any, b: Any) -> Any | None:
    """`a // b` as a formula, where it is that of every size."""
    found = _quotient(a, b)
    return None if found is None else _number(ToFloat(found[2]), a, float)


def rest(a: Any, b: Any) -> Any | None:
    """`a % b` as a formula, where it is that of every size."""
    found = _quotient(a, b)
    if found is None:
        return None
    divided, divisor, times = found
    if isinstance(divisor, int):
        return _number(ToFloat(Mod(divided, sympy.Integer(divisor))), a, float)
    return _number(_difference(divided, FloatProduct(ToFloat(times), constant(divisor))), a, float)


_FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "add": _arithmetic(operator.add, FloatSum),
    "sub": _arithmetic(operator.sub, _difference),
    "mul": _arithmetic(operator.mul, FloatProduct),
    "truediv": _divided,
}
#: Operators of two numbers, one of them a float at the least, by the names of Python's methods.
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    **{f"__{name}__": compute for name, compute in _FORMS.items()},
    **{f"__r{name}__": swapped(compute) for name, compute in _FORMS.items()},
    **{f"__{name}__": _comparison(name) for name in _PLAIN},
}
