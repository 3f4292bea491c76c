"""What options say of a model or a run: sizes, other initializers, an end; and outputs of another dtype than
their file says.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import ingot
from ingot.errors import InputError, ModelError, TerminatedError

F, I64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
X = np.arange(12, dtype=np.float32).reshape(4, 3)
W = np.ones((3, 2), np.float32)


def product(**external: Any) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", F, ["b", 3])
    x.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    y = helper.make_tensor_value_info("y", F, ["b", 2])
    weight = numpy_helper.from_array(W, "w")
    if external:
        onnx.external_data_helper.set_external_data(weight, **external)
        weight.ClearField("raw_data")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def options(runtime: Any, name: str, *values: Any) -> Any:
    made = runtime.SessionOptions()
    getattr(made, name)(*values)
    return made


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("add_free_dimension_override_by_name", ("b", 4)),
        ("add_free_dimension_override_by_name", ("another", 4)),
        ("add_free_dimension_override_by_denotation", ("DATA_BATCH", 4)),
    ],
)
def test_sizes_of_dimensions_are_onnx_runtimes(name: str, values: tuple[str, int]) -> None:
    content = product().SerializeToString()
    got = ingot.InferenceSession(content, options(ingot, name, *values))
    want = onnxruntime.InferenceSession(content, options(onnxruntime, name, *values))
    for ours, theirs in zip(
        (*got.get_inputs(), *got.get_outputs()), (*want.get_inputs(), *want.get_outputs()), strict=True
    ):
        assert list(ours.shape) == list(theirs.shape)
    np.testing.assert_array_equal(got.run(None, {"x": X})[0], want.run(None, {"x": X})[0])
    if values[0] != "another":
        with pytest.raises(InputError, match=r"\[2, 3\].*\[4, 3\]"):
            got.run(None, {"x": X[:2]})


def test_sizes_that_contradict_each_other() -> None:
    given = options(ingot, "add_free_dimension_override_by_name", "b", 4)
    given.add_free_dimension_override_by_denotation("DATA_BATCH", 5)
    with pytest.raises(InputError, match=r"'b'.*4 and 5"):
        ingot.InferenceSession(product(), given)
    with pytest.raises(InputError, match="-2"):
        given.add_free_dimension_override_by_name("c", -2)


def test_another_initializer() -> None:
    for value in (2 * W, ingot.OrtValue.ortvalue_from_numpy(2 * W)):
        session = ingot.InferenceSession(product(), options(ingot, "add_initializer", "w", value))
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], X @ (2 * W))


def test_an_initializer_whose_file_is_elsewhere(tmp_path: Path) -> None:
    onnx.save(product(location="missing.bin"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"missing\.bin"):
        ingot.InferenceSession(tmp_path / "m.onnx")
    given = options(ingot, "add_external_initializers", ["w"], [3 * W])
    session = ingot.InferenceSession(tmp_path / "m.onnx", given)
    np.testing.assert_array_equal(session.run(None, {"x": X})[0], X @ (3 * W))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("v", W, "no initializer 'v'"), ("w", W.T, r"\[2, 3\]"), ("w", W.astype(np.float64), "float64")],
)
def test_initializers_that_do_not_fit(name: str, value: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ingot.InferenceSession(product(), options(ingot, "add_initializer", name, value))


def test_options_of_another_runtime() -> None:
    theirs = onnxruntime.SessionOptions()
    theirs.logid, theirs.enable_mem_reuse = "mine", False
    ours = ingot.InferenceSession(product(), theirs).get_session_options()
    assert (ours.logid, ours.enable_mem_reuse) == ("mine", False)


@pytest.mark.parametrize("runtime", [ingot, onnxruntime])
@pytest.mark.parametrize(("level", "nodes"), [("ENABLE_ALL", 1), ("DISABLE_ALL", 3)])
def test_the_optimised_model_is_written(tmp_path: Path, runtime: Any, level: str, nodes: int) -> None:
    """For other runtimes, with the sizes and values of the options in it."""
    model = product()
    model.graph.node.append(helper.make_node("Identity", ["y"], ["again"]))
    model.graph.node.append(helper.make_node("Neg", ["again"], ["unused"]))
    given = options(runtime, "add_free_dimension_override_by_name", "b", 4)
    given.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    given.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
    (wanted,) = ingot.InferenceSession(model, given).run(None, {"x": X})
    written = onnx.load(tmp_path / "optimised.onnx")
    assert [node.op_type for node in written.graph.node] == ["MatMul", "Identity", "Neg"][:nodes]
    if runtime is ingot:  # which sizes another's options have cannot be asked
        assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    (got,) = onnxruntime.InferenceSession(written.SerializeToString()).run(None, {"x": X})
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimized_model_filepath", "nowhere/o.onnx", "no directory nowhere"),
        ("optimized_model_filepath", 3, "must be a string"),
        ("log_severity_level", 9, "log_severity_level is 9; it must be 0 .* to 4"),
    ],
)
def test_options_that_cannot_be_meant(name: str, value: Any, message: str) -> None:
    given = ingot.SessionOptions()
    with pytest.raises(ingot.IngotError, match=message):
        setattr(given, name, value)
        ingot.InferenceSession(product(), given)


def endless() -> onnx.ModelProto:
    """A loop that goes on until it has made 2^62 rounds, each of which the host computes."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("StringConcat", ["text", "nothing"], ["same"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", I64, []),
            helper.make_tensor_value_info("go", BOOL, []),
            helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1]),
        ],
        [
            helper.make_tensor_value_info("on", BOOL, []),
            helper.make_tensor_value_info("same", onnx.TensorProto.STRING, [1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["most", "", "x"], ["y"], body=body)],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.STRING, [1])],
        [
            numpy_helper.from_array(np.array(1 << 62), "most"),
            numpy_helper.from_array(np.array([""], object), "nothing"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_run_is_ended_before_it_begins_and_while_it_goes_on() -> None:
    run, session = ingot.RunOptions(), ingot.InferenceSession(product())
    run.terminate = True
    with pytest.raises(TerminatedError, match="terminate"):
        session.run(None, {"x": X}, run)
    run.terminate = False
    np.testing.assert_array_equal(session.run(None, {"x": X}, run)[0], X @ W)
    with pytest.raises(InputError, match="run_options"):
        session.run(None, {"x": X}, {"terminate": True})  # pyright: ignore[reportArgumentType]

    looping = ingot.InferenceSession(endless())
    timer = threading.Timer(0.2, lambda: setattr(run, "terminate", True))
    timer.start()
    with pytest.raises(TerminatedError):
        looping.run(None, {"x": np.array(["a"], object)}, run)
    timer.join()


def declared(dtype: int, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", F, [3])],
        [helper.make_tensor_value_info("y", dtype, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("late", [False, True])
def test_an_output_of_another_dtype_than_its_file_says(late: bool) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("NonZero", ["a"], ["n"])]
    last = helper.make_node("Neg", ["n"], ["y"]) if late else helper.make_node("Neg", ["a"], ["y"])
    wrong, right = (F, I64) if late else (I64, F)
    model = declared(wrong, *nodes, last)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="Type Error"):
        onnxruntime.InferenceSession(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'y'.*declares"):
        ingot.InferenceSession(model).run(None, {"x": X[0]})
    ingot.InferenceSession(declared(right, *nodes, last)).run(None, {"x": X[0]})
