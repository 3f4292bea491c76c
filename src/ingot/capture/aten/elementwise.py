"""Elementwise operators: arithmetic, comparison, logic, activations, casts, where."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch

from ingot.capture import checks
from ingot.capture.aten.doubles import FORMS
from ingot.capture.aten.either import either
from ingot.capture.aten.registry import Row, row, whole
from ingot.capture.checks import demand
from ingot.capture.division import downwards
from ingot.capture.tensors import inner_dtype

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def common_dtype(*operands: Any) -> torch.dtype:
    """The dtype torch computes these operands in."""
    kinds: dict[type, Any] = {torch.SymInt: 1, torch.SymFloat: 1.0, torch.SymBool: True}
    plain: list[Any] = [kinds.get(type(x), x) for x in operands]
    dtype: Any = None
    for x in plain[1:]:
        dtype = (
            torch.result_type(plain[0], x)
            if dtype is None
            else torch.promote_types(dtype, torch.result_type(plain[0], x))
        )
    return dtype


def _is_one(alpha: Any) -> bool:
    return isinstance(alpha, (int, float)) and alpha == 1


def _scaled(g: Recorder, y: ir.Value, alpha: Any, dtype: torch.dtype) -> ir.Value:
    return y if _is_one(alpha) else g.op("Mul", y, g.operand(alpha, dtype))


def _computed_in(dtype: torch.dtype, *operands: Any) -> torch.dtype:
    """What torch computes a result of this dtype in: of halves and a number that is none, in float32.

    `(1 - mask) * -1e9` of halves is 0 where the mask is 1, and -inf * 0, NaN, in halves themselves. Numbers
    that halves only round stay halves: the result is another one in its last digit. In place, a tensor beside
    halves may be wider.
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return dtype
    limits = torch.finfo(dtype)
    for x in operands:
        if isinstance(x, (bool, int, float)):
            within = x == 0 or limits.smallest_normal <= abs(x) <= limits.max or not math.isfinite(x)
        else:
            within = isinstance(x, Tensor) and (
                x.dtype in (dtype, torch.bool) or (x.dim() > 0 and not x.dtype.is_floating_point)
            )
        if not within:
            return torch.float32
    return dtype


def _added(g: Recorder, op_type: str, out: Tensor, a: Any, b: Any, alpha: Any) -> ir.Value:
    dtype = _computed_in(out.dtype, a, b, alpha)
    scaled = _scaled(g, g.operand(b, dtype), alpha, dtype)
    return g.cast(g.op(op_type, g.operand(a, dtype), scaled), dtype, out.dtype)


