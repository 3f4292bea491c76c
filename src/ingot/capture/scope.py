"""A branch's or loop's body while it is recorded: what it changes is seen inside it, and put back after."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import gradients, sharing
from ingot.capture.entries import Entry, Group
from ingot.capture.graph import Body
from ingot.capture.path import assuming

if TYPE_CHECKING:
    from ingot.capture.record import Recorder
    from ingot.capture.unwritten import Unwritten


@dataclass
class Scope:
    """A body, and the tensors from around it that were written to inside: base and new value."""

    body: Body
    written: list[tuple[Entry, ir.Value]] = field(default_factory=list[tuple[Entry, ir.Value]])
    lost: list[tuple[Group, str]] = field(default_factory=list[tuple[Group, str]])  # see `sharing.link`
    #: Tensors of which it switched whether a gradient may be taken, by id.
    switched: dict[int, tuple[torch.Tensor, bool]] = field(
        default_factory=dict[int, tuple[torch.Tensor, bool]]
    )
    #: Of memory that nothing had filled before: what is known at the end.
    unwritten: dict[Group, Unwritten | None] = field(default_factory=dict[Group, "Unwritten | None"])


@contextlib.contextmanager
def inside(g: Recorder, condition: Any = None) -> Generator[Scope]:
    """Record into a new body, as things are when the `condition` on sizes holds.

    Afterwards every tensor, size and memo is as before; `written` says which tensors from around were
    changed, with their values inside.
    """
    env, since, switched = g.env.saved(), g.journal.begin(), len(g.switched)
    scope = Scope(Body(g.graph.body))
    g.nested = True
    torch.clear_autocast_cache()  # weights that were cast in one body are not there in another
    try:
        with g.graph.writing(scope.body), assuming(g.env, condition):
            yield scope
            scope.written = _written(g, since, scope.body)
            groups = g.journal.changed(since, Group, "unwritten")
            scope.unwritten = {group: group.unwritten for group in groups}
            scope.lost = sharing.lost_inside(g, since, scope.body)
    finally:
        torch.clear_autocast_cache()
        scope.switched = gradients.switched_back(g, switched)
        gradients.forgotten(g, since)
        g.journal.put_back(since)
        g.env.restore(env)


@contextlib.contextmanager
def taken_back(g: Recorder, errors: type[BaseException]) -> Generator[None]:
    """Record into the body that is being written; what was recorded is as if it had not been where one of the
    errors ends it.
    """
    body, env, since = g.graph.body, g.env.saved(), g.journal.begin()
    nodes, checked = len(body.nodes), dict(body.checked)
    try:
        yield
    except errors:
        torch.clear_autocast_cache()
        body.take_back(nodes)
        body.checked = checked
        gradients.forgotten(g, since)
        g.journal.put_back(since)
        g.env.restore(env)
        raise
    except BaseException:
        g.journal.keep(since)
        raise
    g.journal.keep(since)


def _written(g: Recorder, since: int, body: Body) -> list[tuple[Entry, ir.Value]]:
    """Bases of the groups of tensors from around that were written to, with their values."""
    changed = g.journal.changed(since, Group, "version")
    around = [group for group in changed if group.body is None or not group.body.within(body)]
    around.sort(key=lambda group: group.join is not None)  # what it joins has its new value first
    bases = [e for group in around for e in group.entries if e.view is None]
    with g.passing_on():
        return [
            (e, e.value if e.value is not None and sharing.is_lost(g, e.group) else g.val_of(e))
            for e in bases
        ]


def is_around(group: Group, body: Body) -> bool:
    """Whether memory was there before a body was recorded."""
    return not group.owned or group.body is None or not group.body.within(body)
