"""Products by Strassen's scheme against their plain definition, and against the usual products where rows or
columns are not of a size.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine, host
from ingot.kernels.call import row_major
from ingot.kernels.contract import Epilogue
from ingot.kernels.expression import Expression, evaluate
from ingot.kernels.gemm import definition, matmul
from ingot.kernels.pack import pack_weights
from ingot.kernels.strassen import MOST_APART, PanelSums, pack_sums, pays, strassen_matmul
from tests.kernels.families import EPILOGUES
from tests.kernels.run import machines, new, put, run_calls

#: Of the largest output, for products of numbers of a size: about three times what the usual sums are off by.
ERROR = 5e-7


def _product(
    a: np.ndarray,
    b: np.ndarray,
    machine: Machine,
    epilogue: Epilogue | None = None,
    gap: int = 0,
    dtype: str = "float32",
) -> np.ndarray:
    """a · b this way, its rows `gap` further apart than they have to be; the result too."""
    weights = pack_weights(b, machine)
    shape = (*a.shape[:-1], b.shape[-1])
    strides = [s // shape[-1] * (shape[-1] + gap) for s in row_major(shape)[:-1]]
    out = new(shape, dtype, (*strides, 1))
    calls = strassen_matmul(put(a), weights, pack_sums(weights, machine), out, epilogue, machine)
    assert calls is not None
    (y,) = run_calls(calls, out, machine=machine)
    return y


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    m=st.one_of(st.integers(2, 80), st.integers(81, 400)),
    halves=st.integers(1, 6),
    pairs=st.integers(1, 5),
    short=st.integers(0, 5),
    gap=st.integers(0, 3),
    end=st.sampled_from(sorted(EPILOGUES)),
    machine=st.sampled_from(machines()),
)
def test_any_shape_and_epilogue(
    m: int, halves: int, pairs: int, short: int, gap: int, end: str, machine: Machine
) -> None:
    """Whole tiles, an odd last row, columns that end within a panel, rows that lie apart."""
    depth, n = halves * 2 * machine.lanes, pairs * 4 * machine.lanes - short
    a = _random(m, m, depth + gap)[:, :depth]
    b = _random(n, depth, n)
    steps, kinds = EPILOGUES[end]
    arrays = [_random(3, n) if kind == "channel" else _random(4, m, n) for kind in kinds]
    expression = Expression(("float32",) * (len(arrays) + 1), steps, (len(arrays) + len(steps),))
    epilogue = Epilogue(expression, [put(array) for array in arrays]) if steps else None
    y = _product(a, b, machine, epilogue, gap, "float16" if end == "half" else "float32")
    product = definition(a, b).astype(np.float32)
    wanted = evaluate(expression, [product, *arrays])[0] if steps else product
    scale = np.abs(product).max() + 1
    assert np.abs(y.astype(np.float64) - wanted).max() <= (1e-3 if end == "half" else ERROR * 4) * scale


@pytest.mark.parametrize("depth", [768, 3072])
def test_error_stays_near_that_of_the_usual_sums(depth: int) -> None:
    machine = host()
    a, b = _random(0, 200, depth), _random(1, depth, 256)
    reference = definition(a, b)
    error = np.abs(_product(a, b, machine) - reference).max() / np.abs(reference).max()
    out = new((200, 256))
    (usual,) = run_calls(matmul(put(a), pack_weights(b, machine), out, None, machine), out, machine=machine)
    assert error < 5 * np.abs(usual - reference).max() / np.abs(reference).max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["rows", "weights"])
def test_what_is_not_finite_stays_where_it_belongs(bad: float, where: str) -> None:
    machine = host()
    a, b = _random(0, 77, 64), _random(1, 64, 192)
    for row, column in ((0, 0), (13, 40), (76, 63)):
        if where == "rows":
            a[row, column] = bad
        else:
            b[column, row] = bad
    with np.errstate(all="ignore"):
        wanted = definition(a, b)
    y = _product(a, b, machine)
    assert np.array_equal(np.isnan(y), np.isnan(wanted))
    assert np.array_equal(y[np.isinf(wanted)], wanted[np.isinf(wanted)])
    finite = np.isfinite(wanted)
    assert np.abs(y[finite] - wanted[finite]).max() < ERROR * 4 * np.abs(wanted[finite]).max()


@pytest.mark.parametrize("along", ["rows", "columns"])
def test_rows_and_columns_that_are_small_are_as_exact_as_the_others(along: str) -> None:
    """Each against its own largest value: of one beside another that is a million times larger nothing would
    be left.
    """
    machine = host()
    rng = np.random.default_rng(5)
    a, b = _random(0, 100, 128), _random(1, 128, 256)
    scales = 10.0 ** rng.integers(-6, 6, 100 if along == "rows" else 256).astype(np.float32)
    if along == "rows":
        a *= scales[:, None]
    else:
        b *= scales
    wanted = definition(a, b)
    largest = np.abs(wanted).max(1 if along == "rows" else 0, keepdims=True)
    assert (np.abs(_product(a, b, machine) - wanted) / largest).max() < 2**MOST_APART * ERROR * 4


def test_zero_rows_and_columns_give_zeros() -> None:
    """As padding has them, beside others that are not zero."""
    machine = host()
    a, b = _random(0, 90, 64), _random(1, 64, 128)
    a[::3], b[:, 5::7] = 0, 0
    y = _product(a, b, machine)
    assert not y[::3].any()
    assert not y[:, 5::7].any()


def test_batches_whose_rows_follow_each_other_are_one_matrix() -> None:
    machine = host()
    a, b = _random(0, 3, 5, 20, 64), _random(1, 64, 128)
    assert np.abs(_product(a, b, machine) - definition(a, b)).max() < 1e-4
    weights = pack_weights(b, machine)
    out = new((3, 20, 128))
    sums: PanelSums = pack_sums(weights, machine)
    assert strassen_matmul(put(a[:, 1]), weights, sums, out, None, machine) is None


def test_it_is_for_large_products_that_can_be_halved() -> None:
    machine = host()
    assert pays(128, 768, 768, machine)
    odd = 2 * machine.lanes * 17  # panels, which have no partner each
    for rows, depth, columns in ((1, 768, 768), (128, 772, 768), (128, 768, 64), (128, 768, odd)):
        assert not pays(rows, depth, columns, machine)
