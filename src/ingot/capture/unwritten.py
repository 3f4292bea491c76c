"""Tensors that `torch.empty` makes: which parts of them were written to before something reads them.

What is left in the others is whatever the memory held, in the module; in the model it is 0, which is noted
where it may be read. Parts are seen as boxes along the axes, whose ends are formulas.
"""

# SymPy's formulas are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.alias import argument, from_start
from ingot.capture.assume import Assumption
from ingot.capture.where import source_line

if TYPE_CHECKING:
    from ingot.capture.entries import Entry, View
    from ingot.capture.record import Recorder

MAKES = frozenset(
    ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted")
)
_MOST = 256  # boxes; and elements of a slice in steps

Box = dict[int, tuple[Any, Any]]  # by axis, where it begins and ends; all of the axes that are not named


@dataclass(frozen=True)
class Unwritten:
    """What is known of memory that nothing has filled yet."""

    where: str  # the line that made it
    written: tuple[Box, ...] = ()


def begin(g: Recorder, tensor: torch.Tensor) -> None:
    """Nothing is in a tensor."""
    if not g.is_empty(tensor):
        g.entry(tensor).group.unwritten = Unwritten(source_line())
        if tensor.is_complex():
            read(g, g.entry(tensor))  # its parts are written to, which are tensors of their own


def read(g: Recorder, e: Entry) -> None:
    """A tensor whose memory was not all written to is read."""
    unwritten = e.group.unwritten
    if unwritten is None or any(covers(g, box, e) for box in unwritten.written):
        return
    what = "what `torch.empty` leaves in a tensor is 0, wherever nothing is written to it before it is read"
    made = Assumption("unwritten", unwritten.where, what, "fixed")
    if made not in g.assumptions:
        g.assumptions.append(made)


def covers(g: Recorder, box: Box, e: Entry) -> bool:
    """Whether a view shows nothing outside of a box."""
    own = _boxes(g, e)
    return len(own) == 1 and all(
        axis in own[0] and _equal(g, own[0][axis], part) for axis, part in box.items()
    )


def wrote(g: Recorder, e: Entry) -> None:
    """All of a tensor was written to."""
    unwritten = e.group.unwritten
    if unwritten is not None:
        e.group.unwritten = _with(g, e.base(), unwritten, _boxes(g, e))


def wrote_in_rounds(g: Recorder, e: Entry, inside: Unwritten | None, turn: Any, trips: Any) -> None:
    """Each of as many rounds has written to parts of a tensor; `inside`: what was known at the end of one,
    `turn` the symbol of its number.
    """
    unwritten = e.group.unwritten
    if unwritten is None or inside is None:
        return
    found = [_of_rounds(g, box, turn, g.env.expr(trips)) for box in inside.written]
    e.group.unwritten = _with(g, e, unwritten, [box for box in found if box is not None])


def _of_rounds(g: Recorder, box: Box, turn: Any, trips: Any) -> Box | None:
    """What all rounds have written to, where each writes at its own place; else None."""
    made = dict(box)
    rows = [axis for axis, ends in box.items() if any(turn in end.free_symbols for end in ends)]
    for axis in rows:
        first, end = box[axis]
        begins = first - turn
        if turn in begins.free_symbols or not _zero(g, end - first - 1):
            return None
        made[axis] = begins, begins + trips
    others = {s for ends in made.values() for end in ends for s in end.free_symbols}
    return made if len(rows) == 1 and all(map(g.sizes.visible, others)) else None


# -- boxes


def _with(g: Recorder, base: Entry, unwritten: Unwritten, boxes: Sequence[Box]) -> Unwritten | None:
    """What is known once these were written to as well; None where that is all of it."""
    found = list(unwritten.written)
    for box in boxes:
        if not _insert(g, base, found, box):
            return None
    return Unwritten(unwritten.where, tuple(found[:_MOST]))


def _insert(g: Recorder, base: Entry, found: list[Box], box: Box) -> bool:
    """Put a box to the others, as one with those that it continues; False where it is all there is."""
    ends = base.tensor.shape
    box = {
        axis: part
        for axis, part in box.items()
        if not (_zero(g, part[0]) and _zero(g, part[1] - g.env.expr(ends[axis])))
    }
    if not box:
        return False
    for other in found:
        whole = _joined(g, box, other)
        if whole is not None:
            found.remove(other)
            return _insert(g, base, found, whole)
    found.append(box)
    return True


