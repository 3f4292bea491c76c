"""Element types in memory and in registers: loads, stores, gathers and casts for every numeric dtype.

In registers the floats narrower than 32 bits are float32, bool is i1, integers narrower than 8 bits are i8,
and every other dtype is itself; so arithmetic on half precision is float32 arithmetic, rounded once when it
is stored. Dtypes are NumPy's and ml_dtypes' names ("float32", "bfloat16", "int4" …).
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

from llvmlite import ir

from ingot.codegen.builder import (
    F32,
    F64,
    I1,
    I8,
    I32,
    I64,
    Builder,
    Int,
    Value,
    element_of,
    lanes_of,
    vector,
)
from ingot.codegen.narrow import FORMATS, SCALE, decode, decode_scale, encode, encode_scale

I16 = ir.IntType(16)
_SIGNED = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_UNSIGNED = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}
FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = (*_SIGNED, *_UNSIGNED)
#: Stored, cast, quantised and moved; ONNX has no arithmetic on them.
NARROW_FLOATS = (*FORMATS, SCALE)
NARROW_INTEGERS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
DTYPES = (*FLOATS, *INTEGERS, "bool", *NARROW_FLOATS, *NARROW_INTEGERS)


def is_float(dtype: str) -> bool:
    """Whether a dtype's name is one of the floating-point types."""
    return dtype in FLOATS or dtype in NARROW_FLOATS


def is_signed(dtype: str) -> bool:
    """Whether a dtype's name is one of the signed integers."""
    return dtype in _SIGNED or dtype in ("int4", "int2")


def register_element(dtype: str) -> Any:
    """The LLVM type of one element in a register."""
    if dtype == "float64":
        return F64
    if is_float(dtype):
        return F32
    if dtype in NARROW_INTEGERS:
        return I8
    return I1 if dtype == "bool" else ir.IntType((_SIGNED | _UNSIGNED)[dtype])


def register_type(dtype: str, lanes: int) -> Any:
    """The LLVM type of `lanes` elements in a register."""
    return vector(register_element(dtype), lanes)


def bytes_of(dtype: str) -> int:
    """Bytes of one element in memory."""
    if dtype in FLOATS:
        return {"float64": 8, "float32": 4}.get(dtype, 2)
    return (_SIGNED | _UNSIGNED).get(dtype, 8) // 8


def memory_element(dtype: str) -> Any:
    """The LLVM type of one element in memory; half precision travels as its bits."""
    if dtype in ("float16", "bfloat16"):
        return I16
    return I8 if dtype == "bool" or dtype in NARROW_FLOATS else register_element(dtype)


# ---- loads and stores --------------------------------------------------------------------------------------


def load_element(
    k: Builder, pointer: Value, dtype: str, lanes: int, index: Int = 0, mask: Value | None = None
) -> Value:
    """`lanes` elements from pointer[index] on, in register form; lanes off `mask` are not read."""
    return _widen(k, k.load(pointer, vector(memory_element(dtype), lanes), index, mask), dtype)


def store_element(
    k: Builder, value: Value, pointer: Value, dtype: str, index: Int = 0, mask: Value | None = None
) -> None:
    """Store a register value as consecutive elements at pointer[index]; only the lanes of `mask`."""
    k.store(_narrow(k, value, dtype), pointer, index, mask)


def gather_element(
    k: Builder, pointer: Value, dtype: str, lanes: int, stride: Int, count: Int | None = None
) -> Value:
    """Lanes pointer[0], pointer[stride] …; lanes from `count` on are not read."""
    return _widen(k, k.gather(pointer, vector(memory_element(dtype), lanes), stride, count), dtype)


def gather_element_at(
    k: Builder,
    pointer: Value,
    dtype: str,
    lanes: int,
    offsets: Value,
    mask: Value | None = None,
    step: Any = None,
) -> Value:
    """Lanes pointer[offsets[i]] for a vector of i64 `offsets` in elements (or in those of type `step`); lanes
    off `mask` are not read and are 0.
    """
    return _widen(k, k.gather_at(pointer, offsets, vector(memory_element(dtype), lanes), mask, step), dtype)


