"""Nodes whose inputs do not fit each other, or their operator, are refused by name: nothing is read or
written beyond an array, and no error of Python's or NumPy's comes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

import ingot

F32 = np.float32


def ones(*shape: int, dtype: Any = F32) -> np.ndarray[Any, Any]:
    return np.ones(shape, dtype)


def ints(*numbers: int) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.int64)


def fed(
    op: str, arrays: list[np.ndarray[Any, Any] | None], outputs: int = 1, **attributes: Any
) -> tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """A model of one node whose inputs are all given with the run, of ranks alone; and what to give."""
    named = {f"input_{i}": array for i, array in enumerate(arrays) if array is not None}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in named.items()
    ]
    names = ["" if array is None else f"input_{i}" for i, array in enumerate(arrays)]
    made = [f"output_{i}" for i in range(outputs)]
    node = helper.make_node(op, names, made, **attributes)
    result = helper.make_tensor_value_info("output_0", TensorProto.UNDEFINED, None)
    result.ClearField("type")
    graph = helper.make_graph([node], "g", inputs, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), named


def recurrent(gates: int, **others: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any] | None]:
    """x [5, 3, 4] and weights for 8 units; `others` by where they are."""
    places = {"lengths": 4, "h": 5, "c": 6, "peepholes": 7}
    arrays: list[Any] = [ones(5, 3, 4), ones(1, gates * 8, 4), ones(1, gates * 8, 8), *[None] * 5]
    for name, array in others.items():
        arrays[places[name]] = array
    return arrays[: max((places[name] for name in others), default=2) + 1]


X = ones(2, 4, 6, 6)
POOLS = ("MaxPool", "AveragePool", "LpPool")
Q, KV = ones(1, 2, 3, 8), ones(1, 2, 5, 8)
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "instance norm: scale": ("InstanceNormalization", [X, ones(3), ones(4)], {}),
    "instance norm: bias": ("InstanceNormalization", [X, ones(4), ones(1)], {}),
    "scatter beyond a row": ("ScatterElements", [ones(3, 3), ints(*[0] * 16).reshape(4, 4), ones(4, 4)], {}),
    "LSTM: h of one": ("LSTM", recurrent(4, h=ones(1, 1, 8)), {"hidden_size": 8}),
    "LSTM: h of more": ("LSTM", recurrent(4, h=ones(1, 9, 8)), {"hidden_size": 8}),
    "LSTM: c": ("LSTM", recurrent(4, h=ones(1, 3, 8), c=ones(1, 2, 8)), {"hidden_size": 8}),
    "LSTM: peepholes": ("LSTM", recurrent(4, peepholes=ones(1, 8)), {"hidden_size": 8}),
    "LSTM: units": ("LSTM", recurrent(4), {"hidden_size": 9}),
    "GRU: h": ("GRU", recurrent(3, h=ones(1, 1, 8)), {"hidden_size": 8}),
    "RNN: h": ("RNN", recurrent(1, h=ones(2, 3, 8)), {"hidden_size": 8}),
    "RNN: lengths": ("RNN", recurrent(1, lengths=ones(2, dtype=np.int32)), {"hidden_size": 8}),
    "reversed: lengths": ("ReverseSequence", [ones(4, 3), ints(1, 1)], {}),
    "attention: past heads": ("Attention", [Q, KV, KV, None, ones(1, 3, 4, 8), ones(1, 2, 4, 8)], {}),
    "attention: past lengths": ("Attention", [Q, KV, KV, None, ones(1, 2, 4, 8), ones(1, 2, 3, 8)], {}),
    **{
        f"{op}: an empty window": (op, [X], {"kernel_shape": [0, 1]})
        for op in ("MaxPool", "AveragePool", "LpPool")
    },
    "Conv: an empty window": ("Conv", [X, ones(4, 4, 0, 1)], {}),
    "ConvTranspose: an empty window": ("ConvTranspose", [X, ones(4, 4, 0, 1)], {}),
    "ConvTranspose: beyond its strides": ("ConvTranspose", [X, ones(4, 4, 3, 3)], {"output_padding": [5, 0]}),
    "ConvTranspose: as much as its strides": (
        "ConvTranspose",
        [X, ones(4, 4, 3, 3)],
        {"output_padding": [0, 2], "strides": [2, 2]},
    ),
    "ConvTranspose: less than nothing": ("ConvTranspose", [X, ones(4, 4, 3, 3)], {"output_padding": [-1, 0]}),
    "rotary: table": ("RotaryEmbedding", [Q, ones(5, 3), ones(5, 3), ints(0, 1, 2)[None]], {}),
    "rotary: positions": ("RotaryEmbedding", [Q, ones(5, 4), ones(5, 4), ints(0, 1)[None]], {}),
    "rotary: without positions": ("RotaryEmbedding", [Q, ones(1, 2, 4), ones(1, 2, 4)], {}),
    "top 9 of 4": ("TopK", [ones(3, 4), ints(9)], {"outputs": 2}),
    "top -1": ("TopK", [ones(3, 4), ints(-1)], {"outputs": 2}),
    "top 1 and 2": ("TopK", [ones(3, 4), ints(1, 2)], {"outputs": 2}),
    "tiles of another rank": ("Tile", [ones(3, 3), ints(2)], {}),
    "fewer than no tiles": ("Tile", [ones(3, 3), ints(-1, 2)], {}),
    "parts of negative size": ("Split", [ones(5, 3), ints(-1, 6)], {"outputs": 2}),
    "one-hot: depth": ("OneHot", [ints(1, 2), np.array(-3), ones(2)], {}),
    "one-hot: values": ("OneHot", [ints(1, 2), np.array(3), ones(3)], {}),
    "zero points of rows": (
        "MatMulInteger",
        [*(ones(*s, dtype=np.uint8) for s in ((3, 4), (4, 5))), ones(2, dtype=np.uint8)],
        {},
    ),
    "NumPy: columns to images": ("Col2Im", [ones(1, 5, 5), ints(4, 4), ints(2, 2)], {}),
    "Python: a size of 0": ("LRN", [X], {"size": 0}),
}


@pytest.mark.parametrize("name", CASES)
def test_inputs_that_do_not_fit(name: str) -> None:
    op, arrays, attributes = CASES[name]
    model, feeds = fed(op, arrays, **attributes)
    session = ingot.InferenceSession(model)
    with pytest.raises(ingot.IngotError, match=op):
        session.run(None, feeds)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_sequences_of_other_lengths_than_the_input_has(op: str, direction: str, fixed: bool) -> None:
    """Read from their ends, they would begin far behind x: with weights that are fixed, too, in kernels."""
    session, feeds = recurrent_session(op, direction, fixed)
    session.run(None, feeds)
    for lengths in ((6, 2), (1, 100_000), (-1, 2), (5, -(2**31))):
        with pytest.raises(ingot.InputError, match=rf"{op} 'y'.*sequence_lens.*5, the steps"):
            session.run(None, feeds | {"lens": np.array(lengths, np.int32)})


@pytest.mark.parametrize("fixed", [True, False])
def test_lengths_in_the_file_are_checked_once(fixed: bool) -> None:
    session, feeds = recurrent_session("GRU", "forward", fixed, (5, 2))
    session.run(None, feeds)
    assert all(step.label != "Gather" for step in session.profile_kernels(feeds, rounds=1))
    if fixed:
        looked_up, more = recurrent_session("GRU", "forward", fixed)
        assert any(step.label == "Gather" for step in looked_up.profile_kernels(more, rounds=1))
    for lengths in ((6, 2), (-1, 2)):
        with pytest.raises(ingot.InputError, match=r"GRU 'y'.*sequence_lens.*5, the steps"):
            recurrent_session("GRU", "forward", fixed, lengths)[0].run(None, feeds)


def recurrent_session(
    op: str, direction: str, fixed: bool, lengths: tuple[int, int] | None = None
) -> tuple[ingot.InferenceSession, dict[str, np.ndarray[Any, Any]]]:
    """x [5, 2, 3] through 4 units; the weights are fixed or fed, `lengths` as well (None: fed)."""
    count, gates = 2 if direction == "bidirectional" else 1, {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    arrays = {
        "x": ones(5, 2, 3),
        "w": ones(count, 4 * gates, 3),
        "r": ones(count, 4 * gates, 4),
        "b": ones(count, 8 * gates),
        "lens": np.array(lengths or (5, 2), np.int32),
    }
    constant = {"w", "r", "b"} if fixed else set[str]()
    constant |= {"lens"} if lengths is not None else set()
    node = helper.make_node(op, list(arrays), ["y"], hidden_size=4, direction=direction)
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT32 if n == "lens" else TensorProto.FLOAT, a.shape)
        for n, a in arrays.items()
        if n not in constant
    ]
    kept = [onnx.numpy_helper.from_array(arrays[n], n) for n in sorted(constant)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "g", inputs, outputs, kept)
    session = ingot.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    return session, {n: a for n, a in arrays.items() if n not in constant}


@pytest.mark.parametrize("fixed", [True, False])
def test_positions_below_zero_are_none(fixed: bool) -> None:
    positions = ints(0, -1, 2)[None]
    fed_by = [Q, ones(5, 4), ones(5, 4), positions]
    model, feeds = fed("RotaryEmbedding", fed_by)
    if fixed:
        model.graph.initializer.append(onnx.numpy_helper.from_array(positions, model.graph.input[3].name))
        feeds.pop(model.graph.input[3].name)
        del model.graph.input[3]
    with pytest.raises(ingot.InputError, match=r"RotaryEmbedding.*position"):
        ingot.InferenceSession(model).run(None, feeds)


@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("weights", [[], [ones(3)]])
def test_a_target_below_zero_is_no_class(op: str, weights: list[Any]) -> None:
    model, feeds = fed(op, [ones(2, 3), ints(1, -1), *weights])
    with pytest.raises(ingot.InputError, match=rf"{op}.*target"):
        ingot.InferenceSession(model).run(None, feeds)
    model, feeds = fed(op, [ones(2, 3), ints(1, -1), *weights], ignore_index=-1)
    ingot.InferenceSession(model).run(None, feeds)


MALFORMED: dict[str, tuple[onnx.NodeProto, str]] = {
    "too many inputs": (helper.make_node("Relu", ["x", "x"], ["y"]), "2 inputs"),
    "too few inputs": (helper.make_node("Add", ["x"], ["y"]), "1 inputs"),
    "none": (helper.make_node("Slice", ["x"], ["y"]), "3 to 5"),
    "no attribute": (helper.make_node("Cast", ["x"], ["y"]), "'to' is missing"),
    "no dtype": (helper.make_node("Cast", ["x"], ["y"], to=999), "999"),
    "a word for a number": (helper.make_node("Softmax", ["x"], ["y"], axis="a"), "axis"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_nodes(name: str) -> None:
    node, found = MALFORMED[name]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ingot.ModelError, match=f"{node.op_type} 'y'.*{found}"):
        ingot.InferenceSession(model).run(None, {"x": ones(3)})


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("ConvTranspose", [ones(1, 1, 3, 3), ones(1, 1, 2, 2)], {"strides": [2**33 - 1, 1]}),
        ("MaxRoiPool", [ones(1, 3, 4, 4), ones(0, 5)], {"pooled_shape": [2**33 + 1, 2**33 + 3]}),
        ("MaxPool", [ones(0, 2, 6, 6)], {"kernel_shape": [2, 2], "pads": [2**33, 2**33, 2**33, 2**33]}),
    ],
)
def test_sizes_beyond_all_memory(op: str, inputs: list[np.ndarray], attributes: dict[str, Any]) -> None:
    node = helper.make_node(op, [f"i{k}" for k in range(len(inputs))], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(f"i{k}", TensorProto.FLOAT, a.shape) for k, a in enumerate(inputs)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    with pytest.raises(ingot.errors.ShapeError, match=f"{op}.*than there is memory for"):
        ingot.InferenceSession(model).run(None, {f"i{k}": a for k, a in enumerate(inputs)})


@pytest.mark.parametrize(
    ("large", "found"),
    [
        ((100_000,) * 3, "between these inputs.*more than there is memory for"),
        ((800_000,) * 3, "p.* takes .*"),
    ],
)
def test_what_lies_between_is_beyond_all_memory(large: tuple[int, int, int], found: str) -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
        g (float[a, 1, 1] x, float[1, b, 1] y, float[1, 1, c] z) => (float out) {
            s = Add(x, y)
            p = Mul(s, z)
            t = Softmax<axis=0>(p)
            u = Softmax<axis=1>(p)
            v = Softmax<axis=2>(p)
            w = LogSoftmax<axis=0>(p)
            e = LogSoftmax<axis=1>(p)
            q = Sum(t, u, v, w, e)
            axes = Constant<value_ints=[0, 1, 2]>()
            out = ReduceSum<keepdims=0>(q, axes)
        }"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text))

    def run(a: int, b: int, c: int) -> np.ndarray[Any, Any]:
        return session.run(None, {"x": ones(a, 1, 1), "y": ones(1, b, 1), "z": ones(1, 1, c)})[0]

    before = run(2, 3, 4)
    for more in range(6):  # until a recipe plans for further sizes
        with pytest.raises(ingot.errors.ShapeError, match=found):
            run(*[size - more * (axis + 1) for axis, size in enumerate(large)])
        run(more + 3, 2 * more + 5, more + 7)
    np.testing.assert_array_equal(run(2, 3, 4), before)
