"""Small files that one process leaves for the next ones, in the user's cache directory.

Files are written under another name and renamed, and carry a digest of what is in them: concurrent processes
may share the directory, and a torn or damaged file counts as none. INGOT_CACHE_DIR moves it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import platformdirs

_DIGEST_BYTES = 32


def directory() -> Path:
    """Where the files are kept."""
    chosen = os.environ.get("INGOT_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("ingot"))


def read(path: Path | str) -> bytes | None:
    """What was kept there; None for nothing, or nothing whole."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (a session reads a hundred at once)
            data = file.read()
    except OSError:
        return None
    kept = data[_DIGEST_BYTES:]
    return kept if hashlib.sha256(kept).digest() == data[:_DIGEST_BYTES] else None


def write(path: Path | str, data: bytes) -> None:
    """Keep it for later processes; a directory that cannot be written only costs the next one time."""
    path = Path(path)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            Path(name).replace(path)
        except BaseException:  # what a full disk has of it would stay for ever
            Path(name).unlink(missing_ok=True)
            raise
