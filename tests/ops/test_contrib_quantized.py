"""ONNX Runtime's operators of small integers against ONNX Runtime: kernels, and the definitions on NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import ingot
from ingot.ops.registry import find
from tests.processors import weights_in_range

ort = pytest.importorskip("onnxruntime")
F = np.float32
BYTES = (np.dtype(np.uint8), np.dtype(np.int8))
each_byte = pytest.mark.parametrize("dtype", BYTES, ids=str)


def model_of(
    op: str, inputs: Sequence[np.ndarray | None], fed: Sequence[int], out: Any, **attributes: Any
) -> onnx.ModelProto:
    """One node; the inputs with these numbers are fed, the others initializers."""
    names = ["" if array is None else f"i{k}" for k, array in enumerate(inputs)]
    there = [
        (k, name, array)
        for k, (name, array) in enumerate(zip(names, inputs, strict=True))
        if array is not None
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for k, name, array in there
            if k in fed
        ],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(out)), None)],
        [numpy_helper.from_array(array, name) for k, name, array in there if k not in fed],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def compare(
    op: str,
    inputs: Sequence[np.ndarray | None],
    fed: Sequence[int],
    out: Any,
    *,
    apart: float = 0.0,
    share: float = 0.0,
    on_host: bool = False,
    **attributes: Any,
) -> None:
    """Kernel and definition equal ONNX Runtime; or a `share` of the elements lies up to `apart` away."""
    model = model_of(op, inputs, fed, out, **attributes)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    feed = {f"i{k}": inputs[k] for k in fed}
    (want,) = ort.InferenceSession(model.SerializeToString(), options).run(None, feed)
    session = ingot.InferenceSession(model)
    kinds = {node.kind for node in session.profile(feed, 1) if node.op_type == op}
    assert kinds == ({"host"} if on_host else {"native"}), f"{op} is {kinds}"
    (defined,) = find("com.microsoft", op).evaluate(ir.from_proto(model.graph.node[0]), inputs)
    for got in (session.run(None, feed)[0], defined):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
        assert difference.max(initial=0) <= apart, f"{op}: {difference.max()} away"
        assert share == 0.0 or np.mean(difference > 0) <= share


def random_bytes(rng: np.random.Generator, dtype: np.dtype, *shape: int) -> np.ndarray:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def number(value: float, dtype: Any = F) -> np.ndarray:
    return np.array(value, dtype)


@each_byte
@pytest.mark.parametrize("other", [(9, 37), (37,), (1,), (9, 1)])
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_pairs(op: str, other: tuple[int, ...], dtype: np.dtype) -> None:
    rng = np.random.default_rng(1)
    for scales in ((0.017, 0.023, 0.04), (0.02, 0.02, 0.04), (0.5, 0.25, 1.0)) * 4:
        a, b = random_bytes(rng, dtype, 9, 37), random_bytes(rng, dtype, *other)
        zeros = [random_bytes(rng, dtype) for _ in range(3)]
        y_scale = scales[2] if op == "QLinearAdd" else scales[2] / 4
        inputs = [a, number(scales[0]), zeros[0], b, number(scales[1]), zeros[1], number(y_scale), zeros[2]]
        compare(op, inputs, (0, 3), dtype)
        compare(op, [*inputs[3:6], *inputs[:3], *inputs[6:]], (0, 3), dtype)


@each_byte
def test_float_operators_between_integers(dtype: np.dtype) -> None:
    rng = np.random.default_rng(2)
    x, image = random_bytes(rng, dtype, 11, 37), random_bytes(rng, dtype, 2, 17, 9, 9)
    zero, y_zero, low = (
        random_bytes(rng, dtype),
        random_bytes(rng, dtype),
        np.array(np.iinfo(dtype).min, dtype),
    )
    compare("QLinearSigmoid", [x, number(0.05), zero, number(1 / 256), low], (0,), dtype)
    compare("QLinearLeakyRelu", [x, number(0.05), zero, number(0.06), y_zero], (0,), dtype, alpha=0.1)
    ends = [number(0.05), zero, number(0.04), y_zero]

    compare("QLinearGlobalAveragePool", [image, *ends], (0,), dtype)
    compare("QLinearAveragePool", [image, *ends], (0,), dtype, kernel_shape=[3, 3], strides=[2, 2])
    parts = [x, number(0.05), zero, random_bytes(rng, dtype, 5, 37), number(0.04), y_zero]
    compare("QLinearConcat", [number(0.04), y_zero, *parts], (2, 5), dtype, axis=0)


@each_byte
@pytest.mark.parametrize("y_scale", [1 / 255, 1 / 256, 0.0037, 0.011, 0.7])
def test_softmax_counts_in_whole_parts_of_one(y_scale: float, dtype: np.dtype) -> None:
    """Their number is rounded down: 254 for the float32 next to 1 / 255."""
    rng = np.random.default_rng(5)
    zero, low = random_bytes(rng, dtype), np.array(max(np.iinfo(dtype).min, -120), dtype)
    for x_scale in (0.001, 0.05, 0.4):
        inputs = [random_bytes(rng, dtype, 11, 37), number(x_scale), zero, number(y_scale), low]
        compare("QLinearSoftmax", inputs, (0,), dtype, axis=-1, opset=13)
        inputs[0] = random_bytes(rng, dtype, 4, 6, 5)
        compare("QLinearSoftmax", inputs, (0,), dtype, axis=1, opset=13)
        compare("QLinearSoftmax", inputs, (0,), dtype, opset=12)
        compare("QLinearSoftmax", inputs, (0,), dtype, on_host=True, axis=1, opset=12)


def test_means_over_axes() -> None:
    rng = np.random.default_rng(3)
    x = random_bytes(rng, BYTES[0], 2, 5, 7)
    inputs = [x, number(0.05), number(3, np.uint8), number(0.01), number(9, np.uint8)]
    model = model_of("QLinearReduceMean", inputs, (0,), np.uint8, axes=[1, 2], keepdims=0)
    (got,) = ingot.InferenceSession(model).run(None, {"i0": x})
    mean = ((x.astype(np.float64) - 3) * 0.05).mean((1, 2))
    assert np.abs(got - np.clip(mean / 0.01 + 9, 0, 255)).max() <= 0.5 + 1e-3


@each_byte
def test_products(dtype: np.dtype) -> None:
    rng = np.random.default_rng(4)
    zero, y_zero = random_bytes(rng, dtype), random_bytes(rng, dtype)
    weights = weights_in_range(random_bytes(rng, BYTES[1], 64, 33))
    scales = rng.uniform(0.001, 0.02, 33).astype(F)
    a, none = random_bytes(rng, dtype, 13, 64), np.zeros(33, np.int8)
    bias = rng.integers(-999, 999, 33).astype(np.int32)
    turned = np.ascontiguousarray(weights.T)
    inputs = [a, number(0.02), zero, turned, scales, none, bias, number(0.1), y_zero]
    compare("QGemm", inputs, (0,), dtype, transB=1)
    inputs = [a, number(0.02), zero, weights, number(0.02), number(0, np.int8), None]
    compare("QGemm", inputs, (0,), F, apart=1e-4, alpha=0.5)
    whole, real = random_bytes(rng, dtype, 2, 13, 64), rng.normal(0, 1, 33).astype(F)
    inputs = [whole, weights, number(0.02), scales, zero, None, real]
    compare("MatMulIntegerToFloat", inputs, (0,), F, apart=1e-5)


def test_products_of_floats_that_are_quantised_on_the_way() -> None:
    rng = np.random.default_rng(5)
    x, scales = rng.normal(0, 1, (2, 13, 64)).astype(F), rng.uniform(0.001, 0.02, 33).astype(F)
    for dtype in BYTES:
        weights = weights_in_range(random_bytes(rng, dtype, 64, 33))
        zeros = weights_in_range(random_bytes(rng, dtype, 33))
        bias = rng.normal(0, 1, 33).astype(F)
        compare("DynamicQuantizeMatMul", [x, weights, scales, zeros, bias], (0,), F, apart=1e-4)
        compare("DynamicQuantizeMatMul", [x, weights, number(0.02).reshape(1)], (0,), F, apart=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("depth", "block"), [(64, 32), (96, 16), (100, 32)])
def test_weights_of_few_bits(bits: int, depth: int, block: int) -> None:
    rng, n, blocks = np.random.default_rng(6), 24, -(-depth // block)
    weights = random_bytes(rng, BYTES[0], n, blocks, block * bits // 8)
    scales, x = rng.uniform(0.001, 0.1, n * blocks).astype(F), rng.normal(0, 1, (3, 7, depth)).astype(F)
    attributes = {"K": depth, "N": n, "bits": bits, "block_size": block}
    row, bias = rng.normal(0, 1, (1, 2, depth)).astype(F), rng.normal(0, 1, n).astype(F)  # few of them
    packed = random_bytes(rng, BYTES[0], n * -(-blocks * bits // 8))
    for zeros in (None, packed):
        compare("MatMulNBits", [x, weights, scales, zeros], (0,), F, apart=2e-4, **attributes)
        compare("MatMulNBits", [row, weights, scales, zeros, None, bias], (0,), F, apart=2e-4, **attributes)
    if bits == 4:
        real = rng.uniform(0, 15, n * blocks).astype(F)
        compare("MatMulNBits", [x, weights, scales, real], (0,), F, apart=2e-4, **attributes)
        compare("MatMulNBits", [row, weights, scales, real], (0,), F, apart=2e-4, **attributes)
        if depth == 64:
            order = rng.permutation(np.arange(depth) // block).astype(np.int32)
            compare("MatMulNBits", [x, weights, scales, None, order], (0,), F, apart=2e-4, **attributes)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("with_zeros", [False, True])
def test_rows_as_bytes_where_a_node_allows_it(rows: int, with_zeros: bool) -> None:
    """ONNX Runtime's integers: far nearer to it than to a product of floats."""
    rng, n, depth, block = np.random.default_rng(8), 24, 128, 32
    weights = random_bytes(rng, BYTES[0], n, depth // block, block // 2)
    scales, x = (
        rng.uniform(0.001, 0.1, n * depth // block).astype(F),
        rng.normal(0, 1, (rows, depth)).astype(F),
    )
    zeros = random_bytes(rng, BYTES[0], n * depth // block // 2) if with_zeros else None
    attributes = {"K": depth, "N": n, "bits": 4, "block_size": block, "accuracy_level": 4}
    compare("MatMulNBits", [x, weights, scales, zeros], (0,), F, apart=2e-4, **attributes)


def test_rows_of_tables_of_few_bits() -> None:
    rng = np.random.default_rng(7)
    table, rows = random_bytes(rng, BYTES[0], 30, 32), rng.integers(0, 30, (2, 5))
    for bits in (4, 8):
        blocks = 32 * 8 // bits // 16
        scales = rng.uniform(0.01, 0.1, (30, blocks)).astype(F)
        zeros = random_bytes(rng, BYTES[0], 30, blocks * bits // 8)
        attributes = {"bits": bits, "block_size": 16, "gather_axis": 0, "quantize_axis": 1}
        for own in (None, zeros):
            inputs = [table, rows, scales, own]
            compare("GatherBlockQuantized", inputs, (1,), F, on_host=True, **attributes)


@pytest.mark.parametrize("op", ["QLinearGlobalAveragePool", "QLinearAveragePool"])
def test_channels_last(op: str) -> None:
    x = random_bytes(np.random.default_rng(9), BYTES[0], 2, 6, 5, 7)
    ends = [number(0.05), number(3, np.uint8), number(0.04), number(7, np.uint8)]
    attributes = {"kernel_shape": [2, 2], "strides": [2, 1]} if op == "QLinearAveragePool" else {}
    model = model_of(op, [x, *ends], (0,), np.uint8, channels_last=1, **attributes)
    (want,) = ort.InferenceSession(model.SerializeToString()).run(None, {"i0": x})
    np.testing.assert_array_equal(ingot.InferenceSession(model).run(None, {"i0": x})[0], want)
