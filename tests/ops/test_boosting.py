"""XGBoost's and LightGBM's models through onnxmltools: equal to the libraries' own predictions.

Left out is what onnxmltools 1.16 itself writes down wrongly or not at all (ONNX Runtime gives the same
other numbers): XGBoost's DART and linear boosters, reg:logistic's base score and forests of several
classes, LightGBM's zero_as_missing, multiclassova, averaged forests and linear trees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import ingot

lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
xgboost = pytest.importorskip("xgboost", reason="xgboost (or xgboost-cpu) is not installed")
onnxmltools = pytest.importorskip("onnxmltools", reason="onnxmltools is not installed")

from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: E402

FEATURES, ROWS = 8, 300
TREES = {"n_estimators": 12, "n_jobs": 1}
QUIET = {**TREES, "verbose": -1, "deterministic": True}


def table(missing: float = 0.1, categories: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Features, some of them NaN; and a number that follows from them, from categories too."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((ROWS, FEATURES)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.5 * x[:, 3]
    if categories:
        x[:, 0], x[:, 1] = rng.integers(0, 12, ROWS), rng.integers(0, 40, ROWS)
        y = y + 3 * np.isin(x[:, 0], (1, 4, 7, 11)) + x[:, 1] % 3
    x[rng.random(x.shape) < missing] = np.nan
    return x, y


def classes(count: int) -> np.ndarray:
    y = table()[1]
    return np.digitize(y, np.quantile(y, np.arange(1, count) / count))


def session_of(model: Any, opset: int = 15) -> tuple[ingot.InferenceSession, onnx.ModelProto]:
    """The exported model, without ZipMap where it can be left out."""
    types = [("X", FloatTensorType([None, FEATURES]))]
    if type(model).__module__.startswith("xgboost"):
        exported = onnxmltools.convert_xgboost(model, initial_types=types, target_opset=opset)
    else:
        exported = onnxmltools.convert_lightgbm(model, initial_types=types, target_opset=opset, zipmap=False)
    return ingot.InferenceSession(exported), exported


def rows_of(x: np.ndarray) -> list[np.ndarray]:
    everything_missing = np.full((2, FEATURES), np.nan, np.float32)
    return [x, x[:1], x[100:133], everything_missing]


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: xgboost.XGBClassifier(**TREES, max_depth=4),
    "lightgbm": lambda: lightgbm.LGBMClassifier(**QUIET),
    "lightgbm, DART": lambda: lightgbm.LGBMClassifier(**QUIET, boosting_type="dart"),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, count: int) -> None:
    x, _ = table()
    model = CLASSIFIERS[name]().fit(x, classes(count))
    session, _ = session_of(model)
    for rows in rows_of(x):
        labels, scores = session.run(None, {"X": rows})
        assert labels.ravel().tolist() == model.predict(rows).tolist()
        np.testing.assert_allclose(scores, model.predict_proba(rows), rtol=1e-5, atol=1e-6)
    labels, scores = session.run(None, {"X": x[:0]})
    assert labels.shape == (0,)
    assert scores.shape == (0, count)


def test_a_forest_of_two_classes() -> None:
    x, _ = table()
    model = xgboost.XGBRFClassifier(**TREES).fit(x, classes(2))
    labels, scores = session_of(model)[0].run(None, {"X": x})
    assert labels.tolist() == model.predict(x).tolist()
    np.testing.assert_allclose(scores, model.predict_proba(x), rtol=1e-5, atol=1e-6)


def test_labels_that_are_strings() -> None:
    x, _ = table()
    model = lightgbm.LGBMClassifier(**QUIET).fit(x, np.array(["red", "green", "blue"])[classes(3)])
    session, _ = session_of(model)
    labels, scores = session.run(None, {"X": x})
    assert labels.tolist() == model.predict(x).tolist()
    np.testing.assert_allclose(scores, model.predict_proba(x), rtol=1e-5, atol=1e-6)


REGRESSORS: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: xgboost.XGBRegressor(**TREES),
    "xgboost, gamma": lambda: xgboost.XGBRegressor(**TREES, objective="reg:gamma"),
    "xgboost, Poisson": lambda: xgboost.XGBRegressor(**TREES, objective="count:poisson"),
    "lightgbm": lambda: lightgbm.LGBMRegressor(**QUIET),
    "lightgbm, DART": lambda: lightgbm.LGBMRegressor(**QUIET, boosting_type="dart"),
    "lightgbm, Poisson": lambda: lightgbm.LGBMRegressor(**QUIET, objective="poisson"),
    "lightgbm, quantile": lambda: lightgbm.LGBMRegressor(**QUIET, objective="quantile", alpha=0.8),
}


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str) -> None:
    x, y = table()
    y = y if name in ("xgboost", "lightgbm") else np.abs(y) + 0.1
    agrees(REGRESSORS[name]().fit(x, y), x)


def test_rankers() -> None:
    x, _ = table()
    groups = [30] * (ROWS // 30)
    agrees(lightgbm.LGBMRanker(**QUIET).fit(x, classes(4), group=groups), x)


def test_splits_by_categories() -> None:
    """LightGBM asks for sets of categories, which become chains of equalities."""
    x, y = table(missing=0.05, categories=True)
    model = lightgbm.LGBMRegressor(**QUIET, min_data_per_group=5).fit(x, y, categorical_feature=[0, 1])
    exported = agrees(model, x)
    modes = next(a for n in exported.graph.node for a in n.attribute if a.name == "nodes_modes").strings
    assert b"BRANCH_EQ" in modes
    types = ["c", "c", *["q"] * (FEATURES - 2)]
    other = xgboost.XGBRegressor(**TREES, enable_categorical=True, feature_types=types, max_cat_to_onehot=50)
    agrees(other.fit(x, y), x)


def agrees(model: Any, x: np.ndarray) -> onnx.ModelProto:
    session, exported = session_of(model)
    for rows in rows_of(x):
        (got,), want = session.run(None, {"X": rows}), model.predict(rows)
        np.testing.assert_allclose(got.ravel(), want, rtol=1e-5, atol=1e-6 * np.abs(want).max())
    return exported
