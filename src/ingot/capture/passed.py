"""What a call does to the plain objects it was given, a key-value cache say: their tensors are inputs, and
what the call leaves in their places are outputs.
"""

# torch's fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ingot.capture.record import Recorder
from ingot.capture.scalars import Symbolic
from ingot.capture.signature import Arguments, Kept, Leaf, Passed, leaves, rebuild

Path = tuple[str | int, ...]


class CountsFound(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """Carries where a call changes numbers in its objects: the recording starts again with inputs there."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))
        self.paths = list(paths)


@dataclass
class Objects:
    """The objects among the arguments of one call, before and after it."""

    call: Any  # (args, kwargs), whose objects the call changes
    arguments: Arguments
    before: dict[Path, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Look before the call."""
        self.before = {leaf.path: leaf.value for leaf in leaves(self.call) if leaf.inside}

    def look(self, recorder: Recorder) -> Afterwards:
        """What is in the objects now.

        Raises:
            CountsFound: a number that was fixed is another one.
        """
        found = Afterwards()
        counts: list[Path] = []
        names = self.arguments.names_by_path
        for leaf in leaves(self.call):
            before, after, name = self.before.get(leaf.path), leaf.value, names.get(leaf.path)
            if not leaf.inside:
                continue
            if type(before) in (int, float) and isinstance(after, (int, float, *Symbolic)):
                if isinstance(after, Symbolic) or after != before:
                    counts.append(leaf.path)
            elif name is not None and after is before and not recorder.written_to(after):
                found.same[id(after)] = name
            elif name is not None or (isinstance(after, torch.Tensor) and recorder.real(after) is None):
                found.changed.append(Left(leaf.path, after, name, self.arguments.label(leaf)))
        if counts:
            raise CountsFound(counts)
        return found


@dataclass(frozen=True)
class Left:
    """Something that a call left in an object: where, what, which input stood there, what it is called."""

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
    """What a call left in its objects."""

    changed: list[Left] = field(default_factory=list[Left])
    same: dict[int, str] = field(default_factory=dict[int, str])  # inputs that still stand, by id
    left: list[Left] = field(default_factory=list[Left])  # what of it was not returned

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
        """What the call left in its objects and did not return."""
        known = {id(v) for v in returned}
        self.left = [left for left in self.changed if id(left.value) not in known]
        return self.left

    def carried(self, values: Sequence[Any], names: Sequence[str]) -> dict[str, str]:
        """For each input that the call changed, the output (`names` of `values`) that is the next call's."""
        named = {id(v): name for v, name in zip(values, names, strict=True)}
        return {x.input_name: named[id(x.value)] for x in self.changed if x.input_name}
