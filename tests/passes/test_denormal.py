"""Denormal numbers in biases: gone where larger ones stand beside them, kept where nothing else is there."""

from __future__ import annotations

import numpy as np
import pytest

from ingot.passes.denormal import flush_biases
from ingot.passes.edit import constant_of
from tests.passes.graphs import keeps_function, parse, with_weights

TEXT = """g (float[1, 2, 5] x, float[4, 2, 1] w, float[4] b) => (float[1, 4, 5] y) {
    y = Conv (x, w, b)
}"""
RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 2, 5)).astype(np.float32)
W = RNG.standard_normal((4, 2, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("bias", "wanted"),
    [
        ([1.0, 1e-40, -1e-39, 2e-38], [1.0, 0.0, 0.0, 2e-38]),
        ([1e-40, -1e-39, 0.0, 2e-38], None),  # nothing large
        ([1.0, 0.0, -2.0, 3e-30], None),  # nothing denormal
    ],
)
def test_biases(bias: list[float], wanted: list[float] | None) -> None:
    model = with_weights(parse(TEXT), w=W, b=np.array(bias, np.float32))
    count = keeps_function(model, flush_biases, [{"x": X}])
    assert count == (wanted is not None)
    found = constant_of(model.graph.node(0).inputs[2])
    np.testing.assert_array_equal(found, np.array(bias if wanted is None else wanted, np.float32))


def test_biases_of_matrix_products() -> None:
    """What is added to a product is a bias, on either side; what is added to anything else is not."""
    text = """g (float[3, 2] x, float[2, 4] w, float[4] b) => (float[3, 4] y, float[3, 4] z, float[3, 4] u) {
        p = MatMul (x, w) y = Add (b, p) z = Add (p, b) r = Relu (p) u = Add (r, b)
    }"""
    bias = np.array([1.0, 1e-40, -1e-39, 2.0], np.float32)
    model = with_weights(parse(text), w=W[..., 0].T, b=bias)
    assert keeps_function(model, flush_biases, [{"x": X[0].T[:3]}]) == 2
    adds = [node for node in model.graph if node.op_type == "Add"]
    found = [constant_of(v) for node in adds for v in node.inputs if constant_of(v) is not None]
    for array, wanted in zip(found, ([1, 0, 0, 2], [1, 0, 0, 2], bias), strict=True):
        np.testing.assert_array_equal(array, np.array(wanted, np.float32))


def test_a_bias_that_is_no_constant_stays() -> None:
    assert flush_biases(with_weights(parse(TEXT), w=W)) == 0
