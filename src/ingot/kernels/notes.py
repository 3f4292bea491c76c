"""What was done to the sizes of a plan.

A plan follows from its sizes. One made with `Size`s instead of integers leaves `Notes`: each number of it as
a polynomial of the sizes given, and the conditions that were asked on the way. For other sizes for which all
of these have the same answers, everything that was done would be done again, so the plan is the same but for
its numbers (`compiler/recipe.py`).
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Generator, Hashable, Sequence
from copy import copy
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias, TypeVar, cast

import numpy as np

from ingot.kernels.call import Buffer, Form, View
from ingot.kernels.sizes import (
    Answer,
    Made,
    Monomial,
    Size,
    Terms,
    has_sizes,
    key_of,
    plain,
    rebuilt,
    terms_of,
)

T = TypeVar("T")


class Given(NamedTuple):
    """An atom: one of the sizes that the plan is for."""

    number: int


class Quotient(NamedTuple):
    """An atom: one size divided by another, rounded down."""

    a: Size | int
    b: Size | int


class Found(NamedTuple):
    """An atom: a number in what a call gave. path: attributes, and places in tuples."""

    call: int
    path: tuple[int | str, ...]


class Condition(NamedTuple):
    """Whether a size is negative, or zero."""

    kind: Literal["negative", "zero"]
    size: Size
    holds: bool


class Same(NamedTuple):
    """What a call gave, or a part of it, must equal this; or its type, or its length."""

    call: int
    path: tuple[int | str, ...]
    value: Any
    what: Literal["value", "type", "length"] = "value"


class Done(NamedTuple):
    """A function that was called with sizes."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


