"""What a run did and how long each part of it took: by node, and by kernel call."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingot.compiler.index import Index
from ingot.compiler.plan import Row
from ingot.compiler.steps import HostStep


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """How one node is computed: by generated code ("native"), by NumPy ("host"), by looking at memory another
    way ("view"), or not at all at run time ("folded": known from the shapes). A fused kernel's time stands at
    the node it grew from; the others of the group have None.
    """

    name: str
    op_type: str
    kind: str
    milliseconds: float | None = None


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """One step of a run: a call of a kernel, or a node on the host (`kernel` is then "host").

    kernel: the generator's name. label: what it does; the operator's name for the host. node: the first node
    it computes. flops: the arithmetic that a textbook would count; 0 for the host. nbytes: what it must read
    and write at least, each element once. milliseconds: a few microseconds of them are the timing's own.
    """

    kernel: str
    label: str
    node: str
    flops: int
    nbytes: int
    milliseconds: float


@dataclass(slots=True)
class Record:
    """What one run did: the kind of each node, seconds of each by its position, and every step in order,
    those of bodies that the driver runs included (others are in a step of their plan). Noting a step takes as
    little time as can be: it counts for the node whose body the step is in.
    """

    kinds: dict[int, str] = field(default_factory=dict[int, str])
    #: the graph that was run; the nodes of branches that became part of a plan stand in it
    index: Index | None = None
    seconds: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    #: the graph, its step or the position of a node on the host, and seconds
    steps: list[tuple[Index, Row | int, float]] = field(
        default_factory=list["tuple[Index, Row | int, float]"]
    )

    def add(self, index: Index, steps: Sequence[tuple[Row | HostStep, float]]) -> None:
        """Note the steps of one stage and how many seconds each took."""
        self.index = index
        for step, seconds in steps:
            is_call = isinstance(step, Row)
            position = step.origin[0] if is_call else step.position
            self.steps.append((index, step if is_call else position, seconds))
            self.seconds.setdefault(position, []).append(seconds)


def _kernel(index: Index, step: Row | int, seconds: float) -> KernelProfile:
    if isinstance(step, int):
        node = index.nodes[step]
        return KernelProfile("host", node.op_type, node.name or "", 0, 0, seconds * 1e3)
    # A copy into an output, after all nodes, belongs to none.
    name = (index.nodes[step.origin[0]].name or "") if step.origin[0] < len(index.nodes) else ""
    moved = moved_bytes(step)
    return KernelProfile(step.generator, step.label, name, step.flops, moved, seconds * 1e3)


def moved_bytes(step: Row) -> int:
    """Bytes of the elements behind its views, each element once: repeats (strides of 0) and equal views do
    not count again.
    """
    distinct = {(number, offset, shape, strides): size for size, shape, strides, number, offset in step.views}
    return sum(
        size * math.prod(n for n, s in zip(shape, strides, strict=True) if s or n == 0)
        for (_, _, shape, strides), size in distinct.items()
    )


def nodes_of(records: Sequence[Record]) -> list[NodeProfile]:
    """How each node was computed, and the median over the records (of runs of equal inputs) of the time it
    took.
    """
    totals: dict[int, list[float]] = {}
    for record in records:
        for position, seconds in record.seconds.items():
            totals.setdefault(position, []).append(sum(seconds))
    index = records[-1].index
    assert index is not None  # every run has a stage
    return [
        NodeProfile(
            node.name or "",
            node.op_type,
            records[-1].kinds.get(position, "folded"),
            statistics.median(totals[position]) * 1e3 if position in totals else None,
        )
        for position, node in enumerate(index.nodes)
    ]


def kernels_of(records: Sequence[Record]) -> list[KernelProfile]:
    """The steps in the order they ran, each with the median over the records of the time it took.

    The records are of runs of equal inputs, which take equal steps.
    """
    merged: list[KernelProfile] = []
    for same in zip(*(record.steps for record in records), strict=True):
        index, step, _ = same[0]
        merged.append(_kernel(index, step, statistics.median([seconds for *_, seconds in same])))
    return merged
