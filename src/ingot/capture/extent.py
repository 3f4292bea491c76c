"""How large a number of the run may be, as its dtype, its operators and its formula say.

Whole numbers have a range of ints; floats one of floats, which is infinite where they may be NaN too.
"""

# SymPy is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import sympy

from ingot.capture import floats
from ingot.capture.bounds import functions
from ingot.capture.one_of import OneOf
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Range = tuple[Any, Any]  # the least and the most: ints, or floats that may be infinite

LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1
#: More than any size, count of elements or number of rounds: at one in a nanosecond they take five hours.
MANY = 1 << 44
_ANY, _ANY_FLOAT = (LOWEST, HIGHEST), (-math.inf, math.inf)

_DEEP = 40  # nodes behind each other that are looked at
_SMALL = 1024  # elements of a constant that are looked at
_D = ir.DataType
_OF_DTYPE: dict[ir.DataType | None, int] = {
    _D.BOOL: 1, _D.UINT8: 255, _D.INT8: 1 << 7, _D.UINT16: 65535, _D.INT16: 1 << 15, _D.UINT32: (1 << 32) - 1,
    _D.INT32: 1 << 31, _D.UINT64: (1 << 64) - 1, _D.INT64: 1 << 63,
}  # fmt: skip
_COUNTS = (_D.BOOL, _D.UINT8, _D.UINT16, _D.UINT32)
_FAR = 2.0**100
_HALF = 65504  # the largest number of float16
_TRUTHS = (
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
    "IsNaN",
    "IsInf",
)
# Operators whose elements are elements of inputs, or rounded, or of another sign; of which inputs.
_KEEPS: dict[str, slice] = {
    **dict.fromkeys(
        ("Identity", "Transpose", "Flatten", "Abs", "Neg", "Floor", "Ceil", "Round", "Cast"), slice(1)
    ),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Slice", "Expand", "Tile"), slice(1)),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND"), slice(1)),
    **dict.fromkeys(("Concat", "Min", "Max"), slice(None)),
    "Where": slice(1, 3),
}


def of_value(value: ir.Value | None) -> float:
    """The most that an element of a value may be, whatever its sign; infinity where nothing says it."""
    known: dict[ir.Value, float] = {}

    def of(value: ir.Value | None, deep: int) -> float:
        if value is None:
            return math.inf
        if value not in known:
            known[value] = _of_dtype_or_node(value, lambda v: of(v, deep - 1), deep)
        return known[value]

    return of(value, _DEEP)


def _of_dtype_or_node(value: ir.Value, of: Callable[[ir.Value | None], float], deep: int) -> float:
    if value.const_value is not None:
        return _of_constant(value.const_value)
    known = _OF_DTYPE.get(value.dtype, math.inf)
    node = value.producer()
    if node is None or not deep or known == 1:
        return known
    found = min(known, _of_node(node, value, of))
    return found if found <= _FAR else math.inf  # which a float of 32 bits may pass on the way


def _of_constant(tensor: ir.TensorProtocol) -> float:
    if tensor.size > _SMALL:
        return _OF_DTYPE.get(tensor.dtype, math.inf)
    array = np.abs(np.asarray(tensor.numpy(), np.float64))
    return float(np.nan_to_num(array, nan=math.inf, posinf=math.inf).max(initial=0))


def _of_node(node: ir.Node, value: ir.Value, of: Callable[[ir.Value | None], float]) -> float:
    op, inputs = node.op_type, list(node.inputs)
    if op in _TRUTHS:
        return 1
    if _is_place(node, value):
        return min(MANY, _last_place(node))
    if op in ("Shape", "Size", "NonZero"):
        return MANY
    if op == "If":
        place = list(node.outputs).index(value)
        sides = [node.attributes[name].as_graph().outputs[place] for name in ("then_branch", "else_branch")]
        return max(map(of, sides))
    if op in _KEEPS:
        found = max(map(of, inputs[_KEEPS[op]]))
        return found if value.dtype not in (_D.FLOAT16, _D.BFLOAT16) or found <= _HALF else math.inf
    if op in ("Add", "Sub"):
        return of(inputs[0]) + of(inputs[1])
    if op == "Mul":
        first, second = of(inputs[0]), of(inputs[1])
        return math.inf if math.inf in (first, second) else first * second
    if op in ("ReduceSum", "CumSum"):
        return of(inputs[0]) * MANY
    if op in ("ReduceMax", "ReduceMin") and inputs[0] is not None and inputs[0].dtype in _OF_DTYPE:
        return of(inputs[0])  # of none it is no number of a model that goes on
    return math.inf


def _is_place(node: ir.Node, value: ir.Value) -> bool:
    """Whether a value says places along an axis of the node's input."""
    return node.op_type in ("ArgMax", "ArgMin") or (node.op_type == "TopK" and value is node.outputs[1])


