"""Tensors without dimensions that are numbers of Python's on the other side of a branch, `total = 0` beside a
sum: what is computed with them must be the same with either.
"""

# torch's operators are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.entries import View
from ingot.capture.scalars import Symbolic, kind_of
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

#: Operators that Python has for numbers too: what they make of such tensors alone is one again.
_ARITHMETIC = frozenset(
    ("add", "sub", "rsub", "mul", "div", "neg", "abs", "pow", "remainder", "floor_divide")
)
_LOGIC = frozenset(("bitwise_and", "bitwise_or", "bitwise_xor"))
_NARROW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Number:
    """What a tensor may be instead: of which kind, and whether the tensor's dtype has it as it is."""

    kind: type
    exact: bool


@dataclass(frozen=True)
class Mixed:
    """A tensor that may be a number."""

    tensor: torch.Tensor  # which keeps its id
    number: Number


def number_of(g: Recorder, value: Any, dtype: torch.dtype) -> Number | None:
    """What number a value of this dtype may be; None where it is surely a tensor."""
    if isinstance(value, torch.Tensor):
        known = g.mixed.get(id(value))
        return None if known is None else known.number
    return Number(kind_of(value) or int, is_exact(value, dtype))


def either(*numbers: Number | None) -> Number | None:
    """What number one of several values may be."""
    found = [n for n in numbers if n is not None]
    if not found:
        return None
    kind = next((k for k in (float, int) if any(n.kind is k for n in found)), bool)
    return Number(kind, all(n.exact for n in found))


def note(g: Recorder, tensor: torch.Tensor, number: Number | None) -> torch.Tensor:
    """Say that a tensor may be a number."""
    if number is not None:
        g.mixed[id(tensor)] = Mixed(tensor, number)
    return tensor


def may_stand_for(number: Any, dtype: torch.dtype) -> bool:
    """Whether a tensor without dimensions of this dtype may stand for a number, as it is computed with."""
    if dtype == torch.bool:
        return kind_of(number) is bool
    kinds = (int, float) if dtype.is_floating_point else (int,)
    return kind_of(number) in kinds and is_held(number, dtype)


def is_held(number: Any, dtype: torch.dtype) -> bool:
    """Whether a tensor of the dtype may stand for a number: PyTorch computes with the number as it is, or
    rounded as float32 is.
    """
    if isinstance(number, Symbolic):
        return dtype in (torch.int64, torch.float32, torch.float64)
    if dtype in _NARROW:
        return is_exact(number, dtype)
    if dtype.is_floating_point:
        return True
    least, most = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    return least <= number <= most


def is_exact(number: Any, dtype: torch.dtype) -> bool:
    """Whether the dtype has a number of Python's as it is."""
    if isinstance(number, Symbolic) or not dtype.is_floating_point:
        return not dtype.is_floating_point or dtype == torch.float64
    return abs(number) <= torch.finfo(dtype).max and torch.tensor(float(number)).to(dtype).double() == number


def require_one_dtype(
    g: Recorder, func: Any, tensors: Sequence[torch.Tensor], args: Any, kwargs: Mapping[str, Any], out: Any
) -> None:
    """A call gives what it gives with the numbers in the place of such tensors.

    Raises:
        DataDependentError: another dtype, or digits that the tensor has not.
    """
    found = [g.mixed[id(t)].number for t in tensors if id(t) in g.mixed]
    if not found or not isinstance(out, torch.Tensor):
        return
    if len(found) == len(tensors):
        _note_numbers(g, func, found, (*args, *kwargs.values()), out)
        return
    given = [_number_for(g, a) for a in args], {k: _number_for(g, a) for k, a in kwargs.items()}
    try:
        with g.env.imagining():
            other = func(*given[0], **given[1])
    except (RuntimeError, TypeError, ValueError):
        return  # as Python would: there it is no number
    wide = out.dtype == torch.float64 and any(not m.exact for m in found)
    if other.dtype == out.dtype and not wide:
        return
    kinds = " or ".join(dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in (out, other)))
    raise _refusal(f"gives {kinds}" if other.dtype != out.dtype else "has more digits with the number")


def _refusal(what: str, instead: str = "torch.tensor(0.0)") -> DataDependentError:
    return DataDependentError(
        f"{quoted_line()}\nData decides whether this is computed with a tensor or with a number of Python's, "
        f"and {what}: no ONNX value can be both. Make the number a tensor of the other's dtype, such as "
        f"{instead}."
    )


_PLAIN = {
    "add_": "add", "sub_": "sub", "mul_": "mul", "div_": "truediv", "floor_divide_": "floordiv",
    "remainder_": "mod", "pow_": "pow",
}  # fmt: skip
#: `total += x` and its like, and what they do with a number.
UPDATES: dict[Any, Any] = {
    getattr(torch.Tensor, name): getattr(operator, f"__{plain}__")
    for name, plain in (
        *_PLAIN.items(),
        *((f"__i{plain}__", plain) for plain in ("and", "or", "xor", *_PLAIN.values())),
    )
}


def _whole(g: Recorder, _: Any, x: torch.Tensor) -> Any:
    """The value of a tensor that nobody else may read."""
    return g.val_of(g.entry(x))


def updated(g: Recorder, func: Any, args: Sequence[Any]) -> Any:
    """`total += x` of what may be a number: the variable has another object then. Whoever else has the one
    before is told: a number stays what it was, a tensor does not.

    Raises:
        DataDependentError: the number would become something else than the tensor.
    """
    target, *rest = args
    number, entry = g.mixed[id(target)].number, g.entry(target)
    with g.pause():
        other = UPDATES[func](number.kind(1), *(_number_for(g, a) for a in rest))
    func(*args)
    becomes = None
    if not isinstance(other, torch.Tensor):
        becomes = Number(kind_of(other) or number.kind, number.exact)
    elif other.dtype != target.dtype:
        kinds = " or ".join(str(t.dtype).removeprefix("torch.") for t in (target, other))
        raise _refusal(f"gives {kinds}")
    alias = torch.ops.aten.alias.default
    with g.pause():
        made = alias(target)
    view = View(alias, entry, "alias", _whole, made, (target,), {}, None)
    g.new_entry(made, entry.group, view=view, value=g.val_of(entry))
    entry.gone = _refusal("the number stays what it was, while the tensor is changed", "torch.tensor(0.0)")
    return note(g, made, becomes)


def _number_for(g: Recorder, value: Any) -> Any:
    known = g.mixed.get(id(value)) if isinstance(value, torch.Tensor) else None
    return value if known is None else known.number.kind(1)


def _note_numbers(g: Recorder, func: Any, found: Sequence[Number], given: Sequence[Any], out: Any) -> None:
    name = func._schema.name.partition("::")[2]
    if func.namespace != "aten":
        return
    if name in (*_ARITHMETIC, "bitwise_not") and any(n.kind is bool for n in found):
        raise _refusal(f"{name} of True is a whole number in Python", "torch.tensor(False)")
    if name in _ARITHMETIC:
        kinds = {n.kind for n in found} | {kind_of(a) for a in given if kind_of(a) is not torch.Tensor}
        whole = float not in kinds and name != "div"
        note(g, out, Number(int if whole else float, all(n.exact for n in found)))
    elif name in _LOGIC and all(n.kind is bool for n in found):
        note(g, out, Number(bool, True))
