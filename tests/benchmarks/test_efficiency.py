"""Roofline arithmetic, and the peaks it stands on."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import peaks as measured
from benchmarks.efficiency import Group, arithmetic_part, bandwidth, bounds, fraction_of_bound, group
from benchmarks.peaks import Peaks
from benchmarks.run import better
from ingot.codegen.machine import host
from ingot.runtime.profile import KernelProfile

PEAKS = Peaks(threads=1, fma=100.0, cache=50.0, read=10.0, copy=12.0, near_bytes=1000)


def step(kernel: str, flops: int, nbytes: int, milliseconds: float) -> KernelProfile:
    return KernelProfile(kernel, "label", "node", flops, nbytes, milliseconds)


def test_bounds_of_arithmetic_and_memory() -> None:
    assert bandwidth(1000, PEAKS) == 50e9
    assert bandwidth(1001, PEAKS) == 10e9
    assert bounds(200, 2000, PEAKS) == pytest.approx((2e-9, 2e-7))


def test_groups_sum_each_steps_own_bound() -> None:
    steps = [
        step("gemm", 10**8, 10**3, 2.0),  # bound by arithmetic: 1 ms
        step("gemm", 10**3, 10**7, 4.0),  # bound by memory: 1 ms
        step("copy", 0, 10**7, 8.0),
        step("host", 0, 0, 1.0),
    ]
    copy, gemm, other = group(steps, PEAKS)
    assert (copy.kernel, gemm.kernel, other.kernel) == ("copy", "gemm", "host")
    assert gemm.calls == 2
    assert gemm.bound == pytest.approx(2e-3)
    assert gemm.reached == pytest.approx(2 / 6)
    assert gemm.gflops == pytest.approx((10**8 + 10**3) / 6e-3 / 1e9)
    assert gemm.bound_gflops == pytest.approx((10**8 + 10**3) / 2e-3 / 1e9)
    assert copy.gbytes == pytest.approx(10**7 / 8e-3 / 1e9)
    assert (gemm.busy, gemm.busy_bound) == pytest.approx((2e-3, 1e-3))
    assert arithmetic_part([copy, gemm, other]) == pytest.approx((2 / 15, 0.5))
    assert fraction_of_bound([copy, gemm, other]) == pytest.approx(3 / 15)


def test_nothing_has_no_fractions() -> None:
    empty = Group("host", "If")
    assert (empty.gflops, empty.gbytes, empty.reached, empty.bound_gflops) == (0.0, 0.0, 0.0, 0.0)
    assert arithmetic_part([empty]) is None
    assert fraction_of_bound([]) is None


def test_the_better_of_two_measurements() -> None:
    other = Peaks(threads=1, fma=90.0, cache=60.0, read=11.0, copy=11.0, near_bytes=1000, tiles=None)
    assert better(PEAKS, other) == Peaks(1, 100.0, 60.0, 11.0, 12.0, 1000)


@pytest.mark.parametrize("isa", [None, "sse"])
def test_peaks_are_measured(isa: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "ROUND_SECONDS", 1e-4)
    monkeypatch.setattr(measured, "ROUNDS", 1)
    monkeypatch.setattr(measured, "MEMORY_BYTES", 1 << 20)
    found = measured.measure(2, host(isa))
    assert found.threads == 2
    assert min(found.fma, found.cache, found.read, found.copy) > 0
    assert (found.tiles is not None) == host(isa).tiles


def test_the_loops_do_what_they_count() -> None:
    """All of the memory is copied; a sum of ones is their number."""
    rates = measured._Rates(host(), 1)
    count = 256
    memory = np.ones(2 * count * host().lanes + 1024, np.float32)
    memory[count * host().lanes :] = 0
    half = count * host().vector_bytes
    rates(measured._copy(), [(memory.ctypes.data, memory.ctypes.data + half, count)], 1.0)
    assert (memory[: 2 * count * host().lanes] == 1).all()
    one_turn = measured._Rates(host(), 1)
    function = one_turn.code(measured._read())
    slots = np.array([1, memory.ctypes.data, count], np.int64)
    function(slots.ctypes.data, 0, 1, None)
    assert memory[: host().lanes].sum() == count * host().lanes
