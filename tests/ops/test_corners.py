"""Corners of definitions that are easily missed: NaN beside a threshold, defaults in float64, windows of one
place, batches of nothing, elements of 16 bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import onnxruntime
import pytest

import ingot
from tests.ops.native import native

R = np.random.default_rng(5)


def model(op: str, feed: list[np.ndarray], outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    kinds = [
        onnx.TensorProto.STRING if a.dtype == object else h.np_dtype_to_tensor_dtype(a.dtype) for a in feed
    ]
    made = [f"o{i}" for i in range(outputs)]
    graph = h.make_graph(
        [h.make_node(op, [f"i{i}" for i in range(len(feed))], made, **attributes)],
        "g",
        [
            h.make_tensor_value_info(f"i{i}", k, a.shape)
            for i, (k, a) in enumerate(zip(kinds, feed, strict=True))
        ],
        [onnx.ValueInfoProto(name=name) for name in made],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 22)], ir_version=10)


def ours(op: str, feed: list[np.ndarray], outputs: int = 1, **attributes: Any) -> list[np.ndarray]:
    session = ingot.InferenceSession(model(op, feed, outputs, **attributes))
    return session.run(None, {f"i{i}": a for i, a in enumerate(feed)})


def theirs(op: str, feed: list[np.ndarray], outputs: int = 1, **attributes: Any) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model(op, feed, outputs, **attributes).SerializeToString())
    return session.run(None, {f"i{i}": a for i, a in enumerate(feed)})


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_nan_is_above_no_threshold(dtype: str) -> None:
    """As the operator's own function says: Where(alpha < x, x, 0)."""
    x = np.array([np.nan, np.inf, -np.inf, 0.5, 1.0, 1.5] * 3, dtype)
    (got,) = native("ThresholdedRelu", [x], alpha=1.0)
    np.testing.assert_array_equal(got, np.array([0, np.inf, 0, 0, 0, 1.5] * 3, dtype))


@pytest.mark.parametrize("op", ["LeakyRelu", "HardSigmoid", "Elu"])
def test_defaults_are_float32_numbers(op: str) -> None:
    """A default in float64 is the number that a file would hold: LeakyRelu's is not 0.01."""
    x = -np.arange(1.0, 20.0) / 8
    default = {
        "LeakyRelu": {"alpha": 0.01},
        "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
        "Elu": {"alpha": 1.0},
    }
    (plain,), (explicit,) = ours(op, [x]), ours(op, [x], **default[op])
    np.testing.assert_array_equal(plain, explicit)


def test_the_epsilon_of_a_normalisation_in_float64() -> None:
    """A float32 number, too: where the variance is nothing beside it, the last bits show."""
    x, ones = R.standard_normal((2, 3, 8)) * 1e-7, np.ones(3)
    (got,) = ours("InstanceNormalization", [x, ones, ones * 0])
    (want,) = ours("InstanceNormalization", [x, ones, ones * 0], epsilon=1e-5)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_a_symmetric_window_of_one_place_is_undefined(op: str) -> None:
    size = np.array(1, np.int64)
    for f in (ours, theirs):
        assert np.isnan(f(op, [size], periodic=0)[0]).tolist() == [True]
        assert np.isfinite(f(op, [size], periodic=1)[0]).tolist() == [True]


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_the_places_of_the_largest_in_a_batch_of_none(pads: list[int]) -> None:
    feed = [np.ones((0, 4, 6, 5), np.float32)]
    found = [f("MaxPool", feed, 2, kernel_shape=[2, 2], pads=pads) for f in (ours, theirs)]
    assert [a.shape for a in found[0]] == [a.shape for a in found[1]]


WIDE = R.standard_normal((3, 4, 5)) + 1j * R.standard_normal((3, 4, 5))
INDICES = np.array([2, -1, 0], np.int64)


@pytest.mark.parametrize(
    ("op", "more", "attributes", "want"),
    [
        ("Transpose", [], {"perm": [2, 0, 1]}, WIDE.transpose(2, 0, 1)),
        ("Transpose", [], {"perm": [2, 1, 0]}, WIDE.transpose(2, 1, 0)),
        ("Reshape", [np.array([12, 5])], {}, WIDE.reshape(12, 5)),
        ("Gather", [INDICES], {"axis": 1}, WIDE[:, INDICES]),
        ("GatherElements", [np.zeros((1, 4, 5), np.int64)], {}, WIDE[:1]),
        ("GatherND", [INDICES[:, None]], {}, WIDE[INDICES]),
        (
            "ScatterElements",
            [np.zeros((1, 4, 5), np.int64), WIDE[1:2]],
            {},
            np.concatenate([WIDE[1:2], WIDE[1:]]),
        ),
        ("ScatterND", [np.array([[0]]), WIDE[1:2]], {}, np.concatenate([WIDE[1:2], WIDE[1:]])),
        ("Slice", [np.array([-1]), np.array([-9]), np.array([0]), np.array([-2])], {}, WIDE[::-2]),
        ("Compress", [np.array([True, False, True])], {"axis": 0}, WIDE[::2]),
        ("Concat", [WIDE], {"axis": 1}, np.concatenate([WIDE, WIDE], 1)),
        ("Expand", [np.array([2, 1, 1, 1])], {}, np.stack([WIDE, WIDE])),
    ],
)
def test_elements_of_sixteen_bytes(
    op: str, more: list[np.ndarray], attributes: dict[str, Any], want: Any
) -> None:
    """complex128 has no registers; what only moves it is right all the same."""
    (got,) = ours(op, [WIDE, *more], **attributes)
    assert got.dtype == np.complex128
    np.testing.assert_array_equal(got, want)


def test_strings_on_and_off() -> None:
    """Of any length."""
    feed = [np.array([1, 0, 5]), np.array(2), np.array(["", "much longer"], object)]
    (got,) = ours("OneHot", feed)
    assert got.dtype == object
    assert got.tolist() == [["", "much longer"], ["much longer", ""], ["", ""]]
