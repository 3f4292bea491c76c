"""One node in a session: generated kernels must compute it, and as its plain definition does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

import ingot
from ingot.ops.numeric import is_float
from ingot.ops.registry import facts_of, find
from ingot.passes.opset import NEWEST

TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}


def one_node(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    *,
    fed: Collection[int] = (0,),
    outputs: int = 1,
    **attributes: Any,
) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A model of one node, and what to feed it: the inputs of `fed`; the others are constants."""
    values: list[ir.Value | None] = []
    feed: dict[str, np.ndarray] = {}
    graph_inputs: list[ir.Value] = []
    constants: list[ir.Value] = []
    for i, array in enumerate(inputs):
        if array is None:
            values.append(None)
            continue
        dtype = ir.DataType.from_numpy(array.dtype)
        value = ir.Value(name=f"i{i}", type=ir.TensorType(dtype))
        if i in fed:
            value.shape = ir.Shape([f"i{i}d{d}" for d in range(array.ndim)])
            graph_inputs.append(value)
            feed[f"i{i}"] = array
        else:
            value.const_value = ir.tensor(array, name=f"i{i}")
            constants.append(value)
        values.append(value)
    made = [ir.Value(name=f"o{i}") for i in range(outputs)]
    node = ir.node(op_type, values, attributes, outputs=made, name=op_type.lower())
    graph = ir.Graph(
        graph_inputs, made, nodes=[node], initializers=constants, opset_imports={"": NEWEST}, name="one"
    )
    for i, value in enumerate(made):
        value.type = ir.TensorType(_result_types(node, inputs)[i])
    return ir.Model(graph, ir_version=10), feed


def _result_types(node: ir.Node, inputs: Sequence[np.ndarray | None]) -> list[ir.DataType]:
    op = find("", node.op_type)
    facts = op.infer(node, [None if a is None else facts_of(a) for a in inputs])
    dtypes = [f.dtype for f in facts if f] if facts else [a.dtype for a in op.evaluate(node, list(inputs))]
    return [ir.DataType.from_numpy(dtype) for dtype in dtypes]


def native(
    op_type: str,
    inputs: Sequence[np.ndarray | None],
    *,
    fed: Collection[int] = (0,),
    outputs: int = 1,
    tolerance: float | None = None,
    **attributes: Any,
) -> list[np.ndarray]:
    """What the session computes, twice over, after it was compared with `Op.evaluate`.

    tolerance: of the largest number of an output; default what its dtype can hold.
    """
    model, feed = one_node(op_type, inputs, fed=fed, outputs=outputs, **attributes)
    session = ingot.InferenceSession(model)
    session.run(None, feed)
    got = session.run(None, feed)  # in memory that the first run has written
    kinds = {step.op_type: step.kind for step in session.profile(feed, rounds=1)}
    assert "host" not in kinds.values(), f"NumPy computes some of {kinds} instead of a kernel"
    node = model.graph[0]
    want = find("", op_type).evaluate(node, list(inputs))
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"output {i} of {op_type}"
        if not is_float(b.dtype):
            np.testing.assert_array_equal(a, b, err_msg=f"output {i} of {op_type}")
            continue
        bound = TOLERANCE[b.dtype.name] if tolerance is None else tolerance
        a, b = a.astype(np.float64), b.astype(np.float64)
        size = np.abs(b[np.isfinite(b)]).max(initial=0.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * max(size, 1e-30), err_msg=f"output {i}")
    return got
