"""Memory that kernels read and write: at cache lines and, where there is much of it, on huge pages.

With pages of 4 KiB, the rows of one tile and the panels that go by need more translations of addresses than
a CPU keeps, and in a virtual machine each missing one costs a walk through two tables. Linux gives pages of
2 MiB to those who ask (madvise(2), MADV_HUGEPAGE); elsewhere this is plain memory.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np

Bytes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"

_addressof: Callable[[Any], int] = ctypes.addressof
_byte_of: Callable[[Any], Any] = ctypes.c_char.from_buffer

_LINE = 64
_HUGE_PAGE = 2 << 20
#: Below it small pages do: the CPU keeps translations for so much, and a huge page would lie half empty.
_LEAST = 1 << 20
#: What a pool asks the system for at a time. Memory that was never touched costs nothing.
_CHUNK = 32 << 20
_CAN_ASK = hasattr(mmap, "MADV_HUGEPAGE")


#: From here on memory that is freed goes back to the system at once (glibc's largest threshold).
LARGE = 32 << 20


class Recycled:
    """Arrays for callers in memory that they have let go of: to clear new pages takes the system longer than
    most kernels work. What is idle when another size is asked for is given back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[mmap.mmap] = []

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
        """An uninitialised array. MemoryError where there is no memory for it."""
        size = math.prod(shape) * dtype.itemsize
        if not _COUNTS or not _CAN_ASK:
            return np.empty(shape, dtype)
        with self._lock:
            for place in range(len(self._pieces)):
                if len(self._pieces[place]) == size and sys.getrefcount(self._pieces[place]) == _IDLE:
                    return np.ndarray(shape, dtype, self._pieces[place])
            self._pieces = [
                self._pieces[place]
                for place in range(len(self._pieces))
                if sys.getrefcount(self._pieces[place]) != _IDLE
            ]
            piece = _mapping(size)
            self._pieces.append(piece)
            return np.ndarray(shape, dtype, piece)


def _idle_count() -> int:
    """What the interpreter counts for an object that only a list holds; 0 where it does not count exactly."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)() or not hasattr(sys, "getrefcount"):
        return 0
    alone = [object()]
    return sys.getrefcount(alone[0])


_IDLE = _idle_count()
_COUNTS = _IDLE > 0


def address_of(array: np.ndarray[Any, Any]) -> int:
    """Where an array's memory begins."""
    try:
        return _addressof(_byte_of(array))  # a quarter of the time that asking NumPy takes
    except (TypeError, ValueError, BufferError):  # read-only, of no elements, of a type that buffers know not
        return array.__array_interface__["data"][0]


def aligned(size: int) -> Bytes:
    """Uninitialised memory that starts at a cache line."""
    return _on_huge_pages(size) if size >= _LEAST and _CAN_ASK else _plain(size)


class Pool:
    """Memory for what stays: one piece behind the other, so that many small arrays share huge pages. A chunk
    is free when all that lies in it is.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: bytes that were ever taken from it
        self.total = 0
        self._rest = _plain(0)

    def empty(self, size: int) -> Bytes:
        """Uninitialised memory that starts at a cache line."""
        with self._lock:
            self.total += size
            if self.total < _LEAST or not _CAN_ASK:
                return _plain(size)
            if size > len(self._rest):
                if size >= _CHUNK:
                    return _on_huge_pages(size)
                self._rest = _on_huge_pages(_CHUNK)
            found, self._rest = self._rest[:size], self._rest[-(-size // _LINE) * _LINE :]
            return found

    @contextmanager
    def lending(self) -> Generator[None]:
        """In this context, `lent` takes from this pool."""
        token = _pool.set(self)
        try:
            yield
        finally:
            _pool.reset(token)


@contextmanager
def passing() -> Generator[None]:
    """In this context, `lent` takes from no pool: for what is soon let go of."""
    token = _pool.set(None)
    try:
        yield
    finally:
        _pool.reset(token)


_pool: ContextVar[Pool | None] = ContextVar("pool", default=None)


def lent(size: int) -> Bytes:
    """Uninitialised memory that starts at a cache line, of the pool that is lending, if one is."""
    pool = _pool.get()
    return aligned(size) if pool is None else pool.empty(size)


def _plain(size: int) -> Bytes:
    memory = np.empty(size + _LINE, np.uint8)
    skip = -memory.ctypes.data % _LINE
    return memory[skip : skip + size]


def _mapping(size: int) -> mmap.mmap:
    """Pages of the system's, huge ones where it has them. MemoryError where there are none."""
    try:
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no {size:,} bytes are left") from error
    with suppress(OSError):  # a kernel that was built without them
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping


def _on_huge_pages(size: int) -> Bytes:
    memory = np.frombuffer(_mapping(size + _HUGE_PAGE), np.uint8)  # keeps the mapping
    skip = -memory.ctypes.data % _HUGE_PAGE
    return memory[skip : skip + size]
