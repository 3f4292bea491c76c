"""What is known of sizes: of all that there can be, on the way to here, and by what was written down."""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.logic.boolalg import BooleanFunction, Not
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from ingot.capture.bounds import INEQUALITIES, bounds_of, follows, implied, line_of
from ingot.capture.floats import Comparison
from ingot.capture.one_of import OneOf
from ingot.capture.size_symbols import SizeSymbols


@dataclass(frozen=True)
class Guard:
    """A condition on sizes that held while recording."""

    condition: Any  # a SymPy boolean
    where: str
    by_user: bool  # the model's own Python asked; else torch did, to see whether its operands fit
    demanded: bool = False  # where it does not hold, nothing in the graph would fail by itself
    text: str = ""  # what is demanded, in words of the user's
    under: tuple[Any, ...] = ()  # conditions of the branches that it stands in

    @property
    def whole(self) -> Any:
        """What must hold of all sizes: the condition, where the branch that it stands in is taken."""
        return sympy.Or(self.condition, *map(Not, self.under))


class SizeFacts(SizeSymbols):
    """Symbols of sizes, and whether a condition on them is certain."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[Any, Guard] = {}
        self.inside: list[Guard] = []  # what is checked where a body alone knows it, and so held no longer
        self.path: list[Any] = []  # conditions under which the body that is being recorded runs
        self.leaned: set[sympy.Symbol] = set()  # whose declared range something was decided by
        self._bounds_of: tuple[Any, int, dict[Any, tuple[Any, Any]]] = (None, 0, {})

    def known(self, e: Any) -> bool | None:
        """Whether a condition holds for all sizes in the declared ranges, or in the branch being recorded."""
        e = self.canon(e)
        if e in (sympy.true, sympy.false):
            return bool(e)
        answers, question = self.memory.answers, (e, *self.path)
        if question not in answers:
            answers[question] = self._known(e)
        return answers[question]

    def _known(self, e: Any) -> bool | None:
        """The same, worked out."""
        if e in self.path:
            return True
        if Not(e) in self.path:
            return False
        found = self._follows(e)
        if found is not None:
            return found
        opened = self.expand(e)
        if opened.has(OneOf):
            opened = e
        for form in (e,) if opened == e else (e, opened):
            found = form if form in (sympy.true, sympy.false) else None
            if found is None and form.has(OneOf, Comparison):  # of which torch's bounds know nothing
                continue
            if found is None:
                axioms = tuple(c for c in self.path if not c.has(Comparison))  # which torch cannot negate
                found = self._maybe_evaluate_static(form, axioms=axioms or None)
            if found is None:
                bounds = self.bound_sympy(form)
                found = bounds.lower if bounds.is_singleton() else None
                if found is not None and self.ranges:
                    self._lean(form)
            if found is not None:
                return bool(found)
        return None

    def certain(self, e: Any) -> bool | None:
        """Whether an inequality is known to hold, or follows from what was written down."""
        found = self.known(e)
        return self._implied(e) if found is None else found

    def signed(self, e: Any) -> bool:
        """Whether it is known on which side of 0 a formula always is."""
        return any(self.certain(c) is not None for c in (e >= 0, e < 0))

    def _follows(self, e: Any) -> bool | None:
        """Whether an inequality of one size follows from the conditions of the branch being recorded."""
        opened = self.expand(e) if self.path else e
        if not self.path or not isinstance(opened, INEQUALITIES):
            return None
        return follows(opened, bounds_of(part for c in self.path for part in self._parts(self.expand(c))))

    def _parts(self, condition: Any) -> list[Any]:
        """A condition as inequalities, where it is that sizes are not 0: they are above it."""
        if not isinstance(condition, sympy.Ne) or condition.rhs != 0:
            return [condition]
        factors = condition.lhs.args if condition.lhs.is_Mul else [condition.lhs]
        sizes = [e for e in factors if not e.is_number and self.bound_sympy(e).lower >= 0]
        return [sympy.Gt(e, 0) for e in sizes]

    def _implied(self, e: Any) -> bool | None:
        """Whether an inequality of one size follows from what was written down of that size."""
        if self._bounds_of[0] is not self.held or self._bounds_of[1] != len(self.held):
            self._bounds_of = self.held, len(self.held), bounds_of(self.held)
        return follows(e, self._bounds_of[2])

    def bounds(self, guards: Iterable[Guard], declared: bool = False) -> dict[Any, tuple[Any, Any]]:
        """The least and the most that each size is where these conditions hold; by its declared range too."""
        plain = [self.expand(g.condition) for g in guards if not g.under]
        if declared:
            for symbol, (low, high) in self.ranges.items():
                plain += [sympy.Ge(symbol, low), *([] if high is None else [sympy.Le(symbol, high)])]
        return bounds_of(c for c in plain if isinstance(c, INEQUALITIES))

    def follows_from(self, bounds: Mapping[Any, tuple[Any, Any]], guard: Guard) -> bool:
        """Whether a condition holds by these bounds; no bound by itself, which would prove itself."""
        with self.doubting():
            e = self.expand(guard.condition)
        return line_of(e) is None and not e.has(OneOf) and implied(e, bounds)

    def _maybe_evaluate_static(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, expr: Any, **options: Any
    ) -> Any:
        if isinstance(expr, BooleanFunction) and any(isinstance(a, BooleanFunction) for a in expr.args):
            return self._known_by_parts(expr, options)  # torch's own takes such apart, and fails at some
        if isinstance(expr, Comparison):
            return None
        found = super()._maybe_evaluate_static(expr, **options)
        if found is not None and self.ranges and isinstance(expr, sympy.Basic) and expr.free_symbols:
            self._lean(expr)
        return found

    def _known_by_parts(self, e: Any, options: Mapping[str, Any]) -> Any:
        """True, false or None for a condition made of conditions."""
        known = {a: self._maybe_evaluate_static(a, **options) for a in e.args if not a.is_Atom}
        found = e.xreplace({a: sympy.sympify(answer) for a, answer in known.items() if answer is not None})
        return found if found in (sympy.true, sympy.false) else None

    def _lean(self, e: Any) -> None:
        """Something was decided about a formula: by a declared range, unless it is so for all sizes."""
        for symbol in self.bases(e) & self.ranges.keys() - self.leaned:
            opened = self.expand(e)
            free = {symbol: ValueRanges(0, int_oo)}
            if opened.has(OneOf) or not bound_sympy(opened, free).is_singleton():
                self.leaned.add(symbol)
