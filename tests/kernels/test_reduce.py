"""Reductions against their plain definitions."""

from __future__ import annotations

import math
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.elements import is_float
from ingot.codegen.machine import Machine, host
from ingot.kernels.call import strides_in_order
from ingot.kernels.expression import Expression, Step, evaluate
from ingot.kernels.reduce import ANY_NUMBER, FLOAT_ONLY, evaluate_reduce, reduce, supports
from tests.kernels.run import each_machine, machines, new, put, run_calls

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-6, "float64": 1e-14}


def numbers(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype.startswith(("int", "uint")):
        return rng.integers(-9 if dtype[0] == "i" else 0, 10, shape).astype(dtype)
    return rng.normal(0, 1.2, shape).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def close(got: np.ndarray, exact: np.ndarray, scale: float = 1.0, factors: int = 0) -> None:
    """Within the dtype's tolerance of the exact result, or of `scale`, the size of what was added up.

    A product of n `factors` may differ by n roundings (Higham, Accuracy and Stability of Numerical
    Algorithms, lemma 3.1), which for half precision are those of float32.
    """
    if got.dtype.kind in "iu":
        np.testing.assert_array_equal(got, exact.astype(got.dtype))
        return
    rounding = np.finfo(np.float64 if got.dtype == np.float64 else np.float32).eps / 2
    tolerance = TOLERANCE[got.dtype.name] + factors * rounding
    np.testing.assert_allclose(got.astype(np.float64), exact, rtol=tolerance, atol=tolerance * scale)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_axes_of_any_layout(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 16, 33, 70, 300]), max_size=4)))
    while math.prod(shape) > 40000:
        shape = shape[1:]
    dtype = data.draw(st.sampled_from(["float32", "float64", "int64", "int8", "float16", "bfloat16"]))
    op = data.draw(st.sampled_from([op for op in (*ANY_NUMBER, *FLOAT_ONLY) if supports(op, dtype)]))
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1)))) if shape else ()
    machine = data.draw(st.sampled_from(machines()))
    order = data.draw(st.permutations(range(len(shape))))
    x = numbers(tuple(shape[d] for d in order), dtype).transpose(np.argsort(order))
    if op == "ReduceLogSum":
        x = np.abs(x)
    if op == "ReduceProd" and is_float(dtype):
        x = (1 + x / 20).astype(dtype)
    kept = tuple(n for d, n in enumerate(shape) if d not in axes)
    out = new(kept, dtype, strides_in_order(kept, data.draw(st.permutations(range(len(kept))))))
    (got,) = run_calls(reduce(op, [put(x)], axes, out, machine), out, machine=machine)
    exact = evaluate_reduce(op, x, axes)
    count = math.prod(shape[a] for a in axes)
    sums = op in ("ReduceSum", "ReduceMean")
    with np.errstate(all="ignore"):
        size = math.sqrt(count) if sums else 1.0 if op == "ReduceLogSum" else 0.1
        close(got, exact, size, count if op == "ReduceProd" else 0)


@each_machine
@pytest.mark.parametrize("op", [*ANY_NUMBER, *FLOAT_ONLY])
def test_nan_and_infinities(op: str, machine: Machine) -> None:
    x = np.ones((6, 40), np.float32)
    x[0, 3], x[1, 33], x[2, 5], x[3, :2] = np.nan, np.inf, -np.inf, [np.inf, -np.inf]
    x[4, :] = -np.inf
    for array, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        out = new((6,))
        (got,) = run_calls(reduce(op, [put(array)], (axis,), out, machine), out, machine=machine)
        np.testing.assert_allclose(got, evaluate_reduce(op, array, (axis,)), rtol=1e-6)


@each_machine
@pytest.mark.parametrize("transposed", [False, True])
def test_long_sums_stay_accurate(machine: Machine, transposed: bool) -> None:
    x = (np.random.default_rng(0).random((500_000, 2)) + 0.5).astype(np.float32)
    x = np.ascontiguousarray(x.T) if not transposed else np.repeat(x, 8, axis=1)
    axis = 0 if transposed else 1
    out = new((x.shape[1 - axis],))
    (got,) = run_calls(reduce("ReduceSum", [put(x)], (axis,), out, machine), out, machine=machine)
    np.testing.assert_allclose(got, x.sum(axis, dtype=np.float64), rtol=2e-7)


@each_machine
@pytest.mark.parametrize("axes", [(0, 2), (1,)])
def test_prologue_and_epilogue_are_fused(machine: Machine, axes: tuple[int, ...]) -> None:
    a, b = numbers((3, 20, 33), "float32"), numbers((20, 1), "float32", 1)
    before = Expression(
        ("float32", "float32"), (Step("Sub", (0, 1), "float32"), Step("Sigmoid", (2,), "float32")), (3,)
    )
    after = Expression(("float32",), (Step("Sqrt", (0,), "float32"),), (1,))
    kept = tuple(n for d, n in enumerate(a.shape) if d not in axes)
    out = new(kept)
    call = reduce("ReduceMean", [put(a), put(b)], axes, out, machine, before, after)
    (got,) = run_calls(call, out, machine=machine)
    inner = evaluate(before, [a, np.broadcast_to(b, a.shape)])[0]
    np.testing.assert_allclose(got, np.sqrt(inner.mean(axes, dtype=np.float64)), rtol=1e-6)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        reduce("ReduceSum", [put(np.zeros((2, 3), np.float32))], (1,), new((3,)), host())


@each_machine
@pytest.mark.parametrize("shape", [(517, 300), (2, 300, 70), (40, 1100)])
def test_strips_of_columns_where_they_are_more_than_a_cache_holds(
    shape: tuple[int, ...], machine: Machine
) -> None:
    machine = replace(machine, l2_bytes=8192)
    axis = len(shape) - 2
    kept = tuple(n for d, n in enumerate(shape) if d != axis)
    for op, dtype in [(op, d) for op in (*ANY_NUMBER, *FLOAT_ONLY) for d in ("float32", "int64")]:
        if not supports(op, dtype):
            continue
        x = numbers(shape, dtype)
        if is_float(dtype):
            x = np.abs(x) if op == "ReduceLogSum" else (1 + x / 50).astype(dtype) if op == "ReduceProd" else x
        if op == "ReduceSum" and is_float(dtype):
            x[..., 3, 5] = np.inf
        out = new(kept, dtype)
        call = reduce(op, [put(x)], (axis,), out, machine)
        if op != "ReduceLogSumExp":
            assert dict(call.kernel.params)["layout"].strip, "these are not too few for strips"
        (got,) = run_calls(call, out, machine=machine)
        size = 1.0 if op in ("ReduceLogSum", "ReduceLogSumExp") else math.sqrt(shape[axis])
        close(got, evaluate_reduce(op, x, (axis,)), size, shape[axis] if op == "ReduceProd" else 0)


def test_a_form_is_that_of_all_with_the_same_dimensions_left() -> None:
    """So images share it with those that are turned."""
    shapes = [(1, 6, 10, 8), (1, 10, 6, 8), (1, 60, 1, 8)]
    calls = [reduce("ReduceMean", [new(shape)], (1, 2), new((1, 8)), host()) for shape in shapes]
    assert len({id(call.form) for call in calls}) == 1, "a form depends on dimensions that are none of a loop"
    assert reduce("ReduceMean", [new((1, 6, 9, 8))], (1, 2), new((1, 8)), host()).form is not calls[0].form
