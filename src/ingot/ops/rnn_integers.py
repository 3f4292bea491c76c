"""The steps of an LSTM whose recurrent weights are small integers, as a session's graph says them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.kernels.contract import name_of
from ingot.kernels.recurrent import Sequences, through_steps
from ingot.kernels.recurrent_integers import IntegerWeights, definition, pack_integer_states
from ingot.kernels.units import DTYPES
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import FLOAT32
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_float,
    attr_int,
    attr_str,
    given,
    need,
    present,
    register,
    shape_error,
    show,
)
from ingot.ops.rnn import check_lengths, length_view


@register("QuantizedLSTM", since=1, domain="ingot")
class QuantizedLSTM(Op):
    """What the inputs contribute to the gates [steps, batch, directions · 4 · hidden], then r [directions,
    hidden, 4 · hidden] of int8 or uint8, its scale and zero point ([directions], or for each column too),
    sequence_lens (int32), h, c and peepholes as LSTM has them. The states become uint8 before each product.
    """

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """LSTM's outputs."""
        gates, r = need(node, inputs, 0), need(node, inputs, 1)
        if len(gates.shape) != 3 or len(r.shape) != 3:
            raise shape_error(
                node, f"gates {show(gates.shape)} and weights {show(r.shape)} must both have rank 3"
            )
        (steps, batch, width), (directions, hidden, columns) = gates.shape, r.shape
        wanted = len(_reverse(node))
        if directions != wanted or columns != 4 * hidden or width != directions * columns:
            raise shape_error(
                node,
                f"recurrent weights have shape {show(r.shape)} beside {width} columns of the inputs; wanted "
                f"are {wanted} directions of four gates for each hidden unit",
            )
        last = (directions, batch, hidden)
        for index, name, shapes in (
            (2, "the scale", [(directions,), (directions, columns)]),
            (3, "the zero point", [(directions,), (directions, columns)]),
            (4, "sequence_lens", [(batch,)]),
            (5, "initial_h", [last]),
            (6, "initial_c", [last]),
            (7, "the peepholes", [(directions, 3 * hidden)]),
        ):
            facts = given(inputs, index)
            if facts is not None and facts.shape not in shapes:
                raise shape_error(
                    node,
                    f"{name} has shape {show(facts.shape)}, and must be {' or '.join(map(show, shapes))}",
                )
        return [Facts(FLOAT32, (steps, directions, batch, hidden)), *[Facts(FLOAT32, last)] * 2]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The definition."""
        gates, r, scale = (present(inputs, i) for i in range(3))
        zero, lengths, h, c, p = (given(inputs, i) for i in range(3, 8))
        steps, batch, _ = gates.shape
        if lengths is not None:
            check_lengths(node, lengths, steps)
        nothing = np.zeros((r.shape[0], batch, r.shape[1]), np.float32)
        results = definition(
            gates, r, scale, zero, p, lengths, nothing if h is None else h, nothing if c is None else c,
            reverse=_reverse(node), clip=_clip(node), input_forget=_is_coupled(node),
        )  # fmt: skip
        return [array.astype(np.float32) for array in results]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Constant weights."""
        gates, r, scale, zero, lengths, h, c, p = [*node.inputs, *[None] * 8][:8]
        assert gates is not None and r is not None
        parts = (r, scale, zero, p)
        constants = [plan.constant(v) for v in parts]
        weights, own_scale, own_zero, peepholes = constants
        if any(v is not None and k is None for v, k in zip(parts, constants, strict=True)):
            return False
        if weights is None or own_scale is None or name_of(weights.dtype) not in DTYPES:
            return False
        clip, is_coupled, steps = _clip(node), _is_coupled(node), plan.facts(gates).shape[0]

        def make() -> IntegerWeights:
            return pack_integer_states(
                weights, own_scale, own_zero, peepholes, plan.machine, clip=clip, input_forget=is_coupled
            )

        lasting = all(v is None or v.is_initializer() for v in parts)
        key = ("quantised LSTM", *parts, clip, is_coupled) if lasting else None
        products = plan.plain(gates)
        outputs = [plan.output(v) if plan.wants(v) else None for v in node.outputs]
        y, last_h, last_c = [*outputs, None, None, None][:3]
        sequences = Sequences(
            y,
            last_h,
            last_c,
            _reverse(node),
            None if lengths is None else length_view(node, plan, lengths, steps),
            None if h is None else plan.view(h),
            None if c is None else plan.view(c),
        )
        plan.emit(through_steps(products, plan.pack(key, make), sequences, plan.machine))
        return True


def _reverse(node: ir.Node) -> tuple[bool, ...]:
    """For each direction, whether it goes backwards."""
    direction = attr_str(node, "direction", "forward").lower()
    return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[direction]


def _clip(node: ir.Node) -> float | None:
    clip = attr_float(node, "clip", 0.0)
    return clip if clip > 0 else None


def _is_coupled(node: ir.Node) -> bool:
    return bool(attr_int(node, "input_forget", 0))
