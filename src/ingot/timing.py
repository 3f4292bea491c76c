"""Measuring callables side by side: interleaved rounds, medians, and how busy the machine was with other
things.

Machines are shared and clocks drift, so a lone time says little: candidates take turns in one process, and
what is quoted is the ratio of their medians. Nothing here knows a model or a session.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A turn lasts about this long, so that a small model is called often enough for its caches to be warm again
# after the other candidates have used them.
TURN_SECONDS = 0.03
# Thread pools spin after a call (ONNX Runtime's for 35 ms, OpenMP's for 10): a turn begins once the process
# was idle for a rest, or after the longest wait where some thread never parks.
REST_SECONDS, LONGEST_REST_SECONDS = 0.01, 0.25
# A call this long pays for refilling its caches by itself: it needs no untimed call before it.
LONG_SECONDS = 0.25
# Fewer rounds than this say nothing about how steady they are.
STEADY_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Timing:
    """The samples of one candidate, in seconds, in the order they were taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle sample, in seconds."""
        return float(np.median(self.samples))

    @property
    def p95(self) -> float:
        """The sample that 95 % do not exceed, in seconds."""
        return float(np.percentile(self.samples, 95, method="higher"))

    @property
    def best(self) -> float:
        """The shortest sample, in seconds."""
        return min(self.samples)


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 20,
    seconds: float = math.inf,
    steady: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Time all candidates in turns, round by round, and return a Timing for each.

    A round gives each candidate one turn, in an order that moves on by one each round. A turn calls the
    candidate once untimed, to refill the caches that the others emptied (not where a call takes longer than
    a quarter of a second), then at least once timed. Rounds end after `rounds` of them; once there are
    three, when `seconds` have passed; once there are seven, when every median is known to within the
    fraction `steady` of itself. `progress(done, rounds)` is called after each round.
    """
    took: dict[str, float] = {}
    for name, call in candidates.items():
        call()  # first calls compile, plan and allocate
        start = time.perf_counter()
        call()
        took[name] = max(time.perf_counter() - start, 1e-6)
    calls = {name: max(1, min(100, int(TURN_SECONDS / took[name]))) for name in candidates}
    medians: dict[str, list[float]] = {name: [] for name in candidates}
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    if not order:
        return {}
    began = time.perf_counter()
    for done in range(rounds):
        for name in order:
            call = candidates[name]
            _rest()
            if took[name] < LONG_SECONDS:
                call()
            for _ in range(calls[name]):
                start = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - start)
            medians[name].append(float(np.median(samples[name][-calls[name] :])))
        order.append(order.pop(0))
        if progress is not None:
            progress(done + 1, rounds)
        if done >= 2 and time.perf_counter() - began > seconds:
            break
        if steady and done + 1 >= STEADY_ROUNDS and max(map(uncertainty, medians.values())) <= steady:
            break
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def _rest() -> None:
    """Sleep until the other threads of this process sleep too."""
    end = time.perf_counter() + LONGEST_REST_SECONDS
    while time.perf_counter() < end:
        spent = time.process_time()
        time.sleep(REST_SECONDS)
        if time.process_time() - spent < REST_SECONDS / 10:
            return


def uncertainty(values: Sequence[float]) -> float:
    """Return how far the median of `values` may be off, as a fraction of it: the notch of a box plot.

    McGill, Tukey and Larsen, Variations of Box Plots, 1978: 1.57 × interquartile range / √n.
    """
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(1.57 * (high - low) / math.sqrt(len(values)) / middle)


def worst_difference(outputs: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> float:
    """Return the largest of max|a - b| / max|b| over all outputs; infinity for other shapes or dtypes.

    NaN and infinities agree only where the reference has the same ones in the same places. An output whose
    reference is zero everywhere is compared absolutely.
    """
    if len(outputs) != len(reference):
        return math.inf
    worst = 0.0
    for found, wanted in zip(outputs, reference, strict=True):
        if found.shape != wanted.shape or found.dtype != wanted.dtype:
            return math.inf
        if found.dtype.kind in "biuOSU":
            if not np.array_equal(found, wanted):
                return math.inf
            continue
        wide = np.complex128 if found.dtype.kind == "c" else np.float64
        a, b = found.astype(wide), wanted.astype(wide)
        finite = np.isfinite(b)
        if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
            return math.inf
        if not finite.any():
            continue
        scale = float(np.abs(b[finite]).max())
        worst = max(worst, float(np.abs(a[finite] - b[finite]).max()) / (scale or 1.0))
    return worst


class MachineLoad:
    """How many cores other processes kept busy while this one was measuring, from Linux's /proc/stat.

    >>> load = MachineLoad()
    >>> others = load.foreign_cores()  # None where the system does not say
    """

    def __init__(self) -> None:
        self._busy = self._busy_seconds()
        self._own = time.process_time()
        self._start = time.perf_counter()

    @staticmethod
    def _busy_seconds() -> float | None:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _idle, _wait, irq, soft, steal = (int(field) for field in fields[:8])
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")

    def foreign_cores(self) -> float | None:
        """Return the mean number of cores busy with other work since this object was made; None off Linux."""
        busy = self._busy_seconds()
        if busy is None or self._busy is None:
            return None
        own = time.process_time() - self._own
        elapsed = max(time.perf_counter() - self._start, 1e-3)
        return max(0.0, (busy - self._busy - own) / elapsed)
