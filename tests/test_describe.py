"""What a file is made of, and the arithmetic of one call against PyTorch's own count."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from ingot.describe import computed, cost, describe, refusals


def model_of(
    nodes: list[object], inputs: dict[str, list[int | str]], weights: dict[str, np.ndarray]
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="us"
    )
    return ir.from_proto(proto)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def test_describe() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    found = describe(model_of(nodes, {"x": ["batch", 4]}, {"w": zeros(4, 5)}))
    assert found.producer == "us"
    assert found.opsets == {"ai.onnx": 20}
    assert found.inputs == [("x", "float32", ["batch", 4])]
    assert found.operators == {"MatMul": 1, "Relu": 1}
    assert (found.parameters, found.parameter_bytes) == (20, 80)


@pytest.mark.parametrize(
    ("node", "weights", "x", "flops"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": zeros(4, 5)}, (3, 4), 2 * 3 * 4 * 5),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": zeros(7, 4, 5)}, (3, 4), 2 * 7 * 3 * 4 * 5),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), {"w": zeros(3, 5)}, (3, 4), 2 * 3 * 4 * 5),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), {"w": zeros(5, 4)}, (3, 4), 2 * 3 * 4 * 5),
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
            {"w": zeros(6, 2, 3, 3)},
            (2, 4, 8, 8),
            2 * 2 * 6 * 4 * 4 * 2 * 9,
        ),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            {"w": zeros(4, 6, 2, 2)},
            (2, 4, 8, 8),
            2 * 2 * 4 * 64 * 6 * 4,
        ),
        (
            helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=5),
            {"w": zeros(1, 20, 3), "r": zeros(1, 20, 5)},
            (7, 2, 3),
            2 * 7 * 2 * 4 * 5 * (3 + 5),
        ),
        (
            helper.make_node("Einsum", ["x", "w"], ["y"], equation="bij,bjk->bik"),
            {"w": zeros(2, 4, 5)},
            (2, 3, 4),
            2 * 2 * 3 * 4 * 5,
        ),
        (helper.make_node("Relu", ["x"], ["y"]), {}, (2, 3), 0),
    ],
)
def test_cost_of_one_node(
    node: object, weights: dict[str, np.ndarray], x: tuple[int, ...], flops: int
) -> None:
    model = model_of([node], {"x": [f"d{index}" for index in range(len(x))]}, weights)
    found = cost(model, {"x": x})
    assert found.total == flops
    assert found.complete


def test_cost_says_when_sizes_depend_on_data() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("NonZero", ["h"], ["n"]),
        helper.make_node("Cast", ["n"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["k", "c"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["batch", 4]}, {"w": zeros(4, 5), "k": zeros(3, 2)})
    found = cost(model, {"x": (3, 4)})
    assert found.by_operator == {"MatMul": 2 * 3 * 4 * 5}
    assert not found.complete


def test_cost_leaves_the_model_as_it_was() -> None:
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["b", 4]}, {"w": zeros(4, 5)})
    before = ir.to_proto(model).SerializeToString()
    cost(model, {"x": (3, 4)})
    assert ir.to_proto(model).SerializeToString() == before


def test_how_operators_are_computed() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"]),
        helper.make_node("RandomNormalLike", ["t"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["batch", 4]}, {"w": zeros(4, 5)})
    found = computed(model, {"x": (3, 4)})
    assert found["MatMul"] == found["Relu"] == {"native": 1}
    assert found["Transpose"] == {"view": 1}
    assert found["RandomNormalLike"] == {"host": 1}
    assert refusals(model) == []


def test_parameters_by_dtype_and_what_would_not_run() -> None:
    nodes = [helper.make_node("Unheard", ["x", "w", "i"], ["y"], domain="of.it", name="n")]
    weights = {"w": zeros(4, 5), "i": np.zeros(3, np.int8)}
    model = model_of(nodes, {"x": ["batch", 4]}, weights)
    assert describe(model).by_dtype == {"float32": (20, 80), "int8": (3, 3)}
    (line,) = refusals(model)
    assert "of.it.Unheard 'n'" in line


def test_an_old_meaning_that_is_refused_would_not_run() -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"], name="n")]
    model = model_of(nodes, {"x": ["batch", 4]}, {})
    model.opset_imports[""] = 6
    (line,) = refusals(model)
    assert "Gelu 'n' (opset 6)" in line
