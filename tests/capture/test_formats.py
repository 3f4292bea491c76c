"""Other forms of a model: exported programs, graph modules, and their files."""

from __future__ import annotations

import operator
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

import ingot
from ingot.errors import ExportError, MissingOperatorError, ShapeError
from tests.capture.support import parity
from tests.capture.test_constructs import dims

T = torch.Tensor


class Net(nn.Module):
    """Operators that must stay whole, nested arguments, a keyword, and a size among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.LayerNorm(4)
        self.rnn = nn.LSTM(4, 5, batch_first=True)

    def forward(self, image: T, more: dict[str, T], *, scale: T) -> dict[str, Any]:
        y = self.last(self.norm(self.convolve(image)).flatten(2).mT)
        y, _ = self.rnn(y)
        y = nn.functional.scaled_dot_product_attention(y, y, y)
        return {"y": y * scale + more["shift"].sum(), "n": image.shape[0]}


def program(**dynamic: Any) -> Any:
    example = (torch.randn(2, 3, 6, 7), {"other": torch.zeros(1), "shift": torch.randn(4, 2)})
    dims = {"image": {0: Dim("batch", max=9)}, "more": {"shift": {0: Dim.AUTO}, "other": None}, "scale": None}
    return torch.export.export(
        Net().eval(), example, {"scale": torch.ones(5)}, dynamic_shapes=dims | dynamic, strict=False
    )


def test_exported_program_and_its_file(tmp_path: Path) -> None:
    """Without arguments; its ranges of sizes; whole operators; what was static stays static."""
    made = program()
    torch.export.save(made, tmp_path / "net.pt2")
    for model in (made, tmp_path / "net.pt2", str(tmp_path / "net.pt2")):
        exported = ingot.export(model)
        assert dims(exported) == {
            "image": ["image_batch", 3, 6, 7],
            "more_other": [1],
            "more_shift": ["more_shift_batch", 2],
            "scale": [5],
        }
        assert any(a.what == "0 <= image_batch <= 9" for a in exported.assumptions)
        kinds = [node.op_type for node in exported.model.graph]
        assert {"BatchNormalization", "LayerNormalization", "LSTM"} <= set(kinds)
        assert "convolve.weight" in exported.model.graph.initializers
    with torch.no_grad():
        image, shift = torch.randn(5, 3, 6, 7), torch.randn(3, 2)
        want = made.module()(image, {"other": torch.zeros(1), "shift": shift}, scale=torch.ones(5))
    got = exported(image, {"other": torch.zeros(1), "shift": shift}, scale=torch.ones(5))
    np.testing.assert_allclose(got["y"], want["y"].numpy(), atol=2e-5)
    assert got["n"] == 5


def test_a_baked_size_does_not_become_dynamic() -> None:
    """A program that was exported for one size has it in its graph; another must not be taken."""

    class Baked(nn.Module):
        def forward(self, x: T) -> T:
            return x * x.shape[0]

    exported = ingot.export(torch.export.export(Baked(), (torch.randn(4, 3),)))
    assert dims(exported) == {"x": [4, 3]}
    exported = ingot.export(torch.fx.experimental.proxy_tensor.make_fx(Baked())(torch.randn(4, 3)))
    assert list(dims(exported).values()) == [[4, 3]]


class Sizes(nn.Module):
    """Numbers that are sizes, factors, and kept as they are."""

    def forward(self, x: T, n: dict[str, int], *, by: int = 2) -> tuple[T, T]:
        return x[:, : n["rows"]] * by + n["shift"], torch.zeros(n["rows"], by)


@pytest.mark.parametrize("in_a_file", [False, True])
def test_numbers_that_a_program_takes_any_of(in_a_file: bool, tmp_path: Path) -> None:
    """Inputs of the model, as they are of the program; the others are fixed in both."""
    example, given = (torch.randn(2, 8), {"rows": 3, "shift": 3}), {"by": 4}
    dims = {"x": {0: Dim("batch")}, "n": {"rows": Dim.DYNAMIC, "shift": None}, "by": Dim.DYNAMIC}
    made: Any = torch.export.export(Sizes(), example, given, dynamic_shapes=dims)
    if in_a_file:
        torch.export.save(made, tmp_path / "sizes.pt2")
        made = tmp_path / "sizes.pt2"
    program = ingot.export(made)
    assert program.input_names == ["x", "n_rows", "by"]
    for batch, rows, by in ((2, 3, 4), (5, 2, 7), (3, 7, 2)):
        call = torch.randn(batch, 8), {"rows": rows, "shift": 3}
        for got, want in zip(program(*call, by=by), Sizes()(*call, by=by), strict=True):
            np.testing.assert_allclose(got, want)
    with pytest.raises(ingot.InputError, match="argument 'n_shift' is 4; the model was exported with 3"):
        program(torch.randn(2, 8), {"rows": 3, "shift": 4}, by=4)


def test_arguments_that_a_program_was_not_made_for() -> None:
    """Their sizes are told beside the program's own; arrays of NumPy's are tensors."""
    made = torch.export.export(nn.Linear(4, 5), (torch.zeros(2, 4),), dynamic_shapes=({0: Dim("batch")},))
    program = ingot.export(made, (np.zeros((3, 4), np.float32),))
    assert dims(program) == {"input": ["input_batch", 4]}
    for wrong in (torch.zeros(2, 3), torch.zeros(2, 2, 4)):
        with pytest.raises(
            ExportError, match=r"is of shape .*, and the exported program takes .*_batch', 4\]"
        ):
            ingot.export(made, (wrong,))
    with pytest.raises(ExportError, match=r"refuses its example .*Guard failed: input\.size\(\)\[1\] == 4"):
        ingot.export(made, (ingot.Input("float32", ["batch", "columns"]),))


def test_a_graph_inside_of_a_model_reports_no_sizes_that_are_only_tried(capfd: Any) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = torch.fx.symbolic_trace(nn.Linear(4, 5))

        def forward(self, x: T) -> T:
            return self.graph(x)

    ingot.export(Around(), (ingot.Input("float32", ["n", "m"], example=torch.zeros(2, 4)),))
    with pytest.raises(ExportError, match="refuses its example"):
        ingot.export(Around(), (torch.zeros(2, 3),))
    assert "Traceback" not in capfd.readouterr().err


def test_what_torch_compile_has_wrapped() -> None:
    """The module inside of it, whose arguments have names."""
    program = ingot.export(torch.compile(nn.Linear(4, 5)), (torch.zeros(2, 4),))
    assert dims(program) == {"input": ["input_batch", 4]}


def test_graph_module_traced_in_python() -> None:
    """Its sizes are as dynamic as those of the module it came from."""
    module = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    captured = parity(torch.fx.symbolic_trace(module), (torch.randn(3, 4),), (torch.randn(6, 4),))
    assert dims(captured) == {"input": ["input_batch", 4]}


def test_errors_name_the_line_the_program_came_from() -> None:
    """Missing operators and state: the user's Python, not the graph's."""

    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: T) -> T:
            self.calls.add_(1)
            return x * self.calls

    made = torch.export.export(Sorted(), (torch.randn(4),))
    with pytest.raises(ExportError) as error:
        ingot.export(made)
    assert f"{__file__}:" in str(error.value) and "self.calls.add_(1)" in str(error.value)
    exported = ingot.export(made, state="inputs")
    x = np.ones(4, np.float32)
    assert [float(exported(x)[0]) for _ in range(2)] == [1, 2]

    class Missing(nn.Module):
        def forward(self, x: T) -> T:
            return torch.linalg.eigvals(torch.outer(x, x)).real

    with pytest.raises(MissingOperatorError) as error:
        ingot.export(torch.export.export(Missing(), (torch.randn(4),)))
    assert f"{__file__}:" in str(error.value) and "eigvals(torch.outer" in str(error.value)


def test_files_that_are_no_model(tmp_path: Path) -> None:
    """Weights alone, no file, and some other file."""
    torch.save({"w": torch.zeros(2)}, tmp_path / "weights.pt")
    with pytest.raises(ExportError, match="holds pickled Python objects; wanted"):
        ingot.export(tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(ExportError, match="holds neither of PyTorch's archives"):
        ingot.export(tmp_path / "text.pt")
    with pytest.raises(ExportError, match="no such file"):
        ingot.export(tmp_path / "nothing.pt2")

    with pytest.raises(ExportError, match="this is a directory"):
        ingot.export(tmp_path)


def test_archives_that_torch_does_not_open(tmp_path: Path) -> None:
    """Parts that are missing, an operator that nobody has: one error, with what torch says."""
    x = torch.zeros(2, 4)
    torch.jit.script(nn.Linear(4, 5)).save(tmp_path / "whole.pt")
    torch.export.save(torch.export.export(nn.Linear(4, 5), (x,)), tmp_path / "whole.pt2")

    def without(whole: str, part: str, name: str) -> Path:
        with zipfile.ZipFile(tmp_path / whole) as archive, zipfile.ZipFile(tmp_path / name, "w") as out:
            for n in archive.namelist():
                if not n.endswith(part):
                    out.writestr(n, archive.read(n).replace(b"torch.linear", b"torch.linaer"))
        return tmp_path / name

    for whole, part, kind in (
        ("whole.pt", "constants.pkl", "TorchScript module"),
        ("whole.pt", "nothing", "TorchScript module"),
        ("whole.pt2", "weights_config.json", "exported program"),
    ):
        path = without(whole, part, f"cut{Path(whole).suffix}")
        with pytest.raises(ExportError, match=rf"cut\.pt2?: PyTorch .* does not open this {kind}: \w+"):
            ingot.export(path, (x,))


class Chosen(nn.Module):
    """A branch inside a branch, each with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, x: T) -> T:
        def inner(x: T) -> T:
            return torch.cond(x.mean() > 0.5, lambda x: self.last(x), lambda x: x + 1, (x,))

        return torch.cond(x.sum() > 0, inner, lambda x: -x, (x,))


