"""OneHot, CumSum and CumProd against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.arrange import cumulative, one_hot
from tests.kernels.run import each_machine, machines, new, put, run_calls


@each_machine
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["int64", "int32", "float32"])
def test_one_hot(machine: Machine, axis: int, dtype: str) -> None:
    indices = np.random.default_rng(0).integers(-5, 7, (4, 21)).astype(dtype)  # 5 and 6 are out of range
    values = np.array([2.0, 7.0], np.float32)
    hot = (indices % 5)[..., None] == np.arange(5)
    hot &= (indices < 5)[..., None]
    want = np.moveaxis(np.where(hot, values[1], values[0]), -1, axis)
    out = new(want.shape)
    (got,) = run_calls(one_hot(put(indices), 5, put(values), axis, out, machine), out, machine=machine)
    np.testing.assert_array_equal(got, want)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cumulative(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 17, 40]), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    exclusive, reverse = data.draw(st.booleans()), data.draw(st.booleans())
    dtype = data.draw(st.sampled_from(["float32", "int64", "int32", "float64"]))
    machine = data.draw(st.sampled_from(machines()))
    order = data.draw(st.permutations(range(len(shape))))
    x = np.random.default_rng(0).integers(-9, 9, [shape[d] for d in order]).astype(dtype)
    x = x.transpose(np.argsort(order))
    flipped = np.flip(x, axis) if reverse else x
    product = data.draw(st.booleans())
    if exclusive and flipped.shape[axis]:
        ahead = np.full_like(np.take(flipped, [0], axis), int(product))
        flipped = np.concatenate([ahead, np.take(flipped, range(shape[axis] - 1), axis)], axis)
    with np.errstate(over="ignore"):
        want = (np.cumprod if product else np.cumsum)(flipped, axis, dtype=dtype)
    want = np.flip(want, axis) if reverse else want
    out = new(shape, dtype)
    options = {"product": product, "exclusive": exclusive, "reverse": reverse}
    call = cumulative(put(x), out, axis, machine, **options)
    (got,) = run_calls(call, out, machine=machine)
    np.testing.assert_array_equal(got, want)
