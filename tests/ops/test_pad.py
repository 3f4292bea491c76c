"""Pad with borders that NumPy would build in more than one turn, or of what negative amounts leave."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as h
import pytest

import ingot

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def padded(x: np.ndarray, pads: list[int], mode: str, constant: bool) -> np.ndarray:
    amounts = np.array(pads, np.int64)
    inputs = [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)]
    if not constant:
        inputs.append(h.make_tensor_value_info("pads", onnx.TensorProto.INT64, amounts.shape))
    graph = h.make_graph(
        [h.make_node("Pad", ["x", "pads"], ["y"], mode=mode)],
        "pad",
        inputs,
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(amounts, "pads")] if constant else [],
    )
    session = ingot.InferenceSession(h.make_model(graph, opset_imports=[h.make_opsetid("", 22)]))
    return session.run(None, {"x": x} if constant else {"x": x, "pads": amounts})[0]


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize(
    "pads", [[0, 0, 0, 9], [4, 7, 0, 1], [-2, 0, 3, 0], [0, 3, 0, -3], [-1, -1, 1, 2], [2, -3, 2, 5]]
)
def test_borders_are_made_of_what_is_left(pads: list[int], mode: str, constant: bool) -> None:
    left = X[max(0, -pads[0]) : 3 - max(0, -pads[2]), max(0, -pads[1]) : 4 - max(0, -pads[3])]
    amounts = [(max(0, pads[i]), max(0, pads[i + 2])) for i in range(2)]
    np.testing.assert_array_equal(padded(X, pads, mode, constant), np.pad(left, amounts, mode))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(("pads", "mode"), [([-4, 0, 5, 0], "constant"), ([-3, 0, 3, 0], "reflect")])
def test_more_than_there_is_cannot_be_removed_or_mirrored(pads: list[int], mode: str, constant: bool) -> None:
    with pytest.raises(ingot.ShapeError, match="Pad"):
        padded(X, pads, mode, constant)
