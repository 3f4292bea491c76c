"""Singular vectors and eigenvectors, of which torch leaves open which ones of several: their signs, and the
basis of what no value belongs to. The model has those that are told here.
"""

# torch's modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

from typing import Any

import torch

from ingot.capture.called import Called
from ingot.capture.where import source_line

Tensor = torch.Tensor
aten = torch.ops.aten
_GOLDEN = (5**0.5 - 1) / 2


def signs(vectors: Tensor) -> Tensor:
    """-1 for each column [.., n, m] whose elements have a sum below 0, else 1, as [.., 1, m].

    The elements are weighed, each otherwise, since those of many a vector have the sum 0.
    """
    places = torch.arange(1, vectors.shape[-2] + 1, dtype=torch.float64).unsqueeze(-1) * _GOLDEN
    sums = (vectors.double() * (1 + places - places.floor())).sum(-2, keepdim=True)
    return torch.where(sums < 0, -1.0, 1.0).double()


def earlier_first(n: Any) -> Tensor:
    """Weights of n axes, by which the first of equal ones comes first."""
    return 1 + 1 / torch.arange(1, n + 1, dtype=torch.float64)


def largest(values: Tensor) -> Tensor:
    """The first of [.., k], which are in order, or 0 where there are none, as [.., 1]."""
    return torch.constant_pad_nd(values, [0, 1]).narrow(-1, 0, 1)


def rank_of(values: Tensor, a: Tensor) -> Tensor:
    """How many singular values [.., k] of a [.., n, m] are more than its dtype's rounding, as [.., 1]."""
    least = torch.finfo(a.dtype).eps * torch.sym_max(a.shape[-2], a.shape[-1])
    return (values > largest(values) * least).sum(-1, keepdim=True)


def oriented(u: Tensor, v: Tensor, rank: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right singular vectors with signs by those of v, where they belong to a value; else each has
    its own.
    """
    of_u, of_v = signs(u), signs(v)
    places = torch.arange(u.shape[-1])
    paired = of_v.index_select(-1, places.clamp(max=v.shape[-1] - 1))
    return u * torch.where((places < rank).unsqueeze(-2), paired, of_u), v * of_v


def completed(u: Tensor, rank: Tensor) -> Tensor:
    """Columns from `rank` on replaced, so that all of [b, n, m] are orthonormal: by the axis of which most is
    left of one after the other, without what the columns in front of it have of it.
    """
    n, m = u.shape[-2:]
    u = torch.where(torch.arange(m) < rank.unsqueeze(-2), u.double(), 0.0)
    for b in range(len(u)):
        for k in range(int(rank[b]), m):
            left = (1 - (u[b] ** 2).sum(-1)) * earlier_first(n)
            axis = torch.zeros(n, dtype=u.dtype)
            axis[left.argmax()] = 1
            for _ in range(2):  # what rounding has left of it
                axis = axis - u[b] @ (u[b].mT @ axis)
            u[b, :, k] = axis / axis.norm()
    return u


class OwnBases(Called):
    """While entered, torch gives the singular vectors and eigenvectors that a model gives.

    `lines` has the model's lines where it would not have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, None] = {}

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        made = func(*args, **kwargs)
        if func not in (aten._linalg_svd.default, aten._linalg_eigh.default):
            return made
        if args[0].is_complex() or not made[0].numel() or not made[-1].numel():
            return made
        if func is aten._linalg_eigh.default:
            own = made[0], made[1] * signs(made[1]).to(made[1].dtype)
        else:
            own = _singular(args[0], *made)
        if not all(map(torch.equal, own, made)):
            self.lines[f"{func.overloadpacket.__name__.removeprefix('_')} at {source_line()}"] = None
        return own


def _singular(a: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    left, right = (x.reshape(-1, *x.shape[-2:]) for x in (u, vh.mT))
    rank = rank_of(s, a).reshape(-1, 1)
    left, right = oriented(completed(left, rank), completed(right, rank), rank)
    return left.reshape(u.shape).to(u.dtype), s, right.mT.reshape(vh.shape).to(vh.dtype)
