"""com.microsoft's operators of attention in the standard's terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.ops.nodes import input_at
from ingot.ops.registry import (
    attr_float,
    attr_int,
    attr_ints,
)
from ingot.passes.contrib_groups import group_query_attention, sparse_attention
from ingot.passes.edit import Editor, constant_shape, is_used, rank_of, refusal, sum_of

Replacement: TypeAlias = "Sequence[ir.Value | None]"
Function: TypeAlias = "Callable[[Editor, ir.Node], Replacement]"


def _rotary(g: Editor, node: ir.Node) -> Replacement:
    """One position counts for the first element of every row, the others follow it."""
    x, places, cos, sin = (input_at(node, i) for i in range(4))
    if attr_int(node, "is_packed_batching", 0):
        raise refusal(node, "packed batching is unknown here")
    rank, rank_x = rank_of(places), rank_of(x)
    if rank is None or rank_x is None:
        raise refusal(node, "the ranks of its inputs are unknown")
    if rank < 2:
        axis = 1 if rank_x == 3 else 2
        batch, length = (g.op("Shape", x, start=d, end=d + 1) for d in (0, axis))
        along = g.op("Range", g.constant(0, np.int64), g.op("Squeeze", length), g.constant(1, np.int64))
        one = g.op("Add", along, g.op("Reshape", places, g.ints([1])))
        places = g.op("Expand", one, g.op("Concat", batch, length, axis=0))
    heads, width = attr_int(node, "num_heads", 0), attr_int(node, "rotary_embedding_dim", 0)
    interleaved, scale = attr_int(node, "interleaved", 0), attr_float(node, "scale", 1.0)
    half = constant_shape(cos)
    split = rank_x == 3 and not heads
    if split:  # the size of a head is that of the tables
        if half is None:
            raise refusal(node, "it has no num_heads, and its tables are no constants")
        x = g.op("Reshape", x, g.ints([0, 0, -1, 2 * half[1]]))
        x = g.op("Transpose", x, perm=[0, 2, 1, 3])
    y = g.op(
        "RotaryEmbedding",
        *(x, cos, sin, places),
        interleaved=interleaved,
        num_heads=heads if rank_x == 3 and not split else None,
        rotary_embedding_dim=width,
    )
    if split:
        y = _merged(g, y)
    return [y if scale == 1 else g.op("Mul", y, g.number(scale, node.inputs[0]))]


def _split_heads(g: Editor, x: ir.Value | None, heads: int) -> ir.Value:
    """[B, S, N · H] as [B, N, S, H]."""
    return g.op("Transpose", g.op("Reshape", x, g.ints([0, 0, heads, -1])), perm=[0, 2, 1, 3])


def _merged(g: Editor, x: ir.Value) -> ir.Value:
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.ints([0, 0, -1]))


def _padding(
    g: Editor, node: ir.Node, mask: ir.Value | None, key: ir.Value, like: ir.Value | None
) -> ir.Value | None:
    """What a mask of keys adds to scores [B, 1, 1 or S, T]: lengths [B], or 1 for keys that count [B, T],
    [B, S, T].
    """
    if mask is None:
        return None
    rank = rank_of(mask)
    if rank == 1:
        total = g.op("Squeeze", g.op("Shape", key, start=2, end=3))
        along = g.op("Range", g.constant(0, np.int64), total, g.constant(1, np.int64))
        # One number for each row: a mask with starts as well does not fit into this shape.
        wanted = g.op("Concat", g.op("Shape", node.inputs[0], start=0, end=1), g.ints([1, 1, 1]), axis=0)
        allowed = g.op("Less", along, g.op("Reshape", g.op("Cast", mask, to=7), wanted))
    elif rank in (2, 3):
        axes = [1, 2] if rank == 2 else [1]
        allowed = g.op("Cast", g.op("Unsqueeze", mask, g.ints(axes)), to=9)
    else:
        raise refusal(node, f"a mask of rank {rank} is unknown here")
    zero, hidden = (g.number(v, like) for v in (0.0, attr_float(node, "mask_filter_value", -10000.0)))
    return g.op("Where", allowed, zero, hidden)


def _causal(g: Editor, query: ir.Value, key: ir.Value, like: ir.Value | None) -> ir.Value:
    """-inf where a key comes after the query's row; the last row sees the last key."""
    rows, keys = (g.op("Squeeze", g.op("Shape", v, start=2, end=3)) for v in (query, key))
    zero, one = g.constant(0, np.int64), g.constant(1, np.int64)
    row = g.op("Add", g.op("Range", zero, rows, one), g.op("Sub", keys, rows))
    seen = g.op("LessOrEqual", g.op("Range", zero, keys, one), g.op("Unsqueeze", row, g.ints([1])))
    return g.op("Where", seen, g.number(0.0, like), g.number(float("-inf"), like))


