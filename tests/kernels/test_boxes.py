"""RoiAlign and MaxRoiPool against their plain definitions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.kernels.boxes import evaluate_roi_align, evaluate_roi_pool, roi_align, roi_pool
from ingot.kernels.call import strides_in_order
from tests.kernels.run import machines, new, put, run_calls


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_roi_align(data: st.DataObject) -> None:
    channels = data.draw(st.sampled_from([0, 1, 3, 16, 37, 70]))
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16"]))
    height, width = data.draw(st.sampled_from([(1, 1), (5, 9), (8, 3)]))
    mode, ratio = data.draw(st.sampled_from(["avg", "max"])), data.draw(st.sampled_from([0, 1, 3]))
    half, last = data.draw(st.booleans()), data.draw(st.booleans())
    machine, rng = data.draw(st.sampled_from(machines())), np.random.default_rng(data.draw(st.integers(0, 9)))
    x = rng.normal(0, 1, (2, channels, height, width)).astype(dtype)
    if last:
        x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    rois = (rng.random((4, 4)) * 12 - 2).astype(dtype)
    images, shape = np.array([0, 1, 1, 0]), (4, channels, 2, 3)
    out = new(shape, dtype, strides_in_order(shape, (0, 2, 3, 1)) if last else None)
    error = new((), "int64")
    scale = put(np.array(0.75, "float64" if dtype == "float64" else "float32"))
    options = {"half_pixel": half}
    call = roi_align(put(x), put(rois), put(images), out, mode, ratio, scale, error, machine, **options)
    (got,) = run_calls(call, out, machine=machine)
    want = evaluate_roi_align(x, rois, images, (2, 3), mode, ratio, 0.75, **options)
    bound = {"float64": 1e-12, "float32": 1e-5, "float16": 3e-3}[dtype]
    np.testing.assert_allclose(
        got.astype(np.float64), want, rtol=0, atol=bound * max(1.0, np.abs(want).max(initial=0))
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_roi_pool(data: st.DataObject) -> None:
    channels = data.draw(st.sampled_from([0, 1, 3, 16, 37]))
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16"]))
    height, width = data.draw(st.sampled_from([(1, 1), (5, 9), (8, 3)]))
    last, machine = data.draw(st.booleans()), data.draw(st.sampled_from(machines()))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.normal(0, 1, (2, channels, height, width)).astype(dtype)
    if last:
        x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    rois = np.concatenate([rng.integers(0, 2, (4, 1)), rng.random((4, 4)) * 12 - 2], 1).astype(dtype)
    shape = (4, channels, 2, 3)
    out = new(shape, dtype, strides_in_order(shape, (0, 2, 3, 1)) if last else None)
    scale = put(np.array(0.75, "float64" if dtype == "float64" else "float32"))
    call = roi_pool(put(x), put(rois), out, scale, new((), "int64"), machine)
    (got,) = run_calls(call, out, machine=machine)
    np.testing.assert_array_equal(got, evaluate_roi_pool(x, rois, (2, 3), 0.75))
