"""Steps to the tables that the native loop reads: code addresses, arguments, arena offsets, threads."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from ingot.codegen import cache, spmd
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.compiler.memory import Lives, merge, place
from ingot.compiler.steps import Check, HostStep, Lowered
from ingot.errors import ShapeError
from ingot.kernels.call import Block, Buffer, Call, Form, Moves, Nested, Series, View, form_of
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


class Row(NamedTuple):
    """What is told of a native step: its kernel's generator, what it does, the nodes it computes, the
    arithmetic a textbook would count, and of what it reads and writes the bytes of an element, shape,
    strides, which buffer (a number) and where in it.
    """

    generator: str
    label: str
    origin: tuple[int, ...]
    flops: int
    views: tuple[tuple[int, tuple[int, ...], tuple[int, ...], int, int], ...]


#: The fields of a `Row`.
Told: TypeAlias = "tuple[Any, ...]"


@dataclass(slots=True)
class Plan:
    """Everything to run one stage of a graph for one set of shapes, but for the memory itself.

    words: argument words; those at `arena_words` are offsets into the arena. links: words that are the
    addresses of others, and which. rows: a row for each native step (see codegen/spmd.py); arguments are
    counted in words, counters come later. parts: what happens in order: a range of rows, or a node for the
    host. offsets: of what the host looks at. tell: makes `told`, the fields of each `Row`. nanoseconds: how
    long it takes one thread, roughly.

    Many plans may be kept for long, so what they consist of is arrays and plain tuples of numbers, which
    Python's collector of garbage does not look through.
    """

    words: np.ndarray
    arena_words: np.ndarray
    arena_offsets: np.ndarray
    input_patches: list[Patch]
    output_patches: list[Patch]
    links: np.ndarray
    rows: np.ndarray
    parts: list[tuple[int, int] | HostStep]
    arena_bytes: int
    scratch_bytes: int
    offsets: dict[Buffer, int]
    checks: list[Check]
    tell: Callable[[], list[Told]] | None
    kinds: dict[int, str]
    keep: list[Array]
    nanoseconds: float
    is_long: bool
    _told: list[Told] = field(default_factory=list[Told])

    @property
    def told(self) -> list[Told]:
        """The fields of each `Row`; made when they are first asked for."""
        tell = self.tell
        if tell is not None:  # two threads may both be here
            self._told, self.tell = tell(), None
        return self._told

    def row(self, number: int) -> Row:
        """What is told of a native step."""
        return Row(*self.told[number])

    def offset(self, view: View) -> int:
        """Where a view of the arena starts, in bytes."""
        return self.offsets[view.buffer] + view.offset


def make_plan(
    lowered: Lowered,
    machine: Machine,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
    again: Callable[[], Lowered] | None = None,
) -> Plan:
    """Place buffers, compile what was never compiled before, lay out the tables.

    again: makes the steps once more, to tell of them when somebody asks.
    """
    steps, lives = _lives(lowered.steps, lowered.checks)
    merged = merge(steps, lives)
    offsets, arena_bytes = place((buffer, first, last) for buffer, (first, last) in lives.items())
    offsets.update((buffer, offsets[root]) for buffer, root in merged.items())
    code = cache.addresses(_kernels(lowered.steps), machine, progress)

    table = _Table(code, offsets, threads)
    parts: list[tuple[int, int] | HostStep] = []
    begun = 0
    for step in lowered.steps:
        if not isinstance(step, HostStep):
            table.add(step)
            continue
        if table.rows > begun:
            parts.append((begun, table.rows))
        parts.append(step)
        begun = table.rows
    if table.rows > begun:
        parts.append((begun, table.rows))
    words, rows, arena_words, arena_offsets = table.arrays()
    told = told_of(lowered.steps) if again is None else list[Told]()
    return Plan(
        words=words,
        arena_words=arena_words,
        arena_offsets=arena_offsets,
        input_patches=table.inputs,
        output_patches=table.outputs,
        links=np.array(table.links, np.int64).reshape(-1, 2),
        rows=rows,
        parts=parts,
        arena_bytes=arena_bytes,
        scratch_bytes=table.scratch,
        offsets={v.buffer: offsets[v.buffer] for v in _seen(lowered) if v.buffer in offsets},
        checks=lowered.checks,
        tell=None if again is None else lambda: told_of(again().steps),
        kinds=lowered.kinds,
        keep=list(table.keep.values()),
        nanoseconds=table.nanoseconds,
        is_long=table.nanoseconds > SHORTEST_WAKE_NS,
        _told=told,
    )


class _Table:
    """The tables of a plan, or of one turn of a series, as they grow."""

    def __init__(self, code: dict[Kernel, int], offsets: dict[Buffer, int], threads: int) -> None:
        self._code, self._offsets, self._threads = code, offsets, threads
        self._words, self._rows = array("q"), array("q")
        self._arena_words, self._arena_offsets = array("q"), array("q")
        self.inputs: list[Patch] = []
        self.outputs: list[Patch] = []
        self.keep: dict[int, Array] = {}
        #: words that are the addresses of others, and which
        self.links: list[tuple[int, int]] = []
        self.scratch, self.nanoseconds = 0, 0.0
        #: the blocks that it is in, outermost first, each with its words that move and by how much
        self._around: list[tuple[Block, list[tuple[int, int]]]] = []

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._rows) // spmd.STEP_WORDS

    def add(self, step: Call | Series | Nested) -> None:
        """Append a row for a call, or for each of a series."""
        if isinstance(step, Series):
            self._add_series(step)
            return
        self._rows.extend(self._row(step))

    def _row(self, step: Call | Nested) -> tuple[int, ...]:
        """Append the arguments of a step; its row."""
        if isinstance(step, Nested):
            row = self._row(step.call)
            self._add_blocks(step, row[1])
            return row
        tiles = step.tiles
        if tiles > spmd.MOST_TILES:
            raise ShapeError(
                f"{step.label or step.kernel.generator}: found {tiles} tiles of work in one "
                f"step, which can have {spmd.MOST_TILES}; split the input"
            )
        form = step.form
        if form is None or form.words is None:
            form = _form(step, self._code)
        assert form.words is not None
        time, words, args, offsets = form.nanoseconds, self._words, step.args, self._offsets
        first, wave = len(words), tiles if step.waves == 1 else tiles // step.waves
        self.nanoseconds += time
        if step.scratch > self.scratch:
            self.scratch = step.scratch
        words.extend(form.words)
        arena_words, arena_offsets = self._arena_words, self._arena_offsets
        in_block = bool(self._around)
        for position in form.places:
            view: View = args[position]  # pyright: ignore[reportAssignmentType]  (a cast takes as long as this)
            word, buffer = first + position, view.buffer
            if in_block:
                self._point(word, view)
            elif buffer.kind == "arena":  # most of them
                arena_words.append(word)
                arena_offsets.append(offsets[buffer] + view.offset)
            elif (array := buffer.array) is not None:  # most of the others
                self.keep[id(array)] = array
                words[word] = buffer.address + view.offset
            else:
                self._point(word, view)
        sharers = 1 if self._threads == 1 else sharers_of(step, time, self._threads)
        return self._code[step.kernel], first, tiles, sharers, 0, wave

    def _point(self, word: int, view: View) -> None:
        """A word becomes the address of a view."""
        if self._around:
            for block, moving in reversed(self._around):
                found = block.behind(view)
                if found is None:
                    break
                view, move = found
                if move:
                    moving.append((word, move))
        buffer = view.buffer
        kind = buffer.kind
        if kind == "arena":
            self._arena_words.append(word)
            self._arena_offsets.append(self._offsets[buffer] + view.offset)
        elif kind == "constant":
            assert buffer.array is not None
            self.keep[id(buffer.array)] = buffer.array
            self._words[word] = buffer.address + view.offset
        else:
            patches = self.inputs if kind == "input" else self.outputs
            patches.append(Patch(word, buffer.index, view.offset))

    def _add_blocks(self, step: Nested, first: int) -> None:
        """The tables of what a call runs; its arguments begin at word `first`."""
        for number, block in enumerate(step.blocks):
            moving: list[tuple[int, int]] = []
            self._around.append((block, moving))
            rows = [self._row(part) for part in block.steps]
            self._around.pop()
            slot = first + 4 * number
            table = self._list(slot, [word for row in rows for word in row], spmd.STEP_WORDS)
            self.links += [(table + spmd.STEP_WORDS * n + 1, row[1]) for n, row in enumerate(rows)]
            moves = self._list(slot + 2, [part for _, move in moving for part in (0, move)], 2)
            self.links += [(moves + 2 * n, word) for n, (word, _) in enumerate(moving)]
        if step.flags:
            flags = self._list(first + 4 * len(step.blocks), [0] * len(step.flags), 1)
            for number, view in enumerate(step.flags):
                self._point(flags + number, view)

    def _list(self, slot: int, words: list[int], each: int) -> int:
        """Words of data; the argument at `slot` becomes their address, the next their number by `each`."""
        begin = len(self._words)
        self._words.extend(words)
        self.links.append((slot, begin))
        self._words[slot + 1] = len(words) // each
        return begin

    def _add_series(self, step: Series) -> None:
        one = _Table(self._code, self._offsets, self._threads)
        for part in step.body:
            one.add(part)
        words, rows, arena_words, arena_offsets = one.arrays()
        firsts = rows[:, 1].tolist()
        moves = dict[int, int]()  # of words that are addresses
        for first, (call, own) in zip(firsts, _moving(step.body, step.moves), strict=True):
            places = (call.form or form_of(call)).places
            moves.update(zip([first + place for place in places], own, strict=True))
        turns, start, width = range(step.turns), len(self._words), len(words)
        number = np.arange(step.turns)[:, None]
        shifts = start + number * width

        elsewhere = {*one._arena_words, *[patch.word for patch in (*one.inputs, *one.outputs)]}
        moving = [word for word, move in moves.items() if move and word not in elsewhere]  # in constants
        if moving:
            many_words = np.tile(words, (step.turns, 1))
            many_words[:, moving] += number * [moves[word] for word in moving]
            self._words.frombytes(many_words.tobytes())
        else:
            self._words.extend(one._words * step.turns)
        many_rows = np.tile(rows, (step.turns, 1, 1))
        many_rows[:, :, 1] += shifts
        self._rows.frombytes(many_rows.tobytes())
        self._arena_words.frombytes((shifts + arena_words).tobytes())
        further = np.array([moves[word] for word in one._arena_words], np.int64)
        self._arena_offsets.frombytes((arena_offsets + number * further).tobytes())
        for patches, ours in ((one.inputs, self.inputs), (one.outputs, self.outputs)):
            if patches:
                ours += [
                    Patch(start + turn * width + p.word, p.index, p.offset + turn * moves[p.word])
                    for turn in turns
                    for p in patches
                ]
        self.keep.update(one.keep)
        self.scratch = max(self.scratch, one.scratch)
        self.nanoseconds += one.nanoseconds * step.turns

    def arrays(self) -> list[np.ndarray]:
        """The words, the rows, which words are addresses in the arena, and their offsets in it. The table
        grows no more.
        """
        columns = (self._words, self._rows, self._arena_words, self._arena_offsets)
        words, rows, arena_words, arena_offsets = (np.frombuffer(column, np.int64) for column in columns)
        return [words, rows.reshape(-1, spmd.STEP_WORDS), arena_words, arena_offsets]


def told_of(steps: Sequence[Call | Series | Nested | HostStep]) -> list[Told]:
    """The fields of the `Row` of each native step."""
    told: list[Told] = []
    for step in steps:
        if isinstance(step, Series):
            told += told_of(step.body) * step.turns
        elif not isinstance(step, HostStep):
            told.append(_tell(step.call if isinstance(step, Nested) else step))
    return told


def _tell(call: Call) -> Told:
    """The fields of a `Row`. Buffers are told apart by their ids: those of one call exist together."""
    views = [(v.dtype.itemsize, v.shape, v.strides, id(v.buffer), v.offset) for v in call.reads]
    for v in call.writes:
        views.append((v.dtype.itemsize, v.shape, v.strides, id(v.buffer), v.offset))
    return call.kernel.generator, call.label, tuple(call.origin), call.flops, tuple(views)


def _seen(lowered: Lowered) -> list[View]:
    """What the host reads and writes of the arena."""
    views = [check.flag for check in lowered.checks]
    for step in lowered.steps:
        if isinstance(step, HostStep):
            views += [v for v in (*step.inputs, *step.outputs) if isinstance(v, View)]
    return views


def _moving(body: Sequence[Call | Series], moves: Moves) -> list[tuple[Call, list[int]]]:
    """The call of each row of a body, and how far its addresses move from turn to turn."""
    rows: list[tuple[Call, list[int]]] = []
    for part, own in zip(body, moves, strict=True):
        if isinstance(part, Series):
            rows += _moving(part.body, cast(Moves, own)) * part.turns
        else:
            rows.append((part, cast("list[int]", own)))
    return rows


def _kernels(steps: Sequence[Call | Series | Nested | HostStep]) -> set[Kernel]:
    """All whose code the steps need."""
    found: set[Kernel] = set()
    for step in steps:
        if isinstance(step, Series):
            found |= _kernels(step.body)
        elif isinstance(step, Nested):
            found |= _kernels([step.call]).union(*[_kernels(block.steps) for block in step.blocks])
        elif isinstance(step, Call):
            found.add(step.kernel)
            if step.form is None or step.form.words is None:
                found.update([arg for arg in step.args if type(arg) is Kernel])
    return found


def _form(call: Call, code: dict[Kernel, int]) -> Form:
    """The call's form, with its words (0 for each view) and its time."""
    form = call.form or form_of(call)
    if form.words is None:
        words: list[Any] = [
            arg if type(arg) is int else code[arg] if type(arg) is Kernel else 0 if type(arg) is View else arg
            for arg in form.args
        ]
        form.words, form.nanoseconds = array("q", words), nanoseconds_of(call)
    return form


