"""What lowering gives: the steps of a plan, in order, and what runs must look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingot.kernels.call import Call, Nested, Series, View
from ingot.ops.registry import Array


@dataclass(slots=True)
class HostStep:
    """A node that NumPy evaluates. Inputs are views, arrays that were known while planning, or absent."""

    position: int
    inputs: list[View | Array | None]
    outputs: list[View | None]


@dataclass(slots=True)
class Check:
    """A word in the arena that a kernel sets when it meets data it must refuse, and what to say then."""

    flag: View
    message: str


@dataclass(slots=True)
class Lowered:
    """The outcome: steps in order. They leave the outputs in the buffers of kind "output"."""

    steps: list[Call | Series | Nested | HostStep]
    checks: list[Check]
    #: how each node is computed: "native", "host", "view" (no work) or "folded" (known while planning)
    kinds: dict[int, str] = field(default_factory=dict[int, str])


def belong(calls: Sequence[Call | Series | Nested], positions: Sequence[int]) -> None:
    """They compute the nodes at these positions, too."""
    for call in calls:
        if isinstance(call, Call):
            call.origin.extend(positions)
        elif isinstance(call, Nested):
            call.call.origin.extend(positions)
        else:
            belong(call.body, positions)
