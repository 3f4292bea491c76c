"""com.microsoft's operators in the standard's terms: a function for each whose meaning standard operators
have.

Files that onnxruntime or its tools have optimised contain them. What comes out is seen by the rules and
kernels like any other model. Operators that the standard cannot say are classes of their own
(`ops/contrib.py`). Meanings: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.errors import IngotError, UnsupportedOperatorError
from ingot.ops.registry import (
    attr_float,
    attr_floats,
    attr_int,
    attr_ints,
    attr_str,
    label,
    unfit,
    unfit_kinds,
)
from ingot.passes.contrib_groups import group_query_attention, sparse_attention
from ingot.passes.contrib_layers import LAYERS
from ingot.passes.contrib_recurrent import dynamic_quantize_lstm
from ingot.passes.contrib_streams import STREAMS
from ingot.passes.edit import (
    Editor,
    constant_shape,
    graphs_added,
    graphs_of,
    input_at,
    ints_of,
    kept,
    rank_of,
    refusal,
    replace,
    reserve_names,
)
from ingot.passes.experimental import EXPERIMENTAL

Replacement: TypeAlias = "Sequence[ir.Value | None]"
Function: TypeAlias = "Callable[[Editor, ir.Node], Replacement]"

DOMAIN = "com.microsoft"
#: What ONNX Runtime's optimiser writes at its highest level.
BLOCKED = "com.microsoft.nchwc"
#: The first opset of the main domain that has every operator written here.
LOWEST = 24
_TABLE: dict[str, Function] = {}
#: Written into the main domain by exporters, although it never was there, or only on trial.
MISPLACED = ("SimplifiedLayerNormalization", *EXPERIMENTAL)


def _meaning(*names: str) -> Callable[[Function], Function]:
    def enter(function: Function) -> Function:
        for name in names:
            _TABLE[name] = function
        return function

    return enter


def is_rewritten(op_type: str) -> bool:
    """Whether a com.microsoft operator of this name is said in the standard's terms."""
    return op_type in _TABLE


def expand_contrib(model: ir.Model) -> int:
    """Replaces what the table has, in place; returns how many nodes.

    requires: the main domain at LOWEST or newer. ensures: the same function.
    """
    found = [
        node
        for graph in graphs_of(model)
        for node in graph
        if node.op_type in (_TABLE if node.domain == DOMAIN else MISPLACED if node.domain == "" else ())
    ]
    if found:
        reserve_names(model)
    for node in found:
        try:
            values = list(_TABLE[node.op_type](Editor(node, whole=True), node))
        except IngotError:
            raise
        except unfit_kinds(node) as error:
            raise unfit(node, node.inputs, error) from error
        used = [v.uses() or v.is_graph_output() for v in node.outputs]
        values += [None] * (len(used) - len(values))
        for value, is_used in zip(values, used, strict=False):
            if value is None and is_used:
                raise refusal(node, "an output is used that only training has")
        replace(node, values[: len(used)])
    if found:
        graphs_added(model)
    return len(found)


def blocked(node: ir.Node) -> UnsupportedOperatorError:
    """What to raise for channels in blocks: a file does not say how many lie in one."""
    return UnsupportedOperatorError(
        f"{label(node)}: ONNX Runtime has optimised this file for one kind of CPU (graph_optimization_level "
        "ORT_ENABLE_ALL or ORT_ENABLE_LAYOUT): its weights lie in blocks of channels whose size the file "
        "does not say. Use the file that it was made from, or optimise that one at ORT_ENABLE_EXTENDED."
    )


def _sum(g: Editor, *values: ir.Value | None) -> ir.Value:
    there = [v for v in values if v is not None]
    total = there[0]
    for value in there[1:]:
        total = g.op("Add", total, value)
    return total


# ---- activations -------------------------------------------------------------------------------------------


@_meaning("Gelu")
def _gelu(g: Editor, node: ir.Node) -> Replacement:
    return [g.op("Gelu", input_at(node, 0))]


@_meaning("FastGelu")
def _fast_gelu(g: Editor, node: ir.Node) -> Replacement:
    """With the hyperbolic tangent, after a bias."""
    return [g.op("Gelu", _sum(g, input_at(node, 0), input_at(node, 1)), approximate="tanh")]


@_meaning("BiasGelu")
def _bias_gelu(g: Editor, node: ir.Node) -> Replacement:
    return [g.op("Gelu", _sum(g, input_at(node, 0), input_at(node, 1)))]


