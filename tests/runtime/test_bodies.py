"""If, Loop and Scan as steps of a plan give what the driver gives that runs their bodies one by one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import ingot
from ingot.compiler.bodies import Enclosing
from ingot.errors import InputError, ModelError, ShapeError
from ingot.runtime.stages import Stage

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
Feed = dict[str, np.ndarray]


def session_of(model: str | onnx.ModelProto, threads: int = 1) -> ingot.InferenceSession:
    options = ingot.SessionOptions()
    options.intra_op_num_threads = threads
    proto = onnx.parser.parse_model(HEAD + model) if isinstance(model, str) else model
    return ingot.InferenceSession(proto, options)


def is_one_plan(session: ingot.InferenceSession) -> bool:
    """Whether nothing ends a stage."""
    stages = session._driver._stages.values()  # pyright: ignore[reportPrivateUsage]
    return all(isinstance(stage, Stage) and stage.is_last for stage in stages)


def by_rounds(model: str | onnx.ModelProto, feed: Feed) -> list[np.ndarray]:
    """What the driver makes of it when no body may be part of a plan."""
    with patch.object(Enclosing, "beyond", lambda *_: None):
        session = session_of(model)
        outputs = session.run(None, feed)
        assert not is_one_plan(session)
    return outputs


def check(model: str | onnx.ModelProto, *feeds: Feed, one_plan: bool = True) -> list[np.ndarray]:
    """Equal to the last bit, for one thread and two, again and again; the last feed's outputs."""
    wanted: list[np.ndarray] = []
    sessions = [session_of(model, threads) for threads in (1, 2)]
    for feed in feeds:
        wanted = by_rounds(model, feed)
        for session in sessions:
            for _ in range(3):
                for got, want in zip(session.run(None, feed), wanted, strict=True):
                    assert got.dtype == want.dtype
                    np.testing.assert_array_equal(got, want)
    assert is_one_plan(sessions[0]) == one_plan
    return wanted


WHILE = """g (int64 n, float bound, float[k] x) => (float[k] y, int64 rounds) {
    zero = Constant<value_int = 0>()
    start = Less(zero, n)
    y, rounds = Loop(, start, x, zero) <
        body = b (int64 i, bool c, float[k] u, int64 j) => (bool d, float[k] v, int64 j2) {
            one = Constant<value_int = 1>()
            half = Constant<value_float = 0.5>()
            v = Mul(u, half)
            j2 = Add(j, one)
            most = ReduceMax<keepdims = 0>(v)
            large = Greater(most, bound)
            early = Less(j2, n)
            d = And(large, early)
        }
    >
}"""


def test_a_loop_while_a_condition_on_data_holds() -> None:
    x = np.array([1, 64, 3], np.float32)
    for n, bound, given_x, rounds in (
        (100, 1, x, 6),
        (3, 1, x, 3),
        (1, 1, x, 1),
        (0, 1, x, 0),  # false at once
        (-5, 1, x, 0),
        (100, np.nan, x, 1),
        (100, 1, np.array([np.nan, 2, 1], np.float32), 1),
        (100, -1, np.zeros(1, np.float32), 100),
    ):
        _, got = check(WHILE, {"n": np.array(n), "bound": np.array(bound, np.float32), "x": given_x})
        assert got == rounds


def test_outer_values_scanned_rows_and_trips_that_are_known() -> None:
    for trips, one_plan in ((3, True), (1, True), (0, False)):
        text = f"""g (float[k, 2] x) => (float[k, 2] y, float[t, k, 2] rows, int64[t] numbers) {{
            n = Constant<value_int = {trips}>()
            twice = Add(x, x)
            y, rows, numbers = Loop(n, , x) <
                body = b (int64 i, bool c, float[k, 2] u)
                => (bool d, float[k, 2] v, float[k, 2] row, int64 number) {{
                    d = Identity(c)
                    v = Sub(twice, u)
                    row = Neg(u)
                    number = Identity(i)
                }}
            >
        }}"""
        for k in (0, 1, 5):
            x = np.arange(2 * k, dtype=np.float32).reshape(k, 2)
            _, rows, numbers = check(text, {"x": x}, one_plan=one_plan)
            assert len(rows) == trips
            assert numbers.tolist() == list(range(trips))


