"""What a script may be made of, and scripts inside of Python models."""

# TorchScript reads annotations: they may be no strings.
# ruff: noqa: UP007

import enum
import math
from typing import Any, NamedTuple, Union

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import mkldnn

import ingot
from ingot.errors import ExportError
from tests.capture.support import OrtError, ort_runner, parity
from tests.capture.test_constructs import dims

T = torch.Tensor

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
X, Y, Z = torch.randn(3, 4), torch.randn(5, 4), -torch.randn(1, 4).abs()


@torch.jit.interface
class Layer(nn.Module):
    """What a layer can do."""

    def forward(self, x: T) -> T:
        pass


class Doubled(nn.Module):
    """A layer with a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: T) -> T:
        return x * self.factor


class ByInterface(nn.Module):
    """Calls a layer that it knows by its interface alone."""

    layer: Layer

    def __init__(self) -> None:
        super().__init__()
        self.layer = Doubled()

    def forward(self, x: T) -> T:
        return self.layer.forward(x)


class LeftToPython(nn.Module):
    """A method that the script leaves to Python, with a branch, and an attribute of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 3.0

    @torch.jit.ignore
    def shifted(self, x: T) -> T:
        return x * 2 + self.shift if x.sum() > 0 else x

    def forward(self, x: T) -> T:
        return self.shifted(x) - 1


@torch.jit.script
class Sum:
    """A class of the script's own."""

    def __init__(self, start: int) -> None:
        self.count = start
        self.items: list[T] = []

    def add(self, x: T) -> None:
        self.items.append(x)
        self.count += 1

    def total(self) -> T:
        return torch.stack(self.items).sum(0) * self.count


class WithObjects(nn.Module):
    """An object that loops and branches change; blocks of torch's; another thread."""

    def forward(self, x: T) -> T:
        total = Sum(2)
        for i in range(x.size(1)):
            total.add(x[:, i])
        if bool(x.sum() > 0):
            total.count += 5
        with torch.no_grad():
            half = torch.jit.fork(torch.relu, x)
        return total.total() + torch.jit.wait(half).sum(1)


class Texts(nn.Module):
    """Decisions by texts."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: T, how: str = "up") -> T:
        text = "%s-%d" % (self.mode, 3)  # noqa: UP031
        if text.startswith("mean") and how.upper() == "UP":
            return x.mean(1)
        return x.amax(1) if self.mode in ["max", "amax"] else x.sum(1) * len(text.split("-")[0])


class State(NamedTuple):
    """What a cell carries."""

    hidden: T
    cell: T


class Cell(nn.Module):
    """An LSTM as TorchScript's own examples write it: a loop over the parts of a tensor, a growing list."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 4) * 0.3)

    def forward(self, x: T, state: State) -> tuple[T, State]:
        inputs = x.unbind(0)
        hidden, cell = state.hidden, state.cell
        outputs = torch.jit.annotate(list[T], [])
        for i in range(len(inputs)):
            i_, f, g, o = torch.mm(inputs[i] + hidden, self.weight.t()).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i_) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            outputs += [hidden]
        return torch.stack(outputs), State(hidden, cell)


@torch.jit.script
def of_either_type(x: Union[T, list[T]]) -> T:
    """isinstance of a script."""
    return x * 2 if isinstance(x, torch.Tensor) else x[0]


@torch.jit.script
def lists_of_rows(x: T) -> T:
    """A list of rows that is turned round, cut and taken apart."""
    rows = [row * 2 for row in x.unbind(0)]
    rows.reverse()
    first = rows[0] + x.split(2)[0].sum(0)
    return torch.stack(rows[1:]) + first - rows[-1] + x.sum() * x.size(0)


@pytest.mark.parametrize(
    "model", [ByInterface(), LeftToPython(), WithObjects(), Texts("mean"), Texts("max"), Texts("other")]
)
def test_what_a_script_is_made_of(model: nn.Module) -> None:
    """At other sizes, and on the other side of branches."""
    parity(torch.jit.script(model.eval()), (X,), (Y,), (Z,))


def test_functions_of_a_script() -> None:
    """A question about a type; parts of an axis as long as the input says."""
    parity(of_either_type, (X,), (Y,))
    captured = parity(lists_of_rows, (X,), (Y,), (X[:2],))
    assert dims(captured)["x"] == ["x_batch", "x_dim1"]


