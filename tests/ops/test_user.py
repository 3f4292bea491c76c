"""`register_op`: a user's own operators in sessions, in the interpreter, among kernels; what is refused."""
# ruff: noqa: ARG005

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import ingot
from ingot.ops.interpreter import interpret
from ingot.ops.registry import Facts

_numbers = itertools.count()
X = np.array([[-2.0, 0.5, 3.0]], np.float32)


def fresh_name() -> str:
    return f"Op{next(_numbers)}"


def same(x: Any, **_: Any) -> tuple[Any, Any]:
    return x.dtype, x.shape


def model(name: str, attributes: str = "", domain: str = "com.example") -> onnx.ModelProto:
    """y = Relu(op(x + x))."""
    return onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20, "{domain}" : 1]>
        g (float[N, 3] x) => (float[N, 3] y) {{
            s = Add(x, x)
            t = {domain}.{name} {attributes}(s)
            y = Relu(t)
        }}""")


def test_with_a_shape_function_it_is_a_step_of_the_plan() -> None:
    name, asked = fresh_name(), list[Any]()

    @ingot.register_op("com.example", name, shape=lambda x, low=0.0, high=1.0: asked.append(x) or same(x))
    def clamp(x: np.ndarray, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Between two numbers."""
        return np.clip(x, low, high)

    assert clamp(np.array([3.0])) == 1.0  # the decorator leaves the function as it is
    session = ingot.InferenceSession(model(name, "<high: float = 2.5>"))
    for rows in (1, 3, 0):
        x = np.repeat(X, rows, 0)
        (y,) = session.run(None, {"x": x})
        np.testing.assert_array_equal(y, np.clip(2 * x, 0, 2.5))
    assert all(isinstance(facts, Facts) for facts in asked)
    profile = {node.op_type: node.kind for node in session.profile({"x": X}, 1)}
    assert profile == {"Add": "native", name: "host", "Relu": "native"}


def test_without_a_shape_function_the_session_goes_on_after_it() -> None:
    name = fresh_name()
    ingot.register_op("com.example", name, lambda x: x[x[:, 0] > 0])
    session = ingot.InferenceSession(model(name))
    for rows in ([[1, 2, 3]], [[1, 2, 3], [-1, 0, 0], [4, -5, 6]], [[-1, 0, 0]]):
        x = np.array(rows, np.float32)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(2 * x[x[:, 0] > 0], 0))


def test_several_outputs_and_optional_inputs() -> None:
    name = fresh_name()

    def function(x: np.ndarray, bias: np.ndarray | None, scale: np.ndarray) -> tuple[np.ndarray, ...]:
        assert bias is None
        return x * scale, x.sum(1), np.array(["unused"])

    ingot.register_op(
        "com.example",
        name,
        function,
        shape=lambda x, b, s: [same(x), (np.float32, x.shape[:1]), (object, (1,))],
    )
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]>
        g (float[N, 3] x, float s) => (float[N, 3] y, float[N] total) {{
            y, total = com.example.{name} (x, , s)
        }}""")
    y, total = ingot.InferenceSession(proto).run(None, {"x": X, "s": np.float32(3)})
    np.testing.assert_array_equal(y, 3 * X)
    np.testing.assert_array_equal(total, X.sum(1))


def test_attributes_of_every_kind() -> None:
    name, seen = fresh_name(), dict[str, Any]()

    def function(x: np.ndarray, **attributes: Any) -> np.ndarray:
        seen.update(attributes)
        return x

    ingot.register_op("com.example", name, function, shape=same)
    attributes = '<i: int = 3, f: float = 0.5, s = "text", l = [1, 2], t = float[2] {1, 2}, w = ["a", "b"]>'
    ingot.InferenceSession(model(name, attributes)).run(None, {"x": X})
    np.testing.assert_array_equal(seen.pop("t"), np.array([1, 2], np.float32))
    assert seen == {"i": 3, "f": 0.5, "s": "text", "l": [1, 2], "w": ["a", "b"]}


def test_strings_and_subgraphs() -> None:
    name = fresh_name()
    ingot.register_op("com.example", name, lambda x: np.array([str(v) for v in x.ravel()]))
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]>
        g (float[N] x, bool c) => (string[M] y) {{
            y = If (c) <then_branch = a () => (string[M] u) {{ u = com.example.{name}(x) }},
                        else_branch = b () => (string[M] v) {{ n = Neg(x) v = com.example.{name}(n) }}>
        }}""")
    session = ingot.InferenceSession(proto)
    assert session.run(None, {"x": X[0], "c": np.array(False)})[0].tolist() == ["2.0", "-0.5", "-3.0"]


def test_the_interpreter_and_inspect_know_it() -> None:
    name = fresh_name()
    ingot.register_op("com.example", name, lambda x: x - 1, shape=same)
    proto = model(name)
    np.testing.assert_array_equal(interpret(ir.from_proto(proto), {"x": X})["y"], np.maximum(2 * X - 1, 0))
    optimised = ingot.optimize(proto)
    np.testing.assert_array_equal(
        ingot.InferenceSession(optimised).run(None, {"x": X})[0], np.maximum(2 * X - 1, 0)
    )