def _last_place(node: ir.Node) -> float:
    """The last place along the axis that the node looks at, where its size is known."""
    source, axis = node.inputs[0], node.attributes.get("axis")
    while source is not None and source.shape is None:  # as of the flags that say where NaN is
        made = source.producer()
        source = made.inputs[0] if made is not None and made.op_type in ("IsNaN", "Cast") else None
    at = axis.as_int() if axis is not None else -1 if node.op_type == "TopK" else 0
    shape = source.shape if source is not None else None
    size = shape[at] if shape is not None and -len(shape) <= at < len(shape) else None
    return max(size - 1, 0) if isinstance(size, int) else math.inf


def of_formula(g: Recorder, e: Any) -> Range:
    """The least and the most that a formula may be. A whole number of Python's may be beyond 64 bits."""
    f = functions()
    if e.is_number:
        n = int(e) if e.is_integer else float(e)
        return (n, n) if math.isfinite(n) else _ANY_FLOAT
    if e.is_Symbol:
        return _of_symbol(g, e)
    if isinstance(e, (sympy.Add, floats.FloatSum)):
        return _sum(of_formula(g, a) for a in e.args)
    if isinstance(e, (sympy.Mul, floats.FloatProduct)):
        return _product(g, e.args)
    if isinstance(e, sympy.Pow) and e.exp.is_Integer and e.exp > 0:
        return _product(g, [e.base] * int(e.exp))
    if isinstance(e, f.PowByNatural):
        return _power(*(of_formula(g, a) for a in e.args))
    if isinstance(e, OneOf):
        return either(of_formula(g, e.args[1]), of_formula(g, e.args[2]))
    parts = [_in_graph(of_formula(g, a), a) for a in e.args if isinstance(a, sympy.Expr)]
    if isinstance(e, (sympy.Max, f.Max)):
        return max(p[0] for p in parts), max(p[1] for p in parts)
    if isinstance(e, (sympy.Min, f.Min)):
        return min(p[0] for p in parts), min(p[1] for p in parts)
    if isinstance(e, sympy.Abs):
        return 0, _most(parts[0])
    if isinstance(e, f.ToFloat):
        return float(parts[0][0]), float(parts[0][1])
    if isinstance(e, (f.FloorDiv, f.CleanDiv)):
        return _of_sign(min(p[0] for p in parts), _most(parts[0]))  # no divisor is smaller than 1
    if isinstance(e, (sympy.Mod, f.Mod, f.PythonMod, f.ModularIndexing)):
        return _of_sign(parts[-1][0], _most(parts[-1]))
    if isinstance(e, (f.IntTrueDiv, f.FloatTrueDiv)):
        least = max(parts[1][0], -parts[1][1])  # of the divisor, whatever its sign
        return _of_sign(-1, _most(parts[0]) / least) if least > 0 else _ANY_FLOAT
    if isinstance(e, (f.CeilToInt, f.FloorToInt, f.TruncToInt, f.RoundToInt)):
        most = _most(parts[0])
        return (-int(most) - 1, int(most) + 1) if most <= -LOWEST else _ANY
    if type(e).__name__.startswith("BitwiseFn") and any(p[0] >= 0 for p in parts):
        positive = [p[1] for p in parts if p[0] >= 0]
        if type(e).__name__.endswith("_and"):
            return 0, min(positive)
        if len(positive) == len(parts):
            return 0, (1 << int(max(positive)).bit_length()) - 1
    if type(e).__name__ == "OpaqueUnaryFn_sqrt" and parts[0][0] >= 0:
        return 0, math.sqrt(parts[0][1])
    return _ANY if _is_whole(e) else _ANY_FLOAT


def _of_symbol(g: Recorder, symbol: Any) -> Range:
    found = g.narrowed.get(symbol) or g.extents.get(symbol)
    if found is not None:
        return found
    if symbol in g.env.truths:
        return 0, 1
    if _is_size(g, symbol):
        return 0, MANY
    most = math.inf if symbol.is_integer else of_value(g.sizes.scalars.get(symbol))
    return _in_graph((-most, most), symbol)


def of_whole(value: ir.Value) -> Range:
    """The range of a whole number that is a value of the graph."""
    most = of_value(value)
    if most >= HIGHEST:
        return LOWEST, HIGHEST
    return 0 if _is_count(value, _DEEP) else -int(most), int(most)


