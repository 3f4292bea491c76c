"""Python numbers that data decides: torch's symbolic numbers, each with a value in the graph."""

# torch's symbolic numbers and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensor

from ingot.capture import endless, extent, formulas
from ingot.capture.floats import Arithmetic
from ingot.capture.objects import is_a
from ingot.capture.one_of import OneOf
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)
#: Formulas that are floats, or ints, of whatever they are made.
_SURE = (
    *("FloatTrueDiv", "IntTrueDiv", "ToFloat", "FloatPow"),
    *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt"),
)
DTYPE: dict[type, torch.dtype] = {bool: torch.bool, int: torch.int64, float: torch.float64}


def is_own(value: Any) -> bool:
    """Whether a number is of a class of its own, a member of an enum, say: more than what it counts for."""
    return isinstance(value, (int, float, np.generic)) and type(value) not in (*DTYPE, np.float64)


def kind_of(value: Any) -> type | None:
    """bool, int, float or torch.Tensor; None for anything else, such as numbers of a class of their own."""
    return None if is_own(value) else counts_as(value)


def counts_as(value: Any) -> type | None:
    """bool, int, float or torch.Tensor, as which a value is counted with; None for anything else."""
    if isinstance(value, (bool, torch.SymBool)):
        return bool
    if isinstance(value, (int, torch.SymInt)):
        return int
    if isinstance(value, (float, torch.SymFloat)):
        return float
    return torch.Tensor if isinstance(value, torch.Tensor) else None


def number(g: Recorder, value: ir.Value, kind: type, hint: Any = None) -> Any:
    """A Python number of this kind that is `value`, of shape [] and DTYPE[kind]."""
    env: Any = g.env
    with g.pause():
        if kind is float:
            made = env.create_unbacked_symfloat()
        elif kind is int:
            made = env.create_unbacked_symint()
        else:
            made = env.create_unbacked_symbool()
    g.sizes.scalars[made.node.expr] = value
    if kind is int:
        g.extents[made.node.expr] = extent.of_whole(value)
    if kind is bool:
        (symbol,) = made.node.expr.free_symbols
        g.sizes.scalars[symbol] = g.op("Cast", value, to=ir.DataType.INT64)
        env.truths.add(symbol)
        env.hints[symbol] = sympy.Integer(1 if hint is None else int(bool(hint)))
    elif hint is not None:
        env.hints[made.node.expr] = sympy.Integer(int(hint)) if kind is int else sympy.Float(float(hint))
    return made


def item(g: Recorder, tensor: torch.Tensor, kind: type | None = None) -> Any:
    """The one element of a tensor as a number; a size where sizes give it."""
    formula = formulas.of(g, tensor) if kind in (None, int) else None
    if formula is not None:
        return g.env.size(formula)
    found = float if tensor.dtype.is_floating_point else bool if tensor.dtype == torch.bool else int
    kind = kind or found
    value = g.val(tensor)
    if tensor.dim():
        value = g.op("Reshape", value, g.const([], torch.int64))
    if kind is int and found is float:  # towards zero, as Python does
        endless.require_whole(g, value, tensor.dtype)
        return number(g, g.cast(value, tensor.dtype, torch.int64), int)
    return number(g, g.cast(value, tensor.dtype, DTYPE[kind]), kind)


def of_truth(g: Recorder, condition: torch.SymBool) -> Any:
    """1 where a condition holds, else 0."""
    e = g.env.expr(condition)
    if not depends_on_data(g, e):
        return g.env.size(OneOf(e, sympy.S.One, sympy.S.Zero))
    value = g.cast(g.scalar(condition), torch.bool, torch.int64)
    return number(g, value, int, int(bool(g.env.value_or_none(e))))


def as_tensor(g: Recorder, value: Any, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A Python or symbolic number as a tensor without dimensions; of its kind's dtype if none is given."""
    kind = counts_as(value)
    assert kind is not None, "callers pass numbers"
    if dtype is None:
        require_kind(g, value, "the dtype of a tensor")
    dtype = dtype or (torch.get_default_dtype() if kind is float else DTYPE[kind])
    with g.pause():
        made = torch.empty((), dtype=dtype)
    if isinstance(value, Symbolic):
        g.bind(made, g.cast(g.scalar(value), DTYPE[kind], dtype) if kind is bool else g.operand(value, dtype))
        formulas.note(g, made, formulas.of(g, value))
    else:
        g.bind(made, g.const(value, dtype))
    return made


def require_kind(g: Recorder, value: Any, what: str) -> None:
    """Refuse a number that may be an int or a float, where that decides more than its value.

    Raises:
        DataDependentError
    """
    kinds = kinds_of(g, value)
    if kinds is not None:
        raise DataDependentError(
            f"{quoted_line()}\nThis number is {kinds}, and {what} depends on which: no ONNX value can be "
            "both. Give both sides the same kind of number (2.0 instead of 2)."
        )


def kinds_of(g: Recorder, value: Any) -> str | None:
    """Of which kinds a number is where data decides that; None where it is of one."""
    if not g.env.either or not is_a(value, (torch.SymInt, torch.SymFloat)):
        return None
    e = g.env.expr(value)
    found = [kinds for part, kinds in g.env.either.items() if e.has(part)]
    return found[0] if found and not _is_sure(g, e) else None


def note_kinds(g: Recorder, made: Any, kinds: str | None) -> Any:
    """Say of which kinds a number is that data decides; the number."""
    if kinds is not None and isinstance(made, torch.SymFloat):
        g.env.either[g.env.expr(made)] = kinds
    return made


def of_both(g: Recorder, made: Any, a: Any, b: Any) -> Any:
    """What Python's arithmetic makes of two numbers: an int of ints, a float where one is a float."""
    if g.env.either and isinstance(made, torch.SymFloat):
        kinds = [kinds_of(g, x) for x in (a, b)]
        floats = [k is None and counts_as(x) is float for k, x in zip(kinds, (a, b), strict=True)]
        if not any(floats):
            return note_kinds(g, made, kinds[0] or kinds[1])
    return made


def _is_sure(g: Recorder, e: Any) -> bool:
    """Whether a formula is a float, or an int, whatever kind its numbers are."""
    if e in g.env.either:
        return False
    if e.is_Symbol or e.is_number:
        return not e.is_integer
    if e.is_Add or e.is_Mul or isinstance(e, Arithmetic):
        return any(_is_sure(g, a) for a in e.args)
    name = type(e).__name__
    return name.startswith("OpaqueUnaryFn") or name in _SURE


def is_data(g: Recorder, value: Any) -> bool:
    """Whether only the run knows the tensor's contents or the number."""
    if isinstance(value, torch.Tensor):
        if not isinstance(value, FakeTensor):
            return False
        return g.real(value) is None
    if isinstance(value, torch.SymBool):
        return g.env.known(value.node.expr) is None
    return isinstance(value, Symbolic) and not g.env.expr(value).is_number


def depends_on_data(g: Recorder, expression: Any) -> bool:
    """Whether a formula has anything in it but sizes of the inputs."""
    return g.env.of_data(expression)
