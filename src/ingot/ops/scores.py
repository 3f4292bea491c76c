"""What classifiers and regressors of ai.onnx.ml do with the scores of a row: transforms, a second class,
labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.compose import computed, deliver, integer, settled
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import INT64, STRING
from ingot.ops.registry import Array, Facts, attr_ints, label

#: In the order of TreeEnsemble's numbers.
SCORE_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_F32 = np.dtype(np.float32)
#: Of smaller scores SOFTMAX_ZERO takes no exponential.
_ZERO = 1e-7


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
    v = 2 / (np.pi * 0.147) + 0.5 * log
    return np.sqrt(2.0) * np.sign(x) * np.sqrt(-v + np.sqrt(v * v - log / 0.147))


def lower_scores(plan: Lowering, scores: ir.Value, value: ir.Value | None, transform: str) -> ir.Value | None:
    """`transformed` by kernels, in `value` where it is given; None where there are none for this
    transform.
    """
    facts = plan.facts(scores)
    if facts.shape[1] == 1 and transform != "PROBIT":
        transform = "NONE"
    if transform == "LOGISTIC":
        scores = computed(plan, "Sigmoid", [scores], facts.shape, facts.dtype)
    elif transform == "SOFTMAX":
        scores = computed(plan, "Softmax", [scores], facts.shape, facts.dtype, [integer("axis", -1)])
    elif transform != "NONE":
        return None
    if value is not None:
        deliver(plan, value, scores)
    return scores


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


def lower_beside(plan: Lowering, first: ir.Value, second: ir.Value, value: ir.Value) -> None:
    """Two columns [N, 1] next to each other, as `value` [N, 2]."""
    facts = plan.facts(first)
    shape = (facts.shape[0], 2)
    deliver(plan, value, computed(plan, "Concat", [first, second], shape, facts.dtype, [integer("axis", 1)]))


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