def _is_count(value: ir.Value | None, deep: int) -> bool:
    """Whether a value whose sums have 64 bits is made of truths, places and sizes: none is below 0."""
    if value is None or not deep:
        return False
    if value.dtype in _COUNTS:
        return True
    if value.const_value is not None:
        return value.const_value.size <= _SMALL and bool((value.const_value.numpy() >= 0).all())
    node = value.producer()
    if node is None:
        return False
    op, inputs = node.op_type, list(node.inputs)
    if op in ("Shape", "Size", "NonZero", "Abs") or op in _TRUTHS or _is_place(node, value):
        return True
    if op in ("Add", "Mul") or (op in _KEEPS and op != "Neg"):
        return all(_is_count(v, deep - 1) for v in inputs[_KEEPS.get(op, slice(None))])
    return op in ("ReduceSum", "CumSum", "ReduceMax", "ReduceMin") and _is_count(inputs[0], deep - 1)


def _in_graph(found: Range, e: Any) -> Range:
    """The range of a formula that the graph has as a number, of 64 bits where it is whole."""
    return (max(found[0], LOWEST), min(found[1], HIGHEST)) if _is_whole(e) else found


def _is_whole(e: Any) -> bool:
    """Whether a formula gives whole numbers; that bitwise operators do, SymPy has not been told."""
    return bool(e.is_integer) or type(e).__name__.startswith("BitwiseFn")


def _of_sign(low: Any, most: Any) -> Range:
    return (0 if low >= 0 else -most), most


def either(a: Range, b: Range) -> Range:
    """The range of one of two."""
    return min(a[0], b[0]), max(a[1], b[1])


def _most(found: Range) -> Any:
    return max(-found[0], found[1])


def _sum(parts: Iterable[Range]) -> Range:
    lows, highs = zip(*parts, strict=True)
    return sum(lows), sum(highs)


def _product(g: Recorder, factors: Sequence[Any]) -> Range:
    """The product of sizes is a count of elements, as one of them is; so is that of what sums and halves make
    of them, but for a factor.
    """
    squares = [e for e in factors if e.is_Pow and e.exp == 2 and _steps(g, e.base) == 1]
    steps = [(e, 1 if e in squares else _steps(g, e)) for e in factors if not e.is_number]
    sizes = [(e, n) for e, n in steps if n is not None]
    names = [s for e, _ in sizes for s in ([e.base] * 2 if e in squares else e.free_symbols)]
    if max(map(names.count, names), default=0) > 3:
        sizes = []  # of no tensor
    most = MANY * math.prod(n for _, n in sizes) if sizes else 1
    low, high = (0 if all(e.is_nonnegative for e, _ in sizes) else -most) if sizes else 1, most
    taken = [e for e, _ in sizes]
    for e in factors:
        if e in taken:
            continue
        first, last = of_formula(g, e)
        ends = [_times(a, b) for a in (low, high) for b in (first, last)]
        low, high = min(ends), max(ends)
    return low, high


def _is_size(g: Recorder, symbol: Any) -> bool:
    """Whether a number is a dimension of a tensor, or counts as one."""
    of_tensor = symbol in g.sizes.sources and g.sizes.sources[symbol][1] >= 0
    return bool(symbol.is_nonnegative or of_tensor) and symbol not in g.extents


def _steps(g: Recorder, e: Any) -> int | None:
    """How many times the product of its sizes, of which none counts as 0, a formula of sizes is at the most,
    with either sign; None where it is made of anything else.
    """
    f = functions()
    if e.is_Symbol:
        return 1 if _is_size(g, e) else None
    if e.is_Integer:
        return abs(int(e))
    parts = [_steps(g, a) for a in e.args]
    known = [n for n in parts if n is not None]
    if not known or len(known) < len(parts):
        return None
    if e.is_Add:
        return sum(known)
    if e.is_Mul and max(map([s for a in e.args for s in a.free_symbols].count, e.free_symbols)) == 1:
        return math.prod(known)
    if isinstance(e, (sympy.Max, f.Max, sympy.Min, f.Min)):
        return max(known)
    if isinstance(e, (f.FloorDiv, f.CleanDiv)) and e.args[1].is_Integer and e.args[1] > 0:
        return known[0] + 1  # a negative number is rounded down
    return None


def _times(a: Any, b: Any) -> Any:
    return 0 if a == 0 or b == 0 else a * b


def _power(base: Range, exponent: Range) -> Range:
    """Of an exponent that is not negative."""
    most, times = max(_most(base), 1), exponent[1]
    if times > 64 and most > 1:
        return (0 if base[0] >= 0 else -math.inf), math.inf
    return _of_sign(base[0], most**times)


def beyond(e: Any) -> DataDependentError:
    """The error for a number, or a formula of one that data decides, that no int64 is."""
    what = f"The whole number {e}" if e.is_number else "The whole number that this line makes of data"
    return DataDependentError(
        f"{quoted_line()}\n{what} has more than 64 bits, which no ONNX integer has. Keep whole numbers that "
        "meet data within 64 bits, or compute with floats."
    )
