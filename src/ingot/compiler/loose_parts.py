"""Nodes of a loop's body that run by plans of their own, one for each combination of sizes, among the steps
over loose arrays (`kernels/loose_plan.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ingot.compiler.index import Index
from ingot.compiler.loose_nodes import Slot, UnsuitedError
from ingot.ops.registry import Facts, Op, facts_of

#: Operators whose results have the dtype of their first input, and which of their inputs, where they have
#: them, must be constants: sizes follow from those.
_ALIKE: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"), (1,)),
    **dict.fromkeys(("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"), (1,)),
    **dict.fromkeys(("Softmax", "LogSoftmax", "MatMul", "Gemm", "Einsum", "Trilu"), ()),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "Attention"), ()),
    **dict.fromkeys(("Conv", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), ()),
    **dict.fromkeys(("GatherElements", "ScatterElements", "ScatterND", "PRelu", "Mean"), ()),
    **dict.fromkeys(("CumSum", "Split", "Tile"), (1,)),
    "Pad": (1, 3),
}
_PLACES = frozenset(("ArgMax", "ArgMin"))


@dataclass(frozen=True, slots=True)
class Part:
    """A node as a graph of its own. word: where its words are (`kernels/loose_plan.py`). inputs: the words
    of what it reads, of these dtypes, in the order of the graph's inputs.
    """

    index: Index
    word: int
    inputs: list[Slot]


def results_of(node: ir.Node, slots: Sequence[Slot | None]) -> list[str]:
    """The dtypes of what a node makes. Raises UnsuitedError for one that is not planned alone."""
    kind, first = node.op_type, slots[0] if slots else None
    if first is None:
        raise UnsuitedError
    if kind in _PLACES:
        return ["int64"]
    if kind not in _ALIKE or any(
        slot is not None and slot.constant is None
        for slot in [slots[number] for number in _ALIKE[kind] if number < len(slots)]
    ):
        raise UnsuitedError
    if kind != "Split" and len(node.outputs) != 1:
        raise UnsuitedError
    return [first.dtype] * len(node.outputs)


def alone(
    node: ir.Node, op: Op, around: Index, slot_of: Callable[[ir.Value | None], Slot]
) -> tuple[Index, list[Slot]]:
    """A node as a graph of its own, and what its inputs are."""
    own: dict[ir.Value, Slot] = {}
    constants: dict[ir.Value, Facts] = {}
    for value in node.inputs:
        if value is None:
            continue
        slot = slot_of(value)
        if slot.constant is None:
            own[value] = slot
        else:
            constants[value] = around.constants.get(value) or facts_of(slot.constant)
    reads = [value for value in node.inputs if value is not None]
    index = Index([node], [op], list(own), list(node.outputs), constants, [], [reads], around.mapped, late=1)
    return index, list(own.values())
