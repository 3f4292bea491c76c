"""com.microsoft's GroupQueryAttention and SparseAttention in the standard's terms: what decoders of language
models are made of.

New rows of keys and values are put behind what is kept of older ones, at a place of its own in each row of
the batch; then all of it is attended to. Where the total length follows from shapes (as in files of the
usual tools, which read it off their mask) everything is planned before the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.ops.registry import attr_float, attr_int, label
from ingot.passes.edit import Editor, constant_of, is_used, refusal


def group_query_attention(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """Inputs: query [B, S, N · H] (with keys and values beside it where those are left out), key and value
    [B, S, K · H], past_key and past_value [B, K, P, H], seqlens_k [B] (the number of valid keys, less one),
    total_sequence_length, cos_cache and sin_cache [positions, R / 2], position_ids [B, S], attention_bias,
    head_sink [N]. Outputs: [B, S, N · H], and keys and values [B, K, max(P, total), H].
    """
    inputs = [*node.inputs, *[None] * 14]
    query, key, value, *past = inputs[:5]
    lengths, total, cos, sin, places, bias, sink = inputs[5:12]
    n, k = attr_int(node, "num_heads", 0), attr_int(node, "kv_num_heads", 0)
    if not n or not k or n % k:
        raise ModelError(f"{label(node)}: num_heads {n} must be a multiple of kv_num_heads {k}.")
    for name in ("k_quant_type", "v_quant_type"):
        kind = node.attributes.get(name)
        if kind is not None and kind.as_string() != "NONE":
            raise refusal(node, f"{name} {kind.as_string()!r}: a cache of quantised numbers is unknown here")
    if any(v is not None for v in inputs[12:]):
        raise refusal(node, "inputs after the head's sink are unknown here")
    if is_used(node, 3):
        raise refusal(node, "its scores as an output are unknown here")
    q, new_key, new_value = _heads(g, query, key, value, n, k)
    rows = _size(g, q, 2)
    whole = g.op("Reshape", g.op("Cast", total, to=7), g.ints([1]))
    counts = g.op("Reshape", g.op("Cast", lengths, to=7), g.ints([-1]))
    behind = g.op("Add", counts, g.op("Sub", g.ints([1]), rows))
    # As many new rows as there are in all: a prompt, and nothing is past.
    start = g.op("Where", g.op("Equal", rows, whole), g.ints([0]), behind)
    along = g.op("Range", g.constant(0, np.int64), g.op("Squeeze", rows), g.constant(1, np.int64))
    row = g.op("Add", g.op("Unsqueeze", start, g.ints([1])), along)
    if attr_int(node, "do_rotary", 0):
        at = row if places is None else places
        way = attr_int(node, "rotary_interleaved", 0)
        width = g.op("Shape", cos, start=1, end=2)
        q, new_key = (_rotated(g, x, cos, sin, at, way, width) for x in (q, new_key))
    keys, values = (
        g.op("TensorScatter", _room(g, old, new, whole), new, start, axis=2)
        for old, new in zip(past, (new_key, new_value), strict=True)
    )
    length = _size(g, keys, 2)
    mask = _mask(g, node, row, length, bias, query)
    far_keys, far_values = keys, values
    if sink is not None or attr_int(node, "smooth_softmax", 0):
        mask, far_keys, far_values = _with_sink(g, mask, keys, values, sink, n, query)
    y = g.op(
        "Attention", q, far_keys, far_values, mask,
        scale=attr_float(node, "scale", 0.0) or None, softcap=attr_float(node, "softcap", 0.0) or None,
    )  # fmt: skip
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints([0, 0, -1]))
    return [y, keys, values]


def sparse_attention(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """Inputs: query [B, S, N · H] (with keys and values beside it where those are left out), key and value
    [B, S, K · H], past_key and past_value [B, K, P, H], the blocks that each row of blocks sees as CSR for
    each layout (which heads take in turns), total_sequence_length, lengths of keys [B], cos_cache and
    sin_cache. Outputs: [B, S, N · H], and keys and values in buffers of the same size.
    """
    query, key, value, *past = [*node.inputs, *[None] * 11][:5]
    rows_of, columns_of, total, lengths, cos, sin = [*node.inputs, *[None] * 11][5:11]
    n, k = attr_int(node, "num_heads", 0), attr_int(node, "kv_num_heads", 0)
    size = attr_int(node, "sparse_block_size", 0)
    starts, columns = constant_of(rows_of), constant_of(columns_of)
    if starts is None or columns is None:
        raise refusal(node, "its blocks are computed, and must be constants")
    if not n or not k or n % k or size < 1 or starts.ndim != 2 or n % len(starts):
        raise ModelError(
            f"{label(node)}: num_heads {n} must be a multiple of kv_num_heads {k} and of the layouts, whose "
            f"starts have shape {list(starts.shape)}; sparse_block_size is {size}."
        )
    blocks = starts.shape[1] - 1
    seen_blocks = np.zeros((len(starts), blocks, blocks), np.bool_)
    for layout, (first, own) in enumerate(zip(starts, columns, strict=True)):
        for row in range(blocks):
            seen_blocks[layout, row, own[first[row] : first[row + 1]]] = True
    q, new_key, new_value = _heads(g, query, key, value, n, k)
    rows = _size(g, q, 2)
    counts = g.op("Reshape", g.op("Cast", lengths, to=7), g.ints([-1]))
    whole = g.op("Reshape", g.op("Cast", total, to=7), g.ints([1]))
    start = g.op("Where", g.op("Equal", rows, whole), g.ints([0]), g.op("Sub", counts, rows))
    along = g.op("Range", g.constant(0, np.int64), g.op("Squeeze", rows), g.constant(1, np.int64))
    row = g.op("Add", g.op("Unsqueeze", start, g.ints([1])), along)
    if attr_int(node, "do_rotary", 0):
        way, width = attr_int(node, "rotary_interleaved", 0), g.op("Shape", cos, start=1, end=2)
        q, new_key = (_rotated(g, x, cos, sin, row, way, width) for x in (q, new_key))
    keys, values = (
        g.op("TensorScatter", old, new, start, axis=2)
        for old, new in zip(past, (new_key, new_value), strict=True)
    )
    near = [g.op("Slice", x, g.ints([0]), whole, g.ints([2])) for x in (keys, values)]
    column = g.op("Range", g.constant(0, np.int64), g.op("Squeeze", whole), g.constant(1, np.int64))
    each = g.constant(np.tile(seen_blocks, (n // len(starts), 1, 1)))
    size_of = g.constant(size, np.int64)
    shown = g.op("Gather", each, g.op("Div", row, size_of), axis=1)  # [N, B, S, blocks]
    shown = g.op("Gather", shown, g.op("Div", column, size_of), axis=3)
    shown = g.op("Transpose", shown, perm=[1, 0, 2, 3])
    shown = g.op("And", shown, g.op("LessOrEqual", column, g.op("Unsqueeze", row, g.ints([1, 3]))))
    mask = g.op("Where", shown, g.number(0.0, query), g.number(float("-inf"), query))
    y = g.op("Attention", q, *near, mask, scale=attr_float(node, "scale", 0.0) or None)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints([0, 0, -1]))
    return [y, keys, values]


def _heads(
    g: Editor, query: ir.Value | None, key: ir.Value | None, value: ir.Value | None, n: int, k: int
) -> list[ir.Value]:
    """Queries [B, N, S, H], keys and values [B, K, S, H]; where those are left out the query holds them."""
    if key is None:
        size = g.op("Div", _size(g, query, 2), g.ints([n + 2 * k]))
        sizes = g.op("Mul", g.op("Concat", size, size, size, axis=0), g.ints([n, k, k]))
        query, key, value = g.ops("Split", [query, sizes], 3, axis=2)
    return [
        g.op("Transpose", g.op("Reshape", x, g.ints([0, 0, heads, -1])), perm=[0, 2, 1, 3])
        for x, heads in ((query, n), (key, k), (value, k))
    ]


def _size(g: Editor, x: ir.Value | None, axis: int) -> ir.Value:
    return g.op("Shape", x, start=axis, end=axis + 1)


def _rotated(
    g: Editor,
    x: ir.Value,
    cos: ir.Value | None,
    sin: ir.Value | None,
    at: ir.Value,
    interleaved: int,
    half: ir.Value,
) -> ir.Value:
    """The tables say how much of a head is turned; the rest of it stays."""
    width = g.op("Add", half, half)
    end = g.ints([(1 << 31) - 1])
    turned, rest = (g.op("Slice", x, a, b, g.ints([3])) for a, b in ((g.ints([0]), width), (width, end)))
    turned = g.op("RotaryEmbedding", turned, cos, sin, at, interleaved=interleaved)
    return g.op("Concat", turned, rest, axis=3)


def _room(g: Editor, old: ir.Value | None, new: ir.Value, total: ir.Value) -> ir.Value:
    """What is kept, and zeros behind it up to the total length."""
    batch, heads, size = (_size(g, new, axis) for axis in (0, 1, 3))
    kept = g.ints([0]) if old is None else _size(g, old, 2)
    missing = g.op("Sub", g.op("Max", kept, total), kept)
    zeros = g.op("Expand", g.number(0.0, new), g.op("Concat", batch, heads, missing, size, axis=0))
    return zeros if old is None else g.op("Concat", old, zeros, axis=2)


def _mask(
    g: Editor, node: ir.Node, row: ir.Value, length: ir.Value, bias: ir.Value | None, like: ir.Value | None
) -> ir.Value:
    """[B, 1 or N, S, L]: what is added to the scores; -inf where a key comes after its row, or so much before
    it that the window has left it.
    """
    column = g.op("Range", g.constant(0, np.int64), g.op("Squeeze", length), g.constant(1, np.int64))
    row = g.op("Unsqueeze", row, g.ints([1, 3]))
    seen = g.op("LessOrEqual", column, row)
    window = attr_int(node, "local_window_size", -1)
    if window > 0:
        seen = g.op("And", seen, g.op("Greater", column, g.op("Sub", row, g.ints([window]))))
    shown: ir.Value = g.number(0.0, like)
    if bias is not None:
        behind = g.op("Sub", length, _size(g, bias, 3))
        pads = g.op("Concat", g.ints([0] * 7), behind, axis=0)
        shown = g.op("Pad", bias, pads)
    return g.op("Where", seen, shown, g.number(float("-inf"), like))


def _with_sink(
    g: Editor,
    mask: ir.Value,
    keys: ir.Value,
    values: ir.Value,
    sink: ir.Value | None,
    heads: int,
    like: ir.Value | None,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """One more key, of zeros, whose score is the head's sink (0 without one) and whose value is nothing."""
    last = g.op("Slice", mask, g.ints([0]), g.ints([1]), g.ints([3]))
    shape = g.op("Concat", _size(g, last, 0), g.ints([heads]), _size(g, last, 2), g.ints([1]), axis=0)
    score = g.number(0.0, like) if sink is None else g.op("Reshape", sink, g.ints([1, heads, 1, 1]))
    spread = g.op("Concat", _size(g, mask, 0), g.ints([heads]), _size(g, mask, 2), _size(g, mask, 3), axis=0)
    mask = g.op("Concat", g.op("Expand", mask, spread), g.op("Expand", score, shape), axis=3)
    nothing = g.ints([0, 0, 0, 0, 0, 0, 1, 0])
    return mask, g.op("Pad", keys, nothing), g.op("Pad", values, nothing)
