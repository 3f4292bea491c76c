"""What a call does to the objects, dicts and lists it was given, a key-value cache say: their tensors are
inputs, and what the call leaves in their places are outputs.
"""

# torch's fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ingot.capture.assume import Assumption
from ingot.capture.choice import Undecided
from ingot.capture.record import Recorder
from ingot.capture.scalars import Symbolic
from ingot.capture.signature import Arguments, Kept, Leaf, Passed, children, is_object, leaves, rebuild
from ingot.capture.state import ABSENT, in_words
from ingot.errors import ExportError

Path = tuple[str | int, ...]
_PLAIN = (bool, int, float, str, type(None))
_ARGUMENT = 2  # the length of an argument's own way from (args, kwargs): longer ways lie in something


class CountsFound(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """Carries where a call changes numbers in its arguments: the recording starts again with inputs there."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))
        self.paths = list(paths)


@dataclass
class Objects:
    """The objects, dicts and lists among the arguments of one call, before and after it."""

    call: Any  # (args, kwargs): the call changes what is in them
    arguments: Arguments
    before: dict[Path, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Look before the call."""
        self.before = {leaf.path: leaf.value for leaf in leaves(self.call)}

    def look(self, recorder: Recorder) -> Afterwards:
        """What is in them now.

        Raises:
            CountsFound: a number that was fixed is another one.
        """
        found = Afterwards()
        counts: list[Path] = []
        names = self.arguments.names_by_path
        for leaf in leaves(self.call):
            before, after, name = self.before.get(leaf.path, ABSENT), leaf.value, names.get(leaf.path)
            if len(leaf.path) <= _ARGUMENT:
                continue
            if type(before) in (int, float) and isinstance(after, (int, float, *Symbolic)):
                if isinstance(after, Symbolic) or after != before:
                    counts.append(leaf.path)
            elif name is not None and after is before and not recorder.written_to(after):
                found.same[id(after)] = name
            elif _is_output(recorder, after, name is not None):
                found.changed.append(Left(leaf.path, after, name, self.arguments.label(leaf)))
            elif not _is_as_before(before, after):
                found.lost.append(_lost(self.arguments.label(leaf), before, after))
        if counts:
            raise CountsFound(counts)
        left = {leaf.path for leaf in leaves(self.call)}
        for path, value in self.before.items():
            if path not in left and len(path) > _ARGUMENT and isinstance(value, (torch.Tensor, *_PLAIN)):
                found.lost.append(_lost(self.arguments.label(Leaf(path, value)), value, ABSENT))
        self._require_apart([*left ^ self.before.keys(), *(x.path for x in found.changed)])
        return found

    def _require_apart(self, changed: Sequence[Path]) -> None:
        """Raises ExportError where a list, dict or dataclass that was given in two places is changed: its
        tensors are inputs in each.
        """
        for places in _places((self.arguments.args, self.arguments.kwargs)):
            if any(path[: len(p)] == p for path in changed for p in places):
                names = " and ".join(repr(self.arguments.label(Leaf(p, None))) for p in places)
                raise ExportError(
                    f"arguments {names} are one list, dict or dataclass, and forward changes what is in it: "
                    "the exported model takes each by itself. Pass it once, or copies of it."
                )


def _places(call: Any) -> list[list[Path]]:
    """Where lists, dicts and dataclasses stand that stand in several places of a call."""
    found: dict[int, list[Path]] = {}

    def look(x: Any, path: Path, around: tuple[int, ...]) -> None:
        parts = children(x)
        if parts is None or id(x) in around:
            return
        if not isinstance(x, tuple) and not is_object(x):
            found.setdefault(id(x), []).append(path)
        for key, value in parts:
            look(value, (*path, key), (*around, id(x)))

    look(call, (), ())
    return [places for places in found.values() if len(places) > 1]


def _is_output(recorder: Recorder, after: Any, was_input: bool) -> bool:
    """Whether what stands in a place after the call, where an input stood or not, is an output."""
    if isinstance(after, torch.Tensor):
        return was_input or recorder.real(after) is None
    return isinstance(after, Symbolic) or (was_input and isinstance(after, (bool, int, float)))


def _is_as_before(before: Any, after: Any) -> bool:
    """Whether a plain value that no output can be is what it was; of others nobody says."""
    if isinstance(after, Undecided):
        return False
    known = isinstance(before, _PLAIN) and isinstance(after, _PLAIN)
    return before is after or not isinstance(after, _PLAIN) or (known and before == after)


def _lost(label: str, before: Any, after: Any) -> Assumption:
    """Says what a call leaves in an argument that no output of a model can be."""
    found = "a tensor" if isinstance(before, torch.Tensor) else in_words(before)
    left = "one of two values" if isinstance(after, Undecided) else in_words(after)
    what = f"forward leaves {left} in argument {label!r}, where {found} was; the exported model does not"
    return Assumption("input-changed", label, what, "fixed")


@dataclass(frozen=True)
class Left:
    """Something that a call left in an argument: where, what, which input stood there, what it is called."""

    path: Path  # from (args, kwargs)
    value: Any
    input_name: str | None
    label: str

    @property
    def output_name(self) -> str:
        """What the output is called, the next call's input."""
        return f"next.{self.input_name or self.label}"


@dataclass
class Afterwards:
    """What a call left in its arguments."""

    changed: list[Left] = field(default_factory=list[Left])
    same: dict[int, str] = field(default_factory=dict[int, str])  # inputs that still stand, by id
    left: list[Left] = field(default_factory=list[Left])  # what of it was not returned
    lost: list[Assumption] = field(default_factory=list[Assumption])  # of what no output can be

    def name_of(self, value: Any, otherwise: str) -> str:
        """What an output is called that is the next call's input, or else."""
        names = (left.output_name for left in self.changed if left.value is value and left.input_name)
        return next(names, otherwise)

    def is_output(self, recorder: Recorder, leaf: Leaf) -> bool:
        """Whether what the model returns has to be one: not the inputs and constants that objects hold."""
        if not leaf.inside:
            return True
        constant = isinstance(leaf.value, torch.Tensor) and recorder.real(leaf.value) is not None
        return id(leaf.value) not in self.same and not constant

    def structure(self, recorder: Recorder, output: Any) -> Any:
        """The model's output with marks for what is none of the graph's."""
        rest = iter(list(leaves(output)))

        def marked(value: Any) -> Any:
            if self.is_output(recorder, next(rest)):
                return value
            return Passed(self.same[id(value)]) if id(value) in self.same else Kept(recorder.real(value))

        return rebuild(output, marked)

    def unreturned(self, returned: Sequence[Any]) -> list[Left]:
        """What the call left in its arguments and did not return."""
        known = {id(v) for v in returned}
        self.left = [left for left in self.changed if id(left.value) not in known]
        return self.left

    def carried(self, values: Sequence[Any], names: Sequence[str]) -> dict[str, str]:
        """For each input that the call changed, the output (`names` of `values`) that is the next call's."""
        named = {id(v): name for v, name in zip(values, names, strict=True)}
        return {x.input_name: named[id(x.value)] for x in self.changed if x.input_name}
