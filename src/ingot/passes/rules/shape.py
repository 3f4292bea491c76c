"""Nodes that only move or relabel elements: those that do nothing go, neighbours become one."""

from __future__ import annotations

import onnx_ir as ir

from ingot.ops.numeric import is_float
from ingot.ops.registry import attr_int, attr_ints, attr_str
from ingot.passes.edit import constant_of, constant_shape, dtype_of, ints_of, scalar_of
from ingot.passes.rewrite import Result, Rewriting, made_by, only_use, rule

#: An end that no dimension reaches.
_END = (1 << 63) - 1


@rule("Identity", "Dropout")
def identity(g: Rewriting, node: ir.Node) -> Result:
    """Identity(x) == Dropout(x) == x."""
    if node.op_type == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        flag = constant_of(training)
        if training is not None and (flag is None or bool(flag.any())):
            return "it may be in training mode"
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            return "its mask is used"
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if y.is_graph_output() and (
        x.is_graph_input() or x.is_graph_output() or x.is_initializer() or x.graph is not y.graph
    ):
        # A graph output must be the result of a node of its own.
        return (
            None if node.op_type == "Identity" else [g.op("Identity", x), *[None] * (len(node.outputs) - 1)]
        )
    return [x, *[None] * (len(node.outputs) - 1)]


@rule("Cast", "CastLike")
def cast_to_itself(g: Rewriting, node: ir.Node) -> Result:
    """Cast(x, to=dtype of x) == x."""
    del g
    source = dtype_of(node.inputs[0])
    if node.op_type == "Cast":
        target = ir.DataType(attr_int(node, "to", 0))
        same = source is not None and target != ir.DataType.STRING and target.numpy() == source
    else:
        wanted = dtype_of(node.inputs[1])  # None equals float64 in NumPy's eyes
        same = source is not None and wanted is not None and wanted == source
    return [node.inputs[0]] if same else None


@rule("Transpose")
def transposes(g: Rewriting, node: ir.Node) -> Result:
    """Transpose(Transpose(x, p), q) == Transpose(x, p∘q); Transpose(x, 0 1 2 …) == x."""
    x, perm = node.inputs[0], attr_ints(node, "perm")
    if perm is None:
        return None
    if perm == tuple(range(len(perm))):
        return [x]
    inner = made_by(x, "Transpose")
    first = None if inner is None else attr_ints(inner, "perm")
    if inner is None or first is None:
        return None
    return [g.op("Transpose", inner.inputs[0], perm=[first[i] for i in perm])]


@rule("Reshape")
def reshapes(g: Rewriting, node: ir.Node) -> Result:
    """Reshape(Reshape(x, s), t) == Reshape(x, t), also after Flatten, Squeeze and Unsqueeze."""
    inner = made_by(node.inputs[0], "Reshape", "Flatten", "Squeeze", "Unsqueeze")
    if inner is None:
        return None
    wanted = ints_of(node.inputs[1])
    if wanted is None:
        return "its shape is not a constant, and a 0 in it would copy another size"
    if 0 in wanted and not attr_int(node, "allowzero", 0):
        return "its shape copies a size of the value between"
    return [
        g.op("Reshape", inner.inputs[0], node.inputs[1], allowzero=attr_int(node, "allowzero", 0) or None)
    ]


