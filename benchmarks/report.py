"""Results as Markdown pages, on the terminal and in the README. Prints recorded facts, measures nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import Results, Row, geometric_mean, save
from benchmarks.tables import (
    Lines,
    at,
    efficiency_table,
    export_table,
    load_table,
    ops_table,
    peaks_table,
    settings,
    summary,
    table,
    wins,
)
from ingot.benchmark import TOLERANCE

BUSY_CORES = 0.1  # other processes' load from which a row is marked


def notes(results: Results) -> list[str]:
    """Return one sentence for all that has no time or other numbers, is slower than a peer, or was measured
    on a busy machine. A setting stands as batch×threads.
    """
    found = _Notes(len(settings(results.rows)))
    for row in results.rows:
        if row.reason:
            found.add(row.reason, row)
        for cell in row.cells:
            if cell.reason:
                reason, value = f"{cell.runner}: {cell.reason}", ""
                if cell.difference is not None:
                    reason = f"{cell.runner}: not timed, its outputs differ by more than {TOLERANCE:.0e}"
                    value = f"{cell.difference:.1e}"
                found.add(reason, row, value)
            if cell.runner == "ingot" and (cell.to_onnxruntime or 0.0) > TOLERANCE:
                text = f"ingot differs from onnxruntime by more than {TOLERANCE:.0e} of the largest value"
                found.add(text, row, f"{cell.to_onnxruntime:.1e}")
        fastest = row.fastest_peer()
        if fastest is not None and fastest[1] < 1:
            found.add("slower than the fastest peer", row, f"{fastest[0]} {fastest[1]:.2f}×")
        if row.foreign_cores is not None and row.foreign_cores > BUSY_CORES:
            text = f"measured while other processes kept {BUSY_CORES} cores or more busy"
            found.add(text, row, f"{row.foreign_cores:.1f}")
    sentences = found.sentences()
    apart: dict[str, list[str]] = {}
    for export in results.exports:
        if export.reason:
            apart.setdefault(f"not exported by {export.reason}", []).append(export.title)
    for load in results.loads:
        for cell in load.cells:
            if cell.reason:
                apart.setdefault(f"{cell.runner} did not open it: {cell.reason}", []).append(load.title)
    return sentences + [f"{reason} – {', '.join(titles)}" for reason, titles in apart.items()]


class _Notes:
    """Reasons, each with the models and settings it holds for; all settings of a model go without saying."""

    def __init__(self, settings_there_are: int) -> None:
        self._all = settings_there_are
        self._found: dict[str, dict[str, list[str]]] = {}

    def add(self, reason: str, row: Row, value: str = "") -> None:
        where = self._found.setdefault(reason, {}).setdefault(row.title, [])
        where.append(f"{row.batch}×{row.threads}" + (f": {value}" if value else ""))

    def sentences(self) -> list[str]:
        return [
            f"{reason} – {', '.join(starmap(self._place, models.items()))}"
            for reason, models in self._found.items()
        ]

    def _place(self, title: str, where: list[str]) -> str:
        plain = len(where) == self._all and not any(":" in each for each in where)
        return title if plain else f"{title} ({', '.join(where)})"


def _agreement(rows: Sequence[Row]) -> str:
    """Return the sentence about how far outputs lie apart."""
    cells = [cell for row in rows for cell in row.cells if cell.median is not None]
    worst = max((cell.difference or 0.0 for cell in cells), default=0.0)
    ours = [
        cell.to_onnxruntime for cell in cells if cell.runner == "ingot" and cell.to_onnxruntime is not None
    ]
    text = f"Every output agrees with PyTorch's in float64 within {worst:.1e} of its largest value"
    return text + (f", Ingot's with ONNX Runtime's within {max(ours):.1e}." if ours else ".")


def sections(results: Results) -> Iterator[tuple[str, str, Lines]]:
    """Yield (title, text, table) of all there is to show, in order."""
    rows = results.rows
    if rows:
        intro = (
            "How many times longer the peers take than Ingot, as geometric means, and on how many models "
            f"Ingot is the slower one. {_agreement(rows)}"
        )
        yield "Summary", intro, summary(rows)
        yield "", "On how many models each is the fastest:", wins(rows)
        text = (
            "Milliseconds per call, float32: the median of interleaved rounds in one process, and in "
            "brackets how many times longer than Ingot."
        )
        for number, (batch, threads) in enumerate(settings(rows)):
            here = at(rows, (batch, threads))
            yield here[0].on.capitalize(), "" if number else text, table(here)
    if results.peaks:
        text = (
            "What this machine reaches at best, measured in the same run: multiply-adds in registers, "
            "reads of each core's own L2, reads and copies of memory (a copy counts both ways)."
        )
        yield "Efficiency", text, peaks_table(results.peaks)
    if results.peaks and rows:
        text = (
            "What Ingot reaches: operations as a textbook counts them (products, convolutions, attention "
            "and recurrent cells; a multiply-add is two) per second, as a fraction of the multiply-add "
            "peak; which part of the time goes to kernels that arithmetic bounds rather than memory, and "
            "what these reach of the peak. More than 100 % is possible: Winograd multiplies less than "
            "the textbook, and tile registers are faster than multiply-adds."
        )
        yield "", text, efficiency_table(results)
    if results.loads:
        text = (
            "Each in a new process, medians of three: seconds to create the session + what the first run "
            "takes longer than later ones (planning, packing, allocating). Cold: no kernel was compiled "
            "before. Memory: the most that the process held until then, beyond what it held after its "
            "imports."
        )
        yield "Opening a model", text, load_table(results.loads)
    if results.exports:
        yield (
            "Export",
            "Seconds to export to ONNX in memory, without verification:",
            export_table(results.exports),
        )


def markdown(results: Results) -> str:
    """Return the page: machine, versions, command, the tables and the notes."""
    every = [cell for row in (*results.rows, *results.loads) for cell in row.cells]
    versions = {cell.runner.removesuffix(", cold"): cell.version for cell in every if cell.version}
    parts = [f"Measured {results.date} on {results.machine}; Python {results.python}."]
    if versions:
        parts.append(
            "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
        )
    parts.append(f"Command: `{results.command}`.")
    for title, text, lines in sections(results):
        parts += [f"## {title}"] * bool(title) + [text] * bool(text) + [_markdown_table(lines)]
    if found := notes(results):
        listed = "\n".join(f"- {note}" for note in found)
        parts.append(f"## Notes\n\nIn brackets: batch × threads.\n\n{listed}")
    return "\n\n".join(parts) + "\n"


def ops_page(results: Results) -> str:
    """Return a page with the kernels of each model and setting."""
    parts = [
        "# Kernels\n",
        f"Measured {results.date} on {results.machine}. Ingot's kernel calls one by one, by kernel and "
        "label: share of the time, arithmetic as a textbook counts it, the bytes that must be moved at "
        "least, the roofline over these calls (the smaller of the multiply-add peak and intensity × "
        "bandwidth) and how much of that bound they reach.\n",
        _markdown_table(peaks_table(results.peaks)) + "\n",
    ]
    for row in results.rows:
        if row.groups:
            parts += [f"## {row.title}, {row.on}\n", _markdown_table(ops_table(row.groups)) + "\n"]
    return "\n".join(parts)


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    rule = "|" + "|".join("---" if index == 0 else "---:" for index in range(len(lines[0]))) + "|"
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], rule, *texts[1:]])


def show(results: Results, console: Console, ops: bool = False) -> None:
    """Print the tables and the notes on the terminal; with `ops` each model's kernels too."""
    for title, _, lines in sections(results):
        show_table(title, lines, console)
    for row in results.rows if ops else ():
        if row.groups:
            show_table(f"{row.title}, {row.on}", ops_table(row.groups), console)
    for note in notes(results):
        console.print(f"• {note}", highlight=False)


