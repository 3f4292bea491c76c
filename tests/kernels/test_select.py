"""NonZero and Compress against NumPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.select import compress, evaluate_nonzero, nonzero
from tests.kernels.run import machines, new, put, run_calls

SIZES = st.sampled_from([0, 1, 2, 5, 17, 300])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_nonzero(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(SIZES, min_size=1, max_size=3)))
    dtype = data.draw(st.sampled_from(["float32", "float16", "float64", "bool", "uint8", "int64"]))
    machine, share = data.draw(st.sampled_from(machines())), data.draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    x = (np.random.default_rng(0).random(shape) < share).astype(dtype)
    out, count = new((len(shape), x.size), "int64"), new((), "int64")
    got, n = run_calls(nonzero(put(x), out, count, machine), out, count, machine=machine)
    want = evaluate_nonzero(x)
    assert n == want.shape[1]
    np.testing.assert_array_equal(got.reshape(-1)[: want.size].reshape(want.shape), want)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_compress(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(SIZES, min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    dtype = data.draw(st.sampled_from(["float32", "float16", "float64", "bool"]))
    machine, share = data.draw(st.sampled_from(machines())), data.draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    rng = np.random.default_rng(0)
    x, picks = rng.integers(0, 9, shape).astype(dtype), rng.random(shape[axis]) < share
    out, count = new(shape, dtype), new((), "int64")
    calls = compress(put(x), put(picks), axis, out, count, machine)
    got, n = run_calls(calls, out, count, machine=machine)
    want = np.compress(picks, x, axis)
    assert n == want.shape[axis]
    np.testing.assert_array_equal(got.reshape(-1)[: want.size].reshape(want.shape), want)
