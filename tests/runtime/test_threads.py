"""The team of threads: every tile is computed once, barriers order the steps, parked workers wake."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from typing import Any

import numpy as np
import onnx.parser
import pytest

import ingot
from ingot.codegen import cache, forks, machine, spmd
from ingot.codegen.builder import F64, Builder
from ingot.codegen.kernel import kernel
from ingot.compiler.plan import sharers_of
from ingot.kernels.call import Call
from ingot.runtime import cores
from ingot.runtime.threads import PARK_AFTER_SECONDS, Team

_BEFORE_SCRATCH = np.zeros((17, spmd.BEFORE_SCRATCH // 8), np.int64)


def scratch_for(threads: int) -> np.ndarray:
    """Addresses of scratch memory of no bytes for each thread, behind the word that each has."""
    return _BEFORE_SCRATCH.ctypes.data + spmd.BEFORE_SCRATCH * np.arange(1, threads + 1)


@kernel("source", "target", "count")
def shift(k: Builder) -> None:
    """target[i] = source[count - 1 - i] + 1: reads what another thread wrote in the step before."""
    source, target, count = k.pointer("source"), k.pointer("target"), k.arg("count")
    with k.loop(k.begin, k.end) as i:
        value = k.load(source, F64, k.sub(k.sub(count, 1), i))
        k.store(k.ir.fadd(value, k.splat(1.0, F64)), target, i)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_steps_see_what_the_others_wrote_before(threads: int) -> None:
    """200 steps back and forth between two arrays, each reading mirrored: any missing barrier shows."""
    host = machine.host()
    code = cache.addresses([shift()], host)[shift()]
    a, b = np.zeros(1001), np.zeros(1001)
    words = np.array([[a.ctypes.data, b.ctypes.data, 1001], [b.ctypes.data, a.ctypes.data, 1001]], np.int64)
    steps = 200
    counters = np.zeros((steps, (threads + 1) * spmd.COUNTER_WORDS), np.int64)
    rows = np.array(
        [
            [code, words[i % 2].ctypes.data, 1001, threads, counters[i].ctypes.data, 1001]
            for i in range(steps)
        ],
        np.int64,
    )
    scratches = scratch_for(threads)
    owner = (rows, counters, words, scratches, a, b)
    team = Team(threads, host)
    try:
        for turn in range(1, 21):
            if turn % 5 == 0:
                time.sleep(PARK_AFTER_SECONDS * 3)  # the workers park in between
            team.run(rows.ctypes.data, steps, scratches.ctypes.data, owner, wake=turn % 3 != 0)
            assert (a == turn * steps).all(), f"after run {turn} with {threads} threads: {set(a)}"
    finally:
        team.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system places no threads")
def test_a_worker_wakes_off_the_callers_core_and_may_then_run_anywhere() -> None:
    """What narrows a worker's cores for its waking is undone by the worker, each time."""
    allowed = os.sched_getaffinity(0)
    host = machine.host()
    code = cache.addresses([shift()], host)[shift()]
    a, b = np.zeros(64), np.zeros(64)
    words = np.array([a.ctypes.data, b.ctypes.data, 64], np.int64)
    counters, scratches = np.zeros((3, spmd.COUNTER_WORDS), np.int64), scratch_for(2)
    rows = np.array([[code, words.ctypes.data, 64, 2, counters.ctypes.data, 64]], np.int64)
    before = {thread.native_id for thread in threading.enumerate()}
    team = Team(2, host)
    try:
        (worker,) = {thread.native_id for thread in threading.enumerate()} - before
        assert worker is not None
        for _ in range(3):
            time.sleep(PARK_AFTER_SECONDS * 5)
            team.run(rows.ctypes.data, 1, scratches.ctypes.data, (rows, counters, words, scratches, a, b))
            end = time.monotonic() + 5
            while os.sched_getaffinity(worker) != allowed and time.monotonic() < end:
                time.sleep(0.001)
            assert os.sched_getaffinity(worker) == allowed
        if len(allowed) > 1:
            assert cores.keep_off_mine(worker) == allowed
            assert len(os.sched_getaffinity(worker)) == len(allowed) - 1
    finally:
        team.close()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system places no threads")
def test_a_fork_leaves_the_workers_of_its_parent_where_they_are() -> None:
    """The system counts threads through all processes: the number of a worker is not the fork's to use."""
    team = Team(2, machine.host())
    try:
        (sleeper,) = team._sleepers
        end = time.monotonic() + 5
        while not sleeper.process and time.monotonic() < end:
            time.sleep(0.001)
        before = os.sched_getaffinity(sleeper.thread)
        child = os.fork()
        if not child:
            sleeper.wake()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert os.sched_getaffinity(sleeper.thread) == before
    finally:
        team.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_keeps_no_memory_for_workers_that_stayed_behind() -> None:
    """One may have been at work when the process forked; its mark is nobody's to take back."""
    team = Team(2, machine.host())
    try:
        team._words[spmd.BUSY_WORD] = 1
        child = os.fork()
        if not child:
            os._exit(int(team._words[spmd.BUSY_WORD]))
        assert os.waitpid(child, 0)[1] == 0, "the fork waits for a worker that it does not have"
        assert team._words[spmd.BUSY_WORD] == 1, "the parent's worker is still there"
    finally:
        team._words[spmd.BUSY_WORD] = 0
        team.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("what", ["session", "code"])
