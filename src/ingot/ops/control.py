"""If, Loop and Scan. Their subgraphs are run by whoever runs the graph (`run`), which knows the values
around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.control import branch, loop
from ingot.ops.body_memory import LoopMemory, Targets, block_of
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import BOOL, INT64
from ingot.ops.outline import Outer, known_of, outlined
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    attr_int,
    attr_ints,
    facts_of,
    given,
    label,
    normal_axis,
    register,
    shape_error,
    show,
)

#: Runs a subgraph on its inputs, in order, and returns its outputs; the runner supplies the values from
#: outside.
RunGraph = Callable[[ir.Graph, Sequence[Any]], list[Any]]
#: Lowers a subgraph for inputs of which so much is known; what is then known of its outputs, or None where it
#: cannot be part of a plan.
LowerGraph = Callable[[ir.Graph, Sequence[Facts]], "list[Facts] | None"]


@dataclass(frozen=True, slots=True)
class Advance:
    """Rounds of a loop that were computed together: the number of the next one and whether it is wanted, what
    is carried then, and of each scan output the rows, stacked or as a list.
    """

    next: int
    live: bool
    carried: list[Any]
    rows: list[Array | list[Array]]


#: Computes as many rounds of a body as it can, given the number of the first one, the number of trips and
#: what is carried; None: not a single one.
RunRounds = Callable[[ir.Graph, int, "int | None", Sequence[Any]], "Advance | None"]


@dataclass(frozen=True, slots=True)
class Subgraphs:
    """What whoever runs a graph does for a node with subgraphs: `run` one; `outer` says what is known of the
    values around the node; `rounds` are asked for before each round of a loop, and what they leave is run.
    """

    run: RunGraph
    outer: Outer
    rounds: RunRounds | None = None


class Control(Op):
    """An operator with subgraphs: `run` is its meaning, given a way to run a graph. `outline` says what is
    known of its outputs where it may be a step of a plan, given a way to lower a graph; only then is it asked
    to `lower`.
    """

    subgraphs = True

    def outline(
        self, node: ir.Node, inputs: Sequence[Facts | None], lower_graph: LowerGraph
    ) -> list[Facts] | None:
        """What is known of each output, all of which have shapes that do not depend on data; else None: the
        host takes the turns.
        """
        del node, inputs, lower_graph
        return None

    def check_bodies(self, node: ir.Node) -> None:
        """Raises ModelError where a body takes or gives another number of values than the node has."""
        for name, taken, given_ in self.bodies(node):
            body = body_of(node, name)
            if len(body.inputs) != taken:
                raise ModelError(
                    f"{label(node)}: its {name} takes {len(body.inputs)} values, and the node has {taken} "
                    "for it. Export the model again."
                )
            if len(body.outputs) < given_:
                raise ModelError(
                    f"{label(node)}: its {name} gives {len(body.outputs)} values, and the node needs "
                    f"{given_}. Export the model again."
                )

    def bodies(self, node: ir.Node) -> list[tuple[str, int, int]]:
        """Each body's attribute, how many values it must take, and how many it must give at least."""
        del node
        return []

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """The node's outputs. Sequences are lists of arrays."""
        raise NotImplementedError

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Refused: it has no meaning without the values around the node."""
        del inputs
        raise ModelError(
            f"{label(node)}: it has subgraphs, which evaluate() cannot run. Use "
            "ingot.InferenceSession, or run()."
        )


def body_of(node: ir.Node, name: str) -> ir.Graph:
    """The graph in an attribute."""
    attribute = node.attributes.get(name)
    if attribute is None:
        raise ModelError(f"{label(node)}: attribute {name} is missing. Run onnx.checker on the file.")
    return attribute.as_graph()


def one_of(node: ir.Node, what: str, value: Any) -> Any:
    """The only element of a condition or a number of trips, as Python has it."""
    array = np.asarray(value)
    if array.size != 1:
        raise ModelError(f"{label(node)}: its {what} has shape {list(array.shape)}; it must be one element.")
    return array.item()


@register("If", since=25)
class If(Control):
    """then_branch where the condition holds, else_branch where not; neither has inputs of its own."""

    def bodies(self, node: ir.Node) -> list[tuple[str, int, int]]:
        """Both branches give all outputs."""
        return [(name, 0, len(node.outputs)) for name in ("then_branch", "else_branch")]

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """Only the branch taken is run."""
        return subgraphs.run(self.branch(node, inputs[0]), ())

    def branch(self, node: ir.Node, condition: Any) -> ir.Graph:
        """The branch for a condition of one element."""
        return body_of(node, "then_branch" if one_of(node, "condition", condition) else "else_branch")

    def outline(
        self, node: ir.Node, inputs: Sequence[Facts | None], lower_graph: LowerGraph
    ) -> list[Facts] | None:
        """Both branches must give the same shapes."""
        condition = given(inputs, 0)
        if condition is None or not _is_one(condition, BOOL):
            return None
        then, other = (lower_graph(body_of(node, name), ()) for name in ("then_branch", "else_branch"))
        if then is None or other is None or not _alike(then, other):
            return None
        return [_unknown(fact) for fact in then]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One step, which runs those of a branch."""
        bodies = [plan.body(body_of(node, name)) for name in ("then_branch", "else_branch")]
        targets = Targets(plan)
        outputs = {n: targets.of(node, n, facts) for n, facts in enumerate(bodies[0].results)}
        blocks = [block_of(plan, body, {}, outputs) for body in bodies]
        for body in bodies:
            plan.watch(body)
        condition = node.inputs[0]
        assert condition is not None
        plan.emit(branch(plan.plain(condition), *blocks))
        targets.finish()
        return True


