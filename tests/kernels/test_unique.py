"""Unique against NumPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.unique import evaluate_unique, unique
from tests.kernels.run import machines, new, put, run_calls
from tests.kernels.test_order import DTYPES, drawn


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_unique(data: st.DataObject) -> None:
    n, outer, inner = (data.draw(st.sampled_from(s)) for s in ([0, 1, 2, 7, 100], [1, 1, 3], [0, 1, 1, 2]))
    dtype, in_order = data.draw(st.sampled_from(DTYPES)), data.draw(st.booleans())
    machine = data.draw(st.sampled_from(machines()))
    x = drawn(dtype, (outer, n, inner), data.draw(st.integers(0, 99)))
    if data.draw(st.booleans()) and n:
        x = x[:, np.random.default_rng(0).integers(0, n, n)]  # more slices that are equal
    rows = np.ascontiguousarray(np.moveaxis(x, 1, 0).reshape(n, outer * inner))
    out, first, back, counts = (new(s, d) for s, d in (((outer, n, inner), x.dtype), *[((n,), "int64")] * 3))
    count = new((), "int64")
    calls = unique(put(rows), outer, inner, out, first, back, counts, count, machine, in_order=in_order)
    got = run_calls(calls, out, first, back, counts, count, machine=machine)
    want = evaluate_unique(x, 1, in_order=in_order)
    found = int(got[4])
    assert found == want[0].shape[1]
    taken = got[0].reshape(-1)[: want[0].size].reshape(want[0].shape)
    np.testing.assert_array_equal(taken.astype(np.float64), want[0].astype(np.float64))
    for a, b in zip(got[1:4], want[1:], strict=True):
        np.testing.assert_array_equal(a[: len(b)], b)
