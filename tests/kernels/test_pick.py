"""Picked elements against NumPy's indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.call import strides_in_order
from ingot.kernels.pick import pick
from tests.kernels.run import each_machine, machines, new, put, run_calls


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_tables_that_stay_near(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 4))
    most = data.draw(st.sampled_from([6, 30, 150 if rank < 3 else 40]))
    shape = [data.draw(st.integers(1, most if d == rank - 1 else 7)) for d in range(rank)]
    order = tuple(range(rank)) if data.draw(st.booleans()) else tuple(data.draw(st.permutations(range(rank))))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    axes: dict[int, np.ndarray] = {}
    for d in range(rank):
        if data.draw(st.booleans()):
            count = data.draw(st.integers(1, 2 * most))
            near = np.arange(count) * shape[d] // count + rng.integers(-2, 3, count)
            axes[d] = np.clip(near, 0, shape[d] - 1)
    dtype = data.draw(st.sampled_from(["uint8", "float16", "float32", "int64", "bool"]))
    stored = rng.integers(0, 100, [shape[d] for d in order]).astype(dtype)
    x = stored.transpose(np.argsort(order))
    if data.draw(st.booleans()) and shape[0] > 1:
        x = x[::-1]  # rows run backwards
    want = x[np.ix_(*[axes.get(d, np.arange(n)) for d, n in enumerate(x.shape)])]
    gap = data.draw(st.sampled_from([0, 0, 3]))
    wide = [n + gap * (d == order[-1]) for d, n in enumerate(want.shape)]
    out = new(want.shape, dtype, strides_in_order(wide, order))
    machine = data.draw(st.sampled_from(machines()))
    call = pick(put(x), out, axes, machine)
    if call is None:
        return
    (got,) = run_calls(call, out, machine=machine)
    np.testing.assert_array_equal(got, want)


@each_machine
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)], ids=["planes", "pixels"])
def test_usual_images_are_picked(machine: Machine, dtype: str, order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    for channels, size, other in ((3, 13, 26), (40, 9, 27), (3, 20, 34), (3, 30, 17)):
        x = rng.integers(0, 100, (2, size, size, channels)).astype(dtype).transpose(0, 3, 1, 2)
        x = x if order[1] == 2 else np.ascontiguousarray(x)
        table = (np.arange(other) * size) // other
        out = new((2, channels, other, other), dtype, strides_in_order((2, channels, other, other), order))
        call = pick(put(x), out, {2: table, 3: table}, machine)
        assert call is not None, f"{machine.vector_bytes} bytes: {channels} channels, {size} to {other}"
        (got,) = run_calls(call, out, machine=machine)
        np.testing.assert_array_equal(got, x[:, :, table][..., table])