@register("Loop", since=25)
class Loop(Control):
    """The body, again and again: up to a number of trips, while its condition holds.

    Inputs: trips, condition, carried values. The body gets (iteration, condition, carried …) and returns
    (condition, carried …, scanned …); outputs are the carried values, then the scanned ones stacked.
    """

    def bodies(self, node: ir.Node) -> list[tuple[str, int, int]]:
        """The condition comes before what is carried."""
        carried = max(0, len(node.inputs) - 2)
        return [("body", 2 + carried, 1 + max(carried, len(node.outputs)))]

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """Scan outputs of a loop without a trip are empty: see `_no_rows`."""
        body = body_of(node, "body")
        limit, condition = given(inputs, 0), given(inputs, 1)
        trips = None if limit is None else int(one_of(node, "number of trips", limit))
        live = condition is None or bool(one_of(node, "condition", condition))
        carried = list(inputs[2:])
        scanned: list[list[Any]] = [[] for _ in body.outputs[1 + len(carried) :]]
        i = 0
        while live and (trips is None or i < trips):
            ahead = None if subgraphs.rounds is None else subgraphs.rounds(body, i, trips, carried)
            if ahead is not None:
                i, live, carried = ahead.next, ahead.live, ahead.carried
                for rows, more in zip(scanned, ahead.rows, strict=True):
                    rows.extend([more] if isinstance(more, np.ndarray) else [row[None] for row in more])
                continue
            results = subgraphs.run(body, [np.array(i, INT64), np.array(True, BOOL), *carried])
            live = bool(one_of(node, "body's condition", results[0]))
            carried = results[1 : 1 + len(carried)]
            for rows, row in zip(scanned, results[1 + len(carried) :], strict=True):
                rows.append(np.asarray(row)[None])
            i += 1
        if i:
            return carried + [_joined(node, rows) for rows in scanned]
        first = [np.array(0, INT64), np.array(True, BOOL), *carried]
        return carried + _no_rows(node, first, [0] * len(scanned), subgraphs.outer)

    def outline(
        self, node: ir.Node, inputs: Sequence[Facts | None], lower_graph: LowerGraph
    ) -> list[Facts] | None:
        """What is carried must keep its shape; how many rows are stacked must be known, and not be 0."""
        limit, live = given(inputs, 0), given(inputs, 1)
        carried = [fact for fact in inputs[2:] if fact is not None]
        if len(carried) != len(inputs[2:]) or not all(
            fact is None or _is_one(fact, dtype) for fact, dtype in ((limit, INT64), (live, BOOL))
        ):
            return None
        body = body_of(node, "body")
        given_ = [Facts(INT64, ()), facts_of(np.array(True, BOOL)), *map(_unknown, carried)]
        found = lower_graph(body, given_) if len(body.inputs) == len(given_) else None
        if found is None or not _is_one(found[0], BOOL) or not _alike(found[1 : 1 + len(carried)], carried):
            return None
        rows = found[1 + len(carried) :]
        if not rows:
            return [_unknown(fact) for fact in carried]
        trips = None if limit is None or limit.value is None else int(limit.value.reshape(()))
        goes_on = _is_true(found[0]) and (live is None or _is_true(live))
        if trips is None or trips <= 0 or not goes_on:
            return None
        return [*map(_unknown, carried), *(Facts(row.dtype, (trips, *row.shape)) for row in rows)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One step for all rounds."""
        graph = body_of(node, "body")
        body = plan.body(graph)
        limit, live = (node.inputs[i] if len(node.inputs) > i else None for i in (0, 1))
        carried = [value for value in node.inputs[2:] if value is not None]
        trips = None if limit is None else plan.plain(limit)
        first = None if live is None or _is_true(plan.facts(live)) else plan.plain(live)
        counter = plan.temporary((), INT64)
        memory = LoopMemory(plan, node, graph, carried, (2, 1))
        memory.inputs[graph.inputs[0]] = counter
        for number in range(len(carried), len(body.results) - 1):
            assert limit is not None
            most = plan.constant(limit)
            assert most is not None
            memory.write(number, int(most.reshape(())), 0, False)
        always = _is_true(body.results[0])
        condition = memory.outputs[0] = plan.temporary((), BOOL)
        block = memory.block([0] if always else [])
        flags = plan.watch(body)
        plan.emit(loop(block, flags, counter, trips, first, None if always else condition))
        memory.finish()
        return True


@register("Scan", since=25)
class Scan(Control):
    """The body over slices of some inputs, carrying states along: inputs are states, then scanned values."""

    def bodies(self, node: ir.Node) -> list[tuple[str, int, int]]:
        """One slice of each scanned value after the states."""
        states = len(node.inputs) - attr_int(node, "num_scan_inputs", 1)
        return [("body", len(node.inputs), max(states, len(node.outputs)))]

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """One trip for each slice along the scan axes; directions by attribute."""
        body = body_of(node, "body")
        count = attr_int(node, "num_scan_inputs", 1)
        states, sequences = list(inputs[:-count]), [np.asarray(x) for x in inputs[len(inputs) - count :]]
        rows: list[list[Any]] = [[] for _ in body.outputs[len(states) :]]
        axes = attr_ints(node, "scan_input_axes") or (0,) * count
        backwards = _directions(node, "input", count)
        sequences = [np.moveaxis(x, axis, 0) for x, axis in zip(sequences, axes, strict=True)]
        sequences = [x[::-1] if back else x for x, back in zip(sequences, backwards, strict=True)]
        lengths = {x.shape[0] for x in sequences}
        if len(lengths) != 1:
            raise ModelError(
                f"{label(node)}: scanned inputs have {sorted(lengths)} slices. They must have as many."
            )
        length = lengths.pop()
        for t in range(length):
            results = subgraphs.run(body, [*states, *(x[t] for x in sequences)])
            states = results[: len(states)]
            for column, row in zip(rows, results[len(states) :], strict=True):
                column.append(row)
        out_axes = attr_ints(node, "scan_output_axes") or (0,) * len(rows)
        reverse = _directions(node, "output", len(rows))
        if length:
            return states + [
                _stacked(node, column[::-1] if back else column, axis)
                for column, axis, back in zip(rows, out_axes, reverse, strict=True)
            ]
        slices = [Facts(x.dtype, x.shape[1:]) for x in sequences]
        return states + _no_rows(node, [*states, *slices], out_axes, subgraphs.outer)

    def outline(
        self, node: ir.Node, inputs: Sequence[Facts | None], lower_graph: LowerGraph
    ) -> list[Facts] | None:
        """States must keep their shapes, and there must be slices."""
        count = attr_int(node, "num_scan_inputs", 1)
        facts = [fact for fact in inputs if fact is not None]
        states, sequences = facts[:-count], facts[len(facts) - count :]
        if len(facts) != len(inputs) or any(not fact.shape for fact in sequences):
            return None
        slices = list(map(_slice_of, sequences, self._axes(node, "input", sequences)))
        lengths = {length for length, _ in slices}
        body = body_of(node, "body")
        if len(lengths) != 1 or 0 in lengths or len(body.inputs) != len(facts):
            return None
        found = lower_graph(body, [*map(_unknown, states), *(row for _, row in slices)])
        if found is None or not _alike(found[: len(states)], states):
            return None
        rows = found[len(states) :]
        (length,) = lengths
        axes = self._axes(node, "output", [Facts(row.dtype, (length, *row.shape)) for row in rows])
        stacked = [
            Facts(row.dtype, (*row.shape[:axis], length, *row.shape[axis:]))
            for row, axis in zip(rows, axes, strict=True)
        ]
        return [*map(_unknown, states), *stacked]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One step for all slices."""
        graph = body_of(node, "body")
        body = plan.body(graph)
        count = attr_int(node, "num_scan_inputs", 1)
        values = [value for value in node.inputs if value is not None]
        states, sequences = values[:-count], values[len(values) - count :]
        axes = self._axes(node, "input", [plan.facts(value) for value in sequences])
        length = plan.facts(sequences[0]).shape[axes[0]]
        memory = LoopMemory(plan, node, graph, states, (0, 0))
        for value, own, axis, back in zip(
            sequences, graph.inputs[len(states) :], axes, _directions(node, "input", count), strict=True
        ):
            view = plan.view(value)
            rows = view.transpose([axis, *(d for d in range(view.rank) if d != axis)])
            memory.read(own, rows if rows.is_contiguous else plan.copied(rows), back)
        stacked = [Facts(row.dtype, (length, *row.shape)) for row in body.results[len(states) :]]
        axes = self._axes(node, "output", stacked)
        for number, back in enumerate(_directions(node, "output", len(axes))):
            memory.write(len(states) + number, length, axes[number], back)
        trips = plan.plain(plan.known(np.array(length, INT64)))
        counter = plan.temporary((), INT64)
        plan.emit(loop(memory.block(), plan.watch(body), counter, trips))
        memory.finish()
        return True

    @staticmethod
    def _axes(node: ir.Node, what: str, stacked: Sequence[Facts]) -> list[int]:
        """Along which dimension each of these goes."""
        axes = attr_ints(node, f"scan_{what}_axes") or (0,) * len(stacked)
        return [normal_axis(node, a, len(fact.shape)) for a, fact in zip(axes, stacked, strict=True)]


def _directions(node: ir.Node, what: str, count: int) -> list[bool]:
    """Which of a Scan's inputs or outputs go from the end to the beginning."""
    return [bool(d) for d in attr_ints(node, f"scan_{what}_directions") or (0,) * count]


def _unknown(facts: Facts) -> Facts:
    return Facts(facts.dtype, facts.shape)


def _slice_of(facts: Facts, axis: int) -> tuple[int, Facts]:
    """How many slices there are along an axis, and what is known of each."""
    shape = facts.shape
    return shape[axis], Facts(facts.dtype, shape[:axis] + shape[axis + 1 :])


def _alike(some: Sequence[Facts], others: Sequence[Facts]) -> bool:
    return [(f.dtype, f.shape) for f in some] == [(f.dtype, f.shape) for f in others]


def _is_one(facts: Facts, dtype: np.dtype[Any]) -> bool:
    return facts.dtype == dtype and math.prod(facts.shape) == 1


def _is_true(facts: Facts) -> bool:
    return facts.value is not None and bool(facts.value.reshape(()))


def _stacked(node: ir.Node, rows: Sequence[Any], axis: int) -> Array:
    _require_one_shape(node, [np.shape(row) for row in rows])
    return np.stack(rows, axis)


def _joined(node: ir.Node, parts: Sequence[Array]) -> Array:
    """Rows that are stacked already, in parts."""
    _require_one_shape(node, [part.shape[1:] for part in parts])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _require_one_shape(node: ir.Node, rows: Sequence[tuple[int, ...]]) -> None:
    shapes = list(dict.fromkeys(rows))
    if len(shapes) > 1:
        raise shape_error(
            node,
            f"its body gives rows of shapes {show(shapes[0])} and {show(shapes[1])} to be stacked",
            "Rows must have one shape.",
        )


def _of_one(facts: Facts | None) -> Facts | None:
    """The same with one element along each axis that has none."""
    if facts is None or 0 not in facts.shape:
        return facts
    return Facts(facts.dtype, tuple(n or 1 for n in facts.shape))


def _no_rows(node: ir.Node, first: Sequence[Any], axes: Sequence[int], outer: Outer) -> list[Array]:
    """What is stacked where the body never runs: of the shape that it declares (0 where symbolic), else of
    the one that follows from those of a `first` trip (arrays, or facts of them); without further dims where
    none does, as ONNX Runtime has it.

    Raises ModelError where no dtype is declared, and none follows.
    """
    body = body_of(node, "body")
    declared = body.outputs[len(body.outputs) - len(axes) :]
    rows: list[Facts | None] = [None] * len(axes)
    like = rows
    if any(value.shape is None or value.dtype is None for value in declared):
        given_ = [value if isinstance(value, Facts) else known_of(value) for value in first]
        rows = outlined(body, given_, outer)[len(body.outputs) - len(axes) :]
        like = rows
        if any(row is None and value.dtype is None for value, row in zip(declared, rows, strict=True)):
            # A body that takes an element of nothing fits no shapes; its dtypes are those for one element.
            ones = outlined(body, [_of_one(f) for f in given_], lambda value: _of_one(outer(value)))
            like = ones[len(body.outputs) - len(axes) :]
    stacked: list[Array] = []
    for value, axis, row, one in zip(declared, axes, rows, like, strict=True):
        dtype = None if one is None else one.dtype
        if value.dtype is not None:
            dtype = value.dtype.numpy()
        if dtype is None:
            raise ModelError(
                f"{label(node)}: it makes no trip, its body declares no dtype for output {value.name!r}, and "
                "none follows from the body's nodes. Declare it, or run onnx.shape_inference on the file."
            )
        shape = (() if row is None else row.shape) if value.shape is None else value.shape
        dims = [max(d, 0) if isinstance(d, int) else 0 for d in shape]
        dims.insert(axis if axis >= 0 else axis + len(dims) + 1, 0)
        stacked.append(np.empty(dims, dtype))
    return stacked
