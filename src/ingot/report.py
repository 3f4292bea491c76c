"""What verification did, and how its messages say sizes."""

# The reference is a torch module; torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SHOWN = 4  # dimensions or facts that a message has at the most


@dataclass
class Case:
    """One comparison: the sizes, and the largest difference of each output relative to its largest value.

    reached: sides of branches and loops that no case before took, where inputs were searched that take them
    """

    sizes: dict[str, int]
    differences: dict[str, float]
    reached: list[str] = field(default_factory=list[str])


@dataclass
class Report:
    """What verification did."""

    cases: list[Case] = field(default_factory=list[Case])
    refused: list[dict[str, int]] = field(
        default_factory=list[dict[str, int]]
    )  # sizes the module itself refuses
    #: sides of branches and loops that no case took; inputs that are empty, or do not fit each other, on
    #: which the exported model fails; lines whose order of equal values is torch's own to choose; outputs
    #: that depend on numbers drawn in the run, or that were compared with the module in float64
    unverified: list[str] = field(default_factory=list[str])

    @property
    def worst(self) -> float:
        """The largest relative difference of all."""
        return max((d for c in self.cases for d in c.differences.values()), default=0.0)


def shown_sizes(sizes: Mapping[str, int], example: Mapping[str, int]) -> str:
    """The sizes in one line: of many, those that are not the example's."""
    other = {k: v for k, v in sizes.items() if len(sizes) <= SHOWN or example.get(k) != v}
    return some([f"{k}={v}" for k, v in other.items()], ", ") or "the example"


def some(parts: Sequence[str], between: str) -> str:
    """As many of the parts as one line holds, and how many more there are."""
    rest = len(parts) - SHOWN
    return between.join(parts[:SHOWN]) + (f" … {rest} more" if rest > 0 else "")
