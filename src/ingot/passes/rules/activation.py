"""Gelu, as frameworks without the operator spell it."""

from __future__ import annotations

import math

import onnx_ir as ir

from ingot.passes.edit import constant_of, constant_shape, scalar_of
from ingot.passes.rewrite import Result, Rewriting, factors, made_by, only_use, rule


def close(value: ir.Value | None, wanted: float) -> bool:
    """True for a constant scalar that is `wanted`, as precisely as its dtype can say."""
    found = scalar_of(value)
    if found is None:
        return False
    array = constant_of(value)
    low = array is not None and array.dtype.itemsize < 4
    return math.isclose(found, wanted, rel_tol=2e-3 if low else 2e-6)


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


def _one_plus(value: ir.Value, op_type: str) -> ir.Value | None:
    """The argument of op_type in 1 + op_type(argument)."""
    addition = made_by(value, "Add")
    if addition is None or not only_use(value):
        return None
    for i in (0, 1):
        inner = made_by(addition.inputs[i], op_type)
        if inner is not None and close(addition.inputs[1 - i], 1.0) and only_use(inner.outputs[0]):
            return inner.inputs[0]
    return None


def _tolerance(x: ir.Value) -> float:
    low = x.dtype is not None and x.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return 2e-3 if low else 4e-6


def _split(node: ir.Node, op_type: str) -> tuple[ir.Value, ir.Value] | str | None:
    """(x, argument) of 0.5 · x · (1 + op_type(argument))."""
    number, rest = product(node.outputs[0])
    for i, factor in enumerate(rest):
        argument = _one_plus(factor, op_type)
        if argument is None:
            continue
        others = rest[:i] + rest[i + 1 :]
        if len(others) != 1 or not math.isclose(number, 0.5, rel_tol=_tolerance(others[0])):
            return "it is not 0.5 · x · (1 + …)"
        return others[0], argument
    return None


def _same_rank(g: Rewriting, x: ir.Value, node: ir.Node) -> bool:
    """True where no constant between x and the node's output has more dimensions than x."""
    known = g.dims.of(x)
    rank = 0 if known is None else len(known)
    waiting, ranks = [value for value in node.inputs if value is not None], list[int]()
    while waiting:
        value = waiting.pop()
        shape, producer = constant_shape(value), value.producer()
        if shape is not None:
            ranks.append(len(shape))
        elif value is not x and producer is not None:
            waiting += [v for v in producer.inputs if v is not None]
    return max(ranks, default=0) <= rank


@rule("Mul", since=20, needs=("Erf",))
def gelu_erf(g: Rewriting, node: ir.Node) -> Result:
    """0.5 · x · (1 + Erf(x / sqrt(2))) == Gelu(x)."""
    found = _split(node, "Erf")
    if not isinstance(found, tuple):
        return found
    x, argument = found
    number, rest = product(argument)
    if rest != [x] or not math.isclose(number, math.sqrt(0.5), rel_tol=_tolerance(x)):
        return "the argument of Erf is not x / sqrt(2)"
    return [g.op("Gelu", x)] if _same_rank(g, x, node) else "its constants may add dimensions"


@rule("Mul", since=20, needs=("Tanh",))
def gelu_tanh(g: Rewriting, node: ir.Node) -> Result:
    """0.5 · x · (1 + Tanh(sqrt(2/π) · (x + 0.044715 · x³))) == Gelu(x, approximate="tanh")."""
    found = _split(node, "Tanh")
    if not isinstance(found, tuple):
        return found
    x, argument = found
    number, rest = product(argument)
    tolerance = _tolerance(x)
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
                if not _same_rank(g, x, node):
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
