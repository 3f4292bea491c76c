"""Products and convolutions of int8 and uint8 against NumPy's int32, to the last bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingot.codegen.machine import Machine, host
from ingot.kernels.call import View, Weights, strides_in_order
from ingot.kernels.contract import Epilogue, Numbers
from ingot.kernels.conv import IntegerConvWeights, integer_conv2d
from ingot.kernels.expression import Expression, Step
from ingot.kernels.gemm import integer_matmul
from ingot.kernels.units import flips, numbers_for, pack_factor_calls, pack_integers
from tests.kernels.run import machines, new, put, run_calls

DTYPES = (np.dtype(np.int8), np.dtype(np.uint8))


def kinds() -> list[Machine]:
    """This CPU under every mask, and without instructions for bytes."""
    found = machines()
    plain = [
        dataclasses.replace(m, features=m.features.replace("+avx512vnni", "-avx512vnni"))
        for m in found
        if m.byte_products
    ]
    narrow = host("avx2") if any(m.vector_bytes >= 32 for m in found) else None
    if narrow is not None and "+avxvnni" in host().features:
        plain.append(dataclasses.replace(narrow, features=narrow.features.replace("-avxvnni", "+avxvnni")))
    return [*found, *plain]


def of(rng: np.random.Generator, dtype: np.dtype, *shape: int) -> np.ndarray:
    """All values of the dtype, the extremes often."""
    bounds = np.iinfo(dtype)
    values = rng.integers(bounds.min, bounds.max, shape, np.int32, endpoint=True)
    return np.where(rng.random(shape) < 0.1, rng.choice([bounds.min, bounds.max], shape), values).astype(
        dtype
    )


def less_zero(sums: np.ndarray, columns: np.ndarray, zero: np.ndarray, flip: bool) -> np.ndarray:
    return sums - (zero.astype(np.int32) + (128 if flip else 0)) * columns


def integers(array: np.ndarray, order: int) -> View:
    """The array with a memory layout of its own: as it is, transposed, or with gaps."""
    if order == 1:
        return put(np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2))
    if order == 2 and array.size:
        wide = np.repeat(np.repeat(array, 3, -1), 2, -2)
        return put(wide[..., ::2, ::3])
    return put(array)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_product(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(kinds()))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    size = st.one_of(st.integers(0, 9), st.integers(0, 150))
    m, depth, n = (data.draw(size) for _ in range(3))
    batch = data.draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    repeated = data.draw(st.booleans())
    of_a, of_b = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(DTYPES))
    a = of(rng, of_a, *batch, m, depth)
    b = of(rng, of_b, *(() if repeated else batch), depth, n)
    zero_a = of(rng, of_a, m, 1) if data.draw(st.booleans()) else of(rng, of_a)
    kind = data.draw(st.sampled_from(["none", "middle", "tensor", "columns"]))
    middle = np.array(128 if of_b == np.uint8 else 0, of_b)
    zero_b = {"none": None, "middle": middle, "tensor": of(rng, of_b), "columns": of(rng, of_b, 1, n)}[kind]
    wide = b.astype(np.int32) - (0 if zero_b is None else zero_b.astype(np.int32))
    want = np.matmul(a.astype(np.int32) - zero_a.astype(np.int32), wide)
    out, left = new(want.shape, np.int32), integers(a, data.draw(st.integers(0, 2)))
    calls = []
    if data.draw(st.booleans()):
        numbers = numbers_for(of_b.name, zero_b, zero_b is not None, machine)
        packed = pack_integers(b, zero_b, numbers, machine)
    else:
        numbers = numbers_for(of_b.name, zero_b, zero_b is not None, machine)
        right = integers(b, data.draw(st.integers(0, 2)))
        calls, packed = pack_factor_calls(right, None if zero_b is None else put(zero_b), numbers, machine)
    calls = [*calls, *integer_matmul(left, packed, out, None, machine)]
    if not want.size:
        return
    got, columns = run_calls(calls, out, packed.columns(), machine=machine)
    got = less_zero(got, columns, zero_a, flips(numbers, of_a.name))
    np.testing.assert_array_equal(got, want)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_convolution(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(kinds()))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    groups = data.draw(st.sampled_from([1, 1, 2, 3]))
    c, o = (data.draw(st.one_of(st.integers(1, 9), st.integers(1, 70))) for _ in range(2))
    images, h, w = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 12)), data.draw(st.integers(1, 20))
    kh, kw = (data.draw(st.integers(1, 3)) for _ in range(2))
    strides = [data.draw(st.integers(1, 3)) for _ in range(2)]
    dilations = [data.draw(st.integers(1, 2)) for _ in range(2)]
    pads = [data.draw(st.integers(0, 2)) for _ in range(4)]
    size = [
        (n + pads[d] + pads[d + 2] - (k - 1) * dilations[d] - 1) // strides[d] + 1
        for d, (n, k) in enumerate(((h, kh), (w, kw)))
    ]
    if min(size) < 1:
        return
    of_x, of_w = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(DTYPES))
    x, filters = of(rng, of_x, images, c * groups, h, w), of(rng, of_w, o * groups, c, kh, kw)
    zero_x = of(rng, of_x)
    kind = data.draw(st.sampled_from(["none", "middle", "tensor", "filters"]))
    middle = np.array(128 if of_w == np.uint8 else 0, of_w)
    zero_w = {"none": None, "middle": middle, "tensor": of(rng, of_w), "filters": of(rng, of_w, o * groups)}[
        kind
    ]
    order = data.draw(st.sampled_from([(0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 1, 2)]))
    lies = np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    packed = IntegerConvWeights(
        Weights.of(filters),
        zero_w,
        groups,
        numbers_for(of_w.name, zero_w, zero_w is not None, machine),
        machine,
    )
    out = new(
        (images, o * groups, *size), np.int32, strides_in_order((images, o * groups, *size), (0, 2, 3, 1))
    )
    calls = integer_conv2d(put(lies), put(zero_x), packed, out, strides, pads, dilations, None, machine)
    if not images:
        assert not calls
        return
    got, columns = run_calls(calls, out, packed.sums, machine=machine)
    got = less_zero(got, columns.reshape(-1, 1, 1), zero_x, flips(packed.numbers, of_x.name))
    real = filters.astype(np.int64) - (0 if zero_w is None else zero_w.astype(np.int64).reshape(-1, 1, 1, 1))
    widths = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    padded = np.pad(x.astype(np.int64) - int(zero_x), widths)
    want = np.zeros(got.shape, np.int64)
    for g in range(groups):
        for i in range(kh):
            for j in range(kw):
                rows = slice(i * dilations[0], i * dilations[0] + (size[0] - 1) * strides[0] + 1, strides[0])
                across = slice(
                    j * dilations[1], j * dilations[1] + (size[1] - 1) * strides[1] + 1, strides[1]
                )
                part = padded[:, g * c : (g + 1) * c, rows, across]
                want[:, g * o : (g + 1) * o] += np.einsum(
                    "nchw,oc->nohw", part, real[g * o : (g + 1) * o, :, i, j]
                )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("numbers", ["bytes", "words"])
def test_an_epilogue_requantises(numbers: Numbers) -> None:
    machine = host()
    if numbers == "bytes" and not machine.byte_products:
        pytest.skip("this CPU multiplies no bytes")
    rng = np.random.default_rng(4)
    a, b = of(rng, DTYPES[1], 37, 64), of(rng, DTYPES[0], 64, 48)
    packed = pack_integers(b, None, numbers, machine)
    scale, zero = np.float32(0.001), np.array(7, np.uint8)
    steps = (
        Step("Cast", (0,), "float32"),
        Step("QuantizeLinear", (3, 1, 2), "uint8"),
    )
    expression = Expression(("int32", "float32", "uint8"), steps, (4,))
    out = new((37, 48), np.uint8)
    epilogue = Epilogue(expression, [put(np.array(1 / scale, np.float32)), put(zero)])
    (got,) = run_calls(integer_matmul(put(a), packed, out, epilogue, machine), out, machine=machine)
    sums = (a.astype(np.int32) @ b.astype(np.int32)).astype(np.float32)
    want = np.clip(np.rint(sums / np.float32(1 / scale)) + 7, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(got, want)
