"""State that a first call makes: None, or nothing, before it, and a tensor ever after.

An input of the model has one dtype and rank, so such state needs a value to begin with that is as good as
none: zeros of the shape it gets, or of no size along the axis that grows. Whether it is as good, the module
itself says: it is run from both, on the example and on other numbers, of all signs.
"""

# What a model holds may be anything.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ingot.capture.sample import drawn
from ingot.capture.signature import leaves
from ingot.capture.state import ABSENT, Place, Snapshot
from ingot.capture.unchanged import unchanged
from ingot.capture.where import raise_if_ours

if TYPE_CHECKING:
    from ingot.capture.dims import DimTable
    from ingot.capture.run import Call

_SIGNS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    torch.abs,
    lambda x: -torch.abs(x),
    torch.neg,
    torch.zeros_like,
)
_CLOSE = 1e-5  # of the largest value: the two runs do the same arithmetic, up to sums with zeros


@dataclass(frozen=True)
class Begin:
    """What state is before the first call, and what the exported model begins with in its place."""

    place: Place
    before: Any
    value: Any
    follows: frozenset[int] = frozenset()  # axes that are of another size where an input is

    def __str__(self) -> str:
        """The model's value, in words."""
        v = self.value
        return f"zeros {list(v.shape)}" if isinstance(v, torch.Tensor) else repr(v)


@dataclass
class Calls:
    """What calls in a row gave and left behind."""

    outputs: list[list[Any]]
    after: list[dict[str, Any]]  # what each call left, by label
    before: dict[str, Any]
    places: dict[str, Place]


def begins(call: Call, table: DimTable) -> dict[str, Begin]:
    """A value to begin with for each state that only the first call makes; none where nothing serves."""
    rng = np.random.default_rng(0)
    rows = [[_example(s, table, rng, first) for s in call.specs] for first in (True, False)]
    try:
        own = in_a_row(call, rows, {})
    except Exception as error:  # whatever the module's own Python says to numbers that are not the example's
        raise_if_ours(error)
        return {}
    found: dict[str, Begin] = {}
    for label in own.after[0]:
        before = own.before.get(label, ABSENT)
        path = own.places[label].path
        if before is ABSENT and path and isinstance(path[-1], int):
            return {}  # a list that grows from call to call
        value = _value(before, own.after[0][label], own.after[1].get(label, ABSENT))
        if value is not None:
            found[label] = Begin(own.places[label], before, value)
    if not found:
        return {}
    try:
        alike = _alike(own, in_a_row(call, rows, found)) and _serves(call, rows, found)
    except Exception as error:  # whatever the module's own Python says to what it never held
        raise_if_ours(error)
        return {}
    return _with_axes(call, table, found) if alike else {}


def _serves(call: Call, rows: Sequence[Sequence[Any]], found: Mapping[str, Begin]) -> bool:
    """Whether these values are as good as none whatever the signs of the numbers: a maximum so far that
    begins with 0 is wrong where all numbers are below.
    """
    for signs in _SIGNS:
        other = [[signs(x) if _has_sign(x) else x for x in row] for row in rows]
        try:
            own = in_a_row(call, other, {})
        except (
            Exception
        ) as error:  # whatever the module's own Python says to numbers that are not the example's
            raise_if_ours(error)
            continue
        if not _alike(own, in_a_row(call, other, found)):
            return False
    return True