def test_rows_of_no_trip_have_the_shape_and_dtype_of_rows() -> None:
    """Also where the body declares neither: what follows asks for the axes."""
    text = """g (int64 n, float[k, 2] x, int64[k, 2] z) => (int64[2, k, t] a, float[2, t, k] b) {
        y, rows = Loop(n, , x) <
            body = b (int64 i, bool c, float[k, 2] u) => (bool d, v, row) {
                d = Identity(c)
                v = Tanh(u)
                row = Add(z, i)
            }
        >
        a = Transpose<perm = [2, 1, 0]>(rows)
        none, stacked = Scan<num_scan_inputs = 1, body = e (s, r) => (s2, q) {
            s2 = Add(s, s)
            w = Cast<to = 1>(r)
            q = Mul(w, w)
        }>(x, rows)
        b = Transpose<perm = [2, 0, 1]>(stacked)
    }"""
    model = onnx.parser.parse_model(HEAD + text)
    for node in model.graph.node:
        for attribute in node.attribute:
            for value in attribute.g.output:
                value.ClearField("type")
    x, z = np.ones((3, 2), np.float32), np.arange(6).reshape(3, 2)
    for n in (0, 2):
        a, b = session_of(model).run(None, {"n": np.array(n), "x": x, "z": z})
        assert (a.dtype, a.shape, b.dtype, b.shape) == (np.int64, (2, 3, n), np.float32, (2, n, 3))


def undeclared(text: str) -> onnx.ModelProto:
    """A model with an operator of one's own, whose bodies declare nothing of their outputs."""
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20, "own" : 1]>\n' + text)
    for node in model.graph.node:
        for attribute in node.attribute:
            for value in attribute.g.output:
                value.ClearField("type")
    return model


def test_a_body_that_makes_no_trip_is_not_run() -> None:
    """Not for the shape of its rows either: they follow from those of its operators, the user's included."""
    calls: list[int] = []
    for name, shape in (("Seen", lambda x: (x.dtype, x.shape)), ("Unseen", None)):
        ingot.register_op("own", name, lambda x: calls.append(1) or x, shape=shape)
    text = """g (int64 n, float[k, 2] x) => (int64[a, b] p, float[c, 2, d] q, int64[e, f, h] r) {
        y, p, q, r = Loop(n, , x) <
            body = b (int64 i, bool c, float[k, 2] u) => (bool d, v, row, other, found) {
                d = Identity(c)
                v = own.Seen(u)
                one = Constant<value_ints = [1]>()
                two = Constant<value_ints = [2]>()
                size = Shape(v)
                row = Slice(size, one, two)
                other = Transpose<perm = [1, 0]>(v)
                found = NonZero(v)
            }
        >
    }"""
    session = session_of(undeclared(text))
    x = np.ones((3, 2), np.float32)
    p, q, r = session.run(None, {"n": np.array(0), "x": x})
    assert (p.shape, q.shape, r.shape, calls) == ((0, 1), (0, 2, 3), (0, 2, 0), [])
    assert (p.dtype, q.dtype, r.dtype) == (np.int64, np.float32, np.int64)
    p, q, r = session.run(None, {"n": np.array(1), "x": x})
    assert (p.shape, q.shape, r.shape, calls) == ((1, 1), (1, 2, 3), (1, 2, 6), [1])

    text = """g (int64 n, float[k] x) => (float[t, k] rows) {
        y, rows = Loop(n, , x) <
            body = b (int64 i, bool c, float[k] u) => (bool d, v, row) {
                d = Identity(c)
                v = Identity(u)
                row = own.Unseen(u)
            }
        >
    }"""
    session = session_of(undeclared(text))
    with pytest.raises(ModelError, match="declares no dtype for output 'row'"):
        session.run(None, {"n": np.array(0), "x": np.ones(2, np.float32)})
    assert session.run(None, {"n": np.array(2), "x": np.ones(2, np.float32)})[0].shape == (2, 2)


