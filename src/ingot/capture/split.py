"""A function whose branch on sizes cannot be joined, or gives tensors that fit nothing after it, is recorded
whole for either answer: `mode = "nearest" if n > 4 else "linear"` becomes an If around all that follows.

The function is marked, and the recording starts again. It then runs until it asks something, which is
taken back, and once for each answer, in the same way, as often as it asks something else (`DEPTH`).
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
from ingot.capture.path import require_example
from ingot.capture.request import ACTIVE, Place, functions, place
from ingot.capture.rewrite import Key
from ingot.capture.scope import taken_back
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
    return _Call(g, key, places, body, names).recorded()


class _Call:
    """The call of a marked function, and what it may change, as that was before."""

    def __init__(
        self, g: Recorder, key: Key, places: set[Place], body: Callable[[], Any], names: Sequence[str]
    ) -> None:
        self.g, self.key, self.places, self.body, self.names = g, key, places, body, names
        self.cells = Cells(body)
        self.held = Containers.of(self.cells, names)
        self.first = self.cells.get(self.cells.all)

    def recorded(self) -> Any:
        """Record it as it is; where it asks something, take that back, and record it for either answer."""
        trial = Trial(self.places)
        try:
            return self._tried(trial)
        except Asked as asked:
            if asked.trial is not trial:
                raise
            found = asked
        g = self.g
        if not g.env.holds_outside(condition := g.env.expand(found.condition), g.sizes.visible):
            return self.body()
        test = g.env.create_symboolnode(condition)
        g.answers += 1
        fixed = set(g.env.fixed)
        try:
            with g.attempt():
                sides = self._side, self._side
                made = branch(g, test, g.scalar(test), *sides, self.names, (), self.cells, held=self.held)
                require_example(g.env, fixed)
                return made
        except Exception as error:  # whatever a side makes of sizes that never take it
            raise_if_ours(error)
            ACTIVE.marks.keep_whole(self.key, found.line)
            if isinstance(error, Unjoined):
                ACTIVE.marks.start_apart(found.line, functions())
        finally:
            g.answers -= 1
        return self.body()

    def _side(self) -> Any:
        """The call where one answer is known: it may ask something else."""
        if self.g.answers == DEPTH:
            return self.body()
        now = self.cells.get(self.cells.all)
        if all(value is self.first[name] for name, value in now.items()):
            return self.recorded()
        return _Call(self.g, self.key, self.places, self.body, self.names).recorded()

    def _tried(self, trial: Trial) -> Any:
        """What the call gives. Where it asks something at the trial's lines instead, all is as before."""
        g = self.g
        start, modules = self.cells.get(self.cells.all), len(g.modules)
        g.trials.append(trial)
        try:
            with g.attempt(Asked), taken_back(g, Asked):
                return self.body()
        except Asked:
            self.held.restore()
            self.cells.put(start)
            del g.modules[modules:]
            raise
        finally:
            g.trials.remove(trial)
