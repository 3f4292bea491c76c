"""Runs a whole graph with the operators' plain definitions: slow, simple, what everything faster is
compared with.

The model must be at the newest opset, without local functions (`passes.opset.normalise` sees to both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError
from ingot.ops.control import Control, Subgraphs
from ingot.ops.create import tensor_array
from ingot.ops.outline import known_of
from ingot.ops.registry import evaluated_late, find


def interpret(
    model: ir.Model, inputs: Mapping[str, Any], wanted: Iterable[str] | None = None
) -> dict[str, Any]:
    """Evaluates `model` on arrays by input name; returns the outputs, or the `wanted` values, by name.

    `wanted` may name any value of the main graph. Sequences are lists of arrays. Raises `InputError` for a
    missing input and whatever the operators raise.
    """
    graph = model.graph
    values: dict[ir.Value, Any] = {}
    for value in graph.inputs:
        name = value.name or ""
        if name in inputs:
            values[value] = np.asarray(inputs[name]) if _is_array(inputs[name]) else inputs[name]
        elif name not in graph.initializers:
            raise InputError(
                f"input {name!r} is missing; given are {sorted(inputs)}. Give every input a value."
            )
    names = None if wanted is None else set(wanted)
    outputs = _run(graph, values)
    if names is None:
        return {value.name or "": array for value, array in zip(graph.outputs, outputs, strict=True)}
    return {
        value.name: array for value, array in values.items() if value.name in names and value.graph is graph
    }


def _is_array(value: Any) -> bool:
    return not isinstance(value, list) and value is not None


def _run(graph: ir.Graph, values: dict[ir.Value, Any]) -> list[Any]:
    """Evaluates every node; `values` has the graph's inputs and everything outside it, and gets every
    result.
    """
    for value in graph.initializers.values():
        if value not in values and value.const_value is not None:
            values[value] = tensor_array(value.const_value)

    def run_graph(body: ir.Graph, arguments: Sequence[Any]) -> list[Any]:
        inner = dict(values)
        inner.update(zip(body.inputs, arguments, strict=False))
        return _run(body, inner)

    subgraphs = Subgraphs(run_graph, lambda value: known_of(values.get(value)))
    for node in graph:
        arrays = [None if value is None else values[value] for value in node.inputs]
        op = find(node.domain, node.op_type, node)
        control = isinstance(op, Control)
        results = op.run(node, arrays, subgraphs) if control else evaluated_late(op, node, arrays)
        values.update(zip(node.outputs, results, strict=False))
    return [values[value] for value in graph.outputs]
