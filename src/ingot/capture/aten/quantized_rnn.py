"""LSTM and GRU whose weights `torch.ao.quantization.quantize_dynamic` quantised: a loop over the
steps, each of which quantises its state.
"""

# torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.aten.native_quantized import dynamic_linear, linear_of_halves
from ingot.capture.aten.quantised_tensor import unknown
from ingot.capture.aten.registry import instead

Tensor = torch.Tensor
Step = Callable[[Tensor, Any, Callable[[Tensor], Tensor]], Any]


def _lstm_step(gates: Tensor, state: Any, recurrent: Callable[[Tensor], Tensor]) -> Any:
    hidden, cell = state
    i, f, g, o = (gates + recurrent(hidden)).chunk(4, -1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def _gru_step(gates: Tensor, state: Any, recurrent: Callable[[Tensor], Tensor]) -> Any:
    (hidden,) = state
    from_input, from_state = gates.chunk(3, -1), recurrent(hidden).chunk(3, -1)
    reset, update = (torch.sigmoid(a + b) for a, b in zip(from_input[:2], from_state[:2], strict=True))
    new = torch.tanh(from_input[2] + from_state[2] * reset)
    return ((hidden - new) * update + new,)


def _linears(packed: Any) -> list[Callable[[Tensor], Tensor]]:
    """The layers of a cell's input and of its state."""
    with _disable_current_modes():
        kind, _, _, flags, weights = packed.__getstate__()[0]
    if kind == "quantized_dynamic":
        reduce_range = bool(flags[0]) if flags else False
        return [partial(dynamic_linear, packed=w, reduce_range=reduce_range) for w in weights[:2]]
    if kind == "quantized_fp16":
        return [partial(linear_of_halves, packed=w) for w in weights[:2]]
    raise unknown(f"a recurrent cell of kind {kind}")


def _recurrent(
    step: Step, x: Tensor, start: Sequence[Tensor], params: Sequence[Any], directions: int, layers: int
) -> tuple[Tensor, list[Tensor]]:
    """Layers of a [length, batch, features] input, and the last states of each."""
    from ingot.capture.torch_control import scanned  # which needs these operators

    last = list[Any]()
    for layer in range(layers):
        outputs = list[Tensor]()
        for direction in range(directions):
            at = layer * directions + direction
            of_input, of_state = _linears(params[at])

            def combine(state: Any, gates: Tensor, of_state: Any = of_state) -> Any:
                made = step(gates, state, of_state)
                return made, made[0]

            state, output = scanned(combine, tuple(s[at] for s in start), of_input(x), 0, direction == 1)
            last.append(state)
            outputs.append(output)
        x = torch.cat(outputs, -1) if directions > 1 else outputs[0]
    return x, [torch.stack(parts) for parts in zip(*last, strict=True)]


def _called(
    name: str, step: Step, x: Tensor, start: Sequence[Tensor], params: Any, rest: Sequence[Any]
) -> tuple[Tensor, ...]:
    if not isinstance(params, (list, tuple)) or len(rest) != 6:
        raise unknown(f"{name} of a packed sequence")
    _, layers, _, _, bidirectional, batch_first = rest
    inside = x.transpose(0, 1) if batch_first else x
    output, states = _recurrent(step, inside, start, params, 2 if bidirectional else 1, layers)
    return (output.transpose(0, 1) if batch_first else output, *states)


@instead(torch.quantized_lstm)
def quantized_lstm(
    x: Tensor, hx: Any, params: Any, *rest: Any, dtype: Any = None, use_dynamic: bool = False
) -> Any:
    """An LSTM of one length for all."""
    return _called("quantized_lstm", _lstm_step, x, hx, params, rest)


@instead(torch.quantized_gru)
def quantized_gru(x: Tensor, hx: Any, params: Any, *rest: Any) -> Any:
    """A GRU of one length for all."""
    return _called("quantized_gru", _gru_step, x, [hx], params, rest)
