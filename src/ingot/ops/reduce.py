"""Operators that combine the elements along axes: ReduceSum and kin, ArgMax, ArgMin, CumSum, CumProd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import INTEGERS
from ingot.kernels.argreduce import argreduce, evaluate_argreduce
from ingot.kernels.arrange import cumulative
from ingot.kernels.call import View
from ingot.kernels.contract import name_of
from ingot.kernels.expression import Step, expression_of
from ingot.kernels.reduce import reduce, supports
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import INT64, is_float, rounded, widen
from ingot.ops.registry import (
    Array,
    DType,
    Facts,
    Op,
    Outputs,
    add,
    attr_int,
    first_input,
    given,
    known_ints,
    need,
    normal_axes,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)

Axes = tuple[int, ...]
Function = Callable[[Array, Axes], Any]


def reduced_shape(shape: tuple[int, ...], axes: Axes, keepdims: int) -> tuple[int, ...]:
    """The shape without `axes`, or with 1 in their place."""
    if keepdims:
        return tuple([1 if i in axes else size for i, size in enumerate(shape)])
    return tuple([size for i, size in enumerate(shape) if i not in axes])


class Reduction(Op):
    """y = f(x over axes), computed in float64 for floats; `axes` empty or absent means all, or none if so
    flagged.
    """

    function: ClassVar[Function]

    def axes(self, node: ir.Node, rank: int, argument: tuple[int, ...] | None) -> Axes | None:
        """The axes to reduce; None where the node is the identity."""
        if not argument:
            return None if attr_int(node, "noop_with_empty_axes", 0) else tuple(range(rank))
        return normal_axes(node, argument, rank)

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Unknown while the axes are."""
        x, argument = need(node, inputs, 0), None
        if given(inputs, 1) is not None:
            argument = known_ints(node, inputs, 1)
            if argument is None:
                return None
        axes = self.axes(node, len(x.shape), argument)
        if axes is None:
            return [Facts(x.dtype, x.shape)]
        return [Facts(x.dtype, reduced_shape(x.shape, axes, attr_int(node, "keepdims", 1)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The row's function over the axes, then the shape that keepdims asks for."""
        x, argument = present(inputs, 0), given(inputs, 1)
        axes = self.axes(node, x.ndim, None if argument is None else tuple(argument.ravel().tolist()))
        # Without axes nothing is combined, yet each element still goes through the function (|x|, x², …).
        over = () if axes is None else axes
        with np.errstate(all="ignore"):
            y = rounded(type(self).function(widen(x), over), x.dtype)
        return [
            y.reshape(
                x.shape if axes is None else reduced_shape(x.shape, axes, attr_int(node, "keepdims", 1))
            )
        ]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel, for every numeric dtype that it knows."""
        x, argument = first_input(node), node.inputs[1] if len(node.inputs) > 1 else None
        known = plan.constant(argument)
        axes = self.axes(
            node, len(plan.facts(x).shape), None if known is None else tuple(known.ravel().tolist())
        )
        return reduction(plan, self.name, x, axes or (), node.outputs[0])

    def is_by_image(self, node: ir.Node, inputs: Sequence[Facts | None]) -> bool:
        """Over other axes, which are known."""
        argument = given(inputs, 1)
        if argument is not None and argument.value is None:
            return False
        known = None if argument is None else tuple(argument.value.ravel().tolist())
        return 0 not in (self.axes(node, len(need(node, inputs, 0).shape), known) or ())


def reduction(plan: Lowering, op: str, x: ir.Value, axes: Axes, value: ir.Value) -> bool:
    """`value` = op(x over axes), with 1 or nothing in the axes' place. False where no kernel knows the
    dtype.
    """
    facts = plan.facts(x)
    truth = facts.dtype == np.bool_ and op in ("ReduceMax", "ReduceMin")
    own = name_of(facts.dtype)
    through_float = op in ("ReduceMean", "ReduceL2") and own in INTEGERS
    if not truth and not through_float and not supports(op, own):
        return False
    view, out = plan.view(x), plan.output(value)
    if truth:  # as bytes of 0 and 1
        view, out = (View(v.buffer, v.offset, np.dtype(np.uint8), v.shape, v.strides) for v in (view, out))
    kept = [d for d in range(view.rank) if d not in axes]
    if out.rank == view.rank:
        out = out.with_dims([out.shape[d] for d in kept], [out.strides[d] for d in kept])
    if through_float:
        wide = expression_of((own,), (Step("Cast", (0,), "float64"),), (1,))
        narrow = expression_of(("float64",), (Step("Cast", (0,), own),), (1,))
        plan.emit(reduce(op, [view], axes, out, plan.machine, wide, narrow))
    else:
        plan.emit(reduce(op, [view], axes, out, plan.machine))
    return True


def _lowest(dtype: DType) -> Any:
    if dtype == np.bool_:
        return False
    return -np.inf if is_float(dtype) else np.iinfo(dtype).min


def _highest(dtype: DType) -> Any:
    if dtype == np.bool_:
        return True
    return np.inf if is_float(dtype) else np.iinfo(dtype).max


def log_sum_exp(x: Array, axes: Axes) -> Array:
    """log(sum(exp(x))), without overflow; an empty sum gives -inf."""
    x = x.astype(np.float64)
    largest = np.max(x, axis=axes, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(largest), largest, 0.0)
    return np.log(np.sum(np.exp(x - shift), axis=axes, keepdims=True)) + shift


_ROWS: dict[str, tuple[int, Function]] = {
    "ReduceL1": (18, lambda x, axes: np.sum(np.abs(x), axis=axes)),
    "ReduceL2": (18, lambda x, axes: np.sqrt(np.sum(np.square(x.astype(np.float64)), axis=axes))),
    "ReduceLogSum": (28, lambda x, axes: np.log(np.sum(x, axis=axes))),
    "ReduceLogSumExp": (28, log_sum_exp),
    "ReduceMax": (20, lambda x, axes: np.max(x, axis=axes, initial=_lowest(x.dtype))),
    "ReduceMean": (18, lambda x, axes: np.mean(x, axis=axes)),
    "ReduceMin": (20, lambda x, axes: np.min(x, axis=axes, initial=_highest(x.dtype))),
    "ReduceProd": (18, lambda x, axes: np.prod(x, axis=axes)),
    "ReduceSum": (13, lambda x, axes: np.sum(x, axis=axes)),
    "ReduceSumSquare": (18, lambda x, axes: np.sum(np.square(x), axis=axes)),
}
for _name, (_since, _function) in _ROWS.items():
    _cls = type(_name, (Reduction,), {"__doc__": f"{_name} along axes.", "__module__": __name__})
    _cls.function = staticmethod(_function)
    add(_cls, _name, _since)


class _ArgExtreme(Op):
    """The position of an extreme along `axis`: the first, or the last with select_last_index; NaN counts as
    one.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """int64, with 1 or nothing in the axis' place."""
        x = need(node, inputs, 0)
        axis = normal_axis(node, attr_int(node, "axis", 0), len(x.shape))
        if x.shape[axis] == 0:
            raise shape_error(node, f"dimension {axis} of {show(x.shape)} is empty and has no extreme")
        return [Facts(INT64, reduced_shape(x.shape, (axis,), attr_int(node, "keepdims", 1)))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """NumPy's argmax or argmin."""
        x, last = widen(present(inputs, 0)), bool(attr_int(node, "select_last_index", 0))
        axis = normal_axis(node, attr_int(node, "axis", 0), x.ndim)
        y = evaluate_argreduce(x, axis, self.name == "ArgMax", last).astype(INT64)
        return [np.expand_dims(y, axis) if attr_int(node, "keepdims", 1) else y]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel for numbers."""
        x = first_input(node)
        facts = plan.facts(x)
        if not supports("ReduceMax", name_of(facts.dtype)):
            return False
        axis = normal_axis(node, attr_int(node, "axis", 0), len(facts.shape))
        view, out = plan.view(x), plan.output(node.outputs[0])
        if out.rank == view.rank:
            out = out.with_dims(
                (*out.shape[:axis], *out.shape[axis + 1 :]), (*out.strides[:axis], *out.strides[axis + 1 :])
            )
        last = bool(attr_int(node, "select_last_index", 0))
        plan.emit(argreduce(view, axis, out, plan.machine, largest=self.name == "ArgMax", last=last))
        return True


@register("ArgMax", since=13)
class ArgMax(_ArgExtreme):
    """The position of the largest."""


@register("ArgMin", since=13)
class ArgMin(_ArgExtreme):
    """The position of the smallest."""


class _Cumulative(Op):
    """A running combination along `axis`; `exclusive` leaves the element itself out, `reverse` runs from
    the end.
    """

    start: ClassVar[int]

    def run(self, x: Array, axis: int) -> Array:
        """NumPy's function."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        x = need(node, inputs, 0)
        need(node, inputs, 1)
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `run`."""
        x = present(inputs, 0)
        axis = normal_axis(node, int(present(inputs, 1).reshape(())), x.ndim)
        y = np.moveaxis(widen(x), axis, 0)
        if attr_int(node, "reverse", 0):
            y = y[::-1]
        if attr_int(node, "exclusive", 0):
            y = np.concatenate([np.full_like(y[:1], self.start), y[:-1]])
        y = self.run(y, 0)
        if attr_int(node, "reverse", 0):
            y = y[::-1]
        return [rounded(np.moveaxis(y, 0, axis), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel for numbers."""
        x, axis = first_input(node), plan.constant(node.inputs[1])
        facts = plan.facts(x)
        if axis is None or not supports("ReduceSum", name_of(facts.dtype)):
            return False
        at = normal_axis(node, int(axis.reshape(())), len(facts.shape))
        exclusive, reverse = (bool(attr_int(node, name, 0)) for name in ("exclusive", "reverse"))
        view, out = plan.view(x), plan.output(node.outputs[0])
        call = cumulative(
            view, out, at, plan.machine, product=self.start == 1, exclusive=exclusive, reverse=reverse
        )
        plan.emit(call)
        return True


@register("CumSum", since=14)
class CumSum(_Cumulative):
    """Running sums."""

    start = 0

    def run(self, x: Array, axis: int) -> Array:
        """np.cumsum."""
        return np.cumsum(x, axis)


@register("CumProd", since=26)
class CumProd(_Cumulative):
    """Running products."""

    start = 1

    def run(self, x: Array, axis: int) -> Array:
        """np.cumprod."""
        return np.cumprod(x, axis)
