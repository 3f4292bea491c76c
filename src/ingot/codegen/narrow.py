"""Floats of eight bits and fewer: from their bits to float32 and back, rounded to nearest even.

Every one of their values is a float32, so arithmetic on them is float32's. In memory each takes a byte (as in
ml_dtypes), whose upper bits are 0 where the format is narrower.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ingot.codegen.builder import F32, I8, I32, Builder, Value, lanes_of, vector

_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000


@dataclass(frozen=True, slots=True)
class Format:
    """Sign, exponent, mantissa. `specials`: as IEEE 754 ("ieee"); NaN where all bits but the sign are ones
    ("nan"); NaN in the place of -0 ("unsigned zero"); or none at all, so that everything saturates ("none").
    """

    exponent: int
    mantissa: int
    bias: int
    specials: Literal["ieee", "nan", "unsigned zero", "none"]

    @property
    def bits(self) -> int:
        """Width, the sign included."""
        return 1 + self.exponent + self.mantissa

    @property
    def sign(self) -> int:
        """The sign's bit."""
        return 1 << (self.bits - 1)

    @property
    def largest(self) -> int:
        """The code of the largest finite value."""
        ones = self.sign - 1
        return {"ieee": ones - (1 << self.mantissa), "nan": ones - 1}.get(self.specials, ones)

    @property
    def nan(self) -> int:
        """The code that NaN gets; a format without one has -0 for it."""
        if self.specials in ("unsigned zero", "none"):
            return self.sign
        quiet = (1 << self.mantissa) - 1 if self.specials == "nan" else 1 << (self.mantissa - 1)
        return self.sign - (1 << self.mantissa) + quiet


FORMATS = {
    "float8_e4m3fn": Format(4, 3, 7, "nan"),
    "float8_e4m3fnuz": Format(4, 3, 8, "unsigned zero"),
    "float8_e5m2": Format(5, 2, 15, "ieee"),
    "float8_e5m2fnuz": Format(5, 2, 16, "unsigned zero"),
    "float6_e2m3fn": Format(2, 3, 1, "none"),
    "float6_e3m2fn": Format(3, 2, 3, "none"),
    "float4_e2m1fn": Format(2, 1, 1, "none"),
}
#: Powers of two alone: eight bits of exponent, no sign, no zero.
SCALE = "float8_e8m0fnu"


def decode(k: Builder, value: Value, format_: Format) -> Value:
    """The float32 of each byte."""
    lanes = lanes_of(value.type)
    words, floats = vector(I32, lanes), vector(F32, lanes)
    wide = k.ir.zext(value, words)
    code = k.ir.and_(wide, k.splat(format_.sign - 1, words))
    magnitude = k.ir.shl(code, k.splat(23 - format_.mantissa, words))
    # A product with a power of two is right for denormal numbers too.
    scaled = k.ir.fmul(k.ir.bitcast(magnitude, floats), k.splat(2.0 ** (127 - format_.bias), floats))
    bits = k.ir.bitcast(scaled, words)
    sign = k.ir.shl(k.ir.and_(wide, k.splat(format_.sign, words)), k.splat(32 - format_.bits, words))
    nan = k.splat(_INFINITY | 1 << 22, words)
    if format_.specials == "ieee":
        special = k.ir.icmp_unsigned(">", code, k.splat(format_.largest, words))
        bits = k.ir.select(special, k.ir.or_(magnitude, k.splat(_INFINITY, words)), bits)
    elif format_.specials == "nan":
        bits = k.ir.select(k.ir.icmp_unsigned("==", code, k.splat(format_.nan, words)), nan, bits)
    elif format_.specials == "unsigned zero":
        bits = k.ir.select(k.ir.icmp_unsigned("==", wide, k.splat(format_.nan, words)), nan, bits)
    return k.ir.bitcast(k.ir.or_(bits, sign), floats)


