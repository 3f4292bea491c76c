"""What the outputs of a graph are like, as far as shapes say: no kernel runs, and no operator of a user's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import IngotError
from ingot.ops.create import tensor_array
from ingot.ops.registry import KNOWN_ELEMENTS, UNFIT, Array, Bound, Facts, evaluated, facts_of, find

if TYPE_CHECKING:
    from ingot.ops.control import Control

#: What is known of a value around a graph; None for nothing.
Outer = Callable[[ir.Value], "Facts | None"]


def outlined(graph: ir.Graph, given: Sequence[Facts | None], outer: Outer) -> list[Facts | None]:
    """Facts of each output for inputs of which so much is known; None where they do not follow.

    What data decides counts as nothing found: a dimension that is counted is 0. A node that its inputs do not
    fit says nothing, as does an operator of which nobody knows the shapes.
    """
    facts = dict(zip(graph.inputs, given, strict=False))
    for value in graph.initializers.values():
        if value.const_value is not None:
            facts[value] = known_of(tensor_array(value.const_value))

    def known(value: ir.Value) -> Facts | None:
        return facts[value] if value in facts else outer(value)

    for node in graph:
        inputs = [None if value is None else known(value) for value in node.inputs]
        missing = any(
            fact is None and value is not None for fact, value in zip(inputs, node.inputs, strict=True)
        )
        try:
            made = None if missing else _results(node, inputs, known)
        except (IngotError, *UNFIT):
            made = None
        facts.update(zip(node.outputs, made or [None] * len(node.outputs), strict=False))
    return [known(value) for value in graph.outputs]


def _results(node: ir.Node, inputs: list[Facts | None], outer: Outer) -> Sequence[Facts | None] | None:
    op = find(node.domain, node.op_type, node)
    if op.subgraphs:

        def inside(body: ir.Graph, given: Sequence[Facts]) -> list[Facts] | None:
            found = outlined(body, given, outer)
            return None if None in found else cast("list[Facts]", found)

        return cast("Control", op).outline(node, inputs, inside)
    made = op.infer(node, inputs)
    if made is None:
        return [None if bound is None else _found_nothing(bound) for bound in op.bound(node, inputs) or ()]
    is_known = all(fact is None or fact.is_known for fact in inputs)
    sizes = [math.prod(fact.shape) for fact in made if fact is not None]
    if is_known and node.domain in ("", "ai.onnx") and not op.random and sum(sizes) <= KNOWN_ELEMENTS:
        values = [None if fact is None else fact.value for fact in inputs]
        return [facts_of(array) for array in evaluated(op, node, values)]
    return made


def _found_nothing(bound: Bound) -> Facts:
    shape, axis = bound.shape, bound.axis
    return Facts(bound.dtype, shape if axis is None else (*shape[:axis], 0, *shape[axis + 1 :]))


def known_of(value: Any) -> Facts | None:
    """What is known of an array: also its numbers, where they are a few integers, as sizes are made of."""
    if not isinstance(value, np.ndarray):
        return None
    array = cast(Array, value)
    few = array.dtype.kind in "iub" and array.size <= KNOWN_ELEMENTS
    return Facts(array.dtype, array.shape, array if few else None)
