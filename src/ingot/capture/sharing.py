"""Tensors of which data decides whose memory they are: those that a branch joins, that a loop carries from
round to round, that are copied out of a list as long as data says.

What a branch joins is read and written as an If over the branch's condition (`Join`), so that the tensor that
it is sees what is written into it, and it sees what is written there. Where that has no form, memories are
linked: after a write into one of them a read of the other is refused.
"""

# torch's fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import scope, writes
from ingot.capture.entries import Entry, Group, Join, Link
from ingot.capture.scalars import number
from ingot.capture.where import UNKNOWN, quoted_line, source_line
from ingot.errors import DataDependentError
from ingot.ops.registry import PART

if TYPE_CHECKING:
    from ingot.capture.graph import Body
    from ingot.capture.record import Recorder


# -- joined memory, read and written


def written(g: Recorder, join: Join, value: ir.Value) -> None:
    """A joined tensor has a new value: so has the one of the two that it is."""
    scopes: list[Any] = []
    for e in join.sides:
        writes.is_outside(g, "An operator in place", e)
        with scope.inside(g) as body:
            writes.release(g, e.group)
            writes.write(g, e, value)
        scopes.append(body)
    first, second = (dict(s.written) for s in scopes)
    bases = list(dict.fromkeys([*first, *second]))
    rows = [(first.get(e) or g.val_of(e), second.get(e) or g.val_of(e)) for e in bases]
    made = _either(g, join.test, [s.body for s in scopes], rows)
    for e, after in zip(bases, made, strict=True):
        writes.put_value(g, e, after)
    join.seen = join.versions()


def _either(
    g: Recorder, test: ir.Value, bodies: Sequence[Body], rows: Sequence[tuple[ir.Value, ir.Value]]
) -> list[ir.Value]:
    """The first value of each row where the test holds, else the second: an If that is no branch of the
    model's own.
    """
    g.locate()
    graphs = [
        g.graph.graph_of(body, [row[i] for row in rows], name)
        for i, (body, name) in enumerate(zip(bodies, ("then", "other"), strict=True))
    ]
    made = list(g.ops("If", test, n=len(rows), then_branch=graphs[0], else_branch=graphs[1]))
    node = made[0].producer()
    assert node is not None, "ops() makes a node"
    node.metadata_props[PART] = "1"
    for value, row in zip(made, rows, strict=True):
        value.type = row[0].type or row[1].type
    return made


def settle(g: Recorder, group: Group) -> None:
    """Before a tensor of this memory is read: in it is what was written into those that it may be.

    Raises:
        DataDependentError: that is not known.
    """
    _refresh(g, group)
    lost = group.lost or _written_link(g, group)
    if lost:
        at = source_line()
        raise DataDependentError(
            f"{lost}\n"
            "Data or a size decides here whose memory a tensor is, or it is a complex one's parts, and the "
            "model writes into it, or into what it may be, and then reads the other one "
            f"({'in its outputs' if at == UNKNOWN else f'at {at}'}): no ONNX value can say what is in it. "
            "Choose, carry or keep a copy here (`.clone()`), or write out of place (`y = y + 1`)."
        )


def _refresh(g: Recorder, group: Group) -> None:
    """What was written into the tensors that a joined one may be is in it."""
    join = group.join
    if join is None:
        return
    for e in join.sides:
        _refresh(g, e.group)
    if join.seen == join.versions():
        return
    join.seen = join.versions()
    bodies: list[Body] = []
    values: list[ir.Value] = []
    for e in join.sides:
        with scope.inside(g) as body:
            values.append(g.val_of(e))
        bodies.append(body.body)
    (value,) = _either(g, join.test, bodies, [(values[0], values[1])])
    group.version += 1
    base = next(e for e in group.entries if e.view is None)
    base.value, base.version = value, group.version
    g.annotate(value, base.tensor)


# -- memories that may be the same


def link(g: Recorder, a: Group, b: Group, where: str) -> None:
    """Two memories may be the same, as data decides at this line."""
    if a is b:
        return
    for group in (a, b):
        _refresh(g, group)
    a.links = (*a.links, Link(b, b.version, where))
    b.links = (*b.links, Link(a, a.version, where))


def link_within(g: Recorder, rows: torch.Tensor) -> None:
    """Some of these rows are copies of one tensor, which a write into one of them would not change."""
    group = g.entry(rows).group
    group.links = (*group.links, Link(group, group.version, quoted_line()))


