"""Conditions on sizes in the words of whoever reads them: `batch is at least 1`, not `Ge(s0, 1)`."""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false, reportIncompatibleMethodOverride=false
# pyright: reportMissingTypeArgument=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import re
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.printing.precedence import PRECEDENCE
from sympy.printing.str import StrPrinter

_COMPARED: dict[Any, str] = {
    sympy.Gt: "is more than",
    sympy.Ge: "is at least",
    sympy.Lt: "is less than",
    sympy.Le: "is at most",
}
_TURNED: dict[Any, Any] = {sympy.Gt: sympy.Lt, sympy.Ge: sympy.Le, sympy.Lt: sympy.Gt, sympy.Le: sympy.Ge}
_LARGE = (100_003, 100_004, 100_026)  # sizes that leave something over, each by another number


class _Python(StrPrinter):
    """Formulas as Python has them, torch's own functions among them."""

    printmethod = "_as_python"  # not the functions' own way

    def _print_Max(self, expr: Any) -> str:
        return f"max({', '.join(map(self._print, expr.args))})"

    def _print_Min(self, expr: Any) -> str:
        return f"min({', '.join(map(self._print, expr.args))})"

    def _operands(self, expr: Any) -> list[str]:
        return [self.parenthesize(a, PRECEDENCE["Mul"], strict=True) for a in expr.args]

    def _print_FloorDiv(self, expr: Any) -> str:
        return " // ".join(self._operands(expr))

    _print_CleanDiv = _print_FloorDiv

    def _print_CeilDiv(self, expr: Any) -> str:
        a, b = self._operands(expr)
        return f"ceil({a} / {b})"

    def _print_Mod(self, expr: Any) -> str:
        return " % ".join(self._operands(expr))

    _print_PythonMod = _print_Mod

    def _print_IntTrueDiv(self, expr: Any) -> str:
        return " / ".join(self._operands(expr))

    _print_FloatTrueDiv = _print_IntTrueDiv

    def _print_FloatSum(self, expr: Any) -> str:
        return f" {expr.sign} ".join(self._operands(expr))

    _print_FloatProduct = _print_FloatSum
    _print_FloatLess = _print_FloatLessOrEqual = _print_FloatEqual = _print_FloatSum

    def _print_MinusZero(self, expr: Any) -> str:
        del expr
        return "-0.0"

    def _print_ToFloat(self, expr: Any) -> str:
        return self._print(expr.args[0])

    _print_TruncToInt = _print_FloorToInt = _print_ToFloat

    def _print_OneOf(self, expr: Any) -> str:
        condition, a, b = expr.args
        return f"({self._print(a)} if {in_words(condition)} else {self._print(b)})"

    def _print_Float(self, expr: Any) -> str:
        return f"{float(expr):g}"


#: How messages call what stands for values that only the run knows.
_STANDINS = {
    "SymInt": "a whole number that data or a size decides",
    "SymFloat": "a float that data or a size decides",
    "SymBool": "a truth that data or a size decides",
    **dict.fromkeys(("Rows", "Many", "Perhaps", "TracedList"), "a list that data fills"),
    "TracedDict": "a dict that data fills",
    "OpenDict": "a dict at keys of data",
}
#: Those that may be words of the model's own, and say nothing of a type where they stand as such.
_WORDS = ("Rows", "Many", "Perhaps")
_NAMED = re.compile(rf"'?\b({'|'.join(_STANDINS)})\b'?(?: object\b)?")
_AS_A_TYPE = re.compile(r"\bnot $|\bgot $|\btype:? $")  # what Python and torch say before one
_OF_TYPES = re.compile("operand type|instances of|combination of arguments")


def in_users_terms(said: str) -> str:
    """What an error of Python's says, without names of Ingot's and torch's own classes."""

    def named(found: re.Match[str]) -> str:
        is_type = (
            found[1] not in _WORDS
            or found[0].endswith(" object")
            or _AS_A_TYPE.search(said[: found.start()])
            or _OF_TYPES.search(said)
        )
        return _STANDINS[found[1]] if is_type else found[0]

    return _NAMED.sub(named, said)


def formula(expression: Any) -> str:
    """A formula over sizes."""
    return _Python().doprint(expression)


def in_words(condition: Any) -> str:
    """A condition whose symbols have the names of dimensions."""
    if isinstance(condition, (sympy.And, sympy.Or)):
        word = " and " if isinstance(condition, sympy.And) else " or "
        parts = [
            f"({in_words(c)})" if isinstance(c, (sympy.And, sympy.Or)) else in_words(c)
            for c in sorted(condition.args, key=str)
        ]
        return word.join(parts)
    if isinstance(condition, sympy.Not):
        return f"not ({in_words(condition.args[0])})"
    if not isinstance(condition, Relational):
        return formula(condition)
    a, b, kind = condition.lhs, condition.rhs, type(condition)
    if a.is_number or (b.is_Symbol and not a.is_Symbol and kind not in _COMPARED and not b.is_number):
        a, b, kind = b, a, _TURNED.get(kind, kind)
    if kind in _COMPARED:
        return f"{formula(a)} {_COMPARED[kind]} {formula(b)}"
    divided = _multiple(a, b)
    if kind is sympy.Ne:
        return divided.replace(" is ", " is not ", 1) if divided else f"{formula(a)} is not {formula(b)}"
    return divided or f"{formula(a)} = {formula(b)}"


def in_bounds(name: str, low: int, high: int | None) -> str:
    """`1 <= len <= 64`."""
    return f"{low} <= {name}" + ("" if high is None else f" <= {high}")


def _fit_by_numbers(whole: Any, split: Any, part: Any) -> bool:
    """Whether `split`, with `part` rounded nowhere, is `whole` for some numbers: if not, it never is."""
    size, step = part.args
    symbols = sorted(whole.free_symbols | split.free_symbols, key=str)
    for first in _LARGE:
        numbers = {s: sympy.Integer(first + 1_001 * i) for i, s in enumerate(symbols)}
        try:
            rounded, exact = (e.xreplace(numbers) for e in (part, size / step))
            if rounded and split.xreplace(numbers) / rounded * exact != whole.xreplace(numbers):
                return False
        except (ZeroDivisionError, ValueError, TypeError):  # no formula of whole numbers alone
            return True
    return True


def _outermost(e: Any) -> set[Any]:
    """The functions in a formula that stand inside of no other: what it is a polynomial of beside symbols."""
    if isinstance(e, sympy.Function):
        return {e}
    return set[Any]().union(*map(_outermost, e.args))


def _multiple(a: Any, b: Any) -> str:
    """`n is a multiple of 2`, where that is what an equation says; else nothing."""
    if b == 0 and type(a).__name__ in ("Mod", "PythonMod"):
        return f"{formula(a.args[0])} is a multiple of {formula(a.args[1])}"
    for whole, split in ((a, b), (b, a)):
        for part in split.atoms(sympy.Function) if hasattr(split, "atoms") else ():
            if type(part).__name__ != "FloorDiv":
                continue
            size, step = part.args
            if _outermost(split) - _outermost(step) != {part} or not _fit_by_numbers(whole, split, part):
                continue
            common = sympy.cancel(split / (part * step))
            if sympy.expand(common * size - whole) == 0 and not common.atoms(sympy.Function):
                unless = "".join(f", or {s} is 0" for s in sorted(common.free_symbols, key=str))
                return f"{formula(size)} is a multiple of {formula(step)}{unless}"
    return ""
