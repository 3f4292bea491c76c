"""Floats of eight bits and fewer, small integers, and quantisation: kernels against definitions, ml_dtypes
and onnx.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_cast import cast_to

from ingot.codegen.elements import DTYPES, FLOATS, INTEGERS, NARROW_FLOATS, NARROW_INTEGERS
from ingot.codegen.machine import Machine, host
from ingot.kernels.definitions import bounds_of, numpy_dtype
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step, evaluate, supports
from tests.kernels.run import each_machine, new, put, run_calls

NARROW = (*NARROW_FLOATS, *NARROW_INTEGERS)
QUANTIZED = ("int8", "uint8", "int16", "uint16", *NARROW)


def bits(array: np.ndarray) -> np.ndarray:
    """The array's bytes; all NaN are one."""
    if array.dtype.name in (*FLOATS, *NARROW_FLOATS):
        nan = np.isnan(array.astype(np.float32))
        array = np.where(nan, np.zeros((), array.dtype), array)
        return np.stack([array.view(f"uint{8 * array.itemsize}"), nan.astype(f"uint{8 * array.itemsize}")])
    return array.view(f"uint{8 * array.itemsize}")


def compute(expression: Expression, arrays: list[np.ndarray], machine: Machine) -> list[np.ndarray]:
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    outs = [new(shape, numpy_dtype(d)) for d in expression.result_dtypes]
    return run_calls(elementwise(expression, [put(a) for a in arrays], outs, machine), *outs, machine=machine)


def awkward(dtype: str) -> np.ndarray:
    """Every value of a narrow dtype; of others a spread, with bounds and halves between neighbours."""
    if dtype in NARROW_INTEGERS:
        return np.arange(1 << NARROW_INTEGERS[dtype], dtype=np.uint8).view(numpy_dtype(dtype))
    if dtype in NARROW_FLOATS:
        width = {"float6": 64, "float4": 16}.get(dtype[:6], 256)
        return np.arange(width, dtype=np.uint8).view(numpy_dtype(dtype))
    if dtype == "bool":
        return np.array([False, True])
    if dtype in INTEGERS:
        low, high = bounds_of(dtype)
        return np.array([*range(max(low, -20), 21), low, high, high // 2, 100], numpy_dtype(dtype))
    parts = [np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30])]
    for narrow in NARROW_FLOATS:
        values = np.unique(np.nan_to_num(awkward(narrow).astype(np.float64), nan=0.0, posinf=0, neginf=0))
        values = values[np.abs(values) < 1e6]
        halves = (values[1:] + values[:-1]) / 2
        parts += [values, halves, halves * (1 + 1e-6), halves * (1 - 1e-6)]
    with np.errstate(all="ignore"):
        return np.concatenate(parts).astype(numpy_dtype(dtype))


@each_machine
@pytest.mark.parametrize("source", DTYPES)
def test_casts_to_narrow_dtypes(source: str, machine: Machine) -> None:
    x = awkward(source)
    steps = [Step("Cast", (0,), target) for target in NARROW if target != source]
    steps += [Step("Cast", (0,), target, (("saturate", 0),)) for target in NARROW_FLOATS if target != source]
    steps += [
        Step("Cast", (0,), "float8_e8m0fnu", (("round_mode", mode), ("saturate", flag)))
        for mode in ("down", "nearest")
        for flag in (0, 1)
        if source != "float8_e8m0fnu"
    ]
    expression = Expression((source,), tuple(steps), tuple(range(1, len(steps) + 1)))
    want = evaluate(expression, [x])
    for step, g, w in zip(steps, compute(expression, [x], machine), want, strict=True):
        inside = np.ones(x.shape, bool)
        if step.dtype in NARROW_INTEGERS and source in (*FLOATS, *NARROW_FLOATS):
            with np.errstate(all="ignore"):  # ONNX leaves the others open
                inside = np.abs(x.astype(np.float64)) < 2**30
        if step.dtype.startswith(("float4", "float6")):  # which have no NaN
            inside = ~np.isnan(x.astype(np.float64))
        np.testing.assert_array_equal(bits(g)[..., inside], bits(w)[..., inside], err_msg=str(step))
        code = onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(step.dtype))
        attrs = {"saturate": 1, "round_mode": "up"} | dict(step.attrs)
        if hasattr(ml_dtypes, source) and hasattr(ml_dtypes, step.dtype):
            continue  # which ml_dtypes cannot convert
        with np.errstate(all="ignore"):
            theirs = cast_to(x, code, bool(attrs["saturate"]), attrs["round_mode"])
        np.testing.assert_array_equal(bits(g)[..., inside], bits(theirs)[..., inside], err_msg=str(step))


@each_machine
@pytest.mark.parametrize("source", NARROW)
def test_casts_from_narrow_dtypes(source: str, machine: Machine) -> None:
    x = awkward(source)
    targets = [d for d in DTYPES if d not in NARROW]
    expression = Expression(
        (source,), tuple(Step("Cast", (0,), t) for t in targets), tuple(range(1, len(targets) + 1))
    )
    with np.errstate(all="ignore"):
        want = evaluate(expression, [x])
    for target, got, w in zip(targets, compute(expression, [x], machine), want, strict=True):
        np.testing.assert_array_equal(bits(got), bits(w), err_msg=target)


