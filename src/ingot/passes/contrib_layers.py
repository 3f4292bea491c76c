"""com.microsoft's operators that stand for layers of newer models: experts, products with 4-bit floats,
gates, crops of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.registry import attr_float, attr_int, attr_str
from ingot.passes.edit import Editor, constant_of, input_at, refusal

Function = Callable[[Editor, ir.Node], Sequence["ir.Value | None"]]

#: bitsandbytes' two tables of 16 numbers.
_FP4 = (
    *(0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25),
    *(-0.0, -5.208333333e-03, -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25),
)
_NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def _unfolded_bnb4(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """MatMulBnb4: weights [N, K] of two in a byte, the first in its upper half, times one number for each
    block.
    """
    x, packed, largest = (input_at(node, i) for i in range(3))
    codes, scales = constant_of(packed), constant_of(largest)
    if codes is None or scales is None:
        raise refusal(node, "its weights are computed, and must be constants")
    n, k, block = (attr_int(node, name, 0) for name in ("N", "K", "block_size"))
    table = np.array(_NF4 if attr_int(node, "quant_type", 1) else _FP4, np.float32)
    halves = np.stack([codes >> 4, codes & 15], -1).reshape(-1)[: n * k]
    each = np.repeat(scales.astype(np.float32), block)[: n * k]
    matrix = (table[halves] * each).reshape(n, k)
    weights = (matrix.T if attr_int(node, "transB", 1) else matrix).astype(scales.dtype)
    return [g.op("MatMul", x, g.constant(np.ascontiguousarray(weights)))]


def _experts(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """MoE: every expert for every row, weighed by its share; one that a row has not chosen weighs nothing."""
    x, router, first, first_bias, second, second_bias, third, third_bias = (
        input_at(node, i) for i in range(8)
    )
    kind, fused = attr_str(node, "activation_type", "relu"), attr_int(node, "swiglu_fusion", 0)
    unknown = kind not in ("relu", "gelu", "silu", "swiglu", "identity")
    if unknown or attr_int(node, "use_sparse_mixer", 0) or attr_int(node, "swiglu_limit_after_activation", 0):
        raise refusal(node, f"experts with activation {kind!r}, or a sparse mixer, are unknown here")
    rows = g.op("Reshape", x, g.op("Concat", g.ints([-1]), g.op("Shape", x, start=-1), axis=0))

    def layer(value: ir.Value, weights: ir.Value | None, bias: ir.Value | None) -> ir.Value:
        y = g.op("MatMul", value, g.op("Transpose", weights, perm=[0, 2, 1]))
        return y if bias is None else g.op("Add", y, g.op("Unsqueeze", bias, g.ints([1])))

    hidden = layer(rows, first, first_bias)
    if kind == "swiglu":
        if fused == 1:
            # Gates and what they let through take turns.
            shape = g.op("Concat", g.op("Shape", hidden, start=0, end=2), g.ints([-1, 2]), axis=0)
            pairs = g.ops("Split", [g.op("Reshape", hidden, shape)], 2, axis=3, num_outputs=2)
            gate, linear = (g.op("Squeeze", v, g.ints([3])) for v in pairs)
        elif fused == 2:
            gate, linear = g.ops("Split", [hidden], 2, axis=2, num_outputs=2)
        else:
            gate, linear = hidden, layer(rows, third, third_bias)
        if "swiglu_limit" in node.attributes:
            limit = attr_float(node, "swiglu_limit", 0.0)
            gate = g.op("Clip", gate, None, g.number(limit, x))
            linear = g.op("Clip", linear, g.number(-limit, x), g.number(limit, x))
        beta = attr_float(node, "activation_beta", 0.0)
        linear = linear if beta == 0 else g.op("Add", linear, g.number(beta, x))
        hidden = g.op("Mul", g.op("Swish", gate, alpha=attr_float(node, "activation_alpha", 1.0)), linear)
    elif kind != "identity":
        name = {"relu": "Relu", "gelu": "Gelu", "silu": "Swish"}[kind]
        hidden = g.op(name, hidden, **({"approximate": "tanh"} if kind == "gelu" else {}))
        if third is not None:
            hidden = g.op("Mul", hidden, layer(rows, third, third_bias))
    y = layer(hidden, second, second_bias)
    best, chosen = g.ops("TopK", [router, g.ints([attr_int(node, "k", 1)])], 2, axis=-1)
    if attr_int(node, "normalize_routing_weights", 0):
        shares = g.op("Softmax", best, axis=-1)
    else:
        shares = g.op("GatherElements", g.op("Softmax", router, axis=-1), chosen, axis=-1)
    nothing = g.op("Mul", router, g.number(0.0, router))
    weights = g.op("ScatterElements", nothing, chosen, shares, axis=-1)
    weighed = g.op("Mul", y, g.op("Unsqueeze", g.op("Transpose", weights, perm=[1, 0]), g.ints([2])))
    total = g.op("ReduceSum", weighed, g.ints([0]), keepdims=0)
    return [g.op("Reshape", total, g.op("Shape", x))]


def _crops(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """CropAndResize: a grid of places in each box, whose corners are pixels; a number for those outside."""
    x, boxes, images, size = (input_at(node, i) for i in range(4))
    nearest = attr_str(node, "mode", "bilinear") == "nearest"
    one, zero = g.number(1.0, boxes), g.number(0.0, boxes)
    sides = g.ops("Split", [boxes], 4, axis=1, num_outputs=4)
    whole = g.op("Cast", size, to=7)
    along: list[ir.Value] = []
    inside: list[ir.Value] = []
    for axis in (0, 1):
        count = g.op("Slice", whole, g.ints([axis]), g.ints([axis + 1]))
        extent = g.op("Sub", g.op("CastLike", g.op("Shape", x, start=2 + axis, end=3 + axis), boxes), one)
        steps = g.op("Range", g.constant(0, np.int64), g.op("Squeeze", count), g.constant(1, np.int64))
        least = g.op("Max", g.op("Sub", count, g.ints([1])), g.ints([1]))
        share = g.op("Div", g.op("CastLike", steps, boxes), g.op("CastLike", least, boxes))
        start, stop = sides[axis], sides[axis + 2]
        # A single place lies in the middle.
        is_one = g.op("Equal", count, g.ints([1]))
        share = g.op("Where", is_one, g.number(0.5, boxes), share)
        at = g.op("Mul", g.op("Add", start, g.op("Mul", g.op("Sub", stop, start), share)), extent)
        inside.append(g.op("And", g.op("GreaterOrEqual", at, zero), g.op("LessOrEqual", at, extent)))
        if nearest:
            at = g.op("Floor", g.op("Add", at, g.number(0.5, boxes)))
        # -1 … 1 between the first and the last pixel
        span = g.op("Max", extent, one)
        along.append(g.op("Sub", g.op("Div", g.op("Add", at, at), span), one))
    rows, columns = g.op("Unsqueeze", along[0], g.ints([2])), g.op("Unsqueeze", along[1], g.ints([1]))
    there = g.op("And", g.op("Unsqueeze", inside[0], g.ints([2])), g.op("Unsqueeze", inside[1], g.ints([1])))
    shape = g.op("Concat", g.op("Shape", boxes, start=0, end=1), whole, axis=0)
    spread = [g.op("Unsqueeze", g.op("Expand", v, shape), g.ints([3])) for v in (columns, rows)]
    grid = g.op("Concat", *spread, axis=3)
    picked = g.op("Gather", x, images, axis=0)
    mode = "nearest" if nearest else "linear"
    y = g.op("GridSample", picked, grid, mode=mode, padding_mode="border", align_corners=1)
    beyond = g.number(attr_float(node, "extrapolation_value", 0.0), x)
    return [g.op("Where", g.op("Unsqueeze", there, g.ints([1])), y, beyond)]


def _gated_norm(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """GatedRMSNorm: groups of as many elements as there are scales, normalised, times a gate's activation; in
    float32.
    """
    x, scale, gate = (input_at(node, i) for i in range(3))
    kind = attr_str(node, "activation", "silu")
    if kind not in ("silu", "swish", "sigmoid"):
        raise refusal(node, f"activation {kind!r} is unknown here")
    wide, factor, opened = (g.op("Cast", v, to=1) for v in (x, scale, gate))
    shape = g.op("Concat", g.op("Shape", x, end=-1), g.ints([-1]), g.op("Shape", scale), axis=0)
    groups = g.op("Reshape", wide, shape)
    y = g.op("RMSNormalization", groups, factor, axis=-1, epsilon=attr_float(node, "epsilon", 1e-5))
    y = g.op("Reshape", y, g.op("Shape", x))
    return [g.op("CastLike", g.op("Mul", y, g.op("Sigmoid" if kind == "sigmoid" else "Swish", opened)), x)]


def _gated_add(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """GatedAdd: x + y · gate."""
    if input_at(node, 3) is not None:
        raise refusal(node, "a gate that is projected is unknown here")
    return [g.op("Add", input_at(node, 0), g.op("Mul", input_at(node, 1), input_at(node, 2)))]


def _scaled_silu(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """ScaledSiLU: z · sigmoid(z) of a multiple."""
    x, scale = input_at(node, 0), input_at(node, 1)
    factor = g.number(attr_float(node, "alpha", 1.0), x) if scale is None else g.op("CastLike", scale, x)
    z = g.op("Mul", x, factor)
    return [g.op("Mul", z, g.op("Sigmoid", z))]


def _same(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """An operator of the main domain by the same name."""
    return g.ops(node.op_type, list(node.inputs), len(node.outputs))


def _identity(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """SampleOp."""
    return [g.op("Identity", input_at(node, 0))]


def _range(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """Range, whose step may be left out."""
    start, limit, step = (input_at(node, i) for i in range(3))
    bounds = (start, limit, g.number(1, start) if step is None else step)
    return [g.op("Range", *(g.op("Reshape", v, g.ints([])) for v in bounds))]


def _matmul_of_words(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """MatMulInteger16: sums in 32 bits."""
    return [g.op("MatMul", *(g.op("Cast", input_at(node, i), to=6) for i in (0, 1)))]


LAYERS: dict[str, Function] = {
    "CropAndResize": _crops,
    "GatedAdd": _gated_add,
    "GatedRMSNorm": _gated_norm,
    "GatherND": _same,
    "MatMulBnb4": _unfolded_bnb4,
    "MatMulInteger16": _matmul_of_words,
    "MoE": _experts,
    "Range": _range,
    "SampleOp": _identity,
    "ScaledSiLU": _scaled_silu,
}
