"""Sizes that are data: small integers that say what shapes come out belong to a plan, as shapes do. Whatever
the runs before held, the answer is the same; what says many things, or nothing of shapes, is not looked at.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx.parser
import pytest

import ingot
from ingot.compiler import contents
from ingot.runtime.driver import Driver
from ingot.runtime.stages import Stage

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
X = np.random.default_rng(0).standard_normal((6, 9)).astype(np.float32)

TOPK = "g (float[n, m] x, int64[1] k) => (float[n, k] y, int64[n, k] i) { z = Neg(x) y, i = TopK(z, k) }"
#: The start is worked out from an input, the end is one.
SLICE = """g (float[n, m] x, int64 a, int64[1] b) => (float[p, m] y) <int64[1] axis = {0}, int64 one = {1}> {
    next = Add(a, one)
    start = Unsqueeze(next, axis)
    s = Slice(x, start, b)
    y = Exp(s)
}"""
#: As many columns as there are numbers above 0 in the first row, from a start by another input.
COMPUTED = """g (float[n, m] x, int64[1] a) => (float[n, p] y)
<float zero = {0.0}, int64[1] axes = {1}, int64[1] all = {0}, int64 row = {0}> {
    first = Gather<axis = 0>(x, row)
    above = Greater(first, zero)
    ones = Cast<to = 7>(above)
    b = ReduceSum(ones, all)
    s = Slice(x, a, b, axes)
    y = Neg(s)
}"""
STACKED = """g (float[m] x, int64 n) => (float[m] last, float[n, m] y) <float half = {0.5}> {
    last, y = Loop(n, , x) <
        body = b (int64 i, bool c, float[m] u) => (bool d, float[m] v, float[m] row) {
            d = Identity(c)
            v = Mul(u, half)
            row = Tanh(v)
        }
    >
}"""


def session(text: str) -> ingot.InferenceSession:
    return ingot.InferenceSession(onnx.parser.parse_model(HEAD + text))


def driver_of(one: ingot.InferenceSession) -> Driver:
    return one._driver  # pyright: ignore[reportPrivateUsage]


def first_stages(one: ingot.InferenceSession) -> list[Any]:
    return list(driver_of(one)._stages.values())  # pyright: ignore[reportPrivateUsage]


def check_topk(one: ingot.InferenceSession, x: np.ndarray, k: int) -> None:
    y, i = one.run(None, {"x": x, "k": np.array([k])})
    order = np.argsort(x, 1, kind="stable")[:, :k]
    np.testing.assert_array_equal(i, order)
    np.testing.assert_array_equal(y, -np.take_along_axis(x, order, 1))


def check_slice(one: ingot.InferenceSession, a: int, b: int) -> None:
    (y,) = one.run(None, {"x": X, "a": np.array(a), "b": np.array([b])})
    wanted = np.exp(X[a + 1 : b])
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, rtol=1e-6)


def test_what_an_input_says_of_sizes_is_one_plan() -> None:
    one = session(TOPK)
    for k in (3, 0, 9, 3, 1, 3):
        for rows in (6, 2):
            check_topk(one, X[:rows], k)
    assert len(first_stages(one)) == 8
    assert all(isinstance(stage, Stage) and stage.is_whole for stage in first_stages(one))


def test_values_worked_out_from_inputs() -> None:
    one = session(SLICE)
    for a, b in ((0, 4), (2, 6), (0, 5), (3, 9), (-1, 1), (4, 2), (0, 4)):
        check_slice(one, a, b)
    assert all(stage.is_whole for stage in first_stages(one))


def test_a_caller_may_write_into_the_array_afterwards() -> None:
    one, k = session(TOPK), np.array([4])
    for count in (4, 2, 4, 5):
        k[0] = count
        y, _ = one.run(None, {"x": X, "k": k})
        assert y.shape == (6, count)


def test_values_worked_out_from_data() -> None:
    one, rng = session(COMPUTED), np.random.default_rng(1)
    for number in range(60):
        x = rng.standard_normal((3, 7)).astype(np.float32)
        a = number % 3
        (y,) = one.run(None, {"x": x, "a": np.array([a])})
        np.testing.assert_array_equal(y, -x[:, a : int((x[0] > 0).sum())])


def test_many_different_ones_are_not_all_planned() -> None:
    one = session(TOPK)
    x = np.random.default_rng(2).standard_normal((2, 200)).astype(np.float32)
    for k in [*range(1, 100), *range(1, 100)]:
        check_topk(one, x, k)
    assert len(first_stages(one)) <= contents.MOST_MET + 1


def test_a_window_that_moves_has_few_plans() -> None:
    """Where it begins says nothing of shapes."""
    text = """g (float[n, m] x, int64[1] a) => (float[p, m] y) <int64[1] two = {2}> {
        b = Add(a, two)
        s = Slice(x, a, b)
        y = Neg(s)
    }"""
    one = session(text)
    for _ in range(2):
        for a in range(5):
            (y,) = one.run(None, {"x": X, "a": np.array([a])})
            np.testing.assert_array_equal(y, -X[a : a + 2])
    assert len(first_stages(one)) == contents.FEWEST_MET + 1


def test_rows_of_a_counted_loop() -> None:
    one = session(STACKED)
    for n in (3, 1, 5, 3, 40):
        last, y = one.run(None, {"x": X[0], "n": np.array(n)})
        u, rows = X[0], []
        for _ in range(n):
            u = u * np.float32(0.5)
            rows.append(np.tanh(u))
        np.testing.assert_allclose(last, u)
        np.testing.assert_allclose(y, np.array(rows, np.float32).reshape(n, 9), rtol=1e-5, atol=1e-7)
    planned = [stage for stage in first_stages(one) if stage.is_whole]
    assert len(planned) == 4, "the rows are counted, so the loop is a step of the plan"


def test_what_does_not_fit_is_refused_and_the_session_goes_on() -> None:
    one = session(TOPK)
    check_topk(one, X, 3)
    for k in (10, -1):
        with pytest.raises(ingot.errors.ShapeError, match="k is"):
            one.run(None, {"x": X, "k": np.array([k])})
        check_topk(one, X, 4)


def test_concurrent_runs() -> None:
    topk, sliced = session(TOPK), session(SLICE)

    def turn(number: int) -> None:
        check_topk(topk, X[: 1 + number % 4], number % 10)
        check_slice(sliced, number % 5, number % 7)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(turn, range(80)))


def test_branches_that_data_chooses_and_what_lies_behind_them() -> None:
    """A stage for each If, and one for each way: also where another node of the host follows."""
    text = """g (float[n, m] x, int64[1] a) => (float[p, q] y, int64[r, s] z)
    <float zero = {0.0}, int64[1] one = {1}> {
        total = ReduceSum<keepdims = 0>(x)
        above = Greater(total, zero)
        part = If(above) <
            then_branch = t () => (float[p, q] u) { u = Concat<axis = 1>(x, x) },
            else_branch = e () => (float[p, q] v) {
                wide = ReduceMax(x, one)
                large = ReduceMax<keepdims = 0>(wide)
                is_large = Greater(large, zero)
                v = If(is_large) <
                    then_branch = tt () => (float[p, q] w) { w = Neg(wide) },
                    else_branch = ee () => (float[p, q] i) { i = Identity(x) }
                >
            }
        >
        y = Relu(part)
        z = NonZero(y)
    }"""
    one = session(text)
    for number in (1, 2, 3, 1, 3, 2, 1):
        x = X * {1: 1, 2: -1, 3: 0}[number] - np.float32(number == 3)
        if x.sum() > 0:
            part = np.concatenate([x, x], 1)
        else:
            wide = x.max(1, keepdims=True)
            part = -wide if wide.max() > 0 else x
        y, z = one.run(None, {"x": x, "a": np.array([1])})
        np.testing.assert_array_equal(y, np.maximum(part, 0))
        np.testing.assert_array_equal(z, np.array(np.nonzero(y)))


def test_a_node_of_the_host_behind_a_planned_one() -> None:
    text = """g (float[n] x) => (int64[k] y, float[m] z)
    <float zero = {0.0}, int64[1] all = {0}, int64[1] first = {0}> {
        above = Greater(x, zero)
        ones = Cast<to = 7>(above)
        count = ReduceSum(ones, all)
        part = Slice(x, first, count)
        found = NonZero(part)
        flat_shape = Constant<value_ints = [-1]>()
        y = Reshape(found, flat_shape)
        size = Shape(y)
        total = ReduceSum(y, all)
        none = Mul(total, first)
        z = Slice(x, none, size)
    }"""
    one, rng = session(text), np.random.default_rng(3)
    for _ in range(20):
        x = np.where(rng.random(9) < 0.3, 0, rng.standard_normal(9)).astype(np.float32)
        y, z = one.run(None, {"x": x})
        part = x[: (x > 0).sum()]
        np.testing.assert_array_equal(y, np.flatnonzero(part))
        np.testing.assert_array_equal(z, x[: len(y)])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_more_k_than_are_planned_for(axis: int, dtype: Any) -> None:
    """Then a kernel reads k, and what it finds lies as if k had been known."""
    text = f"""g (TYPE[a, b, c] x, int64[1] k) => (TYPE[d, e, f] y, int64[d, e, f] i) {{
        y, i = TopK<axis = {axis}, largest = 0>(x, k)
    }}"""
    name = {np.float32: "float", np.float64: "double"}.get(dtype, np.dtype(dtype).name)
    one = session(text.replace("TYPE", name))
    shape = [3, 2, 4]
    shape[axis] = contents.MOST_MET + 20
    x = (50 * np.random.default_rng(axis).random(shape)).astype(dtype)
    order = np.argsort(x, axis, kind="stable")
    values = np.take_along_axis(x, order, axis)
    counts = [*range(contents.MOST_MET), *range(shape[axis] + 1)]
    for k in counts:
        y, i = one.run(None, {"x": x, "k": np.array([k])})
        where = tuple([slice(k if d == axis else None) for d in range(3)])
        np.testing.assert_array_equal(y, values[where])
        np.testing.assert_array_equal(i, order[where])
    assert one.profile({"x": x, "k": np.array([shape[axis]])}, 1)[0].kind == "native"
    for k in (-1, shape[axis] + 1):
        with pytest.raises(ingot.errors.IngotError, match=f"k is .*{shape[axis]} elements"):
            one.run(None, {"x": x, "k": np.array([k])})


def test_k_computed_from_data() -> None:
    text = """g (float[m] x) => (float[k] y, int64[k] i)
    <float zero = {0.0}, int64[1] axis = {0}> {
        above = Greater(x, zero)
        ones = Cast<to = 7>(above)
        k = ReduceSum(ones, axis)
        z, i = TopK(x, k)
        y = Neg(z)
    }"""
    one, rng = session(text), np.random.default_rng(5)
    for size in (50, 50, 1, 50, 0, 7):
        x = rng.standard_normal(size).astype(np.float32)
        y, i = one.run(None, {"x": x})
        order = np.argsort(-x, kind="stable")[: (x > 0).sum()]
        np.testing.assert_array_equal(i, order)
        np.testing.assert_array_equal(y, -x[order])


def test_branches_that_begin_with_what_ends_a_stage() -> None:
    text = """g (float[n] x) => (int64[a, b] y) <float zero = {0.0}, int64[2] one = {1, -1}> {
        total = ReduceSum<keepdims = 0>(x)
        above = Greater(total, zero)
        y = If(above) <
            then_branch = t () => (int64[a, b] p) { p = NonZero(x) },
            else_branch = e () => (int64[a, b] q) {
                values, places = Unique(x)
                q = Reshape(places, one)
            }
        >
    }"""
    one, rng = session(text), np.random.default_rng(7)
    for _ in range(12):
        x = rng.integers(-2, 3, 6).astype(np.float32)
        (y,) = one.run(None, {"x": x})
        wanted = np.flatnonzero(x) if x.sum() > 0 else np.unique(x, return_index=True)[1]
        np.testing.assert_array_equal(y, wanted[None])
    assert all(stage.contents is None or stage.contents.is_open for stage in first_stages(one))


def test_integers_that_another_run_does_not_give() -> None:
    model = onnx.parser.parse_model(
        HEAD
        + """g (float[n, m] x, int64[1] k) => (float[n, p] y) <int64[1] axis = {1}, int64[1] start = {0}> {
            given = OptionalHasElement(k)
            y = If(given) <
                then_branch = one () => (float[n, p] a) {
                    e = OptionalGetElement(k)
                    a = Slice(x, start, e, axis)
                },
                else_branch = other () => (float[n, m] b) { b = Neg(x) }
            >
        }"""
    )
    element = onnx.TypeProto()
    element.CopyFrom(model.graph.input[1].type)
    model.graph.input[1].type.CopyFrom(onnx.helper.make_optional_type_proto(element))
    one = ingot.InferenceSession(model)
    for k in (3, 2, None, 3, None, 5):
        (y,) = one.run(None, {"x": X, "k": None if k is None else np.array([k])})
        np.testing.assert_array_equal(y, -X if k is None else X[:, :k], err_msg=str(k))


def test_as_many_integers_as_no_plan_is_looked_up_by() -> None:
    one = session(
        """g (float[n, m] x, int64[r] k) => (float[p] y) <int64[1] flat = {-1}> {
            s = Reshape(x, k)
            t = Softmax<axis = 0>(s)
            y = Reshape(t, flat)
        }"""
    )
    for k in ([54], [9, 6], [1] * 9 + [54], [6, 9], [1] * 9 + [6, 9], [9, 6]):
        (y,) = one.run(None, {"x": X, "k": np.array(k)})
        exp = np.exp(X.astype(np.float64)).reshape(k)
        np.testing.assert_allclose(y, (exp / exp.sum(0)).ravel(), rtol=1e-5, err_msg=str(k))
    looked_at = driver_of(one)._contents
    assert looked_at is not None
    lengths = [len(found) for _, found in looked_at._met]
    assert max(lengths) <= 8 * contents.MOST_ELEMENTS, f"plans are looked up by {lengths} bytes"