def _joined(g: Recorder, a: Box, b: Box) -> Box | None:
    """Two boxes as one, where they differ along one axis alone and meet there."""
    if a.keys() != b.keys():
        return None
    differ = [axis for axis in a if not _equal(g, a[axis], b[axis])]
    if len(differ) > 1:
        return None
    for axis in differ:
        for first, second in ((a, b), (b, a)):
            if _zero(g, first[axis][1] - second[axis][0]):
                return {**a, axis: (first[axis][0], second[axis][1])}
        return None
    return a


def _equal(g: Recorder, a: tuple[Any, Any], b: tuple[Any, Any]) -> bool:
    return all(_zero(g, x - y) for x, y in zip(a, b, strict=True))


def _zero(g: Recorder, e: Any) -> bool:
    return bool(e == 0) or (not e.is_number and bool(g.env.expand(e).expand() == 0))


def _boxes(g: Recorder, e: Entry) -> list[Box]:
    """The parts of its memory that a tensor shows, where that is seen; none where not."""
    chain: list[Entry] = []
    while e.view is not None:
        chain.append(e)
        e = e.view.parent
    axes: list[int | None] = list(range(e.tensor.dim()))
    boxes: list[Box] = [{}]
    for one in reversed(chain):
        assert one.view is not None, "it is a view"
        boxes = _through(g, one, one.view, axes, boxes)
    return boxes


def _through(g: Recorder, e: Entry, view: View, axes: list[int | None], boxes: list[Box]) -> list[Box]:
    """The parts that a view shows of these; `axes` are the memory's, by those of the view."""
    rank, given = len(axes), view.args[1:]
    if view.op in ("alias", "detach"):
        return boxes
    if view.op in ("t", "transpose", "numpy_T"):
        a, b = (0, -1) if view.op != "transpose" else given
        if rank > 1 and (view.op != "numpy_T" or rank == 2):
            axes[a], axes[b] = axes[b], axes[a]
            return boxes
        return boxes if rank < 2 else []
    if view.op == "permute":
        axes[:] = [axes[d] for d in given[0]]
        return boxes
    if view.op == "unsqueeze":
        axes.insert(given[0] % (rank + 1), None)
        return boxes
    if view.op in ("select", "unbind"):
        dim = argument(view, 1, "dim", 0) % rank
        place = view.index if view.op == "unbind" else given[1]
        if not isinstance(place, (int, torch.SymInt)):
            return []
        first = g.env.expr(from_start(g, place, view.parent.tensor.shape[dim]))
        return _part(axes.pop(dim), [(first, first + 1)], boxes)
    if view.op == "slice":
        dim, step = argument(view, 1, "dim", 0) % rank, argument(view, 4, "step", 1)
        length = e.tensor.shape[dim]
        start = argument(view, 2, "start")
        whole = view.parent.tensor.shape[dim]
        first = from_start(g, 0 if start is None else start, whole, part=True)
        if step == 1 and g.sizes.number(first) == 0 and g.same_size(length, whole):
            return boxes
        if step == 1:
            begins = g.env.expr(first)
            return _part(axes[dim], [(begins, begins + g.env.expr(length))], boxes)
        if isinstance(first, int) and isinstance(length, int) and length <= _MOST:
            places = [g.env.expr(first + i * step) for i in range(length)]
            return _part(axes[dim], [(p, p + 1) for p in places], boxes)
    if view.op in ("split", "split_with_sizes"):
        dim = argument(view, 2, "dim", 0) % rank
        begins = g.env.expr(sum(o.shape[dim] for o in view.out[: view.index]))
        return _part(axes[dim], [(begins, begins + g.env.expr(e.tensor.shape[dim]))], boxes)
    return []


def _part(axis: int | None, parts: list[tuple[Any, Any]], boxes: list[Box]) -> list[Box]:
    """These parts of an axis; of one that a view has made, which is 1 long, all."""
    if axis is None or any(axis in box for box in boxes):
        return boxes if axis is None else []
    return [{**box, axis: part} for box in boxes for part in parts]
