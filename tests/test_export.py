"""ingot.export as a user calls it: save, run, verify, messages on stderr, and what happens without torch."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torch.export import Dim

import ingot
from ingot.capture.attempt import capture
from ingot.errors import ExportError, InputError, ModelError, VerificationError
from ingot.verify import verify_capture
from tests.capture.support import ort_runner


class Net(nn.Module):
    """Two inputs, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Scores and their softmax."""
        y = self.second(self.first(x).relu())
        if scale is not None:
            y = y * scale
        return {"scores": y, "parts": y.softmax(-1)}


def test_export_saves_verifies_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One call: a file that onnxruntime opens, and a Program that is called like the module."""
    module = Net().train()
    path = tmp_path / "net.onnx"
    program = ingot.export(module, (torch.randn(1, 6),), path, kwargs={"scale": torch.randn(1, 3)})
    assert module.training
    assert "dimension 'x_dim1' is 6, fixed by test_export.py:" in capsys.readouterr().err.replace(
        "tests/", ""
    )
    onnx.checker.check_model(str(path), full_check=True)
    session = ort.InferenceSession(path)
    assert [i.name for i in session.get_inputs()] == ["x", "scale"]
    assert [o.name for o in session.get_outputs()] == ["scores", "parts"]
    x, scale = torch.randn(5, 6), torch.randn(5, 3)
    ours = program(x, scale=scale.numpy())
    theirs = session.run(None, {"x": x.numpy(), "scale": scale.numpy()})
    want = module.eval()(x, scale)
    for got in (ours, dict(zip(("scores", "parts"), theirs, strict=True))):
        for name in ("scores", "parts"):
            np.testing.assert_allclose(got[name], want[name].detach().numpy(), rtol=1e-4, atol=1e-6)


def test_specs_are_enough_for_an_export_and_its_verification() -> None:
    """Inputs drawn for the check; the report says what was compared."""
    program = ingot.export(nn.Embedding(10, 4), (ingot.Input("int64", ["batch", "length"]),))
    report = program.verification
    assert report is not None
    assert len({tuple(c.sizes.values()) for c in report.cases}) == 9  # the example, three others, 1s and 0s
    assert report.worst == 0
    assert program(np.ones((2, 3), np.int64)).shape == (2, 3, 4)


