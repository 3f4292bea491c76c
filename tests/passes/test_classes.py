"""Classifiers that name strings become ones that name places, with the names looked up behind them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

import ingot
from ingot.passes.classes import number_classes


def classifier(labels: dict[str, list[str] | list[int]]) -> onnx.ModelProto:
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        name="choose",
        domain="ai.onnx.ml",
        coefficients=[1.0, 0.0, 0.0, 1.0],
        intercepts=[0.0, 0.0],
        **labels,
    )
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    kind = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    results = [helper.make_tensor_value_info("label", kind, ["n"])]
    results += [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph([node], "g", [x], results)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_names_are_looked_up_behind_the_classifier() -> None:
    x = np.array([[1, 0], [0, 1], [2, 3]], np.float32)
    proto = classifier({"classlabels_strings": ["left", "right"]})
    model = ir.from_proto(proto)
    assert number_classes(model) == 1
    assert [node.op_type for node in model.graph] == ["LinearClassifier", "Constant", "Gather"]
    assert model.graph[0].name == "choose"
    assert [value.name for value in model.graph.outputs] == ["label", "scores"]
    onnx.checker.check_model(ir.to_proto(model))
    result = ingot.InferenceSession(proto).run(["label"], {"x": x})[0]
    assert result.tolist() == ["left", "right", "right"]


def test_numbers_stay() -> None:
    model = ir.from_proto(classifier({"classlabels_ints": [7, 9]}))
    assert number_classes(model) == 0
    assert [node.op_type for node in model.graph] == ["LinearClassifier"]


def test_a_node_without_a_name_keeps_that_of_its_output() -> None:
    proto = classifier({"classlabels_strings": ["left", "right"]})
    proto.graph.node[0].name = ""
    model = ir.from_proto(proto)
    assert number_classes(model) == 1
    assert model.graph[0].name == "label"
