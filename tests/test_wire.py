"""Weights are found in a serialised model without parsing it, and what is left is the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from ingot.errors import ModelError
from ingot.loading import LEAST_VIEW, load
from ingot.mapped import forget_pages, mapping_of
from ingot.wire import FLOAT_DATA, RAW_DATA, split

LARGE = np.arange(LEAST_VIEW, dtype=np.float32).reshape(256, -1)


def model(*weights: np.ndarray) -> onnx.ModelProto:
    """A sum of all weights with an input of any shape."""
    names = [f"w{i}" for i in range(len(weights))]
    nodes = [onnx.helper.make_node("Sum", ["x", *names], ["y"], "sum")]
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in "xy")
    tensors = [numpy_helper.from_array(w, n) for n, w in zip(names, weights, strict=True)]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])


def test_only_large_weights_are_cut_out() -> None:
    small = np.ones(3, np.float32)
    proto = model(small, LARGE, small, LARGE[::-1])
    content = proto.SerializeToString()
    pieces = split(memoryview(content))
    assert pieces is not None
    rest, cut = pieces
    assert not cut.constants
    assert sorted(cut.initializers) == [1, 3]
    assert len(rest) < 1000
    again = onnx.ModelProto.FromString(rest)
    for number, piece in cut.initializers.items():
        assert piece.field == RAW_DATA
        again.graph.initializer[number].raw_data = bytes(piece.data)
    assert again == proto


def test_fields_in_any_order_and_a_graph_in_two_parts() -> None:
    """Protobuf's messages may be cut anywhere between fields: parts of a graph are one graph."""
    proto = model(LARGE, LARGE + 1)
    second = onnx.ModelProto()
    second.graph.initializer.append(proto.graph.initializer.pop())
    content = second.SerializeToString() + proto.SerializeToString()
    loaded = load(content)
    for name, want in (("w0", LARGE), ("w1", LARGE + 1)):
        tensor = loaded.graph.initializers[name].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), want)


@pytest.mark.parametrize("at", [1, 5, 100, -1, -70000])
def test_torn_files_are_refused(tmp_path: Path, at: int) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(LARGE).SerializeToString()[:at])
    with pytest.raises(ModelError):
        load(path)


def test_noise_is_no_model() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        pieces = split(memoryview(generator.bytes(int(generator.integers(1, 300)))))
        assert pieces is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.float16, np.int64, bool])
def test_weights_are_views_of_the_file(tmp_path: Path, dtype: type) -> None:
    weights = (np.arange(1 << 17).reshape(2, -1) % 2).astype(dtype)
    path = tmp_path / "m.onnx"
    onnx.save(model(weights), path)
    tensor = load(path).graph.initializers["w0"].const_value
    assert tensor is not None
    array = tensor.numpy()
    assert array.base is not None
    assert not array.flags.writeable
    for _ in range(2):
        np.testing.assert_array_equal(array, weights)
        forget_pages(array)  # and they are read again
    assert array.dtype == dtype


def test_a_size_that_is_not_the_shapes_is_refused() -> None:
    proto = model(LARGE)
    proto.graph.initializer[0].dims[0] += 1
    with pytest.raises(ModelError, match="'w0' do not fit its shape"):
        load(proto.SerializeToString())


def test_four_bit_weights_are_decoded() -> None:
    values = np.arange(LEAST_VIEW * 4) % 8
    tensor = onnx.helper.make_tensor("w0", onnx.TensorProto.INT4, values.shape, values)
    proto = model(LARGE)
    proto.graph.initializer[0].CopyFrom(tensor)
    loaded = load(proto.SerializeToString()).graph.initializers["w0"].const_value
    assert loaded is not None
    assert loaded.dtype == ir.DataType.INT4
    np.testing.assert_array_equal(loaded.numpy().astype(np.int64), values)


def constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A constant's sum with an input."""
    nodes = [
        onnx.helper.make_node("Constant", [], ["c"], "constant", value=tensor),
        onnx.helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    x, y = (onnx.helper.make_tensor_value_info(n, tensor.data_type, None) for n in "xy")
    graph = onnx.helper.make_graph(nodes, "g", [x], [y])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])


def listed(array: np.ndarray) -> onnx.TensorProto:
    """A tensor whose numbers are in the field of their type instead of raw data."""
    dtype = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor("t", dtype, array.shape, array.ravel().tolist())


@pytest.mark.parametrize("lift", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 64, LEAST_VIEW])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.complex64, np.float16])
@pytest.mark.parametrize("raw", [False, True])
def test_constants_in_any_form(lift: bool, count: int, dtype: type, raw: bool) -> None:
    want = (np.arange(count) % 1000 - 5).astype(dtype)
    proto = constant(numpy_helper.from_array(want, "t") if raw else listed(want))
    model = load(proto.SerializeToString(), lift=lift)
    held = (
        model.graph.initializers["c"].const_value if lift else model.graph[0].attributes["value"].as_tensor()
    )
    assert held is not None
    got = held.numpy()
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("raw", [False, True])
def test_large_constants_are_views_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: bool
) -> None:
    monkeypatch.setattr("ingot.loading.LEAST_MAPPED", 0)
    monkeypatch.setattr("ingot.loading.LEAST_SPLIT", 0)
    path = tmp_path / "m.onnx"
    onnx.save(constant(numpy_helper.from_array(LARGE, "t") if raw else listed(LARGE)), path)
    content = memoryview(path.read_bytes())
    pieces = split(content)
    assert pieces is not None
    (cut,) = pieces[1].constants.values()
    assert (cut.field, cut.data.nbytes) == (RAW_DATA if raw else FLOAT_DATA, LARGE.nbytes)
    held = load(path, lift=True).graph.initializers["c"].const_value
    assert held is not None
    assert mapping_of(held.numpy()) is not None


def test_numbers_in_the_field_of_another_type_are_refused() -> None:
    tensor = listed(LARGE)
    tensor.data_type = onnx.TensorProto.INT32  # of as many bytes
    for lift in (False, True):
        with pytest.raises(ModelError, match=r"'constant' do not fit its shape .* and type INT32"):
            load(constant(tensor).SerializeToString(), lift=lift)


def test_names_that_are_no_text_are_refused() -> None:
    content = constant(numpy_helper.from_array(LARGE, "t")).SerializeToString()
    with pytest.raises(ModelError):
        load(content.replace(b"value", b"val\xffe"), lift=True)
