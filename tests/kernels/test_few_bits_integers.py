"""Products of rows as bytes with weights of four bits against NumPy, on every kind of CPU."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.few_bits_integers import definition, few_bits_integers, pack_few_bits, supports
from tests.kernels.run import each_machine, machines, new, put, run_calls


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_product(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(machines()))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows, n = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 37))
    block = data.draw(st.sampled_from([16, 32, 64, 128]))
    blocks = data.draw(st.integers(1, 5))
    depth = block * blocks
    assert supports(depth, block)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    x[rng.random(rows) < 0.1] = 0  # rows whose blocks have no magnitude
    w = rng.integers(0, 256, (n, depth // 2)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (n, blocks)).astype(np.float32)
    zeros = rng.integers(0, 16, scales.shape).astype(np.uint8) if data.draw(st.booleans()) else None
    out = new((rows, n), np.float32, (n + 3, 1) if data.draw(st.booleans()) else None)
    packed = pack_few_bits(w, scales, zeros, block, machine)
    (got,) = run_calls(few_bits_integers(put(x), packed, out, machine), out, machine=machine)
    want = definition(x, w, scales, zeros)
    # Integers are exact: what is rounded is each block's part, of at most 15 · block · the scales.
    bound = 4 * 2.0**-24 * blocks * (np.abs(x).max() * 15 * block * 0.1)
    assert np.abs(got - want).max() <= bound


@each_machine
def test_a_row_that_is_not_finite_says_so(machine: Machine) -> None:
    x = np.ones((3, 64), np.float32)
    x[1, 5], x[2, 40] = np.nan, np.inf
    w, scales = np.full((5, 32), 0x9B, np.uint8), np.ones((5, 2), np.float32)
    out = new((3, 5))
    packed = pack_few_bits(w, scales, None, 32, machine)
    (got,) = run_calls(few_bits_integers(put(x), packed, out, machine), out, machine=machine)
    assert np.isfinite(got[0]).all() and np.isnan(got[1:]).all()


def test_what_is_left_to_floats() -> None:
    assert not supports(100, 32)
    assert not supports(0, 32)
    assert not supports(60, 12)
