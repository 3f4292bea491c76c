"""Small files that processes leave for the next ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.codegen import store


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store.write(tmp_path / "a" / "b", b"numbers")
    assert store.read(tmp_path / "a" / "b") == b"numbers"
    assert store.read(tmp_path / "a" / "c") is None


def test_a_torn_file_counts_as_none(tmp_path: Path) -> None:
    store.write(tmp_path / "b", b"numbers")
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-1])
    assert store.read(tmp_path / "b") is None


def test_a_full_disk_keeps_no_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process that tries again would leave another one."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        store.write(tmp_path / "b", b"numbers")
    assert not [*tmp_path.iterdir()], "a file that nobody will read stays on the disk"
    store.write(tmp_path / "b", b"numbers")
    assert store.read(tmp_path / "b") == b"numbers"
