"""Python in a model: what runs as it is, what is recorded, what is refused, and what the messages say."""

from __future__ import annotations

import bisect
import dataclasses
from typing import Any, NamedTuple, cast

import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.export import Dim

from ingot.calls import ingot_runner
from ingot.capture.attempt import capture
from ingot.capture.signature import Input
from ingot.errors import ExportError, IngotError, MissingOperatorError
from tests.capture.support import op_types, ort_runner, parity

T = torch.Tensor
X = torch.randn(3, 4)


def dims(captured: Any) -> dict[str, list[Any]]:
    """Declared shape of every input."""
    return {
        str(v.name): [d if isinstance(d, int) else d.value for d in v.shape]
        for v in captured.model.graph.inputs
    }


# -- values that would decide what Python does


def _key(x: T) -> T:
    return x * {"a": 1}.get("a", 2) * [3, 4][:: x.argmax().item() + 1][0]


def _library(x: T) -> T:
    return x * bisect.bisect([0.0, 1.0], x.sum().item())


@pytest.mark.parametrize(
    ("function", "line"),
    [
        (lambda x: x + torch.from_numpy(x.numpy()), "x.numpy()"),
        (_key, "[:: x.argmax().item() + 1]"),
        (_library, "bisect.bisect("),
    ],
)
def test_what_has_no_staged_form_is_refused_with_its_line(function: Any, line: str) -> None:
    """The message has the file, the line's text and what to do."""
    with pytest.raises(ExportError) as error:
        capture(function, (X,))
    message = str(error.value)
    assert __file__ in message
    assert line in message
    assert "torch-internal" not in message


