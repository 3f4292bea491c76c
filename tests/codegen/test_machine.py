"""INGOT_ISA: how it may be written, and what is refused."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest

import ingot
from ingot.codegen.machine import host

X86 = platform.machine().lower() in ("x86_64", "amd64")


@pytest.fixture(autouse=True)
def _unread() -> Iterator[None]:
    """The machine is read once for a process; here anew for each test, and once more afterwards."""
    host.cache_clear()
    yield
    host.cache_clear()


def test_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INGOT_ISA", raising=False)
    plain = host()
    host.cache_clear()
    monkeypatch.setenv("INGOT_ISA", "")
    assert host() == plain


@pytest.mark.skipif(not X86, reason="levels of x86")
def test_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_ISA", "SSE")
    assert host().vector_bytes == 16
    assert host("Sse") == host("sse")


def test_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_ISA", "avx1024")
    with pytest.raises(ingot.IngotError, match="'avx1024'; it may be one of amx"):
        host()
