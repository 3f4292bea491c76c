"""Steps of random graphs of quantised values: operators between DequantizeLinear and QuantizeLinear, as
quantisation tools write them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.search.chains import Chain, Unfit, Value
from tests.search.draw import Array
from tests.search.links import image, step

CODES = ("uint8", "int8", "uint8", "int8", "uint16", "int16")


def scale_of(array: Array, dtype: str, r: Any, axis: int | None = None) -> tuple[Array, Array]:
    """A scale and a zero point for these numbers, as calibration finds them."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    axes = tuple(d for d in range(array.ndim) if d != axis) if axis is not None else None
    most = np.abs(array).max(axes, initial=0.1) if array.size else np.asarray(1.0)
    symmetric = low < 0 and r.flag(0.6)
    scale = np.asarray(most * r.real(0.5, 1.1) * 2 / (high - low), np.float32)
    if r.flag(0.3):
        scale = np.exp2(np.round(np.log2(scale))).astype(np.float32)
    middle = 0 if symmetric else (high + low + 1) // 2
    zero = np.full(scale.shape, middle, dtype)
    if not symmetric:
        zero = (zero.astype(np.int64) + r.integer(-20, 20)).astype(dtype)
    return scale, zero


def codes_of(c: Chain) -> str:
    return c.r.one(CODES if c.opset >= 21 else CODES[:4])


def quantised(c: Chain, x: Value, dtype: str | None = None) -> Value:
    """The value after Quantize and Dequantize."""
    dtype = dtype or codes_of(c)
    scale, zero = scale_of(x.array, dtype, c.r)
    numbers = [c.constant(scale), c.constant(zero)]
    y = c.op("QuantizeLinear", x, *numbers)
    y.exact = False
    return c.op("DequantizeLinear", y, *numbers)


def weights(c: Chain, shape: tuple[int, ...], axis: int) -> Value:
    """Integers dequantised, as a whole or along an axis."""
    dtype = c.r.one(["int8", "int8", "uint8"])
    real = c.r.floats(*shape, scale=0.5)
    each = c.opset >= 13 and c.r.flag(0.6)
    scale, zero = scale_of(real, dtype, c.r, axis if each else None)
    if dtype == "int8":
        zero = np.zeros_like(zero)
    spread = [
        v.reshape([-1 if d == axis else 1 for d in range(real.ndim)]) if each else v for v in (scale, zero)
    ]
    held = np.clip(np.round(real / spread[0]) + spread[1], np.iinfo(dtype).min, np.iinfo(dtype).max).astype(
        dtype
    )
    left_out = not zero.any() and c.r.flag(0.2) and dtype == "uint8"
    return c.op(
        "DequantizeLinear",
        c.constant(held),
        c.constant(scale),
        None if left_out else c.constant(zero),
        axis=axis if each else None,
    )


def bias(c: Chain, count: int) -> Value:
    if c.r.flag(0.4):
        return c.constant(c.r.floats(count))
    held = c.r.between(-500, 500, (count,), "int32")
    return c.op(
        "DequantizeLinear",
        c.constant(held),
        c.constant(np.float32(c.r.real(1e-4, 1e-2))),
        c.constant(np.int32(0)),
    )


def start(c: Chain) -> None:
    """What quantised steps begin with."""
    if c.main != "float32":
        raise Unfit
    quantised(c, image(c))


def real(c: Chain, low: int, high: int) -> Value:
    """A value that was quantised, most often."""
    made = {name for n in c.nodes if n.op_type == "DequantizeLinear" for name in n.output}
    found = [
        v
        for v in c.seen()
        if v.name in made and v.dtype == "float32" and low <= v.rank <= high and v.array.size
    ]
    found = [v for v in found if not v.constant]
    if not found or c.r.flag(0.1):
        return quantised(c, c.pick(lambda v: low <= v.rank <= high and v.array.size > 0))
    return found[-1] if c.r.flag(0.6) else c.r.one(found)


def ended(c: Chain, y: Value) -> None:
    if c.r.flag(0.3):
        y = c.op("Relu", y)
    if c.r.flag(0.9):
        quantised(c, y)


