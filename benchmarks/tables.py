"""The benchmark's tables as lines of text: a header, then a line per model or setting."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from benchmarks.efficiency import Group, arithmetic_part
from benchmarks.peaks import Peaks
from benchmarks.results import ExportRow, LoadCell, LoadRow, Results, Row, geometric_mean

Lines = list[list[str]]


def runners_of(rows: Sequence[Row]) -> list[str]:
    """Return the runners of all rows, in the order of their first appearance."""
    return list(dict.fromkeys(cell.runner for row in rows for cell in row.cells))


def settings(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return the (batch, threads) there are, in order."""
    return sorted({(row.batch, row.threads) for row in rows})


def at(rows: Sequence[Row], setting: tuple[int, int]) -> list[Row]:
    """Return the rows of one (batch, threads)."""
    return [row for row in rows if (row.batch, row.threads) == setting]


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds with three digits."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2 if value >= 0.1 else 3}f}"


def table(rows: Sequence[Row]) -> Lines:
    """Return the times of one (batch, threads), a line per model, and the geometric means of the ratios."""
    runners = runners_of(rows)
    lines = [["model", *runners, "fastest peer"]]
    for row in rows:
        fastest = row.fastest_peer()
        last = "–" if fastest is None else f"{fastest[0]} {fastest[1]:.2f}×"
        lines.append([row.title, *(_time(row, runner) for runner in runners), last])
    means = [geometric_mean(_ratios(rows, runner)) for runner in runners]
    if any(mean is not None for mean in means):
        fastest = geometric_mean(found[1] for row in rows if (found := row.fastest_peer()))
        texts = [
            "" if mean is None or name == "ingot" else f"{mean:.2f}×"
            for name, mean in zip(runners, means, strict=True)
        ]
        lines.append(["**geometric mean**", *texts, "" if fastest is None else f"{fastest:.2f}×"])
    return lines


def _time(row: Row, runner: str) -> str:
    cell = row.cell(runner)
    if cell is None or cell.median is None:
        return "–"
    ratio = row.ratio(runner)
    text = milliseconds(cell.median)
    return text if ratio is None or runner == "ingot" else f"{text} ({ratio:.2f}×)"


def _ratios(rows: Sequence[Row], runner: str) -> list[float]:
    return [ratio for row in rows if (ratio := row.ratio(runner)) is not None]


def summary(rows: Sequence[Row]) -> Lines:
    """Return a line per (batch, threads): the geometric mean over Ingot for each peer and for the fastest of
    each model, and on how many models Ingot is slower.
    """
    peers = [name for name in runners_of(rows) if name != "ingot"]
    lines = [["batch", "threads", "models", *peers, "fastest peer"]]
    for batch, threads in settings(rows):
        here = at(rows, (batch, threads))
        fastest = [found[1] for row in here if (found := row.fastest_peer())]
        columns = [*(_ratios(here, peer) for peer in peers), fastest]
        texts = [
            f"{geometric_mean(ratios):.2f}×, slower on {sum(ratio < 1 for ratio in ratios)}"
            if ratios
            else "–"
            for ratios in columns
        ]
        lines.append([str(batch), str(threads), str(len(here)), *texts])
    return lines


def wins(rows: Sequence[Row]) -> Lines:
    """Return on how many models each runner is the fastest, a line per (batch, threads)."""
    runners = runners_of(rows)
    lines = [["batch", "threads", *runners]]
    for batch, threads in settings(rows):
        first: Counter[str] = Counter()
        for row in at(rows, (batch, threads)):
            times = [(cell.median, cell.runner) for cell in row.cells if cell.median is not None]
            if times:
                first[min(times)[1]] += 1
        lines.append([str(batch), str(threads), *(str(first[runner]) for runner in runners)])
    return lines


def peaks_table(peaks: Sequence[Peaks]) -> Lines:
    """Return what the machine reaches at best, a line per number of threads."""
    lines = [
        ["threads", "multiply-adds GFLOP/s", "int8 tiles Gop/s", "L2 read GB/s", "read GB/s", "copy GB/s"]
    ]
    for each in peaks:
        tiles = "–" if each.tiles is None else f"{each.tiles:.0f}"
        rates = f"{each.cache:.0f}", f"{each.read:.1f}", f"{each.copy:.1f}"
        lines.append([str(each.threads), f"{each.fma:.0f}", tiles, *rates])
    return lines


