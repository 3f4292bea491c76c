"""TopK against a stable sort."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.order import evaluate_topk, topk, topk_counted
from tests.kernels.run import machines, new, put, run_calls

DTYPES = ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "uint32", "int64", "uint64")


def drawn(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Few different numbers, so that many are equal; of floats some zeros, infinities and NaNs."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        some = np.array([bounds.min, bounds.max, 0, 1, 2, bounds.max // 2], kind)
    else:
        some = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, -1.5, 1e-5], np.float64).astype(kind)
    many = rng.integers(0, 50, shape).astype(kind)
    return np.where(rng.random(shape) < 0.3, some[rng.integers(0, len(some), shape)], many)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_topk(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 17, 60]), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    k = data.draw(st.integers(0, shape[axis]))
    largest = data.draw(st.booleans())
    dtype = data.draw(st.sampled_from(DTYPES))
    machine = data.draw(st.sampled_from(machines()))
    order = data.draw(st.permutations(range(len(shape))))
    x = drawn(dtype, tuple(shape[d] for d in order), data.draw(st.integers(0, 99)))
    x = x.transpose(np.argsort(order))
    # NumPy's sort of bfloat16 does not know where NaN belongs.
    values, places = evaluate_topk(x.astype("float32") if dtype == "bfloat16" else x, k, axis, largest)
    outs = new(values.shape, x.dtype), new(values.shape, "int64")
    got = run_calls(topk(put(x), k, axis, *outs, machine, largest=largest), *outs, machine=machine)
    np.testing.assert_array_equal(got[1], places)
    np.testing.assert_array_equal(got[0].astype(values.dtype), values)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_topk_of_a_k_in_memory(data: st.DataObject) -> None:
    """What is found of all rows lies in the front of the results; a k that is none is reported."""
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 5, 17, 60]), min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    k = data.draw(st.integers(-2, shape[axis] + 2))
    largest = data.draw(st.booleans())
    dtype = data.draw(st.sampled_from([dtype for dtype in DTYPES if dtype != "bfloat16"]))
    machine = data.draw(st.sampled_from(machines()))
    x = drawn(dtype, shape, data.draw(st.integers(0, 99)))
    found = max(0, min(k, shape[axis]))
    values, places = evaluate_topk(x, found, axis, largest)
    outs = new(shape, x.dtype), new(shape, "int64")
    count, error = new((), "int64"), put(np.zeros((), np.int64))
    calls = topk_counted(put(x), put(np.array(k)), axis, *outs, count, error, machine, largest=largest)
    got = run_calls(calls, *outs, count, error, machine=machine)
    assert (got[2], got[3]) == (found, int(found != k))
    for array, wanted in zip(got, (values, places), strict=False):
        np.testing.assert_array_equal(array.reshape(-1)[: wanted.size].reshape(wanted.shape), wanted)
