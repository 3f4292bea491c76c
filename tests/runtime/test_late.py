"""Nodes that make strings and maps for the caller alone run behind the one plan of all others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ingot

NAMES = np.array(["red", "green", "blue"], object)


def classifier() -> ingot.InferenceSession:
    """The label comes before what the plan computes behind it."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "best"], ["label"]),
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("ZipMap", ["p"], ["maps"], domain="ai.onnx.ml", classlabels_strings=list(NAMES)),
    ]
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    )
    x, p = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xp")
    label = helper.make_tensor_value_info("label", TensorProto.STRING, ["n"])
    outputs = [label, helper.make_value_info("maps", maps), p, label, x]
    names = helper.make_tensor("names", TensorProto.STRING, [3], [name.encode() for name in NAMES])
    graph = helper.make_graph(nodes, "g", [x], outputs, [names])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return ingot.InferenceSession(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def check(session: ingot.InferenceSession, rows: int, seed: int) -> list[Any]:
    x = np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32)
    before = x.copy()
    found: list[Any] = session.run(None, {"x": x})
    label, maps, p, twin, same = found
    powers = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(p, powers / powers.sum(1, keepdims=True), rtol=1e-5)
    assert label.tolist() == twin.tolist() == NAMES[x.argmax(1)].tolist()
    assert maps == [dict(zip(NAMES, row, strict=True)) for row in p.tolist()]
    np.testing.assert_array_equal(same, before)
    label[...], p[...], same[...] = "none", 7, 7
    assert twin.tolist() == NAMES[x.argmax(1)].tolist(), "each output is an array of its own"
    np.testing.assert_array_equal(x, before, "no output is the caller's array")
    return found


def test_runs_of_the_same_and_of_other_shapes() -> None:
    session = classifier()
    for number, rows in enumerate([1, 1, 1, 4, 4, 1, 0, 0, 4, 1]):
        check(session, rows, number)


def test_there_is_one_plan_and_it_comes_first() -> None:
    session = classifier()
    feed = {"x": np.ones((2, 3), np.float32)}
    kinds = {profile.op_type: profile.kind for profile in session.profile(feed, 1)}
    assert kinds["Softmax"] == kinds["ArgMax"] == "native"
    assert [profile.op_type for profile in session.profile(feed, 1)][-2:] == ["Gather", "ZipMap"]


def test_concurrent_runs() -> None:
    session = classifier()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: check(session, 1 + seed % 3, seed), range(60)))


def test_an_index_that_is_outside_is_refused_in_each_run() -> None:
    node = helper.make_node("Gather", ["names", "i"], ["label"])
    names = numpy_helper.from_array(NAMES.astype(object), "names")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["n"])], [names],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    session = ingot.InferenceSession(model)
    for wrong in (3, -4):
        assert session.run(None, {"i": np.array([-1])})[0].tolist() == ["blue"]
        with pytest.raises(ingot.InputError, match=f"index {wrong} is outside a dimension of 3"):
            session.run(None, {"i": np.array([wrong])})