@rule("Reshape", "Expand", "Tile", "Pad", "Slice", "Concat", "Flatten")
def no_operation(g: Rewriting, node: ir.Node) -> Result:
    """A reshape to the shape that is there, an expansion by 1, a padding by 0, a concatenation of one … ==
    x.
    """
    x = node.inputs[0]
    if node.op_type == "Concat":
        return [x] if len(node.inputs) == 1 else None
    if node.op_type == "Pad":
        pads = ints_of(node.inputs[1])
        return [x] if pads is not None and not any(pads) else None
    if node.op_type == "Tile":
        repeats = ints_of(node.inputs[1])
        return [x] if repeats is not None and all(n == 1 for n in repeats) else None
    if node.op_type == "Slice":
        starts, ends = ints_of(node.inputs[1]), ints_of(node.inputs[2])
        steps = ints_of(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else ()
        if starts is None or ends is None or steps is None:
            return None
        if any(starts) or any(n != 1 for n in steps):
            return None
        return [x] if all(n == _END for n in ends) or _reaches(g, node, ends) else None
    before, after = g.dims.of(x), None
    if before is None:
        return None
    if node.op_type == "Flatten":
        after = before if len(before) == 2 and attr_int(node, "axis", 1) in (1, -1) else None
    elif node.op_type == "Expand":
        wanted = ints_of(node.inputs[1])
        after = (
            before
            if wanted is not None and len(wanted) <= len(before) and all(n == 1 for n in wanted)
            else None
        )
    else:
        # Only where every size is a number: an unknown size could be 0, which a Reshape reads as "copy".
        after = g.dims.of(node.outputs[0])
        after = after if after is not None and all(isinstance(key, int) for key in after) else None
    return [x] if after is not None and after == before else None


def _reaches(g: Rewriting, node: ir.Node, ends: tuple[int, ...]) -> bool:
    """Whether each end is proved to lie at or behind that of its dimension."""
    dims, axes = g.dims.of(node.inputs[0]), tuple(range(len(ends)))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = ints_of(node.inputs[3])
    if dims is None or axes is None or len(axes) != len(ends):
        return False
    sizes = [dims[axis] for axis in axes if -len(dims) <= axis < len(dims)]
    return len(sizes) == len(ends) and all(
        isinstance(n, int) and n <= end for n, end in zip(sizes, ends, strict=True)
    )


@rule("Concat", needs=("Split",))
def concat_of_split(g: Rewriting, node: ir.Node) -> Result:
    """Concat(Split(x)₀, Split(x)₁, y) == Concat(x, y), for all parts in their order, along one axis.

    Whoever makes x can write it into the result then; its parts would be copied.
    """
    axis, inputs = attr_int(node, "axis", 0), list(node.inputs)
    joined: list[ir.Value | None] = []
    refusal: str | None = None
    while inputs:
        split = made_by(inputs[0], "Split")
        parts = [] if split is None else list(split.outputs)
        if split is None or inputs[: len(parts)] != parts:
            joined.append(inputs.pop(0))
            continue
        dims = g.dims.of(split.inputs[0])
        axes = {axis, attr_int(split, "axis", 0)}
        if len({a % len(dims) for a in axes} if dims is not None else axes) > 1:
            refusal = "it was split along another axis"
            joined.append(inputs.pop(0))
            continue
        joined.append(split.inputs[0])
        del inputs[: len(parts)]
    if len(joined) == len(node.inputs):
        return refusal
    return [g.op("Concat", *joined, axis=axis)]


@rule("Mul", "Div")
def times_one(g: Rewriting, node: ir.Node) -> Result:
    """x · 1 == x / 1 == x."""
    for i in (0, 1) if node.op_type == "Mul" else (0,):
        x, one = node.inputs[i], node.inputs[1 - i]
        shape = constant_shape(one)
        if shape is None or len(shape) > 4 or scalar_of(one) != 1:
            continue
        dims = g.dims.of(x)
        if shape != () and (dims is None or len(dims) < len(shape)):
            return "the 1 might add dimensions"
        return [x]
    return None


@rule("Conv", needs=("Pad",))
def pad_into_conv(g: Rewriting, node: ir.Node) -> Result:
    """Conv(Pad(x, p), w; pads q) == Conv(x, w; pads p + q), for spatial padding with zeros."""
    pad = made_by(node.inputs[0], "Pad")
    if pad is None or node.inputs[0] is None:
        return None
    if not only_use(node.inputs[0]):
        return "the padded value is used elsewhere, too"
    amounts, w = ints_of(pad.inputs[1]), g.dims.of(node.inputs[1])
    axes = ints_of(pad.inputs[3]) if len(pad.inputs) > 3 and pad.inputs[3] is not None else None
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    if attr_str(pad, "mode", "constant") != "constant" or (value is not None and scalar_of(value) != 0):
        return "it does not pad with zeros"
    if amounts is None or w is None or (len(pad.inputs) > 3 and pad.inputs[3] is not None and axes is None):
        return "the amounts are not constant"
    rank = len(w)
    axes = axes if axes is not None else tuple(range(rank))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis % rank], after[axis % rank] = amounts[i], amounts[len(axes) + i]
    if any((*before[:2], *after[:2])) or min((*before, *after)) < 0:
        return "it pads more than the spatial dimensions, or removes"
    if attr_str(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "the Conv pads by itself"
    own = attr_ints(node, "pads") or (0,) * (2 * (rank - 2))
    own = own if attr_str(node, "auto_pad", "NOTSET") == "NOTSET" else (0,) * len(own)
    attributes = {key: attribute.value for key, attribute in node.attributes.items() if key != "auto_pad"}
    attributes["pads"] = [a + b for a, b in zip(own, (*before[2:], *after[2:]), strict=True)]
    return [g.op("Conv", pad.inputs[0], *node.inputs[1:], **attributes)]


@rule("ReduceMean")
def mean_over_image(g: Rewriting, node: ir.Node) -> Result:
    """ReduceMean(x [N, C, H, W], axes 2 and 3) == GlobalAveragePool(x)."""
    axes, dims = ints_of(node.inputs[1]) if len(node.inputs) > 1 else None, g.dims.of(node.inputs[0])
    if axes is None or not attr_int(node, "keepdims", 1) or len(axes) < 2:
        return None
    if dims is None:
        return "the rank of its input is unknown"
    if len(dims) < 4 or sorted(axis % len(dims) for axis in axes) != list(range(2, len(dims))):
        return None
    dtype = dtype_of(node.inputs[0])
    if g.standard and (dtype is None or not is_float(dtype)):
        return "its input is not known to be of floats"
    return [g.op("GlobalAveragePool", node.inputs[0])]


@rule("Reshape", since=13, needs=("Flatten",))
def softmax_of_flattened(g: Rewriting, node: ir.Node) -> Result:
    """Reshape(Softmax(Flatten(x, k), -1), Shape(x)) == Softmax(x, -1) where x has k + 1 dimensions.

    As the Softmax of old opsets is written where the file does not declare the rank.
    """
    softmax = made_by(node.inputs[0], "Softmax", "LogSoftmax", "Hardmax")
    flatten = None if softmax is None else made_by(softmax.inputs[0], "Flatten")
    if softmax is None or flatten is None or attr_int(softmax, "axis", -1) not in (-1, 1):
        return None
    x, axis = flatten.inputs[0], attr_int(flatten, "axis", 1)
    dims = g.dims.of(x)
    if dims is None:
        return "the rank of what is flattened is not known"
    if axis not in (-1, len(dims) - 1):
        return "it is normalised over several dimensions"
    if g.dims.content(node.inputs[1]) != dims:
        return "it may get another shape than it had"
    return [g.op(softmax.op_type, x, axis=-1)]


RULES = (
    identity,
    cast_to_itself,
    transposes,
    reshapes,
    no_operation,
    concat_of_split,
    times_one,
    pad_into_conv,
    mean_over_image,
    softmax_of_flattened,
)
