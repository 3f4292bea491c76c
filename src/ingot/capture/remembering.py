"""What SymPy has worked out stays known for as long as a model is recorded.

SymPy remembers the last thousand results of each of its functions, by default, and what a formula is known to
be (an integer, above 0) with the formula itself. A deep network's sizes are more formulas than that: each is
built and asked again for every layer. How much SymPy remembers is decided when it is imported, which the
user's own code may have done; so its functions get larger memories here, and their own back afterwards.
"""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Generator
from types import CellType
from typing import Any

from sympy.core.cache import CACHE

RESULTS = 1 << 17  # of each function; there are a few that come near
KEPT = (
    1 << 13
)  # results of each that the next model finds: what all models ask, and not a deep network's sizes

_lock = threading.Lock()
_entered = 0
_enlarged: dict[Any, _Enlarged | None] = {}  # by function; None where its memory is large by itself


@contextlib.contextmanager
def formulas_remembered() -> Generator[None]:
    """While this runs, SymPy forgets nothing of what it works out; may be nested."""
    global _entered
    with _lock:
        _entered += 1
        if _entered == 1:
            for function in CACHE:
                if function not in _enlarged:
                    found = _memory_of(function)
                    _enlarged[function] = None if found is None else _Enlarged(function, *found)
            for large in filter(None, _enlarged.values()):
                large.put()
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered:
                for large in filter(None, _enlarged.values()):
                    large.put_back()


class _Enlarged:
    """A function of SymPy's with a memory of `RESULTS`. Who makes it forget empties its own memory, too."""

    def __init__(self, function: Any, cell: CellType, own: Any) -> None:
        self._function, self._cell, self._own = function, cell, own
        self._large = functools.lru_cache(RESULTS, typed=True)(own.__wrapped__)
        function.cache_clear = self._forget  # for good: what it knows here it may know in the next recording

    def put(self) -> None:
        """It has the large memory."""
        self._cell.cell_contents, self._function.cache_info = self._large, self._large.cache_info

    def put_back(self) -> None:
        """It has its own memory again, as it was."""
        self._cell.cell_contents, self._function.cache_info = self._own, self._own.cache_info
        if self._large.cache_info().currsize > KEPT:
            self._large.cache_clear()

    def _forget(self) -> None:
        self._large.cache_clear()
        self._own.cache_clear()


def _memory_of(function: Any) -> tuple[CellType, Any] | None:
    """Where a function holds its memory, and that; None where it is not as small as SymPy makes it."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cell = cells.get("cfunc")
    memory: Any = None if cell is None else cell.cell_contents
    if cell is None or not hasattr(memory, "cache_parameters"):
        return None
    most = memory.cache_parameters()["maxsize"]
    return (cell, memory) if most is not None and 0 < most < RESULTS else None
