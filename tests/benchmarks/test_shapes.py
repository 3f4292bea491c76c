"""The shapes that `make bench-shapes` measures: new each time, and of a kind that the model takes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.shapes import variants

IMAGE = {"x": np.zeros((1, 3, 224, 224), np.float32)}
TEXT = {"ids": np.ones((2, 128), np.int64), "mask": np.ones((2, 128), np.int64)}
ROWS = {"x": np.zeros((1, 64), np.float32)}


@pytest.mark.parametrize(
    ("inputs", "free"),
    [
        (IMAGE, {"x": [0, 2, 3]}),
        (TEXT, {"ids": [0, 1], "mask": [0, 1]}),
        (ROWS, {"x": [0]}),
    ],
    ids=["image", "text", "rows"],
)
def test_every_shape_is_new(inputs: dict[str, np.ndarray], free: dict[str, list[int]]) -> None:
    found = [
        {name: array.shape for name, array in each.items()}
        for each in itertools.islice(variants(inputs, free), 20)
    ]
    seen = {tuple(each.items()) for each in found}
    assert len(seen) == 20
    assert tuple((name, array.shape) for name, array in inputs.items()) not in seen
    for each in found:
        for name, shape in each.items():
            fixed = set(range(len(shape))) - set(free[name])
            assert all(shape[axis] == inputs[name].shape[axis] for axis in fixed)


def test_axes_of_two_inputs_that_are_of_a_size_change_together() -> None:
    for each in itertools.islice(variants(TEXT, {"ids": [0, 1], "mask": [0, 1]}), 5):
        assert each["ids"].shape == each["mask"].shape
        assert each["ids"].dtype == np.int64


def test_images_change_in_steps_that_networks_divide_by() -> None:
    sizes = [each["x"].shape for each in itertools.islice(variants(IMAGE, {"x": [2, 3]}), 20)]
    assert all(height % 32 == width % 32 == 0 and min(height, width) > 0 for _, _, height, width in sizes)
