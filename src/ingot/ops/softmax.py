"""Softmax and what else makes the numbers along an axis add up to one. In float64, rounded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.kernels.argreduce import argreduce
from ingot.kernels.call import Call, View, memory_order
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.expression import Step, expression_of, identity
from ingot.kernels.reduce import reduce
from ingot.kernels.softmax import softmax
from ingot.ops.lowering import Lowering, Steps, wide_of
from ingot.ops.numeric import is_float, rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    first_input,
    need,
    normal_axis,
    present,
    register,
)


class SameShape(Op):
    """One output, of the first input's shape and dtype."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The first input's facts, without its value."""
        x = need(node, inputs, 0)
        return [Facts(x.dtype, x.shape)]


class _AlongAxis(SameShape):
    """A function along `axis`, the last by default."""

    def along(self, x: Array, axis: int) -> Array:
        """The function, in float64."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The shape of x."""
        x = need(node, inputs, 0)
        normal_axis(node, attr_int(node, "axis", -1), len(x.shape))
        return [Facts(x.dtype, x.shape)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """See `along`."""
        x = present(inputs, 0)
        if not x.size:
            return [x]
        with np.errstate(all="ignore"):
            return [rounded(self.along(widen(x), attr_int(node, "axis", -1)), x.dtype)]


@register("Softmax", since=13)
class Softmax(_AlongAxis):
    """exp(x - max) / sum(exp(x - max))."""

    def along(self, x: Array, axis: int) -> Array:
        """A row of nothing but -inf gives NaN."""
        e = np.exp(x - x.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel over the rows, with what leads up to it and what follows."""
        return _lower_softmax(node, plan, log=False)


def _lower_softmax(node: ir.Node, plan: Lowering, *, log: bool) -> bool:
    x, value, machine = first_input(node), node.outputs[0], plan.machine
    facts = plan.facts(x)
    if not is_float(facts.dtype):
        return False
    axis = normal_axis(node, attr_int(node, "axis", -1), len(facts.shape))
    prologue, views = plan.inline(x)

    def emit(out: View, epilogue: Epilogue | None) -> list[Call]:
        after = epilogue or Epilogue(identity(name_of(facts.dtype)), ())
        call = softmax(
            views[0],
            out,
            axis,
            machine,
            operands=views[1:],
            prologue=prologue,
            extras=after.operands,
            epilogue=after.expression,
            log=log,
        )
        return [call]

    plan.anchor(value, emit, memory_order(views[0]), free_order=True)
    return True


@register("LogSoftmax", since=13)
class LogSoftmax(_AlongAxis):
    """log(softmax(x))."""

    def along(self, x: Array, axis: int) -> Array:
        """Without leaving the logarithm."""
        x = x - x.max(axis, keepdims=True)
        return x - np.log(np.exp(x).sum(axis, keepdims=True))

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """One kernel over the rows, with what leads up to it and what follows."""
        return _lower_softmax(node, plan, log=True)


@register("Hardmax", since=13)
class Hardmax(_AlongAxis):
    """1 at the first largest, 0 elsewhere."""

    def along(self, x: Array, axis: int) -> Array:
        """np.argmax."""
        y = np.zeros_like(x)
        np.put_along_axis(y, np.expand_dims(np.argmax(x, axis), axis), 1, axis)
        return y

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Where the largest is, and a step that compares each place with it."""
        x, value, machine = first_input(node), node.outputs[0], plan.machine
        facts = plan.facts(x)
        axis = normal_axis(node, attr_int(node, "axis", -1), len(facts.shape))
        if not is_float(facts.dtype) or name_of(facts.dtype) not in FLOATS or not facts.shape[axis]:
            return False
        view = plan.view(x)
        rest = [d for d in range(view.rank) if d != axis]
        found = plan.temporary([view.shape[d] for d in rest], np.int64)
        plan.emit(argreduce(view, axis, found, machine))
        strides = [0 if d == axis else found.strides[rest.index(d)] for d in range(view.rank)]
        size = facts.shape[axis]
        along = np.arange(size).reshape([size if d == axis else 1 for d in range(view.rank)])
        steps = Steps(plan, facts.shape)
        place = plan.located(found.with_dims(facts.shape, strides))
        steps.cast(steps("Equal", plan.known(along), place, dtype="bool"), name_of(facts.dtype), value)
        return True


@register("LpNormalization", since=22)
class LpNormalization(_AlongAxis):
    """x / (sum |x|^p)^(1/p), 0 where the norm is 0; p is 1 or 2."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The norm along `axis`."""
        x, p = present(inputs, 0), attr_int(node, "p", 2)
        axis = attr_int(node, "axis", -1)
        wide = widen(x)
        norm = (np.abs(wide) ** p).sum(axis, keepdims=True) ** (1.0 / p)
        return [rounded(np.divide(wide, norm, out=np.zeros_like(wide), where=norm != 0), x.dtype)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The norms, and steps that divide by them."""
        x, value = first_input(node), node.outputs[0]
        facts = plan.facts(x)
        dtype, p = name_of(facts.dtype), attr_int(node, "p", 2)
        axis = normal_axis(node, attr_int(node, "axis", -1), len(facts.shape))
        if dtype not in FLOATS or p not in (1, 2):
            return False
        view, wide = plan.view(x), wide_of(dtype)
        rest = [d for d in range(view.rank) if d != axis]
        norms = plan.temporary([view.shape[d] for d in rest], wide)
        prologue = expression_of((dtype,), (Step("Cast", (0,), wide),), (1,))
        plan.emit(reduce(f"ReduceL{p}", [view], (axis,), norms, plan.machine, prologue))
        strides = [0 if d == axis else norms.strides[rest.index(d)] for d in range(view.rank)]
        norm, steps = plan.located(norms.with_dims(facts.shape, strides)), Steps(plan, facts.shape)
        quotient = steps("Div", steps.cast(x, wide), norm)
        is_zero = steps("Equal", norm, 0.0, dtype="bool")
        steps.cast(steps("Where", is_zero, 0.0, quotient, dtype=wide), dtype, value)
        return True