def test_rows_that_are_made_of_elements_have_their_dtype_where_there_are_none() -> None:
    """The body takes an element of nothing, which fits no shape; a branch is chosen by it."""
    text = """g (int64[k] x) => (bool[t] large, float[t] halves) {
        size = Shape(x)
        n = Squeeze(size)
        large, halves = Loop(n, ) <
            body = b (int64 i, bool c) => (bool d, row, half) {
                d = Identity(c)
                e = Gather(x, i)
                row = Greater(e, e)
                half = If(row) <
                    then_branch = t () => (p) { p = Cast<to = 1>(e) },
                    else_branch = o () => (q) { q = Constant<value_float = 0.5>() }
                >
            }
        >
    }"""
    session = session_of(undeclared(text))
    for size in (0, 3):
        large, halves = session.run(None, {"x": np.arange(size)})
        found = large.dtype, large.shape, halves.dtype, halves.shape
        assert found == (np.bool_, (size,), np.float32, (size,)), found


def test_a_body_that_would_never_end_is_not_run_for_no_rows() -> None:
    text = """g (float[t, 2] x) => (float[t, 2] rows) {
        rows = Scan<num_scan_inputs = 1, body = b (r) => (row) {
            zero = Constant<value_float = 0.0>()
            s = ReduceSum<keepdims = 0>(r)
            live = Equal(s, zero)
            row = Loop(, live, r) <body = inner (int64 i, bool c, u) => (d, v) {
                one = ReduceSum<keepdims = 0>(u)
                none = Constant<value_float = 0.0>()
                d = Equal(one, none)
                v = Identity(u)
            }>
        }>(x)
    }"""
    (rows,) = session_of(undeclared(text)).run(None, {"x": np.zeros((0, 2), np.float32)})
    assert (rows.dtype, rows.shape) == (np.float32, (0, 2))


def test_rows_of_several_shapes_are_refused() -> None:
    text = """g (int64 n, float[k] x) => (float[m] y, float[t, r] rows) {
        y, rows = Loop(n, , x) <
            body = b (int64 i, bool c, float[p] u) => (bool d, float[q] v, float[q] row) {
                d = Identity(c)
                v = Concat<axis = 0>(u, x)
                row = Identity(v)
            }
        >
    }"""
    session = session_of(text)
    with pytest.raises(ShapeError, match="rows of shapes"):
        session.run(None, {"n": np.array(2), "x": np.ones(2, np.float32)})


def test_values_that_change_places() -> None:
    """What is carried is read by all before any of it is written."""
    text = """g (int64 n, float[k] a, float[k] b, float[k] c) => (float[k] x, float[k] y, float[k] z) {
        x, y, z = Loop(n, , a, b, c) <
            body = body (int64 i, bool live, float[k] p, float[k] q, float[k] r)
            => (bool d, float[k] p2, float[k] q2, float[k] r2) {
                d = Identity(live)
                p2 = Identity(q)
                q2 = Add(p, r)
                r2 = Identity(r)
            }
        >
    }"""
    a, b, c = (np.array(v, np.float32) for v in ([1, 2], [3, 5], [7, 11]))
    feeds = [{"n": np.array(n), "a": a, "b": b, "c": c} for n in (0, 1, 2, 5)]
    x, y, z = check(text, *feeds)
    for _ in range(5):
        a, b = b, a + c
    np.testing.assert_array_equal([x, y, z], [a, b, c])


def test_nested_loops_and_branches() -> None:
    text = """g (int64 n, int64 m, float[k] x) => (float[k] y) {
        y = Loop(n, , x) <
            body = outer (int64 i, bool c, float[k] u) => (bool d, float[k] v) {
                d = Identity(c)
                f = Cast<to = 1>(i)
                w = Loop(m, , u) <
                    body = inner (int64 j, bool c2, float[k] p) => (bool d2, float[k] q) {
                        d2 = Identity(c2)
                        s = Add(p, f)
                        q = Sin(s)
                    }
                >
                total = ReduceSum<keepdims = 0>(w)
                zero = Constant<value_float = 0.0>()
                positive = Greater(total, zero)
                v = If(positive) <
                    then_branch = t () => (float[k] v1) { v1 = Sub(w, x) },
                    else_branch = e () => (float[k] v2) { v2 = Identity(w) }
                >
            }
        >
    }"""
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    feeds = [{"n": np.array(n), "m": np.array(m), "x": x} for n in (0, 1, 4) for m in (0, 1, 3)]
    check(text, *feeds)
    check(text, {"n": np.array(2), "m": np.array(2), "x": x[:0]})


