"""LLVM behind its door."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingot.codegen import llvm
from ingot.codegen.machine import host
from tests.kernels.variants import variants

#: Kernels of all kinds, each of which several threads compile.
_COUNT, _THREADS = 30, 4


def test_threads_that_compile_side_by_side_make_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    assert llvm._emit is not None, "this llvmlite has no function that several threads may call"
    machine = host()
    kernels = [each.kernel for each in variants(machine)]
    texts = [each.assembly(machine) for each in random.Random(5).sample(kernels, _COUNT)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda text: llvm.emit_object(text, machine.target()), texts))
    monkeypatch.setattr(llvm, "_emit", None)
    assert found == [llvm.emit_object(text, machine.target()) for text in texts]


def test_what_cannot_be_parsed_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="parsing"):
        llvm.emit_object("define nothing", host().target())