def test_a_cell_over_an_axis_of_any_length() -> None:
    """The loop is a Loop."""
    zeros = State(torch.randn(2, 4), torch.randn(2, 4))
    more = State(torch.randn(3, 4), torch.randn(3, 4))
    captured = parity(torch.jit.script(Cell()), (torch.randn(5, 2, 4), zeros), (torch.randn(7, 3, 4), more))
    assert dims(captured)["x"][:2] == ["x_batch", "x_dim1"]


def test_what_optimize_for_inference_makes() -> None:
    """oneDNN's convolutions; the layers of torch.utils.mkldnn."""
    image, other = torch.randn(2, 3, 8, 8), torch.randn(1, 3, 9, 7)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    net = nn.Sequential(first, nn.Hardswish(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)).eval()
    for script in (torch.jit.script(net), torch.jit.trace(net, image)):
        optimised = torch.jit.optimize_for_inference(script)
        program = ingot.export(optimised, (image,))
        np.testing.assert_allclose(program(other), net(other).detach().numpy(), atol=1e-5)

    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mkldnn.to_mkldnn(first)

        def forward(self, x: T) -> T:
            return self.layers(x.to_mkldnn()).to_dense()

    parity(Layers(), (image,), (other,))


def test_layers_that_torch_calls_whole_outside_of_training() -> None:
    """What a script calls of attention and of a transformer's layer, with every kind of mask."""

    class Layers(nn.Module):
        def __init__(self, first: bool) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.layer = nn.TransformerEncoderLayer(
                8, 2, 16, activation="gelu" if first else "relu", norm_first=first, batch_first=True
            )

        def forward(
            self, x: T, padding: Union[T, None] = None, mask: Union[T, None] = None
        ) -> tuple[T, Union[T, None]]:
            y, weights = self.attention(x, x, x, key_padding_mask=padding, attn_mask=mask)
            return self.layer(y, src_mask=mask, src_key_padding_mask=padding), weights

    x, y = torch.randn(2, 5, 8), torch.randn(3, 4, 8)
    padding, mask = torch.zeros(2, 5, dtype=torch.bool), torch.ones(5, 5).triu(1).bool()
    padding[1, 3:] = True
    for first in (False, True):
        script = torch.jit.script(Layers(first).eval())
        captured = parity(script, (x,), (y,))
        assert dims(captured)["x"] == ["x_batch", "x_dim1", 8]
        parity(script, (x, padding))
        parity(script, (x, None, mask))
        parity(script, (x, padding, mask))


@torch.jit.script
def by_data(x: T, n: int = 2) -> T:
    """Branches on data and on a size."""
    if x.size(0) > 4:
        x = x * 3
    return x * n if bool(x.sum() > 0) else x - n


class Inside(nn.Module):
    """A Python model that is made of scripts, traces and scripted functions."""

    def __init__(self) -> None:
        super().__init__()
        self.traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), X)
        self.scripts = nn.ModuleList([torch.jit.script(WithObjects()), torch.jit.script(Doubled())])

    def forward(self, x: T) -> Any:
        x = by_data(self.traced(x), x.shape[0])
        return [script(x) for script in self.scripts]


class Counter(nn.Module):
    """Its buffer and its number are state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(()))
        self.calls = 0

    def forward(self, x: T) -> T:
        self.sum += x.sum()
        self.calls += 1
        return x * self.sum * self.calls


def test_scripts_inside_of_python() -> None:
    """Their branches are branches, and their weights have the module's names."""
    captured = parity(Inside(), (X,), (Y,), (Z,))
    assert "traced.0.weight" in captured.model.graph.initializers

    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.counter = torch.jit.script(Counter())

        def forward(self, x: T) -> T:
            return self.counter(x) + 1

    with pytest.raises(ExportError, match=r"forward changes 'counter\.sum'"):
        ingot.export(Part(), (X,))
    part, twin = Part(), torch.jit.script(Counter())
    session = ingot.Stateful(ingot.export(part, (X,), state="inputs"))
    assert part.counter.calls == 0 and float(part.counter.sum) == 0
    for x in (X, Y, Z):
        np.testing.assert_allclose(session(x), twin(x).numpy() + 1, rtol=1e-4, atol=1e-4)


class Holding:
    """A plain object that has a script."""

    def __init__(self, script: Any) -> None:
        self.script = script

    def __call__(self, x: T) -> T:
        return self.script(x) + 1