def test_constants_may_become_python_values() -> None:
    """A tensor that no input decides is the same number for ever."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.tensor([2, 3]))

        def forward(self, x: T) -> T:
            for n in self.steps.tolist():
                x = x * n
            if self.steps.sum() > 4:
                x = x + torch.tensor(3.0).item()
            return x[: int(self.steps[0])]

    captured = parity(Scaled(), (X,), (torch.randn(5, 2),))
    assert any(a.kind == "constant" for a in captured.assumptions)


def test_python_that_does_not_depend_on_data_just_runs() -> None:
    """Closures, comprehensions, dataclasses, kwargs, match, generators."""

    @dataclasses.dataclass
    class Options:
        scale: float
        kind: str

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.options = Options(2.0, "tanh")
            self.layers = nn.ModuleDict({f"l{i}": nn.Linear(4, 4) for i in range(3)})

        def forward(self, x: T, **_: Any) -> dict[str, T]:
            def mix(a: T, *rest: T) -> T:
                return sum(rest, a)

            match self.options.kind:
                case "tanh":
                    x = x.tanh()
                case _:
                    raise ValueError
            outs = {name: layer(x) * self.options.scale for name, layer in sorted(self.layers.items())}
            return {**outs, "all": mix(*(t for t in outs.values()))}

    captured = parity(Net(), (X,), (torch.randn(6, 4),))
    assert captured.output_names == ["l0", "l1", "l2", "all"]


# -- sizes


def test_zero_and_one_are_not_special() -> None:
    """An example of batch 1 and an empty example give the same dynamic model."""
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    for example in (torch.randn(1, 4), torch.randn(0, 4)):
        captured = parity(
            module, (example,), (torch.randn(7, 4),), (torch.randn(1, 4),), (torch.randn(0, 4),)
        )
        assert dims(captured) == {"input": ["input_batch", 4]}


def test_equal_example_sizes_are_not_one_dimension() -> None:
    """A square example does not make the model square."""
    captured = parity(lambda x: x.mT @ x, (torch.randn(4, 4, 4),), (torch.randn(2, 3, 5),))
    assert dims(captured) == {"x": ["x_batch", "x_dim1", "x_dim2"]}


def test_sizes_equal_by_chance_stay_apart() -> None:
    """Batch and length of the two inputs agree in the example; the model needs only the batch to."""

    def f(x: T, y: T) -> T:
        return torch.cat([x, y], 1) * x.shape[1] + (x.sum(1) * y.sum(1))[:, None]

    captured = parity(f, (torch.randn(3, 3), torch.randn(3, 3)), (torch.randn(2, 5), torch.randn(2, 4)))
    assert dims(captured) == {"x": ["x_batch", "x_dim1"], "y": ["x_batch", "y_dim1"]}


def test_a_module_on_another_device_is_refused() -> None:
    """The message names the tensor and the remedy."""
    with pytest.raises(ExportError, match=r"'weight' is on meta; wanted the CPU"):
        capture(nn.Linear(4, 4, device="meta"), (X,))


def test_dimensions_that_must_agree_are_unified() -> None:
    """x + y: the second input's dims take the first one's names."""
    captured = parity(lambda x, y: x + y, (X, torch.randn(3, 4)), (torch.randn(2, 5), torch.randn(2, 5)))
    assert dims(captured)["y"] == ["x_batch", "x_dim1"]
    assert {a.kind for a in captured.assumptions} == {"unified"}


def test_the_smaller_of_two_sizes_that_turn_out_equal() -> None:
    """It is the one size from then on, by the name that the input has."""

    def function(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        least = torch.sym_min(a.shape[1], b.shape[1])
        first = a.narrow(1, 0, least) * 2
        return torch.cat([a, b]), first

    captured = parity(function, (torch.ones(2, 3), torch.ones(4, 3)), (torch.ones(1, 5), torch.ones(2, 5)))
    assert [list(v.shape or ()) for v in captured.model.graph.inputs] == [
        ["a_batch", "a_dim1"],
        ["b_batch", "a_dim1"],
    ]


def test_a_loop_over_a_size_stays_a_loop() -> None:
    """`for i in range(x.shape[1])` is a Loop: the dimension stays dynamic."""

    def f(x: T) -> T:
        total = x[:, 0]
        for i in range(1, x.shape[1]):
            total = total + x[:, i] * i
        return total

    captured = parity(f, (X,), (torch.randn(7, 4),), (torch.randn(7, 1),), (torch.randn(2, 9),))
    assert dims(captured) == {"x": ["x_batch", "x_dim1"]}
    assert "Loop" in op_types(captured)


def test_unpacking_fixes_the_size() -> None:
    """`a, b, c = x` wants three rows."""

    def f(x: T) -> T:
        a, b, c = x
        return a + b + c

    captured = parity(f, (X,), (torch.randn(3, 9),))
    assert dims(captured) == {"x": [3, "x_dim1"]}
    (narrowed,) = [a for a in captured.assumptions if a.kind == "narrowed"]
    assert narrowed.what == "dimension 'x_batch' is 3"
    assert "test_constructs.py:" in narrowed.where


def test_int_of_a_size_stays_dynamic() -> None:
    """`int(x.shape[1] * 0.5)` and `math` on sizes do not fix them."""

    def f(x: T) -> T:
        half = int(x.shape[1]) // 2
        part = int(x.shape[0] * 0.75)
        return x[:part, :half] * int(3.7)

    captured = parity(f, (torch.randn(8, 6),), (torch.randn(4, 9),), (torch.randn(13, 2),))
    assert dims(captured) == {"x": ["x_batch", "x_dim1"]}
    assert int is int


def test_a_branch_on_a_size_is_an_if() -> None:
    """Nothing is assumed."""

    def f(x: T) -> T:
        return x * 2 if x.shape[0] > 2 else x

    captured = parity(f, (X,), (torch.randn(5, 2),), (torch.randn(2, 2),), (torch.randn(0, 2),))
    assert captured.assumptions == []
    assert "If" in op_types(captured)


def test_a_branch_that_the_declared_range_decides_is_none() -> None:
    """`if n <= 16` with a batch of at most 8."""

    def f(x: T) -> T:
        return x * 2 if x.shape[0] <= 16 else x

    captured = parity(f, (X,), (torch.randn(5, 4),), dynamic_shapes={"x": {0: Dim("n", min=1, max=8)}})
    assert "If" not in op_types(captured)
    (declared,) = [a for a in captured.assumptions if a.kind == "declared"]
    assert declared.status == "checked", "something was decided by it"
    for run in (ort_runner(captured.model), ingot_runner(captured.model)):
        with pytest.raises(IngotError):
            run({"x": torch.randn(20, 4).numpy()}, captured.output_names)


def test_size_arithmetic_with_negative_numbers() -> None:
    """-(-a // b) rounds up in the graph as in Python."""

    def f(x: T) -> T:
        return x.new_zeros(-(-x.shape[0] // 4), x.shape[1] % 3 + 1)

    parity(f, (torch.randn(9, 4),), (torch.randn(8, 5),), (torch.randn(1, 6),))


# -- declared dimensions


def test_dynamic_shapes_in_the_style_of_torch() -> None:
    """Names, Dim objects, None, by argument or by position."""

    def f(ids: T, mask: T) -> T:
        return ids * mask

    a = (torch.ones(2, 5), torch.ones(2, 5))
    batch = Dim("batch", min=1, max=8)
    by_name = capture(f, a, dynamic_shapes={"ids": {0: batch, 1: "length"}, "mask": {0: batch, 1: "length"}})
    assert dims(by_name) == {"ids": ["batch", "length"], "mask": ["batch", "length"]}
    assert any(x.what == "1 <= batch <= 8" for x in by_name.assumptions)
    by_place = capture(f, a, dynamic_shapes=({1: "n"}, (None, "n")))
    assert dims(by_place) == {"ids": [2, "n"], "mask": [2, "n"]}
    assert dims(capture(f, a, dynamic_shapes=None)) == {"ids": [2, 5], "mask": [2, 5]}
    automatic = capture(f, a, dynamic_shapes=({0: Dim.AUTO}, {0: Dim.AUTO}))
    assert dims(automatic) == {"ids": ["ids_batch", 5], "mask": ["ids_batch", 5]}


@pytest.mark.parametrize(
    ("dynamic", "message"),
    [
        ({"nope": {0: "n"}}, "dynamic_shapes names"),
        (({0: "n"}, {0: "n"}), "has 2 entries, the call has 1"),
        ({"x": ("a",)}, "has 1 entries, the tensor has 2 axes"),
        ({"x": {0: 1.5}}, "found 1.5"),
        ({"x": {0: "n", 1: "n"}}, "is 3 in one input and 4"),
        ("all", "wanted 'auto'"),
        (3, "dynamic_shapes is 3"),
        ({"x": {2: "n"}}, r"names the axes \[2\]; the tensor's axes are 0 to 1"),
    ],
)
def test_wrong_dynamic_shapes(dynamic: Any, message: str) -> None:
    """Each mistake has its message."""
    with pytest.raises(ExportError, match=message):
        capture(lambda x: x * 2, (X,), dynamic_shapes=dynamic)


def test_input_specs_instead_of_tensors() -> None:
    """Shapes and dtypes are enough for an example."""
    module = nn.Conv2d(3, 4, 3)
    captured = capture(module, (Input("float32", ["batch", 3, "height", None]),))
    assert dims(captured) == {"input": ["batch", 3, "height", "input_dim3"]}
    with pytest.raises(ExportError, match="dtype 'float99'"):
        capture(module, (Input("float99", [1]),))
    with pytest.raises(ExportError, match="axis 0 has size -3"):
        capture(module, (Input("float32", [-3, 3, 8, 8]),))


# -- arguments and outputs


class Pair(NamedTuple):
    """Two tensors."""

    left: T
    right: T


@dataclasses.dataclass
class Batch:
    """A tensor and a flag."""

    values: T
    double: bool


def test_nested_arguments_have_readable_names() -> None:
    """Tuples, lists, dicts, named tuples, dataclasses, *args and **kwargs."""

    def f(pair: Pair, batch: Batch, *more: T, table: dict[str, list[T]], **extra: T) -> dict[str, Any]:
        total = pair.left + pair.right + sum(more) + table["a"][0] + extra["bias"]
        return {
            "total": total * (2 if batch.double else 1) + batch.values,
            "both": [pair.left, (total, None)],
            "n": 3,
        }

    def one() -> T:
        return torch.randn(2, 3)

    captured = capture(
        f,
        (Pair(one(), one()), Batch(one(), True), one(), one()),
        kwargs={"table": {"a": [one()]}, "bias": one()},
    )
    wanted = ["pair_left", "pair_right", "batch_values", "more_0", "more_1", "table_a_0", "bias"]
    assert captured.arguments.names == wanted
    assert captured.output_names == ["total", "both_0", "both_1_0"]
    assert any("'batch_double' is True" in a.what for a in captured.assumptions)


@pytest.mark.parametrize(
    ("returned", "names"),
    [
        (lambda x: x * 2, ["output"]),
        (lambda x: (x * 2, [x * 3, {"a": x * 4}]), ["output_0", "output_1_0", "output_1_1_a"]),
        (lambda x: [(x * 2,), x * 3, 4], ["output_0_0", "output_1"]),
        (lambda x: {"mask": [x * 2], 7: {"y": x * 3}}, ["mask_0", "output_7_y"]),
        (lambda x: {"": x * 2, "2d": x * 3, "x": x * 4}, ["output_", "output_2d", "x_1"]),
        (lambda x: {"output_0": (x * 2, [x * 3]), "0": x * 4}, ["output_0_0", "output_0_1_0", "output_0"]),
    ],
)
def test_outputs_are_named_by_keys_and_places(returned: Any, names: list[str]) -> None:
    """Every name is a word: where a place (or nothing) comes first, it says that it is an output's."""
    assert capture(returned, (X,)).output_names == names


def test_given_names_replace_derived_ones() -> None:
    """Fewer names than tensors are fine; more are not."""
    captured = capture(lambda x, y: (x + y, x), (X, X), input_names=["first"], output_names=["sum"])
    assert captured.arguments.names == ["first", "y"]
    assert captured.output_names == ["sum", "output_1"]
    with pytest.raises(ExportError, match="input_names has 3 names, the call has 2"):
        capture(lambda x, y: x + y, (X, X), input_names=["a", "b", "c"])
    with pytest.raises(ExportError, match="output_names has 2 names, the model returns 1"):
        capture(lambda x: x, (X,), output_names=["a", "b"])


def test_no_two_values_have_one_name() -> None:
    """Derived names are numbered; given ones that are taken, empty or no list are refused."""
    captured = capture(lambda x, y: {"x": x + y, "a.b": x, "a_b": y, "a_b_1": x}, (X, X))
    assert captured.arguments.names == ["x", "y"]
    assert captured.output_names == ["x_1", "a_b", "a_b_2", "a_b_1"]
    for wrong in (["a", "a"], ["", "b"], [1], "ab"):
        with pytest.raises(ExportError, match=r"^input_names (has|is) "):
            capture(lambda x, y: x + y, (X, X), input_names=cast("Any", wrong))
    with pytest.raises(ExportError, match=r"output_names has \['y'\], which another"):
        capture(lambda x, y: x + y, (X, X), output_names=["y"])


def test_outputs_that_are_inputs_constants_or_repeated() -> None:
    """Each is a value of its own in the file."""
    parity(lambda x: (x, x, torch.ones(2), x.shape[0] * torch.ones(1)), (X,), (torch.randn(5, 2),))


def test_a_size_may_be_an_output() -> None:
    """An int of the model's output that depends on sizes is an int64 scalar."""
    captured = capture(lambda x: (x * 2, x.shape[0]), (X,))
    size = captured.model.graph.outputs[1]
    assert size.dtype == ir.DataType.INT64
    assert size.shape == ir.Shape([])


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (lambda _: None, (X,), "returns no tensor"),
        (lambda _: object(), (X,), "returns a object"),
        (lambda x, _: x, (X,), "missing a required argument: '_'"),
        (lambda x: x, (), "missing a required argument"),
        (lambda x: x, (3,), "no tensor arguments"),
    ],
)
def test_wrong_calls(function: Any, args: Any, message: str) -> None:
    """Each mistake has its message."""
    with pytest.raises(ExportError, match=message):
        capture(function, args)


def test_other_refusals() -> None:
    """Not a module, an unknown opset, random numbers that ONNX has no generator for."""
    with pytest.raises(ExportError, match="model is of type int"):
        capture(3, (X,))
    with pytest.raises(ExportError, match="opset_version is 9"):
        capture(lambda x: x, (X,), opset=9)
    with pytest.raises(ExportError, match="drawn by rejection"):
        capture(lambda x: torch.poisson(x.abs()), (X,))


for name in ("first", "second"):  # operators that nobody knows, and that have no Python to trace through
    torch.library.define(f"ingot_tests::{name}", "(Tensor x) -> Tensor")
    torch.library.register_fake(f"ingot_tests::{name}", torch.empty_like)


def test_missing_operators_are_listed_together() -> None:
    """One error for all of them, with the lines."""
    with pytest.raises(MissingOperatorError) as error:
        operators: Any = torch.ops.ingot_tests
        capture(lambda x: operators.second(operators.first(x)), (X,))
    message = str(error.value)
    assert "2 operators of PyTorch without a form in ONNX" in message
    assert "ingot_tests.first" in message
    assert "ingot_tests.second" in message
    assert __file__ in message


# -- the module itself


def test_modes_and_hooks_are_kept() -> None:
    """eval() for the export, every submodule's own mode after it; hooks run, what they keep is put back."""
    seen: list[str] = []
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.BatchNorm1d(4))
    module.train()
    module[2].eval()
    module[0].register_forward_hook(lambda *io: (seen.append("hook"), io[2] * 2)[1])
    captured = capture(module, (X,))
    assert [m.training for m in module.modules()] == [True, True, True, False]
    assert seen == []
    assert op_types(captured) == ["Gemm", "Mul", "BatchNormalization"]


