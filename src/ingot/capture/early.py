"""`any` and `all` over a generator go through it as far as Python would: what an element behind that does, a
write, an append or an error, is not done. `next` does too, in `comprehensions`.
"""

# Elements may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn

from ingot.capture.lists import Late, Yields
from ingot.capture.request import ACTIVE, cannot_wait, refuse, request_code
from ingot.capture.runs import Perhaps
from ingot.capture.standins import sequences
from ingot.capture.where import quoted_line
from ingot.capture.words import Word
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

Thunk = Callable[[], Any]
OfItem = Callable[[Any], Any]
_KEEP = "Keep its elements in a list or tensor, or yield them in a function of the model's own."


def quantified(
    rt: Runtime, called: Any, kept: bool, items: Any, element: OfItem, tests: Sequence[OfItem]
) -> Any:
    """`any(element(x) for x in items if …)`, or `all`."""
    if called is not any and called is not all:
        return rt.call(called, rt.list_of(items, element, tests))
    items = sequences.begun(items)
    ends = called is any  # what an element must be for those behind it not to be asked

    def says(item: Any) -> Any:
        return rt.truth(element(item))

    def holds(item: Any) -> Any:
        if not tests:
            return says(item)
        fits: Any = True
        for test in tests:
            fits = rt.both(fits, lambda t=test: rt.truth(t(item)))
        return rt.both(fits, lambda: says(item)) if ends else rt.either(rt.opposite(fits), lambda: says(item))

    if isinstance(items, (Word, Yields)) or sequences.rows_of(items) is not None:
        return _of_many(rt, items, holds, ends)

    return joined(rt, items, holds, ends, kept and isinstance(items, Iterator))


def nested(rt: Runtime, called: Any, kept: bool, items: Any, element: OfItem, tests: Sequence[OfItem]) -> Any:
    """The same where each element is a call of `called` itself, over further loops."""
    if called is not any and called is not all:
        cannot_wait("gives a generator of several loops to a function of its own that is called any or all")
    return quantified(rt, called, kept, items, element, tests)


def joined(rt: Runtime, items: Any, holds: OfItem, ends: bool, kept: bool = False) -> Any:
    """Whether one of the items holds (`ends`), or all do; each is asked where those before it leave it open.

    kept: whether others find what is left of the items
    """
    whole: Any = not ends
    for _, make in rounds(items):
        if rt.waits(whole):
            require_known(items)
            if kept:
                refuse_iterator()
        whole = (rt.either if ends else rt.both)(whole, lambda make=make: holds(make()))
        if not rt.waits(whole) and bool(rt.truth(whole)) is ends:
            break
    return whole


def rounds(items: Any) -> Iterator[tuple[Any, Thunk]]:
    """Of items that Python knows whether each is there, and what gives it: `map` calls its function only when
    it is asked for an element.
    """
    function: Any = _itself
    columns: list[Any] = [items]
    if isinstance(items, map):
        made_of: Any = items.__reduce__()
        function, *columns = made_of[1]

    def given(values: tuple[Any, ...]) -> Thunk:
        return lambda: function(*values)

    for values in zip(*columns, strict=False):
        if len(values) == 1 and isinstance(values[0], Perhaps):
            yield values[0].there, given((values[0].value,))
        else:
            yield True, given(values)


def _itself(item: Any) -> Any:
    return item


def require_known(items: Any) -> None:
    """Data decides how far a loop goes: what a generator does in Python is done in the model then.

    Raises:
        Restart: its function is to be rewritten
        DataDependentError: it has no such form
    """
    if isinstance(items, Late):
        items = items.generator
    if isinstance(items, GeneratorType):
        request_code(items.gi_code)
        if ".__iter__.<locals>." in items.gi_code.co_qualname:
            edit = "Write it with `yield`, or return `iter([…])` of a list there."
            refuse_iterator("what `__iter__` gives", edit)
        refuse_iterator()


def refuse_iterators(found_later: Iterable[Any]) -> None:
    """Data or a size decides how far a loop goes through something.

    Raises:
        DataDependentError: among what others find later is an iterator, which it may come from.
    """
    if any(isinstance(v, Iterator) and not isinstance(v, Yields) for v in found_later):
        refuse_iterator()


def refuse_passed(values: Iterable[Any]) -> None:
    """Raises DataDependentError where an iterator is among values that stood beside rows before."""
    g = ACTIVE.recorder
    if g is not None and g.passed and any(id(v) in g.passed for v in values):
        refuse_iterator()


def _of_many(rt: Runtime, items: Any, holds: OfItem, ends: bool) -> Any:
    """The same of as many items as the run says: a loop that ends with the answer."""
    found: Any = not ends

    def body(item: Any) -> None:
        nonlocal found
        found = holds(item)

    def go() -> Any:
        return rt.opposite(found) if ends else found

    rt.each(items, body, go, ("found",), ("found",), ("found",))
    return found


def refuse_iterator(what: str = "an iterator", edit: str = _KEEP) -> NoReturn:
    """Others would find an iterator where Python has left it, and the run alone knows where that is."""
    refuse(
        DataDependentError(
            f"{quoted_line()}\nData decides how far this goes through {what}, and nobody could go on with "
            f"it. {edit}"
        )
    )
