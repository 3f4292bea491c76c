"""Packing against its definition: where each value of a matrix lies in the panels."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.kernels.pack import PackedWeights, pack_calls, pack_ordered, pack_weights, without_denormals
from tests.kernels.run import each_machine, machines, put, run_calls


def panels(matrix: np.ndarray, packed: PackedWeights) -> np.ndarray:
    """[batch..., K, N] as [batch..., panels, rows, panel], zero-padded."""
    *batch, depth, columns = matrix.shape
    padded = np.zeros((*batch, packed.rows, packed.panels * packed.panel), np.float32)
    padded[..., :depth, :columns] = matrix
    return np.moveaxis(padded.reshape(*batch, packed.rows, packed.panels, packed.panel), -2, -3)


def layouts(rng: np.random.Generator, shape: tuple[int, ...]) -> list[np.ndarray]:
    """The same shape with neighbours along the rows, along the columns, and apart."""
    turned = (*shape[:-2], shape[-1], shape[-2])
    return [
        rng.standard_normal(shape).astype(np.float32),
        rng.standard_normal(turned).astype(np.float32).swapaxes(-1, -2),
        rng.standard_normal((*shape[:-1], shape[-1] * 3)).astype(np.float32)[..., ::3],
    ]


@each_machine
@pytest.mark.parametrize("shape", [(1, 1), (7, 33), (64, 100), (2, 3, 5, 17), (0, 4)])
def test_constant_and_runtime_matrices(machine: Machine, shape: tuple[int, ...]) -> None:
    """Every layout, packed at once and by a call, gives the panels of the definition."""
    for matrix in layouts(np.random.default_rng(0), shape):
        packed = pack_weights(matrix, machine)
        wanted = panels(matrix, packed)
        memory = packed.view.buffer.array
        assert memory is not None
        np.testing.assert_array_equal(memory, wanted.reshape(-1))
        calls, runtime = pack_calls(put(matrix), machine)
        if calls:
            (found,) = run_calls(calls, runtime.view, machine=machine)
            np.testing.assert_array_equal(found, wanted.reshape(-1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.lists(st.integers(1, 3), max_size=2),
    rows=st.integers(0, 70),
    columns=st.integers(1, 70),
    which=st.integers(0, 2),
    dtype=st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]),
    machine=st.sampled_from(machines()),
)
def test_any_matrix(
    batch: list[int], rows: int, columns: int, which: int, dtype: type, machine: Machine
) -> None:
    """Random sizes in each layout and dtype, packed at once and by a call."""
    matrix = layouts(np.random.default_rng(rows), (*batch, rows, columns))[which].astype(dtype, order="K")
    packed = pack_weights(matrix, machine)
    wanted = panels(matrix.astype(np.float32), packed).reshape(-1)
    memory = packed.view.buffer.array
    assert memory is not None
    np.testing.assert_array_equal(memory, wanted)
    calls, runtime = pack_calls(put(matrix), machine)
    if calls:
        (found,) = run_calls(calls, runtime.view, machine=machine)
        np.testing.assert_array_equal(found, wanted)


@each_machine
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(machine: Machine, dtype: type) -> None:
    """Values of half precision are exact in the panels."""
    for matrix in layouts(np.random.default_rng(1), (21, 40)):
        half = matrix.astype(dtype)
        packed = pack_weights(half, machine)
        memory = packed.view.buffer.array
        assert memory is not None
        np.testing.assert_array_equal(memory, panels(half.astype(np.float32), packed).reshape(-1))


@each_machine
def test_ordered_rows(machine: Machine) -> None:
    """Row k of the contraction goes to the row its order says; rows that nothing goes to are zero."""
    rng = np.random.default_rng(2)
    matrices = rng.standard_normal((2, 35, 19)).astype(np.float32)  # [batch, N, K]
    order = rng.permutation(24)[:19]
    packed = pack_ordered(matrices, order, 24, machine)
    ordered = np.zeros((2, 24, 35), np.float32)
    ordered[:, order] = matrices.swapaxes(1, 2)
    memory = packed.view.buffer.array
    assert memory is not None
    np.testing.assert_array_equal(memory, panels(ordered, packed).reshape(-1))


@each_machine
def test_denormal_weights_are_flushed(machine: Machine) -> None:
    """In every layout, and from rows in an order of their own; their signs stay."""
    rng = np.random.default_rng(3)
    for matrix in layouts(rng, (19, 40)):
        matrix[rng.random(matrix.shape) < 0.4] *= np.float32(1e-39)
        wanted = without_denormals(matrix)
        assert np.count_nonzero(wanted) < np.count_nonzero(matrix)
        np.testing.assert_array_equal(wanted[np.abs(matrix) > 1e-30], matrix[np.abs(matrix) > 1e-30])
        packed = pack_weights(matrix, machine)
        memory = packed.view.buffer.array
        assert memory is not None
        np.testing.assert_array_equal(memory, panels(wanted, packed).reshape(-1))
        np.testing.assert_array_equal(np.signbit(memory), np.signbit(panels(matrix, packed).reshape(-1)))
        turned = np.ascontiguousarray(matrix.T)[None]
        ordered = pack_ordered(turned, np.arange(19), packed.rows, machine).view.buffer.array
        np.testing.assert_array_equal(ordered, memory)


@each_machine
def test_small_weights_of_small_tensors_stay(machine: Machine) -> None:
    """A tensor without a large number is packed as it is, denormal numbers included."""
    matrix = (np.random.default_rng(4).standard_normal((19, 40)) * 1e-38).astype(np.float32)
    assert without_denormals(matrix) is matrix
    packed = pack_weights(matrix, machine)
    np.testing.assert_array_equal(packed.view.buffer.array, panels(matrix, packed).reshape(-1))
