"""The order of equal values, which torch leaves open and ONNX does not: the lower index comes first."""

# torch's modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ingot.capture.called import Called
from ingot.capture.where import source_line

Tensor = torch.Tensor
Ordered = tuple[Tensor, Tensor]  # values, and the places they come from
aten = torch.ops.aten


def _sort(a: Tensor, dim: int = -1, descending: bool = False) -> Ordered:
    return torch.sort(a, dim=dim, descending=descending, stable=True)


def _sort_stable(a: Tensor, _stable: bool | None, dim: int = -1, descending: bool = False) -> Ordered:
    return _sort(a, dim, descending)


def _topk(a: Tensor, k: int, dim: int = -1, largest: bool = True, _sorted: bool = True) -> Ordered:
    values, order = _sort(a, dim, largest)
    return (values, order) if a.dim() == 0 else (values.narrow(dim, 0, k), order.narrow(dim, 0, k))


def _kthvalue(a: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Ordered:
    values, order = _sort(a, dim)
    if a.dim() == 0:
        return values, order
    chosen = values.narrow(dim, k - 1, 1), order.narrow(dim, k - 1, 1)
    return chosen if keepdim else (chosen[0].squeeze(dim), chosen[1].squeeze(dim))


def _median(a: Tensor, dim: int, keepdim: bool = False) -> Ordered:
    return _kthvalue(a, (a.shape[dim] + 1) // 2 if a.dim() else 1, dim, keepdim)


def _unique(made: Any, a: Tensor) -> Any:
    """What unique gave, with NaN numbered as they come; each of them is a value of its own."""
    values, inverse, counts = made
    nan = torch.isnan(a)
    if inverse.shape != a.shape or not nan.any():  # nobody asks which is which
        return made
    places = torch.arange(len(values) - int(nan.sum()), len(values))
    if not torch.equal(inverse[nan].sort().values, places):
        return made
    return values, inverse.masked_scatter(nan, places), counts


# Operators whose result torch leaves open among equals, with the same operator that does not.
_FIRST: dict[Any, Callable[..., Ordered]] = {
    aten.sort.default: _sort,
    aten.sort.stable: _sort_stable,  # which may be asked not to be
    aten.topk.default: _topk,
    aten.kthvalue.default: _kthvalue,
    aten.median.dim: _median,
}


class FirstOfEqual(Called):
    """While entered, of equal values the one with the lower index comes first, as in ONNX.

    `lines` has the operators and the model's lines where that made a difference.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, None] = {}

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        made = func(*args, **kwargs)
        if func is aten._unique2.default:
            named = _unique(made, args[0])
            if not torch.equal(named[1], made[1]):
                self.lines[f"unique at {source_line()}"] = None
            return named
        first = _FIRST.get(func)
        if first is None:
            return made
        given = {a.name: a.default_value for a in func._schema.arguments} | kwargs
        given |= {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)}
        values, order = first(*given.values())
        if torch.equal(order, made[1]) or not _equal(values, _sorted(made[0], given)):
            return made  # the very same, or no order of these values
        self.lines[f"{func.overloadpacket.__name__} at {source_line()}"] = None
        return values, order


def _sorted(values: Tensor, given: dict[str, Any]) -> Tensor:
    """What a topk without an order gives, in order."""
    if given.get("sorted", True):
        return values
    return torch.sort(values, dim=given["dim"], descending=given["largest"]).values


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether all values are the same; a NaN is the same as another."""
    return bool(((a == b) | ((a != a) & (b != b))).all())
