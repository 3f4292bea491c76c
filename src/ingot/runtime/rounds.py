"""Rounds of a loop whose shapes change all the time, node by node.

A plan belongs to shapes and takes milliseconds to make. A list that grows, or boxes that are crossed out,
give each round shapes of its own: where arrays are small, NumPy is done before a plan would have been. Only
nodes whose results have one right value are computed so, to the last bit: which plans there were does not
show. Of +0 and -0 the first is the larger one, and the smaller one, in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.compiler.index import Index
from ingot.ops.control import Control, Subgraphs
from ingot.ops.numeric import is_float
from ingot.ops.outline import known_of
from ingot.ops.registry import Op, evaluated, evaluated_late

#: Elements that a round's inputs, and constants, may have together: a few microseconds for each node.
MOST_ELEMENTS = 1 << 15
#: Shapes that are remembered as having been met; then it starts anew.
MOST_MET = 4096

#: Operators that move elements, compare them, or round once as IEEE 754 says, and whose plain definition
#: refuses what does not fit by itself.
_EXACT = frozenset(
    (
        "Abs", "Add", "And", "Cast", "Clip", "Concat", "Div", "Equal", "Gather", "Greater",
        "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg", "Not", "Or",
        "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where", "Xor",
    )
)  # fmt: skip
#: The same, after a look at shapes.
_EXACT_AFTER_A_LOOK = frozenset(
    (
        "ArgMax", "ArgMin", "Compress", "ConcatFromSequence", "Constant", "ConstantOfShape", "Expand",
        "Flatten", "GatherElements", "GatherND", "If", "Loop", "NonZero", "Range", "ReduceMax",
        "ReduceMin", "Relu", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
        "SequenceInsert", "SequenceLength", "Split",
    )
)  # fmt: skip
#: Where +0 meets -0, plans give the one that their order of elements leads to.
_OF_ANY_ORDER = frozenset(("ReduceMax", "ReduceMin"))


class UndecidedError(Exception):
    """A round has a result with more than one right value: it is for a plan."""


class Rounds:
    """A body to be run by NumPy, and what is inside of it."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._inside = {graph: Rounds(inner) for graph, inner in index.subgraphs.items()}
        used = {value for reads in index.reads for value in reads}.union(index.outputs)
        constants = {value: facts for value, facts in index.constants.items() if value in used}
        #: of the constants that nodes read, those inside included
        self._elements = sum(math.prod(facts.shape) for facts in constants.values())
        self._elements += sum(inner._elements for inner in self._inside.values())
        #: whether plans give the same bits, and constants are small
        self.is_exact = (
            self._elements <= MOST_ELEMENTS
            and all(map(_is_exact, index.nodes))
            and all(inner.is_exact for inner in self._inside.values())
        )
        self._constants: dict[ir.Value, Any] = (
            {value: facts.value for value, facts in constants.items()} if self.is_exact else {}
        )
        self._steady, self._turning = self._split()
        self._met: set[Hashable] = set()

    def suits(self, feeds: Sequence[Any]) -> bool:
        """Whether it is exact, and inputs and constants are small; sequences and the like count as
        nothing.
        """
        if not self.is_exact:
            return False
        given = sum(feed.size for feed in feeds if isinstance(feed, np.ndarray))
        return given + self._elements <= MOST_ELEMENTS

    def has_met(self, shapes: Hashable) -> bool:
        """Whether inputs of these shapes came before; from now on they did."""
        if shapes in self._met:
            return True
        if len(self._met) >= MOST_MET:
            self._met.clear()
        self._met.add(shapes)
        return False

    def begin(self, captured: Sequence[Any]) -> Callable[[Sequence[Any]], list[Any]]:
        """What runs a round, given the body's inputs; nodes that depend on none of those are computed now.

        Both raise UndecidedError.
        """
        index = self._index
        steady = dict(self._constants)
        steady.update(zip(index.captured, captured, strict=True))
        self._run(self._steady, steady)

        def run(feeds: Sequence[Any]) -> list[Any]:
            values = dict(steady)
            values.update(zip(index.inputs, feeds, strict=True))
            self._run(self._turning, values)
            return [values[value] for value in index.outputs]

        return run

    def _run(self, nodes: Sequence[tuple[ir.Node, Op, bool]], values: dict[ir.Value, Any]) -> None:
        def run_graph(graph: ir.Graph, given: Sequence[Any]) -> list[Any]:
            inner = self._inside[graph]
            return inner.begin([values[value] for value in inner._index.captured])(given)

        subgraphs = Subgraphs(run_graph, lambda value: known_of(values.get(value)))
        for node, op, looks in nodes:
            inputs = [None if value is None else values[value] for value in node.inputs]
            if node.op_type in _OF_ANY_ORDER and _has_both_zeros(inputs[0]):
                raise UndecidedError
            if isinstance(op, Control):
                made: Sequence[Any] = op.run(node, inputs, subgraphs)
            else:
                made = evaluated_late(op, node, inputs) if looks else evaluated(op, node, inputs)
            for value, array in zip(node.outputs, made, strict=False):
                values[value] = array

    def _split(self) -> tuple[list[tuple[ir.Node, Op, bool]], list[tuple[ir.Node, Op, bool]]]:
        """The nodes that depend on no input of the body, and the others."""
        parts: tuple[list[tuple[ir.Node, Op, bool]], ...] = ([], [])
        moving = set(self._index.inputs)
        for node, op, reads in zip(self._index.nodes, self._index.ops, self._index.reads, strict=True):
            turns = not moving.isdisjoint(reads)
            if turns:
                moving.update(node.outputs)
            parts[turns].append((node, op, node.op_type not in _EXACT))
        return parts[0], parts[1]


def evaluated_alone(op: Op, node: ir.Node, inputs: Sequence[Any]) -> Sequence[Any]:
    """A node whose inputs nobody knew before. Where its plain definition refuses what does not fit, shapes
    are not looked at before.
    """
    refuses = node.domain in ("", "ai.onnx") and node.op_type in _EXACT
    return evaluated(op, node, inputs) if refuses else evaluated_late(op, node, inputs)


def _has_both_zeros(x: Any) -> bool:
    if not isinstance(x, np.ndarray):  # the node refuses it
        return False
    array = cast("np.ndarray[Any, Any]", x)
    if not is_float(array.dtype):
        return False
    signs = np.signbit(array[array == 0])
    return bool(signs.any() and not signs.all())


def _is_exact(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in _EXACT | _EXACT_AFTER_A_LOOK
