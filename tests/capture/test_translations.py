"""Operators, autograd functions and modules that the user says the meaning of; others are traced through."""

# Arguments are what the targets take, needed or not.
# ruff: noqa: ARG001, ARG004, ARG005

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

import ingot
from ingot.capture import translations
from ingot.errors import ExportError, MissingOperatorError, VerificationError
from tests.capture.support import op_types, parity

T = torch.Tensor


@torch.library.custom_op("ingot_tests::squares", mutates_args=())
def squares(x: T, factor: float, shift: T | None = None) -> T:
    """Its own Python, made of torch's operators."""
    return x * x * factor + (0 if shift is None else shift)


@squares.register_fake
def _(x: T, factor: float, shift: T | None = None) -> T:
    return torch.empty_like(x)


@torch.library.custom_op("ingot_tests::opaque", mutates_args=())
def opaque(x: T) -> T:
    """Python that torch's operators are not in."""
    return torch.from_numpy(np.sinc(x.numpy()))


@opaque.register_fake
def _(x: T) -> T:
    return torch.empty_like(x)


@torch.library.custom_op("ingot_tests::tripled", mutates_args={"x"})
def tripled(x: T) -> None:
    """Writes into what it is given."""
    x.mul_(3)


class Scale(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: T, factor: float) -> T:
        return x.exp() * factor

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class Special(nn.Module):
    """A submodule with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x: T) -> T:
        return (x * self.weight).tanh()


class Net(nn.Module):
    """All of them."""

    def __init__(self) -> None:
        super().__init__()
        self.special = Special()

    def forward(self, x: T) -> T:
        return self.special(squares(x, 2.0)) + Scale.apply(x, 0.5)


X, Y = torch.randn(3, 4), torch.randn(5, 4)


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """Targets to forget afterwards."""
    targets: list[Any] = []
    yield targets
    for target in targets:
        translations.forget(target)


def test_unknown_ones_are_traced_through() -> None:
    """An operator with Python of its own, an autograd function."""
    captured = parity(Net(), (X,), (Y,))
    assert not {n.domain for n in captured.model.graph if n.domain}


def test_what_cannot_be_traced_names_its_line() -> None:
    """NumPy inside an operator; an operator that torch does not know either."""
    with pytest.raises(ExportError, match=r"opaque\(x\)(.|\n)*ingot\.translate"):
        ingot.export(lambda x: opaque(x), (X,))
    library = torch.library.Library("ingot_tests_2", "DEF")
    library.define("nothing(Tensor x) -> Tensor")
    with pytest.raises(MissingOperatorError, match=r"ingot\.translate"):
        ingot.export(lambda x: torch.ops.ingot_tests_2.nothing(x), (X,))


def test_to_operators_of_onnx(told: list[Any]) -> None:
    """A function that writes nodes: values in the place of tensors, numbers as constants."""
    told += [squares, Scale, Special, "ingot_tests::opaque"]

    @ingot.translate(squares)
    def written(op: Any, x: Any, factor: float, shift: Any = None) -> Any:
        y = op.Mul(op.Pow(x, 2), factor)
        return y if shift is None else op.Add(y, shift)

    @ingot.translate(Special)
    def of_module(op: Any, module: Special, x: Any) -> Any:
        return op.Tanh(op.Mul(x, module.weight.detach().numpy()))

    ingot.translate(Scale, lambda op, x, factor: op.Mul(op.Exp(x), factor))
    captured = parity(Net(), (X,), (Y,))
    assert op_types(captured).count("Pow") == 1
    assert callable(written) and callable(of_module)
    ingot.translate("ingot_tests::opaque", lambda op, x: op.Identity(x))
    assert op_types(parity(lambda x: opaque(x) * 0, (X,)))[0] == "Identity"


def test_to_a_node_of_another_domain(told: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Tensors are inputs, other arguments attributes; nothing here runs it, and that is said."""
    told += [torch.ops.ingot_tests.squares, Scale, Special]
    ingot.translate(torch.ops.ingot_tests.squares, "com.acme::Squares")
    ingot.translate(Scale, "com.acme::Scale")
    net = Net()
    told.append(net.special)
    ingot.translate(net.special, "com.acme::Special")
    program = ingot.export(net, (X,))
    nodes = {n.op_type: n for n in program.model.graph if n.domain == "com.acme"}
    assert set(nodes) == {"Squares", "Scale", "Special"}
    assert nodes["Squares"].attributes["factor"].as_float() == 2.0
    assert nodes["Scale"].attributes["factor"].as_float() == 0.5
    assert [d if isinstance(d, int) else d.value for d in nodes["Special"].outputs[0].shape] == ["x_batch", 4]
    assert program.model.graph.opset_imports["com.acme"] == 1
    assert "not verified: nodes of com.acme" in capsys.readouterr().err