class Counted(nn.Module):
    """Rounds that data counts, and a value that the loop only reads."""

    def forward(self, x: T, n: T) -> Any:
        def body(i: T, y: T) -> tuple[T, T]:
            return i + 1, y * 2 + n

        return torch.while_loop(lambda i, _: i < n, body, (torch.zeros((), dtype=torch.int64), x))


class Rows(nn.Module):
    """scan and map over rows, and an associative one."""

    def forward(self, x: T, y: T) -> Any:
        from torch._higher_order_ops.associative_scan import associative_scan
        from torch._higher_order_ops.map import map as map_rows
        from torch._higher_order_ops.scan import scan

        last, sums = scan(lambda c, r: (c + r, c * r), torch.zeros(3), x)
        totals = associative_scan(lambda a, b: a + b, x, 0, combine_mode="generic")
        return last, sums, map_rows(lambda r, y: r * 2 + y, x, y), totals


class Selected(nn.Module):
    """Rows of an unknown number, and a number that data decides, with its bounds."""

    def forward(self, x: T, n: T) -> tuple[T, T]:
        k = n.item()
        torch._check(k >= 0)
        torch._check(k <= x.shape[0])
        return x[x.sum(1) > 1.5], x[:k].sum(0)


class Blocks(nn.Module):
    """no_grad and autocast blocks become subgraphs of their own."""

    def forward(self, x: T) -> tuple[T, T]:
        with torch.no_grad():
            y = x * 2
        with torch.autocast("cpu", torch.bfloat16):
            z = x @ x.T
        return y, z


