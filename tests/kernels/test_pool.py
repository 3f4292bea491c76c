"""Pooling against its plain definition."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import Call, View, strides_in_order
from ingot.kernels.pool import average_pool, definition, lp_pool, max_pool
from tests.kernels.run import each_machine, machines, new, put, run_calls


def emit(
    op: str, x: View, out: View, geometry: tuple[Any, ...], count_include_pad: bool, machine: Machine
) -> list[Call]:
    if op == "max":
        return max_pool(x, out, *geometry, machine)
    if op == "average":
        return average_pool(x, out, *geometry, count_include_pad, machine)
    return lp_pool(x, out, 1 if op == "l1" else 2, *geometry, machine)


def check(
    machine: Machine,
    op: str,
    x: np.ndarray,
    out_spatial: list[int],
    geometry: tuple[Any, ...],
    count_include_pad: bool = False,
    out_last: bool = True,
) -> None:
    shape = (*x.shape[:2], *out_spatial)
    want = definition(op, x, shape, *geometry, count_include_pad)
    order = (0, *range(2, x.ndim), 1) if out_last else tuple(range(x.ndim))
    out = new(shape, x.dtype, strides_in_order(shape, order))
    calls = emit(op, put(x), out, geometry, count_include_pad, machine)
    (got,) = run_calls(calls, out, machine=machine)
    got, rounding = got.astype(np.float32), float(ml_dtypes.finfo(x.dtype).eps)
    if op == "max":
        np.testing.assert_array_equal(got, want.astype(np.float32))
    else:
        np.testing.assert_allclose(got, want, rtol=2e-6 + rounding, atol=2e-6)


def channels_last(x: np.ndarray) -> np.ndarray:
    """The same array, channels innermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_windows(data: st.DataObject) -> None:
    draw_and_check(data)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_windows_in_rows(data: st.DataObject) -> None:
    """The kernel of large windows, on those that the cost model would give to blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingot.kernels.pool.choose", lambda *_, **__: None)
        draw_and_check(data)


def draw_and_check(data: st.DataObject) -> None:
    """One pooling of random geometry against its definition."""
    rank = data.draw(st.sampled_from([1, 2, 2, 2, 3]))
    kernel, strides, dilations, begins, ends, sizes, outs = ([] for _ in range(7))
    for _ in range(rank):
        n, s, d = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
        begin, end = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
        size = data.draw(st.integers(max(1, (n - 1) * d + 1 - begin - end), 18 if rank == 2 else 9))
        span = size + begin + end - (n - 1) * d - 1
        out = span // s + 1
        if data.draw(st.booleans()) and span % s and out * s < size + begin:  # ceil_mode
            out += 1
        for values, value in zip(
            (kernel, strides, dilations, begins, ends, sizes, outs),
            (n, s, d, begin, end, size, out),
            strict=True,
        ):
            values.append(value)
    shape = (data.draw(st.integers(0, 2)), data.draw(st.integers(1, 35)), *sizes)
    dtype = data.draw(st.sampled_from([np.float32, np.float32, np.float16, ml_dtypes.bfloat16]))
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if data.draw(st.booleans()):
        x = channels_last(x)
    include, out_last = data.draw(st.booleans()), data.draw(st.booleans())
    op = data.draw(st.sampled_from(["max", "max", "average", "average", "l1", "l2"]))
    # A window that lies in the padding alone has no mean, and with dilation there may be such a one.
    machine = data.draw(st.sampled_from(machines()))
    with np.errstate(all="ignore"):
        check(machine, op, x, outs, (kernel, strides, [*begins, *ends], dilations), include, out_last)


@each_machine
@pytest.mark.parametrize("window", [3, 5, 13])
def test_overlapping_maximum_with_nan_and_infinity(machine: Machine, window: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, 20, 20, 20)).astype(np.float32)
    x[0, 3, 4, 5], x[1, 7, 0, 0], x[1, 8, 19, 19], x[0, 0] = np.nan, np.inf, np.nan, -np.inf
    pad = window // 2
    geometry = ([window] * 2, [1, 1], [pad] * 4, [1, 1])
    check(machine, "max", channels_last(x), [20, 20], geometry)


@each_machine
def test_whole_image_mean(machine: Machine) -> None:
    x = channels_last(np.random.default_rng(2).standard_normal((1, 48, 7, 7)).astype(np.float32))
    check(machine, "average", x, [1, 1], ([7, 7], [1, 1], [0] * 4, [1, 1]))


def test_windows_longer_than_what_is_written_out() -> None:
    x = channels_last(np.random.default_rng(2).standard_normal((1, 20, 3, 90)).astype(np.float32))
    for op in ("max", "average"):
        check(machines()[0], op, x, [2, 23], ([2, 37], [1, 3], [0, 18, 0, 18], [1, 1]))


@pytest.mark.parametrize("pads", [[0, 5000, 0, 0], [0, 0, 0, 5000], [0, 2500, 0, 2500], [9, 4200, 9, 3]])
@pytest.mark.parametrize("op", ["max", "average"])
def test_windows_in_the_padding_alone(op: str, pads: list[int]) -> None:
    """So many that whole pieces of a row see nothing of the image."""
    x = np.random.default_rng(2).standard_normal((1, 2, 2, 5)).astype(np.float32)
    outs = [x.shape[2] + pads[0] + pads[2] - 1, x.shape[3] + pads[1] + pads[3] - 2]
    for stride in (1, 2):
        widths = [outs[0], -(-outs[1] // stride)]
        check(machines()[0], op, x, widths, ([2, 3], [1, stride], pads, [1, 1]), True, out_last=False)


def test_volume_of_plain_images_takes_calls_for_what_cannot_be_merged() -> None:
    x = np.random.default_rng(3).standard_normal((2, 5, 4, 6, 7)).astype(np.float32)
    check(machines()[0], "max", x, [2, 3, 3], ([2, 2, 3], [2, 2, 2], [0] * 6, [1, 1, 1]), out_last=False)


def test_what_is_left_to_the_host() -> None:
    machine = machines()[0]
    x, out = new((1, 4, 5, 5)), new((1, 4, 4, 4))
    geometry = ([2, 2], [1, 1], [0] * 4, [1, 1])
    with pytest.raises(UnsupportedOperatorError, match="p = 3"):
        lp_pool(x, out, 3, *geometry, machine)
    with pytest.raises(UnsupportedOperatorError, match="int8"):
        max_pool(new((1, 4, 5, 5), "int8"), new((1, 4, 4, 4), "int8"), *geometry, machine)
    deep = new((1, 2, *[3] * 4))
    with pytest.raises(UnsupportedOperatorError, match="4 spatial axes"):
        max_pool(deep, deep, [1] * 4, [1] * 4, [0] * 8, [1] * 4, machine)
    assert math.prod(out.shape) == 64