def show_table(title: str, lines: Lines, console: Console) -> None:
    """Print one table on the terminal."""
    grid = Table(title=title or None, title_justify="left")
    for index, heading in enumerate(lines[0]):
        grid.add_column(heading, justify="left" if index == 0 else "right")
    for line in lines[1:]:
        grid.add_row(*(text.strip("*") for text in line))
    console.print(grid)


def write(results: Results, stem: Path, ops: bool = False) -> list[Path]:
    """Write stem.json and stem.md, with `ops` also stem-kernels.md; returns their paths."""
    data, page = stem.with_suffix(".json"), stem.with_suffix(".md")
    save(results, data)
    page.write_text("# Benchmarks\n\n" + markdown(results))
    written = [data, page]
    if ops:
        written.append(stem.with_name(f"{stem.name}-kernels.md"))
        written[-1].write_text(ops_page(results))
    return written


PEERS_IN_README = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
MODELS_IN_README = (
    *("resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny", "vit_s16", "yolov8n"),
    *("bert_base_128", "depth_anything_s"),
)
MARKS = ("<!-- measured -->\n", "<!-- /measured -->\n")


def readme_table(path: Path) -> str:
    """Return the README's table of the results in a JSON file: how many times longer others take, batch 1.

    It shows a choice of the models; the means are those of all.
    """
    found: dict[str, Any] = json.loads(path.read_text())
    rows = [row for row in found["rows"] if row["batch"] == 1]
    threads = sorted({row["threads"] for row in rows})
    columns = [(t, peer) for t in threads for peer in PEERS_IN_README]
    ratios: dict[str, dict[tuple[int, str], float]] = {}
    titles: dict[str, str] = {}
    for row in rows:
        titles[row["model"]] = row["title"]
        medians = {cell["runner"]: cell["median"] for cell in row["cells"] if cell["median"]}
        for peer in PEERS_IN_README:
            if peer in medians and "ingot" in medians:
                ratio = medians[peer] / medians["ingot"]
                ratios.setdefault(row["model"], {})[row["threads"], peer] = ratio
    lines = [
        ["model", *(f"{PEERS_IN_README[p]}, {t} thread{'s' * (t > 1)}" for t, p in columns)],
        ["---"] + ["---:"] * len(columns),
    ]
    for model in MODELS_IN_README:
        if model in ratios:
            texts = [f"{r:.2f}×" if (r := ratios[model].get(column)) else "–" for column in columns]
            lines.append([titles[model], *texts])
    means = [geometric_mean(each[c] for each in ratios.values() if c in each) for c in columns]
    shown = len(lines) - 2
    mean = "geometric mean" if shown == len(ratios) else f"geometric mean of {len(ratios)} models"
    lines.append([f"**{mean}**", *("–" if m is None else f"**{m:.2f}×**" for m in means)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{found['machine']}, {found['date']}:\n\n{table}"


def update_readme(readme: Path, results: Path) -> None:
    """Put the table of `results` (JSON) between the README's marks."""
    before, rest = readme.read_text().split(MARKS[0])
    readme.write_text(before + MARKS[0] + readme_table(results) + MARKS[1] + rest.split(MARKS[1])[1])
