"""`==`, `in` and `is` of values of which the run alone knows parts: containers and dataclasses are compared
part by part, and a tensor that a branch has chosen is the one that its condition says.
"""

# Values are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture import checks, memos
from ingot.capture.choice import Choice, Maybe, Unordered
from ingot.capture.dicts import TracedDict, is_grown
from ingot.capture.lists import TracedList
from ingot.capture.objects import is_a, is_of_attributes
from ingot.capture.open_dicts import OpenDict
from ingot.capture.request import ACTIVE, cannot_say, cannot_wait, recorder
from ingot.capture.runs import LEAF, Even, Many, Perhaps
from ingot.capture.scalars import DTYPE, Symbolic, is_data, kind_of, of_truth
from ingot.capture.sets import TracedSet
from ingot.capture.structure import undecided
from ingot.capture.words import Word, called

if TYPE_CHECKING:
    from ingot.capture.stage import Runtime

_KEPT = range(-5, 257)  # integers of which Python has one object each
_CONTAINERS = (list, tuple, set, frozenset, dict, range, type({}.keys()), type({}.values()), type({}.items()))

_DECIDED = frozenset((str, bytes, bool, int, float, type(None)))  # most of what is looked through
_OF_KEYS = {dict.__eq__, TracedDict.__eq__}
_OF_ELEMENTS = {list.__eq__, TracedList.__eq__, tuple.__eq__}


# -- equality


def equal(rt: Runtime, a: Any, b: Any) -> Any:
    """`a == b`."""
    if is_a(a, Choice) or is_a(b, Choice):
        return _of_either(rt, equal, a, b)
    if is_a(a, Word) or is_a(b, Word):
        return called(rt.equal, (a, b), {})
    if is_a(a, Maybe) or is_a(b, Maybe):
        return _of_present(rt, equal, a, b)
    if _is_itself_alone(a) and _is_itself_alone(b):
        return same(rt, a, b)
    pair = _parts_of_both(a, b)
    if pair is None or not (undecided(a) or undecided(b)):
        return a == b
    return _all_equal(rt, *pair)


def unequal(rt: Runtime, a: Any, b: Any) -> Any:
    """`a != b`."""
    staged = any(is_a(v, (Word, Choice, Maybe)) for v in (a, b)) or _parts_of_both(a, b) is not None
    staged = staged or (_is_itself_alone(a) and _is_itself_alone(b))
    return rt.opposite(rt.equal(a, b)) if staged else a != b


def _is_itself_alone(x: Any) -> bool:
    """Whether an object of the model's own class is equal to no other."""
    kind = type(x)
    return is_of_attributes(kind) and kind.__eq__ is object.__eq__ and kind.__ne__ is object.__ne__


def _parts_of_both(a: Any, b: Any) -> tuple[Sequence[Any], Sequence[Any]] | None:
    """What must be equal in two containers or dataclasses; None where a class of the model's own, or Python,
    says what is.
    """
    for kind in (list, tuple):
        if is_a(a, kind) and is_a(b, kind) and {_eq(a), _eq(b)} <= _OF_ELEMENTS:
            return _elements(a), _elements(b)
    if is_a(a, dict) and is_a(b, dict) and {_eq(a), _eq(b)} <= _OF_KEYS:
        if is_grown(a) or is_grown(b):
            cannot_wait("compares a dict of which data decides the keys")
        keys = dict.keys(a)
        return ([a[k] for k in keys], [b[k] for k in keys]) if keys == dict.keys(b) else ([None], [])
    if type(a) is type(b) and _compares_fields(type(a)):
        found: Any = a
        names = [f.name for f in dataclasses.fields(found) if f.compare]
        return [getattr(a, n) for n in names], [getattr(b, n) for n in names]
    return None


def _eq(x: Any) -> Any:
    return type(x).__eq__


def _elements(x: Any) -> list[Any]:
    if is_a(x, (Unordered, TracedDict)):
        return list(dict.keys(x))
    return list(list.__iter__(x)) if is_a(x, list) else list(x)


def _compares_fields(cls: Any) -> bool:
    """Whether `==` of a class is what a dataclass makes it."""
    if not (dataclasses.is_dataclass(cls) and cls.__dataclass_params__.eq):  # type: ignore[attr-defined]
        return False
    code = getattr(cls.__eq__, "__code__", None)
    return code is not None and code.co_filename.startswith("<")


