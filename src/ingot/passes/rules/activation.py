"""Gelu, as frameworks without the operator spell it."""

from __future__ import annotations

import math

import onnx_ir as ir

from ingot.passes.edit import constant_of, scalar_of
from ingot.passes.rewrite import Result, Rewriting, adds_no_dimensions, factors, made_by, only_use, rule

#: How far numbers of so many bytes may be from what they stand for, beside them.
_TOLERANCES = {2: 2e-3, 4: 4e-6, 8: 1e-13}


def _tolerance(value: ir.Value | None) -> float:
    """The same of a constant: constants of one formula are of one dtype."""
    array = constant_of(value)
    return 0.0 if array is None else _TOLERANCES.get(array.dtype.itemsize, 0.0)


def close(value: ir.Value | None, wanted: float) -> bool:
    """True for a constant scalar that is `wanted`, as precisely as its dtype can say."""
    found = scalar_of(value)
    return found is not None and math.isclose(found, wanted, rel_tol=_tolerance(value))


def product(value: ir.Value) -> tuple[float, list[ir.Value]]:
    """A product's constant factor and its other factors. A division by a constant is a factor, too."""
    number, rest = 1.0, list[ir.Value]()
    for factor in factors(value):
        division = made_by(factor, "Div")
        divisor = None if division is None else scalar_of(division.inputs[1])
        constant = scalar_of(factor)
        if constant is not None:
            number *= constant
        elif (
            division is not None
            and divisor
            and division.inputs[0] is not None
            and (factor is value or only_use(factor))
        ):
            inner, others = product(division.inputs[0])
            number, rest = number * inner / divisor, rest + others
        else:
            rest.append(factor)
    return number, rest


def _one_plus(value: ir.Value, op_type: str) -> tuple[ir.Value, float] | None:
    """The argument of op_type in 1 + op_type(argument), and how exact numbers beside it must be."""
    addition = made_by(value, "Add")
    if addition is None or not only_use(value):
        return None
    for i in (0, 1):
        inner, one = made_by(addition.inputs[i], op_type), addition.inputs[1 - i]
        argument = None if inner is None else inner.inputs[0]
        if inner is not None and argument is not None and close(one, 1.0) and only_use(inner.outputs[0]):
            return argument, _tolerance(one)
    return None


def _split(node: ir.Node, op_type: str) -> tuple[ir.Value, ir.Value, float] | str | None:
    """(x, argument, tolerance of numbers) of 0.5 · x · (1 + op_type(argument))."""
    number, rest = product(node.outputs[0])
    for i, factor in enumerate(rest):
        found = _one_plus(factor, op_type)
        if found is None:
            continue
        argument, tolerance = found
        others = rest[:i] + rest[i + 1 :]
        if len(others) != 1 or not math.isclose(number, 0.5, rel_tol=tolerance):
            return "it is not 0.5 · x · (1 + …)"
        return others[0], argument, tolerance
    return None


@rule("Mul", since=20, needs=("Erf",))
def gelu_erf(g: Rewriting, node: ir.Node) -> Result:
    """0.5 · x · (1 + Erf(x / sqrt(2))) == Gelu(x)."""
    found = _split(node, "Erf")
    if not isinstance(found, tuple):
        return found
    x, argument, tolerance = found
    number, rest = product(argument)
    if rest != [x] or not math.isclose(number, math.sqrt(0.5), rel_tol=tolerance):
        return "the argument of Erf is not x / sqrt(2)"
    return [g.op("Gelu", x)] if adds_no_dimensions(g, x, node) else "its constants may add dimensions"


@rule("Mul", since=20, needs=("Tanh",))
def gelu_tanh(g: Rewriting, node: ir.Node) -> Result:
    """0.5 · x · (1 + Tanh(sqrt(2/π) · (x + 0.044715 · x³))) == Gelu(x, approximate="tanh")."""
    found = _split(node, "Tanh")
    if not isinstance(found, tuple):
        return found
    x, argument, tolerance = found
    number, rest = product(argument)
    if not math.isclose(number, math.sqrt(2.0 / math.pi), rel_tol=tolerance):
        return "the argument of Tanh has another factor than sqrt(2/π)"
    inside = [factor for factor in rest if factor is not x]
    # sqrt(2/π) · (x + 0.044715 · x³), or sqrt(2/π) · x · (1 + 0.044715 · x²)
    outside = len(rest) - len(inside)
    addition = made_by(inside[0], "Add") if len(inside) == 1 and outside <= 1 else None
    if addition is None:
        return "the argument of Tanh is not a sum"
    for i in (0, 1):
        first, second = addition.inputs[i], addition.inputs[1 - i]
        starts = first is x if outside == 0 else close(first, 1.0)
        if starts and second is not None:
            cube, power = _power(second, x)
            if power == 3 - outside and math.isclose(cube, 0.044715, rel_tol=tolerance):
                if not adds_no_dimensions(g, x, node):
                    return "its constants may add dimensions"
                return [g.op("Gelu", x, approximate="tanh")]
    return "the argument of Tanh is not x + 0.044715 · x³"


def _power(value: ir.Value, x: ir.Value) -> tuple[float, int]:
    """(c, n) where value is c · xⁿ; n is 0 where it is not."""
    number, rest = product(value)
    power = 0
    for factor in rest:
        node = made_by(factor, "Pow")
        exponent = None if node is None else scalar_of(node.inputs[1])
        if factor is x:
            power += 1
        elif node is not None and node.inputs[0] is x and exponent is not None and exponent == int(exponent):
            power += int(exponent)
        else:
            return 0.0, 0
    return number, power


RULES = (gelu_erf, gelu_tanh)
