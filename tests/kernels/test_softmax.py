"""Softmax against its plain definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.call import strides_in_order
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step, evaluate, identity
from ingot.kernels.softmax import evaluate_softmax, softmax
from tests.kernels.run import each_machine, machines, new, put, run_calls

TOLERANCE = {"float16": 1e-3, "float32": 1e-6, "float64": 1e-14}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_axis_of_any_layout(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 16, 33, 70, 500]), min_size=1, max_size=4)))
    while math.prod(shape) > 40000:
        shape = shape[1:]
    dtype = data.draw(st.sampled_from(["float32", "float32", "float16", "float64"]))
    axis = data.draw(st.integers(0, len(shape) - 1))
    log = data.draw(st.booleans())
    machine = data.draw(st.sampled_from(machines()))
    order = data.draw(st.permutations(range(len(shape))))
    x = (
        np.random.default_rng(0)
        .normal(0, 4, [shape[d] for d in order])
        .astype(dtype)
        .transpose(np.argsort(order))
    )
    out = new(shape, dtype, strides_in_order(shape, data.draw(st.permutations(range(len(shape))))))
    (got,) = run_calls(softmax(put(x), out, axis, machine, log=log), out, machine=machine)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        got, evaluate_softmax(x, axis, log), rtol=tolerance, atol=tolerance / 10 if not log else tolerance * 5
    )


@each_machine
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan(machine: Machine, axis: int) -> None:
    x = np.zeros((40, 40), np.float32)
    np.fill_diagonal(x, -np.inf)
    x[3], x[7, 7], x[9, 9], x[11] = -np.inf, np.nan, np.inf, 3e38
    x[:, 3], x[:, 20] = -np.inf, -3e38
    out = new(x.shape)
    (got,) = run_calls(softmax(put(x), out, axis, machine), out, machine=machine)
    np.testing.assert_allclose(got, evaluate_softmax(x, axis), rtol=1e-6, atol=1e-7)


@each_machine
def test_scale_and_mask_are_fused(machine: Machine) -> None:
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(2, 3, 17, 37)).astype(np.float32), rng.random((2, 1, 1, 37)) < 0.7
    scale, low = np.float32([0.125]), np.float32([-np.inf])
    dtypes = ("float32", "bool", "float32", "float32")
    before = Expression(dtypes, (Step("Mul", (0, 2), "float32"), Step("Where", (1, 4, 3), "float32")), (5,))
    after = Expression(("float32",), (Step("Sqrt", (0,), "float32"),), (1,))
    out = new(x.shape)
    operands = [put(mask), put(scale), put(low)]
    call = softmax(put(x), out, 3, machine, operands=operands, prologue=before, epilogue=after)
    (got,) = run_calls(call, out, machine=machine)
    inner = evaluate(before, [x, np.broadcast_to(mask, x.shape), scale, low])[0]
    np.testing.assert_allclose(got, np.sqrt(evaluate_softmax(inner, 3)), rtol=1e-6)


@each_machine
@pytest.mark.parametrize("axis", [0, 1])
def test_in_place(machine: Machine, axis: int) -> None:
    x = np.random.default_rng(0).normal(size=(21, 70)).astype(np.float32)
    view = new(x.shape)
    calls = [
        elementwise(identity("float32"), [put(x)], [view], machine),
        softmax(view, view, axis, machine),
    ]
    (got,) = run_calls(calls, view, machine=machine)
    np.testing.assert_allclose(got, evaluate_softmax(x, axis), rtol=1e-6)
