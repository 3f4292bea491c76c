"""Iteration spaces: dimensions that several strided operands run over together, made few and long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: At most so many tiles for an even share among threads; it is divisible by most numbers of threads up to 16.
TILES = 48


@dataclass(frozen=True, slots=True)
class Space:
    """Sizes of dimensions, outermost first, and for each operand its strides along them (elements)."""

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def collapse(sizes: Sequence[int], strides: Sequence[Sequence[int]]) -> Space:
    """Drop dimensions of size 1, order them by the strides of the first operand, and merge neighbours.

    Two dimensions merge where every operand steps through them as through one.
    """
    dims = [(n, steps) for n, *steps in zip(sizes, *strides, strict=True) if n != 1]
    dims.sort(key=lambda dim: [-abs(step) for step in dim[1]])
    merged: list[tuple[int, list[int]]] = []
    for size, steps in dims:
        if merged and merged[-1][1] == [size * inner for inner in steps]:
            merged[-1] = (merged[-1][0] * size, steps)
        else:
            merged.append((size, steps))
    along = tuple(zip(*[steps for _, steps in merged], strict=True)) if merged else ((),) * len(strides)
    return Space(tuple([size for size, _ in merged]), along)


def round_up(n: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-n // unit) * unit


def block_of(n: int, least: int, unit: int = 1) -> int:
    """The size of blocks to cut n items into, a multiple of `unit`: TILES of them, or fewer of `least`."""
    return max(1, min(round_up(max(least, -(-n // TILES)), unit), round_up(max(n, 1), unit)))
