"""Run kernel calls as a plan would, with memory that catches a kernel that reads or writes where it may not.

Every buffer ends at a page that cannot be touched, arena memory starts as a pattern, and bytes that no view
in `Call.writes` covers must keep it. Each run is repeated with the tiles shared out to 1, 2 and 3 threads
(one after the other): all results must be the same bits.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence

import numpy as np
import pytest

from ingot.codegen import cache
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine, host
from ingot.codegen.spmd import BEFORE_SCRATCH
from ingot.errors import IngotError
from ingot.kernels.call import Buffer, Call, View, row_major

FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
_PAGE = mmap.PAGESIZE
_PATTERN = 0xA7  # as float32 -4.6e-15: a wrong result, but not a NaN that would hide in a maximum
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect


def machines() -> list[Machine]:
    """The machines a kernel is tested for: this CPU as it is, and what is left of it under each mask."""
    found: dict[int, Machine] = {}
    for isa in ("avx512", "avx2", "sse"):
        try:
            machine = host(isa)
        except IngotError:
            continue
        found.setdefault(machine.vector_bytes, machine)
    return list(found.values())


each_machine = pytest.mark.parametrize("machine", machines(), ids=lambda m: f"v{m.vector_bytes}")


def _extent(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int]:
    """The lowest and highest element offset that is touched."""
    steps = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    return sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)


def _memory_of(array: np.ndarray) -> tuple[np.ndarray, int]:
    """A copy of the bytes that an array's elements span, and where among them its first element lies."""
    if array.size == 0:
        return np.empty(0, np.uint8), 0
    low, high = _extent(array.shape, array.strides)
    copy = np.empty(high - low + array.itemsize, np.uint8)
    ctypes.memmove(copy.ctypes.data, array.ctypes.data + low, copy.nbytes)
    return copy, -low


