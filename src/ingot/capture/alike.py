"""What a call's results look like is worked out once for operands that look alike.

torch needs half a millisecond and more to say which shape a view of a tensor with symbolic sizes has, and a
network asks the same for each of its layers. What it says follows from the call's operator, the dtypes, sizes
and strides of its tensors, and its other arguments; so do the conditions on sizes that it asks about on the
way, which have been written down the first time. What is known of the sizes is part of the question. The
answers of a branch or loop are forgotten with what was written down in it; those that wrote nothing down hold
in every branch that begins alike.
"""

# torch's fake tensors are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import _disable_current_modes

from ingot.capture.journal import Journal, Table
from ingot.capture.sizes import SizeEnv

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class Unlike(Exception):
    """Something in a call that no other can be said to look like."""


@dataclass(eq=False, frozen=True)
class Look:
    """Dtype, sizes and strides of tensors. There is one object for each, so that they compare at once."""

    meta: torch.Tensor  # of this look, without contents
    device: torch.device

    def tensor(self, mode: FakeTensorMode) -> torch.Tensor:
        """A new fake tensor. (No mode sees how it is made, as torch makes subclasses past all of them.)"""
        return FakeTensor(mode, self.meta, self.device)


@dataclass(frozen=True)
class Answer:
    """What a call returns, and the same with short formulas for its sizes."""

    raw: tuple[Look, ...]
    tidy: tuple[Look, ...]
    kind: type | None  # list or tuple; None for one tensor


class Alike:
    """Looks of tensors, and answers by what was asked."""

    def __init__(self, env: SizeEnv, mode: FakeTensorMode, journal: Journal) -> None:
        self.env = env
        self.mode = mode
        self._looks: dict[Any, Look] = {}
        self.answers: dict[Any, Answer] = Table(journal)
        self._of_branches: dict[Any, Answer] = {}  # those that are not forgotten

    def look(self, x: torch.Tensor) -> Look:
        """The look of a tensor, real or fake.

        Raises:
            Unlike: it has something that a look does not say.
        """
        fake = isinstance(x, FakeTensor)
        if x.constant is not None if fake else type(x) not in (torch.Tensor, torch.nn.Parameter):
            raise Unlike
        if x.layout is not torch.strided or x.is_complex():
            raise Unlike
        sizes, strides, offset = x.shape, x.stride(), x.storage_offset()
        key = tuple(map(formula, (*sizes, *strides, offset))), x.dtype, x.device
        found = self._looks.get(key)
        if found is None:
            found = self._looks[key] = Look(self._meta(x, fake), x.device)
        return found

    def _meta(self, x: torch.Tensor, fake: bool) -> torch.Tensor:
        if fake:
            with in_kernel_invocation_manager(self.mode), _disable_current_modes():
                return x.detach()
        with _disable_current_modes():
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")

    def question(
        self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], look: Callable[[torch.Tensor], Look]
    ) -> Any:
        """A call, so that calls with one answer are equal.

        Raises:
            Unlike: an argument is of another kind.
        """

        def part(x: Any) -> Any:
            if isinstance(x, torch.Tensor):
                return look(x)
            if isinstance(x, (list, tuple)):
                return tuple(map(part, x))
            if isinstance(x, _SYMBOLIC):
                return x.node._expr
            if isinstance(x, _PLAIN):
                return type(x), x
            raise Unlike

        named = tuple((name, part(value)) for name, value in kwargs.items())
        return func, self.env.moment, tuple(map(part, args)), named

    def answer(self, question: Any) -> Answer | None:
        """What is known to be the answer."""
        if question is None:
            return None
        return self.answers.get(question) or self._of_branches.get(question)

    def results(self, answer: Answer, looks: tuple[Look, ...]) -> Any:
        """New fake tensors for an answer."""
        made = [look.tensor(self.mode) for look in looks]
        return made[0] if answer.kind is None else answer.kind(made)

    def keep(self, question: Any, arguments: Sequence[Any], out: Any, tidy: Any) -> None:
        """Remember an answer, unless it is an argument itself or has a size that only the run knows."""
        if question is None or not (isinstance(out, torch.Tensor) or type(out) in (list, tuple)):
            return
        kind = None if isinstance(out, torch.Tensor) else type(out)
        outs, tidied = ([out], [tidy]) if kind is None else (out, tidy)
        given = list(_leaves(arguments))
        if any(not isinstance(o, FakeTensor) or any(o is a for a in given) for o in outs):
            return
        known = set[Any]().union(*map(_symbols, given))
        new = set[Any]().union(*map(_symbols, outs)) - known
        if not all(s in self.env.definitions for s in new):
            return
        with contextlib.suppress(Unlike):
            raw = tuple(map(self.look, outs))
            self.answers[question] = made = Answer(raw, tuple(map(self.look, tidied)), kind)
            as_it_began = self.env.moment.begins == self.env.written_down()
            if as_it_began and set[Any]().union(*map(_symbols, (*outs, *tidied))) <= known:
                self._of_branches[question] = made


def formula(size: Any) -> Any:
    """A size as it was made: what is known of it since is not in it."""
    return size.node._expr if isinstance(size, torch.SymInt) else size


def _leaves(x: Any) -> Iterator[Any]:
    """What stands in nested lists and tuples."""
    if isinstance(x, (list, tuple)):
        for part in x:
            yield from _leaves(part)
    else:
        yield x


def _symbols(x: Any) -> set[Any]:
    """All symbols in a number, or in the sizes of a tensor."""
    if isinstance(x, torch.Tensor):
        return set[Any]().union(*map(_symbols, (*x.shape, *x.stride(), x.storage_offset())))
    return set(x.node._expr.free_symbols) if isinstance(x, _SYMBOLIC) else set()