def _attend(
    g: Editor,
    node: ir.Node,
    heads: Sequence[ir.Value],
    past: Sequence[ir.Value | None],
    padding: ir.Value | None,
    bias: ir.Value | None,
    like: ir.Value | None,
) -> list[ir.Value]:
    """Attention of [B, N, S, H] after what is past; the result [B, S, N · H] and the keys and values. All of
    the dtype of `like`.
    """
    query, key, value = heads
    if past[0] is not None:
        key, value = g.op("Concat", past[0], key, axis=2), g.op("Concat", past[1], value, axis=2)
    terms = [_padding(g, node, padding, key, like), bias]
    is_causal = attr_int(node, "unidirectional", 0)
    if is_causal and (past[0] is not None or any(t is not None for t in terms)):
        terms.append(_causal(g, query, key, like))
        is_causal = 0
    mask = sum_of(g, *terms) if any(t is not None for t in terms) else None
    scale = attr_float(node, "scale", 0.0) or None
    y = g.op("Attention", query, key, value, mask, scale=scale, is_causal=is_causal)
    return [_merged(g, y), key, value]


def _multi_head(g: Editor, node: ir.Node) -> Replacement:
    """Queries [B, S, N · H]; keys and values likewise, or [B, N, L, H], or all in one [B, S, N, 3, H]."""
    query, key, value, bias, padding, more, past_key, past_value = (input_at(node, i) for i in range(8))
    if len(node.inputs) > 8 and any(v is not None for v in node.inputs[8:]):
        raise refusal(node, "a cache of fixed size is unknown here")
    if is_used(node, 3):
        raise refusal(node, "the scores are used as an output")
    n = attr_int(node, "num_heads", 1)
    if key is None:
        if rank_of(query) != 5:
            raise refusal(node, "it has no keys, and its queries are not packed with them in 5 dimensions")
        packed = g.op("Transpose", query, perm=[3, 0, 2, 1, 4])
        heads = [g.op("Squeeze", v, g.ints([0])) for v in g.ops("Split", [packed], 3, axis=0, num_outputs=3)]
        if bias is not None:
            raise refusal(node, "a bias of packed queries is unknown here")
    elif value is None:
        packed = g.op("Transpose", key, perm=[3, 0, 2, 1, 4])
        both = [g.op("Squeeze", v, g.ints([0])) for v in g.ops("Split", [packed], 2, axis=0, num_outputs=2)]
        heads = [_split_heads(g, query, n), *both]
        if bias is not None:
            raise refusal(node, "a bias of packed keys is unknown here")
    else:
        parts: list[ir.Value | None] = [query, key, value]
        if bias is not None:
            parts = _biased(g, node, parts, bias)
        heads = [v if rank_of(v) == 4 and v is not None else _split_heads(g, v, n) for v in parts]
    return _attend(g, node, heads, (past_key, past_value), padding, more, query)


def _decoder(g: Editor, node: ir.Node) -> Replacement:
    """One row of queries [B, 1, N · H]; keys and values likewise, after those of the past or (with a buffer
    of fixed size) put into it; or those of the other side, [B, N, L, H].
    """
    query, key, value, mask, more, past_key, past_value, length = (input_at(node, i) for i in range(8))
    bias, shared = input_at(node, 10), attr_int(node, "past_present_share_buffer", 0)
    if input_at(node, 9) is not None or is_used(node, 3):
        raise refusal(node, "several beams, and the scores as an output, are unknown here")
    n = attr_int(node, "num_heads", 1)
    if key is None or value is None:
        raise refusal(node, "queries that are packed with keys and values are unknown here")
    parts: list[ir.Value | None] = [query, key, value]
    if bias is not None:
        parts = _biased(g, node, parts, bias)
    heads = [v if rank_of(v) == 4 and v is not None else _split_heads(g, v, n) for v in parts]
    if rank_of(key) == 4:
        y, _, _ = _attend(g, node, heads, (None, None), mask, more, query)
        return [y]
    if not shared or past_key is None or past_value is None or length is None:
        return _attend(g, node, heads, (past_key, past_value), mask, more, query)
    at = g.op("Reshape", g.op("Cast", length, to=7), g.ints([1]))
    places = g.op("Expand", at, g.op("Shape", query, start=0, end=1))
    whole = [
        g.op("TensorScatter", past, new, places, axis=2)
        for past, new in zip((past_key, past_value), heads[1:], strict=True)
    ]
    end = g.op("Add", at, g.ints([1]))
    seen = [g.op("Slice", v, g.ints([0]), end, g.ints([2])) for v in whole]
    y, _, _ = _attend(g, node, [heads[0], *seen], (None, None), mask, more, query)
    return [y, *whole]


