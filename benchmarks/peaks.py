"""What this machine can do at best: arithmetic in registers and memory read and copied, by kernels that
Ingot's own code generator emits.

Each is measured as the best of several rounds in which all threads start together, and all of them count
from the first start to the last end.
"""
# The kernels are emitted through llvmlite, which has no type information.

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.codegen import cache
from ingot.codegen.builder import F32, I8, PTR, VOID, Builder, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine, host

ROUND_SECONDS = 0.02
ROUNDS = 12
#: More than any core's own caches hold; where cores share hundreds of megabytes, that is what is measured.
MEMORY_BYTES = 256 << 20
_CHAINS = {16: 12, 32: 24}  # accumulators for so many registers: latency × ports and more, operands left over
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@dataclass
class Peaks:
    """What `threads` threads reach together: 10⁹ float32 operations a second, and 10⁹ bytes a second.

    fma: fused multiply-adds in registers. tiles: products of 8-bit integers in tile registers (AMX), None
    where there are none. cache: read from each core's own L2. read and copy: memory; a copy of n bytes moves
    2 n. near_bytes: what moves less than this is in reach of `cache`.
    """

    threads: int
    fma: float
    cache: float
    read: float
    copy: float
    near_bytes: int
    tiles: float | None = None


@kernel("turns", "out")
def _fma(k: Builder) -> None:
    """Turns of independent multiply-adds; nothing leaves the registers before the end."""
    lanes, chains = k.machine.lanes, _CHAINS[k.machine.registers]
    type_ = vector(F32, lanes)
    factor = k.broadcast(k.load(k.pointer("out"), F32), lanes)
    sums = [k.splat(float(i), type_) for i in range(chains)]
    with k.loop(0, k.arg("turns"), carry=sums, at_least_once=True):
        for i in range(chains):
            sums[i] = k.fma(sums[i], factor, factor)
    total = sums[0]
    for other in sums[1:]:
        total = k.ir.fadd(total, other)
    k.store(total, k.pointer("out"))


@kernel("turns", "data", "count")
def _read(k: Builder) -> None:
    """Read `count` vectors, `turns` times over."""
    lanes, chains = k.machine.lanes, 8
    type_ = vector(F32, lanes)
    data = k.pointer("data")
    sums = [k.zero(type_) for _ in range(chains)]
    stop = k.mul(k.arg("count"), lanes)
    with (
        k.loop(0, k.arg("turns"), carry=sums, at_least_once=True),
        k.loop(0, stop, lanes * chains, carry=sums, at_least_once=True) as at,
    ):
        for i in range(chains):
            sums[i] = k.ir.fadd(sums[i], k.load(k.at(data, at, F32), type_, i * lanes))
    total = sums[0]
    for other in sums[1:]:
        total = k.ir.fadd(total, other)
    k.store(total, data)


@kernel("turns", "data", "to", "count")
def _copy(k: Builder) -> None:
    """Copy `count` vectors, `turns` times over, by plain stores."""
    lanes, unroll = k.machine.lanes, 4
    type_ = vector(F32, lanes)
    data, to = k.pointer("data"), k.pointer("to")
    stop = k.mul(k.arg("count"), lanes)
    with (
        k.loop(0, k.arg("turns"), at_least_once=True),
        k.loop(0, stop, lanes * unroll, at_least_once=True) as at,
    ):
        for i in range(unroll):
            k.store(k.load(k.at(data, at, F32), type_, i * lanes), k.at(to, at, F32), i * lanes)


@kernel("turns", "shape")
def _tiles(k: Builder) -> None:
    """Turns of four products of 16×64 by 64×16 bytes into four tiles of 16×16 integers."""

    def tile(name: str, *numbers: int) -> None:
        function = k.declare(f"llvm.x86.{name}", VOID, [I8] * len(numbers))
        k.ir.call(function, [I8(number) for number in numbers])

    k.ir.call(k.declare("llvm.x86.ldtilecfg", VOID, [PTR]), [k.pointer("shape")])
    for number in range(8):
        tile("tilezero", number)
    with k.loop(0, k.arg("turns"), at_least_once=True):
        for row in range(2):
            for column in range(2):
                tile("tdpbssd", 2 * row + column, 4 + row, 6 + column)
    k.ir.call(k.declare("llvm.x86.tilerelease", VOID, []), [])


