"""A plain value of Python's, a word or a member of an enum, or a container, of which a condition chooses one.

What is done with it is done with either, in a branch: `mode == "one"`, `table[mode]`, `f(x, mode=mode)`,
`groups[kind].append(x)`. A container that a condition chooses is one of two that there are: what is written
into it is written into that one.
"""

# Stands for values of any kind.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import enum
import functools
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ingot.capture.choice import Maybe, Undecided
from ingot.capture.objects import is_a
from ingot.capture.request import ACTIVE, cannot_wait, recorder, request
from ingot.capture.scalars import DTYPE, counts_as, depends_on_data, is_own
from ingot.capture.where import user_frame

_PLAIN = (str, bytes, enum.Enum, torch.dtype, torch.memory_format)
_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift")


class Word(Undecided):
    """The first side where the condition holds, else the second.

    Its own names begin with `ingot_`: all others are those of what it stands for.
    """

    ingot_condition: Any  # SymBool
    ingot_sides: tuple[Any, Any]

    def __init__(self, condition: Any, then: Any, other: Any) -> None:
        object.__setattr__(self, "ingot_condition", condition)
        object.__setattr__(self, "ingot_sides", (then, other))

    def ingot_either(self, function: Callable[[Any], Any]) -> Any:
        """What a function gives of the value that it is: a branch."""
        from ingot.capture.stage import RUNTIME

        then, other = self.ingot_sides
        return RUNTIME.choose(self.ingot_condition, lambda: function(then), lambda: function(other))

    def ingot_now(self, what: str) -> Any:
        """The value where Python alone can go on: the example's, which the model then checks.

        Raises:
            DataDependentError: data decides it.
        """
        g = recorder()
        e = g.env.expr(self.ingot_condition)
        known = g.env.known(e)
        if known is None and depends_on_data(g, e):
            cannot_wait(what)
        if known is None:
            request(user_frame(sys._getframe(1)), needed=False)  # pyright: ignore[reportPrivateUsage]
            known = g.env.take(e)
        found = self.ingot_sides[0 if known else 1]
        return found.ingot_now(what) if is_a(found, Word) else found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.ingot_either(lambda v: getattr(v, name))

    def __setattr__(self, name: str, value: Any) -> None:
        self.ingot_either(lambda v: setattr(v, name, value))

    def __delattr__(self, name: str) -> None:
        self.ingot_either(lambda v: delattr(v, name))

    def __getitem__(self, index: Any) -> Any:
        return self.ingot_either(lambda v: v[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.ingot_either(lambda v: operator.setitem(v, index, value))

    def __delitem__(self, index: Any) -> None:
        self.ingot_either(lambda v: operator.delitem(v, index))

    def __eq__(self, other: object) -> bool:
        return bool(self.ingot_now("compares a value that a condition chooses") == other)

    def __hash__(self) -> int:
        return hash(self.ingot_now("looks up a value that a condition chooses"))

    def __bool__(self) -> bool:
        return bool(self.ingot_now("asks for the truth of a value that a condition chooses"))

    def __str__(self) -> str:
        return str(self.ingot_now("writes a value that a condition chooses into a string"))

    def __format__(self, spec: str) -> str:
        return format(self.ingot_now("writes a value that a condition chooses into a string"), spec)

    def __iter__(self) -> Iterator[Any]:
        if not is_thing(self):
            return iter(self.ingot_now("loops over a value that a condition chooses"))
        return iter(self.ingot_either(list))

    def __len__(self) -> int:
        return len(self.ingot_now("asks for the length of a value that a condition chooses"))

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return called(func, args, kwargs or {})


def _two(function: Callable[[Any, Any], Any]) -> Callable[[Word, Any], Any]:
    return lambda word, other: word.ingot_either(lambda v: function(v, other))


def _swapped(function: Callable[[Any, Any], Any]) -> Callable[[Word, Any], Any]:
    return lambda word, other: word.ingot_either(lambda v: function(other, v))


def _one(function: Callable[[Any], Any]) -> Callable[[Word], Any]:
    return lambda word: word.ingot_either(function)


for _name in ("lt", "le", "gt", "ge"):
    setattr(Word, f"__{_name}__", _two(getattr(operator, _name)))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(Word, f"__{_name}__", _one(getattr(operator, _name)))
for _name in (*_ARITHMETIC, "and", "or", "xor"):
    setattr(Word, f"__{_name}__", _two(getattr(operator, f"__{_name}__")))
    setattr(Word, f"__r{_name}__", _swapped(getattr(operator, f"__{_name}__")))
    setattr(Word, f"__i{_name}__", _two(getattr(operator, f"__i{_name}__")))  # the same thing after it


def is_plain(x: Any) -> bool:
    """Whether a condition may choose between this and another value without being asked yet."""
    return is_a(x, (*_PLAIN, Word)) or is_own(x)


def is_thing(x: Any) -> bool:
    """Whether a condition chooses between containers or objects."""
    return is_a(x, Word) and any(is_thing(v) or not (is_plain(v) or type(v) in DTYPE) for v in x.ingot_sides)


def leaves_of(x: Any) -> list[Any]:
    """The values that a word may be, or the value itself."""
    return [v for side in x.ingot_sides for v in leaves_of(side)] if is_a(x, Word) else [x]


def chosen(condition: Any, then: Any, other: Any) -> Word:
    """One of two values."""
    ACTIVE.words = True
    return Word(condition, then, other)


def put(held: dict[Any, Any], key: Any, value: Any) -> None:
    """`held[key] = value`, under either key that a condition chooses, in a branch."""
    if not is_a(key, Word):
        held[key] = value
        return
    from ingot.capture.stage import RUNTIME

    then, other = key.ingot_sides  # the dict is the functions' own, so that the branch finds it
    RUNTIME.choose(key.ingot_condition, lambda: put(held, then, value), lambda: put(held, other, value))


def counted(x: Any) -> Any:
    """The number that a word of numbers is, alone or in tuples, lists and slices; else the thing itself."""
    if is_a(x, slice):
        return slice(*map(counted, (x.start, x.stop, x.step)))
    if type(x) in (tuple, list) and any(is_a(v, (Word, slice)) for v in x):
        return type(x)(map(counted, x))
    if not is_a(x, Word) or any(counts_as(v) not in DTYPE for v in leaves_of(x)):
        return x
    return x.ingot_either(lambda v: counts_as(v)(v))  # pyright: ignore[reportOptionalCall]  (asked above)


def called(call: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """A call with a word among its arguments, or what may be None, as a branch between two calls."""
    chosen = next(v for v in (*args, *kwargs.values()) if is_a(v, (Word, Maybe)))

    def with_value(value: Any) -> Any:
        given = [value if v is chosen else v for v in args]
        named = {k: value if v is chosen else v for k, v in kwargs.items()}
        return functools.partial(call, *given, **named)

    if is_a(chosen, Word):
        return chosen.ingot_either(lambda v: with_value(v)())
    from ingot.capture.stage import RUNTIME

    return RUNTIME.choose(chosen.ingot_is_none, with_value(None), with_value(chosen.ingot_value))