@_meaning("QuickGelu")
def _quick_gelu(g: Editor, node: ir.Node) -> Replacement:
    """x · sigmoid(alpha · x)."""
    return [g.op("Swish", input_at(node, 0), alpha=attr_float(node, "alpha", 1.702))]


@_meaning("BiasSplitGelu")
def _bias_split_gelu(g: Editor, node: ir.Node) -> Replacement:
    """The first half of the channels times Gelu of the second."""
    both = _sum(g, input_at(node, 0), input_at(node, 1))
    first, second = g.ops("Split", [both], 2, axis=-1, num_outputs=2)
    return [g.op("Mul", first, g.op("Gelu", second))]


@_meaning("BiasAdd")
def _bias_add(g: Editor, node: ir.Node) -> Replacement:
    return [_sum(g, *node.inputs)]


def _activated(g: Editor, node: ir.Node, x: ir.Value, name: str, parameters: Sequence[float]) -> ir.Value:
    if not name:
        return x
    if name in ("Relu", "Tanh", "Sigmoid", "HardSwish", "Softplus", "Gelu"):
        return g.op(name, x)
    if name == "LeakyRelu":
        return g.op(name, x, alpha=float(parameters[0]) if parameters else 0.01)
    if name == "HardSigmoid":
        alpha, beta = (*map(float, parameters), *(0.2, 0.5)[len(parameters) :])[:2]
        return g.op(name, x, alpha=alpha, beta=beta)
    if name == "Clip" and len(parameters) == 2:
        return g.op(name, x, *(g.number(p, node.inputs[0]) for p in parameters))
    raise refusal(node, f"activation {name!r} with {len(parameters)} parameters is unknown here")


# ---- products and convolutions -----------------------------------------------------------------------------

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@_meaning("FusedConv")
def _fused_conv(g: Editor, node: ir.Node) -> Replacement:
    """Activation(Conv(x, w, b) + z)."""
    y = g.op("Conv", *[input_at(node, i) for i in range(3)], **kept(node, _CONV))
    return [_conv_end(g, node, _sum(g, y, input_at(node, 3)))]


def _conv_end(g: Editor, node: ir.Node, y: ir.Value) -> ir.Value:
    parameters = attr_floats(node, "activation_params") or ()
    return _activated(g, node, y, attr_str(node, "activation", ""), parameters)


@_meaning("NhwcConv", "NhwcFusedConv")
def _nhwc_fused_conv(g: Editor, node: ir.Node) -> Replacement:
    """Channels last in x, z and y."""
    y = g.op("Conv", _first(g, input_at(node, 0)), input_at(node, 1), input_at(node, 2), **kept(node, _CONV))
    z = input_at(node, 3)
    return [_last(g, _conv_end(g, node, _sum(g, y, None if z is None else _first(g, z))), node.inputs[0])]


@_meaning("QLinearConv")
def _quantised_conv(g: Editor, node: ir.Node) -> Replacement:
    """The standard's, with channels last where it says so."""
    inputs, last = list(node.inputs), attr_int(node, "channels_last", 0)
    inputs[0] = _first(g, inputs[0]) if last else inputs[0]
    y = g.op("QLinearConv", *inputs, **kept(node, _CONV))
    return [_last(g, y, node.inputs[0]) if last else y]


@_meaning("QLinearAveragePool", "QLinearGlobalAveragePool")
def _quantised_mean(g: Editor, node: ir.Node) -> Replacement:
    """With channels in front; they lie last where the node says so."""
    inputs, last = list(node.inputs), attr_int(node, "channels_last", 0)
    inputs[0] = _first(g, inputs[0]) if last else inputs[0]
    names = ("auto_pad", "ceil_mode", "count_include_pad", "dilations", "kernel_shape", "pads", "strides")
    y = g.op(node.op_type, *inputs, domain=DOMAIN, **kept(node, names))
    return [_last(g, y, node.inputs[0]) if last else y]


@_meaning("NhwcMaxPool")
def _nhwc_max_pool(g: Editor, node: ir.Node) -> Replacement:
    names = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    y = g.op("MaxPool", _first(g, input_at(node, 0)), **kept(node, names))
    return [_last(g, y, node.inputs[0])]


