"""Products and convolutions on tile registers against their plain definitions: shapes, layouts, epilogues,
extreme and special values.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import host
from ingot.errors import IngotError
from ingot.kernels import conv, gemm
from ingot.kernels.call import strides_in_order
from ingot.kernels.contract import MOST_OPERANDS, Epilogue
from ingot.kernels.expression import Expression, Step
from ingot.kernels.sliced import (
    SlicedConvWeights,
    cycles,
    direct_cycles,
    slice_matrix,
    sliced_conv2d,
    sliced_matmul,
)
from ingot.kernels.slices import MOST_DEPTH
from ingot.timing import worst_difference
from tests.kernels.run import new, put, run_calls

try:
    machine = host("amx")
except IngotError as error:
    pytest.skip(str(error), allow_module_level=True)

# What a sum may differ by, of the product of the norms of what it sums over: float32 sums of a few hundred
# differ by as much.
TOLERANCE = 4e-7


def product(a: np.ndarray, b: np.ndarray, epilogue: Epilogue | None = None) -> np.ndarray:
    """a @ b on tile registers."""
    out = new((*a.shape[:-1], b.shape[1]))
    weights = slice_matrix(b, machine)
    assert weights is not None
    calls = sliced_matmul(put(a), weights, out, epilogue, machine)
    assert calls is not None
    (y,) = run_calls(calls, out, machine=machine)
    return y


def near(found: np.ndarray, wanted: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Fail unless the two agree, NaN and infinities included. a and b: factors, summed over their last and
    first axis.
    """
    finite = (np.where(np.isfinite(x), x, 0).astype(np.float64) for x in (a, b))
    norms = [np.linalg.norm(x, axis=axis).max() for x, axis in zip(finite, (-1, 0), strict=True)]
    found, wanted = (np.append(x.ravel().astype(np.float32), norms[0] * norms[1]) for x in (found, wanted))
    scaled = worst_difference([found], [wanted])
    assert scaled <= TOLERANCE, f"differs by {scaled:.1e} of the norms' product"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    m=st.one_of(st.integers(1, 70), st.sampled_from([128, 197, 513])),
    k=st.one_of(st.integers(1, 140), st.sampled_from([256, 1000])),
    n=st.one_of(st.integers(1, 70), st.sampled_from([128, 1000])),
    turned=st.booleans(),
    dtype=st.sampled_from(["float32", "float32", "float16"]),
)
def test_any_product(m: int, k: int, n: int, turned: bool, dtype: str) -> None:
    """Odd sizes, weights of either order, rows that lie apart."""
    rng = np.random.default_rng(m * 7919 + k * 31 + n)
    a = rng.standard_normal((m, k + 3)).astype(dtype)[:, 1 : 1 + k]
    b = (
        rng.standard_normal((n, k)).astype(np.float32).T
        if turned
        else rng.standard_normal((k, n), np.float32)
    )
    near(product(a, b), gemm.definition(a, b), a, b)


def test_two_dimensions_of_rows_and_none_for_more() -> None:
    """Batches of rows that do not follow each other run as images; a third dimension is for others."""
    rng = np.random.default_rng(1)
    a = rng.standard_normal((3, 20, 40)).astype(np.float32)[:, :17]
    b = rng.standard_normal((40, 33)).astype(np.float32)
    near(product(a, b), gemm.definition(a, b), a, b)
    deep = rng.standard_normal((3, 5, 5, 41)).astype(np.float32)[:, :4:2, ::2, :40]
    weights = slice_matrix(b, machine)
    assert weights is not None
    assert sliced_matmul(put(deep), weights, new((3, 2, 3, 33)), None, machine) is None


def test_epilogue() -> None:
    """Bias, residual and an activation, short and long."""
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((50, 70)).astype(np.float32), rng.standard_normal((70, 45)).astype(np.float32)
    bias, rest = rng.standard_normal(45).astype(np.float32), rng.standard_normal((50, 45)).astype(np.float32)
    f = "float32"
    expression = Expression(
        (f, f, f), (Step("Add", (0, 1), f), Step("Tanh", (3,), f), Step("Add", (4, 2), f)), (5,)
    )
    y = product(a, b, Epilogue(expression, [put(bias), put(rest)]))
    near(y, np.tanh(gemm.definition(a, b) + bias) + rest, a, b)


@pytest.mark.parametrize("power", [-140, -120, -60, 0, 60, 110])
def test_scales_of_rows(power: int) -> None:
    """Rows of very different sizes keep their own precision, down to denormal numbers."""
    rng = np.random.default_rng(3)
    a = rng.standard_normal((40, 64)).astype(np.float32)
    a[::2] = np.ldexp(a[::2], power)
    a[5] = 0
    b = rng.standard_normal((64, 40)).astype(np.float32)
    y, wanted = product(a, b), gemm.definition(a, b).astype(np.float32)
    columns = np.linalg.norm(b, axis=0).max()
    for row in (0, 1, 5):
        scale = np.linalg.norm(a[row].astype(np.float64)) * columns
        error = np.abs(y[row].astype(np.float64) - wanted[row]).max()
        assert error <= TOLERANCE * scale + np.finfo(np.float32).smallest_subnormal


