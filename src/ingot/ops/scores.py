"""What classifiers and regressors of ai.onnx.ml do with the scores of a row: transforms, a second class,
labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.compose import computed, deliver, integer, settled
from ingot.ops.lowering import Lowering, Steps
from ingot.ops.numeric import INT64, STRING
from ingot.ops.registry import Array, Facts, attr_ints, label

#: In the order of TreeEnsemble's numbers.
SCORE_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
#: Of smaller scores SOFTMAX_ZERO takes no exponential.
_ZERO = 1e-7
_WINITZKI = 0.147


def transform_of(node: ir.Node) -> str:
    """The attribute post_transform; raises ModelError for a name that there is not."""
    attribute = node.attributes.get("post_transform")
    name = "NONE" if attribute is None else attribute.as_string()
    if name not in SCORE_TRANSFORMS:
        raise ModelError(f"{label(node)}: post_transform {name!r} is none of {', '.join(SCORE_TRANSFORMS)}.")
    return name


def transformed(scores: Array, transform: str) -> Array:
    """A transform of rows [N, scores], float64. A row of one score is only ever transformed by PROBIT, as in
    onnxruntime.
    """
    if not scores.size or (scores.shape[1] == 1 and transform != "PROBIT"):
        return scores
    with np.errstate(all="ignore"):
        if transform == "LOGISTIC":
            return logistic(scores)
        if transform == "PROBIT":
            return _probit(scores)
        if transform in ("SOFTMAX", "SOFTMAX_ZERO"):
            largest: Array = scores.max(1, keepdims=True)
            e: Array = np.exp(scores - largest)
            if transform == "SOFTMAX":
                return e / e.sum(1, keepdims=True)
            near: Array = np.abs(scores) <= _ZERO
            total: Array = np.where(near, 0.0, e).sum(1, keepdims=True)
            return np.where(near, scores * np.exp(-largest), e) / np.where(total == 0, 1.0, total)
    return scores


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def _probit(p: Array) -> Array:
    """√2 · erf⁻¹(2 p - 1), with Winitzki's approximation of erf⁻¹ that runtimes share (to 2e-3)."""
    x = 2 * p - 1
    log = np.log((1 - x) * (1 + x))
    v = 2 / (np.pi * _WINITZKI) + 0.5 * log
    return np.sqrt(2.0) * np.sign(x) * np.sqrt(np.sqrt(v * v - log / _WINITZKI) - v)


def lower_scores(plan: Lowering, scores: ir.Value, value: ir.Value | None, transform: str) -> ir.Value:
    """`transformed` by kernels, in `value` where it is given."""
    facts = plan.facts(scores)
    if facts.shape[1] == 1 and transform != "PROBIT":
        transform = "NONE"
    if transform == "LOGISTIC":
        scores = computed(plan, "Sigmoid", [scores], facts.shape, facts.dtype)
    elif transform == "SOFTMAX":
        scores = computed(plan, "Softmax", [scores], facts.shape, facts.dtype, [integer("axis", -1)])
    elif transform == "SOFTMAX_ZERO":
        scores = _lower_softmax_zero(plan, settled(plan, scores))
    elif transform == "PROBIT":
        scores = _lower_probit(plan, scores)
    if value is not None:
        deliver(plan, value, scores)
    return scores


def _lower_softmax_zero(plan: Lowering, scores: ir.Value) -> ir.Value:
    facts = plan.facts(scores)
    rows, dtype = (facts.shape[0], 1), facts.dtype.name
    if not math.prod(facts.shape):
        return scores
    each, own, axes = Steps(plan, facts.shape), Steps(plan, rows), plan.known(np.array([1]))
    largest = settled(plan, computed(plan, "ReduceMax", [scores, axes], rows, facts.dtype))
    e = each.stored(each("Exp", each("Sub", scores, largest)))
    near = each.stored(each("LessOrEqual", each("Abs", scores), _ZERO, dtype="bool"))
    terms = each("Where", near, 0.0, e, dtype=dtype)
    total = settled(plan, computed(plan, "ReduceSum", [terms, axes], rows, facts.dtype))
    nothing = own("Equal", total, 0.0, dtype="bool")
    total = own.stored(own("Where", nothing, 1.0, total, dtype=dtype))
    small = each("Mul", scores, own.stored(own("Exp", own("Neg", largest))))
    return each("Div", each("Where", near, small, e, dtype=dtype), total)


