"""Expressions and the fused elementwise kernel against their plain definitions."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.elements import DTYPES, FLOATS, INTEGERS
from ingot.codegen.machine import Machine, host
from ingot.kernels.call import View, strides_in_order
from ingot.kernels.definitions import numpy_dtype
from ingot.kernels.elementwise import elementwise, fill
from ingot.kernels.expression import Expression, Step, evaluate, identity, supports
from ingot.kernels.operations import OPERATIONS
from tests.kernels.run import each_machine, machines, new, put, run_calls

ARITY = {
    **dict.fromkeys(["Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "PRelu", "Sum", "BitShift"], 2),
    **dict.fromkeys(["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor"], 2),
    **dict.fromkeys(["BitwiseAnd", "BitwiseOr", "BitwiseXor", "SwiGLU"], 2),
    "Clip": 3,
    "MultiplyAdd": 3,
    "Where": 3,
    "Constant": 0,
}
ATTRS: dict[str, list[dict[str, Any]]] = {
    "BitShift": [{"direction": "LEFT"}, {"direction": "RIGHT"}],
    "Gelu": [{}, {"approximate": "tanh"}],
    "Mod": [{}, {"fmod": 1}],
    "IsInf": [{}, {"detect_negative": 0}, {"detect_positive": 0}],
    "LeakyRelu": [{"alpha": 0.2}],
    "Elu": [{"alpha": 2.0}],
    "Celu": [{"alpha": 1.5}],
    "Swish": [{"alpha": 1.7}],
    "SwiGLU": [{}, {"alpha": 1.7}],
    "Shrink": [{}, {"lambd": 1.25, "bias": 0.75}],
    "HardSigmoid": [{"alpha": 0.3, "beta": 0.4}],
    "Constant": [{"value": 1}],
}
#: Of several dtypes: the tests below, and test_narrow.py.
ELSEWHERE = ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear", "Requantize")
PREDICATES = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN", "IsInf"}
#: Those that ONNX computes with; test_narrow.py has the others.
WIDE = (*FLOATS, *INTEGERS, "bool")
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-6, "float64": 1e-14}


def sample(rng: np.random.Generator, dtype: str, size: int) -> np.ndarray:
    """Values with the dtype's awkward ones among them."""
    if dtype == "bool":
        return rng.integers(0, 2, size).astype(bool)
    if dtype in INTEGERS:
        bounds = np.iinfo(dtype)
        small = rng.integers(max(bounds.min, -9), 10, size)
        large = rng.integers(bounds.min, bounds.max, size, dtype=dtype, endpoint=True)
        values = np.where(rng.random(size) < 0.7, small, large).astype(dtype)
        values[:4] = [bounds.min, bounds.max, 0, 1]
        return values
    values = rng.normal(0, 3, size)
    values[:6] = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0]
    values[6:12] = rng.permutation(values[:6])
    return values.astype(numpy_dtype(dtype))


#: The largest numbers whose sums cancel inside of an operator, for the samples here.
INSIDE = {"Gelu": 5.0}


def close(got: np.ndarray, want: np.ndarray, dtype: str, inside: float = 1.0) -> None:
    assert got.dtype == want.dtype
    if dtype in FLOATS:
        tolerance = TOLERANCE[dtype]
        g, w = got.astype(np.float64), want.astype(np.float64)
        tiny = float(ml_dtypes.finfo(got.dtype).smallest_normal)
        # Sums of numbers of about `inside` in an expression round at that size.
        rounding = min(tolerance, 1e-6) / 10 * inside
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance * tiny + rounding)
    else:
        np.testing.assert_array_equal(got, want)


def check(expression: Expression, arrays: list[np.ndarray], machine: Machine) -> None:
    want = evaluate(expression, arrays)
    outs = [new(w.shape, w.dtype) for w in want]
    got = run_calls(elementwise(expression, [put(a) for a in arrays], outs, machine), *outs, machine=machine)
    for g, w, dtype in zip(got, want, expression.result_dtypes, strict=True):
        close(g, w, dtype, max([INSIDE.get(step.op, 1.0) for step in expression.steps], default=1.0))


@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_every_operator_in_every_dtype(op: str) -> None:
    rng = np.random.default_rng(1)
    tried = 0
    for dtype in WIDE:
        if op in ELSEWHERE:
            continue
        for attrs in ATTRS.get(op, [{}]):
            dtypes = ("bool", dtype, dtype) if op == "Where" else (dtype,) * ARITY.get(op, 1)
            result = "bool" if op in PREDICATES else dtype
            if not supports(op, dtypes, result, attrs):
                continue
            step = Step(op, tuple(range(len(dtypes))), result, tuple(attrs.items()))
            arrays = [sample(rng, d, 77) for d in dtypes]
            check(Expression(dtypes, (step,), (len(dtypes),)), arrays, machines()[tried % len(machines())])
            tried += 1
    assert tried or op in ELSEWHERE


