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
from ingot.ops.nodes import input_at
from ingot.ops.registry import (
    attr_float,
    attr_floats,
    attr_int,
    attr_str,
    label,
    unfit,
    unfit_kinds,
)
from ingot.passes.contrib_attention import ATTENTION
from ingot.passes.contrib_layers import LAYERS
from ingot.passes.contrib_recurrent import dynamic_quantize_lstm
from ingot.passes.contrib_streams import STREAMS
from ingot.passes.edit import (
    Editor,
    graphs_added,
    graphs_of,
    ints_of,
    is_used,
    kept,
    rank_of,
    refusal,
    replace,
    reserve_names,
    sum_of,
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
        for value, is_read in zip(values, used, strict=False):
            if value is None and is_read:
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


# ---- activations -------------------------------------------------------------------------------------------


@_meaning("Gelu")
def _gelu(g: Editor, node: ir.Node) -> Replacement:
    return [g.op("Gelu", input_at(node, 0))]


@_meaning("FastGelu")
def _fast_gelu(g: Editor, node: ir.Node) -> Replacement:
    """With the hyperbolic tangent, after a bias."""
    return [g.op("Gelu", sum_of(g, input_at(node, 0), input_at(node, 1)), approximate="tanh")]


@_meaning("BiasGelu")
def _bias_gelu(g: Editor, node: ir.Node) -> Replacement:
    return [g.op("Gelu", sum_of(g, input_at(node, 0), input_at(node, 1)))]


@_meaning("QuickGelu")
def _quick_gelu(g: Editor, node: ir.Node) -> Replacement:
    """x · sigmoid(alpha · x)."""
    return [g.op("Swish", input_at(node, 0), alpha=attr_float(node, "alpha", 1.702))]


@_meaning("BiasSplitGelu")
def _bias_split_gelu(g: Editor, node: ir.Node) -> Replacement:
    """The first half of the channels times Gelu of the second."""
    both = sum_of(g, input_at(node, 0), input_at(node, 1))
    first, second = g.ops("Split", [both], 2, axis=-1, num_outputs=2)
    return [g.op("Mul", first, g.op("Gelu", second))]


@_meaning("BiasAdd")
def _bias_add(g: Editor, node: ir.Node) -> Replacement:
    return [sum_of(g, *node.inputs)]


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
    return [_conv_end(g, node, sum_of(g, y, input_at(node, 3)))]


def _conv_end(g: Editor, node: ir.Node, y: ir.Value) -> ir.Value:
    parameters = attr_floats(node, "activation_params") or ()
    return _activated(g, node, y, attr_str(node, "activation", ""), parameters)


@_meaning("NhwcConv", "NhwcFusedConv")
def _nhwc_fused_conv(g: Editor, node: ir.Node) -> Replacement:
    """Channels last in x, z and y."""
    y = g.op("Conv", _first(g, input_at(node, 0)), input_at(node, 1), input_at(node, 2), **kept(node, _CONV))
    z = input_at(node, 3)
    return [_last(g, _conv_end(g, node, sum_of(g, y, None if z is None else _first(g, z))), node.inputs[0])]


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
    return [g.op("Gelu", sum_of(g, product, input_at(node, 2)), approximate="tanh")]


# ---- normalisations ----------------------------------------------------------------------------------------


def _inverse_deviation(g: Editor, node: ir.Node, x: ir.Value, epsilon: float, axis: int = -1) -> ir.Value:
    """1 / sqrt(mean(x²) + epsilon), where an output asks for it."""
    rank = rank_of(x)
    if axis != -1 and rank is None:
        raise refusal(node, "its second output is used, and the rank of the input is unknown")
    axes = [-1] if axis == -1 or rank is None else list(range(axis % rank, rank))
    square = g.op("ReduceMean", g.op("Mul", x, x), g.ints(axes))
    return g.op("Reciprocal", g.op("Sqrt", g.op("Add", square, g.number(epsilon, x))))


@_meaning("SimplifiedLayerNormalization")
def _simplified(g: Editor, node: ir.Node) -> Replacement:
    """RMSNormalization."""
    x, epsilon, axis = input_at(node, 0), attr_float(node, "epsilon", 1e-5), attr_int(node, "axis", -1)
    assert x is not None
    stash = attr_int(node, "stash_type", 1)
    y = g.op("RMSNormalization", x, input_at(node, 1), epsilon=epsilon, axis=axis, stash_type=stash)
    return [y, _inverse_deviation(g, node, x, epsilon, axis) if is_used(node, 1) else None]


@_meaning("SkipLayerNormalization")
def _skip(g: Editor, node: ir.Node) -> Replacement:
    """LayerNormalization of a sum, which is an output too."""
    total = sum_of(g, input_at(node, 0), input_at(node, 1), input_at(node, 4))
    many = 3 if is_used(node, 1) or is_used(node, 2) else 1
    inputs = [total, input_at(node, 2), input_at(node, 3)]
    results = g.ops("LayerNormalization", inputs, many, axis=-1, epsilon=attr_float(node, "epsilon", 1e-12))
    return [*[*results, None, None][:3], total]


@_meaning("SkipSimplifiedLayerNormalization")
def _skip_simplified(g: Editor, node: ir.Node) -> Replacement:
    total, epsilon = (
        sum_of(g, input_at(node, 0), input_at(node, 1), input_at(node, 3)),
        attr_float(node, "epsilon", 1e-12),
    )
    y = g.op("RMSNormalization", total, input_at(node, 2), axis=-1, epsilon=epsilon)
    return [y, None, _inverse_deviation(g, node, total, epsilon) if is_used(node, 2) else None, total]


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
    total = sum_of(g, g.op("Gather", words, ids), at, about)
    y = g.op("LayerNormalization", total, gamma, beta, axis=-1, epsilon=attr_float(node, "epsilon", 1e-12))
    counted: ir.Value | None = None
    if is_used(node, 1):
        if mask is not None:
            counted = g.op("ReduceSum", g.op("Cast", mask, to=6), g.ints([1]), keepdims=0)
        else:
            counted = g.op("Expand", g.constant(0, np.int32), g.op("Shape", ids, start=0, end=1))
    return [y, counted, total]


@_meaning("GroupNorm", "SkipGroupNorm")
def _group_norm(g: Editor, node: ir.Node) -> Replacement:
    """GroupNormalization of images with channels last, of a sum where there is one, and SiLU."""
    total = sum_of(g, input_at(node, 0), _beside(g, input_at(node, 3)), input_at(node, 4))
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


_TABLE.update(ATTENTION)
_TABLE.update(LAYERS)
_TABLE.update(STREAMS)
_TABLE.update(EXPERIMENTAL)
_TABLE["DynamicQuantizeLSTM"] = dynamic_quantize_lstm
