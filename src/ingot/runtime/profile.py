"""What a run did and how long each part of it took: by node, and by kernel call."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingot.compiler.index import Index
from ingot.compiler.lower import HostStep
from ingot.kernels.call import Call, View


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
    those of the bodies of If, Loop and Scan included.
    """

    kinds: dict[int, str] = field(default_factory=dict[int, str])
    seconds: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    steps: list[KernelProfile] = field(default_factory=list[KernelProfile])

    def add(self, index: Index, steps: Sequence[tuple[Call | HostStep, float]]) -> None:
        """Note the steps of one stage and how many seconds each took."""
        for step, seconds in steps:
            if isinstance(step, Call):
                first = step.origin[0]
                # A copy into an output, after all nodes, belongs to none.
                name = (index.nodes[first].name or "") if first < len(index.nodes) else ""
                moved = moved_bytes([*step.reads, *step.writes])
                kernel, label = step.kernel.generator, step.label
                self.steps.append(KernelProfile(kernel, label, name, step.flops, moved, seconds * 1e3))
            else:
                first = step.position
                self.add_host(index, first, seconds)
            self.seconds.setdefault(first, []).append(seconds)

    def add_host(self, index: Index, position: int, seconds: float) -> None:
        """Note a node that the host evaluated."""
        node = index.nodes[position]
        self.steps.append(KernelProfile("host", node.op_type, node.name or "", 0, 0, seconds * 1e3))


def moved_bytes(views: Sequence[View]) -> int:
    """Bytes of the elements behind `views`, each element once: repeats (strides of 0) and equal views do not
    count again.
    """
    distinct = {(id(v.buffer), v.offset, v.shape, v.strides): v for v in views}
    return sum(
        v.dtype.itemsize * math.prod(n for n, s in zip(v.shape, v.strides, strict=True) if s or n == 0)
        for v in distinct.values()
    )


def nodes_of(index: Index, records: Sequence[Record]) -> list[NodeProfile]:
    """How each node was computed, and the median over the records of the time it took."""
    totals: dict[int, list[float]] = {}
    for record in records:
        for position, seconds in record.seconds.items():
            totals.setdefault(position, []).append(sum(seconds))
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
        step = same[0]
        middle = statistics.median(each.milliseconds for each in same)
        merged.append(KernelProfile(step.kernel, step.label, step.node, step.flops, step.nbytes, middle))
    return merged