batch = {0: Dim("batch")}


@pytest.mark.parametrize(
    ("model", "calls", "dynamic"),
    [
        (Chosen(), [(torch.rand(2, 3),), (-torch.rand(4, 3),), (torch.rand(3, 3) * 9,)], (batch,)),
        (Counted(), [(torch.rand(2, 3), torch.tensor(3)), (torch.rand(2, 3), torch.tensor(0))], None),
        (Rows(), [(torch.rand(5, 3), torch.rand(3))], None),
        (Selected(), [(torch.rand(6, 3), torch.tensor(n)) for n in (2, 0, 6)], None),
        (Blocks(), [(torch.rand(3, 3),)], None),
    ],
)
def test_control_flow_of_a_program(model: nn.Module, calls: list[tuple[T, ...]], dynamic: Any) -> None:
    """Subgraphs become If, Loop and checks, as they do from Python."""
    made = torch.export.export(model.eval(), calls[0], dynamic_shapes=dynamic)
    exported = ingot.export(made)
    for call in calls:
        wants, gots = model(*call), exported(*call)
        for want, got in zip(wants, gots, strict=True) if isinstance(wants, tuple) else [(wants, gots)]:
            assert got.shape == tuple(want.shape)
            np.testing.assert_allclose(got.astype(np.float64), want.detach().double(), atol=0.01, rtol=1e-5)


def test_a_check_of_a_program_stays() -> None:
    """A number outside of the bounds that the model checks is refused by the exported model."""
    made = torch.export.export(Selected(), (torch.rand(6, 3), torch.tensor(2)))
    exported = ingot.export(made)
    assert any(
        a.kind == "condition" and a.what == "the number <= 6, of `k = n.item()`" for a in exported.assumptions
    )
    with pytest.raises(ShapeError, match="this check of the model's own does not hold"):
        exported(torch.rand(6, 3), torch.tensor(9))


def test_what_a_program_assumed_of_sizes_is_checked() -> None:
    """A branch on a size that torch.export took for good: the model refuses sizes that take the other one."""

    class Even(nn.Module):
        def forward(self, x: T) -> T:
            return x * 2 if x.shape[0] % 2 == 0 else x + 1

    made = torch.export.export(Even(), (torch.randn(4, 3),), dynamic_shapes={"x": {0: Dim.AUTO}})
    exported = ingot.export(made)
    np.testing.assert_array_equal(exported(np.ones((6, 3), np.float32)), np.full((6, 3), 2, np.float32))
    with pytest.raises(ShapeError, match=r"% 2 == 0"):
        exported(np.ones((3, 3), np.float32))
    with pytest.raises(ExportError, match="size is 3 by its Input or in the exported program"):
        ingot.export(made, dynamic_shapes={"x": {1: "width"}})


@torch.library.custom_op("ingot_formats::halved", mutates_args={"x"})
def halved(x: T) -> None:
    """Writes into what it is given."""
    x.div_(2)