def put(array: np.ndarray) -> View:
    """A view of `array` with its own strides (negative and zero ones too)."""
    array = np.asarray(array)  # NumPy's scalars too
    memory, origin = _memory_of(array)
    strides = tuple(s // array.itemsize for s in array.strides)
    return View(Buffer(memory.nbytes, "constant", memory), origin, array.dtype, array.shape, strides)


def new(
    shape: Sequence[int], dtype: str | np.dtype = "float32", strides: Sequence[int] | None = None
) -> View:
    """A view of fresh arena memory; row-major unless strides (in elements, may be negative) are given."""
    dtype = np.dtype(dtype)
    strides = row_major(shape) if strides is None else tuple(strides)
    if math.prod(shape) == 0:
        return View(Buffer(0), 0, dtype, tuple(shape), strides)
    low, high = _extent(shape, strides)
    buffer = Buffer((high - low + 1) * dtype.itemsize)
    return View(buffer, -low * dtype.itemsize, dtype, tuple(shape), strides)


class Memory:
    """Where the buffers of one run lie."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []
        self._bytes: dict[int, np.ndarray] = {}
        self._origin: dict[int, int] = {}
        self._buffers: list[Buffer] = []

    def _allocate(self, nbytes: int) -> np.ndarray:
        pages = max(1, -(-nbytes // _PAGE))
        area = mmap.mmap(-1, (pages + 1) * _PAGE)
        self._maps.append(area)
        whole = np.frombuffer(area, np.uint8)
        if _mprotect(ctypes.c_void_p(whole.ctypes.data + pages * _PAGE), ctypes.c_size_t(_PAGE), 0):
            raise OSError("mprotect failed")
        return whole[pages * _PAGE - nbytes : pages * _PAGE]

    def bytes(self, buffer: Buffer) -> np.ndarray:
        """The memory of a buffer: a constant's copy, or the pattern."""
        key = id(buffer)
        if key not in self._bytes:
            self._buffers.append(buffer)
            array = buffer.array
            if array is None:
                self._bytes[key] = self._allocate(buffer.nbytes)
                self._bytes[key][:] = _PATTERN
                self._origin[key] = self._bytes[key].ctypes.data
            else:
                source, origin = _memory_of(array)
                self._bytes[key] = self._allocate(source.nbytes)
                self._bytes[key][:] = source
                self._origin[key] = self._bytes[key].ctypes.data + origin
        return self._bytes[key]

    def address(self, view: View) -> int:
        self.bytes(view.buffer)
        return self._origin[id(view.buffer)] + view.offset

    def array(self, view: View) -> np.ndarray:
        """The view as a NumPy array over the run's memory."""
        memory = self.bytes(view.buffer)
        offset = self.address(view) - memory.ctypes.data
        strides = tuple(s * view.dtype.itemsize for s in view.strides)
        if view.size == 0:
            return np.empty(view.shape, view.dtype)
        return np.ndarray(view.shape, view.dtype, memory.data, offset, strides)

    def check_untouched(self, writes: Sequence[View]) -> None:
        """Bytes outside of `writes` are as they were."""
        for buffer in self._buffers:
            memory = self.bytes(buffer)
            free = np.ones(len(memory), bool)
            for view in writes:
                if view.buffer is buffer and view.size:
                    itemsize = view.dtype.itemsize
                    offset = self.address(view) - memory.ctypes.data
                    strides = (*(s * itemsize for s in view.strides), 1)
                    np.ndarray((*view.shape, itemsize), bool, free.data, offset, strides)[...] = False
            before = np.full(len(memory), _PATTERN, np.uint8)
            if buffer.array is not None:
                before, _ = _memory_of(buffer.array)
            assert np.array_equal(memory[free], before[free]), "a kernel wrote outside of its views"


def _aligned(nbytes: int) -> np.ndarray:
    """Memory at a cache line, behind a word that says that nothing is kept there."""
    area = np.full(nbytes + BEFORE_SCRATCH + 128, 0xFF, np.uint8)
    start = -area.ctypes.data % 64 + BEFORE_SCRATCH
    return area[start : start + nbytes + 64]


def run_once(calls: Sequence[Call], machine: Machine, threads: int = 1) -> Memory:
    """Run the calls once with the tiles shared among `threads`."""
    kernels = {c.kernel for c in calls} | {a for c in calls for a in c.args if isinstance(a, Kernel)}
    code = cache.addresses(kernels, machine)
    memory = Memory()
    for call in calls:
        args = np.empty(max(1, len(call.args)), np.int64)
        for i, arg in enumerate(call.args):
            if isinstance(arg, View):
                args[i] = memory.address(arg)
            else:
                args[i] = code[arg] if isinstance(arg, Kernel) else arg
        for view in (*call.reads, *call.writes):
            memory.bytes(view.buffer)
        wave = call.tiles // call.waves
        for turn in range(call.waves * threads):
            first, thread = turn // threads * wave, turn % threads
            begin, end = first + wave * thread // threads, first + wave * (thread + 1) // threads
            scratch = _aligned(call.scratch)
            guard = scratch[call.scratch :].copy()
            half = (begin + end) // 2 if threads > 1 and call.waves == 1 else begin  # claimed in two parts
            for first_tile, last_tile in ((begin, half), (half, end)):
                FUNCTION(code[call.kernel])(args.ctypes.data, first_tile, last_tile, scratch.ctypes.data)
            assert np.array_equal(scratch[call.scratch :], guard), (
                f"{call.kernel.generator} overran its scratch"
            )
    memory.check_untouched([view for call in calls for view in call.writes])
    return memory


def run_calls(
    calls: Call | Sequence[Call], *outputs: View, machine: Machine | None = None
) -> list[np.ndarray]:
    """The arrays of `outputs` after the calls, run with 1, 2 and 3 threads: the results must be identical."""
    calls = [calls] if isinstance(calls, Call) else calls
    machine = machine or host()
    results: list[list[np.ndarray]] = []
    for threads in (1, 2, 3):
        memory = run_once(calls, machine, threads)
        results.append([memory.array(view).copy() for view in outputs])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes(), "results depend on the number of threads"
    return results[0]
