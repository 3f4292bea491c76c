"""The session's own reader of protos against onnx_ir's: the same models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from ingot.errors import ModelError
from ingot.loading import load
from ingot.reader import read


def plain(model: ir.Model) -> onnx.ModelProto:
    """The model's proto, with every tensor's contents in one form."""
    proto = ir.to_proto(model)
    for graph in graphs(proto.graph):
        for tensor in graph.initializer:
            _in_one_form(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    _in_one_form(attribute.t)
    return proto


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)


def _in_one_form(tensor: onnx.TensorProto) -> None:
    if tensor.data_location != TensorProto.EXTERNAL and tensor.data_type != TensorProto.STRING:
        content, name = numpy_helper.to_array(tensor).tobytes(), tensor.name
        for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        tensor.raw_data, tensor.name = content, name


@pytest.mark.parametrize("kind", ["node", "simple", "pytorch-converted", "pytorch-operator"])
def test_onnxs_own_models(kind: str) -> None:
    """A fifth of the models of each suite that onnx brings along."""
    read_here = 0
    for case in load_model_tests(kind=kind)[::5]:
        proto = case.model or onnx.load(f"{case.model_dir}/model.onnx")
        found = read(proto)
        if found is not None:
            read_here += 1
            assert plain(found.model) == plain(ir.from_proto(proto)), case.name
    assert read_here > 2, "nearly all of them are left to onnx_ir"


def weight(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def model(**changes: Any) -> onnx.ModelProto:
    """A graph with what a file may say of its parts."""
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21, "com.example": 3], producer_name: "p",
            producer_version: "2", model_version: 7, domain: "d", doc_string: "of the model">
        g (float[n, 3] x, bool c) => (float[n, m] y) {
            a = Identity(x)
            y = If <then_branch = t () => (float[n, 3] r) {
                        b = Add(a, w)
                        r = com.example.Odd <k = 3, f = 1.5, s = "z", ks = [1, 2], fs = [0.5],
                                             ss = ["u", "v"]> (b, , x) },
                else_branch = e () => (float[n, 3] q) { q = Constant <value = float[1, 3] {1, 2, 3}> () }> (c)
        }"""
    )
    graph = proto.graph
    graph.initializer.append(weight("w", [1.0, 2.0, 3.0]))
    graph.initializer.append(weight("empty", np.zeros((0, 4))))
    graph.initializer.append(helper.make_tensor("half", TensorProto.FLOAT16, [2], [1.5, -2.0]))
    graph.initializer.append(helper.make_tensor("nibbles", TensorProto.INT4, [3], [1, -2, 3]))
    graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [2], [b"one", b"two"]))
    graph.initializer.append(helper.make_tensor("number", TensorProto.INT64, [], [5]))
    graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 3]))
    graph.value_info[0].doc_string = "of a value"
    graph.value_info.append(helper.make_value_info("z", helper.make_sequence_type_proto(graph.input[0].type)))
    for where in (proto, graph, graph.node[0], graph.value_info[0], graph.input[0]):
        entry = where.metadata_props.add()
        entry.key, entry.value = "where", type(where).__name__
    graph.node[0].doc_string, graph.node[0].name = "of a node", "first"
    graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["z"]))
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    for name, value in changes.items():
        getattr(graph, name).append(value)
    return proto


def test_everything_that_a_file_says() -> None:
    proto = model()
    found = read(proto)
    assert found is not None
    assert plain(found.model) == plain(ir.from_proto(proto))
    a, x = found.model.graph[0].outputs[0], found.model.graph.inputs[0]
    assert a.type is not x.type, "changing the type of one value would change that of another"


@pytest.mark.parametrize("count", [0, 1, 256, 257, 5000])
def test_lists_of_any_length(count: int) -> None:
    """As the forests of ai.onnx.ml have them."""
    node = helper.make_node("Odd", ["x"], ["y"], domain="com.example")
    for name, kind in (("ints", "INTS"), ("floats", "FLOATS"), ("strings", "STRINGS")):
        entry = node.attribute.add(name=name, type=getattr(onnx.AttributeProto, kind), doc_string="of a list")
        values: list[Any] = {"ints": [-7, 1 << 40], "floats": [0.5, -2.0], "strings": [b"one", b"two"]}[name]
        getattr(entry, name).extend(values[i % 2] for i in range(count))
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    proto = helper.make_model(helper.make_graph([node], "g", [x], [y]))
    found = read(proto)
    assert found is not None
    assert plain(found.model) == plain(ir.from_proto(proto))
    assert plain(found.model.clone()) == plain(ir.from_proto(proto))
    attributes = found.model.graph[0].attributes
    assert list(attributes["ints"].as_ints()) == [-7 if i % 2 == 0 else 1 << 40 for i in range(count)]
    assert list(attributes["strings"].as_strings())[:2] == ["one", "two"][:count]
    node.attribute[0].type = onnx.AttributeProto.FLOAT  # what it says it is, it has not
    other = read(helper.make_model(helper.make_graph([node], "g", [x], [y])))
    assert (other is None) == (count > 256)


def test_initializers_that_are_inputs() -> None:
    proto = model(input=helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]))
    found = read(proto)
    assert found is not None
    assert plain(found.model) == plain(ir.from_proto(proto))
    assert found.model.graph.initializers["w"].is_graph_input()


