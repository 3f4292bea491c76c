"""Attributes with long lists: arrays for those who know them, and what everybody else expects."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import ingot
from ingot.errors import ModelError
from ingot.ops.lists import LongAttr, numbers_of, strings_through

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 3, 300, 5000])
def test_lists_of_any_length_are_read_alike(count: int) -> None:
    ints = [int(v) for v in RNG.integers(-(2**62), 2**62, count)]
    floats = [float(np.float32(v)) for v in RNG.standard_normal(count)]
    strings = [["one", "two", "drei…"][i] for i in RNG.integers(0, 3, count)]
    made = helper.make_node("Lists", ["x"], ["y"], domain="test", ints=ints, floats=floats, strings=strings)
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("test", 1)]
    proto = helper.make_model(helper.make_graph([made], "g", [x], [y]), opset_imports=opsets, ir_version=9)
    model = ingot.load(proto)
    node = model.graph[0]
    assert isinstance(node.attributes["ints"], LongAttr) == (count > 256)
    assert ir.to_proto(model).graph.node[0].attribute == proto.graph.node[0].attribute
    assert list(node.attributes["ints"].as_ints()) == ints
    assert list(node.attributes["strings"].as_strings()) == strings
    got = numbers_of(node, "ints", np.int64)
    assert got is not None
    assert got.dtype == np.int64
    assert got.tolist() == ints
    assert numbers_of(node, "floats", np.float32).tolist() == floats  # type: ignore[union-attr]
    assert numbers_of(node, "absent", np.float32) is None
    asked: list[str] = []
    lengths = strings_through(node, "strings", lambda text: asked.append(text) or len(text))
    assert lengths.tolist() == [len(s) for s in strings]
    assert len(asked) == len(set(strings))
    assert strings_through(node, "absent", len).tolist() == []
    with pytest.raises(ModelError, match="attribute strings holds strings, wanted numbers"):
        numbers_of(node, "strings", np.float32)
