"""Sizes of loose arrays (`kernels/loose.py`), and their elements in other dimensions: nothing is moved. Each
kernel has the meaning of its operator's plain definition, or declines.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from ingot.codegen.builder import I1, I64, Builder, Value
from ingot.codegen.kernel import kernel
from ingot.kernels.loose import (
    MOST_DIMS,
    Loose,
    all_of,
    any_of,
    bit,
    bounded,
    describe,
    has,
    is_size,
    room,
    unless,
)


@kernel("state", "out", "in")
def shape_of(k: Builder, *, start: int, end: int | None) -> None:
    """Shape: the dimensions from `start` to `end`, both from the end where negative."""
    out, x = Loose(k, "out"), Loose(k, "in")
    rank = x.rank

    def place(axis: int) -> Value:
        return k.max(k.min(k.add(rank, axis) if axis < 0 else I64(axis), rank), 0)

    first = place(start)
    count = k.max(k.sub(rank if end is None else place(end), first), 0)
    with room(k, k.mul(count, 8)) as memory:
        with k.loop(0, count) as i:
            k.store(x.dim(k.add(first, i)), memory, i)
        describe(out, memory, [count])


@kernel("state", "out", "in")
def size_of(k: Builder) -> None:
    """Size: how many elements there are."""
    with room(k, I64(8)) as memory:
        k.store(Loose(k, "in").count(), memory)
        describe(Loose(k, "out"), memory, [])


# ---- the same elements in other dimensions -----------------------------------------------------------------


@kernel("state", "out", "in", "shape")
def reshape(k: Builder, *, dtype: str, keeps_zero: bool) -> None:
    """Reshape. A size of 0 is the input's, unless it `keeps_zero`; -1 is what is left."""
    out, x, shape = (Loose(k, name) for name in ("out", "in", "shape"))
    rank, total = shape.dim(0), x.count()
    bad: list[Value] = [
        bit(k, any_of(k, k.compare("!=", shape.rank, 1), k.compare(">", rank, MOST_DIMS))),
        I64(1),  # the product of what is said
        I64(-1),  # where a size is left open
    ]
    with k.loop(0, k.min(rank, MOST_DIMS), carry=bad) as axis:
        size = shape.integer(axis, dtype)
        if not keeps_zero:
            lacks = all_of(k, k.compare("==", size, 0), k.compare(">=", axis, x.rank))
            bad[0] = k.ir.or_(bad[0], bit(k, lacks))
            size = k.choose(k.compare("==", size, 0), x.dim(k.min(axis, MOST_DIMS - 1)), size)
        is_open = k.compare("==", size, -1)
        wrong = any_of(
            k,
            all_of(k, is_open, k.compare(">=", bad[2], 0)),
            all_of(k, k.ir.not_(is_open), k.ir.not_(is_size(k, size))),
        )
        bad[0] = k.ir.or_(bad[0], bit(k, wrong))
        bad[2] = k.choose(is_open, axis, bad[2])
        kept = k.choose(any_of(k, is_open, wrong), 1, size)
        bad[1] = bounded(k, k.mul(bad[1], kept))
        out.set_dim(axis, kept)
    found, said, left = bad
    rest = k.div(total, k.max(said, 1))
    is_open = k.compare(">=", left, 0)
    made = k.mul(said, k.choose(is_open, rest, 1))
    wrong = any_of(
        k,
        k.compare("!=", found, 0),
        k.compare("!=", made, total),
        all_of(k, is_open, k.compare("==", said, 0)),
    )
    with unless(k, wrong):
        with k.when(is_open):
            out.set_dim(left, rest)
        out.set_rank(rank)
        out.lie(x.memory)


@kernel("state", "out", "in")
def flatten(k: Builder, *, axis: int) -> None:
    """Flatten: two dimensions, those before `axis` and the others."""
    out, x = Loose(k, "out"), Loose(k, "in")
    rank = x.rank
    place = k.add(rank, axis) if axis < 0 else I64(axis)
    with unless(k, any_of(k, k.compare("<", place, 0), k.compare(">", place, rank))):
        describe(out, x.memory, [x.count(0, place), x.count(place)])


@kernel("state", "out", "in", "axes")
def unsqueeze(k: Builder, *, dtype: str) -> None:
    """Unsqueeze: new dimensions of size 1."""
    out, x, axes = (Loose(k, name) for name in ("out", "in", "axes"))
    rank = k.add(x.rank, axes.count())
    chosen, bad = _chosen(k, axes, rank, dtype)
    with unless(k, k.ir.or_(bad, k.compare(">", rank, MOST_DIMS))):
        source: list[Value] = [I64(0)]
        with k.loop(0, rank, carry=source) as axis:
            is_new = has(k, chosen, axis)
            out.set_dim(axis, k.choose(is_new, 1, x.dim(k.min(source[0], MOST_DIMS - 1))))
            source[0] = k.add(source[0], bit(k, k.ir.not_(is_new)))
        out.set_rank(rank)
        out.lie(x.memory)


@kernel("state", "out", "in", "axes")
def squeeze(k: Builder, *, dtype: str | None) -> None:
    """Squeeze: without the dimensions of the axes, which must be of size 1; dtype None: without all of
    those.
    """
    out, x = Loose(k, "out"), Loose(k, "in")
    rank = x.rank
    chosen, bad = (I64(0), I1(0)) if dtype is None else _chosen(k, Loose(k, "axes"), rank, dtype)
    carry: list[Value] = [I64(0), bit(k, bad)]
    with k.loop(0, rank, carry=carry) as axis:
        size = x.dim(axis)
        is_one = k.compare("==", size, 1)
        goes = is_one if dtype is None else has(k, chosen, axis)
        carry[1] = k.ir.or_(carry[1], bit(k, all_of(k, goes, k.ir.not_(is_one))))
        out.set_dim(carry[0], size)
        carry[0] = k.add(carry[0], bit(k, k.ir.not_(goes)))
    with unless(k, k.compare("!=", carry[1], 0)):
        out.set_rank(carry[0])
        out.lie(x.memory)


def _chosen(k: Builder, axes: Loose, rank: Value, dtype: str) -> tuple[Value, Value]:
    """The axes as bits, and whether one is none or comes twice."""
    carry: list[Value] = [I64(0), bit(k, k.compare(">", axes.count(), MOST_DIMS))]
    with k.loop(0, k.min(axes.count(), MOST_DIMS), carry=carry) as i:
        axis = axes.integer(i, dtype)
        axis = k.choose(k.compare("<", axis, 0), k.add(axis, rank), axis)
        wrong = any_of(k, k.compare("<", axis, 0), k.compare(">=", axis, rank))
        axis = k.choose(wrong, 0, k.min(axis, 63))
        wrong = k.ir.or_(wrong, has(k, carry[0], axis))
        carry[:] = [k.ir.or_(carry[0], k.ir.shl(I64(1), axis)), k.ir.or_(carry[1], bit(k, wrong))]
    return carry[0], k.compare("!=", carry[1], 0)