def test_scripts_that_are_no_submodules() -> None:
    """Held by an object, a closure, a default: as Python's own modules there."""
    layer = torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))

    def by_default(x: T, script: Any = layer) -> T:
        return script(x) * 2

    for function in (lambda x: layer(x) * 2, by_default, Holding(layer)):
        parity(function, (X,), (Y,), (Z,), (torch.zeros(0, 4),))
    with pytest.raises(ExportError, match=r"forward changes 'script\.sum'"):
        ingot.export(Holding(torch.jit.script(Counter())), (X,))
    session = ingot.Stateful(ingot.export(Holding(torch.jit.script(Counter())), (X,), state="inputs"))
    twin = torch.jit.script(Counter())
    for x in (X, Y, Z):
        np.testing.assert_allclose(session(x), twin(x).numpy() + 1, rtol=1e-4, atol=1e-4)


def test_lines_of_a_trace() -> None:
    """They are those of the module that was traced, not of whoever traced it."""
    program = ingot.export(torch.jit.trace(nn.Conv1d(3, 4, 3), torch.randn(2, 3, 8)), (torch.randn(2, 3, 8),))
    (fixed,) = [a.where for a in program.assumptions if a.kind == "narrowed"]
    assert "torch/nn/modules/conv.py" in fixed


def test_numbers_out_of_float32() -> None:
    """A Python float has the digits of the tensor that it comes from."""
    program = ingot.export(lambda x: x.sum().item() * 2, (torch.randn(300, 7),))
    assert program.verification is not None


class Cast(nn.Module):
    """A block in which torch.autocast is on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: T) -> T:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layer(x)


class NotCast(Cast):
    """A block in which it is off."""

    def forward(self, x: T) -> T:
        with torch.autocast("cpu", enabled=False):
            return self.layer(x)


def test_autocast_of_a_script() -> None:
    """It casts what TorchScript's interpreter runs: refused, unless it is off."""
    with pytest.raises(ExportError, match=r"with torch\.autocast.*\n.*enters torch\.autocast"):
        ingot.export(torch.jit.script(Cast()), (X,))
    parity(torch.jit.script(NotCast()), (X,), (Y,))


def of_floats(x: T) -> T:
    """Python's mathematics on floats of data."""
    a = float(x.sum())
    b = abs(a) + 1
    y = x * math.exp(-b) + math.log(b) + math.sin(a) + math.sqrt(b) + math.degrees(a) + math.tanh(a)
    if math.isinf(a) or math.isnan(a):
        y = y * 0
    return y + round(a * 2.5) + math.fabs(a) + max(a, b) + min([a, 0.5, b])


def of_sizes(x: T) -> tuple[T, T]:
    """Python's mathematics on sizes: the schema says what is a float."""
    n = x.size(0)
    q, r = divmod(n, 2)
    listed = [n, 4]
    listed *= 2
    whole = [q, r, n << 2, (n * 8) >> 1, max([n, 4]), sum(listed)]
    return torch.tensor(whole), torch.tensor([math.pow(n, 2), math.log(n), float(round(n / 2))])


def of_truths(x: T) -> T:
    """Conditions as numbers, compared with each other, and in lists."""
    flags = [bool(x.sum() > 0), x.size(0) > 2]
    each = [bool(row.sum() > 0) for row in x.unbind(0)]
    y = x * int(flags[0]) + float(flags[1])
    if flags[0] == flags[1] or any(each):
        y = y + 10
    return y * 2 if all(flags) and all(each) else y


def of_lists(x: T) -> tuple[T, T]:
    """Sizes compared as a list; a tensor as a list; a list in order; pairs, counted."""
    y = x * 2 if x.shape == [3, 4] else x
    numbers: list[float] = x.sum(0).tolist()
    order = [3.0, 1.0, 2.0]
    order.sort(reverse=True)
    total = torch.zeros(4)
    for i, (a, b) in enumerate(zip(x.unbind(0), y.unbind(0))):  # noqa: B905
        total = total + a * b * i
    return y + torch.tensor(order)[0] + total, torch.tensor(numbers)


@pytest.mark.parametrize("function", [of_floats, of_sizes, of_truths, of_lists])
def test_numbers_and_lists_of_a_script(function: Any) -> None:
    captured = parity(torch.jit.script(function), (X,), (Y,), (Z,))
    assert not [a.what for a in captured.assumptions if a.kind == "range"]


def told_by_a_text(x: T, factor: float = 0.1) -> T:
    """Texts of numbers that the export knows, as TorchScript writes them."""
    texts = [str(factor), f"{2.0}", "%s and %d" % ([1.5, 3.0], 2)]  # noqa: UP031
    return x * 2 if texts == ["0.10000000000000001", "2.", "[1.5, 3.] and 2"] else x


