"""Files are written without a second copy of the weights, and are what protobuf would have written."""

from __future__ import annotations

import io
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ingot.loading import load
from ingot.writer import LEAST_CUT, PIECE, write

RNG = np.random.default_rng(0)


def of_weights(*weights: ir.TensorProtocol) -> ir.Model:
    """A graph whose initializers these are, one of them an input too."""
    values = [
        ir.Value(name=f"w{i}", type=ir.TensorType(w.dtype), shape=ir.Shape(list(w.shape)), const_value=w)
        for i, w in enumerate(weights)
    ]
    nodes = [ir.node("Identity", [v], name=f"n{i}") for i, v in enumerate(values)]
    for i, node in enumerate(nodes):
        node.outputs[0].name = f"y{i}"
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(
        values[:1], outputs, nodes=nodes, initializers=values, opset_imports={"": 20}, name="weights"
    )
    return ir.Model(graph, ir_version=10)


def plain(array: np.ndarray) -> ir.Tensor:
    return ir.Tensor(array)


@pytest.mark.parametrize(
    "weights",
    [
        [plain(np.ones(3, np.float32))],
        [plain(np.zeros((0, 4), np.float32)), plain(RNG.random((60, 50), np.float32))],
        [plain(RNG.random((60, 50), np.float32).T), plain(RNG.random((9, 60, 50))[::2, ::-3])],
        [plain(RNG.random((80, 90), np.float32).astype(ml_dtypes.bfloat16).T), plain(np.float32(3.0))],
        [plain(RNG.integers(0, 2, (70, 80)).astype(bool)), plain(np.arange(5000, dtype=np.int64))],
        [plain(np.arange(LEAST_CUT, dtype=np.uint8)), plain(np.arange(LEAST_CUT - 1).astype(np.uint8))],
        [ir.Tensor(RNG.integers(-8, 8, (200, 101)).astype(ml_dtypes.int4), dtype=ir.DataType.INT4)],
        [ir.StringTensor([b"word"] * 2000, shape=ir.Shape([2000])), plain(np.ones(5000, np.float16))],
    ],
)
def test_the_bytes_are_those_of_protobuf(weights: list[Any]) -> None:
    """Weights of every layout and dtype, small and large, beside each other."""
    model = of_weights(*weights)
    before = [v.const_value for v in model.graph.initializers.values()]
    file = io.BytesIO()
    write(model, file)
    assert [v.const_value for v in model.graph.initializers.values()] == before
    written = onnx.ModelProto.FromString(file.getvalue())
    assert written == ir.to_proto(model)
    read = load(file.getvalue())
    for name, value in model.graph.initializers.items():
        want, got = value.const_value, read.graph.initializers[name].const_value
        assert want is not None
        assert got is not None
        np.testing.assert_array_equal(got.numpy(), want.numpy())


class Counting(io.RawIOBase):
    """A file that counts what was made for it, apart from views of the weights themselves."""

    def __init__(self, *weights: np.ndarray) -> None:
        self.weights, self.largest, self.made, self.size = weights, 0, 0, 0

    def write(self, piece: Any) -> int:
        """Count a piece."""
        array = np.frombuffer(piece, np.uint8)
        self.size += array.nbytes
        if not any(np.may_share_memory(array, w) for w in self.weights):
            self.largest = max(self.largest, array.nbytes)
            self.made += array.nbytes
        return array.nbytes


def test_weights_are_not_copied() -> None:
    """A weight goes to the file from where it lies; a transposed one in pieces."""
    a, b = np.zeros((3000, 4000), np.float32), np.zeros((3000, 4000), np.float32)
    file = Counting(a)
    write(of_weights(plain(a), plain(b.T)), file)  # type: ignore[arg-type]
    assert file.size > a.nbytes + b.nbytes
    assert file.made < b.nbytes + 4096
    assert file.largest <= PIECE