def scatter_element(
    k: Builder, value: Value, pointer: Value, dtype: str, stride: Int, count: Int | None = None
) -> None:
    """Store lanes at pointer[0], pointer[stride] …; only the first `count` of them."""
    k.scatter(_narrow(k, value, dtype), pointer, stride, count)


def _widen(k: Builder, value: Value, dtype: str) -> Value:
    """From memory's form to the register's."""
    if dtype == "bool":
        return k.ir.icmp_unsigned("!=", value, k.zero(value.type))
    if dtype == "bfloat16":
        bits = k.ir.zext(value, vector(I32, lanes_of(value.type)))
        return k.ir.bitcast(k.ir.shl(bits, k.splat(16, bits.type)), vector(F32, lanes_of(value.type)))
    if dtype in NARROW_INTEGERS:
        return _wrapped(k, value, dtype)
    if dtype in NARROW_FLOATS:
        return decode_scale(k, value) if dtype == SCALE else decode(k, value, FORMATS[dtype])
    return _from_half(k, value) if dtype == "float16" else value


def _wrapped(k: Builder, value: Value, dtype: str) -> Value:
    """The lowest bits of an i8 as a number of this dtype."""
    unused = k.splat(8 - NARROW_INTEGERS[dtype], value.type)
    shift = k.ir.ashr if is_signed(dtype) else k.ir.lshr
    return shift(k.ir.shl(value, unused), unused)


def _narrow(k: Builder, value: Value, dtype: str) -> Value:
    """From the register's form to memory's, rounded to nearest even."""
    if dtype == "bool":
        return k.ir.zext(value, vector(I8, lanes_of(value.type)))
    if dtype == "bfloat16":
        return _to_bfloat(k, value)
    if dtype in NARROW_INTEGERS:
        return k.ir.and_(value, k.splat((1 << NARROW_INTEGERS[dtype]) - 1, value.type))
    if dtype in NARROW_FLOATS:  # values of the format already: `cast` has rounded them
        return _to_narrow(k, value, dtype, saturate=False, round_mode="down")
    return _to_half(k, value) if dtype == "float16" else value


def _to_narrow(k: Builder, value: Value, dtype: str, saturate: bool, round_mode: str) -> Value:
    if dtype == SCALE:
        return encode_scale(k, value, saturate, round_mode)
    return encode(k, value, FORMATS[dtype], saturate)


def _converts_half(k: Builder) -> bool:
    # x86 without F16C has no instruction for it, and LLVM would call a function that is not there.
    return "+f16c" in k.machine.features or not k.machine.triple.startswith(("x86", "i686"))


def _from_half(k: Builder, value: Value) -> Value:
    lanes = lanes_of(value.type)
    if _converts_half(k):
        return k.ir.fpext(k.ir.bitcast(value, vector(ir.HalfType(), lanes)), vector(F32, lanes))
    wide = k.ir.zext(value, vector(I32, lanes))
    magnitude = k.ir.shl(k.ir.and_(wide, k.splat(0x7FFF, wide.type)), k.splat(13, wide.type))
    # Exponents differ by 112, and a product with 2^112 is right for denormal numbers too.
    scaled = k.ir.fmul(k.ir.bitcast(magnitude, vector(F32, lanes)), k.splat(2.0**112, vector(F32, lanes)))
    special = k.ir.icmp_unsigned(">=", magnitude, k.splat(0x7C00 << 13, wide.type))
    bits = k.ir.bitcast(scaled, wide.type)
    bits = k.ir.select(special, k.ir.or_(magnitude, k.splat(0x7F800000, wide.type)), bits)
    sign = k.ir.shl(k.ir.and_(wide, k.splat(0x8000, wide.type)), k.splat(16, wide.type))
    return k.ir.bitcast(k.ir.or_(bits, sign), vector(F32, lanes))


