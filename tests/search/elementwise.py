"""Random cases of operators that work element by element, and of casts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.search.draw import FLOATS, INTEGERS, Case, Draw, case, dtype_of

UNARY = (
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Ceil",
        "Cos",
        "Cosh",
        "Erf",
        "Exp",
    ),
    *("Floor", "HardSwish", "Identity", "IsNaN", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
)


@case(*UNARY)
def unary(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset, only=FLOATS if r.op == "Erf" else None)
    return Case(r.op, [r.array(r.shape(), dtype, special=0.4, scale=r.one([0.5, 1, 10]))])


@case(
    "Elu", "Celu", "LeakyRelu", "ThresholdedRelu", "Selu", "HardSigmoid", "Shrink", "Gelu", "Swish", "IsInf"
)
def parametric(r: Draw, opset: int) -> Case:
    attributes: dict[str, Any] = {
        "Elu": {"alpha": r.real(0, 3)},
        "Celu": {"alpha": r.real(0.2, 3)},
        "LeakyRelu": {"alpha": r.real(-1, 2)},
        "ThresholdedRelu": {"alpha": r.real(-1, 2)},
        "Selu": {"alpha": r.real(0, 3), "gamma": r.real(0.5, 2)},
        "HardSigmoid": {"alpha": r.real(0.1, 1), "beta": r.real(0, 1)},
        "Shrink": {"lambd": r.real(0, 2), "bias": r.real(-1, 2)},
        "Gelu": {"approximate": r.one(["none", "tanh"])},
        "Swish": {"alpha": r.real(-1, 2)},
        "IsInf": {"detect_negative": r.integer(0, 1), "detect_positive": r.integer(0, 1)},
    }[r.op]
    return Case(r.op, [r.array(r.shape(), r.dtype(opset), special=0.4)], r.some(attributes))


@case(
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "And",
    "Or",
    "Xor",
    "Equal",
    "Greater",
    "Less",
    "GreaterOrEqual",
    "LessOrEqual",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "BitShift",
    "Mod",
    "PRelu",
    "SwiGLU",
)
def binary(r: Draw, opset: int) -> Case:
    attributes: dict[str, Any] = {}
    first = r.shape(1 if r.op == "PRelu" else 0)
    second = r.broadcastable(first)
    dtype = r.dtype(opset)
    other = r.dtype(opset, 1) if r.op == "Pow" and opset >= 12 else dtype
    if opset < 7:
        start = r.integer(0, len(first))
        second = first[start : r.integer(start, len(first))]
        if r.op == "PRelu":
            second = r.one([(1,), first[1:2]]) if len(first) > 1 else (1,)
        elif second != first:
            attributes = {"broadcast": 1}
            if start + len(second) != len(first) or r.flag(0.3):
                attributes["axis"] = start
    elif r.op in ("PRelu",):
        pass
    elif r.op == "SwiGLU":
        second = first
        attributes = r.some({"alpha": r.real(0.5, 2)})
    elif r.flag(0.5):
        first, second = second, first
    a, b = r.array(first, dtype, special=0.3), r.array(second, other, special=0.3)
    if r.op == "BitShift":
        attributes = {"direction": r.one(["LEFT", "RIGHT"])}
        b = r.between(0, 9 if dtype != "uint8" else 7, second, dtype)
    if r.op == "Mod":
        attributes = {"fmod": 1} if dtype not in INTEGERS or r.flag() else {}
    if r.op in ("Div", "Mod") and dtype in INTEGERS:
        b = np.where(b.astype(np.int64) == 0, np.ones_like(b), b).astype(b.dtype)
        if dtype[0] == "i":  # the lowest number over -1 has no quotient
            b = np.where(b == -1, np.full_like(b, 2), b)
    if r.op == "Pow" and dtype in INTEGERS:
        b = (
            r.between(0, 4, second, other)
            if other in INTEGERS
            else r.between(0, 4, second).astype(dtype_of(other))
        )
    return Case(r.op, [a, b], attributes)


@case("Max", "Min", "Sum", "Mean")
def variadic(r: Draw, opset: int) -> Case:
    whole, dtype = r.shape(), r.dtype(opset)
    shapes = [whole if opset < 8 or r.flag() else r.broadcastable(whole) for _ in range(r.integer(1, 4))]
    return Case(r.op, [r.array(s, dtype, special=0.3) for s in shapes])


@case("Clip")
def clip(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    x = r.array(r.shape(), dtype, special=0.4)
    if opset < 11:
        return Case("Clip", [x], r.some({"min": r.real(-1, 0), "max": r.real(-0.5, 1)}))
    low, high = (r.array((), dtype, special=0.1) if r.flag(0.7) else None for _ in range(2))
    return Case("Clip", [x, low, high])


@case("Where")
def where(r: Draw, opset: int) -> Case:
    whole, dtype = r.shape(), r.dtype(opset, 1)
    return Case(
        "Where",
        [
            r.array(r.broadcastable(whole), "bool"),
            *(r.array(r.broadcastable(whole), dtype) for _ in range(2)),
        ],
    )


CAST = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    *INTEGERS,
    "bool",
    "string",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "int4",
    "uint4",
    "float4_e2m1fn",
    "int2",
    "uint2",
    "float6_e2m3fn",
    "float6_e3m2fn",
)


def proto_type(name: str) -> int:
    renamed = {
        "float32": "FLOAT",
        "float64": "DOUBLE",
        "float8_e8m0fnu": "FLOAT8E8M0",
        "float4_e2m1fn": "FLOAT4E2M1",
    }
    found = renamed.get(name) or name.upper().replace("FLOAT8_", "FLOAT8").replace("FLOAT6_", "FLOAT6")
    if found in ("FLOAT6E2M3FN", "FLOAT6E3M2FN"):
        found = found[:-2] if not hasattr(onnx.TensorProto, found) else found
    return int(getattr(onnx.TensorProto, found))


@case("Cast", "CastLike")
def cast(r: Draw, opset: int) -> Case:
    allowed = list(CAST)
    source, target = r.dtype(opset, 0, only=allowed), r.dtype(opset, "T2", only=allowed)
    shape = r.shape()
    if source == "string":
        texts = (
            ["1", "-2", "0", "3"] if target in INTEGERS else ["1.5", "-2e3", "NaN", "inf", "-inf", "0", "3"]
        )
        x = np.array(r.rng.choice(np.array(texts, object), shape), object)
    else:
        x = r.array(shape, source, special=0.4, scale=r.one([1, 1, 30, 1000]))
    attributes: dict[str, Any] = {}
    if "float8" in target and opset >= 19:
        attributes |= r.some({"saturate": r.integer(0, 1)})
    if r.op == "CastLike":
        return Case(r.op, [x, r.array(r.shape(), target)], attributes)
    kind: Any = proto_type(target)
    if opset < 6:
        kind = onnx.TensorProto.DataType.Name(kind)
    return Case(r.op, [x], {"to": kind, **attributes})


@case("BitCast")
def bit_cast(r: Draw, opset: int) -> Case:
    source, target = r.dtype(opset), r.dtype(opset, "T2")
    if dtype_of(source).itemsize != dtype_of(target).itemsize or source == "bool" or target == "bool":
        target = source
    return Case("BitCast", [r.array(r.shape(), source, special=0.5)], {"to": proto_type(target)})


@case("Dropout")
def dropout(r: Draw, opset: int) -> Case:
    dtype = r.dtype(opset)
    x = r.array(r.shape(), dtype)
    if opset < 12:
        attributes = r.some({"ratio": r.real(0, 0.9)})
        if opset < 7:
            attributes["is_test"] = 1
        return Case("Dropout", [x], attributes, r.integer(1, 2) if opset >= 10 else 1)
    ratio = r.array((), r.dtype(opset, 1)) * 0 + np.array(0.5) if r.flag() else None
    if ratio is not None:
        ratio = np.asarray(ratio).astype(dtype_of(r.dtype(opset, 1)))
    return Case("Dropout", [x, ratio, np.array(False) if r.flag() else None], outputs=r.integer(1, 2))


@case("Trilu")
def trilu(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(2, 4), r.dtype(opset))
    k = r.between(-4, 4, ()) if r.flag(0.6) else None
    return Case("Trilu", [x, k], r.some({"upper": r.integer(0, 1)}))


@case("CumSum", "CumProd")
def cumulative(r: Draw, opset: int) -> Case:
    x = r.array(r.shape(1, 4), r.dtype(opset))
    axis = np.array(r.axis(x.ndim), r.one([np.int32, np.int64]))
    return Case(r.op, [x, axis], r.some({"exclusive": r.integer(0, 1), "reverse": r.integer(0, 1)}))
