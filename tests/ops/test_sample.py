"""GridSample: the vectorised evaluation equals onnx.reference, place by place, in nearly every mode."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

import ingot
from ingot.errors import ShapeError
from tests.compiler.test_lowering import floats

MODES = [
    (mode, padding, corners, dims)
    for mode, padding, corners, dims in itertools.product(
        ["nearest", "linear", "cubic"], ["zeros", "border", "reflection"], [0, 1], [1, 2, 3]
    )
    if (mode, padding) != ("cubic", "border")
]


def sampler(dims: int, **attributes: object) -> onnx.ModelProto:
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], **attributes)
    float32 = onnx.TensorProto.FLOAT
    sides = [f"s{i}" for i in range(dims)]
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", float32, ["n", "c", *sides]),
            helper.make_tensor_value_info("grid", float32, ["n", *[f"p{i}" for i in range(dims)], dims]),
        ],
        [helper.make_tensor_value_info("y", float32, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize(("mode", "padding", "corners", "dims"), MODES)
def test_equals_the_reference(mode: str, padding: str, corners: int, dims: int) -> None:
    model = sampler(dims, mode=mode, padding_mode=padding, align_corners=corners)
    x = floats(2, 3, *[5, 4, 3][:dims], seed=1)
    grid = floats(2, *[3, 4, 2][:dims], dims, seed=2) * np.float32(1.5)  # some places lie outside
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x, "grid": grid})
    (given,) = ingot.InferenceSession(model).run(None, {"x": x, "grid": grid})
    assert given.shape == wanted.shape
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("corners", [0, 1])
def test_a_cubics_neighbours_beyond_the_border_are_the_border(corners: int) -> None:
    """As PyTorch and ONNX Runtime have it; onnx.reference brings the place itself back instead."""
    model = sampler(2, mode="cubic", padding_mode="border", align_corners=corners)
    feed = {"x": floats(2, 3, 5, 4, seed=1), "grid": floats(2, 3, 4, 2, seed=2) * np.float32(1.5)}
    (wanted,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    (given,) = ingot.InferenceSession(model).run(None, feed)
    np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-5)


def test_empty_and_far_places() -> None:
    session = ingot.InferenceSession(sampler(2, mode="linear"))
    x = floats(1, 2, 3, 3)
    assert session.run(None, {"x": x, "grid": floats(1, 0, 4, 2)})[0].shape == (1, 2, 0, 4)
    far = np.array([np.nan, np.inf, -1e30, 3e9], np.float32).reshape(1, 1, 2, 2)
    assert not session.run(None, {"x": x, "grid": far})[0].any()


def test_a_grid_that_does_not_fit_is_refused() -> None:
    session = ingot.InferenceSession(sampler(2))
    with pytest.raises((ShapeError, ingot.InputError)):
        session.run(None, {"x": floats(1, 2, 3, 3), "grid": floats(2, 1, 2, 2)})
