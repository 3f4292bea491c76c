"""Triangles of matrices whose diagonal a size or data decides, as in the causal mask of a text behind a cache
(`diagonal=keys - queries`): torch's C++ wants a number for it. Diagonals that are filled: it finds
them by their places in memory.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ingot.capture.aten.spaced import require_count

Tensor = torch.Tensor


def _outside(rows: Any, columns: Any, diagonal: Any, lower: bool) -> Tensor:
    """Where a matrix of this size is no part of the triangle."""
    above = torch.arange(columns) - torch.arange(rows).unsqueeze(1)
    return above > diagonal if lower else above < diagonal


def _triangle(name: str) -> dict[Any, Callable[..., Any]]:
    """tril or triu, as a function and in place."""
    lower = name == "tril"
    own: dict[str, Any] = {"": getattr(torch, name), "_": getattr(Tensor, name + "_")}

    def triangle(input: Tensor, diagonal: Any = 0, **more: Any) -> Tensor:
        if more or not isinstance(diagonal, torch.SymInt):
            return own[""](input, diagonal=diagonal, **more)
        outside = _outside(input.shape[-2], input.shape[-1], diagonal, lower)
        return input.masked_fill(outside, 0)

    def in_place(input: Tensor, diagonal: Any = 0) -> Tensor:
        if not isinstance(diagonal, torch.SymInt):
            return own["_"](input, diagonal)
        return input.copy_(triangle(input, diagonal))

    return {own[""]: triangle, getattr(Tensor, name): triangle, own["_"]: in_place}


def _places(name: str) -> dict[Any, Callable[..., Any]]:
    """tril_indices or triu_indices."""
    own: Any = getattr(torch, name)

    def places(row: Any, col: Any, offset: Any = 0, *, dtype: Any = torch.int64, **more: Any) -> Tensor:
        if not any(isinstance(n, torch.SymInt) for n in (row, col, offset)):
            return own(row, col, offset, dtype=dtype, **more)
        require_count(name, row, col)
        inside = _outside(row, col, offset, name == "tril_indices").logical_not()
        return inside.nonzero().t().to(dtype)

    return {own: places}


def _fill_diagonal(input: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Of a matrix, with wrap again and again, a row apart; of more axes, where all meet."""
    rank = input.dim()
    if rank < 2 or (rank > 2 and any(n != input.shape[0] for n in input.shape)):
        return _own_fill_diagonal(input, fill_value, wrap)  # which refuses it
    if wrap and rank == 2:
        rows, columns = input.shape
        places = torch.arange(rows).unsqueeze(1) * columns + torch.arange(columns)
        return input.masked_fill_(places % (columns + 1) == 0, fill_value)
    elements = input.diagonal()
    for _ in range(rank - 2):
        elements = elements.diagonal(0, 0, -1)
    elements.fill_(fill_value)
    return input


_own_fill_diagonal = Tensor.fill_diagonal_

#: What stands in for torch's functions while the model's Python runs.
INSTEAD: dict[Any, Callable[..., Any]] = {
    **_triangle("tril"),
    **_triangle("triu"),
    **_places("tril_indices"),
    **_places("triu_indices"),
    _own_fill_diagonal: _fill_diagonal,
}