def test_what_comes_from_outside_outlives_every_round() -> None:
    """The first step of a round reads what the graph around it computed; later ones need memory."""
    text = """g (int64 n, float[4, 4] x) => (float[4, 4] y) {
        w = MatMul(x, x)
        y = Loop(n, , x) <
            body = b (int64 i, bool c, float[4, 4] u) => (bool d, float[4, 4] v) {
                d = Identity(c)
                p = MatMul(w, u)
                q = MatMul(x, p)
                r = MatMul(q, x)
                v = MatMul(r, q)
            }
        >
    }"""
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    check(text, *({"n": np.array(n), "x": x} for n in (0, 1, 2, 3)))


def test_rows_within_rows() -> None:
    """The addresses of an inner loop's rows move with the outer's."""
    inner = helper.make_graph(
        [
            helper.make_node("Add", ["h", "row"], ["h2"]),
            helper.make_node("Mul", ["h2", "factor"], ["out"]),
        ],
        "inner",
        [info("h", [3]), info("row", [3])],
        [info("h2", [3]), info("out", [3])],
    )
    outer = helper.make_graph(
        [
            helper.make_node(
                "Scan", ["s", "block"], ["s2", "outs"], body=inner, num_scan_inputs=1,
                scan_input_directions=[1],
            )
        ],
        "outer",
        [info("s", [3]), info("block", ["k", 3])],
        [info("s2", [3]), info("outs", ["k", 3])],
    )  # fmt: skip
    model = model_of(
        [helper.make_node("Scan", ["start", "x"], ["last", "y"], body=outer, num_scan_inputs=1)],
        [info("start", [3]), info("x", ["t", "k", 3]), info("factor", [])],
        [info("last", [3]), info("y", ["t", "k", 3])],
    )
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    start, factor = np.ones(3, np.float32), np.array(2, np.float32)
    last, y = check(model, {"start": start, "x": x, "factor": factor})
    np.testing.assert_array_equal(last, start + x.sum((0, 1)))
    np.testing.assert_array_equal(y[0, 0], 2 * (start + x[0, 1]))


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("back", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scans_along_any_axis(axis: int, back: int, length: int) -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["h", "row"], ["h2"]), helper.make_node("Exp", ["row"], ["out"])],
        "body",
        [info("h", [4, 3]), info("row", [4, 3])],
        [info("h2", [4, 3]), info("out", [4, 3])],
    )
    node = helper.make_node(
        "Scan", ["h0", "x"], ["hn", "y"], body=body, num_scan_inputs=1, scan_input_axes=[axis],
        scan_input_directions=[back], scan_output_axes=[axis], scan_output_directions=[1 - back],
    )  # fmt: skip
    after = helper.make_node("Concat", ["y", "y"], ["z"], axis=0)
    model = model_of(
        [node, after],
        [info("h0", [4, 3]), info("x", [None, None, None])],
        [info("hn", [4, 3]), info("z", [None] * 3)],
    )
    rows = np.random.default_rng(0).standard_normal((length, 4, 3)).astype(np.float32)
    x = np.ascontiguousarray(np.moveaxis(rows, 0, axis))
    _, z = check(model, {"h0": np.zeros((4, 3), np.float32), "x": x})
    np.testing.assert_allclose(z[: len(x)], np.flip(np.exp(x), axis), rtol=1e-6)


def test_a_scan_of_no_rows_is_the_drivers() -> None:
    body = helper.make_graph(
        [helper.make_node("Add", ["h", "row"], ["h2"]), helper.make_node("Identity", ["row"], ["out"])],
        "body",
        [info("h", [2]), info("row", [2])],
        [info("h2", [2]), info("out", [2])],
    )
    model = model_of(
        [helper.make_node("Scan", ["h0", "x"], ["hn", "y"], body=body, num_scan_inputs=1)],
        [info("h0", [2]), info("x", ["t", 2])],
        [info("hn", [2]), info("y", ["t", 2])],
    )
    h0 = np.ones(2, np.float32)
    hn, y = check(model, {"h0": h0, "x": np.zeros((0, 2), np.float32)}, one_plan=False)
    np.testing.assert_array_equal(hn, h0)
    assert y.shape == (0, 2)


