"""Rows that need a loop in the graph: a body is written as a graph of its own, over values it is given."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ingot.capture.graph import GraphWriter
from ingot.ops.registry import PART

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Body = Callable[..., Sequence[ir.Value]]  # (writer, *values) to values


def _graph(g: Recorder, dtypes: Sequence[ir.DataType], ranks: Sequence[int | None], body: Body) -> ir.Graph:
    writer = GraphWriter(g.opset)
    writer._names = g.graph._names  # a name stands for one value in all of the file's graphs
    writer.source = g.graph.source
    inputs = [
        ir.Value(
            name=writer.unique("state"),
            type=ir.TensorType(dtype),
            shape=None if rank is None else ir.Shape([None] * rank),
        )
        for dtype, rank in zip(dtypes, ranks, strict=True)
    ]
    given = list(body(writer, *inputs))
    outputs: list[ir.Value] = []
    for v in given:
        if v.producer() is None or v in outputs:
            v = writer.op("Identity", v)
        outputs.append(v)
    return ir.Graph(
        inputs,
        outputs,
        nodes=writer.nodes,
        initializers=list(writer.initializers.values()),
        name=writer.unique("body"),
    )


def scan(
    g: Recorder,
    states: Sequence[ir.Value],
    sequences: Sequence[ir.Value],
    axis: int,
    dtypes: Sequence[ir.DataType],
    rank: int,
    body: Body,
    results: int,
) -> Sequence[ir.Value]:
    """Scan over `axis` of the sequences; the body takes states and slices, returns states and `results`
    slices.

    `dtypes` are those of the states and then of the slices; all of them have rank `rank`. Returns the last
    states and then the results, stacked along `axis`.
    """
    graph = _graph(g, dtypes, [rank] * len(dtypes), body)
    return _of_operator(
        g,
        "Scan",
        *states,
        *sequences,
        n=len(states) + results,
        body=graph,
        num_scan_inputs=len(sequences),
        scan_input_axes=[axis] * len(sequences),
        scan_output_axes=[axis] * results,
    )


def loop(
    g: Recorder,
    count: ir.Value,
    states: Sequence[ir.Value],
    dtypes: Sequence[ir.DataType],
    ranks: Sequence[int],
    body: Body,
) -> Sequence[ir.Value]:
    """The body `count` times: it takes a writer, the number of the turn (int64, shape []) and the states."""

    def whole(b: GraphWriter, i: ir.Value, going: ir.Value, *values: ir.Value) -> list[ir.Value]:
        return [b.op("Identity", going), *body(b, i, *values)]

    kinds = [ir.DataType.INT64, ir.DataType.BOOL, *dtypes]
    graph = _graph(g, kinds, [0, 0, *ranks], whole)
    return _of_operator(g, "Loop", count, None, *states, n=len(states), body=graph)


def _of_operator(g: Recorder, op_type: str, *inputs: Any, n: int, **attributes: Any) -> Sequence[ir.Value]:
    """The node, marked as no loop of the model's own: nobody is told which of its rounds were taken."""
    made = g.ops(op_type, *inputs, n=n, **attributes)
    node = made[0].producer()
    assert node is not None
    node.metadata_props[PART] = "1"
    return made
