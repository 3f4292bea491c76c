"""One model at one batch size and number of threads: runners side by side, Ingot's kernels, exports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import ingot
from benchmarks.cases import EXPORTERS, Case
from benchmarks.results import ExportRow, Row
from ingot.benchmark import side_by_side
from ingot.peers import Job, complaint
from ingot.runtime.profile import KernelProfile

PROFILE_ROUNDS = 5


@dataclass(frozen=True)
class Effort:
    """When the rounds of a row end: after so many, after so long, or when medians are known so well."""

    rounds: int = 20
    seconds: float = 30.0
    steady: float = 0.005


def measure(case: Case, threads: int, runners: Sequence[str], effort: Effort, console: Console) -> Row:
    """Compare and time every runner on one model; a runner that cannot take part leaves its reason."""
    torch.set_num_threads(threads)
    row = Row(case.name, case.title, threads, case.batch, case.gflop())
    taking_part = case.runners(list(runners))
    columns = (
        TextColumn(f"{row.title}, {row.on}: {{task.description}}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("preparing", total=effort.rounds)
        row.cells, row.foreign_cores = side_by_side(
            Job(case.path, case.inputs, threads, case.module),
            taking_part,
            reference=case.reference,
            rounds=effort.rounds,
            seconds=effort.seconds,
            steady=effort.steady,
            status=lambda text: progress.update(task, description=text),
            progress=lambda done, total: progress.update(
                task, completed=done, total=total, description="rounds"
            ),
        )
    return row


def profile(case: Case, threads: int) -> list[KernelProfile]:
    """Time Ingot's kernel calls one by one."""
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    session = ingot.InferenceSession(str(case.path), options)
    return session.profile_kernels(case.inputs, PROFILE_ROUNDS)


def time_exports(case: Case) -> ExportRow:
    """Export one model both ways, each once, in memory: writing the weights is the disk's time."""
    row = ExportRow(case.name, case.title)
    if case.module is None or case.tensors is None:
        row.reason = "anyone: it is a file"
        return row
    # torch.export takes a dimension of size 1 for a constant.
    inputs = {key: torch.cat([value, value]) for key, value in case.tensors.items()}
    for attribute, export in EXPORTERS.items():
        try:
            start = time.perf_counter()
            export(case.module, inputs)
            setattr(row, attribute, time.perf_counter() - start)
        except Exception as error:  # an exporter that fails is a note under the table
            row.reason = f"{attribute}: {complaint(error)}"
    return row