def _lives(
    steps: Sequence[Call | Series | Nested | HostStep], checks: list[Check]
) -> tuple[list[Call | HostStep | None], Lives]:
    """The steps in a row, each of a series or a block once and as None, and for each buffer of the arena the
    first and the last of them. Flags live to the end: the run reads them. What a series touches lives from
    its first step to its last, as each turn comes back to it; but not what is a turn's own. So it is with
    blocks.
    """
    lives: Lives = {}
    row: list[Call | HostStep | None] = []
    for step in steps:
        if isinstance(step, Series):
            _touch_series(step, row, lives)
            continue
        if isinstance(step, Nested):
            _touch_nested(step, row, lives, [])
            continue
        if isinstance(step, HostStep):
            views = [v for v in (*step.inputs, *step.outputs) if isinstance(v, View)]
        else:
            views = step.reads + step.writes
        _touch(views, len(row), lives)
        row.append(step)
    lives.update((check.flag.buffer, (0, len(row))) for check in checks)
    return row, lives


def _touch(views: Sequence[View], number: int, lives: Lives) -> list[Buffer]:
    """The buffers of the arena that a step touches live until then."""
    touched: list[Buffer] = []
    for view in views:
        buffer = view.buffer
        if buffer.kind == "arena":
            touched.append(buffer)
            life = lives.get(buffer)
            lives[buffer] = (number, number) if life is None else (life[0], number)
    return touched


