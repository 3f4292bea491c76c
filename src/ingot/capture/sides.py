"""Which sides of its branches and loops a model takes: a copy of it with an output for each side.

The copy says of every If whether its condition held, and of every Loop whether it ran no round, one, or more;
for those inside of others, whether that ever was so in the run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ingot.capture.where import UNKNOWN
from ingot.ops.registry import PART, SOURCE

Array = npt.NDArray[Any]
_BOOL, _DOUBLE = ir.DataType.BOOL, ir.DataType.DOUBLE
_ROUNDS = 200  # of a loop without a limit, in the copy: inputs that take more are of no use to a search
_COMPARED = {"Greater": 1, "GreaterOrEqual": 1, "Less": -1, "LessOrEqual": -1}


@dataclass(frozen=True)
class Side:
    """One way through a branch or loop of the model's source."""

    where: str  # file:line
    what: str

    def __str__(self) -> str:
        """As it is reported."""
        return f"{self.where}: {self.what}"


_ENDLESS = Side("", "a loop was stopped")


@dataclass(frozen=True)
class _Margin:
    """How far a condition is from the other side: above 0 where it holds."""

    holds: Side
    fails: Side


@dataclass
class Watched:
    """The copy, and what its additional outputs say."""

    model: ir.Model
    sides: dict[str, Side] = field(default_factory=dict[str, Side])
    margins: dict[str, _Margin] = field(default_factory=dict[str, _Margin])

    def taken(self, run: Callable[..., Sequence[Array]], feeds: Mapping[str, Array]) -> Taken:
        """Run the copy and read what it says."""
        names = [*self.sides, *self.margins]
        found = dict(zip(names, run(feeds, names), strict=True))
        margins: dict[Side, float] = {}
        for name, margin in self.margins.items():
            value = float(found[name].reshape(-1)[0])
            if not np.isnan(value):
                margins[margin.holds], margins[margin.fails] = value, -value
        sides = {side for name, side in self.sides.items() if found[name].any()}
        return Taken(sides - {_ENDLESS}, margins, _ENDLESS in sides)

    def all(self) -> set[Side]:
        """Every side that there is."""
        return set(self.sides.values()) - {_ENDLESS}


@dataclass
class Taken:
    """The sides that one run took, and how near it was to others: above 0 for a side that it took."""

    sides: set[Side]
    margins: dict[Side, float]
    endless: bool  # whether a loop without a limit was stopped


def watched(model: ir.Model) -> Watched:
    """A copy of the model that says which sides it takes; without outputs of its own where there are none."""
    made = Watched(model.clone())
    graph = made.model.graph
    graph.outputs[:] = []
    for i, (key, value) in enumerate(_exposed(graph)):
        value = _node(graph, "Reshape", [value, _constant(graph, np.array([1]))])
        value.shape = ir.Shape([1])
        value.type = ir.TensorType(_DOUBLE if isinstance(key, _Margin) else _BOOL)
        value.name = f"ingot.side.{i}"
        graph.outputs.append(value)
        table: dict[str, Any] = made.margins if isinstance(key, _Margin) else made.sides
        table[value.name] = key
    return made


def _exposed(graph: ir.Graph) -> list[tuple[Side | _Margin, ir.Value]]:
    """A BOOL (for margins a DOUBLE) of one element in this graph for everything in it that is watched."""
    found: list[tuple[Side | _Margin, ir.Value]] = []
    for node in list(graph):
        if PART in node.metadata_props:
            continue
        where = str(node.metadata_props.get(SOURCE, UNKNOWN))
        if node.op_type == "If":
            found += _of_if(graph, node, where)
        elif node.op_type in ("Loop", "Scan"):
            found += _of_loop(graph, node, where)
    return found


def _of_if(graph: ir.Graph, node: ir.Node, where: str) -> list[tuple[Side | _Margin, ir.Value]]:
    condition = node.inputs[0]
    assert condition is not None, "an If has a condition"
    holds, fails = Side(where, "the condition holds"), Side(where, "the condition does not hold")
    found: list[tuple[Side | _Margin, ir.Value]] = [
        (holds, condition),
        (fails, _node(graph, "Not", [condition], before=node)),
    ]
    margin = _margin(graph, condition, node)
    if margin is not None:
        found.append((_Margin(holds, fails), margin))
    sides = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    inner = [(i, key, value) for i, side in enumerate(sides) for key, value in _exposed(side)]
    first = len(node.outputs)
    node.resize_outputs(first + len(inner))
    for output, (i, key, value) in zip(node.outputs[first:], inner, strict=True):
        margins = isinstance(key, _Margin)
        _give(sides[i], value, _DOUBLE if margins else _BOOL)
        nothing = np.float64("nan") if margins else np.False_
        sides[1 - i].outputs.append(_constant(sides[1 - i], nothing))
        output.type = ir.TensorType(_DOUBLE if margins else _BOOL)
        output.name = _name()
        found.append((key, output))
    return found


