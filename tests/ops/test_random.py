"""Operators that draw: their distribution, their shapes, and that a seed gives the same numbers again."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import pytest

import ingot


def drawn(op: str, x: np.ndarray | None = None, **attributes: Any) -> np.ndarray:
    inputs = (
        [] if x is None else [h.make_tensor_value_info("x", h.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
    )
    node = h.make_node(op, [v.name for v in inputs], ["y"], **attributes)
    graph = h.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 22)], ir_version=10)
    (y,) = ingot.InferenceSession(model).run(None, {} if x is None else {"x": x})
    return y


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("like", [False, True])
def test_normal_and_uniform_numbers(dtype: Any, like: bool) -> None:
    """Of 40,000 draws the mean is off by 1/200 of the deviation; eight of these are allowed."""
    shape = (200, 200)
    given: dict[str, Any] = {"seed": 3.0} | (
        {} if like else {"shape": shape, "dtype": h.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    )
    x = np.zeros(shape, dtype) if like else None
    end = "Like" if like else ""
    normal = drawn(f"RandomNormal{end}", x, mean=2.0, scale=3.0, **given)
    uniform = drawn(f"RandomUniform{end}", x, low=-1.0, high=3.0, **given)
    assert (normal.dtype, normal.shape, uniform.dtype, uniform.shape) == (dtype, shape, dtype, shape)
    wide = [a.astype(np.float64) for a in (normal, uniform)]
    assert abs(wide[0].mean() - 2) < 8 * 3 / 200
    assert abs(wide[0].std() - 3) < 8 * 3 / 200
    assert abs(wide[1].mean() - 1) < 8 * 4 / 200
    assert wide[1].min() >= -1
    assert wide[1].max() < 3


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (onnx.TensorProto.FLOAT16, 0.0, 1.0),
        (onnx.TensorProto.BFLOAT16, -2.0, 0.1),  # which bfloat16 has not
        (onnx.TensorProto.FLOAT8E4M3FN, -1.0, 0.0),
        (onnx.TensorProto.FLOAT, 16777216.0, 16777220.0),
        (onnx.TensorProto.DOUBLE, 0.0, 1.0),
    ],
)
def test_uniform_numbers_stay_below_the_end(dtype: int, low: float, high: float) -> None:
    """Those that a dtype rounds up to it are the number before."""
    made = drawn("RandomUniform", shape=[200, 200], dtype=dtype, low=low, high=high, seed=1.0)
    wide = made.astype(np.float64)
    assert wide.min() >= np.asarray(low, made.dtype).astype(np.float64)
    assert wide.max() < np.float32(high)


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3)])
def test_small_shapes(op: str, shape: tuple[int, ...]) -> None:
    assert drawn(op, np.ones(shape, np.float32), dtype=11).shape == shape


def test_a_seed_gives_the_same_again() -> None:
    x = np.full(50, 0.5, np.float32)
    np.testing.assert_array_equal(drawn("Bernoulli", x, seed=1.5), drawn("Bernoulli", x, seed=1.5))
    assert (drawn("Bernoulli", x, seed=1.5) != drawn("Bernoulli", x, seed=1.25)).any()
    assert (drawn("RandomUniformLike", x) != drawn("RandomUniformLike", x)).any()


def test_probabilities() -> None:
    """0 never, 1 always, and as often as it says between them."""
    p = np.repeat(np.array([0.0, 1.0, 0.25], np.float64), 10_000).reshape(3, -1)
    y = drawn("Bernoulli", p, seed=7.0, dtype=9)
    assert y.dtype == bool
    rates = y.mean(1)
    assert rates[0] == 0
    assert rates[1] == 1
    assert abs(rates[2] - 0.25) < 8 * 0.0044


@pytest.mark.parametrize("dtype", [6, 7])
def test_classes_by_their_log_probabilities(dtype: int) -> None:
    """Unnormalised; what has none never comes."""
    weights = np.array([[1, 0, 3, 4], [0, 0, 1, 0]], np.float64)
    with np.errstate(divide="ignore"):
        x = (np.log(weights) + 100).astype(np.float32)
    y = drawn("Multinomial", x, sample_size=20_000, seed=2.0, dtype=dtype)
    assert y.dtype == (np.int32 if dtype == 6 else np.int64)
    shares = np.stack([(y == c).mean(1) for c in range(4)], 1)
    np.testing.assert_allclose(shares, weights / weights.sum(1, keepdims=True), atol=8 * 0.0036)
    assert not shares[weights == 0].any()


def test_what_is_refused() -> None:
    with pytest.raises(ingot.IngotError, match="RandomNormalLike"):
        drawn("RandomNormalLike", np.ones(3, np.int64))
    with pytest.raises(ingot.IngotError, match="Multinomial"):
        drawn("Multinomial", np.ones((3, 0), np.float32))
