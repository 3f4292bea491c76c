"""Where buffers lie in the arena: two whose lives do not overlap may share memory, and so may what a call
reads and writes element by element.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from ingot.kernels.call import Buffer, Call, View

#: A buffer of the arena, its first and its last step, both included.
Life: TypeAlias = tuple[Buffer, int, int]
#: For each buffer of the arena its first and last step, both included.
Lives: TypeAlias = dict[Buffer, tuple[int, int]]

ALIGNMENT = 64

#: In which order buffers get their places. No order is the best for every graph, but the first one mostly is
#: (for 9 of 11 models of the zoo no arena can be smaller): what is large for long is in everybody's way, so
#: it goes to the edge.
_ORDERS: tuple[Callable[[Life], tuple[int, ...]], ...] = (
    lambda life: ((life[1] - life[2] - 1) * life[0].nbytes, life[1]),
    lambda life: (-life[0].nbytes, life[1]),
    lambda life: (life[1] - life[2], -life[0].nbytes),
    lambda life: (life[1], -life[0].nbytes),
)


def place(lives: Iterable[Life]) -> tuple[dict[Buffer, int], int]:
    """Offsets in bytes, and the size of the arena, for (buffer, first step, last step) with both ends
    included.

    Each buffer goes to the lowest offset that is free during its whole life; the best of several orders.
    """
    lives = list(lives)
    least, rooms, others = peak(lives), [_room(buffer) for buffer, _, _ in lives], _together(lives)
    found: tuple[list[int], int] | None = None
    for order in _ORDERS:
        keys = list(map(order, lives))
        offsets, size = _place(sorted(range(len(lives)), key=keys.__getitem__), rooms, others)
        if found is None or size < found[1]:
            found = offsets, size
        if size <= least:
            break
    assert found is not None
    return {buffer: offset for (buffer, _, _), offset in zip(lives, found[0], strict=True)}, found[1]


def peak(lives: Sequence[Life]) -> int:
    """The most bytes that are alive together: no arena can be smaller."""
    changes = [0] * (2 + max([last for _, _, last in lives], default=0))
    for buffer, first, last in lives:
        room = _room(buffer)
        changes[first] += room
        changes[last + 1] -= room
    return max(itertools.accumulate(changes))


def _room(buffer: Buffer) -> int:
    return -(-max(buffer.nbytes, 1) // ALIGNMENT) * ALIGNMENT


def _together(lives: Sequence[Life]) -> list[list[int]]:
    """For each buffer those that live at the same time, by number."""
    others: list[list[int]] = [[] for _ in lives]
    alive: list[int] = []
    lasts = [last for _, _, last in lives]
    for number in sorted(range(len(lives)), key=[first for _, first, _ in lives].__getitem__):
        first = lives[number][1]
        alive = [other for other in alive if lasts[other] >= first]
        others[number] += alive
        for other in alive:
            others[other].append(number)
        alive.append(number)
    return others


def _place(
    order: Sequence[int], rooms: Sequence[int], others: Sequence[Sequence[int]]
) -> tuple[list[int], int]:
    places: list[tuple[int, int] | None] = [None] * len(rooms)  # offset and end
    size = 0
    for number in order:
        near = [place for place in [places[other] for other in others[number]] if place is not None]
        near.sort()
        offset, end = 0, rooms[number]
        for begin, stop in near:
            if begin >= end:
                break
            if stop > offset:
                offset, end = stop, stop + rooms[number]
        places[number] = offset, end
        if end > size:
            size = end
    return [place[0] for place in places if place is not None], size


def merge(steps: Sequence[object], lives: Lives) -> dict[Buffer, Buffer]:
    """Buffers that are written in the place of another one, each with the buffer it replaces.

    In `lives`, which is changed, the other one then lives as long as both, and the first is gone.
    """
    merged: dict[Buffer, Buffer] = {}
    for number, call in enumerate(steps):
        if not isinstance(call, Call) or not call.in_place or len(call.writes) != 1:
            continue
        out = call.writes[0]
        if out.buffer not in lives or lives[out.buffer][0] != number or not _is_whole(out):
            continue
        for view in call.reads:
            root = merged.get(view.buffer, view.buffer)
            if root not in lives or lives[root][1] != number or not _lie_alike(view, out):
                continue
            others = [v for v in call.reads if merged.get(v.buffer, v.buffer) is root]
            if all(v == view for v in others):
                lives[root] = lives[root][0], lives.pop(out.buffer)[1]
                merged[out.buffer] = root
                break
    return merged


def _is_whole(view: View) -> bool:
    return view.offset == 0 and view.size * view.dtype.itemsize == view.buffer.nbytes > 0


def _lie_alike(a: View, b: View) -> bool:
    """Whether two views of whole buffers have each element at the same place."""
    return (
        a.dtype.itemsize == b.dtype.itemsize
        and a.shape == b.shape
        and a.strides == b.strides
        and _is_whole(a)
        and a.buffer.nbytes == b.buffer.nbytes
    )
