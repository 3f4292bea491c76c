"""The benchmark's pages: ratios to Ingot, geometric means, and a note for everything that has no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.efficiency import Group
from benchmarks.peaks import Peaks
from benchmarks.report import markdown, notes, ops_page, readme_table, show, update_readme, write
from benchmarks.results import ExportRow, LoadCell, LoadRow, Results, Row, cpu_class, geometric_mean
from benchmarks.tables import efficiency_table, load_table, ops_table, summary, table, wins
from ingot.benchmark import Measured

PEAKS = Peaks(threads=1, fma=100.0, cache=200.0, read=10.0, copy=12.0, near_bytes=1 << 20)


def row(model: str, ingot: float | None, others: dict[str, float | None], **more: object) -> Row:
    cells = [Measured("ingot", "0.1", median=ingot, p95=ingot, difference=1e-6, to_onnxruntime=2e-6)]
    for name, seconds in others.items():
        reason = "" if seconds else "cannot take it"
        cells.append(Measured(name, "2.0", median=seconds, p95=seconds, reason=reason))
    given: dict[str, object] = {"threads": 1, "batch": 1, "gflop": 8.2, "foreign_cores": 0.0} | more
    return Row(model, model.title(), cells=cells, **given)  # type: ignore[arg-type]


@pytest.fixture
def results() -> Results:
    rows = [
        row("one", 0.1, {"other": 0.2, "third": 0.09}, groups=[Group("k.gemm", "matmul", 2, 0.1, 8)]),
        row("two", 0.001, {"other": 0.008, "third": 0.004}, foreign_cores=0.7),
        row("three", 0.01, {"other": None}),
        row("one", 0.05, {"other": 0.2}, batch=8, threads=2),
    ]
    exports = [ExportRow("one", "One", 0.5, 6.0), ExportRow("two", "Two", None, 6.0, "ingot: no row")]
    loads = [
        LoadRow(
            "one",
            "One",
            10_000_000,
            [
                LoadCell("ingot, cold", 0.5, 0.3, 0.1, 30_000_000),
                LoadCell("ingot", 0.25, 0.15, 0.1, 20_000_000),
                LoadCell("other", reason="it broke"),
            ],
        )
    ]
    return Results(
        "make bench", "2026-01-01 00:00 UTC", "a machine", "3.11", "avx2", [PEAKS], rows, exports, loads
    )


def test_ratios_and_their_geometric_mean(results: Results) -> None:
    assert table(results.rows[:3]) == [
        ["model", "ingot", "other", "third", "fastest peer"],
        ["One", "100", "200 (2.00×)", "90.0 (0.90×)", "third 0.90×"],
        ["Two", "1.00", "8.00 (8.00×)", "4.00 (4.00×)", "third 4.00×"],
        ["Three", "10.0", "–", "–", "–"],
        ["**geometric mean**", "", "4.00×", "1.90×", "1.90×"],
    ]
    assert geometric_mean([]) is None


def test_summary_counts_where_ingot_is_slower(results: Results) -> None:
    assert summary(results.rows) == [
        ["batch", "threads", "models", "other", "third", "fastest peer"],
        ["1", "1", "3", "4.00×, slower on 0", "1.90×, slower on 1", "1.90×, slower on 1"],
        ["8", "2", "1", "4.00×, slower on 0", "–", "4.00×, slower on 0"],
    ]
    assert wins(results.rows) == [
        ["batch", "threads", "ingot", "other", "third"],
        ["1", "1", "2", "0", "1"],
        ["8", "2", "1", "0", "0"],
    ]


def test_notes_name_what_is_missing_slower_and_disturbed(results: Results) -> None:
    assert notes(results) == [
        "slower than the fastest peer – One (1×1: third 0.90×)",
        "measured while other processes kept 0.1 cores or more busy – Two (1×1: 0.7)",
        "other: cannot take it – Three (1×1)",
        "not exported by ingot: no row – Two",
        "other did not open it: it broke – One",
    ]


def test_a_reason_for_all_settings_names_the_model_alone(results: Results) -> None:
    results.rows = [row("one", 0.1, {"other": None}), row("one", 0.1, {"other": None}, threads=2)]
    results.exports, results.loads = [], []
    assert notes(results) == ["other: cannot take it – One"]


def test_what_differs_is_one_note_with_the_numbers(results: Results) -> None:
    results.rows, results.exports, results.loads = results.rows[:2], [], []
    results.rows[1].foreign_cores = None
    for each, difference in zip(results.rows, (2e-4, 3.0), strict=True):
        cell = each.cells[1]
        cell.median, cell.difference, cell.reason = None, difference, f"not timed: … {difference}"
    each = "One (1×1: 2.0e-04), Two (1×1: 3.0e+00)"
    assert notes(results)[0] == f"other: not timed, its outputs differ by more than 1e-04 – {each}"


def test_faults_are_missing_times_and_other_numbers_than_onnxruntime() -> None:
    good = row("one", 0.1, {"onnxruntime": 0.2})
    assert good.faults() == []
    good.cells[0].to_onnxruntime = 2e-4
    assert good.faults() == ["ingot: its outputs differ from onnxruntime's by 2.0e-04"]
    bad = row("one", None, {})
    bad.cells[0].reason = "no kernel"
    assert bad.faults() == ["ingot: no kernel"]
    assert Row("one", "One", 1, 1, reason="not available: offline").faults() == []


def test_page_says_machine_versions_date_command_and_worst_difference(results: Results) -> None:
    page = markdown(results)
    for text in (
        "a machine",
        "ingot 0.1, other 2.0",
        "2026-01-01",
        "`make bench`",
        "1.0e-06",
        "2.0e-06",
        "## Batch 1, 1 thread",
        "## Batch 8, 2 threads",
        "| One | 0.50 | 6.00 | 12.0× |",
        "| Two | – | 6.00 | – |",
    ):
        assert text in page


def test_efficiency_is_a_fraction_of_the_peak(results: Results) -> None:
    results.rows[0].groups = [
        Group("k.gemm", "matmul", 2, seconds=0.06, flops=4, busy=0.06, busy_bound=0.045),
        Group("k.copy", "copy", 1, seconds=0.04),
    ]
    lines = efficiency_table(results)
    heads = [f"{text} (of peak)" for text in ("1 thread: GFLOP/s", "2 threads: GFLOP/s")]
    part = "arithmetic-bound: time, of peak"
    assert lines[0] == ["model", "batch", "GFLOP", heads[0], part, heads[1], part, "2 threads over 1"]
    assert lines[1] == ["One", "1", "8.2", "82 (82%)", "60%, 75%", "–", "–", "–"]


def test_opening_shows_what_the_first_run_costs_beyond_later_ones(results: Results) -> None:
    assert load_table(results.loads) == [
        ["model", "file MB", "ingot, cold", "ingot", "other", "ingot, MB", "other, MB"],
        ["One", "10.0", "0.500 + 0.200", "0.250 + 0.050", "–", "20", "–"],
    ]


def test_opening_beside_onnxruntime_has_shares_and_their_medians() -> None:
    cells = [LoadCell("ingot", 0.1, 0.2, 0.1, 30_000_000), LoadCell("onnxruntime", 0.4, 0.1, 0.1, 20_000_000)]
    one, two = LoadRow("one", "One", 0, cells), LoadRow("two", "Two", 0, [LoadCell("ingot", reason="broken")])
    lines = load_table([one, two])
    assert lines[0][-3:] == [f"of onnxruntime's: {t}" for t in ("session", "with first run", "memory")]
    assert lines[1][-3:] == ["0.25×", "0.50×", "1.50×"]
    assert lines[2][-3:] == ["–", "–", "–"]
    assert lines[3] == ["**median**", *[""] * 5, "**0.25×**", "**0.50×**", "**1.50×**"]


def test_kernels_of_a_model(results: Results) -> None:
    groups = [
        Group("k.gemm", "matmul", 2, seconds=0.003, flops=3 * 10**8, nbytes=3 * 10**6, bound=0.0015),
        Group("host", "If", 1, seconds=0.001),
    ]
    assert ops_table(groups)[1:] == [
        ["matmul (gemm)", "2", "3.00", "75.0%", "100", "1.0", "200", "50%"],
        ["If (host)", "1", "1.00", "25.0%", "–", "–", "–", "–"],
    ]
    results.rows[0].groups = groups
    assert "## One, batch 1, 1 thread" in ops_page(results)


def test_files(results: Results, tmp_path: Path) -> None:
    data, page, kernels = write(results, tmp_path / "folder" / "run", ops=True)
    assert json.loads(data.read_text())["rows"][0]["cells"][1]["median"] == 0.2
    assert page.read_text().startswith("# Benchmarks")
    assert kernels.name == "run-kernels.md"


def test_terminal(results: Results) -> None:
    console = Console(record=True, width=200)
    show(results, console, ops=True)
    text = console.export_text()
    assert "Batch 8, 2 threads" in text
    assert "matmul (gemm)" in text


def test_readme_shows_a_choice_at_batch_1_and_means_of_all(results: Results, tmp_path: Path) -> None:
    results.rows = [
        row("resnet50", 0.1, {"onnxruntime": 0.2}),
        row("lstm", 0.1, {"onnxruntime": 0.8}),
        row("resnet50", 0.1, {"onnxruntime": 0.9}, batch=8),
    ]
    data, _ = write(results, tmp_path / "run")
    lines = readme_table(data).splitlines()
    assert lines[2].split(" | ")[2] == "ONNX Runtime, 1 thread"
    assert lines[4:] == [
        "| Resnet50 | – | 2.00× | – |",
        "| **geometric mean of 2 models** | – | **4.00×** | – |",
    ]
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n")
    update_readme(readme, data)
    assert readme.read_text().startswith("before\n<!-- measured -->\na machine, 2026")
    assert readme.read_text().endswith("|\n<!-- /measured -->\nafter\n")


def test_this_machine_has_a_class() -> None:
    assert cpu_class()
