"""Random cases of ai.onnx.ml: tables, linear models, support vectors and trees."""
# ruff: noqa: ARG001  (every generator is given the opset)

from __future__ import annotations

from typing import Any

import numpy as np

from tests.search.draw import Array, Case, Draw, case

ML = "ai.onnx.ml"
NUMBERS = ("float32", "float64", "int32", "int64")
POST = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def rows(r: Draw, opset: int, columns: int) -> Array:
    return r.array((r.integer(1, 5), columns), r.dtype(opset, only=NUMBERS), special=0.0)


def reals(r: Draw, count: int, low: float = -2, high: float = 2) -> list[float]:
    return [r.real(low, high) for _ in range(count)]


@case("ArrayFeatureExtractor", domain=ML)
def extractor(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 3, empty=False), r.dtype(opset))
    return Case(r.op, [x, r.between(0, x.shape[-1] - 1, (r.integer(1, 5),))])


@case("Binarizer", domain=ML)
def binarizer(r: Draw, opset: int) -> Case:
    return Case(r.op, [r.array(r.shape(), r.dtype(opset), special=0.3)], r.some({"threshold": r.real(-1, 1)}))


@case("FeatureVectorizer", domain=ML)
def vectorizer(r: Draw, opset: int) -> Case:
    n, dtype = r.integer(1, 4), r.dtype(opset)
    widths = [r.integer(1, 4) for _ in range(r.integer(1, 3))]
    return Case(r.op, [r.array((n, w), dtype, special=0.0) for w in widths], {"inputdimensions": widths})


@case("Imputer", domain=ML)
def imputer(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset, only=("float32", "int64"))
    x = r.array((r.integer(1, 4), r.integer(1, 4)), dtype, special=0.5)
    many = r.one([1, x.shape[1]])
    if dtype == "int64":
        return Case(
            r.op,
            [x],
            {
                "imputed_value_int64s": [r.integer(-3, 3) for _ in range(many)],
                "replaced_value_int64": r.integer(-2, 2),
            },
        )
    return Case(
        r.op,
        [x],
        {"imputed_value_floats": reals(r, many), "replaced_value_float": r.one([float("nan"), 0.5, 0.0])},
    )


@case("LabelEncoder", domain=ML)
def encoder(r: Draw, opset: int) -> Case:
    words: dict[str, list[Any]] = {
        "strings": ["a", "Ab", "", "zz"],
        "int64s": [3, -1, 0, 7],
        "floats": [0.5, float("nan") if opset >= 4 else 7.0, -1.0, 2.0],
    }
    if opset < 2:
        text = r.flag()
        x = r.array((r.integer(1, 6),), "string" if text else "int64")
        return Case(
            r.op, [x], {"classes_strings": ["a", "Ab", "", "zz"], "default_int64": -5, "default_string": "no"}
        )
    source, target = (r.one(["strings", "int64s", "floats"]) for _ in range(2))
    kind = {"strings": "string", "int64s": "int64", "floats": "float32"}
    x = r.array((r.integer(1, 6), 2), kind[source], special=0.5)
    default = {
        "strings": ("default_string", "no"),
        "int64s": ("default_int64", -5),
        "floats": ("default_float", 1.5),
    }[target]
    return Case(
        r.op,
        [x],
        {f"keys_{source}": words[source], f"values_{target}": words[target], **r.some(dict([default]))},
    )


@case("CategoryMapper", domain=ML)
def mapper(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(0, 2), r.one(["string", "int64"]))
    return Case(
        r.op,
        [x],
        {
            "cats_int64s": [1, 2, -3],
            "cats_strings": ["a", "Ab", "0"],
            **r.some({"default_int64": 9, "default_string": "no"}),
        },
    )


@case("LinearRegressor", domain=ML)
def regressor(r: Draw, opset: int) -> Case:
    c, targets = r.integer(1, 5), r.integer(1, 3)
    return Case(
        r.op,
        [rows(r, opset, c)],
        {
            "targets": targets,
            "coefficients": reals(r, c * targets),
            **r.some({"intercepts": reals(r, targets), "post_transform": r.one(POST[:4])}),
        },
    )


@case("LinearClassifier", domain=ML)
def classifier(r: Draw, opset: int) -> Case:
    c, classes = r.integer(1, 5), r.integer(2, 4)
    scores = 1 if classes == 2 and r.flag() else classes
    labels: dict[str, Any] = (
        {"classlabels_strings": ["no", "yes", "x", "y"][:classes]}
        if r.flag()
        else {"classlabels_ints": [5, 3, -1, 8][:classes]}
    )
    return Case(
        r.op,
        [rows(r, opset, c)],
        {
            **labels,
            "coefficients": reals(r, c * scores),
            "intercepts": reals(r, scores),
            **r.some({"post_transform": r.one(POST[:4]), "multi_class": r.integer(0, 1)}),
        },
        2,
    )


@case("Normalizer", domain=ML)
def normalizer(r: Draw, opset: int) -> Case:
    return Case(r.op, [rows(r, opset, r.integer(1, 5))], {"norm": r.one(["MAX", "L1", "L2"])})


