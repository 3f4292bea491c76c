"""A plain value of Python's, a word or a member of an enum, of which a condition chooses one of two.

What is done with it is done with either, in a branch: `mode == "one"`, `table[mode]`, `f(x, mode=mode)`.
"""

# Stands for values of any kind.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ingot.capture.choice import Undecided
from ingot.capture.request import ACTIVE, cannot_wait, recorder, request
from ingot.capture.scalars import depends_on_data
from ingot.capture.where import user_frame

_PLAIN = (str, bytes, enum.Enum, torch.dtype, torch.memory_format)


@dataclass(eq=False)
class Word(Undecided):
    """`then` where the condition holds, else `other`."""

    condition: Any  # SymBool
    then: Any
    other: Any

    def either(self, function: Callable[[Any], Any]) -> Any:
        """What a function gives of the value that it is: a branch."""
        from ingot.capture.stage import RUNTIME

        return RUNTIME.choose(self.condition, lambda: function(self.then), lambda: function(self.other))

    def now(self, what: str) -> Any:
        """The value where Python alone can go on: the example's, which the model then checks.

        Raises:
            DataDependentError: data decides it.
        """
        g = recorder()
        e = g.env.expr(self.condition)
        known = g.env.known(e)
        if known is None and depends_on_data(g, e):
            cannot_wait(what)
        if known is None:
            request(user_frame(sys._getframe(1)), needed=False)  # pyright: ignore[reportPrivateUsage]
            known = g.env.take(e)
        found = self.then if known else self.other
        return found.now(what) if isinstance(found, Word) else found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.either(lambda v: getattr(v, name))

    def __eq__(self, other: object) -> bool:
        return bool(self.now("compares a value that a condition chooses") == other)

    def __hash__(self) -> int:
        return hash(self.now("looks up a value that a condition chooses"))

    def __bool__(self) -> bool:
        return bool(self.now("asks for the truth of a value that a condition chooses"))

    def __str__(self) -> str:
        return str(self.now("writes a value that a condition chooses into a string"))

    def __format__(self, spec: str) -> str:
        return format(self.now("writes a value that a condition chooses into a string"), spec)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now("loops over a value that a condition chooses"))

    def __len__(self) -> int:
        return len(self.now("asks for the length of a value that a condition chooses"))

    def __add__(self, other: Any) -> Any:
        return self.either(lambda v: v + other)

    def __radd__(self, other: Any) -> Any:
        return self.either(lambda v: other + v)


def is_plain(x: Any) -> bool:
    """Whether a condition may choose between this and another value without being asked yet."""
    return isinstance(x, (*_PLAIN, Word))


def chosen(condition: Any, then: Any, other: Any) -> Word:
    """One of two values."""
    ACTIVE.words = True
    return Word(condition, then, other)


def called(call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call with a word among its arguments, as a branch between two calls."""
    word = next(v for v in (*args, *kwargs.values()) if isinstance(v, Word))

    def with_value(value: Any) -> Any:
        return call(
            *(value if v is word else v for v in args),
            **{k: value if v is word else v for k, v in kwargs.items()},
        )

    return word.either(with_value)
