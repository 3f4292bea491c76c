"""The benchmark's table: ratios to Ingot, geometric means, and a note for everything that has no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import ExportRow, Results, Row, geometric_mean, markdown, notes, table, write
from ingot.benchmark import Measured


@pytest.fixture
def results() -> Results:
    def row(model: str, ingot: float, other: float | None, foreign: float) -> Row:
        cells = [
            Measured("ingot", "0.1", median=ingot, p95=ingot, difference=1e-6),
            Measured("other", "2.0", median=other, p95=other, reason="" if other else "cannot take it"),
        ]
        return Row(model, model.title(), 1, 1, 8.2, foreign, cells)

    rows = [row("one", 0.1, 0.2, 0.0), row("two", 0.001, 0.008, 0.7), row("three", 0.01, None, 0.0)]
    exports = [ExportRow("one", "One", 0.5, 6.0), ExportRow("two", "Two", None, 6.0, "ingot: no row")]
    return Results("make bench", "2026-01-01 00:00 UTC", "a machine", "3.11", rows, exports)


def test_ratios_and_their_geometric_mean(results: Results) -> None:
    assert table(results.rows) == [
        ["model", "threads", "ingot", "other"],
        ["One", "1", "100", "200 (2.00×)"],
        ["Two", "1", "1.00", "8.00 (8.00×)"],
        ["Three", "1", "10.0", "–"],
        ["**geometric mean**", "1", "", "4.00×"],
    ]
    assert geometric_mean([]) is None


def test_notes_name_what_is_missing_and_what_was_disturbed(results: Results) -> None:
    assert notes(results) == [
        "measured while other processes kept 0.1 cores or more busy – Two (1): 0.7",
        "other: cannot take it – Three (1)",
        "not exported by ingot: no row – Two",
    ]


def test_page_says_machine_versions_date_command_and_worst_difference(results: Results) -> None:
    page = markdown(results)
    for text in (
        "a machine",
        "ingot 0.1, other 2.0",
        "2026-01-01",
        "`make bench`",
        "1.0e-06",
        "| One | 0.50 | 6.00 | 12.0× |",
    ):
        assert text in page
    assert "| Two | – | 6.00 | – |" in page


def test_files(results: Results, tmp_path: Path) -> None:
    data, page = write(results, tmp_path / "folder" / "run")
    assert json.loads(data.read_text())["rows"][0]["cells"][1]["median"] == 0.2
    assert page.read_text().startswith("# Benchmarks")
