"""Symbolic sizes: which guards the model's Python and torch put on them, and size formulas as ONNX nodes."""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import operator
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import sympy
import torch
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, BooleanFunction, Not, Or
from torch.fx.experimental.symbolic_shapes import ShapeEnv, ValueRangesSLoc
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from ingot.capture.graph import GraphWriter
from ingot.capture.journal import Journal, Table
from ingot.capture.where import asked_by_user, source_line, torch_expects
from ingot.errors import ExportError

Size = int | torch.SymInt

# Hints for sizes that only the run knows (the number of selected rows …): unusual, so that they equal
# nothing else.
_UNKNOWN_SIZE_HINTS = (7, 11, 13, 17, 19, 29, 31, 37, 41, 43, 47, 53)
_INEQUALITIES = (sympy.Gt, sympy.Ge, sympy.Lt, sympy.Le)


class StaleRead(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """The model reads what an earlier call of it left behind."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


@dataclass(frozen=True)
class Guard:
    """A condition on sizes that held while recording."""

    condition: Any  # a SymPy boolean
    where: str
    by_user: bool  # the model's own Python asked; else torch did, to see whether its operands fit


@dataclass(frozen=True)
class Fixed:
    """A dimension that can only have one size."""

    size: int
    where: str
    by_user: bool


class NeverTaken(Exception):
    """A branch on sizes that no size takes."""


class OneOf(sympy.Function):
    """`a` where the condition holds, else `b`: a Piecewise that SymPy leaves as it is.

    Piecewise carries conditions through every formula around it, and a deep network's sizes never end.
    """

    is_integer = True
    is_nonnegative = True

    @classmethod
    def eval(cls, condition: Any, a: Any, b: Any) -> Any:
        """What is known by now."""
        if a == b or condition == sympy.true:
            return a
        return b if condition == sympy.false else None

    def _sympystr(self, printer: Any) -> str:
        condition, a, b = map(printer.doprint, self.args)
        return f"({a} if {condition} else {b})"


OPENED = 60  # parts of a formula over the dimensions of the inputs: beyond, parts keep names of their own


class SizeEnv(ShapeEnv):
    """torch's shape environment with every decision taken here: static, else by hint, and then written down.

    Questions that torch asks itself on the way to the same result, as it does for sizes of 1, are not written
    down. torch itself would narrow a symbol silently once a guard has been taken. Here a guard is recorded
    with the line that asked; an equation with a number fixes its dimensions, an equation between two
    dimensions unifies them.
    """

    def __init__(self) -> None:
        super().__init__(specialize_zero_one=False, duck_shape=False)
        self.names: dict[sympy.Symbol, str] = {}
        self.numbers: dict[sympy.Symbol, str] = {}  # inputs that are Python numbers to the model
        self.stale: dict[sympy.Symbol, str] = {}  # numbers that an earlier call left behind
        self.hints: dict[sympy.Symbol, Any] = {}
        self.definitions: dict[
            sympy.Symbol, Any
        ] = {}  # sizes computed from others that have a symbol of their own
        self.fixed: dict[sympy.Symbol, Fixed] = {}
        self.unified: dict[
            sympy.Symbol, tuple[sympy.Symbol, str, bool]
        ] = {}  # kept, line, whether nothing else can do: the user asked, or an operator raises otherwise
        self.held: dict[Any, Guard] = {}
        self.small: set[sympy.Symbol] = (
            set()
        )  # dimensions so small in the example that a size made from them was 1
        self.asked: list[Any] = []  # conditions on sizes that became branches
        self.on_int: Callable[[Any], None] | None = None  # called before a size becomes a Python number
        self.on_branch: Callable[[Any], None] | None = None  # called before the user's Python takes a branch
        self.on_check: Callable[[Any], bool] | None = None  # the user's own torch._check
        self.truths: set[sympy.Symbol] = set()  # conditions that data decides
        self.moment = object()  # another one whenever something else is known of the sizes
        self.path: list[Any] = []  # conditions under which the body that is being recorded runs
        here = self._get_sloc()
        self._declared_here = ValueRangesSLoc(here, here)
        self._replace: dict[Any, Any] = {}
        self._unknown_hints = itertools.cycle(_UNKNOWN_SIZE_HINTS)
        self._decided: dict[Any, Any] = {}
        self._opened: dict[sympy.Symbol, tuple[Any, int]] = {}  # definitions over the inputs' dimensions
        self._bases: dict[sympy.Symbol, frozenset[sympy.Symbol]] = {}
        self._fitting: dict[Any, dict[sympy.Symbol, Any]] = {}  # hints found for a path and those before
        self._numbers = itertools.count()

    def new_dim(self, name: str, hint: int) -> torch.SymInt:
        """A symbolic size of an input."""
        size = self.new_size(hint)
        self.names[size.node.expr] = name
        return size

    def new_number(self, name: str, hint: Any, kind: type) -> Any:
        """A symbolic number, of any sign, that stands for an input: an int, a float or a bool."""
        made: Any = self.create_unbacked_symfloat() if kind is float else self.create_unbacked_symint()
        symbol = made.node.expr
        self.numbers[symbol] = name
        self.hints[symbol] = sympy.Float(hint) if kind is float else sympy.Integer(int(hint))
        return made == 1 if kind is bool else made

    def stale_number(self, label: str) -> torch.SymInt:
        """A number that an earlier call left behind."""
        made: Any = self.create_unbacked_symint()
        self.stale[made.node.expr] = label
        return made

    def new_size(self, hint: int) -> torch.SymInt:
        """A size with a symbol of its own, 0 or more.

        torch's own symbols are positive, so that a branch on an empty tensor would be decided without asking.
        """
        symbol: Any = sympy.Symbol(f"s{next(self._numbers)}", integer=True, nonnegative=True)
        self.hints[symbol] = sympy.Integer(hint)
        shown = max(hint, 2)
        self.backed_var_to_val[symbol] = sympy.Integer(shown)
        self.var_to_sources[symbol] = []
        self._declare(symbol, 0, None)
        size: Any = self.create_symintnode(symbol, hint=shown)
        return size

    def one_of(self, size: torch.SymInt, condition: Any, a: Any, b: Any) -> None:
        """Say that a size is `a` where a condition on sizes holds, else `b`, if no data decides any."""
        parts = [self.canon(condition), self.expr(a), self.expr(b)]
        if not any(self.of_data(p) for p in parts):
            self.definitions[size.node.expr] = OneOf(*parts)

    def _declare(self, symbol: Any, low: int, high: int | None) -> None:
        """The range of a symbol."""
        self.var_to_range[symbol] = ValueRanges(low, int_oo if high is None else high)
        self.var_to_range_sloc[symbol] = self._declared_here

    def declare_range(self, size: torch.SymInt, low: int, high: int | None) -> None:
        """The caller says that an input's size is within a range."""
        self._declare(size.node.expr, low, high)
        self._learned()

    def _learned(self) -> None:
        """What was decided before may be decided in another way now."""
        self._decided.clear()
        self.moment = object()

    def canon(self, expression: Any) -> Any:
        """The formula with fixed and unified dimensions put in, and derived sizes by their symbol."""
        return expression.xreplace(self._replace) if self._replace else expression

    def expand(self, expression: Any) -> Any:
        """The formula over the dimensions of the inputs; over sizes made from them where it would be long."""
        opened = {t: self._open(t)[0] for t in expression.free_symbols if t in self.definitions}
        return self.canon_dims(expression.xreplace(opened) if opened else expression)

    def _open(self, symbol: sympy.Symbol) -> tuple[Any, int]:
        """A size's definition over the inputs' dimensions, or the size itself where that is long, and its
        length.
        """
        found = self._opened.get(symbol)
        if found is None:
            definition = self.definitions[symbol]
            inner = [t for t in definition.free_symbols if t in self.definitions]
            parts = {t: self._open(t) for t in inner}
            length = sum(parts[t][1] if t in parts else 1 for t in sympy.preorder_traversal(definition))
            if length > OPENED:
                found = symbol, 1
            else:
                found = definition.xreplace({t: e for t, (e, _) in parts.items()}), length
            self._opened[symbol] = found
        return found

    def bases(self, expression: Any) -> set[sympy.Symbol]:
        """The symbols that a formula is made of in the end: of inputs and of what only the run knows."""
        found: set[sympy.Symbol] = set()
        for t in expression.free_symbols:
            known = self._bases.get(t)
            if known is None:
                inner = self.definitions.get(t)
                known = frozenset([t]) if inner is None else frozenset(self.bases(inner))
                if inner is not None:
                    self._bases[t] = known
            found |= known
        return {c for t in found for c in (self._replace.get(t, t).free_symbols if t in self.names else (t,))}

    def at(self, sizes: Mapping[Any, Any]) -> dict[Any, Any]:
        """Every symbol that is known where the dimensions of the inputs (those that are free) have these
        sizes: what a formula is evaluated with.
        """
        known: dict[Any, Any] = {s: self.canon_dims(s).xreplace(sizes) for s in self.names} | {**sizes}
        for symbol, definition in self.definitions.items():
            known[symbol] = definition.xreplace(known)
        return known

    def canon_dims(self, expression: Any) -> Any:
        """Fixed and unified dimensions put in, and sizes that are numbers by now."""
        known = {s: v for s, v in self._replace.items() if s in self.names or v.is_number}
        return expression.xreplace(known) if known else expression

    def of_inputs(self, size: Any) -> bool:
        """Whether the sizes of the inputs decide a size, and no element of them."""
        return all(s in self.names for s in self.bases(self.expr(size)))

    def derive(self, size: torch.SymInt) -> Size:
        """A symbol of its own for a size with a division, minimum … in it, so that formulas over it stay
        short; the number for a size that has become one.

        Without this, SymPy spends minutes on the nested divisions of a deep network's feature maps.
        """
        e = self.canon(size.node.expr)
        if e.is_number:
            return int(e)
        if e.is_Symbol or e.is_polynomial():
            return size
        made = self.new_size(int(self.value(e)))
        symbol = made.node.expr
        self.definitions[symbol] = e
        self._replace[e] = symbol
        return made

    def expr(self, size: Any) -> Any:
        """The SymPy formula of an int, SymInt, SymFloat or SymBool."""
        if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self.canon(size.node.expr)
        return sympy.sympify(size)

    def hint(self, symbol: sympy.Symbol) -> Any:
        """The number that stands for the symbol where recording has to take a decision."""
        if symbol in self.stale:
            raise StaleRead(self.stale[symbol])
        found = self.hints.get(symbol)
        if found is None:
            found = sympy.Float(1.5) if not symbol.is_integer else sympy.Integer(next(self._unknown_hints))
            self.hints[symbol] = found
        return found

    def hints_by_name(self) -> dict[str, Any]:
        """The number that stands for each dimension and number of the inputs."""
        named = [(name, self.hints[s]) for s, name in (self.names | self.numbers).items()]
        return {name: int(n) if n.is_Integer else float(n) for name, n in named}

    def value(self, expression: Any) -> Any:
        """The formula's number under the hints."""
        return expression.xreplace({s: self.hint(s) for s in expression.free_symbols})

    def size(self, e: Any) -> Any:
        """A formula as a size: an int where it is a number."""
        e = self.canon(e)
        if e.is_number:
            return int(e)
        return self.create_symintnode(e, hint=int(self.value(e)))

    def fixed_number(self, size: Any) -> int:
        """A size as a Python number, which fixes the dimensions it is made of.

        Raises:
            ExportError: only the run knows it.
        """
        e = self.expr(size)
        value = self.value(e)
        self._fix(e.free_symbols)
        return int(value)

    def require_equal(self, a: Any, b: Any) -> None:
        """Two formulas must be equal for the model to work, as they are in the example."""
        equation = sympy.Eq(a, b)
        if equation not in self.held and equation not in (sympy.true, sympy.false):
            self._record(equation, by_user=False, check=True)

    # -- torch's entry points

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
        if fallback_value is not None and isinstance(e, _INEQUALITIES):
            return (
                sympy.true if fallback_value else sympy.false
            )  # the general way: a slice keeps min(end, size)
        if isinstance(e, (BooleanFunction, Relational)):  # a plain Symbol is a Boolean too, to SymPy
            return self._decide(e)
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

    def of_data(self, e: Any) -> bool:
        """Whether a formula has anything in it but sizes of the inputs."""
        return not all(s in self.names for s in self.bases(e))

    def _fit_hints(self, e: Any) -> None:
        """Give numbers of data hints for which a condition holds, where that is easy."""
        if self.value(e) == True:  # noqa: E712  (a SymPy object)
            return
        for symbol in sorted(
            (s for s in e.free_symbols if s not in self.names and s not in self.definitions), key=str
        ):
            before = self.hint(symbol)
            for n in (1, 2, 3, 0, 5, 7):
                self.hints[symbol] = sympy.Integer(n)
                if self.value(e) == True:  # noqa: E712  (a SymPy object)
                    self._derive_hints(self.definitions)
                    return
            self.hints[symbol] = before

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
        if not matters and e in self._decided:
            return self._decided[e]
        if not matters and isinstance(e, sympy.Eq) and e.rhs in (0, 1) and self.of_data(e):
            return (
                sympy.false
            )  # whether to repeat it: where only the run knows, the operator finds out itself
        holds = bool(self.value(e))
        answer = sympy.true if holds else sympy.false
        if matters and (e if holds else Not(e)) not in self.held:
            known = self._maybe_evaluate_static(e)
            if known is not None:
                return known
        if matters or (holds and isinstance(e, sympy.Eq)):
            self._record(e if holds else Not(e), by_user, matters and not by_user)
        self._decided[e] = answer
        return answer

    def known(self, e: Any) -> bool | None:
        """Whether a condition holds for all sizes in the declared ranges, or in the branch being recorded."""
        e = self.canon(e)
        if e in (sympy.true, sympy.false):
            return bool(e)
        if e in self.path:
            return True
        if Not(e) in self.path:
            return False
        opened = self.expand(e)
        if opened.has(OneOf):
            opened = e
        for form in (e,) if opened == e else (e, opened):
            found = form if form in (sympy.true, sympy.false) else None
            if found is None:
                found = self._maybe_evaluate_static(form, axioms=tuple(self.path) or None)
            if found is None:
                bounds = self.bound_sympy(form)
                found = bounds.lower if bounds.is_singleton() else None
            if found is not None:
                return bool(found)
        return None

    def take(self, e: Any) -> bool:
        """Decide the user's own condition by the hints after all, and write it down."""
        holds = bool(self.value(e))
        self._record(e if holds else Not(e), True, False)
        return holds

    # -- branches and loops

    @contextlib.contextmanager
    def assuming(self, condition: Any = None) -> Generator[None]:
        """For the time of a branch that runs when the condition holds: it is known, and hints agree with it.

        Raises:
            NeverTaken: no sizes within the declared ranges were found under which it holds.
        """
        if condition is None:
            yield
            return
        hints, path, moment = dict(self.hints), list(self.path), self.moment
        self.path.append(condition)
        try:
            if not self._agrees():
                self._search_hints()
            if isinstance(condition, sympy.Eq):
                self._assume_equal(condition)
            self._learned()
            yield
        finally:
            self.path[:] = path
            for symbol, hint in hints.items():
                self.hints[symbol] = hint
            self._decided.clear()
            self.moment = moment

    def _agrees(self) -> bool:
        """Whether the conditions of the path hold for the hints; all hints agree with one another then."""
        self._derive_hints(self._behind(self.path))
        if not all(self.value(c) == True for c in self.path):  # noqa: E712  (SymPy objects)
            return False
        self._derive_hints(self.definitions)
        return True

    def _derive_hints(self, symbols: Iterable[sympy.Symbol]) -> None:
        for symbol in symbols:
            self.hints[symbol] = self.value(self.definitions[symbol])

    def _behind(self, conditions: Iterable[Any]) -> list[sympy.Symbol]:
        """The sizes with definitions that conditions are made of, each after those that it is made of."""
        found: set[sympy.Symbol] = set()
        todo = [s for c in conditions for s in c.free_symbols]
        while todo:
            symbol = todo.pop()
            if symbol in self.definitions and symbol not in found:
                found.add(symbol)
                todo += self.definitions[symbol].free_symbols
        return [s for s in self.definitions if s in found]

    def _search_hints(self) -> None:
        """Sizes of the inputs, few changed, under which every condition of the path holds."""
        symbols = sorted(self.bases(self.path[-1]), key=str)[:3]
        before = {s: self.hint(s) for s in symbols}
        tried = [*range(2, 24), 32, 33, 48, 64, 65, 96, 128, 129, 255, 256, 257, 512, 513, 1024, 1025, 1, 0]
        if len(symbols) == 3:
            tried = [*range(2, 12), 16, 33, 64, 1, 0]
        # Changing one size is tried before changing several, to one near the example's first: a
        # small one leaves
        # feature maps of size 1, which torch takes for what is repeated.
        near = [
            (s, int(n) * k + step)
            for k in (1, 2, 3)
            for step in (1, -1, 0, 2, 3, 4, 7)
            for s, n in before.items()
            if s.is_integer
        ]
        singles = (
            {**before, s: sympy.Integer(n)} for s, n in [*near, *((s, n) for s in symbols for n in tried)]
        )
        several = (
            dict(zip(symbols, map(sympy.Integer, numbers), strict=True))
            for numbers in itertools.product(tried, repeat=len(symbols))
        )
        asked = (*self.path, *before.items())
        known = [self._fitting[asked]] if asked in self._fitting else []
        for trial in itertools.chain(known, singles, several if len(symbols) > 1 else ()):
            if any(n not in self.var_to_range[s] for s, n in trial.items() if s in self.var_to_range):
                continue
            self.hints.update(trial)
            if self._agrees():
                self._fitting[asked] = trial
                return
        self.hints.update(before)
        self._derive_hints(self.definitions)
        if not all(s in self.names for s in symbols):
            return  # data decides: any hint will do
        raise NeverTaken(f"no sizes were found for which {self.path[-1]} holds")

    def _assume_equal(self, equation: Any) -> None:
        """In this branch a size is known."""
        for side, other in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
            if side.is_Symbol and side not in other.free_symbols:
                self._put(side, other)
                return

    def saved(self) -> Any:
        """What a branch may change, to be given to `restore`."""
        return dict(self._replace), dict(self.fixed), dict(self.unified), self.moment

    def restore(self, saved: Any) -> None:
        """Forget what was known in a branch only; dimensions that it fixed for good stay so."""
        self._replace, fixed, unified, self.moment = saved
        self._decided.clear()
        for symbol, found in self.fixed.items():
            if symbol not in fixed:
                self._put(symbol, sympy.Integer(found.size))
        for drop, (keep, _, _) in self.unified.items():
            if drop not in unified:
                self._put(drop, keep)

    def notes(self) -> Any:
        """What was written down so far, to be given to `forget`."""
        return dict(self.held), dict(self.fixed), dict(self.unified), dict(self._replace), set(self.small)

    def forget(self, notes: Any) -> None:
        """Only this was written down."""
        self.held, self.fixed, self.unified, self._replace, self.small = notes
        self._learned()

    def holds_outside(self, e: Any, visible: Callable[[Any], bool]) -> bool:
        """Whether every symbol of a formula has a value where nodes are written now."""
        todo = list(self.canon(e).free_symbols)
        while todo:
            symbol = todo.pop()
            if visible(symbol):
                continue
            if symbol not in self.definitions:
                return False
            todo += self.definitions[symbol].free_symbols
        return True

    # -- what was decided

    def _record(self, condition: Any, by_user: bool, check: bool) -> None:
        if isinstance(condition, And):
            for part in condition.args:
                self._record(part, by_user, check)
            return
        if isinstance(condition, sympy.Eq):
            opened = condition.xreplace(self.definitions)
            bound = _as_bound(opened)
            if bound is not opened:
                self._record(bound, by_user, True)
                side, other = (
                    (condition.lhs, condition.rhs)
                    if condition.lhs.is_Symbol
                    else (condition.rhs, condition.lhs)
                )
                if side in self.definitions:
                    self._put(side, other)
                return
            left, right = (condition.lhs / condition.rhs).as_numer_denom()
            left, right = (left, right) if not left.is_number else (right, left)
            if left.is_Symbol and right.is_Symbol:
                self._unify(left, right, by_user or check)
                return
            if right in (0, 1) and not condition.free_symbols <= frozenset(self.names):
                # A division came out as 1, as it does for a range of sizes: no reason to fix them.
                self._put_derived(condition, right)
                self.small.update(self.bases(condition))
                return
            if right.is_number and not by_user and self.of_data(condition):
                # torch compares a size that only the run knows with a number, to see whether operands fit:
                # where they do not, the operator fails in the graph too.
                self.held[condition] = Guard(condition, source_line(), False)
                if left.is_Symbol:
                    self._put(left, right)
                return
            if right.is_number and not condition.has(sympy.Mod, _functions().Mod, _functions().PythonMod):
                self._fix(left.free_symbols)  # what is on both sides may be of any size
                return
        if by_user or check:
            self.held[condition] = Guard(condition, source_line(), by_user)

    def _put_derived(self, equation: Any, value: Any) -> None:
        expanded = self.expand(equation)
        if expanded != True:  # noqa: E712  (a SymPy object)
            self.held[expanded] = Guard(expanded, source_line(), True)
        side = equation.lhs if equation.rhs == value else equation.rhs
        if side.is_Symbol:
            self._put(side, value)

    def _fix(self, symbols: Iterable[sympy.Symbol]) -> None:
        for s in sorted(symbols, key=str):
            if s in self.definitions:
                self._fix(self.bases(s))
                continue
            value = self.hint(s)
            if s not in self.names:
                raise ExportError(
                    f"a size that only the run knows would become the Python number {value} at "
                    f"{source_line()}. "
                    "Keep it as a tensor or a size: index, slice and reshape take it as it is."
                )
            self.fixed[s] = Fixed(int(value), source_line(), asked_by_user())
            self._put(s, value)

    def _unify(self, left: sympy.Symbol, right: sympy.Symbol, must: bool) -> None:
        order = list(self.names)
        if left in self.names and right in self.names:
            keep, drop = sorted((left, right), key=order.index)
            self.unified[drop] = (keep, source_line(), must)
            self._put(drop, keep)
            return
        equation = sympy.Eq(self.expand(left), self.expand(right))
        if equation != True:  # noqa: E712  (a SymPy object)
            equation = _as_bound(equation)
            self.held[equation] = Guard(equation, source_line(), False)
        keep, drop = (left, right) if left in self.names or right not in self.names else (right, left)
        self._put(drop, keep)

    def _put(self, symbol: Any, value: Any) -> None:
        self._replace = {
            k.xreplace({symbol: value}) if not k.is_Symbol else k: v.xreplace({symbol: value})
            for k, v in self._replace.items()
        }
        self._replace = {k: v for k, v in self._replace.items() if not k.is_number and k != v}
        self._replace[symbol] = value
        self._learned()
        numbers: dict[Any, Any] = {}
        for derived, definition in self.definitions.items():
            e = self.canon(definition)
            if not e.is_number:
                e = self.expand(derived)
            if e.is_number:
                numbers[derived] = self._replace[derived] = e
        if numbers:
            self._replace = {k: v.xreplace(numbers) for k, v in self._replace.items()}


def _as_bound(equation: Any) -> Any:
    """min(n, s) == s says s <= n; an equation that its definitions made true or false stays."""
    if not isinstance(equation, sympy.Eq):
        return equation
    for side, other in ((equation.lhs, equation.rhs), (equation.rhs, equation.lhs)):
        if isinstance(side, (sympy.Min, _functions().Min)) and other in side.args:
            rest = [a for a in side.args if a != other]
            return And(*[sympy.Le(other, a) for a in rest])
    return equation


@functools.lru_cache(maxsize=1)
def _functions() -> Any:
    from torch.utils._sympy import functions

    return functions


def floor_div(a: Any, b: Any) -> Any:
    """a // b as torch writes it."""
    return _functions().FloorDiv(a, b)


# Functions of torch.sym_* that have an operator of the same meaning.
_OPAQUE = {
    f"OpaqueUnaryFn_{name}": name.capitalize()
    for name in ("sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "asin", "acos", "atan", "exp", "log")
}


class SizeWriter:
    """Size formulas as ONNX nodes: every value is int64 (or float64) of shape [1], and made once."""

    def __init__(self, graph: GraphWriter, env: SizeEnv, journal: Journal) -> None:
        self.graph = graph
        self.env = env
        self.sources: dict[sympy.Symbol, tuple[ir.Value, int]] = Table(journal)
        self.scalars: dict[Any, ir.Value] = Table(journal)  # numbers computed from data: values of shape []
        self._made: dict[Any, ir.Value] = Table(journal)
        self._shapes: dict[tuple[Any, ...], ir.Value] = Table(journal)

    def dim(self, size: Any) -> ir.Value:
        """The size as a tensor of shape [1]."""
        return self.lower(self.env.expr(size))

    def scalar(self, size: Any) -> ir.Value:
        """The size as a tensor of shape []."""
        return self.scalar_of(self.env.expr(size))

    def scalar_of(self, e: Any) -> ir.Value:
        """A formula as a tensor of shape []."""
        if e in (sympy.true, sympy.false):
            return self.graph.const(bool(e), ir.DataType.BOOL)
        if e.is_number:
            return self.graph.const(int(e) if e.is_integer else float(e), _dtype(e))
        found = self._scalar(e)
        opposite = self._scalar(Not(e)) if isinstance(e, (BooleanFunction, Relational)) else None
        if found is None and opposite is not None:
            found = self.scalars[e] = self.graph.op("Not", opposite)
        if found is None and isinstance(e, (And, Or)):
            op_type = "And" if isinstance(e, And) else "Or"
            parts = [self.scalar_of(a) for a in e.args]
            found = self.scalars[e] = functools.reduce(lambda a, b: self.graph.op(op_type, a, b), parts)
        if found is None:
            found = self.scalars[e] = self.graph.op("Squeeze", self.lower(e), self.graph.const([0]))
        return found

    def _scalar(self, e: Any) -> ir.Value | None:
        """The value of shape [] that a formula has already, where the body being written may use it."""
        found = self.scalars.get(e)
        return found if found is not None and self.graph.visible(found) else None

    def equal(self, a: Any, b: Any) -> bool:
        """Whether two sizes are the same formula."""
        if isinstance(a, int) and isinstance(b, int):
            return a == b
        return bool(self.env.expr(a) == self.env.expr(b))

    def visible(self, symbol: Any) -> bool:
        """Whether a symbol has a value that the body being written may use."""
        if symbol in self.scalars:
            return self.graph.visible(self.scalars[symbol])
        return symbol in self.sources and self.graph.visible(self.sources[symbol][0])

    def in_scope(self, size: Any) -> bool:
        """Whether a size can be computed in the body that is being written."""
        return isinstance(size, int) or self.env.holds_outside(self.env.expr(size), self.visible)

    def number(self, size: Any) -> int | None:
        """The size as an int when it is static."""
        if isinstance(size, int):
            return size
        e = self.env.expr(size)
        return int(e) if e.is_number else None

    def shape(self, sizes: Sequence[Any]) -> ir.Value:
        """All sizes as one int64 tensor of shape [rank]."""
        key = tuple(self.env.expr(s) for s in sizes)
        found = self._shapes.get(key)
        if found is None or not self.graph.visible(found):
            found = self._shapes[key] = self._shape(key)
        return found

    def _shape(self, key: tuple[Any, ...]) -> ir.Value:
        if all(e.is_number for e in key):
            return self.graph.const([int(e) for e in key])
        sources = [self.sources.get(e) if e.is_Symbol else None for e in key]
        first = sources[0]
        if first is not None and all(s == (first[0], first[1] + i) for i, s in enumerate(sources)):
            return self.graph.op("Shape", first[0], start=first[1], end=first[1] + len(key))
        parts = [
            [self.graph.const([int(e) for e in run])] if static else [self.lower(e) for e in run]
            for static, run in (
                (k, list(r)) for k, r in itertools.groupby(key, key=lambda e: bool(e.is_number))
            )
        ]
        flat = [p for part in parts for p in part]
        return flat[0] if len(flat) == 1 else self.graph.op("Concat", *flat, axis=0)

    def lower(self, e: Any) -> ir.Value:
        """A SymPy formula as nodes."""
        found = self._made.get(e)
        if found is None or not self.graph.visible(found):
            if e in (sympy.true, sympy.false):
                return self.graph.const([bool(e)], ir.DataType.BOOL)
            if e.is_number:
                return self.graph.const([int(e) if e.is_integer else float(e)], _dtype(e))
            scalar = self._scalar(e)
            made = self.graph.op("Reshape", scalar, self.graph.const([1])) if scalar is not None else None
            found = self._made[e] = self._lower(e) if made is None else made
        return found

    def _lower(self, e: Any) -> ir.Value:
        g, f = self.graph, _functions()
        if e.is_Symbol:
            if e in self.env.stale:
                raise StaleRead(self.env.stale[e])
            if e not in self.sources and e in self.env.definitions:
                return self.lower(self.env.definitions[e])
            if e not in self.sources:
                raise ExportError(f"the size {e} does not come from any input or result at {source_line()}.")
            value, axis = self.sources[e]
            if axis < 0:  # a number computed in the graph, not a dimension
                return value
            return g.op("Shape", value, start=axis, end=axis + 1)
        if isinstance(e, sympy.Add):
            plus = [a for a in e.args if not a.could_extract_minus_sign()]
            minus = [-a for a in e.args if a.could_extract_minus_sign()]
            total = self._fold("Add", plus, e) if plus else g.const([0], _dtype(e))
            return g.op("Sub", total, self._fold("Add", minus, e)) if minus else total
        if isinstance(e, sympy.Mul):
            return self._fold("Mul", e.args, e)
        if isinstance(e, (sympy.Max, f.Max)):
            return self._fold("Max", e.args, e)
        if isinstance(e, (sympy.Min, f.Min)):
            return self._fold("Min", e.args, e)
        if isinstance(e, (f.FloorDiv, f.CleanDiv)):
            return self._floor_div(e.args[0], e.args[1])
        if isinstance(e, f.CeilToInt | f.FloorToInt | f.TruncToInt | f.RoundToInt):
            return self._to_int(e)
        if isinstance(e, (sympy.Mod, f.Mod, f.PythonMod)):
            return g.op("Mod", self.lower(e.args[0]), self.lower(e.args[1]))
        if isinstance(e, f.ModularIndexing):
            return g.op("Mod", self._floor_div(e.args[0], e.args[1]), self.lower(e.args[2]))
        if isinstance(e, f.ToFloat):
            return g.op("Cast", self.lower(e.args[0]), to=ir.DataType.DOUBLE)
        if isinstance(e, (f.FloatTrueDiv, f.IntTrueDiv)):
            return g.op("Div", self._double(e.args[0]), self._double(e.args[1]))
        if isinstance(e, f.PowByNatural):
            return g.op("Pow", self.lower(e.args[0]), self.lower(e.args[1]))
        if isinstance(e, sympy.Pow) and e.exp.is_Integer and e.exp > 0:
            return functools.reduce(lambda a, b: g.op("Mul", a, b), [self.lower(e.base)] * int(e.exp))
        if isinstance(e, (f.FloatPow, sympy.Pow)):
            return g.op("Pow", self._double(e.args[0]), self._double(e.args[1]))
        if isinstance(e, sympy.Abs):
            return g.op("Abs", self.lower(e.args[0]))
        if isinstance(e, Relational):
            return self._relation(e)
        if isinstance(e, Not):
            return g.op("Not", self.lower(e.args[0]))
        if isinstance(e, (And, Or)):
            op_type = "And" if isinstance(e, And) else "Or"
            return functools.reduce(lambda a, b: g.op(op_type, a, b), [self.lower(a) for a in e.args])
        if type(e).__name__ in _OPAQUE:
            return g.op(_OPAQUE[type(e).__name__], self._double(e.args[0]))
        if type(e).__name__ == "OpaqueUnaryFn_log2":
            return g.op(
                "Div", g.op("Log", self._double(e.args[0])), g.const([math.log(2)], ir.DataType.DOUBLE)
            )
        raise ExportError(
            f"the size formula {e} ({type(e).__name__}) has no ONNX form yet, at {source_line()}. "
            "Compute it from +, -, *, //, %, min, max, or make the dimension static with dynamic_shapes."
        )

    def _relation(self, e: Any) -> ir.Value:
        types: dict[type, str] = {
            sympy.Eq: "Equal",
            sympy.Gt: "Greater",
            sympy.Ge: "GreaterOrEqual",
            sympy.Lt: "Less",
            sympy.Le: "LessOrEqual",
        }
        whole = e.lhs.is_integer and e.rhs.is_integer
        lower = self.lower if whole else self._double
        a, b = lower(e.lhs), lower(e.rhs)
        if isinstance(e, sympy.Ne):
            return self.graph.op("Not", self.graph.op("Equal", a, b))
        return self.graph.op(types[type(e)], a, b)

    def _fold(self, op_type: str, args: Sequence[Any], whole: Any) -> ir.Value:
        lower = self.lower if whole.is_integer else self._double
        return functools.reduce(lambda a, b: self.graph.op(op_type, a, b), [lower(a) for a in args])

    def _double(self, e: Any) -> ir.Value:
        if e.is_number:
            return self.graph.const([float(e)], ir.DataType.DOUBLE)
        value = self.lower(e)
        return self.graph.op("Cast", value, to=ir.DataType.DOUBLE) if e.is_integer else value

    def _floor_div(self, a: Any, b: Any) -> ir.Value:
        g, x, y = self.graph, self.lower(a), self.lower(b)
        if not all(bool(self.env.bound_sympy(e).lower >= 0) for e in (a, b)):  # ONNX divides towards zero
            x = g.op("Sub", x, g.op("Mod", x, y))
        return g.op("Div", x, y)

    def _to_int(self, e: Any) -> ir.Value:
        rounding = {"CeilToInt": "Ceil", "FloorToInt": "Floor", "RoundToInt": "Round", "TruncToInt": None}
        value = self._double(e.args[0])
        op_type = rounding[type(e).__name__]
        if op_type:
            value = self.graph.op(op_type, value)
        return self.graph.op("Cast", value, to=ir.DataType.INT64)


def _dtype(e: Any) -> ir.DataType:
    return ir.DataType.INT64 if e.is_integer else ir.DataType.DOUBLE


def product(sizes: Iterable[Any]) -> Any:
    """The number of elements."""
    return functools.reduce(operator.mul, sizes, 1)
