"""Locks that nobody else holds while the process forks.

A fork has one thread. What another one was about to do is not done there, and a lock that it held stays
locked: who asks for it waits for ever. So a fork waits until such locks are free; planning and compiling take
seconds at most.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

#: Those of sessions, and one for the code of all, which threads ask for while they hold a session's.
_OF_SESSIONS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
OF_CODE = threading.RLock()


class _Held(threading.local):
    """What the thread that forks holds for that time."""

    locks: tuple[Any, ...] = ()


_HELD = _Held()


def session_lock() -> Any:
    """A lock of a session's own."""
    lock = threading.RLock()
    _OF_SESSIONS[id(lock)] = lock
    return lock


def _before() -> None:
    there = [lock for ref in _OF_SESSIONS.valuerefs() if (lock := ref()) is not None]
    _HELD.locks = (*sorted(there, key=id), OF_CODE)  # in one order: two threads may fork
    for lock in _HELD.locks:
        lock.acquire()


def _after() -> None:
    for lock in reversed(_HELD.locks):
        lock.release()
    _HELD.locks = ()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
