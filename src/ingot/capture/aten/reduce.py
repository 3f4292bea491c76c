"""Reductions, arg-reductions, sorting, cumulative sums, norms, statistics."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.aten.nothing import require_some
from ingot.capture.aten.registry import Row, instead, row
from ingot.capture.size_symbols import product
from ingot.capture.tensors import inner_dtype

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
#: Integers that ONNX's reductions to an extreme do not take, and those that its sums do not.
HALVES = (torch.int16, torch.uint16)
_NARROW = (torch.int8, torch.uint8, *HALVES)


def axes_of(dim: Any, rank: int) -> list[int] | None:
    """The axes of a dim argument, non-negative; None for all of them."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return None
    dims = dim if isinstance(dim, (list, tuple)) else [dim]
    return [d % rank for d in dims] if rank else []


def reduced(g: Recorder, op_type: str, x: ir.Value, axes: list[int] | None, keepdim: bool) -> ir.Value:
    """A Reduce… node; over everything where there is no axis."""
    if not axes:
        return g.op(op_type, x, keepdims=int(keepdim))
    return g.op(op_type, x, g.const(axes), keepdims=int(keepdim))


def _summed(
    g: Recorder, op_type: str, a: Tensor, dtype: torch.dtype, axes: list[int] | None, keepdim: bool
) -> ir.Value:
    """A sum or product in a dtype; in integers that ONNX does not add, what 64 bits leave of it."""
    wide = torch.int64 if dtype in _NARROW else dtype
    x = g.cast(g.operand(a, dtype), dtype, wide)
    return g.cast(reduced(g, op_type, x, axes, keepdim), wide, dtype)


def some(g: Recorder, flags: ir.Value, axes: list[int] | None, keepdim: bool) -> ir.Value:
    """Whether any of these 0s and 1s is 1; of none it is false, where ReduceMax is the smallest number."""
    return g.op("Greater", reduced(g, "ReduceMax", flags, axes, keepdim), g.const(0, torch.int32))


def _any_nan(g: Recorder, x: ir.Value, axes: list[int] | None, keepdim: bool) -> tuple[ir.Value, ir.Value]:
    """Where there is a NaN along the axes, and 1 for each that is one."""
    flags = g.op("Cast", g.op("IsNaN", x), to=ir.DataType.INT32)
    return some(g, flags, axes, keepdim), flags


def extreme(
    g: Recorder, op_type: str, x: ir.Value, dtype: torch.dtype, axes: list[int] | None, keepdim: bool
) -> ir.Value:
    """ReduceMax or ReduceMin; NaN where there is one, which onnxruntime's lose behind a first number."""
    if dtype == torch.bool:
        flags = g.cast(x, dtype, torch.int32)
        return (some if op_type == "ReduceMax" else every)(g, flags, axes, keepdim)
    wide = torch.int32 if dtype in HALVES else dtype
    y = g.cast(reduced(g, op_type, g.cast(x, dtype, wide), axes, keepdim), wide, dtype)
    if not dtype.is_floating_point:
        return y
    return g.op("Where", _any_nan(g, x, axes, keepdim)[0], g.const(math.nan, dtype), y)


def _place(g: Recorder, op_type: str, x: ir.Value, dtype: torch.dtype, axis: int, keepdim: bool) -> ir.Value:
    """ArgMax or ArgMin; the first NaN where there is one, with the same reason."""
    x = g.cast(x, dtype, torch.int32) if dtype in (torch.bool, *HALVES) else x
    y = g.op(op_type, x, axis=axis, keepdims=int(keepdim))
    if not dtype.is_floating_point:
        return y
    found, flags = _any_nan(g, x, [axis], keepdim)
    return g.op("Where", found, g.op("ArgMax", flags, axis=axis, keepdims=int(keepdim)), y)


def _reduction(op_type: str) -> Row:
    def emit(
        g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
    ) -> ir.Value:
        return _summed(g, op_type, a, out.dtype, axes_of(dim, a.dim()), keepdim)

    return emit


row("sum")(_reduction("ReduceSum"))


def average(
    g: Recorder, x: ir.Value, dtype: torch.dtype, a: Tensor, axes: list[int] | None, keepdim: bool
) -> ir.Value:
    """The mean of a value of a's shape; of nothing it is NaN, and 0 in onnxruntime's ReduceMean: where data
    decides how many there are, a sum is divided.
    """
    sizes: list[Any] = [a.shape[d] for d in (axes or range(a.dim()))]
    if all(isinstance(n, int) or g.env.of_inputs(n) for n in sizes):
        return reduced(g, "ReduceMean", x, axes, keepdim)
    inner = inner_dtype(dtype)
    total = reduced(g, "ReduceSum", g.cast(x, dtype, inner), axes, keepdim)
    return g.cast(g.op("Div", total, g.operand(product(sizes), inner)), inner, dtype)


