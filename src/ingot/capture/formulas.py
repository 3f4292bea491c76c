"""Tensors of one integer that the sizes of the inputs give: what Python makes of them is a size again.

`torch.div(x.shape[1], 4, rounding_mode="floor")` is a tensor, and may end as a size, a bound of a slice or a
number of turns: its formula is followed, so that all of these are known like any other size.
"""

# torch and SymPy are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from ingot.capture.bounds import functions
from ingot.capture.size_symbols import floor_div

if TYPE_CHECKING:
    from ingot.capture.record import Recorder


def _divided(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """Rounded down; towards zero only where that is the same."""
    if rounding_mode is None or not b.is_number or b <= 0:
        return None
    return floor_div(a, b) if rounding_mode == "floor" or a.is_nonnegative else None


def _same(a: Any, *_args: Any, **_kwargs: Any) -> Any:
    return a


# Operators that are followed, with what they do to formulas.
FOLLOWED: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, alpha=1: a + alpha * b,
    "sub": lambda a, b, alpha=1: a - alpha * b,
    "rsub": lambda a, b, alpha=1: b - alpha * a,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "div": _divided,
    "floor_divide": lambda a, b: _divided(a, b, "floor"),
    "remainder": lambda a, b: functions().PythonMod(a, b) if b.is_number and b > 0 else None,
    "minimum": sympy.Min,
    "maximum": sympy.Max,
    **dict.fromkeys(("clone", "detach", "alias", "_to_copy", "view", "squeeze", "unsqueeze"), _same),
}


def of(g: Recorder, x: Any) -> Any:
    """The formula of a tensor of one integer, or of a number; None where no sizes give it."""
    if isinstance(x, bool):
        return None
    if isinstance(x, int):
        return sympy.Integer(x)
    if isinstance(x, torch.SymInt):
        e = g.env.expr(x)
        return None if g.env.of_data(e) else e
    e = g.known_entry(x) if isinstance(x, torch.Tensor) else None
    if e is None or e.version != e.group.version:
        return None
    if e.real is not None:
        whole = not (e.real.is_floating_point() or e.real.is_complex() or e.real.dtype == torch.bool)
        if not whole or e.real.numel() != 1:
            return None
        with _disable_current_modes():
            return sympy.Integer(int(e.real))
    return g.sizes.formulas.get(e.value)


def follow(g: Recorder, name: str, out: Any, args: Any, kwargs: Any) -> None:
    """Note the formula of a call's result, where its operands have some."""
    formula = FOLLOWED[name]
    if out.dtype != torch.int64 or out.dim() > 1 or any(n != 1 for n in out.shape):
        return
    operands = [x for x in args if isinstance(x, (torch.Tensor, int, torch.SymInt))]
    found = [of(g, x) for x in operands] if formula is not _same else [of(g, args[0])]
    if None in found:
        return
    note(g, out, formula(*found, **(kwargs if formula is not _same else {})))


def note(g: Recorder, tensor: torch.Tensor, formula: Any) -> None:
    """Say which formula a tensor of one integer has."""
    if formula is not None and tensor.dtype == torch.int64:
        g.sizes.formulas[g.val(tensor)] = formula
