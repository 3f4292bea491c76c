"""MatMul and Gemm in the dtypes that are not computed in float32."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.native import native
from tests.ops.test_native import values

WIDE = ("float64", "int32", "uint32", "int64", "uint64")


@pytest.mark.parametrize("dtype", WIDE)
def test_matmul(dtype: str) -> None:
    """Vectors, batches that broadcast, empty sums; the second factor a weight and fed."""
    shapes = [
        ((7,), (7,)), ((7,), (7, 5)), ((4, 7), (7,)), ((40, 70), (70, 33)), ((2, 3, 4, 5), (3, 5, 6)),
        ((2, 1, 4, 5), (1, 3, 5, 6)), ((1, 4, 5), (2, 5, 6)), ((3, 4, 5), (5, 6)), ((4, 0), (0, 3)),
        ((0, 3), (3, 2)), ((1, 64), (64, 200)),
    ]  # fmt: skip
    for a, b in shapes:
        for fed in ((0,), (0, 1), (1,)):
            native("MatMul", [values(*a, dtype=dtype), values(*b, dtype=dtype, seed=1)], fed=fed)


@pytest.mark.parametrize("dtype", WIDE)
def test_integers_wrap_around(dtype: str) -> None:
    if dtype == "float64":
        return
    info = np.iinfo(dtype)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(info.min, info.max, s, dtype, endpoint=True) for s in ((20, 30), (30, 40)))
    for fed in ((0,), (0, 1)):
        (got,) = native("MatMul", [a, b], fed=fed)
        exact = (a.astype(object) @ b.astype(object)) % (1 << 8 * a.itemsize)
        assert (got.astype(object) % (1 << 8 * a.itemsize) == exact).all()


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(("transA", "transB"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(dtype: str, transA: int, transB: int) -> None:
    a = values(*((7, 20) if transA else (20, 7)), dtype=dtype)
    b = values(*((33, 7) if transB else (7, 33)), dtype=dtype, seed=1)
    factors = [{}] if dtype != "float64" else [{}, {"alpha": 0.7, "beta": 0.3}, {"beta": 0.0}]
    for shape in ((33,), (20, 1), (20, 33), (), None):
        c = None if shape is None else values(*shape, dtype=dtype, seed=2)
        for extra in factors:
            for fed in ((0,), (0, 1)):
                native("Gemm", [a, b, c], fed=fed, transA=transA, transB=transB, **extra)
