"""Gradient of ai.onnx.preview.training: the derivative of a value of the graph, as nodes of the graph.

Backwards from y to the values named by xs: each operator has a rule that takes the derivative of its output
to those of its inputs (reverse-mode differentiation). Gradient asks for the derivative where its inputs say,
so the nodes from xs and zs to y are repeated there; where the inputs are the values themselves, equal nodes
are merged later. Nodes mean what they do at opset 18 and newer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from ingot.errors import UnsupportedOperatorError
from ingot.ops.registry import attr_float, attr_int, attr_str, label
from ingot.passes.edit import Editor, fresh, graphs_added, graphs_of, replace, reserve_names

DOMAIN = "ai.onnx.preview.training"

#: (editor, node, derivative of its output) -> derivatives of its inputs, None where there is none
Rule: TypeAlias = "Callable[[Editor, ir.Node, ir.Value], Sequence[ir.Value | None]]"
_RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: enters a rule for each of the operators."""

    def enter(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def expand_gradients(model: ir.Model) -> int:
    """Replaces every Gradient node, in place; returns how many there were.

    Raises `UnsupportedOperatorError` naming an operator that has no rule.
    """
    nodes = [
        node
        for graph in graphs_of(model)
        for node in graph
        if node.domain == DOMAIN and node.op_type == "Gradient"
    ]
    if nodes:
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
        reserve_names(model)
    for node in nodes:
        replace(node, _gradients(Editor(node), node))
    if nodes:
        graphs_added(model)
    return len(nodes)


def _gradients(g: Editor, node: ir.Node) -> list[ir.Value | None]:
    xs = list(node.attributes["xs"].as_strings())
    zs = list(node.attributes["zs"].as_strings()) if "zs" in node.attributes else []
    places = dict(zip([*xs, *zs], node.inputs, strict=True))
    target = attr_str(node, "y", "")
    found = {v.name: v for other in g.graph for v in other.outputs}
    if target not in found:
        raise UnsupportedOperatorError(f"{label(node)}: no node before it makes y, {target!r}. Name one.")
    values: dict[str, ir.Value] = {name: value for name, value in places.items() if value is not None}
    repeated: list[ir.Node] = []
    result = _repeat(g, found[target], values, repeated)
    one = g.op("CastLike", g.constant(1.0, np.float32), result)
    grads: dict[ir.Value, ir.Value] = {result: g.op("Expand", one, g.op("Shape", result))}
    for step in reversed(repeated):
        grad = grads.get(step.outputs[0])
        if grad is None:
            continue
        function = _RULES.get(step.op_type) if step.domain == "" else None
        if function is None:
            raise UnsupportedOperatorError(
                f"{label(node)}: the derivative of {step.op_type} is not known here. "
                "Compute it with nodes of the model's own."
            )
        for value, part in zip(step.inputs, function(g, step, grad), strict=True):
            if value is not None and part is not None:
                grads[value] = g.op("Add", grads[value], part) if value in grads else part
    return [
        _or_zeros(g, values[x], grads) if out.name else None for x, out in zip(xs, node.outputs, strict=False)
    ]


def _or_zeros(g: Editor, x: ir.Value, grads: dict[ir.Value, ir.Value]) -> ir.Value:
    return grads[x] if x in grads else g.op("Mul", x, g.op("CastLike", g.constant(0.0, np.float32), x))


def _repeat(g: Editor, value: ir.Value, values: dict[str, ir.Value], made: list[ir.Node]) -> ir.Value:
    """`value` computed again from `values`; the nodes for it are appended to `made`, operands first."""
    depends: dict[ir.Value, bool] = {}

    def reaches(current: ir.Value) -> bool:
        """Whether a value depends on those at which the derivative is taken."""
        if current not in depends:
            producer = current.producer()
            depends[current] = current.name in values or (
                producer is not None and any(v is not None and reaches(v) for v in producer.inputs)
            )
        return depends[current]

    def again(current: ir.Value) -> ir.Value:
        if current.name in values:
            return values[current.name]
        producer = current.producer()
        if producer is None or not reaches(current):
            return current
        inputs = [None if v is None else again(v) for v in producer.inputs]
        copy = ir.Node(
            producer.domain,
            producer.op_type,
            inputs,
            list(producer.attributes.values()),
            num_outputs=len(producer.outputs),
            name=fresh(f"{g.node.name}/{producer.op_type}"),
        )
        for old, new in zip(producer.outputs, copy.outputs, strict=True):
            new.name, new.type, new.shape = fresh(f"{g.node.name}/again"), old.type, old.shape
            if old.name:
                values[old.name] = new
        g.graph.insert_before(g.node, copy)
        made.append(copy)
        return copy.outputs[current.index() or 0]

    return again(value)


# ---- rules -----------------------------------------------------------------------------------------------


def _like(g: Editor, number: float, value: ir.Value) -> ir.Value:
    return g.op("CastLike", g.constant(number, np.float32), value)


def _ends(node: ir.Node) -> tuple[Any, ...]:
    """The inputs, then the output."""
    return (*node.inputs, node.outputs[0])


def _summed(g: Editor, grad: ir.Value, operand: ir.Value) -> ir.Value:
    """The sum over those dimensions along which the operand was repeated."""
    wide, own = g.op("Shape", grad), g.op("Shape", operand)
    missing = g.op("Sub", g.op("Shape", wide), g.op("Shape", own))
    padded = g.op("Concat", g.op("Expand", g.ints([1]), missing), own, axis=0)
    repeated = g.op("NonZero", g.op("Not", g.op("Equal", padded, wide)))
    axes = g.op("Squeeze", repeated, g.ints([0]))
    return g.op("Reshape", g.op("ReduceSum", grad, axes, noop_with_empty_axes=1), own)


@rule("Add", "Sum")
def _add(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    return [None if v is None else _summed(g, grad, v) for v in node.inputs]


@rule("Sub")
def _sub(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    a, b, _ = _ends(node)
    return [_summed(g, grad, a), _summed(g, g.op("Neg", grad), b)]


@rule("Mul")
def _mul(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    a, b, _ = _ends(node)
    return [_summed(g, g.op("Mul", grad, b), a), _summed(g, g.op("Mul", grad, a), b)]


@rule("Div")
def _div(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    a, b, y = _ends(node)
    part = g.op("Div", grad, b)
    return [_summed(g, part, a), _summed(g, g.op("Neg", g.op("Mul", part, y)), b)]


@rule("Pow")
def _pow(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    a, b, y = _ends(node)
    less = g.op("Pow", a, g.op("Sub", b, _like(g, 1.0, b)))
    base = g.op("Mul", grad, g.op("Mul", g.op("CastLike", b, a), less))
    exponent = g.op("CastLike", g.op("Mul", grad, g.op("Mul", y, g.op("Log", a))), b)
    return [_summed(g, base, a), _summed(g, exponent, b)]


@rule("Identity")
def _identity(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    return [grad]


@rule("Neg")
def _neg(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    return [g.op("Neg", grad)]


def _by(*names: str) -> Callable[[Callable[[Editor, ir.Node], ir.Value]], object]:
    """A rule for an operator of one input: grad times what the function returns."""

    def enter(function: Callable[[Editor, ir.Node], ir.Value]) -> object:
        return rule(*names)(lambda g, node, grad: [g.op("Mul", grad, function(g, node))])

    return enter


_by("Exp")(lambda g, node: node.outputs[0])
_by("Log")(lambda g, node: g.op("Reciprocal", node.inputs[0]))
_by("Sin")(lambda g, node: g.op("Cos", node.inputs[0]))
_by("Cos")(lambda g, node: g.op("Neg", g.op("Sin", node.inputs[0])))
_by("Abs")(lambda g, node: g.op("Sign", node.inputs[0]))
_by("Softplus")(lambda g, node: g.op("Sigmoid", node.inputs[0]))


@_by("Sqrt")
def _sqrt(g: Editor, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return g.op("Div", _like(g, 0.5, y), y)


@_by("Reciprocal")
def _reciprocal(g: Editor, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return g.op("Neg", g.op("Mul", y, y))


@_by("Tanh")
def _tanh(g: Editor, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return g.op("Sub", _like(g, 1.0, y), g.op("Mul", y, y))


@_by("Sigmoid")
def _sigmoid(g: Editor, node: ir.Node) -> ir.Value:
    y = node.outputs[0]
    return g.op("Mul", y, g.op("Sub", _like(g, 1.0, y), y))


@_by("Erf")
def _erf(g: Editor, node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    bell = g.op("Exp", g.op("Neg", g.op("Mul", x, x)))
    return g.op("Mul", g.op("CastLike", g.constant(2 / np.sqrt(np.pi), np.float64), bell), bell)


@rule("Relu", "LeakyRelu")
def _relu(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    x = node.inputs[0]
    assert x is not None
    slope = attr_float(node, "alpha", 0.01) if node.op_type == "LeakyRelu" else 0.0
    return [
        g.op("Where", g.op("Greater", x, _like(g, 0.0, x)), grad, g.op("Mul", grad, _like(g, slope, grad)))
    ]


@rule("Softmax")
def _softmax(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    y, axes = node.outputs[0], g.ints([attr_int(node, "axis", -1)])
    weighted = g.op("Mul", grad, y)
    return [g.op("Sub", weighted, g.op("Mul", y, g.op("ReduceSum", weighted, axes)))]


@rule("Where")
def _where(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    condition, a, b, _ = _ends(node)
    zero = _like(g, 0.0, grad)
    kept, other = g.op("Where", condition, grad, zero), g.op("Where", condition, zero, grad)
    return [None, _summed(g, kept, a), _summed(g, other, b)]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    back = g.op("Reshape", grad, g.op("Shape", node.inputs[0]), allowzero=1)
    return [back, *[None] * (len(node.inputs) - 1)]


@rule("Expand")
def _expand(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    x, _, _ = _ends(node)
    return [_summed(g, grad, x), None]


@rule("Transpose")
def _transpose(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    given = node.attributes.get("perm")
    perm = None if given is None else [int(i) for i in np.argsort(list(given.as_ints()))]
    return [g.op("Transpose", grad, perm=perm)]


@rule("ReduceSum", "ReduceMean")
def _reduce(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    x, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    keeps = attr_int(node, "keepdims", 1) == 1
    noop = attr_int(node, "noop_with_empty_axes", 0)
    kept = g.op("ReduceSum", x, axes, noop_with_empty_axes=noop)
    grad = grad if keeps else g.op("Reshape", grad, g.op("Shape", kept), allowzero=1)
    if node.op_type == "ReduceMean":
        count = g.op("Div", g.op("Size", x), g.op("Size", kept))
        grad = g.op("Div", grad, g.op("CastLike", count, grad))
    return [g.op("Expand", grad, g.op("Shape", x)), *[None] * (len(node.inputs) - 1)]


def _turned(g: Editor, node: ir.Node, value: ir.Value | None) -> ir.Value:
    """A matrix, or each of a stack of them, transposed; the rank must be declared."""
    rank = None if value is None or value.shape is None else len(value.shape)
    if rank is None or rank < 2:
        raise UnsupportedOperatorError(
            f"{label(node)}: its derivative needs matrices of declared rank. Run onnx.shape_inference."
        )
    return g.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


@rule("MatMul")
def _matmul(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    a, b, _ = _ends(node)
    left = g.op("MatMul", grad, _turned(g, node, b))
    right = g.op("MatMul", _turned(g, node, a), grad)
    return [_summed(g, left, a), _summed(g, right, b)]


@rule("Gemm")
def _gemm(g: Editor, node: ir.Node, grad: ir.Value) -> Sequence[ir.Value | None]:
    a, b = node.inputs[:2]
    c = node.inputs[2] if len(node.inputs) > 2 else None
    alpha, beta = attr_float(node, "alpha", 1.0), attr_float(node, "beta", 1.0)
    ta, tb = attr_int(node, "transA", 0), attr_int(node, "transB", 0)
    if ta:
        left = g.op("Gemm", b, grad, alpha=alpha, transA=tb, transB=1)
    else:
        left = g.op("Gemm", grad, b, alpha=alpha, transB=1 - tb)
    if tb:
        right = g.op("Gemm", grad, a, alpha=alpha, transA=1, transB=ta)
    else:
        right = g.op("Gemm", a, grad, alpha=alpha, transA=1 - ta)
    rest = [] if len(node.inputs) < 3 else [None]
    if c is not None:
        rest = [_summed(g, g.op("Mul", grad, _like(g, beta, grad)), c)]
    return [left, right, *rest]
