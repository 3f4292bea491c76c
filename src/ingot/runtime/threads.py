"""A team of threads that runs plans: hosted by Python, working in native code, parked within a millisecond
when idle.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import weakref
from typing import Any

import numpy as np

from ingot.codegen import spmd
from ingot.codegen.machine import Machine
from ingot.errors import InputError
from ingot.runtime import cores

PARK_AFTER_SECONDS = 0.001

_RUN = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64
)
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_SERVE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_IDLE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


def _yield_address() -> int:
    """The system call that gives the core to another thread; 0 where there is none we know."""
    try:
        if sys.platform == "win32":
            function: Any = ctypes.WinDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class _Sleeper:
    """How a worker is woken: the lock it waits for, its process and its number in the system once it runs,
    and the cores that it may run on when it is awake.
    """

    __slots__ = ("cores", "lock", "process", "thread")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.process = self.thread = 0
        self.cores: set[int] | None = None

    def wake(self, place: bool = True) -> None:
        """Let it go on; `place`: elsewhere than on the caller's core."""
        if not self.lock.locked():
            return  # it is about to
        if place and self.process == os.getpid():  # a fork has no such thread, and moves none of its parent's
            self.cores = cores.keep_off_mine(self.thread)
        self.lock.release()

    def sleep(self) -> None:
        """Wait to be woken. The worker itself calls this."""
        self.lock.acquire()
        if self.cores is not None:
            cores.run_on(self.cores)


#: Those that a fork would have to tell that their workers stayed behind.
_TEAMS: weakref.WeakSet[Team] = weakref.WeakSet()


def _in_fork() -> None:
    """No worker is left that looks at anything, though one may have been at it when the process forked."""
    for team in _TEAMS:
        team.alone()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_fork)


class Team:
    """`threads` threads, of which the caller is the first. One run at a time."""

    def __init__(self, threads: int, machine: Machine) -> None:
        runner = spmd.runner(machine)
        words = spmd.WORDS_BEFORE_WORKERS + spmd.WORDS_PER_WORKER * threads
        memory = np.zeros(words + 8, np.int64)
        skip = (-memory.ctypes.data % 64) // 8
        self.threads, self.machine = threads, machine
        self._words = memory[skip : skip + words]
        self._address = self._words.ctypes.data
        self._words[0], self._words[2] = threads, _yield_address()
        self._run, self._work = _RUN(runner.run), _WORK(runner.work)
        self._sleepers = [_Sleeper() for _ in range(1, threads)]
        self._held: list[object] = []
        stop = threading.Event()
        self._finalizer = weakref.finalize(self, _dismiss, stop, self._sleepers)
        _TEAMS.add(self)
        if threads > 1:
            start = time.perf_counter()
            _IDLE(runner.idle)(self._address, 1000)
            turn = (time.perf_counter() - start) / 1000
            self._words[1] = max(1, int(PARK_AFTER_SECONDS / turn))
            for me, sleeper in enumerate(self._sleepers, 1):
                self._words[spmd.WORDS_BEFORE_WORKERS + spmd.WORDS_PER_WORKER * me] = 1  # parked until woken
                arguments = (runner.serve, self._words, me, sleeper, stop, self._held)
                try:
                    threading.Thread(target=_worker, args=arguments, name=f"ingot-{me}", daemon=True).start()
                except RuntimeError as error:
                    self.close()
                    raise InputError(
                        f"intra_op_num_threads is {threads}, and the system starts no more than {me} threads "
                        "here. Ask for as many as there are cores."
                    ) from error

    def run(self, table: int, steps: int, scratches: int, owner: object, wake: bool = True) -> None:
        """Run `steps` rows at address `table`; `scratches` is the address of a pointer to scratch for each
        thread.

        owner: whatever keeps those tables and the scratch memory alive. A worker that woke too late may still
        look at them after the run, and note at every step that its scratch memory keeps nothing.
        wake: whether the run is long enough for waking parked workers.
        """
        if self.threads > 1:
            if not self._words[spmd.BUSY_WORD]:
                del self._held[
                    :-1
                ]  # until the next is announced, a worker may still begin to look at the last
            self._held.append(owner)
        parked = self.threads > 1
        try:
            parked = self._run(self._address, table, steps, scratches, wake)
            if parked:
                for sleeper in self._sleepers:
                    sleeper.wake()
        finally:
            # Also when the user interrupts: workers must not go on in memory that is given back. What is done
            # already is not done again.
            if parked:
                self._work(self._address)

    def alone(self) -> None:
        """In a fork: the workers are the other process's."""
        self._words[spmd.BUSY_WORD] = 0

    def close(self) -> None:
        """Let the workers go."""
        self._finalizer()


def _dismiss(stop: threading.Event, sleepers: list[_Sleeper]) -> None:
    stop.set()
    for sleeper in sleepers:
        sleeper.wake(place=False)


def _worker(
    serve: int,
    words: np.ndarray,
    me: int,
    sleeper: _Sleeper,
    stop: threading.Event,
    held: list[object],  # noqa: ARG001  (only to keep it)
) -> None:
    """A worker's life: sleep in Python, serve in native code.

    It holds the memory it may look at (`words`, `held`), and not the team, which may end before it.
    """
    function, address, seen = _SERVE(serve), words.ctypes.data, 0
    sleeper.thread, sleeper.process = threading.get_native_id(), os.getpid()
    while True:
        sleeper.sleep()
        if stop.is_set():
            return
        seen = function(address, me, seen)
