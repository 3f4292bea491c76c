"""Pairwise coupling against its definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.coupling import coupling, evaluate_coupling
from tests.kernels.run import machines, new, put, run_calls


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_coupling(data: st.DataObject) -> None:
    """Both stop by the same bound, so they are as far apart as sums in another order may be."""
    rows, classes = data.draw(st.sampled_from([0, 1, 2, 33])), data.draw(st.sampled_from([1, 2, 3, 4, 9]))
    machine = data.draw(st.sampled_from(machines()))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pairs = np.clip(rng.uniform(-0.2, 1.2, (rows, classes * (classes - 1) // 2)), 1e-7, 1 - 1e-7)
    if pairs.size and data.draw(st.booleans()):
        pairs[0, 0] = np.nan
    out = new((rows, classes), "float64")
    (got,) = run_calls(coupling(put(pairs), out), out, machine=machine)
    want = evaluate_coupling(pairs, classes)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-9)
