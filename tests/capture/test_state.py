"""State: what forward changes and a later call reads becomes inputs and outputs, or is refused."""

from __future__ import annotations

import datetime as dt
import random
import time
import uuid
import weakref
from collections import ChainMap, OrderedDict, UserDict, UserList
from collections.abc import Iterator
from pathlib import Path
from random import Random as OwnRandom
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.random import default_rng as own_generator
from torch import nn

import ingot
from ingot.capture import attempt, recording, settled
from ingot.capture.attempt import capture
from ingot.capture.state import Snapshot
from ingot.errors import ExportError, IngotError, InputError, ModelError

T = torch.Tensor


class Marked(np.ndarray):
    """An array of a class of its own."""


class Counter(nn.Module):
    """A step counter that scales the output, a running sum in a buffer, and one that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.step = 0

    def forward(self, x: T) -> T:
        self.step += 1
        self.seen.add_(x.shape[0])
        self.total = self.total + x.sum(0)
        return x * self.step + self.total


class Cache(nn.Module):
    """Keys kept from call to call: a list of tensors that grow."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 8)
        self.kept = [torch.zeros(1, 0, 4), torch.zeros(1, 0, 4)]

    def forward(self, x: T) -> T:
        k, v = self.project(x).chunk(2, -1)
        self.kept[0] = torch.cat([self.kept[0], k], 1)
        self.kept[1] = torch.cat([self.kept[1], v], 1)
        return torch.softmax(x @ self.kept[0].mT, -1) @ self.kept[1]


class Ring(nn.Module):
    """A cache of fixed size that is written at a position."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(2, 16, 4))
        self.position = 0

    def forward(self, x: T) -> T:
        n = x.shape[1]
        self.kept[:, self.position : self.position + n] = x
        self.position += n
        return self.kept.cumsum(1)


class Recurrent(nn.Module):
    """Streaming: the state of an LSTM in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 6, batch_first=True)
        self.state = (torch.zeros(1, 2, 6), torch.zeros(1, 2, 6))

    def forward(self, x: T) -> T:
        y, self.state = self.rnn(x, self.state)
        return y


class Normalised(nn.Module):
    """BatchNorm that is still being trained."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: T) -> T:
        return self.norm(x).relu()


def test_each_kind_of_state(tmp_path: Path) -> None:
    """Exported, verified over calls in a row, saved, and run from the file by Ingot and by onnxruntime."""
    cases: list[tuple[Any, T, int]] = [
        (Counter(), torch.randn(3, 4), 3),
        (Cache(), torch.randn(1, 2, 4), 2),
        (Ring(), torch.randn(2, 3, 4), 2),
        (Recurrent(), torch.randn(2, 5, 4), 2),
        (Normalised(), torch.randn(2, 3, 5, 6), 3),
    ]
    for module, example, count in cases:
        file = tmp_path / f"{type(module).__name__}.onnx"
        program = ingot.export(module, (example,), file, state="inputs")
        assert program.verification is not None
        assert len([a for a in program.assumptions if a.kind == "state"]) == count, program.assumptions
        mine = ingot.Stateful(ingot.InferenceSession(file))
        theirs = ingot.Stateful(ort.InferenceSession(str(file)))
        assert [v.name for v in mine.get_inputs()] == ["x"]
        assert [v.name for v in mine.get_outputs()] == ["output"]
        for _ in range(3):
            x = torch.randn(*example.shape)
            with torch.no_grad():
                want = module(x)
            for session in (mine, theirs):
                (got,) = session.run(None, {"x": x.numpy()})
                np.testing.assert_allclose(got, want.numpy(), atol=2e-5)
        mine.reset()
        theirs.reset()
        first = [s.run(None, {"x": example.numpy()})[0] for s in (mine, theirs)]
        np.testing.assert_allclose(first[0], np.asarray(program(example)), atol=2e-5)
        np.testing.assert_allclose(first[0], first[1], atol=2e-5)


class Counted(nn.Module):
    """Returns the buffer that it writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: T) -> tuple[T, T]:
        self.seen += x.shape[1]
        return x * 2, self.seen


