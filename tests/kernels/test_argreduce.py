"""ArgMax and ArgMin against their plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import host
from ingot.errors import ShapeError
from ingot.kernels.argreduce import argreduce, evaluate_argreduce
from ingot.kernels.call import strides_in_order
from tests.kernels.run import machines, new, put, run_calls


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_axis_of_any_layout(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 15, 33, 100]), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    largest, last = data.draw(st.booleans()), data.draw(st.booleans())
    dtype = data.draw(st.sampled_from(["float32", "int64", "uint8", "int32", "float64", "float16"]))
    machine = data.draw(st.sampled_from(machines()))
    order = data.draw(st.permutations(range(len(shape))))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.integers(0, data.draw(st.sampled_from([2, 200])), [shape[d] for d in order]).astype(dtype)
    if dtype.startswith("float"):
        x[rng.random(x.shape) < 0.02] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    x = x.transpose(np.argsort(order))
    want = evaluate_argreduce(x, axis, largest, last)
    out = new(want.shape, "int64", strides_in_order(want.shape, data.draw(st.permutations(range(want.ndim)))))
    call = argreduce(put(x), axis, out, machine, largest=largest, last=last)
    (got,) = run_calls(call, out, machine=machine)
    np.testing.assert_array_equal(got, want)


def test_an_empty_axis_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one"):
        argreduce(put(np.zeros((3, 0), np.float32)), 1, new((3,), "int64"), host())
