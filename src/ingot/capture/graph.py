"""The ONNX graph while it is being written: nodes, shared constants, unique names. Knows nothing of torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import ExportError
from ingot.ops.nodes import node_of
from ingot.ops.registry import SOURCE

SHARED_CONSTANT_SIZE = (
    1024  # constants of up to this many elements with equal contents become one initializer
)


class Body:
    """Nodes in order: the model's own, or those of a branch or loop, which may use values from around it."""

    def __init__(self, parent: Body | None = None) -> None:
        self.parent = parent
        self.nodes: list[ir.Node] = []
        self.inputs: list[ir.Value] = []
        self.check: ir.Value | None = None  # what must hold in a branch or loop, a BOOL of shape []
        self.checked: dict[str, str] = {}  # the lines that ask for it, with what they ask

    def within(self, other: Body) -> bool:
        """Whether this is `other` or stands inside it."""
        at: Body | None = self
        while at is not None:
            if at is other:
                return True
            at = at.parent
        return False

    def discard(self) -> None:
        """Let go of every value that the nodes use: this body was only tried."""
        for node in self.nodes:
            release(node)

    def take_back(self, count: int) -> None:
        """Only the first so many nodes stay."""
        for node in self.nodes[count:]:
            release(node)
        del self.nodes[count:]


_ATTRIBUTES: dict[type, Callable[[str, Any], ir.Attr]] = {
    int: ir.AttrInt64,
    float: ir.AttrFloat32,
    str: ir.AttrString,
    ir.DataType: ir.AttrInt64,
    ir.Graph: ir.AttrGraph,
}


def _attribute(name: str, value: Any) -> ir.Attr:
    """An attribute; one of no numbers says that they would be whole, as nothing else does. onnx_ir finds out
    what others are, in ten times the time.
    """
    make = _ATTRIBUTES.get(cast("type[Any]", type(value)))
    if make is not None:
        return make(name, value)
    items = cast("Sequence[Any] | None", value if isinstance(value, (list, tuple)) else None)
    if items is not None and all(type(item) is int for item in items):
        return ir.AttrInt64s(name, items)
    return ir.convenience.convert_attribute(name, cast("Any", value))


