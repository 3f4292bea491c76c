"""Whole graphs through the plain definitions: control flow with values from outside, and errors by name."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from ingot.errors import InputError, UnsupportedOperatorError
from ingot.ops.interpreter import interpret
from ingot.ops.registry import find
from tests.ops.onnx_cases import Case, assert_same, cases


def parse(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 25]>\n{text}'))


# Older versions have another meaning (Scan-8) or old operators in the body (Loop-11): the opset pass sees
# to them.
CONTROL = [
    c
    for c in cases(any_version=True)
    if c.node.op_type in ("If", "Loop", "Scan") and c.name not in ("test_loop11", "test_scan_sum")
]


@pytest.mark.parametrize("case", CONTROL, ids=lambda c: c.name)
def test_control_flow_cases(case: Case) -> None:
    given = dict(zip([v.name for v in case.model.graph.inputs], case.inputs, strict=False))
    got = interpret(case.model, given)
    for array, want in zip(got.values(), case.outputs, strict=True):
        if isinstance(want, np.ndarray):
            assert_same(array, want, case.rtol, case.atol)


def test_branches_see_the_values_around_them() -> None:
    model = parse("""
        g (float[N] x, bool c) => (float[N] y) {
            t = Add(x, x)
            y = If (c) <then_branch = a () => (float[N] u) { u = Mul(t, t) },
                        else_branch = b () => (float[N] v) { v = Neg(t) }>
        }""")
    x = np.array([1.0, -2.0], np.float32)
    np.testing.assert_array_equal(interpret(model, {"x": x, "c": np.array(True)})["y"], 4 * x * x)
    np.testing.assert_array_equal(interpret(model, {"x": x, "c": np.array(False)})["y"], -2 * x)


def test_loop_carries_and_stacks() -> None:
    model = parse("""
        g (int64 n, float x) => (float last, float[K] all) {
            c = Constant <value = bool {1}> ()
            last, all = Loop (n, c, x)
                <body = b (int64 i, bool go, float s) => (bool go_on, float s2, float row) {
                go_on = Identity(go)
                s2 = Add(s, s)
                row = Identity(s2)
            }>
        }""")
    got = interpret(model, {"n": np.array(3), "x": np.array(1.0, np.float32)})
    assert got["last"] == 8.0
    np.testing.assert_array_equal(got["all"], [2, 4, 8])
    assert interpret(model, {"n": np.array(0), "x": np.array(1.0, np.float32)})["all"].shape == (0,)


def test_wanted_values() -> None:
    model = parse("g (float[N] x) => (float[N] y) { t = Neg(x) y = Abs(t) }")
    assert list(interpret(model, {"x": np.ones(2, np.float32)}, ["t"])) == ["t"]


def test_missing_input_is_named() -> None:
    model = parse("g (float[N] x) => (float[N] y) { y = Abs(x) }")
    with pytest.raises(InputError, match="'x' is missing"):
        interpret(model, {})


def test_unknown_operator_is_named() -> None:
    node = ir.Node("com.example", "Frobnicate", [None], name="stem/frob", version=3)
    with pytest.raises(UnsupportedOperatorError, match=r"com\.example\.Frobnicate 'stem/frob' \(opset 3\)"):
        find(node.domain, node.op_type, node)
