"""`make bench` from the command line to the pages, on the smallest model; and opening it in new processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import floors, peaks, run
from benchmarks.cases import open_case
from benchmarks.files import NotAvailableError
from benchmarks.loading import COLD, measure_load
from benchmarks.results import LoadRow

PEAKS = peaks.Peaks(threads=1, fma=100.0, cache=50.0, read=10.0, copy=12.0, near_bytes=1000)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peaks, "measure", lambda _: PEAKS)
    monkeypatch.setattr(floors, "FOLDER", tmp_path)


def bench(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    few = ("--rounds", "2", "--threads", "1", "--runners", "ingot,onnxruntime")
    monkeypatch.setattr("sys.argv", ["bench", *few, *arguments])
    return run.main()


def test_two_batches_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stem = str(tmp_path / "out")
    assert (
        bench(monkeypatch, "--models", "mlp", "--batch", "1,3", "--ops", "--record-floors", "--output", stem)
        == 0
    )
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(row["batch"], row["threads"]) for row in found["rows"]] == [(1, 1), (3, 1)]
    for row in found["rows"]:
        ours, theirs = row["cells"]
        assert ours["runner"] == "ingot"
        assert ours["to_onnxruntime"] < 1e-4
        assert ours["median"] > 0
        assert theirs["median"] > 0
        assert row["gflop"] > 0
        assert sum(group["flops"] for group in row["groups"]) >= row["gflop"] * 1e9
    assert "matmul" in (tmp_path / "out-kernels.md").read_text()
    recorded = floors.read(found["cpu_class"])
    assert {floor.key for floor in recorded.floors} == {
        ("mlp", 1, 1, "onnxruntime"),
        ("mlp", 3, 1, "onnxruntime"),
    }


def test_a_file_that_is_not_available_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(*_: object) -> None:
        raise NotAvailableError("the index is out of reach")

    monkeypatch.setattr(run, "open_case", absent)
    assert bench(monkeypatch, "--models", "magika", "--output", str(tmp_path / "out")) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["reason"] == "not available: the index is out of reach"
    assert "not available: the index is out of reach – Magika" in (tmp_path / "out.md").read_text()


def test_unknown_names_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench(monkeypatch, "--models", "nope")
    assert "no model 'nope'; there are resnet50" in capsys.readouterr().err


def test_opening_in_new_processes(tmp_path: Path) -> None:
    case = open_case("mlp", 2, tmp_path)
    row = LoadRow(case.name, case.title, case.path.stat().st_size)
    measure_load(row, case.path, case.inputs, ["ingot", "onnxruntime"], tries=1)
    assert [cell.runner for cell in row.cells] == [COLD, "ingot", "onnxruntime"]
    for cell in row.cells:
        assert not cell.reason
        assert cell.create is not None
        assert cell.first is not None
        assert cell.later is not None
        assert min(cell.create, cell.first, cell.later) > 0
    warm = LoadRow(case.name, case.title, row.file_bytes)
    measure_load(warm, case.path, case.inputs, ["onnxruntime", "ingot"], tries=1, cold=False)
    assert [cell.runner for cell in warm.cells] == ["onnxruntime", "ingot"]
    assert not any(cell.reason for cell in warm.cells)
    broken = LoadRow("broken", "Broken", 0)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    measure_load(broken, tmp_path / "broken.onnx", {"x": np.ones(2)}, ["onnxruntime"], tries=1)
    assert "broken.onnx" in broken.cells[0].reason
