"""What operators meant in old opsets: against onnxruntime where it still runs them, else against the words of
the specification in NumPy (onnx.reference is itself wrong for some).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import onnx.parser
import onnxruntime
import pytest

import ingot
from ingot.passes.upgrades import UPGRADES

RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = RNG.standard_normal((1, 2, 4, 6)).astype(np.float32)
LINE = np.arange(64, dtype=np.float32).reshape(1, 1, 1, 64)


def model(
    op: str, opset: int, feed: dict[str, np.ndarray], outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """One node of an old opset on the feed's arrays; a name that begins with _ is an absent input."""
    element = h.np_dtype_to_tensor_dtype
    names = ["" if name.startswith("_") else name for name in feed]
    made = [f"y{i}" for i in range(outputs)]
    schema = onnx.defs.get_schema(op, opset)
    kinds = {"IsInf": onnx.TensorProto.BOOL, "Cast": attributes.get("kind", 0)}
    attributes.pop("kind", None)
    graph = h.make_graph(
        [h.make_node(op, names, made, name="old", **attributes)],
        "g",
        [h.make_tensor_value_info(n, element(feed[n].dtype), feed[n].shape) for n in names],
        [
            h.make_tensor_value_info(
                n,
                onnx.TensorProto.BOOL
                if op == "Dropout" and opset >= 10 and i == 1
                else onnx.TensorProto.INT64
                if schema.outputs[min(i, len(schema.outputs) - 1)].type_str in ("I", "tensor(int64)")
                else kinds.get(op) or element(next(iter(feed.values())).dtype),
                None,
            )
            for i, n in enumerate(made)
        ],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=7)


def run(
    op: str, opset: int, feed: dict[str, np.ndarray], outputs: int = 1, **attributes: Any
) -> list[np.ndarray]:
    given = {name: array for name, array in feed.items() if not name.startswith("_")}
    session = ingot.InferenceSession(model(op, opset, feed, outputs, **attributes))
    return session.run(None, given)


def softmax(x: np.ndarray, axis: int, log: bool = False) -> np.ndarray:
    """Of the whole from an axis on, as opsets below 13 had it."""
    flat = x.reshape(int(np.prod(x.shape[:axis])), -1).astype(np.float64)
    e = np.exp(flat - flat.max(1, keepdims=True))
    p = (e / e.sum(1, keepdims=True)).reshape(x.shape)
    return np.log(p) if log else p


F32 = np.float32