def link_copy(g: Recorder, rows: torch.Tensor, elements: Iterable[torch.Tensor]) -> None:
    """Rows were copied out of tensors, and are read and written in their place."""
    link_each(g, rows, set[Group]().union(*(reach(g.entry(v).group) for v in elements)))


def link_each(g: Recorder, rows: torch.Tensor, groups: Iterable[Group]) -> None:
    """What was copied out of these memories is linked with each."""
    for group in groups:
        link(g, g.entry(rows).group, group, quoted_line())


def _written_link(g: Recorder, group: Group) -> str | None:
    """The line that linked a memory to one that was written into since."""
    for to in group.links:
        _refresh(g, to.group)
        if to.group.version != to.version:
            return to.where
    return None


def is_lost(g: Recorder, group: Group) -> bool:
    """Whether nobody knows what is in this memory."""
    return group.lost is not None or _written_link(g, group) is not None


def lost_inside(g: Recorder, since: int, body: Body) -> list[tuple[Group, str]]:
    """Memories from around a body of which nobody knows behind it what is in them, and the line."""
    found: dict[Group, str] = {}
    for group in (*g.journal.changed(since, Group, "links"), *g.journal.changed(since, Group, "lost")):
        lost = group.lost or _written_link(g, group)
        if lost and scope.is_around(group, body):
            found[group] = lost
    return list(found.items())


def lose(found: Iterable[tuple[Group, str]]) -> None:
    """Nobody knows any more what is in these memories."""
    for group, where in found:
        group.lost = group.lost or where


def memories(group: Group) -> set[Group]:
    """What a joined memory may be; itself where it is one of its own."""
    if group.join is None:
        return {group}
    return set[Group]().union(*(memories(e.group) for e in group.join.sides))


def reach(group: Group) -> set[Group]:
    """Every memory that this one may be."""
    own = memories(group)
    return own.union(*({to.group for to in m.links} for m in own))


# -- what a branch joins