def _has_sign(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _with_axes(call: Call, table: DimTable, found: Mapping[str, Begin]) -> dict[str, Begin]:
    """Which axes are as large as inputs say: the module itself is run with one dimension larger at a time."""
    axes: dict[str, set[int]] = {label: set() for label in found}
    for name in {d for s in call.specs for d in s.dims if isinstance(d, str)}:
        larger = replace(table, sizes={**table.sizes, name: table.sizes[name] + 1})
        rng = np.random.default_rng(0)
        try:
            own = in_a_row(
                call, [[_example(s, larger, rng, False) for s in call.specs] for _ in range(2)], {}
            )
        except (
            Exception
        ) as error:  # whatever the module's own Python says to sizes that are not the example's
            raise_if_ours(error)
            continue
        for label, begin in found.items():
            first, second = (after.get(label) for after in own.after)
            value = _value(begin.before, first, second)
            if isinstance(value, torch.Tensor) and value.dim() == begin.value.dim():
                sizes = enumerate(zip(value.shape, begin.value.shape, strict=True))
                axes[label] |= {axis for axis, (a, b) in sizes if a != b}
    return {label: replace(begin, follows=frozenset(axes[label])) for label, begin in found.items()}


def refusal(call: Call, table: DimTable) -> Exception | None:
    """What the module itself says to the example; None where it takes it."""
    rng = np.random.default_rng(0)
    try:
        in_a_row(call, [[_example(s, table, rng, True) for s in call.specs]], {})
    except Exception as error:  # whatever the module's own Python says to its example
        raise_if_ours(error)
        return error
    return None


def _example(spec: Any, table: DimTable, rng: np.random.Generator, first: bool) -> Any:
    if spec.number is not None:
        return table.numbers[spec.name]
    if first and spec.example is not None:
        return spec.example
    return drawn(spec, table.sizes, rng)


def in_a_row(
    call: Call, rows: Sequence[Sequence[Any]], begin: Mapping[str, Begin], keep_batch_norm: bool = True
) -> Calls:
    """The module's own calls in a row, on copies of what it holds."""
    outputs: list[list[Any]] = []
    after: list[dict[str, Any]] = []
    with torch.no_grad(), unchanged(call.function, keep_batch_norm) as held:
        before, places = dict(held.before), dict(held.places)
        _copy_tensors(held)
        for b in begin.values():
            b.place.set(_copy(b.value))
        for inputs in rows:
            args, kwargs = call.arguments.with_tensors([_copy(x) for x in inputs])
            outputs.append([_copy(leaf.value) for leaf in leaves(call.function(*args, **kwargs))])
            changed = {c.label: c for c in held.changes()}
            places |= {label: c.place for label, c in changed.items()}
            after.append({label: _copy(places[label].get()) for label in [*changed, *begin]})
    return Calls(outputs, after, before, places)


def _copy_tensors(held: Snapshot) -> None:
    """Give the module copies to write to, its weights aside."""
    for label, value in list(held.before.items()):
        if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
            held.begin(label, held.places[label], value.clone())


def _copy(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def _value(before: Any, first: Any, second: Any) -> Any:
    """What the state could be before the first call, by what it is after the first and the second."""
    numbers = (bool, int, float)
    if isinstance(first, numbers) and isinstance(second, numbers):
        if isinstance(before, numbers):
            return first if first == second else None
        return type(first)(0) if before is None or before is ABSENT else None
    if not isinstance(first, torch.Tensor) or not isinstance(second, torch.Tensor):
        return None
    if first.dim() != second.dim():
        return None
    if isinstance(before, torch.Tensor):
        if before.shape == first.shape or (before.dim() == first.dim() and first.shape != second.shape):
            return None
    elif before is not None and before is not ABSENT:
        return None
    sizes = [2 * a - b for a, b in zip(first.shape, second.shape, strict=True)]
    return torch.zeros(sizes, dtype=first.dtype) if min(sizes, default=0) >= 0 else None


def _alike(a: Calls, b: Calls) -> bool:
    """Whether both gave the same, and left the same behind."""
    rows = zip(a.outputs, b.outputs, strict=True)
    if not all(len(x) == len(y) and all(map(same, x, y)) for x, y in rows):
        return False
    return all(same(x[n], y[n]) for x, y in zip(a.after, b.after, strict=True) for n in x if n in y)


def same(a: Any, b: Any) -> bool:
    """Whether two outputs, or what two calls left behind, are the same."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return bool(a is b or (type(a) is type(b) and a == b))
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    scale = float(a.abs().max()) if a.numel() and a.dtype.is_floating_point else 0.0
    return bool(torch.allclose(a, b, rtol=0, atol=_CLOSE * scale, equal_nan=True))