def test_to_other_torch_calls(told: list[Any]) -> None:
    """A function of tensors in the target's place."""
    told += [opaque, Scale, Special]

    def sinc(x: T) -> T:
        return torch.where(x == 0, 1.0, torch.sin(torch.pi * x) / (torch.pi * x))

    ingot.translate(opaque, sinc)
    x = np.array([0.0, 0.5, -1.25], np.float32)
    program = ingot.export(lambda x: opaque(x), (torch.from_numpy(x),))
    np.testing.assert_allclose(program(x), np.sinc(x), atol=1e-6)
    ingot.translate(Scale, lambda x, factor: torch.exp(x) * factor)
    ingot.translate(Special, lambda module, x: torch.tanh(x * module.weight))
    parity(Net(), (X,), (Y,))


@pytest.mark.parametrize("name", ["ingot_tests::opaqe", "ingot_test::opaque", "aten::sofmax"])
def test_an_operator_that_is_not_there(told: list[Any], name: str) -> None:
    """It may come later, with its library, but not after the export."""
    told.append(name)
    ingot.translate(name, lambda op, x: op.Identity(x))
    near = "softmax" if "aten" in name else "ingot_tests::opaque"
    with pytest.raises(ExportError, match=f"told of '{name}'.* has no such operator; it has .*{near}"):
        ingot.export(lambda x: x + 1, (X,))


def test_wrong_translations(told: list[Any]) -> None:
    """What is no target, no translation, or returns something else than values."""
    with pytest.raises(ExportError, match="cannot be translated"):
        ingot.translate(3, "a::B")
    for no_name in ("NoDomain", "a b::C", "a::b c"):
        with pytest.raises(ExportError, match="wanted 'domain::Name' or a function"):
            ingot.translate("a::b", no_name)
    with pytest.raises(ExportError, match="near ones are Relu"):
        ingot.translate("a::b", "ai.onnx::Reluu")
    told.append(squares)
    for wrong in (lambda op, x: x, lambda x: x):
        ingot.translate(squares, wrong)
        with pytest.raises(
            ExportError, match=r"squares\(x, 1\.0\)(.|\n)*too many positional(.|\n)*same parameters"
        ):
            ingot.export(lambda x: squares(x, 1.0), (X,))
    ingot.translate(squares, lambda op, x, factor: (x, x))
    with pytest.raises(ExportError, match=r"wanted 1 value\(s\)"):
        ingot.export(lambda x: squares(x, 1.0), (X,))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda op, x, factor: op.Addd(x, 1), "Addd is no operator of ONNX; near ones are Add"),
        (lambda op, x, factor: op.relu(x), "relu is no operator of ONNX; near ones are Relu"),
        (lambda op, x, factor: op.LeakyRelu(x, slope=0.1), "has no attribute 'slope'; it has alpha"),
        (lambda op, x, factor: op.LeakyRelu(x, alpha="0.1"), "'alpha' of LeakyRelu is '0.1'; wanted FLOAT"),
        (lambda op, x, factor: op.LeakyRelu(x, alpha={}), "which no attribute of a node can be"),
        (lambda op, x, factor: op.Relu(x, x), r"has 1 input\(s\), and this node has 2"),
        (lambda op, x, factor: op.Add(x), r"has 2 input\(s\), and this node has 1"),
        (lambda op, x, factor: op.Relu(x, outputs=2)[0], r"has 1 output\(s\), and this node has 2"),
        (lambda op, x, factor: op.Relu(x, outputs="1"), "wanted their number"),
        (lambda op, x, factor: op.Cast(x), "wants the attribute 'to'"),
        (lambda op, x, factor: op.Own(x, domain="my domain"), "wanted 'domain::Name'"),
        (lambda op, x, factor: op.TensorScatter(x, x, x), "no operator of opset 20"),
        ("ai.onnx::Relu", r"has no attribute 'factor'"),
    ],
)
def test_nodes_that_onnx_does_not_know(told: list[Any], wrong: Any, message: str) -> None:
    """Misspelt operators and attributes are refused when they are written, with what was meant."""
    told.append(squares)
    ingot.translate(squares, wrong)
    with pytest.raises(ExportError, match=message):
        ingot.export(lambda x: squares(x, 1.0), (X,))