def release(node: ir.Node) -> None:
    """Take a node that is not kept, and the graphs inside it, off the users of its inputs."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graph = attribute.as_graph()
            for inner in list(graph):
                release(inner)
    for i in range(len(node.inputs)):
        node.replace_input_with(i, None)


class GraphWriter:
    """Appends nodes to the body that is being written and hands out their values.

    Constants belong to the model, whichever body uses them.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.root = Body()
        self.body = self.root
        self._home: dict[ir.Value, Body] = {}  # of values that are not the root's
        self.initializers: dict[str, ir.Value] = {}
        self.scope = ""  # module path of what runs now
        self.source = ""  # file:line of what runs now
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def unique(self, name: str) -> str:
        """`name`, or `name_1`, `name_2` … when taken."""
        count = self._names.get(name)
        if count is None:
            self._names[name] = 0
            return name
        while True:
            count += 1
            candidate = f"{name}_{count}"
            if candidate not in self._names:
                self._names[name] = count
                self._names[candidate] = 0
                return candidate

    def ops(
        self, op_type: str, *inputs: ir.Value | None, n: int, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node with `n` outputs; attributes given as None are left out."""
        name = self.unique(f"{self.scope}/{op_type}" if self.scope else op_type)
        given = {k: _attribute(k, v) for k, v in attributes.items() if v is not None}
        outputs = [ir.Value(name=name if n == 1 else f"{name}:{i}") for i in range(n)]
        properties = {SOURCE: self.source} if self.source else None
        node = node_of(domain, op_type, inputs, outputs, given, name=name, metadata_props=properties)
        if self._home:
            for value in inputs:
                self.require(value)
        if self.body is not self.root:
            for value in node.outputs:
                self._home[value] = self.body
        self.body.nodes.append(node)
        return node.outputs

    @property
    def nodes(self) -> list[ir.Node]:
        """Nodes of the body that is being written."""
        return self.body.nodes

    def home(self, value: ir.Value) -> Body:
        """The body a value belongs to."""
        return self._home.get(value, self.root)

    def visible(self, value: ir.Value) -> bool:
        """Whether the body that is being written may use the value."""
        return self.body.within(self.home(value))

    def require(self, value: ir.Value | None) -> None:
        """Refuse a value of a branch or loop that is not the current one's or around it."""
        if value is not None and not self.visible(value):
            raise ExportError(
                "a tensor that was made inside a branch or loop that depends on data is used outside "
                "of it. It "
                "got out through an attribute, a container or a closure that capture does not "
                "follow. Assign it "
                "to a variable of the function, on both sides of the branch."
            )

    @contextlib.contextmanager
    def writing(self, body: Body) -> Generator[Body]:
        """Write into `body` for a while."""
        before, self.body = self.body, body
        try:
            yield body
        finally:
            self.body = before

    def body_input(self, name: str, type_: ir.TypeProtocol | None = None) -> ir.Value:
        """A new input of the body that is being written."""
        value = ir.Value(name=self.unique(name), type=type_)
        self._home[value] = self.body
        self.body.inputs.append(value)
        return value

    def graph_of(self, body: Body, outputs: Sequence[ir.Value], name: str) -> ir.Graph:
        """The body as a graph; outputs that come from around it, or twice, pass through an Identity."""
        made: list[ir.Value] = []
        with self.writing(body):
            for value in outputs:
                if value.producer() is None or self.home(value) is not body or value in made:
                    inner = self.op("Identity", value)
                    inner.type, inner.shape = value.type, value.shape
                    value = inner
                made.append(value)
        return ir.Graph(body.inputs, made, nodes=body.nodes, name=self.unique(name))

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Append a node with one output and return it."""
        return self.ops(op_type, *inputs, n=1, domain=domain, **attributes)[0]

    def const(self, value: Any, dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
        """A constant; small ones with equal contents are one initializer."""
        array = np.asarray(value, dtype=dtype.numpy())
        if array.size > SHARED_CONSTANT_SIZE:
            return self.initializer("const", ir.Tensor(array, dtype=dtype))
        key = (dtype.name, array.shape, array.tobytes())
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self.initializer("const", ir.Tensor(array, dtype=dtype))
        return found

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A named constant; the tensor is kept as it is given, not copied."""
        name = self.unique(name)
        sizes: list[Any] = list(tensor.shape)
        value = ir.Value(
            name=name, shape=ir.Shape(sizes), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        if isinstance(tensor, ir.Tensor):
            tensor.name = name
        self.initializers[name] = value
        return value


def inner_graphs(node: ir.Node) -> Iterator[ir.Graph]:
    """Bodies of a node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def with_inner(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """The nodes, each with those of its bodies."""
    for node in nodes:
        yield node
        for graph in inner_graphs(node):
            yield from with_inner(graph)


def pruned(nodes: Sequence[ir.Node], outputs: list[ir.Value]) -> tuple[list[ir.Node], set[int]]:
    """Nodes that lead to the outputs, in bodies too, and the ids of all values they need.

    An If keeps only those outputs that are needed; where it gets new ones, `outputs` has them.
    """
    needed: list[ir.Node] = []
    alive = {id(v) for v in outputs}
    for node in reversed(nodes):
        if not any(id(v) in alive for v in node.outputs):
            release(node)
            continue
        if node.op_type == "If" and not all(id(v) in alive for v in node.outputs):
            node = _narrowed(node, alive, outputs)
        needed.append(node)
        alive.update(id(v) for v in node.inputs if v is not None)
        for graph in inner_graphs(node):
            before = list(graph)
            kept, used = pruned(before, list(graph.outputs))
            graph.remove(before)
            graph.extend(kept)
            alive |= used
    needed.reverse()
    return needed, alive


def _narrowed(node: ir.Node, alive: set[int], results: list[ir.Value]) -> ir.Node:
    """An If without the outputs that nobody needs."""
    kept = [i for i, v in enumerate(node.outputs) if id(v) in alive]
    for graph in inner_graphs(node):
        graph.outputs[:] = [graph.outputs[i] for i in kept]
    outputs = [node.outputs[i] for i in kept]
    attributes = list(node.attributes.values())
    inputs = list(node.inputs)
    metadata = dict(node.metadata_props)
    made = ir.Node(node.domain, node.op_type, inputs, attributes, num_outputs=len(kept), name=node.name)
    made.metadata_props.update(metadata)
    for old, new in zip(outputs, made.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        alive.add(id(new))
        results[:] = [new if v is old else v for v in results]
    for i in range(len(node.inputs)):
        node.replace_input_with(i, None)
    return made


def uses(node: ir.Node) -> Generator[ir.Value]:
    """What a node reads, its subgraphs included."""
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from (v for inner in attribute.as_graph() for v in uses(inner))
            yield from attribute.as_graph().outputs


def elements_decide(value: ir.Value, inputs: Sequence[ir.Value]) -> bool:
    """Whether the elements of an input decide a value; its sizes alone may."""
    wanted, seen, todo = set(map(id, inputs)), set[int](), [value]
    while todo:
        v = todo.pop()
        if id(v) in wanted:
            return True
        node = v.producer()
        if node is not None and id(node) not in seen and node.op_type != "Shape":
            seen.add(id(node))
            todo.extend(uses(node))
    return False
