"""The forms of what a loop carries from round to round: a number of a kind, a tensor of sizes that stay and
sizes that change, one of a few values, or a structure of these.
"""

# Values may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ingot.capture.choice import Maybe, perhaps
from ingot.capture.lists import TracedList
from ingot.capture.merge import UNBOUND, describe, plainly_equal
from ingot.capture.mixed import Number, either, may_stand_for, number_of
from ingot.capture.objects import is_of_attributes
from ingot.capture.options import Options
from ingot.capture.request import ACTIVE
from ingot.capture.scalars import DTYPE, Symbolic, is_own, kind_of, kinds_of
from ingot.capture.structure import alike, inside, parts_of, rebuilt
from ingot.capture.tags import tagged
from ingot.capture.where import quoted_line
from ingot.capture.words import Word
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.record import Recorder

_EDIT = (
    "Start it with a value of the kind that the rounds give it: a tensor of the same dtype and number of "
    "dimensions, or a number of the same type."
)


class Peel(Exception):
    """The first round gives a variable another kind of value: it has to be recorded by itself."""


class Differ(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """Rounds of which Python knows each take different things of Python's, by their number."""


@dataclass
class Form:
    """What is carried for one leaf: a number of a kind, or a tensor; a dim of None may change."""

    kind: type
    dtype: torch.dtype
    dims: list[Any] = field(default_factory=list[Any])
    hints: list[int] = field(default_factory=list[int])
    number: Number | None = None  # of a tensor: what number it may be instead
    left: Number | None = None  # the same of what a round leaves
    kinds: str | None = None  # of a number that may be a float or an int: why
    tracked: bool = False  # whether a gradient may be taken of what went into a tensor


@dataclass
class Constant:
    """A part of what is carried that no round changes."""

    value: Any


class _Same:
    """Says that a form did not change."""


SAME = _Same()


def refused(what: str, why: str, edit: str = _EDIT) -> DataDependentError:
    """The error for what no ONNX value can carry: `what` would be `why`."""
    return DataDependentError(
        f"{quoted_line()}\n"
        f"Data decides how often this loop runs, and {what} would be {why}: no ONNX value can hold both. "
        f"{edit}"
    )


class Forms:
    """The forms of one loop's places.

    lasts: whether a container was there before the loop
    lost: what to say of variables whose value before the loop has no form
    peeled: whether the first round was recorded by itself
    """

    def __init__(
        self, g: Recorder, lasts: Callable[[Any], bool], lost: Mapping[str, str], peeled: bool
    ) -> None:
        self.g, self.lasts, self.lost, self.peeled = g, lasts, lost, peeled

    def after_round(self, form: Any, start: Any, now: Any, what: str) -> Any:
        """The form after a round: SAME where it is the one before."""
        g = self.g
        if form is None:
            if _identical(g, start, now):
                return SAME
            name = tagged((*inside(start), *inside(now)))
            if name is not None:
                raise refused(
                    what,
                    f"a tensor with the attribute {name!r}",
                    "Keep what the attribute says in a variable of its own.",
                )
            if start is UNBOUND and what in self.lost:
                raise DataDependentError(self.lost[what])
            if not isinstance(start, (torch.Tensor, *Symbolic)):
                options = Options.of([v for v in (start, now) if v is not UNBOUND], self.lasts)
                if options is not None and (start is not UNBOUND or len(options.values) > 1):
                    return options
            if isinstance(now, Maybe) and start is None and not ACTIVE.marks.must_run:
                start = perhaps(start, UNBOUND)
            elif isinstance(start, Maybe):
                now = perhaps(now, UNBOUND)
            elif (start is None) != (now is None) and start is not UNBOUND and not self.peeled:
                raise Peel
            if (
                is_own(start) and kind_of(now) is not None and not self.peeled
            ):  # a member that becomes a number
                raise Peel
            if (
                kind_of(start) is not torch.Tensor
                and kind_of(start) is not None
                and isinstance(now, torch.Tensor)
                and now.dim()
                and not self.peeled
            ):
                raise Peel
            with g.graph.writing(g.graph.body.parent or g.graph.root):
                first = self._first(start, now, what)
            return self.widened(first, now, what)
        wider = self.widened(form, now, what)
        return SAME if wider is form else wider

    def _first(self, start: Any, now: Any, what: str) -> Any:
        """The form of what is there before the loop; where nothing is, of what a round leaves."""
        kind, after = kind_of(start), kind_of(now)
        if start is UNBOUND:
            if after is None:
                if isinstance(now, Word):
                    return Options.of([now], self.lasts) or Constant(now)
                if parts_of(now):
                    return rebuilt(now, [self._first(UNBOUND, v, what) for v in parts_in(now)])
                return Constant(now)
            return self.of(now, after)
        if kind is None:
            parts, more = parts_in(start), parts_in(now)
            if not parts or not _made_alike(start, now):
                raise refused(what, f"{describe(start)} before a round and {describe(now)} after it")
            pairs = zip(parts, more, strict=True)
            return rebuilt(start, [self._between(a, b, what) for a, b in pairs])
        if kind is not after and after is torch.Tensor and now.dim() == 0:
            if not may_stand_for(start, now.dtype) and not self.peeled:
                raise Peel
            return self._with_number(Form(torch.Tensor, now.dtype, tracked=now.requires_grad), start, what)
        if kind is not after and {kind, after} == {int, float}:
            return Form(float, torch.float64, hints=[1], kinds=_either_kind())
        return self.of(start, kind)

    def _between(self, start: Any, now: Any, what: str) -> Any:
        """The form of one part of a value."""
        options = None if start is UNBOUND else Options.of([start, now], self.lasts)
        if options is not None:
            return Constant(start) if len(options.values) == 1 else options
        if kind_of(start) is None and not parts_of(start) and _identical(self.g, start, now):
            return Constant(start)
        return self._first(start, now, what)

    def of(self, value: Any, kind: type) -> Form:
        g = self.g
        if kind is not torch.Tensor:
            hint = g.env.value_or_none(g.env.expr(value)) if isinstance(value, Symbolic) else value
            return Form(kind, DTYPE[kind], hints=[hint], kinds=kinds_of(g, value))
        dims = [d if g.sizes.in_scope(d) else None for d in value.shape]
        hints = [int(g.env.value(g.env.expr(d))) for d in value.shape]
        number = number_of(g, value, value.dtype)
        return Form(kind, value.dtype, dims, hints, number, tracked=value.requires_grad)

    def _with_number(self, form: Form, now: Any, what: str) -> Form:
        """A tensor without dimensions that may be a number, as what a place holds is or may be; the very same
        where that was known.

        Raises:
            DataDependentError: the tensor's dtype has no such number.
        """
        if not isinstance(now, torch.Tensor) and not may_stand_for(now, form.dtype):
            raise refused(what, f"{_described(form)} before a round and {describe(now)} after it")
        number = either(form.number, number_of(self.g, now, form.dtype))
        return form if number == form.number else replace(form, number=number)

    def widened(self, form: Any, now: Any, what: str) -> Any:
        """The form with those dims free that the round changes; the very same where it changes none."""
        if now is form:
            return form
        if isinstance(form, Options):
            wider = form.wider(now, self.lasts)
            if wider is None:
                found = " or ".join(map(describe, form.values))
                raise refused(what, f"{found} before a round and {describe(now)} after it")
            return wider
        if isinstance(form, Constant):
            options = Options.of([form.value, now], self.lasts)
            if options is not None:
                return form if len(options.values) == 1 else options
            if not _identical(self.g, form.value, now):
                found = f"{describe(form.value)} after one round and {describe(now)} after another"
                raise refused(what, found)
            return form
        if not isinstance(form, Form):
            if isinstance(form, Maybe):
                now = perhaps(now, UNBOUND)
                now = Maybe(now.ingot_is_none, form.ingot_value) if now.ingot_value is UNBOUND else now
            parts, forms = parts_in(now), parts_in(form)
            if not _made_alike(now, form):
                raise refused(what, f"{describe(now)} after a round")
            wider = [self.widened(f, v, what) for f, v in zip(forms, parts, strict=True)]
            if all(w is f for w, f in zip(wider, forms, strict=True)):
                return form
            return rebuilt(form, wider)
        kind = kind_of(now)
        if form.kind is float and kind in (int, float):
            kinds = form.kinds or (kinds_of(self.g, now) if kind is float else _either_kind())
            return form if kinds == form.kinds else replace(form, kinds=kinds)
        if form.kind is torch.Tensor and not form.dims and kind in DTYPE:
            return self._with_number(form, now, what)
        fits = kind is form.kind
        if fits and kind is torch.Tensor:
            fits = now.dtype == form.dtype and now.dim() == len(form.dims)
        if not fits:
            raise refused(what, f"{_described(form)} before a round and {describe(now)} after it")
        if kind is torch.Tensor:
            if now.requires_grad and not form.tracked:
                form = replace(form, tracked=True)
            same = [d is None or self.g.same_size(d, n) for d, n in zip(form.dims, now.shape, strict=True)]
            if not all(same):
                dims = [d if ok else None for d, ok in zip(form.dims, same, strict=True)]
                return Form(form.kind, form.dtype, dims, form.hints, tracked=form.tracked)
            return self._with_number(form, now, what)
        return form


def _either_kind() -> str:
    return f"float or int, as the rounds of {quoted_line()} decide"


def _described(form: Form) -> str:
    if form.kind is torch.Tensor:
        return f"a {str(form.dtype).removeprefix('torch.')} tensor of {len(form.dims)} dimensions"
    return f"{'an' if form.kind is int else 'a'} {form.kind.__name__}"


def _identical(g: Recorder, a: Any, b: Any) -> bool:
    """Whether a round leaves a value as it is."""
    if a is b:
        return True
    if isinstance(a, Symbolic) and isinstance(b, Symbolic):
        return bool(g.env.expr(a) == g.env.expr(b))
    if isinstance(a, (torch.Tensor, *Symbolic)) or isinstance(b, (torch.Tensor, *Symbolic)):
        return False
    if is_of_attributes(type(a)):
        return False  # the model may ask which of them it has
    parts, more = parts_of(a), parts_of(b)
    if parts is not None and more is not None:
        return alike(a, b) and all(_identical(g, x, y) for x, y in zip(parts, more, strict=True))
    return not isinstance(a, set) and plainly_equal(a, b)


def _made_alike(a: Any, b: Any) -> bool:
    """Whether two values are made in the same way; of lists it does not matter whether rewritten code made
    them.
    """
    kinds = (list, TracedList)
    if type(a) not in kinds or type(b) not in kinds or type(a) is type(b):
        return alike(a, b)
    known = all(x.known for x in (a, b) if isinstance(x, TracedList))
    return known and list.__len__(a) == list.__len__(b)


def parts_in(x: Any) -> list[Any]:
    """What a value is made of."""
    return parts_of(x) or []
