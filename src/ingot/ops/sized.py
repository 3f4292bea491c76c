"""Known values that follow from sizes which are noted (`kernels/sizes.py`).

While sizes are noted, a known value is one of three: an array that is the same for all sizes; integers that
follow from sizes (`Facts.value` is then an array of objects, some of them `Size`s); or an array that is
computed anew for each set of sizes, which nobody may look at (`MadeFacts`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import View, constant, row_major
from ingot.kernels.notes import Notes, noting
from ingot.kernels.sizes import Made, Size, has_sizes, numbers_in
from ingot.ops.numeric import INT64
from ingot.ops.registry import Array, DType, Facts, Op, evaluated, facts_of

#: So many integers are followed one by one; of more only where they lie is known.
MOST_NUMBERS = 64


class MadeFacts(Facts):
    """Facts of an array that is computed anew for each set of sizes."""

    __slots__ = ("made",)
    made: Made

    def __init__(self, dtype: DType, shape: tuple[int, ...], made: Made) -> None:
        self.dtype, self.shape, self.made = dtype, shape, made

    @property
    def value(self) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride]  (read like the field)
        """Not to be looked at."""
        raise TypeError("an array is looked at that may be another one for other sizes")

    @property
    def is_known(self) -> bool:
        """Always."""
        return True


class Integers(NamedTuple):
    """Integers that follow from sizes, in the order of an array of this shape."""

    numbers: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: DType


def integers(numbers: Sequence[int]) -> Facts:
    """What is known of a vector of these (int64)."""
    if noting() is None:
        return facts_of(np.array(numbers, INT64))
    return _facts(_objects(numbers, (len(numbers),)), INT64)


def integer(number: int) -> Facts:
    """What is known of this scalar (int64)."""
    return facts_of(np.array(number, INT64)) if noting() is None else _facts(_objects([number], ()), INT64)


def known_facts(
    op: Op, node: ir.Node, inputs: Sequence[Facts | None], outputs: Sequence[Facts | None]
) -> list[Facts | None]:
    """What is known of a node's results if all of its inputs are known. outputs: what `infer` says."""
    notes = noting()
    if notes is None or not any(map(_follows, inputs)):
        arrays = evaluated(op, node, [None if f is None else f.value for f in inputs])
        return [facts_of(array) for array in arrays]
    if op.domain == "" and not any(type(f) is MadeFacts for f in inputs):
        values = [None if f is None else f.value for f in inputs]
        function = _ON_NUMBERS.get(op.name)
        kinds = [fact.dtype if fact is not None else INT64 for fact in outputs]
        is_followed = kinds[0].kind in "iu" or op.name in _COMPARING
        if function is not None and is_followed and all(f is None or f.dtype.kind in "iu" for f in inputs):
            found = function(*[v if v is None else v.astype(object) for v in values])
            return [_facts(np.asarray(found, object), kinds[0])]
        if op.name in _JOINING or (op.name in _MOVING and not any(map(_follows, inputs[1:]))):
            arrays = evaluated(op, node, values)
            return [_facts(array, dtype) for array, dtype in zip(arrays, kinds, strict=False)]
    return _anew(notes, op, node, inputs, outputs)


def memory_of(facts: Facts) -> View | None:
    """Where a known value lies that follows from sizes, dense in the order of the dimensions; None for what
    is the same for all sizes.
    """
    if not _follows(facts):
        return None
    notes = noting()
    assert notes is not None
    made = (
        facts.made
        if isinstance(facts, MadeFacts)
        else notes.arrays(_array_of, (Integers(*_listed(facts)),))[0]
    )
    return View(notes.memory(made, facts.shape), 0, facts.dtype, facts.shape, row_major(facts.shape))


def made_constant(function: Callable[..., Array], *args: Any, shape: tuple[int, ...]) -> View:
    """Where function(*args) lies, an array of this shape, dense in the order of the dimensions; computed anew
    for each set of sizes if an argument follows from them.
    """
    notes = noting()
    if notes is None or not has_sizes(args):
        return constant(np.ascontiguousarray(function(*args)))
    made = notes.arrays(_alone, (function, args))[0]
    return View(notes.memory(made, shape), 0, made.array.dtype, shape, row_major(shape))


def _alone(function: Callable[..., Array], args: tuple[Any, ...]) -> list[Array]:
    return [function(*args)]


def _follows(facts: Facts | None) -> bool:
    """Whether a known value follows from sizes."""
    if type(facts) is MadeFacts:
        return True
    if type(facts) is not Facts or facts.dtype.kind == "O":
        return False
    return facts.value is not None and facts.value.dtype.kind == "O"