def test_a_random_operator_is_drawn_in_every_run() -> None:
    name, turns = fresh_name(), itertools.count()
    ingot.register_op("com.example", name, lambda x: x * 0 + next(turns), shape=same, random=True)
    proto = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]>
        g () => (float[2] y) {{
            c = Constant <value = float[2] {{1, 2}}> ()
            y = com.example.{name}(c)
        }}""")
    session = ingot.InferenceSession(proto)
    assert [session.run(None, {})[0][0] for _ in range(3)] == [0, 1, 2]


def test_what_the_function_gets_cannot_be_written_to() -> None:
    name = fresh_name()

    def function(x: np.ndarray) -> np.ndarray:
        x += 1
        return x

    ingot.register_op("com.example", name, function, shape=same)
    with pytest.raises(ingot.OperatorError, match=r"function raised ValueError: output array is read-only"):
        ingot.InferenceSession(model(name)).run(None, {"x": X})


BROKEN: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None, str]] = {
    "raises": (lambda x: x.nothing, same, "function raised AttributeError.*It was given float32 [1, 3]"),
    "wrong shape": (
        lambda x: x[:, :2],
        same,
        "is float32 [1, 2], and its shape function promised float32 [1",
    ),
    "wrong dtype": (
        lambda x: x.astype(float),
        same,
        "is float64 [1, 3], and its shape function promised float",
    ),
    "no array": (lambda x: "text", same, "output 0 of its function is of type str"),
    "nothing": (lambda x: None, None, "output 0 of its function is of type NoneType"),
    "no shape": (lambda x: x, lambda x: (x.dtype, -1), "its shape function gave"),
    "negative": (lambda x: x, lambda x: (x.dtype, [-1, 3]), "its shape function gave"),
    "bad shapes": (lambda x: x, lambda x: 1 / 0, "its shape function raised ZeroDivisionError"),
    "two outputs": (lambda x: (x, x), None, "its function gave 2 outputs, and the node has 1"),
    "one promised": (lambda x: (x, x), same, "its function gave 2 outputs, and the node has 1"),
    "numbers": (
        lambda x: [1.0, 2],
        None,
        "output 0 of its function is of type list (of float, int)",
    ),
    "no outputs": (lambda x: (), None, "its function gave 0 outputs, and the node has 1"),
    "attribute": (lambda x: x, None, "unexpected keyword argument 'a'"),
}


def test_lists_of_arrays_are_sequences_and_no_tensors() -> None:
    name = fresh_name()
    ingot.register_op("com.example", name, lambda x: [x, -x])
    text = f"""<ir_version: 10, opset_import: ["" : 20, "com.example" : 1]>
        g (float[N, 3] x) => (float[N, 3] y) {{
            parts = com.example.{name}(x) at = Constant<value_int = 1>() y = SequenceAt(parts, at)
        }}"""
    (y,) = ingot.InferenceSession(onnx.parser.parse_model(text)).run(None, {"x": X})
    np.testing.assert_array_equal(y, -X)
    tensor = text.replace("parts = ", "y = ").replace("y = SequenceAt(parts, at)", "")
    with pytest.raises(ingot.OperatorError, match=rf"{name}.*output 0 .* of type list \(of ndarray\)"):
        ingot.InferenceSession(onnx.parser.parse_model(tensor)).run(None, {"x": X})
    read = text.replace("SequenceAt(parts, at)", "Neg(parts)")
    with pytest.raises(ingot.OperatorError, match=rf"{name}.*output 0 .* of type list \(of ndarray\)"):
        ingot.InferenceSession(onnx.parser.parse_model(read)).run(None, {"x": X})


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_function_is_named(kind: str) -> None:
    function, shape, message = BROKEN[kind]
    name = fresh_name()
    ingot.register_op("com.example", name, function, shape=shape)
    session = ingot.InferenceSession(model(name, "<a: int = 1>" if kind == "attribute" else ""))
    wanted = message.replace("[", r"\[").replace("]", r"\]").replace("(", r"\(").replace(")", r"\)")
    for _ in range(2):  # the session stays usable
        with pytest.raises(ingot.OperatorError, match=rf"com\.example\.{name}.*{wanted}"):
            session.run(None, {"x": X})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("com.example", "no name", len), "is no name of an operator"),
        (("com.example", 3, len), "name is 3, and must be a string"),
        ((None, "A", len), "domain is None"),
        (("com.example", "A", 3), "must be callable"),
        (("ingot", "A", len), "the domain is Ingot's own"),
        (("", "Relu", len), "operator 'Relu' of domain 'ai.onnx' has an implementation in Ingot already"),
        (("ai.onnx", "Conv", len), "has an implementation in Ingot already"),
    ],
)
def test_a_bad_registration_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ingot.OperatorError, match=message):
        ingot.register_op(*arguments)


def test_options_that_are_refused() -> None:
    with pytest.raises(ingot.OperatorError, match="shape is 3"):
        ingot.register_op("com.example", "A", len, shape=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ingot.OperatorError, match="since is 0"):
        ingot.register_op("com.example", "A", len, since=0)


def test_an_earlier_registration_gives_way_when_asked() -> None:
    name = fresh_name()
    ingot.register_op("com.example", name, lambda x: x, shape=same)
    before = ingot.InferenceSession(model(name))
    with pytest.raises(ingot.OperatorError, match="Pass replace=True"):
        ingot.register_op("com.example", name, lambda x: x + 1, shape=same)
    ingot.register_op("com.example", name, lambda x: x + 1, shape=same, replace=True)
    after = ingot.InferenceSession(model(name))
    np.testing.assert_array_equal(before.run(None, {"x": X})[0], np.maximum(2 * X, 0))
    np.testing.assert_array_equal(after.run(None, {"x": X})[0], np.maximum(2 * X + 1, 0))


def test_an_unknown_operator_names_the_way_out() -> None:
    name = fresh_name()
    with pytest.raises(ingot.UnsupportedOperatorError, match=r"register_op"):
        ingot.InferenceSession(model(name))
    ingot.register_op("com.example", name, lambda x: x)
    ingot.InferenceSession(model(name)).run(None, {"x": X})
