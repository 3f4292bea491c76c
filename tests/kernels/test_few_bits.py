"""Products with weights of four bits against NumPy, on every kind of CPU."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.few_bits import MOST_ROWS, definition, few_bits, supports
from tests.kernels.run import machines, new, put, run_calls


def halved(x: np.ndarray, machine: Machine) -> np.ndarray:
    """x with the even values of each vector of bytes before its odd ones."""
    return np.ascontiguousarray(x.reshape(x.shape[0], -1, machine.lanes, 2).swapaxes(2, 3))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_product_with_few_bits(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(machines()))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    rows, n = data.draw(st.integers(1, MOST_ROWS)), data.draw(st.integers(1, 37))
    block = data.draw(st.sampled_from([32, 64, 128]))
    depth = block * data.draw(st.integers(1, 5))
    assert supports(rows, depth, block, machine)
    x = rng.standard_normal((rows, depth)).astype(np.float32)
    w = rng.integers(0, 256, (n, depth // 2)).astype(np.uint8)
    scales = rng.uniform(0.01, 0.1, (n, depth // block)).astype(np.float32)
    zeros = rng.uniform(0, 15, scales.shape).astype(np.float32) if data.draw(st.booleans()) else None
    strides = (n + 3, 1) if data.draw(st.booleans()) else None
    out = new((rows, n), np.float32, strides)
    own = None if zeros is None else put(zeros)
    call = few_bits(put(halved(x, machine)), put(w), put(scales), own, out, block, machine)
    (got,) = run_calls(call, out, machine=machine)
    want = definition(x, w, scales, zeros)
    assert np.abs(got - want).max() <= 2e-6 * np.abs(x).max() * 15 * 0.1 * depth**0.5


def test_what_is_left_to_products_of_floats() -> None:
    machine = machines()[0]
    assert not supports(MOST_ROWS + 1, 64, 32, machine)
    assert not supports(1, 100, 32, machine)
    assert not supports(0, 64, 32, machine)
    assert not supports(1, 64, machine.lanes, machine)
