"""Matrix multiplication against its plain definition: shapes, strides, batches, epilogues, dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen import cache
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine, host
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.call import constant, strides_in_order
from ingot.kernels.contract import Epilogue
from ingot.kernels.expression import Expression, Step, evaluate
from ingot.kernels.gemm import definition, matmul
from ingot.kernels.pack import pack_weights
from tests.kernels.assembly import spills_in_loops
from tests.kernels.run import each_machine, machines, new, put, run_calls

SIZES = st.one_of(st.sampled_from([0, 1, 2, 3]), st.integers(1, 70))


def _strided(rng: np.random.Generator, shape: tuple[int, ...], kind: int) -> np.ndarray:
    """Random values in memory of another order, gaps or direction."""
    if kind == 1:
        return np.swapaxes(
            rng.standard_normal((*shape[:-2], shape[-1], shape[-2])).astype(np.float32), -1, -2
        )
    if kind == 2:
        return rng.standard_normal((*shape[:-1], shape[-1] * 2 + 1)).astype(np.float32)[..., 1::2]
    if kind == 3:
        return rng.standard_normal(shape).astype(np.float32)[..., ::-1, :]
    return rng.standard_normal(shape).astype(np.float32)


def _check(y: np.ndarray, reference: np.ndarray, depth: int) -> None:
    np.testing.assert_allclose(y, reference, rtol=1e-5, atol=2e-6 * max(depth, 1) ** 0.5)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    m=SIZES,
    n=SIZES,
    k=SIZES,
    kinds=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    known=st.booleans(),
    turned=st.booleans(),
    machine=st.sampled_from(machines()),
)
def test_any_shape_and_strides(
    m: int, n: int, k: int, kinds: tuple[int, int], known: bool, turned: bool, machine: Machine
) -> None:
    """Both factors in any order, the second known or not, the result in rows or columns."""
    rng = np.random.default_rng(m * 10007 + n * 101 + k)
    a, b = _strided(rng, (m, k), kinds[0]), _strided(rng, (k, n), kinds[1])
    out = new((m, n), strides=strides_in_order((m, n), (1, 0)) if turned else None)
    calls = matmul(put(a), pack_weights(b, machine) if known else put(b), out, None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    _check(y, definition(a, b), k)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    batch=st.lists(st.integers(1, 3), max_size=4),
    ones=st.tuples(st.integers(0, 15), st.integers(0, 15)),
    m=st.sampled_from([1, 2, 9, 17]),
    known=st.booleans(),
    order=st.integers(0, 2),
    machine=st.sampled_from(machines()),
)
def test_batches_broadcast(
    batch: list[int], ones: tuple[int, int], m: int, known: bool, order: int, machine: Machine
) -> None:
    """Any number of batch dimensions, each of one factor or of both, laid out in any order."""
    rng = np.random.default_rng(len(batch) + m)
    own = [[1 if mask >> i & 1 else size for i, size in enumerate(batch)] for mask in ones]
    a = rng.standard_normal((*own[0], m, 11)).astype(np.float32)
    b = rng.standard_normal((*own[1], 11, 19)).astype(np.float32)
    if order == 1:  # heads inside of rows, as in attention
        a = np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -2, 0)), 0, -2)
    if order == 2:
        b = np.ascontiguousarray(b[..., ::-1, :])[..., ::-1, :]
    reference = definition(a, b)
    dims = list(range(reference.ndim))
    memory = [dims[-2], *dims[:-2], dims[-1]] if order else dims
    out = new(reference.shape, strides=strides_in_order(reference.shape, memory))
    calls = matmul(put(a), pack_weights(b, machine) if known else put(b), out, None, machine)
    (y,) = run_calls(calls, out, machine=machine)
    _check(y, reference, 11)


@each_machine
@pytest.mark.parametrize("steps", [9, 33, 170])
def test_code_does_not_depend_on_how_far_apart_steps_lie(machine: Machine, steps: int) -> None:
    """Steps of a sequence as the outer dimension of a batch that lies the other way round: the distance of
    rows, which is part of the code, is that of neighbours, and not what the length of the sequence makes it.
    """
    rng = np.random.default_rng(steps)
    a = np.swapaxes(rng.standard_normal((11, steps, 8)).astype(np.float32), 0, 1)
    b = rng.standard_normal((8, 19)).astype(np.float32)
    reference = definition(a, b)
    out = new(reference.shape)
    calls = matmul(put(a), pack_weights(b, machine), out, None, machine)
    kernels = [dict(arg.params) for call in calls for arg in call.args if isinstance(arg, Kernel)]
    assert {params["pitch"] for params in kernels if "pitch" in params} == {8}
    (y,) = run_calls(calls, out, machine=machine)
    _check(y, reference, 8)


@each_machine
def test_a_form_is_that_of_all_with_as_many_rows(machine: Machine) -> None:
    """Whatever dimensions the rows are made of; so images share it with those that are turned."""
    weights = pack_weights(np.zeros((8, 19), np.float32), machine)
    shapes = [(1, 6, 10), (1, 10, 6), (60,), (3, 1, 20)]
    calls = [matmul(new((*s, 8)), weights, new((*s, 19)), None, machine) for s in shapes]
    assert len({id(call.form) for (call,) in calls}) == 1, "a form depends on more than the number of rows"
    (apart,) = matmul(new((6, 10, 8), strides=(96, 8, 1)), weights, new((6, 10, 19)), None, machine)
    assert apart.form is not calls[0][0].form


EPILOGUES: list[tuple[Expression, list[tuple[int, ...]]]] = [
    (
        Expression(
            ("float32", "float32"), (Step("Add", (0, 1), "float32"), Step("Relu", (2,), "float32")), (3,)
        ),
        [(0, 1)],
    ),
    (
        Expression(
            ("float32", "float32", "float32", "float32"),
            (
                Step("Add", (0, 1), "float32"),
                Step("Sigmoid", (4,), "float32"),
                Step("Mul", (5, 2), "float32"),
                Step("Add", (6, 3), "float32"),
            ),
            (7,),
        ),
        [(0, 1), (1, 1), (1, 0)],
    ),
    (Expression(("float32", "float32"), (Step("Less", (0, 1), "bool"),), (2,)), [(1, 1)]),
]


@each_machine
@pytest.mark.parametrize("which", range(len(EPILOGUES)))
@pytest.mark.parametrize("shape", [(1, 5), (9, 40), (33, 64), (14, 100)])
@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
def test_epilogue(machine: Machine, which: int, shape: tuple[int, int], layout: str) -> None:
    """Operands per column, per row, per element, in any order of memory; a result of another dtype."""
    expression, presence = EPILOGUES[which]
    rng = np.random.default_rng(5)
    m, n = shape
    a, b = rng.standard_normal((2, m, 21)).astype(np.float32), rng.standard_normal((21, n)).astype(np.float32)
    operands: list[np.ndarray] = []
    for rows, columns in presence:
        size = (2 if rows and columns else 1, m if rows else 1, n if columns else 1)
        operands.append(_strided(rng, size, {"rows": 0, "columns": 1, "gaps": 2}[layout]))
    order = (0, 2, 1) if layout == "columns" else (0, 1, 2)
    strides = strides_in_order((2, m, n), order)
    if layout == "gaps":
        strides = (m * n * 3 + 7, n * 3, 3)
    out = new((2, m, n), expression.result_dtypes[0], strides)
    calls = matmul(
        put(a), pack_weights(b, machine), out, Epilogue(expression, [put(o) for o in operands]), machine
    )
    (y,) = run_calls(calls, out, machine=machine)
    (reference,) = evaluate(expression, [definition(a, b), *operands])
    if y.dtype == bool:
        assert np.mean(y != reference) < 0.01  # sums within a rounding of each other
    else:
        np.testing.assert_allclose(y, reference, rtol=2e-5, atol=1e-5)


@each_machine
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_factors(machine: Machine, dtype: str) -> None:
    """Half precision is widened while it is packed; sums are float32."""
    import ml_dtypes

    kind: Any = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((19, 37)).astype(kind), rng.standard_normal((37, 45)).astype(kind)
    for second in (put(b), pack_weights(b, machine)):
        out = new((19, 45))
        (y,) = run_calls(matmul(put(a), second, out, None, machine), out, machine=machine)
        _check(y, definition(a, b), 37)


@each_machine
def test_infinities_stay_where_they_are(machine: Machine) -> None:
    """The zeros that pad a tile never meet an infinity of the matrices."""
    a, b = np.ones((5, 7), np.float32), np.ones((7, 9), np.float32)
    a[1, 6], a[3, 2], b[6, 8] = np.inf, np.nan, -np.inf
    out = new((5, 9))
    (y,) = run_calls(matmul(put(a), pack_weights(b, machine), out, None, machine), out, machine=machine)
    np.testing.assert_array_equal(y, definition(a, b).astype(np.float32))


def test_refusals() -> None:
    """Sizes that do not fit and dtypes that no tile computes are errors that name them."""
    machine = machines()[0]
    a, b = constant(np.ones((3, 4), np.float32)), constant(np.ones((5, 6), np.float32))
    with pytest.raises(ShapeError, match=r"\(3, 4\)"):
        matmul(a, b, new((3, 6)), None, machine)
    with pytest.raises(UnsupportedOperatorError, match="int32"):
        pack_weights(np.ones((4, 4), np.int32), machine)
    with pytest.raises(UnsupportedOperatorError, match="float64"):
        matmul(constant(np.ones((3, 5))), b, new((3, 6)), None, machine)


@pytest.mark.parametrize("machine", [*machines(), host()], ids=lambda m: f"{m.cpu}-v{m.vector_bytes}")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("turned", [False, True])
def test_no_spills(machine: Machine, dtype: type, turned: bool) -> None:
    """The register tile stays in registers: rows in place, columns in place, packed rows."""
    matrix = np.ones((168, 64), dtype)
    a, b = constant(np.asfortranarray(matrix) if turned else matrix), np.ones((64, 80), np.float32)
    (call,) = matmul(a, pack_weights(b, machine), new((168, 80)), None, machine)
    for kernel in {k for k in call.args if isinstance(k, Kernel) and k.generator.endswith("tile")}:
        params = dict(kernel.params)
        count = params["columns"] * params["vectors"] * params["unroll"]
        assert spills_in_loops(cache.native_assembly(kernel, machine), count) == 0, kernel
