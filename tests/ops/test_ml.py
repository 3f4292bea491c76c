"""The operators of ai.onnx.ml against onnxruntime, over their attributes: by kernels and by definition."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto as T
from onnx import helper

import ingot
from ingot.ops.interpreter import interpret

Feed = dict[str, np.ndarray]
X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
WORDS = np.array([["a", "b", "zz"], ["b", "c", "a"]], object)
NUMBERS = np.array([[1, 2, 3]], np.int64)


def kind_of(array: np.ndarray) -> int:
    return T.STRING if array.dtype == object else int(helper.np_dtype_to_tensor_dtype(array.dtype))


def model(
    op: str, feed: Feed, outputs: Sequence[int], version: int = 1, **attributes: Any
) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, kind_of(a), ["N", *a.shape[1:]]) for name, a in feed.items()
    ]
    results = [helper.make_tensor_value_info(f"o{i}", kind, None) for i, kind in enumerate(outputs)]
    node = helper.make_node(op, list(feed), [v.name for v in results], domain="ai.onnx.ml", **attributes)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", version)]
    graph = helper.make_graph([node], "g", inputs, results)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def same(got: np.ndarray, want: np.ndarray) -> None:
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    if want.dtype.kind == "f":
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
    else:
        assert got.tolist() == want.tolist()


def compare(op: str, feed: Feed, outputs: Sequence[int], version: int = 1, **attributes: Any) -> str:
    """Both ways of computing it equal onnxruntime's; returns which way the session takes."""
    proto = model(op, feed, outputs, version, **attributes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    want = onnxruntime.InferenceSession(proto.SerializeToString(), options).run(None, feed)
    session = ingot.InferenceSession(proto)
    for got in (session.run(None, feed), list(interpret(ir.from_proto(proto), feed).values())):
        for a, b in zip(got, want, strict=True):
            same(a, b)
    return next(node.kind for node in session.profile(feed, 1) if node.op_type == op)


# ---- trees -------------------------------------------------------------------------------------------------

MODES = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
COLUMNS = (
    *("nodes_treeids", "nodes_nodeids", "nodes_modes", "nodes_featureids", "nodes_values"),
    *("nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true"),
)
Leaf = tuple[int, int]


def trees(
    rng: np.random.Generator, count: int, features: int, modes: list[str]
) -> tuple[dict[str, Any], list[Leaf]]:
    """The attributes of random trees, and their leaves as (tree, node)."""
    table: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    leaves: list[Leaf] = []

    def grow(nodes: list[list[Any]], tree: int, depth: int) -> int:
        number = len(nodes)
        nodes.append([tree, number, "LEAF", 0, 0.0, 0, 0, 0])
        if depth == 0 or rng.random() < 0.15:
            leaves.append((tree, number))
            return number
        threshold = float(rng.integers(-3, 4) / 2)
        ways = [grow(nodes, tree, depth - 1) for _ in range(2)]
        feature, tracks = int(rng.integers(features)), int(rng.random() < 0.5)
        nodes[number] = [tree, number, str(rng.choice(modes)), feature, threshold, *ways, tracks]
        return number

    for tree in range(count):
        nodes: list[list[Any]] = []
        grow(nodes, tree, int(rng.integers(0, 6)))
        for node in nodes:
            for name, value in zip(COLUMNS, node, strict=True):
                table[name].append(value)
    return table, leaves


def rows_with_gaps(rng: np.random.Generator, rows: int, features: int) -> np.ndarray:
    x = (rng.integers(-4, 5, (rows, features)) / 2).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    return x


@pytest.mark.parametrize("seed", range(24))
def test_tree_regressors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, targets, count = int(rng.integers(1, 6)), int(rng.integers(1, 4)), int(rng.integers(1, 14))
    table, leaves = trees(rng, count, features, MODES if seed % 2 else MODES[:1])
    entries = [(t, n, target, float(rng.standard_normal())) for t, n in leaves for target in range(targets)]
    tree_ids, node_ids, ids, weights = map(list, zip(*entries, strict=True))
    attributes = table | {
        "target_treeids": tree_ids,
        "target_nodeids": node_ids,
        "target_ids": ids,
        "target_weights": weights,
        "n_targets": targets,
        "aggregate_function": ["SUM", "AVERAGE", "MIN", "MAX"][seed % 4],
    }
    if seed % 3:
        attributes["base_values"] = [float(v) for v in rng.standard_normal(targets)]
    if targets > 1:
        attributes["post_transform"] = ["NONE", "LOGISTIC", "SOFTMAX"][seed % 3]
    x = rows_with_gaps(rng, [1, 3, 70][seed % 3], features)
    assert compare("TreeEnsembleRegressor", {"x": x}, [T.FLOAT], 3, **attributes) == "native"


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_tree_classifiers(classes: int, transform: str) -> None:
    rng = np.random.default_rng(classes)
    for positive, strings in itertools.product((True, False), repeat=2):
        table, leaves = trees(rng, 7, 4, MODES)
        ids = range(1) if classes == 2 else range(classes)
        entries = [
            (t, n, i, float(rng.random() * 0.1 - (not positive) * 0.05)) for t, n in leaves for i in ids
        ]
        names = ("class_treeids", "class_nodeids", "class_ids", "class_weights")
        attributes = table | dict(zip(names, map(list, zip(*entries, strict=True)), strict=True))
        if strings:
            attributes["classlabels_strings"] = [f"c{i}" for i in range(classes)]
        else:
            attributes["classlabels_int64s"] = [3 * i + 2 for i in range(classes)]
        outputs = [T.STRING if strings else T.INT64, T.FLOAT]
        x = rows_with_gaps(rng, 9, 4)
        kind = compare("TreeEnsembleClassifier", {"x": x}, outputs, 3, post_transform=transform, **attributes)
        assert kind == "native"


def test_two_named_classes_are_chosen_by_the_larger_score() -> None:
    attributes = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "class_treeids": [0] * 4,
        "class_nodeids": [1, 1, 2, 2],
        "class_ids": [0, 1, 0, 1],
        "class_weights": [0.7, 0.3, 0.2, 0.8],
        "classlabels_int64s": [5, 7],
    }
    x = np.array([[-1.0], [1.0]], np.float32)
    proto = model("TreeEnsembleClassifier", {"x": x}, [T.INT64, T.FLOAT], 3, **attributes)
    labels, scores = ingot.InferenceSession(proto).run(None, {"x": x})
    assert labels.tolist() == [5, 7]
    np.testing.assert_allclose(scores, [[0.7, 0.3], [0.2, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_trees_with_sets(dtype: Any, aggregate: int) -> None:
    """Node 0 asks for a set, 1 for another one, 2 compares."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nan = float("nan")
    attributes = {
        "nodes_featureids": [0, 1, 0],
        "nodes_modes": helper.make_tensor("m", T.UINT8, [3], [6, 6, 0]),
        "nodes_splits": helper.make_tensor("s", kind, [3], [0.0, 0.0, 1.5]),
        "nodes_truenodeids": [1, 0, 2],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [2, 1, 3],
        "nodes_falseleafs": [0, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": helper.make_tensor("w", kind, [4], [1.0, 10.0, 100.0, 1000.0]),
        "tree_roots": [0],
        "membership_values": helper.make_tensor("v", kind, [7], [1.0, 3.0, 2.0, nan, 7.0, 4.0, nan]),
        "n_targets": 2,
        "aggregate_function": aggregate,
    }
    x = np.array(list(itertools.product([0, 1, 2, 3, 1.5, -1, nan], [4, 7, 5, nan])), dtype)
    assert compare("TreeEnsemble", {"x": x}, [kind], 5, **attributes) == "native"


def test_trees_of_half_precision() -> None:
    """What onnxruntime has no kernel for: splits and leaves rounded to float16, sums in float64."""
    attributes = {
        "nodes_featureids": [0],
        "nodes_modes": helper.make_tensor("m", T.UINT8, [1], [1]),
        "nodes_splits": helper.make_tensor("s", T.FLOAT16, [1], [1.5]),
        "nodes_truenodeids": [0],
        "nodes_trueleafs": [1],
        "nodes_falsenodeids": [1],
        "nodes_falseleafs": [1],
        "leaf_targetids": [0, 0],
        "leaf_weights": helper.make_tensor("w", T.FLOAT16, [2], [0.25, -2.0]),
        "tree_roots": [0],
        "n_targets": 1,
    }
    x = np.array([[1.0], [1.5], [np.nan], [2.0]], np.float16)
    for transform, want in ((0, [0.25, -2, -2, -2]), (4, [-0.6745, np.nan, np.nan, np.nan])):
        proto = model("TreeEnsemble", {"x": x}, [T.FLOAT16], 5, post_transform=transform, **attributes)
        session = ingot.InferenceSession(proto)
        (got,) = session.run(None, {"x": x})
        assert got.dtype == np.float16
        np.testing.assert_allclose(got.ravel(), want, rtol=3e-3)
        assert session.profile({"x": x}, 1)[0].kind == "native"


def test_damaged_trees_are_named() -> None:
    whole = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.0, 0.0, 0.0],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    for change, message in (
        ({"nodes_truenodeids": [9, 0, 0]}, "a node leads to -1"),
        ({"nodes_truenodeids": [0, 0, 0]}, "leads in a circle"),
        ({"target_ids": [0, 1]}, "says something of target 1, and there are 1"),
        ({"nodes_modes": ["BRANCH_LEQ", "LEAF", "TWIG"]}, r"\['TWIG'\] among them"),
        ({"nodes_values": [0.0]}, "nodes_values has 1 elements, and there are 3 nodes"),
        ({"aggregate_function": "MEDIAN"}, "'MEDIAN' is none of AVERAGE, SUM, MIN, MAX"),
    ):
        session = ingot.InferenceSession(
            model("TreeEnsembleRegressor", {"x": X}, [T.FLOAT], 3, **whole | change)
        )
        with pytest.raises(ingot.ModelError, match=message):
            session.run(None, {"x": X})
    narrow = ingot.InferenceSession(
        model("TreeEnsembleRegressor", {"x": X}, [T.FLOAT], 3, **whole | {"nodes_featureids": [7, 0, 0]})
    )
    with pytest.raises(ingot.ShapeError, match="has 3 features, and the trees ask for 8"):
        narrow.run(None, {"x": X})


# ---- columns -----------------------------------------------------------------------------------------------

GAPS = X.copy()
GAPS[0, 1], GAPS[2] = np.nan, 0
TYPES = [X, (X * 5).astype(np.int64), X.astype(np.float64), (X * 5).astype(np.int32)]
NAN = float("nan")
CASES: list[tuple[str, Feed, list[int], int, dict[str, Any]]] = [
    *[
        ("Scaler", {"x": x}, [T.FLOAT], 1, {"offset": [0.1, 0.2, 0.3], "scale": [2.0, 3.0, 4.0]})
        for x in TYPES
    ],
    ("Scaler", {"x": X}, [T.FLOAT], 1, {"offset": [0.1], "scale": [2.0]}),
    *[("Normalizer", {"x": x}, [T.FLOAT], 1, {"norm": n}) for x in TYPES for n in ("MAX", "L1", "L2")],
    ("Normalizer", {"x": X[0]}, [T.FLOAT], 1, {"norm": "L2"}),
    ("Normalizer", {"x": np.zeros((2, 3), np.float32)}, [T.FLOAT], 1, {"norm": "L1"}),
    ("Binarizer", {"x": X}, [T.FLOAT], 1, {"threshold": 0.2}),
    (
        "Imputer",
        {"x": GAPS},
        [T.FLOAT],
        1,
        {"imputed_value_floats": [1.0, 2.0, 3.0], "replaced_value_float": NAN},
    ),
    ("Imputer", {"x": GAPS[1:]}, [T.FLOAT], 1, {"imputed_value_floats": [7.0], "replaced_value_float": 0.0}),
    ("Imputer", {"x": TYPES[1]}, [T.INT64], 1, {"imputed_value_int64s": [7], "replaced_value_int64": 0}),
    *[
        ("ArrayFeatureExtractor", {"x": x, "y": np.array([2, 0])}, [kind_of(x)], 1, dict[str, Any]())
        for x in (*TYPES, X[0], WORDS)
    ],
    ("FeatureVectorizer", {"a": X, "b": X[:, :2]}, [T.FLOAT], 1, {"inputdimensions": [3, 2]}),
    ("FeatureVectorizer", {"a": X, "b": X[:, :2]}, [T.FLOAT], 1, {"inputdimensions": [2, 4]}),
    *[("OneHotEncoder", {"x": x}, [T.FLOAT], 1, {"cats_int64s": [-3, 0, 1, 2, 5]}) for x in TYPES[:3]],
    ("OneHotEncoder", {"x": WORDS}, [T.FLOAT], 1, {"cats_strings": ["a", "b"]}),
    ("LabelEncoder", {"x": WORDS}, [T.INT64], 1, {"classes_strings": ["a", "b", "c"]}),
    ("LabelEncoder", {"x": NUMBERS}, [T.STRING], 1, {"classes_strings": ["a", "b", "c"]}),
    ("LabelEncoder", {"x": WORDS}, [T.FLOAT], 2, {"keys_strings": ["a", "b"], "values_floats": [5.0, 6.0]}),
    ("LabelEncoder", {"x": WORDS}, [T.STRING], 2, {"keys_strings": ["a"], "values_strings": ["A"]}),
    ("LabelEncoder", {"x": NUMBERS}, [T.INT64], 2, {"keys_int64s": [1, 2], "values_int64s": [5, 25]}),
    (
        "LabelEncoder",
        {"x": X},
        [T.STRING],
        2,
        {"keys_floats": [1.0, float(X[0, 0])], "values_strings": ["x", "y"]},
    ),
    (
        "LabelEncoder",
        {"x": WORDS},
        [T.DOUBLE],
        4,
        {
            "keys_tensor": helper.make_tensor("k", T.STRING, [2], ["a", "b"]),
            "values_tensor": helper.make_tensor("v", T.DOUBLE, [2], [0.5, 1.5]),
            "default_tensor": helper.make_tensor("d", T.DOUBLE, [1], [9.0]),
        },
    ),
    ("CategoryMapper", {"x": WORDS}, [T.INT64], 1, {"cats_strings": ["a", "b"], "cats_int64s": [3, 4]}),
    ("CategoryMapper", {"x": NUMBERS}, [T.STRING], 1, {"cats_strings": ["a", "b"], "cats_int64s": [3, 2]}),
]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: f"{i}-{CASES[i][0]}")
def test_columns(number: int) -> None:
    op, feed, outputs, version, attributes = CASES[number]
    compare(op, feed, outputs, version, **attributes)


def test_numbers_are_native() -> None:
    for op, attributes in (
        ("Scaler", {"offset": [0.1], "scale": [2.0]}),
        ("Normalizer", {"norm": "L2"}),
        ("Binarizer", {"threshold": 0.5}),
        ("Imputer", {"imputed_value_floats": [1.0]}),
        ("OneHotEncoder", {"cats_int64s": [0, 1]}),
    ):
        x = X if op != "OneHotEncoder" else TYPES[1]
        assert compare(op, {"x": x}, [T.FLOAT], **attributes) == "native", op


def test_an_unknown_category_that_is_not_allowed() -> None:
    session = ingot.InferenceSession(
        model("OneHotEncoder", {"x": WORDS}, [T.FLOAT], cats_strings=["a", "b"], zeros=0)
    )
    with pytest.raises(ingot.InputError, match="'zz' is none of its categories"):
        session.run(None, {"x": WORDS})


def test_not_a_number_is_a_key() -> None:
    x = np.array([1, np.nan, 3], np.float32)
    attributes = {"keys_floats": [1.0, NAN], "values_int64s": [5, 25]}
    session = ingot.InferenceSession(model("LabelEncoder", {"x": x}, [T.INT64], 2, **attributes))
    assert session.run(None, {"x": x})[0].tolist() == [5, 25, -1]


def test_columns_at_places_that_data_says() -> None:
    """What is outside is refused: nothing counts from the end here."""
    ends = [helper.make_tensor_value_info("i", T.INT64, ["k"])]
    nodes = [
        helper.make_node("Abs", ["i"], ["places"]),
        helper.make_node("Sub", ["places", "one"], ["y"]),
        helper.make_node("ArrayFeatureExtractor", ["x", "y"], ["o"], domain="ai.onnx.ml"),
    ]
    for x in (X[0], X, np.stack([X, -X]), np.array([7, 5, 9])):
        inputs = [helper.make_tensor_value_info("x", kind_of(x), list(x.shape)), *ends]
        results = [helper.make_tensor_value_info("o", kind_of(x), None)]
        one = helper.make_tensor("one", T.INT64, [], [1])
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
        graph = helper.make_graph(nodes, "g", inputs, results, [one])
        session = ingot.InferenceSession(helper.make_model(graph, opset_imports=opsets, ir_version=9))
        for places in ([3, 1, 1], [-2], []):
            i = np.array(places, np.int64)
            (found,) = session.run(None, {"x": x, "i": i})
            np.testing.assert_array_equal(found, np.atleast_2d(x)[..., abs(i) - 1])
        for places in ([0], [1, 4]):
            with pytest.raises(ingot.InputError, match=r"ArrayFeatureExtractor.*outside of the 3 columns"):
                session.run(None, {"x": x, "i": np.array(places)})
        assert session.profile({"x": x, "i": np.array([1])}, 1)[-1].kind == "native"


KEYS = [3, -2, 8, 3, 7, 0]
LARGE = np.iinfo(np.int64)


@pytest.mark.parametrize(
    "values", [{"values_floats": [0.5, 1, 2, 9, 3, 4]}, {"values_int64s": [1, 5, 2, 9, 3, 4]}]
)
def test_whole_numbers_as_keys_are_places_in_a_table(values: dict[str, Any]) -> None:
    """The first of equal keys counts; what lies between two keys, or beyond them, is none of them."""
    kind = T.FLOAT if "values_floats" in values else T.INT64
    default = {"default_float": -7.5} if kind == T.FLOAT else {"default_int64": -7}
    x = np.array([[3, 8, 0, -2], [1, 9, -3, 7], [LARGE.max, LARGE.min, 1 << 40, 4]])
    assert compare("LabelEncoder", {"x": x}, [kind], 2, keys_int64s=KEYS, **values, **default) == "native"
    floats = np.array([3, 8, -0.0, -2, 2.5, 7.999, 9, -2.5, 1e30, -1e30, np.inf, -np.inf, np.nan], np.float32)
    keys = [float(key) for key in KEYS]
    assert (
        compare("LabelEncoder", {"x": floats}, [kind], 2, keys_floats=keys, **values, **default) == "native"
    )
    for far in ([0.0, 1e6], [0.0, 1.5], [0.0, np.inf]):
        attributes = {"keys_floats": far, "values_int64s": [1, 2]}
        assert compare("LabelEncoder", {"x": floats}, [T.INT64], 2, **attributes) == "host"


# ---- linear models and support vectors ---------------------------------------------------------------------

TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_models(transform: str) -> None:
    rng = np.random.default_rng(3)
    for scores, labels in ((1, [0, 1]), (2, [4, 1]), (3, [0, 1, 2]), (3, ["u", "v", "w"])):
        strings = isinstance(labels[0], str)
        kind = compare(
            "LinearClassifier",
            {"x": X},
            [T.STRING if strings else T.INT64, T.FLOAT],
            coefficients=rng.standard_normal(3 * scores).tolist(),
            intercepts=rng.standard_normal(scores).tolist(),
            post_transform=transform,
            **{"classlabels_strings" if strings else "classlabels_ints": labels},
        )
        assert kind == "native"
    for targets in (1, 2):
        kind = compare(
            "LinearRegressor",
            {"x": X},
            [T.FLOAT],
            coefficients=rng.standard_normal(3 * targets).tolist(),
            intercepts=rng.standard_normal(targets).tolist(),
            targets=targets,
            post_transform=transform,
        )
        assert kind == "native"


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_probit(outputs: int) -> None:
    """√2 · erf⁻¹(2 p - 1) for probabilities: to 4e-3 of SciPy's, as near as the approximation is that
    runtimes use; by kernels as by definition.
    """
    special = pytest.importorskip("scipy.special")
    p = np.array([0.0, 1e-6, 0.2, 0.4999, 0.5, 0.5001, 0.77, 0.999999, 1.0, 1.5], np.float32)[:, None]
    bias = [0.1 * i for i in range(outputs)]
    attributes = {"coefficients": [1.0] * outputs, "intercepts": bias, "post_transform": "PROBIT"}
    proto = model("LinearRegressor", {"x": p}, [T.FLOAT], targets=outputs, **attributes)
    session = ingot.InferenceSession(proto)
    (got,), defined = session.run(None, {"x": p}), interpret(ir.from_proto(proto), {"x": p}).values()
    assert {node.kind for node in session.profile({"x": p}, 1)} == {"native"}
    np.testing.assert_allclose(got, next(iter(defined)), rtol=2e-5, atol=1e-6)
    want = np.sqrt(2) * special.erfinv(2 * (p.astype(np.float64) + bias) - 1)
    inside = np.abs(want) < 4
    np.testing.assert_allclose(got[inside], want[inside], rtol=4e-3)
    assert np.array_equal(np.isnan(got), np.isnan(want))


def test_probit_of_one_score_for_two_classes() -> None:
    """Both classes' probabilities, 1 - p and p; ONNX Runtime leaves one of them out."""
    x = np.array([[0.2], [0.9]], np.float32)
    attributes = {"coefficients": [1.0], "intercepts": [0.0], "classlabels_ints": [0, 1]}
    outputs = [T.INT64, T.FLOAT]
    proto = model("LinearClassifier", {"x": x}, outputs, post_transform="PROBIT", **attributes)
    labels, scores = ingot.InferenceSession(proto).run(None, {"x": x})
    assert labels.tolist() == [1, 1]
    np.testing.assert_allclose(scores, [[0.8416, -0.8416], [-1.2816, 1.2816]], rtol=4e-3)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
def test_support_vectors(kernel: str) -> None:
    rng = np.random.default_rng(4)

    def numbers(count: int) -> list[float]:
        return rng.standard_normal(count).tolist()

    common = {"kernel_type": kernel, "kernel_params": [0.3, 0.5, 2.0]}
    for one_class in (0, 1):
        vectors = {"n_supports": 4, "support_vectors": numbers(12), "coefficients": numbers(4), "rho": [0.1]}
        kind = compare("SVMRegressor", {"x": X}, [T.FLOAT], one_class=one_class, **common, **vectors)
        assert kind == "native"
    kind = compare("SVMRegressor", {"x": X}, [T.FLOAT], coefficients=numbers(3), rho=[0.1], **common)
    assert kind == "native"
    for transform, classes, fitted in itertools.product(TRANSFORMS, (2, 3, 4), (False, True)):
        pairs = classes * (classes - 1) // 2
        attributes = common | {
            "vectors_per_class": [2] * classes,
            "support_vectors": numbers(6 * classes),
            "coefficients": numbers(2 * classes * (classes - 1)),
            "rho": numbers(pairs),
            "classlabels_ints": list(range(classes)),
            "post_transform": transform,
        }
        if fitted:
            attributes |= {"prob_a": (-1 - rng.random(pairs)).tolist(), "prob_b": numbers(pairs)}
        kind = compare("SVMClassifier", {"x": X}, [T.INT64, T.FLOAT], **attributes)
        assert kind == "native"
    linear = {"coefficients": numbers(9), "rho": [0.2], "classlabels_ints": [0, 1, 2]}
    assert compare("SVMClassifier", {"x": X}, [T.INT64, T.FLOAT], **common, **linear) == "native"


# ---- maps --------------------------------------------------------------------------------------------------


def from_map(op: str, key: int, value: int, output: int, **attributes: Any) -> onnx.ModelProto:
    type_ = helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, []))
    node = helper.make_node(op, ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    inputs = [helper.make_value_info("x", type_)]
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", output, None)])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


MAPS: list[tuple[onnx.ModelProto, dict[Any, Any], list[Any]]] = [
    (
        from_map("DictVectorizer", T.STRING, T.FLOAT, T.FLOAT, string_vocabulary=["a", "c", "b"]),
        {"a": 1.5, "b": 2.5},
        [[1.5, 0.0, 2.5]],
    ),
    (
        from_map("DictVectorizer", T.INT64, T.FLOAT, T.FLOAT, int64_vocabulary=[7, 3]),
        {3: 2.0, 9: 1.0},
        [[0.0, 2.0]],
    ),
    (from_map("CastMap", T.INT64, T.FLOAT, T.FLOAT, cast_to="TO_FLOAT"), {5: 1.0, 2: 3.0}, [[3.0, 1.0]]),
    (
        from_map("CastMap", T.INT64, T.FLOAT, T.INT64, cast_to="TO_INT64", map_form="SPARSE", max_map=4),
        {2: 3.0},
        [[0, 0, 3, 0]],
    ),
    (from_map("CastMap", T.INT64, T.STRING, T.FLOAT, cast_to="TO_FLOAT"), {1: "2.5"}, [[2.5]]),
]


@pytest.mark.parametrize("number", range(len(MAPS)))
def test_maps(number: int) -> None:
    proto, given, want = MAPS[number]
    feed = {k: v if isinstance(v, str) else np.float32(v) for k, v in given.items()}
    (got,) = ingot.InferenceSession(proto).run(None, {"x": feed})
    assert got.tolist() == want
    if isinstance(next(iter(given.values())), str):
        return  # which onnxruntime's Python does not take
    (theirs,) = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": given})
    same(got, theirs)
