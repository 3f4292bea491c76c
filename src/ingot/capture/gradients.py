"""Gradients that a model takes in its forward. torch keeps track of the operators that it sees; what is
recorded as a whole, a branch or a loop, leaves tensors of which it knows nothing. They are made to come from
what went in, and whoever takes a gradient through them is refused: else it would be that of the other ways
alone.
"""

# torch's autograd is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportPrivateUsage=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from ingot.capture.entries import Group
from ingot.capture.request import refuse
from ingot.capture.where import quoted_line
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

Tensor = torch.Tensor


class _Left(torch.autograd.Function):
    """A tensor that comes from others in a way that nobody keeps track of."""

    @staticmethod
    def forward(ctx: Any, make: Callable[[], Tensor], where: str, *sources: Tensor) -> Tensor:
        del sources
        ctx.where = where
        return make()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> NoReturn:
        del grads
        _refuse(ctx.where)


class _Written(_Left):
    """A tensor into which others were written in such a way."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, where: str, *sources: Tensor) -> Tensor:
        del sources
        ctx.where = where
        ctx.mark_dirty(tensor)
        return tensor


class _Selected(torch.autograd.Function):
    """One place of an axis, a view that torch does not know: a gradient of it is that of the place."""

    @staticmethod
    def forward(ctx: Any, make: Callable[[], Tensor], axis: int, place: Tensor, tensor: Tensor) -> Tensor:
        made = make()
        ctx.axis, ctx.place = axis, place
        ctx.size, ctx.behind = tensor.shape[axis], tensor.dim() - 1 - axis
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        place = torch.where(ctx.place < 0, ctx.place + ctx.size, ctx.place)
        is_it = (torch.arange(ctx.size) == place).reshape([-1, *[1] * ctx.behind])
        return None, None, None, torch.where(is_it, grad.unsqueeze(ctx.axis), 0.0)


def left(make: Callable[[], Tensor], sources: Iterable[Any]) -> Tensor:
    """What `make` gives, as a tensor that comes from those of the sources that a gradient may be taken of."""
    known = tracked(sources)
    if not known:
        return make()
    with torch.enable_grad():
        return _Left.apply(make, quoted_line(), *known)


def selected(make: Callable[[], Tensor], tensor: Tensor, axis: int, place: Tensor) -> Tensor:
    """What `make` gives as the place [] of a tensor along an axis."""
    if not (torch.is_grad_enabled() and tensor.requires_grad):
        return make()
    return _Selected.apply(make, axis, place.to(torch.int64, copy=True), tensor)


def alone(made: Sequence[Tensor]) -> None:
    """Refuse gradients of what was left together with others, which may come from it."""
    several = tracked(made)
    if len(several) > 1:
        refuses = _refusing(quoted_line())
        for tensor in several:
            tensor.register_hook(refuses)


def _refusing(where: str) -> Callable[[Any], None]:
    """A hook of gradients that refuses them, with a line of the model's."""

    def refuse(_gradient: Any) -> None:
        _refuse(where)

    return refuse


def wrote(g: Recorder, target: Tensor, operands: Iterable[Any]) -> None:
    """Something was written into a tensor: of what else it is a part without torch's knowing, is noted."""
    if not torch.is_grad_enabled() or not tracked(operands):
        return
    e = g.entry(target)
    wholes = [] if e.group.join is None else [side.tensor for side in e.group.join.sides]
    while e.view is not None:
        if e.view.op == "select" and not e.tensor._is_view():
            wholes.append(e.view.parent.tensor)
        e = e.view.parent
    g.written_through += [(whole, target) for whole in wholes]


def follow(g: Recorder) -> None:
    """What was noted so, where torch keeps track."""
    while g.written_through:
        tensor, source = g.written_through.pop()
        if tracked((tensor, source)):
            _Written.apply(tensor, quoted_line(), source)


def forgotten(g: Recorder, since: int) -> None:
    """What was written into tensors since a moment is taken back, or done again as a whole: not what torch
    keeps track of.
    """
    for group in g.journal.changed(since, Group, "version"):
        for e in group.entries:
            if e.tensor.requires_grad and e.tensor.grad_fn is not None:
                e.tensor.grad_fn.register_prehook(_refusing(quoted_line()))


def tracked(values: Iterable[Any]) -> list[Tensor]:
    """Those that a gradient may be taken of, or of what went into them."""
    return [v for v in values if isinstance(v, torch.Tensor) and v.requires_grad]


def _refuse(where: str) -> NoReturn:
    line = quoted_line()
    by = "" if where == line else f" ({where})"
    refuse(
        DataDependentError(
            f"{line}\nThis takes a gradient through what an export records as a whole: a branch or loop "
            f"that data or a size decides, a write in one, or a layer with a translation of its own{by}. "
            "Choose with torch.where, or write the gradient's formula."
        )
    )
