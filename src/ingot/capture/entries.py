"""What a recording knows about each tensor: value in the graph, contents, other views of its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture.journal import Journal, Tracked

if TYPE_CHECKING:
    from ingot.capture.alike import Look
    from ingot.capture.arrays import Shown
    from ingot.capture.aten.registry import Row
    from ingot.capture.graph import Body
    from ingot.capture.unwritten import Unwritten
    from ingot.errors import ExportError


# Views that show every element of what they are views of.
WHOLE_VIEWS = frozenset(
    (
        "t", "transpose", "permute", "numpy_T", "view", "reshape", "_unsafe_view", "expand", "unsqueeze",
        "squeeze", "flatten", "unflatten", "alias", "detach", "view_as", "expand_as", "movedim",
    )
)  # fmt: skip


class Group(Tracked):
    """Tensors that share memory. A write through one of them makes the others' values out of date."""

    put_back = frozenset(("version", "entries", "links", "lost", "unwritten", "shown"))

    def __init__(self, journal: Journal, *, owned: bool) -> None:
        self.journal = journal
        # made during this recording: writing into it changes nothing that outlives the call
        self.owned = owned
        self.body: Body | None = None  # the branch or loop it was made in
        self.version = 0
        self.entries: tuple[Entry, ...] = ()
        self.join: Join | None = None
        self.links: tuple[Link, ...] = ()
        self.lost: str | None = None  # the line by which nobody knows what is in it
        self.unwritten: Unwritten | None = None  # where nothing may be in some of it yet
        self.shown: tuple[Shown, ...] = ()  # arrays of it that the model has


@dataclass(eq=False)
class Entry(Tracked):
    """What is known about one tensor: its value in the graph, its contents if constant, whose view it is."""

    put_back = frozenset(("tensor", "value", "real", "view", "version", "parts", "gone"))
    journal: Journal
    tensor: torch.Tensor  # kept alive: entries are found by id
    group: Group
    value: ir.Value | None = None
    real: torch.Tensor | None = None
    view: View | None = None
    version: int = 0
    name: str = "const"
    parts: tuple[torch.Tensor, torch.Tensor] | None = None  # real and imaginary, of a complex tensor
    refusal: ExportError | None = None  # raised when something wants the value
    look: Look | None = None
    gone: ExportError | None = None  # raised by whoever reads it: it is another tensor by now, or is not

    def base(self) -> Entry:
        """What this is a view of in the end; itself where it is none."""
        at = self
        while at.view is not None:
            at = at.view.parent
        return at

    def part_by(self) -> str | None:
        """The view by which a tensor is a part of another: where that lies in memory is not known here."""
        at = self
        while at.view is not None:
            if at.view.op not in WHOLE_VIEWS:
                return at.view.op
            at = at.view.parent
        return None

    def is_repeated(self) -> bool:
        """Whether it is a view that shows elements several times."""
        at = self
        while at.view is not None:
            if at.view.op in ("expand", "expand_as"):
                return True
            at = at.view.parent
        return False


@dataclass(eq=False)
class View:
    """How a view was made, so that it can be made again after its base was written to."""

    func: Any
    parent: Entry
    op: str
    row: Row
    out: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    index: int | None


@dataclass(eq=False)
class Join(Tracked):
    """Memory that is another tensor's: the first one's where the test, a BOOL of shape [], holds."""

    put_back = frozenset(("seen",))
    journal: Journal
    test: ir.Value
    sides: tuple[Entry, Entry]
    seen: tuple[int, int] | None = None  # how often the two had been written to when its value was made

    def __post_init__(self) -> None:
        self.seen = self.versions() if self.seen is None else self.seen

    def versions(self) -> tuple[int, int]:
        """How often the two were written to."""
        first, second = self.sides
        return first.group.version, second.group.version


@dataclass(frozen=True)
class Link:
    """Other memory that may be the same, if data says so."""

    group: Group
    version: int  # how often it had been written to
    where: str  # file:line of what data decides