def test_external_tensors_are_listed() -> None:
    outside = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[2])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="w.data")
    found = read(model(initializer=outside))
    assert found is not None
    assert [(name, str(tensor.location)) for name, tensor in found.external] == [("outside", "w.data")]


def test_constants_are_lifted_where_a_session_asks() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
        g (float[n] x, bool c) => (float[n] y, int64 out) {
            a = Constant <value = float[2] {1, 2}> ()
            out = Constant <value = int64 {3}> ()
            two = Constant <value_float = 2.0> ()
            z = Mul(x, two)
            y = If <then_branch = t () => (float[n] r) { b = Constant <value = float {1}> ()  r = Add(a, b) },
                    else_branch = e () => (float[n] q) { q = Identity(z) }> (c) }"""
    proto = onnx.parser.parse_model(text)
    kept, lifted = read(proto), read(proto, lift=True)
    assert kept is not None
    assert lifted is not None
    assert plain(kept.model) == plain(ir.from_proto(proto))
    graph = lifted.model.graph
    assert [node.op_type for node in graph] == ["Constant", "Constant", "Mul", "If"], (
        "only tensors are lifted"
    )
    inner = graph[-1].attributes["then_branch"].as_graph()
    assert (list(graph.initializers), list(inner.initializers)) == (["a"], ["b"])
    onnx.checker.check_model(ir.to_proto(lifted.model), full_check=True)
    clash = onnx.parser.parse_model(text.replace("z = Mul", "a = Mul").replace("Identity(z)", "Identity(a)"))
    assert read(clash, lift=True) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"initializer": weight("w", [9.0, 9.0, 9.0])},
        {"node": helper.make_node("Relu", ["nowhere"], ["out"])},
        {"node": helper.make_node("Relu", ["x"], ["a"])},
        {"output": helper.make_tensor_value_info("nobody", TensorProto.FLOAT, None)},
        {"quantization_annotation": onnx.TensorAnnotation(tensor_name="x")},
        {"initializer": TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[2], raw_data=b"1234")},
    ],
    ids=["twice", "missing", "redeclared", "unmade", "annotated", "short"],
)
def test_what_is_unusual_is_left_to_onnx_ir(changes: dict[str, Any]) -> None:
    assert read(model(**changes)) is None


def test_errors_are_onnx_irs() -> None:
    with pytest.raises(ModelError, match="'a' is redeclared"):
        load(model(node=helper.make_node("Relu", ["x"], ["a"])))


def test_small_constants_that_are_equal_are_one() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (float[n] x) => (float[n] y, float d) {
            a = Constant <value = float {0.0}> () b = Constant <value = float {-0.0}> ()
            c = Constant <value = float[1] {0.0}> () d = Constant <value = float {0.0}> ()
            e = Constant <value = float {0.0}> () s = Add (x, a)
            t = Add (s, b) u = Add (t, c) y = Add (u, e) }"""
    )
    found = read(proto, lift=True)
    assert found is not None
    assert [*found.model.graph.initializers] == ["a", "b", "c"]  # d is an output, and a node
    added = [node.inputs[1] for node in found.model.graph if node.op_type == "Add"]
    assert [value and value.name for value in added] == ["a", "b", "c", "a"]
    proto.graph.node[4].output[0] = "a"
    assert read(proto, lift=True) is None, "a name that is given twice is left to onnx_ir"


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shadowed", [False, True])
@pytest.mark.parametrize("lift", [False, True])
def test_nodes_behind_those_that_read_them(swapped: bool, shadowed: bool, lift: bool) -> None:
    """A file out of order is read as onnx_ir reads it, and not said to be in order; so is one whose subgraph
    makes a value, behind a node that reads it, under the name that a value around has.
    """
    made = "outside" if shadowed else "inside"
    body = helper.make_graph(
        [helper.make_node("Neg", [made], ["negative"]), helper.make_node("Abs", ["x"], [made])][
            :: 1 if shadowed else -1
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("negative", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["outside"]),
        helper.make_node("If", ["c"], ["chosen"], then_branch=body, else_branch=body),
        helper.make_node("Add", ["chosen", "outside"], ["y"]),
    ]
    if swapped:
        nodes.reverse()
    graph = helper.make_graph(
        nodes,
        "main",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    proto = helper.make_model(graph)
    found = read(proto, lift=lift)
    assert found is not None
    assert found.ordered == (not swapped and not shadowed)
    assert plain(found.model) == plain(ir.from_proto(proto))


@pytest.mark.parametrize("dims", [(), (0,), (1,), (127,), (128,), (3, 0, 5), (2, 300), (20_000,)])
@pytest.mark.parametrize("named", [False, True])
def test_floats_that_are_listed_are_read_from_the_message(dims: tuple[int, ...], named: bool) -> None:
    array = np.random.default_rng(7).standard_normal(dims).astype(np.float32)
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=dims, name="of a tensor" if named else "")
    tensor.float_data.extend(array.ravel().tolist())
    proto = model(node=helper.make_node("Constant", [], ["made"], value=tensor))
    found = read(proto, lift=True)
    assert found is not None
    held = found.model.graph.initializers["made"].const_value
    assert held is not None
    np.testing.assert_array_equal(held.numpy(), array)
    assert held.numpy().flags.aligned


@pytest.mark.parametrize("count", [3, 5])
def test_as_many_floats_as_the_shape_says_or_an_error(count: int) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=(4,), name="weight", float_data=[1.0] * count)
    with pytest.raises(ModelError, match="weight"):
        load(model(initializer=tensor))
