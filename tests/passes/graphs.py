"""Graphs for the tests of passes, from ONNX's text form, and the check that a pass kept the function."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from ingot.ops.interpreter import interpret
from ingot.passes.edit import reserve_names
from ingot.passes.fold import lift_constants


def parse(text: str, opset: int = 25) -> ir.Model:
    """A model from ONNX's text form, with Constant nodes as initializers."""
    model = ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}'))
    reserve_names(model)
    lift_constants(model)
    return model


def with_weights(model: ir.Model, **weights: np.ndarray) -> ir.Model:
    """Inputs of these names become initializers."""
    for name, array in weights.items():
        value = next(v for v in model.graph.inputs if v.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.Tensor(np.asarray(array), name=name)
        value.shape = ir.Shape(np.asarray(array).shape)
        model.graph.register_initializer(value)
    return model


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def keeps_function(
    model: ir.Model,
    change: Callable[[ir.Model], object],
    feeds: list[dict[str, np.ndarray]],
    rtol: float = 2e-6,
) -> object:
    """Applies `change` and compares every output on every feed; returns what `change` returned."""
    names = [value.name for value in model.graph.outputs]
    before = [interpret(model, feed) for feed in feeds]
    result = change(model)
    onnx.checker.check_model(ir.to_proto(model))
    assert [value.name for value in model.graph.outputs] == names
    for feed, expected in zip(feeds, before, strict=True):
        got = interpret(model, feed)
        for name, want in expected.items():
            assert got[name].dtype == want.dtype
            assert got[name].shape == want.shape
            scale = np.abs(want[np.isfinite(want)]).max(initial=0.0) if want.dtype.kind == "f" else 0
            np.testing.assert_allclose(got[name], want, rtol=rtol, atol=rtol * float(scale))
    return result
