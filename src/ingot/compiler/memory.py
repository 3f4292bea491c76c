"""Where buffers lie in the arena: two whose lives do not overlap may share memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from ingot.kernels.call import Buffer

ALIGNMENT = 64


def place(lives: Iterable[tuple[Buffer, int, int]]) -> tuple[dict[Buffer, int], int]:
    """Offsets in bytes, and the size of the arena, for (buffer, first step, last step) with both ends
    included.

    Largest first, each at the lowest offset that is free during its whole life.
    """
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last, sorted by offset
    offsets: dict[Buffer, int] = {}
    size = 0
    for buffer, first, last in sorted(lives, key=lambda life: (-life[0].nbytes, life[1])):
        need = -(-max(buffer.nbytes, 1) // ALIGNMENT) * ALIGNMENT
        offset = 0
        for taken, end, born, died in placed:
            if born > last or died < first or end <= offset:
                continue
            if taken >= offset + need:
                break
            offset = end
        offsets[buffer] = offset
        bisect.insort(placed, (offset, offset + need, first, last))
        size = max(size, offset + need)
    return offsets, size
