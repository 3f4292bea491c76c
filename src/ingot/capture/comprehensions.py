"""Comprehensions, of one loop or of several: their lists are made by loops of the runtime, which may find
that data or a size says how long they are. `next` goes through one as far as Python would: what an element
behind that does, a write, an append or an error, is not done.
"""

# Elements may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from ingot.capture import checks, early
from ingot.capture.cells import Cells, Sharing
from ingot.capture.lists import TracedList, Yields
from ingot.capture.merge import UNBOUND
from ingot.capture.standins import sequences
from ingot.capture.where import models_own
from ingot.capture.words import Word

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

Thunk = Callable[[], Any]
OfItem = Callable[[Any], Any]
#: The loops of a comprehension, given what goes over something, as `over` does, and what takes each element.
Loops = Callable[[Callable[..., None], OfItem], None]


def list_of(
    rt: Runtime,
    items: Any,
    element: OfItem,
    tests: Sequence[OfItem],
    names: Sequence[str] = (),
    *setters: Any,
) -> Any:
    """`[element(x) for x in items if …]`.

    names, setters: variables that `:=` in it assigns, and functions that have them
    """
    if isinstance(items, Word) and not names:
        return items.ingot_either(lambda v: list_of(rt, v, element, tests))
    out = TracedList()
    over(rt, names, setters, items, lambda item: list.append(out, element(item)), tests)
    return out


def gathered(rt: Runtime, loops: Loops, names: Sequence[str] = (), *setters: Any) -> TracedList:
    """The same of several loops, `[f(a, b) for a in rows for b in a if …]`."""
    out = TracedList()
    loops(partial(over, rt, names, setters), lambda value: list.append(out, value))
    return out


def over(
    rt: Runtime,
    names: Sequence[str],
    setters: Sequence[Any],
    items: Any,
    body: OfItem,
    tests: Sequence[OfItem],
    go: Callable[[], Any] | None = None,
    is_kept: bool = False,
) -> None:
    """`for item in items: if …: body(item)`, while `go()`.

    names, setters: variables that its parts assign, and functions that have them
    is_kept: whether others may find the items
    """

    def fitting(item: Any, left: Sequence[OfItem]) -> None:
        if left:
            others = _sharing(lambda: fitting(item, left[1:]), setters)
            rt.choose(left[0](item), others, _nothing, names)
        else:
            body(item)

    def each(item: Any) -> None:
        fitting(item, tests)

    items = sequences.begun(items)
    grown = isinstance(items, TracedList) and not items.known
    if go is not None or names or isinstance(items, Word) or grown:
        rt.each(items, _sharing(each, setters), go, names, names, names, (), is_kept)
        return
    early.refuse_passed((items,))
    if isinstance(items, Yields):
        items.give(each)
    elif sequences.rows_of(items) is None:
        for item in items:
            each(item)
    else:
        rt.each(items, each, None, (), (), ())


def first_of(
    rt: Runtime,
    called: Any,
    kept: bool,
    items: Any,
    element: OfItem,
    tests: Sequence[OfItem],
    *more: Thunk,
) -> Any:
    """`next(element(x) for x in items if …, default)`.

    called: what the model names `next`
    kept: whether the items stand somewhere where others may find them
    """
    if called is not next:
        return rt.call(called, list_of(rt, items, element, tests), *(argument() for argument in more))
    default = more[0] if more else None
    items = sequences.begun(items)
    if isinstance(items, (Word, Yields)) or sequences.rows_of(items) is not None:

        def one_loop(over: Callable[..., None], give: OfItem) -> None:
            over(items, lambda item: give(element(item)), tests)

        return first_in(rt, called, kept, one_loop, *more)

    def behind(others: Any) -> Any:
        rest = iter(others)
        for item in rest:
            fits: Any = True
            for test in tests:
                fits = rt.both(fits, lambda t=test, v=item: t(v))
            if not rt.waits(fits):
                if rt.truth(fits):
                    return element(item)
                continue
            early.require_known(items)
            if kept and rest is items:
                early.refuse_iterator()
            left = list(rest)
            if not left and default is None:
                _require_found(rt, fits)
                return element(item)
            return rt.choose(fits, lambda v=item: element(v), lambda left=left: behind(left))
        return default() if default is not None else _nothing_found()

    return behind(items)


def first_in(rt: Runtime, called: Any, kept: bool, loops: Loops, *more: Thunk) -> Any:
    """The same of whatever loops: each ends once there is an element, which they carry."""
    if called is not next:
        return rt.call(called, gathered(rt, loops), *(argument() for argument in more))
    found: Any = False
    first: Any = UNBOUND

    def give(value: Any) -> None:
        nonlocal found, first
        found, first = True, value

    def go() -> Any:
        return rt.opposite(found)

    outermost = [kept]

    def over_some(items: Any, body: OfItem, tests: Sequence[OfItem]) -> None:
        is_kept = outermost.pop() if outermost else False  # those of inner loops are made for them
        over(rt, ("found", "first"), (give,), items, body, tests, go, is_kept)

    loops(over_some, give)
    if not rt.waits(found):
        if rt.truth(found):
            return first
        return more[0]() if more else _nothing_found()
    if more:
        return rt.choose(found, lambda: first, more[0])
    _require_found(rt, found)
    return first


def _nothing_found() -> NoReturn:
    raise models_own(StopIteration())


def _require_found(rt: Runtime, found: Any) -> None:
    """The model checks that `next` finds an element."""
    checks.require_uncaught("next() finds an element", "Give it a default: `next(…, None)`.", StopIteration)
    rt.check(found, None)


def _sharing(function: Callable[..., Any], others: Sequence[Any]) -> Callable[..., Any]:
    """A function that shares the variables of others too; its own have names that no variable has."""
    if not others:
        return function
    own = {f"ingot {name}": cell for name, cell in Cells(function).all.items()}
    return Sharing(function, own | Cells(*others).all)


def _nothing() -> None:
    return None