def efficiency_table(results: Results) -> Lines:
    """Return what Ingot reaches of the peak, a line per model and batch, and what more threads bring."""
    threads = sorted({row.threads for row in results.rows})
    lines = [["model", "batch", "GFLOP"]]
    for count in threads:
        plural = "s" * (count > 1)
        lines[0] += [f"{count} thread{plural}: GFLOP/s (of peak)", "arithmetic-bound: time, of peak"]
    scaling = len(threads) > 1
    if scaling:
        lines[0].append(f"{threads[-1]} threads over {threads[0]}")
    for title, batch in dict.fromkeys((row.title, row.batch) for row in results.rows):
        mine = {row.threads: row for row in results.rows if (row.title, row.batch) == (title, batch)}
        times = {n: cell.median for n, row in mine.items() if (cell := row.cell("ingot")) and cell.median}
        if not times:
            continue
        gflop = next(iter(mine.values())).gflop
        line = [title, str(batch), "–" if gflop is None else f"{gflop:.3g}"]
        for count in threads:
            line += _of_peak(mine.get(count), times.get(count), results.peaks_of(count))
        if scaling:
            first, last = times.get(threads[0]), times.get(threads[-1])
            line.append(f"{first / last:.2f}×" if first and last else "–")
        lines.append(line)
    return lines


def _of_peak(row: Row | None, seconds: float | None, peaks: Peaks | None) -> list[str]:
    if row is None or seconds is None or peaks is None:
        return ["–", "–"]
    rate = row.gflop / seconds if row.gflop else None
    part = arithmetic_part(row.groups)
    return [
        "–" if rate is None else f"{rate:.0f} ({rate / peaks.fma:.0%})",
        "–" if part is None else f"{part[0]:.0%}, {part[1]:.0%}",
    ]


def ops_table(groups: Sequence[Group]) -> Lines:
    """Return the kernels of one model, those that take longest first."""
    lines = [["kernel", "calls", "ms", "time", "GFLOP/s", "GB/s", "roofline GFLOP/s", "of the bound"]]
    total = sum(each.seconds for each in groups)
    for each in groups:
        host = each.kernel == "host"
        name = f"{each.label} (host)" if host else f"{each.label} ({each.kernel.rpartition('.')[2]})"
        rates = (
            f"{each.gflops:.0f}",
            f"{each.gbytes:.1f}",
            f"{each.bound_gflops:.0f}",
            f"{each.reached:.0%}",
        )
        rates = ("–", "–", "–", "–") if host else rates
        share = f"{each.seconds / total:.1%}" if total else "–"
        lines.append([name, str(each.calls), milliseconds(each.seconds), share, *rates])
    return lines


def export_table(exports: Sequence[ExportRow]) -> Lines:
    """Return seconds to export, a line per model."""
    lines = [["model", "ingot.export", "torch.onnx.export(dynamo=True)", "ratio"]]
    for row in exports:
        ratio = f"{row.torch / row.ingot:.1f}×" if row.ingot and row.torch else "–"
        lines.append([row.title, *(f"{t:.2f}" if t else "–" for t in (row.ingot, row.torch)), ratio])
    return lines


def load_table(loads: Sequence[LoadRow]) -> Lines:
    """Return seconds to create a session + what the first run takes beyond later ones, and peak memory in MB;
    then Ingot's share of ONNX Runtime's, and the medians of these shares.
    """
    runners = list(dict.fromkeys(cell.runner for row in loads for cell in row.cells))
    warm = [runner for runner in runners if "cold" not in runner]
    lines = [["model", "file MB", *runners, *(f"{runner}, MB" for runner in warm)]]
    compared = {"ingot", "onnxruntime"} <= set(warm)
    shares: list[tuple[float | None, ...]] = []
    if compared:
        lines[0] += [f"of onnxruntime's: {what}" for what in ("session", "with first run", "memory")]
    for row in loads:
        cells = {runner: row.cell(runner) for runner in runners}
        line = [row.title, f"{row.file_bytes / 1e6:.1f}", *(_start(cells[runner]) for runner in runners)]
        for runner in warm:
            cell = cells[runner]
            line.append("–" if cell is None or cell.peak_bytes is None else f"{cell.peak_bytes / 1e6:.0f}")
        if compared:
            shares.append(_shares(cells["ingot"], cells["onnxruntime"]))
            line += [_share(value) for value in shares[-1]]
        lines.append(line)
    if compared:
        known = [[value for value in column if value is not None] for column in zip(*shares, strict=True)]
        medians = [f"**{statistics.median(column):.2f}×**" if column else "" for column in known]
        lines.append(["**median**", *[""] * (len(lines[0]) - 1 - len(medians)), *medians])
    return lines


def _start(cell: LoadCell | None) -> str:
    if cell is None or cell.create is None:
        return "–"
    return f"{cell.create:.3f} + {cell.beyond:.3f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def _shares(ours: LoadCell | None, theirs: LoadCell | None) -> tuple[float | None, ...]:
    """Return what share of their time to create, of that with the first run, and of their memory ours is."""
    if ours is None or theirs is None or not ours.create or not theirs.create:
        return None, None, None
    both = (ours.create + ours.beyond) / (theirs.create + theirs.beyond)
    memory = ours.peak_bytes / theirs.peak_bytes if ours.peak_bytes and theirs.peak_bytes else None
    return ours.create / theirs.create, both, memory
