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


class Ring(nn.Module):
    """The last rows, written in a loop, at places that go on from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(4, 3))
        self.at = 0

    def forward(self, x: T) -> T:
        for i in range(x.size(0)):
            self.rows[self.at % 4] = x[i]
            self.at += 1
        return self.rows.mean(0)


def test_state_that_a_loop_of_a_script_changes() -> None:
    scripted = torch.jit.script(Ring())
    session = ingot.Stateful(ingot.export(scripted, (torch.randn(2, 3),), state="inputs"))
    for n in (2, 1, 5, 3):
        x = torch.randn(n, 3)
        np.testing.assert_allclose(session(x), scripted(x).numpy(), atol=1e-6)


def test_the_mode_of_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    """Layers in training mode are said to be left as after .eval(); with state they stay in it."""
    made = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3))
    program = ingot.export(torch.jit.script(made.train()), (torch.randn(4, 3),))
    assert [a.where for a in program.assumptions if a.kind == "training"] == [
        "Dropout '1'",
        "BatchNorm1d '2'",
    ]
    assert "as after .eval(), where these may differ: Dropout '1', BatchNorm1d '2'" in capsys.readouterr().err
    assert not [
        a
        for a in ingot.export(torch.jit.script(made.eval()), (torch.randn(4, 3),)).assumptions
        if a.kind == "training"
    ]
    layer = torch.jit.script(nn.BatchNorm1d(3).train())
    session = ingot.Stateful(ingot.export(layer, (torch.randn(4, 3),), state="inputs"))
    for n in (4, 2, 9):
        x = torch.randn(n, 3)
        np.testing.assert_allclose(session(x), layer(x).detach().numpy(), atol=1e-5)


def test_what_a_script_asks_of_data_is_refused_with_its_line() -> None:
    """The line of the Python that was scripted, not of the code that runs it."""

    class Raises(nn.Module):
        def forward(self, x: T) -> T:
            y = x * 2
            table = {3: y}
            table[int(y[0])] = x
            return table[2]

    with pytest.raises(ExportError) as error:
        ingot.export(torch.jit.script(Raises()), (torch.ones(3),))
    assert f"{__file__}:" in str(error.value) and "table[int(y[0])] = x" in str(error.value)


def test_numbers_of_data_are_places_in_a_slice() -> None:
    """Also those that are negative, or beyond the end."""

    def cut(x: T) -> T:
        return x[: int(x[0])]

    inputs = [(torch.tensor([float(n), 5.0, 6.0]),) for n in (2, 1, 3, 7, -1, 0)]
    parity(torch.jit.script(cut), *inputs)


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


def choice(x: T) -> T:
    """Both sides give the variable."""
    return x * 2 if bool(x.sum() > 0) else x - 1


def by_size(x: T) -> T:
    """A branch on a size, with an early return."""
    if x.shape[0] > 4:
        return x.relu()
    return x.exp()


def early(x: T) -> T:
    """Returns on the way."""
    if bool(x.sum() > 0):
        return x * 2
    z = x.abs()
    if bool(z.max() > 1):
        return z
    return x + 1


def growing(x: T) -> T:
    """A while with a counter, and a list that grows."""
    n = 0
    seen = [x]
    while bool(x.sum() < 100):
        x = (x * 2).abs() + 1
        n += 1
        seen.append(x)
    return torch.stack(seen).sum(0) + n


def stopping(x: T) -> T:
    """A known number of rounds, left early."""
    for i in range(5):
        x = x * 2 + i
        if bool(x.max() > 10):
            break
    return x


def rows(x: T) -> T:
    """A list as long as a size says."""
    out: list[T] = []
    for i in range(x.shape[0]):
        out.append(x[i] * i)
    return torch.stack(out)


def containers(x: T) -> T:
    """A list and a dict that one side changes, an optional that one side gives, a number of data."""
    parts, named = [x], {"a": x}
    shift: T | None = None
    factor = 2.0
    if bool(x.sum() > 0):
        parts.append(x * 2)
        named["a"] = x * 5
        factor = float(x.max())
    else:
        parts.append(x * 3)
        shift = x.mean()
    y = torch.cat(parts).sum(0) + named["a"] * factor
    if shift is not None:
        y = y + shift
    return y


def nested(x: T) -> T:
    """A while in an if in a for."""
    for _ in range(3):
        if bool(x.mean() > 0):
            while bool(x.sum() > 1):
                x = x / 2
        else:
            x = x + 1
    return x


def repeated(x: T, n: T) -> T:
    """As many rounds as a tensor says."""
    for i in range(int(n)):
        x = x + i
    return x


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (choice, {"If"}),
        (by_size, {"If"}),
        (early, {"If"}),
        (growing, {"Loop"}),
        (stopping, {"If", "Loop"}),
        (rows, {"Loop"}),
        (containers, {"If"}),
        (nested, {"If"}),
        (repeated, {"Loop"}),
    ],
)
def test_branches_and_loops_on_data(function: Any, kinds: set[str]) -> None:
    """They become If and Loop, and nothing follows the example."""
    up, down = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 1.0]]), -torch.rand(6, 3)
    small, large = torch.tensor([[-0.1, -0.2, 0.1]]), torch.rand(3, 3) * 30
    inputs: list[Any] = [(up,), (down,), (small,), (large,)]
    if function is repeated:
        inputs = [(x, torch.tensor(n)) for (x,), n in zip(inputs, (3, 0, 1, 6), strict=True)]
    captured = parity(torch.jit.script(function), *inputs)
    assert kinds & {n.op_type for n in captured.model.graph}
    found = [a for a in captured.assumptions if a.kind in ("range", "relation", "narrowed", "constant")]
    assert not [a for a in found if "more than 0" not in a.what]  # of which x.max() says nothing


def test_assertions_of_a_script_are_checked() -> None:
    """An assertion about data is part of the model."""

    def root(x: T) -> T:
        assert bool((x >= 0).all()), "wanted no negative number"
        return x.sqrt()

    program = ingot.export(torch.jit.script(root), (torch.rand(3),))
    assert [a.status for a in program.assumptions if a.kind == "condition"] == ["checked"]
    np.testing.assert_allclose(program(np.array([4.0], np.float32)), [2.0])
    with pytest.raises(ingot.IngotError):
        program(np.array([-4.0], np.float32))


class Module(nn.Module):
    """State, submodules and statistics used inside branches."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.batch, self.instance = (
            nn.BatchNorm1d(3),
            nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
        )

    def forward(self, x: T) -> T:
        if bool(x.sum() > 0):
            x = self.first(self.batch(x).transpose(1, 2)).transpose(1, 2)
        else:
            x = self.second(self.instance(x).transpose(1, 2)).transpose(1, 2)
        return x


