"""Every peer that is installed gives the numbers of the file; one that is not says how to install it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ingot import peers
from ingot.errors import MissingExtraError, ProviderError
from ingot.peers import Job, prepare, symbolic_dims


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Y = relu(x) + x on [batch, 4]."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Add", ["r", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    path = tmp_path / "twice.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return Job(path, {"x": np.array([[-1.0, 0.0, 1.0, 2.0], [3.0, -4.0, 5.0, -6.0]], np.float32)}, threads=1)


@pytest.mark.parametrize("name", ["ingot", "onnxruntime", "openvino", "mnn"])
def test_peer_gives_the_numbers_of_the_file(name: str, job: Job) -> None:
    try:
        runner = prepare(name, job)
    except MissingExtraError as error:
        pytest.skip(str(error))
    x = job.inputs["x"]
    (y,) = runner.call()
    np.testing.assert_array_equal(y, np.maximum(x, 0) + x)
    assert runner.version
    assert runner.load_seconds > 0


def test_torch_runs_the_module_behind_the_file(job: Job) -> None:
    torch = pytest.importorskip("torch")

    class Twice(torch.nn.Module):
        def forward(self, x: object) -> object:
            return torch.relu(x) + x

    runner = prepare("torch", Job(job.path, job.inputs, 1, Twice()))
    np.testing.assert_array_equal(runner.call()[0], np.maximum(job.inputs["x"], 0) + job.inputs["x"])


def test_torch_without_a_module_says_what_it_needs(job: Job) -> None:
    with pytest.raises(ProviderError, match=r"--source MODULE:FACTORY"):
        prepare("torch", job)


def test_unknown_peer_lists_the_known_ones(job: Job) -> None:
    with pytest.raises(ProviderError, match=r"'tensorrt'.*onnxruntime"):
        prepare("tensorrt", job)


def test_missing_peer_gives_its_pip_command(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> object:
        raise ImportError(package)

    monkeypatch.setattr(peers.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match="`pip install onnxruntime` installs it"):
        prepare("onnxruntime", job)


def test_a_peers_complaint_becomes_one_line(job: Job) -> None:
    job.path.write_bytes(b"not a model")
    with pytest.raises(ProviderError, match=r"onnxruntime cannot take twice\.onnx") as error:
        prepare("onnxruntime", job)
    assert "\n" not in str(error.value)


def test_symbolic_dims_come_from_the_inputs(job: Job) -> None:
    assert symbolic_dims(job) == {"batch": 2}


def test_a_name_for_different_sizes_is_no_size(job: Job) -> None:
    model = onnx.load(job.path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "batch"
    onnx.save(model, job.path)
    assert symbolic_dims(job) == {}
