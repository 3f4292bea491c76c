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
from ingot.capture.record import Recorder
from ingot.capture.scalars import Symbolic
from ingot.capture.signature import Arguments, Kept, Leaf, Passed, leaves, rebuild
from ingot.capture.state import ABSENT, in_words

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
            elif isinstance(after, _PLAIN) and not _same(before, after):
                found.lost.append(_lost(self.arguments.label(leaf), before, after))
        if counts:
            raise CountsFound(counts)
        return found


def _is_output(recorder: Recorder, after: Any, was_input: bool) -> bool:
    """Whether what stands in a place after the call, where an input stood or not, is an output."""
    if isinstance(after, torch.Tensor):
        return was_input or recorder.real(after) is None
    return was_input and isinstance(after, (bool, int, float, *Symbolic))


def _same(before: Any, after: Any) -> bool:
    return before is after or (isinstance(before, _PLAIN) and before == after)


def _lost(label: str, before: Any, after: Any) -> Assumption:
    """Says what a call leaves in an argument that no output of a model can be."""
    found = "a tensor" if isinstance(before, torch.Tensor) else in_words(before)
    what = f"forward leaves {after!r} in argument {label!r}, where {found} was; the exported model does not"
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