def _of_loop(graph: ir.Graph, node: ir.Node, where: str) -> list[tuple[Side | _Margin, ir.Value]]:
    body = node.attributes["body"].as_graph()
    inner = [(key, value) for key, value in _exposed(body) if isinstance(key, Side)]
    unlimited = node.op_type == "Loop" and node.inputs[0] is None
    fewest, most = _rounds(node)
    if unlimited:
        node.replace_input_with(0, _constant(graph, np.int64(_ROUNDS), before=node))
    first = len(node.outputs)
    rounds = [_constant(body, np.True_), *(value for _, value in inner)]
    node.resize_outputs(first + len(rounds))
    for name in ("scan_output_axes", "scan_output_directions"):
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(
                name, [*node.attributes[name].as_ints(), *(0 for _ in rounds)]
            )
    counts: list[ir.Value] = []
    for output, value in zip(node.outputs[first:], rounds, strict=True):
        _give(body, value, _BOOL)
        output.type = ir.TensorType(_BOOL)
        output.name = _name()
        as_numbers = _node(graph, "Cast", [output], {"to": ir.DataType.INT64}, after=node)
        counts.append(_node(graph, "ReduceSum", [as_numbers], {"keepdims": 0}, after=as_numbers.producer()))
    trips, *often = counts
    zero, one = (_constant(graph, np.int64(n), after=node) for n in (0, 1))
    last = trips.producer()
    found: list[tuple[Side | _Margin, ir.Value]] = [
        (Side(where, "the loop does not run"), _node(graph, "Equal", [trips, zero], after=last)),
        (Side(where, "the loop runs once"), _node(graph, "Equal", [trips, one], after=last)),
        (Side(where, "the loop runs more than once"), _node(graph, "Greater", [trips, one], after=last)),
    ]
    possible = (fewest == 0, fewest <= 1 <= most, most > 1)
    found = [side for side, is_possible in zip(found, possible, strict=True) if is_possible]
    if unlimited:
        stopped = _constant(graph, np.int64(_ROUNDS), after=node)
        found.append((_ENDLESS, _node(graph, "Equal", [trips, stopped], after=last)))
    for (key, _), count in zip(inner, often, strict=True):
        found.append((key, _node(graph, "Greater", [count, zero], after=count.producer())))
    return found


def _rounds(node: ir.Node) -> tuple[int, float]:
    """The fewest and the most rounds of a loop that are possible, as far as the graph alone says."""
    if node.op_type == "Scan":
        return 1, math.inf
    limit, condition = node.inputs[:2]
    begins = condition is None or _is_true(condition)
    if limit is None:
        return int(begins), math.inf
    if limit.const_value is None:
        return 0, math.inf
    most = max(int(limit.const_value.numpy().reshape(-1)[0]), 0)
    goes_on = _is_true(node.attributes["body"].as_graph().outputs[0])
    return (most if goes_on else min(most, 1)) if begins else 0, most


def _is_true(value: ir.Value) -> bool:
    """Whether a condition is a constant that holds, or that constant passed on."""
    if value.const_value is not None:
        return bool(value.const_value.numpy().all())
    node = value.producer()
    if node is None or node.op_type != "Identity" or node.inputs[0] is None:
        return False
    return _is_true(node.inputs[0])


def _margin(graph: ir.Graph, condition: ir.Value, before: ir.Node) -> ir.Value | None:
    """a - b for a condition a > b of two numbers, the smaller one of two that must hold …; a DOUBLE."""
    node = condition.producer()
    if node is None or node.graph is not graph:
        return None
    inputs = [v for v in node.inputs if v is not None]
    if node.op_type in ("Identity", "Reshape", "Squeeze"):
        return _margin(graph, inputs[0], before)
    if node.op_type == "Not":
        inner = _margin(graph, inputs[0], before)
        return None if inner is None else _node(graph, "Neg", [inner], before=before)
    if node.op_type in ("And", "Or"):
        parts = [_margin(graph, v, before) for v in inputs]
        known = [p for p in parts if p is not None]
        both = len(known) == len(parts)
        op_type = "Min" if node.op_type == "And" else "Max"
        return _node(graph, op_type, known, before=before) if both else None
    if node.op_type not in (*_COMPARED, "Equal") or any(v.dtype == _BOOL for v in inputs):
        return None
    a, b = (_node(graph, "Cast", [v], {"to": _DOUBLE}, before=before) for v in inputs)
    if node.op_type == "Equal":
        apart = _node(graph, "Sub", [a, b], before=before)
        far = _node(graph, "Neg", [_node(graph, "Abs", [apart], before=before)], before=before)
        found = _node(graph, "Add", [far, _constant(graph, np.float64(1e-12), before=before)], before=before)
    else:
        a, b = (a, b) if _COMPARED[node.op_type] > 0 else (b, a)
        found = _node(graph, "Sub", [a, b], before=before)
    # The number of elements is the condition's, which is one.
    return _node(graph, "Reshape", [found, _constant(graph, np.array([1]), before=before)], before=before)


def _give(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> None:
    """Another output of a graph inside a node, which may be a value from around it."""
    given = _node(graph, "Identity", [value])
    given.type = ir.TensorType(dtype)
    graph.outputs.append(given)


_count = itertools.count()


def _name() -> str:
    """A name that no model has."""
    return f"ingot.watched.{next(_count)}"


def _node(
    graph: ir.Graph,
    op_type: str,
    inputs: Sequence[ir.Value],
    attributes: Mapping[str, Any] | None = None,
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    """A node of one output; at the end of the graph if no place is given."""
    node = ir.node(op_type, inputs, attributes, name=_name())
    node.outputs[0].name = node.name
    if before is not None:
        graph.insert_before(before, node)
    elif after is not None:
        graph.insert_after(after, node)
    else:
        graph.append(node)
    return node.outputs[0]


def _constant(graph: ir.Graph, value: Any, **place: ir.Node) -> ir.Value:
    tensor = ir.tensor(np.asarray(value))
    made = _node(graph, "Constant", [], {"value": tensor}, **place)
    made.type = ir.TensorType(tensor.dtype)
    return made
