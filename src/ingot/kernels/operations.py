"""The operators that expressions are made of: for each its plain definition in NumPy and the code it emits.

`define` gets floats as float64 and integers as they are; of an operator that changes types ("typed") also the
dtypes of its operands and result. `emit` gets register values (see codegen.elements),
the operands' dtypes, the result's, and the attributes that differ from ONNX's defaults.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math as scalar
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.codegen import circular, hyperbolic, library, math
from ingot.codegen.builder import F32, F64, I1, I32, Builder, Value, element_of, lanes_of, vector
from ingot.codegen.elements import (
    FLOATS,
    INTEGERS,
    NARROW_FLOATS,
    NARROW_INTEGERS,
    cast,
    is_float,
    is_signed,
)
from ingot.codegen.lanes import Lanes, any_lane
from ingot.codegen.narrow import SCALE
from ingot.kernels import definitions as plain

Attrs = dict[str, Any]
Emit = Callable[[Builder, list[Value], tuple[str, ...], str, Attrs], Value]
Accepts = Callable[[tuple[str, ...], str, Attrs], bool]


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operator means, how it is emitted, which dtypes it takes, and what it costs: instructions."""

    define: Callable[..., Any]
    emit: Emit
    accepts: Accepts
    weight: int
    typed: bool = False


OPERATIONS: dict[str, Operation] = {}

# ---- which dtypes ------------------------------------------------------------------------------------------


def _same(*families: str) -> Accepts:
    """All operands and the result have one dtype, of these families."""
    return lambda dtypes, dtype, _attrs: dtype in families and all(d == dtype for d in dtypes)


def _predicate(*families: str) -> Accepts:
    """All operands have one dtype of these families; the result is bool."""
    return lambda dtypes, dtype, _attrs: dtype == "bool" and dtypes[0] in families and len(set(dtypes)) == 1


_FLOAT, _INTEGER, _BOOL = _same(*FLOATS), _same(*INTEGERS), _same("bool")
_NUMBER = _same(*FLOATS, *INTEGERS)


def _add(
    name: str,
    define: Callable[..., Any],
    emit: Emit,
    accepts: Accepts,
    weight: int = 1,
    typed: bool = False,
) -> None:
    OPERATIONS[name] = Operation(define, emit, accepts, weight, typed)


# ---- ways to emit ------------------------------------------------------------------------------------------


def _lanes(function: Callable[..., Lanes]) -> Emit:
    """From a formula over Lanes; attributes become keyword arguments."""
    return lambda k, xs, _dtypes, _dtype, attrs: function(*(Lanes(k, x) for x in xs), **attrs).value


def _function(function: Callable[[Builder, Value], Value]) -> Emit:
    """From a function of codegen.math."""
    return lambda k, xs, _dtypes, _dtype, _attrs: function(k, xs[0])


def _reduce(function: Callable[[Lanes, Lanes], Lanes]) -> Emit:
    """A binary formula over any number of operands."""

    def emit(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], _dtype: str, _attrs: Attrs) -> Value:
        total = Lanes(k, xs[0])
        for x in xs[1:]:
            total = function(total, Lanes(k, x))
        return total.value

    return emit


def _relation(relation: str) -> Emit:
    def emit(k: Builder, xs: list[Value], dtypes: tuple[str, ...], _dtype: str, _attrs: Attrs) -> Value:
        return Lanes(k, xs[0]).compare(relation, Lanes(k, xs[1]), signed=is_signed(dtypes[0]))

    return emit


def _instruction(name: str) -> Emit:
    """An instruction of two integers or masks."""
    return lambda k, xs, _dtypes, _dtype, _attrs: getattr(k.ir, name)(xs[0], xs[1])


# ---- arithmetic --------------------------------------------------------------------------------------------


