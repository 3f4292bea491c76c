"""Functions that call themselves as often as data or a size says: each call is a branch inside the last one,
so that the export may never end, and files hold only so many. It is noticed some calls deep.
"""

# Frames are what this file is about.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from ingot.capture.request import ACTIVE, Restart, functions, place, refuse
from ingot.capture.rewrite import Key
from ingot.capture.scalars import depends_on_data
from ingot.capture.where import is_user_code, quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

DEEP = 16  # calls of a function inside each other, each of them in a branch at one line
HALVED = 10  # the same on sizes: what each call makes of the last one's size is a longer formula
MANY = 40  # branches in a function's own calls at one line, on sizes: two calls in each double them
NESTED = 30  # branches inside each other: protobuf reads 100 messages deep, and each takes three


def enter(g: Recorder, condition: Any) -> None:
    """The sides of a branch are about to be recorded: it is the last of `g.branches` meanwhile.

    Raises:
        Restart: sizes decide how often its function calls itself: it is to follow the example.
        DataDependentError: data does.
    """
    here, running = place(), functions()
    around, depth = g.branches, running.count(running[0]) if running else 0
    of_data = condition is None or depends_on_data(g, condition)
    calls = len({n for where, n in around if where == here})
    if depth > 2 and not of_data:
        g.recursions[here] += 1
    of_sizes = not of_data and (g.recursions[here] > MANY or (depth > HALVED and calls >= HALVED))
    if of_sizes or (depth > DEEP and calls >= DEEP and len(around) >= NESTED):
        ACTIVE.marks.recursive.add(here)
        if not of_data:
            ACTIVE.pending = Restart()
            raise ACTIVE.pending
    if here in ACTIVE.marks.recursive and of_data:
        refuse(
            DataDependentError(
                f"{quoted_line(_caller(running[0]))}\n"
                f"{running[0].name} calls itself here as often as data says, more than {DEEP} calls deep: "
                "each is an If inside the last one, and no file holds more of those. "
                "Write it as a loop: `while` there is another call, with what that is given in variables."
            )
        )
    around.append((here, depth))


def _caller(key: Key) -> FrameType | None:
    """The frame that the innermost call of a function comes from."""
    at: FrameType | None = sys._getframe(1)
    while at is not None and Key.of(at.f_code) != key:
        at = at.f_back
    at = at and at.f_back
    while at is not None and not is_user_code(at.f_code):
        at = at.f_back
    return at