def _all_equal(rt: Runtime, a: Sequence[Any], b: Sequence[Any]) -> Any:
    if len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True)):
        return True
    lists = TracedList(a), TracedList(b)
    if not all(v.known for v in lists):
        return _runs_equal(rt, *lists)
    if len(a) != len(b):
        return False
    whole: Any = True
    for x, y in zip(a, b, strict=True):
        whole = rt.both(whole, lambda x=x, y=y: matches(rt, x, y))
    return whole


def _runs_equal(rt: Runtime, a: TracedList, b: TracedList) -> Any:
    """Two lists of numbers, of which data decides the length."""
    if not list.__len__(a) or not list.__len__(b):
        return rt.truth(rt.equal(a.count(), b.count()))
    runs = a.run(), b.run()
    columns = [c for r in runs for c in r.columns]
    if any(r.like is not LEAF for r in runs) or not all(
        is_a(c, Even) and c.kind is not torch.Tensor for c in columns
    ):
        cannot_wait("compares lists of tensors or containers, of which data decides the length")
    first, second = (c.tensors()[0] for c in columns)

    def alike() -> Any:
        for rows in (first, second):
            checks.require_no_nan(recorder(), rows, "no NaN in a list that is compared")
        return rt.truth(first.eq(second).all())

    return rt.both(rt.truth(rt.equal(runs[0].count, runs[1].count)), alike)


def matches(rt: Runtime, x: Any, y: Any) -> Any:
    """Whether two elements are one to a container: the same object, or equal ones."""
    if x is y or (_is_number(x) and _is_number(y)):
        return x is y or rt.truth(rt.equal(x, y))
    return rt.either(same(rt, x, y), lambda: rt.truth(rt.equal(x, y)))


def _is_number(x: Any) -> bool:
    """Whether what a value is equal to says all, the sign of 0 and NaN aside."""
    return type(x) in DTYPE or is_a(x, Symbolic)


def _of_either(rt: Runtime, compared: Callable[..., Any], a: Any, b: Any) -> Any:
    """What a comparison gives of the one or the other function that a condition chooses."""
    choice, swapped = (a, False) if is_a(a, Choice) else (b, True)
    rest = a if swapped else b

    def of(function: Any) -> Callable[[], Any]:
        return lambda: compared(rt, rest, function) if swapped else compared(rt, function, rest)

    then, other = map(of, choice.ingot_sides)
    return rt.choose(choice.ingot_condition, then, other)


def _of_present(rt: Runtime, compared: Callable[..., Any], a: Any, b: Any) -> Any:
    """A comparison with what may be None."""
    maybe, rest, swapped = (a, b, False) if is_a(a, Maybe) else (b, a, True)

    def of(value: Any) -> Any:
        return compared(rt, rest, value) if swapped else compared(rt, value, rest)

    value = maybe.ingot_value
    return rt.choose(maybe.ingot_is_none, lambda: of(None), lambda: of(value))


# -- in


def contains(rt: Runtime, container: Any, value: Any) -> Any:
    """`value in container`."""
    if is_a(container, Word) or is_a(value, Word):
        return called(rt.contains, (container, value), {})
    if is_a(container, torch.Tensor) and is_data(recorder(), container):
        return rt.truth((container == value).any())
    if memos.takes(container, value):
        return memos.look(container, value)[0]
    if is_a(container, (TracedSet, OpenDict)):
        return container.has(value)
    if not is_a(container, _CONTAINERS):
        return value in container
    if is_a(container, TracedDict) and not container.known:
        if undecided(value):
            cannot_wait(
                "looks for a key that data or a size decides in a dict of which data decides the keys"
            )
        return container.has(value)
    if is_a(container, range) and not is_a(value, Maybe):
        return _in_range(rt, container, value)
    listed = _elements(container)
    grown = is_a(container, TracedList) and not container.known
    waits = any(type(v) not in _DECIDED and undecided(v) for v in listed)
    if not grown and not waits and not undecided(value):
        known: Any = container
        return value in known
    whole: Any = False
    for v in listed:
        whole = rt.either(whole, lambda v=v: _is_one_of(rt, v, value))
    return whole


def _in_range(rt: Runtime, numbers: range, value: Any) -> Any:
    """The same of numbers that are too many to be compared one by one."""
    if not undecided(value) or not numbers:
        return value in numbers
    if is_a(value, torch.SymBool):
        value = of_truth(recorder(), value)
    least, most = sorted((numbers[0], numbers[-1]))
    inside = rt.both(rt.truth(value >= least), lambda: rt.truth(value <= most))
    return rt.both(inside, lambda: rt.truth(rt.equal((value - least) % abs(numbers.step), 0)))