def test_a_buffer_that_is_returned_is_compared_as_it_was() -> None:
    """Later calls write to the tensor that the module has returned."""
    module = Counted()
    program = ingot.export(module, (torch.randn(1, 6),), state="inputs")
    session = ingot.Stateful(program)
    assert [int(session.run(None, {"x": np.zeros((1, n), "float32")})[1]) for n in (6, 2, 3)] == [6, 8, 11]
    assert int(module.seen) == 0


def test_the_default_refuses_with_the_line_and_the_remedy() -> None:
    """And leaves the module as it was."""
    for module, name, text in [
        (Counter(), "total", "self.total = self.total + x.sum(0)"),
        (Ring(), "kept", "self.kept[:, self.position : self.position + n] = x"),
    ]:
        with pytest.raises(ExportError) as error:
            ingot.export(module, (torch.randn(2, 4) if name == "total" else torch.randn(2, 3, 4),))
        message = str(error.value)
        assert __file__ in message and text in message, message
        assert 'state="inputs"' in message and "ingot.Stateful" in message
        assert float(getattr(module, name).abs().sum()) == 0


def test_what_no_output_depends_on_is_proved_harmless() -> None:
    """Counters for statistics, and what is left behind for somebody to look at."""

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("hits", torch.zeros(()))
            self.calls = 0
            self.seen: dict[str, T] = {}

        def forward(self, x: T) -> T:
            self.hits += 1
            self.calls += 1
            self.seen["x"] = x * 2
            self.last = self.seen["x"] + 1
            return self.last * 3

    module = Watched()
    program = ingot.export(module, (torch.randn(3),))
    noted = {a.what.split()[0]: a.status for a in program.assumptions if a.kind == "state"}
    assert noted == {"'hits'": "proved", "'calls'": "proved", "'seen.x'": "proved", "'last'": "proved"}
    assert module.hits.item() == 0 and module.calls == 0 and not module.seen
    assert [v.name for v in program.model.graph.inputs] == ["x"]


