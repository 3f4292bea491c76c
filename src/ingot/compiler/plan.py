"""Steps to the tables that the native loop reads: code addresses, arguments, arena offsets, threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from ingot.codegen import cache, spmd
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.compiler.lower import Check, HostStep, Lowered
from ingot.compiler.memory import Lives, merge, place
from ingot.errors import ShapeError
from ingot.kernels.call import Buffer, Call, Form, View, form_of
from ingot.ops.registry import Array

#: A step shorter than this is not worth a second thread: waking, claiming tiles and sharing cache lines cost
#: as much.
SHORTEST_SHARE_NS = 2000.0
#: A run shorter than this is over before a parked worker is awake.
SHORTEST_WAKE_NS = 50000.0
#: Rough speeds of one core, for deciding that: arithmetic and memory, per nanosecond.
FLOPS_PER_NS, BYTES_PER_NS = 40.0, 8.0


@dataclass(slots=True)
class Patch:
    """A word of the argument table that holds the address of an input or output, which each run gives."""

    word: int
    index: int
    offset: int


@dataclass(slots=True)
class Plan:
    """Everything to run one stage of a graph for one set of shapes, but for the memory itself.

    words: argument words; those at `arena_words` are offsets into the arena. rows: a row for each native step
    (see codegen/spmd.py); arguments are counted in words, counters come later. parts: what happens in order:
    a range of rows, or a node for the host.
    """

    words: np.ndarray
    arena_words: np.ndarray
    arena_offsets: np.ndarray
    input_patches: list[Patch]
    output_patches: list[Patch]
    rows: np.ndarray
    parts: list[tuple[int, int] | HostStep]
    arena_bytes: int
    scratch_bytes: int
    offsets: dict[Buffer, int]
    checks: list[Check]
    calls: list[Call]
    kinds: dict[int, str]
    keep: list[Array]
    is_long: bool

    def offset(self, view: View) -> int:
        """Where a view of the arena starts, in bytes."""
        return self.offsets[view.buffer] + view.offset


def make_plan(
    lowered: Lowered, machine: Machine, threads: int, progress: Callable[[int, int], None] | None = None
) -> Plan:
    """Place buffers, compile what was never compiled before, lay out the tables."""
    steps = lowered.steps
    lives = _lives(steps, lowered.checks)
    merged = merge(steps, lives)
    offsets, arena_bytes = place((buffer, first, last) for buffer, (first, last) in lives.items())
    offsets.update((buffer, offsets[root]) for buffer, root in merged.items())
    calls = [step for step in steps if isinstance(step, Call)]
    kernels = {call.kernel for call in calls}
    kernels.update(arg for call in calls for arg in call.args if isinstance(arg, Kernel))
    code = cache.addresses(kernels, machine, progress)

    words: list[int] = []
    arena_words: list[int] = []
    arena_offsets: list[int] = []
    inputs: list[Patch] = []
    outputs: list[Patch] = []
    keep: dict[int, Array] = {}
    table: list[tuple[int, ...]] = []
    total_time = 0.0
    parts: list[tuple[int, int] | HostStep] = []
    row, begun = 0, 0
    for step in steps:
        if isinstance(step, HostStep):
            if row > begun:
                parts.append((begun, row))
            parts.append(step)
            begun = row
            continue
        if step.tiles > spmd.MOST_TILES:
            raise ShapeError(
                f"{step.label or step.kernel.generator}: found {step.tiles} tiles of work in one "
                f"step, which can have {spmd.MOST_TILES}; split the input"
            )
        form = _form(step, code)
        time = form.nanoseconds
        total_time += time
        table.append(
            (
                code[step.kernel],
                len(words),
                step.tiles,
                _sharers(step, time, threads),
                0,
                step.tiles // step.waves,
            )
        )
        row += 1
        first = len(words)
        assert form.words is not None
        words += form.words
        for position in form.places:
            view = cast(View, step.args[position])
            buffer, word = view.buffer, first + position
            if buffer.kind == "arena":
                arena_words.append(word)
                arena_offsets.append(offsets[buffer] + view.offset)
            elif buffer.kind == "constant":
                assert buffer.array is not None
                keep[id(buffer.array)] = buffer.array
                words[word] = buffer.address + view.offset
            else:
                patches = inputs if buffer.kind == "input" else outputs
                patches.append(Patch(word, buffer.index, view.offset))
    if row > begun:
        parts.append((begun, row))
    return Plan(
        words=np.array(words, np.int64),
        arena_words=np.array(arena_words, np.int64),
        arena_offsets=np.array(arena_offsets, np.int64),
        input_patches=inputs,
        output_patches=outputs,
        rows=np.array(table, np.int64).reshape(-1, spmd.STEP_WORDS),
        parts=parts,
        arena_bytes=arena_bytes,
        scratch_bytes=max([call.scratch for call in calls], default=0),
        offsets=offsets,
        checks=lowered.checks,
        calls=calls,
        kinds=lowered.kinds,
        keep=list(keep.values()),
        is_long=total_time > SHORTEST_WAKE_NS,
    )


def _form(call: Call, code: dict[Kernel, int]) -> Form:
    """The call's form, with its words (0 for each view) and its time."""
    form = call.form or form_of(call)
    if form.words is None:
        form.words = [
            arg if isinstance(arg, int) else 0 if isinstance(arg, View) else code[arg] for arg in form.args
        ]
        form.nanoseconds = _nanoseconds(call)
    return form


def _lives(steps: list[Call | HostStep], checks: list[Check]) -> Lives:
    """For each buffer of the arena its first and last step. Flags live to the end: the run reads them."""
    lives: Lives = {check.flag.buffer: (0, len(steps)) for check in checks}
    for number, step in enumerate(steps):
        if isinstance(step, HostStep):
            views = [v for v in (*step.inputs, *step.outputs) if isinstance(v, View)]
        else:
            views = [*step.reads, *step.writes]
        for view in views:
            if view.buffer.kind == "arena":
                first, last = lives.get(view.buffer, (number, number))
                lives[view.buffer] = (first, max(last, number))
    return lives


def _nanoseconds(call: Call) -> float:
    """How long a step takes one thread, roughly."""
    moved = 0
    for views in (call.reads, call.writes):
        for view in views:
            moved += math.prod(view.shape) * view.dtype.itemsize
    return call.flops / FLOPS_PER_NS + moved / BYTES_PER_NS


def _sharers(call: Call, time: float, threads: int) -> int:
    """How many threads are worth it for a step of so many nanoseconds."""
    return int(max(1, min(threads, call.tiles // call.waves, time / call.waves // SHORTEST_SHARE_NS)))
