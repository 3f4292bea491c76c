"""Whether short runs are quicker with a team of threads or on one.

Handing each step to another core costs a few hundred nanoseconds where cores share a cache, several times
that where they do not or where somebody else uses the other core. That changes while a process lives, so it
is tried out, now and then, on the runs themselves. Results do not depend on it.
"""

from __future__ import annotations

#: Runs of each kind that a trial takes.
TRIALS = 3
#: Runs between a trial and the next, at first and at most: twice as many after each that finds the same.
#: Threads of other libraries spin for up to tens of milliseconds after their last work, and a trial that
#: met them must not decide for long.
FIRST_BETWEEN, BETWEEN = 30, 1000
#: Runs before the first trial: they meet cold caches.
WARMING = 8
#: Longer runs, once the team was quicker, are not tried again: each trial costs them milliseconds.
LONGEST_SECONDS = 0.001

_NEVER = -(1 << 62)


class Pace:
    """What trials found for one plan. One run at a time."""

    __slots__ = ("_best", "_between", "_found", "_turn", "is_alone")

    def __init__(self) -> None:
        self.is_alone = self._found = False
        self._between = FIRST_BETWEEN // 2
        self._turn = -WARMING
        self._best = [float("inf"), float("inf")]

    def is_trial(self) -> bool:
        """Count a run, which is about to begin; return whether it is to be timed."""
        self._turn += 1
        if self._turn <= 0:
            return False
        self.is_alone = self._turn % 2 == 0
        return True

    def note(self, seconds: float) -> None:
        """Note how long a run of a trial took; the last one decides until the next trial."""
        self._best[self.is_alone] = min(self._best[self.is_alone], seconds)
        if self._turn < 2 * TRIALS:
            return
        together, alone = self._best
        self.is_alone = alone < together
        self._between = min(2 * self._between, BETWEEN) if self.is_alone == self._found else FIRST_BETWEEN
        self._found = self.is_alone
        is_settled = LONGEST_SECONDS < together <= alone
        self._turn = _NEVER if is_settled else -self._between
        self._best = [float("inf"), float("inf")]