def test_weights_are_shared_and_not_copied() -> None:
    """Tied weights are stored once, and all of them are the module's own memory."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 8)
            self.mix = nn.Linear(8, 8)
            self.head = nn.Linear(8, 50, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: T) -> T:
            return self.head(self.mix(self.embed(ids)))

    module = Tied()
    captured = parity(module, (torch.randint(0, 50, (2, 3)),), (torch.randint(0, 50, (1, 7)),))
    tensors = {str(n): v.const_value for n, v in captured.model.graph.initializers.items()}
    assert set(tensors) == {"embed.weight", "mix.weight.T", "mix.bias"}
    starts = {p.data_ptr() for p in module.parameters()}
    assert {t.numpy().__array_interface__["data"][0] for t in tensors.values() if t is not None} == starts


def test_a_weight_used_in_both_directions_is_stored_once() -> None:
    """However the transposed one comes about: by the module, by `.T`, as an output of its own."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(50, 8)

        def forward(self, ids: T) -> tuple[T, T, T]:
            w = self.embed.weight
            x = self.embed(ids)
            return x @ w.T, nn.functional.linear(x, w), w.T.detach()

    captured = parity(Both(), (torch.randint(0, 50, (2, 3)),), (torch.randint(0, 50, (1, 7)),))
    assert list(captured.model.graph.initializers) == ["embed.weight"]


