"""A function whose branch on sizes cannot be joined, or gives tensors that fit nothing after it, is recorded
whole for either answer: `mode = "nearest" if n > 4 else "linear"` becomes an If around all that follows.

The function is marked, and the recording starts again. It then runs once to find out what it asks, and once
for each answer, as often as it asks something else (`DEPTH`).
"""

# Whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingot.capture.branch import Unjoined, branch
from ingot.capture.cells import Cells
from ingot.capture.containers import Containers
from ingot.capture.request import ACTIVE, Place, functions, place
from ingot.capture.rewrite import Key
from ingot.capture.scope import inside
from ingot.capture.where import raise_if_ours

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

DEPTH = 4  # answers that are known at once, in the calls that run


@dataclass(eq=False)
class Trial:
    """A call that is run to find out what it asks at some lines."""

    places: set[Place]


class Asked(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """A marked line was reached whose condition is not known."""

    def __init__(self, trial: Trial, condition: Any, line: Place) -> None:
        super().__init__()
        self.trial, self.condition, self.line = trial, condition, line


def ask(g: Recorder, condition: Any) -> None:
    """A branch on sizes is about to be recorded: if a trial waits for it, that ends here."""
    if not g.trials or not g.env.is_plain(condition):
        return
    here = place()
    for trial in reversed(g.trials):
        if here in trial.places:
            raise Asked(trial, condition, here)


def whole(g: Recorder, key: Key, body: Callable[[], Any], names: Sequence[str]) -> Any:
    """The call of a marked function: `body()`, for either answer to what it asks.

    names: variables that it writes
    """
    places = ACTIVE.marks.apart.get(key, set())
    if not places or g.answers == DEPTH:
        return body()
    cells = Cells(body)
    start, held = cells.get(names), Containers.of(cells, names)
    try:
        found = _first_asked(g, Trial(places), body)
    finally:
        cells.put(start)
        held.restore()
    if found is None or not g.env.holds_outside(condition := g.env.expand(found.condition), g.sizes.visible):
        return body()

    def again() -> Any:
        return whole(g, key, body, names)

    asked = g.env.create_symboolnode(condition)
    g.answers += 1
    try:
        with g.attempt():
            return branch(g, asked, g.scalar(asked), again, again, names, (), cells)
    except Exception as error:  # whatever a side makes of sizes that never take it
        raise_if_ours(error)
        ACTIVE.marks.keep_whole(key, found.line)
        if isinstance(error, Unjoined):
            ACTIVE.marks.start_apart(found.line, functions())
    finally:
        g.answers -= 1
    return body()


def _first_asked(g: Recorder, trial: Trial, body: Callable[[], Any]) -> Asked | None:
    """What a call asks first at the trial's lines."""
    modules = len(g.modules)
    g.trials.append(trial)
    try:
        with g.attempt(), inside(g) as scope:
            try:
                body()
            finally:
                scope.body.discard()
    except Asked as found:
        if found.trial is not trial:
            raise
        return found
    finally:
        g.trials.remove(trial)
        del g.modules[modules:]
    return None
