"""Floors: what is recorded, what has fallen, and whom they concern."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import check, floors
from benchmarks.floors import Floor, Floors, FloorsError, fallen, path_of, read, record, write
from benchmarks.results import Results, Row
from ingot.benchmark import Measured


def row(model: str, ratio: float | None, batch: int = 1, threads: int = 1) -> Row:
    cells = [Measured("ingot", median=0.1), Measured("other", median=None if ratio is None else 0.1 * ratio)]
    if ratio is None:
        cells[1].reason = "it broke"
    return Row(model, model.title(), threads, batch, cells=cells)


def results(*rows: Row, cpu_class: str = "avx2") -> Results:
    return Results("make bench", "2026-01-01", "a machine", "3.11", cpu_class, rows=list(rows))


def test_floors_lie_below_what_was_measured() -> None:
    found = record(results(row("one", 1.5), row("two", None), row("one", 2.0, batch=8)), None)
    assert found.floors == [Floor("one", 1, 1, "other", 1.35), Floor("one", 8, 1, "other", 1.8)]
    assert (found.cpu_class, found.machine, found.date) == ("avx2", "a machine", "2026-01-01")


def test_old_floors_stay_if_they_are_not_measured_anew() -> None:
    old = Floors("avx2", "", "", [Floor("one", 1, 1, "other", 9.0), Floor("old", 1, 2, "other", 1.1)])
    assert record(results(row("one", 1.5)), old).floors == [
        Floor("old", 1, 2, "other", 1.1),
        Floor("one", 1, 1, "other", 1.35),
    ]


def test_a_floor_that_is_not_reached_is_named() -> None:
    held = [
        Floor("one", 1, 1, "other", 1.2),
        Floor("two", 1, 1, "other", 1.2),
        Floor("three", 1, 1, "other", 1.2),
        Floor("one", 8, 1, "other", 1.2),
    ]
    rows = [row("one", 1.2), row("two", 1.19), row("three", None)]
    assert fallen(held, rows) == [
        "Three, batch 1, 1 thread, other: no ratio, the floor is 1.20×; it broke",
        "Two, batch 1, 1 thread, other: 1.19× is below the floor of 1.20×",
    ]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder of floors."""
    monkeypatch.setattr(floors, "FOLDER", tmp_path)
    return tmp_path


def test_floors_are_read_as_they_were_written(folder: Path) -> None:
    found = record(results(row("two", 1.5), row("one", 1.1)), None)
    path = write(found)
    assert path == folder / "floors-avx2.json"
    assert read("avx2") == found
    assert path.read_text().count("\n") == 9  # a floor to a line


@pytest.mark.usefixtures("folder")
def test_floors_that_are_none() -> None:
    with pytest.raises(FloorsError, match="--record-floors"):
        read("avx2")
    for text in ("[]", "{", '{"cpu_class": "amx"}'):
        path_of("avx2").write_text(text)
        with pytest.raises(FloorsError, match="record them anew"):
            read("avx2")


@pytest.mark.usefixtures("folder")
def test_floors_of_other_classes_are_named() -> None:
    write(Floors("amx", "that machine", "2026-01-01"))
    assert read("amx").machine == "that machine"
    with pytest.raises(FloorsError, match=r"for avx2.*some for amx"):
        read("avx2")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """bench-check with floors of this machine's class in a file, and measurements that are made up."""
    del folder
    monkeypatch.setattr(check, "cpu_class", lambda: "avx2")
    monkeypatch.setattr(check, "open_case", lambda model, *_: argparse.Namespace(name=model))
    monkeypatch.setattr("sys.argv", ["check", "--models", "one", "--batch", "all", "--runners", "all"])


@pytest.mark.usefixtures("terminal")
def test_a_ratio_counts_as_fallen_after_a_second_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []
    ratios = iter([1.0, 1.3, 1.0, 1.1])

    def measure(
        case: argparse.Namespace, threads: int, runners: list[str], effort: object, *_: object
    ) -> Row:
        assert runners == ["ingot", "other"]
        asked.append((case.name, effort))
        return row(case.name, next(ratios), threads=threads)

    monkeypatch.setattr(check, "measure", measure)
    write(Floors("avx2", "", "", [Floor("one", 1, 1, "other", 1.2), Floor("two", 1, 1, "other", 9.0)]))
    assert check.main() == 0  # 1.0, then 1.3
    assert check.main() == 1  # 1.0, then 1.1
    assert asked == [("one", check.QUICK), ("one", check.THOROUGH)] * 2


@pytest.mark.usefixtures("terminal")
def test_floors_for_other_machines_and_none_at_all() -> None:
    assert check.main() == 2
    write(Floors("amx", "", "", [Floor("one", 1, 1, "other", 1.2)]))
    assert check.main() == 2
    write(Floors("avx2", "", "", [Floor("one", 1, 999, "other", 1.2)]))
    assert check.main() == 2  # more threads than this machine has cores
