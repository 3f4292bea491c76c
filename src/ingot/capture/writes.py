"""Operators that write into a tensor: its base and every other view of its memory have a new value."""

# torch's fake tensors, operator overloads and dispatch modes are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture import alias, arrays, complex_numbers, sharing, unwritten
from ingot.capture.entries import Entry, Group, View
from ingot.capture.folding import has_symbol, reals
from ingot.capture.missing import functional
from ingot.capture.overloads import Plan, functional_of, name_of, tensors_of
from ingot.capture.where import quoted_line
from ingot.errors import ExportError, MissingOperatorError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

_FILLS = frozenset(("copy", "fill", "zero"))  # what these write does not follow from what was there


def is_outside(g: Recorder, func: Any, target: Entry) -> bool:
    """Before torch runs it: a write into something that is there after the call.

    What the model holds is noted, and is this recording's own from then on; anything else is refused.
    """
    if target.group.owned:
        return False
    base = target
    while base.view is not None:
        base = base.view.parent
    labels = g.labels_of(base.tensor)
    if labels:
        g.written.setdefault(labels[0], quoted_line())
        release(g, target.group)
        target.group.owned = True
        return True
    name = target.name if target.name != "const" else "a tensor made outside of forward"
    raise ExportError(
        f"{func} writes into {name!r} at {quoted_line()}\n"
        "The change would outlive the call, which an ONNX model cannot do. Work on a copy "
        "(`.clone()`), or take "
        "the state as an input and return it as an output."
    )


def in_place(
    g: Recorder, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any], known: bool
) -> None:
    """`x.add_(y)` and the like. known: all operands are constants."""
    target = g.entry(args[0])
    group = target.group
    arrays.require_unseen(group.shown)
    if any(target.group is e.group for e in g.input_entries):
        g.assume(
            "input-changed",
            "an input tensor is written to; the model leaves the caller's alone",
            "fixed",
        )
    here = group.body is g.graph.body  # a branch must not change what was there before it
    constant = known and here and all(e.real is not None for e in group.entries)
    if constant and not any(has_symbol(a) for a in (*args, *kwargs.values())):
        with g.passing_on() if plan.name in _FILLS else contextlib.nullcontext():
            first = g.real(args[0])
        given = reals(g, args[1:]), {k: reals(g, v) for k, v in kwargs.items()}
        with _disable_current_modes(), torch.no_grad():
            func(first, *given[0], **given[1])
        unwritten.wrote(g, target)
        group.version += 1
        for e in group.entries:
            e.parts = None
        g.note_call(name_of(func), None)
        return
    release(g, group)
    if complex_numbers.concern(plan.name, tensors_of(args, kwargs), args, kwargs):
        complex_numbers.write(g, func, plan.name, args, kwargs)
        return
    g.locate()
    row = plan.row or functional(func)
    if row is None:
        g.missing.add(str(func), quoted_line())
        return
    made = row(g, args[0], *args, **kwargs)
    value = made[0] if isinstance(made, (list, tuple)) else made
    write(g, target, value)
    g.annotate(value, args[0])
    g.note_call(name_of(func), value)


def into_outs(g: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.add(x, y, out=z)`: what the operator returns, copied into the tensors that are given for it.

    Raises:
        MissingOperatorError, ExportError: torch would give a tensor another size
    """
    plain = functional_of(func)
    if plain is None:
        raise MissingOperatorError(
            f"{quoted_line()}\n{func} has no form that returns what it writes. Assign the result instead."
        )
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    outs = [kwargs[name] for name in names]
    made = g.recorded(plain, *args, **{k: v for k, v in kwargs.items() if k not in names})
    for out, value in zip(outs, made if isinstance(made, (list, tuple)) else [made], strict=True):
        if out.dim() != value.dim() or not all(map(g.same_size, out.shape, value.shape)):
            raise ExportError(
                f"{quoted_line()}\n{func} has a result of shape {list(value.shape)} for a tensor of shape "
                f"{list(out.shape)}, which torch makes as large. Assign the result instead of giving `out`."
            )
        g.recorded(torch.ops.aten.copy_.default, out, value)
    return outs[0] if len(outs) == 1 else tuple(outs)


def in_place_view(
    g: Recorder, func: Any, plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.Tensor:
    """`x.squeeze_()` and the like: the same tensor from now on as a view of what it was."""
    target = args[0]
    entry = g.entry(target)
    out_of_place = getattr(torch.ops.aten, plan.name, None)
    if plan.row is None or out_of_place is None:
        g.missing.add(str(func), quoted_line())
        return func(*args, **kwargs)
    with g.pause():
        before = target.detach()
    was = g.stands_for(before, entry)
    func(*args, **kwargs)
    rest = (before, *args[1:])
    view = View(out_of_place, was, plan.name, plan.row, target, rest, kwargs, None)
    if was.real is None:
        g.locate()
        value = plan.row(g, target, *rest, **kwargs)
        g.new_entry(target, was.group, value=value, view=view)
        g.note_dims(target, value)
    else:
        with _disable_current_modes():
            real = out_of_place(was.real, *args[1:], **kwargs)
        g.new_entry(target, was.group, real=real, view=view)
    return target


def release(g: Recorder, group: Group) -> None:
    """A constant that is about to receive what an input decides stops being one."""
    for e in group.entries:
        if e.real is not None and e.tensor.is_complex():
            complex_numbers.parts(g, e.tensor)
    for e in group.entries:
        if e.real is None:
            continue
        if e.tensor.is_complex():
            pass
        elif e.view is None:
            with g.passing_on():
                g.val_of(e)
        else:
            e.value, e.version = None, -1
        e.real = None


def write(g: Recorder, target: Entry, value: ir.Value) -> None:
    """`target` has the new value; carry it up to its base, and leave every other view out of date."""
    arrays.require_unseen(target.group.shown)
    chain = [(target, value)]
    with g.passing_on():
        while (view := chain[-1][0].view) is not None:
            e, v = chain[-1]
            chain.append((view.parent, alias.put_back(g, e, view, v)))
    unwritten.wrote(g, target)
    group = target.group
    group.version += 1
    for e, v in chain:
        e.value, e.version = v, group.version
    if group.join is not None:
        sharing.written(g, group.join, chain[-1][1])


def put_value(g: Recorder, base: Entry, value: ir.Value) -> None:
    """A tensor (no view) has another value from here on, as a write in a branch or loop says."""
    group = base.group
    release(g, group)
    group.version += 1
    base.value, base.version = value, group.version
    if group.join is not None:  # those that it joins have theirs
        group.join.seen = group.join.versions()


def overwrite(g: Recorder, tensor: torch.Tensor, value: ir.Value) -> None:
    """Give a tensor a new value, for an operator that writes to it without saying so."""
    target = g.entry(tensor)
    if not is_outside(g, "the operator", target):
        release(g, target.group)
    write(g, target, value)
    g.annotate(value, tensor)
