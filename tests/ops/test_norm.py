"""Normalisations of narrow floats: kernels round once, like the definition."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import ingot
from ingot.ops.registry import find

HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
IMAGE = [(4, 32, 6, 6), (32,), (32,)]
NODES = [
    ("LayerNormalization", [(4, 384), (384,), (384,)], {}),
    ("LayerNormalization", [(4, 384), (384,)], {}),
    ("RMSNormalization", [(4, 384), (384,)], {}),
    ("GroupNormalization", IMAGE, {"num_groups": 4}),
    ("InstanceNormalization", IMAGE, {}),
    ("BatchNormalization", [*IMAGE, (32,), (32,)], {}),
]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("op", "shapes", "attributes"), NODES, ids=lambda v: v if isinstance(v, str) else "")
def test_rounded_once(
    op: str, shapes: list[tuple[int, ...]], attributes: dict[str, int], dtype: np.dtype
) -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    arrays[-1] = np.abs(arrays[-1]) if op == "BatchNormalization" else arrays[-1]
    names = [f"i{i}" for i in range(len(arrays))]
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    inputs = [helper.make_tensor_value_info(n, kind, a.shape) for n, a in zip(names, arrays, strict=True)]
    node = helper.make_node(op, names, ["y"], **attributes)
    weights = [
        onnx.helper.make_tensor(n, kind, a.shape, a.tobytes(), raw=True)
        for n, a in zip(names[1:], arrays[1:], strict=True)
    ]
    outputs = [helper.make_tensor_value_info("y", kind, arrays[0].shape)]
    graph = helper.make_graph([node], "g", inputs[:1], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    session = ingot.InferenceSession(model)
    assert {each.kind for each in session.profile({"i0": arrays[0]}, 1)} <= {"native", "fused"}
    (got,) = session.run(None, {"i0": arrays[0]})
    (want,) = find("", op).evaluate(ir.from_proto(graph).node(0), arrays)
    # What lies next to the middle of two numbers may take either.
    assert np.mean(got != want) <= 1e-3, f"{np.count_nonzero(got != want)} of {want.size} are rounded twice"
