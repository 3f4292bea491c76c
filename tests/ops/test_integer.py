"""Convolutions of integers, by ordinary and by narrow groups, against their definitions to the last bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

import ingot
from ingot.ops.registry import find


def random_bytes(rng: np.random.Generator, dtype: type, *shape: int) -> np.ndarray:
    """All values of the dtype, the extremes often."""
    bounds = np.iinfo(dtype)
    values = rng.integers(bounds.min, bounds.max, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.2, rng.choice([bounds.min, bounds.max], shape), values).astype(
        dtype
    )


def both(op: str, inputs: list[np.ndarray], attributes: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """A node with constant weights, natively and by its definition."""
    names = [f"i{k}" for k in range(len(inputs))]
    node = helper.make_node(op, names, ["y"], **attributes)
    kind = helper.np_dtype_to_tensor_dtype(inputs[0].dtype)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("i0", kind, inputs[0].shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, name) for name, array in zip(names[1:], inputs[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ingot.InferenceSession(model)
    (got,) = session.run(None, {"i0": inputs[0]})
    kinds = {part.kind for part in session.profile({"i0": inputs[0]}, 1)}
    assert "host" not in kinds, f"NumPy computes {op}"
    (want,) = find("", op).evaluate(ir.from_proto(node), inputs)
    return got, want


@pytest.mark.parametrize("of_w", [np.int8, np.uint8])
@pytest.mark.parametrize("of_x", [np.int8, np.uint8])
@pytest.mark.parametrize(
    ("channels", "outputs", "group", "kernel"),
    [
        (19, 19, 19, (3, 3)),  # depthwise
        (5, 10, 5, (5, 3)),  # with a multiplier
        (16, 16, 4, (3, 3)),  # narrow groups
        (3, 3, 3, (17, 17)),  # more products than float32 adds up exactly
        (6, 8, 2, (3, 3)),
    ],
)
def test_sums_and_requantised_sums(
    channels: int, outputs: int, group: int, kernel: tuple[int, int], of_x: type, of_w: type
) -> None:
    rng = np.random.default_rng(channels)
    x = random_bytes(rng, of_x, 2, channels, 21, 18)
    w = random_bytes(rng, of_w, outputs, channels // group, *kernel)
    attributes = {"group": group, "pads": [1, 2, 2, 1], "strides": [2, 1]}
    zeros = [random_bytes(rng, dtype).reshape(()) for dtype in (of_x, of_w)]
    got, want = both("ConvInteger", [x, w, *zeros], attributes)
    np.testing.assert_array_equal(got, want)
    scales = rng.uniform(0.001, 0.01, outputs).astype(np.float32)
    bias = rng.integers(-(1 << 20), 1 << 20, outputs).astype(np.int32)
    factor = np.float32(0.02 * scales.max())  # the largest sums become the ends of the range
    ends = [np.float32(np.abs(want).max() * factor / 127), np.asarray(0 if of_x is np.int8 else 128, of_x)]
    inputs = [x, np.float32(0.02), zeros[0], w, scales, np.full(outputs, zeros[1]), *ends, bias]
    got, want = both("QLinearConv", [np.asarray(array) for array in inputs], attributes)
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(got)) > 20  # not all at the bounds


@pytest.mark.parametrize(
    ("op", "shape", "perm", "axis"),
    [
        ("Gemm", (3, 2050), (1, 0), 0),
        ("Gemm", (3, 2050), None, 0),
        ("MatMul", (3, 2050), (1, 0), None),
        ("MatMul", (2, 3, 2050), (0, 2, 1), None),
    ],
)
def test_weights_that_are_transposed_behind_their_dequantisation(
    op: str, shape: tuple[int, ...], perm: tuple[int, ...] | None, axis: int | None
) -> None:
    """Sums beyond 2^24 are exact, which those of floats are not."""
    rng = np.random.default_rng(0)
    x = rng.integers(200, 256, (4, 2050)).astype(np.uint8)
    w = rng.integers(100, 128, shape).astype(np.int8)
    scale = np.ones((), np.float32) if axis is None else np.array([1, 2, 0.5], np.float32)
    one, zero = np.ones((), np.float32), np.zeros((), np.uint8)
    turned = {} if perm is None else {"perm": perm}
    quantised = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["b"], **quantised),
        helper.make_node("Transpose", ["b"], ["t"], **turned),
        helper.make_node(op, ["a", "t"], ["y"]),
    ]
    held = [
        numpy_helper.from_array(v, n) for n, v in {"w": w, "scale": scale, "one": one, "zero": zero}.items()
    ]
    ends = [
        [helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, x.shape)],
        [onnx.ValueInfoProto(name="y")],
    ]
    graph = helper.make_graph(nodes, "turned", *ends, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (got,) = ingot.InferenceSession(model).run(None, {"x": x})
    sums = x.astype(np.int64) @ np.swapaxes(w.astype(np.int64), -1, -2)
    np.testing.assert_array_equal(got, sums.astype(np.float32) * scale)


def deep_product(op: str, x: np.ndarray, w: np.ndarray, zero: int) -> tuple[np.ndarray, np.ndarray]:
    """x with w (constant), both dequantised with scale 1: what a session gives, and the sums."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "x_zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "one", "w_zero"], ["b"]),
        helper.make_node(op, ["a", "b"], ["y"], **({"transB": 1} if op == "Gemm" else {})),
    ]
    held = {"w": w, "one": np.ones((), np.float32), "x_zero": np.zeros((), x.dtype)}
    held["w_zero"] = np.array(zero, w.dtype)
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (got,) = ingot.InferenceSession(model).run(None, {"x": x})
    less = w.astype(np.int64) - zero
    if op == "Conv":
        return got, np.einsum("nchw,ochw->no", x.astype(np.int64), less)[..., None, None]
    return got, x.astype(np.int64) @ (less.T if op == "Gemm" else less)


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
@pytest.mark.parametrize(
    ("of_w", "least", "zero"),
    [(np.uint8, 200, 0), (np.int8, -128, 0), (np.uint8, 200, 1), (np.int8, 90, -128)],
)
def test_deep_sums_of_heavy_weights_do_not_wrap(op: str, of_w: type, least: int, zero: int) -> None:
    rng, depth = np.random.default_rng(0), 3 * 160 * 160
    x = rng.integers(200, 256, (2, depth)).astype(np.uint8)
    w = rng.integers(least, least + 8, (depth, 3)).astype(of_w)
    shapes = {"Conv": ((2, 3, 160, 160), (3, 3, 160, 160)), "Gemm": (x.shape, w.T.shape)}
    shapes = shapes.get(op, (x.shape, w.shape))
    got, sums = deep_product(op, x.reshape(shapes[0]), w.T.reshape(shapes[1]) if op != "MatMul" else w, zero)
    assert abs(int(sums.flat[0])) >= 1 << 31, "make the sums deeper"
    np.testing.assert_allclose(got, sums, rtol=1e-4)  # of floats: 76,800 roundings


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
def test_deep_sums_of_light_weights_are_exact(op: str) -> None:
    """Magnitudes of the weights prove that int32 holds them, and sums beyond 2^24 show what computed them."""
    rng, depth = np.random.default_rng(1), 3 * 128 * 128
    x, w = (
        rng.integers(128, 256, (2, depth)).astype(np.uint8),
        rng.integers(0, 128, (depth, 70)).astype(np.uint8),
    )
    w += 64
    shapes = {"Conv": ((2, 3, 128, 128), (70, 3, 128, 128)), "Gemm": (x.shape, w.T.shape)}
    shapes = shapes.get(op, (x.shape, w.shape))
    got, sums = deep_product(op, x.reshape(shapes[0]), w.T.reshape(shapes[1]) if op != "MatMul" else w, 100)
    np.testing.assert_array_equal(got, sums.astype(np.float32))