def _to_half(k: Builder, value: Value) -> Value:
    lanes = lanes_of(value.type)
    if _converts_half(k):
        return k.ir.bitcast(k.ir.fptrunc(value, vector(ir.HalfType(), lanes)), vector(I16, lanes))
    wide = vector(I32, lanes)
    bits = k.ir.bitcast(value, wide)
    magnitude = k.ir.and_(bits, k.splat(0x7FFFFFFF, wide))
    odd = k.ir.and_(k.ir.lshr(magnitude, k.splat(13, wide)), k.splat(1, wide))
    normal = k.ir.add(k.ir.add(magnitude, odd), k.splat(0xFFF - (112 << 23), wide))
    normal = k.ir.lshr(normal, k.splat(13, wide))
    # Next to 0.5 a float32's unit is float16's smallest number: the addition rounds.
    tiny = k.ir.fadd(k.ir.bitcast(magnitude, value.type), k.splat(0.5, value.type))
    tiny = k.ir.sub(k.ir.bitcast(tiny, wide), k.splat(0x3F000000, wide))
    half = k.ir.select(k.ir.icmp_unsigned("<", magnitude, k.splat(113 << 23, wide)), tiny, normal)
    too_big = k.ir.icmp_unsigned(">=", magnitude, k.splat(0x477FF000, wide))  # 65520 rounds to infinity
    half = k.ir.select(too_big, k.splat(0x7C00, wide), half)
    nan = k.ir.icmp_unsigned(">", magnitude, k.splat(0x7F800000, wide))
    half = k.ir.select(nan, k.splat(0x7E00, wide), half)
    sign = k.ir.lshr(k.ir.and_(bits, k.splat(0x80000000, wide)), k.splat(16, wide))
    return k.ir.trunc(k.ir.or_(half, sign), vector(I16, lanes))


def _to_bfloat(k: Builder, value: Value) -> Value:
    lanes = lanes_of(value.type)
    wide = vector(I32, lanes)
    bits = k.ir.bitcast(value, wide)
    odd = k.ir.and_(k.ir.lshr(bits, k.splat(16, wide)), k.splat(1, wide))
    rounded = k.ir.lshr(k.ir.add(k.ir.add(bits, odd), k.splat(0x7FFF, wide)), k.splat(16, wide))
    sign = k.ir.and_(k.ir.lshr(bits, k.splat(16, wide)), k.splat(0x8000, wide))
    quiet = k.ir.or_(sign, k.splat(0x7FC0, wide))
    return k.ir.trunc(k.ir.select(is_nan(k, value), quiet, rounded), vector(I16, lanes))


def is_nan(k: Builder, value: Value) -> Value:
    """The mask of lanes that are not a number."""
    return k.ir.fcmp_unordered("uno", value, value)


# ---- casts -------------------------------------------------------------------------------------------------


def cast(
    k: Builder, value: Value, source: str, target: str, saturate: bool = True, round_mode: str = "up"
) -> Value:
    """A register value of dtype `source` as one of dtype `target`.

    Floats are rounded to nearest even. A float outside of an integer type's range gives what PyTorch and
    ONNX Runtime give on x86: see `ingot.kernels.definitions.to_integer`. Integers wrap. saturate, round_mode:
    ONNX's attributes of casts to narrow floats.
    """
    if source == target:
        return value
    lanes, element = lanes_of(value.type), register_element(target)
    type_ = vector(element, lanes)
    if target == "bool":
        if is_float(source):
            return k.ir.fcmp_unordered("une", value, k.zero(value.type))
        return k.ir.icmp_signed("!=", value, k.zero(value.type))
    if is_float(target):
        value = _cast_to_float(k, value, source, target, type_)
        if target in NARROW_FLOATS:
            value = _widen(k, _to_narrow(k, value, target, saturate, round_mode), target)
        return value
    if target in NARROW_INTEGERS:
        whole = "int32" if is_float(source) else "int8"
        return _wrapped(k, cast(k, cast(k, value, source, whole), whole, "int8"), target)
    if is_float(source):
        return _whole(k, value, target, type_)
    if element.width <= element_of(value.type).width:
        return k.ir.trunc(value, type_) if element.width < element_of(value.type).width else value
    return k.ir.sext(value, type_) if is_signed(source) else k.ir.zext(value, type_)


