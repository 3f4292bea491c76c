"""com.microsoft's operators of models that carry several streams (hyper-connections, Engram), and words that
are embedded letter by letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.nodes import input_at
from ingot.ops.registry import attr_float, attr_int
from ingot.passes.edit import Editor, constant_shape, rank_of, refusal

Function = Callable[[Editor, ir.Node], Sequence["ir.Value | None"]]


def _grouped(g: Editor, x: ir.Value | None, branches: int) -> ir.Value | None:
    """[..., C * H] as [..., C, H] where the node says how many branches there are."""
    if not branches:
        return x
    return g.op("Reshape", x, g.op("Concat", g.op("Shape", x, end=-1), g.ints([branches, -1]), axis=0))


def _wide(g: Editor, x: ir.Value | None) -> ir.Value:
    return g.op("Cast", x, to=int(ir.DataType.FLOAT))


def _branch_norm(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """BranchwiseRMSNorm: each branch by itself, in float32; a scale of [H], [C, H] or [C * H]."""
    x, scale, branches = input_at(node, 0), input_at(node, 1), attr_int(node, "num_branches", 0)
    wide = _wide(g, _grouped(g, x, branches))
    width = g.op("Shape", wide, start=-1)
    one = g.op("Expand", g.constant(1.0, np.float32), width)
    y = g.op("RMSNormalization", wide, one, axis=-1, epsilon=attr_float(node, "epsilon", 1e-5))
    if scale is not None:
        rank = rank_of(scale)
        if rank is None:
            raise refusal(node, "the rank of its scale is unknown")
        if rank == 1:  # of one branch, or of all of them
            scale = g.op("Reshape", scale, g.op("Concat", g.ints([-1]), width, axis=0))
        y = g.op("Mul", y, _wide(g, scale))
    return [g.op("CastLike", g.op("Reshape", y, g.op("Shape", x)), x)]


def _gates(g: Editor, node: ir.Node, gates: ir.Value | None, streams: ir.Value) -> ir.Value:
    """Gates [..., C], [..., C, 1], [..., C, H] or [..., C * H] beside streams [..., C, H], in float32."""
    rank, whole = rank_of(gates), rank_of(input_at(node, 0))
    if rank is None or whole is None:
        raise refusal(node, "the ranks of its inputs are unknown")
    grouped = whole + 1 if attr_int(node, "num_branches", 0) else whole
    wide = _wide(g, gates)
    if rank == grouped:
        return wide
    lead = g.op("Shape", streams, end=-1)
    return g.op("Reshape", wide, g.op("Concat", lead, g.ints([-1]), axis=0))


def _reduced_streams(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """HyperConnectionPreMix: a weighed sum of streams."""
    x = input_at(node, 0)
    streams = _wide(g, _grouped(g, x, attr_int(node, "num_branches", 0)))
    weighed = g.op("Mul", streams, _gates(g, node, input_at(node, 1), streams))
    total = g.op("ReduceSum", weighed, g.ints([-2]), keepdims=0)
    scale = attr_float(node, "reduction_scale", 1.0)
    total = total if scale == 1 else g.op("Mul", total, g.constant(scale, np.float32))
    return [g.op("CastLike", total, x)]


def _mixed_streams(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """HyperConnectionPostMix: streams mixed with each other, and a block's output into each."""
    x = input_at(node, 0)
    streams = _wide(g, _grouped(g, x, attr_int(node, "num_branches", 0)))
    block = g.op("Unsqueeze", _wide(g, input_at(node, 1)), g.ints([-2]))
    mix, own = input_at(node, 3), streams
    if mix is not None:
        own = g.op("Einsum", _wide(g, mix), streams, equation="...ck,...ch->...kh")
    y = g.op("Add", own, g.op("Mul", _gates(g, node, input_at(node, 2), streams), block))
    return [g.op("CastLike", g.op("Reshape", y, g.op("Shape", x)), x)]


def _engram_gate(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """EngramGate: a value [B, S, H] let through to each stream, as key and query [B, S, C, H] are alike."""
    key, query, value, key_scale, query_scale, last_scale = (input_at(node, i) for i in range(6))
    epsilon = attr_float(node, "epsilon", 1e-5)

    def normed(x: ir.Value | None, scale: ir.Value | None) -> ir.Value:
        wide = _wide(g, x)
        one = g.op("Expand", g.constant(1.0, np.float32), g.op("Shape", wide, start=-1))
        return g.op("Mul", g.op("RMSNormalization", wide, one, axis=-1, epsilon=epsilon), _wide(g, scale))

    products = g.op("Mul", normed(key, key_scale), normed(query, query_scale))
    size = _wide(g, g.op("Squeeze", g.op("Shape", key, start=-1)))
    dot = g.op("Div", g.op("ReduceSum", products, g.ints([-1])), g.op("Sqrt", size))
    root = g.op("Sqrt", g.op("Max", g.op("Abs", dot), g.constant(1e-6, np.float32)))
    gate = g.op("Sigmoid", g.op("Mul", g.op("Sign", dot), root))
    y = g.op("Mul", gate, g.op("Unsqueeze", _wide(g, value), g.ints([2])))
    after = None if last_scale is None else g.op("CastLike", normed(y, last_scale), key)
    return [g.op("CastLike", y, key), after]


def _embedded_words(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """WordConvEmbedding: words [S, letters], of which 0 is none; letters are looked up, filtered by windows
    of `width` of them, and the largest tanh of each filter counts. A word that begins with none gives 0.
    """
    words, filters, bias, letters = (input_at(node, i) for i in range(4))
    shape = constant_shape(filters)
    if shape is None:
        raise refusal(node, "its filters are no constant")
    width = shape[2]
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    whole = g.op("Cast", words, to=int(ir.DataType.INT64))
    is_letter = g.op("Cast", g.op("Greater", whole, zero), to=int(ir.DataType.INT64))
    count = g.op("ReduceSum", is_letter, g.ints([1]))  # [S, 1]
    first = g.op("Slice", is_letter, g.ints([0]), g.ints([1]), g.ints([1]))
    count = g.op("Mul", count, first)
    read = g.op("Max", count, g.constant(width, np.int64))
    along = g.op("Range", zero, g.op("Squeeze", g.op("Shape", words, start=1, end=2)), one)
    seen = g.op("Unsqueeze", g.op("Less", along, read), g.ints([2]))
    found = g.op("Where", seen, g.op("Gather", letters, whole), g.constant(0.0, np.float32))
    y = g.op("Conv", g.op("Unsqueeze", found, g.ints([1])), filters, bias)  # [S, M, windows, 1]
    y = g.op("Tanh", g.op("Squeeze", y, g.ints([3])))
    windows = g.op("Range", zero, g.op("Squeeze", g.op("Shape", y, start=2, end=3)), one)
    ends = g.op("Sub", read, g.constant(width - 1, np.int64))
    counted = g.op("Unsqueeze", g.op("Less", windows, ends), g.ints([1]))
    kept = g.op("Where", counted, y, g.constant(-1e12, np.float32))
    best = g.op("ReduceMax", kept, g.ints([2]), keepdims=0)
    return [g.op("Where", g.op("Greater", count, zero), best, g.constant(0.0, np.float32))]


STREAMS: dict[str, Function] = {
    "BranchwiseRMSNorm": _branch_norm,
    "EngramGate": _engram_gate,
    "HyperConnectionPostMix": _mixed_streams,
    "HyperConnectionPreMix": _reduced_streams,
    "WordConvEmbedding": _embedded_words,
}
