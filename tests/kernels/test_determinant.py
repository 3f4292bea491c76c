"""Determinants against LAPACK's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.determinant import determinant, evaluate_determinant
from tests.kernels.run import machines, new, put, run_calls


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_determinants(data: st.DataObject) -> None:
    n, count = data.draw(st.sampled_from([0, 1, 2, 3, 8, 17])), data.draw(st.sampled_from([0, 1, 4]))
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16"]))
    machine, rng = (
        data.draw(st.sampled_from(machines())),
        np.random.default_rng(data.draw(st.integers(0, 99))),
    )
    x = rng.integers(-2, 3, (count, n, n)).astype(dtype)  # some are singular
    out = new((count,), dtype)
    (got,) = run_calls(determinant(put(x), out, machine), out, machine=machine)
    with np.errstate(over="ignore"):
        want = evaluate_determinant(x).astype(dtype).astype(np.float64)
    bound = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-3}[dtype]
    size = np.abs(want[np.isfinite(want)]).max(initial=1.0)
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=bound * size)
