"""com.microsoft's operators that stand for layers of newer models: products with 4-bit floats, gates, crops
of images, rotations by several positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.nodes import input_at
from ingot.ops.registry import attr_float, attr_int, attr_ints, attr_str
from ingot.passes.contrib_experts import experts, quantised_experts
from ingot.passes.edit import Editor, constant_of, constant_shape, rank_of, refusal

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


def _rotary_of_three(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """MRotaryEmbedding: each angle is looked up by a position in time, row or column; `mrope_section` says
    how many belong to which, one after the other or in turns.
    """
    x, places, cos, sin = (input_at(node, i) for i in range(4))
    sections, rank = attr_ints(node, "mrope_section") or (), rank_of(x)
    heads, width = attr_int(node, "num_heads", 0), attr_int(node, "rotary_embedding_dim", 0)
    if attr_int(node, "is_packed_batching", 0) or len(sections) != 3 or rank is None:
        raise refusal(node, "packed batching, an input of unknown rank, or two sections are unknown here")
    if rank == 3 and not heads:
        raise refusal(node, "an input of three dimensions needs num_heads")
    owner = np.zeros(sum(sections), np.int64)
    if attr_int(node, "mrope_layout", 0):
        for stream in (1, 2):
            owner[stream : 3 * sections[stream] : 3] = stream
    else:
        owner[sections[0] :] = 1
        owner[sections[0] + sections[1] :] = 2

    def angles(table: ir.Value | None) -> ir.Value:
        each = [
            g.op("Squeeze", v, g.ints([0]))
            for v in g.ops("Split", [g.op("Gather", table, places)], 3, axis=0, num_outputs=3)
        ]
        rest = g.op("Where", g.constant(owner == 1), each[1], each[2])
        return g.op("Where", g.constant(owner == 0), each[0], rest)

    y = g.op(
        "RotaryEmbedding",
        *(x, angles(cos), angles(sin)),
        interleaved=attr_int(node, "interleaved", 0),
        num_heads=heads if rank == 3 else None,
        rotary_embedding_dim=width,
    )
    scale = attr_float(node, "scale", 1.0)
    return [y if scale == 1 else g.op("Mul", y, g.number(scale, node.inputs[0]))]


def _gates(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """LinearAttentionGate: a decay from softplus(a + bias), and a rate from sigmoid(b); in float32."""
    a, bias, scale, b = (input_at(node, i) for i in range(4))
    grown = g.op("Softplus", g.op("Add", g.op("Cast", a, to=1), bias))
    decay = g.op("CastLike", g.op("Mul", grown, scale), a)
    rate = None if b is None else g.op("CastLike", g.op("Sigmoid", g.op("Cast", b, to=1)), b)
    return [decay, rate]


def _clamped_swiglu(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """SwiGLU: both halves clamped where there is a limit, in float32; rounded once, or twice."""
    gate, up = input_at(node, 0), input_at(node, 1)
    own = gate
    if up is None:
        gate, up = g.ops("Split", [gate], 2, axis=-1, num_outputs=2)
    limit = attr_float(node, "limit", 0.0)
    first, second = g.op("Cast", gate, to=1), g.op("Cast", up, to=1)
    if limit > 0:
        bound = g.constant(limit, np.float32)
        first = g.op("Clip", first, None, bound)
        second = g.op("Clip", second, g.constant(-limit, np.float32), bound)
    opened = g.op("Swish", first, alpha=attr_float(node, "activation_alpha", 1.0))
    if attr_int(node, "round_activation", 0):
        opened = g.op("Cast", g.op("CastLike", opened, own), to=1)
    beta = attr_float(node, "activation_beta", 0.0)
    second = second if beta == 0 else g.op("Add", second, g.constant(beta, np.float32))
    return [g.op("CastLike", g.op("Mul", opened, second), own)]


def _windows_of(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """UnfoldTensor: windows along one dimension, their elements last."""
    x, rank = input_at(node, 0), rank_of(input_at(node, 0))
    size, step, axis = (
        attr_int(node, name, default) for name, default in (("size", 1), ("step", 1), ("dim", -1))
    )
    if rank is None or size < 1 or step < 1:
        raise refusal(node, "an input of unknown rank, or a size or step below 1, is unknown here")
    axis %= rank
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    length = g.op("Squeeze", g.op("Shape", x, start=axis, end=axis + 1))
    room = g.op("Sub", length, g.constant(size - 1, np.int64))
    starts = g.op("Range", zero, room, g.constant(step, np.int64))
    places = g.op(
        "Add", g.op("Unsqueeze", starts, g.ints([1])), g.op("Range", zero, g.constant(size, np.int64), one)
    )
    windows = g.op("Gather", x, places, axis=axis)
    order = [d for d in range(rank + 1) if d != axis + 1]
    return [g.op("Transpose", windows, perm=[*order, axis + 1])]


def _biased_softmax(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """BiasSoftmax of the dimensions from `axis` on, as one; the bias is repeated before or in front of it."""
    x, bias, rank = input_at(node, 0), input_at(node, 1), rank_of(input_at(node, 0))
    own = rank_of(bias)
    if rank is None or own is None:
        raise refusal(node, "the ranks of its inputs are unknown")
    axis = attr_int(node, "axis", 1) % rank
    if attr_int(node, "is_inner_broadcast", 1) and own < rank:  # [outer …, 1 …, softmax …]
        inner = rank - axis
        bias = g.op("Unsqueeze", bias, g.ints(list(range(own - inner, rank - inner))))
    y = g.op("Add", x, bias)
    if axis == rank - 1:
        return [g.op("Softmax", y, axis=-1)]
    flat = g.op("Softmax", g.op("Flatten", y, axis=axis), axis=-1)
    return [g.op("Reshape", flat, g.op("Shape", x))]


def _biased_dropout(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """BiasDropout outside of training: the sum alone, and a mask of ones."""
    x, bias, more, _, training = (input_at(node, i) for i in range(5))
    if training is not None and (constant_of(training) is None or bool(constant_of(training))):
        raise refusal(node, "training is unknown here")
    y = g.op("Add", x, bias)
    y = y if more is None else g.op("Add", y, more)
    return [y, g.op("Expand", g.constant(True), g.op("Shape", x)) if len(node.outputs) > 1 else None]


def _complex_product(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """ComplexMul, or with the second factor's conjugate; numbers are pairs in the last dimension."""
    a, b, c, d = (
        part for i in (0, 1) for part in g.ops("Split", [input_at(node, i)], 2, axis=-1, num_outputs=2)
    )
    d = g.op("Neg", d) if node.op_type == "ComplexMulConj" else d
    real = g.op("Sub", g.op("Mul", a, c), g.op("Mul", b, d))
    return [g.op("Concat", real, g.op("Add", g.op("Mul", a, d), g.op("Mul", b, c)), axis=-1)]


