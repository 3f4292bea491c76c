"""Corners of definitions that are easily missed: NaN beside a threshold, defaults in float64, windows of one
place, batches of nothing, elements of 16 bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as h
import onnx_ir as ir
import onnxruntime
import pytest

import ingot
from ingot.ops.registry import find
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


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("exponent", [0.5, -0.5])
@pytest.mark.parametrize("fed", [(0,), (0, 1)])
def test_a_half_power_is_pows_and_not_the_roots(dtype: str, exponent: float, fed: tuple[int, ...]) -> None:
    """C's pow takes -Inf for Inf and -0.0 for 0.0; the sign of a zero shows in its reciprocal."""
    x = np.array([-np.inf, -0.0, 0.0, np.inf, np.nan, -1.0, 4.0], dtype)
    (got,) = native("Pow", [x, np.array(exponent, dtype)], fed=fed)
    root = np.array([np.inf, 0.0, 0.0, np.inf, np.nan, np.nan, 2.0], dtype)
    with np.errstate(all="ignore"):
        want = root if exponent > 0 else 1 / root
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[:4]), np.zeros(4, np.bool_))


@pytest.mark.parametrize("fed", [(0,), (0, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_exponents_keep_the_digits_of_their_dtype(dtype: str, fed: tuple[int, ...]) -> None:
    """Float32 makes 16777217 even, and a whole number of 3.0000000001."""
    base = np.array([-1, -1, -1, -1, 2], dtype)
    exponent = np.array([16777217, 16777216, 3, -5, 4])
    (got,) = native("Pow", [base, exponent], fed=fed)
    np.testing.assert_array_equal(got, np.array([-1, 1, -1, -1, 16], dtype))
    for real, want in ((3.0000000001, np.nan), (3.0, -8.0), (-3.0, -0.125)):
        (got,) = native("Pow", [np.array([-2, -2], dtype), np.array(real)], fed=fed)
        np.testing.assert_array_equal(got, np.array([want, want], dtype))


@pytest.mark.parametrize("exponents", ["int8", "int32", "int64", "uint64", "uint8"])
@pytest.mark.parametrize("bases", ["int8", "int32", "int64", "uint8", "uint64"])
def test_exponents_are_of_their_own_dtype(bases: str, exponents: str) -> None:
    """256 is no 0 because the base is a byte."""
    base = np.array([-3, -2, -1, 0, 1, 2, 3, 5, 7], "int64").astype(bases)[:, None]
    bounds = np.iinfo(exponents)
    wanted = [0, 1, 2, 3, 7, 127, 130, 255, 256, 257, 2**31 + 1, 2**32, 2**63 + 1, -1, -2, -127, bounds.min]
    exponent = np.array([e for e in wanted if bounds.min <= e <= bounds.max], exponents)[None]
    (got,) = native("Pow", [base, exponent], fed=(0, 1))
    held = np.iinfo(bases)

    def power(b: int, e: int) -> int:
        if e < 0:
            return {1: 1, -1: 1 if e % 2 == 0 else -1}.get(b, 0)
        return (pow(b, e, 1 << held.bits) - held.min) % (1 << held.bits) + held.min

    want = [[power(int(b), int(e)) for e in exponent[0]] for b in base[:, 0]]
    np.testing.assert_array_equal(got, np.array(want, bases))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int64"])
@pytest.mark.parametrize("depth", [3, 300])
def test_one_hot_indices_are_whole_numbers(dtype: str, depth: int) -> None:
    """Cast to int64 first, also where the depth is more than their dtype holds."""
    indices = np.array([0, 1, 2, 100]).astype(dtype)
    indices = indices + np.array(0.75, dtype) if dtype in ("float32", "float64") else indices
    indices = -indices if dtype[0] != "u" else indices
    (got,) = native("OneHot", [indices, np.array(depth), np.array([2, 5], np.float32)], fed=(0, 2))
    want = np.full((4, depth), 2, np.float32)
    for row, index in zip(want, indices.astype(np.int64).tolist(), strict=True):
        if -depth <= index < depth:
            row[index] = 5
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("lengths", [[1, 5], [1, -1], [4, -4]])
def test_lengths_outside_of_the_steps_are_refused(lengths: list[int]) -> None:
    feed = [np.arange(8.0).reshape(4, 2), np.array(lengths)]
    with pytest.raises(ingot.InputError, match=r"length is outside 0 … 4"):
        ours("ReverseSequence", feed)
    with pytest.raises(ingot.InputError, match=r"length is outside 0 … 4"):
        find("", "ReverseSequence").evaluate(ir.node("ReverseSequence", []), feed)


def test_the_place_of_a_nan_in_a_window() -> None:
    x = np.array([[[[1, np.nan, 3, 0], [4, 5, np.nan, np.nan]]]], np.float32)
    for pads in ([0, 0, 0, 0], [1, 1, 1, 1]):
        native("MaxPool", [x], outputs=2, kernel_shape=[2, 2], pads=pads)


def test_instances_without_channels() -> None:
    x, none = np.ones((2, 0, 4, 5), np.float32), np.ones(0, np.float32)
    (got,) = native("InstanceNormalization", [x, none, none])
    assert got.shape == x.shape


def test_tables_without_rows() -> None:
    node = ir.node("FeatureVectorizer", [], {"inputdimensions": [2, 4]}, domain="ai.onnx.ml")
    tables = [np.ones((0, 3), np.float32), np.ones((0, 2, 2), np.float32)]
    (got,) = find("ai.onnx.ml", "FeatureVectorizer").evaluate(node, tables)
    assert got.shape == (0, 6)


def test_boxes_whose_scores_are_no_numbers_come_first() -> None:
    boxes = np.array([[[0, i, 1, i + 1] for i in range(5)]], np.float32)
    scores = np.array([[[0.5, np.nan, np.inf, -np.inf, np.nan]]], np.float32)
    (got,) = native("NonMaxSuppression", [boxes, scores, np.array([9])], fed=(0, 1))
    assert got[:, 2].tolist() == [1, 4, 2, 0, 3]


@pytest.mark.parametrize(
    ("equation", "words"), [("ij->ik", "in no input"), ("ij,jk->ii", "twice in the output")]
)
def test_subscripts_of_an_output_that_is_none(equation: str, words: str) -> None:
    feed = [np.ones((3, 3), np.float32)] * (1 + equation.count(","))
    with pytest.raises(ingot.ShapeError, match=words):
        ours("Einsum", feed, equation=equation)


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("bound", [(), (1,), (1, 1)])
def test_bounds_of_clip_are_one_number_each(shape: tuple[int, ...], bound: tuple[int, ...]) -> None:
    """Files hold them as vectors, too."""
    x = np.full(shape, 3.0, np.float32)
    (got,) = native("Clip", [x, np.full(bound, -1, np.float32), np.full(bound, 0.5, np.float32)])
    np.testing.assert_array_equal(got, np.full(shape, 0.5, np.float32))