def _is_one_of(rt: Runtime, part: Any, value: Any) -> Any:
    """Whether a value is an element of a list, or one of a run of them."""
    if is_a(part, Perhaps):
        return rt.both(part.there, lambda: matches(rt, value, part.value))
    if not is_a(part, Many):
        return matches(rt, value, part)
    run: Any = part.columns
    if not all(is_a(c, Even) and c.kind is not torch.Tensor for c in run):
        cannot_wait(
            "looks for something in a list of tensors or containers, of which data decides the length"
        )
    if part.like is LEAF:
        is_number = isinstance(value, (int, float, torch.Tensor, *Symbolic))
        return rt.truth(run[0].rows.eq(value).any()) if is_number else False
    if not is_a(part.like, tuple) or any(v is not LEAF for v in part.like):
        cannot_wait("looks for something in a list of containers, of which data decides the length")
    if not is_a(value, tuple) or not all(map(_is_number, value)) or len(value) != len(run):
        return False
    there = [c.rows.eq(v) for c, v in zip(run, value, strict=True)]
    return rt.truth(functools.reduce(operator.and_, there).any())


# -- is


def same(rt: Runtime, a: Any, b: Any) -> Any:
    """`a is b`."""
    if is_a(a, Word) or is_a(b, Word):
        return called(rt.same, (a, b), {})
    if is_a(a, Choice) or is_a(b, Choice):
        return _of_either(rt, same, a, b)
    if a is b:
        return True
    if is_a(a, Maybe) and b is None:
        return a.ingot_is_none
    if is_a(b, Maybe) and a is None:
        return b.ingot_is_none
    if is_a(a, Maybe) or is_a(b, Maybe):
        return _of_present(rt, same, a, b)
    if ACTIVE.recorder is None:
        return False  # a script that runs by itself
    if is_a(a, torch.Tensor) and is_a(b, torch.Tensor):
        return a.dtype == b.dtype and a.dim() == b.dim() and _one_of_two(rt, a, b, "tensor")
    if any(map(recorder().copies.has, (a, b))) and type(a) is type(b):
        cannot_say(f"asks whether two {type(a).__name__}s are one, of a list as long as data says")
    if type(a) is type(b) and is_of_attributes(type(a)):
        return _one_of_two(rt, a, b, type(a).__name__)
    if is_a(a, torch.SymBool) or is_a(b, torch.SymBool):  # of which Python has two
        return rt.truth(rt.equal(a, b)) if kind_of(a) is kind_of(b) is bool else False
    return _same_number(rt, a, b)


def _same_number(rt: Runtime, a: Any, b: Any) -> Any:
    if is_a(a, Symbolic) and isinstance(b, (int, float, *Symbolic)):
        a, b = b, a
    if is_a(b, Symbolic) and isinstance(a, (int, float, *Symbolic)):
        if is_a(b, torch.SymInt) and type(a) is int:  # Python has one object for each of a few numbers
            return rt.truth(rt.equal(b, a)) if a in _KEPT else False
        if is_a(a, torch.SymInt) and is_a(b, torch.SymInt):
            kept = rt.both(a >= _KEPT.start, lambda: a < _KEPT.stop)
            return rt.both(kept, lambda: rt.truth(rt.equal(a, b)))
        cannot_wait("asks whether two numbers are one object")
    return a is b


def stands_for(made: Any, condition: Any = None, *sides: Any) -> Any:
    """Note an object that was made in the place of one of two, as a condition says; without, of nobody knows
    which. Of what else holds others nobody asks which it is.
    """
    if is_of_attributes(type(made)):
        recorder().chosen[id(made)] = made, condition, (sides[0], sides[1]) if sides else (None, None)
        ACTIVE.marks.take_those_that_ask()
    return made


def _one_of_two(rt: Runtime, a: Any, b: Any, what: str) -> Any:
    """Of what are two objects here: they may be one in the run, where a branch has chosen one."""
    g = recorder()
    for x, y in ((a, b), (b, a)):
        found = g.chosen.get(id(x))
        if found is None:
            continue
        _, condition, sides = found
        if condition is None or not g.sizes.in_scope(condition):
            cannot_say(f"asks whether two {what}s are one object, of which data decides which they are")
        then, other = (functools.partial(same, rt, side, y) for side in sides)
        return rt.choose(condition, then, other)
    return False
