"""Small edits of a graph: new nodes before a node, a node replaced by values, constants read and written.

Names of graph outputs never change, metadata follows the node that is replaced, and no name is used twice.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.ops.create import constant_array, tensor_array
from ingot.ops.nodes import add_new_initializer, initialized, node_of, remove, replace_uses
from ingot.ops.registry import STANDS_FOR, Array, label
from ingot.ops.tensors import tensor_of

_names = threading.local()
_GRAPHS = "ingot.passes.graphs"
_ONE_GRAPH, _GRAPH_LIST = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


class Editor:
    """Inserts nodes before `node`, named and annotated after it. whole: errors of theirs name it."""

    #: What errors call the node of the file.
    stands_for: str | None = None

    def __init__(self, node: ir.Node, *, whole: bool = False) -> None:
        assert node.graph is not None
        self.node = node
        if whole:
            self.stands_for = f"{node.op_type} {node.name!r}"
        self.graph = node.graph

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """A new node's only output."""
        return self.ops(op_type, inputs, 1, domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """A new node's outputs. Attributes that are None are left out; trailing inputs that are None too."""
        inputs = list(inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        name = fresh(f"{self.node.name or self.node.op_type}/{op_type}")
        made = [attribute(key, value) for key, value in attributes.items() if value is not None]
        node = node_of(
            domain,
            op_type,
            inputs,
            [ir.Value(name=f"{name}_{i}" if i else f"{name}_out") for i in range(outputs)],
            {each.name: each for each in made},
            name=name,
            metadata_props={**self.node.metadata_props},
        )
        if self.stands_for:
            node.meta[STANDS_FOR] = self.stands_for
        self.graph.insert_before(self.node, node)
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
        return node.outputs

    def constant(self, array: Any, dtype: Any = None) -> ir.Value:
        """A constant, as a node of its own."""
        return self.op("Constant", value=ir.Tensor(np.asarray(array, dtype)))

    def ints(self, values: Sequence[int]) -> ir.Value:
        """A constant list of int64."""
        return self.constant(list(values), np.int64)

    def number(self, value: float, like: ir.Value | None) -> ir.Value:
        """A constant of another value's dtype."""
        dtype = dtype_of(like)
        if dtype is not None:
            return self.constant(np.array(value).astype(dtype))
        return self.op("CastLike", self.constant(value, np.float32), like)


def is_used(node: ir.Node, index: int) -> bool:
    """Whether anybody reads an output of the node, which may have fewer."""
    return index < len(node.outputs) and bool(
        node.outputs[index].uses() or node.outputs[index].is_graph_output()
    )


def sum_of(g: Editor, *values: ir.Value | None) -> ir.Value:
    """The sum of those values that there are."""
    there = [v for v in values if v is not None]
    total = there[0]
    for value in there[1:]:
        total = g.op("Add", total, value)
    return total


def kept(node: ir.Node, names: Sequence[str]) -> dict[str, Any]:
    """These of a node's attributes that it has, for another one."""
    return {name: node.attributes[name] for name in names if name in node.attributes}


def refusal(node: ir.Node, what: str) -> UnsupportedOperatorError:
    """What to raise for a node that other operators cannot say."""
    return UnsupportedOperatorError(
        f"{label(node)}: {what}. Rewrite the model without it, or give the operator's implementation to "
        "ingot.register_op() under another name."
    )


_ATTRIBUTE_TYPES: dict[type, tuple[ir.AttributeType, ir.AttributeType]] = {
    int: (ir.AttributeType.INT, ir.AttributeType.INTS),
    float: (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS),
    str: (ir.AttributeType.STRING, ir.AttributeType.STRINGS),
}


def attribute(name: str, value: object) -> ir.Attr:
    """An attribute of a node; one that is an attribute already is shared.

    onnx_ir can be asked for the type of any value, which takes it a tenth of a millisecond each time; so the
    usual types are known here.
    """
    if isinstance(value, ir.Attr):
        return value
    types = _ATTRIBUTE_TYPES.get(type(value))
    if types is not None:
        return ir.Attr(name, types[0], value)
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        kinds = {type(item) for item in items}
        types = _ATTRIBUTE_TYPES.get(kinds.pop()) if len(kinds) == 1 else None
        if types is not None:
            return ir.Attr(name, types[1], tuple(items))
    if isinstance(value, ir.Tensor):
        return ir.Attr(name, ir.AttributeType.TENSOR, value)
    return ir.convenience.convert_attribute(name, cast("Any", value))


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs in a node's attributes."""
    for attribute in node.attributes.data.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def graphs_of(model: ir.Model) -> list[ir.Graph]:
    """The model's graph and all graphs in attributes of its nodes, outer ones first."""
    known = cast("list[ir.Graph] | None", model.meta.get(_GRAPHS))  # pyright: ignore[reportUnknownMemberType]
    return _find_graphs(model) if known is None else known


@contextlib.contextmanager
def fixed_graphs(model: ir.Model) -> Generator[None, None, None]:
    """`graphs_of` looks for them once, and again where `graphs_added` says so; those that are removed stay
    among them.
    """
    if _GRAPHS in model.meta:  # somebody around has seen to it
        yield
        return
    model.meta[_GRAPHS] = _find_graphs(model)
    try:
        yield
    finally:
        del model.meta[_GRAPHS]


def graphs_added(model: ir.Model) -> None:
    """To be called where the model may have got graphs in attributes that it had not."""
    if _GRAPHS in model.meta:
        model.meta[_GRAPHS] = _find_graphs(model)


def _find_graphs(model: ir.Model) -> list[ir.Graph]:
    found = [model.graph]
    for graph in found:
        for node in graph:
            for given in node.attributes.data.values():
                kind = given.type  # the value of a long list would be made to be looked at
                if kind is _ONE_GRAPH or kind is _GRAPH_LIST:
                    value = given.value
                    if type(value) is ir.Graph:
                        found.append(value)
                    elif value:
                        found.extend(given.as_graphs())
    return found


def fresh(stem: str) -> str:
    """A name that nothing else has, once `reserve_names` has seen the model."""
    try:
        numbers: itertools.count[int] = _names.numbers
    except AttributeError:
        numbers = _names.numbers = itertools.count(1 << 20)
    return f"{stem.partition('#')[0]}#{next(numbers)}"


def reserve_names(model: ir.Model) -> None:
    """Lets `fresh` begin above every number in use here; the same model always gets the same names."""
    names: list[str | None] = []
    for graph in graphs_of(model):
        names += graph.initializers.data
        names += [value.name for value in graph.inputs]
        for node in graph:
            names.append(node.name)
            names += [value.name for value in node.outputs]
    numbers = re.findall(r"#(\d+)", "\n".join(filter(None, names)))
    _names.numbers = itertools.count(max(map(int, numbers), default=0) + 1)


def replace(node: ir.Node, values: Sequence[ir.Value | None]) -> None:
    """Lets everything that uses the node's outputs use `values` instead, and removes the node.

    A graph output keeps its name. None: the output is not used.
    """
    for old, new in zip(node.outputs, values, strict=True):
        if new is None:
            continue
        if old.is_graph_output():
            new = _as_output(node, old, new)
            _replace_outputs(old, new)
        elif new.type is None and old.type is not None:
            new.type, new.shape = old.type, old.shape
        replace_uses(old, new)
    remove(node)


def _replace_outputs(old: ir.Value, new: ir.Value) -> None:
    """Lets the graph that shows `old` show `new`."""
    graph = old.graph
    assert graph is not None
    for place, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[place : place + 1] = [new]  # of one value onnx_ir asks whether it is many


def _as_output(node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """`new` under the name of `old`; a copy where it has a name that must stay, too."""
    fixed = new.is_graph_input() or new.is_graph_output() or new.is_initializer() or new.producer() is None
    if fixed or new.graph is not node.graph:
        new = Editor(node).op("Identity", new)
    name, old.name = old.name, fresh(old.name or "value")
    new.name, new.type, new.shape = name, old.type, old.shape
    return new


def constant_of(value: ir.Value | None) -> Array | None:
    """The value's array where the graph fixes it: an initializer that is no input, or a Constant node."""
    if value is None or not is_constant(value):
        return None
    producer = value.producer()
    if producer is not None:
        return constant_array(producer)
    assert value.const_value is not None
    return tensor_array(value.const_value)


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Like `constant_of`, without reading its elements: large ones may be computed when they are read."""
    if value is not None and value.producer() is None:
        return value.const_value if value.is_initializer() and not value.is_graph_input() else None
    array = constant_of(value)
    return None if array is None or array.dtype == object else tensor_of(array)


def constant_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a constant, without reading its elements; None where the value is no constant."""
    if value is None:
        return None
    producer = value.producer()
    if producer is None:
        tensor = value.const_value
        if tensor is None or not value.is_initializer() or value.is_graph_input():
            return None
        # A tensor's sizes are numbers: dims has them without the time that numpy() takes to see that.
        return cast("tuple[int, ...]", tensor.shape.dims)
    array = constant_of(value) if producer.op_type == "Constant" else None
    return None if array is None else array.shape


def is_constant(value: ir.Value) -> bool:
    """Whether `constant_of` has an array of it; looks at no element."""
    producer = value.producer()
    if producer is None:
        return value.const_value is not None and value.is_initializer() and not value.is_graph_input()
    return (
        producer.op_type == "Constant"
        and producer.domain == ""
        and "sparse_value" not in producer.attributes.data
    )


def ints_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A constant's elements as Python integers; None where the value is no constant."""
    array = constant_of(value)
    return None if array is None else tuple(int(x) for x in array.ravel().tolist())


def scalar_of(value: ir.Value | None) -> float | None:
    """The number that a constant of one element holds; None where it is not one."""
    shape = constant_shape(value)
    if shape is None or len(shape) > 4 or any(size != 1 for size in shape):
        return None
    array = constant_of(value)
    return None if array is None or array.dtype == object else array.reshape(()).item()


def add_initializer(graph: ir.Graph, stem: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer of `graph`, named after `stem`."""
    value = initialized(fresh(stem), tensor)
    add_new_initializer(graph, value)
    return value


def rank_of(value: ir.Value | None) -> int | None:
    """The rank that the graph declares for a value, None where it does not."""
    if value is None or value.shape is None:
        shape = constant_shape(value)
        return None if shape is None else len(shape)
    return len(value.shape)


def dtype_of(value: ir.Value | None) -> np.dtype[Any] | None:
    """The dtype that the graph declares for a value, None where it does not."""
    if value is None:
        return None
    if value.dtype is not None and value.dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return value.dtype.numpy()
    array = constant_of(value) if value.producer() is not None else None
    return None if array is None else array.dtype
