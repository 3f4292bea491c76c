"""scikit-learn's models through skl2onnx: labels equal to scikit-learn's own, probabilities to 1e-5."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ingot

sklearn = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")

from sklearn import (  # noqa: E402
    cluster,
    compose,
    datasets,
    decomposition,
    discriminant_analysis,
    ensemble,
    impute,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "forest": lambda: ensemble.RandomForestClassifier(15, random_state=0),
    "extra trees": lambda: ensemble.ExtraTreesClassifier(10, max_depth=5, random_state=0),
    "tree": lambda: tree.DecisionTreeClassifier(max_depth=6, random_state=0),
    "gradient boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
    "hist gradient boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=10),
    "ada boost": lambda: ensemble.AdaBoostClassifier(n_estimators=5, random_state=0),
    "SVC": lambda: svm.SVC(probability=True, random_state=0),
    "linear SVC": lambda: svm.LinearSVC(),
    "logistic regression": lambda: linear_model.LogisticRegression(max_iter=1000),
    "MLP": lambda: neural_network.MLPClassifier((12,), max_iter=150, random_state=0),
    "nearest neighbours": lambda: neighbors.KNeighborsClassifier(4),
    "naive Bayes": lambda: naive_bayes.GaussianNB(),
    "discriminant": lambda: discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1),
    "vote": lambda: ensemble.VotingClassifier(
        [("a", naive_bayes.GaussianNB()), ("b", tree.DecisionTreeClassifier(max_depth=3))],
        voting="soft",
        flatten_transform=False,
    ),
    "scaler + PCA": lambda: pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        decomposition.PCA(5),
        linear_model.LogisticRegression(),
    ),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "forest": lambda: ensemble.RandomForestRegressor(10, random_state=0),
    "gradient boosting": lambda: ensemble.GradientBoostingRegressor(n_estimators=15, random_state=0),
    "hist gradient boosting": lambda: ensemble.HistGradientBoostingRegressor(max_iter=15),
    "SVR": lambda: svm.SVR(),
    "linear": lambda: linear_model.LinearRegression(),
    "MLP": lambda: neural_network.MLPRegressor(hidden_layer_sizes=(12,), max_iter=100, random_state=0),
    "nearest neighbours": lambda: neighbors.KNeighborsRegressor(3),
}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits may stop early; and skl2onnx hands NumPy's truth values to onnx, which wants integers."""
    warnings.simplefilter("ignore")
    import onnx.helper

    make = onnx.helper.make_attribute

    def make_attribute(key: str, value: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(value, list) and any(isinstance(v, np.bool_ | bool | np.integer) for v in value):
            value = [int(v) for v in value]
        return make(key, value, *arguments, **options)

    monkeypatch.setattr(onnx.helper, "make_attribute", make_attribute)


def problem(classes: int, strings: bool) -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.make_classification(
        240, 8, n_informative=6, n_classes=classes, class_sep=1.5, random_state=classes
    )
    return x.astype(np.float32), np.array(["red", "green", "blue"])[y] if strings else y


def session_of(model: Any, x: np.ndarray, **options: Any) -> ingot.InferenceSession:
    return ingot.InferenceSession(skl2onnx.to_onnx(model, x[:1], **options))


@pytest.mark.parametrize("strings", [False, True], ids=["numbers", "strings"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, classes: int, strings: bool) -> None:
    x, y = problem(classes, strings)
    model = CLASSIFIERS[name]().fit(x[:160], y[:160])
    options = {"zipmap": False}
    session = session_of(model, x, options={id(model): options} if hasattr(model, "predict_proba") else None)
    for rows in (x, x[:1], x[160:193]):
        labels, scores = session.run(None, {"X": rows})
        assert labels.ravel().tolist() == model.predict(rows).tolist()
        if hasattr(model, "predict_proba"):
            want = model.predict_proba(rows)
        else:
            want = np.asarray(model.decision_function(rows))
            scores = scores if want.ndim == 2 else scores[:, -1]
        np.testing.assert_allclose(scores, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REGRESSORS)
def test_regressors(name: str) -> None:
    x, y = datasets.make_regression(200, 6, noise=1.0, random_state=0)
    x = x.astype(np.float32)
    model = REGRESSORS[name]().fit(x[:150], y[:150])
    session = session_of(model, x)
    for rows in (x, x[:1]):
        want = model.predict(rows).reshape(-1, 1)
        (got,) = session.run(None, {"X": rows})
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_missing_values_walk_the_way_they_were_trained() -> None:
    x, y = problem(3, False)
    x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    model = ensemble.HistGradientBoostingClassifier(max_iter=10).fit(x, y)
    labels, scores = session_of(model, x, options={"zipmap": False}).run(None, {"X": x})
    assert labels.tolist() == model.predict(x).tolist()
    np.testing.assert_allclose(scores, model.predict_proba(x), atol=1e-5)


def test_double_precision_is_compared_in_double_precision() -> None:
    x, y = datasets.make_regression(200, 4, random_state=1)
    model = ensemble.RandomForestRegressor(10, random_state=0).fit(x, y)
    session = session_of(model, x, target_opset={"": 18, "ai.onnx.ml": 3})
    (got,) = session.run(None, {"X": x})
    want = model.predict(x)
    assert np.abs(got[:, 0] - want).max() <= 1e-6 * np.abs(want).max()


def test_a_table_of_strings_and_gaps() -> None:
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((120, 3)).astype(np.float32)
    numbers[rng.random(numbers.shape) < 0.2] = np.nan
    words = rng.choice(np.array(["tea", "coffee", "milk"], object), (120, 2))
    y = (np.nan_to_num(numbers[:, 0]) + (words[:, 0] == "tea") > 0.3).astype(int)

    table = np.concatenate([numbers.astype(object), words], 1)
    model = pipeline.make_pipeline(
        compose.ColumnTransformer(
            [
                (
                    "n",
                    pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler()),
                    [0, 1, 2],
                ),
                ("w", preprocessing.OneHotEncoder(handle_unknown="ignore"), [3, 4]),
            ]
        ),
        linear_model.LogisticRegression(),
    ).fit(table, y)
    kinds = [("n", FloatTensorType([None, 3])), ("w", StringTensorType([None, 2]))]
    proto = skl2onnx.convert_sklearn(model, initial_types=kinds, options={"zipmap": False})
    labels, scores = ingot.InferenceSession(proto).run(None, {"n": numbers, "w": words})
    assert labels.tolist() == model.predict(table).tolist()
    np.testing.assert_allclose(scores, model.predict_proba(table), atol=1e-5)


def test_clusters() -> None:
    x, _ = problem(3, False)
    model = cluster.KMeans(3, random_state=0).fit(x)
    labels, scores = session_of(model, x).run(None, {"X": x})
    assert labels.tolist() == model.predict(x).tolist()
    np.testing.assert_allclose(scores, model.transform(x), rtol=1e-4)


def test_maps_as_onnxruntime_gives_them() -> None:
    import onnxruntime

    for strings in (False, True):
        x, y = problem(3, strings)
        proto = skl2onnx.to_onnx(linear_model.LogisticRegression().fit(x, y), x[:1])
        want = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"X": x[:5]})
        got = ingot.InferenceSession(proto).run(None, {"X": x[:5]})
        assert got[0].tolist() == want[0].tolist()
        for a, b in zip(got[1], want[1], strict=True):
            assert list(a) == list(b)
            np.testing.assert_allclose(list(a.values()), list(b.values()), atol=1e-6)
