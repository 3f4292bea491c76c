"""Losses: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.codegen.elements import FLOATS
from ingot.kernels.call import View
from ingot.kernels.gather import gather, gather_elements
from ingot.kernels.reduce import reduce
from ingot.kernels.softmax import softmax
from ingot.ops.index import checked_indices
from ingot.ops.lowering import Lowering, Steps, dtype_of, wide_of
from ingot.ops.numeric import rounded, widen
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    attr_str,
    first_input,
    given,
    label,
    need,
    present,
    register,
    shape_error,
    show,
)


def _ignored(node: ir.Node) -> int | None:
    return attr_int(node, "ignore_index", 0) if "ignore_index" in node.attributes else None


class _Loss(Op):
    """-weight[target] · score[target], of scores [N, C, places...] and targets [N, places...]; summed, as it
    is, or divided by the sum of the weights. A target `ignore_index` counts for nothing.
    """

    def scores(self, x: Array) -> Array:
        """What is looked up, in float64."""
        raise NotImplementedError

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """The targets' shape, or a scalar; then the scores'."""
        x, target = need(node, inputs, 0), need(node, inputs, 1)
        weight: Facts | None = given(inputs, 2)
        if len(x.shape) < 2 or target.shape != (x.shape[0], *x.shape[2:]):
            raise shape_error(node, f"scores {show(x.shape)} do not fit targets {show(target.shape)}")
        if weight is not None and weight.shape != x.shape[1:2]:
            raise shape_error(node, f"{show(weight.shape)} are not {x.shape[1]} weights")
        shape = target.shape if attr_str(node, "reduction", "mean") == "none" else ()
        outputs: list[Facts | None] = [Facts(x.dtype, shape), Facts(x.dtype, x.shape)]
        return outputs[: len(node.outputs)]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """One look-up for all targets."""
        x, target, weight = present(inputs, 0), present(inputs, 1), given(inputs, 2)
        reduction, ignored = attr_str(node, "reduction", "mean"), _ignored(node)
        with np.errstate(all="ignore"):
            scores = self.scores(widen(x))
            counts = np.ones(target.shape, bool) if ignored is None else target != ignored
            safe = checked_indices(node, np.where(counts, target, 0), x.shape[1], from_end=False)
            share = np.where(counts, 1.0 if weight is None else widen(weight)[safe], 0.0)
            taken = np.take_along_axis(scores, safe[:, None].astype(np.int64), 1)[:, 0]
            loss = np.where(counts, -taken * share, 0.0)
            if reduction == "mean":
                loss = loss.sum() / share.sum()
            elif reduction == "sum":
                loss = loss.sum()
        return [rounded(loss, x.dtype), rounded(scores, x.dtype)][: len(node.outputs)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Gathers of scores and weights, steps, and the sums."""
        values = [*node.inputs, None][:3]
        x, target = first_input(node), values[1]
        assert target is not None
        facts, machine = plan.facts(x), plan.machine
        dtype, shape = facts.dtype.name, plan.facts(target).shape
        index = plan.facts(target).dtype.name
        if dtype not in FLOATS or index not in ("int32", "int64") or 0 in facts.shape:
            return False
        scores, wide = self.lower_scores(node, plan, x), wide_of(dtype)
        steps, ignored = Steps(plan, shape), _ignored(node)
        message = f"{label(node)}: a target is no class. Check the targets, and ignore_index."
        safe = target
        counts: ir.Value | None = None
        if ignored is not None:
            counts = steps.stored(steps("Not", steps("Equal", target, ignored, dtype="bool")))
            safe = steps("Where", counts, target, 0, dtype=index)
        places, flag = plan.view(safe), plan.check(message)
        own = (shape[0], 1, *shape[1:])
        found = plan.temporary(own, facts.dtype)
        where = places.with_dims(own, (places.strides[0], 0, *places.strides[1:]))
        plan.emit(gather_elements(scores, where, 1, found, flag, machine, from_end=False))
        taken = plan.located(found.with_dims(shape, (found.strides[0], *found.strides[2:])))
        share = steps.number(1.0, wide)
        if values[2] is not None:
            weights = plan.view(values[2])
            each = plan.temporary(shape, weights.dtype)
            plan.emit(gather(weights, places, 0, each, flag, machine, from_end=False))
            share = steps.cast(plan.located(each), wide)
        if counts is not None:
            share = steps("Where", counts, share, 0.0, dtype=wide)
        reduction, value = attr_str(node, "reduction", "mean"), node.outputs[0]
        share = steps.stored(share) if reduction == "mean" else share
        loss = steps("Neg", steps("Mul", steps.cast(taken, wide), share))
        if counts is not None:
            loss = steps("Where", counts, loss, 0.0, dtype=wide)
        if reduction == "none":
            steps.cast(loss, dtype, value)
            return True
        totals: list[View] = []
        for terms in (loss, share) if reduction == "mean" else (loss,):
            totals.append(plan.temporary((), dtype_of(wide)))
            plan.emit(reduce("ReduceSum", [plan.view(terms)], range(len(shape)), totals[-1], machine))
        last = Steps(plan, ())
        result = plan.located(totals[0])
        if reduction == "mean":
            result = last("Div", result, plan.located(totals[1]))
        last.cast(result, dtype, value)
        return True

    def lower_scores(self, node: ir.Node, plan: Lowering, x: ir.Value) -> View:
        """Where the scores lie."""
        raise NotImplementedError


@register("NegativeLogLikelihoodLoss", since=22)
class NegativeLogLikelihoodLoss(_Loss):
    """Of logarithms of probabilities."""

    def scores(self, x: Array) -> Array:
        """As they are."""
        return x

    def lower_scores(self, node: ir.Node, plan: Lowering, x: ir.Value) -> View:
        """Where they are."""
        del node
        return plan.view(x)


@register("SoftmaxCrossEntropyLoss", since=13)
class SoftmaxCrossEntropyLoss(_Loss):
    """Of log(softmax(x)) over the classes, which is the second output."""

    def scores(self, x: Array) -> Array:
        """Without leaving the logarithm."""
        x = x - x.max(1, keepdims=True)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    def lower_scores(self, node: ir.Node, plan: Lowering, x: ir.Value) -> View:
        """A kernel, into the second output where it is wanted."""
        view, facts = plan.view(x), plan.facts(x)
        wanted = len(node.outputs) > 1
        out = plan.output(node.outputs[1]) if wanted else plan.temporary(facts.shape, facts.dtype)
        plan.emit(softmax(view, out, 1, plan.machine, log=True))
        return out
