"""What goes in and comes out of a session beside plain arrays: sequences, optionals, maps; defaults of
inputs; and options of its own and of other runtimes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.helper as h
import onnxruntime
import pytest

import ingot

A = np.arange(6, dtype=np.float32).reshape(2, 3)
TENSOR = h.make_tensor_type_proto(onnx.TensorProto.FLOAT, [2, "n"])
STRINGS = h.make_tensor_type_proto(onnx.TensorProto.STRING, ["n"])
SEQUENCE = h.make_sequence_type_proto(TENSOR)


def map_type(key: int) -> onnx.TypeProto:
    result = onnx.TypeProto()
    result.map_type.key_type = key
    result.map_type.value_type.CopyFrom(h.make_tensor_type_proto(onnx.TensorProto.FLOAT, []))
    return result


MAP = map_type(onnx.TensorProto.INT64)


def through(type_: onnx.TypeProto) -> ingot.InferenceSession:
    """A session that gives what it takes."""
    graph = h.make_graph(
        [h.make_node("Identity", ["x"], ["y"])],
        "through",
        [h.make_value_info("x", type_)],
        [h.make_value_info("y", type_)],
    )
    return ingot.InferenceSession(h.make_model(graph, opset_imports=[h.make_opsetid("", 22)]))


@pytest.mark.parametrize(
    ("type_", "spelling", "value"),
    [
        (TENSOR, "tensor(float)", A),
        (SEQUENCE, "seq(tensor(float))", [A, A[:, :1]]),
        (SEQUENCE, "seq(tensor(float))", []),
        (h.make_sequence_type_proto(STRINGS), "seq(tensor(string))", [np.array(["a", "b"], object)]),
        (h.make_optional_type_proto(TENSOR), "optional(tensor(float))", A),
        (h.make_optional_type_proto(TENSOR), "optional(tensor(float))", None),
        (h.make_optional_type_proto(SEQUENCE), "optional(seq(tensor(float)))", [A]),
        (h.make_optional_type_proto(SEQUENCE), "optional(seq(tensor(float)))", None),
        (MAP, "map(int64,tensor(float))", {3: np.float32(2)}),
        (map_type(onnx.TensorProto.STRING), "map(string,tensor(float))", {"a": np.float32(2)}),
        (h.make_sequence_type_proto(MAP), "seq(map(int64,tensor(float)))", [{3: np.float32(2)}, {}]),
    ],
)
def test_objects_go_through(type_: onnx.TypeProto, spelling: str, value: Any) -> None:
    session = through(type_)
    assert session.get_inputs()[0].type == session.get_outputs()[0].type == spelling
    for _ in range(2):
        (got,) = session.run(None, {"x": value})
        assert type(got) is type(value)
        np.testing.assert_equal(got, value)


@pytest.mark.parametrize("first", [STRINGS, SEQUENCE])
def test_nodes_of_the_host_read_their_own_inputs_after_objects(first: onnx.TypeProto) -> None:
    """Complex numbers are the host's. Plans have no strings and lists; inputs are numbered with them."""
    pair = h.make_tensor_type_proto(onnx.TensorProto.COMPLEX128, [2])
    graph = h.make_graph(
        [h.make_node("Identity", [x], [y]) for x, y in ("be", "cf", "ad")],
        "through",
        [h.make_value_info(n, t) for n, t in zip("abc", (first, pair, pair), strict=True)],
        [h.make_value_info(n, t) for n, t in zip("def", (first, pair, pair), strict=True)],
    )
    session = ingot.InferenceSession(h.make_model(graph, opset_imports=[h.make_opsetid("", 22)]))
    given = [A] if first is SEQUENCE else np.array(["one", "two"], object)
    one, other = np.array([1, 2j]), np.array([3j, 4])
    for _ in range(2):
        found = session.run(None, {"a": given, "b": one, "c": other})
        np.testing.assert_array_equal(found[1], one)
        np.testing.assert_array_equal(found[2], other)


