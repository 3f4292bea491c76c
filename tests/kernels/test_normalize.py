"""Normalisations against their plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.call import strides_in_order
from ingot.kernels.normalize import Kind, evaluate_normalize, group_norm, layer_norm, normalize
from tests.kernels.run import each_machine, machines, new, put, run_calls

# NumPy's, of empty rows.
pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty", "ignore:Degrees of freedom")


def numbers(shape: tuple[int, ...], seed: int = 0, mean: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1.5, shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_axes_of_any_layout(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 16, 33, 70, 450]), min_size=1, max_size=4)))
    while math.prod(shape) > 40000:
        shape = shape[1:]
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    kind: Kind = data.draw(st.sampled_from(["variance", "rms", "l1", "l2"]))
    machine = data.draw(st.sampled_from(machines()))
    order = data.draw(st.permutations(range(len(shape))))
    x = numbers(tuple(shape[d] for d in order)).transpose(np.argsort(order))
    out = new(shape, strides=strides_in_order(shape, data.draw(st.permutations(range(len(shape))))))
    call = normalize(kind, put(x), out, axes, machine, eps=1e-3)
    (got,) = run_calls(call, out, machine=machine)
    want = evaluate_normalize(kind, x, axes, 1e-3)
    # The mean is a float32: where a row's values are nearly equal, their deviations from it lose digits.
    with np.errstate(all="ignore"):
        spread = np.sqrt(x.var(axes, keepdims=True) + 1e-3)
        condition = 1 + (np.abs(x.mean(axes, keepdims=True)) / spread if kind == "variance" else 0)
    assert (np.abs(got - want) <= 2e-6 * (1 + np.abs(want)) * condition).all()


@each_machine
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_layer_norm_with_a_residual(machine: Machine, dtype: str) -> None:
    x, residual = (numbers((2, 5, 77), seed).astype(dtype) for seed in (1, 2))
    scale, bias = numbers((77,), 3), numbers((77,), 4).astype(dtype)
    out, total = new(x.shape, dtype), new(x.shape, dtype)
    call = layer_norm(
        put(x), put(scale), put(bias), out, -1, 1e-5, machine, residual=put(residual), total=total
    )
    got, summed = run_calls(call, out, total, machine=machine)
    exact = x.astype(np.float64) + residual
    tolerance = 2.0**-11 + 3e-6 if dtype == "float16" else 3e-6
    np.testing.assert_allclose(summed, exact, rtol=tolerance)
    want = evaluate_normalize("variance", exact, (2,), 1e-5) * scale + bias
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@each_machine
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(12, 3), (32, 32), (20, 1)])
def test_group_norm_in_both_layouts(
    machine: Machine, channels_last: bool, channels: int, groups: int
) -> None:
    shape = (2, channels, 9, 11)
    x, scale, bias = numbers(shape), numbers((channels,), 1), numbers((channels,), 2)
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    strides = strides_in_order(shape, order)
    source = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    out = new(shape, strides=strides)
    call = group_norm(put(source), put(scale), put(bias), groups, out, 1e-5, machine)
    (got,) = run_calls(call, out, machine=machine)
    grouped = evaluate_normalize("variance", x.reshape(2, groups, -1), (2,), 1e-5).reshape(shape)
    want = grouped * scale[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(got, want, rtol=3e-6, atol=3e-6)


@each_machine
def test_a_large_mean_does_not_swallow_the_variance(machine: Machine) -> None:
    x = numbers((3, 1000), mean=1000.0)
    out = new(x.shape)
    (got,) = run_calls(normalize("variance", put(x), out, (1,), machine), out, machine=machine)
    np.testing.assert_allclose(got, evaluate_normalize("variance", x, (1,), 0.0), atol=2e-4)


@each_machine
def test_nan_and_infinity_spoil_only_their_row(machine: Machine) -> None:
    x = numbers((4, 40))
    x[1, 3], x[2, 39] = np.nan, np.inf
    for array, axis in ((x, 1), (np.ascontiguousarray(x.T), 0)):
        out = new(array.shape)
        call = normalize("variance", put(array), out, (axis,), machine, eps=1e-5)
        (got,) = run_calls(call, out, machine=machine)
        want = evaluate_normalize("variance", array, (axis,), 1e-5)
        np.testing.assert_allclose(got, want, rtol=3e-6, atol=3e-6)


@each_machine
@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_a_norm_of_zero_gives_zeros(machine: Machine, kind: Kind) -> None:
    out = new((3, 20))
    call = normalize(kind, put(np.zeros((3, 20), np.float32)), out, (1,), machine)
    (got,) = run_calls(call, out, machine=machine)
    assert not got.any()
