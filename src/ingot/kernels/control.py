"""Loops and branches as steps of a plan: a kernel that runs other steps, any number of times, on the thread
that meets it.

The steps stand in a table of their own, laid out as the plan's (`codegen/spmd.py`) among the words of
arguments. Their results are those that the same steps have one by one.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Sequence

from ingot.codegen.builder import I8, I64, PTR, Builder, Value
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.spmd import STEP_WORDS
from ingot.kernels.call import Block, Call, Nested, View


@kernel(
    "table", "rows", "moves", "moved",
    "flags", "flagged", "counter", "trips", "first", "condition",
)  # fmt: skip
def _loop(k: Builder, *, trips: bool, first: bool, condition: bool) -> None:
    """Rounds: the number of this one to `counter`, the steps, then the addresses that move on. No more than
    `trips`, and none after a condition that does not hold or a flag that a step has raised. At the end the
    addresses come back.
    """
    with k.loop(k.begin, k.end):
        limit = k.load(k.pointer("trips"), I64) if trips else None
        live = _holds(k, k.pointer("first")) if first else I64(1)
        rounds: list[Value] = [I64(0), live]

        def goes_on() -> Value:
            alive = k.compare("!=", rounds[1], 0)
            return alive if limit is None else k.ir.and_(alive, k.compare("<", rounds[0], limit))

        with k.repeat(goes_on, rounds):
            number = rounds[0]
            k.store(number, k.pointer("counter"))
            _run(k, "table", "rows")
            bad: list[Value] = [I64(0)]
            with k.loop(0, k.arg("flagged"), carry=bad) as i:
                bad[0] = k.ir.or_(bad[0], k.load(k.load(k.pointer("flags"), PTR, i), I64))
            going = _holds(k, k.pointer("condition")) if condition else I64(1)
            rounds[:] = [k.add(number, 1), k.choose(k.compare("==", bad[0], 0), going, 0)]
            _move(k, 1)
        _move(k, k.sub(0, rounds[0]))


@kernel("table", "rows", "moves", "moved", "other", "other_rows", "no_moves", "none_moved", "condition")
def _branch(k: Builder) -> None:
    """The first table where the condition holds, else the other."""
    with k.loop(k.begin, k.end):
        holds = k.compare("!=", _holds(k, k.pointer("condition")), 0)
        with k.when(holds):
            _run(k, "table", "rows")
        with k.when(k.ir.not_(holds)):
            _run(k, "other", "other_rows")


def _holds(k: Builder, where: Value) -> Value:
    return k.ir.zext(k.load(where, I8), I64)


def _run(k: Builder, table: str, rows: str) -> None:
    with k.loop(0, k.arg(rows)) as i:
        row = k.at(k.pointer(table), k.mul(i, STEP_WORDS), I64)
        code, args = (k.load(row, PTR, word) for word in (0, 1))
        k.begin_step(k.scratch)
        k.call(code, args, 0, k.load(row, I64, 2), k.scratch)


def _move(k: Builder, rounds: Value | int) -> None:
    """Words that are addresses, and how far they move with each round."""
    with k.loop(0, k.arg("moved")) as i:
        pair = k.at(k.pointer("moves"), k.mul(i, 2), I64)
        word = k.load(pair, PTR)
        k.store(k.add(k.load(word, I64), k.mul(k.load(pair, I64, 1), rounds)), word)


def loop(
    body: Block,
    flags: Sequence[View],
    counter: View,
    trips: View | None = None,
    first: View | None = None,
    condition: View | None = None,
) -> Nested:
    """The body again and again: at most `trips` times, at all only if `first` holds, and as long as the
    `condition`, which the body computes, does. None of these: it is not asked for.

    counter, trips: int64. first, condition: a truth value. flags: those that the body's steps may raise
    (`Lowering.check`); the round in which one does is the last.
    """
    asked = [trips, first, condition]
    code = _loop(trips=trips is not None, first=first is not None, condition=condition is not None)
    given: list[int | View | Kernel] = [counter, *(0 if view is None else view for view in asked)]
    reads = [view for view in asked if view is not None]
    call = Call(code, [0, 0, 0, 0, 0, 0, *given], 1, reads, [counter], label="loop")
    return Nested(call, [body], list(flags))


def branch(condition: View, then: Block, other: Block) -> Nested:
    """`then` where the condition, a truth value, holds, else the `other`."""
    call = Call(_branch(), [0, 0, 0, 0, 0, 0, 0, 0, condition], 1, [condition], [], label="branch")
    return Nested(call, [then, other], [])
