"""Functions that are alive, by the file of their code.

A process with torch in it holds half a million objects, and looking at each takes a tenth of a second. So
while `remembered` runs, all are looked at once for each folder of source that is asked about. From then on
only those are that the garbage collector has not passed on to its oldest generation, and it says what it
passes on.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import operator
import os
import sys
import sysconfig
import threading
from collections.abc import Collection, Generator
from types import FunctionType
from typing import Any
from weakref import ref

# Later collectors, and those of builds without the lock, have no generations that objects pass one by one.
_GENERATIONS = sys.version_info < (3, 14) and not sysconfig.get_config_var("Py_GIL_DISABLED")

_folder = functools.cache(os.path.dirname)


_file_of = operator.attrgetter("__code__.co_filename")


class _Wanted(dict[str, bool]):
    """Whether files are in one of some folders."""

    def __init__(self, folders: set[str]) -> None:
        super().__init__()
        self._folders = folders

    def __missing__(self, file: str) -> bool:
        self[file] = found = _folder(file) in self._folders
        return found


class _Old:
    """Functions of the oldest generation, in those folders that were asked about."""

    def __init__(self) -> None:
        self._folders: set[str] = set()
        self._wanted = _Wanted(self._folders)
        self._found: dict[str, dict[ref[FunctionType], None]] = {}  # by file
        gc.callbacks.append(self._before_collection)

    def close(self) -> None:
        gc.callbacks.remove(self._before_collection)

    def look(self, files: Collection[str], others: Collection[str]) -> None:
        """Find what is in the folders of these files; of others too, where all objects are looked at."""
        with _lock:  # whoever finds a folder there finds its functions too
            if not self._folders.issuperset(map(_folder, files)):
                self._folders.update(map(_folder, (*files, *others)))
                self._wanted = _Wanted(self._folders)
                self._note(_among(gc.get_objects(2)))

    def of(self, file: str) -> list[FunctionType]:
        """Those whose code is in the file."""
        found = self._found.get(file, {})
        alive = [(reference, reference()) for reference in list(found)]  # a collection may add some meanwhile
        for reference, function in alive:
            if function is None:
                found.pop(reference, None)  # another thread may have done so
        return [function for _, function in alive if function is not None]

    def _before_collection(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] >= 1:  # what is young now is in the oldest one afterwards
            self._note(_young())

    def _note(self, functions: list[FunctionType]) -> None:
        wanted = map(self._wanted.__getitem__, map(_file_of, functions))
        for function in itertools.compress(functions, wanted):
            self._found.setdefault(_file_of(function), {})[ref(function)] = None


_lock = threading.RLock()  # a collection may end, inside, what was left of `remembered`
_entered = 0
_old: _Old | None = None


@contextlib.contextmanager
def remembered() -> Generator[None]:
    """While this runs, functions are looked for among all objects once for each folder; may be nested."""
    global _entered, _old
    with _lock:
        _entered += 1
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered and _old is not None:
                _old.close()
                _old = None


def functions(files: Collection[str], others: Collection[str] = ()) -> list[FunctionType]:
    """All live functions whose code is in one of the files; one may come twice.

    others: files that may be asked about later
    """
    global _old
    if not _GENERATIONS:
        return [f for f in _among(gc.get_objects()) if f.__code__.co_filename in files]
    with remembered():
        with _lock:
            old = _old = _old or _Old()
        old.look(files, others)
        # Young ones first: what is collected in between is among the old ones then.
        found = [f for f in _young() if f.__code__.co_filename in files]
        return [*found, *(f for file in files for f in old.of(file))]


def _young() -> list[FunctionType]:
    newest = _among(gc.get_objects(0))  # in this order: a collection in between moves them on
    return [*newest, *_among(gc.get_objects(1))]


def _among(things: list[Any]) -> list[FunctionType]:
    return [thing for thing in things if type(thing) is FunctionType]
