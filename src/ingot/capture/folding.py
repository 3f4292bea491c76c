"""What follows from constants alone is computed while recording, and is a constant itself."""

# torch's fake tensors, operator overloads and dispatch modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture import arrays, unwritten
from ingot.capture.entries import Group, View
from ingot.capture.overloads import Plan, name_of
from ingot.capture.scalars import Symbolic

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

LIMIT = 1 << 20  # results of up to this many elements, made from constants only, are computed while recording
CREATED_LIMIT = 1 << 12  # the same for results made from nothing (zeros, arange)


def fold(
    g: Recorder,
    func: Any,
    plan: Plan,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: Any,
    has_inputs: bool,
) -> bool:
    """Make the results of a call constants, if they are small enough and no size is in it."""
    outs = [o for o in (out if isinstance(out, (list, tuple)) else [out]) if isinstance(o, torch.Tensor)]
    limit = LIMIT if has_inputs else CREATED_LIMIT
    if not plan.view and not all(_static(o) and o.numel() <= limit for o in outs):
        return False
    if any(has_symbol(a) for a in (*args, *kwargs.values())):
        return False
    with g.passing_on() if plan.view else contextlib.nullcontext():
        given = reals(g, args), {k: reals(g, v) for k, v in kwargs.items()}
    with _disable_current_modes(), torch.no_grad():
        made = func(*given[0], **given[1])
        if plan.name in unwritten.MAKES:
            made.zero_()
    parent = g.entry(args[0]) if plan.view else None
    for i, o in enumerate(out if isinstance(out, (list, tuple)) else [out]):
        r = made[i] if isinstance(made, (list, tuple)) else made
        if not isinstance(o, torch.Tensor):
            continue
        if parent is not None and plan.row is not None:
            index = i if isinstance(out, (list, tuple)) else None
            view = View(func, parent, plan.name, plan.row, out, args, kwargs, index)
            g.new_entry(o, parent.group, real=r, view=view)
        else:
            g.new_entry(o, Group(g.journal, owned=not plan.view), real=r)
        g.note_call(name_of(func), None)
    return True


def lift(g: Recorder, func: Any, tensor: torch.Tensor) -> torch.Tensor:
    """torch.tensor(…) in the model's Python: a constant that may be written to."""
    real = g.real(tensor)
    out = func(tensor)
    assert real is not None
    with _disable_current_modes():
        g.new_owned(out, real=real.detach().clone())
        arrays.made_of_array(g, g.entry(out), real)
    return out


def reals(g: Recorder, x: Any) -> Any:
    """An argument of a call with the contents of constants in the place of tensors."""
    if isinstance(x, torch.Tensor):
        return g.real(x)
    if isinstance(x, (list, tuple)):
        return type(x)(reals(g, v) for v in x)
    if isinstance(x, Symbolic):
        return g.sizes.number(x)
    return x


def has_symbol(x: Any) -> bool:
    """Whether an argument has a symbolic number in it."""
    if isinstance(x, (list, tuple)):
        return any(has_symbol(v) for v in x)
    return isinstance(x, Symbolic)


def _static(tensor: torch.Tensor) -> bool:
    return not any(isinstance(d, torch.SymInt) for d in tensor.shape)
