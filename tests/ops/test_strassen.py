"""Which products of a model take Strassen's scheme, and the session option that says how much memory it may
take.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

import ingot

DEPTH = 256


def layers(count: int) -> tuple[bytes, list[np.ndarray]]:
    """x @ w0 @ w1 …, each of DEPTH × DEPTH, for any number of rows."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((DEPTH, DEPTH)) / DEPTH**0.5).astype(np.float32) for _ in range(count)]
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(count)],
        "g",
        [helper.make_tensor_value_info("x", 1, ["rows", DEPTH])],
        [helper.make_tensor_value_info("y", 1, ["rows", DEPTH])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    opsets = [helper.make_opsetid("", 22)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString(), weights


def session(model: bytes, memory: int, threads: int = 1) -> ingot.InferenceSession:
    options = ingot.SessionOptions()
    options.intra_op_num_threads, options.strassen_memory = threads, memory
    options.enable_amx = False  # which the scheme is not used beside
    return ingot.InferenceSession(model, options)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, DEPTH)).astype(np.float32)


def kernels(opened: ingot.InferenceSession, x: np.ndarray) -> list[str]:
    """What computes each product."""
    found = [p.kernel.rsplit(".", 1)[-1] for p in opened.profile_kernels({"x": x}, 1)]
    return [name for name in found if name in ("gemm", "strassen")]


def test_the_option_says_how_many_products_take_it() -> None:
    """The first ones, as far as the memory goes, 2 MiB at least; of few rows none does, and what was decided
    stays.
    """
    model, weights = layers(20)
    assert sum(w.nbytes for w in weights) == 5 << 20
    large, small = rows(100), rows(8)
    for memory, count in ((0, 0), (1, 8), (40, 8), (59, 11), (60, 12), (100, 20)):
        opened = session(model, memory)
        for _ in range(2):
            assert kernels(opened, large) == ["strassen"] * count + ["gemm"] * (20 - count)
        assert kernels(opened, small) == ["gemm"] * 20
        other = rows(60)
        assert kernels(opened, other) == ["strassen"] * count + ["gemm"] * (20 - count)
    assert ingot.SessionOptions().strassen_memory == 40


@pytest.mark.parametrize("count", [36, 37, 100, 203])
def test_it_is_right_and_no_thread_changes_a_bit(count: int) -> None:
    model, weights = layers(2)
    x = rows(count)
    wanted = x.astype(np.float64) @ weights[0].astype(np.float64) @ weights[1].astype(np.float64)
    (y,) = session(model, 100).run(None, {"x": x})
    (usual,) = session(model, 0).run(None, {"x": x})
    assert np.abs(y - wanted).max() < 5e-6 * np.abs(wanted).max()
    assert not np.array_equal(y, usual), "both ways round alike: is it taken?"
    for threads in (2, 3, 4):
        np.testing.assert_array_equal(session(model, 100, threads).run(None, {"x": x})[0], y)


def test_what_is_not_finite_stays_in_its_rows() -> None:
    model, _ = layers(1)
    x = rows(150)
    x[3, 5], x[77, 0], x[149, 255] = np.nan, np.inf, -np.inf
    for threads in (1, 2):
        (y,) = session(model, 100, threads).run(None, {"x": x})
        (usual,) = session(model, 0, threads).run(None, {"x": x})
        assert np.array_equal(np.isnan(y), np.isnan(usual))
        assert np.array_equal(y[[77, 149]], usual[[77, 149]], equal_nan=True)


@pytest.mark.parametrize("layout", [0, 1])
def test_the_inputs_of_a_recurrent_layer_take_it(layout: int) -> None:
    """In either order of sequences and steps; of few of them together they do not."""
    rng, hidden = np.random.default_rng(2), 128
    w, r = (rng.standard_normal((1, 4 * hidden, n)).astype(np.float32) / 16 for n in (DEPTH, hidden))
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=hidden, layout=layout)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["a", "b", DEPTH])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(r, "r")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    by_sums, usual = (session(model.SerializeToString(), memory) for memory in (100, 0))
    for shape in ((7, 9), (5, 7), (40, 1), (1, 40)):
        kernel = "gemm" if shape == (5, 7) else "strassen"
        x = rng.standard_normal((*shape, DEPTH)).astype(np.float32)
        assert kernels(by_sums, x) == [kernel], shape
        got, wanted = by_sums.run(None, {"x": x})[0], usual.run(None, {"x": x})[0]
        assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max(), shape


def test_many_numbers_of_rows_in_one_session() -> None:
    """Plans of other sizes, by recipes too, are those that a new session would make."""
    model, _ = layers(3)
    opened = session(model, 70, 2)
    for count in (40, 90, 36, 35, 300, 1, 64, 65, 66, 201, 120, 500):
        x = rows(count)
        np.testing.assert_array_equal(
            opened.run(None, {"x": x})[0], session(model, 70, 1).run(None, {"x": x})[0]
        )
