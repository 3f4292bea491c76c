"""Iteration spaces: dimensions that several strided operands run over together, made few and long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: At most so many tiles for an even share among threads; it is divisible by most numbers of threads up to 16.
TILES = 48


class Space(NamedTuple):
    """Sizes of dimensions, outermost first, and for each operand its strides along them (elements)."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def collapse(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> Space:
    """Drop dimensions of size 1, order them by the strides of the first operand, and merge neighbours.

    Two dimensions merge where every operand steps through them as through one.
    """
    dims = [dim for dim in zip(sizes, zip(*strides, strict=True), strict=True) if dim[0] != 1]
    if len(dims) > 1:
        dims.sort(key=_far)
    merged: list[int] = []
    kept: list[tuple[int, ...]] = []
    for size, steps in dims:
        # The last operand decides mostly: it is a column, which asks nothing of sizes that are noted.
        if kept and kept[-1][-1] == size * steps[-1] and kept[-1] == tuple([size * inner for inner in steps]):
            merged[-1] *= size
            kept[-1] = steps
        else:
            merged.append(size)
            kept.append(steps)
    return Space(tuple(merged), tuple(zip(*kept, strict=True)) if kept else ((),) * len(strides))


def _far(dim: tuple[int, tuple[int, ...]]) -> list[int]:
    return [-abs(step) for step in dim[1]]


def round_up(n: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-n // unit) * unit


def block_of(n: int, least: int, unit: int = 1) -> int:
    """The size of blocks to cut n items into, a multiple of `unit`: TILES of them, or fewer of `least`."""
    return max(1, min(round_up(max(least, -(-n // TILES)), unit), round_up(max(n, 1), unit)))


def copied_slots(rank: int) -> tuple[str, ...]:
    """The slots of what is copied along so many dimensions: the size of each, and steps in both memories."""
    return tuple([f"{name}{d}" for d in range(rank) for name in ("size", "source", "target")])
