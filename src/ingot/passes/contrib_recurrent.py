"""com.microsoft's DynamicQuantizeLSTM: the product of its inputs as standard operators, then its steps
(`ingot.QuantizedLSTM`).

Before each product, what is multiplied becomes uint8 over its own range, as DynamicQuantizeLinear does it:
all of the input at once, the hidden state anew in every step.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.ops.registry import attr_str, label
from ingot.passes.edit import Editor, kept

_DEFAULT = ("sigmoid", "tanh", "tanh")


def dynamic_quantize_lstm(g: Editor, node: ir.Node) -> list[ir.Value]:
    """Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden].

    Inputs: X [steps, batch, input], W [directions, input, 4 · hidden] and R [directions, hidden, 4 · hidden]
    of small integers, B, sequence_lens, initial_h, initial_c, P, then a scale and a zero point of W and of R:
    one for each direction, or one for each column of it.
    """
    given = [*node.inputs, *[None] * 12]
    x, w, r, bias, lengths, h, c, peepholes, w_scale, w_zero, r_scale, r_zero = given[:12]
    names = node.attributes.get_strings("activations", [])
    if tuple(name.lower() for name in names) not in [(), *(_DEFAULT * n for n in (1, 2))]:
        raise UnsupportedOperatorError(
            f"{label(node)}: found activations {', '.join(names)}; of a quantised LSTM only Sigmoid, Tanh, "
            "Tanh are known here. Save the model with an LSTM of floats, or give the operator's "
            "implementation to ingot.register_op() under another name."
        )
    directions = 2 if attr_str(node, "direction", "forward").lower() == "bidirectional" else 1
    if lengths is None:
        whole, scale, zero = g.ops("DynamicQuantizeLinear", [x], 3)
    else:  # the range of the steps that a sequence reaches
        lengths = g.op("Cast", lengths, to=int(ir.DataType.INT32))
        shape = g.op("Shape", x)
        steps = g.op("Gather", shape, g.constant(0, np.int64), axis=0)
        numbers = g.op("Range", g.constant(0, np.int64), steps, g.constant(1, np.int64))
        most = g.op("Cast", g.op("ReduceMax", lengths, keepdims=0), to=int(ir.DataType.INT64))
        reached = g.op("Unsqueeze", g.op("Less", numbers, most), g.ints([1, 2]))
        _, scale, zero = g.ops(
            "DynamicQuantizeLinear", [g.op("Where", reached, x, g.constant(0.0, np.float32))], 3
        )
        whole = g.op("QuantizeLinear", x, scale, zero)

    def columns(value: ir.Value | None) -> ir.Value | None:
        """Scales or zero points of W as a vector of all its columns, or the one number that there is."""
        if value is None:
            return None
        rows = g.op("Reshape", value, g.ints([directions, -1]))
        if directions == 2:
            width = g.op("Shape", w, start=2)
            rows = g.op("Expand", rows, g.op("Concat", g.ints([directions]), width, axis=0))
        return g.op("Reshape", rows, g.ints([-1]))

    depth = g.op("Concat", g.op("Shape", w, start=1, end=2), g.ints([-1]), axis=0)
    of_inputs = g.op("Reshape", g.op("Transpose", w, perm=[1, 0, 2]), depth)
    sums = g.op("MatMulInteger", whole, of_inputs, zero, columns(w_zero))
    gates = g.op("Cast", sums, to=int(ir.DataType.FLOAT))
    gates = g.op("Mul", gates, g.op("Mul", scale, columns(w_scale)))
    if bias is not None:  # of the input and of the state
        both = g.ops("Split", [bias], 2, axis=1, num_outputs=2)
        gates = g.op("Add", gates, g.op("Reshape", g.op("Add", *both), g.ints([-1])))
    operands = [gates, r, r_scale, r_zero, lengths, h, c, peepholes]
    own = kept(node, ("direction", "clip", "input_forget"))
    return list(g.ops("QuantizedLSTM", operands, 3, domain="ingot", **own))
