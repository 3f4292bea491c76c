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

from ingot.capture.aten.registry import instead, whole
from ingot.capture.checks import require_true
from ingot.capture.request import recorder
from ingot.capture.tensors import zero_copy
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor
_VF: Any = torch._VF  # its functions come from C++ and are unknown to type checkers

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
        contents.append([_reordered(zero_copy(r), op_type) for r in reals if r is not None])
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
    packed: Packed | None = None,
    **attributes: Any,
) -> list[ir.Value]:
    if train and dropout:
        raise ExportError(f"{op_type} with dropout in training mode draws random numbers; call eval().")
    directions = 2 if bidirectional else 1
    per = 4 if has_biases else 2
    if len(params) != num_layers * directions * per:
        raise ExportError(f"{op_type} with proj_size has no ONNX operator. Use a Linear layer after it.")
    if packed is not None:
        value = packed.padded(g, g.val(x), x)
    else:
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
            None if packed is None else packed.lengths,
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
            value = g.op("Reshape", value, g.const([0, 0, 2 * hidden]))
        else:
            value = g.op("Squeeze", outputs[0], g.const([1]))
    if packed is not None:
        value = g.op("GatherND", value, packed.places)
    elif batch_first:
        value = g.op("Transpose", value, perm=[1, 0, 2])
    return [value, *[e[0] if len(e) == 1 else g.op("Concat", *e, axis=0) for e in ends]]


# -- packed sequences: the rows of all sequences, step by step, and how many sequences have that many steps


class Packed:
    """The graph's view of one: which of [steps, batch] are there, and how long each sequence is."""

    def __init__(self, g: Recorder, batch_sizes: Tensor, batch: Any) -> None:
        sizes = g.val(batch_sizes)
        self.batch = batch
        members = g.op("Range", g.const(0), g.operand(batch, torch.int64), g.const(1))
        there = g.op("Less", members, g.op("Unsqueeze", sizes, g.const([1])))  # [steps, batch]
        self.steps = g.op("Shape", sizes)
        self.places = g.op("Transpose", g.op("NonZero", there), perm=[1, 0])
        count = g.cast(there, torch.bool, torch.int32)
        self.lengths = g.op("ReduceSum", count, g.const([0]), keepdims=0)

    def padded(self, g: Recorder, data: ir.Value, tensor: Tensor) -> ir.Value:
        """[rows, features] as [steps, batch, features], zeros where a sequence has ended."""
        shape = g.op("Concat", self.steps, g.sizes.dim(self.batch), g.sizes.dim(tensor.shape[-1]), axis=0)
        zeros = g.op("Expand", g.const(0, tensor.dtype), shape)
        return g.op("ScatterND", zeros, self.places, data)


def _require_lengths(lengths: Tensor, steps: Any) -> None:
    """The run fails where torch refuses to pack."""
    count: Any = lengths.shape[0]
    in_order = (lengths.roll(-1) <= lengths) | (torch.arange(count) == count - 1)
    fits = ((lengths > 0) & (lengths <= steps) & in_order).all()
    said = "the lengths of packed sequences are at least 1, at most the steps, and the longest comes first"
    require_true(recorder(), fits, said)


@instead(_VF._pack_padded_sequence)
def pack(input: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
    """Rows of [steps, batch, features] that belong to a sequence, and how many each step has; lengths are
    sorted, the longest first, as torch makes sure before it comes here or else checks.
    """
    x = input.transpose(0, 1) if batch_first else input
    _require_lengths(lengths, x.shape[0])
    there = torch.arange(x.shape[0]).unsqueeze(1) < lengths.unsqueeze(0)
    sizes = there.sum(1)
    sizes = sizes[sizes > 0]
    torch._check(sizes.shape[0] <= x.shape[0])  # `pad_packed_sequence` asks whether a total length is less
    sizes.packed_batch = x.shape[1]  # pyright: ignore[reportAttributeAccessIssue]  (for `sizes[0]`)
    return x[there], sizes


@instead(_VF._pad_packed_sequence)
def pad(
    data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: Any
) -> tuple[Tensor, Tensor]:
    """[steps, batch, features], and each sequence's length."""
    batch = getattr(batch_sizes, "packed_batch", None)
    if batch is None:
        batch = int(batch_sizes[0])
    there = torch.arange(batch).unsqueeze(0) < batch_sizes.unsqueeze(1)
    lengths = there.sum(0)
    if total_length is not None:
        there = torch.arange(total_length).unsqueeze(1) < lengths.unsqueeze(0)
    shape = [there.shape[0], batch, *data.shape[1:]]
    padded = torch.full(shape, padding_value, dtype=data.dtype).index_put([there], data)
    return (padded.transpose(0, 1) if batch_first else padded), lengths


def _is_packed(args: Sequence[Any], states_too: bool) -> bool:
    """(data, batch sizes, states, …) rather than (x, states, …)."""
    return isinstance(args[2], (list, tuple) if states_too else Tensor) and isinstance(args[1], Tensor)


def _fake_lstm(*args: Any) -> tuple[Tensor, ...]:
    """Outputs of the right shape: torch's own layer wants numbers for sizes."""
    if _is_packed(args, True):
        x, _, states, params, *rest = args
        return (_fake_sequence(x, states[0], params, rest[4]), *[torch.empty_like(s) for s in states])
    x, states, params, *rest = args
    return (_fake_sequence(x, states[0], params, rest[4]), *[torch.empty_like(s) for s in states])


def _fake_single(*args: Any) -> tuple[Tensor, ...]:
    if _is_packed(args, False):
        x, _, state, params, *rest = args
    else:
        x, state, params, *rest = args
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
    if _is_packed(args, True):
        x, sizes, states, params, biases, layers, dropout, train, both = args
        packed = Packed(g, sizes, states[0].shape[1])
        return _layers(g, "LSTM", x, states, params, biases, layers, train, dropout, both, False, packed)
    x, states, params, biases, layers, dropout, train, both, batch_first = args
    return _layers(g, "LSTM", x, states, params, biases, layers, train, dropout, both, batch_first)


def _single_state(op_type: str, **attributes: Any) -> Any:
    def emit(g: Recorder, out: Any, *args: Any) -> list[ir.Value]:
        packed: Packed | None = None
        batch_first = False
        if _is_packed(args, False):
            x, sizes, state, params, biases, layers, dropout, train, both = args
            packed = Packed(g, sizes, state.shape[1])
        else:
            x, state, params, biases, layers, dropout, train, both, batch_first = args
        extra = dict(attributes)
        if "activations" in extra and both:
            extra["activations"] = extra["activations"] * 2
        flags = (biases, layers, train, dropout, both, batch_first, packed)
        return _layers(g, op_type, x, [state], params, *flags, **extra)

    return emit


whole(_VF.gru, meta=_fake_single)(_single_state("GRU", linear_before_reset=1))
whole(_VF.rnn_tanh, meta=_fake_single)(_single_state("RNN", activations=["Tanh"]))
whole(_VF.rnn_relu, meta=_fake_single)(_single_state("RNN", activations=["Relu"]))
