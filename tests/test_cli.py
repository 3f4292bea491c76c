"""The command line's conventions: exit codes, one line per error, data on stdout, everything else on
stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ingot.cli import in_units, main


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.strip()]


class Terminal:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str | Path) -> Said:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = self.capsys.readouterr()
        return Said(int(leaving.value.code or 0), captured.out, captured.err)


@pytest.fixture
def ingot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Terminal:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Terminal(capsys)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = relu(x) @ w on [batch, 4], with w [4, 3] of ones."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_run_with_files(ingot: Terminal, model: Path, tmp_path: Path) -> None:
    x = np.array([[1, -2, 3, 4], [0, 0, 0, 1]], np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    said = ingot("run", model, "-i", "in.npz", "-o", "out.npz", "--threads", "1")
    assert said.code == 0, said.err
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["y"], np.maximum(x, 0) @ np.ones((4, 3)))
    assert "y" in said.out and "2x3" in said.out and "float32" in said.out
    assert "written" in said.err and "written" not in said.out


def test_help_says_what_each_command_is_for(ingot: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line each, none of them cut off; and the whole of it where a command is asked."""
    monkeypatch.setenv("COLUMNS", "80")
    listed = ingot("--help").out
    assert all(f"  {name} " in listed for name in ("export", "run", "inspect", "bench"))
    assert "..." not in listed.partition("Commands:")[2], listed
    assert "shape and range" in " ".join(ingot("run", "--help").out.split())


def test_run_prints_json(ingot: Terminal, model: Path) -> None:
    said = ingot("run", model, "--dim", "batch=5", "--json", "-q")
    found = json.loads(said.out)
    assert found["outputs"][0]["shape"] == [5, 3]
    assert found["outputs"][0]["not_finite"] == 0
    assert said.err == ""


def test_run_of_a_model_that_gives_a_sequence(ingot: Terminal, tmp_path: Path) -> None:
    """It is printed with its length; a file of arrays cannot hold it."""
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x", "x"], ["s"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [3])],
    )
    path = tmp_path / "sequence.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    said = ingot("run", path)
    assert said.code == 0 and "seq" in said.out, said.err
    said = ingot("run", path, "-o", "out.npz")
    assert said.code == 1 and "output 's' is a list" in said.err and not (tmp_path / "out.npz").exists()


def test_inspect(ingot: Terminal, model: Path) -> None:
    said = ingot("inspect", model)
    assert said.code == 0, said.err
    for text in ("opset ai.onnx 18", "batchx4", "parameters: 12 in 48 B", "MatMul 1", "24 FLOP for x 1x4"):
        assert text in said.out
    for text in ("float32 12 in 48 B", "native: Relu 1, MatMul 1", "host: none"):
        assert text in said.out
    found = json.loads(ingot("inspect", model, "--shape", "x:10x4", "--json").out)
    assert found["cost"]["flops"] == 2 * 10 * 4 * 3
    assert found["computed"]["MatMul"] == {"native": 1}
    assert found["refused"] == []


def test_inspect_says_what_would_not_run(ingot: Terminal, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "of.it" : 1]>
    g (float[2] x) => (float[2] y) { t = of.it.Unheard (x) u = Relu (t) y = of.it.Other (u) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "strange.onnx")
    said = ingot("inspect", "strange.onnx")
    assert said.code == 0, said.err
    lines = [line for line in said.out.splitlines() if line.startswith("would not run: ")]
    assert len(lines) == 2
    assert "of.it.Unheard 't' (opset 1)" in said.out and "of.it.Other 'y' (opset 1)" in said.out


def test_inspect_plan_names_what_the_host_evaluates(ingot: Terminal, model: Path) -> None:
    found = json.loads(ingot("inspect", model, "--plan", "--json").out)
    assert {node["op_type"] for node in found["plan"]} >= {"MatMul"}
    assert all(node["kind"] in ("native", "host", "view", "folded") for node in found["plan"])
    assert "evaluated with NumPy" in ingot("inspect", model, "--plan").out


def test_inspect_plan_explains_nodes_without_a_time(ingot: Terminal, tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[8,8] x) => (float[8,8] y) { t = MatMul (x, x) y = Relu (t) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "fused.onnx")
    said = ingot("inspect", "fused.onnx", "--plan").out
    assert "without ms: part of another node's kernel" in said


