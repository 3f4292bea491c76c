"""Models that onnxruntime.quantization has quantised, against onnxruntime itself, in every form it writes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import ingot
from ingot.ops.registry import find
from tests.processors import SEVEN_BITS

ort = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is the peer that these outputs are compared with"
)
quantization = pytest.importorskip("onnxruntime.quantization")
TYPES = {
    name: getattr(quantization.QuantType, f"Q{name}") for name in ("Int8", "UInt8", "Int16", "UInt16", "Int4")
}


def _weights(rng: np.random.Generator, name: str, *shape: int, scale: float = 0.2) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32), name)


def network() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """Convolutions: strided, depthwise, pointwise, of odd channels; a residual, pools, a gate, a Concat."""
    rng, weights, nodes = np.random.default_rng(1), list[onnx.TensorProto](), list[onnx.NodeProto]()

    def conv(x: str, y: str, c: int, o: int, k: int, stride: int = 1, group: int = 1) -> None:
        depth = c // group * k * k
        weights.append(_weights(rng, f"{y}_w", o, c // group, k, k, scale=(2 / depth) ** 0.5))
        weights.append(_weights(rng, f"{y}_b", o))
        where = {"kernel_shape": [k, k], "strides": [stride] * 2, "pads": [k // 2] * 4, "group": group}
        nodes.append(helper.make_node("Conv", [x, f"{y}_w", f"{y}_b"], [y], **where))

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> None:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))

    conv("x", "stem", 3, 17, 3, 2)
    node("Relu", ["stem"], "a")
    conv("a", "deep", 17, 17, 3, 1, 17)
    node("Relu", ["deep"], "b")
    conv("b", "point", 17, 34, 1)
    conv("point", "wide", 34, 34, 3)
    node("Add", ["wide", "point"], "sum")
    node("Relu", ["sum"], "c")
    node("MaxPool", ["c"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    conv("pooled", "grouped", 34, 64, 3, 2, 2)
    node("Sigmoid", ["grouped"], "gate")
    node("Mul", ["grouped", "gate"], "gated")
    node("Concat", ["gated", "gated"], "joined", axis=1)
    node("GlobalAveragePool", ["joined"], "mean")
    node("Flatten", ["mean"], "flat")
    node("Gemm", ["flat", "w", "bias"], "y", transB=1)
    weights += [_weights(rng, "w", 10, 128), _weights(rng, "bias", 10)]
    return _model(nodes, weights, ["n", 3, "h", "w"], ["n", 10]), (2, 3, 26, 22)


def encoder() -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A transformer's layer: attention with products of two activations, and two dense layers."""
    rng, width, heads = np.random.default_rng(2), 64, 4
    weights, nodes = list[onnx.TensorProto](), list[onnx.NodeProto]()

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> None:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))

    def dense(x: str, y: str, c: int, o: int) -> None:
        weights.extend([_weights(rng, f"{y}_w", c, o, scale=c**-0.5), _weights(rng, f"{y}_b", o)])
        node("MatMul", [x, f"{y}_w"], f"{y}_m")
        node("Add", [f"{y}_m", f"{y}_b"], y)

    constants = {
        "heads": np.array([0, 0, heads, width // heads]),
        "merged": np.array([0, 0, width]),
        "scale": np.float32((width // heads) ** -0.5),
        "gain": np.ones(width, np.float32),
    }
    weights += [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        dense("x", name, width, width)
        node("Reshape", [name, "heads"], f"{name}_r")
        node("Transpose", [f"{name}_r"], f"{name}_t", perm=perm)
    node("MatMul", ["q_t", "k_t"], "scores")
    node("Mul", ["scores", "scale"], "scaled")
    node("Softmax", ["scaled"], "p", axis=-1)
    node("MatMul", ["p", "v_t"], "mixed")
    node("Transpose", ["mixed"], "mixed_t", perm=[0, 2, 1, 3])
    node("Reshape", ["mixed_t", "merged"], "flat")
    dense("flat", "out", width, width)
    node("Add", ["out", "x"], "sum")
    node("LayerNormalization", ["sum", "gain"], "normal", axis=-1)
    dense("normal", "up", width, 128)
    node("Relu", ["up"], "active")
    dense("active", "down", 128, width)
    node("Add", ["down", "normal"], "y")
    return _model(nodes, weights, ["n", "t", width], ["n", "t", width]), (2, 13, width)


def _model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], x: list[str | int], y: list[str | int]
) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "quantised", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Samples(quantization.CalibrationDataReader):
    """A few inputs to find ranges from."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(3)
        self._left = iter([{"x": rng.normal(0, 1, shape).astype(np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, tuple[int, ...]]]] = {
    "network": network,
    "encoder": encoder,
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger().setLevel(logging.ERROR)  # the quantiser warns about what it is not asked to do


def run_both(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Ingot's output and that of onnxruntime without its own fusions; every node of ours is native."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    feed = {"x": np.random.default_rng(4).normal(0, 1, shape).astype(np.float32)}
    (want,) = ort.InferenceSession(str(path), options).run(None, feed)
    session = ingot.InferenceSession(str(path))
    (got,) = session.run(None, feed)
    on_host = {node.op_type for node in session.profile(feed, 1) if node.kind == "host"}
    assert not on_host, f"{path.stem}: NumPy computes {on_host}; give them kernels"
    return got, want


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weights", ["Int8", "UInt8"])
@pytest.mark.parametrize("name", MODELS)
def test_dynamic(name: str, weights: str, per_channel: bool, tmp_path: Path) -> None:
    model, shape = MODELS[name]()
    source, path = tmp_path / "float.onnx", tmp_path / f"{name} {weights}.onnx"
    onnx.save(model, source)
    operators = ["MatMul", "Gemm", "Conv"]
    quantization.quantize_dynamic(
        source,
        path,
        weight_type=TYPES[weights],
        per_channel=per_channel,
        op_types_to_quantize=operators,
        reduce_range=SEVEN_BITS,
    )
    got, want = run_both(path, shape)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("activations", "weights"),
    [("UInt8", "Int8"), ("Int8", "Int8"), ("UInt8", "UInt8"), ("UInt16", "Int8"), ("UInt8", "Int4")],
)
@pytest.mark.parametrize("name", MODELS)
def test_static_qdq(name: str, activations: str, weights: str, per_channel: bool, tmp_path: Path) -> None:
    model, shape = MODELS[name]()
    source, path = tmp_path / "float.onnx", tmp_path / f"{name} {activations} {weights}.onnx"
    onnx.save(model, source)
    quantization.quantize_static(
        source,
        path,
        Samples(shape),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=TYPES[activations],
        weight_type=TYPES[weights],
        per_channel=per_channel,
    )
    got, want = run_both(path, shape)
    # Sums of floats are rounded, sums of integers are not: a value at the middle between two steps may take
    # either, and what follows moves by a step of 8 or 16 bits. Of 8 bits few do.
    step = np.abs(want).max() * (2 / 255 if "16" not in activations else 2 / 65535)
    assert np.abs(got - want).max() <= 2 * step
    assert "16" in activations or np.mean(np.abs(got - want) > step / 8) <= 0.05


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("activations", "weights"), [("UInt8", "Int8"), ("Int8", "Int8"), ("UInt8", "UInt8")]
)
@pytest.mark.parametrize("name", MODELS)
def test_static_operators(
    name: str, activations: str, weights: str, per_channel: bool, tmp_path: Path
) -> None:
    """QLinearConv, QLinearMatMul, QGemm, QLinearAdd …: integers throughout, and the same ones."""
    model, shape = MODELS[name]()
    source, path = tmp_path / "float.onnx", tmp_path / f"{name} {activations} {weights}.onnx"
    onnx.save(model, source)
    quantization.quantize_static(
        source,
        path,
        Samples(shape),
        quant_format=quantization.QuantFormat.QOperator,
        activation_type=TYPES[activations],
        weight_type=TYPES[weights],
        per_channel=per_channel,
        reduce_range=SEVEN_BITS,
    )
    got, want = run_both(path, shape)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("values", [[0, 0, 0], [-0.0], [], [3, 3], [-2], [-1, 0, 5]])
def test_a_range_of_its_own_is_onnx_runtimes(values: list[float]) -> None:
    """Of zeros alone, where the specification divides 0 by 0, as well; kernel and definition."""
    float32, uint8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"])
    outputs = [value("y", uint8, ["n"]), value("scale", float32, []), value("zero", uint8, [])]
    graph = onnx.helper.make_graph([node], "g", [value("x", float32, ["n"])], outputs)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    x = np.array(values, np.float32)
    wanted = ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    defined = find("", "DynamicQuantizeLinear").evaluate(ir.from_proto(node), [x])
    for got in (ingot.InferenceSession(proto).run(None, {"x": x}), defined):
        for ours, theirs in zip(got, wanted, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            np.testing.assert_array_equal(ours, theirs)
