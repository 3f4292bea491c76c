"""`make bench-open`: creating sessions beside ONNX Runtime, over the zoo and the trained files of wheels.

Each time in a new process that has imported its runner, Ingot's and ONNX Runtime's in turns, one thread. The
caches are warm: the file is in the system's memory, and Ingot's kernels for it were compiled before. Nothing
else is kept of a model from one process to the next. "With first run" adds what the first run takes longer
than later ones.

    make bench-open                                     the zoo and the files of wheels
    make bench-open ARGS="--models none"                only the files of wheels
    make bench-open ARGS="--models mlp,resnet50 --wheels none --tries 5"
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import open_case, title
from benchmarks.files import FILES, NotAvailableError, models_of
from benchmarks.loading import TRIES, measure_load
from benchmarks.results import LoadRow
from benchmarks.tables import load_table
from benchmarks.zoo import ZOO
from tests.wheels.test_wheels import WHEELS

RUNNERS = ("ingot", "onnxruntime")
Found = tuple[LoadRow, Path, Mapping[str, NDArray[Any]]]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench-open", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default="all", help="`all`, `none`, or names of the zoo (default: all)")
    parser.add_argument("--wheels", default="all", help="`all`, `none`, or names of packages (default: all)")
    parser.add_argument("--tries", type=int, default=TRIES, help=f"processes per runner (default: {TRIES})")
    parser.add_argument("--folder", type=Path, help="keep the exported files there, and take those there are")
    chosen = parser.parse_args()
    names = {"all": [name for name in ZOO if name not in FILES], "none": []}
    chosen.models = names.get(chosen.models) or [name for name in chosen.models.split(",") if name != "none"]
    packages = {wheel.package for wheel in WHEELS}
    chosen.wheels = packages if chosen.wheels == "all" else set(chosen.wheels.split(",")) - {"none"}
    for name in (*(set(chosen.models) - {*ZOO}), *(chosen.wheels - packages)):
        parser.error(f"no model or wheel {name!r}; there are {', '.join([*ZOO, *sorted(packages)])}")
    return chosen


def zoo(names: list[str], folder: Path) -> Iterator[Found]:
    """Yield the models of these names at batch 1, exported into the folder where they are not there yet."""
    for name in names:
        case = open_case(name, 1, folder)
        yield LoadRow(name, title(name), case.path.stat().st_size), case.path, case.inputs


def wheels(packages: set[str]) -> Iterator[Found]:
    """Yield the trained files of these packages, with the first of their inputs."""
    for wheel in WHEELS:
        if wheel.package not in packages:
            continue
        try:
            paths = models_of(wheel.package)
        except NotAvailableError as error:
            print(f"{wheel.package}: not available: {error}", file=sys.stderr)
            continue
        for path in paths:
            if fnmatch.fnmatch(str(path), wheel.member):
                name = f"{wheel.package}: {path.stem}"
                feed = wheel.feeds(np.random.default_rng(0))[0]
                yield LoadRow(name, name, path.stat().st_size), path, feed


def main() -> int:
    """Measure and print; 1 where a session could not be created."""
    chosen = arguments()
    rows: dict[str, list[LoadRow]] = {"the zoo": [], "files of wheels": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for group, models in (
            ("the zoo", zoo(chosen.models, folder)),
            ("files of wheels", wheels(chosen.wheels)),
        ):
            for row, path, inputs in models:
                measure_load(row, path, inputs, RUNNERS, tries=chosen.tries, cold=False)
                print(row.title, end=" … ", flush=True, file=sys.stderr)
                rows[group].append(row)
    for group, measured in rows.items():
        if measured:
            print(f"\n{group}: seconds to create a session + of the first run beyond later ones\n")
            for number, line in enumerate(load_table(measured)):
                print(f"| {' | '.join(line)} |")
                if number == 0:
                    print("|---" * len(line) + "|")
    failed = [
        (row.title, cell) for group in rows.values() for row in group for cell in row.cells if cell.reason
    ]
    for name, cell in failed:
        print(f"{name}: {cell.runner}: {cell.reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
