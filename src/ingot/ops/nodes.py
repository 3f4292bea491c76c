"""Nodes as onnx_ir's own methods make, rewire and remove them, in a third of their time: those look at
everything that they are given, and at all outputs of the graph for each node that goes.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

_read = ir.Value()
_reader = ir.Node("", "", (_read,))
_Usage: Any = type(next(iter(_read.uses())))
_Attributes = type(_reader.attributes)
#: The fields that are written here. An onnx_ir that has others does the work itself.
_NODE = """_attributes _domain _graph _inputs _metadata _metadata_props _name _op_type _outputs _overload
_version device_configurations doc_string"""
_VALUE = """_const_value _graph _index _is_graph_input _is_graph_output _is_initializer _metadata
_metadata_props _name _producer _shape _type _uses doc_string"""
_IS_KNOWN = {*_NODE.split()} == {*ir.Node.__slots__} and {*_VALUE.split()} == {*ir.Value.__slots__}


def node_of(
    domain: str,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    outputs: Sequence[ir.Value],
    attributes: dict[str, ir.Attr],
    *,
    name: str | None = None,
    overload: str = "",
    doc_string: str | None = None,
    metadata_props: dict[str, str] | None = None,
) -> ir.Node:
    """A node of no graph yet. outputs: new values, which no node makes. attributes: by their names; the node
    keeps the dict.
    """
    if not _IS_KNOWN:
        return ir.Node(
            domain,
            op_type,
            inputs,
            attributes,
            overload=overload,
            outputs=outputs,
            name=name,
            doc_string=doc_string,
            metadata_props=metadata_props,
        )
    # What ir.Node's constructor leaves behind, without it.
    node = ir.Node.__new__(ir.Node)
    node._name, node._op_type, node._overload = name, op_type, overload
    node._domain = "" if domain == "ai.onnx" else domain
    node._inputs, node._outputs = tuple(inputs), tuple(outputs)
    node._attributes = held = _Attributes.__new__(_Attributes)
    held._owner, held.data = node, attributes
    node._version = node._graph = node._metadata = None
    node._metadata_props, node.doc_string = metadata_props, doc_string
    node.device_configurations = ()
    for index, value in enumerate(outputs):
        value._producer, value._index = node, index
    for index, value in enumerate(inputs):
        if value is not None:
            value._uses[_Usage(node, index)] = None
    return node


def initialized(name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A value that holds this tensor, of no graph yet."""
    shape: Any = tensor.shape  # frozen, as those of tensors are
    return ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)


def add_new_initializer(graph: ir.Graph, value: ir.Value) -> None:
    """Adds an initializer. value: of no graph yet, under a name that is new to this one."""
    if not _IS_KNOWN:
        graph.initializers.add(value)
        return
    value._is_initializer, value._graph = True, graph
    graph.initializers.data[value._name or ""] = value


def set_inputs(node: ir.Node, inputs: Sequence[ir.Value | None]) -> None:
    """Lets a node read these values."""
    if not _IS_KNOWN or node.device_configurations:
        node.resize_inputs(len(inputs))
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)
        return
    before, node._inputs = node._inputs, tuple(inputs)
    for index, (old, new) in enumerate(itertools.zip_longest(before, inputs)):
        if old is not new:
            if old is not None:
                del old._uses[_Usage(node, index)]
            if new is not None:
                new._uses[_Usage(node, index)] = None


def replace_uses(old: ir.Value, new: ir.Value) -> None:
    """Nodes that read `old` read `new`. Outputs of graphs stay."""
    if old is new:
        return
    for usage in tuple(old._uses) if _IS_KNOWN else old.uses():
        node, index = usage
        if not _IS_KNOWN or node.device_configurations:
            node.replace_input_with(index, new)
        else:
            inputs = node._inputs
            node._inputs = (*inputs[:index], new, *inputs[index + 1 :])
            del old._uses[usage]
            new._uses[usage] = None


def remove(node: ir.Node) -> None:
    """Takes a node out of its graph. Raises ValueError where somebody uses its outputs."""
    graph = node.graph
    assert graph is not None
    if not _IS_KNOWN or any(value._uses or value._is_graph_output for value in node._outputs):
        graph.remove(node, safe=True)
        return
    for index, value in enumerate(node._inputs):
        if value is not None:
            del value._uses[_Usage(node, index)]
    node._inputs = (None,) * len(node._inputs)
    node._graph = None
    graph._nodes.remove(node)


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be left out."""
    return node.inputs[index] if index < len(node.inputs) else None
