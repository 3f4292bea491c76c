"""What export says where it refuses: the user's line, the cause and the edit; no frame inside of torch."""

# Functions of one argument, used or not, that all fail; rows of a table.
# ruff: noqa: ARG001, E501

from __future__ import annotations

import contextlib
import heapq
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import ingot
from ingot.errors import IngotError

T = torch.Tensor
X = torch.zeros(2, 3)


def eigenvalues(x: T) -> T:
    return torch.linalg.eigvals(x @ x.T).real


def halves(x: T) -> T:
    return torch.arange(x.shape[0] * 0.5, dtype=torch.float16)


def as_key(x: T) -> T:
    table = {"all": 0}
    table[int(x.sum())] = 1
    return x * len(table)


def two_dtypes(x: T) -> T:
    y = x
    if x.sum() > 0:
        y = x.to(torch.int64)
    return y


def gradients(x: T) -> T:
    x = x.detach().requires_grad_()
    return torch.autograd.grad((x**3).sum(), x)[0]


def gradients_of_a_branch(x: T) -> T:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = x**3 if x.sum() > 0 else x**2
        return torch.autograd.grad(y.sum(), x)[0]


def adds_to_steps(x: T) -> T:
    steps = torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)
    return torch.ao.nn.quantized.QFunctional().add_scalar(steps, 1.0).dequantize()


def grows_wider(x: T) -> T:
    n = x.sum()
    while n > 0:
        x = x.to(torch.float64)
        n = n - 1
    return x


def through_numpy(x: T) -> T:
    return torch.from_numpy(x.numpy() + 1)


def to_many_digits(x: T) -> T:
    return x * round(x.shape[0] / 3, 12)


def into_text(x: T) -> T:
    return x * float(f"{x.sum().item():.2f}")


def draws(x: T) -> T:
    import random

    return x * random.random()


def calls_itself(x: T, n: int = 0) -> T:
    return x if n > x.sum() else calls_itself(x * 2, n + 1)


def on_another_device(x: T) -> T:
    return x + torch.zeros(3, device="cuda")


def raises(x: T) -> T:
    raise ValueError("not like this")


def looks_up(x: T) -> T:
    return x * {}["scale"]


def wrong_dtype(x: T) -> T:
    return x @ torch.ones(3, 2, dtype=torch.float64)


def ambiguous(x: T) -> T:
    if x > 0:
        return x
    return -x


def sparse(x: T) -> T:
    return x.to_sparse()


def nothing(x: T) -> None:
    return None


def in_a_thread(x: T) -> T:
    import threading

    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(x * 2))
    thread.start()
    thread.join()
    return found[0]


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: T) -> T:
        self.calls += 1
        return x * self.calls


def on_a_heap(x: T) -> Any:
    kept: list[float] = []
    for v in x[0].tolist():
        heapq.heappush(kept, v)
        if len(kept) > 2:
            heapq.heappop(kept)
    return sum(kept)


def lists_of_data(x: T) -> T:
    return torch.tensor(sorted(x.tolist()))


def writes_a_slice(x: T) -> T:
    items = x[0].tolist()
    items[0:2] = [7.0]
    return torch.tensor(items)


def suppresses(x: T) -> T:
    with contextlib.suppress(ValueError):
        if x.sum() > 0:
            raise ValueError("above")
        x = x + 1
    return x


def two(x: T, y: T) -> T:
    return x + y


def described(most: int) -> ingot.Input:
    return ingot.Input(torch.float32, [ingot.Dim("n", min=1, max=most), 3])


