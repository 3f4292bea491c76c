"""What plans of one session share: weights in the order in which kernels read them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from ingot.codegen.pages import Pool

T = TypeVar("T")


class Packed:
    """Packed weights by key, together in memory of their own. spare: bytes that may still be taken by what
    only makes things faster.
    """

    def __init__(self) -> None:
        self.spare = 0
        self._found: dict[Hashable, Any] = {}
        self._pool = Pool()

    @property
    def nbytes(self) -> int:
        """How much was packed so far."""
        return self._pool.total

    def find(self, key: Hashable) -> Any:
        """What lies under `key`, None if nothing does."""
        return self._found.get(key)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What lies under `key`; made when it is first asked for."""
        if key not in self._found:
            self._found[key] = self.make(make)
        return self._found[key]

    def afford(self, key: Hashable, nbytes: int, make: Callable[[], T]) -> T | None:
        """The same for what is `nbytes` large and need not be: None where there is no room for it. What was
        said of a key stays so.
        """
        if key not in self._found:
            fits = nbytes <= self.spare
            self.spare -= nbytes if fits else 0
            self._found[key] = self.make(make) if fits else None
        return self._found[key]

    def make(self, make: Callable[[], T]) -> T:
        """`make()`, whose memory is with the other weights'. Whoever asks for it keeps it."""
        with self._pool.lending():
            return make()
