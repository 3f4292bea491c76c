"""Slow checks (`make soak`): every model of the zoo end to end, and a session under thousands of shapes."""

from __future__ import annotations

import gc
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import ingot
from benchmarks.zoo import ZOO, build
from ingot.timing import worst_difference
from tests.compiler.test_shapes import CASES, session_of
from tests.models.weights import photographs

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4  # of the largest value; random weights make some of these models sensitive


@pytest.mark.parametrize("name", list(ZOO))
def test_a_model_of_the_zoo(name: str) -> None:
    """Exported, and equal to PyTorch at two batch sizes, by one thread and by two (to the same bits)."""
    module, inputs = build(name)
    program = ingot.export(module, kwargs=inputs, verify=False)
    sessions = [program.session(sess_options=options(threads)) for threads in (1, 2)]
    for batch in (1, 3):
        _, feed = build(name, batch)
        with torch.no_grad():
            wanted = module(**feed)
        flat = [t.numpy() for t in (wanted if isinstance(wanted, tuple | list) else [wanted])]
        arrays = {arg.name: feed[arg.name].numpy() for arg in sessions[0].get_inputs()}
        alone, shared = (session.run(None, arrays) for session in sessions)
        assert worst_difference(alone, flat) < TOLERANCE
        for a, b in zip(alone, shared, strict=True):
            assert np.array_equal(a, b), f"{name}: two threads give other bits than one"


def options(threads: int) -> ingot.SessionOptions:
    chosen = ingot.SessionOptions()
    chosen.intra_op_num_threads = threads
    return chosen


def images() -> Iterator[dict[str, tuple[int, ...]]]:
    return ({"x": (1, 3, 33 + n // 100, 33 + n % 100)} for n in range(10_000))


def texts() -> Iterator[dict[str, tuple[int, ...]]]:
    return ({"x": (1 + n // 500, 1 + n % 500, 32)} for n in range(10_000))


@pytest.mark.parametrize("name, every", [("images", images), ("tokens", texts)])
def test_memory_stays_flat_over_many_shapes(
    name: str, every: Callable[[], Iterator[dict[str, tuple[int, ...]]]]
) -> None:
    """Plans are dropped, the arena is shared: 10,000 different shapes, of which the largest comes first, need
    no more than 1,000 did. Code is what grows before: register tiles of all heights.
    """
    text, weights, _ = CASES[name]
    session = session_of(text, weights, 2)
    first, *shapes = reversed(list(every()))
    random.Random(0).shuffle(shapes)
    before = 0.0
    for turn, each in enumerate([first, *shapes], 1):
        session.run(None, {key: np.ones(shape, np.float32) for key, shape in each.items()})
        if turn == 1_000:
            before = resident()
    grown = resident() - before
    assert grown < 4, (
        f"the process grew by {grown:.1f} MB over 9,000 shapes: find what keeps something for each of them, "
        "as a table without a bound does"
    )


def resident() -> float:
    """MB of the process that lie in memory."""
    gc.collect()
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def test_photographs_are_not_noise() -> None:
    """What the zoo is fed has the statistics of images: correlated neighbours, all three channels."""
    image = photographs(1, 64, 64, torch.Generator().manual_seed(0))[0]
    neighbours = torch.stack([image[:, :, :-1].flatten(), image[:, :, 1:].flatten()])
    assert torch.corrcoef(neighbours)[0, 1] > 0.5