def test_state_that_no_input_can_be_is_refused() -> None:
    """None before, a tensor after; a list that grows; a shape that changes."""

    class Lazy(nn.Module):
        memory: T | None = None

        def forward(self, x: T) -> T:
            self.memory = x if self.memory is None else self.memory + x
            return self.memory

    class History(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.past: list[T] = []

        def forward(self, x: T) -> T:
            self.past.append(x)
            return torch.stack(self.past).sum(0)

    class Widens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = torch.zeros(1, 4)

        def forward(self, x: T) -> T:
            self.memory = torch.cat([self.memory, x]).sum(0)
            return self.memory

    for module in (Lazy(), History(), Widens()):
        for state in ("refuse", "inputs")[: 1 if isinstance(module, Lazy) else 2]:
            with pytest.raises(ExportError, match="before the call") as error:
                ingot.export(module, (torch.randn(2, 4),), state=state)  # pyright: ignore[reportArgumentType]
            assert __file__ in str(error.value)


def test_a_word_that_data_chooses_is_refused_in_words() -> None:
    """No input can be text; a number in its place is state."""

    class Switch(nn.Module):
        def __init__(self, states: tuple[Any, Any]) -> None:
            super().__init__()
            self.states, self.state = states, states[0]

        def forward(self, x: T) -> T:
            if x.sum() > 0:
                self.state = self.states[1]
            return x * 2 if self.state == self.states[1] else x

    with pytest.raises(ExportError, match=r"leaves 'on' or 'off' in 'state', as data decides"):
        capture(Switch(("off", "on")), (torch.ones(3),), state="inputs")
    session = ingot.Stateful(ingot.export(Switch((0, 1)), (torch.ones(3),), state="inputs"))
    for x, factor in ((-1.0, 1), (1.0, 2), (-1.0, 2)):
        (y,) = session.run(None, {"x": np.full(3, x, np.float32)})
        np.testing.assert_array_equal(y, np.full(3, x * factor))


@pytest.mark.parametrize("largest", [True, False])
def test_no_value_is_as_good_as_none_that_serves_for_some_signs_alone(largest: bool) -> None:
    """The largest so far begins with 0 as well as with nothing, until all numbers are below."""

    class Bound(nn.Module):
        found: T | None = None

        def forward(self, x: T) -> T:
            now = x.amax(0) if largest else x.amin(0)
            kept = torch.maximum if largest else torch.minimum
            self.found = now if self.found is None else kept(self.found, now)
            return x - self.found

    example = torch.rand(3, 4) + 0.1
    with pytest.raises(ExportError, match="nothing stood before the call"):
        ingot.export(Bound(), (example if largest else -example,), state="inputs")


def test_state_that_the_first_call_makes_begins_with_what_is_as_good() -> None:
    """None and then a tensor: zeros, or no size along the axis that grows, where that gives the same."""

    class Memory(nn.Module):
        def __init__(self, first: float) -> None:
            super().__init__()
            self.first, self.begun = first, False
            self.memory: T | None = None
            self.past: T | None = None

        def forward(self, x: T) -> T:
            if not self.begun:
                self.memory, self.begun = torch.full((4,), self.first), True
            self.past = x if self.past is None else torch.cat([self.past, x])
            self.memory = self.memory + self.past.sum(0)
            return self.memory * 2

    example = torch.randn(2, 4)
    program = ingot.export(Memory(0), (example,), state="inputs")
    assert {str(s.input): list(s.initial.shape) for s in ingot.Stateful(program).states} == {
        "state.memory": [4],
        "state.past": [0, 4],
    }
    module = Memory(0)
    for rows in (2, 1, 3):
        x = torch.randn(rows, 4)
        np.testing.assert_allclose(program(x), module(x).numpy(), atol=1e-5)
    with pytest.raises(ExportError, match="'memory'"):
        ingot.export(Memory(1), (example,), state="inputs")


def test_state_that_the_first_call_makes_begins_as_large_as_the_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not as large as the example's: its sizes are those of the first call, as the file and the line say."""

    class Decays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h: T | None = None

        def forward(self, x: T) -> T:
            if self.h is None:
                self.h = torch.zeros_like(x)
            self.h = self.h * 0.5 + x
            return self.h * 1

    file = tmp_path / "decays.onnx"
    program = ingot.export(Decays(), (torch.randn(3, 2),), file, state="inputs")
    assert "the model begins with zeros [x_batch, x_dim1]" in capsys.readouterr().err
    for source in (program, ingot.InferenceSession(file), ort.InferenceSession(str(file))):
        session = ingot.Stateful(source)
        for batch in (1, 4):
            module = Decays()
            for _ in range(2):
                x = torch.randn(batch, 2)
                (got,) = session.run(None, {"x": x.numpy()})
                np.testing.assert_allclose(got, module(x).numpy(), atol=1e-6)
            session.reset()


def test_state_of_a_size_that_no_input_has_is_refused() -> None:
    """Twice the batch: nobody knows it before the first call, and the example's is not right for all."""

    class Twice(nn.Module):
        h: T | None = None

        def forward(self, x: T) -> T:
            if self.h is None:
                self.h = torch.zeros(x.shape[0] * 2, 2)
            self.h = self.h * 0.5 + torch.cat([x, x])
            return self.h * 1

    with pytest.raises(ExportError, match=r"makes 'h', here \[6, 2\], and the size of its axis 0"):
        ingot.export(Twice(), (torch.randn(3, 2),), state="inputs")


def test_a_table_made_at_the_first_call_is_no_state() -> None:
    """What a later call would find is what it would make itself."""

    class Positions(nn.Module):
        table: T | None = None

        def forward(self, x: T) -> T:
            if self.table is None or self.table.shape[0] < x.shape[0]:
                self.table = torch.arange(x.shape[0], dtype=x.dtype)[:, None]
            return x + self.table[: x.shape[0]]

    program = ingot.export(Positions(), (torch.randn(3, 4),))
    assert [(a.kind, a.status) for a in program.assumptions] == [("begins", "fixed")]
    np.testing.assert_array_equal(program(torch.zeros(5, 1))[:, 0], np.arange(5))


class Windows(nn.Module):
    """Averages over windows, which are made smaller for good where an image is smaller than one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.shift = size // 2

    def forward(self, x: T) -> T:
        if min(x.shape) <= self.size:
            self.shift = 0
            self.size = min(x.shape)
        h, w = x.shape
        x = nn.functional.pad(x.roll(-self.shift, 0), (0, -w % self.size, 0, -h % self.size))
        x = x.unflatten(1, (-1, self.size)).unflatten(0, (-1, self.size))
        return x.mean((1, 3)) + self.size


def test_a_number_that_sizes_decide_and_the_next_call_finds_as_it_wants_it() -> None:
    """Every call of the model begins with what the module held, which is written down."""
    module = Windows(8)
    program = ingot.export(module, (torch.randn(8, 12),))
    assert (module.size, module.shift) == (8, 4)
    noted = [a for a in program.assumptions if a.kind == "begins"]
    assert {a.status for a in noted} == {"fixed"}
    assert any("'size'" in a.what and "begins every call with 8" in a.what for a in noted), noted
    narrowed = [a for a in program.assumptions if a.kind == "narrowed"]
    assert not narrowed, "sizes stay symbolic"
    for shape in ((8, 12), (5, 7), (3, 3), (8, 8), (1, 4)):
        x = torch.randn(shape)
        np.testing.assert_allclose(program(x), Windows(8)(x), rtol=1e-5, atol=1e-6)


def test_a_number_that_the_next_call_counts_on_is_state() -> None:
    """It follows sizes alone, and yet a second call with the same sizes gives something else."""

    class Seen(nn.Module):
        rows = 0  # of the class, until the first call gives the module its own

        def forward(self, x: T) -> T:
            self.rows += x.shape[0]
            return x * self.rows

    class Calls(nn.Module):
        calls = 0

        def forward(self, x: T) -> T:
            self.calls += 1
            return x * self.calls

    for module, name in ((Seen(), "rows"), (Calls(), "calls")):
        with pytest.raises(ExportError, match=f"forward changes {name!r}"):
            ingot.export(module, (torch.randn(3, 2),))
    program = ingot.export(Calls(), (torch.randn(3, 2),), state="inputs")
    assert [float(program(torch.ones(1, 1))[0, 0]) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("by_size", [True, False])
def test_a_buffer_of_one_integer_is_assigned_anew(by_size: bool) -> None:
    """Assigned and not written into: a size, or what data counts, is added to it."""

    class Seen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.tensor(0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = self.seen + (x.shape[0] if by_size else (x > 0).sum())
            return x + self.seen

    program = ingot.export(Seen(), (torch.ones(3, 4),), state="inputs")
    module = Seen()
    for x in (torch.ones(3, 4), torch.zeros(5, 4), torch.ones(1, 4)):
        np.testing.assert_array_equal(program(x), module(x).numpy())


def test_variables_outside_of_the_model_are_state_too() -> None:
    """A variable of an enclosing function that is counted up."""
    calls = 0

    def f(x: T) -> T:
        nonlocal calls
        calls += 1
        return x * calls

    with pytest.raises(ExportError, match="forward changes 'calls'"):
        ingot.export(f, (torch.randn(3),))
    assert calls == 0
    program = ingot.export(f, (torch.randn(3),), state="inputs")
    x = np.ones(3, np.float32)
    assert [float(program(x)[0]) for _ in range(3)] == [1, 2, 3]
    program.reset()
    assert float(program(x)[0]) == 1
    assert calls == 0


def test_stateful_says_what_is_wrong() -> None:
    """A model without state, a name that is none, state given as an input; a failed call costs nothing."""
    plain = ingot.export(nn.Linear(4, 2), (torch.randn(3, 4),))
    with pytest.raises(ModelError, match='state="inputs"'):
        ingot.Stateful(plain)
    session = ingot.Stateful(ingot.export(Counter(), (torch.randn(3, 4),), state="inputs"))
    with pytest.raises(InputError, match=r"no state \['nothing'\]"):
        session.reset({"nothing": 1})
    with pytest.raises(InputError, match=r"'state\.step' has shape \[3\]; the model wants \[\]"):
        session.reset({"state.step": np.zeros(3)})
    with pytest.raises(InputError, match=r"'state\.step' is a str that is no array of int64"):
        session.reset({"state.step": "many"})
    with pytest.raises(InputError, match="give them to reset"):
        session.run(None, {"x": np.ones((2, 4), np.float32), "state.step": 3})
    with pytest.raises(InputError, match="state is of type list; give a dict"):
        session.reset([1])  # type: ignore[arg-type]
    feed = {"x": np.ones((2, 4), np.float32)}
    for names, inputs, message in (
        ("output", feed, "output_names is 'output'; give a list"),
        (3, feed, "output_names is 3; give a list"),
        (None, None, "input_feed is of type NoneType; give a dict"),
    ):
        with pytest.raises(InputError, match=message):
            session.run(names, inputs)  # type: ignore[arg-type]
    before = dict(session.state)
    with pytest.raises(IngotError):
        session.run(None, {"x": np.ones((2, 5), np.float32)})
    assert session.state is not None and all(before[k] is v for k, v in session.state.items())
    session.reset({"state.step": 9})
    (got,) = session.run(None, {"x": np.ones((1, 4), np.float32)})
    np.testing.assert_allclose(got, 11)
    damaged = ingot.export(Counter(), (torch.randn(3, 4),), state="inputs").model
    damaged.metadata_props["ingot.state"] = "{"
    with pytest.raises(ModelError, match="export the model again"):
        ingot.Stateful(damaged)


def test_random_numbers_of_python_are_kept_only_where_they_do_not_matter() -> None:
    """Drawn and not used, as layers that are dropped in training do; drawn and used."""

    def harmless(x: T) -> T:
        skip = random.random() < 0.5 or np.random.rand() < 0.5
        return x if skip and x.requires_grad else x * 2

    def kept(x: T) -> T:
        return x * random.uniform(1, 2)

    program = ingot.export(harmless, (torch.randn(3),))
    (noted,) = [a for a in program.assumptions if "random" in a.what]
    assert noted.status == "proved" and "random.random()" in noted.where
    with pytest.raises(ExportError) as error:
        ingot.export(kept, (torch.randn(3),))
    assert "return x * random.uniform(1, 2)" in str(error.value) and "Draw it outside" in str(error.value)
    with pytest.raises(ExportError, match="Draw it outside"):
        ingot.export(lambda x: x + np.random.rand(), (torch.randn(3),))


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x * np.random.default_rng().random(),
        lambda x: x * np.random.RandomState().rand(),
        lambda x: x * random.Random().random(),
        lambda x: x * own_generator().random(),
        lambda x: x * OwnRandom().random(),
        lambda x: x.double() * time.thread_time_ns(),
        lambda x: x.double() * time.mktime(time.localtime(time.perf_counter_ns() // 1000)),
    ],
)
def test_what_is_another_number_in_every_call_is_refused(model: Any) -> None:
    """A generator that is made without a seed, and whatever tells the time."""
    with pytest.raises(ExportError, match="forward is another model each time it runs"):
        ingot.export(model, (torch.randn(3),), verify=False)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x * dt.datetime.now().year,
        lambda x: x * 2 if dt.date.today().weekday() < 7 else x,
        lambda x: x + int(time.time() > 0),
        lambda x: x + len(uuid.uuid4().hex),
    ],
)
def test_clocks_that_say_the_same_twice_are_recorded(model: Any) -> None:
    """Tomorrow they may say something else."""
    captured = capture(model, (torch.randn(3),))
    noted = [a for a in captured.assumptions if "clock" in a.what and "test_state.py:" in a.where]
    assert {(a.kind, a.status) for a in noted} == {("constant", "fixed")}
    assert all("lambda x: x" in a.where for a in noted)


def test_a_clock_that_is_named_and_not_asked_is_not_recorded() -> None:
    def timed(x: torch.Tensor, verbose: bool = False) -> torch.Tensor:
        if verbose:
            print(time.time())
        return x * 2

    assert not [a for a in capture(timed, (torch.randn(3),)).assumptions if "clock" in a.what]


def test_a_generator_that_is_made_with_a_seed_gives_the_same_in_every_call() -> None:
    program = ingot.export(
        lambda x: x * np.random.default_rng(3).random() * random.Random(3).random(), (torch.randn(3),)
    )
    assert program.verification is not None


@pytest.mark.parametrize(
    "kind", [UserDict, ChainMap, UserList, weakref.WeakKeyDictionary, lambda: np.zeros(1).view(Marked)]
)
def test_what_pythons_own_classes_hold_is_state(kind: Any) -> None:
    """As what a user's own would hold; also what an array of a class of its own has in it."""

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.held, self.key = kind(), Marked

        def forward(self, x: T) -> T:
            if isinstance(self.held, UserList):
                self.held.append(1)
                return x * len(self.held)
            key = 0 if isinstance(self.held, np.ndarray) else self.key
            count = float(self.held[0]) if key == 0 else self.held.get(key, 0)
            self.held[key] = count + 1
            return x * (count + 1)

    model = Counts()
    with pytest.raises(ExportError, match="held"):
        ingot.export(model, (torch.randn(3),), verify=False)
    held = model.held
    assert not (held.any() if isinstance(held, np.ndarray) else held), "the model's own was changed"


class _Factories(OrderedDict[str, Any]):
    """A registry that makes a new object for whoever asks, as transformers' table of activations does."""

    def __getitem__(self, key: str) -> Any:
        return super().__getitem__(key)()


_LAYERS = _Factories(relu=nn.ReLU, tanh=nn.Tanh)


def test_a_dict_that_gives_something_else_than_it_holds_is_left_as_it_was() -> None:
    """What it gives out was once put into it."""

    class Uses(nn.Module):
        def forward(self, x: T) -> T:
            return _LAYERS["tanh"](x)

    ingot.export(Uses(), (torch.randn(3),))
    assert dict(OrderedDict.items(_LAYERS)).keys() == {"relu", "tanh"}
    assert dict.__getitem__(_LAYERS, "relu") is nn.ReLU
    assert isinstance(_LAYERS["tanh"], nn.Tanh)


class Anchors(nn.Module):
    """Keeps the places of an image's pixels until an image of another shape comes."""

    def __init__(self) -> None:
        super().__init__()
        self.shape: Any = None
        self.places: T | None = None

    def forward(self, x: T) -> T:
        if self.places is None or self.shape != x.shape:
            self.places, self.shape = torch.arange(x.shape[-1]) * 0.5, x.shape
        return x + self.places


class Positions(nn.Module):
    """A table of positions that is made longer where a text is."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.table = nn.Buffer(self.made(8), persistent=False)
        self.whole = whole  # whether the whole table shows in the result

    def made(self, rows: int) -> T:
        return torch.arange(rows).float().unsqueeze(1) * 0.5

    def forward(self, x: T) -> T:
        if x.shape[1] + 1 > self.table.size(0):
            self.table = nn.Buffer(self.made(x.shape[1] + 1), persistent=False)
        found = x + self.table[: x.shape[1]]
        return found + self.table.sum() if self.whole else found


def test_a_table_that_grows_with_the_input_is_made_anew() -> None:
    """Where what is left of a longer input changes nothing; else it stays as it is, or is state."""
    program = ingot.export(Positions(False), (torch.randn(2, 5, 3),))
    session = program.session()
    for length in (5, 30, 2):
        x = torch.randn(2, length, 3)
        (got,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(got, Positions(False)(x).numpy(), rtol=1e-6)
    (noted,) = [a for a in program.assumptions if a.kind == "begins"]
    assert "'table' is changed in forward as sizes decide" in noted.what
    program = ingot.export(Positions(True), (torch.randn(2, 5, 3),))
    assert "at most 8" in "".join(a.what for a in program.assumptions if a.kind == "branch")
    with pytest.raises(ExportError, match="state"):
        ingot.export(Positions(True), (torch.randn(2, 9, 3),))


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (Positions(False), torch.randn(2, 9, 3)),  # what stood there before is made longer
        (Anchors(), torch.randn(2, 3, 4)),  # nothing of the kind stood there
    ],
)
def test_what_sizes_decide_is_proved_behind_the_recording(
    module: nn.Module, x: T, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which says what is changed, and is not made once more where the next call finds it as it wants it."""
    made, record = list[Any](), recording.record

    def noted(*arguments: Any) -> Any:
        made.append(record(*arguments))
        return made[-1]

    monkeypatch.setattr(attempt, "record", noted)
    program = ingot.export(module, (x,), verify=False)
    assert len(made) == 1
    assert "begins" in {a.kind for a in program.assumptions}
    for sizes in (x.shape, [n + 1 for n in x.shape]):
        other = torch.randn(*sizes)
        np.testing.assert_allclose(program(other), module(other).numpy(), rtol=1e-5)


def test_a_module_of_large_inputs_is_called_for_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """To see whether a second call finds what the first has left as it wants it."""
    elements, in_a_row = list[int](), settled.in_a_row

    def counted(call: Any, rows: Any, *others: Any, **options: Any) -> Any:
        elements.extend(x.numel() for row in rows for x in row)
        return in_a_row(call, rows, *others, **options)

    monkeypatch.setattr(settled, "in_a_row", counted)
    x = torch.randn(2, 600, 300)
    program = ingot.export(Anchors(), (x,), verify=False)
    np.testing.assert_allclose(program(x[:, :9]), Anchors()(x[:, :9]).numpy(), rtol=1e-5)
    assert x.numel() in elements
    assert max(elements) <= 2.5 * x.numel()
    assert len(set(elements)) > 3


class LooksUp(dict[str, int]):
    """A dict whose keys are not what it holds, as lazy registries of libraries are."""

    def __iter__(self) -> Iterator[str]:
        yield "found elsewhere"


REGISTRY = LooksUp(kept=1)


def test_a_dict_with_keys_of_its_own_is_looked_at_as_it_is() -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * len(REGISTRY)

    np.testing.assert_array_equal(ingot.export(scaled, (torch.ones(3),))(torch.ones(3)), np.ones(3))


seen = np.zeros(2)
total = 1.0


class NamedAsGlobals(nn.Module):
    """Attributes that are called as globals of its file are, of which it reads one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: T) -> T:
        self.seen += x.shape[0]
        self.total = self.total + x.sum(0)
        return self.total / self.seen * total


def test_attributes_are_not_taken_for_globals_of_their_name() -> None:
    session = ingot.Stateful(ingot.export(NamedAsGlobals(), (torch.ones(4, 3),), state="inputs"))
    rows = [np.ones((2, 3), np.float32), np.full((2, 3), 3, np.float32)]
    means = [session.run(None, {"x": each})[0][0] for each in rows]
    assert means == [1, 2]


class Slotted:
    """A list, in an object without a dict."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows: list[T] = []


class InSlots(nn.Module):
    """Adds up in a list's element, or makes the list longer."""

    def __init__(self, grows: bool) -> None:
        super().__init__()
        self.grows, self.held = grows, Slotted()
        self.held.rows.append(torch.zeros(3))

    def forward(self, x: T) -> T:
        if self.grows:
            self.held.rows.append(x)
            return x * len(self.held.rows)
        self.held.rows[0] = self.held.rows[0] + x
        return self.held.rows[0] * 1


@pytest.mark.parametrize("grows", [False, True])
def test_a_list_in_a_slot_is_state(grows: bool) -> None:
    model = InSlots(grows)
    with pytest.raises(ExportError, match=r"held\.rows"):
        ingot.export(model, (torch.ones(3),))
    assert len(model.held.rows) == 1 and type(model.held.rows[0]) is torch.Tensor
    assert model.held.rows[0].tolist() == [0, 0, 0]
    if not grows:
        session = ingot.Stateful(ingot.export(model, (torch.ones(3),), state="inputs"))
        totals = [session.run(None, {"x": np.ones(3, np.float32)})[0][0] for _ in range(3)]
        assert totals == [1, 2, 3]


def test_what_runs_the_tests_is_no_part_of_a_model() -> None:
    """pytest writes itself into every assert of a test file; from there it knows all tests."""

    def asserting(x: T) -> T:
        assert x.shape[0] > 0, "no rows"
        return x + 1

    places = Snapshot(asserting).places
    assert len(places) < 10, f"found {len(places)} places: {[*places][:10]}"


def test_state_of_another_batch_is_refused() -> None:
    """The module refuses it; operators of ONNX would spread a batch of one over the input's."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = torch.zeros(4, 3)
            self.cell = nn.GRUCell(3, 3)

        def forward(self, x: T) -> T:
            self.h = self.cell(x, self.h)
            return self.h

    module = Cell()
    session = ingot.export(module, (torch.randn(4, 3),), state="inputs").session()
    for batch in (4, 2):
        x, module.h = torch.randn(batch, 3), torch.randn(batch, 3)
        got = session.run(None, {"x": x.numpy(), "state.h": module.h.numpy()})[0]
        np.testing.assert_allclose(got, module(x).detach(), atol=1e-6)
    with pytest.raises(ingot.ShapeError, match=r"state\.h_batch is x_batch: this check of the model"):
        session.run(None, {"x": np.ones((4, 3), np.float32), "state.h": np.ones((1, 3), np.float32)})