@case("Scaler", domain=ML)
def scaler(r: Draw, opset: int) -> Case:
    c = r.integer(1, 5)
    many = r.one([1, c])
    return Case(r.op, [rows(r, opset, c)], {"offset": reals(r, many), "scale": reals(r, many)})


@case("OneHotEncoder", domain=ML)
def one_hot_encoder(r: Draw, opset: int) -> Case:
    if r.flag():
        return Case(
            r.op, [r.array(r.shape(1, 2), "string")], {"cats_strings": ["a", "Ab", "0", ""], "zeros": 1}
        )
    x = r.between(-2, 4, r.shape(1, 2), r.dtype(opset, only=NUMBERS))
    return Case(r.op, [x], {"cats_int64s": [0, 3, -1, 1], "zeros": 1})


def kernel(r: Draw) -> dict[str, Any]:
    return {
        "kernel_type": r.one(["LINEAR", "POLY", "RBF", "SIGMOID"]),
        "kernel_params": [r.real(0.1, 1), r.real(-1, 1), float(r.integer(1, 3))],
    }


@case("SVMRegressor", domain=ML)
def svm_regressor(r: Draw, opset: int) -> Case:
    c, n = r.integer(1, 4), r.integer(1, 5)
    return Case(
        r.op,
        [rows(r, opset, c)],
        {
            **kernel(r),
            "n_supports": n,
            "coefficients": reals(r, n),
            "support_vectors": reals(r, n * c),
            "rho": reals(r, 1),
            **r.some({"one_class": r.integer(0, 1)}),
        },
    )


@case("SVMClassifier", domain=ML)
def svm_classifier(r: Draw, opset: int) -> Case:
    c, classes = r.integer(1, 4), r.integer(2, 4)
    per = [r.integer(1, 3) for _ in range(classes)]
    n, pairs = sum(per), classes * (classes - 1) // 2
    labels: dict[str, Any] = (
        {"classlabels_strings": ["no", "yes", "x", "y"][:classes]}
        if r.flag()
        else {"classlabels_ints": [5, 3, -1, 8][:classes]}
    )
    attributes = {
        **kernel(r),
        **labels,
        "vectors_per_class": per,
        "support_vectors": reals(r, n * c),
        "coefficients": reals(r, n * (classes - 1)),
        "rho": reals(r, pairs),
    }
    if r.flag():
        attributes |= {"prob_a": reals(r, pairs), "prob_b": reals(r, pairs)}
    return Case(r.op, [rows(r, opset, c)], attributes | r.some({"post_transform": r.one(POST[:4])}), 2)


@case("TreeEnsembleRegressor", "TreeEnsembleClassifier", domain=ML)
def trees(r: Draw, opset: int) -> Case:
    c, count = r.integer(1, 4), r.integer(1, 4)
    first = r.op == "TreeEnsembleRegressor"
    outs = r.integer(1, 3) if first else r.integer(2, 4)
    n: dict[str, list[Any]] = {
        k: []
        for k in (
            "treeids",
            "nodeids",
            "featureids",
            "values",
            "modes",
            "truenodeids",
            "falsenodeids",
            "missing_value_tracks_true",
        )
    }
    t: dict[str, list[Any]] = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    mode = r.one(["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "mixed"])
    for tree in range(count):
        depth = r.integer(0, 3)
        inner = 2**depth - 1
        for node in range(2 * inner + 1):
            leaf = node >= inner
            n["treeids"].append(tree)
            n["nodeids"].append(node)
            n["featureids"].append(0 if leaf else r.integer(0, c - 1))
            n["values"].append(0.0 if leaf else r.one([r.real(-1, 1), 0.5, 0.0]))
            n["modes"].append(
                "LEAF" if leaf else r.one(["BRANCH_LEQ", "BRANCH_GT"]) if mode == "mixed" else mode
            )
            n["truenodeids"].append(0 if leaf else 2 * node + 1)
            n["falsenodeids"].append(0 if leaf else 2 * node + 2)
            n["missing_value_tracks_true"].append(0 if leaf else r.integer(0, 1))
            if leaf:
                for k in range(outs):
                    t["treeids"].append(tree)
                    t["nodeids"].append(node)
                    t["ids"].append(k)
                    t["weights"].append(r.real(-1, 1))
    attributes: dict[str, Any] = {
        f"nodes_{k}": v for k, v in n.items() if k != "missing_value_tracks_true" or r.flag()
    }
    attributes |= {f"{'target' if first else 'class'}_{k}": v for k, v in t.items()}
    attributes |= r.some({"base_values": reals(r, outs), "post_transform": r.one(POST[:4])})
    if first:
        attributes |= {
            "n_targets": outs,
            **r.some({"aggregate_function": r.one(["SUM", "AVERAGE", "MIN", "MAX"])}),
        }
    else:
        attributes |= (
            {"classlabels_strings": ["no", "yes", "x", "y"][:outs]}
            if r.flag()
            else {"classlabels_int64s": [5, 3, -1, 8][:outs]}
        )
    x = rows(r, opset, c)
    if x.dtype.kind == "f" and r.flag(0.3):
        x = np.where(r.rng.random(x.shape) < 0.2, np.nan, x).astype(x.dtype)
    return Case(r.op, [x], attributes, 1 if first else 2)
