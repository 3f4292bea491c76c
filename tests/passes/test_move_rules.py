"""Elementwise operators that pass what only moves elements, and parts that are joined again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

import ingot
from ingot.passes.rules.move import function_of_moved, sum_with_transposed
from ingot.passes.rules.shape import concat_of_split
from tests.passes.graphs import parse, with_weights
from tests.passes.test_rules import applies, does_not_match, f32, refuses


def network(body: str, inputs: str = "float[N, 3, 8] x") -> ir.Model:
    text = f"g ({inputs}, float[8, 6] w, int64[3] s) => (float[a, b, c] y) {{\n{body}\n}}"
    return with_weights(parse(text), w=f32(8, 6), s=np.array([0, 2, -1], np.int64))


def test_a_function_passes_transpose_and_reshape() -> None:
    body = """m = MatMul (x, w)
    t = Transpose <perm = [0, 2, 1]> (m)
    r = Reshape (t, s)
    y = LeakyRelu <alpha = 0.25> (r)"""
    model = network(body)
    expected = ["MatMul", "LeakyRelu", "Transpose", "Reshape"]
    applies(function_of_moved, model, expected, {"x": f32(2, 3, 8)}, {"x": f32(1, 3, 8)}, standard=False)


def test_a_function_stays() -> None:
    moved = "t = Transpose <perm = [0, 2, 1]> (x)\n y = Relu (t)"
    refuses(function_of_moved, network(moved), "no product", standard=False)
    twice = "m = MatMul (x, w)\n t = Transpose <perm = [0, 2, 1]> (m)\n r = Relu (t)\n y = Mul (r, t)"
    refuses(function_of_moved, network(twice), "no product", standard=False)
    once = "m = MatMul (x, w)\n t = Transpose <perm = [0, 2, 1]> (m)\n y = Relu (t)"
    does_not_match(function_of_moved, network(once))  # a file keeps its order


RESIDUAL = """m = MatMul (x, w)
    t = Transpose <perm = [2, 0, 1]> (m)
    y = Add (t, r)"""
WITH_RESIDUAL = "float[N, 3, 8] x, float[P, Q, R] r"


def test_a_sum_passes_a_transpose() -> None:
    model = network(RESIDUAL, WITH_RESIDUAL)
    feeds = [{"x": f32(2, 3, 8), "r": f32(6, 2, 3)}, {"x": f32(2, 3, 8), "r": f32(1, 2, 1)}]
    applies(sum_with_transposed, model, ["MatMul", "Transpose", "Add", "Transpose"], *feeds, standard=False)
    assert sum_with_transposed(model, standard=False) == 0  # it does not go back


def test_a_sum_stays() -> None:
    refuses(
        sum_with_transposed,
        network(RESIDUAL, "float[N, 3, 8] x, float[Q, R] r"),
        "dimensions",
        standard=False,
    )
    both = "m = MatMul (x, w)\n t = Transpose <perm = [0, 2, 1]> (m)\n n = MatMul (v, w)\n y = Add (n, t)"
    refuses(
        sum_with_transposed,
        network(both, "float[N, 3, 8] x, float[N, 6, 8] v"),
        "takes the sum",
        standard=False,
    )
    does_not_match(sum_with_transposed, network(RESIDUAL, WITH_RESIDUAL))


def test_the_product_takes_them() -> None:
    """One kernel where there were two, beside a copy to the order of the output."""
    model = network(RESIDUAL, WITH_RESIDUAL)
    weight = model.graph.initializers["w"].const_value
    assert weight is not None
    session = ingot.InferenceSession(ir.to_proto(model))
    feed = {"x": f32(2, 3, 8), "r": f32(6, 2, 3)}
    (got,) = session.run(None, feed)
    want = (feed["x"].astype(np.float64) @ weight.numpy()).transpose(2, 0, 1) + feed["r"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    assert len(session.profile_kernels(feed)) <= 2


SPLIT = "a, b = Split <axis = 1, num_outputs = 2> (x)\n"


def test_parts_in_their_order_are_the_whole() -> None:
    text = "g (float[N, 4, 3] x, float[N, 2, 3] z) => (float[N, P, 3] y, float[N, 2, 3] w) {\n"
    body = SPLIT + "y = Concat <axis = -2> (z, a, b, z, a)\n w = Neg (b)\n}"
    model = parse(text + body)
    applies(concat_of_split, model, ["Split", "Concat", "Neg"], {"x": f32(2, 4, 3), "z": f32(2, 2, 3)})
    (concat,) = [node for node in model.graph if node.op_type == "Concat"]
    assert len(concat.inputs) == 4


def test_other_parts_stay() -> None:
    text = "g (float[N, 4, 4] x) => (float[N, P, Q] y) {\n" + SPLIT
    does_not_match(concat_of_split, parse(text + "y = Concat <axis = 1> (b, a)\n}"))
    does_not_match(concat_of_split, parse(text + "y = Concat <axis = 1> (a, a)\n}"))
    refuses(concat_of_split, parse(text + "y = Concat <axis = 2> (a, b)\n}"), "another axis")
