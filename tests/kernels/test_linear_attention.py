"""LinearAttention against its recurrence."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.linear_attention import evaluate_linear_attention, linear_attention
from tests.kernels.run import machines, new, put, run_calls


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_linear_attention(data: st.DataObject) -> None:
    batch, steps, heads, group = (
        data.draw(st.sampled_from(s)) for s in ([0, 1, 2], [0, 1, 5], [1, 2], [1, 3])
    )
    keys, values = (data.draw(st.sampled_from([1, 4, 5, 17])) for _ in range(2))
    dtype, machine = (
        data.draw(st.sampled_from(["float32", "float16"])),
        data.draw(st.sampled_from(machines())),
    )
    starts, decays, corrects = (data.draw(st.booleans()) for _ in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))

    def made(*shape: int, scale: float = 0.4) -> np.ndarray:
        return (rng.normal(0, scale, shape)).astype(dtype)

    q, k = made(batch, steps, heads * group, keys), made(batch, steps, heads, keys)
    v, state = made(batch, steps, heads, values), made(batch, heads, keys, values)
    factors = rng.random((batch, steps, heads, keys)).astype(np.float32) if decays else None
    rates = rng.random((batch, steps, heads)).astype(dtype) if corrects else None
    out, last = new((batch, steps, heads * group, values), dtype), new(state.shape, dtype)
    further = [None if a is None else put(a) for a in (state if starts else None, factors, rates)]
    scale = put(np.array(0.5, np.float32))
    call = linear_attention(put(q), put(k), put(v), *further, scale, out, last, machine)
    got = run_calls(call, out, last, machine=machine)
    want = evaluate_linear_attention(q, k, v, state if starts else 0 * state, factors, rates, 0.5)
    for a, b in zip(got, want, strict=True):
        bound = (1e-5 if dtype == "float32" else 3e-3) * max(1.0, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=bound)
