"""Nodes whose attributes or inputs their operator does not know: one typed error that names the node."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ingot
from ingot.ops.choices import CHOICES
from tests.runtime.test_refusals import fed, ints, ones

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
