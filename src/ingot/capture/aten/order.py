"""Order and counts: medians, modes, the k-th value, unique values, and where values belong."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import sympy  # pyright: ignore[reportMissingTypeStubs]
import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten.elementwise import common_dtype
from ingot.capture.aten.nothing import of_nothing_too, require_some
from ingot.capture.aten.registry import composed, row
from ingot.capture.request import recorder

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


def _with_dim(a: Tensor, dim: int) -> tuple[Tensor, int]:
    """At least one axis."""
    return (a.reshape(1), 0) if a.dim() == 0 else (a, dim % a.dim())


def _shaped(a: Tensor, found: Tensor, dim: int, keepdim: bool) -> Tensor:
    if a.dim() == 0:
        return found.reshape([])
    return found if keepdim else found.select(dim, 0)  # of one element, though its size may be a formula


@composed("kthvalue")
def kthvalue(a: Tensor, k: Any, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The k-th smallest along dim."""
    x, axis = _with_dim(a, dim)
    values, order = torch.topk(x, k, axis, largest=False, sorted=True)
    return tuple(_shaped(a, v.narrow(axis, k - 1, 1), axis, keepdim) for v in (values, order))  # pyright: ignore[reportReturnType]


def _nan_first(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Whether there is a NaN along the axis, and where the first is."""
    nan = torch.isnan(x)
    return nan.any(axis, keepdim=True), torch.argmax(nan.int(), axis, keepdim=True)


@composed("median.dim")
def median_dim(a: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of the two in the middle; NaN where there is one."""
    x, axis = _with_dim(a, dim)
    require_some(recorder(), x, [axis], "median")
    value, at = kthvalue(x, (x.shape[axis] + 1) // 2, axis, True)
    if x.dtype.is_floating_point:
        found, where = _nan_first(x, axis)
        value, at = torch.where(found, math.nan, value).to(x.dtype), torch.where(found, where, at)
    return _shaped(a, value, axis, keepdim), _shaped(a, at, axis, keepdim)


@composed("median")
def median(a: Tensor) -> Tensor:
    """Of all elements."""
    with of_nothing_too():
        return median_dim(_all_or_one(a), 0)[0]


def _all_or_one(a: Tensor) -> Tensor:
    """All elements; of none, what torch calls their median."""
    x, g = a.reshape(-1), recorder()
    if g.env.certain(sympy.Gt(g.env.expr(x.shape[0]), 0)):
        return x
    missing: Any = torch.sym_max(1 - x.shape[0], 0)
    # Not padded: onnxruntime pads no integers of 16 bits.
    return torch.cat((x, torch.full((missing,), _of_none(a.dtype), dtype=a.dtype)))


@functools.lru_cache
def _of_none(dtype: torch.dtype) -> Any:
    """A NaN, or the integer that torch makes of it."""
    with _disable_current_modes():
        return torch.full([], math.nan).to(dtype).item()


@composed("nanmedian.dim")
def nanmedian_dim(a: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower middle one of those that are numbers."""
    x, axis = _with_dim(a, dim)
    if not x.dtype.is_floating_point:
        return median_dim(a, dim, keepdim)
    require_some(recorder(), x, [axis], "nanmedian")
    nan = torch.isnan(x)
    values, order = torch.sort(torch.where(nan, math.inf, x).to(x.dtype), dim=axis, stable=True)
    count = torch.logical_not(nan).sum(axis, keepdim=True)
    at = torch.clamp_min((count - 1).div(2, rounding_mode="floor"), 0)
    value, where = torch.gather(values, axis, at), torch.gather(order, axis, at)
    value = torch.where(count == 0, math.nan, value).to(x.dtype)
    return _shaped(a, value, axis, keepdim), _shaped(a, where, axis, keepdim)


@composed("nanmedian")
def nanmedian(a: Tensor) -> Tensor:
    """Of all elements that are numbers."""
    with of_nothing_too():
        return nanmedian_dim(_all_or_one(a), 0)[0]


@composed("mode")
def mode(a: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The value that occurs most, the smallest of several; and the last place that it stands at."""
    x, axis = _with_dim(a, dim)
    require_some(recorder(), x, [axis], "mode")
    line = x.movedim(axis, -1)
    same = line.unsqueeze(-1) == line.unsqueeze(-2)
    count = same.sum(-1)
    most = count == count.amax(-1, keepdim=True)
    limit = math.inf if x.dtype.is_floating_point else torch.iinfo(x.dtype).max
    value = torch.where(most, line, limit).to(x.dtype).amin(-1, keepdim=True)
    places = torch.arange(line.shape[-1]).expand_as(line)
    at = torch.where(line == value, places, -1).amax(-1, keepdim=True)
    return tuple(_shaped(a, v.movedim(-1, axis), axis, keepdim) for v in (value, at))  # pyright: ignore[reportReturnType]


# -- unique


_UNIQUE = (torch.float32, torch.float64, torch.int64, torch.int8)


def _unique(g: Recorder, out: Any, a: Tensor, x: ir.Value, axis: int | None) -> list[ir.Value]:
    wanted = a.dtype if a.dtype in _UNIQUE else (torch.float32 if a.dtype.is_floating_point else torch.int64)
    y, _, inverse, counts = g.ops("Unique", g.cast(x, a.dtype, wanted), n=4, axis=axis, sorted=1)
    return [g.cast(y, wanted, a.dtype), inverse, counts]


@row("_unique2")
def unique2(
    g: Recorder,
    out: Any,
    a: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
) -> list[ir.Value]:
    """Each value once, sorted."""
    flat = g.op("Reshape", g.val(a), g.const([-1]))
    if a.dtype.is_floating_point:
        values, inverse, counts = _unique_floats(g, out, a, flat)
    else:
        values, inverse, counts = _unique(g, out, a, flat, None)
    return [values, g.op("Reshape", inverse, g.shape(a.shape), allowzero=1), counts]


def _unique_floats(g: Recorder, out: Any, a: Tensor, x: ir.Value) -> list[ir.Value]:
    """Every NaN is another value than all others, behind them: ONNX leaves open what Unique makes of them."""
    nan = g.op("IsNaN", g.cast(x, a.dtype, torch.float32) if a.dtype == torch.bfloat16 else x)
    number = g.op("Not", nan)
    values, inverse, counts = _unique(g, out, a, g.op("Compress", x, number), None)
    apart = g.op("Compress", x, nan)
    ones = g.op("Expand", g.const(1), g.op("Shape", apart))

    def place(here: ir.Value) -> ir.Value:
        running = g.op("CumSum", g.cast(here, torch.bool, torch.int64), g.const(0))
        return g.op("Max", g.op("Sub", running, g.const(1)), g.const(0))

    among = g.op("Gather", g.op("Concat", inverse, g.const([0]), axis=0), place(number))
    behind = g.op("Add", g.op("Shape", values), place(nan))
    return [
        g.op("Concat", values, apart, axis=0),
        g.op("Where", nan, behind, among),
        g.op("Concat", counts, ones, axis=0),
    ]


@row("unique_dim")
def unique_dim(g: Recorder, out: Any, a: Tensor, dim: int, *args: Any, **kwargs: Any) -> list[ir.Value]:
    """Each slice once, sorted."""
    return _unique(g, out, a, g.val(a), dim % a.dim())


@row("unique_consecutive")
def unique_consecutive(
    g: Recorder,
    out: Any,
    a: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> list[ir.Value]:
    """Each run of equal values (or slices) once."""
    axis = 0 if dim is None else dim % a.dim()

    def changes() -> Tensor:
        x = a.reshape(-1)
        if dim is not None:
            first = a.movedim(axis, 0)
            x = first.reshape(first.shape[0], math.prod(first.shape[1:]))
        places = torch.arange(x.shape[0])
        differ = x != x.index_select(0, (places - 1).clamp(min=0))
        return (differ if dim is None else differ.any(-1)) | (places == 0)

    x = g.op("Reshape", g.val(a), g.const([-1])) if dim is None else g.val(a)
    if g.is_empty(a):
        none = g.op("Expand", g.const(0), g.const([0]))
        return [x, g.op("Expand", g.const(0), g.shape(a.shape)) if dim is None else none, none]
    begins = g.val(g.recorded(changes))
    values = g.op("Compress", x, begins, axis=axis)
    running = g.op("CumSum", g.cast(begins, torch.bool, torch.int64), g.const(0))
    inverse = g.op("Sub", running, g.const(1))
    starts = g.op("Squeeze", g.op("NonZero", begins), g.const([0]))
    end = g.op("Shape", begins)
    later = g.op("Concat", g.op("Slice", starts, g.const([1]), g.const([1 << 62])), end, axis=0)
    if dim is None:
        inverse = g.op("Reshape", inverse, g.shape(a.shape), allowzero=1)
    return [values, inverse, g.op("Sub", later, starts)]


@row("searchsorted", "searchsorted.Scalar")
def searchsorted(
    g: Recorder,
    out: Tensor,
    bounds: Tensor,
    values: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> ir.Value:
    """Where values belong among sorted boundaries: how many are not above them, all of them for a NaN.

    Among boundaries that are not sorted (a NaN is in no order) torch says that the result is undefined.
    """
    dtype = common_dtype(bounds, values)
    edges = g.operand(bounds, dtype)
    if sorter is not None:
        edges = g.op("GatherElements", edges, g.operand(sorter, torch.int64), axis=-1)
    if bounds.dim() > 1:
        edges = g.op("Unsqueeze", edges, g.const([-2]))
    x = g.operand(values, dtype)
    x = g.op("Unsqueeze", x, g.const([-1])) if isinstance(values, Tensor) else x
    above = g.op("Greater" if right or side == "right" else "GreaterOrEqual", edges, x)
    count = g.op("ReduceSum", g.cast(above, torch.bool, out.dtype), g.const([-1]), keepdims=0)
    return g.op("Sub", g.operand(bounds.shape[-1], out.dtype), count)


@row("bucketize", "bucketize.Scalar")
def bucketize(
    g: Recorder, out: Tensor, values: Any, bounds: Tensor, *, out_int32: bool = False, right: bool = False
) -> ir.Value:
    """searchsorted with its operands the other way round."""
    return searchsorted(g, out, bounds, values, right=right)
