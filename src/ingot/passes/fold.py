"""Constant folding: what depends on nothing but constants (or on proved shapes) is computed once, here."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.errors import IngotError
from ingot.ops.create import constant_array
from ingot.ops.nodes import input_at, remove, replace_uses
from ingot.ops.registry import UNFIT, Array, Facts, attr_int, find
from ingot.ops.tensors import tensor_of
from ingot.passes.dims import Dims
from ingot.passes.edit import add_initializer, constant_of, graphs_of, is_constant, replace
from ingot.passes.rewrite import remove_unused

#: A file must not grow by folding: results up to this many bytes, or as large as what they replace.
FILE_LIMIT = 64 << 10
#: In memory a result is computed once instead of in every run.
SESSION_LIMIT = 1 << 30

#: Results that wait; None once nobody will ask for the array any more.
_Pending: TypeAlias = "dict[ir.Value, Array | None]"
#: Arrays of more bytes are let go while their readers wait: the next ones take their memory.
_LARGE = 1 << 16

# Folding these would undo what they are there for: weights stored in fewer bits.
_KEPT = frozenset({"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"})
#: What computes shapes, or picks out of them.
_OF_SHAPES = frozenset({"Shape", "Gather", "Slice", "Concat", "Unsqueeze", "Squeeze"})


def fold(model: ir.Model, limit: int = FILE_LIMIT, dims: Dims | None = None) -> int:
    """Replaces nodes of known value by initializers, in place; returns how many.

    requires: nodes at an opset whose meaning the registry has. ensures: the same function; no node draws
    random numbers less often than before; initializers grow by at most `limit` bytes for each node.
    dims: what is proved of the model's shapes already.
    """
    dims = Dims() if dims is None else dims
    return sum(_fold_graph(graph, limit, dims) for graph in graphs_of(model))


def lift_constants(model: ir.Model) -> int:
    """Turns Constant nodes into initializers, in place; returns how many.

    requires: nothing. ensures: no Constant node with a dense value is left, but those of graph outputs.
    """
    count = 0
    for graph in graphs_of(model):
        for node in list(graph):
            if node.op_type != "Constant" or node.domain != "" or "sparse_value" in node.attributes:
                continue
            value = node.outputs[0]
            attribute = node.attributes.get("value")
            # Not as_tensor(): it asks whether all of a protocol is there, half of this pass's time.
            tensor = _tensor(constant_array(node)) if attribute is None else attribute.value
            if value.is_graph_output():
                continue
            new = add_initializer(graph, value.name or "constant", tensor)
            replace_uses(value, new)
            remove(node)
            count += 1
    return count


def _tensor(array: Array) -> ir.TensorProtocol:
    if array.dtype == object:
        return ir.StringTensor([str(s).encode() for s in array.ravel().tolist()], shape=ir.Shape(array.shape))
    return tensor_of(array)


def _fold_graph(graph: ir.Graph, limit: int, dims: Dims) -> int:
    count = 0
    #: results that only nodes read which will be folded in their turn: most never become initializers
    pending: _Pending = {}
    integers: dict[ir.Value, bool] = {}
    for node in list(graph):
        op_type, inputs = node.op_type, node.inputs
        known = True
        for value in inputs:
            if value is not None and value not in pending and not is_constant(value):
                known = False
                break
        if not known and op_type not in _OF_SHAPES and not pending:
            continue
        if not _is_candidate(node, graph):
            continue
        if op_type == "Identity" and inputs[0] not in pending and not node.outputs[0].is_graph_output():
            replace(node, inputs)  # of a weight that several layers share: one tensor it stays
            count += 1
            continue
        feeding = [value for value in inputs if value is not None]
        waiting = [value for value in feeding if value in pending]
        results = None if waiting or op_type not in _OF_SHAPES else _by_shape(node, dims, integers)
        if results is None and known and feeding:
            results = _by_value(node, limit, pending)
        if results is None:
            for value in waiting:
                _settle(value, graph, pending)
            continue
        count += 1
        pending.update(zip(node.outputs, results, strict=True))
        for value in waiting:
            _release(value, pending)
        if not all(_is_passing(output, graph, pending) for output in node.outputs):
            behind = _behind(waiting, pending)
            _settle(node.outputs[0], graph, pending)
            remove_unused(feeding)
            for value in behind:
                if not value.uses():
                    del pending[value]
    for value in reversed(list(pending)):  # of nodes that stand behind those which read them
        _settle(value, graph, pending)
    return count


def _behind(values: list[ir.Value], pending: _Pending) -> list[ir.Value]:
    """The pending values that these were computed from, and these."""
    found: dict[ir.Value, None] = {}
    stack = list(values)
    while stack:
        value = stack.pop()
        if value in found or value not in pending:
            continue
        found[value] = None
        node = value.producer()
        stack.extend(v for v in (node.inputs if node is not None else ()) if v is not None)
    return list(found)


def _is_candidate(node: ir.Node, graph: ir.Graph) -> bool:
    return (
        node.graph is graph and node.domain == "" and node.op_type not in _KEPT and node.op_type != "Constant"
    )


def _is_passing(output: ir.Value, graph: ir.Graph, pending: _Pending) -> bool:
    """Whether every node that reads a known value has nothing but known inputs."""
    return not output.is_graph_output() and all(
        _is_candidate(user, graph) and all(v is None or v in pending or is_constant(v) for v in user.inputs)
        for user, _ in output.uses()
    )


def _release(value: ir.Value, pending: _Pending) -> None:
    """Lets go of a large array all of whose readers have been folded."""
    array = pending[value]
    if array is None or array.nbytes <= _LARGE:
        return
    if all(user.outputs[0] in pending for user, _ in value.uses()):
        pending[value] = None


def _settle(value: ir.Value, graph: ir.Graph, pending: _Pending) -> None:
    """Puts initializers in the place of the node that computes a pending value."""
    node = value.producer()
    if value not in pending or node is None or node.graph is not graph:
        return
    values: list[ir.Value | None] = []
    for output in node.outputs:
        array = pending.pop(output, None)
        if array is None or not (output.uses() or output.is_graph_output()):
            values.append(None)
        else:
            values.append(add_initializer(graph, output.name or "folded", _tensor(array)))
    replace(node, values)


def _by_shape(node: ir.Node, dims: Dims, integers: dict[ir.Value, bool]) -> list[Array] | None:
    """The value of a node of _OF_SHAPES, where every size is proved to be a number. integers: what is known
    of whether values are int64.
    """
    output = node.outputs[0]
    if not _is_int64(output, integers):
        return None
    keys = dims.content(output)
    if keys is None or not all(isinstance(key, int) for key in keys):
        return None
    shape = dims.of(output)
    if node.op_type == "Shape":
        shape = (len(keys),)
    if shape is None or shape not in ((len(keys),), () if len(keys) == 1 else None):
        return None
    return [np.array(keys, np.int64).reshape(tuple(int(n) for n in shape if isinstance(n, int)))]


def _is_int64(value: ir.Value, known: dict[ir.Value, bool]) -> bool:
    """Whether what is computed of shapes is of their dtype: also where the graph declares none, since it is
    that of the first operand then.
    """
    path = [value]
    while (result := known.get(path[-1], _dtype_said(path[-1]))) is None:
        node = path[-1].producer()
        first = None if node is None else input_at(node, 0)
        if first is None:
            result = False
            break
        path.append(first)
    known.update(dict.fromkeys(path, result))
    return result


def _dtype_said(value: ir.Value) -> bool | None:
    """Whether a value is int64 by what stands there; None where its dtype follows from its node's inputs."""
    node = value.producer()
    if value.dtype is not None or node is None:
        return value.dtype == ir.DataType.INT64
    if node.op_type in ("Shape", "Size"):
        return True
    if node.op_type == "Cast":
        return attr_int(node, "to", 0) == ir.DataType.INT64
    array = constant_of(value)
    return None if array is None else array.dtype == np.int64


def _by_value(node: ir.Node, limit: int, pending: _Pending) -> list[Array] | None:
    """What a node computes of constants and of pending results."""
    try:
        op = find(node.domain, node.op_type, node)
        if op.random or op.subgraphs or len(node.outputs) < 1:
            return None
        arrays = [
            pending[value] if value is not None and value in pending else constant_of(value)
            for value in node.inputs
        ]
        # The size first: an Expand of one number may be huge.
        limit = max(limit, sum([a.nbytes for a in arrays if a is not None]))
        facts = op.infer(node, [None if a is None else Facts(a.dtype, a.shape, a) for a in arrays])
        if facts is not None and sum(map(_bytes, facts)) > limit:
            return None
        results = op.evaluate(node, arrays)
    except (IngotError, *UNFIT):
        return None  # an invalid node is reported when it runs, with its shapes
    if not all(isinstance(a, np.ndarray) for a in results):  # pyright: ignore[reportUnnecessaryIsInstance]
        return None  # a sequence
    return results if sum([a.nbytes for a in results]) <= limit else None


def _bytes(facts: Facts | None) -> int:
    return 0 if facts is None else math.prod(facts.shape) * facts.dtype.itemsize
