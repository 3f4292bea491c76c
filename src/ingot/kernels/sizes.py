"""Sizes that note what is done to them (`notes.py`), and values that consist of such.

A Size is no `int`, so that nothing looks at its value unnoticed: what asks for an integer (an index, a
range, NumPy) gets it, and it is noted that the size must be this one. It cannot be hashed: functions that
remember their answers say how they are done again (`made_again.py`).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np

from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import View
from ingot.kernels.expression import Expression

if TYPE_CHECKING:
    from ingot.kernels.notes import Notes


T = TypeVar("T")
#: A product of atoms, by number, and a sum of such products with their factors, in order.
Monomial: TypeAlias = tuple[int, ...]
Terms: TypeAlias = tuple[tuple[Monomial, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """One of the arrays that a call gave, which are others for other sizes."""

    call: int
    number: int
    array: np.ndarray


class Size:
    """A number that follows from the sizes that a plan is for: Σ factor · product of atoms."""

    __slots__ = ("notes", "terms", "value")

    def __init__(self, notes: Notes, terms: Terms, value: int) -> None:
        self.notes, self.terms, self.value = notes, terms, value

    # ---- arithmetic: stays a Size ------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) + other
        terms = terms_of(other)
        return NotImplemented if terms is None else self.notes.sum(self.terms, terms)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) - other
        terms = terms_of(other)
        return NotImplemented if terms is None else self.notes.sum(self.terms, times(terms, -1))

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __neg__(self) -> Size | int:
        return self.notes.sum(times(self.terms, -1), ())

    def __pos__(self) -> Size:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) * other
        terms = terms_of(other)
        return NotImplemented if terms is None else self.notes.product(self.terms, terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        if isinstance(other, float):
            return int(self) // other
        return NotImplemented if terms_of(other) is None else self.notes.quotient(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return NotImplemented if terms_of(other) is None else self.notes.quotient(other, self)

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


def terms_of(number: Any) -> Terms | None:
    """A number as a sum; None for what is no integer."""
    if type(number) is Size:
        return number.terms
    if not isinstance(number, (int, np.integer)):
        return None
    value = int(cast("Any", number))
    return (((), value),) if value else ()


def _compared(other: Any) -> Any:
    """What a size may be compared with; arrays would compare element by element."""
    if isinstance(other, float) or terms_of(other) is not None:
        return other
    raise TypeError(f"a size cannot be compared with {type(other).__name__}")


def times(terms: Terms, factor: int) -> Terms:
    """A sum, each term of it times a number."""
    return tuple([(monomial, factor * number) for monomial, number in terms])


def numbers_in(array: np.ndarray) -> tuple[int, ...]:
    """The elements of an array of integers."""
    return tuple(array.ravel().tolist())


class Answer(NamedTuple):
    """What a call gave, and nobody looks at while sizes are noted."""

    call: int


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


def plain(value: Any) -> Any:
    """The value with numbers and arrays in the place of what is noted."""
    if type(value) is Size:
        return value.value
    if type(value) is Made:
        return value.array
    return rebuilt(value, list(map(plain, parts_of(value)))) if has_sizes(value) else value


def key_of(value: Any) -> Hashable:
    """What is equal for values that are made in the same way from the sizes."""
    if type(value) is Size:
        return Size, value.terms
    if type(value) is Made:
        return Made, value.call, value.number
    if isinstance(value, np.ndarray):
        return np.ndarray, id(cast("Any", value))  # the call that is noted keeps it
    kind = cast("type[Any]", type(value))
    return (kind, *map(key_of, parts_of(value))) if has_sizes(value) else value
