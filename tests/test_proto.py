"""What onnx_ir cannot read comes in all the same, and goes out as it came: map types, sparse tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper as h
import pytest

import ingot
from ingot.proto import has_map, readable, spelling

FLOATS = np.array([2, -3, 5], np.float32)


def sparse(indices: list[int] | list[list[int]], dims: list[int], name: str = "w") -> onnx.SparseTensorProto:
    return h.make_sparse_tensor(
        onnx.numpy_helper.from_array(FLOATS, name),
        onnx.numpy_helper.from_array(np.array(indices, np.int64), "indices"),
        dims,
    )


def model(node: onnx.NodeProto, *more: onnx.NodeProto, **graph: object) -> onnx.ModelProto:
    x = h.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 4])
    y = h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 4])
    made = h.make_graph([node, *more], "g", [x], [y], **graph)
    return h.make_model(made, opset_imports=[h.make_opsetid("", 22)])


DENSE = np.array([[0, 2, 0, 0], [-3, 0, 0, 5]], np.float32)
PLACES = [[1, 4, 7], [[0, 1], [1, 0], [1, 3]]]
X = np.ones((2, 4), np.float32)


@pytest.mark.parametrize("indices", PLACES)
def test_sparse_initializers(indices: list[int]) -> None:
    add = h.make_node("Add", ["x", "w"], ["y"])
    session = ingot.InferenceSession(model(add, sparse_initializer=[sparse(indices, [2, 4])]))
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + DENSE)


@pytest.mark.parametrize("indices", PLACES)
def test_sparse_constants(indices: list[int]) -> None:
    constant = h.make_node("Constant", [], ["w"], sparse_value=sparse(indices, [2, 4]))
    session = ingot.InferenceSession(model(constant, h.make_node("Add", ["x", "w"], ["y"])))
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + DENSE)


def test_sparse_initializers_of_a_subgraph() -> None:
    branch = h.make_graph(
        [h.make_node("Add", ["x", "w"], ["r"])],
        "branch",
        [],
        [h.make_tensor_value_info("r", onnx.TensorProto.FLOAT, [2, 4])],
        sparse_initializer=[sparse([1, 4, 7], [2, 4])],
    )
    condition = h.make_node("Constant", [], ["c"], value_int=1)
    cast = h.make_node("Cast", ["c"], ["b"], to=onnx.TensorProto.BOOL)
    node = h.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch)
    session = ingot.InferenceSession(model(condition, cast, node))
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + DENSE)


@pytest.mark.parametrize("indices", [[1, 4, 8], [-1, 4, 7], [1, 4], [[0, 1], [1, 0], [2, 0]]])
def test_sparse_tensors_that_fit_nothing(indices: list[int]) -> None:
    add = h.make_node("Add", ["x", "w"], ["y"])
    with pytest.raises(ingot.ModelError, match="sparse tensor 'w'"):
        ingot.load(model(add, sparse_initializer=[sparse(indices, [2, 4])]))


def test_plain_models_are_not_copied() -> None:
    assert readable(model(h.make_node("Relu", ["x"], ["y"]))) is None


def test_map_types_survive_loading_and_saving(tmp_path: Path) -> None:
    inner = onnx.TypeProto()
    inner.map_type.key_type = onnx.TensorProto.STRING
    inner.map_type.value_type.CopyFrom(h.make_tensor_type_proto(onnx.TensorProto.FLOAT, []))
    type_ = h.make_sequence_type_proto(inner)
    graph = h.make_graph(
        [h.make_node("Identity", ["m"], ["n"])],
        "g",
        [h.make_value_info("m", type_)],
        [h.make_value_info("n", type_)],
    )
    given = h.make_model(graph, opset_imports=[h.make_opsetid("", 22)])
    before = given.SerializeToString()
    ingot.save(ingot.load(given), tmp_path / "maps.onnx")
    assert given.SerializeToString() == before, "the caller's model was changed"
    written = onnx.load(tmp_path / "maps.onnx")
    onnx.checker.check_model(written)
    for info in (written.graph.input[0], written.graph.output[0]):
        assert has_map(info.type)
        assert spelling(info.type) == "seq(map(string,tensor(float)))"
        assert not info.metadata_props
