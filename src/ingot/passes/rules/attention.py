"""Scaled dot-product attention, as exporters spell it below opset 23."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ingot.ops.registry import attr_int, attr_ints
from ingot.passes.dims import fits
from ingot.passes.edit import constant_of, ints_of, scalar_of
from ingot.passes.rewrite import Result, Rewriting, either_way, made_by, only_use, rule


def _scaled(value: ir.Value | None, scale: float) -> tuple[ir.Value | None, float]:
    """The value without the constant factors on it, and the product of those with `scale`."""
    while value is not None:
        node = made_by(value, "Mul", "Div")
        if node is None or not only_use(value):
            break
        b = scalar_of(node.inputs[1])
        a = scalar_of(node.inputs[0]) if node.op_type == "Mul" else None
        if b is not None and (node.op_type == "Mul" or b != 0):
            value, scale = node.inputs[0], (scale * b if node.op_type == "Mul" else scale / b)
        elif a is not None:
            value, scale = node.inputs[1], scale * a
        else:
            break
    return value, scale


def _weights(value: ir.Value) -> ir.Node | None:
    """The Softmax, also through the guard Where(IsNaN(p), 0, p): a row with nothing to attend to is 0
    either way.
    """
    guard = made_by(value, "Where")
    if guard is not None:
        nan, p = made_by(guard.inputs[0], "IsNaN"), guard.inputs[2]
        if nan is None or nan.inputs[0] is not p or scalar_of(guard.inputs[1]) != 0 or p is None:
            return None
        return made_by(p, "Softmax") if len(p.uses()) == 2 and not p.is_graph_output() else None
    return made_by(value, "Softmax") if only_use(value) else None


@rule("MatMul", since=23, needs=("Softmax",))
def attention(g: Rewriting, node: ir.Node) -> Result:
    """Softmax(c · q @ kᵀ + mask) @ v == Attention(q, k, v, mask; scale=c), for q, k, v of rank 4.

    A row whose scores are all -inf is 0 in Attention, as it is there when guarded; without a guard it is NaN
    there: then a session gets ingot.SoftmaxAttention, and a file keeps the pattern unless the mask surely
    leaves every row something. The guard stands for masked rows alone: of a row with NaN or +inf in its
    scores it makes 0, and Attention makes NaN.
    """
    weights, v = node.inputs
    guarded = weights is not None and made_by(weights, "Where") is not None
    softmax = None if weights is None else _weights(weights)
    if weights is None or v is None or softmax is None or not only_use(weights):
        return None
    scores = softmax.inputs[0]
    assert scores is not None
    if attr_int(softmax, "axis", -1) not in (-1, 3):
        return "the softmax is not along the last axis"
    product, mask = scores, None
    branch = made_by(scores, "Add", "Where")
    if branch is not None and branch.op_type == "Add":
        for side, other in either_way(branch):
            inner, _ = _scaled(side, 1.0)
            if made_by(inner, "MatMul") is not None and only_use(scores):
                product, mask = side, other
                break
    elif branch is not None:
        filled = scalar_of(branch.inputs[2])
        if filled != float("-inf"):
            return "what is masked is not -inf"
        product, mask = branch.inputs[1], branch.inputs[0]
    product, scale = _scaled(product, 1.0)
    matmul = made_by(product, "MatMul")
    if matmul is None or product is None or not only_use(product) or not only_use(scores):
        return None
    q, scale = _scaled(matmul.inputs[0], scale)
    transposed, scale = _scaled(matmul.inputs[1], scale)
    perm = _key_transpose(transposed)
    if perm is None:
        return "the key is not transposed"
    shapes = [g.dims.of(x) for x in (q, transposed, v)]
    if None in shapes:
        return "the ranks of query, key and value are not all known"
    query, columns, value = (shape for shape in shapes if shape is not None)
    if not len(query) == len(columns) == len(value) == 4:
        return "query, key and value are not all of rank 4"
    key = (columns[0], columns[1], columns[3], columns[2])
    if scale <= 0:
        return "its scale is not positive"
    if query[1] != key[1] or key[1] != value[1]:
        return "query, key and value are not proved to have as many heads"
    if g.standard:
        if not query[0] == key[0] == value[0]:
            return "query, key and value are not proved to be of one batch"
        outer = (query[0], query[1], query[2], key[2])
        shape = g.dims.of(mask)
        if mask is not None and (shape is None or not fits(shape, outer)):
            return "the mask is not proved to broadcast to the scores"
    shape = None if mask is None else g.dims.of(mask)
    if mask is not None and (shape is None or not 1 <= len(shape) <= 4):
        return "the rank of the mask is not known"
    nan_rows = mask is not None and not guarded and not _leaves_every_row_something(mask)
    if nan_rows and g.standard:
        return "a row that is masked whole would be 0 and not NaN"
    assert transposed is not None
    source = transposed.producer()
    assert source is not None
    k = source.inputs[0]
    if perm != [0, 1, 2, 3]:
        k = g.op("Transpose", k, perm=perm)
    if shape is not None and shape[-1] != key[2]:
        # The operator takes a last dimension of 1 for a mask that ends after the first key.
        length = g.op("Shape", k, start=2, end=3)
        mask = g.op("Expand", mask, length)
    if nan_rows:
        return [g.op("SoftmaxAttention", q, k, v, mask, domain="ingot", scale=scale)]
    return [g.op("Attention", q, k, v, mask, scale=scale)]


def _leaves_every_row_something(mask: ir.Value) -> bool:
    """Whether no row of it is -inf (or False) everywhere: such a constant, or one kept above a number."""
    node = made_by(mask, "Expand", "Where", "Max")
    if node is not None and node.op_type == "Expand" and node.inputs[0] is not None:
        return _leaves_every_row_something(node.inputs[0])
    if node is not None:
        numbers = [scalar_of(value) for value in node.inputs[1 if node.op_type == "Where" else 0 :]]
        finite = [number is not None and math.isfinite(number) for number in numbers]
        return all(finite) if node.op_type == "Where" else any(finite)
    array = constant_of(mask)
    if array is None or not array.ndim:
        return False
    allowed = array if array.dtype == np.bool_ else ~np.isneginf(array.astype(np.float64))
    return bool(allowed.any(-1).all())


def _key_transpose(value: ir.Value | None) -> list[int] | None:
    """How the input of the Transpose that made kᵀ is to be transposed to give k."""
    node = made_by(value, "Transpose")
    perm = None if node is None else attr_ints(node, "perm")
    return None if perm is None or len(perm) != 4 else [perm[0], perm[1], perm[3], perm[2]]


def _live_rows(value: ir.Value, is_truth: bool) -> ir.Value | None:
    """The mask whose rows this says to be 1 where a key is left, 0 where none is: the largest of truth values
    as numbers, or whether the largest addend is not -inf.
    """
    node = made_by(value, "ReduceMax" if is_truth else "Cast")
    if node is not None and not is_truth:
        unequal = made_by(node.inputs[0], "Not")
        equal = None if unequal is None else made_by(unequal.inputs[0], "Equal")
        if equal is None or scalar_of(equal.inputs[1]) != -math.inf:
            return None
        node = made_by(equal.inputs[0], "ReduceMax")
    if (
        node is None
        or not attr_int(node, "keepdims", 1)
        or len(node.inputs) < 2
        or ints_of(node.inputs[1]) != (-1,)
    ):
        return None
    cast = made_by(node.inputs[0], "Cast")
    return node.inputs[0] if not is_truth else None if cast is None else cast.inputs[0]


@rule("Mul", since=23, needs=("Attention",))
def masked_rows_are_zero(g: Rewriting, node: ir.Node) -> Result:
    """Attention(q, k, v, m or low) · (is any of m left) == Attention(q, k, v, m).

    A masked key has a low number for its bias, at most -1e30, which no score makes up for.
    """
    for y, live in either_way(node):
        found = made_by(y, "Attention")
        if found is None or len(found.inputs) != 4 or len(found.outputs) > 1:
            continue
        given = found.inputs[3]
        expansion = made_by(given, "Expand")
        inner = made_by(given if expansion is None else expansion.inputs[0], "Where", "Max")
        mask = None if inner is None else _live_rows(live, inner.op_type == "Where")
        if inner is None or mask is None:
            continue
        if not only_use(y):
            return "the rows are used elsewhere, too"
        if inner.inputs[0] is not mask:
            return "the mask is another"
        low = scalar_of(inner.inputs[-1])
        if low is None or low > -1e30 or not _is_masking(inner):
            return "what is masked does not get a low number"
        if any(attr_int(found, name, unset) != unset for name, unset in _HIDING):
            return "more than the mask hides keys"
        if expansion is not None:
            mask = g.op("Expand", mask, expansion.inputs[1])
        attributes = {key: attribute.value for key, attribute in found.attributes.items()}
        return [g.op("Attention", *found.inputs[:3], mask, **attributes)]
    return None


#: Attributes that hide keys, with what they are where they do not.
_HIDING = (("is_causal", 0), ("left_window_size", -1), ("right_window_size", -1))


def _is_masking(node: ir.Node) -> bool:
    """Where(mask, 0, low) or Max(mask, low)."""
    return scalar_of(node.inputs[1]) == 0 if node.op_type == "Where" else len(node.inputs) == 2


RULES = (attention, masked_rows_are_zero)