class Joins:
    """The tensors that one branch joins, and whose memory they are.

    bring: makes a value of a side (of this dtype and rank) one of what is around the branch; returns what
    gives it once the branch is written
    """

    def __init__(self, g: Recorder, test: ir.Value, bring: Callable[..., Callable[[], ir.Value]]) -> None:
        self.g = g
        self.test = test
        self.bring = bring
        self._pairs: list[tuple[Any, tuple[Any, Any]]] = []
        self._values: dict[ir.Value, Callable[[], ir.Value]] = {}
        self._made: dict[Entry, Entry] = {}  # tensors of a side as they are around it
        self._stands: dict[Entry, Entry] = {}  # for those that are made in a side
        self._shared: set[Group] = set()  # memory of a side that several tensors are parts of
        self._numbers: dict[Any, ir.Value] = {}  # places that a side computes: their values in it
        self._bases: dict[Entry, ir.Value] = {}  # of such memory: its values in the side

    def add(self, slot: Any, a: tuple[Any, torch.Tensor | None], b: tuple[Any, torch.Tensor | None]) -> None:
        """An output is one of two tensors, each with its side; None for one that Python does not have."""
        self._pairs.append((slot, (a, b)))

    def plan(self) -> None:
        """Before the branch is written: what has to be brought out of its sides."""
        of_group: dict[Group, set[Entry]] = {}
        for side, e in self._ends():
            if not self._comes_from_around(e, side.scope.body):
                of_group.setdefault(e.group, set()).add(e)
        self._shared = {group for group, found in of_group.items() if len(found) > 1 and group.join is None}
        for side, e in self._ends():
            self._plan_one(side, e)

    def _ends(self) -> list[tuple[Any, Entry]]:
        return [(side, self.g.entry(x)) for _, pair in self._pairs for side, x in pair if x is not None]

    def _comes_from_around(self, e: Entry, body: Body) -> bool:
        """Whether a tensor of a side is memory from around it, or joins such."""
        join = e.group.join
        if scope.is_around(e.group, body):
            return True
        return join is not None and e.view is None and all(self._has_form(s, body) for s in join.sides)

    def _has_form(self, e: Entry, body: Body) -> bool:
        """Whether a tensor of a side can be said around it, once values are brought there."""
        if not (e.group in self._shared or self._comes_from_around(e, body)):
            return False
        at, sizes = e, [*e.tensor.shape]
        while at.view is not None:
            at = at.view.parent
            sizes += at.tensor.shape
        return all(map(self.g.sizes.in_scope, sizes))

    def _plan_one(self, side: Any, e: Entry) -> None:
        """Bring out which of several a view shows, what decided a join, and memory with several views."""
        if not self._has_form(e, side.scope.body):
            return
        at = e
        while at.view is not None:
            for a in at.view.args:
                if isinstance(a, ir.Value):
                    self._plan_value(side, a, torch.int64)
                elif isinstance(a, torch.SymInt) and not self.g.sizes.in_scope(a):
                    self._numbers[self.g.env.expr(a)] = value = side.values[self.g.env.expr(a)]
                    self._plan_value(side, value, torch.int64)
            at = at.view.parent
        if e.group in self._shared:
            self._bases[at] = side.values[id(at.tensor)]
            self._plan_value(side, self._bases[at], at.tensor.dtype, at.tensor)
        elif e.group.join is not None and not scope.is_around(e.group, side.scope.body):
            self._plan_value(side, e.group.join.test, torch.bool)
            for s in e.group.join.sides:
                self._plan_one(side, s)

    def _plan_value(self, side: Any, value: ir.Value, dtype: torch.dtype, like: Any = None) -> None:
        if value not in self._values and not self.g.graph.visible(value):
            self._values[value] = self.bring(side, value, dtype, like)

    def tie(self, outputs: Sequence[Any]) -> None:
        """Once the branch is written, and all that it wrote to has its new value."""
        g = self.g
        for slot, pair in self._pairs:
            made = g.entry(outputs[slot.index])
            given = [(side, None if x is None else g.entry(x)) for side, x in pair]
            ends = [self._end(made, e, side) for side, e in given]
            if any(e is None for e in ends):  # no form: whoever reads one after a write to the other is told
                for side, e in given:
                    for group in _outer(e, side):
                        link(g, made.group, group, quoted_line())
            elif not all(e is made for e in ends):
                sides = [
                    self._stand(made, x) if e is made else e for e, (_, x) in zip(ends, given, strict=True)
                ]
                first, second = sides
                assert first is not None and second is not None
                made.group.join = Join(g.journal, self.test, (first, second))

    def _end(self, made: Entry, e: Entry | None, side: Any) -> Entry | None:
        """What a joined tensor is if a side is taken: `made` itself for memory that the side makes for it
        alone, None where that cannot be said.
        """
        if e is None:
            return made
        if e in self._stands:
            return self._stands[e]
        if self._has_form(e, side.scope.body):
            return self._around(e, side.scope.body)
        if _outer(e, side):
            return None
        self._stands[e] = made
        return made

    def _stand(self, made: Entry, e: Entry | None) -> Entry:
        """A tensor for a side's own memory, beside the joined one, which is that or another's."""
        g = self.g
        with g.pause():
            tensor = made.tensor.detach()
        g.bind(tensor, g.val_of(made))
        if e is not None:
            self._stands[e] = g.entry(tensor)
        return g.entry(tensor)

    def _around(self, e: Entry, body: Body) -> Entry:
        """A tensor of a side as one that is around it: its value is made where it is read."""
        g = self.g
        # A weight that a side was the first to read is around it, and in no list of what was there before.
        if scope.is_around(e.group, body) and (e in e.group.entries or e.view is None):
            return e
        if e in self._made:
            return self._made[e]
        with g.pause():
            tensor = e.tensor.detach()
        if e.view is not None:
            parent = self._around(e.view.parent, body)
            args = tuple(map(self._argument, e.view.args[1:]))
            view = replace(e.view, parent=parent, args=(parent.tensor, *args))
            real = e.real if parent.real is not None else None
            made = g.new_entry(tensor, parent.group, view=view, real=real)
            if real is None:
                made.version = -1
        elif e.group.join is not None:
            first, second = (self._around(s, body) for s in e.group.join.sides)
            made = g.new_owned(tensor)
            made.group.join = Join(g.journal, self._arrived(e.group.join.test), (first, second), (-1, -1))
        else:
            g.bind(tensor, self._arrived(self._bases[e]))
            made = g.entry(tensor)
        self._made[e] = made
        return made

    def _argument(self, x: Any) -> Any:
        """A view's argument as it is around the branch."""
        if isinstance(x, ir.Value):
            return self._arrived(x)
        if isinstance(x, torch.SymInt) and self.g.env.expr(x) in self._numbers:
            return number(self.g, self._arrived(self._numbers[self.g.env.expr(x)]), int)
        return x

    def _arrived(self, value: ir.Value) -> ir.Value:
        brought = self._values.get(value)
        return value if brought is None else brought()


