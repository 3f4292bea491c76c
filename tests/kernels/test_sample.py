"""GridSample and the columns of DeformConv against their plain definitions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.sample import (
    deformed_columns,
    evaluate_deformed_columns,
    evaluate_grid_sample,
    grid_sample,
)
from tests.kernels.run import machines, new, put, run_calls

BOUND = {"float64": 1e-11, "float32": 2e-5, "float16": 3e-3}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_grid_sample(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    sizes = [data.draw(st.sampled_from([1, 2, 5])) for _ in range(dims)]
    places = [data.draw(st.sampled_from([0, 1, 3, 17])) for _ in range(dims)]
    channels = data.draw(st.sampled_from([0, 1, 3]))
    dtype = data.draw(st.sampled_from(list(BOUND)))
    mode = data.draw(st.sampled_from(["nearest", "linear", "cubic"]))
    padding = data.draw(st.sampled_from(["zeros", "border", "reflection"]))
    corners, machine = data.draw(st.booleans()), data.draw(st.sampled_from(machines()))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    x = rng.normal(0, 1, (2, channels, *sizes)).astype(dtype)
    grid = (rng.normal(0, 1, (2, *places, dims)) * 1.3).astype("float64" if dtype == "float64" else "float32")
    if grid.size > 4:
        # What is reflected so often that its place is lost in rounding has no one answer.
        grid.flat[:3] = [np.nan, np.inf, -np.inf if padding == "reflection" else -1e30]
    out = new((2, channels, int(np.prod(places))), dtype)
    call = grid_sample(put(x), put(grid), out, mode, padding, machine, corners=corners)
    (got,) = run_calls(call, out, machine=machine)
    want = evaluate_grid_sample(x, grid, mode, padding, corners=corners).reshape(got.shape)
    bound = BOUND[dtype] * max(1.0, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=bound)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_deformed_columns(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 4)]))
    channels = data.draw(st.sampled_from([4, 12, 40]))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 3))
    kernel, strides, dilations = (data.draw(pair) for _ in range(3))
    height, width, oh, ow = (data.draw(st.sampled_from([1, 3, 6])) for _ in range(4))
    dtype, masked = data.draw(st.sampled_from(list(BOUND))), data.draw(st.booleans())
    machine, rng = data.draw(st.sampled_from(machines())), np.random.default_rng(data.draw(st.integers(0, 9)))
    x = rng.normal(0, 1, (2, channels, height, width)).astype(dtype)
    if data.draw(st.booleans()):
        x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    taps = kernel[0] * kernel[1]
    offsets = (rng.normal(0, 2, (2, groups[1] * taps * 2, oh, ow))).astype(dtype)
    mask = rng.random((2, groups[1] * taps, oh, ow)).astype(dtype) if masked else None
    shape = (2, groups[0], oh, ow, taps, channels // groups[0])
    out = new(shape, dtype)
    share = None if mask is None else put(mask)
    window = (kernel, strides, dilations, (1, 0))
    share = None if mask is None else put(mask)
    window = (kernel, strides, dilations, (1, 0))
    call = deformed_columns(put(x), put(offsets), share, out, groups, *window, machine)
    (got,) = run_calls(call, out, machine=machine)
    want = evaluate_deformed_columns(
        x,
        offsets.reshape(2, groups[1], *kernel, 2, oh, ow),
        None if mask is None else mask.reshape(2, groups[1], *kernel, oh, ow),
        groups,
        strides,
        dilations,
        (1, 0),
    )
    bound = BOUND[dtype] * max(1.0, np.abs(want).max(initial=0))
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=bound)