def test_names_and_lines() -> None:
    """Nodes are called after their module, and know the line that made them."""
    captured = capture(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU())), (X,))
    assert [n.name for n in captured.model.graph] == ["0/Gemm", "1.0/Relu"]
    lines = [n.metadata_props["ingot.source"].rsplit(":")[0] for n in captured.model.graph]
    assert lines == [f"torch/nn/modules/{n}.py" for n in ("linear", "activation")]

    def f(x: T) -> T:
        return x.sin()

    (node,) = capture(f, (X,)).model.graph
    assert node.metadata_props["ingot.source"].rsplit("/", 1)[-1].startswith("test_constructs.py:")


def test_layer_returned_by_a_function_of_modules() -> None:
    """A plain function over modules works too."""
    layer = nn.Linear(4, 2)
    parity(lambda x: layer(x).softmax(-1), (X,), (torch.randn(1, 4),))


def test_sizes_that_are_tried_may_not_change_a_branch() -> None:
    """The model that is recorded is the one that the example shows, whatever sizes it was recorded with.

    Sizes so small that a feature map ends at 1, equal ones, and a batch of 1 are tried larger or apart.
    """

    class Windows(nn.Module):
        def forward(self, x: T) -> T:
            y = nn.functional.avg_pool2d(x, 8)
            if min(x.shape[2], x.shape[3]) > 8:
                y = y * 3
            if x.shape[0] > 1:
                y = y + 1
            return y if x.shape[2] == x.shape[3] else -y

    for shape in ((1, 2, 8, 8), (2, 2, 8, 8), (2, 2, 8, 16), (1, 2, 24, 16)):
        parity(Windows(), (torch.randn(shape),))


def test_a_row_that_refuses_names_the_line() -> None:
    """Wherever in a row the refusal is, the message begins with the user's file, line and text, once."""

    def found(x: T) -> T:
        return torch.poisson(x)

    with pytest.raises(ExportError, match="drawn by rejection") as refused:
        capture(found, (X,))
    assert str(refused.value).startswith(f"{__file__}:{found.__code__.co_firstlineno + 1}: return torch.poi")
    assert str(refused.value).count(f":{found.__code__.co_firstlineno + 1}") == 1


def test_complex_operators_without_a_form_are_refused_at_their_line() -> None:
    """Eigenvalues of any matrix are complex, and there is no way to them."""
    function = lambda x: torch.linalg.eigvals(x)  # noqa: E731
    with pytest.raises(ExportError, match=r"linalg_eig") as refused:
        capture(function, (torch.randn(3, 3),))
    assert f"{__file__}:{function.__code__.co_firstlineno}: " in str(refused.value)