def _divide(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    return _quotient(k, xs, dtype, "div") if not is_float(dtype) else k.ir.fdiv(xs[0], xs[1])


def _quotient(k: Builder, xs: list[Value], dtype: str, name: str) -> Value:
    """Integer division or remainder. x / 0 is 0, and the lowest number / -1 wraps; both would trap."""
    a, b = Lanes(k, xs[0]), Lanes(k, xs[1])
    zero = b.equals(0)
    if dtype in ("int8", "int16", "int32"):
        # Vectors of integers have no division. float64 has all digits of these, and no quotient is nearer
        # to the next integer than its rounding.
        safe = b.constant(1).where(k.ir.or_(zero, b.equals(-1)), b)
        real = vector(F64, lanes_of(a.type))
        ratio = k.ir.fdiv(k.ir.sitofp(a.value, real), k.ir.sitofp(safe.value, real))
        quotient = (-a).where(b.equals(-1), Lanes(k, k.ir.fptosi(ratio, a.type)))
        result = quotient if name == "div" else a - quotient * b
        return a.constant(0).where(zero, result).value
    if not is_signed(dtype):
        emit = k.ir.udiv if name == "div" else k.ir.urem
        return a.constant(0).where(zero, Lanes(k, emit(a.value, b.constant(1).where(zero, b).value))).value
    minus_one = b.equals(-1)
    safe = b.constant(1).where(k.ir.or_(zero, minus_one), b).value
    result = Lanes(k, (k.ir.sdiv if name == "div" else k.ir.srem)(a.value, safe))
    result = (-a if name == "div" else a.constant(0)).where(minus_one, result)
    return a.constant(0).where(zero, result).value


def _remainder(a: Lanes, b: Lanes) -> Lanes:
    """C's fmod of float64 that are float32 each, so no quotient overflows.

    A quotient below 2^53 is never rounded below its whole number, so what is left of a, a fused product and
    difference without error, lies between -b and b. A larger one is made a little too small; what is left has
    at most 26 bits again, and is 2^50 times smaller.
    """
    k, divisor = a.k, b.abs()
    rest = [a.abs().value]

    def unfinished() -> Value:
        return any_lane(k, Lanes(k, rest[0]) >= divisor)

    with k.repeat(unfinished, rest):
        left = Lanes(k, rest[0])
        quotient = (left / divisor).intrinsic("trunc")
        quotient = quotient.where(quotient < 2.0**53, quotient * (1 - 2.0**-52))
        found = (-quotient).fma(divisor, left)
        found = (found + divisor).where(found < 0.0, found)
        rest[0] = found.where(left >= divisor, left).value
    return Lanes(k, rest[0]).intrinsic("copysign", a).where(divisor.equals(divisor), scalar.nan)


def _modulo(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    if is_float(dtype):
        a, b = (x if dtype == "float64" else Lanes(k, x).double().value for x in xs)
        exact = dtype != "float64" and k.machine.fma
        result = _remainder(Lanes(k, a), Lanes(k, b)) if exact else Lanes(k, library.call(k, "fmod", a, b))
        if not attrs.get("fmod", 0):  # the remainder takes the divisor's sign
            divisor = Lanes(k, b)
            opposite = k.ir.xor(result < 0.0, divisor < 0.0)
            differs = k.ir.and_(opposite, result.compare("!=", 0.0))
            zero = Lanes(k, k.intrinsic("copysign", result.constant(0.0).value, b))
            result = zero.where(result.equals(0.0), (result + divisor).where(differs, result))
        return result.value if dtype == "float64" else result.single().value
    a, b = Lanes(k, xs[0]), Lanes(k, xs[1])
    rest = Lanes(k, _quotient(k, xs, dtype, "rem"))
    if attrs.get("fmod", 0) or not is_signed(dtype):
        return rest.value
    # The remainder takes the divisor's sign.
    differs = k.ir.and_((rest ^ b) < 0, rest.compare("!=", 0))
    return (rest + b).where(differs, rest).value


def _minimum(a: Lanes, b: Lanes) -> Lanes:
    return a.at_most(b) if not a.is_float else b.where(b.is_nan(), a.at_most(b))


def _maximum(a: Lanes, b: Lanes) -> Lanes:
    return a.at_least(b) if not a.is_float else b.where(b.is_nan(), a.at_least(b))


def _extreme(relation: str, function: Callable[[Lanes, Lanes], Lanes]) -> Emit:
    def emit(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
        total = Lanes(k, xs[0])
        for x in xs[1:]:
            other = Lanes(k, x)
            if is_float(dtype):
                total = function(total, other)
            else:
                total = total.where(total.compare(relation, other, signed=is_signed(dtype)), other)
        return total.value

    return emit


def _clip(k: Builder, xs: list[Value], dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    if is_float(dtype):
        x, low, high = (Lanes(k, value) for value in xs)
        # Whether a bound is NaN is the same for all elements, so it is asked once.
        is_nan = k.ir.fcmp_unordered("uno", low.value, high.value)
        return x.constant(scalar.nan).where(is_nan, x.at_least(low).at_most(high)).value
    low = OPERATIONS["Max"].emit(k, xs[:2], dtypes[:2], dtype, attrs)
    return OPERATIONS["Min"].emit(k, [low, xs[2]], (dtype, dtype), dtype, attrs)


def _sign(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    x = Lanes(k, xs[0])
    one = x.constant(1)
    if not is_float(dtype):
        negative = x.constant(-1).where(x < 0, 0) if is_signed(dtype) else x.constant(0)
        return one.where(x.compare(">", 0, signed=is_signed(dtype)), negative).value
    # Zeros and NaN are themselves.
    return one.where(x > 0.0, (-one).where(x < 0.0, x)).value


def _absolute(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    return Lanes(k, xs[0]).abs().value if is_float(dtype) or is_signed(dtype) else xs[0]


def _whole_power(k: Builder, x: Value, exponent: Value, dtypes: tuple[str, ...]) -> Value:
    """Integers by squaring, a bit of the exponent, of its own dtype, in each turn; a negative one leaves 1,
    -1 or nothing.
    """
    base, bits = Lanes(k, x), Lanes(k, exponent)
    carry = [base.constant(1).value, x, exponent]
    with k.loop(0, element_of(exponent.type).width, carry=carry):
        product, square, rest = (Lanes(k, v) for v in carry)
        odd = (rest & 1).compare("!=", 0)
        carry[:] = [(product * square).where(odd, product).value, (square * square).value]
        carry.append(rest.shift_down(1).value)
    result = Lanes(k, carry[0])
    if not is_signed(dtypes[1]):
        return result.value
    small = base.where(base.equals(1), 0)
    if is_signed(dtypes[0]):
        turned = base.where((bits & 1).compare("!=", 0), 1)
        small = turned.where(base.equals(-1), small)
    return small.where(bits < 0, result).value


#: What float32 does not hold to the last bit.
_LONG_EXPONENTS = ("float64", "int32", "uint32", "int64", "uint64")


def _power(k: Builder, xs: list[Value], dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    if not is_float(dtype):
        if is_float(dtypes[1]):
            base, exponent = (cast(k, x, d, "float64") for x, d in zip(xs, dtypes, strict=True))
            return cast(k, math.pow(k, base, exponent), "float64", dtype)
        return _whole_power(k, xs[0], xs[1], dtypes)
    if dtype != "float64" and dtypes[1] in _LONG_EXPONENTS:  # float32 would round it: (-1)^16777217 is -1
        base, exponent = (cast(k, x, d, "float64") for x, d in zip(xs, dtypes, strict=True))
        return cast(k, math.pow(k, base, exponent), "float64", dtype)
    return math.pow(k, xs[0], cast(k, xs[1], dtypes[1], "float64" if dtype == "float64" else "float32"))


def power_of(k: Builder, x: Value, exponent: float) -> Value | None:
    """x to a known power in a few instructions, with pow's zeros and infinities; None for most powers."""
    v = Lanes(k, x)
    size = abs(exponent)
    if size in (1.0, 2.0, 3.0, 4.0):
        square = v * v
        y = {1.0: v, 2.0: square, 3.0: square * v, 4.0: square * square}[size]
    elif size == 0.5:
        # pow takes -0 and -Inf for +0 and +Inf, unlike the root.
        y = v.constant(scalar.inf).where(v.equals(-scalar.inf), (v + 0.0).intrinsic("sqrt"))
    else:
        return None
    return (1.0 / y if exponent < 0 else y).value


def _round(name: str) -> Emit:
    return lambda k, xs, _dtypes, _dtype, _attrs: k.intrinsic(name, xs[0])


def _reciprocal(x: Lanes) -> Lanes:
    return 1.0 / x


def _plus(a: Lanes, b: Lanes) -> Lanes:
    return a + b


def _minus(a: Lanes, b: Lanes) -> Lanes:
    return a - b


def _times(a: Lanes, b: Lanes) -> Lanes:
    return a * b


def _negative(x: Lanes) -> Lanes:
    return -x


for _name, _define, _binary in (
    ("Add", plain.add, _plus),
    ("Sub", np.subtract, _minus),
    ("Mul", plain.multiply, _times),
    ("Sum", plain.add, _plus),
):
    _add(_name, _define, _reduce(_binary), _NUMBER)
_add("Div", plain.divide, _divide, _NUMBER, 4)
_add(
    "Mod",
    plain.modulo,
    _modulo,
    _NUMBER,
    20,
)
_add("Neg", np.negative, _lanes(_negative), _NUMBER)
_add("Abs", np.abs, _absolute, _NUMBER)
_add("Sign", np.sign, _sign, _NUMBER, 4)
_add("Reciprocal", np.reciprocal, _lanes(_reciprocal), _FLOAT, 4)
_add("Sqrt", np.sqrt, _round("sqrt"), _FLOAT, 5)
_add("Floor", np.floor, _round("floor"), _FLOAT)
_add("Ceil", np.ceil, _round("ceil"), _FLOAT)
_add("Round", np.round, _round("rint"), _FLOAT)  # the default rounding mode is half to even
_add("Min", plain.minimum, _extreme("<", _minimum), _NUMBER, 3)
_add("Max", plain.maximum, _extreme(">", _maximum), _NUMBER, 3)
_add("Clip", plain.clip, _clip, _NUMBER, 6)
_add(
    "Pow",
    plain.power,
    _power,
    lambda ts, t, _at: t != "bool" and ts[0] == t and ts[1] in (*FLOATS, *INTEGERS),
    90,
)

# ---- functions ---------------------------------------------------------------------------------------------


def _gelu(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], _dtype: str, attrs: Attrs) -> Value:
    return (math.gelu_tanh if attrs.get("approximate", "none") == "tanh" else math.gelu)(k, xs[0])


def _exp_less_one(x: Lanes) -> Lanes:
    return Lanes(x.k, math.expm1_of_negative(x.k, x.value))


def _elu(x: Lanes, alpha: float = 1.0) -> Lanes:
    return (_exp_less_one(x) * alpha).where(x < 0.0, x)


def _celu(x: Lanes, alpha: float = 1.0) -> Lanes:
    return x.at_least(0.0) + (_exp_less_one(x / alpha) * alpha).at_most(0.0)


def _selu(x: Lanes, alpha: float = plain.SELU_ALPHA, gamma: float = plain.SELU_GAMMA) -> Lanes:
    return (_exp_less_one(x) * alpha).where(x < 0.0, x) * gamma


def _swish(x: Lanes, alpha: float = 1.0) -> Lanes:
    return math.share(x if alpha == 1.0 else x * alpha, x)


def _relu(x: Lanes) -> Lanes:
    return x.at_least(0)


def _leaky_relu(x: Lanes, alpha: float = plain.LEAKY_ALPHA) -> Lanes:
    return (x * alpha).where(x < 0.0, x)


def _thresholded_relu(x: Lanes, alpha: float = 1.0) -> Lanes:
    return x.where(x > alpha, x.constant(0.0))


def _hard_sigmoid(x: Lanes, alpha: float = plain.HARD_ALPHA, beta: float = 0.5) -> Lanes:
    return (x * alpha + beta).at_least(0.0).at_most(1.0)


def _hard_swish(x: Lanes) -> Lanes:
    return x * ((x + 3.0).at_least(0.0).at_most(6.0) * (1.0 / 6.0))  # x + 3 is exact where it cancels


def _softsign(x: Lanes) -> Lanes:
    return x / (x.abs() + 1.0)


def _shrink(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    x = Lanes(k, xs[0] if is_float(dtype) else cast(k, xs[0], dtype, "float64"))
    lambd, bias = attrs.get("lambd", 0.5), attrs.get("bias", 0.0)
    y = (x + bias).where(x < -lambd, (x - bias).where(x > lambd, 0.0)).value
    return y if is_float(dtype) else cast(k, y, "float64", dtype)


def _swiglu(a: Lanes, b: Lanes, alpha: float = 1.0) -> Lanes:
    return _swish(a, alpha) * b


def _prelu(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    x, slope = (Lanes(k, value) for value in xs)
    if not is_float(dtype) and not is_signed(dtype):
        return x.value
    return (x * slope).where(x < 0, x).value


for _name, _define, _function_, _weight in (
    ("Exp", np.exp, math.exp, 20),
    ("Log", np.log, math.log, 30),
    ("Tanh", np.tanh, math.tanh, 20),
    ("Erf", plain.erf, math.erf, 20),
    ("Sigmoid", plain.sigmoid, math.sigmoid, 30),
    ("Softplus", plain.softplus, math.softplus, 40),
    ("Mish", plain.mish, math.mish, 35),
    ("Sin", np.sin, circular.sin, 60),
    ("Cos", np.cos, circular.cos, 60),
    ("Tan", np.tan, circular.tan, 65),
    ("Asin", np.arcsin, circular.asin, 35),
    ("Acos", np.arccos, circular.acos, 40),
    ("Atan", np.arctan, circular.atan, 30),
    ("Sinh", np.sinh, hyperbolic.sinh, 35),
    ("Cosh", np.cosh, hyperbolic.cosh, 25),
    ("Asinh", np.arcsinh, hyperbolic.asinh, 90),
    ("Acosh", np.arccosh, hyperbolic.acosh, 90),
    ("Atanh", np.arctanh, hyperbolic.atanh, 50),
):
    _add(_name, _define, _function(_function_), _FLOAT, _weight)
_SHORT = [dtype for dtype in INTEGERS if not dtype.endswith("64")]  # what float64 holds exactly
_add("Shrink", plain.shrink, _shrink, _same(*FLOATS, *_SHORT), 5)
_add("PRelu", plain.prelu, _prelu, _NUMBER, 3)
_add("Gelu", plain.gelu, _gelu, _FLOAT, 45)
_add("Relu", plain.relu, _lanes(_relu), _same(*FLOATS, "int8", "int16", "int32", "int64"))
for _name, _define, _formula, _weight in (
    ("LeakyRelu", plain.leaky_relu, _leaky_relu, 3),
    ("Elu", plain.elu, _elu, 25),
    ("Selu", plain.selu, _selu, 26),
    ("Celu", plain.celu, _celu, 28),
    ("ThresholdedRelu", plain.thresholded_relu, _thresholded_relu, 2),
    ("Softsign", plain.softsign, _softsign, 6),
    ("HardSigmoid", plain.hard_sigmoid, _hard_sigmoid, 4),
    ("HardSwish", plain.hard_swish, _hard_swish, 5),
    ("Swish", plain.swish, _swish, 30),
    ("SwiGLU", plain.swiglu, _swiglu, 31),
):
    _add(_name, _define, _lanes(_formula), _FLOAT, _weight)

# ---- predicates, masks, bits -------------------------------------------------------------------------------


def _not(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], _dtype: str, _attrs: Attrs) -> Value:
    return k.ir.not_(xs[0])


def _where(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], _dtype: str, _attrs: Attrs) -> Value:
    return k.ir.select(xs[0], xs[1], xs[2])


def _is_inf(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], _dtype: str, attrs: Attrs) -> Value:
    x = Lanes(k, xs[0])
    none = k.zero(vector(I1, lanes_of(xs[0].type)))
    low = x.equals(-scalar.inf) if attrs.get("detect_negative", 1) else none
    high = x.equals(scalar.inf) if attrs.get("detect_positive", 1) else none
    return k.ir.or_(low, high)


def _bit_shift(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    x, count = Lanes(k, xs[0]), Lanes(k, xs[1])
    width = x.type.element.width if lanes_of(x.type) > 1 else x.type.width
    safe, inside = count & (width - 1), count.compare("<", width, signed=False)
    # A shift by the width or more leaves nothing but the sign; in LLVM it would be undefined.
    if attrs.get("direction", "LEFT") == "LEFT":
        return (x << safe).where(inside, 0).value
    if is_signed(dtype):
        return (x >> safe).where(inside, x >> (width - 1)).value
    return x.shift_down(safe).where(inside, 0).value


def _cast(k: Builder, xs: list[Value], dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    saturate, mode = bool(attrs.get("saturate", 1)), attrs.get("round_mode", "up")
    return cast(k, xs[0], dtypes[0], dtype, saturate, mode)


def _quantize(k: Builder, xs: list[Value], dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    precision = plain.quantizing_dtype(dtypes, attrs.get("precision"))
    x, scale = (cast(k, v, d, precision) for v, d in zip(xs[:2], dtypes, strict=False))
    ratio = k.ir.fdiv(x, scale)
    if precision in ("float16", "bfloat16"):
        ratio = cast(k, cast(k, ratio, "float32", precision), precision, "float32")
        precision = "float32"
    if is_float(dtype):
        return cast(k, ratio, precision, dtype, bool(attrs.get("saturate", 1)))
    return _saturated(k, ratio, cast(k, xs[2], dtypes[2], "int32") if len(xs) > 2 else None, dtype)


def _saturated(k: Builder, real: Value, zero: Value | None, dtype: str) -> Value:
    """round(real) + zero (int32), within an integer dtype of at most 16 bits; NaN takes the lower bound."""
    whole = Lanes(k, k.intrinsic("rint", real))
    low, high = (whole.constant(bound) for bound in plain.bounds_of(dtype))
    wide = vector(I32, lanes_of(whole.type))
    if zero is not None:
        shift = Lanes(k, k.ir.sitofp(zero, whole.type))
        low, high = low - shift, high - shift
    whole = whole.where(whole > low, low)
    bounded = k.ir.fptosi(whole.where(whole < high, high).value, wide)
    return cast(k, bounded if zero is None else k.ir.add(bounded, zero), "int32", dtype)


def _multiply_add(k: Builder, xs: list[Value], _dtypes: tuple[str, ...], _dtype: str, _attrs: Attrs) -> Value:
    return k.fma(*xs)


def _requantize(k: Builder, xs: list[Value], dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    product = k.ir.fmul(cast(k, xs[0], dtypes[0], "float32"), xs[1])
    return _saturated(k, product, cast(k, xs[2], dtypes[2], "int32"), dtype)


def _dequantize(k: Builder, xs: list[Value], dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> Value:
    x = xs[0]
    if is_float(dtypes[0]):
        x = cast(k, x, dtypes[0], "float32")
    else:
        x = cast(k, x, dtypes[0], "int32")
        if len(xs) > 2:
            x = (Lanes(k, x) - Lanes(k, cast(k, xs[2], dtypes[2], "int32"))).value
        x = k.ir.sitofp(x, vector(F32, lanes_of(x.type)))
    product = k.ir.fmul(x, cast(k, xs[1], dtypes[1], "float32"))
    return cast(k, product, "float32", dtype)


_QUANTIZED = ("int8", "uint8", "int16", "uint16", *NARROW_INTEGERS, *NARROW_FLOATS)
_SCALES = ("float32", "float16", "bfloat16", SCALE)


def _accepts_quantize(dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> bool:
    zero = dtypes[2:]
    return (
        len(dtypes) > 1
        and dtypes[0] in ("float32", "float16", "bfloat16", "int32")
        and dtypes[1] in _SCALES
        and dtype in _QUANTIZED
        and (not zero or zero == (dtype,))
        and attrs.get("precision") in (None, "float32", "float16", "bfloat16")
    )


def _accepts_dequantize(dtypes: tuple[str, ...], dtype: str, _attrs: Attrs) -> bool:
    return (
        len(dtypes) > 1
        and dtypes[0] in (*_QUANTIZED, "int32")
        and dtypes[1] in _SCALES
        and dtype in ("float32", "float16", "bfloat16")
        and (len(dtypes) == 2 or is_float(dtypes[0]) or dtypes[2] == dtypes[0])
    )


def _constant(_k: Builder, _xs: list[Value], _dtypes: tuple[str, ...], dtype: str, attrs: Attrs) -> Value:
    raise AssertionError(f"emit() itself places constants ({dtype} {attrs['value']})")


_ORDERED, _ANY = _predicate(*FLOATS, *INTEGERS), _predicate(*FLOATS, *INTEGERS, "bool")
_add("Equal", np.equal, _relation("=="), _ANY)
_add("Less", np.less, _relation("<"), _ORDERED)
_add("LessOrEqual", np.less_equal, _relation("<="), _ORDERED)
_add("Greater", np.greater, _relation(">"), _ORDERED)
_add("GreaterOrEqual", np.greater_equal, _relation(">="), _ORDERED)
for _name, _define in (("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)):
    _code = {"And": "and_", "Or": "or_", "Xor": "xor"}[_name]
    _add(_name, _define, _instruction(_code), _BOOL)
    _add(f"Bitwise{_name}", getattr(np, f"bitwise_{_name.lower()}"), _instruction(_code), _INTEGER)
_add("Not", np.logical_not, _not, _BOOL)
_add("BitwiseNot", np.invert, _not, _INTEGER)
_add("BitShift", plain.bit_shift, _bit_shift, _INTEGER, 4)
_add("Where", np.where, _where, lambda ts, t, _at: ts[0] == "bool" and ts[1] == ts[2] == t)
_add(
    "IsNaN",
    np.isnan,
    lambda k, xs, _ts, _t, _at: Lanes(k, xs[0]).is_nan(),
    _predicate(*FLOATS, *NARROW_FLOATS),
)
_add("IsInf", plain.is_inf, _is_inf, _predicate(*FLOATS, *NARROW_FLOATS), 2)
_add("Cast", plain.cast, _cast, lambda _ts, _t, _at: True, 2, typed=True)
_add("QuantizeLinear", plain.quantize, _quantize, _accepts_quantize, 12, typed=True)
_add("MultiplyAdd", plain.multiply_add, _multiply_add, _same("float32"), 1)  # rounded once where FMA is there
_add(
    "Requantize",  # sums of products of integers, times a factor, to small integers
    plain.requantize,
    _requantize,
    lambda ts, t, _at: (
        ts == (ts[0], "float32", t) and ts[0] in ("int32", "float32") and t in ("int8", "uint8")
    ),
    8,
    typed=True,
)
_add("DequantizeLinear", plain.dequantize, _dequantize, _accepts_dequantize, 4, typed=True)
_add("Identity", plain.same, lambda _k, xs, _ts, _t, _at: xs[0], lambda ts, t, _at: ts[0] == t, 0)
_add("Constant", plain.same, _constant, lambda ts, _t, _at: not ts, 0)
