"""The batched Scan of opset 8 against onnxruntime: with and without lengths, forwards and backwards."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as h
import onnxruntime
import pytest

import ingot


def value(name: str, *dims: int, kind: int = onnx.TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return h.make_tensor_value_info(name, kind, list(dims))


@pytest.mark.parametrize("lengths", [None, [4, 2, 1], [3, 1, 4]])
@pytest.mark.parametrize("directions", [[0, 0], [1, 0], [1, 1]])
def test_scan_over_a_batch(lengths: list[int] | None, directions: list[int]) -> None:
    body = h.make_graph(
        [
            h.make_node("Mul", ["x", "w"], ["t"]),
            h.make_node("Add", ["s", "t"], ["s2"]),
            h.make_node("Sub", ["s2", "u"], ["o"]),
        ],
        "body",
        [value("s", 2), value("x", 2), value("u", 2)],
        [value("s2", 2), value("o", 2)],
    )
    inputs = [value("s0", 3, 2), value("xs", 3, 4, 2), value("us", 3, 4, 2), value("w", 2)]
    if lengths is not None:
        inputs.append(value("n", 3, kind=onnx.TensorProto.INT64))
    first = "" if lengths is None else "n"
    node = h.make_node(
        *("Scan", [first, "s0", "xs", "us"], ["last", "all"]),
        body=body,
        num_scan_inputs=2,
        directions=directions,
    )
    graph = h.make_graph([node], "g", inputs, [value("last", 3, 2), value("all", 3, 4, 2)])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 8)], ir_version=3)
    rng = np.random.default_rng(0)
    feed = {
        v.name: rng.standard_normal([d.dim_value for d in v.type.tensor_type.shape.dim]).astype(np.float32)
        for v in inputs[:4]
    }
    if lengths is not None:
        feed["n"] = np.array(lengths)
    want = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    for got, expected in zip(ingot.InferenceSession(model).run(None, feed), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