def test_an_optional_may_be_there_in_one_run_and_not_in_the_next() -> None:
    """A scalar has the shape of nothing: the two must not share a plan."""
    session = through(h.make_optional_type_proto(h.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])))
    for value in (None, np.array(3, np.float32), None, np.array(4, np.float32)):
        np.testing.assert_equal(session.run(None, {"x": value})[0], value)


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        (SEQUENCE, 3, ["'x'", "int", "seq(tensor(float))", "list"]),
        (SEQUENCE, [A, A.astype(np.int64)], ["'x'", "item 1", "int64", "float32"]),
        (h.make_optional_type_proto(TENSOR), A[0], ["'x'", "rank 1", "rank 2"]),
        (MAP, {"a": 1.0}, ["'x'", "'a'", "map(int64,tensor(float))"]),
        (MAP, A, ["'x'", "ndarray", "dict"]),
        (TENSOR, None, ["'x'"]),
    ],
)
def test_wrong_objects(type_: onnx.TypeProto, value: Any, words: list[str]) -> None:
    with pytest.raises(ingot.InputError) as caught:
        through(type_).run(None, {"x": value})
    for word in words:
        assert word in str(caught.value)


def test_an_input_of_unknown_rank_takes_any() -> None:
    session = through(h.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))
    for array in (A, A[0], A[0, 0]):
        np.testing.assert_array_equal(session.run(None, {"x": np.asarray(array)})[0], array)


# ---- initializers that are inputs ------------------------------------------------------------------------


def defaults() -> onnx.ModelProto:
    """y = (x + a) · b; a and b have defaults."""
    return h.make_model(
        h.make_graph(
            [h.make_node("Add", ["x", "a"], ["t"]), h.make_node("Mul", ["t", "b"], ["y"])],
            "defaults",
            [h.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in ("x", "a", "b")],
            [h.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
            [onnx.numpy_helper.from_array(np.full(2, v, np.float32), n) for n, v in (("a", 1), ("b", 3))],
        ),
        opset_imports=[h.make_opsetid("", 22)],
    )


def test_a_default_may_be_fed_another_value_for_one_run() -> None:
    model = defaults()
    session, peer = ingot.InferenceSession(model), onnxruntime.InferenceSession(model.SerializeToString())
    x, other = np.array([1, 2], np.float32), np.array([5, -7], np.float32)
    assert [v.name for v in session.get_inputs()] == ["x"]
    assert [v.name for v in session.get_overridable_initializers()] == ["a", "b"]
    for extra in ({}, {"a": other}, {"b": other}, {}, {"b": other, "a": x}, {"a": x}):
        feed = {"x": x, **extra}
        np.testing.assert_array_equal(session.run(None, feed)[0], peer.run(None, feed)[0])
    with pytest.raises(ingot.InputError, match="'a' has dtype int64"):
        session.run(None, {"x": x, "a": np.array([1, 2])})
    with pytest.raises(ingot.InputError, match="'x' is missing"):
        session.run(None, {"a": x})


def test_a_default_of_a_file_that_has_changed_cannot_be_fed(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(defaults(), path)
    session = ingot.InferenceSession(path)
    feed = {"x": A[0, :2], "a": A[1, :2]}
    np.testing.assert_array_equal(session.run(None, feed)[0], (A[0, :2] + A[1, :2]) * 3)
    session = ingot.InferenceSession(path)
    path.unlink()
    onnx.save(defaults(), path)
    with pytest.raises(ingot.InputError, match="has changed since"):
        session.run(None, feed)
    np.testing.assert_array_equal(session.run(None, {"x": A[0, :2]})[0], (A[0, :2] + 1) * 3)


def test_a_model_that_its_owner_changes_is_the_one_that_was_given() -> None:
    model = defaults()
    for source in (model, model.SerializeToString(), ingot.load(model)):
        session = ingot.InferenceSession(source)
        feed = {"x": A[0, :2], "a": A[1, :2]}
        if isinstance(source, onnx.ModelProto):
            source.graph.node[0].op_type = "Sub"
        np.testing.assert_array_equal(session.run(None, feed)[0], (A[0, :2] + A[1, :2]) * 3)
        model = defaults()


# ---- options and names -----------------------------------------------------------------------------------


def test_options_of_onnxruntime_are_understood() -> None:
    theirs = onnxruntime.SessionOptions()
    theirs.intra_op_num_threads = 1
    theirs.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ingot.InferenceSession(defaults(), theirs)
    assert session.threads == 1
    assert session.get_session_options().graph_optimization_level == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable_amx", "no"),
        ("enable_winograd", 1),
        ("strassen_memory", 101),
        ("strassen_memory", 0.4),
        ("intra_op_num_threads", "2"),
        ("intra_op_num_threads", -1),
        ("intra_op_num_threads", True),
        ("inter_op_num_threads", -2),
        ("graph_optimization_level", 7),
        ("graph_optimization_level", "all"),
    ],
)
def test_options_of_the_wrong_type(name: str, value: Any) -> None:
    """Refused at the line that sets them."""
    options = ingot.SessionOptions()
    with pytest.raises(ingot.InputError, match=f"{name} is {value!r}"):
        setattr(options, name, value)
    with pytest.raises(ingot.InputError, match=f"{name} is {value!r}"):
        ingot.SessionOptions(**{name: value})
    assert getattr(options, name) == getattr(ingot.SessionOptions(), name)
    with pytest.raises(ingot.InputError, match="sess_options is of type dict"):
        ingot.InferenceSession(defaults(), {name: value})


