"""An If whose condition is known before the run: its branch stands among the nodes of the graph around it,
and becomes part of the same plan.

A condition is known where it follows from shapes and constants, or, with a Question, from small inputs of
integers and truth values. (Those are exact on the host; what a comparison of floats says could hang on a
kernel's last bit.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from ingot.compiler.exact import sources_of
from ingot.compiler.facts import Known, infer_facts
from ingot.compiler.index import Index
from ingot.mapped import mapping_of
from ingot.ops.control import If, one_of
from ingot.ops.registry import Facts, Op, evaluated, find

#: Inputs that a Question looks at have at most so many elements: their bytes are compared in every run.
SMALL = 16
#: A condition that takes more nodes than this to work out is left to a kernel.
MOST_NODES = 32
#: Answers that are remembered, by the bytes of the inputs; then it starts anew.
MOST_ANSWERS = 256


class _Joined(ir.Node):
    """Identity from what a branch computes to what the If gives, as planning reads it: part of no graph, so
    the values keep the producers and uses that they have in theirs. Nobody sets its ends.
    """

    def __init__(self, name: str | None, source: ir.Value, target: ir.Value) -> None:
        super().__init__("", "Identity", (), num_outputs=0, name=name)
        self._ends = ((source,), (target,))

    @property
    def inputs(self) -> tuple[ir.Value | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the branch computes."""
        return self._ends[0]

    @property
    def outputs(self) -> tuple[ir.Value, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What the If gives."""
        return self._ends[1]


def with_branch(index: Index, position: int, branch: ir.Graph) -> Index:
    """The same graph, with the nodes of one of its branches in place of the If at `position`."""
    joined = index.joined.get((position, branch))
    if joined is None:
        joined = index.joined[position, branch] = _with_branch(index, position, branch)
    return joined


def _with_branch(index: Index, position: int, branch: ir.Graph) -> Index:
    inner, node = index.subgraphs[branch], index.nodes[position]
    ends = dict(zip(node.outputs, branch.outputs, strict=False))
    joins: list[ir.Node] = [_Joined(node.name, source, target) for target, source in ends.items()]
    identity, after = find("", "Identity"), position + 1
    files = {id(mapping_of(array)): array for array in (*index.mapped, *inner.mapped)}
    return Index(
        nodes=[*index.nodes[:position], *inner.nodes, *joins, *index.nodes[after:]],
        ops=[*index.ops[:position], *inner.ops, *[identity] * len(joins), *index.ops[after:]],
        inputs=index.inputs,
        # The branch writes what the caller gets: there is nothing to copy.
        outputs=[ends.get(value, value) for value in index.outputs],
        constants=index.constants | inner.constants,
        captured=index.captured,
        reads=[
            *index.reads[:position],
            *inner.reads,
            *([source] for source in ends.values()),
            *index.reads[after:],
        ],
        mapped=list(files.values()),
        subgraphs=index.subgraphs | inner.subgraphs,
    )


def condition_of(index: Index, known: Known) -> ir.Value | None:
    """What the node at the stop decides by, if it is an If."""
    node, op = index.nodes[known.stop], index.ops[known.stop]
    return node.inputs[0] if isinstance(op, If) and node.inputs else None


def along(index: Index, known: Known, condition: Any) -> tuple[Index, Known]:
    """The graph with a branch in the place of the If at the stop, and what is known of it up to the next
    stop. condition: what the If decides by.
    """
    node, op = index.nodes[known.stop], index.ops[known.stop]
    assert isinstance(op, If)
    index = with_branch(index, known.stop, op.branch(node, condition))
    further = infer_facts(index, known.stop, known.facts)
    return index, replace(further, start=known.start, bodies=known.bodies)


@dataclass(slots=True)
class Question:
    """A condition that depends on small inputs, and what comes after each answer to it.

    leaves: the inputs by number. steps: what computes the condition from them and from `known`. node: the If.
    """

    leaves: list[tuple[int, ir.Value]]
    steps: list[tuple[Op, ir.Node]]
    known: dict[ir.Value, Facts]
    condition: ir.Value
    node: ir.Node
    #: plans (of a type that is not known here), or the next question
    next: dict[bool, Any] = field(default_factory=dict[bool, Any])
    _answers: dict[bytes, bool] = field(default_factory=dict[bytes, bool])

    def answer(self, arrays: Sequence[Any]) -> bool:
        """What the condition is for these inputs, of the shapes and dtypes that it was made for."""
        key = b"".join([arrays[number].tobytes() for number, _ in self.leaves])
        answer = self._answers.get(key)
        if answer is None:
            answer = self._evaluate(arrays)
            if len(self._answers) >= MOST_ANSWERS:
                self._answers.clear()
            self._answers[key] = answer
        return answer

    def _evaluate(self, arrays: Sequence[Any]) -> bool:
        values: dict[ir.Value, Any] = {value: facts.value for value, facts in self.known.items()}
        values.update((value, arrays[number]) for number, value in self.leaves)
        for op, node in self.steps:
            made = evaluated(op, node, [None if v is None else values[v] for v in node.inputs])
            values.update(zip(node.outputs, made, strict=False))
        return bool(one_of(self.node, "condition", values[self.condition]))


def question_of(
    index: Index, known: Known, condition: ir.Value, values: Sequence[ir.Value]
) -> Question | None:
    """How to work out `condition` from small inputs among `values`; None where it takes more than those."""
    numbers = {value: number for number, value in enumerate(values)}
    found = sources_of(index, known, condition, numbers, _is_small, MOST_NODES)
    if found is None:
        return None
    return Question(
        [(number, value) for value, number in found.leaves.items()],
        [(index.ops[p], index.nodes[p]) for p in sorted(found.positions)],
        found.constants,
        condition,
        index.nodes[known.stop],
    )


def _is_small(facts: Facts) -> bool:
    return math.prod(facts.shape) <= SMALL
