"""The memory of branches and loops that are steps of a plan: their outputs, what is carried from round to
round, and what goes by row by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from ingot.kernels.call import Block, Buffer, Call, Nested, View, row_major
from ingot.kernels.copy import copy
from ingot.ops.lowering import Body, Lowering
from ingot.ops.registry import Facts


class Targets:
    """Contiguous memory for a node's outputs; what a reader wants to lie otherwise is copied at the end."""

    def __init__(self, plan: Lowering) -> None:
        self._plan = plan
        self._left: list[tuple[View, View]] = []

    def of(self, node: ir.Node, number: int, facts: Facts, axis: int = 0) -> View:
        """Memory for an output of the node: `facts` have its dimension `axis` first."""
        value = node.outputs[number] if number < len(node.outputs) else None
        if value is None or not self._plan.wants(value):
            return self._plan.temporary(facts.shape, facts.dtype)
        target = self._plan.output(value)
        moved = target.transpose([axis, *(d for d in range(target.rank) if d != axis)]) if axis else target
        if moved.is_contiguous:
            return moved
        made = self._plan.temporary(moved.shape, moved.dtype)
        self._left.append((made, moved))
        return made

    def finish(self) -> None:
        """What is left to do after the node's step."""
        for made, target in self._left:
            self._plan.emit(copy(made, target, self._plan.machine))


class LoopMemory:
    """The memory of a loop: what is carried from round to round, what is read and written row by row.

    ahead: how many inputs, and outputs, of the body come before what is carried.
    """

    def __init__(
        self,
        plan: Lowering,
        node: ir.Node,
        graph: ir.Graph,
        carried: Sequence[ir.Value],
        ahead: tuple[int, int],
    ) -> None:
        self._plan, self._node, self._graph, self._body = plan, node, graph, plan.body(graph)
        self._targets = Targets(plan)
        self._first, self._ahead = ahead
        self.inputs: dict[ir.Value, View] = {}
        self.outputs: dict[int, View] = {}
        self._moves: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._states: list[View] = []
        for number, value in enumerate(carried):
            state = self._targets.of(node, number, plan.facts(value))
            plan.emit(copy(plan.view(value), state, plan.machine))
            self._states.append(state)
            self.inputs[graph.inputs[self._first + number]] = state

    def read(self, own: ir.Value, rows: View, backwards: bool) -> None:
        """An input of the body is a row of these, another one in each round."""
        self.inputs[own], self._moves[0][self._body.inputs.index(own)] = _row(rows, backwards)

    def write(self, number: int, trips: int, axis: int, backwards: bool) -> None:
        """An output of the node has what the body puts out, a row for each round."""
        place = self._ahead + number
        row = self._body.results[place]
        rows = self._targets.of(self._node, number, Facts(row.dtype, (trips, *row.shape)), axis)
        self.outputs[place], self._moves[1][place] = _row(rows, backwards)

    def block(self, skipped: Sequence[int] = ()) -> Block:
        """The body in this memory; outputs that are `skipped` are not computed."""
        graph, body, idle = self._graph, self._body, set(skipped)
        left: list[Call] = []
        for number, state in enumerate(self._states):
            place, own = self._ahead + number, graph.inputs[self._first + number]
            source = body.inputs.index(own)
            if graph.outputs[place] is own:
                idle.add(place)
            elif _may_share(body.steps, source, place):
                self.outputs[place] = state
            else:
                self.outputs[place] = self._plan.temporary(state.shape, state.dtype)
                ends = Buffer(0, "output", index=place), Buffer(0, "input", index=source)
                new, old = (replace(state, buffer=b, offset=0, strides=row_major(state.shape)) for b in ends)
                left.append(copy(new, old, self._plan.machine))
        for place in idle:
            self.outputs[place] = self._plan.temporary(body.results[place].shape, body.results[place].dtype)
        block = block_of(self._plan, body, self.inputs, self.outputs, self._moves)
        block.steps[:] = [*(step for step in block.steps if not _only_writes(step, idle)), *left]
        return block

    def finish(self) -> None:
        """What is left to do after the loop."""
        self._targets.finish()


def block_of(
    plan: Lowering,
    body: Body,
    inputs: dict[ir.Value, View],
    outputs: dict[int, View],
    moves: tuple[dict[int, int], dict[int, int]] = ({}, {}),
) -> Block:
    """A body in memory of the plan: its inputs in these views, or values from around it."""
    return Block(
        list(body.steps),
        [inputs[value] if value in inputs else plan.plain(value) for value in body.inputs],
        [outputs[number] for number in range(len(body.results))],
        body.own,
        moves,
    )


def _row(rows: View, backwards: bool) -> tuple[View, int]:
    """The first of the rows, or the last, and how many bytes the next one is away."""
    size = math.prod(rows.shape[1:])
    first = (rows.shape[0] - 1) * size if backwards else 0
    start = rows.with_dims(rows.shape[1:], row_major(rows.shape[1:]), first)
    return start, (-size if backwards else size) * rows.dtype.itemsize


def _may_share(steps: Sequence[Call | Nested], before: int, after: int) -> bool:
    """Whether output `after` of a body may be written where input `before` lies: nobody reads that any more,
    or only element by element.
    """
    reads = [n for n, step in enumerate(steps) if ("input", before) in _touched(step)]
    writes = [n for n, step in enumerate(steps) if ("output", after) in _touched(step)]
    last, first = max(reads, default=-1), min(writes, default=len(steps))
    if last != first:
        return last < first
    step = steps[first]
    if not isinstance(step, Call) or not step.in_place or len(step.writes) != 1:
        return False
    out = step.writes[0]
    return all(
        (v.offset, v.shape, v.strides, v.dtype.itemsize)
        == (out.offset, out.shape, out.strides, out.dtype.itemsize)
        for v in step.reads
        if (v.buffer.kind, v.buffer.index) == ("input", before)
    )


def _touched(step: Call | Nested) -> set[tuple[str, int]]:
    if isinstance(step, Nested):
        views = [*step.call.reads, *step.call.writes]
        for block in step.blocks:
            views += [*block.inputs, *block.outputs]
    else:
        views = [*step.reads, *step.writes]
    return {(view.buffer.kind, view.buffer.index) for view in views}


def _only_writes(step: Call | Nested, outputs: set[int]) -> bool:
    """Whether all that a step does is to compute some of these outputs."""
    return isinstance(step, Call) and all(
        view.buffer.kind == "output" and view.buffer.index in outputs for view in step.writes
    )
