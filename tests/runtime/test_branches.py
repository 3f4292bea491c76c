"""Ifs whose conditions are known before the run: their branches are part of the plan, whatever the runs
before took; of all other Ifs a step of the plan decides, or they end it (`test_bodies.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx.parser
import pytest

import ingot
from ingot.compiler import branches
from ingot.runtime import driver
from ingot.runtime.driver import Driver
from ingot.runtime.stages import Stage

RNG = np.random.default_rng(0)
HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
X = RNG.standard_normal((3, 4)).astype(np.float32)
W = RNG.standard_normal((4, 4)).astype(np.float32)

#: Nested: the outer condition follows from an input, the inner one from a shape or from that input again;
#: both branches read values from outside, and their results differ in shape.
NESTED = (
    HEAD
    + """g (int64 rate, float[n, 4] x) => (float[m, k] y, float[n, 4] z)
<float[4, 4] w = {1,2,3,4, 2,3,4,5, 3,4,5,6, 4,5,6,8}, int64 high = {16000}> {
    two = Constant<value_int = 2>()
    is_high = Equal(rate, high)
    t = Relu(x)
    y0, z0 = If(is_high) <
        then_branch = a () => (float[n, 4] p, float[n, 4] p2) {
            rows = Shape<start = 0, end = 1>(t)
            first = Squeeze(rows)
            is_long = Greater(first, two)
            product = MatMul(t, w)
            p = If(is_long) <
                then_branch = c () => (float[n, 4] r) { r = Neg(product) },
                else_branch = d () => (float[n, 4] s) { s = Identity(product) }
            >
            p2 = Add(p, x)
        },
        else_branch = b () => (float[1, 4] q, float[n, 4] q2) {
            axis = Constant<value_ints = [0]>()
            q = ReduceSum(t, axis)
            half = Div(rate, two)
            is_low = Less(half, two)
            q2 = If(is_low) <
                then_branch = e () => (float[n, 4] u) { u = Identity(t) },
                else_branch = f () => (float[n, 4] v) { v = Mul(x, x) }
            >
        }
    >
    y = Identity(y0)
    z = Sqrt(z0)
}"""
)


def nested(rate: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What NESTED means."""
    w = np.array([1, 2, 3, 4, 2, 3, 4, 5, 3, 4, 5, 6, 4, 5, 6, 8], np.float32).reshape(4, 4)
    t = np.maximum(x, 0)
    if rate == 16000:
        y = t @ w * (-1 if len(x) > 2 else 1)
        z = y + x
    else:
        y, z = t.sum(0, keepdims=True), t if rate // 2 < 2 else x * x
    with np.errstate(invalid="ignore"):
        return y, np.sqrt(z)


def session(text: str) -> ingot.InferenceSession:
    return ingot.InferenceSession(onnx.parser.parse_model(text))


def driver_of(one: ingot.InferenceSession) -> Driver:
    return one._driver  # pyright: ignore[reportPrivateUsage]


def stages(one: ingot.InferenceSession) -> list[Stage]:
    """The first stages of all plans."""
    found: list[Stage] = []
    waiting = list(driver_of(one)._stages.values())  # pyright: ignore[reportPrivateUsage]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Stage):
            found.append(entry)
        else:
            waiting += entry.next.values()
    return found