def test_whole_numbers_for_attributes_of_floats(told: list[Any]) -> None:
    """They are written as floats, which ONNX wants."""
    told.append(squares)
    ingot.translate(squares, lambda op, x, factor: op.LeakyRelu(x, alpha=2))
    captured = ingot.export(lambda x: squares(x, 1.0), (X,), verify=False)
    (node,) = captured.model.graph
    assert node.attributes["alpha"].type == ir.AttributeType.FLOAT


def test_translations_that_fail(told: list[Any]) -> None:
    """What they raise, what is no input of a node, results of unknown shape: with the line and the remedy."""
    told += [squares, Special]
    rows: list[tuple[Any, str]] = [
        (lambda op, x, factor: torch.relu(x), "TypeError: relu(.|\n)*writes nodes with op"),
        (lambda op, x, factor: op.Reshape(x, [-1, x.shape[0]]), r"SymbolicDim(.|\n)*op\.Shape"),
    ]
    for wrong, message in rows:
        ingot.translate(squares, wrong)
        with pytest.raises(ExportError, match=rf"squares\(x, 1\.0\)(.|\n)*{message}"):
            ingot.export(lambda x: squares(x, 1.0), (X,))

    class Sorts(nn.Module):
        def forward(self, x: T) -> T:
            return torch.from_numpy(np.sort(x.numpy()))

    told.append(Sorts)

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sorts = Sorts()

        def forward(self, x: T) -> T:
            return self.sorts(x)

    ingot.translate(Sorts, lambda op, module, x: op.TopK(x, [4], largest=0, outputs=2)[0])
    with pytest.raises(ExportError, match=r"sorts\(x\)(.|\n)*\.numpy\(\)(.|\n)*like=f"):
        ingot.export(Calls(), (X,))


def test_operators_that_write_into_their_arguments(told: list[Any]) -> None:
    """Their new values come behind the results: seen by whoever reads the tensor afterwards, or a view."""
    told.append(tripled)

    def f(x: T) -> T:
        y = x * 1
        first = y[0]
        tripled(y)
        return first + y

    parity(f, (X,), (Y,))
    ingot.translate(tripled, lambda op, x: op.Mul(x, 3))
    captured = parity(f, (X,), (Y,))
    assert op_types(captured).count("Mul") == 2
    ingot.translate(tripled, lambda op, x: ())
    with pytest.raises(ExportError, match=r"wanted 1 value\(s\)"):
        ingot.export(f, (X,))


def read_by(node: ir.Node) -> list[str]:
    """What makes each input of a node; nothing for one that is left out."""
    makers = [None if v is None else v.producer() for v in node.inputs]
    return [
        "" if v is None else v.name if made is None else made.op_type
        for v, made in zip(node.inputs, makers, strict=True)
    ]


def own_node(model: Any, args: tuple[Any, ...]) -> ir.Node:
    """The one node of com.acme in an export."""
    (node,) = [n for n in ingot.export(model, args).model.graph if n.domain == "com.acme"]
    return node


