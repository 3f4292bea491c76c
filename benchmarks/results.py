"""What a benchmark run found: plain records, and JSON of them. Nothing is measured or printed here."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.efficiency import Group
from benchmarks.peaks import Peaks
from ingot.benchmark import TOLERANCE, Measured
from ingot.codegen.machine import host


@dataclass
class Row:
    """One model at one batch size and number of threads. `reason`: why nobody could run it at all."""

    model: str
    title: str
    threads: int
    batch: int
    gflop: float | None = None
    foreign_cores: float | None = None
    cells: list[Measured] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    reason: str = ""

    @property
    def on(self) -> str:
        """`batch 8, 2 threads`."""
        return f"batch {self.batch}, {self.threads} thread{'' if self.threads == 1 else 's'}"

    def cell(self, runner: str) -> Measured | None:
        """Return the cell of a runner, None when it did not take part."""
        return next((cell for cell in self.cells if cell.runner == runner), None)

    def ratio(self, runner: str, base: str = "ingot") -> float | None:
        """Return how many times longer than `base` the runner took; None when either has no time."""
        ours, theirs = self.cell(base), self.cell(runner)
        if ours is None or theirs is None or not ours.median or not theirs.median:
            return None
        return theirs.median / ours.median

    def fastest_peer(self) -> tuple[str, float] | None:
        """Return the fastest runner other than Ingot, and how many times longer than Ingot it took."""
        ratios = [
            (ratio, cell.runner)
            for cell in self.cells
            if cell.runner != "ingot" and (ratio := self.ratio(cell.runner)) is not None
        ]
        return (min(ratios)[1], min(ratios)[0]) if ratios else None

    def faults(self) -> list[str]:
        """Return what is wrong with Ingot's own result: no time, or numbers that are not ONNX Runtime's."""
        ours = self.cell("ingot")
        if ours is None:
            return []
        if ours.median is None:
            return [f"ingot: {ours.reason}"]
        if ours.to_onnxruntime is not None and ours.to_onnxruntime > TOLERANCE:
            return [f"ingot: its outputs differ from onnxruntime's by {ours.to_onnxruntime:.1e}"]
        return []


@dataclass
class ExportRow:
    """How long one model took to become ONNX, in seconds, each way, or the reason why it did not."""

    model: str
    title: str
    ingot: float | None = None
    torch: float | None = None
    reason: str = ""


@dataclass
class LoadCell:
    """One runner in a process of its own: seconds to create the session, of the first run and of later ones,
    and the bytes the process grew by until then, over those after its imports; medians. None where it failed,
    for `reason`.
    """

    runner: str
    create: float | None = None
    first: float | None = None
    later: float | None = None
    peak_bytes: int | None = None
    version: str = ""
    reason: str = ""

    @property
    def beyond(self) -> float:
        """Seconds that the first run took longer than later ones."""
        return max(0.0, (self.first or 0.0) - (self.later or 0.0))


@dataclass
class LoadRow:
    """One model, opened and run once by each runner. "ingot, cold" had compiled no kernel before."""

    model: str
    title: str
    file_bytes: int
    cells: list[LoadCell] = field(default_factory=list)

    def cell(self, runner: str) -> LoadCell | None:
        """Return the cell of a runner, None when it did not take part."""
        return next((cell for cell in self.cells if cell.runner == runner), None)


@dataclass
class Results:
    """One run: where, when, how, and all that it found. `peaks` has an entry for each number of threads."""

    command: str
    date: str
    machine: str
    python: str
    cpu_class: str = ""
    peaks: list[Peaks] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    exports: list[ExportRow] = field(default_factory=list)
    loads: list[LoadRow] = field(default_factory=list)

    def peaks_of(self, threads: int) -> Peaks | None:
        """Return the peaks of so many threads, None where they were not measured."""
        return next((peaks for peaks in self.peaks if peaks.threads == threads), None)


def begin() -> Results:
    """Return empty results that name this machine, the time in UTC and the command line."""
    return Results(
        command=f"make bench ARGS={shlex.quote(' '.join(sys.argv[1:]))}" if sys.argv[1:] else "make bench",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine(),
        python=platform.python_version(),
        cpu_class=cpu_class(),
    )


def cpu_class() -> str:
    """Return what Ingot generates code for here: "amx", "avx512", "avx2", else the architecture's name."""
    found = host()
    if found.tiles:
        return "amx"
    return {64: "avx512", 32: "avx2"}.get(found.vector_bytes, platform.machine())


def machine() -> str:
    """Return the processor, its vector instructions, the cores this process may use, and the system."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
                break
    vectors = [
        label
        for label, flag in (("AVX2", "avx2"), ("AVX-512", "avx512f"), ("AMX", "amx_tile"))
        if flag in flags
    ]
    return f"{name} ({', '.join(vectors) or platform.machine()}), {cores()} cores, {platform.system()}"


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def geometric_mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean; None of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def save(results: Results, path: Path) -> None:
    """Write the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n")
