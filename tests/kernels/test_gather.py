"""Gathers and scatters against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine, host
from ingot.errors import ShapeError
from ingot.kernels.call import Call, View, strides_in_order
from ingot.kernels.elementwise import fill
from ingot.kernels.gather import gather, gather_elements, gather_nd, scatter_elements, scatter_nd
from tests.kernels.run import each_machine, machines, new, put, run_calls


def run(make: Callable[[View], Call | list[Call]], out: View, machine: Machine) -> tuple[np.ndarray, bool]:
    """The result, and whether the kernel found an index out of range."""
    error = new((), "int64")
    calls = make(error)
    calls = [fill(0, error, machine), *(calls if isinstance(calls, list) else [calls])]
    got, flag = run_calls(calls, out, error, machine=machine)
    return got, bool(flag[()])


def numbers(shape: tuple[int, ...], dtype: str, order: list[int] | None = None) -> np.ndarray:
    order = list(range(len(shape))) if order is None else order
    x = np.arange(math.prod(shape)).reshape([shape[d] for d in order]) % 120
    return x.astype(dtype).transpose(np.argsort(order))


SIZES = st.sampled_from([1, 2, 3, 7, 16, 40])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_gather(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(SIZES, min_size=1, max_size=3)))
    dtype = data.draw(st.sampled_from(["float32", "int64", "float16", "bool"]))
    x = numbers(shape, dtype, data.draw(st.permutations(range(len(shape)))))
    axis = data.draw(st.integers(0, len(shape) - 1))
    places = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 33]), max_size=2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    index = rng.integers(-shape[axis], shape[axis], places).astype(
        data.draw(st.sampled_from(["int32", "int64"]))
    )
    machine = data.draw(st.sampled_from(machines()))
    want = np.take(x, index, axis)
    out = new(want.shape, dtype, strides_in_order(want.shape, data.draw(st.permutations(range(want.ndim)))))
    got, wrong = run(lambda e: gather(put(x), put(index), axis, out, e, machine), out, machine)
    np.testing.assert_array_equal(got, want)
    assert not wrong


@each_machine
@pytest.mark.parametrize("bad", [-6, 5, 2**40, -(2**63)])
@pytest.mark.parametrize("axis", [0, 1])
def test_an_index_out_of_range_is_reported_and_reads_nothing_else(
    machine: Machine, bad: int, axis: int
) -> None:
    x = numbers((5, 5), "float32")
    index = np.array([0, bad, 2])
    want = np.take(x, [0, 0, 2], axis)
    out = new(want.shape)
    got, wrong = run(lambda e: gather(put(x), put(index), axis, out, e, machine), out, machine)
    np.testing.assert_array_equal(got, want)
    assert wrong


@each_machine
@pytest.mark.parametrize("axis", [0, 1])
def test_negative_indices_may_be_out_of_range(machine: Machine, axis: int) -> None:
    x, index = numbers((5, 5), "float32"), np.array([[1, -1, 4]])
    want = np.take(x, [[1, 0, 4]], axis)
    out = new(want.shape)
    got, wrong = run(
        lambda e: gather(put(x), put(index), axis, out, e, machine, from_end=False), out, machine
    )
    np.testing.assert_array_equal(got, want)
    assert wrong
    each = np.broadcast_to(index if axis else index.T, (5, 3) if axis else (3, 5))
    want = np.take_along_axis(x, np.maximum(each, 0), axis)
    out = new(want.shape)
    got, wrong = run(
        lambda e: gather_elements(put(x), put(each), axis, out, e, machine, from_end=False), out, machine
    )
    np.testing.assert_array_equal(got, want)
    assert wrong


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gather_elements(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(SIZES, min_size=1, max_size=3)))
    axis = data.draw(st.integers(0, len(shape) - 1))
    taken = [data.draw(st.integers(0, n)) if d != axis else data.draw(SIZES) for d, n in enumerate(shape)]
    x = numbers(shape, "float32", data.draw(st.permutations(range(len(shape)))))
    index = np.random.default_rng(0).integers(-shape[axis], shape[axis], taken)
    machine = data.draw(st.sampled_from(machines()))
    part = x[tuple(slice(None) if d == axis else slice(0, n) for d, n in enumerate(taken))]
    want = np.take_along_axis(part, index, axis)
    out = new(want.shape)
    got, wrong = run(lambda e: gather_elements(put(x), put(index), axis, out, e, machine), out, machine)
    np.testing.assert_array_equal(got, want)
    assert not wrong


@each_machine
@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("depth", [1, 2])
def test_gather_nd(machine: Machine, batch: int, depth: int) -> None:
    rng = np.random.default_rng(0)
    x = numbers((3, 5, 4, 17), "float32")
    places = rng.integers(-3, 3, (*((3,) if batch else ()), 6, depth))
    if batch:
        want = np.stack([a[tuple(np.moveaxis(p, -1, 0))] for a, p in zip(x, places, strict=True)])
    else:
        want = x[tuple(np.moveaxis(places, -1, 0))]
    out = new(want.shape)
    got, wrong = run(lambda e: gather_nd(put(x), put(places), batch, out, e, machine), out, machine)
    np.testing.assert_array_equal(got, want)
    assert not wrong


COMBINE = {"none": None, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@each_machine
@pytest.mark.parametrize("combine", list(COMBINE))
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16"])
def test_scatter_elements(machine: Machine, combine: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, axis = numbers((6, 21), dtype), 1
    index = rng.integers(-21, 21, (5, 9)) if combine != "none" else np.argsort(rng.random((5, 21)))[:, :9]
    updates = rng.integers(0, 3, index.shape).astype(dtype)
    want = x.copy()
    where = (np.broadcast_to(np.arange(5)[:, None], index.shape), index)
    if combine == "none":
        want[where] = updates
    else:
        COMBINE[combine].at(want, where, updates)
    out = new(x.shape, dtype)
    got, wrong = run(
        lambda e: scatter_elements(put(x), put(index), put(updates), axis, out, e, machine, combine),
        out,
        machine,
    )
    np.testing.assert_array_equal(got, want)
    assert not wrong


@each_machine
@pytest.mark.parametrize("combine", ["none", "add", "max"])
@pytest.mark.parametrize("depth", [1, 2])
def test_scatter_nd(machine: Machine, combine: str, depth: int) -> None:
    rng = np.random.default_rng(0)
    x = numbers((7, 5, 19), "float32")
    places = (
        rng.integers(0, 5, (8, depth))
        if combine != "none"
        else np.argwhere(rng.random(x.shape[:depth]) < 0.5)
    )
    updates = rng.normal(size=(len(places), *x.shape[depth:])).astype(np.float32)
    want = x.copy()
    if combine == "none":
        want[tuple(places.T)] = updates
    else:
        COMBINE[combine].at(want, tuple(places.T), updates)
    out = new(x.shape)
    got, wrong = run(
        lambda e: scatter_nd(put(x), put(places), put(updates), out, e, machine, combine), out, machine
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert not wrong


def test_a_scatter_out_of_range_is_reported() -> None:
    out = new((4,))
    x, places, updates = numbers((4,), "float32"), np.array([[1], [4]]), np.ones(2, np.float32)
    _, wrong = run(lambda e: scatter_nd(put(x), put(places), put(updates), out, e, host()), out, host())
    assert wrong


def test_an_empty_dimension_cannot_be_indexed() -> None:
    with pytest.raises(ShapeError, match="size 0"):
        x, index = np.zeros((0, 3), np.float32), np.array([0])
        gather(put(x), put(index), 0, new((1, 3)), new((), "int64"), host())