def _biased(
    g: Editor, node: ir.Node, parts: Sequence[ir.Value | None], bias: ir.Value
) -> list[ir.Value | None]:
    """Queries, keys and values with their parts of one bias; keys of four dimensions have theirs already."""
    hidden = g.op("Shape", parts[0], start=2, end=3)
    zero, twice = g.ints([0]), g.op("Add", hidden, hidden)
    end = g.ints([(1 << 31) - 1])
    slices = [(zero, hidden), (hidden, twice), (twice, end)]
    found: list[ir.Value | None] = []
    for part, (start, stop) in zip(parts, slices, strict=True):
        if rank_of(part) == 4:
            found.append(part)
            continue
        if rank_of(part) is None:
            raise refusal(node, "the ranks of its inputs are unknown")
        found.append(g.op("Add", part, g.op("Slice", bias, start, stop, zero)))
    return found


def _attention(g: Editor, node: ir.Node) -> Replacement:
    """Queries, keys and values are one product of the input; what is past is [2, B, N, P, H]."""
    x, weights, bias, padding, past, more = (input_at(node, i) for i in range(6))
    if input_at(node, 6) is not None:
        raise refusal(node, "a cache of fixed size is unknown here")
    return _attend_to_product(g, node, sum_of(g, g.op("MatMul", x, weights), bias), padding, past, more, x)


def _quantized_attention(g: Editor, node: ir.Node) -> Replacement:
    """The same of a product of integers."""
    x, w, bias, x_scale, w_scale, padding, x_zero, w_zero, past = (input_at(node, i) for i in range(9))
    left = g.op("DequantizeLinear", x, x_scale, x_zero)
    right = g.op("DequantizeLinear", w, w_scale, w_zero, axis=1)
    return _attend_to_product(
        g, node, sum_of(g, g.op("MatMul", left, right), bias), padding, past, None, x_scale
    )


def _attend_to_product(
    g: Editor,
    node: ir.Node,
    product: ir.Value,
    padding: ir.Value | None,
    past: ir.Value | None,
    more: ir.Value | None,
    like: ir.Value | None,
) -> Replacement:
    """Queries, keys and values lie side by side in a product [B, S, 3 · N · H]."""
    if attr_int(node, "do_rotary", 0) or attr_int(node, "past_present_share_buffer", 0):
        raise refusal(node, "rotation and a cache of fixed size are unknown here")
    sizes = attr_ints(node, "qkv_hidden_sizes")
    if sizes is None:
        parts = g.ops("Split", [product], 3, axis=-1, num_outputs=3)
    else:
        parts = g.ops("Split", [product, g.ints(sizes)], 3, axis=-1)
    heads = [_split_heads(g, part, attr_int(node, "num_heads", 1)) for part in parts]
    before: list[ir.Value | None] = [None, None]
    if past is not None:
        both = g.ops("Split", [past], 2, axis=0, num_outputs=2)
        before = [g.op("Squeeze", v, g.ints([0])) for v in both]
    y, keys, values = _attend(g, node, heads, before, padding, more, like)
    if not is_used(node, 1):
        return [y]
    return [y, g.op("Concat", *(g.op("Unsqueeze", v, g.ints([0])) for v in (keys, values)), axis=0)]


ATTENTION: dict[str, Function] = {
    "RotaryEmbedding": _rotary,
    "MultiHeadAttention": _multi_head,
    "DecoderMaskedMultiHeadAttention": _decoder,
    "Attention": _attention,
    "QAttention": _quantized_attention,
    "GroupQueryAttention": group_query_attention,
    "SparseAttention": sparse_attention,
}