def around(e: Entry, body: Body) -> set[Group]:
    """Memories from around a body that a tensor in it may be."""
    return {m for m in reach(e.group) if scope.is_around(m, body)}


def _outer(e: Entry | None, side: Any) -> set[Group]:
    """The same of a side that is recorded: links that were made in it are known to it alone."""
    return set() if e is None else around(e, side.scope.body) | side.outer.get(e, set())


# -- what a loop carries


class Carried:
    """Whose memory the tensors are that a loop carries from round to round."""

    def __init__(self, g: Recorder) -> None:
        self.g = g
        self.where = quoted_line()
        self.outer: dict[Any, set[Group]] = {}  # from around the loop
        self.alike: set[frozenset[Any]] = set()  # those that may be one
        self.lost: dict[Group, str] = {}
        self._ins: dict[Any, Group] = {}
        self._ends: dict[Any, Group] = {}
        self._since = 0

    def begin(self, starts: Mapping[Any, torch.Tensor], ins: Mapping[Any, torch.Tensor]) -> None:
        """At the start of a round: what came in may be what was there before the loop."""
        g = self.g
        self._ins = {key: g.entry(t).group for key, t in ins.items()}
        before = {key: g.entry(t).group for key, t in starts.items()}
        for key, group in before.items():
            self.outer.setdefault(key, set()).update(reach(group))
        self._pair(before)
        self._link(self._ins)
        lose(self.lost.items())
        self._since = g.journal.now()

    def end(self, ends: Mapping[Any, torch.Tensor], body: Body) -> bool:
        """At the end of a round: whether it leaves what it was taken to leave, or writes nowhere."""
        g = self.g
        before = {key: set(found) for key, found in self.outer.items()}, set(self.alike)
        came = {group: key for key, group in self._ins.items()}
        self._ends = {key: g.entry(t).group for key, t in ends.items()}
        for _ in self._ends:
            for key, group in self._ends.items():
                found = reach(group)
                outer = self.outer.setdefault(key, set())
                outer |= {m for m in found if scope.is_around(m, body)}
                outer.update(*(self.outer.get(came[m], ()) for m in found & came.keys()))
        self._pair(self._ends)
        return before == (self.outer, self.alike) or not g.journal.changed(self._since, Group, "version")

    def lose(self, found: Iterable[tuple[Group, str]]) -> bool:
        """After a round: memories from around the loop of which nobody knows what is in them.

        Returns whether that was known.
        """
        before = len(self.lost)
        self.lost.update(found)
        return len(self.lost) == before

    def finish(self, outs: Mapping[Any, torch.Tensor]) -> None:
        """Behind the loop."""
        self._link({key: self.g.entry(t).group for key, t in outs.items()})
        lose(self.lost.items())

    def kept(self, tensor: torch.Tensor, body: Body) -> set[Group]:
        """The memories from around the loop that a tensor may be which a round puts into a list.

        Raises:
            DataDependentError: rounds write into it, so that what is in the list changes.
        """
        g = self.g
        mine = reach(g.entry(tensor).group)
        came = {group: key for key, group in self._ins.items()}
        later = {self._ins[k] for k, e in self._ends.items() if k in self._ins and mine & memories(e)}
        outer = {m for m in mine if scope.is_around(m, body)}
        outer.update(*(self.outer.get(came[m], ()) for m in mine & came.keys()))
        written = set(g.journal.changed(self._since, Group, "version"))
        if written & (outer | later | (mine & came.keys())):
            raise DataDependentError(
                f"{quoted_line()}\n"
                "Data or a size decides how often this loop runs, and it writes into a tensor that an "
                "earlier round has put into a list. Put a copy into the list (`.clone()`)."
            )
        return {m for own in outer for m in reach(own) if scope.is_around(m, body)}

    def _link(self, groups: Mapping[Any, Group]) -> None:
        for key, group in groups.items():
            for other in self.outer.get(key, ()):
                link(self.g, group, other, self.where)
        for pair in self.alike:
            first, *second = (groups[key] for key in pair if key in groups)
            for other in second:
                link(self.g, first, other, self.where)

    def _pair(self, groups: Mapping[Any, Group]) -> None:
        found = {key: memories(group) for key, group in groups.items()}
        self.alike.update(frozenset(two) for two in combinations(found, 2) if found[two[0]] & found[two[1]])