class Writes(nn.Module):
    """An operator that writes, into a tensor and into a view; a constant made in forward."""

    def forward(self, x: T) -> T:
        y = x * torch.tensor([1.0, 2.0, 3.0])
        halved(y)
        halved(y[1:])
        return y + x


@pytest.mark.parametrize("decomposed", [False, True])
def test_writes_of_a_program(decomposed: bool, tmp_path: Path) -> None:
    """As they were, and as torch makes them of copies; from memory and from a file."""
    x = torch.randn(4, 3)
    made = torch.export.export(Writes(), (x,), dynamic_shapes={"x": {0: Dim("n", min=3)}})
    made = made.run_decompositions({}) if decomposed else made
    torch.export.save(made, tmp_path / "writes.pt2")
    for model in (made, tmp_path / "writes.pt2"):
        exported = ingot.export(model)
        for n in (3, 4, 7):
            x = torch.randn(n, 3)
            np.testing.assert_allclose(exported(x), Writes()(x).numpy(), atol=1e-6)


def test_graph_module_of_functions() -> None:
    """Python's own functions of sizes, a parameter, an assertion; forward as it was before a change."""
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    rows = graph.call_method("size", (x, 0))
    graph.call_function(torch._assert, (graph.call_function(operator.gt, (rows, 1)), "two rows at least"))
    most = graph.call_function(max, (rows, 3))
    y = graph.call_function(operator.truediv, (x, graph.call_function(len, (x,))))
    y = graph.call_function(operator.add, (y, most))
    graph.output(graph.call_function(operator.mul, (y, graph.get_attr("w"))))
    root = nn.Module()
    root.w = nn.Parameter(torch.randn(3))
    made = torch.fx.GraphModule(root, graph)
    parity(made, (torch.randn(4, 3),), (torch.randn(2, 3),), (torch.randn(7, 3),))
    with pytest.raises(ShapeError, match="two rows at least"):
        ingot.export(made, (torch.randn(4, 3),))(np.ones((1, 3), np.float32))
    made.graph.erase_node(next(n for n in made.graph.nodes if n.target is torch._assert))
    with pytest.raises(ExportError, match="recompile"):
        ingot.export(made, (torch.randn(4, 3),))


class Added(nn.Module):
    """Inputs of other sizes."""

    def forward(self, x: T, y: T) -> T:
        return x.sum() + y * 2


@pytest.mark.parametrize("form", ["program", "module", "graph"])
def test_arguments_by_name_stand_in_any_order(form: str) -> None:
    """Each input has the sizes of its own placeholder; what is no call of the graph is refused by name."""
    x, y = torch.randn(3, 5), torch.randn(4, 5)
    made: Any = torch.export.export(Added(), (x, y), dynamic_shapes={"x": {0: Dim("rows")}, "y": None})
    if form == "module":
        made = made.module()
    elif form == "graph":
        made = made.graph_module
    names = ["x", "y"]
    exported = ingot.export(made, (), kwargs={"y": y, "x": x})
    assert {n: dims(exported)[n] for n in names} == {"x": ["x_batch", 5], "y": [4, 5]}
    with pytest.raises(ExportError, match="cannot be called with"):
        ingot.export(made, (x,))


class Wide(nn.Module):
    """Products of bytes in 32 bits, in a block with hints for a compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.full((4, 4), 100, dtype=torch.int8))

    def forward(self, x: T) -> T:
        from torch._higher_order_ops.hints_wrap import hints_wrapper
        from torch._higher_order_ops.out_dtype import out_dtype

        y = out_dtype(torch.ops.aten.mm.default, torch.int32, x, self.w)
        return hints_wrapper(lambda y: y + 1, (y,), {}, hints={"fast": True})


def test_wider_results_and_hints_of_a_program() -> None:
    x = torch.full((3, 4), 100, dtype=torch.int8)
    exported = ingot.export(torch.export.export(Wide(), (x,), strict=True))
    np.testing.assert_array_equal(exported(x), np.full((3, 4), 40001, np.int32))


class EachRow(nn.Module):
    """A function of every row, by torch.vmap, whose levels are nodes of a program."""

    def forward(self, x: T) -> T:
        return torch.vmap(lambda row: row * row.sum())(x)


def test_levels_of_vmap_in_a_program_are_closed() -> None:
    """Also where a recording ends between them: nothing is left open for the process."""
    made = torch.export.export(EachRow(), (torch.randn(3, 4),), dynamic_shapes={"x": {0: Dim("rows")}})
    exported = ingot.export(made)
    x = torch.randn(5, 4)
    np.testing.assert_allclose(exported(x), EachRow()(x).numpy(), rtol=1e-5)
    functorch: Any = torch._C._functorch
    assert functorch.maybe_current_level() is None
