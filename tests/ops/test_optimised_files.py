"""Quantised files as ONNX Runtime's optimiser leaves them: every node, given what ONNX Runtime gave it.

Whole files are no measure: a float's last bit decides now and then which of two integers a value becomes, and
what follows amplifies it (ONNX Runtime's own answers differ as much from one optimisation level to another).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
from onnx import helper

import ingot
from tests.processors import SEVEN_BITS

quantization = pytest.importorskip("onnxruntime.quantization")
F = onnx.TensorProto.FLOAT
R = np.random.default_rng(11)
FEED = {"x": R.standard_normal((2, 3, 12, 12)).astype(np.float32)}
WORDS = {"x": R.standard_normal((9, 2, 24)).astype(np.float32)}


def f(*shape: int) -> np.ndarray:
    return (R.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def written(
    path: Path, nodes: list[Any], weights: dict[str, np.ndarray], feed: dict[str, np.ndarray]
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F, feed["x"].shape)],
        [helper.make_tensor_value_info("y", F, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def image_model(path: Path) -> Path:
    """Convolutions, a sum, a gate, a mean, attention among pixels and a dense layer."""
    n = helper.make_node
    nodes = [
        n("Conv", ["x", "w1", "b1"], ["c1"], pads=[1] * 4, strides=[2, 2]),
        n("Relu", ["c1"], ["r1"]),
        n("Conv", ["r1", "w2", "b1"], ["c2"], pads=[1] * 4),
        n("Add", ["c2", "r1"], ["s"]),
        n("GlobalAveragePool", ["s"], ["mean"]),
        n("Conv", ["mean", "w3"], ["squeezed"]),
        n("Sigmoid", ["squeezed"], ["gate"]),
        n("Mul", ["s", "gate"], ["gated"]),
        n("MaxPool", ["gated"], ["pooled"], kernel_shape=[2, 2], strides=[1, 1]),
        n("AveragePool", ["gated"], ["averaged"], kernel_shape=[2, 2], strides=[1, 1]),
        n("Concat", ["pooled", "averaged"], ["both"], axis=1),
        n("LeakyRelu", ["both"], ["leaky"], alpha=0.1),
        n("Reshape", ["leaky", "rows"], ["pixels"]),
        n("Transpose", ["pixels"], ["turned"], perm=[0, 2, 1]),
        n("MatMul", ["turned", "pixels"], ["scores"]),
        n("Softmax", ["scores"], ["shares"], axis=-1),
        n("MatMul", ["shares", "turned"], ["mixed"]),
        n("ReduceMean", ["mixed"], ["flat"], axes=[1], keepdims=0),
        n("Gemm", ["flat", "w4", "b4"], ["y"], transB=1),
    ]
    weights = {"w1": f(8, 3, 3, 3), "b1": f(8), "w2": f(8, 8, 3, 3), "w3": f(8, 8, 1, 1), "w4": f(10, 16)}
    return written(path, nodes, {**weights, "b4": f(10), "rows": np.array([0, 0, -1])}, FEED)


def word_model(path: Path) -> Path:
    """An LSTM in both directions, products with a bias and of two tensors."""
    n = helper.make_node
    nodes = [
        n("LSTM", ["x", "w", "r", "b"], ["steps"], hidden_size=16, direction="bidirectional"),
        n("Transpose", ["steps"], ["turned"], perm=[0, 2, 1, 3]),
        n("Reshape", ["turned", "rows"], ["hidden"]),
        n("MatMul", ["hidden", "w1"], ["p"]),
        n("Add", ["p", "b1"], ["biased"]),
        n("Relu", ["biased"], ["on"]),
        n("MatMul", ["on", "w2"], ["left"]),
        n("MatMul", ["on", "w3"], ["right"]),
        n("Add", ["left", "right"], ["y"]),
    ]
    weights = {"w": f(2, 64, 24), "r": f(2, 64, 16), "b": f(2, 128), "rows": np.array([9, 2, 32])}
    weights |= {"w1": f(32, 48), "b1": f(48), "w2": f(48, 8), "w3": f(48, 8)}
    return written(path, nodes, weights, WORDS)


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        self._rest: Iterator[dict[str, np.ndarray]] = iter([FEED])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)


def quantised(kind: str, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    path = folder / "quantised.onnx"
    if kind == "dynamic":
        quantization.quantize_dynamic(word_model(folder / "float.onnx"), path, reduce_range=SEVEN_BITS)
        return path, WORDS
    form, dtype = kind.split()
    which = getattr(quantization.QuantType, "QInt8" if dtype == "int8" else "QUInt8")
    quantization.quantize_static(
        image_model(folder / "float.onnx"),
        path,
        _Calibration(),
        quant_format=getattr(quantization.QuantFormat, form),
        activation_type=which,
        weight_type=quantization.QuantType.QInt8,
        per_channel=form == "QDQ",
        reduce_range=SEVEN_BITS,
    )
    return path, FEED


def optimised(path: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path.with_name("optimised.onnx"))
    onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return onnx.load(path.with_name("optimised.onnx"))


def values_of(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Everything that ONNX Runtime computes."""
    every = onnx.ModelProto()
    every.CopyFrom(model)
    del every.graph.output[:]
    names = [name for node in model.graph.node for name in node.output if name]
    every.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(every.SerializeToString(), options, ["CPUExecutionProvider"])
    return {**feed, **dict(zip(names, session.run(None, feed), strict=True))}


def alone(model: onnx.ModelProto, node: onnx.NodeProto, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    constants = [weight for weight in model.graph.initializer if weight.name in node.input]
    fixed = {weight.name for weight in constants}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
        )
        for name in dict.fromkeys(node.input)
        if name and name not in fixed
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


@pytest.mark.parametrize("kind", ["QDQ int8", "QDQ uint8", "QOperator uint8", "dynamic"])
def test_every_node_is_onnx_runtimes(kind: str, tmp_path: Path) -> None:
    path, feed = quantised(kind, tmp_path)
    model = optimised(path)
    found = {node.op_type for node in model.graph.node}
    wanted = {"DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"}
    if kind != "dynamic":
        wanted = {"QLinearConv", "QLinearMatMul", "QLinearSoftmax", "QLinearConcat", "QGemm"}
    assert wanted <= found, f"ONNX Runtime's optimiser made {sorted(found)}"
    values = values_of(model, feed)
    for node in model.graph.node:
        one = alone(model, node, values)
        given = {value.name: values[value.name] for value in one.graph.input}
        got = ingot.InferenceSession(one).run(None, given)
        for name, array in zip((name for name in node.output if name), got, strict=True):
            expected, what = values[name], f"{node.op_type} {node.name}"
            assert (array.dtype, array.shape) == (expected.dtype, expected.shape), what
            apart = np.abs(array.astype(np.float64) - expected.astype(np.float64))
            if array.dtype.kind == "f":
                assert apart.max() <= 2e-6 * np.abs(expected).max(), f"{what}: {apart.max()}"
            else:
                # The mean of four bytes may lie in the middle of two; which one is nearer is up to rounding.
                quanta = 1 if node.op_type == "QLinearAveragePool" else 0
                assert apart.max() <= quanta, f"{what}: {np.count_nonzero(apart)} of {apart.size}"