@pytest.mark.parametrize("dtype", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_narrow_floats_come_at_random_and_from_files(ingot: Terminal, tmp_path: Path, dtype: int) -> None:
    values = [helper.make_tensor_value_info(name, dtype, ["batch", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [values[0]], [values[1]])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "narrow.onnx")
    said = ingot("run", "narrow.onnx", "--dim", "batch=3", "-o", "y.npy")
    assert said.code == 0, said.err
    assert ingot("inspect", "narrow.onnx", "--plan").code == 0
    again = ingot("run", "narrow.onnx", "-i", "x=y.npy", "--json")
    assert json.loads(again.out)["outputs"][0]["shape"] == [3, 4]


def test_bench(ingot: Terminal, model: Path) -> None:
    said = ingot(
        "bench", model, "--against", "onnxruntime", "--rounds", "2", "--threads", "1", "--json", "-q"
    )
    assert said.code == 0, said.err
    runners = {row["runner"]: row for row in json.loads(said.out)["runners"]}
    assert runners["ingot"]["median"] > 0
    assert runners["onnxruntime"]["median"] > 0
    assert runners["ingot"]["difference"] <= 1e-6


def test_bench_against_torch_needs_the_source(ingot: Terminal, model: Path) -> None:
    said = ingot("bench", model, "--against", "torch", "--rounds", "1")
    assert said.code == 0
    assert "--source MODULE:FACTORY" in said.err


def test_export_then_run(ingot: Terminal, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "nets.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())\n"
    )
    said = ingot("export", "nets.py:build", "-o", "nets.onnx", "--shape", "input:2x4")
    assert said.code == 0, said.err
    assert said.out == ""
    assert "nets.onnx" in said.err
    said = ingot("run", "nets.onnx", "--json", "--shape", "input:7x4")
    assert json.loads(said.out)["outputs"][0]["shape"] == [7, 3]


@pytest.mark.parametrize("command", ["run", "inspect", "bench"])
def test_a_dtype_that_is_not_the_models_is_refused(ingot: Terminal, model: Path, command: str) -> None:
    said = ingot(command, model, "--shape", "x:2x4:int64")
    assert said.code == 1
    assert said.error_lines == [
        "error: --shape x: int64 was asked for and the model takes float32; leave the dtype out"
    ]


def test_export_without_inputs_names_the_option(ingot: Terminal, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "bare.py").write_text("import torch\ndef build():\n    return torch.nn.ReLU()\n")
    said = ingot("export", "bare.py:build", "-o", "bare.onnx")
    assert said.code == 1
    assert len(said.error_lines) == 1
    assert "the inputs (input) with --shape, as in --shape input:1x3x224x224" in said.err


def test_export_into_no_folder_is_refused_before_the_model_is_made(ingot: Terminal, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("raise RuntimeError('imported')\n")
    said = ingot("export", "slow.py:build", "-o", "nowhere/m.onnx", "--shape", "x:1")
    assert said.code == 1
    assert "there is no directory nowhere" in said.err


def test_export_help_says_which_opsets(ingot: Terminal) -> None:
    pytest.importorskip("torch")
    from ingot.capture.attempt import OPSETS
    from ingot.export import DEFAULT_OPSET

    said = ingot("export", "--help")
    assert f"{OPSETS.start} to {OPSETS.stop - 1}; {DEFAULT_OPSET} without" in " ".join(said.out.split())


def test_unknown_runner_names_those_there_are(ingot: Terminal, model: Path) -> None:
    said = ingot("bench", model, "--against", "nope")
    assert said.code == 2
    assert "'nope'" in said.err and "openvino" in said.err and "torch.compile" in said.err


@pytest.mark.parametrize("command", ["run", "inspect", "bench"])
def test_wrong_path_is_one_line(ingot: Terminal, command: str) -> None:
    said = ingot(command, "nowhere.onnx")
    assert said.code == 1
    assert said.out == ""
    assert len(said.error_lines) == 1
    assert said.err.startswith("error: nowhere.onnx")


def test_corrupt_file_is_one_line(ingot: Terminal, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x00\x01 not a model")
    said = ingot("run", "bad.onnx")
    assert said.code == 1
    assert len(said.error_lines) == 1
    assert "bad.onnx" in said.err


def test_wrong_input_shape_is_one_line(ingot: Terminal, model: Path) -> None:
    said = ingot("run", model, "--shape", "x:2x5")
    assert said.code == 1
    assert len(said.error_lines) == 1
    assert "'x'" in said.err and "5" in said.err and "4" in said.err


def test_unknown_operator_has_a_code_of_its_own(ingot: Terminal, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Frobnicate", ["x"], ["y"], domain="my.ops")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("my.ops", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "custom.onnx")
    said = ingot("run", "custom.onnx")
    assert said.code == 4
    assert len(said.error_lines) == 1
    assert "Frobnicate" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("frobnicate",),
        ("run", "m.onnx", "--shape", "x"),
        ("run", "m.onnx", "--threads", "-1"),
        ("run", "m.onnx", "--seed", "-1"),
        ("run", "m.onnx", "--shape", "x:1x4:float99"),
        ("run", "m.onnx", "--shape", "x:٣x4"),
        ("run", "m.onnx", "--dim", "batch=²"),
        ("export", "m.py:build", "-o", "m2.onnx", "--shape", "x:1x4:float99"),
        ("bench", "m.onnx", "--rtol", "nan"),
        ("bench", "m.onnx", "--seconds", "-1"),
        ("bench", "m.onnx", "--against", "onnxruntime,nope"),
    ],
)
def test_usage_errors_have_code_2(ingot: Terminal, model: Path, arguments: tuple[str, ...]) -> None:
    model.rename(model.with_name("m.onnx"))
    said = ingot(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-i", "img=x.npy"), "--input img=x.npy: the model has no input 'img'; it has x"),
        (("-i", "x="), "--input 'x=' names no file; write NAME=FILE.npy or FILE.npz"),
        (("--dim", "width=4"), "--dim width: the model has no such named dim; it has batch"),
        (
            ("-i", "x=x.npy", "--dim", "batch=3"),
            "--dim batch: --input gives it from a file; leave one of them out",
        ),
        (
            ("-i", "x.npy", "--shape", "x:3x4"),
            "--shape x: --input gives it from a file; leave one of them out",
        ),
        (
            ("--shape", "x:100000000000000x4"),
            "input 'x' of 100000000000000x4 has 400,000,000,000,000 elements, more than there is memory for; "
            "give smaller sizes",
        ),
        (
            ("-o", "y.xyz", "-i", "x=gone.npy"),
            "y.xyz: outputs are written as .npz or .npy; use one of these suffixes",
        ),
        (("-o", "gone/y.npy"), "gone/y.npy: there is no directory gone; create it first"),
        (
            ("-i", "x=d.npy"),
            "d.npy: 'x' has dtype float64; the model wants float32. Write the file anew, with numpy.save of "
            "array.astype('float32')",
        ),
        (("--threads", "99999"), "intra_op_num_threads is 99999; it must be 0 (all cores) to 1024"),
    ],
)
def test_what_does_not_fit_the_model(
    ingot: Terminal, model: Path, arguments: tuple[str, ...], message: str
) -> None:
    np.save(model.with_name("x.npy"), np.ones((2, 4), np.float32))
    np.save(model.with_name("d.npy"), np.ones((2, 4)))
    said = ingot("run", model, *arguments)
    assert said.code == 1
    assert said.error_lines == [f"error: {message}"]


def test_errors_name_the_opset_of_the_file(ingot: Terminal, model: Path) -> None:
    """Not the one that everything is brought to."""
    said = ingot("inspect", model, "--shape", "x:1x5")
    assert "MatMul 'y' (opset 18)" in said.err


def test_weights_of_the_source_that_are_not_the_files(ingot: Terminal, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text("import torch\ndef build():\n    return torch.nn.Linear(4, 3)\n")
    assert ingot("export", "net.py:build", "-o", "net.onnx", "--shape", "input:2x4").code == 0
    said = ingot("bench", "net.onnx", "--source", "net.py:build", "--against", "torch", "--rounds", "1")
    assert said.code == 3
    assert "outputs differ from torch's" in said.err
    remedy = "'weight' is one): let its factory load those that were exported, or seed it"
    assert remedy in " ".join(said.err.split())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (4_194_304, "4.19 MB"),
    ],
)
def test_counts_have_three_digits(count: int, text: str) -> None:
    assert in_units(count, "B") == text


def test_debug_shows_the_traceback(ingot: Terminal) -> None:
    assert "Traceback" not in ingot("run", "nowhere.onnx").err
    assert "Traceback" in ingot("run", "nowhere.onnx", "--debug").err


def test_version_and_no_colour_without_a_terminal() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ingot", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("ingot 0.")
    result = subprocess.run(
        [sys.executable, "-m", "ingot", "run", "nowhere.onnx"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "\x1b" not in result.stderr
