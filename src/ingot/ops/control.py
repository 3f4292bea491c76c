"""If, Loop and Scan. Their subgraphs are run by whoever runs the graph (`run`), which knows the values
around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.numeric import BOOL, INT64
from ingot.ops.registry import Array, Op, attr_int, attr_ints, given, label, register

#: Runs a subgraph on its inputs, in order, and returns its outputs; the runner supplies the values from
#: outside.
RunGraph = Callable[[ir.Graph, Sequence[Any]], list[Any]]


class Control(Op):
    """An operator with subgraphs: `run` is its meaning, given a way to run a graph."""

    subgraphs = True

    def run(self, node: ir.Node, inputs: Sequence[Any], run_graph: RunGraph) -> list[Any]:
        """The node's outputs. Sequences are lists of arrays."""
        raise NotImplementedError

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Refused: it has no meaning without the values around the node."""
        del inputs
        raise ModelError(
            f"{label(node)}: it has subgraphs, which evaluate() cannot run. Use "
            "ingot.InferenceSession, or run()."
        )


def body_of(node: ir.Node, name: str) -> ir.Graph:
    """The graph in an attribute."""
    attribute = node.attributes.get(name)
    if attribute is None:
        raise ModelError(f"{label(node)}: attribute {name} is missing. Run onnx.checker on the file.")
    return attribute.as_graph()


def one_of(node: ir.Node, what: str, value: Any) -> Any:
    """The only element of a condition or a number of trips, as Python has it."""
    array = np.asarray(value)
    if array.size != 1:
        raise ModelError(f"{label(node)}: its {what} has shape {list(array.shape)}; it must be one element.")
    return array.item()


@register("If", since=25)
class If(Control):
    """then_branch where the condition holds, else_branch where not; neither has inputs of its own."""

    def run(self, node: ir.Node, inputs: Sequence[Any], run_graph: RunGraph) -> list[Any]:
        """Only the branch taken is run."""
        return run_graph(self.branch(node, inputs[0]), ())

    def branch(self, node: ir.Node, condition: Any) -> ir.Graph:
        """The branch for a condition of one element."""
        return body_of(node, "then_branch" if one_of(node, "condition", condition) else "else_branch")


@register("Loop", since=25)
class Loop(Control):
    """The body, again and again: up to a number of trips, while its condition holds.

    Inputs: trips, condition, carried values. The body gets (iteration, condition, carried …) and returns
    (condition, carried …, scanned …); outputs are the carried values, then the scanned ones stacked.
    """

    def run(self, node: ir.Node, inputs: Sequence[Any], run_graph: RunGraph) -> list[Any]:
        """Scan outputs of a loop without a trip are empty, with the dims that the body declares (0 where
        symbolic).
        """
        body = body_of(node, "body")
        limit, condition = given(inputs, 0), given(inputs, 1)
        trips = None if limit is None else int(one_of(node, "number of trips", limit))
        live = condition is None or bool(one_of(node, "condition", condition))
        carried = list(inputs[2:])
        scanned: list[list[Any]] = [[] for _ in body.outputs[1 + len(carried) :]]
        i = 0
        while live and (trips is None or i < trips):
            results = run_graph(body, [np.array(i, INT64), np.array(True, BOOL), *carried])
            live = bool(one_of(node, "body's condition", results[0]))
            carried = results[1 : 1 + len(carried)]
            for rows, row in zip(scanned, results[1 + len(carried) :], strict=True):
                rows.append(row)
            i += 1
        declared = body.outputs[1 + len(carried) :]
        return carried + [_stack(rows, value, 0) for rows, value in zip(scanned, declared, strict=True)]


@register("Scan", since=25)
class Scan(Control):
    """The body over slices of some inputs, carrying states along: inputs are states, then scanned values."""

    def run(self, node: ir.Node, inputs: Sequence[Any], run_graph: RunGraph) -> list[Any]:
        """One trip for each slice along the scan axes; directions by attribute."""
        body = body_of(node, "body")
        count = attr_int(node, "num_scan_inputs", 1)
        states, sequences = list(inputs[:-count]), [np.asarray(x) for x in inputs[len(inputs) - count :]]
        rows: list[list[Any]] = [[] for _ in body.outputs[len(states) :]]
        axes = attr_ints(node, "scan_input_axes") or (0,) * count
        backwards = attr_ints(node, "scan_input_directions") or (0,) * count
        sequences = [np.moveaxis(x, axis, 0) for x, axis in zip(sequences, axes, strict=True)]
        sequences = [x[::-1] if back else x for x, back in zip(sequences, backwards, strict=True)]
        lengths = {x.shape[0] for x in sequences}
        if len(lengths) != 1:
            raise ModelError(
                f"{label(node)}: scanned inputs have {sorted(lengths)} slices. They must have as many."
            )
        for t in range(lengths.pop()):
            results = run_graph(body, [*states, *(x[t] for x in sequences)])
            states = results[: len(states)]
            for column, row in zip(rows, results[len(states) :], strict=True):
                column.append(row)
        out_axes = attr_ints(node, "scan_output_axes") or (0,) * len(rows)
        reverse = attr_ints(node, "scan_output_directions") or (0,) * len(rows)
        declared = body.outputs[len(states) :]
        return states + [
            _stack(column[::-1] if back else column, value, axis)
            for column, value, axis, back in zip(rows, declared, out_axes, reverse, strict=True)
        ]


def _stack(rows: list[Any], declared: ir.Value, axis: int) -> Array:
    if rows:
        return np.stack(rows, axis)
    dims = [] if declared.shape is None else [d if isinstance(d, int) else 0 for d in declared.shape]
    dtype = np.dtype(np.float32) if declared.dtype is None else declared.dtype.numpy()
    dims.insert(axis if axis >= 0 else axis + len(dims) + 1, 0)
    return np.empty(dims, dtype)