@pytest.mark.parametrize("arguments", [(None, None), (None, [A]), ("y", {"x": A[0, :2]})])
def test_feeds_and_names_of_the_wrong_type(arguments: tuple[Any, Any]) -> None:
    session = ingot.InferenceSession(defaults())
    with pytest.raises(ingot.InputError, match=r"input_feed is of type|output_names is the string"):
        session.run(*arguments)


INTEGERS = h.make_tensor_type_proto(onnx.TensorProto.INT64, ["n"])
TRUTHS = h.make_tensor_type_proto(onnx.TensorProto.BOOL, ["n"])
FLOATS = h.make_tensor_type_proto(onnx.TensorProto.FLOAT, ["n"])
HALVES = h.make_tensor_type_proto(onnx.TensorProto.BFLOAT16, ["n"])


@pytest.mark.parametrize(
    ("type_", "given", "found"),
    [
        (INTEGERS, [1.5], "1.5"),
        (INTEGERS, [float("nan")], "nan"),
        (INTEGERS, [2**63], "9223372036854775808"),
        (TRUTHS, [0, 2], "2"),
        (FLOATS, [1e300], "1e\\+300"),
        (FLOATS, [None], "list, which holds no numbers"),
        (FLOATS, ["1"], "<U1"),
        (FLOATS, [10**400], "no numbers"),
        (FLOATS, None, "None, which holds no numbers"),
        (FLOATS, {"a": 1}, "dict, which holds no numbers"),
        (FLOATS, np.array([1.0, 2.0], object), "ndarray, which holds no numbers"),
        (FLOATS, np.ma.array([1.0, 2.0], mask=[True, False], dtype=np.float32), "masked"),
        (HALVES, [1e39], "1e\\+39"),
        (STRINGS, [1], "holds 1 of type int"),
        (STRINGS, np.array(["a", None], object), "holds None of type NoneType"),
    ],
)
def test_what_a_list_holds_is_not_changed(type_: onnx.TypeProto, given: Any, found: str) -> None:
    """A fraction does not become an integer, nor None a number."""
    session = through(type_)
    with pytest.raises(ingot.InputError, match=f"'x'.*{found}"):
        session.run(None, {"x": given})


@pytest.mark.parametrize(
    ("type_", "given", "wanted"),
    [
        (INTEGERS, [1.0, -2], np.array([1, -2], np.int64)),
        (INTEGERS, [], np.array([], np.int64)),
        (TRUTHS, [0, 1, True], np.array([False, True, True])),
        (FLOATS, [0.1, 3, float("inf")], np.array([0.1, 3, np.inf], np.float32)),
        (HALVES, [0.1], np.array([0.1]).astype(ml_dtypes.bfloat16)),
        (FLOATS, np.array([0.1, 3], ">f4"), np.array([0.1, 3], np.float32)),
        (STRINGS, ["a"], np.array(["a"], object)),
        (STRINGS, np.array(["ab", "c"]), np.array(["ab", "c"], object)),
    ],
)
def test_lists_and_other_orders_of_bytes_are_brought_to_the_models(
    type_: onnx.TypeProto, given: Any, wanted: Any
) -> None:
    (got,) = through(type_).run(None, {"x": given})
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
