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
from torch.utils._sympy.functions import FloatTrueDiv, ToFloat

_MINUS_ONE = sympy.Float(-1.0)
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


def _comparison(
    form: Any, plain: Any, swapped: bool = False, turned: bool = False
) -> Callable[[Any, Any], Any]:
    """swapped: of the operands in the other order; turned: of the opposite"""

    def compute(a: Any, b: Any) -> Any:
        like = _symbolic(a, b)
        left, right = _formula(a), _formula(b)
        either = sympy.Tuple(left, right)
        if not like.node.shape_env.of_data(either) or all(map(_is_exact, (left, right))):
            return NotImplemented if plain is None else _number(plain(left, right), like, bool)
        found = form(right, left) if swapped else form(left, right)
        return _number(sympy.Not(found) if turned else found, like, bool)

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
    "__lt__": _comparison(FloatLess, sympy.Lt),
    "__le__": _comparison(FloatLessOrEqual, sympy.Le),
    "__gt__": _comparison(FloatLess, sympy.Gt, swapped=True),
    "__ge__": _comparison(FloatLessOrEqual, sympy.Ge, swapped=True),
    "__eq__": _comparison(FloatEqual, sympy.Eq),
    "__ne__": _comparison(FloatEqual, sympy.Ne, turned=True),
}