def check_nested(one: ingot.InferenceSession, rate: int, x: np.ndarray) -> None:
    found = one.run(None, {"rate": np.array(rate), "x": x})
    for got, wanted in zip(found, nested(rate, x), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_values_flip_between_runs() -> None:
    one = session(NESTED)
    for rate in (16000, 8000, 1, 16000, 3, 16000, 8000):
        for rows in (3, 2, 3):
            check_nested(one, rate, X[:rows])
    made = stages(one)
    assert len(made) == 6  # two shapes, three ways through the branches
    assert all(stage.is_last and stage.is_whole for stage in made)


def test_concurrent_runs() -> None:
    one = session(NESTED)
    cases = [((16000, 8000, 1)[i % 3], X[: 2 + i % 2]) for i in range(60)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda case: check_nested(one, *case), cases))


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither values nor shapes that keep changing leave more behind than the limits say."""
    monkeypatch.setattr(driver, "MOST_PLANS", 3)
    monkeypatch.setattr(branches, "MOST_ANSWERS", 5)
    one = session(NESTED)
    for rate in range(15998, 16012):
        for rows in range(1, 6):
            check_nested(one, rate, np.resize(X, (rows, 4)))
    found = driver_of(one)._stages.values()  # pyright: ignore[reportPrivateUsage]
    assert len(found) == 3
    assert len(stages(one)) <= 6
    for entry in found:
        assert isinstance(entry, branches.Question)
        assert len(entry._answers) <= 5  # pyright: ignore[reportPrivateUsage]


def test_more_conditions_than_a_plan_may_depend_on() -> None:
    """The first few are part of the plan, the others end stages; all 64 ways are right."""
    ifs = [
        f"x{i + 1} = If(c{i}) < then_branch = t{i} () => (float[n] p{i}) {{ p{i} = Add(x{i}, k{i}) }}, "
        f"else_branch = e{i} () => (float[n] q{i}) {{ q{i} = Identity(x{i}) }} >"
        for i in range(6)
    ]
    inputs = ", ".join(f"bool c{i}" for i in range(6))
    numbers = ", ".join(f"float k{i} = {{{2**i}}}" for i in range(6))
    body = "\n".join(ifs)
    text = f"{HEAD}g ({inputs}, float[n] x0) => (float[n] y) <{numbers}> {{ {body}\n y = Identity(x6) }}"
    one = session(text)
    for way in [*range(64), 5, 63, 0]:
        feed = {f"c{i}": np.array(bool(way >> i & 1)) for i in range(6)}
        (y,) = one.run(None, {**feed, "x0": np.zeros(3, np.float32)})
        np.testing.assert_array_equal(y, np.full(3, way, np.float32))
    assert len(stages(one)) == 2**driver.MOST_QUESTIONS


def test_conditions_of_floats_and_of_large_inputs_are_left_to_the_run() -> None:
    text = (
        HEAD
        + """g (TYPE[k] a, float[n, 4] x) => (float[n, 4] y) {
        b = ReduceMax<keepdims = 0>(a)
        zero = Sub(b, b)
        c = Greater(b, zero)
        y = If(c) <
            then_branch = t () => (float[n, 4] p) { p = Neg(x) },
            else_branch = e () => (float[n, 4] q) { q = Exp(x) }
        >
    }"""
    )
    for kind, dtype, count, is_part in (
        ("float", np.float32, 2, False),
        ("int64", np.int64, 2, True),
        ("int64", np.int64, branches.SMALL + 1, False),
    ):
        one = session(text.replace("TYPE", kind))
        for value in (1, -1, 1):
            (y,) = one.run(None, {"a": np.full(count, value, dtype), "x": X})
            np.testing.assert_allclose(y, -X if value > 0 else np.exp(X), rtol=1e-5)
        assert all(stage.is_whole for stage in stages(one))
        kept = ["If" in [node.op_type for node in stage.index.nodes] for stage in stages(one)]
        assert set(kept) == {not is_part}


def test_weights_chosen_by_an_if() -> None:
    """Weights that one branch or the other gives are not taken for each other."""
    text = (
        HEAD
        + """g (bool c, float[n, 4] x) => (float[n, 4] y)
        <float[4, 4] a = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1},
         float[4, 4] b = {2,0,0,0, 0,2,0,0, 0,0,2,0, 0,0,0,2}> {
        w = If(c) <
            then_branch = t () => (float[4, 4] p) { p = Identity(a) },
            else_branch = e () => (float[4, 4] q) { q = Identity(b) }
        >
        y = MatMul(x, w)
    }"""
    )
    one = session(text)
    for c in (True, False, True, False):
        (y,) = one.run(None, {"c": np.array(c), "x": X})
        np.testing.assert_array_equal(y, X if c else 2 * X)


def test_an_output_that_is_an_input_is_a_copy() -> None:
    text = (
        HEAD
        + """g (bool c, float[n, 4] x) => (float[n, 4] y) {
        y = If(c) <
            then_branch = t () => (float[n, 4] p) { p = Identity(x) },
            else_branch = e () => (float[n, 4] q) { q = Neg(x) }
        >
    }"""
    )
    one = session(text)
    (y,) = one.run(None, {"c": np.array(True), "x": X})
    np.testing.assert_array_equal(y, X)
    assert not np.shares_memory(y, X)


def test_an_if_in_a_loop_asks_for_the_number_of_the_trip() -> None:
    text = (
        HEAD
        + """g (float[n, 4] x) => (float[n, 4] y) {
        trips = Constant<value_int = 5>()
        always = Cast<to = 9>(trips)
        y = Loop(trips, always, x) <
            body = b (int64 i, bool c, float[n, 4] u) => (bool d, float[n, 4] v) {
                d = Identity(c)
                two = Constant<value_int = 2>()
                rest = Mod(i, two)
                odd = Cast<to = 9>(rest)
                v = If(odd) <
                    then_branch = t () => (float[n, 4] p) { p = Add(u, x) },
                    else_branch = e () => (float[n, 4] q) { q = Neg(u) }
                >
            }
        >
    }"""
    )
    wanted = X
    for i in range(5):
        wanted = wanted + X if i % 2 else -wanted
    (y,) = session(text).run(None, {"x": X})
    np.testing.assert_array_equal(y, wanted)


def test_after_a_node_whose_shape_depends_on_data() -> None:
    """Also later stages take branches into their plans, and go on behind them."""
    text = (
        HEAD
        + """g (float[n] x, int64 which) => (int64[m] y) {
        found = NonZero(x)
        count = Shape<start = 1, end = 2>(found)
        number = Squeeze(count)
        two = Constant<value_int = 2>()
        many = Greater(number, two)
        flat_shape = Constant<value_ints = [-1]>()
        flat = Reshape(found, flat_shape)
        a = If(many) <
            then_branch = t () => (int64[k] p) { p = Neg(flat) },
            else_branch = e () => (int64[k] q) { q = Identity(flat) }
        >
        first = Equal(which, two)
        y = If(first) <
            then_branch = t2 () => (int64[k] p2) { p2 = Add(a, which) },
            else_branch = e2 () => (int64[k] q2) { q2 = Sub(a, which) }
        >
    }"""
    )
    one = session(text)
    for x in ([1, 0, 1, 1, 0], [0, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 1, 0]):
        for which in (2, 3, 2):
            (y,) = one.run(None, {"x": np.array(x, np.float32), "which": np.array(which)})
            indices = np.flatnonzero(x)
            a = -indices if len(indices) > 2 else indices
            np.testing.assert_array_equal(y, a + 2 if which == 2 else a - which)
