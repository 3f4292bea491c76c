"""Old opsets mean what they meant: ONNX's node tests of every version, function bodies too, after
normalising.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from ingot.errors import ModelError, UnsupportedOperatorError
from ingot.ops.interpreter import interpret
from ingot.passes.opset import NEWEST, is_known, normalise
from ingot.passes.origins import ORIGINS


def parse(opset: int, text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}'))


def run(opset: int, text: str, **inputs: np.ndarray) -> np.ndarray:
    model = normalise(parse(opset, text))
    assert model.opset_imports[""] == NEWEST
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    (result,) = interpret(model, inputs).values()
    return result


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 10 - 1


def test_softmax_flattened_at_axis() -> None:
    flat = X.reshape(2, 12).astype(np.float64)
    e = np.exp(flat - flat.max(1, keepdims=True))
    expected = (e / e.sum(1, keepdims=True)).reshape(X.shape)
    got = run(11, "g (float[A, B, C] x) => (float[A, B, C] y) { y = Softmax <axis = 1> (x) }", x=X)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    e = np.exp(X.astype(np.float64) - X.max(-1, keepdims=True))
    got = run(11, "g (float[A, B, C] x) => (float[A, B, C] y) { y = Softmax <axis = 2> (x) }", x=X)
    np.testing.assert_allclose(got, e / e.sum(-1, keepdims=True), rtol=1e-6)


def test_attributes_become_inputs() -> None:
    got = run(
        9,
        "g (float[A, B, C] x) => (float[D, E, F] y) { y = Slice <starts = [1], ends = [3], axes = [2]> (x) }",
        x=X,
    )
    np.testing.assert_array_equal(got, X[:, :, 1:3])
    got = run(
        10,
        "g (float[A, B, C] x) => (float[D, E, F] y) { y = Pad <pads = [0,1,0,0,0,2], value = 7.0> (x) }",
        x=X,
    )
    np.testing.assert_array_equal(got, np.pad(X, [(0, 0), (1, 0), (0, 2)], constant_values=7))
    got = run(6, "g (float[A, B, C] x) => (float[A, B, C] y) { y = Clip <min = -0.5, max = 0.5> (x) }", x=X)
    np.testing.assert_array_equal(got, np.clip(X, -0.5, 0.5))
    got = run(
        11, "g (float[A, B, C] x) => (float[D, E] y) { y = ReduceMean <axes = [1], keepdims = 0> (x) }", x=X
    )
    np.testing.assert_allclose(got, X.mean(1), rtol=1e-6)
    got = run(
        11,
        "g (float[A, B, C] x) => (float[D, E, F] y) { t = Unsqueeze <axes = [0]> (x) y = "
        "Squeeze <axes = [0]> (t) }",
        x=X,
    )
    np.testing.assert_array_equal(got, X)
    got = run(9, "g (float[A, B, C] x) => (float[A, B, D] v) { v, i = TopK <k = 2, axis = 2> (x) }", x=X)
    np.testing.assert_array_equal(got, np.sort(X, 2)[:, :, :-3:-1])
    got = run(
        11, "g (float[A, B, C] x) => (float[A, B, D] a) { a, b = Split <axis = 2, split = [1, 3]> (x) }", x=X
    )
    np.testing.assert_array_equal(got, X[:, :, :1])
    got = run(11, "g (float[A, B, C] x) => (float[A, B, D] a) { a, b = Split <axis = 2> (x) }", x=X)
    np.testing.assert_array_equal(got, X[:, :, :2])
    got = run(1, "g (float[A, B, C] x) => (float[D, E] y) { y = Reshape <shape = [2, 12]> (x) }", x=X)
    np.testing.assert_array_equal(got, X.reshape(2, 12))


def test_old_broadcast_at_axis() -> None:
    b = np.array([1, 2, 3], np.float32)
    text = (
        "g (float[2, 3, 4] x, float[3] b) => (float[2, 3, 4] y) { y = Add <broadcast = 1, axis = 1> (x, b) }"
    )
    np.testing.assert_array_equal(run(6, text, x=X, b=b), X + b[:, None])
    text = "g (float[2, 3, 4] x, float[3] b) => (float[2, 3, 4] y) { y = PRelu (x, b) }"
    np.testing.assert_allclose(run(6, text, x=X, b=b), np.where(X < 0, X * b[:, None], X))


def test_upsample_and_resize() -> None:
    image = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4) + 1
    up = image.repeat(2, 2).repeat(3, 3)
    text = (
        'g (float[N,C,H,W] x) => (float[N,C,I,J] y) { y = Upsample <mode = "nearest", scales '
        "= [1.0,1.0,2.0,3.0]> (x) }"
    )
    np.testing.assert_array_equal(run(7, text, x=image), up)
    text = "g (float[N,C,H,W] x, float[4] s) => (float[N,C,I,J] y) { y = Upsample (x, s) }"
    np.testing.assert_array_equal(run(9, text, x=image, s=np.array([1, 1, 2, 3], np.float32)), up)
    text = "g (float[N,C,H,W] x, float[4] s) => (float[N,C,I,J] y) { y = Resize (x, s) }"
    got = run(10, text, x=image, s=np.array([1, 1, 0.6, 0.6], np.float32))
    np.testing.assert_array_equal(got, [[[[1, 3]]]])
    mixed = run(10, text, x=image, s=np.array([1, 1, 2, 0.6], np.float32))
    np.testing.assert_array_equal(mixed, [[[[1, 3], [1, 3], [5, 7], [5, 7]]]])


def test_group_norm_scales_by_group() -> None:
    text = """g (float[N, 4, L] x, float[2] s, float[2] b) => (float[N, 4, L] y) {
        y = GroupNormalization <num_groups = 2> (x, s, b) }"""
    x = np.random.default_rng(0).standard_normal((2, 4, 5)).astype(np.float32)
    s, b = np.array([2, 3], np.float32), np.array([-1, 1], np.float32)
    groups = x.reshape(2, 2, 10).astype(np.float64)
    y = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        run(18, text, x=x, s=s, b=b), (y * s[:, None] + b[:, None]).reshape(x.shape), rtol=1e-5
    )


def test_functions_are_inlined() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N] x) => (float[N] y) { y = local.twice (x) }
        <domain: "local", opset_import: ["" : 17]> twice (x) => (y) { y = Add (x, x) }""")
    )
    normalise(model)
    assert not model.functions
    np.testing.assert_array_equal(interpret(model, {"x": X[0, 0]})["y"], 2 * X[0, 0])


