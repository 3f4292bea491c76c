"""Whole numbers divided downwards, as Python's `//` and `%` are: as nodes, and torch's formulas of them.

torch writes formulas of sizes, whose divisors are above 0. Two of its simplifications hold for those alone,
and numbers meet them with others: `x // 10 // -10` became `x // -100`, and a remainder of two negative
numbers the first of them. Here they are left out for divisors that may be below 0. And functions of sizes say
themselves what they are without a sign, which SymPy asks of every factor of a product.
"""

# torch's SymPy functions are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import sympy
from sympy.core.cache import clear_cache
from torch.utils._sympy import functions

Op = Callable[..., ir.Value]


def downwards(op: Op, x: ir.Value, y: ir.Value, one: ir.Value) -> ir.Value:
    """floor(x / y) of integers with a sign; `one` is 1 of their dtype. Nothing on the way overflows.

    ONNX divides towards zero, which is one more where what is left is not Mod's.
    """
    quotient = op("Div", x, y)
    left = op("Sub", x, op("Mul", quotient, y))
    same = op("Equal", left, op("Mod", x, y))
    return op("Where", same, quotient, op("Sub", quotient, one))


def _quotient(base: Any, divisor: Any) -> Any:
    """A quotient of a quotient is one of the first number only where it is rounded the same way twice."""
    if not isinstance(base, functions.FloorDiv) or divisor.is_positive or base == divisor:
        return _torch_quotient(base, divisor)
    stands_for = sympy.Dummy(integer=True)
    found = _torch_quotient(stands_for, divisor)
    return found.xreplace({stands_for: base}) if isinstance(found, sympy.Basic) else found


def _remainder(p: Any, q: Any) -> Any:
    """`p % q` is p where p is below q, if neither is below 0."""
    found = _torch_remainder(p, q)
    return None if found is p and not p.is_number and not q.is_positive else found


def _never_below_0(e: Any) -> Any:
    """A size without its sign is the size itself: SymPy finds that too, by simplifying all that is in it."""
    return e if e.is_nonnegative else None


def _mend(function: Any, rule: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Puts a rule in the place of what torch simplifies a function of two numbers by, which it returns."""
    plain: Any = function.eval
    function.eval = staticmethod(rule)
    return plain


# For good, as SymPy keeps the formulas that it has made, whoever asked for them.
_torch_quotient = _mend(functions.FloorDiv, _quotient)
_torch_remainder = _mend(functions.PythonMod, _remainder)
for _function in (functions.FloorDiv, functions.Mod, functions.PythonMod, functions.Max, functions.Min):
    _function._eval_Abs = _never_below_0  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
clear_cache()