def _inverse_rfft(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """Irfft along the last dimension, of an even length."""
    if attr_int(node, "signal_ndim", 1) != 1 or attr_int(node, "normalized", 0):
        raise refusal(node, "more than one dimension, and normalisation, are unknown here")
    axis = g.constant(-2, np.int64)
    y = g.op("DFT", input_at(node, 0), None, axis, onesided=1, inverse=1)
    return [g.op("Squeeze", y, g.ints([-1]))]


def _buckets(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """RelativePositionBias: T5's buckets of distances between a query and a key, looked up for each head."""
    table, queries, keys = (input_at(node, i) for i in range(3))
    shape = constant_shape(table)
    if shape is None:
        raise refusal(node, "its table is no constant")
    both, farthest = attr_int(node, "is_bidirectional", 0), attr_int(node, "max_distance", 128)
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    counts = [g.op("Range", zero, g.op("Squeeze", g.op("Cast", v, to=7)), one) for v in (queries, keys)]
    away = g.op("Sub", counts[1], g.op("Unsqueeze", counts[0], g.ints([1])))
    half = shape[0] // 2 if both else shape[0]
    first = zero
    if both:
        first = g.op("Where", g.op("Greater", away, zero), g.constant(half, np.int64), zero)
        away = g.op("Abs", away)
    else:
        away = g.op("Max", g.op("Neg", away), zero)
    exact = half // 2
    scale = np.float32((half - exact) / np.log(farthest / exact))
    share = g.op("Div", g.op("Cast", g.op("Max", away, one), to=1), g.constant(exact, np.float32))
    large = g.op("Cast", g.op("Mul", g.op("Log", share), g.constant(scale)), to=7)
    large = g.op("Min", g.op("Add", large, g.constant(exact, np.int64)), g.constant(half - 1, np.int64))
    bucket = g.op("Where", g.op("Less", away, g.constant(exact, np.int64)), away, large)
    found = g.op("Gather", table, g.op("Add", bucket, first))
    return [g.op("Unsqueeze", g.op("Transpose", found, perm=[2, 0, 1]), g.ints([0]))]


def _chosen_integers(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """QLinearWhere: one of two quantised tensors, with another scale."""
    condition, *rest = (input_at(node, i) for i in range(9))
    x, y = (g.op("DequantizeLinear", *rest[i : i + 3]) for i in (0, 3))
    return [g.op("QuantizeLinear", g.op("Where", condition, x, y), *rest[6:8])]


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
    "MoE": experts,
    "QMoE": quantised_experts,
    "Range": _range,
    "BiasDropout": _biased_dropout,
    "BiasSoftmax": _biased_softmax,
    "ComplexMul": _complex_product,
    "ComplexMulConj": _complex_product,
    "Irfft": _inverse_rfft,
    "LinearAttentionGate": _gates,
    "MRotaryEmbedding": _rotary_of_three,
    "QLinearWhere": _chosen_integers,
    "RelativePositionBias": _buckets,
    "SampleOp": _identity,
    "SwiGLU": _clamped_swiglu,
    "UnfoldTensor": _windows_of,
    "ScaledSiLU": _scaled_silu,
}