@step(6)
def conv(c: Chain) -> None:
    x = real(c, 3, 4)
    channels, sizes = x.shape[1], x.shape[2:]
    group = c.r.one([g for g in (1, 1, 1, 2, channels) if channels % g == 0])
    out = group * c.r.integer(1, 6)
    kernel = [c.r.integer(1, min(3, s)) for s in sizes]
    w = weights(c, (out, channels // group, *kernel), 0)
    b = bias(c, out) if c.r.flag(0.7) else None
    pads = [c.r.integer(0, 1) for _ in range(2 * len(sizes))] if c.r.flag() else None
    y = c.op(
        "Conv",
        x,
        w,
        b,
        group=group if group != 1 else None,
        pads=pads,
        strides=[c.r.integer(1, 2) for _ in sizes] if c.r.flag(0.3) else None,
    )
    ended(c, y)


@step(5)
def product(c: Chain) -> None:
    x = real(c, 2, 4)
    k = x.shape[-1]
    if c.r.flag(0.7):
        y = c.op("MatMul", x, weights(c, (k, c.r.integer(1, 9)), 1))
        if c.r.flag(0.6):
            y = c.op("Add", y, bias(c, y.shape[-1]))
    else:
        turned = c.op("Transpose", x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])
        y = c.op("MatMul", x, turned)
    ended(c, y)


@step(2)
def gemm(c: Chain) -> None:
    x = real(c, 2, 2)
    turn = c.r.integer(0, 1)
    n, k = c.r.integer(1, 9), x.shape[1]
    w = weights(c, (n, k) if turn else (k, n), 1 - turn)
    ended(c, c.op("Gemm", x, w, bias(c, n) if c.r.flag() else None, transB=turn or None))


@step(4)
def pair(c: Chain) -> None:
    x = real(c, 0, 4)
    shape = x.shape
    there = [v for v in c.seen() if v.dtype == "float32" and v.shape == shape and not v.constant]
    y = c.r.one(there) if c.r.flag(0.6) else quantised(c, c.input(c.r.floats(*shape)))
    ended(c, c.op(c.r.one(["Add", "Add", "Mul", "Sub"]), x, y))


@step(2)
def joined(c: Chain) -> None:
    x = real(c, 1, 4)
    axis = c.r.integer(0, x.rank - 1)
    y = quantised(
        c, c.input(c.r.floats(*[c.r.integer(1, 4) if d == axis else s for d, s in enumerate(x.shape)]))
    )
    ended(c, c.op("Concat", x, y, axis=axis))


@step(3)
def single(c: Chain) -> None:
    x = real(c, 1, 4)
    op = c.r.one(["Sigmoid", "Tanh", "LeakyRelu", "Softmax", "Relu", "Clip", "HardSigmoid", "Erf"])
    if op == "Clip":
        ended(c, c.op(op, x, c.constant(np.float32(0)), c.constant(np.float32(6))))
    else:
        ended(c, c.op(op, x, axis=-1 if op == "Softmax" else None))


@step(3)
def shaped(c: Chain) -> None:
    x = real(c, 1, 4)
    op = c.r.one(["Transpose", "Reshape", "Slice", "Flatten", "Identity"])
    if op == "Transpose":
        y = c.op(op, x, perm=[int(a) for a in c.r.rng.permutation(x.rank)])
    elif op == "Reshape":
        y = c.op(op, x, c.ints([0, -1] if x.rank > 1 else [-1]))
    elif op == "Slice":
        y = c.op(op, x, c.ints([0]), c.ints([max(1, x.shape[0] // 2)]), c.ints([0]))
    else:
        y = c.op(op, x)
    ended(c, y)


@step(3)
def pooled(c: Chain) -> None:
    x = real(c, 4, 4)
    op = c.r.one(["MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"])
    if op == "GlobalAveragePool":
        y = c.op(op, x)
    elif op == "ReduceMean":
        y = c.op(op, x, c.ints([2, 3])) if c.opset >= 18 else c.op(op, x, axes=[2, 3])
    else:
        y = c.op(
            op, x, kernel_shape=[min(2, s) for s in x.shape[2:]], strides=[c.r.integer(1, 2) for _ in "ab"]
        )
    ended(c, y)


@step(1)
def as_they_run(c: Chain) -> None:
    """Scales that are found while it runs."""
    x = c.pick(lambda v: v.array.any(), dtypes=("float32",))  # the scale of zeros is 1 or 1 / 255
    values = c.add("DynamicQuantizeLinear", [x], 3)
    c.op("DequantizeLinear", *values)