@pytest.mark.parametrize(
    ("opset", "text", "words"),
    [
        (
            8,
            "g (float[A, 3] x, float[3] s) => (float[A, 3] y) { y = BatchNormalization "
            "<spatial = 0> (x, s, s, s, s) }",
            "spatial=0",
        ),
        (
            11,
            "g (float[A,B,C,D] x, float[8] r, float[4] s) => (float[E,F,G,H] y) { y = Resize "
            '<coordinate_transformation_mode = "tf_half_pixel_for_nn", mode = "linear"> (x, r, s) }',
            "tf_half_pixel_for_nn",
        ),
    ],
)
def test_refusals_name_node_operator_and_opset(opset: int, text: str, words: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=words) as caught:
        normalise(parse(opset, text))
    assert f"(opset {opset})" in str(caught.value)
    assert "'y'" in str(caught.value)


def test_no_opset() -> None:
    model = parse(18, "g (float[N] x) => (float[N] y) { y = Abs(x) }")
    del model.graph.opset_imports[""]
    with pytest.raises(ModelError, match="opset_import"):
        normalise(model)


def test_types_are_inferred_only_where_they_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inferring writes the whole model and reads it again."""

    class Inferred(Exception):
        pass

    def infer(*_: object, **__: object) -> None:
        raise Inferred

    monkeypatch.setattr("ingot.passes.opset.common.ShapeInferencePass", infer)
    text = "g (float[A] x) => (float[A] y) {{ t = {first} (x)  y = {second} (t) }}"
    clip = "Clip <min = -0.5, max = 0.5>"
    normalise(parse(6, text.format(first="Identity", second="Softmax")))
    normalise(parse(6, text.format(first=clip, second="Identity")))
    with pytest.raises(Inferred):
        normalise(parse(6, text.format(first="Identity", second=clip)))


def test_softmax_of_unknown_rank() -> None:
    text = "g (float[A, B, C] x) => (float[A, B, C] y) { t = Neg (x)  y = Softmax <axis = 1> (t) }"
    flat = -X.reshape(2, 12).astype(np.float64)
    e = np.exp(flat - flat.max(1, keepdims=True))
    got = run(11, text, x=X)
    np.testing.assert_allclose(got, (e / e.sum(1, keepdims=True)).reshape(X.shape), rtol=1e-6)


def test_operators_are_known_from_the_opset_on_that_onnx_says() -> None:
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    origins = {
        name: min(s.since_version for s in schemas if s.name == name) for name in {s.name for s in schemas}
    }
    missing = sorted(origins.items() ^ ORIGINS.items())
    assert not missing, f"write passes/origins.py anew for this onnx: {missing}"
    for name in origins:
        for version in range(1, NEWEST + 1):
            try:
                onnx.defs.get_schema(name, version)
                has = True
            except onnx.defs.SchemaError:
                has = False
            assert is_known(name, version) == has, (name, version)
    assert is_known("NobodysOperator", 1)  # an error that says more comes later
