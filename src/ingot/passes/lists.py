"""Lists that a loop collects and that are joined behind it: rows that the loop puts out, which kernels can
stack.
"""

from __future__ import annotations

import onnx_ir as ir

from ingot.ops.nodes import input_at
from ingot.ops.registry import attr_int
from ingot.passes.dims import Dims
from ingot.passes.edit import Editor, graphs_of, replace
from ingot.passes.rewrite import made_by, remove_unused


def stack_lists(model: ir.Model) -> int:
    """ConcatFromSequence(Loop(…, [], …; list + [row])) == JoinedRows(Loop(…; row)), where all rows must have
    one shape; returns how many lists there were.
    """
    graphs = graphs_of(model)
    if len(graphs) == 1:  # no loop
        return 0
    total, dims = 0, Dims()
    for graph in graphs:
        for node in list(graph):
            if node.op_type == "Loop" and node.domain == "" and node.graph is graph:
                found = [number for number in range(len(node.inputs) - 2) if _is_stack(node, number, dims)]
                if found:
                    _stack(node, found)
                    total += len(found)
    return total


def _insertion(loop: ir.Node, number: int) -> ir.Node | None:
    """The node of the body that puts a tensor at the end of a carried list, if that is all that is done to
    it.
    """
    body = loop.attributes["body"].as_graph()
    taken, given = 2 + number, 1 + number
    if taken >= len(body.inputs) or given >= len(body.outputs) or number >= len(loop.outputs):
        return None
    if made_by(loop.inputs[taken], "SequenceEmpty") is None:
        return None
    node, uses = made_by(body.outputs[given], "SequenceInsert"), body.inputs[taken].uses()
    if node is None or node.graph is not body or input_at(node, 2) is not None:
        return None
    is_alone = [(use.node, use.idx) for use in uses] == [(node, 0)] and not node.outputs[0].uses()
    shown = [value for value in body.outputs if value in (node.outputs[0], body.inputs[taken])]
    return node if is_alone and len(shown) == 1 else None


def _is_stack(loop: ir.Node, number: int, dims: Dims) -> bool:
    node = _insertion(loop, number)
    if node is None:
        return False
    found = loop.outputs[number]
    readers = [use.node for use in found.uses()]
    if not readers or found.is_graph_output():
        return False
    if any(reader.op_type != "ConcatFromSequence" or reader.domain for reader in readers):
        return False
    if all(attr_int(reader, "new_axis", 0) for reader in readers):
        return True
    keys = dims.of(node.inputs[1])
    return keys is not None and all(isinstance(key, int) for key in keys)


def _stack(loop: ir.Node, numbers: list[int]) -> None:
    """The loop anew, with rows in place of these lists."""
    body = loop.attributes["body"].as_graph()
    kept = [number for number in range(len(loop.inputs) - 2) if number not in numbers]
    rows: list[ir.Value] = []
    for number in numbers:
        node = _insertion(loop, number)
        assert node is not None
        row = node.inputs[1]
        assert row is not None
        rows.append(Editor(node).op("Identity", row))
        rows[-1].type, rows[-1].shape = row.type, row.shape
    count = len(loop.inputs) - 2
    condition, *carried = body.outputs[: 1 + count]
    scanned = body.outputs[1 + count :]
    lists, inputs = [carried[number] for number in numbers], list(body.inputs)
    body.outputs[:] = [condition, *(carried[number] for number in kept), *scanned, *rows]
    remove_unused(lists)
    for number in numbers:
        body.inputs.remove(inputs[2 + number])
    given = [*loop.inputs[:2], *(loop.inputs[2 + number] for number in kept)]
    before = len(kept) + len(scanned)
    made = Editor(loop).ops("Loop", given, before + len(rows), body=loop.attributes["body"])
    for number, collected in zip(numbers, made[before:], strict=True):
        for reader in [use.node for use in loop.outputs[number].uses()]:
            _join(reader, collected)
    places = {number: made[place] for place, number in enumerate(kept)}
    producer, name = made[0].producer(), loop.name
    outputs = [*(places.get(number) for number in range(count)), *made[len(kept) : before]]
    replace(loop, outputs[: len(loop.outputs)])
    assert producer is not None
    producer.name = name  # by which errors know it


def _join(node: ir.Node, rows: ir.Value) -> None:
    """What joins a list joins rows."""
    axis, new_axis = attr_int(node, "axis", 0), attr_int(node, "new_axis", 0)
    g = Editor(node, whole=True)
    replace(node, [g.op("JoinedRows", rows, domain="ingot", axis=axis, new_axis=new_axis)])