def test_special_values_reach_what_they_should() -> None:
    """Infinities and NaN give what IEEE arithmetic gives, also against weights of zero and tiny ones."""
    rng = np.random.default_rng(4)
    a, b = (
        rng.standard_normal((70, 100)).astype(np.float32),
        rng.standard_normal((100, 40)).astype(np.float32),
    )
    a[3, 7], a[5, 0], a[69, 99], a[20, :2] = np.inf, np.nan, -np.inf, (np.inf, -np.inf)
    b[7, 3], b[7, 4], b[99, 5] = 0, 1e-20, -1e-20
    with np.errstate(all="ignore"):
        near(product(a, b), gemm.definition(a, b), a, b)


def test_weights_that_cannot_be_sliced() -> None:
    """Infinite ones, columns whose scale could overflow, and sums that could, are left to others."""
    assert slice_matrix(np.ones((MOST_DEPTH + 4, 1), np.float32), machine) is None
    for value in (np.inf, np.nan, 1e30, 1e-30):
        b = np.ones((8, 8), np.float32)
        b[:, 3] = value
        assert slice_matrix(b, machine) is None


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 2),
    channels=st.one_of(st.integers(1, 40), st.sampled_from([64, 72, 100, 130, 192])),
    outputs=st.sampled_from([1, 16, 33, 64]),
    size=st.tuples(st.integers(1, 19), st.integers(1, 23)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 3)] * 4)),
    special=st.sampled_from([False, False, True]),
)
def test_any_convolution(
    n: int,
    channels: int,
    outputs: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    special: bool,
) -> None:
    """Random geometry; special values reach the outputs whose windows hold them, and no other."""
    reach = [size[d] + pads[d] + pads[d + 2] - (kernel[d] - 1) * dilations[d] for d in range(2)]
    if min(reach) < 1:
        kernel, pads = (1, 1), (0, 0, 0, 0)
    rng = np.random.default_rng(channels * 1000 + outputs)
    x = rng.standard_normal((n, *size, channels)).astype(np.float32).transpose(0, 3, 1, 2)
    if special:
        x[0, channels // 2, size[0] // 2, size[1] // 2] = np.inf
        x[-1, 0, 0, 0] = np.nan
    w = rng.standard_normal((outputs, channels, *kernel)).astype(np.float32)
    with np.errstate(all="ignore"):
        wanted = conv.definition(x, w, strides, pads, dilations, 1)
    out = new(wanted.shape, strides=strides_in_order(wanted.shape, (0, 2, 3, 1)))
    weights = SlicedConvWeights(w, strides, dilations, machine)
    calls = sliced_conv2d(put(x), weights, out, pads, None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    near(y, wanted, *_as_matrices(x, w))


def _as_matrices(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factors whose norms bound a window's and a filter's: all taps on the largest pixels."""
    pixels = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    return np.tile(pixels, (1, w[0, 0].size)), w.reshape(w.shape[0], -1).T


@pytest.mark.parametrize("pads", [(0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 2, 3), (1, 0, 0, 0)])
@pytest.mark.parametrize("size", [(5, 7), (9, 1), (1, 9)])
def test_single_taps_with_padding(pads: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """A 1×1 convolution is a product only where every output has its pixel."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, *size, 70)).astype(np.float32).transpose(0, 3, 1, 2)
    w = rng.standard_normal((40, 70, 1, 1)).astype(np.float32)
    wanted = conv.definition(x, w, (1, 1), pads, (1, 1), 1)
    out = new(wanted.shape, strides=strides_in_order(wanted.shape, (0, 2, 3, 1)))
    calls = sliced_conv2d(put(x), SlicedConvWeights(w, (1, 1), (1, 1), machine), out, pads, None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    near(y, wanted, *_as_matrices(x, w))


def test_weights_with_more_dimensions_than_rows() -> None:
    """[M, K] times [1, K, N] is [1, M, N]."""
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((30, 40)).astype(np.float32), rng.standard_normal((40, 20)).astype(np.float32)
    weights, out = slice_matrix(b, machine), new((1, 1, 30, 20))
    assert weights is not None
    calls = sliced_matmul(put(a), weights, out, None, machine)
    assert calls is not None
    (y,) = run_calls(calls, out, machine=machine)
    near(y[0, 0], gemm.definition(a, b), a, b)


def test_most_operands() -> None:
    """An epilogue of as many operands as any tile takes."""
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((40, 70)).astype(np.float32), rng.standard_normal((70, 45)).astype(np.float32)
    more = [rng.standard_normal((40, 45)).astype(np.float32) for _ in range(MOST_OPERANDS)]
    f, count = "float32", MOST_OPERANDS
    steps = [Step("Add", (0, 1), f)] + [Step("Add", (count + i, i + 1), f) for i in range(1, count)]
    expression = Expression((f,) * (1 + count), tuple(steps), (2 * count,))
    y = product(a, b, Epilogue(expression, [put(x) for x in more]))
    near(y, gemm.definition(a, b) + np.sum(more, axis=0), a, b)


def test_small_rows_times_small_columns() -> None:
    """Scales whose product would be denormal keep their precision, or the weights are refused."""
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((20, 64)).astype(np.float32), rng.standard_normal((64, 20)).astype(np.float32)
    for row, column in ((-59, -31), (-100, -20), (50, 50)):
        x, w = np.ldexp(a, row), np.ldexp(b, column)
        near(np.ldexp(product(x, w), -row - column), gemm.definition(a, b), a, b)
    for column in (-40, -130, -145):
        assert slice_matrix(np.ldexp(b, column).astype(np.float32), machine) is None


def test_one_spatial_dimension() -> None:
    """[N, C, W] is an image of one row."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 50, 24)).astype(np.float32).transpose(0, 2, 1)
    w = rng.standard_normal((40, 24, 3)).astype(np.float32)
    wanted = conv.definition(x[:, :, None], w[:, :, None], (1, 2), (0, 1, 0, 1), (1, 1), 1)[:, :, 0]
    out = new(wanted.shape, strides=strides_in_order(wanted.shape, (0, 2, 1)))
    calls = sliced_conv2d(put(x), SlicedConvWeights(w, (2,), (1,), machine), out, (1, 1), None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    near(y, wanted, *_as_matrices(x, w))


def test_estimates_follow_what_was_measured() -> None:
    """Wide layers go to tile registers, products over a few channels to vectors."""
    for shape, depth, faster in (
        ((1, 768, 128, 1), 768, True),
        ((1, 512, 49, 1), 2048, True),
        ((1, 96, 12544, 1), 16, False),
        ((1, 16, 12544, 1), 32, False),
    ):
        assert (cycles(shape, depth) < direct_cycles(shape, depth, machine)) is faster, (shape, depth)
    square = (1, 128, 28, 28)
    assert cycles(square, 128, (3, 3)) < direct_cycles(square, 128 * 9, machine)


def test_the_longest_sums() -> None:
    """Sums of the largest digits do not overflow."""
    a = np.full((1, MOST_DEPTH // 64 * 64), -1, np.float32)
    b = np.full((a.shape[1], 1), -1, np.float32)
    a[0, ::3], b[::5] = 128.5 / 127, 32896.5 / 8355000  # digits of -128, too
    near(product(a, b), gemm.definition(a, b), a, b)


@pytest.mark.parametrize("size", [3e1, 3e2, 3e3, 1e6, 1e20, 3e38])
def test_one_large_value_in_a_row(size: float) -> None:
    """What it has no weight in stays as exact as if it were not there; bits are lost for a small one only."""
    rng = np.random.default_rng(10)
    a, b = (
        rng.standard_normal((40, 768)).astype(np.float32),
        rng.standard_normal((768, 50)).astype(np.float32),
    )
    b[100] = 0
    wanted = gemm.definition(a, b)
    a[::3, 100] = -size
    y = product(a, b)
    error = np.abs(y - wanted).max() / np.abs(wanted).max()
    assert error <= (1.5e-5 if size < 300 else 1e-6)


@pytest.mark.parametrize("size", [1e4, 1e6, 1e20])
def test_one_large_pixel(size: float) -> None:
    """Outputs that do not see it are what they would be without it, and those that see it are right, too."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((1, 28, 28, 64)).astype(np.float32).transpose(0, 3, 1, 2)
    w = rng.standard_normal((40, 64, 3, 3)).astype(np.float32)
    x[0, 7, 14, 14] = size
    wanted = conv.definition(x, w, (1, 1), (1, 1, 1, 1), (1, 1), 1)
    out = new(wanted.shape, strides=strides_in_order(wanted.shape, (0, 2, 3, 1)))
    calls = sliced_conv2d(put(x), SlicedConvWeights(w, (1, 1), (1, 1), machine), out, (1,) * 4, None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    sees = np.zeros((28, 28), bool)
    sees[13:16, 13:16] = True
    for part in (sees, ~sees):
        error = np.abs(y[..., part] - wanted[..., part]).max() / np.abs(wanted[..., part]).max()
        assert error <= 1e-6


def test_mostly_zeros() -> None:
    """Rows with a single value, and few: what stands out are the zeros, not they."""
    rng = np.random.default_rng(12)
    a = np.zeros((40, 768), np.float32)
    a[np.arange(40), rng.integers(0, 768, 40)] = rng.standard_normal(40)
    a[7, ::50] = rng.standard_normal(16)
    b = rng.standard_normal((768, 50)).astype(np.float32)
    near(product(a, b), gemm.definition(a, b), a, b)
