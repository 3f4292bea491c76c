"""ONNX's backend interface: what it takes, gives and refuses. The suite itself runs in tests/conformance."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as h
import pytest

import ingot
import ingot.backend

X = np.array([1, -2, 3], np.float32)


def model(op: str = "Relu", domain: str = "") -> onnx.ModelProto:
    value = h.make_tensor_value_info
    graph = h.make_graph(
        [h.make_node(op, ["x"], ["1.y"], domain=domain)],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [3])],
        [value("1.y", onnx.TensorProto.FLOAT, [3])],
    )
    opsets = [h.make_opsetid("", 22)] + ([h.make_opsetid(domain, 1)] if domain else [])
    return h.make_model(graph, opset_imports=opsets)


def test_prepare_and_run() -> None:
    prepared = ingot.backend.prepare(model())
    assert isinstance(prepared, onnx.backend.base.BackendRep)
    for inputs in ([X], X, {"x": X}):
        outputs = prepared.run(inputs)
        assert isinstance(outputs, tuple)
        np.testing.assert_array_equal(outputs[0], np.maximum(X, 0))
        np.testing.assert_array_equal(outputs["1.y"], outputs[0])
    np.testing.assert_array_equal(ingot.backend.run_model(model(), [X])[0], np.maximum(X, 0))


def test_run_node() -> None:
    add = h.make_node("Add", ["x", "x"], ["y"])
    np.testing.assert_array_equal(ingot.backend.run_node(add, [X, X])["y"], 2 * X)
    square = np.ones((2, 3, 4), np.float32)
    softmax = h.make_node("Softmax", ["x"], ["y"], axis=1)
    np.testing.assert_allclose(ingot.backend.run_node(softmax, [square])[0], square / 3, rtol=1e-6)
    old = ingot.backend.run_node(softmax, [square], opset_version=11)
    np.testing.assert_allclose(old[0], square / 12, rtol=1e-6)
    at = h.make_node("SequenceAt", ["s", "i"], ["y"])
    np.testing.assert_array_equal(ingot.backend.run_node(at, [[X, 2 * X], np.array(1)])[0], 2 * X)
    encode = h.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", keys_int64s=[1], values_int64s=[5]
    )
    np.testing.assert_array_equal(ingot.backend.run_node(encode, [np.array([1])])[0], [5])


def test_devices() -> None:
    assert ingot.backend.supports_device("CPU")
    assert ingot.backend.supports_device("CPU:0")
    assert not ingot.backend.supports_device("CUDA")
    assert not ingot.backend.supports_device("TPU")
    with pytest.raises(ingot.ProviderError, match="CUDA"):
        ingot.backend.prepare(model(), "CUDA:1")


def test_what_is_not_known_is_not_compatible() -> None:
    assert ingot.backend.is_compatible(model())
    assert not ingot.backend.is_compatible(model("Unheard", "of.it"))
    with pytest.raises(ingot.UnsupportedOperatorError, match="Unheard"):
        ingot.backend.prepare(model("Unheard", "of.it"))


def test_wrong_use() -> None:
    with pytest.raises(ingot.InputError, match="2 inputs were given; the model wants 1: x"):
        ingot.backend.prepare(model()).run([X, X])
    with pytest.raises(ingot.ModelError, match="not valid ONNX"):
        ingot.backend.prepare(onnx.ModelProto())
    for given in (None, "model.onnx"):
        wanted = rf"ModelProto is wanted.*type {type(given).__name__}\. onnx\.load"
        with pytest.raises(ingot.ModelError, match=wanted):
            ingot.backend.prepare(given)