@each_machine
@pytest.mark.parametrize("source", WIDE)
def test_casts_between_all_dtypes(source: str, machine: Machine) -> None:
    rng = np.random.default_rng(2)
    for target in WIDE:
        x = sample(rng, source, 70)
        expression = Expression((source,), (Step("Cast", (0,), target),), (1,))
        out = new(x.shape, numpy_dtype(target))
        with np.errstate(all="ignore"):
            want = x.astype(numpy_dtype(target))
        if source in FLOATS and target in INTEGERS:  # NumPy's is not defined for all
            (want,) = evaluate(expression, [x])
        (got,) = run_calls(elementwise(expression, [put(x)], [out], machine), out, machine=machine)
        if target in FLOATS:
            got, want = got.astype(np.float64), want.astype(np.float64)
        np.testing.assert_array_equal(got, want)


#: What PyTorch 2.13 and ONNX Runtime 1.32 give on x86, short or long vectors.
BEYOND = [130.0, -130.0, 300.0, -1.5, -200.75, 40000.0, 2.0**31, 3e9, 2.0**40, 2.0**63, 2.0**64]
BEYOND += [np.inf, -np.inf, np.nan]
LOW32, LOW64 = -(2**31), -(2**63)
CONVERTED = {
    "int8": [-126, 126, 44, -1, 56, 64, *[0] * 8],
    "uint8": [130, 126, 44, 255, 56, 64, *[0] * 8],
    "int16": [130, -130, 300, -1, -200, -25536, *[0] * 8],
    "uint16": [130, 65406, 300, 65535, 65336, 40000, *[0] * 8],
    "int32": [130, -130, 300, -1, -200, 40000, *[LOW32] * 8],
    "uint32": [130, 2**32 - 130, 300, 2**32 - 1, 2**32 - 200, 40000, 2**31, 3 * 10**9, *[0] * 6],
    "int64": [130, -130, 300, -1, -200, 40000, 2**31, 3 * 10**9, 2**40, *[LOW64] * 5],
    "uint64": [
        *(130, 2**64 - 130, 300, 2**64 - 1, 2**64 - 200, 40000, 2**31, 3 * 10**9, 2**40),
        *(2**63, 0, 0, 2**63, 2**63),
    ],
    "bool": [True] * 14,
}  # fmt: skip


@each_machine
@pytest.mark.parametrize("source", ["float32", "float64"])
@pytest.mark.parametrize("target", CONVERTED)
def test_floats_out_of_an_integers_range(target: str, source: str, machine: Machine) -> None:
    want = np.array(CONVERTED[target] * 5 + CONVERTED[target][:1], numpy_dtype(target))
    x = np.array(BEYOND * 5 + BEYOND[:1], source)
    expression = Expression((source,), (Step("Cast", (0,), target),), (1,))
    out = new(x.shape, numpy_dtype(target))
    (got,) = run_calls(elementwise(expression, [put(x)], [out], machine), out, machine=machine)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(evaluate(expression, [x])[0], want)


#: Numbers next to the bounds of the integer dtypes.
EDGES = st.builds(
    lambda power, past, sign: sign * (2.0**power + past),
    st.integers(0, 66),
    st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]),
    st.sampled_from([1.0, -1.0]),
)


@each_machine
@pytest.mark.parametrize("source", ["float16", "bfloat16", "float32", "float64"])
@given(numbers=st.lists(EDGES | st.floats(), max_size=70))
@settings(max_examples=15, deadline=None)
def test_conversion_to_integers_is_the_definition(
    source: str, machine: Machine, numbers: list[float]
) -> None:
    with np.errstate(all="ignore"):
        x = np.array(numbers, np.float64).astype(numpy_dtype(source))
    steps = tuple(Step("Cast", (0,), target) for target in INTEGERS)
    expression = Expression((source,), steps, tuple(range(1, len(steps) + 1)))
    outs = [new(x.shape, target) for target in INTEGERS]
    results = run_calls(elementwise(expression, [put(x)], outs, machine), *outs, machine=machine)
    for target, got, want in zip(INTEGERS, results, evaluate(expression, [x]), strict=True):
        np.testing.assert_array_equal(got, want, err_msg=target)