def _touch_series(series: Series, row: list[Call | HostStep | None], lives: Lives) -> set[Buffer]:
    """The same for each step of a series; what it touches that is not its own."""
    first, touched = len(row), set[Buffer]()
    for part in series.body:
        if isinstance(part, Series):
            touched |= _touch_series(part, row, lives)
        else:
            touched.update(_touch([*part.reads, *part.writes], len(row), lives))
            row.append(None)
    touched.difference_update(series.own)
    for buffer in touched:
        lives[buffer] = min(lives[buffer][0], first), len(row) - 1
    return touched


def _touch_nested(
    step: Nested, row: list[Call | HostStep | None], lives: Lives, around: list[Block]
) -> set[Buffer]:
    """The same for a call and what it runs: what it touches that is no block's own."""

    def touch(views: Sequence[View]) -> list[Buffer]:
        return _touch([_outermost(view, around) for view in views], len(row), lives)

    first, touched = len(row), set(touch([*step.call.reads, *step.call.writes, *step.flags]))
    row.append(None)
    for block in step.blocks:
        around.append(block)
        inside: set[Buffer] = set()
        for part in block.steps:
            if isinstance(part, Nested):
                inside |= _touch_nested(part, row, lives, around)
            else:
                inside.update(touch([*part.reads, *part.writes]))
                row.append(None)
        around.pop()
        touched |= inside - block.own
    for buffer in touched:
        lives[buffer] = min(lives[buffer][0], first), len(row) - 1
    return touched


def _outermost(view: View, around: Sequence[Block]) -> View:
    """What a view in blocks, the outermost first, stands for."""
    for block in reversed(around):
        found = block.behind(view)
        if found is None:
            break
        view, _ = found
    return view


def nanoseconds_of(call: Call) -> float:
    """How long a step takes one thread, roughly."""
    moved = 0
    for view in call.reads:
        moved += math.prod(view.shape) * view.dtype.itemsize
    for view in call.writes:
        moved += math.prod(view.shape) * view.dtype.itemsize
    return call.flops / FLOPS_PER_NS + moved / BYTES_PER_NS


def sharers_of(call: Call, time: float, threads: int) -> int:
    """How many threads are worth it for a step of so many nanoseconds."""
    if threads == 1:
        return 1
    shares = call.tiles // call.waves, time / call.waves // SHORTEST_SHARE_NS
    return int(max(1, min(threads, spmd.MOST_SHARES, *shares)))
