"""How close a model's kernels come to what the machine can do (roofline).

A step that computes `flops` and must move `nbytes` takes at least flops / peak and nbytes / bandwidth
seconds; the longer of the two is its bound. Williams, Waterman and Patterson, Roofline, CACM 2009. The peaks
are those of multiply-adds in registers and of reads; what moves no more than the cores' own caches hold is
measured against the caches. So a kernel may pass 100 %: Winograd needs fewer multiplications than the
textbook counts, and tile registers (AMX) are faster than the multiply-adds that count as the peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.peaks import Peaks
from ingot.runtime.profile import KernelProfile


@dataclass
class Group:
    """All steps of a run with one kernel and label: seconds, arithmetic, bytes, and the sum of their bounds.

    busy: seconds of those steps among them that arithmetic bounds, not memory; busy_bound: their bounds.
    """

    kernel: str
    label: str
    calls: int = 0
    seconds: float = 0.0
    flops: int = 0
    nbytes: int = 0
    bound: float = 0.0
    busy: float = 0.0
    busy_bound: float = 0.0

    @property
    def gflops(self) -> float:
        """10⁹ operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """10⁹ bytes a second."""
        return self.nbytes / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def reached(self) -> float:
        """The bound as a fraction of the time taken."""
        return self.bound / self.seconds if self.seconds else 0.0

    @property
    def bound_gflops(self) -> float:
        """The roofline over these steps, 10⁹ operations a second: min(peak, intensity × bandwidth)."""
        return self.flops / self.bound / 1e9 if self.bound else 0.0


def bandwidth(nbytes: int, peaks: Peaks) -> float:
    """Return the bytes per second at which `nbytes` can be had at best."""
    return (peaks.cache if nbytes <= peaks.near_bytes else peaks.read) * 1e9


def bounds(flops: int, nbytes: int, peaks: Peaks) -> tuple[float, float]:
    """Return the seconds that arithmetic and that memory take at least."""
    return flops / (peaks.fma * 1e9), nbytes / bandwidth(nbytes, peaks)


def group(steps: Iterable[KernelProfile], peaks: Peaks) -> list[Group]:
    """Return the steps by kernel and label, those that take longest first."""
    groups: dict[tuple[str, str], Group] = {}
    for step in steps:
        found = groups.setdefault((step.kernel, step.label), Group(step.kernel, step.label))
        seconds = step.milliseconds / 1e3
        arithmetic, memory = bounds(step.flops, step.nbytes, peaks)
        found.calls += 1
        found.seconds += seconds
        found.flops += step.flops
        found.nbytes += step.nbytes
        found.bound += max(arithmetic, memory)
        if arithmetic > memory:
            found.busy += seconds
            found.busy_bound += arithmetic
    return sorted(groups.values(), key=lambda each: -each.seconds)


def arithmetic_part(groups: Sequence[Group]) -> tuple[float, float] | None:
    """Return which fraction of the time goes to steps that arithmetic bounds, and the fraction of the peak
    they reach; None where there are no such steps.
    """
    total, busy = sum(each.seconds for each in groups), sum(each.busy for each in groups)
    return (busy / total, sum(each.busy_bound for each in groups) / busy) if busy else None


def fraction_of_bound(groups: Sequence[Group]) -> float | None:
    """Return the sum of all bounds as a fraction of the time taken; None of nothing."""
    total = sum(each.seconds for each in groups)
    return sum(each.bound for each in groups) / total if total else None