@each_machine
@pytest.mark.parametrize("target", ["float16", "bfloat16"])
def test_rounding_to_half_precision_is_exact(machine: Machine, target: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(numpy_dtype(target))
    with np.errstate(all="ignore"):
        every = every.astype(np.float32)
        every = every[~np.isnan(every)]
        halves = (every[1:].astype(np.float64) + every[:-1]) / 2
        x = np.concatenate([every, halves, halves * (1 + 1e-7), halves * (1 - 1e-7)]).astype(np.float32)
        want = x.astype(numpy_dtype(target))
    real = ~np.isnan(x)
    expression = Expression(("float32",), (Step("Cast", (0,), target),), (1,))
    out = new(x.shape, numpy_dtype(target))
    (got,) = run_calls(elementwise(expression, [put(x)], [out], machine), out, machine=machine)
    np.testing.assert_array_equal(got.view(np.uint16)[real], want.view(np.uint16)[real])
    assert np.isnan(got[~real].astype(np.float32)).all()


def test_a_float64_is_rounded_to_half_precision_once() -> None:
    x = np.array([1 + 2**-11 + 2**-30, 1 + 2**-11 - 2**-30, 65519.999999, 1e300, 6e-8], np.float64)
    expression = Expression(("float64",), (Step("Cast", (0,), "float16"),), (1,))
    out = new(x.shape, "float16")
    with np.errstate(all="ignore"):
        want = x.astype(np.float16)
    (got,) = run_calls(elementwise(expression, [put(x)], [out], host()), out)
    np.testing.assert_array_equal(got, want)


@each_machine
@pytest.mark.parametrize("exponent", [0.5, -0.5, 1.0, 2.0, -2.0, 3.0, -1.0, 4.0, 2.5])
def test_known_powers(machine: Machine, exponent: float) -> None:
    x = sample(np.random.default_rng(0), "float32", 50)
    steps = (Step("Constant", (), "float32", (("value", exponent),)), Step("Pow", (0, 1), "float32"))
    check(Expression(("float32",), steps, (2,)), [x], machine)


CHAIN = Expression(
    ("float32", "float32", "bool"),
    (
        Step("Mul", (0, 1), "float32"),
        Step("Sigmoid", (3,), "float32"),
        Step("Where", (2, 4, 0), "float32"),
        Step("Less", (5, 1), "bool"),
    ),
    (5, 6),
)


@st.composite
def strided(draw: st.DrawFn, shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> np.ndarray:
    """An array that broadcasts to `shape`: some sizes 1, some strides negative or with gaps, any order."""
    own = [1 if draw(st.integers(0, 3)) == 0 else n for n in shape]
    order = draw(st.permutations(range(len(own))))
    steps = [draw(st.sampled_from([1, 1, 1, 2, -1])) for _ in own]
    big = [n * abs(s) for n, s in zip(own, steps, strict=True)]
    base = sample(rng, dtype, max(12, int(np.prod(big))))[: int(np.prod(big))]
    base = base.reshape([big[d] for d in order]).transpose(np.argsort(order))
    picked = base[tuple(slice(None, None, s) for s in steps)] if own else base
    return np.asarray(picked[tuple(slice(0, n) for n in own)])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_strides_broadcasting_and_sizes(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 16, 17, 33, 70]), max_size=4)))
    if np.prod(shape) > 20000:
        shape = shape[:2]
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    arrays = [data.draw(strided(shape, dtype, rng)) for dtype in CHAIN.leaves]
    machine = data.draw(st.sampled_from(machines()))
    want = evaluate(CHAIN, [np.broadcast_to(a, shape) for a in arrays])
    outs: list[View] = []
    for dtype in CHAIN.result_dtypes:
        order = data.draw(st.permutations(range(len(shape))))
        scale = data.draw(st.sampled_from([1, 1, 3]))
        strides = [s * scale for s in strides_in_order(shape, order)]
        outs.append(new(shape, dtype, strides))
    got = run_calls(elementwise(CHAIN, [put(a) for a in arrays], outs, machine), *outs, machine=machine)
    close(got[0], want[0], "float32")
    near = np.isclose(want[0], np.broadcast_to(arrays[1], shape), rtol=1e-5)
    np.testing.assert_array_equal(got[1][~near], want[1][~near])


@each_machine
def test_an_output_may_be_an_input(machine: Machine) -> None:
    x = np.random.default_rng(0).normal(size=(37, 53)).astype(np.float32)
    view = new(x.shape)
    double = Expression(("float32",), (Step("Add", (0, 0), "float32"),), (1,))
    calls = [
        elementwise(identity("float32"), [put(x)], [view], machine),
        elementwise(double, [view], [view], machine),
    ]
    (got,) = run_calls(calls, view, machine=machine)
    np.testing.assert_array_equal(got, x + x)


@each_machine
@pytest.mark.parametrize("dtype", DTYPES)
def test_fill(machine: Machine, dtype: str) -> None:
    out = new((5, 7), numpy_dtype(dtype), (8, 1))
    (got,) = run_calls(fill(1, out, machine), out, machine=machine)
    assert (got == numpy_dtype(dtype).type(1)).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e-45, -0.0, 3.1415926535])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_fill_with_special_numbers(value: float, dtype: str) -> None:
    out = new((3,), dtype)
    (got,) = run_calls(fill(value, out, host()), out)
    assert got.tobytes() == np.full(3, value, dtype).tobytes()


