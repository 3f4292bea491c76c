"""Rounds of changing shapes: NumPy's and the plans' are the same to the last bit."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from ingot.errors import IngotError
from ingot.runtime import driver, rounds
from ingot.runtime.driver import Driver
from ingot.runtime.loose import LooseLoops
from ingot.runtime.rounds import Rounds
from tests.runtime.test_bodies import Feed, info, model_of, session_of

#: Twice the last row, as long as the list is shorter than n.
GROWING = """g (int64 n, float[k, 2] x) => (float[m, 2] y) {
    none = Constant<value_int = 0>()
    y = Loop(n, , x) <
        body = b (int64 i, bool c, float[a, 2] u) => (bool d, float[z, 2] v) {
            d = Identity(c)
            last = Constant<value_int = -1>()
            row = Gather<axis = 0>(u, last)
            axis = Constant<value_ints = [0]>()
            one = Unsqueeze(row, axis)
            more = Add(one, one)
            v = Concat<axis = 0>(u, more)
        }
    >
}"""


def run(model: Any, feed: Feed, times: int = 1) -> tuple[list[list[np.ndarray]], int]:
    """Outputs of each of so many runs of a session, and how many rounds were NumPy's, where no body has steps
    for arrays of all sizes; with those, the outputs are the same.
    """
    count, begin = 0, Rounds.begin

    def counted(self: Rounds, captured: Any) -> Any:
        turn = begin(self, captured)

        def one(feeds: Any) -> Any:
            nonlocal count
            count += 1
            return turn(feeds)

        return one

    with patch.object(Rounds, "begin", counted), patch.object(LooseLoops, "begin", lambda *_: None):
        session = session_of(model)
        outputs = [session.run(None, feed) for _ in range(times)]
    native = session_of(model)
    for one in outputs[:2]:
        same(native.run(None, feed), one)
    return outputs, count


def by_plans(model: Any, feed: Feed) -> list[np.ndarray]:
    with patch.object(Driver, "prefers_rounds", lambda *_: False):
        ((outputs), _) = run(model, feed)
    return outputs[0]


def same(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)
        if a.dtype.kind == "f":
            numbers = ~np.isnan(a)
            np.testing.assert_array_equal(np.signbit(a[numbers]), np.signbit(b[numbers]))


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_a_list_that_grows(n: int) -> None:
    feed = {"n": np.array(n), "x": np.array([[1, 3]], np.float32)}
    want = by_plans(GROWING, feed)
    assert want[0].shape == (n + 1, 2)
    assert want[0][-1].tolist() == [2.0**n, 3 * 2.0**n]
    outputs, by_numpy = run(GROWING, feed)
    same(outputs[0], want)
    assert by_numpy == max(0, n - 1)  # the first round tells


def test_shapes_that_come_again_get_plans_without_throwing_any_out(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = {"n": np.array(9), "x": np.array([[1, 3]], np.float32)}
    outputs, by_numpy = run(GROWING, feed, 4)
    for one in outputs[1:]:
        same(one, outputs[0])
    assert by_numpy == 8  # all in the first run
    monkeypatch.setattr(driver, "MOST_PLANS", 4)
    again, by_numpy = run(GROWING, feed, 4)
    for one in again:
        same(one, outputs[0])
    assert by_numpy == 8 + 3 * 5  # of nine shapes four have plans


def test_what_a_plan_leaves_out_is_refused_in_no_round() -> None:
    """Of the third column from the end only the size is read, which the third round has not."""
    text = """g (int64 n, float[r, k] x) => (float[r, m] y, int64[n, 1] s) {
        y, s = Loop(n, , x) <
            body = b (int64 i, bool c, float[q, a] u) => (bool d, float[q, z] v, int64[1] size) {
                d = Identity(c)
                there = Constant<value_int = -3>()
                more = Add(u, u)
                column = Gather<axis = 1>(more, there)
                rows = Shape(column)
                size = Add(rows, rows)
                begin = Constant<value_ints = [0]>()
                end = Constant<value_ints = [-1]>()
                axis = Constant<value_ints = [1]>()
                v = Slice(u, begin, end, axis)
            }
        >
    }"""
    feed = {"n": np.array(4), "x": np.ones((2, 4), np.float32)}
    want = by_plans(text, feed)
    assert [w.tolist() for w in want] == [[[], []], [[4]] * 4]
    (got,), _ = run(text, feed)
    same(got, want)


def test_large_arrays_and_inexact_nodes_are_for_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = {"n": np.array(4), "x": np.array([[1, 3]], np.float32)}
    _, by_numpy = run(GROWING.replace("more = Add(one, one)", "more = Exp(one)"), feed)
    assert by_numpy == 0
    monkeypatch.setattr(rounds, "MOST_ELEMENTS", 9)
    _, by_numpy = run(GROWING, feed)
    assert 0 < by_numpy < 3


def test_errors_are_of_a_type() -> None:
    """An index beyond what is left, in the third round."""
    text = """g (int64 n, float[k] x) => (float[m] y) {
        y = Loop(n, , x) <
            body = b (int64 i, bool c, float[a] u) => (bool d, float[z] v) {
                at = Constant<value_ints = [0, 2]>()
                first = Gather<axis = 0>(u, at)
                most = ReduceMax<keepdims = 0>(first)
                d = Equal(most, most)
                one = Constant<value_ints = [1]>()
                far = Constant<value_ints = [99]>()
                v = Slice(u, one, far)
            }
        >
    }"""
    feed = {"n": np.array(9), "x": np.arange(4, dtype=np.float32)}
    session = session_of(text)
    for _ in range(3):
        with pytest.raises(IngotError):
            session.run(None, feed)
    (y,) = session.run(None, {"n": np.array(2), "x": feed["x"]})
    assert y.tolist() == [2, 3]


def test_boxes_that_are_crossed_out() -> None:
    """What is chosen grows, what is left shrinks; a nested If, values from around, nodes that stay."""
    other = helper.make_graph(
        [helper.make_node("Mul", ["gap", "gap"], ["square"])], "other", [], [info("square", None)]
    )
    then = helper.make_graph([helper.make_node("Abs", ["gap"], ["size"])], "then", [], [info("size", None)])
    zero, one, far = ("zero", "one", "far")
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "x"], ["steady"]),
            helper.make_node("Slice", ["left", zero, one], ["best"]),
            helper.make_node("Slice", ["left", one, far], ["rest"]),
            helper.make_node("Gather", ["x", "best"], ["mine"]),
            helper.make_node("Gather", ["steady", "rest"], ["theirs"]),
            helper.make_node("Sub", ["theirs", "mine"], ["gap"]),
            helper.make_node("Cast", ["is_square"], ["chosen_way"], to=TensorProto.BOOL),
            helper.make_node("If", ["chosen_way"], ["distance"], then_branch=other, else_branch=then),
            helper.make_node("Greater", ["distance", "bound"], ["keep"]),
            helper.make_node("Compress", ["rest", "keep"], ["remaining"], axis=0),
            helper.make_node("Concat", ["found", "best"], ["grown"], axis=0),
            helper.make_node("Size", ["remaining"], ["count"]),
            helper.make_node("Greater", ["count", "none"], ["more"]),
        ],
        "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL),
         info("left", ["a"], TensorProto.INT64), info("found", ["b"], TensorProto.INT64)],
        [info("more", [], TensorProto.BOOL), info("remaining", ["d"], TensorProto.INT64),
         info("grown", ["e"], TensorProto.INT64)],
    )  # fmt: skip
    numbers = {zero: [0], one: [1], far: [9999]}
    nodes = [
        *(helper.make_node("Constant", [], [name], value_ints=v) for name, v in numbers.items()),
        helper.make_node("Constant", [], ["none"], value_int=0),
        helper.make_node("Loop", ["", "", "order", "start"], ["left_over", "y"], body=body),
    ]
    model = model_of(
        nodes,
        [info("x", ["n"]), info("order", ["n"], TensorProto.INT64), info("start", ["s"], TensorProto.INT64),
         info("bound", []), info("is_square", [1], TensorProto.INT64)],
        [info("y", ["m"], TensorProto.INT64), info("left_over", ["l"], TensorProto.INT64)],
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for n, is_square in ((1, 0), (2, 1), (30, 0), (30, 1)):
        feed: Feed = {
            "x": rng.standard_normal(n).astype(np.float32),
            "order": rng.permutation(n),
            "start": np.zeros(0, np.int64),
            "bound": np.array(0.3, np.float32),
            "is_square": np.array([is_square]),
        }
        want = by_plans(model, feed)
        outputs, by_numpy = run(model, feed, 3)
        for one_run in outputs:
            same(one_run, want)
        assert n < 30 or by_numpy > 3


@pytest.mark.parametrize(
    "node",
    [
        "Relu(u)", "Max(zero, u)", "Max(u, zero)", "Min(zero, u)", "Min(u, zero, u)", "Clip(u, least)",
        "Clip(u, , least)", "Clip(u, least, least)", "Abs(u)", "Neg(u)",
        "ReduceMax(u)", "ReduceMin(u)", "ReduceMax<keepdims = 0>(u, axis)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float", "double", "float16"])
@pytest.mark.parametrize("zeros", [[-0.0], [0.0], [-0.0, 0.0], [0.0, -0.0, -0.0]])
def test_signs_of_zeros(node: str, dtype: str, zeros: list[float]) -> None:
    """They show in what 1 is divided by."""
    text = f"""g (int64 n, {dtype}[k] x, {dtype}[1] zero, {dtype} least, {dtype} one) => ({dtype}[m] y) {{
        y = Loop(n, , x) <
            body = b (int64 i, bool c, {dtype}[a] u) => (bool d, {dtype}[z] v) {{
                d = Identity(c)
                axis = Constant<value_ints = [0]>()
                minus = Constant<value_ints = [-1]>()
                small = {node}
                row = Reshape(small, minus)
                large = Div(one, row)
                tiny = Div(one, large)
                v = Concat<axis = 0>(u, tiny)
            }}
        >
    }}"""
    type_ = {"float": np.float32, "double": np.float64, "float16": np.float16}[dtype]
    feed = {"n": np.array(3), "x": np.array(zeros, type_), "one": np.array(1, type_)}
    for bound in (0.0, -0.0):
        feed |= {"zero": np.array([bound], type_), "least": np.array(bound, type_)}
        want = by_plans(text, feed)
        outputs, by_numpy = run(text, feed, 3)
        for one_run in outputs:
            same(one_run, want)
        assert by_numpy or node.startswith("Reduce")


_UNARY = ["Neg", "Abs", "Relu", "Identity"]
_BINARY = ["Add", "Sub", "Mul", "Div", "Max", "Min"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_nodes_at_random(data: st.DataObject) -> None:
    """A column of numbers that loses its first row or gains one; what else is computed of it."""
    names, nodes = ["u", "same"], list[Any]()

    def add(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"t{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    nodes.append(helper.make_node("Identity", ["x"], ["same"]))
    one, far = add("Constant", value_ints=[1]), add("Constant", value_ints=[99])
    zero = add("Constant", value_ints=[0])
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["unary", "binary", "where", "cast", "largest"]))
        own = st.sampled_from([name for name in names if name != "same"])
        if kind == "unary":
            names.append(add(data.draw(st.sampled_from(_UNARY)), data.draw(own)))
        elif kind == "binary":
            first = add("Slice", "same", zero, one) if data.draw(st.booleans()) else data.draw(own)
            names.append(add(data.draw(st.sampled_from(_BINARY)), data.draw(own), first))
        elif kind == "where":
            relation = data.draw(st.sampled_from(["Less", "GreaterOrEqual", "Equal"]))
            a, b = data.draw(own), data.draw(own)
            names.append(add("Where", add(relation, a, b), b, a))
        elif kind == "cast":
            whole = add(
                "Cast", data.draw(own), to=data.draw(st.sampled_from([TensorProto.INT32, TensorProto.BOOL]))
            )
            names.append(add("Cast", whole, to=TensorProto.FLOAT))
        else:
            names.append(add("Sub", data.draw(own), add("ReduceMax", data.draw(own), keepdims=1)))
    if data.draw(st.booleans()):
        result = add("Concat", names[-1], add("Slice", names[-1], zero, one), axis=0)
    else:
        result = add("Slice", names[-1], one, far)
    nodes.append(helper.make_node("Identity", ["c"], ["live"]))
    body = helper.make_graph(
        nodes, "body",
        [info("i", [], TensorProto.INT64), info("c", [], TensorProto.BOOL), info("u", ["a"])],
        [info("live", [], TensorProto.BOOL), info(result, ["b"])],
    )  # fmt: skip
    model = model_of(
        [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)],
        [info("n", [], TensorProto.INT64), info("x", ["k"])], [info("y", ["m"])],
    )  # fmt: skip
    x = np.random.default_rng(data.draw(st.integers(0, 9))).standard_normal(7).astype(np.float32)
    x[0] = data.draw(st.sampled_from([1, 0, -0.0, np.nan, np.inf]))
    x[3:5] = data.draw(st.sampled_from([(1, 2), (0, -0.0), (-0.0, 0), (-0.0, -0.0)]))
    feed: Feed = {"n": np.array(data.draw(st.sampled_from([0, 1, 4]))), "x": x}
    want = by_plans(model, feed)
    outputs, _ = run(model, feed, 2)
    for one_run in outputs:
        same(one_run, want)
