"""What a benchmark run found, as JSON, as a Markdown table and on the terminal. Prints recorded facts,
measures nothing.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ingot.benchmark import Measured


@dataclass
class Row:
    """One model at one number of threads."""

    model: str
    title: str
    threads: int
    batch: int
    gflop: float | None
    foreign_cores: float | None = None
    cells: list[Measured] = field(default_factory=list)

    @property
    def on(self) -> str:
        """`1 thread`, `2 threads`."""
        return f"{self.threads} thread{'' if self.threads == 1 else 's'}"

    def cell(self, runner: str) -> Measured | None:
        """Return the cell of a runner, None when it did not take part."""
        return next((cell for cell in self.cells if cell.runner == runner), None)

    def ratio(self, runner: str, base: str = "ingot") -> float | None:
        """Return how many times longer than `base` the runner took; None when either has no time."""
        ours, theirs = self.cell(base), self.cell(runner)
        if ours is None or theirs is None or not ours.median or not theirs.median:
            return None
        return theirs.median / ours.median


@dataclass
class ExportRow:
    """How long one model took to become ONNX, in seconds, each way, or the reason why it did not."""

    model: str
    title: str
    ingot: float | None = None
    torch: float | None = None
    reason: str = ""


@dataclass
class Results:
    """One run: where, when, how, and all that it found."""

    command: str
    date: str
    machine: str
    python: str
    rows: list[Row] = field(default_factory=list)
    exports: list[ExportRow] = field(default_factory=list)


def begin() -> Results:
    """Return empty results that name this machine, the time in UTC and the command line."""
    return Results(
        command=f"make bench ARGS={shlex.quote(' '.join(sys.argv[1:]))}" if sys.argv[1:] else "make bench",
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine(),
        python=platform.python_version(),
    )


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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name} ({', '.join(vectors) or platform.machine()}), {cores} cores, {platform.system()}"


def geometric_mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean; None of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def runners_of(rows: Sequence[Row]) -> list[str]:
    """Return the runners of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(cell.runner for row in rows for cell in row.cells))


def _milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.3f}"
    )


def _text(row: Row, runner: str) -> str:
    cell = row.cell(runner)
    if cell is None or cell.median is None:
        return "–"
    ratio = row.ratio(runner)
    text = _milliseconds(cell.median)
    return text if ratio is None or runner == "ingot" else f"{text} ({ratio:.2f}×)"


def table(rows: Sequence[Row]) -> list[list[str]]:
    """Return the header and one line of text per row, and the geometric means of the ratios per thread
    count.
    """
    runners = runners_of(rows)
    lines = [["model", "threads", *runners]]
    lines += [[row.title, str(row.threads), *(_text(row, runner) for runner in runners)] for row in rows]
    for threads in sorted({row.threads for row in rows}):
        means = [
            geometric_mean(ratio for row in rows if row.threads == threads and (ratio := row.ratio(runner)))
            for runner in runners
        ]
        if any(mean is not None for mean in means):
            texts = [
                "" if mean is None or name == "ingot" else f"{mean:.2f}×"
                for name, mean in zip(runners, means, strict=True)
            ]
            lines.append(["**geometric mean**", str(threads), *texts])
    return lines


def notes(results: Results) -> list[str]:
    """Return one sentence per runner that has no time or other numbers, and per row measured on a busy
    machine.
    """
    found: dict[str, list[str]] = {}
    for row in results.rows:
        for cell in row.cells:
            if cell.reason:
                found.setdefault(f"{cell.runner}: {cell.reason}", []).append(f"{row.title} ({row.threads})")
        if row.foreign_cores is not None and row.foreign_cores > 0.1:
            text = "measured while other processes kept 0.1 cores or more busy"
            found.setdefault(text, []).append(f"{row.title} ({row.threads}): {row.foreign_cores:.1f}")
    for row in results.exports:
        if row.reason:
            found.setdefault(f"not exported by {row.reason}", []).append(row.title)
    return [f"{reason} – {', '.join(dict.fromkeys(models))}" for reason, models in found.items()]