def logged(x: T) -> T:
    """A text of sizes that decides nothing."""
    print("%d rows of 100%%: %s" % (x.size(0), x.size(1)))  # noqa: UP031
    return x * 2


def told_by_a_size(x: T) -> T:
    """The text of a size decides."""
    return x * 2 if f"{x.size(0)}" == "3" else x


def test_texts_of_numbers_in_a_script() -> None:
    """What the export does not know may not decide by way of a text."""
    parity(torch.jit.script(told_by_a_text), (X,), (Y,))
    assert dims(parity(torch.jit.script(logged), (X,), (Y,)))["x"] == ["x_batch", "x_dim1"]
    with pytest.raises(ExportError, match=r"x\.size\(0\).*\nThis line writes a size or tensor into a string"):
        ingot.export(torch.jit.script(told_by_a_size), (X,))


def told_by_an_error(x: T) -> T:
    """Sizes of data in what an error says, alone and in a list."""
    kept = x[x.sum(1) > -100]
    if x.sum() > 0:
        kept = kept[kept[:, 0] > 0]
    if kept.size(0) > 5:
        raise ValueError("%d rows, %s" % (kept.size(0), kept.shape) + f", {kept.size(0)} in {kept.shape}")  # noqa: UP031
    return kept * 2


def test_errors_of_a_script_say_sizes_of_data() -> None:
    captured = parity(torch.jit.script(told_by_an_error), (X,), (Y,), (Z,), (X.abs(),))
    run = ort_runner(captured.model)
    with pytest.raises(OrtError):
        run({"x": np.ones((6, 4), np.float32)}, captured.output_names)


def perhaps_a_key(x: T) -> tuple[T, T]:
    """A key that one side sets."""
    found = {"a": x}
    if x.sum() > 0:
        found["b"] = x + 1
    again = found.copy()
    if "b" in again:
        x = again["b"] * 2
    return x, torch.tensor(len(found))


def of_other_axes_unless_none(x: T) -> T:
    """Inside of the side on which it is None, it is no tensor."""
    mask: T | None = None
    if x.sum() > 0:
        mask = x
    if mask is not None:
        mask = mask.unsqueeze(0)
    if mask is None:
        return x.unsqueeze(0)
    return x + mask


@pytest.mark.parametrize("function", [perhaps_a_key, of_other_axes_unless_none])
def test_what_data_sets_in_a_script(function: Any) -> None:
    parity(torch.jit.script(function), (X,), (Y.abs(),), (Z,), (-Y.abs(),), (torch.zeros(0, 4),))


class Translator(nn.Module):
    """torch's own transformer, whose layers find out whether the mask is causal."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.both = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, source: T, words: T, causal: bool = True) -> T:
        n = words.size(1)
        mask = torch.full((n, n), float("-inf")).triu(1) if causal else torch.zeros(n, n)
        return self.both(source, self.words(words), tgt_mask=mask)


@pytest.mark.parametrize("causal", [True, False])
def test_a_transformer_as_a_script(causal: bool) -> None:
    def call(batch: int, n: int, m: int) -> tuple[Any, ...]:
        return torch.randn(batch, n, 8), torch.randint(0, 10, (batch, m)), causal

    parity(torch.jit.script(Translator().eval()), call(2, 5, 4), call(1, 1, 1), call(3, 2, 7))


def shifted_by_gcd(x: T) -> T:
    """Of an operator on numbers that has no form here."""
    return x + math.gcd(x.size(0), 6)


def test_numbers_that_a_script_alone_can_use_are_refused_with_their_line() -> None:
    with pytest.raises(ExportError, match=r"math\.gcd\(x.size\(0\), 6\)\nData or a size decides what"):
        ingot.export(torch.jit.script(shifted_by_gcd), (X,))


def as_cpp_computes(x: T) -> T:
    """Floats of data and of sizes: `//` and `%` round as C++ does, and a division by 0 gives an infinity."""
    a, n = float(x.sum()), float(x.size(0))
    whole = torch.tensor([a // 0.1, n // 0.1, a % 0.3, a % -0.7])
    return torch.cat([whole, torch.tensor([1.0 / a, max(a, 1.0), min(1.0, a), max(1.0, a)])])


def test_floats_of_a_script_are_those_of_cpp() -> None:
    """1.0 // 0.1 is 10, which Python calls 9."""
    script = torch.jit.script(as_cpp_computes)
    others = [(torch.tensor(v),) for v in ([0.3], [-0.7], [0.0], [2.1, 0.4], [math.nan], [0.1, 0.1, 0.1])]
    parity(script, (torch.tensor([1.0]),), *others)
    assert float(script(torch.tensor([1.0]))[0]) == 10


