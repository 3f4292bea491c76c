"""profile() and profile_kernels(): every step is there, with what it moves and computes."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import ingot
from ingot.compiler.plan import Row
from ingot.runtime import driver
from ingot.runtime.profile import moved_bytes

IF = """<ir_version: 10, opset_import: ["" : 20]>
g (float size, float[n, 4] x, float[4, 4] w) => (float[n, 4] y) {
    one = Constant<value_float = 1.0>()
    which = Greater(size, one)
    y = If(which) <
        then_branch = a () => (float[n, 4] p) { p = MatMul(x, w) },
        else_branch = b () => (float[n, 4] q) { q = Relu(x) }
    >
}"""


def test_kernels_name_what_they_cost() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    g (float[n, 8] x, float[8, 16] w, float[n, 16] z) => (float[n, 16] y) {
        p = MatMul(x, w)
        y = Add(p, z)
    }"""
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    arrays = {"x": np.ones((64, 8), "f"), "w": np.ones((8, 16), "f"), "z": np.ones((64, 16), "f")}
    kernels = session.profile_kernels(arrays, rounds=3)
    product = max(kernels, key=lambda kernel: kernel.flops)
    assert product.flops >= 2 * 64 * 8 * 16
    assert product.nbytes >= 4 * 64 * (8 + 16)
    assert all(kernel.milliseconds > 0 and kernel.kernel != "host" for kernel in kernels)
    nodes = session.profile(arrays, rounds=3)
    assert [node.op_type for node in nodes] == ["MatMul", "Add"]
    assert nodes[0].kind == "native"


def test_bodies_of_control_flow_show_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver runs them: the branches' shapes differ, and no more of them are planned."""
    monkeypatch.setattr(driver, "MOST_DEPTH", 0)
    text = IF.replace("q = Relu(x)", "q = Concat<axis = 0>(x, x)")
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    feed = {"size": np.array(2, "f"), "x": np.ones((64, 4), "f"), "w": np.ones((4, 4), "f")}
    steps = session.profile_kernels(feed, rounds=2)
    assert [step.label for step in steps if step.kernel == "host"] == ["If"]
    assert any(step.flops >= 2 * 64 * 16 for step in steps)
    *_, node = session.profile(feed, rounds=2)
    assert node.op_type == "If"
    assert node.kind == "host"
    assert node.milliseconds is not None


def test_branches_of_a_stage_of_their_own_show_their_nodes() -> None:
    text = IF.replace("q = Relu(x)", "q = Concat<axis = 0>(x, x)")
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    feed = {"size": np.array(2, "f"), "x": np.ones((64, 4), "f"), "w": np.ones((4, 4), "f")}
    assert "host" not in {step.kernel for step in session.profile_kernels(feed, rounds=2)}
    assert "MatMul" in {node.op_type for node in session.profile(feed, rounds=2)}


def test_bodies_that_are_part_of_the_plan_are_a_step() -> None:
    session = ingot.InferenceSession(onnx.parser.parse_model(IF))
    feed = {"size": np.array(2, "f"), "x": np.ones((64, 4), "f"), "w": np.ones((4, 4), "f")}
    *_, step = session.profile_kernels(feed, rounds=2)
    assert (step.kernel, step.label) == ("kernels.control._branch", "branch")
    *_, node = session.profile(feed, rounds=2)
    assert (node.op_type, node.kind) == ("If", "native")
    assert node.milliseconds is not None


def test_branches_that_are_part_of_the_plan_show_their_nodes() -> None:
    text = IF.replace("float size", "bool which").replace("which = Greater(size, one)", "")
    session = ingot.InferenceSession(onnx.parser.parse_model(text))
    feed = {"which": np.array(True), "x": np.ones((64, 4), "f"), "w": np.ones((4, 4), "f")}
    assert "host" not in {step.kernel for step in session.profile_kernels(feed, rounds=2)}
    kinds = [(node.op_type, node.kind) for node in session.profile(feed, rounds=2)]
    assert kinds[0] == ("MatMul", "native")
    feed["which"] = np.array(False)
    kinds = [(node.op_type, node.kind) for node in session.profile(feed, rounds=2)]
    assert kinds[0] == ("Relu", "native")


def test_moved_bytes_count_each_element_once() -> None:
    whole, row = (4, (8, 16), (16, 1), 0, 0), (4, (8, 16), (0, 1), 0, 512)  # one row, repeated
    assert moved_bytes(Row("kernel", "", (0,), 0, (whole, whole, row))) == 4 * (8 * 16 + 16)
    assert moved_bytes(Row("kernel", "", (0,), 0, ((4, (0, 16), (16, 1), 0, 0),))) == 0
