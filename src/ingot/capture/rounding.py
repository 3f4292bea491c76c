"""How much of a quantised model's result hangs on how numbers half way between two steps are rounded.

PyTorch quantises x by `round(x * (1 / scale))`, QuantizeLinear by `round(x / scale)`, and sums before it
are added in another order: where x lies half way between two steps but for its last digits, as means and
sums of quantised numbers often do, they choose different ones. Neither is wrong: `steps` follows those of
the exported model, but not into loops. There the module is run with those digits moved at random: an
exported model may differ from it as much as it then differs from itself, in its largest difference, in the
mean square of all, and in how many elements move that no other draw moved. A zero point, a scale or an axis
that is wrong moves all elements, those that no rounding moves among them.
"""

# torch's operators are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ingot.capture.called import Called

Array = npt.NDArray[Any]
RUNS = 6  # of the module, its quantisers' operands moved otherwise in each
MOVED = 2.0**-20  # of the largest operand of a quantiser: what sums of float32 in another order differ by
_LARGEST, _MEAN = 2.0, 3.0  # how much more than the module from itself an exported model may differ


class Otherwise(Called):
    """Moves what is about to be quantised by its last digits."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = torch.Generator().manual_seed(seed)

    def answer(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else None
        if isinstance(x, torch.Tensor) and quantises(func) and x.is_floating_point() and x.numel():
            args = (self._moved(x), *args[1:])
        elif isinstance(x, torch.Tensor) and x.is_quantized and _averages(func):
            made = self._moved(func(x.dequantize(), *args[1:], **kwargs))
            return torch.quantize_per_tensor(made, x.q_scale(), x.q_zero_point(), x.dtype)
        elif func.namespace == "quantized":  # rounds the sums that it makes to steps of this scale
            part = 1 + float(torch.rand((), generator=self.random) * 2 - 1) * MOVED
            named = zip(args, func._schema.arguments, strict=False)
            args = [a * part if isinstance(a, float) and "scale" in s.name else a for a, s in named]
        return func(*args, **kwargs)

    def _moved(self, x: torch.Tensor) -> torch.Tensor:
        part = torch.rand(x.shape, generator=self.random) * 2 - 1
        return (x + part * (x.abs().max() * MOVED)).to(x.dtype)


def _averages(func: Any) -> bool:
    """Whether an operator gives means of a quantised tensor, in its steps."""
    name: str = func.__name__
    return name.startswith("mean") or "avg_pool" in name or "linear" in name.partition("upsample_")[2]


def quantises(func: Any) -> bool:
    """Whether an operator of torch's rounds its first operand to steps."""
    name: str = func.__name__
    return ("quantize" in name and "dequantize" not in name) or "_fq_helper" in name or "_dynamic" in name


def is_a_rounding(want: Array, got: Array, run: Callable[[int], Array], allowed: float) -> bool:
    """Whether two results differ by what other roundings of the quantisers' operands make of the first.

    run: the module's result with those moved, by the number of a draw
    allowed: the difference that floats may have besides
    """
    if want.shape != got.shape or want.dtype != got.dtype or not want.size:
        return False
    a, b = want.astype(np.float64), got.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    moved = np.stack([np.abs(run(i).astype(np.float64) - a) for i in range(RUNS)])
    if not np.isfinite(moved).all():  # says nothing of how far roundings move a result
        return False
    apart = np.abs(a - b)
    mean = max(map(_root_mean_square, moved))
    if apart.max() > _LARGEST * moved.max() + allowed or _root_mean_square(apart) > _MEAN * mean + allowed:
        return False
    alone = [_beyond(moved[i], np.delete(moved, i, 0), allowed) for i in range(RUNS)]
    return _beyond(apart, moved, allowed) <= _MEAN * max(alone) + 1


def _beyond(apart: Array, others: Array, allowed: float) -> int:
    """How many elements differ by more than in all the others."""
    return int((apart > _LARGEST * others.max(0) + allowed).sum())


def _root_mean_square(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def is_quantised(op_types: Sequence[str]) -> bool:
    """Whether a graph rounds to steps anywhere."""
    return any(t in ("QuantizeLinear", "DynamicQuantizeLinear") for t in op_types)