def test_a_branch_on_one_size_does_not_fix_it() -> None:
    """Either side is right for its sizes, whether the example took a shortcut or another way."""

    def shortcut(x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 3:
            raise ValueError("three channels")
        return x * 4 if x.shape[0] == 4 else x * x.shape[0]

    def matters(x: torch.Tensor) -> torch.Tensor:
        return x * 5 if x.shape[0] == 4 else x * x.shape[0]

    for function in (shortcut, matters):
        program = ingot.export(function, (torch.randn(4, 3),))
        for rows in (4, 6, 1):
            x = torch.ones(rows, 3)
            np.testing.assert_array_equal(program(x), function(x).numpy())


def test_dimensions_that_must_be_equal_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """They have one name in the inputs, and a line says where the model wants it."""

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.softmax(-1) @ y

    program = ingot.export(f, (torch.ones(2, 5), torch.ones(5, 3)))
    x, y = (v.shape for v in program.model.graph.inputs)
    assert x is not None and y is not None
    assert x[1] == y[0]
    assert re.search(
        r"dimension '\w+' equals '\w+', fixed by (tests/)?test_export\.py:\d+\n", capsys.readouterr().err
    )


def test_a_branch_on_a_size_is_part_of_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """So it is no assumption, and nothing is said."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 2 else x * 3

    shapes = {"x": {0: "rows", 1: Dim("columns", min=2, max=9)}}
    program = ingot.export(f, (torch.ones(4, 5),), dynamic_shapes=shapes)
    assert capsys.readouterr().err == ""
    for rows in (1, 2, 3):
        np.testing.assert_array_equal(program(torch.ones(rows, 5)), f(torch.ones(rows, 5)).numpy())


def test_refused_sizes_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A module that refuses some of the drawn sizes: the export says which."""
    table = torch.arange(8.0)
    ingot.export(lambda x: x + table[torch.arange(x.shape[0]) * 2].unsqueeze(1), (torch.randn(3, 2),))
    assert "the module itself refused" in capsys.readouterr().err


def test_numbers_in_the_place_of_a_tensor_without_axes() -> None:
    """Python's have its dtype, NumPy's their own; what it cannot be is refused by name."""
    program = ingot.export(lambda x, n: x * 2 + n, (torch.tensor(3.0), torch.tensor(1)))
    for x in (4.0, 4, np.float32(4), np.array(4, np.float32)):
        got = program(x, 1)
        assert got == 9
        assert got.dtype == np.float32
    for x, n, words in (
        (np.float64(4), 1, "float64"),
        (4.0, 1.0, "argument 'n' is 1.0, of type float; the exported model takes a tensor of int64"),
        (4.0, 1 << 80, "argument 'n' is 1208925819614629174706176"),
        ("4", 1, "argument 'x' is '4', of type str"),
        ([4.0], 1, "argument 'x' is a list, tuple or dict; the exported model takes a tensor"),
    ):
        with pytest.raises(InputError, match=words):
            program(x, n)


def test_a_program_refuses_another_call() -> None:
    """The structure of the call is the exported one."""
    program = ingot.export(Net(), (torch.randn(2, 6),))
    with pytest.raises(InputError, match=r"the call has tensors \['x', 'scale'\]"):
        program(torch.randn(2, 6), torch.randn(2, 3))


def test_large_weights_go_to_a_file_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself; and both files read back as the same model."""
    monkeypatch.setattr("ingot.loading.EXTERNAL_ABOVE", 100)
    program = ingot.export(Net(), (torch.randn(2, 6),), verify=False)
    path = tmp_path / "net.onnx"
    program.save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    x = np.ones((3, 6), np.float32)
    got = ort.InferenceSession(path).run(None, {"x": x})
    want = ort_runner(program.model)({"x": x}, program.output_names)
    np.testing.assert_array_equal(got[0], want[0])


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half-written model, no file left over."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    program = ingot.export(Net(), (torch.randn(2, 6),), verify=False)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("ingot.loading.write", fails)
    with pytest.raises(ModelError, match=r"net\.onnx: cannot be written: disk full"):
        program.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
    assert path.read_bytes() == b"old"


def test_verification_names_output_sizes_and_node() -> None:
    """A wrong node deep in the graph is found by name, with the line that made it."""
    captured = capture(nn.Sequential(*[nn.Linear(6, 6), nn.Tanh()] * 4), (torch.randn(2, 6),))
    node = [n for n in captured.model.graph if n.op_type == "Gemm"][2]
    node.attributes["alpha"] = ir.AttrFloat32("alpha", 1.01)
    with pytest.raises(VerificationError) as error:
        verify_capture(captured, runner=ort_runner)
    message = str(error.value)
    assert "output 'output' at input_batch=2" in message
    assert f"first node that differs is {node.name!r} (Gemm), written for linear" in message


def test_verification_of_other_sizes_finds_what_the_example_hides() -> None:
    """A size baked into the graph is right for the example alone."""
    captured = capture(lambda x: x.cumsum(0) / x.shape[0], (torch.randn(3, 2),))
    graph = captured.model.graph
    for node in list(graph):
        if node.op_type == "Shape":
            three = ir.Value(name="three", const_value=ir.tensor(np.array([3]), name="three"))
            graph.initializers["three"] = three
            node.outputs[0].replace_all_uses_with(three)
    with pytest.raises(VerificationError, match="differs from the module"):
        verify_capture(captured, runner=ort_runner)


def test_sizes_the_module_refuses_are_skipped_and_reported() -> None:
    """The module's own limits are no fault of the export."""

    def f(x: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_scripting():
            return x
        table = torch.arange(8.0)
        return x + table[torch.arange(x.shape[0]) * 2].unsqueeze(1)

    report = verify_capture(capture(f, (torch.randn(3, 2),)), runner=ort_runner)
    assert len(report.cases) >= 4
    assert all(c.sizes["x_batch"] <= 4 for c in report.cases)
    assert report.refused
    assert all(r["x_batch"] > 4 for r in report.refused)


def test_nan_and_infinity_must_stand_in_the_same_places() -> None:
    """They count as equal only where the module has them too."""
    x = torch.tensor([[1.0, -1.0, 0.0]])
    assert verify_capture(capture(lambda x: x.log() / x, (x,)), runner=ort_runner).cases
    captured = capture(lambda x: x.log(), (x,))
    (node,) = captured.model.graph
    node.op_type = "Sqrt"
    with pytest.raises(VerificationError, match="differs from the module by inf"):
        verify_capture(captured, runner=ort_runner)


def test_verify_of_a_file_and_of_a_program(tmp_path: Path) -> None:
    """ingot.verify takes either."""
    module = Net()
    program = ingot.export(module, (torch.randn(2, 6),), tmp_path / "net.onnx", verify=False)
    assert ingot.verify(program, module).worst < 1e-4
    assert ingot.verify(tmp_path / "net.onnx", module, (torch.randn(4, 6),)).worst < 1e-4
    with pytest.raises(VerificationError, match="output 'scores'"):
        ingot.verify(tmp_path / "net.onnx", Net(), (torch.randn(4, 6),))
    with pytest.raises(VerificationError, match="the module gives 1 outputs, the exported model 2"):
        ingot.verify(program, lambda x: x)
    with pytest.raises(VerificationError, match="the module gives 1 outputs, the exported model 2"):
        ingot.verify(tmp_path / "net.onnx", lambda x: x, (torch.randn(4, 6),))
    with pytest.raises(VerificationError, match="leave args and kwargs away"):
        ingot.verify(program, module, (torch.randn(4, 6),))
    with pytest.raises(ModelError, match="no such file"):
        ingot.verify(tmp_path / "none.onnx", module, (torch.randn(4, 6),))


def test_errors_come_before_a_file_is_written(tmp_path: Path) -> None:
    """Nothing is left behind by an export that is refused; a place that is not there is refused at once."""
    with pytest.raises(ModelError, match="there is no directory"):
        ingot.export(lambda _: pytest.fail("ran"), (torch.ones(2),), tmp_path / "a" / "m.onnx")
    with pytest.raises(ExportError):
        ingot.export(lambda x: x + torch.from_numpy(x.numpy()), (torch.ones(2),), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_without_torch_the_message_has_the_pip_command() -> None:
    """export without the extra is one clear error; Program and verify import without it."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ingot, ingot.program, ingot.verify\n"
        "from ingot.capture.signature import Input\n"
        "try:\n    ingot.export(print, (1,))\n"
        "except ingot.MissingExtraError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'ingot[torch]'" in done.stdout


def test_an_export_imports_nothing_of_torchs_own() -> None:
    """torch imports all of its export where it notes which line made a symbol for a size: half a second."""
    code = (
        "import sys, torch, ingot\n"
        "ingot.export(lambda x: x.flatten(1) * 2, (torch.ones(2, 3, 4),), verify=False)\n"
        "print('torch.export._trace' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_program_shows_itself_in_a_line() -> None:
    program = ingot.export(nn.Linear(3, 2), (torch.zeros(4, 3),), verify=False)
    shown = repr(program)
    assert "\n" not in shown
    assert len(shown) < 200
    assert shown.startswith("Program(input -> ")
    assert "32 bytes of weights" in shown


def test_what_is_returned_beside_tensors_is_written_down() -> None:
    """A program gives it back; a file has tensors alone."""

    def doubled(x: torch.Tensor) -> dict[str, Any]:
        return {"y": x * 2, "how": "twice", "rows": x.shape[0], "n": 3}

    program = ingot.export(doubled, (torch.ones(2, 3),))
    assert [(a.where, a.what, a.status) for a in program.assumptions if a.kind == "output"] == [
        ("how", "what the model returns at 'how' is 'twice'", "fixed"),
        ("n", "what the model returns at 'n' is 3", "fixed"),
    ]
    got = program(torch.ones(5, 3))
    assert (got["how"], got["n"], int(got["rows"])) == ("twice", 3, 5)


class Noisy(nn.Module):
    """Asks for its mode in a method, as no layer of PyTorch's."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x)

    def drop(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


def test_layers_in_training_mode_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that may be other functions in it: not a Dropout of nothing, nor a norm without statistics."""
    layers = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), Noisy(), nn.Dropout(0.0)
    model = nn.Sequential(*layers, nn.BatchNorm1d(4, track_running_stats=False), nn.Dropout(0.5).eval())
    example = (torch.randn(3, 4),)
    kinds = [(a.where, a.status) for a in ingot.export(model, example).assumptions if a.kind == "training"]
    assert kinds == [("BatchNorm1d '1'", "fixed"), ("Dropout '2'", "fixed"), ("Noisy '3'", "fixed")]
    said = "as after .eval(), where these may differ: BatchNorm1d '1', Dropout '2', Noisy '3'\n"
    assert said in capsys.readouterr().err
    ingot.export(model, example, state="inputs")  # in which BatchNorm stays in training mode
    assert "differ: Dropout '2', Noisy '3'\n" in capsys.readouterr().err
    ingot.export(model.eval(), example)
    ingot.export(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (torch.randn(2, 3, 8),))
    assert ".eval()" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("dynamic_axes", "dynamic_shapes, with dims for each argument"),
        ("do_constant_folding", "leave it away"),
        ("custom_translation_table", "ingot.translate"),
    ],
)
def test_arguments_of_torchs_export_are_named_by_ours(name: str, instead: str) -> None:
    with pytest.raises(ExportError, match=f"no argument '{name}', as torch.onnx.export has: .*{instead}"):
        ingot.export(nn.ReLU(), (torch.ones(2),), **{name: {}})
    with pytest.raises(TypeError, match="unexpected keyword argument 'opset'"):
        ingot.export(nn.ReLU(), (torch.ones(2),), opset=18)  # pyright: ignore[reportCallIssue]


def test_every_argument_of_torchs_export_is_known() -> None:
    """One that a newer PyTorch brings is to be named with what there is instead, or taken."""
    wanted = inspect.signature(torch.onnx.export).parameters
    for name in wanted.keys() - inspect.signature(ingot.export).parameters.keys():
        with pytest.raises(ExportError, match=f"no argument '{name}'"):
            ingot.export(nn.ReLU(), (torch.ones(2),), **{name: None})