class Notes:
    """What was done to the sizes of a plan. values: of the sizes given."""

    def __init__(self, values: Sequence[int], may_pin: bool = True) -> None:
        self._may_pin = may_pin
        self.atoms: list[Given | Quotient | Found] = []
        self.calls: list[Done] = []
        #: what must hold, each with the number of calls that came before it
        self.conditions: list[tuple[int, Condition | Same]] = []
        #: views that calls gave, by id
        self.views: dict[int, tuple[View, Found]] = {}
        #: and memory, by id
        self.buffers: dict[int, tuple[Buffer, Found]] = {}
        self._values: list[int] = []
        self._never_negative: list[bool] = []
        self._sizes: dict[Terms, Size] = {}
        self._asked: dict[tuple[str, Terms], bool] = {}
        self._quotients: dict[tuple[Terms, Terms], Any] = {}
        self._results: dict[Hashable, Any] = {}
        self.is_closed = False
        self.given = [self._atom(Given(number), value, True) for number, value in enumerate(values)]

    def _atom(self, atom: Given | Quotient | Found, value: int, never_negative: bool) -> Size:
        self.atoms.append(atom)
        self._values.append(value)
        self._never_negative.append(never_negative)
        found = self._size({(len(self.atoms) - 1,): 1})
        assert isinstance(found, Size)
        return found

    def _size(self, terms: dict[Monomial, int]) -> Size | int:
        if self.is_closed:
            raise TypeError("a size is used after the plan that it belongs to")
        ordered = tuple(sorted([item for item in terms.items() if item[1]]))
        if not ordered:
            return 0
        if ordered[-1][0] == ():
            return ordered[0][1]
        size = self._sizes.get(ordered)
        if size is None:
            value = sum(n * math.prod([self._values[a] for a in product]) for product, n in ordered)
            size = self._sizes[ordered] = Size(self, ordered, value)
        return size

    def sum(self, a: Terms, b: Terms) -> Size | int:
        """a + b."""
        terms = dict(a)
        for monomial, factor in b:
            terms[monomial] = terms.get(monomial, 0) + factor
        return self._size(terms)

    def product(self, a: Terms, b: Terms) -> Size | int:
        """a · b."""
        terms: dict[Monomial, int] = {}
        for left, m in a:
            for right, n in b:
                both = tuple(sorted(left + right))
                terms[both] = terms.get(both, 0) + m * n
        return self._size(terms)

    def quotient(self, a: Size | int, b: Size | int) -> Size | int:
        """a // b: what b divides for all sizes, and an atom for what is left."""
        divisor, dividend = terms_of(b), terms_of(a)
        assert divisor is not None
        assert dividend is not None
        if isinstance(b, Size) and b == 0:
            raise ZeroDivisionError("a size that is zero divides")
        if not divisor:
            raise ZeroDivisionError("zero divides a size")
        key = dividend, divisor
        found = self._quotients.get(key)
        if found is None:
            whole, rest = dict[Monomial, int](), dict[Monomial, int]()
            for monomial, factor in dividend:
                part = _divided(monomial, factor, divisor)
                if part is None:
                    rest[monomial] = factor
                else:
                    whole[part[0]] = part[1]
            found = self._quotients[key] = self._size(whole) + self._rounded(self._size(rest), b)
        return found

    def _rounded(self, a: Size | int, b: Size | int) -> Size | int:
        """The same where b divides no part of a."""
        if type(a) is int and (type(b) is int or a == 0):
            return a // b if type(b) is int else 0
        never_negative = not (self._may_be_negative(a) or self._may_be_negative(b))
        return self._atom(Quotient(a, b), plain(a) // plain(b), never_negative)

    def _may_be_negative(self, size: Size | int) -> bool:
        return any(
            factor < 0 or not all(self._never_negative[atom] for atom in monomial)
            for monomial, factor in terms_of(size) or ()
        )

    def is_negative(self, size: Size | int | float) -> bool:
        """Whether it is below zero; a condition."""
        if not isinstance(size, Size):
            return size < 0
        if not self._may_be_negative(size):
            return False
        return self._condition("negative", size, size.value < 0)

    def is_zero(self, size: Size | int | float) -> bool:
        """Whether it is zero; a condition."""
        if not isinstance(size, Size):
            return size == 0
        turned = -size if size.terms[-1][1] < 0 else size
        assert isinstance(turned, Size)
        return self._condition("zero", turned, size.value == 0)

    def _condition(self, kind: Literal["negative", "zero"], size: Size, holds: bool) -> bool:
        key = kind, size.terms
        if key not in self._asked:
            self._asked[key] = holds
            self._note(Condition(kind, size, holds))
        return holds

    def _note(self, condition: Condition | Same) -> None:
        self.conditions.append((len(self.calls), condition))
        if not self._may_pin and self._pins(condition):
            raise TypeError("a size that should be free must be what it is")

    @property
    def pins(self) -> bool:
        """Whether one of the sizes given must be what it is."""
        return any(self._pins(condition) for _, condition in self.conditions)

    def _pins(self, condition: Condition | Same) -> bool:
        if not isinstance(condition, Condition) or condition.kind != "zero" or not condition.holds:
            return False
        moving = [monomial for monomial, _ in condition.size.terms if monomial]
        return len(moving) == len(moving[0]) == 1 and isinstance(self.atoms[moving[0][0]], Given)

    def call(self, function: Callable[..., T], args: tuple[Any, ...], again: Again) -> T:
        """function(*args), to be called again: see `remembered`."""
        key = function, key_of(args)
        if key not in self._results:
            result = function(*plain(args))
            self.calls.append(Done(function, args))
            number = len(self.calls) - 1
            if again == "answer":
                self._results[key] = Answer(number)
            elif again == "decision":
                self._note(Same(number, (), result))
                self._results[key] = result
            else:
                places = "length" if again == "roles" else "value"
                self._results[key] = self._noted(number, (), result, places)
        return self._results[key]

    def arrays(self, function: Callable[..., list[np.ndarray]], args: tuple[Any, ...]) -> list[Made]:
        """function(*args), to be called again; nobody may look at the arrays."""
        key = function, key_of(args)
        if key not in self._results:
            arrays = function(*plain(args))
            self.calls.append(Done(function, args))
            number = len(self.calls) - 1
            self._results[key] = [Made(number, place, array) for place, array in enumerate(arrays)]
        return self._results[key]

    def memory(self, made: Made, shape: Sequence[Size | int]) -> Buffer:
        """Where such an array lies, dense in the order of the dimensions."""
        key = _memory_of, key_of(made)
        if key not in self._results:
            self.calls.append(Done(_memory_of, (made,)))
            size: Any = math.prod(cast("Sequence[int]", shape)) * made.array.itemsize
            buffer = self._results[key] = Buffer(size, "constant")
            self.buffers[id(buffer)] = buffer, Found(len(self.calls) - 1, ())
        return self._results[key]

    def _noted(
        self,
        call: int,
        path: tuple[int | str, ...],
        result: Any,
        places: Literal["value", "length"] = "value",
    ) -> Any:
        """The result of a call, or a part of it, with its numbers as sizes. places: what of a form's must be
        the same.
        """
        kind = cast("type[Any]", type(result))
        if len(path) < 2 and kind in (int, tuple, list, View, Form):
            self._note(Same(call, path, kind, "type"))
        if kind is int:
            return self._atom(Found(call, path), result, False)
        if kind is tuple or kind is list:
            parts = cast("Sequence[Any]", result)
            self._note(Same(call, path, len(parts), "length"))
            noted = [self._noted(call, (*path, n), part, places) for n, part in enumerate(parts)]
            return rebuilt(result, noted)
        if kind is View:
            if result.buffer.kind != "constant":
                raise TypeError("a function that is called again gives memory")
            view = copy(result)
            for name in ("offset", "shape", "strides"):
                setattr(view, name, self._noted(call, (*path, name), getattr(result, name)))
            self.views[id(view)] = view, Found(call, path)
            return view
        if kind is Form:
            form = copy(result)
            value = form.places if places == "value" else len(form.places)
            self._note(Same(call, (*path, "places"), value, places))
            for name in ("tiles", "scratch", "flops"):  # integers in every form
                setattr(form, name, self._atom(Found(call, (*path, name)), getattr(result, name), False))
            self._note(Same(call, (*path, "constants"), len(result.constants), "length"))
            form.constants = tuple(
                [
                    self._table(view, Found(call, (*path, "constants", n)))
                    for n, view in enumerate(result.constants)
                ]
            )
            form.again = Found(call, path)
            return form
        self._note(Same(call, path, result))
        return result

    def _table(self, table: View, found: Found) -> View:
        """A table that a form reads, of which only that is known."""
        view = View(table.buffer, 0, table.dtype, _UNTOLD, _UNTOLD)
        self.views[id(view)] = view, found
        return view


class _Untold(tuple[int, ...]):
    """A shape that nobody may ask for."""

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a table's shape is asked for that may be another one for other sizes")

    __eq__ = __ne__ = __iter__ = __len__ = __getitem__ = __hash__ = _refuse  # type: ignore[assignment]


_UNTOLD = _Untold()


def _memory_of(array: np.ndarray) -> Buffer:
    """Memory that holds an array, dense in the order of the dimensions."""
    array = np.ascontiguousarray(array)
    return Buffer(array.nbytes, "constant", array)


def _divided(monomial: Monomial, factor: int, divisor: Terms) -> tuple[Monomial, int] | None:
    """A product divided by a single other one, where nothing is left for any sizes."""
    if len(divisor) != 1 or factor % divisor[0][1]:
        return None
    left = list(monomial)
    for atom in divisor[0][0]:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left), factor // divisor[0][1]


class _Noting(threading.local):
    """The notes of the plan that this thread is making."""

    notes: Notes | None = None


NOTING = _Noting()


@contextlib.contextmanager
def noted(values: Sequence[int], may_pin: bool = True) -> Generator[Notes, None, None]:
    """While a plan is made: notes of sizes, which have these values (`Notes.given`).

    may_pin: False makes it a TypeError when one of them must be what it is.
    """
    before, notes = NOTING.notes, Notes(values, may_pin)
    NOTING.notes = notes
    try:
        yield notes
    finally:
        NOTING.notes = before
        notes.is_closed = True


def noting() -> Notes | None:
    """The notes of the plan that this thread is making, where sizes are noted."""
    return NOTING.notes


def is_noting() -> bool:
    """Whether this thread makes a plan of sizes that are noted."""
    return noting() is not None


def has_noted(value: Any) -> bool:
    """Whether sizes are noted, and one of them is in it."""
    return NOTING.notes is not None and has_sizes(value)


Again: TypeAlias = Literal["numbers", "roles", "decision", "answer", "sizes"]
