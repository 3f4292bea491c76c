"""Copies between strided layouts: row by row where both run the same way (short rows in
`runs.py`), else transposes in registers.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import I32, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.contract import name_of
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step, identity
from ingot.kernels.formed import formed
from ingot.kernels.interleave import interleave
from ingot.kernels.iteration import Space, collapse, round_up
from ingot.kernels.runs import MOST_VECTORS, copy_runs

_SIZES = ("source", "target", "a", "b", "a_block", "b_block", "a_blocks", "b_blocks", "source_b", "target_a")


def _slots(rank: int) -> tuple[str, ...]:
    return (
        *(f"o{d}" for d in range(rank)),
        *(f"so{d}" for d in range(rank)),
        *(f"to{d}" for d in range(rank)),
    )


def _zip(k: Builder, rows: list[Value]) -> list[Value]:
    """The transpose of a square of rows: as often as halving goes, zip row r with row r + half."""
    count = len(rows)
    half = count // 2
    low = [lane // 2 + (count if lane % 2 else 0) for lane in range(count)]
    picks = [ir.Constant(vector(I32, count), [p + start for p in low]) for start in (0, half)]
    for _ in range(count.bit_length() - 1):
        rows = [k.ir.shuffle_vector(rows[r], rows[r + half], pick) for r in range(half) for pick in picks]
    return rows


@kernel(*_SIZES)
def _transpose(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    rank: int,
    itemsize: int,
    side: int,
) -> None:
    """target[…, i, j] = source[…, j, i], contiguous in i at the source and in j at the target."""
    element = ir.IntType(8 * itemsize)
    source, target = k.pointer("source"), k.pointer("target")
    a, b, a_block, b_block, a_blocks, b_blocks, source_b, target_a = (k.arg(name) for name in _SIZES[2:])
    outer = [k.arg(f"o{d}") for d in range(rank)]
    places = [[k.arg(f"{side_}o{d}") for d in range(rank)] for side_ in "st"]
    row_type = vector(element, side)

    def square(i: Int, j: Int, from_: Value, to: Value, whole: bool) -> None:
        """One square of `side` rows and columns at (i, j)."""
        rows: list[Value] = []
        mask = None if whole else k.lanes_below(k.sub(a, i), side)
        for r in range(side):
            # Rows past the end are read again from the last one; what comes of them is not stored.
            row = k.add(j, r) if whole else k.min(k.add(j, r), k.sub(b, 1))
            rows.append(k.load(k.at(from_, k.add(k.mul(row, source_b), i), element), row_type, 0, mask))
        rows = _zip(k, rows)
        for c, value in enumerate(rows):
            # A masked store beyond mapped memory costs a microsecond, even if it stores nothing.
            line = k.add(i, c) if whole else k.min(k.add(i, c), k.sub(a, 1))
            where = k.at(to, k.add(k.mul(line, target_a), j), element)
            if whole:
                k.store(value, where)
            else:
                left = k.choose(k.compare("<", k.add(i, c), a), k.sub(b, j), 0)
                k.store(value, where, 0, k.lanes_below(left, side))

    with k.loop(k.begin, k.end) as tile:
        rest, first_j = k.div(tile, b_blocks), k.mul(k.rem(tile, b_blocks), b_block)
        rest, first_i = k.div(rest, a_blocks), k.mul(k.rem(rest, a_blocks), a_block)
        offsets: list[Int] = [0, 0]
        for d in reversed(range(rank)):
            index = rest if d == 0 else k.rem(rest, outer[d])
            rest = rest if d == 0 else k.div(rest, outer[d])
            offsets = [k.add(o, k.mul(index, steps[d])) for o, steps in zip(offsets, places, strict=True)]
        from_, to = k.at(source, offsets[0], element), k.at(target, offsets[1], element)
        last_i, last_j = k.min(a, k.add(first_i, a_block)), k.min(b, k.add(first_j, b_block))
        with k.loop(first_i, last_i, side) as i, k.loop(first_j, last_j, side) as j:
            inside = k.ir.and_(
                k.compare("<=", k.add(i, side), last_i), k.compare("<=", k.add(j, side), last_j)
            )
            with k.when(inside):
                square(i, j, from_, to, True)
            with k.when(k.ir.not_(inside)):
                square(i, j, from_, to, False)


def as_bits(view: View) -> View:
    """The same memory as unsigned integers of the elements' size: a copy need not know what they mean. Of
    16 bytes (complex128) there are two, along another last dimension.
    """
    if view.dtype.itemsize == 16:
        strides = (*(2 * stride for stride in view.strides), 1)
        return replace(view, dtype=np.dtype(np.uint64), shape=(*view.shape, 2), strides=strides)
    return replace(view, dtype=np.dtype(f"uint{8 * view.dtype.itemsize}"))


def _side(machine: Machine, itemsize: int) -> int:
    """Rows of a square of elements of this size."""
    return machine.vector_bytes // max(4, itemsize)


def _squares(space: Space, side: int) -> int | None:
    """The dimension whose elements are neighbours at the source, where squares are worth it; else None."""
    to, from_ = space.strides
    other = next((d for d in range(len(to) - 1) if from_[d] == 1), None)
    if other is None or to[-1] != 1 or from_[-1] in (0, 1):
        return None
    return other if 2 * min(space.sizes[other], space.sizes[-1]) >= side else None


def _of_runs(space: Space) -> Space | None:
    """In units of the last dimension, which is contiguous; None where other steps are no multiples of it."""
    run = space.sizes[-1]
    strides = [steps[:-1] for steps in space.strides]
    if any(step % run for steps in strides for step in steps):
        return None
    to, from_ = (tuple([step // run for step in steps]) for steps in strides)
    return Space(space.sizes[:-1], (to, from_))


@formed
def copy(source: View, target: View, machine: Machine, label: str = "copy") -> Call:
    """A call that copies `source`, broadcast to the target's shape, to `target`; dtypes may differ (a cast).

    The views must not overlap.
    """
    if source.dtype != target.dtype:
        cast = Expression((name_of(source.dtype),), (Step("Cast", (0,), name_of(target.dtype)),), (1,))
        return elementwise(cast, [source], [target], machine, label)
    if source.shape != target.shape:
        source = source.broadcast_to(target.shape)
    source, target = as_bits(source), as_bits(target)
    space = collapse(target.shape, [target.strides, source.strides])
    itemsize, rank = source.dtype.itemsize, len(space.sizes)
    if target.size and rank > 1 and all(strides[-1] == 1 for strides in space.strides):
        run = space.sizes[-1] * itemsize
        wider = _of_runs(space)
        if run in (2, 4, 8) and wider is not None and _squares(wider, _side(machine, run)) is not None:
            space, itemsize = wider, run
        elif run <= MOST_VECTORS * machine.vector_bytes:
            return copy_runs(source, target, space, machine, label)
    turned = interleave(source, target, space, itemsize, machine, label) if rank > 1 else None
    if turned is not None:
        return turned
    side = _side(machine, itemsize)
    other = _squares(space, side)
    if other is None:
        return elementwise(identity(name_of(source.dtype)), [source], [target], machine, label)
    to, from_ = space.strides
    a, b = space.sizes[other], space.sizes[-1]
    outer = [d for d in range(len(to) - 1) if d != other]
    size = math.prod(space.sizes)
    # Blocks of some KB: the lines of both sides stay in L1 until all of their elements were used.
    a_block = min(round_up(a, side), max(side, 128 // itemsize))
    b_block = min(round_up(b, side), max(side, 8192 // (a_block * itemsize) // side * side))
    a_blocks, b_blocks = -(-a // a_block), -(-b // b_block)
    args: list[int | View | Kernel] = [
        source,
        target,
        a,
        b,
        a_block,
        b_block,
        a_blocks,
        b_blocks,
        from_[-1],
        to[other],
    ]
    args += [space.sizes[d] for d in outer] + [from_[d] for d in outer] + [to[d] for d in outer]
    return Call(
        _transpose(operands=_slots(len(outer)), rank=len(outer), itemsize=itemsize, side=side),
        args,
        tiles=math.prod(space.sizes[d] for d in outer) * a_blocks * b_blocks if size else 0,
        reads=[source],
        writes=[target],
        label=label,
    )
