"""A step over loose arrays (`kernels/loose.py`) that runs the plan of a node for the sizes that it meets.

For operators whose kernels are chosen by sizes. Plans lie in a table by the sizes of what the node reads;
a step that finds none there asks for it by a call (`runtime/loose_plans.py`), and declines if there is none
after it. A plan's memory is taken behind its results, and given back when it has run.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

from ingot.codegen.builder import I8, I64, PTR, Builder, Value
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.spmd import STEP_WORDS
from ingot.kernels.loose import MOST_DIMS, NEXT, Loose, arrays, bit, room, slots, unless

#: Words of a node's plans: what is called for a new one, the table, where the plan's memory lies now, which
#: row of the table is asked for, and how many nanoseconds the plan that ran last takes, roughly.
ASK, TABLE, BASE, BUCKET, TOOK, NODE_WORDS = range(6)
#: Rows of the table: each is the first of the plans whose sizes lead there.
BUCKETS = 1 << 10
#: Words of a plan: the next one of its row; bytes of all memory, and of the results alone; addresses to be
#: written, by triples: the word, a word with what it is counted from, how far from there; steps; flags, by
#: where they lie; scratch memory; nanoseconds, roughly. Then rank and sizes of each input, and of each result
#: where it lies, its rank and sizes.
FOLLOWING, BYTES, KEPT_BYTES, PATCHES, PATCHED, ROWS, ROW_COUNT, FLAGS, FLAGGED, SCRATCH, TIME, KEYS = range(
    12
)
#: Words of an input there.
KEY_WORDS = 1 + MOST_DIMS
_MIXED, _SHIFT = 0x9E3779B97F4A7C15, 40


@kernel("state", "node")
def _planned(k: Builder, *, operands: tuple[str, ...], results: int) -> None:
    node, every = k.pointer("node"), arrays(k, operands)
    outs, xs = every[:results], every[results:]
    bucket = _bucket(k, xs)
    turn: list[Value] = [I64(0), I64(0)]  # looks so far, and the plan
    with k.repeat(lambda: k.ir.and_(k.compare("<", turn[0], 2), k.compare("==", turn[1], 0)), turn):
        with k.when(k.compare("==", turn[0], 1)):
            k.store(bucket, node, BUCKET)
            k.call(k.load(node, PTR, ASK), node, 0, 1, k.scratch)
        turn[:] = [k.add(turn[0], 1), _found(k, k.load(k.load(node, PTR, TABLE), I64, bucket), xs)]
    with unless(k, k.compare("==", turn[1], 0)):
        plan = k.ir.inttoptr(turn[1], PTR)
        with room(k, k.load(plan, I64, BYTES)) as memory:
            _run(k, node, plan, memory, outs, KEYS + len(xs) * KEY_WORDS)


def planned(results: int, inputs: int) -> Kernel:
    """The kernel for a node of so many results and inputs."""
    return _planned(operands=(*slots("out", results), *slots("in", inputs)), results=results)


def _bucket(k: Builder, xs: Sequence[Loose]) -> Value:
    """The row of the table for these sizes."""
    mixed: list[Value] = [I64(0)]
    for x in xs:
        rank = x.rank
        mixed[0] = k.mul(k.add(mixed[0], rank, 1), I64(_MIXED))
        with k.loop(0, rank, carry=mixed) as axis:
            mixed[0] = k.mul(k.add(mixed[0], x.dim(axis), 1), I64(_MIXED))
    return k.ir.and_(k.ir.lshr(mixed[0], I64(_SHIFT)), I64(BUCKETS - 1))


def _found(k: Builder, first: Value, xs: Sequence[Loose]) -> Value:
    """The plan for these sizes among those of a row, 0 if there is none."""
    carry: list[Value] = [first, I64(0)]
    with k.repeat(lambda: k.ir.and_(k.compare("!=", carry[0], 0), k.compare("==", carry[1], 0)), carry):
        plan = k.ir.inttoptr(carry[0], PTR)
        differs: list[Value] = [I64(0)]
        for number, x in enumerate(xs):
            rank, key = x.rank, k.at(plan, KEYS + number * KEY_WORDS, I64)
            differs[0] = k.ir.or_(differs[0], bit(k, k.compare("!=", k.load(key, I64), rank)))
            with k.loop(0, rank, carry=differs) as axis:
                other = k.compare("!=", k.load(key, I64, k.add(axis, 1)), x.dim(axis))
                differs[0] = k.ir.or_(differs[0], bit(k, other))
        is_it = k.compare("==", differs[0], 0)
        carry[:] = [
            k.choose(is_it, carry[0], k.load(plan, I64, FOLLOWING)),
            k.choose(is_it, carry[0], 0),
        ]
    return carry[1]


def _run(k: Builder, node: Value, plan: Value, memory: Value, outs: Sequence[Loose], places: int) -> None:
    """The steps of a plan, in this memory; `places` are the words that say where its results lie."""
    base = k.ir.ptrtoint(memory, I64)
    k.store(base, node, BASE)
    k.store(k.load(plan, I64, TIME), node, TOOK)
    with k.loop(0, k.load(plan, I64, PATCHED)) as i:
        patch = k.at(k.load(plan, PTR, PATCHES), k.mul(i, 3), I64)
        begin = k.load(k.load(patch, PTR, 1), I64)
        k.store(k.add(begin, k.load(patch, I64, 2)), k.load(patch, PTR))

    def flag(i: Value) -> Value:
        return k.at(memory, k.load(k.load(plan, PTR, FLAGS), I64, i), I8)

    with k.loop(0, k.load(plan, I64, FLAGGED)) as i:
        k.store(I64(0), flag(i))
    scratch = k.at(memory, k.load(plan, I64, SCRATCH), I8)
    with k.loop(0, k.load(plan, I64, ROW_COUNT)) as i:
        row = k.at(k.load(plan, PTR, ROWS), k.mul(i, STEP_WORDS), I64)
        k.begin_step(scratch)
        k.call(k.load(row, PTR), k.load(row, PTR, 1), 0, k.load(row, I64, 2), scratch)
    bad: list[Value] = [I64(0)]
    with k.loop(0, k.load(plan, I64, FLAGGED), carry=bad) as i:
        bad[0] = k.ir.or_(bad[0], k.load(flag(i), I64))
    with unless(k, k.compare("!=", bad[0], 0)):
        k.store(k.add(base, k.load(plan, I64, KEPT_BYTES)), k.pointer("state"), NEXT)
        for number, out in enumerate(outs):
            place = k.at(plan, places + number * (1 + KEY_WORDS), I64)
            out.lie(k.at(memory, k.load(place, I64), I8))
            rank = k.load(place, I64, 1)
            out.set_rank(rank)
            with k.loop(0, rank) as axis:
                out.set_dim(axis, k.load(place, I64, k.add(axis, 2)))
