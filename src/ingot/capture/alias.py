"""Writes through views: from a view's new value, the new value of the tensor it is a view of."""

# Every inverse takes the same arguments.
# ruff: noqa: ARG001
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch

from ingot.capture.aten.shape import END
from ingot.capture.aten.strided import diagonal_places
from ingot.capture.one_of import OneOf
from ingot.capture.where import quoted_line
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.entries import Entry, View
    from ingot.capture.record import Recorder


def put_back(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    """The parent's value after `value` was written through the view."""
    inverse = _INVERSE.get(view.op)
    if inverse is None:
        raise ExportError(
            f"{quoted_line()}\nThis writes into a tensor through `{view.op}`, which Ingot cannot follow "
            "back to the tensor "
            "it shares memory with. Write into the tensor itself, or build the result with torch.where "
            "or torch.cat."
        )
    return inverse(g, e, view, value)


def argument(view: View, position: int, name: str, default: Any = None) -> Any:
    """An argument of the call that made a view."""
    return view.args[position] if len(view.args) > position else view.kwargs.get(name, default)


def _same(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    return value


def _negated(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    return g.op("Neg", value)


def _reshape(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    return g.op("Reshape", value, g.shape(view.parent.tensor.shape), allowzero=1)


def _transpose(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    rank = value_rank = view.parent.tensor.dim()
    perm = list(range(rank))
    if view.op == "permute":
        for i, d in enumerate(view.args[1]):
            perm[d % rank] = i
    elif rank >= 2:
        a, b = (0, 1) if view.op in ("t", "numpy_T") else (view.args[1] % rank, view.args[2] % rank)
        perm[a], perm[b] = perm[b], perm[a]
    return g.op("Transpose", value, perm=perm) if value_rank >= 2 else value


def from_start(g: Recorder, place: Any, length: Any, part: bool = False) -> Any:
    """A place along an axis, from the beginning: one below 0 counts from the end.

    part: where a slice begins, which may be before the first element or behind the last
    """
    if isinstance(place, int) and isinstance(length, int):
        place = place if place >= 0 else place + length
        return min(max(place, 0), length) if part else place
    at, n = g.env.expr(place), g.env.expr(length)
    from_end = at + n
    if part and not g.env.certain(from_end >= 0):
        from_end = sympy.Max(from_end, 0)
    from_start = g.env.certain(at >= 0)
    if from_start is None:
        return g.env.size(OneOf(g.env.canon(at < 0), from_end, at))
    return g.env.size(at if from_start else from_end)


def _inside(g: Recorder, place: torch.SymInt, length: Any) -> bool:
    """Whether an axis has an element at a place for all sizes."""
    at, n = g.env.expr(place), g.env.expr(length)
    return all(g.env.certain(c) for c in (at >= 0, at < n) if c != sympy.true)


def _between(g: Recorder, parent: Entry, dim: int, start: Any, size: Any, value: ir.Value) -> ir.Value:
    """parent[:start] + value + parent[start + size:] along `dim`."""
    whole = g.val_of(parent)
    length = parent.tensor.shape[dim]
    axes = g.const([dim])
    parts: list[ir.Value] = []
    if g.sizes.number(start) != 0:
        parts.append(g.op("Slice", whole, g.const([0]), g.sizes.dim(start), axes))
    parts.append(value)
    if not g.same_size(start + size, length):
        parts.append(g.op("Slice", whole, g.sizes.dim(start + size), g.const([END]), axes))
    if len(parts) == 1:
        return parts[0]
    joined = g.op("Concat", *parts, axis=dim)
    if g.env.of_inputs(start):
        return joined
    # Only the run knows where the part lies: one that does not lie within the whole fails here.
    return g.op("Reshape", joined, g.op("Shape", whole), allowzero=1)


def _select(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    parent = view.parent
    dim = view.args[1] % parent.tensor.dim()
    start = view.args[2]
    if isinstance(start, torch.SymInt) and not _inside(g, start, parent.tensor.shape[dim]):
        start = g.sizes.scalar(start)
    if isinstance(start, ir.Value):  # of either sign, and outside of the axis for some inputs
        at = g.op("Reshape", start, g.const([1, 1]))
        return _scattered(g, parent, dim, at, g.op("Unsqueeze", value, g.const([dim])))
    start = from_start(g, start, parent.tensor.shape[dim])
    return _between(g, parent, dim, start, 1, g.op("Unsqueeze", value, g.const([dim])))


def _slice(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    parent = view.parent
    dim = argument(view, 1, "dim", 0) % parent.tensor.dim()
    start, step = argument(view, 2, "start"), argument(view, 4, "step", 1)
    length = parent.tensor.shape[dim]
    start = from_start(g, 0 if start is None else start, length, part=True)
    if step == 1:
        return _between(g, parent, dim, start, e.tensor.shape[dim], value)
    count = g.sizes.scalar(e.tensor.shape[dim])
    first = g.op(
        "Add", g.op("Mul", g.op("Range", g.const(0), count, g.const(1)), g.const(step)), g.sizes.scalar(start)
    )
    return _scattered(g, parent, dim, g.op("Unsqueeze", first, g.const([1])), value)


def _scattered(g: Recorder, parent: Entry, dim: int, at: ir.Value, value: ir.Value) -> ir.Value:
    """The parent with other parts at places along `dim`; `at` has shape [places, 1]."""
    whole = g.val_of(parent)
    if dim == 0:
        return g.op("ScatterND", whole, at, value)
    rank = parent.tensor.dim()
    perm = [dim, *[d for d in range(rank) if d != dim]]
    back = [perm.index(d) for d in range(rank)]
    moved = g.op("ScatterND", g.op("Transpose", whole, perm=perm), at, g.op("Transpose", value, perm=perm))
    return g.op("Transpose", moved, perm=back)


def _piece(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    """One output of split, chunk or unbind."""
    parent = view.parent
    index = view.index or 0
    dim = argument(view, 1 if view.op == "unbind" else 2, "dim", 0) % parent.tensor.dim()
    if view.op == "unbind":
        return _between(g, parent, dim, index, 1, g.op("Unsqueeze", value, g.const([dim])))
    start = sum(o.shape[dim] for o in view.out[:index])
    return _between(g, parent, dim, start, e.tensor.shape[dim], value)


def _narrow(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    parent = view.parent
    dim = view.args[1] % parent.tensor.dim()
    start = from_start(g, view.args[2], parent.tensor.shape[dim])
    return _between(g, parent, dim, start, e.tensor.shape[dim], value)


def _diagonal(g: Recorder, e: Entry, view: View, value: ir.Value) -> ir.Value:
    rank = view.parent.tensor.dim()
    named = zip((1, 2, 3), ("offset", "dim1", "dim2"), (0, 0, 1), strict=True)
    offset, first, second = (argument(view, *place) for place in named)
    perm, places = diagonal_places(g, rank, first, second, offset, e.tensor.shape[-1])
    moved = g.op("Transpose", g.val_of(view.parent), perm=perm)
    lead = g.op("Transpose", value, perm=[rank - 2, *range(rank - 2)])
    written = g.op("ScatterND", moved, places, lead)
    return g.op("Transpose", written, perm=[perm.index(d) for d in range(rank)])


_INVERSE: dict[str, Callable[[Recorder, Entry, View, ir.Value], ir.Value]] = {
    "alias": _same,
    "detach": _same,
    "neg": _negated,
    "view": _reshape,
    "_reshape_alias": _reshape,
    "unsqueeze": _reshape,
    "squeeze": _reshape,
    "t": _transpose,
    "transpose": _transpose,
    "permute": _transpose,
    "select": _select,
    "slice": _slice,
    "narrow": _narrow,
    "diagonal": _diagonal,
    "unbind": _piece,
    "split": _piece,
    "split_with_sizes": _piece,
}
