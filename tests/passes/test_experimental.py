"""Operators of ONNX's first versions that were on trial, against onnxruntime, which still has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ingot

CASES: list[tuple[str, dict[str, Any]]] = [
    ("Affine", {"alpha": 1.5, "beta": -0.5}),
    ("ImageScaler", {"scale": 0.5, "bias": [1.0, 2.0, 3.0]}),
    ("ParametricSoftplus", {"alpha": 1.5, "beta": 0.7}),
    ("ScaledTanh", {"alpha": 1.5, "beta": 0.7}),
    ("Crop", {"border": [1, 2, 0, 1]}),
    ("Crop", {"border": [1, 2, 0, 0], "scale": [3, 2]}),
]


def compare(node: onnx.NodeProto, feed: dict[str, np.ndarray]) -> None:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in feed.items()
    ]
    graph = helper.make_graph(
        [node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=3)
    (want,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    (got,) = ingot.InferenceSession(model).run(None, feed)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "attributes"), CASES)
def test_as_onnxruntime_has_them(name: str, attributes: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype(np.float32)
    compare(helper.make_node(name, ["x"], ["y"], **attributes), {"x": x})


def test_slices_whose_bounds_are_inputs() -> None:
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    feed = {"x": x, "starts": np.array([1, -3]), "ends": np.array([3, 5]), "axes": np.array([1, 2])}
    compare(helper.make_node("DynamicSlice", list(feed), ["y"]), feed)
    del feed["axes"]
    compare(helper.make_node("DynamicSlice", list(feed), ["y"]), feed)


def test_borders_that_are_no_four_numbers_are_refused() -> None:
    node = helper.make_node("Crop", ["x"], ["y"], border=[1, 2])
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 5, 5])
    graph = helper.make_graph(
        [node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 7)], ir_version=3)
    with pytest.raises(ingot.UnsupportedOperatorError, match=r"Crop.*four numbers"):
        ingot.InferenceSession(model)
