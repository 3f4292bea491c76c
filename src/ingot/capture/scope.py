"""A branch's or loop's body while it is recorded: what it changes is seen inside it, and put back after."""

# Capture's own state.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from ingot.capture.graph import Body

if TYPE_CHECKING:
    from ingot.capture.record import Entry, Group, Recorder


@dataclass
class Scope:
    """A body, and the tensors from around it that were written to inside: base and new value."""

    body: Body
    written: list[tuple[Entry, ir.Value]] = field(default_factory=list[tuple["Entry", ir.Value]])


@contextlib.contextmanager
def inside(g: Recorder, condition: Any = None) -> Generator[Scope]:
    """Record into a new body, as things are when the `condition` on sizes holds.

    Afterwards every tensor, size and memo is as before; `written` says which tensors from around were
    changed, with their values inside.
    """
    saved = _Saved(g)
    scope = Scope(Body(g.graph.body))
    g.nested = True
    try:
        with g.graph.writing(scope.body), g.env.assuming(condition):
            yield scope
            scope.written = saved.written()
    finally:
        saved.put_back()


class _Saved:
    """The recorder's state at one moment."""

    def __init__(self, g: Recorder) -> None:
        self.g = g
        entries = list(g._entries.values())
        self.entries = [(e, dict(vars(e))) for e in entries]
        groups: dict[int, Group] = {id(e.group): e.group for e in entries}
        self.groups = [(group, group.version, list(group.entries)) for group in groups.values()]
        sizes = g.sizes
        tables: list[Any] = [g.memo, g._transposed, sizes.sources, sizes.scalars, sizes._made, sizes._shapes]
        self.tables: list[tuple[Any, Any]] = [(table, dict(table)) for table in tables]
        self.env = g.env.saved()

    def written(self) -> list[tuple[Entry, ir.Value]]:
        """Bases of the groups of tensors that were written to since, with their values."""
        changed = {id(group) for group, version, _ in self.groups if group.version != version}
        bases = [e for e, _ in self.entries if id(e.group) in changed and e.view is None]
        return [(e, self.g._get(e)) for e in bases]

    def put_back(self) -> None:
        """Everything as it was."""
        for e, fields in self.entries:
            vars(e).update(fields)
        for group, version, entries in self.groups:
            group.version, group.entries[:] = version, entries
        for table, before in self.tables:
            table.clear()
            table.update(before)
        self.g.env.restore(self.env)
