"""A graph as the planner walks it: nodes in order with their operators, who reads a value, initializers as
arrays.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.call import View
from ingot.loading import LEAST_VIEW
from ingot.mapped import mapping_of
from ingot.ops.choices import CHOICES, check_choices
from ingot.ops.control import Control
from ingot.ops.create import tensor_array
from ingot.ops.registry import Array, Facts, LazyFacts, Op, find, load_families
from ingot.ops.tensors import ArrayTensor
from ingot.passes.edit import subgraphs_of

#: Smaller weights are computed now, in bytes; larger ones when a kernel packs them.
LEAST_LAZY = 1 << 16
_OBJECT_MAKERS = frozenset(["ZipMap", "LabelEncoder"])
#: They hand on elements of their first input.
_MOVERS = frozenset(
    ["ArrayFeatureExtractor", "Flatten", "Gather", "Identity", "Reshape", "Squeeze", "Unsqueeze"]
)
#: Nodes with their operators, inputs and outputs.
Walk: TypeAlias = "list[tuple[ir.Node, Op, tuple[ir.Value | None, ...], tuple[ir.Value, ...]]]"
_PLACING = frozenset(["Concat", "Transpose", "Reshape"])

# Now rather than when the first model is opened: what is imported with the session is not waited for later.
load_families()


@dataclass(slots=True)
class Index:
    """Made once for a graph (or subgraph), shared by all its plans."""

    nodes: list[ir.Node]
    ops: list[Op]
    inputs: list[ir.Value]
    outputs: list[ir.Value]
    constants: dict[ir.Value, Facts]
    #: values of enclosing graphs that this graph reads
    captured: list[ir.Value]
    #: for each node, what it reads at run time, the captures of its subgraphs included
    reads: list[list[ir.Value]]
    #: for each file that weights are mapped from, one of the arrays in it
    mapped: list[Array]
    subgraphs: dict[ir.Graph, Index] = field(default_factory=dict[ir.Graph, "Index"])
    #: the position of the first of the nodes at the end that make strings and maps for the caller alone
    late: int = 0
    #: values that each plan uses anew, for what only it knows of
    spare: list[ir.Value] = field(default_factory=list[ir.Value])
    #: the nodes that must run and who reads a value, by what is known (`uses.py` fills it in)
    uses: dict[Hashable, tuple[set[int], dict[ir.Value, list[int]]]] = field(
        default_factory=dict[Hashable, tuple[set[int], dict[ir.Value, list[int]]]]
    )
    #: constant vectors as columns, by their number of further dimensions (`Construction.column`)
    columns: dict[tuple[ir.Value, int], tuple[Facts, View]] = field(
        default_factory=dict[tuple[ir.Value, int], tuple[Facts, View]]
    )
    #: the same graph with a branch in the place of the If at a position (`branches.with_branch`)
    joined: dict[tuple[int, ir.Graph], Index] = field(default_factory=dict[tuple[int, ir.Graph], "Index"])
    _last_use: dict[ir.Value, int] | None = None
    _placed: frozenset[ir.Value] | None = None
    _walk: Walk | None = None
    _convolutions: list[int] | None = None
    _has_strings: bool | None = None
    _has_wide: bool | None = None

    @property
    def walk(self) -> Walk:
        """The nodes, as quick to read as can be."""
        if self._walk is None:
            nodes = zip(self.nodes, self.ops, strict=True)
            self._walk = [(node, op, tuple(node.inputs), tuple(node.outputs)) for node, op in nodes]
        return self._walk

    @property
    def last_use(self) -> dict[ir.Value, int]:
        """The position of the last node that reads each value; for outputs, one beyond all nodes."""
        if self._last_use is None:
            last = {value: len(self.nodes) for value in self.outputs}
            for position in range(len(self.nodes) - 1, -1, -1):
                for value in self.reads[position]:
                    last.setdefault(value, position)
            self._last_use = last
        return self._last_use

    @property
    def convolutions(self) -> list[int]:
        """The positions of all Conv nodes."""
        if self._convolutions is None:
            found = [p for p, node in enumerate(self.nodes) if node.op_type == "Conv" and not node.domain]
            self._convolutions = found
        return self._convolutions

    @property
    def has_wide(self) -> bool:
        """Whether a constant has elements of more than 8 bytes."""
        if self._has_wide is None:
            self._has_wide = any(facts.dtype.itemsize > 8 for facts in self.constants.values())
        return self._has_wide

    @property
    def has_strings(self) -> bool:
        """Whether a constant is of Python objects."""
        if self._has_strings is None:
            self._has_strings = any(facts.dtype.kind == "O" for facts in self.constants.values())
        return self._has_strings

    @property
    def placed(self) -> frozenset[ir.Value]:
        """Values whose readers may say where or in which order they should lie."""
        if self._placed is None:
            reads = zip(self.nodes, self.reads, strict=True)
            self._placed = frozenset(
                [value for node, read in reads if node.op_type in _PLACING for value in read]
            )
        return self._placed


def index_graph(graph: ir.Graph | ir.Function, outer: dict[ir.Value, Facts] | None = None) -> Index:
    """Index a graph whose nodes are in topological order.

    outer: constants of enclosing graphs, which its subgraphs may read.
    Raises UnsupportedOperatorError for an operator nobody knows, ModelError for a value nobody makes.
    """
    constants = dict(outer or {})
    if isinstance(graph, ir.Graph):
        for value in graph.initializers.data.values():
            constants[value] = _facts_of_initializer(value)
    made: set[ir.Value] = {*graph.inputs, *constants}
    captured: dict[ir.Value, None] = {}
    index = Index([], [], list(graph.inputs), list(graph.outputs), constants, [], [], _mapped(constants))
    for node in graph:
        op = find(node.domain, node.op_type, node)
        if node.op_type in CHOICES and node.domain == "":
            check_choices(node)
        if isinstance(op, Control):
            op.check_bodies(node)
        reads = [value for value in node.inputs if value is not None]
        for body in subgraphs_of(node) if node.attributes.data else ():
            inner = index.subgraphs[body] = index_graph(body, constants)
            reads += inner.captured
        for value in reads:
            if value not in made:
                captured[value] = None
        made.update(node.outputs)
        index.nodes.append(node)
        index.ops.append(op)
        index.reads.append(reads)
    for value in graph.outputs:
        if value not in made:
            captured[value] = None
    index.captured = list(captured)
    _put_late(index)
    return index


def _put_late(index: Index) -> None:
    """Move nodes that only the host computes, and whose results only such nodes and the caller read, to the
    end: one plan then does what lies before them, and nothing is planned behind them.
    """
    objects = {value for value, facts in index.constants.items() if facts.dtype.kind == "O"}
    makers: set[int] = set()
    for position, node in enumerate(index.nodes):
        if _makes_objects(node, objects):
            makers.add(position)
            objects.update(node.outputs)
    readers: dict[ir.Value, list[int]] = {}
    for position, reads in enumerate(index.reads) if makers else ():
        for value in reads:
            readers.setdefault(value, []).append(position)
    late: set[int] = set()
    for position in sorted(makers, reverse=True):
        if all(
            reader in late for value in index.nodes[position].outputs for reader in readers.get(value, ())
        ):
            late.add(position)
    index.late = len(index.nodes) - len(late)
    if not late:
        return
    order = sorted(range(len(index.nodes)), key=lambda position: (position in late, position))
    index.nodes, index.ops, index.reads = (
        [index.nodes[position] for position in order],
        [index.ops[position] for position in order],
        [index.reads[position] for position in order],
    )


def _makes_objects(node: ir.Node, objects: set[ir.Value]) -> bool:
    """Whether a node makes strings or maps, as far as its attributes and inputs say."""
    if node.op_type in _OBJECT_MAKERS:
        return node.op_type == "ZipMap" or "values_strings" in node.attributes
    if node.op_type == "Cast" and not node.domain:
        return node.attributes.get_int("to", 0) == ir.DataType.STRING
    return node.op_type in _MOVERS and bool(node.inputs) and node.inputs[0] in objects


def _mapped(constants: dict[ir.Value, Facts]) -> list[Array]:
    found: dict[int, Array] = {}
    for facts in constants.values():
        if not isinstance(facts, LazyFacts) and facts.value is not None and facts.value.nbytes >= LEAST_VIEW:
            mapping = mapping_of(facts.value)
            if mapping is not None:
                found.setdefault(id(mapping), facts.value)
    return list(found.values())


def _facts_of_initializer(value: ir.Value) -> Facts:
    tensor = value.const_value
    if tensor is None:
        raise ModelError(
            f"initializer {value.name!r} has no data; the file is incomplete. Save the model again."
        )
    if type(tensor) is ArrayTensor:
        array = tensor.numpy()
        return Facts(array.dtype, array.shape, array)
    is_string = tensor.dtype == ir.DataType.STRING
    if isinstance(tensor, ir.LazyTensor) and not is_string and tensor.nbytes > LEAST_LAZY:
        return LazyFacts(tensor.dtype.numpy(), tuple(tensor.shape.numpy()), tensor.numpy)
    # Tensors of strings say that they are bytes.
    array = tensor_array(tensor) if is_string else tensor.numpy()
    return Facts(array.dtype, array.shape, array)
