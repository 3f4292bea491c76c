"""What is made again for other sizes: answers that are remembered, and calls that depend on them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from ingot.codegen.kernel import Kernel
from ingot.kernels.call import Call, Form, Series
from ingot.kernels.notes import NOTING, Again
from ingot.kernels.sizes import Answer, has_sizes

T = TypeVar("T")
C = TypeVar("C", bound=Call | Series)
P = ParamSpec("P")


def remembered(count: int, again: Again = "numbers") -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorator of a function that follows from its arguments: the last `count` answers are kept.

    again: how it is done with sizes that are noted. "numbers": for other sizes it is called again; integers
    in its answer (in tuples, lists, and of a Form all but its kernel) may be others, the rest must not.
    "roles": likewise, and so may a form's places: which view goes to which of them is told beside it.
    "decision": it is called again, and its answer must be the same. "answer": it is called again, and only
    `either` looks at its answer. "sizes": its own steps are noted.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        kept = functools.lru_cache(count)(function)

        @functools.wraps(function)
        def call(*args: Any) -> T:
            notes = NOTING.notes
            if notes is None or not has_sizes(args):
                return kept(*args)
            if again == "sizes":
                return function(*args)
            return notes.call(kept, args, again)

        return call

    return decorate


#: Of calls that are not known yet.
_NO_KERNEL = cast(Kernel, None)


@dataclass(slots=True, eq=False)
class Remade(Call):
    """Stands for the calls that a function gives, which are others for other sizes."""

    function: Callable[..., Sequence[Call | Series]] | None = None
    given: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Nobody may ask what the calls are."""


_NO_ANSWER = Answer(0)


@dataclass(slots=True, eq=False)
class Fork(Call):
    """Stands for the calls of two courses: `none` where an answer is None, else `some`."""

    answer: Answer = _NO_ANSWER
    none: Sequence[Call | Series] = ()
    some: Sequence[Call | Series] = ()

    def __post_init__(self) -> None:
        """Nobody may ask what the calls are."""


def either(
    answer: T | None, none: Callable[[], list[Call | Series]], some: Callable[[T], list[Call | Series]]
) -> list[Call | Series]:
    """The calls of `none` where what a function marked `remembered` ("answer") gave is None, else those of
    `some` for it.
    """
    if isinstance(answer, Answer):
        form = Form(_NO_KERNEL, [], (), 0, again=answer)
        given = cast("T", answer)
        return [Fork(_NO_KERNEL, [], 0, [], [], form=form, answer=answer, none=none(), some=some(given))]
    return none() if answer is None else some(answer)


def made_again(function: Callable[P, list[C]]) -> Callable[P, list[C]]:
    """Decorator of a function that gives calls for views. With sizes that are noted it is left as it is, and
    called for other sizes: which calls they are, and how many, follows from those alone.
    """

    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> list[C]:
        if NOTING.notes is None or kwargs or not has_sizes(args):
            return function(*args, **kwargs)
        form = Form(_NO_KERNEL, [], (), 0, again=function)
        return [cast("C", Remade(_NO_KERNEL, [], 0, [], [], form=form, function=function, given=args))]

    return make
