"""Operators that are made of others: their kernels, without nodes of the graph that stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.kernels.expression import Expression, Step, expression_of
from ingot.ops.lowering import Lowering
from ingot.ops.registry import find, show


def computed(
    plan: Lowering,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    shape: Sequence[int],
    dtype: Any,
    attributes: Sequence[ir.Attr] = (),
) -> ir.Value:
    """The result of a standard operator, of this shape and dtype. It may wait to be fused with one reader;
    `settled` is for values with several.

    The operator must have a kernel for these operands: UnsupportedOperatorError says where one is missing.
    """
    value = plan.intermediate(shape, dtype)
    node = ir.Node("", op_type, inputs, attributes, outputs=[value])
    try:
        if not find("", op_type).lower(node, plan):
            raise UnsupportedOperatorError(
                f"{op_type} of {np.dtype(dtype)} {show(tuple(shape))} has no kernel. Please report this."
            )
    finally:
        # The graph's values would keep every such node of every plan as their reader.
        for i in range(len(inputs)):
            node.replace_input_with(i, None)
    return value


def settled(plan: Lowering, value: ir.Value) -> ir.Value:
    """The value, computed now: several may read it."""
    plan.view(value)
    return value


def deliver(plan: Lowering, value: ir.Value, result: ir.Value) -> None:
    """`value`, an output of the node that is being lowered, is this."""
    if not plan.wait(value, "Identity", [result]):
        plan.alias(value, plan.view(result))


def ints(name: str, values: Sequence[int]) -> ir.Attr:
    """An attribute of integers."""
    return ir.Attr(name, ir.AttributeType.INTS, tuple(values))


def integer(name: str, value: int) -> ir.Attr:
    """An attribute of one integer."""
    return ir.Attr(name, ir.AttributeType.INT, value)


def complex_product(dtype: str) -> Expression:
    """(a, b, c, d) to (a c - b d, a d + b c): the product of a + b i and c + d i."""
    products = [Step("Mul", pair, dtype) for pair in ((0, 2), (1, 3), (0, 3), (1, 2))]
    sums = [Step("Sub", (4, 5), dtype), Step("Add", (6, 7), dtype)]
    return expression_of((dtype,) * 4, (*products, *sums), (8, 9))
