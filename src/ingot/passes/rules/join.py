"""Products that share their left side become one: a session reads, or slices, that side once.

For sessions only: the weights lie side by side in a tensor of their own, which is made when a kernel packs
it. (In a file they would be there a second time for runtimes that gain nothing.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from ingot.mapped import forget_pages
from ingot.ops.create import tensor_array
from ingot.ops.nodes import remove
from ingot.ops.registry import Array
from ingot.passes.edit import add_initializer, constant_of, constant_shape, constant_tensor, replace
from ingot.passes.rewrite import Result, Rewriting, made_by, only_use, rule

#: Operators that look at a part of a product as well as at the whole. What computes with it does better as
#: the product's own epilogue.
_READERS = ("Reshape", "Transpose", "MatMul", "Attention", "SoftmaxAttention")

#: Where a graph's joined weights are kept, by the identities of the weights in them.
_JOINED = "ingot.joined"
_Known = dict[tuple[int, ...], tuple[list[ir.TensorProtocol], ir.Value]]


@dataclass(frozen=True, slots=True)
class _Branch:
    """x · weight (+ bias), and the node that has the result."""

    product: ir.Node
    last: ir.Node
    weight: ir.TensorProtocol
    depth: int
    columns: int
    bias: Array | None


def _branch(node: ir.Node, x: ir.Value) -> _Branch | None:
    """The node as a branch from x, if it can be joined with others."""
    weight = node.inputs[1]
    shape = constant_shape(weight)
    tensor = None if shape is None or len(shape) != 2 else constant_tensor(weight)
    if node.inputs[0] is not x or weight is x or weight is None or tensor is None or shape is None:
        return None
    last, bias = node, None
    if only_use(node.outputs[0]):
        user = next(iter(node.outputs[0].uses())).node
        if made_by(user.outputs[0], "Add") is user and user.graph is node.graph:
            other = user.inputs[1] if user.inputs[0] is node.outputs[0] else user.inputs[0]
            if constant_shape(other) == (shape[1],):
                last, bias = user, constant_of(other)
    result = last.outputs[0]
    readers = [use.node for use in result.uses()]
    if result.is_graph_output() or not readers or any(r.op_type not in _READERS for r in readers):
        return None
    return _Branch(node, last, tensor, shape[0], shape[1], bias)


@rule("MatMul", since=18)
def shared_left_side(g: Rewriting, node: ir.Node) -> Result:
    """[x·a + p, x·b + q, …] == split(x·[a b …] + [p q …]): the queries, keys and values of attention."""
    x = node.inputs[0]
    if g.standard or x is None or _branch(node, x) is None:
        return None
    users = [use.node for use in x.uses()]
    others = [n for n in users if n.domain == "" and n.op_type == "MatMul" and n.graph is node.graph]
    # This node comes first: rules see nodes in the graph's order, so what reads any of them comes later.
    branches = [b for b in (_branch(n, x) for n in dict.fromkeys([node, *others])) if b is not None]
    branches = [b for b in branches if b.weight.dtype == branches[0].weight.dtype]
    if len(branches) < 2:
        return None
    graph = node.graph
    assert graph is not None
    depth, columns = branches[0].depth, sum(b.columns for b in branches)
    y = g.op("MatMul", x, _joined(graph, [b.weight for b in branches], (depth, columns), node.name))
    if any(b.bias is not None for b in branches):
        zeros = [np.zeros(b.columns, b.weight.dtype.numpy()) if b.bias is None else b.bias for b in branches]
        bias = ir.Tensor(np.concatenate(zeros))
        y = g.op("Add", y, add_initializer(graph, f"{node.name or 'product'}.joined.bias", bias))
    sizes = g.ints([b.columns for b in branches])
    parts = g.ops("Split", [y, sizes], len(branches), axis=-1)
    for branch, part in list(zip(branches, parts, strict=True))[1:]:
        replace(branch.last, [part])
        if branch.last is not branch.product:
            remove(branch.product)
    first = branches[0]
    if first.last is first.product:
        return [parts[0]]
    replace(first.last, [parts[0]])
    return [None]


def _joined(
    graph: ir.Graph, weights: list[ir.TensorProtocol], shape: tuple[int, int], name: str | None
) -> ir.Value:
    """[a b …] as an initializer of the graph: one for all layers that share these weights. A clone shares
    what is kept, and has initializers of its own.
    """
    known = cast("_Known", graph.meta.setdefault(_JOINED, {}))  # pyright: ignore[reportUnknownMemberType]
    key = tuple(map(id, weights))
    if key not in known or not known[key][1].is_initializer() or known[key][1].graph is not graph:
        tensor = ir.LazyTensor(lambda: _side_by_side(weights), weights[0].dtype, ir.Shape(shape))
        known[key] = weights, add_initializer(graph, f"{name or 'product'}.joined", tensor)
    return known[key][1]


def _side_by_side(weights: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
    arrays = list(map(tensor_array, weights))
    joined = np.concatenate(arrays, axis=1)
    for array in arrays:
        forget_pages(array)
    return ir.Tensor(joined)


RULES = (shared_left_side,)