#: operator, opsets, inputs, attributes, the meaning
MEANINGS: list[tuple[str, list[int], dict[str, Any], dict[str, Any], Any]] = [
    ("Softmax", [1, 6, 11], {"x": X}, {}, lambda: softmax(X, 1)),
    ("Softmax", [1, 11], {"x": X}, {"axis": 0}, lambda: softmax(X, 0)),
    ("Softmax", [11], {"x": X}, {"axis": -1}, lambda: softmax(X, 2)),
    ("LogSoftmax", [1, 11], {"x": X}, {}, lambda: softmax(X, 1, log=True)),
    ("Hardmax", [1, 11], {"x": X}, {}, lambda: np.eye(12)[X.reshape(2, 12).argmax(1)].reshape(X.shape)),
    ("Softmax", [1, 11], {"x": X[:, :0]}, {}, lambda: X[:, :0]),
    ("Hardmax", [1, 11], {"x": X[:, :, :0]}, {}, lambda: X[:, :, :0]),
    ("Clip", [1, 6], {"x": X}, {"min": -0.5, "max": 0.25}, lambda: np.clip(X, -0.5, 0.25)),
    ("Clip", [1, 6], {"x": X}, {"max": 0.25}, lambda: np.minimum(X, F32(0.25))),
    ("Clip", [6], {"x": np.array([np.inf, -np.inf, 1], F32)}, {}, lambda: [3.4028235e38, -3.4028235e38, 1]),
    ("Clip", [1], {"x": np.array([np.inf, -np.inf, 1], F32)}, {}, lambda: [np.inf, -np.inf, 1]),
    ("Slice", [1, 9], {"x": X}, {"starts": [1, -3], "ends": [9, -1], "axes": [1, 2]}, lambda: X[:, 1:, 1:3]),
    ("Slice", [1], {"x": X}, {"starts": [0, 1], "ends": [1, 2**31 - 1]}, lambda: X[:1, 1:]),
    ("Pad", [1], {"x": X}, {"paddings": [0, 1, 0, 0, 0, 2], "value": 7.0},
     lambda: np.pad(X, [(0, 0), (1, 0), (0, 2)], constant_values=7)),
    ("Pad", [2, 10], {"x": X}, {"pads": [0, 1, -1, 0, 0, 2], "mode": "constant"},
     lambda: np.pad(X[:, :, 1:], [(0, 0), (1, 0), (0, 2)])),
    ("Pad", [2], {"x": X}, {"pads": [0, 0, 2, 0, 0, 1], "mode": "reflect"},
     lambda: np.pad(X, [(0, 0), (0, 0), (2, 1)], "reflect")),
    ("Squeeze", [1, 11], {"x": X[:, None, :, None]}, {"axes": [1, 3]}, lambda: X),
    ("Squeeze", [1, 11], {"x": X[:, None, :, None]}, {}, lambda: X),
    ("Unsqueeze", [1, 11], {"x": X}, {"axes": [0, 3]}, lambda: X[None, :, :, None]),
    ("Dropout", [1, 6], {"x": X}, {"is_test": 1, "ratio": 0.9}, lambda: X),
    ("Dropout", [7, 10], {"x": X}, {"ratio": 0.9}, lambda: X),
    ("ReduceSum", [1, 11], {"x": X}, {"axes": [0, 2], "keepdims": 0}, lambda: X.sum((0, 2))),
    ("ReduceSum", [1, 11], {"x": X}, {}, lambda: X.sum(keepdims=True)),
    ("ReduceMax", [1, 12, 13], {"x": X}, {"axes": [1]}, lambda: X.max(1, keepdims=True)),
    ("ReduceMean", [1, 13], {"x": X}, {"axes": [2], "keepdims": 0}, lambda: X.mean(2)),
    ("ReduceL2", [1, 13], {"x": X}, {"axes": [1]}, lambda: np.sqrt((X**2).sum(1, keepdims=True))),
    ("Selu", [1], {"x": X}, {},
     lambda: np.where(X > 0, 1.0507 * X, 1.0507 * (1.6732 * np.exp(X.astype(np.float64)) - 1.6732))),
    ("Reshape", [1], {"x": X}, {"shape": [0, -1]}, lambda: X.reshape(2, 12)),
    ("Concat", [1], {"x": X, "z": X}, {}, lambda: np.concatenate([X, X], 1)),
    ("Cast", [1], {"x": X}, {"to": "INT32", "kind": onnx.TensorProto.INT32}, lambda: X.astype(np.int32)),
    ("Tile", [1, 5], {"x": X, "tiles": np.array(3, F32), "axis": np.array(1, F32)}, {},
     lambda: np.tile(X, (1, 3, 1))),
    ("OneHot", [9], {"i": np.array([0, -1, 2, 3]), "d": np.array([3]), "v": np.array([5, 9])}, {},
     lambda: np.where(np.arange(3) == np.array([[0], [-1], [2], [3]]), 9, 5)),
    ("Add", [1, 6], {"x": X, "b": X[0, :, 0]}, {"broadcast": 1, "axis": 1}, lambda: X + X[0, :, 0][:, None]),
    ("Sub", [6], {"x": X, "b": X[0]}, {"broadcast": 1}, lambda: X - X[0]),
    ("Pow", [1], {"x": np.abs(X), "b": X[:, 0, 0]}, {"broadcast": 1, "axis": 0},
     lambda: np.abs(X) ** X[:, 0, 0][:, None, None]),
    ("PRelu", [1, 6], {"x": X, "s": X[0, :, 0]}, {}, lambda: np.where(X < 0, X * X[0, :, 0][:, None], X)),
    ("Gemm", [1, 6], {"a": X[0], "b": X[1], "c": X[0, 0, :3]}, {"transB": 1, "broadcast": 1, "alpha": 0.5},
     lambda: 0.5 * X[0] @ X[1].T + X[0, 0, :3]),
    ("BatchNormalization", [1, 6],
     {"x": X, **{n: np.abs(X[0, :, i]) for i, n in enumerate("sbmv")}},
     {"is_test": 1, "epsilon": 0.5, "consumed_inputs": [0, 0, 0, 1, 1]},
     lambda: (X - np.abs(X[0, :, 2])[:, None]) / np.sqrt(np.abs(X[0, :, 3]) + 0.5)[:, None]
     * np.abs(X[0, :, 0])[:, None] + np.abs(X[0, :, 1])[:, None]),
    ("Upsample", [1], {"x": IMAGE}, {"height_scale": 2.0, "width_scale": 1.5, "mode": "nearest"},
     lambda: IMAGE.repeat(2, 2)[:, :, :, [0, 0, 1, 2, 2, 3, 4, 4, 5]]),
    ("GlobalLpPool", [1], {"x": IMAGE}, {"p": 3.0},
     lambda: (np.abs(IMAGE.astype(np.float64)) ** 3).sum((2, 3), keepdims=True) ** (1 / 3)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "opset", "feed", "attributes", "meaning"),
    [(op, opset, *rest) for op, opsets, *rest in MEANINGS for opset in opsets],
    ids=[f"{op}-{opset}-{i}" for i, (op, opsets, *_) in enumerate(MEANINGS) for opset in opsets],
)
def test_meaning(op: str, opset: int, feed: dict[str, Any], attributes: dict[str, Any], meaning: Any) -> None:
    if op == "BatchNormalization" and opset > 5:
        attributes = {key: value for key, value in attributes.items() if key != "consumed_inputs"}
    (got,) = run(op, opset, feed, **attributes)
    want = np.asarray(meaning())
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)


