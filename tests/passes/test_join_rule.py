"""Products of one left side become one product: where that is right, and where it is left alone."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ingot.passes.rules.join import shared_left_side
from tests.passes.graphs import keeps_function, ops, parse, with_weights

RNG = np.random.default_rng(11)
INPUTS = "float[N, 6, 8] x, float[8, 12] a, float[8, 12] b, float[8, 4] c, float[12] p, float[4] q"
WEIGHTS = {
    name: RNG.standard_normal(shape).astype(np.float32)
    for name, shape in {"a": (8, 12), "b": (8, 12), "c": (8, 4), "p": (12,), "q": (4,)}.items()
}
FEEDS = [{"x": RNG.standard_normal((n, 6, 8)).astype(np.float32)} for n in (1, 3)]


def attention(first: str, last: str) -> str:
    """Queries, keys and values, each with or without a bias, into transposes."""
    return f"""agraph ({INPUTS}) => (float[N, 12, 6] r, float[N, 12, 6] s, float[N, 4, 6] t) {{
        {first}
        r = Transpose <perm = [0, 2, 1]> (k)
        v = MatMul (x, b)
        s = Transpose <perm = [0, 2, 1]> (v)
        {last}
        t = Transpose <perm = [0, 2, 1]> (z)
    }}"""


@pytest.mark.parametrize("first", ["k = MatMul (x, a)", "k0 = MatMul (x, a) \n k = Add (k0, p)"])
@pytest.mark.parametrize("last", ["z = MatMul (x, c)", "z0 = MatMul (x, c) \n z = Add (q, z0)"])
def test_three_products_become_one(first: str, last: str) -> None:
    """With biases on some, on all and on none."""
    model = with_weights(parse(attention(first, last)), **WEIGHTS)
    assert keeps_function(model, lambda m: shared_left_side(m, standard=False), FEEDS)
    kinds = ops(model)
    assert kinds.count("MatMul") == 1
    assert kinds.count("Split") == 1
    assert kinds.count("Add") == ("Add" in first or "Add" in last)


def test_a_clone_has_joined_weights_of_its_own() -> None:
    """Though its products have the same weights as those that were joined before it was made."""
    model = with_weights(parse(attention("k = MatMul (x, a)", "z = MatMul (x, c)")), **WEIGHTS)
    assert shared_left_side(model, standard=False)
    clone = model.clone()
    graph = clone.graph
    (x,), weights = graph.inputs, [graph.initializers[name] for name in "abc"]
    for number, weight in enumerate(weights):
        product = ir.node("MatMul", [x, weight])
        last = ir.node("Transpose", product.outputs, {"perm": [0, 2, 1]}, name=f"again{number}")
        graph.extend([product, last])
        graph.outputs.append(last.outputs[0])
    assert shared_left_side(clone, standard=False)
    assert all(value.graph is graph for node in graph for value in node.inputs)
    assert ops(model).count("MatMul") == 1


@pytest.mark.parametrize(
    "body",
    [
        # What computes with a product is better off as its epilogue.
        "k = MatMul (x, a) \n v = MatMul (x, b) \n g = Sigmoid (k) \n h = Mul (g, v) \n y = Reshape (h, n)",
        # A product that the caller sees, and one alone.
        "k = MatMul (x, a) \n y = Reshape (k, n)",
        # A sum with something that is no bias.
        "k = MatMul (x, a) \n v = MatMul (x, b) \n h = Add (k, v) \n y = Reshape (h, n)",
    ],
)
def test_others_stay(body: str) -> None:
    """No change where the pattern is not there."""
    text = f"agraph ({INPUTS}, int64[2] n) => (float[L, 12] y) {{ {body} }}"
    model = with_weights(parse(text), **WEIGHTS, n=np.array([-1, 12]))
    before = ops(model)
    assert shared_left_side(model, standard=False) == 0
    assert ops(model) == before


def test_layers_that_share_weights_share_the_joined_one() -> None:
    """Their weights lie side by side once, however many layers read them."""
    body = "k = MatMul (x, a) v = MatMul (x, b) f = Reshape (k, n) g = Reshape (v, n)"
    again = "t = Tanh (x) l = MatMul (t, a) w = MatMul (t, b) r = Reshape (l, n) s = Reshape (w, n)"
    text = f"agraph ({INPUTS}, int64[2] n) => (float[L, 12] y) {{ {body} {again} y = Sum (f, g, r, s) }}"
    model = with_weights(parse(text), **{**WEIGHTS, "b": WEIGHTS["a"] + 1}, n=np.array([-1, 12]))
    assert shared_left_side(model, standard=False) == 2
    first, second = (node.inputs[1] for node in model.graph if node.op_type == "MatMul")
    assert first is second


def test_files_stay_as_they_are() -> None:
    """A file would hold the weights twice for runtimes that gain nothing."""
    model = with_weights(parse(attention("k = MatMul (x, a)", "z = MatMul (x, c)")), **WEIGHTS)
    assert shared_left_side(model, standard=True) == 0
