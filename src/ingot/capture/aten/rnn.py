"""Recurrent layers: LSTM, GRU and plain RNN, one ONNX node for each layer."""

# Rows take whatever the ATen call was given, needed or not; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch

from ingot.capture.aten.registry import whole
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_VF: Any = torch._VF  # its functions come from C++ and are unknown to type checkers

_PACKED = "packed sequences have no ONNX form; pass padded tensors and mask the result."

# Where ONNX's gates stand among torch's: torch has i f g o and r z n, ONNX i o f c and z r h.
_GATES = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}


def _reordered(weight: Any, op_type: str) -> Any:
    gates = np.split(weight, len(_GATES[op_type]), axis=0)
    return np.concatenate([gates[i] for i in _GATES[op_type]], axis=0)


def _weights(
    g: Recorder, groups: Sequence[Sequence[Tensor]], op_type: str, biases: bool
) -> list[ir.Value | None]:
    """W, R and B of one layer: a row for each direction."""
    contents: list[list[Any]] = []
    for tensors in groups:
        reals = [g.real(t) for t in tensors]
        if any(r is None for r in reals):
            raise ExportError(f"{op_type} weights that are computed from inputs have no ONNX form.")
        contents.append([_reordered(g.contents(r), op_type) for r in reals if r is not None])
    name, dtype = g.entry(groups[0][0]).name, groups[0][0].dtype
    made: list[ir.Value | None] = [
        g.weight(f"{name}.onnx", np.stack([c[i] for c in contents]), dtype) for i in (0, 1)
    ]
    bias = np.stack([np.concatenate(c[2:4]) for c in contents]) if biases else None
    return [*made, None if bias is None else g.weight(f"{name}.bias", bias, dtype)]


def _layers(
    g: Recorder,
    op_type: str,
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    train: bool,
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
    **attributes: Any,
) -> list[ir.Value]:
    if train and dropout:
        raise ExportError(f"{op_type} with dropout in training mode draws random numbers; call eval().")
    directions = 2 if bidirectional else 1
    per = 4 if has_biases else 2
    if len(params) != num_layers * directions * per:
        raise ExportError(f"{op_type} with proj_size has no ONNX operator. Use a Linear layer after it.")
    value = g.op("Transpose", g.val(x), perm=[1, 0, 2]) if batch_first else g.val(x)
    hidden = int(states[0].shape[-1])
    starts = [
        g.ops("Split", g.val(s), n=num_layers, axis=0, num_outputs=num_layers)
        if num_layers > 1
        else [g.val(s)]
        for s in states
    ]
    ends: list[list[ir.Value]] = [[] for _ in states]
    for layer in range(num_layers):
        first = layer * directions * per
        groups = [params[first + d * per : first + (d + 1) * per] for d in range(directions)]
        outputs = g.ops(
            op_type,
            value,
            *_weights(g, groups, op_type, has_biases),
            None,
            *[s[layer] for s in starts],
            n=1 + len(states),
            hidden_size=hidden,
            direction="bidirectional" if bidirectional else "forward",
            **attributes,
        )
        for kept, end in zip(ends, outputs[1:], strict=True):
            kept.append(end)
        if bidirectional:  # [time, 2, batch, hidden] to [time, batch, 2 hidden]
            value = g.op("Transpose", outputs[0], perm=[0, 2, 1, 3])
            value = g.op("Reshape", value, g.const([0, 0, -1]))
        else:
            value = g.op("Squeeze", outputs[0], g.const([1]))
    if batch_first:
        value = g.op("Transpose", value, perm=[1, 0, 2])
    return [value, *[e[0] if len(e) == 1 else g.op("Concat", *e, axis=0) for e in ends]]


def _fake_lstm(x: Tensor, states: Any, params: Any, *rest: Any) -> tuple[Tensor, ...]:
    """Outputs of the right shape: torch's own layer wants numbers for sizes."""
    if not isinstance(states, (list, tuple)):
        raise ExportError(_PACKED)
    return (_fake_sequence(x, states[0], params, rest[4]), *[torch.empty_like(s) for s in states])


def _fake_single(x: Tensor, state: Tensor, params: Any, *rest: Any) -> tuple[Tensor, ...]:
    if not isinstance(params, (list, tuple)):
        raise ExportError(_PACKED)
    return (_fake_sequence(x, state, params, rest[4]), torch.empty_like(state))


def _fake_sequence(x: Tensor, state: Tensor, params: Any, bidirectional: bool) -> Tensor:
    wanted = params[0].shape[-1]
    torch._check(
        x.shape[-1] == wanted, lambda: f"the layer takes {wanted} features, the input has {x.shape[-1]}"
    )
    return x.new_empty([*x.shape[:-1], int(state.shape[-1]) * (2 if bidirectional else 1)])


@whole(_VF.lstm, meta=_fake_lstm)
def lstm(g: Recorder, out: Any, *args: Any) -> list[ir.Value]:
    """LSTM layers: output, last h, last c."""
    x, states, params, biases, layers, dropout, train, both, batch_first = args
    return _layers(g, "LSTM", x, states, params, biases, layers, train, dropout, both, batch_first)


def _single_state(op_type: str, **attributes: Any) -> Any:
    def emit(g: Recorder, out: Any, *args: Any) -> list[ir.Value]:
        x, state, params, biases, layers, dropout, train, both, batch_first = args
        extra = dict(attributes)
        if "activations" in extra and both:
            extra["activations"] = extra["activations"] * 2
        return _layers(
            g, op_type, x, [state], params, biases, layers, train, dropout, both, batch_first, **extra
        )

    return emit


whole(_VF.gru, meta=_fake_single)(_single_state("GRU", linear_before_reset=1))
whole(_VF.rnn_tanh, meta=_fake_single)(_single_state("RNN", activations=["Tanh"]))
whole(_VF.rnn_relu, meta=_fake_single)(_single_state("RNN", activations=["Relu"]))