def test_layers_with_statistics_inside_branches() -> None:
    """BatchNorm and InstanceNorm use what they have seen in training."""
    module = Module()
    for _ in range(3):
        module(torch.rand(2, 3, 5) + 1), module(-torch.rand(2, 3, 5))
    scripted = torch.jit.script(module.eval())
    parity(scripted, (torch.rand(2, 3, 5),), (-torch.rand(3, 3, 7),))


class _Named(torch.nn.Module):
    def forward(this, x: torch.Tensor, rounds: int) -> torch.Tensor:
        for _ in range(rounds):
            x = x * 2
        return x


def test_self_has_any_name() -> None:
    program = ingot.export(torch.jit.script(_Named()), (torch.ones(2, 3), 3))
    np.testing.assert_array_equal(program(torch.ones(4, 3), 3), np.full((4, 3), 8.0, np.float32))


def test_a_tensor_for_a_number_is_refused_by_name(tmp_path: Path) -> None:
    """TorchScript takes no tensor where forward wants an int; an Input without axes is such a number."""
    file = str(tmp_path / "named.pt")
    torch.jit.script(_Named()).save(file)
    with pytest.raises(ExportError, match=r"argument 'rounds' .* is a tensor; its script wants int"):
        ingot.export(file, (torch.ones(2, 3), torch.tensor(3)))
    program = ingot.export(file, (torch.ones(2, 3), ingot.Input("int64", [])))
    np.testing.assert_array_equal(program(torch.ones(4, 3), 2), np.full((4, 3), 4.0, np.float32))


def test_an_example_that_a_script_refuses(tmp_path: Path) -> None:
    """What its operator says is told, not that an interpreter ran it."""
    torch.jit.script(nn.Linear(4, 3)).save(str(tmp_path / "linear.pt"))
    with pytest.raises(ExportError, match=r"RuntimeError: mat1 and mat2 must have the same dtype"):
        ingot.export(tmp_path / "linear.pt", (torch.ones(2, 4, dtype=torch.float64),))


class Leaves(nn.Module):
    """Returns from inside a loop whose rounds data ends, and breaks and goes on under conditions."""

    def forward(self, x: T) -> T:
        if bool(x.sum() < 0):
            return x.abs()
        total = torch.zeros(3)
        for i in range(x.size(0)):
            if bool(x[i, 0] > 9):
                break
            if bool(x[i, 1] < 0):
                continue
            total = total + x[i]
        for i in range(x.size(0)):
            if bool(x[i].sum() > 2.5):
                return x[i : i + 1] + total
        return x + 1


class Listed(nn.Module):
    """Numbers in a list as long as the batch."""

    def forward(self, x: T) -> T:
        sums: list[float] = []
        for i in range(x.size(0)):
            sums.append(float(x[i].sum()))
        return torch.tensor(sums)


def test_leaving_loops_and_lists_of_numbers() -> None:
    """On inputs that take each way."""
    first, others = torch.rand(2, 3), (torch.full((2, 3), 8.0), torch.full((4, 3), 10.0), -torch.rand(5, 3))
    mixed = torch.tensor([[1.0, -1, 0], [0.5, 0.5, 0], [10.0, 1, 1], [1.0, 1, 1]])
    parity(torch.jit.script(Leaves()), (first,), *((x,) for x in (*others, mixed)))
    parity(torch.jit.script(Listed()), (first,), (torch.rand(5, 3),))


def test_a_frozen_script() -> None:
    """It has no mode, and its weights are constants of its graph."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    parity(torch.jit.freeze(torch.jit.script(module)), (torch.rand(2, 3, 6, 8),), (torch.rand(1, 3, 5, 7),))