def _whole(k: Builder, value: Value, target: str, type_: Any) -> Value:
    """A float as an integer by x86's conversions: see `ingot.kernels.definitions.to_integer`."""
    bits, lanes = bytes_of(target) * 8, lanes_of(value.type)
    words = vector(I64 if bits == 64 or target == "uint32" else I32, lanes)
    if target != "uint64":
        whole = _toward_zero(k, value, words)
        return k.ir.trunc(whole, type_) if type_ != words else whole
    half = k.splat(2.0**63, value.type)
    high = k.ir.fcmp_ordered(">=", value, half)
    whole = _toward_zero(k, k.ir.select(high, k.ir.fsub(value, half), value), words)
    return k.ir.xor(whole, k.ir.select(high, k.splat(-(1 << 63), words), k.zero(words)))


#: x86's instruction for vectors of float32 to int32, which gives the lowest int32 for what is none.
_TRUNCATE = {4: "sse2.cvttps2dq", 8: "avx.cvtt.ps2dq.256", 16: "avx512.mask.cvttps2dq.512"}


def _toward_zero(k: Builder, value: Value, words: Any) -> Value:
    """A float as an int32 or int64, the type's lowest number for NaN and what is out of its range."""
    lanes, element = lanes_of(value.type), element_of(value.type)
    x86, fits = k.machine.triple.startswith(("x86", "i686")), lanes in _TRUNCATE and lanes <= k.machine.lanes
    if x86 and fits and element == F32 and element_of(words) == I32:
        operands = [value]
        if lanes == 16:  # what lanes off the mask keep, the mask, and the rounding mode in force
            operands += [k.zero(words), ir.IntType(16)(-1), I32(4)]
        name = f"llvm.x86.{_TRUNCATE[lanes]}"
        return k.ir.call(k.declare(name, words, [x.type for x in operands]), operands)
    bound = 2.0 ** (element_of(words).width - 1)
    lowest = k.splat(-bound, value.type)
    bounded = k.ir.select(k.ir.fcmp_ordered(">", value, lowest), value, lowest)
    inside = k.ir.fcmp_ordered("<", bounded, k.splat(bound, value.type))
    return k.ir.fptosi(k.ir.select(inside, bounded, lowest), words)


def _cast_to_float(k: Builder, value: Value, source: str, target: str, type_: Any) -> Value:
    """As the register's float, rounded to half precision where that is the target."""
    if source == "float64" and target != "float32" and target != SCALE:
        value = _round_to_odd(k, value)  # so that the second rounding is that of the exact value
    elif source == "float64":
        value = k.ir.fptrunc(value, type_)
    elif is_float(source):
        value = k.ir.fpext(value, type_) if target == "float64" else value
    else:
        value = k.ir.sitofp(value, type_) if is_signed(source) else k.ir.uitofp(value, type_)
    # Half precision lives in a float32 register, holding only what half precision can hold.
    return _widen(k, _narrow(k, value, target), target) if target in ("float16", "bfloat16") else value


def _round_to_odd(k: Builder, value: Value) -> Value:
    """float64 to float32; where inexact, the neighbour with an odd last bit (Boldo and Melquiond, 2008)."""
    lanes = lanes_of(value.type)
    near = k.ir.fptrunc(value, vector(F32, lanes))
    wide = vector(I32, lanes)
    bits = k.ir.bitcast(near, wide)
    back = k.intrinsic("fabs", k.ir.fpext(near, value.type))
    magnitude = k.intrinsic("fabs", value)
    even = k.ir.icmp_unsigned("==", k.ir.and_(bits, k.splat(1, wide)), k.zero(wide))
    up = k.ir.and_(even, k.ir.fcmp_ordered(">", magnitude, back))
    down = k.ir.and_(even, k.ir.fcmp_ordered("<", magnitude, back))
    bits = k.ir.add(bits, k.ir.zext(up, wide))
    return k.ir.bitcast(k.ir.sub(bits, k.ir.zext(down, wide)), near.type)
