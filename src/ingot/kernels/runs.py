"""Copies of short runs of neighbours, which both sides have, to another order: a few moves for each."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math

from llvmlite import ir

from ingot.codegen.builder import I8, I64, Builder, Int, Value, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.iteration import Space, copied_slots

#: Vectors of the longest run: a longer row is worth a loop of its own.
MOST_VECTORS = 8
_UNROLL = 4
_TILE_BYTES = 1 << 15
_NEAR = 384  # lines that stay in L1 until the next dimension further out has used all of them


@kernel("from", "to", "block", "blocks", "last")
def _copy_runs(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    tiled: int,
    nested: int,
    piece: int,
    pieces: int,
) -> None:
    """Tiles are the `tiled` outer dimensions and blocks of the innermost of the `nested` ones. A run is
    `pieces` of `piece` bytes, the last of which begins at `last`. Steps are bytes.
    """
    sizes, sources, targets = (
        [k.arg(f"{name}{d}") for d in range(tiled + nested)] for name in ("size", "source", "target")
    )
    block, blocks = k.arg("block"), k.arg("blocks")
    moved = ir.IntType(8 * piece) if piece <= 8 else vector(I64, piece // 8)
    # The last piece ends where the run does, whatever it has in common with the one before.
    offsets: list[Int] = [piece * number for number in range(pieces - 1)]
    offsets.append(k.arg("last") if pieces > 1 else 0)

    def move(from_: Value, to: Value) -> None:
        found = [k.load(k.at(from_, offset, I8), moved, align=1) for offset in offsets]
        for value, offset in zip(found, offsets, strict=True):
            k.ir.store(value, k.at(to, offset, I8), align=1)

    def nest(d: int, from_: Value, to: Value, first: Int, last: Int) -> None:
        def at(index: Int) -> tuple[Value, Value]:
            return k.at(from_, k.mul(index, sources[d]), I8), k.at(to, k.mul(index, targets[d]), I8)

        if d < tiled + nested - 1:
            with k.loop(0, sizes[d]) as index:
                nest(d + 1, *at(index), first, last)
            return
        whole = k.sub(last, k.rem(k.sub(last, first), _UNROLL))
        with k.loop(first, whole, _UNROLL) as index:
            for u in range(_UNROLL):
                move(*at(k.add(index, u)))
        with k.loop(whole, last) as index:
            move(*at(index))

    with k.loop(k.begin, k.end) as tile:
        rest, first = k.div(tile, blocks), k.mul(k.rem(tile, blocks), block)
        from_, to = k.pointer("from"), k.pointer("to")
        for d in reversed(range(tiled)):
            index = rest if d == 0 else k.rem(rest, sizes[d])
            rest = rest if d == 0 else k.div(rest, sizes[d])
            from_, to = k.at(from_, k.mul(index, sources[d]), I8), k.at(to, k.mul(index, targets[d]), I8)
        nest(tiled, from_, to, first, k.min(sizes[-1], k.add(first, block)))


def copy_runs(source: View, target: View, space: Space, machine: Machine, label: str) -> Call:
    """A call that copies along `space`, whose strides are the target's and the source's, and whose last
    dimension is the run: contiguous in both. There is another dimension, and none is empty.
    """
    itemsize = source.dtype.itemsize
    run = space.sizes[-1] * itemsize
    piece = min(machine.vector_bytes, 1 << (run.bit_length() - 1))
    to, from_ = ([stride * itemsize for stride in strides[:-1]] for strides in space.strides)
    sizes = space.sizes[:-1]
    block = sizes[-1] if sizes[-1] <= _NEAR else _NEAR // 3
    blocks = -(-sizes[-1] // block)
    nested, inside = 1, block * run
    while nested < len(sizes) and inside * sizes[-1 - nested] <= _TILE_BYTES:
        inside *= sizes[-1 - nested]
        nested += 1
    tiled = len(sizes) - nested
    args: list[int | View | Kernel] = [source, target, block, blocks, run - piece]
    for dim in zip(sizes, from_, to, strict=True):
        args += dim
    return Call(
        _copy_runs(
            operands=copied_slots(len(sizes)),
            tiled=tiled,
            nested=nested,
            piece=piece,
            pieces=-(-run // piece),
        ),
        args,
        tiles=math.prod(sizes[:tiled]) * blocks,
        reads=[source],
        writes=[target],
        label=label,
    )
