"""Interleaved timing, and the comparison that decides whether a time counts at all."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

from ingot.timing import MachineLoad, Timing, interleave, uncertainty, worst_difference


def test_median_and_p95_are_samples_in_seconds() -> None:
    timing = Timing(tuple(range(1, 101)))
    assert timing.median == 50.5
    assert timing.p95 == 96
    assert timing.best == 1


def test_candidates_take_turns_and_the_order_moves_on() -> None:
    calls: list[str] = []
    timings = interleave(
        {name: lambda name=name: (calls.append(name), time.sleep(0.04)) for name in "abc"}, rounds=3
    )
    turns = [
        name for index, name in enumerate(calls[6:]) if index % 2 == 0
    ]  # one untimed, one timed call each
    assert "".join(turns) == "abcbcacab"
    assert {name: len(timing.samples) for name, timing in timings.items()} == {"a": 3, "b": 3, "c": 3}
    assert all(timing.median >= 0.04 for timing in timings.values())


def test_a_turn_waits_for_threads_that_still_spin() -> None:
    """A candidate whose threads go on for a while after its call does not slow the next one down."""
    ends: list[float] = [0.0]
    busy: list[bool] = []

    def spinner() -> None:
        ends[0] = time.perf_counter() + 0.05
        threading.Thread(target=lambda: _spin_until(ends[0]), daemon=True).start()
        time.sleep(0.03)

    def other() -> None:
        busy.append(time.perf_counter() < ends[0])
        time.sleep(0.03)

    interleave({"spinner": spinner, "other": other}, rounds=2)
    assert busy[2:] == [False] * len(busy[2:]), "a turn began while another candidate's thread was working"


def _spin_until(end: float) -> None:
    while time.perf_counter() < end:
        pass


def test_short_calls_are_repeated_within_a_turn() -> None:
    assert len(interleave({"nothing": lambda: None}, rounds=2)["nothing"].samples) == 200


def test_nobody_to_time() -> None:
    assert interleave({}, steady=0.1) == {}


def test_rounds_end_when_time_is_up() -> None:
    done: list[int] = []
    interleave(
        {"a": lambda: time.sleep(0.03)},
        rounds=50,
        seconds=0.0,
        progress=lambda count, total: done.append(count + 0 * total),
    )
    assert done == [1, 2, 3]


def test_rounds_end_when_medians_are_steady() -> None:
    done: list[int] = []
    interleave(
        {"a": lambda: time.sleep(0.001)},
        rounds=50,
        steady=10.0,
        progress=lambda count, total: done.append(count + 0 * total),
    )
    assert done == [1, 2, 3, 4, 5, 6, 7]


def test_uncertainty_of_a_median() -> None:
    assert uncertainty([2.0] * 9) == 0.0
    assert uncertainty([1.0, 2.0, 3.0, 4.0]) == pytest.approx(1.57 * 1.5 / 2 / 2.5)


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.2], [1.0, 2.0], 0.1),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.nan, 2.0], [math.nan, 2.0], 0.0),
        ([1.0, 2.0], [math.nan, 2.0], math.inf),
        ([math.inf, 2.0], [math.inf, 2.0], 0.0),
        ([-math.inf, 2.0], [math.inf, 2.0], math.inf),
        ([math.inf, 2.0], [1.0, 2.0], math.inf),
        ([0.5, 0.0], [0.0, 0.0], 0.5),
        ([], [], 0.0),
        ([1.0], [1.0, 1.0], math.inf),
    ],
)
def test_worst_difference(found: list[float], wanted: list[float], expected: float) -> None:
    outputs, reference = [np.array(found, np.float32)], [np.array(wanted, np.float32)]
    assert worst_difference(outputs, reference) == pytest.approx(expected, rel=1e-6)


def test_other_dtypes_counts_and_integers_never_pass() -> None:
    one = np.ones(2, np.float32)
    assert worst_difference([one.astype(np.float64)], [one]) == math.inf
    assert worst_difference([], [one]) == math.inf
    assert worst_difference([np.array([1, 2])], [np.array([1, 3])]) == math.inf
    assert worst_difference([np.array([1, 3])], [np.array([1, 3])]) == 0.0


def test_foreign_load_is_not_negative() -> None:
    load = MachineLoad()
    sum(range(100_000))
    cores = load.foreign_cores()
    assert cores is None or cores >= 0.0