def test_inputs_stand_in_the_order_of_the_parameters(told: list[Any]) -> None:
    """However the call passes them, and as many as it has; attributes have the names of their parameters."""

    class Masked(nn.Module):
        def forward(self, x: T, mask: T, *more: T, scale: float = 1.0) -> T:
            return x * mask * scale + sum(more)

    class Paired(nn.Module):
        def forward(self, x: T, pair: tuple[T, float]) -> T:
            return x * pair[0] * pair[1]

    class Added(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: T, shift: float) -> T:
            return x + shift

    class New(torch.autograd.Function):
        @staticmethod
        def forward(x: T, shift: float) -> T:
            return x + shift

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

    class Calls(nn.Module):
        def __init__(self, part: nn.Module, call: Any) -> None:
            super().__init__()
            self.part, self.call = part, call

        def forward(self, x: T) -> T:
            return self.call(self.part, x)

    told += [Masked, Paired, Added, New]
    ingot.translate(Masked, "com.acme::Masked")
    node = own_node(Calls(Masked(), lambda m, x: m(mask=x.exp(), scale=2.0, x=x.neg())), (X,))
    assert read_by(node) == ["Neg", "Exp"] and node.attributes["scale"].as_float() == 2.0
    node = own_node(Calls(Masked(), lambda m, x: m(x.neg(), x.exp(), x.abs(), x.sqrt())), (X,))
    assert read_by(node) == ["Neg", "Exp", "Abs", "Sqrt"] and not node.attributes
    for function in (Added, New):
        ingot.translate(function, "com.acme::Added")
        node = own_node(lambda x, f=function: f.apply(x, 3.0), (X,))
        assert read_by(node) == ["x"] and node.attributes["shift"].as_float() == 3.0
    ingot.translate(Paired, "com.acme::Paired")
    with pytest.raises(ExportError, match=r"'pair' of com\.acme::Paired has tensors in it and other values"):
        ingot.export(Calls(Paired(), lambda m, x: m(x, (x, 2.0))), (X,))


def test_a_tensor_that_is_left_out_keeps_its_place(told: list[Any]) -> None:
    """Of an operator, which says that it is optional: those behind it are where they were."""
    library = torch.library.Library("ingot_tests_3", "DEF")
    library.define("biased(Tensor x, Tensor? mask=None, Tensor? bias=None, *, float by=1.0) -> Tensor")
    library.impl("biased", lambda x, mask=None, bias=None, by=1.0: torch.empty_like(x), "Meta")
    biased = torch.ops.ingot_tests_3.biased
    told.append("ingot_tests_3::biased")
    ingot.translate("ingot_tests_3::biased", "com.acme::Biased")
    assert read_by(own_node(lambda x: biased(x, None, x.exp()), (X,))) == ["x", "", "Exp"]
    assert read_by(own_node(lambda x: biased(bias=x.exp(), x=x.neg(), by=2.0), (X,))) == ["Neg", "", "Exp"]
    assert read_by(own_node(lambda x: biased(x, x.exp()), (X,))) == ["x", "Exp"]


def test_results_in_structures_and_arguments_of_any_name(told: list[Any]) -> None:
    """A module that returns tuples in tuples; an argument `n` as an attribute."""

    class Nested(nn.Module):
        def forward(self, x: T, n: int = 2) -> Any:
            return x * n, {"sum": x + n, "same": (x,)}

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nested = Nested()

        def forward(self, x: T) -> T:
            first, rest = self.nested(x, n=3)
            return first * rest["sum"] - rest["same"][0]

    told += [Nested, Scale]
    ingot.translate(Nested, lambda op, m, x, n: (op.Mul(x, n), {"sum": op.Add(x, n), "same": (x,)}))
    parity(Calls(), (X,), (Y,))
    ingot.translate(Nested, "com.acme::Nested")
    node = next(iter(ingot.export(Calls(), (X,)).model.graph))
    assert node.op_type == "Nested" and node.attributes["n"].as_int() == 3 and len(node.outputs) == 3


def squared() -> ir.Function:
    """x * x * factor + shift as a function of ONNX, with an attribute."""
    text = """<domain: "com.acme", opset_import: ["" : 20]>
        Squared <factor>(x, shift) => (y) {
            f = Constant <value_float: float = @factor>()
            twice = Mul(x, x)
            scaled = Mul(twice, f)
            y = Add(scaled, shift)
        }"""
    return ir.from_proto(onnx.parser.parse_function(text))