def test_branches_of_different_shapes_are_the_drivers() -> None:
    text = """g (float s, float[k] x) => (float[m] y) {
        zero = Constant<value_float = 0.0>()
        c = Greater(s, zero)
        y = If(c) <
            then_branch = t () => (float[m] p) { p = Concat<axis = 0>(x, x) },
            else_branch = e () => (float[m] q) { q = Neg(x) }
        >
    }"""
    feeds = [{"s": np.array(s, np.float32), "x": np.ones(3, np.float32)} for s in (1, -1, np.nan)]
    (y,) = check(text, *feeds, one_plan=False)
    assert y.tolist() == [-1, -1, -1]


def test_a_branch_that_fits_no_shapes_is_not_asked() -> None:
    """Who does not take it never hears of it; who takes it does."""
    text = """g (float s, float[k] x, float[m] z) => (float[k] y) {
        zero = Constant<value_float = 0.0>()
        c = Greater(s, zero)
        y = If(c) <
            then_branch = t () => (float[k] p) { p = Add(x, z) },
            else_branch = e () => (float[k] q) { q = Neg(x) }
        >
    }"""
    session = session_of(text)
    feed = {"x": np.ones(3, np.float32), "z": np.ones(2, np.float32)}
    (y,) = session.run(None, {"s": np.array(-1, np.float32), **feed})
    assert y.tolist() == [-1, -1, -1]
    with pytest.raises(ShapeError):
        session.run(None, {"s": np.array(1, np.float32), **feed})


def test_an_index_out_of_range_ends_the_loop_and_the_run() -> None:
    """The loop would not end by itself: its condition hangs on what the bad index gives."""
    text = """g (float[k] x, int64 step) => (int64 n) {
        zero = Constant<value_int = 0>()
        n = Loop(, , zero) <
            body = b (int64 i, bool c, int64 at) => (bool d, int64 at2) {
                value = Gather<axis = 0>(x, at)
                least = Constant<value_float = -1.0>()
                d = Greater(value, least)
                at2 = Add(at, step)
            }
        >
    }"""
    session = session_of(text)
    x = np.array([1, 2, -3], np.float32)
    (n,) = session.run(None, {"x": x, "step": np.array(1)})
    assert n == 3
    assert is_one_plan(session)
    with pytest.raises(InputError):
        session.run(None, {"x": x, "step": np.array(7)})
    (n,) = session.run(None, {"x": x, "step": np.array(2)})
    assert n == 4


def test_concurrent_runs_have_counters_of_their_own() -> None:
    session = session_of(WHILE)
    feeds = [
        {"n": np.array(n), "bound": np.array(0, np.float32), "x": np.full(1 + n % 3, n, np.float32)}
        for n in range(60)
    ]
    wanted = [by_rounds(WHILE, feed) for feed in feeds[:4]]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda feed: session.run(None, feed), feeds))
    for got, want in zip(found, wanted, strict=False):
        np.testing.assert_array_equal(got[0], want[0])
    assert [int(rounds) for _, rounds in found] == list(range(60))


# ---- drawn at random


