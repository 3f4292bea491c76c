"""com.microsoft's mixtures of experts: MoE, and QMoE, whose weights are integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.ops.nodes import input_at
from ingot.ops.numeric import unpacked
from ingot.ops.registry import Array, attr_float, attr_int, attr_str
from ingot.passes.edit import Editor, constant_of, refusal

#: From rows [R, in], or [E, R, in] that differ for each expert, to [E, R, out]; which of the experts' layers.
Layer = Callable[[ir.Value, int], ir.Value]


def experts(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """MoE: products with the weights of all experts at once."""

    def layer(value: ir.Value, which: int) -> ir.Value:
        weights, bias = input_at(node, 2 * which), input_at(node, 2 * which + 1)
        y = g.op("MatMul", value, g.op("Transpose", weights, perm=[0, 2, 1]))
        return y if bias is None else g.op("Add", y, g.op("Unsqueeze", bias, g.ints([1])))

    return _mixture(g, node, layer, input_at(node, 6) is not None, None)


def quantised_experts(g: Editor, node: ir.Node) -> Sequence[ir.Value | None]:
    """QMoE: a product with integers for each expert where a block of them has a scale, else with floats."""
    if attr_str(node, "quant_type", "int") != "int":
        raise refusal(node, f"weights of {attr_str(node, 'quant_type', '')!r} are unknown here")
    block = attr_int(node, "block_size", 0)

    def layer(value: ir.Value, which: int) -> ir.Value:
        codes, scales, zeros = (
            constant_of(input_at(node, i)) for i in (3 * which - 1, 3 * which, 10 + which)
        )
        bits = attr_int(node, "expert_weight_bits", 4)
        bits = attr_int(node, f"fc{which}_expert_weight_bits", bits)
        if codes is None or scales is None or (zeros is None and input_at(node, 10 + which) is not None):
            raise refusal(node, "its weights are computed, and must be constants")
        if bits not in (2, 4, 8):
            raise refusal(node, f"weights of {bits} bits are unknown here")
        count, outputs = codes.shape[:2]
        depth = codes.shape[2] * 8 // bits
        each = list(value_of_each(g, value, which, count))
        products: list[ir.Value] = []
        for e in range(count):
            own = None if zeros is None else zeros[e]
            if block > 0 and bits in (4, 8):
                packed = codes[e].reshape(outputs, depth // block, -1)
                inputs = [each[e], g.constant(packed), g.constant(np.ascontiguousarray(scales[e]))]
                inputs += [] if own is None else [g.constant(own)]
                sizes = {"K": depth, "N": outputs, "bits": bits, "block_size": block}
                y = g.op("MatMulNBits", *inputs, domain="com.microsoft", **sizes)
            else:
                weights = _floats(codes[e], scales[e], own, bits, block)
                y = g.op("MatMul", each[e], g.constant(np.ascontiguousarray(weights.T, scales.dtype)))
            products.append(g.op("Unsqueeze", y, g.ints([0])))
        stacked = g.op("Concat", *products, axis=0)
        bias = input_at(node, 3 * which + 1)
        return stacked if bias is None else g.op("Add", stacked, g.op("Unsqueeze", bias, g.ints([1])))

    return _mixture(g, node, layer, input_at(node, 8) is not None, input_at(node, 14))


def value_of_each(g: Editor, value: ir.Value, which: int, count: int) -> Sequence[ir.Value]:
    """The rows that each expert's layer gets: the same for the first, its own for the second."""
    if which != 2:
        return [value] * count
    parts = g.ops("Split", [value], count, axis=0, num_outputs=count)
    return [g.op("Squeeze", part, g.ints([0])) for part in parts]


def _floats(codes: Array, scales: Array, zeros: Array | None, bits: int, block: int) -> Array:
    """One expert's weights [out, in] from packed ones [out, bytes]."""
    whole = unpacked(codes, bits).astype(np.float32)
    each = scales.reshape(len(whole), -1).astype(np.float32)
    if zeros is None:
        zero = np.full(each.shape, 1 << (bits - 1), np.float32)
    else:  # by blocks each row begins with a byte of its own; else the numbers of all rows are one list
        numbers = unpacked(zeros.reshape(len(whole), -1) if block > 0 else zeros.reshape(1, -1), bits)
        zero = (
            numbers.reshape(len(whole), -1)[:, : each.shape[1]]
            if block > 0
            else numbers[0, : len(whole), None]
        )
    size = whole.shape[1] // each.shape[1]
    return (whole - np.repeat(zero.astype(np.float32), size, 1)) * np.repeat(each, size, 1)


def _mixture(
    g: Editor, node: ir.Node, layer: Layer, has_third: bool, shares_of: ir.Value | None
) -> Sequence[ir.Value | None]:
    """Every expert for every row, weighed by its share; one that a row has not chosen weighs nothing."""
    x, router = input_at(node, 0), input_at(node, 1)
    kind, fused = attr_str(node, "activation_type", "relu"), attr_int(node, "swiglu_fusion", 0)
    unknown = kind not in ("relu", "gelu", "silu", "swiglu", "identity")
    if unknown or attr_int(node, "use_sparse_mixer", 0) or attr_int(node, "swiglu_limit_after_activation", 0):
        raise refusal(node, f"experts with activation {kind!r}, or a sparse mixer, are unknown here")
    rows = g.op("Reshape", x, g.op("Concat", g.ints([-1]), g.op("Shape", x, start=-1), axis=0))

    hidden = layer(rows, 1)
    if kind == "swiglu":
        if fused == 1:
            # Gates and what they let through take turns.
            shape = g.op("Concat", g.op("Shape", hidden, start=0, end=2), g.ints([-1, 2]), axis=0)
            pairs = g.ops("Split", [g.op("Reshape", hidden, shape)], 2, axis=3, num_outputs=2)
            gate, linear = (g.op("Squeeze", v, g.ints([3])) for v in pairs)
        elif fused == 2:
            gate, linear = g.ops("Split", [hidden], 2, axis=2, num_outputs=2)
        else:
            gate, linear = hidden, layer(rows, 3)
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
        if has_third:
            hidden = g.op("Mul", hidden, layer(rows, 3))
    y = layer(hidden, 2)
    best, chosen = g.ops("TopK", [router, g.ints([attr_int(node, "k", 1)])], 2, axis=-1)
    if shares_of is not None:
        shares = g.op("GatherElements", shares_of, chosen, axis=-1)
        if attr_int(node, "normalize_routing_weights", 0):
            shares = g.op("Div", shares, g.op("ReduceSum", shares, g.ints([-1])))
    elif attr_int(node, "normalize_routing_weights", 0):
        shares = g.op("Softmax", best, axis=-1)
    else:
        shares = g.op("GatherElements", g.op("Softmax", router, axis=-1), chosen, axis=-1)
    nothing = g.op("Mul", router, g.number(0.0, router))
    weights = g.op("ScatterElements", nothing, chosen, shares, axis=-1)
    weighed = g.op("Mul", y, g.op("Unsqueeze", g.op("Transpose", weights, perm=[1, 0]), g.ints([2])))
    total = g.op("ReduceSum", weighed, g.ints([0]), keepdims=0)
    return [g.op("Reshape", total, g.op("Shape", x))]
