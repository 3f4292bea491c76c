"""`make bench`: models, runners, batch sizes and numbers of threads, side by side.

For each model the runners' outputs are compared with PyTorch's in float64 (for a trained file with ONNX
Runtime's) before anything is timed; a runner whose outputs differ by more than 1e-4 of the largest value is
not timed and the table says so. Then all runners take turns in this one process. What is quoted is the ratio
to Ingot's median in the same rounds.

    make bench                                          the core models, 1 and 2 threads, all runners
    make bench ARGS="--models all --batch 1,8"          everything
    make bench ARGS="--models resnet50,vit_s16 --threads 1 --runners ingot,onnxruntime --ops"
    make bench ARGS="--export --load"                   also time exports, and opening models
    make bench-check                                    hold the recorded ratios
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import floors, peaks
from benchmarks.cases import CORE_NAMES, NAMES, Case, open_case, title
from benchmarks.efficiency import group
from benchmarks.files import NotAvailableError
from benchmarks.loading import measure_load
from benchmarks.measure import Effort, measure, profile, time_exports
from benchmarks.opening import RUNNERS as OPENING
from benchmarks.report import BUSY_CORES, show, update_readme, write
from benchmarks.results import LoadRow, Results, Row, begin, geometric_mean, save
from ingot.peers import PEERS, complaint
from ingot.runtime.profile import KernelProfile

DEFAULT_RUNNERS = ("ingot", "torch", "torch.compile", "onnxruntime", "openvino", "mnn")
RESULTS = Path(__file__).parent / "results"
console = Console(stderr=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    effort = Effort()
    parser.add_argument(
        "--models", default=",".join(CORE_NAMES), help=f"`all`, or of {', '.join(NAMES)} (default: core)"
    )
    parser.add_argument("--batch", default="1", help="samples per call, such as 1,8 (default: 1)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: 1,2)")
    parser.add_argument("--runners", default=",".join(DEFAULT_RUNNERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument(
        "--rounds", type=int, default=effort.rounds, help=f"most rounds per row (default: {effort.rounds})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=effort.seconds,
        help=f"end the rounds of a row after this long (default: {effort.seconds:.0f})",
    )
    parser.add_argument(
        "--steady",
        type=float,
        default=effort.steady,
        help="end the rounds of a row once its medians are known to within this fraction "
        f"(default: {effort.steady})",
    )
    parser.add_argument(
        "--exporter", choices=("ingot", "torch"), default="ingot", help="who writes the .onnx files"
    )
    parser.add_argument("--ops", action="store_true", help="print each model's kernels with their roofline")
    parser.add_argument(
        "--load", action="store_true", help="also measure creating sessions, first runs and memory"
    )
    parser.add_argument("--export", action="store_true", help="also time ingot.export and torch.onnx.export")
    parser.add_argument(
        "--no-times", action="store_true", help="leave the side-by-side times out: only --load and --export"
    )
    parser.add_argument(
        "--record-floors", action="store_true", help="record the ratios as floors for bench-check"
    )
    parser.add_argument(
        "--output", type=Path, help="write STEM.json and STEM.md (default: benchmarks/results/DATE)"
    )
    parser.add_argument("--readme", action="store_true", help="put the ratios into the README's table")
    parser.add_argument("--json", action="store_true", help="print the JSON on stdout")
    chosen = parser.parse_args()
    chosen.models = list(NAMES) if chosen.models == "all" else chosen.models.split(",")
    chosen.threads = [int(count) for count in chosen.threads.split(",")]
    chosen.batch = [int(count) for count in chosen.batch.split(",")]
    chosen.runners = chosen.runners.split(",")
    for name in chosen.models:
        if name not in NAMES:
            parser.error(f"no model {name!r}; there are {', '.join(NAMES)}")
    for name in chosen.runners:
        if name not in PEERS:
            parser.error(f"no runner {name!r}; there are {', '.join(PEERS)}")
    return chosen


def run(chosen: argparse.Namespace, unfinished: Path) -> Results:
    """Go through the models, one at a time in memory. What is known so far is kept in `unfinished`: a run of
    everything takes an hour, and a runner may take the process with it.
    """
    results = begin()
    profiles: list[tuple[Row, list[KernelProfile]]] = []
    if not chosen.no_times:
        results.peaks = measure_peaks(chosen.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if chosen.export:  # the first export imports what it needs: on a model that is not in the table
            time_exports(open_case("mlp", 2, folder))
        for name in chosen.models:
            for batch in chosen.batch:
                with console.status(f"{title(name)}: building"):
                    case = try_open(name, batch, folder, chosen, results)
                if case is None:
                    break
                if batch == chosen.batch[0]:
                    measure_once(case, chosen, results)
                for threads in () if chosen.no_times else chosen.threads:
                    effort = Effort(chosen.rounds, chosen.seconds, chosen.steady)
                    row = measure(case, threads, chosen.runners, effort, console)
                    results.rows.append(row)
                    tell(row)
                    if (ours := row.cell("ingot")) is not None and ours.median is not None:
                        with console.status(f"{row.title}, {row.on}: kernels"):
                            profiles.append((row, profile(case, threads)))
                del case
                gc.collect()
            for file in folder.iterdir():
                file.unlink()
            save(results, unfinished)
    if not chosen.no_times:  # the machine may have been busy the first time
        again = measure_peaks(chosen.threads)
        results.peaks = [better(*pair) for pair in zip(results.peaks, again, strict=True)]
    for row, steps in profiles:
        known = results.peaks_of(row.threads)
        row.groups = [] if known is None else group(steps, known)
    return results


def measure_peaks(threads: Sequence[int]) -> list[peaks.Peaks]:
    """Measure what the machine reaches with each number of threads."""
    with console.status("measuring the machine's peaks"):
        return [peaks.measure(count) for count in threads]


def better(one: peaks.Peaks, other: peaks.Peaks) -> peaks.Peaks:
    """Return the larger of each rate."""
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(one)}
    return peaks.Peaks(**{name: None if None in pair else max(pair) for name, pair in pairs.items()})


def try_open(
    name: str, batch: int, folder: Path, chosen: argparse.Namespace, results: Results
) -> Case | None:
    """Return the model, or None after adding a row with the reason."""
    try:
        return open_case(name, batch, folder, chosen.exporter)
    except NotAvailableError as error:
        reason = f"not available: {error}"
    except Exception as error:  # one model that cannot be had is a row, not the end of the run
        reason = f"no ONNX file: {complaint(error)}"
    console.print(f"{title(name)}: {reason}", style="red", highlight=False, markup=False)
    for threads in chosen.threads:
        results.rows.append(Row(name, title(name), threads, batch, reason=reason))
    return None


def measure_once(case: Case, chosen: argparse.Namespace, results: Results) -> None:
    """Do what is done once for each model: exporting and opening it."""
    if chosen.export and case.module is not None:
        with console.status(f"{case.title}: exporting"):
            results.exports.append(time_exports(case))
    if chosen.load:
        with console.status(f"{case.title}: opening, each time in a new process"):
            row = LoadRow(case.name, case.title, case.path.stat().st_size)
            names = [name for name in chosen.runners if name in OPENING]
            measure_load(row, case.path, case.inputs, names, chosen.threads[0])
            results.loads.append(row)


def tell(row: Row) -> None:
    """Print a row's ratios as soon as they are known, and what is wrong with them."""
    ratios = [
        f"{cell.runner} {r:.2f}×"
        for cell in row.cells
        if cell.runner != "ingot" and (r := row.ratio(cell.runner))
    ]
    console.print(f"{row.title}, {row.on}: {', '.join(ratios) or 'no ratios'}", highlight=False)
    for fault in row.faults():
        console.print(f"  {fault}", style="red", highlight=False, markup=False)
    if row.foreign_cores is not None and row.foreign_cores > BUSY_CORES:
        console.print(f"  warning: other processes kept {row.foreign_cores:.1f} cores busy", style="yellow")


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what native libraries print on stdout to stderr: stdout is for data."""
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def record_floors(results: Results) -> None:
    """Write the floors of this class of CPU anew from what was measured."""
    try:
        old = floors.read(results.cpu_class)
    except floors.FloorsError:
        old = None
    recorded = floors.record(results, old)
    path = floors.write(recorded)
    mean = geometric_mean(floor.ratio for floor in recorded.floors if floor.ratio)
    console.print(
        f"{len(recorded.floors)} floors for {recorded.cpu_class} in {path.name}"
        + (f", their geometric mean is {mean:.2f}×" if mean else ""),
        highlight=False,
    )
    busiest = max((row.foreign_cores or 0.0 for row in results.rows), default=0.0)
    if busiest > BUSY_CORES:
        console.print(
            f"warning: other processes kept up to {busiest:.1f} cores busy: floors want a quiet machine",
            style="yellow",
        )


def main() -> int:
    """Run, print, write; 1 when Ingot has no time, or other numbers, for some model."""
    chosen = arguments()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of each optional package it lacks
    stem = chosen.output or RESULTS / datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    with stdout_to_stderr():
        results = run(chosen, stem.with_suffix(".json"))
    show(results, Console(stderr=chosen.json), chosen.ops)
    written = write(results, stem, chosen.ops)
    console.print(f"written: {', '.join(map(str, written))}", highlight=False)
    if chosen.record_floors:
        record_floors(results)
    if chosen.readme:
        update_readme(Path(__file__).resolve().parent.parent / "README.md", written[0])
    if chosen.json:
        sys.stdout.write(written[0].read_text())
    faults = [f"{row.title}, {row.on}: {fault}" for row in results.rows for fault in row.faults()]
    for fault in faults:
        console.print(fault, style="red", highlight=False, markup=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
