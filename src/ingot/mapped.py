"""Files that weights are mapped from: what they were when they were opened, and whether they still are.

Mapped pages are read when somebody looks at them. A file that is written anew in place has other numbers by
then, or too few: reading a page that was cut off ends the process.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError

#: Where a model (`ir.Model.meta`) keeps the files that it is read from.
KEY = "ingot.files"


class FileState(NamedTuple):
    """Which file stood at a path, and how large and old it was."""

    path: str
    device: int
    inode: int
    size: int
    modified: int

    def is_written(self) -> bool:
        """Whether this very file has been written to since. One that was replaced by another, or deleted, is
        as it was for those who have it open.
        """
        try:
            now = os.stat(self.path)  # noqa: PTH116  (for each run: without a Path's own steps)
        except OSError:
            return False
        same = now.st_ino == self.inode and now.st_dev == self.device
        return same and (now.st_mtime_ns != self.modified or now.st_size != self.size)


def state_of(path: Path, file: int | None = None) -> FileState | None:
    """The file at a path, or the one open under this descriptor; None where there is none."""
    try:
        found = path.stat() if file is None else os.fstat(file)
    except OSError:
        return None
    return FileState(str(path.absolute()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def files_of(model: ir.Model) -> list[FileState]:
    """The files that weights of the model are mapped from."""
    meta: Any = model.meta
    return list(meta.get(KEY, ()))


def note_files(model: ir.Model, files: Iterable[FileState]) -> None:
    """Remember these as the model's files."""
    model.meta[KEY] = list(dict.fromkeys([*files_of(model), *files]))


def require_as_they_were(files: Iterable[FileState]) -> None:
    """Raises ModelError for a file that has been written to since it was opened."""
    for file in files:
        if file.is_written():
            raise ModelError(
                f"{file.path}: this file was written to while a model from it is in use, and its weights are "
                "read when they are needed. Make a new session. Where sessions shall go on, write another "
                "file and rename it (as ingot.save does), or make them from the file's bytes."
            )


def mapping_of(array: np.ndarray[Any, Any]) -> mmap.mmap | None:
    """The mapped file that an array is a view of, if it is one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base  # pyright: ignore[reportUnknownVariableType]
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None


def forget_pages(array: np.ndarray[Any, Any]) -> None:
    """Lets go of the memory behind the file that an array is a view of: it is read again when it is looked
    at. Does nothing to other arrays, nor where the system has no such call.
    """
    mapping = mapping_of(array)
    if mapping is not None and hasattr(mapping, "madvise"):
        mapping.madvise(mmap.MADV_DONTNEED)
