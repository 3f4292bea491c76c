"""The CPU as LLVM sees it, remembered."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ingot.codegen import cpu, linker

pytestmark = pytest.mark.skipif(not linker.IS_KNOWN, reason="LLVM is asked each time on this system")


def never() -> cpu.Cpu:
    raise AssertionError("LLVM is asked again")


def test_the_answer_is_llvms_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path))
    wanted = cpu._ask()
    assert cpu.this_cpu() == wanted
    monkeypatch.setattr(cpu, "_ask", never)
    assert cpu.this_cpu() == wanted


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path))
    wanted = cpu.this_cpu()
    (kept,) = (tmp_path / "machines").iterdir()
    kept.write_bytes(kept.read_bytes().replace(b"true", b"fals"))
    assert cpu.this_cpu() == wanted


def test_another_cpu_has_another_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path))
    cpu.this_cpu()
    signature = cpu._signature()
    assert signature is not None
    assert signature == cpu._signature(), "the signature of a CPU depends on the core or on the moment"
    other = cpu.Cpu("other-triple", "other", {"fast": True})
    monkeypatch.setattr(cpu, "_signature", lambda: signature[:-1] + b"?")
    monkeypatch.setattr(cpu, "_ask", lambda: other)
    assert cpu.this_cpu() == other


def test_another_version_keeps_its_answer_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of Ingot share the directory, and their answers may have other fields."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Other:
        name: str
        cores: int

    monkeypatch.setenv("INGOT_CACHE_DIR", str(tmp_path))
    wanted = cpu.this_cpu()
    with monkeypatch.context() as patched:
        patched.setattr(cpu, "Cpu", Other)
        patched.setattr(cpu, "_ask", lambda: Other("other", 3))
        assert cpu.this_cpu() == Other("other", 3)
    assert cpu.this_cpu() == wanted