def test_zeros_of_both_signs_have_code_of_their_own() -> None:
    for value in (0.0, -0.0, 0.0):
        out = new((3,))
        (got,) = run_calls(fill(value, out, host()), out)
        assert got.tobytes() == np.full(3, value, np.float32).tobytes()


def test_large_tensors_are_cut_into_tiles() -> None:
    x = np.random.default_rng(0).normal(size=(3, 40001)).astype(np.float32)
    out = new(x.shape, strides=(40002, 1))
    call = elementwise(identity("float32"), [put(x)], [out], host())
    assert call.tiles > 1
    (got,) = run_calls(call, out)
    np.testing.assert_array_equal(got, x)


def test_a_form_is_that_of_all_with_the_same_dimensions_left() -> None:
    shapes = [(1, 6, 10, 8), (10, 6, 8), (3, 20, 8)]
    calls = [elementwise(identity("float32"), [new((8,))], [new(shape)], host()) for shape in shapes]
    assert len({id(call.form) for call in calls}) == 1, "a form depends on dimensions that are none of a loop"
    assert elementwise(identity("float32"), [new((8,))], [new((6, 9, 8))], host()).form is not calls[0].form


def test_wrong_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        elementwise(identity("float32"), [put(np.zeros(3))], [new((3,))], host())


def test_an_expression_cannot_use_a_value_before_it_is_computed() -> None:
    with pytest.raises(ValueError, match="before"):
        Expression(("float32",), (Step("Add", (0, 1), "float32"),), (1,))


@each_machine
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32"])
def test_integers_are_divided_to_the_last_digit(dtype: str, machine: Machine) -> None:
    bounds, rng = np.iinfo(dtype), np.random.default_rng(0)
    near = {int(bound) + step for bound in (bounds.min, bounds.max, 0) for step in range(-3, 4)}
    edges = np.array([v for v in near if bounds.min <= v <= bounds.max], dtype)
    a, b = (grid.ravel() for grid in np.meshgrid(edges, edges))
    a = np.concatenate([a, rng.integers(bounds.min, bounds.max, 3000, dtype, endpoint=True)])
    b = np.concatenate([b, rng.integers(bounds.min, bounds.max, 1500, dtype, endpoint=True)])
    b = np.concatenate([b, rng.integers(max(bounds.min, -99), 99, 1500, dtype)])
    wanted: list[list[int]] = [[], []]
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        quotient = 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
        wanted[0].append(quotient)
        wanted[1].append(0 if y == 0 else x - y * quotient)
    for op, attrs, exact in (("Div", (), wanted[0]), ("Mod", (("fmod", 1),), wanted[1])):
        out = new(a.shape, dtype)
        expression = Expression((dtype, dtype), (Step(op, (0, 1), dtype, attrs),), (2,))
        (got,) = run_calls(elementwise(expression, [put(a), put(b)], [out], machine), out, machine=machine)
        np.testing.assert_array_equal(got, np.array([x % 2**64 for x in exact], np.uint64).astype(dtype))


@each_machine
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_remainders_have_no_error(dtype: str, machine: Machine) -> None:
    """Of any two numbers, however far apart, and of what is no number."""
    info, rng = np.finfo(dtype), np.random.default_rng(0)
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 3.0, -7.0]
    edges += [float(info.max), float(info.smallest_subnormal)]
    a, b = (grid.ravel() for grid in np.meshgrid(edges, edges))
    powers = rng.uniform(info.minexp, info.maxexp - 1, (2, 3000))
    far = np.ldexp(rng.uniform(-1, 1, powers.shape), powers.astype(int))
    with np.errstate(all="ignore"):
        near = far[0] * rng.integers(1, 1000, 3000)
        a, b = (np.concatenate(parts).astype(dtype) for parts in ((a, far[0], near), (b, far[1], far[0])))
        wanted = {1: np.fmod(a, b), 0: np.mod(a.astype(np.float64), b.astype(np.float64)).astype(dtype)}
    for fmod, want in wanted.items():
        out = new(a.shape, dtype)
        expression = Expression((dtype, dtype), (Step("Mod", (0, 1), dtype, (("fmod", fmod),)),), (2,))
        (got,) = run_calls(elementwise(expression, [put(a), put(b)], [out], machine), out, machine=machine)
        np.testing.assert_array_equal(got, want)
        signed = ~np.isnan(want)
        assert fmod == 0 or np.array_equal(np.signbit(got[signed]), np.signbit(want[signed]))