def nested(x: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor([x, x[:1]]).to_padded_tensor(0.0)


LINEAR = nn.Linear(3, 4)
#: What is exported, whether a line of this file is named, and what else the message has.
CASES: list[tuple[Callable[[], Any], str, tuple[str, ...]]] = [
    (lambda: ingot.export(eigenvalues, (X,)), "torch.linalg.eigvals(x @ x.T)",
     ("without a form in ONNX", "linalg_eig", "ingot.translate")),
    (lambda: ingot.export(as_key, (X,)), "table[int(x.sum())] = 1", ("decides the key", "Give it every key")),
    (lambda: ingot.export(two_dtypes, (X,)), "return y",
     ("'y'", "int64 tensor", "float32 tensor", "if x.sum() > 0:", "tensors of one dtype and rank")),
    (lambda: ingot.export(on_a_heap, (X,)), "heapq.heappush(kept, v)",
     ("keeps a heap in a list that data", "In the place of heapq.heappush, write torch.topk")),
    (lambda: ingot.export(lists_of_data, (X,)), "sorted(x.tolist())",
     ("sorts by something else than numbers", "In the place of sorted, write torch.argsort")),
    (lambda: ingot.export(writes_a_slice, (X,)), "items[0:2]", ("writes to a slice of a list, where data",)),
    (lambda: ingot.export(suppresses, (X,)), "if x.sum() > 0:", ("`suppress` that may catch it",)),
    (lambda: ingot.export(grows_wider, (X,)), "while n > 0:", ("variable 'x'", "float64", "Start it with")),
    (lambda: ingot.export(through_numpy, (X,)), "x.numpy() + 1", ("Use tensor operations instead",)),
    (lambda: ingot.export(to_many_digits, (X,)), "round(x.shape[0] / 3, 12)", ("other than 0 to 8 digits",)),
    (lambda: ingot.export(into_text, (X,)), ".2f", ("into a string", "Write it with tensor operations")),
    (lambda: ingot.export(draws, (X,)), "random.random()", ("one draw for ever", "pass it as an argument")),
    (lambda: ingot.export(calls_itself, (X,)), "calls_itself(x * 2, n + 1)", ("Write it as a loop",)),
    (lambda: ingot.export(on_another_device, (X,)), 'device="cuda"', ("wanted the CPU", "device=x.device")),
    (lambda: ingot.export(raises, (X,)), "raise ValueError", ("refuses its example (x float32 [2, 3])",
     "ValueError: not like this", "Pass an example that the model takes")),
    (lambda: ingot.export(looks_up, (X,)), '{}["scale"]', ("KeyError: 'scale'", "in PyTorch and mend that first")),
    (lambda: ingot.export(wrong_dtype, (X,)), "dtype=torch.float64", ("same dtype", "dtypes and sizes it wants")),
    (lambda: ingot.export(ambiguous, (X,)), "if x > 0:", ("Boolean value of Tensor", "Pass an example")),
    (lambda: ingot.export(sparse, (X,)), "x.to_sparse()", ("Use other operators",)),
    (lambda: ingot.export(Counts(), (X,)), "self.calls += 1", ("'calls'", 'state="inputs"', "ingot.Stateful")),
    (lambda: ingot.export(nn.Sequential(LINEAR, nn.ReLU(), nn.Linear(5, 2)), (X,)), "",
     ("layer '2', Linear(in_features=5", "cannot be multiplied (2x4 and 5x2)")),
    (lambda: ingot.export(nothing, (X,)), "", ("returns no tensor but NoneType", "Return at least one")),
    (lambda: ingot.export(two, (X,)), "", ("two(x: ", "cannot be called with 1 positional argument: missing a "
     "required argument: 'y'", "args=(…)")),
    (lambda: ingot.export(two, (X,), kwargs={"z": X}), "", ("1 positional argument and z=…",)),
    (lambda: ingot.export(LINEAR, (3,)), "", ("no tensor arguments", "args=(torch.zeros(2, 3),)")),
    (lambda: ingot.export(nn.Linear, (X,)), "", ("is the class Linear", "Linear(…)")),
    (lambda: ingot.export({"a": X}, (X,)), "", ("of type dict", "wanted a torch.nn.Module")),
    (lambda: ingot.export(LINEAR, (X,), opset_version=11), "", ("opset_version is 11", "18 to 25")),
    (lambda: ingot.export(LINEAR, (X,), dynamic_shapes={"x": {0: "b"}}), "", ("['x']", "['input']")),
    (lambda: ingot.export(LINEAR, (X,), dynamic_shapes={"input": {4: "b"}}), "", ("axes [4]", "0 to 1")),
    (lambda: ingot.export(LINEAR, (X,), dynamic_shapes={"input": {0: Dim("b", min=4, max=8)}}), "",
     ("'b' is declared 4 to 8", "the example has 2", "widen it")),
    (lambda: ingot.export(LINEAR, (X,), dynamic_shapes={"input": {0: 3.5}}), "", ("axis 0", "found 3.5")),
    (lambda: ingot.export(two, (X, torch.zeros(4, 3)), dynamic_shapes=({0: "b"}, {0: "b"})), "",
     ("'b' is 2 in one input and 4 in axis 0 of 'y'", "different names")),
    (lambda: ingot.export(two, (X, X), input_names=["a", "a"]), "", ("input_names", "a name of its own")),
    (lambda: ingot.export(LINEAR, (X,), output_names=["a", "b"]), "", ("output_names has 2", "1 tensors")),
    (lambda: ingot.export(LINEAR, (X,), "/no/such/folder/x.onnx"), "", ("no directory", "Create it first")),
    (lambda: ingot.export("/no/such/model.pt", (X,)), "", ("no such file", ".pt2 file or a TorchScript")),
    (lambda: ingot.export(LINEAR, (X.to_sparse(),)), "", ("layout torch.sparse_coo", ".to_dense()")),
    (lambda: ingot.export(LINEAR, (ingot.Input("float", [2, 3]),)), "", ("dtype 'float'", "'float32'")),
    (lambda: ingot.export(LINEAR, (X.to("meta"),)), "", ("'input' is on meta", "ingot.Input('float32', [2, 3])")),
    (lambda: ingot.export(LINEAR, (X.to(torch.float8_e4m3fn),)), "", ("'input' is of dtype torch.float8_e4m3fn",)),
    (lambda: ingot.export(LINEAR, (X,), verify="no"), "", ("verify is 'no'", "True or False")),
    (lambda: ingot.export(nested, (X,)), "torch.nested.nested_tensor", ("Nested tensors", "pad_sequence")),
    (lambda: ingot.export(nn.LazyLinear(3), (X,)), "", ("'weight' has no size yet", "once on an example")),
    (lambda: ingot.export(nn.ModuleList([LINEAR]), (X,)), "", ("a ModuleList, which has no forward",)),
    (lambda: ingot.export(two, (described(4), described(9))), "", ("max=9", "max=4", "the same bounds")),
    (lambda: ingot.export(halves, (X,)), "torch.arange(x.shape[0] * 0.5", ("own code needs it as a number",
     "make the dimension static with dynamic_shapes")),
    (lambda: ingot.export(gradients, (X,)), "torch.autograd.grad", ("gradients", "with torch.enable_grad():")),
    (lambda: ingot.export(gradients_of_a_branch, (X,)), "torch.autograd.grad", ("a branch or loop", "torch.where")),
    (lambda: ingot.export(adds_to_steps, (X,)), "QFunctional().add_scalar", ("add_scalar", "before convert()")),
    (lambda: ingot.verify(ingot.export(LINEAR, (X,), verify=False), nn.Sequential(LINEAR, nn.Tanh())), "",
     ("output 'output'", "differs from the module by")),
]  # fmt: skip
INTERNAL = (
    "Rows",
    "Many",
    "_ingot_",
    "INTERNAL ASSERT",
    "SymInt",
    "SymBool",
    "Eq(",
    "Max(",
    "s0",
    "tlparse",
    "FakeTensor",
    "HigherOrder",
    "Traceback",
)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_message(number: int) -> None:
    """The line, the cause and the edit; one frame of Ingot's below the caller's, and no cause."""
    export, line, parts = CASES[number]
    with pytest.raises(IngotError) as caught:
        export()
    said = str(caught.value)
    if line:
        named = [row for row in said.splitlines() if f"{Path(__file__).name}:" in row]
        assert named and line in " ".join(named), said
    for part in parts:
        assert part in said, said
    for word in INTERNAL:
        assert word not in said, said
    printed = "".join(traceback.format_exception(caught.value))
    assert "site-packages" not in printed.replace(said, ""), printed
    assert "direct cause" not in printed and "another exception" not in printed, printed


def test_code_without_a_file_has_its_line() -> None:
    """A function that exec made: the line in the string."""
    made: dict[str, Any] = {}
    exec("import torch\n\ndef f(x):\n    return torch.linalg.eigvals(x @ x.T).real\n", made)
    with pytest.raises(IngotError, match=r"<string>:4: \(its source is not in a file\)"):
        ingot.export(made["f"], (X,))


def test_debug_shows_what_is_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `debug`, or INGOT_DEBUG in the environment."""
    for debug, environment in ((True, "0"), (False, "1")):
        monkeypatch.setenv("INGOT_DEBUG", environment)
        with pytest.raises(IngotError) as caught:
            ingot.export(looks_up, (X,), debug=debug)
        assert "KeyError: 'scale'" in "".join(traceback.format_exception(caught.value))
        assert caught.value.__cause__ is not None


def test_torn_files_are_said(tmp_path: Path) -> None:
    """A file that is cut off, and one of another kind with the name of a program."""
    torch.jit.script(nn.Linear(3, 4)).save(tmp_path / "whole.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:900])
    (tmp_path / "text.pt2").write_text("hello")
    for name in ("torn.pt", "text.pt2"):
        with pytest.raises(
            IngotError, match=f"{name} holds neither of PyTorch's archives, or a part of one;"
        ):
            ingot.export(tmp_path / name, (X,))
    (tmp_path / "made.onnx").write_bytes(b"")
    with pytest.raises(IngotError, match=r"made\.onnx is an ONNX file already.*Run it with ingot\.Inference"):
        ingot.export(tmp_path / "made.onnx", (X,))


def test_a_list_of_data_for_a_list_of_numbers() -> None:
    """Parts whose lengths data lists are a list as long as data says, which no output is: no sizes are to
    blame.
    """
    with pytest.raises(ingot.DataDependentError, match="a list that is as long as data says") as caught:
        ingot.export(
            lambda x, n: [p.sum() for p in x.split(n.tolist())], (torch.ones(5), torch.tensor([2, 3]))
        )
    assert "static" not in str(caught.value)


def test_a_returned_list_of_data_is_said_with_the_line_that_returns_it() -> None:
    """Where a helper fills the list, the model's own `return` is named, and no line of torch's or Ingot's."""

    def positive(x: torch.Tensor) -> list[torch.Tensor]:
        return [row for row in x if row.sum() > 0]

    class Detector(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            kept = positive(x)
            return {"all": x, "kept": kept}

    with pytest.raises(ingot.DataDependentError, match="as many outputs in every run") as caught:
        ingot.export(Detector(), (torch.randn(5, 3),))
    place, *_ = str(caught.value).splitlines()
    assert Path(__file__).name in place, place
    assert place.endswith('return {"all": x, "kept": kept}'), place


def test_a_check_of_what_is_returned_names_its_line() -> None:
    """And no unknown place: the product is written when the model has returned."""
    program = ingot.export(lambda n: n.item() * 3, (torch.tensor(5),))
    (found,) = [a for a in program.assumptions if a.kind == "condition"]
    assert Path(__file__).name in found.where, found


def test_a_number_drawn_alone_says_nothing_on_stderr(caplog: pytest.LogCaptureFixture) -> None:
    """An attribute of no numbers has its type."""
    program = ingot.export(lambda x: x * torch.rand(()), (X,))
    assert "RandomUniform" in [node.op_type for node in program.model.graph]
    assert "ambiguous" not in caplog.text
