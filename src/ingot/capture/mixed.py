"""Tensors without dimensions that are numbers of Python's on the other side of a branch, `total = 0` beside a
sum: what is computed with them must be the same with either.
"""

# torch's operators are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.scalars import Symbolic, kind_of
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

#: Operators that Python has for numbers too: what they make of such tensors alone is one again.
_ARITHMETIC = frozenset(
    ("add", "sub", "rsub", "mul", "div", "neg", "abs", "pow", "remainder", "floor_divide")
)
_NARROW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Mixed:
    """A tensor that may be a number: of which kind, and whether the tensor's dtype has it as it is."""

    tensor: torch.Tensor  # which keeps its id
    kind: type
    exact: bool


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
    found = [g.mixed[id(t)] for t in tensors if id(t) in g.mixed]
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
    what = f"gives {kinds}" if other.dtype != out.dtype else "has more digits with the number"
    raise DataDependentError(
        f"{quoted_line()}\nData decides whether this is computed with a tensor or with a number of Python's, "
        f"and {what}: no ONNX value can be both. Make the number a tensor of the other's dtype, such as "
        "torch.tensor(0.0)."
    )


def _number_for(g: Recorder, value: Any) -> Any:
    known = g.mixed.get(id(value)) if isinstance(value, torch.Tensor) else None
    return value if known is None else known.kind(1)


def _note_numbers(g: Recorder, func: Any, found: Sequence[Mixed], given: Sequence[Any], out: Any) -> None:
    name = func._schema.name.partition("::")[2]
    if name in _ARITHMETIC and func.namespace == "aten":
        kinds = {m.kind for m in found} | {kind_of(a) for a in given if kind_of(a) is not torch.Tensor}
        whole = float not in kinds and name != "div"
        g.mixed[id(out)] = Mixed(out, int if whole else float, all(m.exact for m in found))