@row("mean")
def mean(
    g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> ir.Value:
    """The mean."""
    return average(g, g.operand(a, out.dtype), out.dtype, a, axes_of(dim, a.dim()), keepdim)


def _extreme_row(name: str, op_type: str) -> Row:
    def emit(g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False) -> ir.Value:
        axes = axes_of(dim, a.dim())
        require_some(g, a, axes, name)
        return extreme(g, op_type, g.val(a), a.dtype, axes, keepdim)

    return emit


row("amax")(_extreme_row("amax", "ReduceMax"))
row("amin")(_extreme_row("amin", "ReduceMin"))


@row("nansum")
def nansum(
    g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> ir.Value:
    """The sum with NaN as 0."""
    if not out.dtype.is_floating_point:
        return _summed(g, "ReduceSum", a, out.dtype, axes_of(dim, a.dim()), keepdim)
    x = g.operand(a, out.dtype)
    x = g.op("Where", g.op("IsNaN", x), g.const(0.0, out.dtype), x)
    return reduced(g, "ReduceSum", x, axes_of(dim, a.dim()), keepdim)


@row("prod")
def prod(
    g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> ir.Value:
    """The product."""
    return _summed(g, "ReduceProd", a, out.dtype, axes_of(dim, a.dim()), keepdim)


@row("logsumexp")
def logsumexp(g: Recorder, out: Tensor, a: Tensor, dim: Any, keepdim: bool = False) -> ir.Value:
    """log of the sum of exp."""
    return reduced(g, "ReduceLogSumExp", g.operand(a, out.dtype), axes_of(dim, a.dim()), keepdim)


def every(g: Recorder, flags: ir.Value, axes: list[int] | None, keepdim: bool) -> ir.Value:
    """Whether all of these 0s and 1s are 1; of none it is true."""
    return g.op("Greater", reduced(g, "ReduceMin", flags, axes, keepdim), g.const(0, torch.int32))


def _truth_reduction(found: Callable[..., ir.Value]) -> Row:
    def emit(g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False) -> ir.Value:
        if dim is not None and not isinstance(dim, int) and not dim:
            return g.cast(g.operand(a, torch.bool), torch.bool, out.dtype)  # no dimension, not all of them
        flags = g.cast(g.operand(a, torch.bool), torch.bool, torch.int32)
        return g.cast(found(g, flags, axes_of(dim, a.dim()), keepdim), torch.bool, out.dtype)

    return emit


row("any")(_truth_reduction(some))
row("all")(_truth_reduction(every))


def _extreme(name: str, reduce_op: str, arg_op: str) -> tuple[Row, Row]:
    def whole_tensor(g: Recorder, out: Tensor, a: Tensor) -> ir.Value:
        require_some(g, a, None, name)
        return extreme(g, reduce_op, g.val(a), a.dtype, None, False)

    def along(g: Recorder, out: Any, a: Tensor, dim: int, keepdim: bool = False) -> list[ir.Value]:
        if a.dim() == 0:
            return [g.val(a), g.const(0)]
        x, axis = g.val(a), dim % a.dim()
        require_some(g, a, [axis], name)
        values = extreme(g, reduce_op, x, a.dtype, [axis], keepdim)
        return [values, _place(g, arg_op, x, a.dtype, axis, keepdim)]

    return whole_tensor, along


for _name, _reduce, _index in (("max", "ReduceMax", "ArgMax"), ("min", "ReduceMin", "ArgMin")):
    _all, _along = _extreme(_name, _reduce, _index)
    row(_name)(_all)
    row(f"{_name}.dim")(_along)


def _arg(name: str, op_type: str) -> Row:
    def emit(g: Recorder, out: Tensor, a: Tensor, dim: Any = None, keepdim: bool = False) -> ir.Value:
        require_some(g, a, axes_of(dim, a.dim()), name)
        x = g.val(a)
        if dim is None:
            flat = g.op("Reshape", x, g.const([-1]))
            found = _place(g, op_type, flat, a.dtype, 0, False)
            return g.op("Reshape", found, g.const([1] * a.dim())) if keepdim else found
        if a.dim() == 0:
            return g.const(0)
        return _place(g, op_type, x, a.dtype, dim % a.dim(), keepdim)

    return emit


row("argmax")(_arg("argmax", "ArgMax"))
row("argmin")(_arg("argmin", "ArgMin"))


def deviation(
    g: Recorder, a: Tensor, axes: list[int] | None, correction: Any, keepdim: bool
) -> tuple[ir.Value, ir.Value]:
    """Variance and mean, of halves in float32: sum((x - mean)²) / max(n - correction, 0)."""
    dtype = inner_dtype(a.dtype)
    x = g.operand(a, dtype)
    if any(g.sizes.number(a.shape[d]) == 0 for d in (range(a.dim()) if axes is None else axes)):
        whole = range(a.dim()) if axes is None else axes
        shape = [1 if d in whole else n for d, n in enumerate(a.shape) if keepdim or d not in whole]
        nothing = g.op("Expand", g.const(math.nan, dtype), g.shape(shape))
        return nothing, nothing
    mean = average(g, x, dtype, a, axes, True)
    centred = g.op("Sub", x, mean)
    squares = g.op("Mul", centred, centred)
    kept = mean if keepdim else average(g, x, dtype, a, axes, False)
    if not correction:
        return average(g, squares, dtype, a, axes, keepdim), kept
    count: Any = 1
    for d in range(a.dim()) if axes is None else axes:
        count = count * a.shape[d]
    number = g.operand(count, dtype)
    left = g.op("Sub", number, g.const(float(correction), dtype))
    total = reduced(g, "ReduceSum", squares, axes, keepdim)
    if correction < 0:  # the variance of nothing is NaN, as its mean is, where no division is by 0
        return g.op("Mul", g.op("Div", total, number), g.op("Div", number, left)), kept
    return g.op("Div", total, g.op("Max", left, g.const(0.0, dtype))), kept


def _statistic(root: bool, with_mean: bool) -> Row:
    def emit(
        g: Recorder,
        out: Any,
        a: Tensor,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        *,
        correction: Any = 1,
    ) -> Any:
        if isinstance(dim, bool):  # var(x, unbiased)
            dim, unbiased = None, dim
        if isinstance(unbiased, bool):
            correction = 1 if unbiased else 0
        variance, mean = deviation(
            g, a, axes_of(dim, a.dim()), 1 if correction is None else correction, keepdim
        )
        inner = inner_dtype(a.dtype)
        value = g.cast(g.op("Sqrt", variance) if root else variance, inner, a.dtype)
        return [value, g.cast(mean, inner, a.dtype)] if with_mean else value

    return emit


row("var")(_statistic(False, False))
row("std")(_statistic(True, False))
row("var_mean")(_statistic(False, True))
row("std_mean")(_statistic(True, True))


@row("linalg_vector_norm", "norm")
def vector_norm(
    g: Recorder,
    out: Tensor,
    a: Tensor,
    ord: Any = 2,
    dim: Any = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> ir.Value:
    """The p-norm over the axes."""
    p = 2 if ord is None else float(ord)
    x, axes = g.operand(a, out.dtype), axes_of(dim, a.dim())
    if p == 2:
        return reduced(g, "ReduceL2", x, axes, keepdim)
    if p == 1:
        return reduced(g, "ReduceL1", x, axes, keepdim)
    if p < 0 or math.isinf(p):
        require_some(g, a, axes, "linalg.vector_norm")
    if math.isinf(p):
        return extreme(g, "ReduceMax" if p > 0 else "ReduceMin", g.op("Abs", x), out.dtype, axes, keepdim)
    if p == 0:
        ones = g.op("Cast", g.op("Cast", x, to=ir.DataType.BOOL), to=g_dtype(out))
        return reduced(g, "ReduceSum", ones, axes, keepdim)
    inner = inner_dtype(out.dtype)
    powers = g.op("Pow", g.op("Abs", g.operand(a, inner)), g.const(p, inner))
    root = g.op("Pow", reduced(g, "ReduceSum", powers, axes, keepdim), g.const(1 / p, inner))
    return g.cast(root, inner, out.dtype)


def g_dtype(tensor: Tensor) -> ir.DataType:
    """The ONNX dtype of a tensor."""
    from ingot.capture.tensors import dtype_of

    return dtype_of(tensor.dtype)


@row("cumsum")
def cumsum(g: Recorder, out: Tensor, a: Tensor, dim: int, *, dtype: Any = None) -> ir.Value:
    """Running sum."""
    x = g.operand(a, out.dtype)
    if a.dim() == 0:
        return x
    wide = torch.int64 if out.dtype in _NARROW else out.dtype
    made = g.op("CumSum", g.cast(x, out.dtype, wide), g.const(dim % a.dim()))
    return g.cast(made, wide, out.dtype)


@row("topk")
def topk(
    g: Recorder, out: Any, a: Tensor, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Any:
    """The k largest or smallest; sorted also where torch leaves that open, as runtimes do not agree."""
    if not a.dim():
        return [g.val(a), g.const(0)]
    count = g.const([k]) if isinstance(k, int) else g.sizes.dim(k)
    return _first(g, a, count, dim % a.dim(), largest)


def _first(g: Recorder, a: Tensor, count: ir.Value, axis: int, largest: bool) -> list[ir.Value]:
    """TopK, sorted; ONNX has none of truth values."""
    truths = a.dtype == torch.bool
    x = g.cast(g.val(a), a.dtype, torch.uint8) if truths else g.val(a)
    values, indices = g.ops("TopK", x, count, n=2, axis=axis, largest=int(largest), sorted=1)
    return [g.cast(values, torch.uint8, torch.bool) if truths else values, indices]


def _sorted(g: Recorder, a: Tensor, dim: int, descending: bool) -> Any:
    if a.dim() == 0:
        return [g.val(a), g.const(0)]
    axis = dim % a.dim()
    return _first(g, a, g.sizes.dim(a.shape[axis]), axis, descending)


@row("sort")
def sort(g: Recorder, out: Any, a: Tensor, dim: int = -1, descending: bool = False) -> Any:
    """A full sort: TopK of everything, which keeps the order of equal elements."""
    return _sorted(g, a, dim, descending)


@row("sort.stable")
def sort_stable(
    g: Recorder, out: Any, a: Tensor, *, stable: Any = False, dim: int = -1, descending: bool = False
) -> Any:
    """A stable sort."""
    return _sorted(g, a, dim, descending)


@row("argsort")
def argsort(g: Recorder, out: Tensor, a: Tensor, dim: int = -1, descending: bool = False) -> ir.Value:
    """The order that sorts."""
    return _sorted(g, a, dim, descending)[1]


@row("_softmax", "softmax")
def softmax(g: Recorder, out: Tensor, a: Tensor, dim: int, half_to_float: Any = False) -> ir.Value:
    """exp(x - max) / sum along dim."""
    return _along(g, "Softmax", out, a, dim)


def _along(g: Recorder, op_type: str, out: Tensor, a: Tensor, dim: int) -> ir.Value:
    x = g.operand(a, out.dtype)
    if a.dim():
        return g.op(op_type, x, axis=dim % a.dim())
    return g.op("Reshape", g.op(op_type, g.op("Reshape", x, g.const([1])), axis=0), g.const([], torch.int64))


@row("_log_softmax", "log_softmax")
def log_softmax(g: Recorder, out: Tensor, a: Tensor, dim: int, half_to_float: Any = False) -> ir.Value:
    """log of softmax."""
    return _along(g, "LogSoftmax", out, a, dim)


@row("_safe_softmax")
def safe_softmax(g: Recorder, out: Tensor, a: Tensor, dim: int, dtype: Any = None) -> ir.Value:
    """Softmax with 0 for rows that are -inf throughout."""
    x = g.operand(a, out.dtype)
    axis = dim % a.dim()
    y = g.op("Softmax", x, axis=axis)
    highest = g.op("ReduceMax", x, g.const([axis]), keepdims=1)
    empty = g.op("Equal", highest, g.const(-math.inf, out.dtype))
    return g.op("Where", empty, g.const(0.0, out.dtype), y)


@instead(torch.cov, Tensor.cov)
def cov(input: Tensor, *, correction: int = 1, fweights: Any = None, aweights: Any = None) -> Tensor:
    """Covariances of rows, without torch's look at the weights' signs."""
    x = input.reshape(1, -1) if input.dim() < 2 else input
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.get_default_dtype())
    count: Any = x.shape[1]
    weights: Any = None
    for given in (fweights, aweights):
        if given is not None:
            weights = given if weights is None else weights * given
    if weights is None:
        centred = x - x.mean(1, keepdim=True)
        factor: Any = torch.sym_max(count - correction, 0)
        made = centred @ centred.mT / factor
    else:
        total = weights.sum()
        centred = x - (x * weights).sum(1, keepdim=True) / total
        if aweights is None or correction == 0:
            factor = total - correction
        else:
            factor = total - correction * (weights * aweights).sum() / total
        made = (centred * weights) @ centred.mT / torch.clamp_min(factor, 0)
    return made.squeeze()
