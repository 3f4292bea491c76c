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


class _SelectedAgain(_Selected):
    """The same after a write into the tensor that it is a place of: its gradient goes there alone."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, axis: int, place: Tensor, tensor: Tensor) -> Tensor:
        ctx.mark_dirty(made)
        return _Selected.forward(ctx, lambda: made, axis, place, tensor)


def left(make: Callable[[], Tensor], sources: Iterable[Any]) -> Tensor:
    """What `make` gives, as a tensor that comes from those of the sources that a gradient may be taken of."""
    known = tracked(sources)
    if not known:
        return make()
    with torch.enable_grad():
        return _Left.apply(make, quoted_line(), *known)


def selected(g: Recorder, make: Callable[[], Tensor], tensor: Tensor, axis: int, place: Tensor) -> Tensor:
    """What `make` gives as the place [] of a tensor along an axis."""
    if not torch.is_grad_enabled():
        return make()
    place = place.to(torch.int64, copy=True)
    made = _Selected.apply(make, axis, place, tensor) if tensor.requires_grad else make()
    g.selected[id(made)] = made, axis, place
    return made


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
    group, above = e.group, [e]
    wholes = [] if group.join is None else [side.tensor for side in group.join.sides]
    while e.view is not None:
        if e.view.op == "select" and not e.tensor._is_view():
            wholes.append(e.view.parent.tensor)
        e = e.view.parent
        above.append(e)
    g.written_through += [(whole, target) for whole in wholes]
    g.to_select += [p for p in group.entries if id(p.tensor) in g.selected and p not in above]


def follow(g: Recorder) -> None:
    """What was noted so, where torch keeps track."""
    while g.written_through:
        tensor, source = g.written_through.pop()
        if tracked((tensor, source)):
            _Written.apply(tensor, quoted_line(), source)
    while g.to_select:
        e = g.to_select.pop(0)
        made, axis, place = g.selected[id(e.tensor)]
        assert e.view is not None, "it is a place of another tensor"
        whole = e.view.parent.tensor
        if tracked((made, whole)):
            _SelectedAgain.apply(made, axis, place, whole)


def forgotten(g: Recorder, since: int) -> None:
    """What was written into tensors since a moment is taken back, or done again as a whole: not what torch
    keeps track of.
    """
    for group in g.journal.changed(since, Group, "version"):
        for e in group.entries:
            if e.tensor.requires_grad and e.tensor.grad_fn is not None:
                e.tensor.grad_fn.register_prehook(_refusing(quoted_line()))


# -- whether torch keeps track of a tensor, as a side of a branch says


def switches(func: Any) -> bool:
    """Whether a function of torch's says that a gradient may be taken of a tensor from then on, or not."""
    return func in _SWITCHES


def asks(func: Any) -> bool:
    """Whether a function of torch's asks for that."""
    return func in _ASKS


def switched(g: Recorder, func: Any, args: Any, kwargs: Any) -> Any:
    """Such a switch, which holds as long as what is recorded now where the tensor comes from around it."""
    tensor = args[0]
    body, group = g.graph.body, g.entry(tensor).group
    if body is not g.graph.root and not (group.body is not None and group.body.within(body)):
        g.switched.append((tensor, tensor.requires_grad))
    g.untold.pop(id(tensor), None)
    return func(*args, **kwargs)


def require_told(g: Recorder, tensor: Any) -> None:
    """Raises DataDependentError where a branch or loop has switched a tensor, on one way alone."""
    if id(tensor) in g.untold:
        raise DataDependentError(
            f"{quoted_line()}\nData or a size decides whether a gradient may be taken of this tensor: a "
            f"branch or loop says so ({g.untold[id(tensor)][1]}). Call requires_grad_() before it, or of a "
            "tensor of its own there (`.detach().requires_grad_()`)."
        )


def switched_back(g: Recorder, since: int) -> dict[int, tuple[Tensor, bool]]:
    """End what was switched since then; which tensors it was, and what they were in the end."""
    found = {id(t): (t, t.requires_grad) for t, _ in g.switched[since:]}
    with g.pause():
        while len(g.switched) > since:
            tensor, before = g.switched.pop()
            if tensor.requires_grad != before and tensor.is_leaf:
                tensor.requires_grad_(before)
    changed = {i: pair for i, pair in found.items() if pair[0].requires_grad != pair[1]}
    g.untold.update({i: (tensor, quoted_line()) for i, (tensor, _) in changed.items()})
    return changed


def switched_on_a_side(g: Recorder, found: dict[int, tuple[Tensor, bool]]) -> None:
    """What one side of a branch has switched, the other one finds as it was."""
    for i in found:
        g.untold.pop(i, None)


def switched_by_sides(
    g: Recorder, first: dict[int, tuple[Tensor, bool]], second: dict[int, tuple[Tensor, bool]]
) -> None:
    """What both sides of a branch have switched is so behind it; of what one has, data decides."""
    for i, (tensor, after) in (first | second).items():
        if i in first and i in second:
            with g.pause():
                switched(g, torch.Tensor.requires_grad_, (tensor, after), {})
        else:
            g.untold[i] = tensor, quoted_line()


_Tensor: Any = Tensor
_SWITCHES = frozenset((_Tensor.requires_grad_, _Tensor.requires_grad.__set__))
_ASKS = frozenset((_Tensor.requires_grad.__get__, _Tensor.is_leaf.__get__, _Tensor.grad_fn.__get__))


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
