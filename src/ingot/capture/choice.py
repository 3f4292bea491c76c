"""What a variable holds after a branch where its sides cannot be one tensor: None or a value, one function or
another.
"""

# Stands for values of any kind.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ingot.capture.objects import is_a


class Undecided:
    """What only the run decides. It is one thing to those who take containers apart."""


class Parts:
    """Something of capture's own that branches and loops take apart."""

    def parts(self) -> list[Any]:
        """What it is made of."""
        raise NotImplementedError

    def of_parts(self, parts: list[Any]) -> Any:
        """Another one of its kind, made of these."""
        raise NotImplementedError

    def is_like(self, other: Any) -> bool:
        """Whether the parts of another one, as many, may stand in the place of its own."""
        del other
        return True


class Maybe(Undecided):
    """None where a condition holds, else the value.

    Only `is None` takes the two apart. Anything else that is done with it would raise on None: it is done
    with the value, and the run fails where there is none. Its own names begin with `ingot_`: all others are
    those of the value.
    """

    ingot_is_none: Any  # bool or SymBool
    ingot_value: Any

    def __init__(self, is_none: Any, value: Any) -> None:
        object.__setattr__(self, "ingot_is_none", is_none)
        object.__setattr__(self, "ingot_value", value)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*map(_present_in, args), **{k: _present_in(v) for k, v in (kwargs or {}).items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(present(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(present(self), name, value)

    def __getitem__(self, index: Any) -> Any:
        return present(self)[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        present(self)[index] = value

    def __delitem__(self, index: Any) -> None:
        del present(self)[index]

    def __eq__(self, other: object) -> bool:
        return _cannot_wait("compares a value of which data decides whether it is None")

    def __hash__(self) -> int:
        return _cannot_wait("looks up a value of which data decides whether it is None")

    def __str__(self) -> str:
        return _cannot_wait("writes a value of which data decides whether it is None into a string")

    def __format__(self, spec: str) -> str:
        return str(self)


def _cannot_wait(what: str) -> NoReturn:
    from ingot.capture.request import cannot_wait  # which needs this file

    cannot_wait(what)


def present(x: Any) -> Any:
    """The value of what may be None, where None would raise: the run fails there."""
    if is_a(x, Maybe):
        from ingot.capture.checks import require_present  # which needs this file

        require_present(x.ingot_is_none)
        return x.ingot_value
    return x


def perhaps(x: Any, absent: Any) -> Maybe:
    """The same value as one that may be None; `absent`: what stands for the value of None."""
    if is_a(x, Maybe):
        return x
    return Maybe(x is None, absent if x is None else x)


def _present_in(x: Any) -> Any:
    """The same of an argument, which may be a list of such."""
    if is_a(x, (list, tuple)) and any(is_a(v, Maybe) for v in x):
        return type(x)(map(present, x))
    return present(x)


def _two(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: function(present(a), present(b))


def _swapped(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda a, b: function(present(b), present(a))


def _one(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda a: function(present(a))


for _name in (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul",
    "and", "or", "xor", "lshift", "rshift",
):  # fmt: skip
    setattr(Maybe, f"__{_name}__", _two(getattr(operator, f"__{_name}__")))
    setattr(Maybe, f"__r{_name}__", _swapped(getattr(operator, f"__{_name}__")))
    setattr(Maybe, f"__i{_name}__", _two(getattr(operator, f"__i{_name}__")))  # it may be another's too
for _name in ("lt", "le", "gt", "ge"):
    setattr(Maybe, f"__{_name}__", _two(getattr(operator, _name)))
for _name in ("neg", "pos", "invert"):
    setattr(Maybe, f"__{_name}__", _one(getattr(operator, f"__{_name}__")))
setattr(Maybe, "__iter__", _one(iter))  # noqa: B010  (beside the others)


class Unordered(dict[Any, Any]):
    """A dict whose keys stand in another order on each side of a branch: nobody may ask for it."""

    def _refuse(self, *_: Any) -> NoReturn:
        from ingot.capture.request import cannot_say  # which needs this file

        cannot_say(
            "goes through a dict whose keys two sides of a branch have made in different orders",
            "Make them in the same order on both sides.",
        )

    __iter__ = __reversed__ = keys = values = items = popitem = _refuse  # type: ignore[assignment]

    def copy(self) -> Unordered:
        """As dict.copy."""
        return Unordered(dict.items(self))

    def __or__(self, other: Any) -> Unordered:  # type: ignore[override]
        return Unordered([*dict.items(self), *dict.items(other)])

    def __ror__(self, other: Any) -> Unordered:  # type: ignore[override]
        return Unordered([*dict.items(other), *dict.items(self)])


@dataclass(eq=False)
class Choice(Undecided):
    """One of two functions, as a condition says: a call of it is a branch, and so is its attribute.

    Its own names begin with `ingot_`: all others are those of the function.
    """

    ingot_condition: Any
    ingot_sides: tuple[Callable[..., Any], Callable[..., Any]]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._either(lambda function: function(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._either(lambda function: getattr(function, name))

    def _either(self, done: Callable[[Callable[..., Any]], Any]) -> Any:
        from ingot.capture.stage import RUNTIME

        then, other = self.ingot_sides
        return RUNTIME.choose(self.ingot_condition, lambda: done(then), lambda: done(other))