def measure(threads: int, machine: Machine | None = None) -> Peaks:
    """Measure all of them; some two seconds."""
    machine = machine or host()
    rate = _Rates(machine, threads)
    vector_bytes, near = machine.vector_bytes, machine.l2_bytes // 2
    ones = [_ones(vector_bytes) for _ in range(threads)]
    cached = [_ones(near) for _ in range(threads)]
    far = MEMORY_BYTES // threads // vector_bytes // 64 * 64
    memory = [_ones(far * vector_bytes) for _ in range(threads)]
    half = far // 2
    halves = [(array.ctypes.data, array.ctypes.data + half * vector_bytes, half) for array in memory]
    tiles = None
    if machine.tiles:
        shapes = [_tile_shapes() for _ in range(threads)]
        tiles = rate(_tiles(), [(shape.ctypes.data,) for shape in shapes], 4 * 2 * 16 * 16 * 64)
    return Peaks(
        threads=threads,
        fma=rate(_fma(), [(a.ctypes.data,) for a in ones], 2 * machine.lanes * _CHAINS[machine.registers]),
        cache=rate(_read(), [(a.ctypes.data, near // vector_bytes) for a in cached], near),
        read=rate(_read(), [(a.ctypes.data, far) for a in memory], far * vector_bytes),
        copy=rate(_copy(), halves, 2 * half * vector_bytes),
        near_bytes=near * threads,
        tiles=tiles,
    )


class _Rates:
    """Runs a kernel in `threads` threads at once; the machine code lives as long as this does."""

    def __init__(self, machine: Machine, threads: int) -> None:
        self._machine, self._threads = machine, threads

    def __call__(self, kernel: Kernel, arguments: Sequence[Sequence[int]], work: float) -> float:
        """Return 10⁹ units of work per second: each thread does `work` of them in a turn.

        arguments: for each thread, the kernel's arguments after the number of turns.
        """
        function = self.code(kernel)
        slots = [np.array([1, *each], np.int64) for each in arguments]
        turns = 1
        while (elapsed := _timed(function, slots[0])) < ROUND_SECONDS / 4:
            turns *= 4
            slots[0][0] = turns
        turns = max(1, round(turns * ROUND_SECONDS / elapsed))
        for slot in slots:
            slot[0] = turns
        best = min(self._round(function, slots) for _ in range(ROUNDS))
        return work * turns * self._threads / best / 1e9

    def code(self, kernel: Kernel) -> Any:
        """Return the kernel as a function."""
        code = cache.compile_object(kernel, self._machine)
        return _FUNCTION(cache.link([code], ["kernel"])["kernel"])

    def _round(self, function: Any, slots: Sequence[np.ndarray]) -> float:
        """Seconds from the first start to the last end of one call in each thread."""
        times: list[tuple[float, float]] = []
        together = threading.Barrier(len(slots))

        def work(slot: np.ndarray) -> None:
            together.wait()
            start = time.perf_counter()
            function(slot.ctypes.data, 0, 1, None)
            times.append((start, time.perf_counter()))

        others = [threading.Thread(target=work, args=(slot,)) for slot in slots[1:]]
        for other in others:
            other.start()
        work(slots[0])
        for other in others:
            other.join()
        return max(end for _, end in times) - min(start for start, _ in times)


def _timed(function: Any, slot: np.ndarray) -> float:
    start = time.perf_counter()
    function(slot.ctypes.data, 0, 1, None)
    return time.perf_counter() - start


def _ones(nbytes: int) -> np.ndarray:
    """Memory full of 1.0 that starts at a page."""
    memory = np.ones(nbytes // 4 + 1024, np.float32)
    skip = -memory.ctypes.data % 4096 // 4
    return memory[skip : skip + nbytes // 4]


def _tile_shapes() -> np.ndarray:
    """AMX's table of tile shapes: palette 1, eight tiles of 16 rows of 64 bytes."""
    table = np.zeros(64, np.uint8)
    table[0] = 1
    table[16:32].view(np.uint16)[:] = 64
    table[48:56] = 16
    return table