def info(name: str, shape: Sequence[Any] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class Maker:
    """Draws nodes of one graph over values of one shape."""

    def __init__(self, draw: Any, prefix: str, values: list[str]) -> None:
        self.draw, self.prefix, self.values, self.nodes = draw, prefix, list(values), list[Any]()

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{self.prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def one_of(self) -> str:
        return self.draw(st.sampled_from(self.values))

    def some(self, depth: int) -> str:
        """A value, perhaps a new one."""
        kind = self.draw(
            st.sampled_from(["old", "unary", "binary", "mean", "if", "loop"][: 4 + 2 * (depth > 0)])
        )
        if kind == "old":
            return self.one_of()
        if kind == "unary":
            made = self.node(self.draw(st.sampled_from(["Neg", "Tanh", "Identity", "Abs"])), self.one_of())
        elif kind == "binary":
            op = self.draw(st.sampled_from(["Add", "Sub", "Max", "Mul"]))
            made = self.node(op, self.one_of(), self.one_of())
        elif kind == "mean":
            made = self.node("Sub", self.one_of(), self.node("ReduceMax", self.one_of(), keepdims=1))
        elif kind == "if":
            made = self.node("If", self.holds(), **self.branches(depth))
        else:
            made = self.loop(depth)
        self.values.append(made)
        return made

    def holds(self) -> str:
        """A condition on data; a sum of nothing is 0."""
        total = self.node("ReduceSum", self.one_of(), keepdims=0)
        return self.node(
            "Less", total, self.node("Constant", value_float=self.draw(st.sampled_from([0.5, -0.5])))
        )

    def branches(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for branch in ("then_branch", "else_branch"):
            inner = Maker(self.draw, f"{self.prefix}{len(self.nodes)}{branch[0]}", self.values)
            made = inner.node("Identity", inner.some(depth - 1))
            found[branch] = helper.make_graph(inner.nodes, branch, [], [info(made, None)])
        return found

    def loop(self, depth: int) -> str:
        body, count, _ = self.body(depth - 1, 0)
        trips = self.node("Constant", value_int=self.draw(st.sampled_from([0, 1, 2, 5])))
        name = f"{self.prefix}{len(self.nodes)}"
        carried = [self.one_of() for _ in range(count)]
        self.nodes.append(
            helper.make_node("Loop", [trips, "", *carried], [f"{name}_{n}" for n in range(count)], body=body)
        )
        self.values += [f"{name}_{n}" for n in range(count)]
        return f"{name}_0"

    def body(self, depth: int, most_rows: int) -> tuple[Any, int, int]:
        """A Loop's body, how many values it carries and how many rows it puts out."""
        prefix = f"{self.prefix}{len(self.nodes)}b"
        count = self.draw(st.integers(1, 3))
        own = [f"{prefix}in{n}" for n in range(count)]
        inner = Maker(self.draw, prefix, [*own, *self.values])
        ends = self.draw(st.sampled_from(["never", "data", "count"]))
        results = [inner.some(depth) for _ in range(count)]
        rows = [inner.some(depth) for _ in range(self.draw(st.integers(0, most_rows)))]
        if ends == "data":
            live = inner.holds()
        elif ends == "count":
            live = inner.node("Less", f"{prefix}i", inner.node("Constant", value_int=1))
        else:
            live = inner.node("Identity", f"{prefix}c")
        outputs = [inner.node("Identity", name) for name in (*results, *rows)]
        graph = helper.make_graph(
            inner.nodes, f"{prefix}body",
            [info(f"{prefix}i", [], TensorProto.INT64), info(f"{prefix}c", [], TensorProto.BOOL),
             *(info(name, None) for name in own)],
            [info(live, [], TensorProto.BOOL), *(info(name, None) for name in outputs)],
        )  # fmt: skip
        return graph, count, len(rows)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_loops_at_random(data: st.DataObject) -> None:
    maker = Maker(data.draw, "v", ["x", "z"])
    body, count, rows = maker.body(1, 2)
    trips, first = (
        data.draw(st.sampled_from([0, 1, 2, 7])),
        data.draw(st.sampled_from([True, True, False, None])),
    )
    known = data.draw(st.booleans())
    inputs = [info("x", ["n"]), info("z", ["n"])]
    feed: Feed = {}
    if known:
        maker.nodes.append(helper.make_node("Constant", [], ["trips"], value_int=trips))
    else:
        inputs.append(info("trips", [], TensorProto.INT64))
        feed["trips"] = np.array(trips)
    if first is not None:
        inputs.append(info("first", [1], TensorProto.BOOL))
        feed["first"] = np.array([first])
    carried = [data.draw(st.sampled_from(["x", "z"])) for _ in range(count)]
    outputs = [f"y{n}" for n in range(count + rows)]
    maker.nodes.append(
        helper.make_node("Loop", ["trips", "" if first is None else "first", *carried], outputs, body=body)
    )
    model = model_of(maker.nodes, inputs, [info(name, None) for name in outputs])
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    n = data.draw(st.sampled_from([0, 1, 3, 19]))
    x, z = rng.standard_normal((2, n)).astype(np.float32)
    if n and data.draw(st.booleans()):
        x[0] = data.draw(st.sampled_from([np.nan, np.inf, -0.0]))
    feed.update(x=x, z=z)
    wanted = by_rounds(model, feed)
    for threads in (1, 2):
        session = session_of(model, threads)
        for _ in range(2):
            for got, want in zip(session.run(None, feed), wanted, strict=True):
                assert got.dtype == want.dtype
                np.testing.assert_array_equal(got, want)
