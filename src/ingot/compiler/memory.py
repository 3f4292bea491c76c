"""Where buffers lie in the arena: two whose lives do not overlap may share memory, and so may what a call
reads and writes element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from ingot.kernels.call import Buffer, Call, View

#: A buffer of the arena, its first and its last step, both included.
Life: TypeAlias = tuple[Buffer, int, int]
#: For each buffer of the arena its first and last step, both included.
Lives: TypeAlias = dict[Buffer, tuple[int, int]]

ALIGNMENT = 64

#: Buffers that live for fewer steps are looked for by step: most do, and few of them are alive together.
_SHORT = 8


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
    least = peak(lives)
    rooms = {buffer: _room(buffer) for buffer, _, _ in lives}
    found: tuple[dict[Buffer, int], int] | None = None
    for order in _ORDERS:
        offsets, size = _place(sorted(lives, key=order), rooms)
        if found is None or size < found[1]:
            found = offsets, size
        if size <= least:
            break
    assert found is not None
    return found


def peak(lives: Iterable[Life]) -> int:
    """The most bytes that are alive together: no arena can be smaller."""
    changes: dict[int, int] = {}
    for buffer, first, last in lives:
        changes[first] = changes.get(first, 0) + _room(buffer)
        changes[last + 1] = changes.get(last + 1, 0) - _room(buffer)
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def _room(buffer: Buffer) -> int:
    return -(-max(buffer.nbytes, 1) // ALIGNMENT) * ALIGNMENT


def _place(lives: Iterable[Life], rooms: Mapping[Buffer, int]) -> tuple[dict[Buffer, int], int]:
    #: Offset and end of what lies there already: all with their lives, and the short-lived by step.
    placed: list[tuple[int, int, int, int]] = []
    long_lived: list[tuple[int, int, int, int]] = []
    at_step: dict[int, list[tuple[int, int]]] = {}
    offsets: dict[Buffer, int] = {}
    size = 0
    for buffer, first, last in lives:
        need, is_short = rooms[buffer], last - first < _SHORT
        others = long_lived if is_short else placed
        near = {(begin, end) for begin, end, born, died in others if born <= last and died >= first}
        if is_short:
            for step in range(first, last + 1):
                near.update(at_step.get(step, ()))
        offset = 0
        for begin, end in sorted(near):
            if end <= offset:
                continue
            if begin >= offset + need:
                break
            offset = end
        offsets[buffer] = offset
        placed.append((offset, offset + need, first, last))
        if is_short:
            for step in range(first, last + 1):
                at_step.setdefault(step, []).append((offset, offset + need))
        else:
            long_lived.append(placed[-1])
        size = max(size, offset + need)
    return offsets, size


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
