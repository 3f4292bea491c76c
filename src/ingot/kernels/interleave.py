"""Transposes of a few long rows: pixels of a few channels to planes and back, by shuffles in registers."""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from ingot.codegen.builder import Builder, Int, Value, integers, vector
from ingot.codegen.kernel import Kernel, kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View
from ingot.kernels.iteration import Space, copied_slots, round_up

#: Each shuffle has its pattern in a register; those of more channels would be read again and again.
MOST_CHANNELS = 4
_TILE_BYTES = 1 << 14


def _chosen(k: Builder, vectors: list[Value], place: Callable[[int], tuple[int, int]]) -> Value:
    """Lane i is lane place(i)[1] of vectors[place(i)[0]]."""
    lanes = vectors[0].type.count
    places = [place(lane) for lane in range(lanes)]
    chosen = vectors[0]
    for number in range(1, len(vectors)):
        pick = [
            lanes + at if which == number else at if number == 1 and which == 0 else lane
            for lane, (which, at) in enumerate(places)
        ]
        chosen = k.ir.shuffle_vector(chosen, vectors[number], integers(32, tuple(pick)))
    return chosen


@kernel("from", "to", "pixels", "block", "blocks", "plane")
def _interleave(
    k: Builder,
    *,
    operands: tuple[str, ...],  # noqa: ARG001  (the names of the slots)
    rank: int,
    itemsize: int,
    lanes: int,
    channels: int,
    joins: bool,
) -> None:
    """Pixels, `channels` elements each side by side, to planes; the other way round if it `joins`."""
    element = ir.IntType(8 * itemsize)
    row = vector(element, lanes)
    sizes, sources, targets = (
        [k.arg(f"{name}{d}") for d in range(rank)] for name in ("size", "source", "target")
    )
    pixels, block, blocks, plane = (k.arg(name) for name in ("pixels", "block", "blocks", "plane"))

    def turn(from_: Value, to: Value, pixel: Int, left: Int | None) -> None:
        def packed(pointer: Value, number: int) -> tuple[Value, Value | None]:
            here = k.at(k.at(pointer, k.mul(pixel, channels), element), number * lanes, element)
            if left is None:
                return here, None
            return here, k.lanes_below(k.sub(k.mul(left, channels), number * lanes), lanes)

        def planar(pointer: Value, channel: int) -> tuple[Value, Value | None]:
            here = k.at(k.at(pointer, k.mul(plane, channel), element), pixel, element)
            return here, None if left is None else k.lanes_below(left, lanes)

        def place(number: int, lane: int) -> tuple[int, int]:
            """Where element `lane` of vector `number` of the target comes from."""
            if joins:
                at, channel = divmod(number * lanes + lane, channels)
                return channel, at
            return divmod(lane * channels + number, lanes)

        found: list[Value] = []
        for number in range(channels):
            here, mask = (planar if joins else packed)(from_, number)
            found.append(k.load(here, row, mask=mask))
        for number in range(channels):
            here, mask = (packed if joins else planar)(to, number)
            k.store(_chosen(k, found, lambda lane, n=number: place(n, lane)), here, mask=mask)

    with k.loop(k.begin, k.end) as tile:
        rest, first = k.div(tile, blocks), k.mul(k.rem(tile, blocks), block)
        from_, to = k.pointer("from"), k.pointer("to")
        for d in reversed(range(rank)):
            index = rest if d == 0 else k.rem(rest, sizes[d])
            rest = rest if d == 0 else k.div(rest, sizes[d])
            from_ = k.at(from_, k.mul(index, sources[d]), element)
            to = k.at(to, k.mul(index, targets[d]), element)
        last = k.min(pixels, k.add(first, block))
        whole = k.sub(last, k.rem(k.sub(last, first), lanes))
        with k.loop(first, whole, lanes) as pixel:
            turn(from_, to, pixel, None)
        with k.when(k.compare("<", whole, last)):
            turn(from_, to, whole, k.sub(last, whole))


def interleave(
    source: View, target: View, space: Space, itemsize: int, machine: Machine, label: str
) -> Call | None:
    """A call that copies along `space`, whose strides are the target's and the source's, in elements of
    `itemsize`. None where it is not
    about long rows and pixels of a few elements that lie one after the other.
    """
    to, from_ = space.strides
    inner = len(to) - 1
    other = next((d for d in range(inner) if from_[d] == 1), None)
    permuted = machine.permutation(itemsize) if itemsize < 8 else None
    lanes = (permuted[0] if permuted else machine.vector_bytes) // itemsize
    if other is None or to[-1] != 1 or lanes < 4:
        return None
    joins = space.sizes[inner] < space.sizes[other]
    channel, pixel = (inner, other) if joins else (other, inner)
    channels, pixels = space.sizes[channel], space.sizes[pixel]
    packed, plane = (to[pixel], from_[channel]) if joins else (from_[pixel], to[channel])
    if packed != channels or not 2 <= channels <= min(MOST_CHANNELS, lanes - 1) or 2 * pixels < lanes:
        return None
    block = min(round_up(pixels, lanes), round_up(_TILE_BYTES // (channels * itemsize), lanes))
    blocks = -(-pixels // block)
    outer = [d for d in range(inner) if d != other]
    args: list[int | View | Kernel] = [source, target, pixels, block, blocks, plane]
    for d in outer:
        args += [space.sizes[d], from_[d], to[d]]
    code = _interleave(
        operands=copied_slots(len(outer)), rank=len(outer), itemsize=itemsize, lanes=lanes, channels=channels,
        joins=joins,
    )  # fmt: skip
    return Call(
        code,
        args,
        tiles=math.prod(space.sizes[d] for d in outer) * blocks if math.prod(space.sizes) else 0,
        reads=[source],
        writes=[target],
        label=label,
    )
