"""Runs a plan: an arena, the tables with real addresses in them, and one native call for each unbroken run of
steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ingot.codegen import spmd
from ingot.codegen.pages import address_of, aligned
from ingot.codegen.spmd import BEFORE_SCRATCH
from ingot.compiler.plan import Plan, Row
from ingot.compiler.steps import HostStep
from ingot.errors import InputError, ModelError, ShapeError
from ingot.kernels.call import View
from ingot.ops.registry import Array
from ingot.runtime.pace import Pace
from ingot.runtime.threads import Team

#: Evaluates a node on the host: (position of the node, its input arrays) -> its outputs.
HostEvaluate = Callable[[int, list[Array | None]], Sequence[Array | None]]


class Memory:
    """An arena, and scratch for each thread, as large as the largest plan needs. One run at a time."""

    def __init__(self) -> None:
        self.arena = aligned(0)
        self.base = 0
        #: the arena as integers of 64 bits
        self.cells = memoryview(cast(Any, self.arena)).cast("q")
        #: what fits: bytes of the arena, bytes of scratch for each of so many threads
        self.arena_bytes, self.scratch_bytes, self.threads = -1, -1, 0
        self._scratch = aligned(0)
        self._scratches = np.zeros(0, np.int64)
        self.scratches_address = 0
        #: what threads read and write beside the arena: a worker that wakes late still writes to its scratch
        self.of_threads: tuple[Array, Array] = (self._scratches, self._scratch)

    def fit(self, arena_bytes: int, scratch_bytes: int, threads: int) -> None:
        """Make it large enough. MemoryError where that cannot be; it is then as it was."""
        if arena_bytes > self.arena_bytes:
            self.arena = aligned(arena_bytes)
            self.base, self.arena_bytes = self.arena.ctypes.data, arena_bytes
            self.cells = memoryview(cast(Any, self.arena[: arena_bytes // 8 * 8])).cast("q")
        if scratch_bytes > self.scratch_bytes or threads > self.threads:
            each, threads = self.scratch_bytes + BEFORE_SCRATCH, max(threads, self.threads)
            if scratch_bytes > self.scratch_bytes:
                # The 64: not all threads' at the same place in their caches.
                each = -(-(BEFORE_SCRATCH + scratch_bytes) // 4096) * 4096 + 64
            self._scratch = aligned(each * threads)  # noted below: there may be no memory for it
            self.scratch_bytes, self.threads = each - BEFORE_SCRATCH, threads
            starts = np.arange(self.threads, dtype=np.int64) * each
            self._scratches = starts + self._scratch.ctypes.data + BEFORE_SCRATCH
            self.scratches_address = self._scratches.ctypes.data
            self.of_threads = (self._scratches, self._scratch)


class Instance:
    """A plan's tables with real addresses in them. One run at a time; concurrent runs of a plan use an
    instance each.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._pace = Pace()
        self._solo: Team | None = None  # made when first tried
        self._base = 0
        self._words = plan.words.copy()
        self._cells = memoryview(cast(Any, self._words))  # the same words, quicker to write one by one
        self._input_patches, self._output_patches = (
            [(patch.word, patch.index, patch.offset) for patch in patches]
            for patches in (plan.input_patches, plan.output_patches)
        )
        self._words[plan.links[:, 0]] = self._words.ctypes.data + 8 * plan.links[:, 1]
        self._rows = plan.rows.copy()
        self._rows[:, 1] = self._words.ctypes.data + 8 * plan.rows[:, 1]
        line = 8 * spmd.COUNTER_WORDS
        lines = plan.rows[:, 3] + 1  # one for each of the threads that share a step, one for what is done
        ends = np.cumsum(lines)
        counters = aligned(line * int(ends[-1]) if len(ends) else 0)
        counters[:] = 0
        self._rows[:, 4] = counters.ctypes.data + line * (ends - lines)
        self._counters = counters
        self._rows_address = self._rows.ctypes.data
        self._row_bytes = self._rows.strides[0]
        #: nothing but native steps: one call does it all
        self._is_plain = [(0, len(self._rows))] == plan.parts
        #: where in the arena, in words, kernels note what must be refused, and what is said then
        self._checks = [(plan.offset(check.flag) // 8, check.message) for check in plan.checks]

    def run(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        memory: Memory,
        team: Team,
        host: HostEvaluate,
        times: list[tuple[Row | HostStep, float]] | None = None,
    ) -> None:
        """Compute `outputs` (contiguous arrays of the planned shapes) from `inputs` (likewise).

        times: each step and its seconds are appended; steps then run one by one.

        Raises InputError where a kernel met data that it must refuse, such as an index out of range.
        """
        plan, cells = self.plan, self._cells
        if (
            plan.arena_bytes > memory.arena_bytes
            or plan.scratch_bytes > memory.scratch_bytes
            or team.threads > memory.threads
        ):
            memory.fit(plan.arena_bytes, plan.scratch_bytes, team.threads)
        if memory.base != self._base:
            self._base = memory.base
            self._words[plan.arena_words] = plan.arena_offsets + self._base
        for word, index, offset in self._input_patches:
            cells[word] = address_of(inputs[index]) + offset
        for word, index, offset in self._output_patches:
            cells[word] = address_of(outputs[index]) + offset
        flags = memory.cells
        for place, _ in self._checks:
            flags[place] = 0
        if self._is_plain and times is None:
            self._run_plain(memory, team)
        else:
            self._run_parts(inputs, outputs, memory, team, host, times)
        for place, message in self._checks:
            if flags[place]:
                raise InputError(message)

    def _run_plain(self, memory: Memory, team: Team) -> None:
        """All steps in one call."""
        owner, is_long = (self, memory.of_threads), self.plan.is_long
        if team.threads == 1:
            team.run(self._rows_address, len(self._rows), memory.scratches_address, owner, is_long)
            return
        timed = self._pace.is_trial()
        if self._pace.is_alone:
            team = self._solo = self._solo or Team(1, team.machine)
        began = time.perf_counter() if timed else 0.0
        team.run(self._rows_address, len(self._rows), memory.scratches_address, owner, is_long)
        if timed:
            self._pace.note(time.perf_counter() - began)

    def _run_parts(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        memory: Memory,
        team: Team,
        host: HostEvaluate,
        times: list[tuple[Row | HostStep, float]] | None,
    ) -> None:
        """Steps of native code and nodes of the host by turns; for `times` one by one."""
        plan, owner = self.plan, (self, memory.of_threads)
        for part in plan.parts:
            began = time.perf_counter()
            if isinstance(part, HostStep):
                self._evaluate(part, inputs, outputs, memory, host)
                if times is not None:
                    times.append((part, time.perf_counter() - began))
                continue
            begin, end = part
            if times is None:
                table = self._rows_address + begin * self._row_bytes
                team.run(table, end - begin, memory.scratches_address, owner, plan.is_long)
                continue
            for row in range(begin, end):
                began = time.perf_counter()
                table = self._rows_address + row * self._row_bytes
                team.run(table, 1, memory.scratches_address, owner, plan.is_long)
                times.append((plan.row(row), time.perf_counter() - began))

    def _evaluate(
        self,
        step: HostStep,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        memory: Memory,
        host: HostEvaluate,
    ) -> None:
        def array(view: View) -> Array:
            buffer = view.buffer
            if buffer.kind == "arena":
                return _strided(memory.arena[self.plan.offset(view) :], view)
            if buffer.kind == "constant":
                assert buffer.array is not None
                base = buffer.array
            else:
                base = (inputs if buffer.kind == "input" else outputs)[buffer.index]
            return _strided(base.reshape(-1).view(np.uint8)[view.offset :], view)

        results = host(step.position, [array(v) if isinstance(v, View) else v for v in step.inputs])
        for view, result in zip(step.outputs, results, strict=False):
            if view is not None and result is not None:
                if result.shape != view.shape:
                    raise ShapeError(
                        f"node {step.position} of the graph gave shape {list(result.shape)} where "
                        f"{list(view.shape)} was planned. Please report this with the model."
                    )
                if result.dtype != view.dtype:
                    raise ModelError(
                        f"node {step.position} of the graph gave {result.dtype} where {view.dtype} was "
                        "planned. Check the dtypes of its inputs against the operator's definition."
                    )
                np.copyto(array(view), result, casting="no")


def _strided(memory: Array, view: View) -> Array:
    """The view as a NumPy array over the bytes where it starts."""
    if view.size == 0:
        return np.empty(view.shape, view.dtype)
    strides = [s * view.dtype.itemsize for s in view.strides]
    return np.ndarray(view.shape, view.dtype, memory, 0, strides)
