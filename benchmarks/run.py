"""`make bench`: every model of the zoo, every runner, every number of threads, side by side.

For each model the runners' outputs are compared with PyTorch's before anything is timed; a runner whose
outputs differ by more than 1e-4 of the largest value is not timed and the table says so. Then all
runners take turns in this one process. What is quoted is the ratio to Ingot's median in the same rounds.

    make bench                                          the core models, 1 and 2 threads, all runners
    make bench ARGS="--models resnet50,vit_s16 --threads 1 --runners ingot,onnxruntime"
    make bench ARGS="--export"                          also time ingot.export against torch.onnx.export
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

import ingot
from benchmarks.report import ExportRow, Results, Row, begin, show, update_readme, write
from benchmarks.zoo import CORE, ZOO, build
from ingot.benchmark import side_by_side
from ingot.peers import PEERS, Arrays, Job, complaint

DEFAULT_RUNNERS = ("ingot", "torch", "torch.compile", "onnxruntime", "openvino", "mnn")
RESULTS = Path(__file__).parent / "results"
console = Console(stderr=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--models", default=",".join(CORE), help="names from benchmarks/zoo.py, or `all` (default: core)"
    )
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default: 1,2)")
    parser.add_argument("--runners", default=",".join(DEFAULT_RUNNERS), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of turns per model (default: 20)")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="end the rounds of a model after this long (default: 30)"
    )
    parser.add_argument("--batch", type=int, default=1, help="samples per call (default: 1)")
    parser.add_argument(
        "--exporter", choices=("ingot", "torch"), default="ingot", help="who writes the .onnx files"
    )
    parser.add_argument("--export", action="store_true", help="also time ingot.export and torch.onnx.export")
    parser.add_argument(
        "--output", type=Path, help="write STEM.json and STEM.md (default: benchmarks/results/DATE)"
    )
    parser.add_argument("--readme", action="store_true", help="put the ratios into the README's table")
    parser.add_argument("--json", action="store_true", help="print the JSON on stdout")
    chosen = parser.parse_args()
    chosen.models = list(ZOO) if chosen.models == "all" else chosen.models.split(",")
    chosen.threads = [int(count) for count in chosen.threads.split(",")]
    chosen.runners = chosen.runners.split(",")
    for name in chosen.models:
        if name not in ZOO:
            parser.error(f"no model {name!r}; there are {', '.join(ZOO)}")
    for name in chosen.runners:
        if name not in PEERS:
            parser.error(f"no runner {name!r}; there are {', '.join(PEERS)}")
    return chosen


def export_with_ingot(module: nn.Module, inputs: Mapping[str, Tensor]) -> ingot.Program:
    """Return ingot.export's program, every dimension symbolic."""
    return ingot.export(module, (), kwargs=dict(inputs), verify=False)


def export_with_torch(module: nn.Module, inputs: Mapping[str, Tensor]) -> torch.onnx.ONNXProgram:
    """Return the program of PyTorch's own exporter, the batch symbolic."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (),
            kwargs=dict(inputs),
            input_names=list(inputs),
            dynamic_shapes={name: {0: batch} for name in inputs},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program


EXPORTERS = {"ingot": export_with_ingot, "torch": export_with_torch}


def flatten(values: object) -> Arrays:
    """Return a module's tensor outputs as arrays, in the order of its pytree."""
    leaves = torch.utils._pytree.tree_leaves(values)
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]


def measure(
    name: str,
    threads: int,
    chosen: argparse.Namespace,
    path: Path,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
) -> Row:
    """Compare and time every runner on one model; a runner that cannot take part leaves its reason."""
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(threads)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        reference = flatten(module(**inputs))
    row = Row(name, ZOO[name].title, threads, chosen.batch, counter.get_total_flops() / 1e9)
    job = Job(
        path, {key: np.ascontiguousarray(value.numpy()) for key, value in inputs.items()}, threads, module
    )
    columns = (
        TextColumn(f"{row.title}, {row.on}: {{task.description}}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("preparing", total=chosen.rounds)
        row.cells, row.foreign_cores = side_by_side(
            job,
            chosen.runners,
            reference=reference,
            rounds=chosen.rounds,
            seconds=chosen.seconds,
            status=lambda text: progress.update(task, description=text),
            progress=lambda done, total: progress.update(
                task, completed=done, total=total, description="rounds"
            ),
        )
    return row


def time_exports(name: str, module: nn.Module, inputs: Mapping[str, Tensor]) -> ExportRow:
    """Export one model both ways, each once, in memory: writing the weights is the disk's time."""
    row = ExportRow(name, ZOO[name].title)
    # torch.export takes a dimension of size 1 for a constant.
    inputs = {key: torch.cat([value, value]) for key, value in inputs.items()}
    for attribute, export in EXPORTERS.items():
        with console.status(f"{row.title}: exporting with {attribute}"):
            try:
                start = time.perf_counter()
                export(module, inputs)
                setattr(row, attribute, time.perf_counter() - start)
            except Exception as error:  # as above
                row.reason = f"{attribute}: {complaint(error)}"
    return row


def run(chosen: argparse.Namespace) -> Results:
    """Go through the models, one at a time in memory."""
    results = begin()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if chosen.export:  # the first export imports what it needs: on a model that is not in the table
            module, inputs = build("mlp", 2)
            time_exports("mlp", module, inputs)
        for name in chosen.models:
            with console.status(f"{ZOO[name].title}: building"):
                module, inputs = build(name, chosen.batch)
            path = folder / f"{name}.onnx"
            if chosen.export:
                results.exports.append(time_exports(name, module, inputs))
            try:
                with console.status(f"{ZOO[name].title}: exporting"):
                    EXPORTERS[chosen.exporter](module, inputs).save(path)
            except Exception as error:
                console.print(
                    f"{ZOO[name].title}: no ONNX file: {error}", style="red", highlight=False, markup=False
                )
            for threads in chosen.threads:
                row = measure(name, threads, chosen, path, module, inputs)
                results.rows.append(row)
                ratios = [
                    f"{cell.runner} {r:.2f}×"
                    for cell in row.cells
                    if (r := row.ratio(cell.runner)) and cell.runner != "ingot"
                ]
                console.print(f"{row.title}, {row.on}: {', '.join(ratios) or 'no ratios'}", highlight=False)
                if row.foreign_cores is not None and row.foreign_cores > 0.1:
                    console.print(
                        f"  warning: other processes kept {row.foreign_cores:.1f} cores busy", style="yellow"
                    )
            del module, inputs
            gc.collect()
            for file in folder.iterdir():
                file.unlink()
    return results


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


def main() -> int:
    """Run, print, write; 1 when Ingot has no time, or other numbers, for some model."""
    chosen = arguments()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of each optional package it lacks
    with stdout_to_stderr():
        results = run(chosen)
    show(results, Console(stderr=chosen.json))
    stem = chosen.output or RESULTS / datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    data, page = write(results, stem)
    console.print(f"written: {data} and {page}", highlight=False)
    if chosen.readme:
        update_readme(Path(__file__).resolve().parent.parent / "README.md", data)
    if chosen.json:
        sys.stdout.write(data.read_text())
    missing = [row for row in results.rows if (cell := row.cell("ingot")) is not None and cell.median is None]
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
