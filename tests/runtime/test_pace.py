"""Short runs go to the team or to one thread, whichever trials found quicker; long ones to the team."""

from __future__ import annotations

import pytest

from ingot.runtime.pace import BETWEEN, FIRST_BETWEEN, TRIALS, WARMING, Pace


def follow(pace: Pace, runs: int, alone: float, together: float) -> list[bool]:
    """Which of `runs` were alone, where such a run takes so many seconds and one of the team so many."""
    found: list[bool] = []
    for _ in range(runs):
        timed = pace.is_trial()
        found.append(pace.is_alone)
        if timed:
            pace.note(alone if pace.is_alone else together)
    return found


@pytest.mark.parametrize(("alone", "together"), [(1e-4, 2e-4), (2e-4, 1e-4)])
def test_the_quicker_way_is_kept(alone: float, together: float) -> None:
    """After warming and a trial of each kind, and again after the next trial."""
    pace = Pace()
    first = WARMING + 2 * TRIALS
    runs = follow(pace, first + FIRST_BETWEEN, alone, together)
    assert not any(runs[:WARMING]), "the first runs are the team's"
    assert runs[WARMING:first].count(True) == TRIALS
    assert set(runs[first:]) == {alone < together}
    later = follow(pace, 2 * TRIALS + FIRST_BETWEEN, alone, together)
    assert set(later[2 * TRIALS :]) == {alone < together}


def test_a_change_is_noticed() -> None:
    """Cores that were far apart may come near: the next trial finds it."""
    pace = Pace()
    follow(pace, 10 * BETWEEN, 1e-4, 2e-4)
    assert pace.is_alone
    follow(pace, BETWEEN + 2 * TRIALS, 2e-4, 1e-4)
    assert not pace.is_alone


def test_long_runs_are_tried_once() -> None:
    """A run over a millisecond is never made to wait for a trial again."""
    pace = Pace()
    runs = follow(pace, 4 * BETWEEN, 4e-3, 2e-3)
    assert runs.count(True) == TRIALS
    assert not pace.is_alone


@pytest.mark.parametrize("scale", [1e-4, 1e-3])
def test_a_trial_that_met_other_threads_decides_for_a_few_runs_only(scale: float) -> None:
    """Threads of other libraries that spin make the team the slower one, until they park."""
    pace = Pace()
    follow(pace, WARMING + 2 * TRIALS, 3 * scale, 6 * scale)
    assert pace.is_alone
    runs = follow(pace, FIRST_BETWEEN + 2 * TRIALS, 3 * scale, 2 * scale)
    assert not pace.is_alone, f"still alone after {len(runs)} runs without the other threads"


def test_what_trials_confirm_is_tried_less_often() -> None:
    pace = Pace()
    runs = follow(pace, 10 * BETWEEN, 4e-3, 6e-3)
    assert runs[-BETWEEN:].count(False) <= 2 * TRIALS