class Mode(enum.Enum):
    """What to do."""

    SCALE = 3
    SHIFT = 5


class Chooses(nn.Module):
    """Layers by number and by name, known by their interface alone; members of an enum."""

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        self.mode: Mode = mode
        self.layers = nn.ModuleList([Doubled(), Doubled()])
        self.named = nn.ModuleDict({"a": Doubled(), "b": Doubled()})

    def forward(self, x: T, i: int, name: str) -> T:
        layer: Layer = self.layers[i]
        other: Layer = self.named[name]
        y = layer.forward(x) + other.forward(x)
        return y * self.mode.value if self.mode == Mode.SCALE else y + len(self.mode.name)


def test_layers_by_number_and_members_of_an_enum() -> None:
    for mode in Mode:
        parity(torch.jit.script(Chooses(mode)), (X, 1, "b"), (Y, 1, "b"))
    with pytest.raises(ExportError, match=r"layer\.forward\(x\)(.|\n)*chooses a module by a number"):
        ingot.export(torch.jit.script(Chooses(Mode.SCALE)), (X, ingot.Input("int64", []), "a"))


def asks_for_memory(x: T) -> T:
    """Another function for tensors that lie otherwise."""
    return x * 2 if x[:, :1].is_contiguous() else x


def of_sizes_and_tensors(x: T) -> T:
    """A size as the first operand; a dict asked by one."""
    n = x.size(0)
    table = {3: 1.5, 5: 2.5}
    return n ** x.abs() + table.get(n, 0.5) + (n - x) + n / (x.abs() + 1)


def test_what_a_script_asks_and_computes_with_sizes() -> None:
    parity(torch.jit.script(of_sizes_and_tensors), (X,), (Y,), (Z,))
    with pytest.raises(ExportError, match="This line asks how a tensor lies in memory"):
        ingot.export(torch.jit.script(asks_for_memory), (X,))


class Keeps(nn.Module):
    """State in a dict, and a list among the arguments that is the script's own."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = {"all": torch.zeros(4)}

    def forward(self, xs: list[T]) -> T:
        xs.append(xs[0] * 2)
        self.sums["all"] = self.sums["all"] + torch.cat(xs).sum(0)
        return self.sums["all"]


def test_state_of_a_script_is_named_by_its_line() -> None:
    """And lists that it is given stay as they were."""
    script, twin = torch.jit.script(Keeps()), torch.jit.script(Keeps())
    with pytest.raises(ExportError, match=r'self\.sums\["all"\] = (.|\n)*forward changes .sums\.all'):
        ingot.export(script, ([X],))
    given = [X]
    program = ingot.export(script, (given,), state="inputs")
    assert len(given) == 1 and program.output_names == ["output"]
    for x in (X, Y, Z):
        np.testing.assert_allclose(program([x]), twin([x]).numpy(), rtol=1e-5, atol=1e-5)


def test_quantised_modules_as_scripts() -> None:
    """Scripted and traced, they are the QDQ of the module."""
    stub, end = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
    model = nn.Sequential(stub, nn.Conv2d(3, 4, 3), nn.ReLU(), end).eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")  # type: ignore[assignment]
    image = torch.randn(2, 3, 8, 8)
    torch.ao.quantization.prepare(model, inplace=True)(image)
    torch.ao.quantization.convert(model, inplace=True)
    for script in (torch.jit.script(model), torch.jit.trace(model, image)):
        kinds = [n.op_type for n in ingot.export(script, (image,)).model.graph]
        assert "QuantizeLinear" in kinds and "Conv" in kinds


class HoldsObject(nn.Module):
    """An object of a script's class as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum(2)

    def forward(self, x: T) -> T:
        return x * self.sum.count


def test_an_object_of_a_class_that_is_not_defined_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a script comes from a file, and nobody imported what defines the class."""
    script = torch.jit.script(HoldsObject())
    parity(script, (X,), (Y,))
    monkeypatch.setattr(torch.jit._state, "_name_to_pyclass", {})
    with pytest.raises(ExportError, match=r"HoldsObject holds 'sum', of a class .*Import the Python module"):
        ingot.export(script, (X,))
