"""`make bench-check`: measure what has recorded floors, and fail where a ratio has fallen below its floor.

A ratio that has fallen is measured once more, and for longer, before it counts: a shared machine has bad
moments. Exit status 0: all floors hold; 1: some fell; 2: there are none for this machine.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.cases import CORE_NAMES, open_case, title
from benchmarks.files import NotAvailableError
from benchmarks.floors import Floor, Floors, FloorsError, fallen, read
from benchmarks.measure import Effort, measure
from benchmarks.results import cores, cpu_class
from benchmarks.run import stdout_to_stderr, tell

QUICK = Effort(rounds=9, seconds=4.0, steady=0.01)
THOROUGH = Effort(rounds=25, seconds=20.0, steady=0.005)
console = Console(stderr=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench-check", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default=",".join(CORE_NAMES), help="names, or `all` (default: core)")
    parser.add_argument("--batch", default="1", help="batch sizes, or `all` (default: 1)")
    parser.add_argument("--threads", default="all", help="numbers of threads (default: all)")
    quick = "torch,onnxruntime,openvino"  # preparing the others takes longer than all the rest
    parser.add_argument("--runners", default=quick, help=f"peers, or `all` (default: {quick})")
    return parser.parse_args()


def select(floors: Floors, chosen: argparse.Namespace) -> list[Floor]:
    """Return the floors that the command line asks for."""

    def wanted(text: str, value: object) -> bool:
        return text == "all" or str(value) in text.split(",")

    return [
        floor
        for floor in floors.floors
        if wanted(chosen.models, floor.model)
        and wanted(chosen.batch, floor.batch)
        and wanted(chosen.threads, floor.threads)
        and wanted(chosen.runners, floor.peer)
    ]


def check(chosen: Sequence[Floor]) -> list[str]:
    """Measure and return a sentence for each floor that does not hold."""
    faults: list[str] = []
    for model in dict.fromkeys(floor.model for floor in chosen):
        with tempfile.TemporaryDirectory() as folder:
            for batch in dict.fromkeys(floor.batch for floor in chosen if floor.model == model):
                here = [floor for floor in chosen if (floor.model, floor.batch) == (model, batch)]
                try:
                    case = open_case(model, batch, Path(folder))
                except NotAvailableError as error:
                    console.print(f"{title(model)}: left out, not available: {error}", markup=False)
                    continue
                for threads in dict.fromkeys(floor.threads for floor in here):
                    held = [floor for floor in here if floor.threads == threads]
                    runners = ["ingot", *(floor.peer for floor in held)]
                    row = measure(case, threads, runners, QUICK, console)
                    if fallen(held, [row]):
                        console.print(f"{row.title}, {row.on}: below a floor, once more", style="yellow")
                        row = measure(case, threads, runners, THOROUGH, console)
                    tell(row)
                    faults += [*fallen(held, [row]), *(f"{row.title}, {row.on}: {f}" for f in row.faults())]
                del case
                gc.collect()
    return faults


def main() -> int:
    """Check and say what fell."""
    chosen = arguments()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        floors = read(cpu_class())
    except FloorsError as error:
        console.print(str(error), markup=False, highlight=False)
        return 2
    selected = select(floors, chosen)
    possible = [floor for floor in selected if floor.threads <= cores()]
    if len(possible) < len(selected):
        console.print(
            f"{len(selected) - len(possible)} floors left out: they are for more threads than the "
            f"{cores()} cores of this process"
        )
    if not possible:
        console.print("no recorded floor is left to check; see --help for the choice")
        return 2
    with stdout_to_stderr():
        faults = check(possible)
    for fault in faults:
        console.print(fault, style="red", highlight=False, markup=False)
    console.print(f"{len(possible)} floors checked, {len(faults)} faults", highlight=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
