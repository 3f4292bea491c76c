"""If, Loop and Scan as steps of the plan around them: their subgraphs are lowered for the shapes that they
get, and native code runs them (`kernels/control.py`).

That takes shapes which stay the same from round to round and in both branches, and a kernel for every node.
Where it cannot be, the node ends a stage, and the driver runs its subgraphs as graphs of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.compiler.branches import along, condition_of
from ingot.compiler.facts import Known, infer_facts
from ingot.compiler.index import Index
from ingot.compiler.lower import Lowering
from ingot.compiler.packed import Packed
from ingot.compiler.plan import nanoseconds_of, sharers_of
from ingot.compiler.steps import HostStep, Lowered
from ingot.errors import IngotError
from ingot.kernels.call import Buffer, Call, Nested, Series, View
from ingot.ops.control import Control, If
from ingot.ops.lowering import Body, PlanOptions
from ingot.ops.registry import Facts
from ingot.passes.edit import subgraphs_of

#: Bytes of weights that a branch may read and be planned although no run may take it: they are packed.
MOST_WEIGHTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Enclosing:
    """What plans of a session have in common, as far as bodies are concerned."""

    machine: Machine
    packed: Packed
    options: PlanOptions
    threads: int

    def beyond(self, index: Index, known: Known) -> Known | None:
        """`known`, and what follows from the node with subgraphs at its stop if that can be a step of the
        plan; else None.
        """
        node, op = index.nodes[known.stop], index.ops[known.stop]
        if not isinstance(op, Control):
            return None
        if isinstance(op, If) and any(
            _weights(index.subgraphs[g]) > MOST_WEIGHTS for g in subgraphs_of(node)
        ):
            return None
        bodies: dict[ir.Graph, Body] = {}

        def lowered(graph: ir.Graph, given: Sequence[Facts]) -> list[Facts] | None:
            body = self._lowered(index.subgraphs[graph], given, known.facts)
            if body is None:
                return None
            bodies[graph] = body
            return body.results

        try:
            outputs = op.outline(node, [None if v is None else known.facts[v] for v in node.inputs], lowered)
        except IngotError:  # of a body that perhaps no run comes to; one that does gets to hear it
            return None
        if outputs is None:
            return None
        facts = dict(known.facts)
        facts.update(zip(node.outputs, outputs, strict=False))
        further = infer_facts(index, known.stop + 1, facts)
        return replace(further, start=known.start, bodies=known.bodies | bodies)

    def _lowered(self, index: Index, given: Sequence[Facts], outer: dict[ir.Value, Facts]) -> Body | None:
        """A subgraph for inputs of which these facts are known."""
        facts = dict(zip(index.inputs, given, strict=True))
        facts.update((value, outer[value]) for value in index.captured)
        feeds = list(facts)
        known = infer_facts(index, 0, facts)
        while known.cut:
            condition = condition_of(index, known)
            if condition is not None and known.facts[condition].is_known:
                index, known = along(index, known, known.facts[condition].value)
                continue
            further = self.beyond(index, known)
            if further is None:
                return None
            known = further
        results = [known.facts[value] for value in index.outputs]
        inputs = [value for value in feeds if not facts[value].is_known]
        if any(fact.dtype == object for fact in (*facts.values(), *results)):
            return None
        lowered = Lowering(
            index, known, inputs, index.outputs, self.machine, self.packed, self.options
        ).lower()
        steps = self._alone(lowered)
        if steps is None:
            return None
        flags = {check.flag.buffer for check in lowered.checks}
        checks = [(check.flag, check.message) for check in lowered.checks]
        return Body(inputs, results, steps, _arena(steps) - flags, checks)

    def _alone(self, lowered: Lowered) -> list[Call | Nested] | None:
        """The steps, if one thread may as well do all of them, and without the host."""
        steps: list[Call | Nested] = []
        for step in lowered.steps:
            if isinstance(step, (HostStep, Series)):
                return None
            if isinstance(step, Call) and sharers_of(step, nanoseconds_of(step), self.threads) > 1:
                return None
            steps.append(step)
        return steps


def _weights(index: Index) -> int:
    """Bytes of the constants that a graph reads, those inside of it included."""
    read = {value for reads in index.reads for value in reads if value in index.constants}
    facts = [index.constants[value] for value in read]
    own = sum(math.prod(fact.shape) * fact.dtype.itemsize for fact in facts)
    return own + sum(_weights(inner) for inner in index.subgraphs.values())


def _arena(steps: Sequence[Call | Nested]) -> set[Buffer]:
    """What the steps touch of the arena, but for what stands in blocks: that is theirs, or comes by here."""
    views: list[View] = []
    for step in steps:
        if isinstance(step, Nested):
            views += [*step.call.reads, *step.call.writes]
            views += [view for block in step.blocks for view in (*block.inputs, *block.outputs)]
        else:
            views += [*step.reads, *step.writes]
    return {view.buffer for view in views if view.buffer.kind == "arena"}
