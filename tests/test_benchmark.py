"""side_by_side: every runner leaves a time or a reason, and wrong numbers are never timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ingot import benchmark
from ingot.errors import MissingExtraError
from ingot.peers import Arrays, Job, Runner

JOB = Job(Path("model.onnx"), {}, threads=1)


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that need no model: one right, one wrong, one with NaN, one that fails, one that is not
    installed.
    """
    right = np.array([1.0, 2.0], np.float32)

    def prepare(name: str, job: Job) -> Runner:
        if name == "absent":
            raise MissingExtraError("absent is not installed; `pip install absent` installs it")
        answers: dict[str, Callable[[], Arrays]] = {
            "right": lambda: [right],
            "onnxruntime": lambda: [right * np.float32(1 - 1e-5)],
            "ingot": lambda: [right * np.float32(1 + 1e-6)],
            "wrong": lambda: [right * np.float32(1.01)],
            "nan": lambda: [right * np.float32("nan")],
            "fails": lambda: [np.array(1 / len(job.inputs))],
        }
        return Runner(answers[name], "1.0", 0.5)

    monkeypatch.setattr(benchmark, "prepare", prepare)


@pytest.mark.usefixtures("runners")
def test_each_runner_has_a_time_or_a_reason() -> None:
    names = ["ingot", "right", "wrong", "nan", "fails", "absent"]
    results, _ = benchmark.side_by_side(JOB, names, rounds=2)
    assert [result.runner for result in results] == names
    found = {result.runner: result for result in results}
    assert found["ingot"].median is not None
    assert found["ingot"].difference == pytest.approx(1e-6, rel=0.2)
    assert found["right"].difference == 0.0
    assert found["right"].samples == 200
    assert found["right"].load == 0.5
    assert (
        found["wrong"].reason == "not timed: its outputs differ from right's by 1.0e-02 of the largest value"
    )
    assert found["nan"].reason == "not timed: its outputs differ from right's by inf of the largest value"
    assert found["fails"].reason == "division by zero"
    assert "pip install absent" in found["absent"].reason
    assert all(found[name].median is None for name in ("wrong", "nan", "fails", "absent"))


@pytest.mark.usefixtures("runners")
def test_a_given_reference_is_the_measure() -> None:
    results, _ = benchmark.side_by_side(
        JOB, ["right", "wrong"], reference=[np.array([1.01, 2.02], np.float32)], rounds=1
    )
    assert results[0].median is None
    assert results[1].median is not None


@pytest.mark.usefixtures("runners")
def test_the_difference_to_onnxruntime_is_told_apart() -> None:
    results, _ = benchmark.side_by_side(
        JOB, ["ingot", "right", "onnxruntime"], reference=[np.array([1.0, 2.0], np.float32)], rounds=1
    )
    found = {result.runner: result for result in results}
    assert found["ingot"].to_onnxruntime == pytest.approx(1.1e-5, rel=0.1)
    assert found["ingot"].difference == pytest.approx(1e-6, rel=0.2)
    assert found["onnxruntime"].to_onnxruntime is None


@pytest.mark.usefixtures("runners")
def test_tolerance_and_callbacks() -> None:
    said: list[str] = []
    rounds: list[tuple[int, int]] = []
    results, _ = benchmark.side_by_side(
        JOB,
        ["wrong", "ingot"],
        tolerance=0.1,
        rounds=2,
        status=said.append,
        progress=lambda done, total: rounds.append((done, total)),
    )
    assert all(result.median for result in results)
    assert said == ["preparing wrong", "preparing ingot"]
    assert rounds == [(1, 2), (2, 2)]
