"""Derivatives against differences: each rule, at another place than the graph's own values too."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import ingot


def model(
    body: str, inputs: str, xs: list[str], zs: list[str] = (), at: list[str] | None = None
) -> onnx.ModelProto:
    """A model with y = `body` and the derivatives of its sum."""
    names = [*xs, *zs]
    outs = ", ".join(f"float[] d{x}" for x in xs)
    quoted = [", ".join(f'"{x}"' for x in part) for part in (xs, zs)]
    text = f"""<ir_version: 8, opset_import: ["" : 18, "ai.onnx.preview.training" : 1]>
    g ({inputs}) => (float[] s, {outs}) {{
        {body}
        s = ReduceSum <keepdims = 0> (y)
        {", ".join(f"d{x}" for x in xs)} = ai.onnx.preview.training.Gradient
            <xs = [{quoted[0]}], {f"zs = [{quoted[1]}]," if zs else ""} y = "s"> ({", ".join(at or names)})
    }}"""
    made = onnx.parser.parse_model(text)
    for output in made.graph.output:
        output.type.tensor_type.ClearField("shape")
    return made


def differences(session: ingot.InferenceSession, feed: dict[str, np.ndarray], name: str) -> np.ndarray:
    result = np.zeros_like(feed[name], np.float64)
    for place in np.ndindex(feed[name].shape):
        step = np.zeros_like(feed[name])
        step[place] = 2**-7
        high, low = (session.run(["s"], feed | {name: feed[name] + sign * step})[0] for sign in (1, -1))
        result[place] = (float(high) - float(low)) / 2**-6
    return result


RULES = [
    "y = Add (a, b)", "y = Sub (a, b)", "y = Mul (a, b)", "y = Div (a, b)", "y = Pow (a, b)",
    "y = Sum (a, b, a)", "t = Exp (a) y = Mul (t, b)", "t = Log (a) y = Mul (t, b)",
    "t = Sqrt (a) u = Reciprocal (b) y = Mul (t, u)", "t = Tanh (a) u = Sigmoid (b) y = Mul (t, u)",
    "t = Sin (a) u = Cos (b) y = Mul (t, u)", "t = Erf (a) u = Softplus (b) y = Mul (t, u)",
    "n = Neg (b) u = Relu (n) v = LeakyRelu <alpha = 0.25> (n) w = Abs (n) t = Add (u, v) q = Add (t, w) "
    "y = Mul (q, a)",
    "t = Softmax <axis = 1> (a) y = Mul (t, b)", "c = Greater (a, b) y = Where (c, a, b)",
    "t = Transpose <perm = [1, 0]> (a) u = Transpose (t) y = Mul (u, b)",
    "n = Constant <value_ints = [3, 2]> () t = Reshape (a, n) f = Flatten <axis = 0> (t) "
    "k = Constant <value_ints = [2, 3]> () u = Reshape (f, k) y = Mul (u, b)",
    "n = Constant <value_ints = [0]> () t = Unsqueeze (a, n) u = Squeeze (t, n) y = Mul (u, b)",
    "n = Constant <value_ints = [2, 3]> () t = Expand (b, n) y = Mul (a, t)",
    "n = Constant <value_ints = [1]> () t = ReduceSum <keepdims = 0> (a, n) u = ReduceMean (a, n) "
    "v = ReduceMean (a) p = Mul (a, u) q = Mul (p, b) r = ReduceSum (t) w = Mul (r, v) y = Add (q, w)",
    "t = Transpose (a) m = MatMul (a, t) k = Identity (b) u = MatMul (m, a) y = Mul (u, k)",
    "t = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (a, a) u = Gemm <transA = 1> (a, a, b) v = MatMul (t, a) "
    "w = MatMul (v, u) y = Mul (w, b)",
]  # fmt: skip


@pytest.mark.parametrize("body", RULES)
def test_rules(body: str) -> None:
    rng = np.random.default_rng(3)
    feed = {
        "a": rng.uniform(0.5, 1.5, (2, 3)).astype(np.float32),
        "b": rng.uniform(0.5, 1.5, 3).astype(np.float32),
    }
    session = ingot.InferenceSession(model(body, "float[2, 3] a, float[3] b", ["a", "b"]))
    _, *got = session.run(None, feed)
    for name, array in zip(feed, got, strict=True):
        want = differences(session, feed, name)
        assert array.shape == want.shape
        np.testing.assert_allclose(array, want, rtol=0, atol=2e-3 * np.abs(want).max() + 1e-4)


def test_at_another_place_and_of_what_nothing_depends_on() -> None:
    proto = model(
        "y = Mul (a, b)", "float[n] a, float[n] b, float[n] p, float[n] q", ["a"], ["b"], ["p", "q"]
    )
    array = np.array([1, 2], np.float32)
    feed = {name: array * scale for scale, name in enumerate("abpq", 1)}
    np.testing.assert_array_equal(ingot.InferenceSession(proto).run(["da"], feed)[0], feed["q"])
    proto = model("y = Mul (a, a)", "float[n] a, float[n] b", ["a", "b"])
    _, da, db = ingot.InferenceSession(proto).run(None, {"a": array, "b": array})
    np.testing.assert_array_equal(da, 2 * array)
    np.testing.assert_array_equal(db, 0 * array)


def test_an_operator_without_a_rule_is_named() -> None:
    proto = model("y = Floor (a)", "float[n] a", ["a"])
    with pytest.raises(ingot.UnsupportedOperatorError, match="derivative of Floor"):
        ingot.InferenceSession(proto)
