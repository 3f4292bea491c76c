"""Rounds over loose arrays (`kernels/loose.py`): a table of steps, run again and again, and what goes from
one round to the next.

Memory has two halves: a round's arrays lie in its own one, what is carried into it in the other. At the end
of a round what it hands on is copied into its half, unless it lies there or outside of both; then they change
places. The number of the round has a word of its own, and is copied, too. A round that fails leaves
everything as it was before it.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from ingot.codegen.builder import I8, I64, PTR, Builder, Value
from ingot.codegen.kernel import kernel
from ingot.kernels.loose import (
    ADDRESS,
    DECLINED,
    NEXT,
    NO_ROOM,
    OTHER,
    OTHER_END,
    OWN,
    OWN_END,
    STATUS,
    WORDS,
    Loose,
    all_of,
    move,
    room,
    say,
)

#: Words of a row: code and arguments.
ROW_WORDS = 2
#: Words of a list that grows: free memory, its end, and where this round began.
LIST_WORDS = 3
#: Words of what is known after the rounds: how many there were, and whether another one is wanted.
DONE, LIVE, REPORT_WORDS = 0, 1, 2


def _run(k: Builder, table: str, rows: str) -> None:
    """The steps, up to one that cannot do its work."""
    state, begin, count = k.pointer("state"), k.pointer(table), k.arg(rows)
    carry: list[Value] = [I64(0), k.load(state, I64, STATUS)]
    with k.repeat(lambda: all_of(k, k.compare("<", carry[0], count), k.compare("==", carry[1], 0)), carry):
        row = k.at(begin, k.mul(carry[0], ROW_WORDS), I64)
        k.call(k.load(row, PTR), k.load(row, PTR, 1), 0, 1, k.scratch)
        carry[:] = [k.add(carry[0], 1), k.load(state, I64, STATUS)]


@kernel("state", "table", "rows")
def once(k: Builder) -> None:
    """The steps of a table, once."""
    _run(k, "table", "rows")


@kernel("state", "in")
def only_one(k: Builder) -> None:
    """Declines what has not one element."""
    with k.when(k.compare("!=", Loose(k, "in").count(), 1)):
        say(k, DECLINED)


@kernel("state", "condition", "table", "rows", "other", "other_rows")
def branch(k: Builder) -> None:
    """The first table where the condition holds, else the other."""
    holds = k.compare("!=", k.load(Loose(k, "condition").memory, I8), I8(0))
    with k.when(holds):
        _run(k, "table", "rows")
    with k.when(k.ir.not_(holds)):
        _run(k, "other", "other_rows")


@kernel("state", "out", "in")
def link(k: Builder) -> None:
    """The same array."""
    _same(k, k.pointer("out"), k.pointer("in"))


def _same(k: Builder, target: Value, source: Value) -> None:
    for word in range(WORDS):
        k.store(k.load(source, I64, word), target, word)


@kernel("state", "out", "in", "counter")
def keep(k: Builder, *, size: int) -> None:
    """The same array, out of what the next round writes to: memory, and the number of the round."""
    state, source = k.pointer("state"), Loose(k, "in")
    _same(k, k.pointer("out"), source.words)
    where = k.load(source.words, I64, ADDRESS)
    begin, end = k.load(state, I64, OTHER), k.load(state, I64, OTHER_END)
    inside = all_of(k, k.compare(">=", where, begin), k.compare("<", where, end))
    is_number = k.compare("==", where, k.ir.ptrtoint(k.pointer("counter"), I64))
    with k.when(k.ir.or_(inside, is_number)):
        count = source.count()
        with room(k, k.mul(count, size)) as memory:
            move(k, memory, source.memory, count, size)
            k.store(memory, k.pointer("out"), ADDRESS)


@kernel("state", "list", "in")
def append(k: Builder, *, size: int) -> None:
    """An array at the end of a list: its words, then its elements, from a multiple of eight bytes on."""
    found, source = k.pointer("list"), Loose(k, "in")
    count, begin = source.count(), k.load(found, I64)
    after = k.add(begin, 8 * WORDS, k.ir.and_(k.add(k.mul(count, size), 7), I64(-8)))
    fits = k.compare("<=", after, k.load(found, I64, 1))
    with k.when(k.ir.not_(fits)):
        say(k, NO_ROOM)
    with k.when(fits):
        memory = k.ir.inttoptr(begin, PTR)
        _same(k, memory, source.words)
        k.store(I64(0), memory, ADDRESS)  # so that arrays of the same sizes begin alike
        move(k, k.at(memory, WORDS, I64), source.memory, count, size)
        k.store(after, found)


@kernel(
    "state", "report", "table", "rows", "pairs", "paired", "lists", "listed", "counter", "start", "trips",
    "condition",
)  # fmt: skip
def rounds(k: Builder) -> None:
    """Rounds from `start` on: the number of this one to `counter`, the steps, then what is carried: `pairs`
    of an array of this round and where the next one looks for it. No more than `trips`, none after a
    `condition` that does not hold, or a step that cannot do its work.
    """
    state, report, trips = k.pointer("state"), k.pointer("report"), k.arg("trips")
    carry: list[Value] = [k.arg("start"), I64(1)]
    with k.repeat(lambda: all_of(k, k.compare("<", carry[0], trips), k.compare("!=", carry[1], 0)), carry):
        number = carry[0]
        k.store(number, k.pointer("counter"))
        with k.loop(0, k.arg("listed")) as i:
            found = k.at(k.pointer("lists"), k.mul(i, LIST_WORDS), I64)
            k.store(k.load(found, I64), found, 2)
        _run(k, "table", "rows")
        good = k.compare("==", k.load(state, I64, STATUS), 0)
        with k.when(k.ir.not_(good)), k.loop(0, k.arg("listed")) as i:
            found = k.at(k.pointer("lists"), k.mul(i, LIST_WORDS), I64)
            k.store(k.load(found, I64, 2), found)
        with k.when(good):
            with k.loop(0, k.arg("paired")) as i:
                pair = k.at(k.pointer("pairs"), k.mul(i, 2), I64)
                _same(k, k.load(pair, PTR, 1), k.load(pair, PTR))
            _turn_over(k, state)
            k.store(k.add(number, 1), report, DONE)
            live = k.ir.zext(k.load(Loose(k, "condition").memory, I8), I64)
            k.store(live, report, LIVE)
        going = k.load(report, I64, LIVE)
        carry[:] = [k.add(number, 1), k.choose(good, going, 0)]


def _turn_over(k: Builder, state: Value) -> None:
    """The two halves of memory change places."""
    own, own_end, other, other_end = (k.load(state, I64, w) for w in (OWN, OWN_END, OTHER, OTHER_END))
    for word, value in ((NEXT, other), (NEXT + 1, other_end), (OWN, other), (OWN_END, other_end)):
        k.store(value, state, word)
    k.store(own, state, OTHER)
    k.store(own_end, state, OTHER_END)
