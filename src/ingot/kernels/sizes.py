"""Sizes that note what is done to them.

A plan follows from its sizes. One made with `Size`s instead of integers leaves `Notes`: each number of it as
a polynomial of the sizes given, and the conditions that were asked on the way. For other sizes for which all
of these have the same answers, everything that was done would be done again, so the plan is the same but for
its numbers (`compiler/recipe.py`).

A Size is no `int`, so that nothing looks at its value unnoticed: what asks for an integer (an index, a
range, NumPy) gets it, and it is noted that the size must be this one. It cannot be hashed: functions that
remember their answers say how they are done again (`remembered`).
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import threading
from collections.abc import Callable, Generator, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, NamedTuple, NoReturn, ParamSpec, TypeAlias, TypeVar, cast

import numpy as np

from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Buffer, Call, Form, Series, View
from ingot.kernels.expression import Expression

T = TypeVar("T")
C = TypeVar("C", bound=Call | Series)
P = ParamSpec("P")

#: A product of atoms, by number, and a sum of such products with their factors, in order.
Monomial: TypeAlias = tuple[int, ...]
Terms: TypeAlias = tuple[tuple[Monomial, int], ...]


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


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """One of the arrays that a call gave, which are others for other sizes."""

    call: int
    number: int
    array: np.ndarray


class Done(NamedTuple):
    """A function that was called with sizes."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


