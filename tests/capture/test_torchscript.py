"""TorchScript: scripted and traced modules, from memory and from files."""

from __future__ import annotations

import importlib.resources
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ingot
from benchmarks.files import NotAvailableError, fetch_member
from ingot.errors import ExportError
from tests.capture.support import parity
from tests.capture.test_constructs import dims

T = torch.Tensor

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Net(nn.Module):
    """Lists, dicts, tuples, optionals, numbers, loops and branches of Python's, and operators kept whole."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(3, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.rnn = nn.LSTM(4, 5, batch_first=True)
        self.layers = nn.ModuleList([nn.Linear(5, 5) for _ in range(3)])
        self.width = 3

    def forward(self, x: T, n: int = 2, shift: T | None = None) -> tuple[T, T, T, T, T]:
        parts: list[T] = []
        for i in range(n):
            parts.append(x * i)
            if i == 7:
                break
        if x.dim() != 3:
            raise ValueError(f"{x.dim()} axes")
        named = {"first": x, "sum": torch.stack(parts).sum(0)}
        if shift is not None:
            named["sum"] = named["sum"] + shift
        y, _ = self.rnn(self.norm(self.convolve(named["sum"])).transpose(1, 2))
        for layer in self.layers:
            y = torch.relu(layer(y))
        half = x[:, :, : x.shape[2] // 2].to(torch.float64)
        sizes = torch.tensor([x.shape[0], self.width])
        return y, torch.zeros([x.shape[0], self.width], dtype=x.dtype), half, sizes, x.flatten(1)


def test_scripted_module_from_memory_and_file(tmp_path: Path) -> None:
    """Dynamic sizes stay; numbers and optionals keep their meaning; names of weights are the module's."""
    scripted = torch.jit.script(Net().eval())
    scripted.save(str(tmp_path / "net.pt"))
    for model in (scripted, tmp_path / "net.pt"):
        program = ingot.export(model, (torch.randn(2, 3, 9), 3), kwargs={"shift": torch.randn(3, 1)})
        assert dims(program)["x"] == ["x_batch", 3, "x_dim2"]
        assert "convolve.weight" in program.model.graph.initializers
        kinds = {node.op_type for node in program.model.graph}
        assert {"BatchNormalization", "LSTM"} <= kinds
        assert [a.what for a in program.assumptions if a.kind == "argument"] == ["argument 'n' is 3"]


def test_traced_module_and_functions() -> None:
    """Sizes that a trace keeps as numbers in tensors stay sizes."""
    traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), (torch.randn(2, 4),))
    parity(traced, (torch.randn(3, 4),), (torch.randn(5, 4),))

    def f(x: T) -> T:
        return x.view(x.shape[0] * 2, -1)[:, : x.shape[1] // 4] + x.shape[0]

    for function in (torch.jit.trace(f, (torch.randn(4, 8),)), torch.jit.script(f)):
        parity(function, (torch.randn(4, 8),), (torch.randn(3, 12),))


def test_state_of_a_scripted_module() -> None:
    """Attributes and buffers that the script sets become inputs and outputs."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(3))
            self.calls = 0

        def forward(self, x: T) -> T:
            self.calls += 1
            self.total += x
            return self.total * self.calls

    scripted = torch.jit.script(Counter())
    with pytest.raises(ExportError, match="forward changes"):
        ingot.export(scripted, (torch.randn(3),))
    session = ingot.Stateful(ingot.export(scripted, (torch.randn(3),), state="inputs"))
    for _ in range(3):
        x = torch.randn(3)
        np.testing.assert_allclose(session(x), scripted(x).numpy(), atol=1e-5)


def test_what_a_script_asks_of_data_is_refused_with_its_line() -> None:
    """The line of the Python that was scripted, not of the code that runs it."""

    class Raises(nn.Module):
        def forward(self, x: T) -> T:
            y = x * 2
            return y[: int(y[0])]

    with pytest.raises(ExportError) as error:
        ingot.export(torch.jit.script(Raises()), (torch.ones(3),))
    assert f"{__file__}:" in str(error.value) and "return y[: int(y[0])]" in str(error.value)


def speech() -> np.ndarray[Any, Any]:
    """A spoken sentence at 16 kHz, from Python's own tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        sunau = pytest.importorskip("sunau")
        audioop = pytest.importorskip("audioop")
    place = importlib.resources.files("test") / "audiotest.au"
    if not place.is_file():
        pytest.skip("Python was installed without its tests")
    with place.open("rb") as file, sunau.open(file) as clip:
        rate, raw = clip.getframerate(), clip.readframes(clip.getnframes())
        wide, _ = audioop.ratecv(raw, clip.getsampwidth(), clip.getnchannels(), rate, 16000, None)
        return np.frombuffer(wide, np.int16).reshape(-1, clip.getnchannels())[:, 0].astype(np.float32) / 32768


def test_voice_detection_over_a_spoken_clip() -> None:
    """Silero's scripted detector, as it comes out of its file: the same probabilities, window by window."""
    try:
        path = fetch_member("silero-vad", "*silero_vad.jit")
    except NotAvailableError as error:
        pytest.skip(str(error))
    program = ingot.export(path, (torch.zeros(1, 512), 16000), state="inputs")
    session, module = ingot.Stateful(program), torch.jit.load(str(path))
    clip = speech()
    found: list[float] = []
    with torch.no_grad():
        for start in range(0, len(clip) - 512, 512):
            x = torch.from_numpy(clip[None, start : start + 512].copy())
            want = float(module(x, 16000))
            found.append(want)
            assert abs(np.asarray(session(x, 16000)).item() - want) < 1e-5, start
    assert len(found) > 30 and max(found) > 0.5, "the clip has speech in it"