def test_to_an_onnx_function(told: list[Any], tmp_path: Path) -> None:
    """Calls of one function, which the model contains: verified, and run by others."""
    told += [squares, Special]
    ingot.translate(squares, ir.to_proto(squared()))

    @ingot.translate(Special)
    def special(op: Any, module: Special, x: Any) -> Any:
        function = onnx.parser.parse_function("""<domain: "com.acme", opset_import: ["" : 20]>
            Special(x, w) => (y) { xw = Mul(x, w) y = Tanh(xw) }""")
        return op(function, x, module.weight.detach().numpy())

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.special = Special()

        def forward(self, x: T, s: T) -> T:
            return self.special(squares(x, 2.0, s) + squares(s, 3.0, x))

    net = Calls()
    program = ingot.export(net, (X, X))
    assert callable(special)
    assert [n.op_type for n in program.model.graph] == ["Squared", "Squared", "Add", "Special"]
    assert sorted(f.name for f in program.model.functions.values()) == ["Special", "Squared"]
    assert program.verification is not None
    path = tmp_path / "squared.onnx"
    program.save(path)
    onnx.checker.check_model(path, full_check=True)
    x, s = Y, torch.randn(5, 4)
    want = net(x, s).detach().numpy()
    feeds = {"x": x.numpy(), "s": s.numpy()}
    for got in (ort.InferenceSession(path).run(None, feeds)[0], program(x, s)):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_onnx_functions_that_do_not_fit(told: list[Any]) -> None:
    """Another number of inputs or outputs, an attribute that it lacks, two of one name."""
    told += [squares, "ingot_tests::opaque"]
    one = onnx.parser.parse_function("""<domain: "com.acme", opset_import: ["" : 20]>
        Squared(x) => (y) { y = Mul(x, x) }""")
    ingot.translate(squares, one)
    with pytest.raises(ExportError, match="no attribute 'factor'"):
        ingot.export(lambda x: squares(x, 2.0), (X,))
    ingot.translate("ingot_tests::opaque", one)
    ingot.translate(squares, squared())
    with pytest.raises(ExportError, match=r"two ONNX functions are called com\.acme::Squared"):
        ingot.export(lambda x: squares(opaque(x), 2.0, x), (X,))
    two = onnx.parser.parse_function("""<domain: "com.acme", opset_import: ["" : 20]>
        Two(x) => (y, z) { y = Mul(x, x) z = Neg(x) }""")
    ingot.translate("ingot_tests::opaque", two)
    with pytest.raises(ExportError, match=r"2 output\(s\)(.|\n)*gives 1"):
        ingot.export(lambda x: opaque(x), (X,))


def test_an_onnx_function_of_another_opset(told: list[Any]) -> None:
    """Right where its operators are the same; else what to do is said."""
    told.append("ingot_tests::opaque")
    function = onnx.parser.parse_function("""<domain: "com.acme", opset_import: ["" : 18]>
        Twice(x) => (y) { y = Add(x, x) }""")
    ingot.translate("ingot_tests::opaque", function)
    program = ingot.export(lambda x: opaque(x), (X,), verify=False)
    onnx.checker.check_model(ir.to_proto(program.model), full_check=True)
    np.testing.assert_array_equal(program(Y), 2 * Y)
    function.node[0].CopyFrom(onnx.helper.make_node("Gelu", ["x"], ["y"]))
    function.opset_import[0].version = 20
    ingot.translate("ingot_tests::opaque", function)
    with pytest.raises(ExportError, match="Gelu of opset 20, and the model opset 18"):
        ingot.export(lambda x: opaque(x), (X,), opset_version=18)


def test_the_whole_way_of_a_custom_operator(
    told: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch.library to a node of its own domain to register_op: exported, verified, saved, run."""
    told.append(opaque)
    ingot.translate(opaque, "com.acme.whole::Sinc")
    program = ingot.export(lambda x: opaque(x) + 1, (X,))
    assert program.verification is None
    assert "ingot.register_op" in capsys.readouterr().err
    ingot.register_op("com.acme.whole", "Sinc", np.sinc, shape=lambda x: (x.dtype, x.shape))
    program = ingot.export(lambda x: opaque(x) + 1, (X,), tmp_path / "sinc.onnx")
    assert program.verification is not None
    assert "not verified" not in capsys.readouterr().err
    session = ingot.InferenceSession(tmp_path / "sinc.onnx")
    got = session.run(None, {"x": Y.numpy()})[0]
    np.testing.assert_allclose(got, np.sinc(Y.numpy()) + 1, rtol=1e-6)
    ingot.register_op("com.acme.whole", "Sinc", lambda x: x * 2, replace=True)
    with pytest.raises(VerificationError):
        ingot.export(lambda x: opaque(x) + 1, (X,))