def test_topk_of_opset_1_and_split_by_an_input() -> None:
    values, places = run("TopK", 1, {"x": X}, 2, k=2, axis=1)
    np.testing.assert_array_equal(values, -np.sort(-X, 1)[:, :2])
    np.testing.assert_array_equal(np.take_along_axis(X, places, 1), values)
    first, second = run("Split", 1, {"x": X, "split": np.array([1, 2], F32)}, 2, axis=1)
    np.testing.assert_array_equal(first, X[:, :1])
    np.testing.assert_array_equal(second, X[:, 1:])


#: operator, opsets, inputs, attributes, outputs: onnxruntime runs these opsets.
PEER: list[tuple[str, list[int], dict[str, Any], dict[str, Any], int]] = [
    ("Softmax", [7, 11, 12, 13], {"x": X}, {}, 1),
    ("Softmax", [7, 11, 13], {"x": X}, {"axis": 2}, 1),
    ("Hardmax", [7, 11, 13], {"x": X}, {}, 1),
    ("LogSoftmax", [7, 11, 13], {"x": X}, {"axis": 0}, 1),
    ("Clip", [7, 10], {"x": X}, {"min": -0.5, "max": 0.5}, 1),
    ("TopK", [7, 9], {"x": X}, {"k": 2, "axis": 2}, 2),
    ("Slice", [7, 9], {"x": X}, {"starts": [-2, 1], "ends": [100, -1], "axes": [1, 2]}, 1),
    ("Pad", [7, 10], {"x": X}, {"pads": [0, 0, 3, 0, 0, 2], "mode": "edge"}, 1),
    ("Split", [7, 11], {"x": X}, {"axis": 2, "split": [1, 3]}, 2),
    ("Split", [7, 11], {"x": X}, {"axis": 2}, 2),
    ("Upsample", [7, 8], {"x": IMAGE}, {"scales": [1.0, 1.0, 2.0, 1.5], "mode": "nearest"}, 1),
    ("Upsample", [7, 8], {"x": IMAGE}, {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "linear"}, 1),
    ("Upsample", [9], {"x": IMAGE, "s": np.array([1, 1, 3, 1.5], F32)}, {"mode": "nearest"}, 1),
    ("Upsample", [9], {"x": IMAGE, "s": np.array([1, 1, 2, 2], F32)}, {"mode": "linear"}, 1),
    ("Resize", [10], {"x": IMAGE, "s": np.array([1, 1, 0.5, 2], F32)}, {"mode": "nearest"}, 1),
    ("Resize", [10], {"x": IMAGE, "s": np.array([1, 1, 0.75, 0.4], F32)}, {"mode": "nearest"}, 1),
    ("Resize", [10], {"x": IMAGE, "s": np.array([1, 1, 0.5, 1.5], F32)}, {"mode": "linear"}, 1),
    ("Resize", [11], {"x": IMAGE, "r": np.zeros(0, F32), "s": np.array([1, 1, 0.625, 1.75], F32)},
     {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"},
     1),
    ("Resize", [11], {"x": IMAGE, "r": np.zeros(0, F32), "s": np.array([1, 1, 0.625, 1.75], F32)},
     {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn"}, 1),
    ("Resize", [11], {"x": IMAGE, "r": np.zeros(0, F32), "s": np.array([1, 1, 0.625, 1.75], F32)},
     {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"}, 1),
    *(("Resize", [11, 13, 18], {"x": IMAGE, "r": np.zeros(0, F32), "s": np.array([1, 1, *scales], F32)},
       {"mode": mode, "coordinate_transformation_mode": "align_corners"}, 1)
      for scales in ([0.6, 0.7], [1.7, 2.4], [0.3, 0.2]) for mode in ("linear", "cubic", "nearest")),
    *(("Resize", [11, 18], {"x": IMAGE, "r": np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 0.7], F32),
                        "s": np.array([1, 1, *scales], F32)},
       {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}, 1)
      for scales in ([0.6, 0.7], [1.7, 2.4], [0.3, 0.2])),
    ("Resize", [18], {"x": IMAGE, "r": np.zeros(0, F32), "s": np.array([0.7, 1.7], F32)},
     {"mode": "linear", "coordinate_transformation_mode": "align_corners", "axes": [2, 3]}, 1),
    ("Upsample", [7, 8], {"x": LINE}, {"scales": [1.0, 1.0, 1.0, 1.7], "mode": "nearest"}, 1),
    ("Upsample", [9], {"x": LINE, "s": np.array([1, 1, 1, 1.7], F32)}, {"mode": "nearest"}, 1),
    ("Resize", [10], {"x": LINE, "s": np.array([1, 1, 1, 1.7], F32)}, {"mode": "nearest"}, 1),
    ("Resize", [10], {"x": LINE, "s": np.array([1, 1, 1, 0.3], F32)}, {"mode": "nearest"}, 1),
    ("ConvTranspose", [7, 11], {"x": IMAGE, "w": IMAGE.reshape(2, 1, 4, 6)[:, :, :3, :4]},
     {"auto_pad": "SAME_LOWER", "strides": [2, 3], "output_shape": [8, 17]}, 1),
    ("AveragePool", [7, 10, 11], {"x": IMAGE},
     {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}, 1),
    ("AveragePool", [10, 11], {"x": IMAGE}, {"kernel_shape": [3, 2], "ceil_mode": 1, "strides": [2, 3]}, 1),
    ("MaxPool", [7, 8, 10], {"x": IMAGE},
     {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, 1),
    ("LpPool", [7, 11], {"x": IMAGE}, {"kernel_shape": [2, 3], "p": 3, "strides": [2, 1]}, 1),
    ("BatchNormalization", [7, 9], {"x": X, **{n: np.abs(X[0, :, i]) for i, n in enumerate("sbmv")}}, {}, 1),
    ("Dropout", [7, 10, 12], {"x": X}, {}, 1),
    ("ReduceSum", [7, 11], {"x": X}, {"axes": [1], "keepdims": 0}, 1),
    ("ReduceLogSumExp", [7, 13], {"x": X}, {"axes": [0, 2]}, 1),
    ("Squeeze", [7, 11], {"x": X[None]}, {"axes": [0]}, 1),
    ("Scatter", [9, 10], {"x": X, "i": np.array([[[0, 2]]]), "u": np.array([[[7, 8]]], F32)}, {"axis": 2}, 1),
    ("RoiAlign", [10], {"x": IMAGE, "r": np.array([[0.5, 0.25, 4, 3]], F32), "b": np.array([0])},
     {"output_height": 2, "output_width": 3, "sampling_ratio": 2}, 1),
    ("GridSample", [16], {"x": IMAGE, "g": np.clip(IMAGE.reshape(1, 4, 6, 2) / 2, -1, 1)},
     {"mode": "bicubic", "padding_mode": "border"}, 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "opset", "feed", "attributes", "outputs"),
    [(op, opset, *rest) for op, opsets, *rest in PEER for opset in opsets],
    ids=[f"{op}-{opset}-{i}" for i, (op, opsets, *_) in enumerate(PEER) for opset in opsets],
)
def test_peer(op: str, opset: int, feed: dict[str, Any], attributes: dict[str, Any], outputs: int) -> None:
    proto = model(op, opset, feed, outputs, **attributes)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    want = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)
    for got, expected in zip(run(op, opset, feed, outputs, **attributes), want, strict=True):
        assert got.shape == expected.shape
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("opset", [1, 6, 7, 10, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_mask_of_a_dropout(opset: int, dtype: type) -> None:
    """That nothing is dropped outside of training; before opset 10 in the input's type."""
    x = X.astype(dtype)
    y, mask = run("Dropout", opset, {"x": x}, 2, **({"is_test": 1} if opset < 7 else {}))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(mask, np.ones(x.shape), strict=False)
    assert mask.dtype == (dtype if opset < 10 else np.bool_)


@pytest.mark.parametrize(
    ("op", "opset", "feed", "attributes", "words"),
    [
        ("Dropout", 6, {"x": X}, {}, "is_test is 0"),
        ("Dropout", 1, {"x": X}, {"is_test": 0}, "is_test is 0"),
        ("BatchNormalization", 6, {"x": X, **dict.fromkeys("sbmv", X[0, :, 0])}, {}, "is_test is 0"),
        ("LpPool", 1, {"x": IMAGE}, {"kernel_shape": [2, 2], "p": 2.5}, "p=2.5"),
    ],
)
def test_refused_by_name(
    op: str, opset: int, feed: dict[str, Any], attributes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ingot.UnsupportedOperatorError, match=words) as caught:
        run(op, opset, feed, **attributes)
    assert f"{op} 'old' (opset {opset})" in str(caught.value)


def test_an_operator_that_its_opset_does_not_have() -> None:
    text = """<ir_version: 8, opset_import: ["" : 6]> g (float[2] x) => (float[2] y) { y = Gelu (x) }"""
    with pytest.raises(
        ingot.UnsupportedOperatorError, match=r"Gelu 'y' \(opset 6\): Gelu came with opset 20"
    ):
        ingot.InferenceSession(onnx.parser.parse_model(text))


def test_the_main_domain_by_its_long_name() -> None:
    proto = model("Softmax", 11, {"x": X})
    proto.opset_import[0].domain = proto.graph.node[0].domain = "ai.onnx"
    (got,) = ingot.InferenceSession(proto).run(None, {"x": X})
    np.testing.assert_allclose(got, softmax(X, 1), rtol=1e-6)


@pytest.mark.parametrize(("inner", "outer"), [(11, 13), (13, 11), (11, 22)])
def test_functions_mean_what_their_own_opset_says(inner: int, outer: int) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : {outer}, "local" : 1]>
        g (float[2,3,4] x) => (float[2,3,4] y) {{ y = local.f (x) }}
        <domain: "local", opset_import: ["" : {inner}]> f (x) => (y) {{ y = Softmax (x) }}"""
    (got,) = ingot.InferenceSession(onnx.parser.parse_model(text)).run(None, {"x": X})
    np.testing.assert_allclose(got, softmax(X, 1 if inner < 13 else 2), rtol=2e-6)


#: Changes of a schema that the upgrade to a later opset takes care of, or that change no meaning.
ELSEWHERE = {
    ("Clip", 6): "the upgrade to 11 knows both defaults",
    ("Pad", 2): "the upgrade to 11 knows both names",
    ("GRU", 3): "the default direction was misspelled",
    ("Constant", 11): "the value may be another attribute, too",
    ("LpPool", 2): "the upgrade is there; the size of the kernel became required",
}


def test_every_change_of_a_schema_has_its_upgrade() -> None:
    """Attributes that are gone or have another default, and inputs that are gone, changed a meaning."""
    schemas: dict[str, dict[int, Any]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            schemas.setdefault(schema.name, {})[schema.since_version] = schema
    missing = []
    for name, versions in schemas.items():
        order = sorted(versions)
        for old, new in itertools.pairwise(order):
            before, after = versions[old], versions[new]
            defaults = [
                {k: a.default_value.SerializeToString() for k, a in schema.attributes.items()}
                for schema in (before, after)
            ]
            gone = defaults[0].keys() - defaults[1].keys() - {"consumed_inputs"}
            other = {k for k in defaults[0].keys() & defaults[1].keys() if defaults[0][k] != defaults[1][k]}
            fewer = len(before.inputs) > len(after.inputs)
            known = {entry.to for entry in UPGRADES.get(name, ())}
            if (gone or other or fewer) and new not in known and (name, new) not in ELSEWHERE:
                missing.append(f"{name} {old} -> {new}: {sorted(gone | other)}{' fewer inputs' * fewer}")
    assert not missing, "passes/upgrades.py has nothing for " + "; ".join(missing)


@pytest.mark.parametrize("between", ["", "Relu", "Softmax"])
def test_ranks_that_no_inference_of_onnx_gives(between: str) -> None:
    """Of the oldest Gemm, and of what keeps its rank, behind which a vector belongs to the rows."""
    w, b, c = (RNG.standard_normal(shape).astype(np.float32) for shape in ((5, 4), (5,), (3,)))
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    nodes = [h.make_node("Gemm", ["x", "w", "b"], ["t"], broadcast=1, transB=1)]
    if between:
        nodes.append(h.make_node(between, ["t"], ["u"]))
    nodes.append(h.make_node("Add", ["u" if between else "t", "c"], ["y"], broadcast=1, axis=0))
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(v, n) for v, n in ((w, "w"), (b, "b"), (c, "c"))],
    )
    proto = h.make_model(graph, opset_imports=[h.make_opsetid("", 5)], ir_version=3)
    t = x @ w.T + b
    if between == "Relu":
        t = np.maximum(t, 0)
    elif between:
        t = np.exp(t) / np.exp(t).sum(1, keepdims=True)
    np.testing.assert_allclose(
        ingot.InferenceSession(proto).run(None, {"x": x})[0], t + c[:, None], rtol=1e-5, atol=1e-5
    )
