"""Which values of a model depend on numbers that it draws: a run of the module has others there."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.ops.registry import SOURCE, find
from ingot.passes.edit import subgraphs_of

Lines = frozenset[str]  # operators that draw, with their lines
_NONE: Lines = frozenset()


def drawn(model: ir.Model, carried: Mapping[str, str]) -> dict[str, Lines]:
    """For each output that depends on a draw, the operators that draw for it.

    Args:
        model: the model.
        carried: names of outputs by the input that they are in the next run: its state.
    """
    found: dict[ir.Value, Lines] = {}
    functions: dict[object, Lines] = {}
    for _ in model.functions:  # which may call each other
        functions = {key: _in_graph(f.graph, {}, functions) for key, f in model.functions.items()}
    while True:
        before = dict(found)
        _in_graph(model.graph, found, functions)
        by_name = {v.name: found[v] for v in model.graph.outputs if found.get(v)}
        for value in model.graph.inputs:
            lines = by_name.get(carried.get(str(value.name), ""), _NONE)
            if lines:
                found[value] = found.get(value, _NONE) | lines
        if found == before:
            return {str(v.name): found[v] for v in model.graph.outputs if found.get(v)}


def _in_graph(
    graph: ir.Graph, found: dict[ir.Value, Lines], functions: Mapping[object, Lines] | None = None
) -> Lines:
    """Every draw in a graph; `found` gets its values that depend on one.

    A node depends on what is drawn in its subgraphs and on what they take from outside.
    """
    everything = _NONE
    for node in graph:
        own = frozenset([f"{node.op_type} at {node.metadata_props.get(SOURCE, node.name)}"])
        lines = own if _draws(node) else (functions or {}).get(node.op_identifier(), _NONE)
        for subgraph in subgraphs_of(node):
            lines |= _in_graph(subgraph, found, functions)
        everything |= lines
        for value in _taken(node):
            lines |= found.get(value, _NONE)
        if lines:
            found.update(dict.fromkeys(node.outputs, lines))
    return everything


def _draws(node: ir.Node) -> bool:
    if node.op_type == "Dropout":  # outside of training, which its third input says, it draws nothing
        return len(node.inputs) > 2 and node.inputs[2] is not None
    try:
        return find(node.domain, node.op_type, node).random
    except UnsupportedOperatorError:  # a function of the model's own
        return False


def _taken(node: ir.Node) -> list[ir.Value]:
    """What a node and its subgraphs take."""
    inside = [n for subgraph in subgraphs_of(node) for n in subgraph]
    outputs = [v for subgraph in subgraphs_of(node) for v in subgraph.outputs]
    return [*(v for v in node.inputs if v is not None), *outputs, *(v for n in inside for v in _taken(n))]
