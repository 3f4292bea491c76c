"""com.microsoft's DynamicQuantizeLSTM as standard operators: one Scan over the steps for each direction.

Before each product, what is multiplied becomes uint8 over its own range, as DynamicQuantizeLinear does it:
all of the input at once, the hidden state anew in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import UnsupportedOperatorError
from ingot.ops.registry import attr_float, attr_int, attr_str, label
from ingot.passes.edit import Editor, attribute, fresh

_Op = Callable[..., Sequence[ir.Value]]
_DEFAULT = ("sigmoid", "tanh", "tanh")
_INT64 = ir.DataType.INT64


def dynamic_quantize_lstm(g: Editor, node: ir.Node) -> list[ir.Value]:
    """Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden].

    Inputs: X [steps, batch, input], W [directions, input, 4 · hidden] and R [directions, hidden, 4 · hidden]
    of small integers, B, sequence_lens, initial_h, initial_c, P, then a scale and a zero point of W and of R:
    one for each direction, or one for each column of it.
    """
    given = [*node.inputs, *[None] * 12]
    x, w, r, bias, lengths, h, c, peepholes, w_scale, w_zero, r_scale, r_zero = given[:12]
    direction = attr_str(node, "direction", "forward").lower()
    names = node.attributes.get_strings("activations", [])
    if tuple(name.lower() for name in names) not in [(), *(_DEFAULT * n for n in (1, 2))]:
        raise UnsupportedOperatorError(
            f"{label(node)}: found activations {', '.join(names)}; of a quantised LSTM only Sigmoid, Tanh, "
            "Tanh are known here. Save the model with an LSTM of floats, or give the operator's "
            "implementation to ingot.register_op() under another name."
        )
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]

    def part(value: ir.Value | None, number: int) -> ir.Value | None:
        """What belongs to a direction."""
        return None if value is None else g.op("Gather", value, g.constant(number, np.int64), axis=0)

    shape = g.op("Shape", x)
    steps, batch = (g.op("Gather", shape, g.constant(d, np.int64), axis=0) for d in (0, 1))
    hidden = g.ints([attr_int(node, "hidden_size", 0)])
    state = g.op("Concat", g.op("Unsqueeze", batch, g.ints([0])), hidden, axis=0)
    nothing = g.op("ConstantOfShape", state, value=ir.Tensor(np.zeros(1, np.float32)))
    numbers = g.op("Range", g.constant(0, np.int64), steps, g.constant(1, np.int64))
    last = None
    if lengths is None:
        whole, scale, zero = g.ops("DynamicQuantizeLinear", [x], 3)
    else:  # the range of the steps that a sequence reaches
        lengths = g.op("Cast", lengths, to=int(_INT64))
        last = g.op("Unsqueeze", lengths, g.ints([1]))
        reached = g.op("Slice", x, g.ints([0]), g.op("ReduceMax", lengths, g.ints([0])), g.ints([0]))
        _, scale, zero = g.ops("DynamicQuantizeLinear", [reached], 3)
        whole = g.op("QuantizeLinear", x, scale, zero)

    def turned(value: ir.Value) -> ir.Value:
        """Each sequence from its own end to its beginning: they all are at their first step together."""
        return g.op("ReverseSequence", value, lengths, time_axis=0, batch_axis=1)

    results: list[Sequence[ir.Value]] = []
    for number, is_backward in enumerate(backwards):
        sums = g.op("MatMulInteger", whole, part(w, number), zero, part(w_zero, number))
        gates = _scaled(g.ops, sums, scale, part(w_scale, number))
        if (own := part(bias, number)) is not None:  # of the input and of the state
            gates = g.op("Add", gates, g.op("Add", *g.ops("Split", [own], 2, axis=0, num_outputs=2)))
        body = _step(
            node,
            [part(r, number), part(r_scale, number), part(r_zero, number)],
            part(peepholes, number),
            last,
        )
        initial = [nothing if s is None else part(s, number) for s in (h, c)]
        each = is_backward and lengths is not None
        order = int(is_backward and lengths is None)
        end_h, end_c, y = g.ops(
            "Scan", [*initial, numbers, turned(gates) if each else gates], 3,
            body=ir.AttrGraph("body", body), num_scan_inputs=2,
            scan_input_directions=[order] * 2, scan_output_directions=[order],
        )  # fmt: skip
        results.append((end_h, end_c, turned(y) if each else y))
    joined: list[ir.Value] = []
    for parts, axis in zip(zip(*results, strict=True), (0, 0, 1), strict=True):  # axis: of the directions
        each = [g.op("Unsqueeze", value, g.ints([axis])) for value in parts]
        joined.append(each[0] if len(each) == 1 else g.op("Concat", *each, axis=axis))
    last_h, last_c, y = joined
    return [y, last_h, last_c]


def _scaled(op: _Op, sums: ir.Value, *scales: ir.Value | None) -> ir.Value:
    (factor,) = op("Mul", scales, 1)
    (real,) = op("Cast", [sums], 1, to=int(ir.DataType.FLOAT))
    return op("Mul", [real, factor], 1)[0]


def _step(
    node: ir.Node,
    recurrent: Sequence[ir.Value | None],
    peepholes: ir.Value | None,
    lengths: ir.Value | None,
) -> ir.Graph:
    """Hidden and cell state, the step's number and its part of the gates [batch, 4 · hidden]; the new states,
    and what is put out. Sequences that have ended keep their states and put out 0.
    """
    weights, scale, zero = recurrent
    real = ir.DataType.FLOAT
    kinds = (("h", real), ("c", real), ("step", _INT64), ("gates", real))
    inputs = [ir.Value(name=fresh(f"{node.name}/{name}"), type=ir.TensorType(kind)) for name, kind in kinds]
    h, c, step, gates = inputs
    made: list[ir.Node] = []

    def ops(
        op_type: str, given: Sequence[ir.Value | None], outputs: int, **attributes: object
    ) -> Sequence[ir.Value]:
        found = [attribute(key, value) for key, value in attributes.items()]
        new = ir.Node("", op_type, given, found, num_outputs=outputs, name=fresh(f"{node.name}/{op_type}"))
        for value in new.outputs:
            value.name = fresh(f"{new.name}_out")
        made.append(new)
        return new.outputs

    def op(op_type: str, *given: ir.Value | None, **attributes: object) -> ir.Value:
        return ops(op_type, given, 1, **attributes)[0]

    def gate(name: str, *terms: ir.Value) -> ir.Value:
        total = terms[0]
        for term in terms[1:]:
            total = op("Add", total, term)
        if bound is not None:
            total = op("Clip", total, *bound)
        return op(name, total)

    bound: tuple[ir.Value, ir.Value] | None = None
    if (most := attr_float(node, "clip", 0.0)) > 0:
        low, high = (op("Constant", value=ir.Tensor(np.array(v, np.float32))) for v in (-most, most))
        bound = (low, high)
    alive, nothing = h, op("Constant", value=ir.Tensor(np.zeros((), np.float32)))
    if lengths is not None:  # the range has what was put out in the step before
        alive = op("Where", op("LessOrEqual", step, lengths), h, nothing)
    whole, own_scale, own_zero = ops("DynamicQuantizeLinear", [alive], 3)
    sums = op("MatMulInteger", whole, weights, own_zero, zero)
    every = op("Add", gates, _scaled(ops, sums, own_scale, scale))
    of_input, of_output, of_forget, of_cell = ops("Split", [every], 4, axis=-1, num_outputs=4)
    looks = [None] * 3 if peepholes is None else ops("Split", [peepholes], 3, axis=-1, num_outputs=3)
    seen = [[] if look is None else [op("Mul", look, c)] for look in (looks[0], looks[2])]
    admit = gate("Sigmoid", of_input, *seen[0])
    if attr_int(node, "input_forget", 0):
        keep = op("Sub", op("Constant", value=ir.Tensor(np.ones((), np.float32))), admit)
    else:
        keep = gate("Sigmoid", of_forget, *seen[1])
    cell = op("Add", op("Mul", keep, c), op("Mul", admit, gate("Tanh", of_cell)))
    shown = gate("Sigmoid", of_output, *([] if looks[1] is None else [op("Mul", looks[1], cell)]))
    hidden = op("Mul", shown, op("Tanh", cell))
    out = op("Identity", hidden)
    if lengths is not None:
        goes_on = op("Less", step, lengths)
        out, hidden = op("Where", goes_on, hidden, nothing), op("Where", goes_on, hidden, h)
        cell = op("Where", goes_on, cell, c)
    return ir.Graph(inputs, [hidden, cell, out], nodes=made, name=f"{node.name}_step")