@row("add")
def add(g: Recorder, out: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> ir.Value:
    """a + alpha * b; logical or for booleans."""
    if out.dtype == torch.bool:
        second = g.operand(b, torch.bool)
        second = second if alpha else g.op("And", second, g.const(False, torch.bool))
        return g.op("Or", g.operand(a, torch.bool), second)
    return _added(g, "Add", out, a, b, alpha)


@row("sub")
def sub(g: Recorder, out: Tensor, a: Any, b: Any, *, alpha: Any = 1) -> ir.Value:
    """a - alpha * b."""
    return _added(g, "Sub", out, a, b, alpha)


@row("rsub")
def rsub(g: Recorder, out: Tensor, a: Any, b: Any, alpha: Any = 1) -> ir.Value:
    """b - alpha * a."""
    return _added(g, "Sub", out, b, a, alpha)


@row("mul")
def mul(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a * b; logical and for booleans."""
    if out.dtype == torch.bool:
        return g.op("And", g.operand(a, torch.bool), g.operand(b, torch.bool))
    dtype = _computed_in(out.dtype, a, b)
    return g.cast(g.op("Mul", g.operand(a, dtype), g.operand(b, dtype)), dtype, out.dtype)


@row("div", "divide", "true_divide")
def div(g: Recorder, out: Tensor, a: Any, b: Any, *, rounding_mode: str | None = None) -> ir.Value:
    """a / b, rounded as asked."""
    if rounding_mode is None:
        dtype = _computed_in(out.dtype, a, b)
        return g.cast(g.op("Div", g.operand(a, dtype), g.operand(b, dtype)), dtype, out.dtype)
    x, y = g.operand(a, out.dtype), _divisor(g, b, out.dtype)
    if rounding_mode == "floor":
        return floor_div(g, x, y, out.dtype)
    quotient = g.op("Div", x, y)
    return _towards_zero(g, quotient, out.dtype) if out.dtype.is_floating_point else quotient


def _towards_zero(g: Recorder, x: ir.Value, dtype: torch.dtype) -> ir.Value:
    """The ceiling, which may be -0, comes second: onnxruntime's Where drops the sign of a first 0."""
    above = g.op("Greater", x, g.const(0.0, dtype))
    return g.op("Where", above, g.op("Floor", x), g.op("Ceil", x))


def floor_div(g: Recorder, x: ir.Value, y: ir.Value, dtype: torch.dtype) -> ir.Value:
    """floor(x / y).

    For floats as Python and torch have it: by the remainder, which is exact, where a rounded quotient may
    reach the next integer (1 // 0.1 is 9).
    """
    if not dtype.is_floating_point:
        return downwards(g.op, x, y, g.const(1, dtype)) if dtype.is_signed else g.op("Div", x, y)
    zero, one = g.const(0.0, dtype), g.const(1.0, dtype)
    rest, below = _rest(g, x, y, dtype)
    steps = g.op("Div", g.op("Sub", x, rest), y)
    steps = g.op("Where", below, g.op("Sub", steps, one), steps)
    whole = g.op("Floor", steps)  # of an integer but for the rounding of the division
    short = g.op("Greater", g.op("Sub", steps, whole), g.const(0.5, dtype))
    whole = g.op("Where", short, g.op("Add", whole, one), whole)
    quotient = g.op("Div", x, y)
    # The quotient tells a zero's sign, and comes last: onnxruntime's Where drops it from what comes first.
    some = g.op("Greater", g.op("Abs", steps), zero)
    whole = g.op("Where", some, whole, g.op("Mul", quotient, zero))
    return g.op("Where", g.op("Equal", y, zero), quotient, whole)


def _rest(g: Recorder, x: ir.Value, y: ir.Value, dtype: torch.dtype) -> tuple[ir.Value, ir.Value]:
    """What division towards zero leaves, and where its sign is not y's though there is some."""
    zero = g.const(0.0, dtype)
    rest = g.op("Mod", x, y, fmod=1)
    other = g.op("Xor", g.op("Less", rest, zero), g.op("Less", y, zero))
    return rest, g.op("And", other, g.op("Not", g.op("Equal", rest, zero)))


@row("floor_divide")
def floor_divide(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a // b."""
    return floor_div(g, g.operand(a, out.dtype), _divisor(g, b, out.dtype), out.dtype)


@row("remainder")
def remainder(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a % b with the sign of b, as Python."""
    x, y = g.operand(a, out.dtype), _divisor(g, b, out.dtype)
    if not out.dtype.is_floating_point:
        return g.op("Mod", x, y)
    rest, below = _rest(g, x, y, out.dtype)
    return g.op("Where", below, g.op("Add", rest, y), rest)


@row("fmod")
def fmod(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a % b with the sign of a, as C."""
    x, y = g.operand(a, out.dtype), _divisor(g, b, out.dtype)
    if out.dtype.is_floating_point:
        return g.op("Mod", x, y, fmod=1)
    # Runtimes take fmod of integers by floats, which hold 53 bits.
    return g.op("Sub", x, g.op("Mul", g.op("Div", x, y), y))


def _divisor(g: Recorder, b: Any, dtype: torch.dtype) -> ir.Value:
    """What divides; the run fails where PyTorch raises, as it is an integer that is 0."""
    y = g.operand(b, dtype)
    if isinstance(b, torch.SymInt) and not dtype.is_floating_point:
        checks.require_divisor(b)
    elif not dtype.is_floating_point and isinstance(b, Tensor) and g.real(b) is None:
        checks.require_uncaught("no integer that divides is 0", "Ask for it before, with `if`.", RuntimeError)
        none = g.cast(g.op("Equal", y, g.const(0, dtype)), torch.bool, torch.int32)
        zeros = g.op("Reshape", g.op("ReduceMax", none, keepdims=0), g.const([], torch.int64))
        checks.require(g, g.op("Less", zeros, g.const(1, torch.int32)), "no integer that divides is 0")
    return y


@row("pow")
def pow_(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a ** b."""
    x = g.operand(a, out.dtype)
    if isinstance(b, (int, float)) and out.dtype.is_floating_point:
        if b == 2:
            return g.op("Mul", x, x)
        if b == 0.5:
            return g.op("Sqrt", x)
        if b == -0.5:
            return g.op("Reciprocal", g.op("Sqrt", x))
        if b == -1:
            return g.op("Reciprocal", x)
        if b == 1:
            return x
    if isinstance(b, int) and b >= 0 and not out.dtype.is_floating_point:
        return _power(g, x, b, out.dtype)
    return g.op("Pow", x, g.operand(b, out.dtype))


def _power(g: Recorder, x: ir.Value, n: int, dtype: torch.dtype) -> ir.Value:
    """x ** n of integers by squares: it wraps as torch's does, where Pow may go through floats."""
    made: ir.Value | None = None
    while n:
        if n % 2:
            made = x if made is None else g.op("Mul", made, x)
        n //= 2
        x = g.op("Mul", x, x) if n else x
    return made if made is not None else g.op("Expand", g.const(1, dtype), g.op("Shape", x))


def _compared_in(dtype: torch.dtype) -> torch.dtype:
    """A dtype that holds these numbers and that runtimes compare: onnxruntime does 16 bits nowhere."""
    return torch.int32 if dtype in (torch.int16, torch.uint16) else dtype


def _extreme(op_type: str, logical: str) -> Row:
    def emit(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
        wide = _compared_in(out.dtype)
        operands = [g.cast(g.operand(x, out.dtype), out.dtype, wide) for x in (a, b)]
        return g.cast(g.op(logical if out.dtype == torch.bool else op_type, *operands), wide, out.dtype)

    return emit


row("maximum", "max.other")(_extreme("Max", "Or"))
row("minimum", "min.other")(_extreme("Min", "And"))


def _compare(op_type: str) -> Row:
    def emit(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
        dtype = common_dtype(a, b)
        x, y = g.operand(a, dtype), g.operand(b, dtype)
        if dtype == torch.bool and op_type not in ("Equal", "NotEqual"):
            x, y = (g.cast(v, torch.bool, torch.int32) for v in (x, y))
        made = g.op("Not", g.op("Equal", x, y)) if op_type == "NotEqual" else g.op(op_type, x, y)
        return g.cast(made, torch.bool, out.dtype)  # in place, what is written into is of any dtype

    return emit


for _name, _op in {
    "eq": "Equal",
    "ne": "NotEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "lt": "Less",
    "le": "LessOrEqual",
}.items():
    row(_name)(_compare(_op))


def _logical(op_type: str) -> Row:
    def emit(g: Recorder, out: Tensor, *operands: Any) -> ir.Value:
        return g.cast(g.op(op_type, *[_truth(g, x) for x in operands]), torch.bool, out.dtype)

    return emit


def _truth(g: Recorder, x: Any) -> ir.Value:
    """x != 0."""
    return g.operand(x, torch.bool)


for _name, _op in {
    "logical_and": "And",
    "logical_or": "Or",
    "logical_xor": "Xor",
    "logical_not": "Not",
}.items():
    row(_name)(_logical(_op))


def _bitwise(logical: str, bits: str) -> Row:
    def emit(g: Recorder, out: Tensor, *operands: Any) -> ir.Value:
        op_type = logical if out.dtype == torch.bool else bits
        return g.op(op_type, *[g.operand(x, out.dtype) for x in operands])

    return emit


for _name, _op in {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}.items():
    row(f"bitwise_{_name}", f"__{_name}__")(_bitwise(_op, f"Bitwise{_op}"))


@row("bitwise_left_shift", "__lshift__")
def left_shift(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a << b, as multiplications: BitShift is for unsigned integers only, Pow for none that are small."""
    x = g.operand(a, out.dtype)
    if out.dtype.is_floating_point:
        return g.op("Mul", x, g.op("Pow", g.const(2, out.dtype), g.operand(b, out.dtype)))
    for power in _powers_of_two(g, b, torch.iinfo(out.dtype).bits, 64):
        x = g.op("Mul", x, g.cast(power, torch.int64, out.dtype))
    return x


def _powers_of_two(g: Recorder, b: Any, bits: int, otherwise: int) -> list[ir.Value]:
    """Two whose product is 2 ** b, which may be no number of int64; for fewer than none or `bits` and more,
    2 ** otherwise.
    """
    count = g.operand(b, torch.int64)
    outside = g.op("Or", g.op("Less", count, g.const(0)), g.op("Less", g.const(bits - 1), count))
    count = g.op("Where", outside, g.const(otherwise), count)
    half = g.op("Div", count, g.const(2))
    return [g.op("Pow", g.const(2), part) for part in (half, g.op("Sub", count, half))]


@row("bitwise_right_shift", "__rshift__")
def right_shift(g: Recorder, out: Tensor, a: Any, b: Any) -> ir.Value:
    """a >> b: integers divided downwards; shifts by as many bits as there are leave the sign alone."""
    x = g.operand(a, out.dtype)
    if out.dtype.is_floating_point:
        return g.op("Div", x, g.op("Pow", g.const(2, out.dtype), g.operand(b, out.dtype)))
    bits = torch.iinfo(out.dtype).bits
    for power in _powers_of_two(g, b, bits, bits if out.dtype == torch.uint8 else bits - 1):
        x = floor_div(g, x, g.cast(power, torch.int64, out.dtype), out.dtype)
    return x


def _unary(op_type: str) -> Row:
    def emit(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
        if op_type in FORMS and out.dtype == torch.float64:
            return _in_float64(g, op_type, out, a)
        return g.op(op_type, g.operand(a, out.dtype))

    return emit


def _in_float64(g: Recorder, op_type: str, out: Tensor, a: Tensor) -> ir.Value:
    """A function of float64 in those that runtimes have for it."""
    return g.traced(lambda x: FORMS[op_type](x.double()), out, a)


for _name, _op in {
    "abs": "Abs",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "tanh": "Tanh",
    "erf": "Erf",
    "sigmoid": "Sigmoid",
    "mish": "Mish",
}.items():
    row(_name)(_unary(_op))


@row("relu")
def relu(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """max(a, 0); of whole numbers onnxruntime has a Relu of few."""
    if out.dtype.is_floating_point or out.dtype in (torch.int8, torch.int32):
        return g.op("Relu", g.val(a))
    return clamp_min(g, out, a, 0) if out.dtype.is_signed else g.val(a)


@row("neg")
def neg(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """-a; ONNX has no Neg without signs."""
    if not out.dtype.is_signed:
        return g.op("Sub", g.const(0, out.dtype), g.val(a))
    return g.op("Neg", g.val(a))


@row("sign")
def sign(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """-1, 0 or 1; torch's is 0 for NaN, where ONNX leaves it open."""
    x, dtype = g.operand(a, out.dtype), out.dtype
    found = g.op("Sign", x)
    return g.op("Where", g.op("Equal", x, x), found, g.const(0, dtype)) if dtype.is_floating_point else found


def is_held(number: float, dtype: torch.dtype) -> bool:
    """Whether an attribute, which is a float32, says a number as exactly as this dtype has it."""
    return dtype != torch.float64 or float(np.float32(number)) == number


def _rounding(op_type: str) -> Row:
    def emit(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
        return g.op(op_type, g.val(a)) if out.dtype.is_floating_point else g.val(a)

    return emit


for _name, _op in {"floor": "Floor", "ceil": "Ceil"}.items():
    row(_name)(_rounding(_op))


@row("round")
def round_(g: Recorder, out: Tensor, a: Tensor, *, decimals: int = 0) -> ir.Value:
    """To the nearest, ties to even, as ONNX Round; a power of ten is no number of floats below 1."""
    if not out.dtype.is_floating_point:
        return g.val(a)
    if decimals == 0:
        return g.op("Round", g.val(a))
    scale = g.const(10.0 ** abs(decimals), out.dtype)
    there, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return g.op(back, g.op("Round", g.op(there, g.val(a), scale)), scale)


@row("trunc", "fix")
def trunc(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """Towards zero."""
    if not out.dtype.is_floating_point:
        return g.val(a)
    return _towards_zero(g, g.val(a), out.dtype)


@row("rsqrt")
def rsqrt(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """1 / sqrt(a)."""
    return g.op("Reciprocal", g.op("Sqrt", g.operand(a, out.dtype)))


@row("square")
def square(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """a * a."""
    x = g.operand(a, out.dtype)
    return g.op("Mul", x, x)


def _log_base(base: float) -> Row:
    """Log times a factor is rounded twice, so that the floor of log2(8) may be 2: what has fewer digits than
    float64 is rounded from there, and float64's are counted from the next power of the base where they are
    next to it.
    """

    def emit(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
        wide = torch.float64
        x, factor, one = g.operand(a, wide), g.const(1 / math.log(base), wide), g.const(1.0, wide)
        y = g.op("Mul", g.op("Log", x), factor)
        if out.dtype != wide:
            return g.cast(y, wide, out.dtype)
        whole = g.op("Round", y)
        apart = g.op("Sub", g.op("Div", x, g.op("Pow", g.const(base, wide), whole)), one)
        near = g.op("Less", g.op("Abs", apart), g.const(2.0**-50, wide))
        return g.op("Where", near, g.op("Add", whole, g.op("Mul", apart, factor)), y)

    return emit


row("log2")(_log_base(2.0))
row("log10")(_log_base(10.0))


@row("log1p")
def log1p(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """log(1 + x)."""
    return _log1p(g, g.operand(a, out.dtype), out.dtype)


def _log1p(g: Recorder, x: ir.Value, dtype: torch.dtype) -> ir.Value:
    """log(1 + x), exact for small x: x * log(u) / (u - 1) with u = 1 + x (Goldberg 1991, theorem 4)."""
    one = g.const(1.0, dtype)
    u = g.op("Add", x, one)
    rest = g.op("Sub", u, one)
    exact = g.op("Equal", rest, g.const(0.0, dtype))
    infinite = g.op("IsInf", u)
    plain = g.op("Or", exact, infinite)
    safe = g.op("Where", plain, one, rest)
    log = g.op("Log", u)
    corrected = g.op("Div", g.op("Mul", x, log), safe)
    return g.op("Where", exact, x, g.op("Where", infinite, log, corrected))


@row("expm1")
def expm1(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """exp(x) - 1."""
    return _expm1(g, g.operand(a, out.dtype), out.dtype)


def _expm1(g: Recorder, x: ir.Value, dtype: torch.dtype) -> ir.Value:
    """exp(x) - 1 = tanh(x / 2) * (exp(x) + 1), exact for small x; exp(x) - 1 where that overflows."""
    one = g.const(1.0, dtype)
    e = g.op("Exp", x)
    small = g.op("Less", g.op("Abs", x), one)
    t = g.op("Tanh", g.op("Mul", x, g.const(0.5, dtype)))
    return g.op("Where", small, g.op("Mul", t, g.op("Add", e, one)), g.op("Sub", e, one))


@row("exp2")
def exp2(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """2 ** a."""
    return g.op("Pow", g.const(2.0, out.dtype), g.operand(a, out.dtype))


@row("isnan")
def isnan(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """True where NaN; never for integers."""
    x = g.val(a)
    return g.op("IsNaN", x) if a.dtype.is_floating_point else g.op("Not", g.op("Equal", x, x))


@row("isinf")
def isinf(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """True where infinite."""
    x = g.val(a)
    return g.op("IsInf", x) if a.dtype.is_floating_point else g.op("Not", g.op("Equal", x, x))


@row("isfinite")
def isfinite(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """True where neither NaN nor infinite."""
    x = g.val(a)
    if not a.dtype.is_floating_point:
        return g.op("Equal", x, x)
    return g.op("Not", g.op("Or", g.op("IsNaN", x), g.op("IsInf", x)))


@row("nan_to_num")
def nan_to_num(
    g: Recorder, out: Tensor, a: Tensor, nan: Any = None, posinf: Any = None, neginf: Any = None
) -> ir.Value:
    """NaN and the infinities replaced by numbers."""
    dtype, x = out.dtype, g.val(a)
    if not dtype.is_floating_point:
        return x
    limit = torch.finfo(dtype)
    high = limit.max if posinf is None else posinf
    low = limit.min if neginf is None else neginf
    y = g.op("Where", g.op("IsNaN", x), g.const(0.0 if nan is None else nan, dtype), x)
    y = g.op("Where", g.op("IsInf", x, detect_negative=0), g.const(high, dtype), y)
    return g.op("Where", g.op("IsInf", x, detect_positive=0), g.const(low, dtype), y)


def _may_be_nan(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return bound.dtype.is_floating_point
    return isinstance(bound, torch.SymFloat) or (isinstance(bound, float) and math.isnan(bound))


@row("clamp", "clip")
def clamp(g: Recorder, out: Tensor, a: Tensor, min: Any = None, max: Any = None) -> ir.Value:
    """Between two bounds, either of which may be missing; bounds may be tensors. NaN where a bound is NaN,
    which onnxruntime's Clip passes over.
    """
    dtype = out.dtype
    wide = torch.int32 if dtype == torch.bool else _compared_in(dtype)

    def operand(v: Any) -> ir.Value:
        return g.cast(g.operand(v, dtype), dtype, wide)

    x = operand(a)
    low, high = (None if v is None else operand(v) for v in (min, max))
    if any(_may_be_nan(b) or (isinstance(b, Tensor) and b.dim()) for b in (min, max)):
        x = x if low is None else g.op("Max", x, low)
        x = x if high is None else g.op("Min", x, high)
    else:
        x = g.op("Clip", x, low, high) if high is not None else g.op("Clip", x, low)
    return g.cast(x, wide, dtype)


@row("clamp_min")
def clamp_min(g: Recorder, out: Tensor, a: Tensor, low: Any) -> ir.Value:
    """max(a, low)."""
    return clamp(g, out, a, low)


@row("clamp_max")
def clamp_max(g: Recorder, out: Tensor, a: Tensor, high: Any) -> ir.Value:
    """min(a, high)."""
    return clamp(g, out, a, None, high)


@row("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def where(g: Recorder, out: Tensor, condition: Tensor, a: Any, b: Any) -> ir.Value:
    """a where the condition holds, else b."""
    sides = g.operand(a, out.dtype), g.operand(b, out.dtype)
    return either(g, g.operand(condition, torch.bool), *sides, out.dtype)


@row("masked_fill")
def masked_fill(g: Recorder, out: Tensor, a: Tensor, mask: Tensor, value: Any) -> ir.Value:
    """value where the mask holds, else a."""
    return either(g, g.val(mask), g.operand(value, out.dtype), g.val(a), out.dtype)


@row("lerp")
def lerp(g: Recorder, out: Tensor, a: Tensor, b: Tensor, weight: Any) -> ir.Value:
    """a + w (b - a) for weights below 1/2, else b - (1 - w) (b - a): exact at both ends, as torch's."""
    dtype = inner_dtype(out.dtype)
    x, y = g.operand(a, dtype), g.operand(b, dtype)
    apart = g.op("Sub", y, x)
    if isinstance(weight, (int, float)):
        near = abs(weight) < 0.5
        factor = g.const(weight if near else weight - 1, dtype)
        made = g.op("Add", x if near else y, g.op("Mul", factor, apart))
    else:
        w = g.operand(weight, dtype)
        close = g.op("Less", g.op("Abs", w), g.const(0.5, dtype))
        factor = g.op("Where", close, w, g.op("Sub", w, g.const(1.0, dtype)))
        made = g.op("Add", g.op("Where", close, x, y), g.op("Mul", factor, apart))
    return g.cast(made, dtype, out.dtype)


@row("addcmul")
def addcmul(g: Recorder, out: Tensor, a: Tensor, b: Tensor, c: Tensor, *, value: Any = 1) -> ir.Value:
    """a + value * b * c."""
    return _plus_scaled(g, out, "Mul", a, b, c, value)


@row("addcdiv")
def addcdiv(g: Recorder, out: Tensor, a: Tensor, b: Tensor, c: Tensor, *, value: Any = 1) -> ir.Value:
    """a + value * b / c."""
    return _plus_scaled(g, out, "Div", a, b, c, value)


def _plus_scaled(
    g: Recorder, out: Tensor, op_type: str, a: Tensor, b: Tensor, c: Tensor, value: Any
) -> ir.Value:
    dtype = inner_dtype(out.dtype)
    x, y, z = (g.operand(v, dtype) for v in (a, b, c))
    return g.cast(g.op("Add", x, _scaled(g, g.op(op_type, y, z), value, dtype)), dtype, out.dtype)


@row("gelu")
def gelu(g: Recorder, out: Tensor, a: Tensor, *, approximate: str = "none") -> ir.Value:
    """Gelu whole from opset 20; before it, and of float64, 0.5 x (1 + erf(x / sqrt 2)) or the tanh form."""
    x, dtype = g.val(a), out.dtype
    if dtype == torch.float64 and approximate == "none":
        return _in_float64(g, "Gelu", out, a)
    if g.opset >= 20 and dtype != torch.float64:
        return g.op("Gelu", x, approximate=approximate if approximate != "none" else None)
    one, half = g.const(1.0, dtype), g.const(0.5, dtype)
    if approximate == "tanh":
        cubic = g.op("Mul", g.op("Mul", g.op("Mul", x, x), x), g.const(0.044715, dtype))
        inner = g.op("Tanh", g.op("Mul", g.op("Add", x, cubic), g.const(math.sqrt(2 / math.pi), dtype)))
    else:
        inner = g.op("Erf", g.op("Div", x, g.const(math.sqrt(2.0), dtype)))
    return g.op("Mul", g.op("Mul", x, g.op("Add", inner, one)), half)


@row("silu")
def silu(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """x * sigmoid(x)."""
    x = g.val(a)
    return g.op("Mul", x, g.op("Sigmoid", x))


@row("hardswish")
def hardswish(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """x * relu6(x + 3) / 6."""
    x = g.val(a)
    return g.op("HardSwish", x) if is_held(1 / 6, out.dtype) else g.op("Mul", x, hardsigmoid(g, out, a))


@row("hardsigmoid")
def hardsigmoid(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """relu6(x + 3) / 6."""
    x, dtype = g.val(a), out.dtype
    if is_held(1 / 6, dtype):
        return g.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    zero, three, six = (g.const(n, dtype) for n in (0.0, 3.0, 6.0))
    return g.op("Div", g.op("Clip", g.op("Add", x, three), zero, six), six)


@row("relu6")
def relu6(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
    """min(max(x, 0), 6)."""
    return clamp(g, out, a, 0, 6)


@row("hardtanh")
def hardtanh(g: Recorder, out: Tensor, a: Tensor, min_val: Any = -1, max_val: Any = 1) -> ir.Value:
    """A clamp by another name."""
    return clamp(g, out, a, min_val, max_val)


@row("leaky_relu")
def leaky_relu(g: Recorder, out: Tensor, a: Tensor, negative_slope: float = 0.01) -> ir.Value:
    """x, times a slope below zero."""
    x, slope = g.val(a), float(negative_slope)
    if out.dtype != torch.float64:
        return g.op("LeakyRelu", x, alpha=slope)
    return _sloped(g, x, g.const(slope, out.dtype), out.dtype)


def _sloped(g: Recorder, x: ir.Value, slope: ir.Value, dtype: torch.dtype) -> ir.Value:
    """x, times a slope below zero: of float64, for which onnxruntime has no kernels."""
    return g.op("Where", g.op("Less", x, g.const(0.0, dtype)), g.op("Mul", x, slope), x)


@row("elu")
def elu(
    g: Recorder, out: Tensor, a: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1
) -> ir.Value:
    """alpha (exp(x) - 1) below zero; SELU and CELU arrive here with scales; no runtime has one of float64."""
    x, dtype = g.val(a), out.dtype
    if input_scale == 1 and dtype != torch.float64:
        y = g.op("Elu", x, alpha=float(alpha))
    else:
        negative = g.op("Min", x, g.const(0.0, dtype))
        scaled = negative if input_scale == 1 else g.op("Mul", negative, g.const(input_scale, dtype))
        if dtype == torch.float64:
            e = _expm1(g, scaled, dtype)
        else:
            e = g.op("Sub", g.op("Exp", scaled), g.const(1.0, dtype))
        y = g.op("Where", g.op("Greater", x, g.const(0.0, dtype)), x, g.op("Mul", e, g.const(alpha, dtype)))
    return y if scale == 1 else g.op("Mul", y, g.const(scale, dtype))


@row("celu")
def celu(g: Recorder, out: Tensor, a: Tensor, alpha: float = 1.0) -> ir.Value:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)); ONNX has a Celu of float32 alone."""
    if out.dtype != torch.float32:
        return elu(g, out, a, alpha, 1, 1 / alpha)
    return g.op("Celu", g.val(a), alpha=float(alpha))


@row("softplus")
def softplus(g: Recorder, out: Tensor, a: Tensor, beta: float = 1, threshold: float = 20) -> ir.Value:
    """log(1 + exp(beta x)) / beta, and x itself above the threshold."""
    x, dtype = g.val(a), out.dtype
    scaled = x if beta == 1 else g.op("Mul", x, g.const(beta, dtype))
    y = _log1p(g, g.op("Exp", scaled), dtype) if dtype == torch.float64 else g.op("Softplus", scaled)
    y = y if beta == 1 else g.op("Div", y, g.const(beta, dtype))
    return g.op("Where", g.op("Greater", scaled, g.const(threshold, dtype)), x, y)


@row("prelu", "_prelu_kernel")
def prelu(g: Recorder, out: Tensor, a: Tensor, weight: Tensor) -> ir.Value:
    """x, times a slope per channel below zero."""
    w = g.val(weight)
    if weight.dim() == 1 and a.dim() > 2 and g.sizes.number(weight.shape[0]) != 1:
        w = g.op("Reshape", w, g.const([-1, *[1] * (a.dim() - 2)]))
    return _sloped(g, g.val(a), w, a.dtype) if a.dtype == torch.float64 else g.op("PRelu", g.val(a), w)


@row("glu")
def glu(g: Recorder, out: Tensor, a: Tensor, dim: int = -1) -> ir.Value:
    """First half times the sigmoid of the second."""
    whole: Any = a.shape[dim]
    demand(g, whole % 2 == 0, "Two halves would not be alike here")
    halves = g.ops("Split", g.val(a), n=2, axis=dim % a.dim(), num_outputs=2)
    return g.op("Mul", halves[0], g.op("Sigmoid", halves[1]))


@row("log_sigmoid_forward", "log_sigmoid")
def log_sigmoid(g: Recorder, out: Any, a: Tensor) -> Any:
    """-log(1 + exp(-x)); of float64 min(x, 0) - log(1 + exp(-|x|))."""
    x, dtype = g.val(a), a.dtype
    if dtype == torch.float64:
        rest = _log1p(g, g.op("Exp", g.op("Neg", g.op("Abs", x))), dtype)
        y = g.op("Sub", g.op("Min", x, g.const(0.0, dtype)), rest)
    else:
        y = g.op("Neg", g.op("Softplus", g.op("Neg", x)))
    return [y, None] if isinstance(out, (list, tuple)) else y


@row("threshold")
def threshold(g: Recorder, out: Tensor, a: Tensor, limit: Any, value: Any) -> ir.Value:
    """A value up to the limit, else x; a NaN is not up to it."""
    x = g.val(a)
    return g.op("Where", g.op("LessOrEqual", x, g.operand(limit, a.dtype)), g.operand(value, a.dtype), x)


@row("_to_copy", "to")
def to_copy(g: Recorder, out: Tensor, a: Tensor, *rest: Any, **kwargs: Any) -> ir.Value:
    """Another dtype; the device and the memory format are not the model's business."""
    return g.cast(g.val(a), a.dtype, out.dtype)


@row("clone", "detach", "alias", "contiguous", "lift_fresh_copy", "detach_copy", "alias_copy")
def same(g: Recorder, out: Tensor, a: Tensor, *rest: Any, **kwargs: Any) -> ir.Value:
    """The same value."""
    return g.val(a)


@row("copy")
def copy(g: Recorder, out: Tensor, a: Tensor, source: Tensor, non_blocking: bool = False) -> ir.Value:
    """The source, in the target's dtype and shape."""
    value = g.operand(source, a.dtype)
    if len(source.shape) == len(a.shape) and all(
        g.same_size(x, y) for x, y in zip(source.shape, a.shape, strict=True)
    ):
        return value
    return g.op("Expand", value, g.shape(a.shape))


@whole(torch.nn.functional.silu)
def whole_silu(g: Recorder, out: Tensor, input: Tensor, inplace: bool = False) -> ir.Value:
    """x * sigmoid(x)."""
    return silu(g, out, input)
