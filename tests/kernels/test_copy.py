"""Copies between layouts against NumPy."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine, host
from ingot.kernels.call import strides_in_order
from ingot.kernels.copy import copy
from tests.kernels.run import each_machine, machines, new, put, run_calls


def numbers(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_order_of_dimensions(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 8, 15, 16, 17, 40]), max_size=4)))
    if math.prod(shape) > 30000:
        shape = shape[:2]
    dtype = np.dtype(
        data.draw(st.sampled_from(["int8", "float16", "float32", "float64", "bool", "complex128"]))
    )
    machine = data.draw(st.sampled_from(machines()))
    source = data.draw(st.permutations(range(len(shape))))
    x = numbers(tuple(shape[d] for d in source), dtype).transpose(np.argsort(source))
    gap = data.draw(st.sampled_from([1, 1, 2]))
    order = data.draw(st.permutations(range(len(shape))))
    out = new(shape, dtype, [gap * s for s in strides_in_order(shape, order)])
    (got,) = run_calls(copy(put(x), out, machine), out, machine=machine)
    np.testing.assert_array_equal(got, x)


@each_machine
@pytest.mark.parametrize(("shape", "perm"), [((2, 3, 20, 21), (0, 2, 3, 1)), ((1, 20, 21, 64), (0, 3, 1, 2))])
def test_images_change_their_layout(machine: Machine, shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    x = numbers(shape, np.dtype("float32")).transpose(perm)
    out = new(x.shape)
    call = copy(put(x), out, machine)
    assert shape[1] == 3 or "transpose" in call.kernel.generator
    (got,) = run_calls(call, out, machine=machine)
    np.testing.assert_array_equal(got, x)


@each_machine
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("run", [1, 2, 3, 4, 7, 16, 50])
def test_short_runs(run: int, dtype: str, machine: Machine) -> None:
    """In whole blocks and beyond their ends, of both sides."""
    for shape in ((5, 3, 4), (2, 33, 20), (1, 3, 900), (1, 900, 3)):
        x = numbers((*shape, run), np.dtype(dtype)).transpose(0, 2, 1, 3)
        out = new(x.shape, dtype)
        (got,) = run_calls(copy(put(x), out, machine), out, machine=machine)
        np.testing.assert_array_equal(got, x)


@each_machine
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("channels", [2, 3, 4, 5, 7])
def test_pixels_and_planes(channels: int, dtype: str, machine: Machine) -> None:
    for pixels in (31, 64, 3001):
        x = numbers((2, pixels, channels), np.dtype(dtype))
        for source in (x.transpose(0, 2, 1), np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)):
            out = new(source.shape, dtype)
            (got,) = run_calls(copy(put(source), out, machine), out, machine=machine)
            np.testing.assert_array_equal(got, source)


def test_images_of_colours_are_shuffled() -> None:
    machine = machines()[0]
    for dtype in ("uint8", "float32"):
        x = put(numbers((48, 64, 3), np.dtype(dtype)))
        planes = x.transpose((2, 0, 1))
        assert "interleave" in copy(planes, new(planes.shape, dtype), machine).kernel.generator
        assert "runs" in copy(x.transpose((1, 0, 2)), new((64, 48, 3), dtype), machine).kernel.generator


@each_machine
def test_copies_broadcast_and_cast(machine: Machine) -> None:
    x = numbers((3, 1), np.dtype("int64"))
    for dtype in (np.dtype("int64"), np.dtype("float32"), np.dtype(ml_dtypes.bfloat16)):
        out = new((2, 3, 5), dtype)
        (got,) = run_calls(copy(put(x), out, machine), out, machine=machine)
        np.testing.assert_array_equal(got.astype(np.float64), np.broadcast_to(x, (2, 3, 5)))


def test_reversed_dimensions() -> None:
    x = numbers((6, 35), np.dtype("float32"))
    out = new(x.shape)
    (got,) = run_calls(copy(put(x[::-1, ::-1]), out, host()), out)
    np.testing.assert_array_equal(got, x[::-1, ::-1])