def markdown(results: Results) -> str:
    """Return the page: machine, versions, command, the table, the exports and the notes."""
    versions = {cell.runner: cell.version for row in results.rows for cell in row.cells if cell.version}
    parts = [
        f"Measured {results.date} on {results.machine}; Python {results.python}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        f"Command: `{results.command}`.",
    ]
    if results.rows:
        batches = sorted({row.batch for row in results.rows})
        worst = max(
            (c.difference for r in results.rows for c in r.cells if c.difference and c.median), default=0.0
        )
        lines = table(results.rows)
        parts.append(
            f"Milliseconds per call, batch {', '.join(map(str, batches))}, float32: the median of "
            "interleaved rounds in one process, and in brackets how many times longer than Ingot. "
            f"Every output agrees with PyTorch's within {worst:.1e} of its largest value."
        )
        parts.append(_markdown_table(lines))
    if results.exports:
        parts.append("Export to ONNX in memory, seconds, without verification:")
        parts.append(_markdown_table(export_table(results.exports)))
    if found := notes(results):
        parts.append("Notes:\n\n" + "\n".join(f"- {note}" for note in found))
    return "\n\n".join(parts) + "\n"


def export_table(exports: Sequence[ExportRow]) -> list[list[str]]:
    """Return the header and one line of text per export."""
    lines = [["model", "ingot.export", "torch.onnx.export(dynamo=True)", "ratio"]]
    for row in exports:
        ratio = f"{row.torch / row.ingot:.1f}×" if row.ingot and row.torch else "–"
        lines.append([row.title, *(f"{t:.2f}" if t else "–" for t in (row.ingot, row.torch)), ratio])
    return lines


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    rule = "|" + "|".join("---" if index == 0 else "---:" for index in range(len(lines[0]))) + "|"
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], rule, *texts[1:]])


def show(results: Results, console: Console) -> None:
    """Print the tables and the notes on the terminal."""
    for title, lines in (
        ("ms per call", table(results.rows)),
        ("seconds to export", export_table(results.exports)),
    ):
        if len(lines) == 1:
            continue
        grid = Table(title=title, title_justify="left")
        for index, heading in enumerate(lines[0]):
            grid.add_column(heading, justify="left" if index == 0 else "right")
        for line in lines[1:]:
            grid.add_row(*(text.strip("*") for text in line))
        console.print(grid)
    for note in notes(results):
        console.print(f"• {note}", highlight=False)


def write(results: Results, stem: Path) -> tuple[Path, Path]:
    """Write stem.json and stem.md; returns both paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    data, page = stem.with_suffix(".json"), stem.with_suffix(".md")
    data.write_text(json.dumps(asdict(results), indent=1, ensure_ascii=False) + "\n")
    page.write_text("# Benchmarks\n\n" + markdown(results))
    return data, page


PEERS_IN_README = ("torch", "onnxruntime", "openvino")
MARKS = ("<!-- measured -->\n", "<!-- /measured -->\n")


def readme_table(path: Path) -> str:
    """Return the README's table of the results in a JSON file: how many times longer others take."""
    found: dict[str, Any] = json.loads(path.read_text())
    titles = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
    threads = sorted({row["threads"] for row in found["rows"]})
    head = ["model", *(f"{titles[p]}, {t} thread{'s' * (t > 1)}" for t in threads for p in PEERS_IN_README)]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1)]
    every: dict[tuple[int, str], list[float]] = {}
    for title in dict.fromkeys(row["title"] for row in found["rows"]):
        line = [title]
        for t in threads:
            (row,) = (r for r in found["rows"] if (r["title"], r["threads"]) == (title, t))
            medians = {cell["runner"]: cell["median"] for cell in row["cells"]}
            for peer in PEERS_IN_README:
                ratio = (medians.get(peer) or 0) / medians["ingot"]
                line.append(f"{ratio:.2f}×" if ratio else "–")
                if ratio:
                    every.setdefault((t, peer), []).append(ratio)
        lines.append(line)
    means = [geometric_mean(every.get((t, p), [])) for t in threads for p in PEERS_IN_README]
    lines.append(["**geometric mean**", *("–" if m is None else f"**{m:.2f}×**" for m in means)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{found['machine']}, {found['date']}:\n\n{table}"


def update_readme(readme: Path, results: Path) -> None:
    """Put the table of `results` (JSON) between the README's marks."""
    before, rest = readme.read_text().split(MARKS[0])
    readme.write_text(before + MARKS[0] + readme_table(results) + MARKS[1] + rest.split(MARKS[1])[1])
