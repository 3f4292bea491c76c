"""SessionOptions.enable_amx: what sessions do with tile registers, seen from outside."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import ingot
from ingot.codegen.machine import host
from ingot.timing import worst_difference

RNG = np.random.default_rng(0)


def run(node: str, x: np.ndarray, w: np.ndarray, amx: bool, **attributes: object) -> tuple[np.ndarray, str]:
    """The result of one node with constant weights, and the label of the kernel that computed it."""
    # A convolution leaves its channels side by side, as those behind the first one find them.
    identity = np.eye(x.shape[1], dtype=np.float32).reshape(*[x.shape[1]] * 2, *[1] * (x.ndim - 2))
    first = helper.make_node(
        "Conv" if node == "Conv" else "Identity", ["x", "i"][: 1 + (node == "Conv")], ["t"]
    )
    graph = helper.make_graph(
        [first, helper.make_node(node, ["t", "w"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(identity, "i")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
    options = ingot.SessionOptions()
    options.intra_op_num_threads, options.enable_amx = 1, amx
    session = ingot.InferenceSession(model, options)
    kernels = [k.kernel for k in session.profile_kernels({"x": x}, rounds=1)]
    return session.run(None, {"x": x})[0], " ".join(kernels)


@pytest.mark.skipif(not host().tiles, reason="this CPU or system has no AMX")
@pytest.mark.parametrize(
    ("node", "x", "w", "attributes"),
    [
        ("MatMul", (64, 256), (256, 96), {}),
        ("MatMul", (64, 256), (1, 256, 96), {}),
        ("MatMul", (2, 40, 256), (1, 1, 256, 96), {}),
        ("Gemm", (64, 256), (96, 256), {"transB": 1, "alpha": 0.5}),
        ("Conv", (1, 128, 14, 14), (96, 128, 1, 1), {"pads": [0, 0, 1, 0]}),
        ("Conv", (1, 128, 14, 14), (96, 128, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("Conv", (1, 128, 50), (96, 128, 3), {"pads": [1, 1]}),
    ],
)
def test_products_run_on_tile_registers_and_agree(
    node: str, x: tuple[int, ...], w: tuple[int, ...], attributes: dict[str, object]
) -> None:
    """Switched on and off, the answers are the same to rounding."""
    image, weights = (RNG.standard_normal(shape).astype(np.float32) for shape in (x, w))
    on, kernels = run(node, image, weights, True, **attributes)
    off, others = run(node, image, weights, False, **attributes)
    assert "sliced" in kernels
    assert "sliced" not in others
    assert worst_difference([on], [off]) < 4e-6