class Size:
    """A number that follows from the sizes that a plan is for: Σ factor · product of atoms."""

    __slots__ = ("notes", "terms", "value")

    def __init__(self, notes: Notes, terms: Terms, value: int) -> None:
        self.notes, self.terms, self.value = notes, terms, value

    # ---- arithmetic: stays a Size ------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) + other
        terms = _terms(other)
        return NotImplemented if terms is None else self.notes.sum(self.terms, terms)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) - other
        terms = _terms(other)
        return NotImplemented if terms is None else self.notes.sum(self.terms, _times(terms, -1))

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __neg__(self) -> Size | int:
        return self.notes.sum(_times(self.terms, -1), ())

    def __pos__(self) -> Size:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) * other
        terms = _terms(other)
        return NotImplemented if terms is None else self.notes.product(self.terms, terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) // other
        return NotImplemented if _terms(other) is None else self.notes.quotient(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return NotImplemented if _terms(other) is None else self.notes.quotient(other, self)

    def __mod__(self, other: Any) -> Any:
        return self - other * (self // other)

    def __rmod__(self, other: Any) -> Any:
        return other - self * (other // self)

    def __divmod__(self, other: Any) -> Any:
        quotient = self // other
        return quotient, self - other * quotient

    def __rdivmod__(self, other: Any) -> Any:
        quotient = other // self
        return quotient, other - self * quotient

    # ---- questions: conditions ---------------------------------------------------------------------------

    def __lt__(self, other: Any) -> Any:
        return self.notes.is_negative(self - _compared(other))

    def __gt__(self, other: Any) -> Any:
        return self.notes.is_negative(_compared(other) - self)

    def __le__(self, other: Any) -> Any:
        return not self.notes.is_negative(_compared(other) - self)

    def __ge__(self, other: Any) -> Any:
        return not self.notes.is_negative(self - _compared(other))

    def __eq__(self, other: object) -> bool:
        if other is None or isinstance(other, (str, tuple, list)):
            return False
        return self.notes.is_zero(self - _compared(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return self != 0

    # ---- what needs the number itself: it must be this one -------------------------------------------------

    def __index__(self) -> int:
        self.notes.is_zero(self - self.value)
        return self.value

    __int__ = __index__

    def __float__(self) -> float:
        return float(int(self))

    def __str__(self) -> str:
        return str(int(self))

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(int(self), spec)

    #: NumPy's own numbers leave what is between them and a Size to the Size.
    __array_ufunc__ = None


def _by_value(name: str) -> None:
    """What is rarely done to sizes is done to the number itself."""
    function = cast("Callable[[Any, Any], Any]", getattr(operator, name))

    def left(a: Size, b: Any) -> Any:
        return function(int(a), b)

    def right(a: Size, b: Any) -> Any:
        return function(b, int(a))

    setattr(Size, f"__{name.strip('_')}__", left)
    setattr(Size, f"__r{name.strip('_')}__", right)


for _name in ("truediv", "pow", "and_", "or_", "xor", "lshift", "rshift"):
    _by_value(_name)


def _terms(number: Any) -> Terms | None:
    """A number as a sum; None for what is no integer."""
    if type(number) is Size:
        return number.terms
    if not isinstance(number, (int, np.integer)):
        return None
    value = int(cast("Any", number))
    return (((), value),) if value else ()


def _compared(other: Any) -> Any:
    """What a size may be compared with; arrays would compare element by element."""
    if isinstance(other, float) or _terms(other) is not None:
        return other
    raise TypeError(f"a size cannot be compared with {type(other).__name__}")


def _times(terms: Terms, factor: int) -> Terms:
    return tuple([(monomial, factor * number) for monomial, number in terms])


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
        divisor, dividend = _terms(b), _terms(a)
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
        return self._atom(Quotient(a, b), _plain(a) // _plain(b), never_negative)

    def _may_be_negative(self, size: Size | int) -> bool:
        return any(
            factor < 0 or not all(self._never_negative[atom] for atom in monomial)
            for monomial, factor in _terms(size) or ()
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
        key = function, _key(args)
        if key not in self._results:
            result = function(*_plain(args))
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
        key = function, _key(args)
        if key not in self._results:
            arrays = function(*_plain(args))
            self.calls.append(Done(function, args))
            number = len(self.calls) - 1
            self._results[key] = [Made(number, place, array) for place, array in enumerate(arrays)]
        return self._results[key]

    def memory(self, made: Made, shape: Sequence[Size | int]) -> Buffer:
        """Where such an array lies, dense in the order of the dimensions."""
        key = _memory_of, _key(made)
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


def numbers_in(array: np.ndarray) -> tuple[int, ...]:
    """The elements of an array of integers."""
    return tuple(array.ravel().tolist())


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


_noting = _Noting()


@contextlib.contextmanager
def noted(values: Sequence[int], may_pin: bool = True) -> Generator[Notes, None, None]:
    """While a plan is made: notes of sizes, which have these values (`Notes.given`).

    may_pin: False makes it a TypeError when one of them must be what it is.
    """
    before, notes = _noting.notes, Notes(values, may_pin)
    _noting.notes = notes
    try:
        yield notes
    finally:
        _noting.notes = before
        notes.is_closed = True


def noting() -> Notes | None:
    """The notes of the plan that this thread is making, where sizes are noted."""
    return _noting.notes


def is_noting() -> bool:
    """Whether this thread makes a plan of sizes that are noted."""
    return noting() is not None


def has_noted(value: Any) -> bool:
    """Whether sizes are noted, and one of them is in it."""
    return _noting.notes is not None and has_sizes(value)


Again: TypeAlias = Literal["numbers", "roles", "decision", "answer", "sizes"]


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
            notes = _noting.notes
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


class Answer(NamedTuple):
    """What a call gave, and nobody looks at while sizes are noted."""

    call: int


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
        if _noting.notes is None or kwargs or not has_sizes(args):
            return function(*args, **kwargs)
        form = Form(_NO_KERNEL, [], (), 0, again=function)
        return [cast("C", Remade(_NO_KERNEL, [], 0, [], [], form=form, function=function, given=args))]

    return make


def parts_of(value: Any) -> Sequence[Any]:
    """What a value consists of, where that may be sizes."""
    names = _fields_of(cast("type[Any]", type(value)))
    return value if names is None else [getattr(value, name) for name in names]


@functools.cache
def _fields_of(kind: type[Any]) -> tuple[str, ...] | None:
    """The fields of a dataclass that it is made of; None for a tuple or a list, which are their parts."""
    if issubclass(kind, (tuple, list)):
        return None
    is_made_of = is_dataclass(kind) and not issubclass(kind, _NEVER_OF_SIZES)
    return tuple([each.name for each in fields(kind) if each.init]) if is_made_of else ()


#: Of these there is one for all sizes.
_NEVER_OF_SIZES = (Kernel, Machine, Expression)


def has_sizes(value: Any) -> bool:
    """Whether a Size is somewhere in it, or memory that every plan has anew."""
    kind = cast("type[Any]", type(value))
    if kind is Size or kind is Answer or kind is Made:
        return True
    if kind is View and (value.buffer.kind != "constant" or value.buffer.array is None):
        return True
    names = _fields_of(kind)
    if names is None:
        return any(map(has_sizes, value))
    for name in names:  # noqa: SIM110  (a third of the time that noting a plan took was spent here)
        if has_sizes(getattr(value, name)):
            return True
    return False


def rebuilt(value: Any, parts: Sequence[Any]) -> Any:
    """A tuple, list or dataclass of other parts."""
    made: Any = tuple(parts)
    if type(value) is not tuple:
        kind = cast("Callable[..., Any]", type(value))
        made = kind(parts) if kind is list else kind(*parts)
    return made


def _plain(value: Any) -> Any:
    if type(value) is Size:
        return value.value
    if type(value) is Made:
        return value.array
    return rebuilt(value, list(map(_plain, parts_of(value)))) if has_sizes(value) else value


def _key(value: Any) -> Hashable:
    if type(value) is Size:
        return Size, value.terms
    if type(value) is Made:
        return Made, value.call, value.number
    if isinstance(value, np.ndarray):
        return np.ndarray, id(cast("Any", value))  # the call that is noted keeps it
    kind = cast("type[Any]", type(value))
    return (kind, *map(_key, parts_of(value))) if has_sizes(value) else value
