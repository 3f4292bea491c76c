"""Products of any dtype over any dimensions against NumPy's einsum."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine
from ingot.errors import UnsupportedOperatorError
from ingot.kernels.call import row_major
from ingot.kernels.contraction import (
    DTYPES,
    Dim,
    contraction,
    definition,
    multiply,
    pack_matrices,
    pack_strips,
)
from tests.kernels.run import each_machine, machines, new, put, run_calls

SIZES = [0, 1, 2, 3, 5, 8, 13, 17, 33]
BOUNDS = {"float64": 1e-13, "float32": 2e-6, "float16": 2e-3, "bfloat16": 1e-2}


def numbers(rng: np.random.Generator, shape: list[int], dtype: str) -> np.ndarray:
    """Of the whole range of integers, and about 1."""
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, kind, endpoint=True)
    return rng.standard_normal(shape).astype(kind)


def check(got: np.ndarray, want: np.ndarray, dtype: str, summed: float = 1.0) -> None:
    """Integers to the last bit. `summed`: the largest sum of absolute products, which errors go with."""
    if got.dtype.kind in "iu":
        np.testing.assert_array_equal(got, want)
        return
    largest = max(summed, np.abs(want).max(initial=1.0))
    assert np.abs(got.astype(np.float64) - want).max(initial=0.0) <= BOUNDS[dtype] * largest


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_dimensions(data: st.DataObject) -> None:
    """Rows, columns, batches and sums, one or two of each, in any order of memory of all three."""
    dtype = data.draw(st.sampled_from(DTYPES))
    machine = data.draw(st.sampled_from(machines()))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    roles = data.draw(st.lists(st.sampled_from("mnkb"), min_size=1, max_size=5))
    small = len(roles) > 3
    sizes = [data.draw(st.sampled_from(SIZES[:6] if small else SIZES)) for _ in roles]
    strides: list[dict[int, int]] = []
    shapes: list[list[int]] = []
    for belongs in ("mkb", "nkb", "mnb"):
        own = [i for i, role in enumerate(roles) if role in belongs]
        order = data.draw(st.permutations(own))
        shape = [sizes[i] for i in order]
        shapes.append(shape)
        strides.append(dict(zip(order, row_major(shape), strict=True)))
    a, b, o = strides
    dims = [Dim(n, a.get(i, 0), b.get(i, 0), o[i] if roles[i] != "k" else None) for i, n in enumerate(sizes)]
    left, right = numbers(rng, shapes[0], dtype), numbers(rng, shapes[1], dtype)
    own = [i for i, role in enumerate(roles) if role != "k"]
    want = definition(left, right, dims, [sizes[i] for i in own])
    out = new([sizes[i] for i in own], left.dtype, [o[i] for i in own])
    packed = data.draw(st.booleans())
    factor = pack_strips(right, dims, machine) if packed and right.size else put(right)
    (got,) = run_calls(contraction(put(left), factor, out, dims, machine), out, machine=machine)
    summed = (
        definition(np.abs(left), np.abs(right), dims, [sizes[i] for i in own]) if dtype in BOUNDS else want
    )
    wanted = want if dtype in BOUNDS else want.astype(left.dtype)
    check(got, wanted, dtype, float(np.abs(summed).max(initial=1.0)))


@each_machine
@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint8", "bfloat16"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 70, 40), (70, 1, 40), (45, 70, 7), (3, 200, 33)])
def test_matrices(machine: Machine, dtype: str, m: int, n: int, k: int) -> None:
    """More than a tile of each, and vectors."""
    rng = np.random.default_rng(m)
    a, b = numbers(rng, [m, k], dtype), numbers(rng, [k, n], dtype)
    dims = [Dim(m, k, 0, n), Dim(n, 0, 1, 1), Dim(k, 1, n, None)]
    out = new((m, n), a.dtype)
    want = definition(a, b, dims, (m, n))
    for factor in (put(b), pack_strips(b, dims, machine)):
        (got,) = run_calls(contraction(put(a), factor, out, dims, machine), out, machine=machine)
        check(got, want, dtype)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batches_of_matrices(data: st.DataObject) -> None:
    """Broadcast as NumPy does it; the second factor as it lies, turned, or packed."""
    dtype, machine = (
        data.draw(st.sampled_from(["float64", "int32", "uint64"])),
        data.draw(st.sampled_from(machines())),
    )
    m, n, k = (data.draw(st.sampled_from(SIZES)) for _ in range(3))
    batch = [data.draw(st.sampled_from([1, 2, 3])) for _ in range(data.draw(st.integers(0, 2)))]
    own = [1 if data.draw(st.booleans()) else size for size in batch]
    own = own[data.draw(st.integers(0, len(own))) :]
    rng = np.random.default_rng(m)
    a, b = numbers(rng, [*batch, m, k], dtype), numbers(rng, [*own, k, n], dtype)
    out = new((*batch, m, n), dtype)
    turned = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2)
    for factor in (put(b), put(turned), pack_matrices(turned, machine)):
        (got,) = run_calls(multiply(put(a), factor, out, machine), out, machine=machine)
        check(got, np.matmul(a, b), dtype)


@each_machine
def test_overlapping_windows_and_negative_strides(machine: Machine) -> None:
    """A convolution of a signal, and with the filter turned round."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 40)), rng.standard_normal((4, 3, 5))
    out = new((4, 36), "float64")
    dims = [Dim(4, 0, 15, 36), Dim(36, 1, 0, 1), Dim(3, 40, 5, None), Dim(5, 1, 1, None)]
    want = np.stack([sum(np.convolve(x[c], w[o, c, ::-1], "valid") for c in range(3)) for o in range(4)])
    for factor in (put(w), pack_strips(w, dims, machine)):
        (got,) = run_calls(contraction(put(x), factor, out, dims, machine), out, machine=machine)
        check(got, want, "float64")
    dims[-1] = Dim(5, -1, 1, None)
    last = put(x).with_dims((36,), (1,), 4)
    (got,) = run_calls(contraction(last, put(w), out, dims, machine), out, machine=machine)
    want = np.stack([sum(np.convolve(x[c], w[o, c], "valid") for c in range(3)) for o in range(4)])
    check(got, want, "float64")


def test_another_dtype_is_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match="found bool"):
        contraction(
            new((2,), "bool"), new((2,), "bool"), new((), "bool"), [Dim(2, 1, 1, None)], machines()[0]
        )