def _first(g: Editor, x: ir.Value | None) -> ir.Value:
    rank = rank_of(x) or 4
    return g.op("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])


def _last(g: Editor, x: ir.Value, like: ir.Value | None) -> ir.Value:
    """Channels last again, in a value of the rank of `like`."""
    rank = rank_of(like) or 4
    return g.op("Transpose", x, perm=[0, *range(2, rank), 1])


@_meaning("ConvTransposeWithDynamicPads")
def _dynamic_pads(g: Editor, node: ir.Node) -> Replacement:
    """Pads are an input."""
    pads = ints_of(input_at(node, 2))
    if pads is None:
        raise refusal(node, "its pads are computed, and must be constant")
    names = ("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "strides")
    return [
        g.op(
            "ConvTranspose",
            input_at(node, 0),
            input_at(node, 1),
            input_at(node, 3),
            pads=list(pads),
            **kept(node, names),
        )
    ]


@_meaning("FusedMatMul", "TransposeMatMul")
def _fused_matmul(g: Editor, node: ir.Node) -> Replacement:
    """Alpha · A · B, either of them transposed first."""
    a, b = (_turned(g, node, i, name) for i, name in enumerate("AB"))
    product, alpha = g.op("MatMul", a, b), attr_float(node, "alpha", 1.0)
    return [product if alpha == 1 else g.op("Mul", product, g.number(alpha, node.inputs[0]))]


def _turned(g: Editor, node: ir.Node, index: int, name: str) -> ir.Value | None:
    x, turn = input_at(node, index), attr_int(node, f"trans{name}", 0)
    moved, rank = attr_int(node, f"transBatch{name}", 0), rank_of(x)
    if not turn and not moved:
        return x
    if rank is None:
        if moved:
            raise refusal(node, "batch dimensions are exchanged, and the rank of the input is unknown")
        return g.op("Einsum", x, equation="...ij->...ji")
    if rank < 2:
        return x
    order = list(range(rank))
    if moved:
        order = [*order[1:-1], 0, order[-1]]
    if turn:
        order[-2:] = order[:-3:-1]
    return g.op("Transpose", x, perm=order)


@_meaning("FusedGemm")
def _fused_gemm(g: Editor, node: ir.Node) -> Replacement:
    y = g.op("Gemm", *node.inputs, **kept(node, ("alpha", "beta", "transA", "transB")))
    names = [f"activation_{name}" for name in ("alpha", "beta")]
    parameters = [attr_float(node, name, 0.0) for name in names if name in node.attributes]
    return [_activated(g, node, y, attr_str(node, "activation", ""), parameters)]


@_meaning("GemmFastGelu")
def _gemm_fast_gelu(g: Editor, node: ir.Node) -> Replacement:
    product = g.op("MatMul", input_at(node, 0), input_at(node, 1))
    return [g.op("Gelu", _sum(g, product, input_at(node, 2)), approximate="tanh")]


# ---- normalisations ----------------------------------------------------------------------------------------


def _inverse_deviation(g: Editor, node: ir.Node, x: ir.Value, epsilon: float, axis: int = -1) -> ir.Value:
    """1 / sqrt(mean(x²) + epsilon), where an output asks for it."""
    rank = rank_of(x)
    if axis != -1 and rank is None:
        raise refusal(node, "its second output is used, and the rank of the input is unknown")
    axes = [-1] if axis == -1 or rank is None else list(range(axis % rank, rank))
    square = g.op("ReduceMean", g.op("Mul", x, x), g.ints(axes))
    return g.op("Reciprocal", g.op("Sqrt", g.op("Add", square, g.number(epsilon, x))))


def _is_used(node: ir.Node, index: int) -> bool:
    return index < len(node.outputs) and bool(
        node.outputs[index].uses() or node.outputs[index].is_graph_output()
    )


@_meaning("SimplifiedLayerNormalization")
def _simplified(g: Editor, node: ir.Node) -> Replacement:
    """RMSNormalization."""
    x, epsilon, axis = input_at(node, 0), attr_float(node, "epsilon", 1e-5), attr_int(node, "axis", -1)
    assert x is not None
    stash = attr_int(node, "stash_type", 1)
    y = g.op("RMSNormalization", x, input_at(node, 1), epsilon=epsilon, axis=axis, stash_type=stash)
    return [y, _inverse_deviation(g, node, x, epsilon, axis) if _is_used(node, 1) else None]


@_meaning("SkipLayerNormalization")
def _skip(g: Editor, node: ir.Node) -> Replacement:
    """LayerNormalization of a sum, which is an output too."""
    total = _sum(g, input_at(node, 0), input_at(node, 1), input_at(node, 4))
    many = 3 if _is_used(node, 1) or _is_used(node, 2) else 1
    inputs = [total, input_at(node, 2), input_at(node, 3)]
    results = g.ops("LayerNormalization", inputs, many, axis=-1, epsilon=attr_float(node, "epsilon", 1e-12))
    return [*[*results, None, None][:3], total]


@_meaning("SkipSimplifiedLayerNormalization")
def _skip_simplified(g: Editor, node: ir.Node) -> Replacement:
    total, epsilon = (
        _sum(g, input_at(node, 0), input_at(node, 1), input_at(node, 3)),
        attr_float(node, "epsilon", 1e-12),
    )
    y = g.op("RMSNormalization", total, input_at(node, 2), axis=-1, epsilon=epsilon)
    return [y, None, _inverse_deviation(g, node, total, epsilon) if _is_used(node, 2) else None, total]


@_meaning("EmbedLayerNormalization")
def _embed(g: Editor, node: ir.Node) -> Replacement:
    """Words, positions and segments looked up, added and normalised; how many words of each row the mask
    keeps.
    """
    return _embedded(g, node, [input_at(node, i) for i in range(9)])


@_meaning("QEmbedLayerNormalization")
def _dequantised_embed(g: Editor, node: ir.Node) -> Replacement:
    """The same of tables that are integers; without a sum as an output."""
    given = [input_at(node, i) for i in range(18)]
    tables = [
        None if table is None else g.op("DequantizeLinear", table, scale, zero)
        for table, scale, zero in zip(given[2:7], given[8:13], given[13:18], strict=True)
    ]
    return _embedded(g, node, [*given[:2], *tables, given[7], None])[:2]


def _embedded(g: Editor, node: ir.Node, given: Sequence[ir.Value | None]) -> Replacement:
    ids, segments, words, positions, kinds, gamma, beta, mask, places = given
    if places is None:
        length = g.op("Shape", ids, start=1, end=2)
        at = g.op("Slice", positions, g.ints([0]), length, g.ints([0]))
    else:
        at = g.op("Gather", positions, places)
    about = None if segments is None or kinds is None else g.op("Gather", kinds, segments)
    total = _sum(g, g.op("Gather", words, ids), at, about)
    y = g.op("LayerNormalization", total, gamma, beta, axis=-1, epsilon=attr_float(node, "epsilon", 1e-12))
    counted: ir.Value | None = None
    if _is_used(node, 1):
        if mask is not None:
            counted = g.op("ReduceSum", g.op("Cast", mask, to=6), g.ints([1]), keepdims=0)
        else:
            counted = g.op("Expand", g.constant(0, np.int32), g.op("Shape", ids, start=0, end=1))
    return [y, counted, total]


@_meaning("GroupNorm", "SkipGroupNorm")
def _group_norm(g: Editor, node: ir.Node) -> Replacement:
    """GroupNormalization of images with channels last, of a sum where there is one, and SiLU."""
    total = _sum(g, input_at(node, 0), _beside(g, input_at(node, 3)), input_at(node, 4))
    last = attr_int(node, "channels_last", 1)
    x = _first(g, total) if last else total
    gamma, beta = (g.op("CastLike", input_at(node, i), x) for i in (1, 2))
    groups, epsilon = attr_int(node, "groups", 1), attr_float(node, "epsilon", 1e-5)
    y = g.op("GroupNormalization", x, gamma, beta, num_groups=groups, epsilon=epsilon)
    if attr_int(node, "activation", 0):
        y = g.op("Swish", y)
    return [_last(g, y, total) if last else y, total]


def _beside(g: Editor, skip: ir.Value | None) -> ir.Value | None:
    """A skip of [N, C] belongs to every pixel."""
    return g.op("Unsqueeze", skip, g.ints([1, 2])) if skip is not None and rank_of(skip) == 2 else skip


# ---- attention ---------------------------------------------------------------------------------------------


@_meaning("RotaryEmbedding")
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
    mask = _sum(g, *terms) if any(t is not None for t in terms) else None
    scale = attr_float(node, "scale", 0.0) or None
    y = g.op("Attention", query, key, value, mask, scale=scale, is_causal=is_causal)
    return [_merged(g, y), key, value]


@_meaning("MultiHeadAttention")
def _multi_head(g: Editor, node: ir.Node) -> Replacement:
    """Queries [B, S, N · H]; keys and values likewise, or [B, N, L, H], or all in one [B, S, N, 3, H]."""
    query, key, value, bias, padding, more, past_key, past_value = (input_at(node, i) for i in range(8))
    if len(node.inputs) > 8 and any(v is not None for v in node.inputs[8:]):
        raise refusal(node, "a cache of fixed size is unknown here")
    if _is_used(node, 3):
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


@_meaning("DecoderMaskedMultiHeadAttention")
def _decoder(g: Editor, node: ir.Node) -> Replacement:
    """One row of queries [B, 1, N · H]; keys and values likewise, after those of the past or (with a buffer
    of fixed size) put into it; or those of the other side, [B, N, L, H].
    """
    query, key, value, mask, more, past_key, past_value, length = (input_at(node, i) for i in range(8))
    bias, shared = input_at(node, 10), attr_int(node, "past_present_share_buffer", 0)
    if input_at(node, 9) is not None or _is_used(node, 3):
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


@_meaning("Attention")
def _attention(g: Editor, node: ir.Node) -> Replacement:
    """Queries, keys and values are one product of the input; what is past is [2, B, N, P, H]."""
    x, weights, bias, padding, past, more = (input_at(node, i) for i in range(6))
    if input_at(node, 6) is not None:
        raise refusal(node, "a cache of fixed size is unknown here")
    return _attend_to_product(g, node, _sum(g, g.op("MatMul", x, weights), bias), padding, past, more, x)


@_meaning("QAttention")
def _quantized_attention(g: Editor, node: ir.Node) -> Replacement:
    """The same of a product of integers."""
    x, w, bias, x_scale, w_scale, padding, x_zero, w_zero, past = (input_at(node, i) for i in range(9))
    left = g.op("DequantizeLinear", x, x_scale, x_zero)
    right = g.op("DequantizeLinear", w, w_scale, w_zero, axis=1)
    return _attend_to_product(
        g, node, _sum(g, g.op("MatMul", left, right), bias), padding, past, None, x_scale
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
    if not _is_used(node, 1):
        return [y]
    return [y, g.op("Concat", *(g.op("Unsqueeze", v, g.ints([0])) for v in (keys, values)), axis=0)]


_meaning("GroupQueryAttention")(group_query_attention)
_meaning("SparseAttention")(sparse_attention)
_TABLE.update(LAYERS)
_TABLE.update(STREAMS)
_TABLE.update(EXPERIMENTAL)

# ---- recurrent layers --------------------------------------------------------------------------------------

_meaning("DynamicQuantizeLSTM")(dynamic_quantize_lstm)


# ---- others ------------------------------------------------------------------------------------------------


@_meaning("Trilu")
def _trilu(g: Editor, node: ir.Node) -> Replacement:
    return [g.op("Trilu", *node.inputs, upper=attr_int(node, "upper", 1))]


@_meaning("Pad")
def _pad(g: Editor, node: ir.Node) -> Replacement:
    return [g.op("Pad", *node.inputs[:3], mode=attr_str(node, "mode", "constant"))]


@_meaning("ExpandDims")
def _expand_dims(g: Editor, node: ir.Node) -> Replacement:
    axis = g.op("Reshape", g.op("Cast", input_at(node, 1), to=7), g.ints([1]))
    return [g.op("Unsqueeze", input_at(node, 0), axis)]


@_meaning("Unique")
def _unique(g: Editor, node: ir.Node) -> Replacement:
    """In the order in which elements come first."""
    values, _, places, counts = g.ops("Unique", [input_at(node, 0)], 4, sorted=0)
    return [values, places, counts]


@_meaning("GridSample")
def _grid_sample(g: Editor, node: ir.Node) -> Replacement:
    mode = attr_str(node, "mode", "bilinear")
    return [
        g.op(
            "GridSample",
            *node.inputs,
            mode={"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
            padding_mode=attr_str(node, "padding_mode", "zeros"),
            align_corners=attr_int(node, "align_corners", 0),
        )
    ]


@_meaning("CDist")
def _distances(g: Editor, node: ir.Node) -> Replacement:
    """Between each row of A and each row of B, squared or not."""
    a, b = (
        g.op("Unsqueeze", input_at(node, 0), g.ints([1])),
        g.op("Unsqueeze", input_at(node, 1), g.ints([0])),
    )
    metric = attr_str(node, "metric", "sqeuclidean")
    if metric not in ("euclidean", "sqeuclidean"):
        raise refusal(node, f"metric {metric!r} is unknown here")
    op = "ReduceL2" if metric == "euclidean" else "ReduceSumSquare"
    return [g.op(op, g.op("Sub", a, b), g.ints([2]), keepdims=0)]


@_meaning("Rfft")
def _rfft(g: Editor, node: ir.Node) -> Replacement:
    """Along the last dimension."""
    if attr_int(node, "signal_ndim", 1) != 1 or attr_int(node, "normalized", 0):
        raise refusal(node, "more than one dimension, and normalisation, are unknown here")
    x, axis = g.op("Unsqueeze", input_at(node, 0), g.ints([-1])), g.constant(-2, np.int64)
    return [g.op("DFT", x, None, axis, onesided=attr_int(node, "onesided", 1))]