def test_a_fork_waits_for_who_plans_or_compiles(what: str) -> None:
    """A lock that another thread held would stay locked in the fork, which has no such thread."""
    lock = forks.session_lock() if what == "session" else forks.OF_CODE
    begun = threading.Event()

    def plan() -> None:
        with lock:
            begun.set()
            time.sleep(0.1)

    planner = threading.Thread(target=plan)
    planner.start()
    assert begun.wait(5)
    child = os.fork()
    if not child:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    planner.join()
    assert os.waitpid(child, 0)[1] == 0, "the fork would wait for a thread that it does not have"
    assert lock.acquire(timeout=5), "the parent has not let go of what it held for the fork"
    lock.release()


def test_shares_begin_within_thirty_two_bits() -> None:
    call = Call(mirror(), [0, 1], reads=[], writes=[], tiles=spmd.MOST_TILES)
    most = sharers_of(call, 1e15, 4096)
    assert most * spmd.MOST_TILES < 1 << 32
    assert sharers_of(call, 1e15, 64) == 64


@kernel("table", "wave")
def mirror(k: Builder) -> None:
    """table[w + 1][i] = table[w][wave - 1 - i] + 1 for tiles w * wave + i, in rows of `wave`."""
    table, wave = k.pointer("table"), k.arg("wave")
    with k.loop(k.begin, k.end) as tile:
        row, i = k.div(tile, wave), k.rem(tile, wave)
        source = k.add(k.mul(row, wave), k.sub(k.sub(wave, 1), i))
        value = k.load(table, F64, source)
        k.store(k.ir.fadd(value, k.splat(1.0, F64)), table, k.add(tile, wave))


@pytest.mark.parametrize("wave", [1, 2, 7, 64])
@pytest.mark.parametrize(("threads", "sharers"), [(1, 1), (2, 2), (3, 2), (5, 5)])
def test_a_wave_begins_when_the_one_before_it_is_done(threads: int, sharers: int, wave: int) -> None:
    """300 waves, each reading what the one before it wrote, mirrored."""
    host, waves = machine.host(), 300
    code = cache.addresses([mirror()], host)[mirror()]
    table = np.zeros((waves + 1, wave))
    words = np.array([table.ctypes.data, wave])
    counters = np.zeros((sharers + 1) * spmd.COUNTER_WORDS, np.int64)
    row = np.array([code, words.ctypes.data, waves * wave, sharers, counters.ctypes.data, wave])
    scratches = scratch_for(threads)
    team = Team(threads, host)
    try:
        for turn in range(1, 21):
            table[0] = turn
            table[1:] = -1.0
            owner = (row, counters, words, scratches, table)
            team.run(row.ctypes.data, 1, scratches.ctypes.data, owner, wake=turn % 3 != 0)
            wanted = turn + np.arange(waves + 1.0)
            assert (table == wanted[:, None]).all(), f"run {turn} with {threads} threads, waves of {wave}"
    finally:
        team.close()


def test_an_interrupt_leaves_no_run_half_done() -> None:
    """Workers that were woken must not go on in memory that its owner took back."""
    host = machine.host()
    code = cache.addresses([shift()], host)[shift()]
    a, b = np.zeros(1001), np.zeros(1001)
    words = np.array([a.ctypes.data, b.ctypes.data, 1001])
    counters = np.zeros(3 * spmd.COUNTER_WORDS, np.int64)
    row = np.array([code, words.ctypes.data, 1001, 2, counters.ctypes.data, 1001])
    scratches = scratch_for(2)

    class Interrupted:
        """A lock at which the user presses Ctrl-C."""

        def locked(self) -> bool:
            raise KeyboardInterrupt

    team = Team(2, host)
    time.sleep(PARK_AFTER_SECONDS * 20)
    (sleeper,) = team._sleepers
    lock = sleeper.lock
    try:
        sleeper.lock = Interrupted()  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            team.run(row.ctypes.data, 1, scratches.ctypes.data, (row, counters, words, scratches, a, b))
        assert (b == 1).all()
    finally:
        sleeper.lock = lock
        team.close()


def test_a_worker_that_wakes_late_writes_to_memory_that_is_still_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It notes at every step what its scratch memory keeps, also after the run and without the session."""
    kept: list[np.ndarray] = []
    starts: list[int] = []
    run = Team.run

    def noting(team: Team, table: int, steps: int, scratches: int, owner: Any, wake: bool = True) -> None:
        kept.extend(np.atleast_1d(part) for part in owner[1])
        starts.extend((ctypes.c_int64 * team.threads).from_address(scratches))
        run(team, table, steps, scratches, owner, wake)

    monkeypatch.setattr(Team, "run", noting)
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[512, 512] x) => (float[512, 512] y) { y = MatMul(x, x) }""")
    options = ingot.SessionOptions()
    options.intra_op_num_threads = 2
    ingot.InferenceSession(model, options).run(None, {"x": np.ones((512, 512), np.float32)})
    assert len(starts) == 2
    ranges = [(array.ctypes.data, array.ctypes.data + array.nbytes) for array in kept]
    for start in starts:
        word = start - spmd.BEFORE_SCRATCH
        assert any(first <= word and start <= last for first, last in ranges), (
            "the team keeps the tables of a run alive, and not the scratch memory: a worker that wakes late "
            "writes to memory that was given back. Let `Memory.of_threads` hold it."
        )


def test_an_idle_team_burns_no_core() -> None:
    """Workers park: an idle team uses next to no processor time."""
    host = machine.host()
    team = Team(2, host)
    time.sleep(PARK_AFTER_SECONDS * 20)
    before = time.process_time()
    time.sleep(0.2)
    used = time.process_time() - before
    team.close()
    assert used < 0.05, f"an idle team used {used:.3f} s of processor time in 0.2 s; its workers do not park"
