"""`torch.autocast` on torch functions that are kept whole: their operands as eager PyTorch casts them on the
CPU. What torch takes apart it casts itself, and the casts are recorded like any other call.
"""

# torch's functions are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.dispatch import whole_alike
from ingot.capture.where import quoted_line
from ingot.errors import ExportError

if TYPE_CHECKING:
    from ingot.capture.aten import Row
    from ingot.capture.record import Recorder

# The lists of PyTorch's aten/src/ATen/autocast_mode.cpp for the CPU, as far as functions are kept whole.
_LOWER = frozenset(("linear", "matmul", "__matmul__", "__rmatmul__", "scaled_dot_product_attention"))
_WIDE = frozenset(("adaptive_avg_pool3d",))
# Made of several operators, of which autocast casts some: torch takes them apart.
_APART = frozenset(("einsum",))
# Take an input of low precision with parameters of float32, compute in that and round.
_MIXED = frozenset(("layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"))
_UNKNOWN = frozenset(("lstm", "gru", "rnn_tanh", "rnn_relu", "_grouped_mm", "grouped_mm"))


def is_on() -> bool:
    """Whether the model is inside `torch.autocast` for the CPU."""
    return torch.is_autocast_enabled("cpu")


def whole(g: Recorder, function: Any, rows: tuple[Row, Row], *args: Any, **kwargs: Any) -> Any:
    """A call of a function that is kept whole, with its operands cast.

    Raises:
        ExportError: it is made of operators of which autocast casts some.
    """
    name = function.__name__.partition(".")[0]  # of an overload, which a graph names: the function
    if name in _UNKNOWN:
        raise ExportError(
            f"{quoted_line()}\ntorch.{name} runs inside torch.autocast, which casts some of the operators "
            "that it is made of. Leave the block for this call (torch.autocast('cpu', enabled=False)), or "
            "give the layer a dtype of its own."
        )
    if name in _APART:
        return function(*args, **kwargs)
    dtype = torch.get_autocast_dtype("cpu") if name in _LOWER else torch.float32 if name in _WIDE else None
    given = [a.dtype for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    mixed = name in _MIXED and len(set(given)) > 1
    if mixed:
        dtype = torch.float32
    if dtype is not None:
        args, kwargs = tuple(_in(a, dtype) for a in args), {k: _in(v, dtype) for k, v in kwargs.items()}
    with torch.autocast("cpu", enabled=False):
        made = whole_alike(g, *rows, *args, **kwargs)
        return made.to(given[0]) if mixed else made


def _in(x: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in the dtype; float64 stays, as autocast leaves it."""
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dtype in (dtype, torch.float64):
        return x
    return x.to(dtype)
