"""LayerNormalization and RMSNormalization, as frameworks without the operators spell them."""

from __future__ import annotations

import onnx_ir as ir

from ingot.ops.registry import attr_int
from ingot.passes.edit import constant_of, constant_shape, ints_of, scalar_of
from ingot.passes.rewrite import Result, Rewriting, adds_no_dimensions, either_way, made_by, only_use, rule


def _mean(value: ir.Value | None) -> tuple[ir.Value, tuple[int, ...]] | None:
    """(x, axes) of a mean that keeps its dimensions."""
    node = made_by(value, "ReduceMean")
    if node is None or len(node.inputs) < 2 or node.inputs[0] is None or not attr_int(node, "keepdims", 1):
        return None
    axes = ints_of(node.inputs[1])
    return None if not axes else (node.inputs[0], axes)


def _square(value: ir.Value | None) -> ir.Value | None:
    """x of x · x or x²."""
    node = made_by(value, "Mul", "Pow")
    if node is None:
        return None
    if node.op_type == "Mul":
        return node.inputs[0] if node.inputs[0] is node.inputs[1] else None
    return node.inputs[0] if scalar_of(node.inputs[1]) == 2 else None


def _over_root(value: ir.Value) -> tuple[ir.Value, ir.Value, float] | None:
    """(x, v, epsilon) of x / sqrt(v + epsilon), however it is written."""
    node = made_by(value, "Div", "Mul")
    if node is None:
        return None
    pairs = [(node.inputs[0], node.inputs[1])] if node.op_type == "Div" else list(either_way(node))
    for x, root in pairs:
        inner = made_by(root, "Sqrt")
        if node.op_type == "Mul":
            reciprocal = made_by(root, "Reciprocal", "Pow", "Div")
            if reciprocal is None:
                continue
            if reciprocal.op_type == "Pow":
                inner = reciprocal if scalar_of(reciprocal.inputs[1]) == -0.5 else None
            elif reciprocal.op_type == "Div":
                inner = (
                    made_by(reciprocal.inputs[1], "Sqrt") if scalar_of(reciprocal.inputs[0]) == 1 else None
                )
            else:
                inner = made_by(reciprocal.inputs[0], "Sqrt")
        addition = None if inner is None else made_by(inner.inputs[0], "Add")
        if addition is None or x is None:
            continue
        for variance, constant in either_way(addition):
            epsilon = scalar_of(constant)
            if epsilon is not None and epsilon >= 0:
                return x, variance, epsilon
    return None


def _normalised_axis(g: Rewriting, x: ir.Value, axes: tuple[int, ...], scale: ir.Value) -> int | str:
    """The first of `axes` counted from the end, where they are the last ones and the scale is of their
    shape.
    """
    shape = constant_shape(scale)
    array = None if shape is None else constant_of(scale)
    if shape is None or array is None:
        return "the scale is not a constant"
    if array.dtype.itemsize > 4 or array.dtype.kind == "i":
        return f"the operator computes in float32, and the scale is {array.dtype}"
    dims = g.dims.of(x)
    if any(axis >= 0 for axis in axes):
        if dims is None:
            return "the rank of its input is unknown"
        axes = tuple(axis - len(dims) if axis >= 0 else axis for axis in axes)
    count = len(axes)
    if sorted(axes) != list(range(-count, 0)):
        return "it does not normalise the last dimensions"
    if dims is None or dims[len(dims) - count :] != shape:
        return f"the last dimensions are not proved to be the scale's {list(shape)}"
    return -count


@rule("Mul", since=17, needs=("ReduceMean",))
def layer_norm(g: Rewriting, node: ir.Node) -> Result:
    """(x - mean(x)) / sqrt(mean((x - mean(x))²) + ε) · s == LayerNormalization(x, s)."""
    for normalised, scale in either_way(node):
        found = _over_root(normalised)
        if found is None:
            continue
        centred, variance, epsilon = found
        difference, spread = made_by(centred, "Sub"), _mean(variance)
        if difference is None or spread is None or _square(spread[0]) is not centred:
            continue
        x, mean = difference.inputs[0], _mean(difference.inputs[1])
        if x is None or mean is None or mean[0] is not x or mean[1] != spread[1]:
            continue
        if not only_use(normalised):
            return "the normalised value is used elsewhere, too"
        axis = _normalised_axis(g, x, mean[1], scale)
        if isinstance(axis, str):
            return axis
        if not adds_no_dimensions(g, x, node):
            return "its constants may add dimensions"
        return [g.op("LayerNormalization", x, scale, axis=axis, epsilon=epsilon)]
    return None


@rule("Add", since=17, needs=("LayerNormalization",))
def layer_norm_bias(g: Rewriting, node: ir.Node) -> Result:
    """LayerNormalization(x, s) + b == LayerNormalization(x, s, b)."""
    for normalised, bias in either_way(node):
        norm = made_by(normalised, "LayerNormalization")
        if norm is None or len(norm.outputs) > 1 or (len(norm.inputs) > 2 and norm.inputs[2] is not None):
            continue
        if not only_use(normalised):
            return "the normalised value is used elsewhere, too"
        shape = constant_shape(bias)
        if shape is None or shape != constant_shape(norm.inputs[1]):
            return "the bias is not a constant of the scale's shape"
        attributes = {key: attribute.value for key, attribute in norm.attributes.items()}
        return [g.op("LayerNormalization", norm.inputs[0], norm.inputs[1], bias, **attributes)]
    return None


@rule("Mul", since=23, needs=("ReduceMean",))
def rms_norm(g: Rewriting, node: ir.Node) -> Result:
    """x / sqrt(mean(x²) + ε) · s == RMSNormalization(x, s)."""
    for normalised, scale in either_way(node):
        found = _over_root(normalised)
        spread = None if found is None else _mean(found[1])
        if found is None or spread is None or _square(spread[0]) is not found[0]:
            continue
        if not only_use(normalised):
            return "the normalised value is used elsewhere, too"
        axis = _normalised_axis(g, found[0], spread[1], scale)
        if isinstance(axis, str):
            return axis
        if not adds_no_dimensions(g, found[0], node):
            return "its constants may add dimensions"
        return [g.op("RMSNormalization", found[0], scale, axis=axis, epsilon=found[2])]
    return None


RULES = (layer_norm, layer_norm_bias, rms_norm)
