"""Questions about sizes that the model's Python and torch ask, each answered here."""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import sympy
import torch
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanFunction, Not, Or

from ingot.capture.bounds import INEQUALITIES
from ingot.capture.size_notes import SizeNotes
from ingot.capture.size_symbols import UNDEFINED
from ingot.capture.where import asked_by_user, given, torch_expects


class SizeEnv(SizeNotes):
    """torch's shape environment with every decision taken here: static, else by hint, and then written down.

    Questions that torch asks itself on the way to the same result, as it does for sizes of 1, are not written
    down.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []  # conditions on sizes that became branches
        self.on_int: Callable[[Any], None] | None = None  # called before a size becomes a Python number
        self.on_branch: Callable[[Any], None] | None = None  # called before the user's Python takes a branch
        self.on_check: Callable[[Any], bool] | None = None  # the user's own torch._check
        self.imagined = 0  # how many calls are going on that only say what their results look like

    def evaluate_expr(
        self,
        orig_expr: Any,
        hint: Any = None,
        fx_node: Any = None,
        size_oblivious: bool = False,
        fallback_value: bool | None = None,
        *,
        forcing_spec: bool = False,
    ) -> Any:
        """Decide a condition (or turn a size into a Python number) and write down what was decided."""
        del hint, fx_node, size_oblivious, forcing_spec
        e = self.canon(orig_expr)
        if e.is_number or e in (sympy.true, sympy.false):
            return e
        if fallback_value is not None and isinstance(e, INEQUALITIES):
            implied = self._implied(e)
            found = fallback_value if implied is None else implied  # the general way: min(end, size)
            return sympy.true if found else sympy.false
        if isinstance(e, (BooleanFunction, Relational)):  # a plain Symbol is a Boolean too, to SymPy
            return self._decide(e)
        self._narrows(e)
        if self.on_int is not None:
            self.on_int(e)
        value = self.value(e)
        self._fix(e.free_symbols)
        return value

    def guard_or_defer_runtime_assert(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, orig_expr: Any, msg: Any, fx_node: Any = None
    ) -> bool:
        """torch checks that its operands fit: true or the operator raises."""
        del msg, fx_node
        e = self.canon(orig_expr)
        if e in (sympy.true, sympy.false):
            return bool(e)
        if self.on_check is not None and self.on_check(e):
            return True
        if self.of_data(e):
            self._fit_hints(e)  # what torch makes of data fits by itself, or fails in the graph
            return True
        return bool(self._decide(e, expected=True))

    def take(self, e: Any) -> bool:
        """Decide the user's own condition by the hints after all, and write it down."""
        holds = bool(self.value(e))
        self._record(e if holds else Not(e), True, False)
        return holds

    @contextlib.contextmanager
    def imagining(self) -> Generator[None]:
        """What is asked meanwhile is about how a result looks, and decides nothing about what is recorded."""
        self.imagined += 1
        try:
            yield
        finally:
            self.imagined -= 1

    def _decide(self, e: Any, expected: bool = False) -> Any:
        """True or false by the hints, written down if it matters."""
        by_user = asked_by_user(depth=4)
        if by_user:
            known = self.known(e)
            if known is not None:
                return sympy.true if known else sympy.false
            if self.on_branch is not None:
                self.on_branch(e)
        elif self.on_branch is not None and not self.truths.isdisjoint(e.free_symbols):
            self.on_branch(e)  # torch's own Python asks about a condition that data decides
        matters = by_user or expected or torch_expects()
        if matters and not by_user and self._of_layout(e):
            return sympy.true
        if not matters:
            self._require_not_given(e)
        silent = not matters and (self.imagined > 0 or not isinstance(e, INEQUALITIES))
        if silent and e in self.decided:
            return self.decided[e]
        if self.chosen and not by_user and (opened := self.expand(e)) in (sympy.true, sympy.false):
            return opened
        if not matters and isinstance(e, sympy.Eq) and self.of_data(e) and e.rhs in (0, 1):
            return sympy.false  # whether to repeat it: where only the run knows, the operator finds out
        if not matters and isinstance(e, sympy.Eq) and self._by_chance(e):
            return sympy.false
        if matters and not by_user and self.of_data(e) and self.bases(e).isdisjoint(self.numbers):
            self._fit_hints(e)
        holds = bool(self.value(e))
        answer = sympy.true if holds else sympy.false
        self.unfit = Not(e) if matters and not by_user and not holds else self.unfit
        if matters and (e if holds else Not(e)) not in self.held:
            known = self._maybe_evaluate_static(e)
            if known is not None:
                return known
        if matters or (holds and isinstance(e, sympy.Eq)):
            self._record(e if holds else Not(e), by_user, matters and not by_user)
        elif not silent and self.known(e) is None and self._implied(e) is None:
            # An operator that is made of others, or a row, goes one of several ways.
            self.demand(e if holds else Not(e), "sizes take the example's way at this line")
        self.decided[e] = answer
        return answer

    def _of_layout(self, e: Any) -> bool:
        """Whether a condition says that the memory which torch has laid out for a result holds the result."""
        if not isinstance(e, Or) or len(e.args) != 2 or "as_strided" in self.operators:
            return False
        nothing, fits = sorted(e.args, key=lambda a: not isinstance(a, sympy.Eq))
        return isinstance(nothing, sympy.Eq) and nothing.rhs == 0 and nothing.lhs in fits.args

    def _require_not_given(self, e: Any) -> None:
        """Refuse to decide what a function of torch's was given for a bool: its caller has to."""
        function = given(lambda x: isinstance(x, torch.SymBool) and self.canon(x.node._expr) == e, depth=4)
        if function is not None and self.known(e) is None:
            raise TypeError(f"an argument of {function}() must be bool, not SymBool")

    def _fit_hints(self, e: Any) -> None:
        """Give numbers of data hints for which a condition holds, where that is easy."""
        if self._agrees(e):
            return
        symbols = sorted(
            (s for s in e.free_symbols if s not in self.names and s not in self.definitions), key=str
        )
        before = {s: self.hint(s) for s in symbols}
        one_by_one = ({s: n} for s in symbols for n in (1, 2, 3, 0, 5, 7))
        for tried in (*one_by_one, dict.fromkeys(symbols, 1)):
            self.hints |= before | {s: sympy.Integer(n) for s, n in tried.items()}
            if self._agrees(e):
                self.derive_hints(self.definitions)
                return
        self.hints |= before
        self._fit_sources(e)

    def _fit_sources(self, e: Any) -> None:
        """The same of the numbers that its sizes are made of: as the condition says itself (a size of 8), or
        as much more or less as its two sides differ by.
        """
        numbers = sorted(int(n) for n in e.atoms(sympy.Integer) if n >= 0)
        apart = self._apart(e)
        for symbol in sorted((s for s in self.bases(e) - self.names.keys() - self.numbers.keys()), key=str):
            before = self.hint(symbol)
            for n in (*numbers, before + apart, before - apart):
                if n < 0:
                    continue
                self.hints[symbol] = sympy.Integer(n)
                self.derive_hints(self.definitions)
                if self._agrees(e):
                    return
            self.hints[symbol] = before
        self.derive_hints(self.definitions)

    def _apart(self, e: Any) -> int:
        """By how much the sides of an equality of sizes differ by the hints; else 0."""
        try:
            return int(self.value(e.lhs - e.rhs)) if isinstance(e, sympy.Eq) else 0
        except (*UNDEFINED, TypeError):  # TypeError: of truths
            return 0

    def _agrees(self, e: Any) -> bool:
        """Whether a condition holds by the hints; nothing is divided by 0."""
        try:
            return bool(self.value(e) == True)  # noqa: E712  (a SymPy object)
        except UNDEFINED:
            return False

    def _by_chance(self, e: Any) -> bool:
        """Whether an equality of products, such as two strides, holds by the hints only because numbers of
        data are 1 or 0 there. Sums are sizes of which one must be the other.
        """
        if e.lhs.is_Add or e.rhs.is_Add:
            return False
        opened = self.expand(e)
        least = [s for s in opened.free_symbols if self.of_data(s) and self.hint(s) in (0, 1)]
        more = opened.xreplace(dict.fromkeys(least, sympy.Integer(2)))
        return bool(least) and self._agrees(opened) and not self._agrees(more)
