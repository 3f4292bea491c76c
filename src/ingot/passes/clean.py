"""What a graph does not need: nodes and initializers without use, two of the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.mapped import forget_pages
from ingot.ops.nodes import remove, replace_uses
from ingot.ops.registry import find
from ingot.ops.tensors import ArrayTensor
from ingot.passes.edit import graphs_of, replace

#: So many bytes of two tensors are compared at a time.
_COMPARED = 1 << 20
#: Tensors of so many bytes are compared by all of them, others first by some of their elements.
_SAMPLED = 1 << 10


def remove_dead(model: ir.Model) -> int:
    """Removes nodes that no graph output depends on, in place; returns how many.

    requires: nothing. ensures: every node's result is used. A node that only draws random numbers is dead,
    too.
    """
    count = 0
    for graph in reversed(graphs_of(model)):
        for node in reversed(list(graph)):
            for value in node.outputs:
                if value.uses() or value.is_graph_output():
                    break
            else:
                remove(node)
                count += 1
    return count


def remove_unused_initializers(model: ir.Model) -> int:
    """Removes initializers that nothing uses and that are no inputs, in place; returns how many.

    requires: nothing. ensures: what is said.
    """
    count = 0
    for graph in graphs_of(model):
        for name, value in list(graph.initializers.data.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del graph.initializers[name]
                count += 1
    return count


def merge_initializers(model: ir.Model) -> int:
    """Lets equal initializers be one, in place; returns how many went.

    requires: nothing. ensures: no two initializers of a graph that are used are equal; strings, and tensors
    that are only computed when they are read, may be.
    """
    count = 0
    for graph in graphs_of(model):
        alike: dict[Any, list[ir.Value]] = {}
        for value in graph.initializers.data.values():
            tensor = value.const_value
            if tensor is None or value.is_graph_input() or value.is_graph_output():
                continue
            if value.uses():  # the others go in the end
                alike.setdefault((tensor.dtype, tensor.shape.dims), []).append(value)
        # A few bytes tell most of them apart, and need not all be read.
        for values in _groups(alike.values(), _tensor_sample):
            for first, *others in _equal(values):
                for value in others:
                    replace_uses(value, first)
                    del graph.initializers[value.name or ""]
                    count += 1
    return count


def _groups(
    groups: Iterable[list[ir.Value]], key: Callable[[ir.TensorProtocol], Any]
) -> Iterator[list[ir.Value]]:
    """Parts of the groups with equal keys, those of more than one value."""
    for group in groups:
        if len(group) == 1:
            continue
        parts: dict[Any, list[ir.Value]] = {}
        for value in group:
            assert value.const_value is not None
            parts.setdefault(key(value.const_value), []).append(value)
        yield from (part for part in parts.values() if len(part) > 1)


def _equal(values: list[ir.Value]) -> Iterator[list[ir.Value]]:
    """Those of the values of one sample that are equal, together: nearly always all of them are."""
    while len(values) > 1:
        first = values[0].const_value
        assert first is not None
        same, rest = values[:1], list[ir.Value]()
        for value in values[1:]:
            assert value.const_value is not None
            (same if _is_equal(first, value.const_value) else rest).append(value)
        if len(same) > 1:
            yield same
        values = rest


def _is_read(tensor: ir.TensorProtocol) -> bool:
    """Whether its elements may be looked at: others are compared as objects."""
    if type(tensor) is ArrayTensor:  # as nearly all are: isinstance asks a protocol for each
        return True
    return tensor.dtype != ir.DataType.STRING and not isinstance(tensor, ir.LazyTensor)


def _is_equal(one: ir.TensorProtocol, two: ir.TensorProtocol) -> bool:
    """Of tensors of one shape, dtype and sample."""
    if one is two or (_is_read(one) and one.numpy().nbytes <= _SAMPLED):
        return True  # the sample was all there is
    first, second = (tensor.numpy().reshape(-1).view(np.uint8) for tensor in (one, two))
    parts = range(0, first.size, _COMPARED)
    equal = all(np.array_equal(first[at : at + _COMPARED], second[at : at + _COMPARED]) for at in parts)
    if first.size > _COMPARED:
        forget_pages(second)
    return equal


def _tensor_sample(tensor: ir.TensorProtocol) -> Any:
    """Equal for tensors of one shape that may be equal."""
    if not _is_read(tensor):
        return id(tensor)
    array = tensor.numpy()
    if array.nbytes <= _SAMPLED:
        return array.tobytes()
    flat = array.reshape(-1)
    return flat[:8].tobytes(), flat[:: flat.size // 8].tobytes()


def merge_equal_nodes(model: ir.Model) -> int:
    """Common subexpressions: lets equal nodes be one, in place; returns how many went.

    requires: nodes in topological order. ensures: no two nodes of a graph have the same operator, inputs and
    attributes, but those that draw random numbers, have subgraphs, or compute a graph output.
    """
    count = 0
    for graph in graphs_of(model):
        # The first node of an operator on the same inputs; None once there is a second one, and keys matter.
        alone: dict[Any, ir.Node | None] = {}
        seen: dict[Any, ir.Node] = {}
        for node in list(graph):
            sample = (node.op_type, node.inputs)
            if sample not in alone:
                alone[sample] = node
                continue
            first = alone[sample]
            if first is not None:
                alone[sample] = None
                seen.setdefault(_node_key(first), first)
            key = _node_key(node)
            if key is None:
                continue
            first = seen.setdefault(key, node)
            if first is not node and not any(value.is_graph_output() for value in node.outputs):
                replace(node, list(first.outputs))
                count += 1
    return count


def _node_key(node: ir.Node) -> Any:
    if node.domain != "":
        return None  # what another domain's operator does besides computing is not known
    op = find(node.domain, node.op_type, node)
    if op.random or op.subgraphs:
        return None
    attributes: list[Any] = []
    for name, attribute in sorted(node.attributes.data.items()):
        value: Any = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            small = value.nbytes <= _COMPARED and value.dtype != ir.DataType.STRING
            value = (value.dtype, value.shape.dims, value.tobytes()) if small else id(value)
        elif attribute.type == ir.AttributeType.FLOAT:
            value = repr(value)  # 0.0 equals -0.0, and means something else
        elif attribute.type == ir.AttributeType.FLOATS:
            value = repr(tuple(value))
        elif attribute.type in (ir.AttributeType.INTS, ir.AttributeType.STRINGS):
            value = tuple(value)
        elif attribute.type not in (ir.AttributeType.INT, ir.AttributeType.STRING):
            return None
        attributes.append((name, attribute.type, value))
    inputs = tuple(None if value is None else id(value) for value in node.inputs)
    # Absent outputs count: a node may compute more than its twin.
    outputs = tuple(value.name != "" for value in node.outputs)
    return node.op_type, inputs, tuple(attributes), outputs