@each_machine
def test_a_float64_is_rounded_to_narrow_floats_once(machine: Machine) -> None:
    tie = 1.0625  # between 1 (code 56) and 1.125 of e4m3, as 5 is between 4 (code 6) and 6 of e2m1
    x = np.array([tie, tie * (1 + 1e-12), tie * (1 - 1e-12), 5.0, 5.0 * (1 + 1e-15)])
    expression = Expression(
        ("float64",), (Step("Cast", (0,), "float8_e4m3fn"), Step("Cast", (0,), "float4_e2m1fn")), (1, 2)
    )
    eight, four = compute(expression, [x], machine)
    assert eight.view(np.uint8).tolist()[:3] == [56, 57, 56]
    assert four.view(np.uint8).tolist()[3:] == [6, 7]
    for got, want in zip((eight, four), evaluate(expression, [x]), strict=True):
        np.testing.assert_array_equal(bits(got), bits(want))


@each_machine
@pytest.mark.parametrize("dtype", QUANTIZED)
def test_quantisation_there_and_back(dtype: str, machine: Machine) -> None:
    if dtype == "float8_e8m0fnu":
        pytest.skip("a scale is not quantised itself")
    rng = np.random.default_rng(3)
    is_integer = dtype in (*INTEGERS, *NARROW_INTEGERS)
    x = np.concatenate([awkward("float32"), rng.normal(0, 200, 300), np.arange(-40, 40) * 0.25])
    with np.errstate(all="ignore"):
        x = x.astype(np.float32)
    for of_x, of_scale in (("float32", "float32"), ("float16", "float16"), ("bfloat16", "bfloat16"),
                           ("float32", "float16"), ("int32", "float32")):  # fmt: skip
        with np.errstate(all="ignore"):
            values = x if of_x != "int32" else np.clip(np.nan_to_num(x), -1e9, 1e9)
            values = values.astype(numpy_dtype(of_x))[None, :]
        scale = np.array([[0.5], [0.0173], [3.0]]).astype(numpy_dtype(of_scale))
        zero = np.array([[0], [1], [bounds_of(dtype)[1]]]) if is_integer else np.zeros((3, 1))
        zero = zero.astype(numpy_dtype(dtype))
        steps = [Step("QuantizeLinear", (0, 1, 2), dtype), Step("QuantizeLinear", (0, 1), dtype)]
        if of_x == "float32":
            steps.append(Step("QuantizeLinear", (0, 1, 2), dtype, (("precision", "float16"),)))
        expression = Expression((of_x, of_scale, dtype), tuple(steps), tuple(range(3, 3 + len(steps))))
        want = evaluate(expression, [values, scale, zero])
        for step, g, w in zip(steps, compute(expression, [values, scale, zero], machine), want, strict=True):
            np.testing.assert_array_equal(bits(g), bits(w), err_msg=str((of_x, of_scale, step)))
        back = tuple(Step("DequantizeLinear", (0, 1, 2), d) for d in ("float32", "float16", "bfloat16"))
        expression = Expression((dtype, of_scale, dtype), back, (3, 4, 5))
        with np.errstate(all="ignore"):
            want = evaluate(expression, [g, scale, zero])
        for h, w in zip(compute(expression, [g, scale, zero], machine), want, strict=True):
            np.testing.assert_array_equal(bits(h), bits(w))


@each_machine
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_sums_are_requantised(dtype: str, machine: Machine) -> None:
    rng = np.random.default_rng(5)
    sums = rng.integers(-(2**20), 2**20, (3, 77)).astype(np.int32)
    sums[0, :4] = [2**31 - 1, -(2**31), 0, 1]
    factor = np.array([[2.0**-12], [1e-5], [0.5]], np.float32)
    for zero in (0, 1, bounds_of(dtype)[0], bounds_of(dtype)[1]):
        arrays = [sums, factor, np.full((1, 1), zero, dtype)]
        expression = Expression(("int32", "float32", dtype), (Step("Requantize", (0, 1, 2), dtype),), (3,))
        (got,), (want,) = compute(expression, arrays, machine), evaluate(expression, arrays)
        np.testing.assert_array_equal(got, want)
        wide = np.rint(sums.astype(np.float32) * factor) + np.float32(zero)
        np.testing.assert_array_equal(got, np.clip(wide, *bounds_of(dtype)).astype(dtype))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_quantisation_agrees_with_onnx(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(("int8", "uint8", "int16", "uint16", "int4", "uint2")))
    n = data.draw(st.integers(0, 70))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(0, 3, (2, n)).astype(np.float32)
    scale = np.float32(data.draw(st.floats(2**-10, 2.0, width=32)))
    low, high = bounds_of(dtype)
    zero = np.array(data.draw(st.integers(low, high)), numpy_dtype(dtype))
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 25]> g (float[2,n] x, float s, {dtype} z) => ({dtype}[2,n] y)'
        "{ y = QuantizeLinear(x, s, z) }"
    )
    (want,) = ReferenceEvaluator(model).run(None, {"x": x, "s": np.array(scale), "z": zero})
    step = Step("QuantizeLinear", (0, 1, 2), dtype)
    expression = Expression(("float32", "float32", dtype), (step,), (3,))
    arrays = [x, np.full((1, 1), scale), zero.reshape(1, 1)]
    (got,) = compute(expression, arrays, host())
    np.testing.assert_array_equal(bits(got), bits(want))


def test_what_no_kernel_quantises() -> None:
    assert not supports("QuantizeLinear", ("float64", "float64"), "uint8")
    assert not supports("QuantizeLinear", ("float32", "float32"), "int32")
    assert supports("DequantizeLinear", ("int32", "float32"), "float32")