def _lower_probit(plan: Lowering, scores: ir.Value) -> ir.Value:
    """In float64: the difference of two roots that are almost alike."""
    facts = plan.facts(scores)
    steps = Steps(plan, facts.shape)
    x = steps.stored(steps("Sub", steps("Mul", steps.cast(scores, "float64"), 2.0), 1.0))
    log = steps("Log", steps("Mul", steps("Add", steps("Neg", x), 1.0), steps("Add", x, 1.0)))
    log = steps.stored(log)
    v = steps.stored(steps("Add", steps("Mul", log, 0.5), 2 / (math.pi * _WINITZKI)))
    root = steps("Sqrt", steps("Sub", steps("Mul", v, v), steps("Div", log, _WINITZKI)))
    size = steps("Sqrt", steps("Sub", root, v))
    return steps.cast(steps("Mul", steps("Mul", size, steps("Sign", x)), math.sqrt(2.0)), facts.dtype.name)


class Classifier:
    """Labels and scores from the numbers of each row; for classes whose nodes have them as attributes."""

    def labels(self, node: ir.Node) -> Array | None:
        """The class labels, int64 or strings; None where the node names none."""
        for name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
            attribute = node.attributes.get(name)
            if attribute is not None and len(attribute.value):
                if attribute.type == ir.AttributeType.STRINGS:
                    return np.array(list(attribute.as_strings()), object)
                return np.array(attr_ints(node, name), INT64)
        return None

    def classes(self, node: ir.Node) -> int:
        """How many labels there are."""
        labels = self.labels(node)
        return 0 if labels is None else len(labels)

    def label_facts(self, node: ir.Node, rows: int) -> Facts:
        """Of the first output."""
        labels = self.labels(node)
        return Facts(STRING if labels is not None and labels.dtype == object else INT64, (rows,))


def chosen(labels: Array, index: Array) -> Array:
    """The labels at these places."""
    return labels[index] if len(index) else labels[:0]


def lower_largest(plan: Lowering, scores: ir.Value, labels: Array, value: ir.Value) -> None:
    """The integer label of each row's first largest score, as `value`."""
    rows = plan.facts(scores).shape[0]
    attributes = [integer("axis", 1), integer("keepdims", 0)]
    index = computed(plan, "ArgMax", [scores], (rows,), INT64, attributes)
    if not np.array_equal(labels, np.arange(len(labels))):
        index = computed(plan, "Gather", [plan.known(labels), index], (rows,), INT64, [integer("axis", 0)])
    deliver(plan, value, index)


def lower_two(plan: Lowering, score: ir.Value, bound: float, labels: Sequence[int], value: ir.Value) -> None:
    """labels[1] where the only score [N, 1] of a row is above `bound`, else labels[0], as `value` [N]."""
    facts = plan.facts(score)
    rows = (facts.shape[0],)
    flat = plan.located(plan.view(score).with_dims(rows, plan.view(score).strides[:1]))
    above = computed(plan, "Greater", [flat, plan.known(np.array(bound, facts.dtype))], rows, np.bool_)
    low, high = (plan.known(np.array(v, INT64)) for v in labels)
    deliver(plan, value, computed(plan, "Where", [above, high, low], rows, INT64))


def lower_beside(
    plan: Lowering, first: ir.Value, second: ir.Value, value: ir.Value, transform: str = "NONE"
) -> None:
    """Two columns [N, 1] next to each other, as `value` [N, 2]; PROBIT is the transform of both alone."""
    facts = plan.facts(first)
    shape = (facts.shape[0], 2)
    both = computed(plan, "Concat", [first, second], shape, facts.dtype, [integer("axis", 1)])
    deliver(plan, value, _lower_probit(plan, both) if transform == "PROBIT" else both)


def arithmetic(plan: Lowering, op: str, a: ir.Value, b: ir.Value | float) -> ir.Value:
    """An elementwise operator of a value and another one or a number, of the first one's shape and dtype."""
    facts = plan.facts(a)
    other = b if isinstance(b, ir.Value) else plan.known(np.array(b, facts.dtype))
    return computed(plan, op, [a, other], facts.shape, facts.dtype)


Columns = tuple[ir.Value, ir.Value]


def lower_second_class(plan: Lowering, score: ir.Value, sign: bool, sigmoid: bool) -> Columns:
    """The scores of two classes of which only the second has one, s [N, 1]: 1 - s and s; -s and s by `sign`;
    their logistic functions by `sigmoid`.
    """
    facts = plan.facts(score)
    score = settled(plan, score)
    if sign or sigmoid:
        first = computed(plan, "Neg", [score], facts.shape, facts.dtype)
    else:
        one: Any = plan.known(np.array(1, facts.dtype))
        first = computed(plan, "Sub", [one, score], facts.shape, facts.dtype)
    if not sigmoid:
        return first, score
    return (
        computed(plan, "Sigmoid", [first], facts.shape, facts.dtype),
        computed(plan, "Sigmoid", [score], facts.shape, facts.dtype),
    )


def second_class(score: Array, sign: bool, sigmoid: bool) -> Array:
    """The same by NumPy: [N, 2] from [N, 1]."""
    if sigmoid:
        return np.concatenate([logistic(-score), logistic(score)], 1)
    return np.concatenate([-score if sign else 1 - score, score], 1)
