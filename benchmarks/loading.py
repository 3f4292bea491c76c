"""How long a runner takes to open a model, and how much memory it takes: each time in a new process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import LoadCell, LoadRow

TRIES = 3
COLD = "ingot, cold"


def measure_load(
    row: LoadRow,
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    runners: Sequence[str],
    threads: int = 1,
    tries: int = TRIES,
    *,
    cold: bool = True,
) -> None:
    """Add a cell to `row` for each runner (keys of opening.RUNNERS): medians of `tries` new processes, which
    the runners start in turns.

    Ingot comes twice, without compiled kernels and with those that the first left behind. With cold=False it
    comes once, after a process that is not counted has left what it compiled in the user's cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "inputs.npz"
        np.savez(arrays, **inputs)
        cache: Path | None = None
        if "ingot" in runners and cold:
            empty = [Path(folder) / f"empty{turn}" for turn in range(tries)]
            row.cells.append(_cell(COLD, [_open("ingot", path, arrays, threads, each) for each in empty]))
            cache = empty[0]
        elif "ingot" in runners:
            _open("ingot", path, arrays, threads, cache)
        found: dict[str, list[dict[str, Any]]] = {runner: [] for runner in runners}
        for _ in range(tries):
            for runner in runners:
                found[runner].append(_open(runner, path, arrays, threads, cache))
        row.cells += [_cell(runner, results) for runner, results in found.items()]


def _cell(name: str, found: Sequence[dict[str, Any]]) -> LoadCell:
    """Return the medians of several processes, or the reason of the first that failed."""
    failed = [each["reason"] for each in found if "reason" in each]
    if failed:
        return LoadCell(name, reason=failed[0])
    peaks = [each["peak_bytes"] for each in found if each["peak_bytes"] is not None]
    create, first, later = (
        float(np.median([each[k] for each in found])) for k in ("create", "first", "later")
    )
    peak = int(np.median(peaks)) if peaks else None
    return LoadCell(name, create, first, later, peak, found[0]["version"])


def _open(runner: str, path: Path, arrays: Path, threads: int, cache: Path | None) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.opening", runner, str(path), str(arrays), str(threads)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ | ({} if cache is None else {"INGOT_CACHE_DIR": str(cache)}),
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        return {"reason": lines[-1] if lines else f"exit status {result.returncode}"}
    return json.loads(result.stdout.splitlines()[-1])