def encode(k: Builder, value: Value, format_: Format, saturate: bool) -> Value:
    """The byte of each float32. Too large ones become the largest value with `saturate` (infinities too), or
    else infinity, or NaN where there is none.
    """
    lanes = lanes_of(value.type)
    words, drop = vector(I32, lanes), 23 - format_.mantissa
    bits = k.ir.bitcast(value, words)
    magnitude = k.ir.and_(bits, k.splat(_MAGNITUDE, words))
    odd = k.ir.and_(k.ir.lshr(magnitude, k.splat(drop, words)), k.splat(1, words))
    rounded = k.ir.add(k.ir.add(magnitude, odd), k.splat((1 << (drop - 1)) - 1, words))
    rounded = k.ir.lshr(rounded, k.splat(drop, words))
    normal = k.ir.sub(rounded, k.splat((127 - format_.bias) << format_.mantissa, words))
    # Next to this power of two a float32's unit is the format's smallest number: the addition rounds.
    unit = 24 - format_.bias - format_.mantissa
    tiny = k.ir.fadd(k.ir.bitcast(magnitude, value.type), k.splat(2.0**unit, value.type))
    tiny = k.ir.sub(k.ir.bitcast(tiny, words), k.splat((127 + unit) << 23, words))
    least = (128 - format_.bias) << 23  # the smallest normal number
    code = k.ir.select(k.ir.icmp_unsigned("<", magnitude, k.splat(least, words)), tiny, normal)
    saturates = saturate or format_.specials == "none"
    beyond = format_.largest + 1 if format_.specials == "ieee" else format_.nan
    too_large = k.ir.icmp_signed(">", code, k.splat(format_.largest, words))
    code = k.ir.select(too_large, k.splat(format_.largest if saturates else beyond, words), code)
    is_nan = k.ir.icmp_unsigned(">", magnitude, k.splat(_INFINITY, words))
    code = k.ir.select(is_nan, k.splat(format_.nan, words), code)
    sign = k.ir.and_(k.ir.lshr(bits, k.splat(32 - format_.bits, words)), k.splat(format_.sign, words))
    if format_.specials in ("unsigned zero", "none"):
        plain = is_nan  # NaN has one code
        if format_.specials == "unsigned zero":
            plain = k.ir.or_(plain, k.ir.icmp_unsigned("==", code, k.splat(0, words)))
            if not saturates:
                plain = k.ir.or_(plain, too_large)
        sign = k.ir.select(plain, k.splat(0, words), sign)
    return k.ir.trunc(k.ir.or_(code, sign), vector(I8, lanes))


def decode_scale(k: Builder, value: Value) -> Value:
    """2^(code - 127) of each byte; 255 is NaN."""
    lanes = lanes_of(value.type)
    words = vector(I32, lanes)
    wide = k.ir.zext(value, words)
    bits = k.ir.shl(wide, k.splat(23, words))
    bits = k.ir.select(k.ir.icmp_unsigned("==", wide, k.splat(0, words)), k.splat(1 << 22, words), bits)
    is_nan = k.ir.icmp_unsigned("==", wide, k.splat(255, words))
    bits = k.ir.select(is_nan, k.splat(_INFINITY | 1 << 22, words), bits)
    return k.ir.bitcast(bits, vector(F32, lanes))


def encode_scale(k: Builder, value: Value, saturate: bool, round_mode: str) -> Value:
    """The exponent of each float32, whatever its sign; infinities and NaN give NaN. `round_mode`: of the
    fraction, "up", "down" or "nearest" (ties away from the smallest exponent up).
    """
    lanes = lanes_of(value.type)
    words = vector(I32, lanes)
    bits = k.ir.bitcast(value, words)
    exponent = k.ir.and_(k.ir.lshr(bits, k.splat(23, words)), k.splat(255, words))
    fraction = k.ir.and_(bits, k.splat((1 << 23) - 1, words))
    code = exponent
    if round_mode != "down":
        if round_mode == "up":
            up = k.ir.icmp_unsigned("!=", fraction, k.splat(0, words))
        else:
            up = k.ir.icmp_unsigned(">", fraction, k.splat(1 << 22, words))
            tie = k.ir.icmp_unsigned("==", fraction, k.splat(1 << 22, words))
            up = k.ir.or_(up, k.ir.and_(tie, k.ir.icmp_unsigned("!=", exponent, k.splat(0, words))))
        if saturate:
            up = k.ir.and_(up, k.ir.icmp_unsigned("!=", exponent, k.splat(254, words)))
        code = k.ir.add(exponent, k.ir.zext(up, words))
    special = k.ir.icmp_unsigned("==", exponent, k.splat(255, words))
    code = k.ir.select(special, k.splat(255, words), code)
    return k.ir.trunc(code, vector(I8, lanes))
