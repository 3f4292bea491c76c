"""Nodes whose attributes or inputs their operator does not know: one typed error that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ingot
from ingot.ops.choices import CHOICES
from tests.runtime.test_refusals import F32, fed, ints, ones

X = ones(1, 4, 6, 6)


@pytest.mark.parametrize(("op", "name"), [(op, name) for op, names in CHOICES.items() for name in names])
def test_words_that_an_operator_does_not_know(op: str, name: str) -> None:
    """None is taken for another one; the session is not made."""
    model, _ = fed(op, [X, X], **{name: "bogus"})
    model.opset_import[0].version = 28
    with pytest.raises(ingot.ModelError, match=f"{op} .*'{name}' is 'bogus', and must be one of"):
        ingot.InferenceSession(model)


@pytest.mark.parametrize("op", ["Conv", "MaxPool", "Resize", "ScatterND", "GRU"])
def test_words_are_checked_without_passes(op: str) -> None:
    options = ingot.SessionOptions()
    options.graph_optimization_level = ingot.GraphOptimizationLevel.ORT_DISABLE_ALL
    model, _ = fed(op, [X, X], **{next(iter(CHOICES[op])): "bogus"})
    with pytest.raises(ingot.ModelError, match=op):
        ingot.InferenceSession(model, options)


WRONG: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "integers in a convolution": ("Conv", [ones(1, 4, 6, 6, dtype=np.int8), ones(4, 4, 3, 3)], {}),
    "two dtypes in a convolution": ("ConvTranspose", [X, ones(4, 1, 3, 3, dtype=np.float64)], {}),
    "two dtypes in a product": ("MatMul", [ints(1, 2), ones(2, dtype=np.int32)], {}),
    "updates of another dtype": (
        *("ScatterElements", [ones(3, 3), ints(0, 0, 0).reshape(1, 3), ones(1, 3, dtype=np.float64)]),
        {},
    ),
    "places that are floats": ("MaxUnpool", [X, X], {"kernel_shape": [2, 2]}),
    "an axis of a scalar": ("Compress", [np.array(1.0), np.array([True])], {"axis": 0}),
    "a negative size": ("Expand", [np.array(1.0), ints(-2, 3)], {}),
    "more than addresses": ("Pad", [ones(2, 2), ints(2**40, 2**40, 0, 0)], {}),
    "a range of doubles": ("DynamicQuantizeLinear", [ones(3, dtype=np.float64)], {"outputs": 3}),
    "no scale": ("QLinearMatMul", [ones(2, 2, dtype=np.int8), None, *[ones()] * 6], {}),
    "no tensor to insert": ("SequenceInsert", [ones(2), None, ints(0)], {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_inputs_that_an_operator_does_not_take(name: str) -> None:
    op, arrays, attributes = WRONG[name]
    model, feeds = fed(op, arrays, **attributes)
    with pytest.raises(ingot.IngotError, match=f"{op} "):
        ingot.InferenceSession(model).run(None, feeds)


def test_what_stands_for_an_old_node_names_it() -> None:
    """The file has no Flatten."""
    model, feeds = fed("Softmax", [ones(2, 3)], axis=7)
    model.opset_import[0].version = 11
    with pytest.raises(ingot.IngotError, match="Softmax"):
        ingot.InferenceSession(model).run(None, feeds)


def fixed(model: onnx.ModelProto, feeds: dict[str, np.ndarray[Any, Any]], name: str) -> None:
    """An input becomes an initializer."""
    model.graph.initializer.append(numpy_helper.from_array(feeds.pop(name), name))
    model.graph.input.remove(next(v for v in model.graph.input if v.name == name))


def test_another_number_of_values_than_a_body_has() -> None:
    """Known when the session is made."""
    body = helper.make_graph(
        [helper.make_node("Identity", [n], [f"{n}_out"]) for n in ("live", "a")],
        "body",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (("i", 7, []), ("live", 9, []), ("a", 1, [2]))
        ],
        [helper.make_tensor_value_info("live_out", 9, []), helper.make_tensor_value_info("a_out", 1, [2])],
    )
    model, _ = fed("Loop", [ints(3)[0], None, X, X], outputs=2, body=body)
    with pytest.raises(ingot.ModelError, match=r"Loop .*its body takes 3 values, and the node has 4 for it"):
        ingot.InferenceSession(model)


def test_more_than_memory() -> None:
    """A result, and an input that is small only where it lies."""
    model, feeds = fed("Expand", [np.zeros(1, F32), ints(2**44)])
    fixed(model, feeds, "input_1")
    with pytest.raises(ingot.ShapeError, match=r"Expand .*float32 \[17592186044416\] takes"):
        ingot.InferenceSession(model).run(None, feeds)
    model, _ = fed("Neg", [ones(1, 1)])
    wide = np.broadcast_to(np.zeros(1, F32), (2**42, 4))
    with pytest.raises(ingot.InputError, match=r"'input_0' has shape .* more than there is memory for"):
        ingot.InferenceSession(model).run(None, {"input_0": wide})