def _objects(numbers: Sequence[int], shape: tuple[int, ...]) -> Array:
    found = np.empty(len(numbers), object)
    found[:] = numbers
    return found.reshape(shape)


def _facts(array: Array, dtype: DType) -> Facts:
    """Facts of integers, some of which follow from sizes. What dtypes cannot hold is not followed."""
    if array.dtype.kind != "O":
        return facts_of(array)
    numbers: list[Any] = array.ravel().tolist()
    if dtype.kind not in "iu":
        if any(type(number) is Size for number in numbers):
            raise TypeError("a size became something else than an integer")
        return facts_of(array.astype(dtype))
    info = np.iinfo(dtype)
    if any(number < info.min or number > info.max for number in numbers):
        raise TypeError(f"a number that follows from sizes is more than {dtype} can hold")
    is_plain = not any(type(number) is Size for number in numbers)
    return facts_of(array.astype(dtype)) if is_plain else Facts(dtype, array.shape, array)


def _listed(facts: Facts) -> tuple[tuple[int, ...], tuple[int, ...], DType]:
    assert facts.value is not None
    return tuple(facts.value.ravel().tolist()), facts.value.shape, facts.dtype


# ---- computed anew -----------------------------------------------------------------------------------------


def _anew(
    notes: Notes, op: Op, node: ir.Node, inputs: Sequence[Facts | None], outputs: Sequence[Facts | None]
) -> list[Facts | None]:
    """What is known of results that are computed again for other sizes: integers, if they are few, follow
    from those one by one.
    """
    given: list[Any] = []
    for facts in inputs:
        if isinstance(facts, MadeFacts):
            given.append(facts.made)
        elif facts is not None and _follows(facts):
            given.append(Integers(*_listed(facts)))
        else:
            given.append(None if facts is None else facts.value)
    wanted = tuple([None if fact is None else (fact.dtype, fact.shape) for fact in outputs])
    arrays = notes.arrays(_evaluate, (op, node, tuple(given), wanted))
    found: list[Facts | None] = []
    for fact, made in zip(outputs, arrays, strict=True):
        if fact is None:
            found.append(None)
        elif fact.dtype.kind in "iu" and made.array.size <= MOST_NUMBERS and _is_plain(fact.shape):
            numbers = notes.call(numbers_in, (made,), "numbers")
            found.append(_facts(_objects(numbers, made.array.shape), fact.dtype))
        else:
            found.append(MadeFacts(fact.dtype, fact.shape, made))
    return found


def _is_plain(shape: tuple[Any, ...]) -> bool:
    return not any(type(size) is Size for size in shape)


def _evaluate(
    op: Op, node: ir.Node, given: tuple[Any, ...], wanted: tuple[tuple[DType, tuple[int, ...]] | None, ...]
) -> list[Array]:
    """A node's results. Raises TypeError where they are not what is wanted."""
    inputs = [_array_of(each)[0] if isinstance(each, Integers) else each for each in given]
    arrays = evaluated(op, node, inputs)[: len(wanted)]
    for array, fact in zip(arrays, wanted, strict=True):
        if fact is not None and (array.dtype != fact[0] or array.shape != fact[1]):
            raise TypeError(f"{node.op_type} gave {array.dtype} {array.shape}, and {fact} was inferred")
    return arrays


def _array_of(found: Integers) -> list[Array]:
    return [np.array(found.numbers, found.dtype).reshape(found.shape)]


# ---- integers that follow from sizes -----------------------------------------------------------------------


def _quotient(a: Any, b: Any) -> Any:
    """Rounded towards zero."""
    if (a < 0) == (b < 0):
        return a // b
    return -(-a // b)


_quotients = np.frompyfunc(_quotient, 2, 1)
_smallest, _largest = np.frompyfunc(min, 2, 1), np.frompyfunc(max, 2, 1)


def _itself(x: Array, *_: Array) -> Array:
    return x


def _min(*arrays: Array) -> Any:
    return functools.reduce(_smallest, arrays)


def _max(*arrays: Array) -> Any:
    return functools.reduce(_largest, arrays)


#: What is computed with the sizes themselves, and not with integers anew.
_ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Cast": _itself,
    "CastLike": _itself,
    "Div": _quotients,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": _max,
    "Min": _min,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Sub": np.subtract,
}
_COMPARING = frozenset(["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
#: They hand on elements of their first input, or of all.
_MOVING = frozenset(
    ["Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"]
)
_JOINING = frozenset(["Concat"])
