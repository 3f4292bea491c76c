"""Random cases of operators on quantised numbers."""
# ruff: noqa: ARG001  (every generator is given the opset)

from __future__ import annotations

from typing import Any

import numpy as np

from tests.search.draw import Array, Case, Draw, case, dtype_of
from tests.search.elementwise import proto_type
from tests.search.layers import window


def scales(r: Draw, shape: tuple[int, ...], dtype: str = "float32") -> Array:
    return r.rng.uniform(0.01, 0.3, shape).astype(dtype_of(dtype))


def layout(r: Draw, opset: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and of its scales, attributes: one scale, one for each row of an axis, or for blocks."""
    x = r.shape(1, 4, empty=False)
    kind = r.integer(0, 2)
    if kind == 0 or opset < 13:
        return x, (), {}
    axis = r.integer(0, len(x) - 1)
    attributes: dict[str, Any] = {"axis": axis - len(x) if r.flag(0.3) else axis}
    if kind == 1 or opset < 21:
        if axis == 1 and r.flag():
            attributes = {}
        return x, (x[axis],), attributes
    block = r.integer(1, 4)
    attributes["block_size"] = block
    dims = list(x)
    dims[axis] = block * r.integer(1, 3)
    each = list(dims)
    each[axis] //= block
    return tuple(dims), tuple(each), attributes


QUANTISED = (
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int4",
    "uint4",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "int2",
    "uint2",
    "float4_e2m1fn",
)


@case("QuantizeLinear")
def quantize(r: Draw, opset: int) -> Case:
    shape, each, attributes = layout(r, opset)
    dtype = r.dtype(opset, 0, only=("float32", "float16", "bfloat16", "int32"))
    scale_type = dtype if dtype != "int32" and opset >= 19 else "float32"
    if opset >= 24 and dtype == "float16" and r.flag(0.3):
        scale_type = "float32"
    target = r.dtype(opset, 2, only=QUANTISED)
    x = r.array(shape, dtype, special=0.1, scale=5)
    zero = r.array(each, target, special=0.0) if r.flag(0.7) else None
    if zero is not None and "float" in target:
        zero = np.zeros(each, zero.dtype)
    if zero is None and opset >= 21 and r.flag():
        attributes["output_dtype"] = proto_type(target)
    if "float8" in target:
        attributes |= r.some({"saturate": r.integer(0, 1)}) if opset >= 19 else {}
    return Case("QuantizeLinear", [x, scales(r, each, scale_type), zero], attributes)


@case("DequantizeLinear")
def dequantize(r: Draw, opset: int) -> Case:
    shape, each, attributes = layout(r, opset)
    dtype = r.dtype(opset, 0, only=(*QUANTISED, "int32"))
    kind = r.dtype(opset, 1, only=("float32", "float16", "bfloat16")) if opset >= 19 else "float32"
    zero = r.array(each, dtype, special=0.0) if r.flag(0.6) and dtype != "int32" else None
    if zero is not None and "float" in dtype:
        zero = np.zeros(each, zero.dtype)
    return Case(
        "DequantizeLinear", [r.array(shape, dtype, special=0.5), scales(r, each, kind), zero], attributes
    )


@case("DynamicQuantizeLinear")
def dynamic(r: Draw, opset: int) -> Case:
    return Case(
        "DynamicQuantizeLinear", [r.floats(*r.shape(empty=False), scale=r.one([0.1, 1, 50]))], outputs=3
    )


@case("MatMulInteger")
def matmul_integer(r: Draw, opset: int) -> Case:
    a, b = r.dtype(opset, 0), r.dtype(opset, 1)
    lead = r.shape(0, 2, empty=False, largest=20)
    m, k, n = r.integer(1, 20), r.integer(1, 40), r.integer(1, 20)
    inputs: list[Any] = [
        r.array((*lead, m, k), a, special=0.7),
        r.array((*r.broadcastable(lead), k, n), b, special=0.7),
    ]
    inputs.append(r.array(r.one([(), (1,)]), a, special=0.5) if r.flag() else None)
    inputs.append(
        r.array(r.one([(), (n,)]) if inputs[1].ndim == 2 else (), b, special=0.5) if r.flag() else None
    )
    return Case("MatMulInteger", inputs)


@case("QLinearMatMul")
def qlinear_matmul(r: Draw, opset: int) -> Case:
    a, b, y = (r.dtype(opset, i, only=("int8", "uint8")) for i in (0, 3, 7))
    lead = r.shape(0, 1, empty=False, largest=20)
    m, k, n = r.integer(1, 20), r.integer(1, 40), r.integer(1, 20)
    column = r.flag(0.3)
    each = (n,) if column else ()
    return Case(
        "QLinearMatMul",
        [
            r.array((*lead, m, k), a, special=0.5),
            scales(r, ()),
            r.array((), a, special=0.3),
            r.array((k, n), b, special=0.5),
            scales(r, each),
            r.array(each, b, special=0.3) if a != "uint8" or not column or b == "int8" else np.zeros(each, b),
            scales(r, ()) * np.float32(20),
            r.array((), y, special=0.3),
        ],
    )


@case("ConvInteger", "QLinearConv")
def conv_integer(r: Draw, opset: int) -> Case:
    rank = r.one([1, 2, 2])
    kernel, attributes, sizes = window(r, opset, rank, dilations=1)
    group = r.one([1, 1, 2, 4])
    inner, outer = r.integer(1, 5), r.integer(1, 5)
    if group != 1:
        attributes["group"] = group
    first = r.op == "ConvInteger"
    a, b = r.dtype(opset, 0), r.dtype(opset, 1 if first else 3)
    x = r.array((r.integer(1, 2), group * inner, *sizes), a, special=0.7)
    w = r.array((group * outer, inner, *kernel), b, special=0.7)
    attributes |= r.some({"kernel_shape": kernel})
    if first:
        return Case(
            r.op,
            [
                x,
                w,
                r.array((), a, special=0.5) if r.flag() else None,
                r.array((), b, special=0.5) if r.flag() else None,
            ],
            attributes,
        )
    each = (group * outer,) if r.flag() else ()
    y = r.dtype(opset, 7)
    zero = np.zeros(each, dtype_of(b)) if r.flag() or each else r.array((), b)
    bias = r.between(-500, 500, (group * outer,), "int32") if r.flag() else None
    return Case(
        r.op,
        [
            x,
            scales(r, ()),
            r.array((), a, special=0.3),
            w,
            scales(r, each),
            zero,
            scales(r, ()) * np.float32(30),
            r.array((), y, special=0.3),
            bias,
        ],
        attributes,
    )
