"""How exact a model's outputs can be: a float64 that was computed in float32 has the digits of the latter."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from ingot.passes.edit import subgraphs_of

#: Digits of the mantissa, of the dtypes that are narrower than float64.
_DIGITS = {ir.DataType.FLOAT: 23, ir.DataType.FLOAT16: 10, ir.DataType.BFLOAT16: 7}
# What these give they were given, or a part of it: nothing is rounded.
_MOVES = frozenset(
    (
        "Cast", "Compress", "Concat", "Constant", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
        "Identity", "If", "Loop", "Max", "Min", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "Scan",
        "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze",
        "Where",
    )
)  # fmt: skip
# What these give are whole numbers or truth values: exact, whatever they were found from.
_WHOLE = frozenset(
    (
        "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual",
        "NonZero", "Shape", "Size",
    )
)  # fmt: skip


def narrowest(model: ir.Model) -> dict[str, str]:
    """For each output that is computed from floating numbers narrower than float64, the narrowest of them."""
    found: dict[ir.Value, ir.DataType] = {}
    _in_graph(model.graph, found)
    outputs = [v for v in model.graph.outputs if v in found]
    return {str(v.name): found[v].numpy().name for v in outputs}


def _in_graph(graph: Iterable[ir.Node], found: dict[ir.Value, ir.DataType]) -> list[ir.DataType]:
    """Narrow numbers that a graph computes, or takes from outside of it."""
    whole: list[ir.DataType] = []
    for node in graph:
        if node.op_type in _WHOLE:
            continue
        taken = [found[v] for v in node.inputs if v in found]
        for subgraph in subgraphs_of(node):
            taken += _in_graph(subgraph, found)
        if node.op_type not in _MOVES:
            dtypes = [v.dtype for v in (*node.inputs, *node.outputs) if v is not None]
            taken += [d for d in dtypes if d is not None and d in _DIGITS]
        if taken:
            least = min(taken, key=_DIGITS.__getitem__)
            found.update(dict.fromkeys(node.outputs, least))
            whole.append(least)
    return whole
