"""A team of threads that runs plans: hosted by Python, working in native code, parked within a millisecond
when idle.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import weakref

import numpy as np

from ingot.codegen import spmd
from ingot.codegen.machine import Machine

PARK_AFTER_SECONDS = 0.001


def _yield_address() -> int:
    """The system call that gives the core to another thread; 0 where there is none we know."""
    try:
        if sys.platform == "win32":
            function = ctypes.WinDLL("kernel32").SwitchToThread  # pyright: ignore
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Team:
    """`threads` workers, of which the caller is the first. One run at a time."""

    def __init__(self, threads: int, machine: Machine) -> None:
        runner = spmd.runner(machine)
        words = spmd.WORDS_BEFORE_WORKERS + spmd.WORDS_PER_WORKER * threads
        self.threads = threads
        self._memory = np.zeros(words + 8, np.int64)
        skip = (-self._memory.ctypes.data % 64) // 8
        self._words = self._memory[skip : skip + words]
        self._address = self._words.ctypes.data
        self._words[0], self._words[2] = threads, _yield_address()
        self._announce = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(runner.announce)
        self._run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(runner.run)
        self._steps = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(runner.steps)
        self._wake = [threading.Semaphore(0) for _ in range(threads)]
        self._stop = threading.Event()
        self._workers: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, _dismiss, self._stop, self._wake)
        if threads > 1:
            idle = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(runner.idle)
            start = time.perf_counter()
            idle(self._address, 1000)
            turn = (time.perf_counter() - start) / 1000
            self._words[1] = max(1, int(PARK_AFTER_SECONDS / turn))
            for me in range(1, threads):
                arguments = (runner.serve, self._words, me, self._wake[me], self._stop)
                worker = threading.Thread(target=_work, args=arguments, name=f"ingot-{me}", daemon=True)
                self._words[spmd.WORDS_BEFORE_WORKERS + spmd.WORDS_PER_WORKER * me] = (
                    1  # parked until first served
                )
                worker.start()
                self._workers.append(worker)

    def run(self, table: int, steps: int, scratches: int) -> None:
        """Run `steps` rows at address `table`; `scratches` is the address of a pointer to scratch for each
        thread.
        """
        words = self._words
        words[3], words[4], words[5] = table, steps, scratches
        if self.threads == 1:
            self._steps(self._address, 0)
            return
        if self._run(self._address):
            states = words[spmd.WORDS_BEFORE_WORKERS :: spmd.WORDS_PER_WORKER]
            for me in range(1, self.threads):
                if states[me]:
                    self._wake[me].release()
            self._steps(self._address, 0)

    def close(self) -> None:
        """Let the workers go."""
        self._finalizer()


def _dismiss(stop: threading.Event, wake: list[threading.Semaphore]) -> None:
    stop.set()
    for semaphore in wake:
        semaphore.release()


def _work(
    serve_address: int, words: np.ndarray, me: int, wake: threading.Semaphore, stop: threading.Event
) -> None:
    """A worker's life: sleep in Python, serve in native code. Holds the memory, not the team, so that a team
    can end.
    """
    serve = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(serve_address)
    address, seen = words.ctypes.data, 0
    while True:
        wake.acquire()
        if stop.is_set():
            return
        seen = serve(address, me, seen)
