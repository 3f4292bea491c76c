"""onnx's own suites – node, real (nine graphs of CNNs), simple, converted from PyTorch – at their own
tolerances. `make conformance` prints the score.
"""

from __future__ import annotations

import unittest
import warnings

import numpy as np
import onnx
import pytest

import ingot.backend
from tests.conformance.suite import LEFT, Item, items


def test_every_suite_is_there() -> None:
    counts = {
        category: sum(i.category == category for i in items()) for category in ("Node", "Real", "Simple")
    }
    assert counts["Node"] >= 1884
    assert counts["Real"] == 9
    assert counts["Simple"] >= 21
    assert set(LEFT) <= {item.name for item in items()}, "LEFT names a case that the suite does not have"
    assert len(LEFT) <= 8


@pytest.mark.parametrize("item", items(), ids=lambda item: f"{item.category}-{item.name}")
def test_case(item: Item) -> None:
    if item.category == "Node" and item.name in LEFT:
        pytest.skip(LEFT[item.name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            item.run()
        except unittest.SkipTest as reason:
            pytest.fail(f"{item.name}: {reason}: ingot.backend.is_compatible said no")


def _case(name: str) -> tuple[onnx.ModelProto, list[np.ndarray], list[np.ndarray]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        case = next(case for case in load_model_tests(kind="node") if case.name == name)
    (inputs, outputs), *_ = case.data_sets
    return case.model, inputs, outputs


def test_the_sequence_that_the_suite_cannot_compare() -> None:
    model, inputs, (want,) = _case("test_loop16_seq_none")
    (got,) = ingot.backend.run_model(model, inputs)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_float16_attention_is_nearer_to_exact_arithmetic_than_what_is_expected() -> None:
    model, inputs, (want,) = _case("test_attention_4d_causal_fp16_expanded")
    (got,) = ingot.backend.run_model(model, inputs)
    q, k, v = (array.astype(np.float64) for array in inputs)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores += np.where(np.tri(*scores.shape[-2:], dtype=bool), 0, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    exact = weights / weights.sum(-1, keepdims=True) @ v
    assert np.abs(got - exact).max() < np.abs(want - exact).max()


@pytest.mark.parametrize("name", [name for name in LEFT if "bernoulli" in name])
def test_draws_are_of_the_right_kind(name: str) -> None:
    """Shapes and dtypes are the expected ones, values are 0 and 1, and two runs differ where nothing is
    seeded.
    """
    model, inputs, (want,) = _case(name)
    (got,) = ingot.backend.run_model(model, inputs)
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    assert set(got.ravel().tolist()) <= {0, 1}
