"""Symbols that stand for sizes and numbers: what they are made of, and the numbers that recording takes for
them.
"""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch._guards import SLoc
from torch.fx.experimental.symbolic_shapes import ShapeEnv, ValueRangesSLoc
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges

from ingot.capture.bounds import functions
from ingot.capture.one_of import OneOf, told_apart

Size = int | torch.SymInt

# Hints for sizes that only the run knows (the number of selected rows …): unusual, so that they equal
# nothing else.
_UNKNOWN_SIZE_HINTS = (7, 11, 13, 17, 19, 29, 31, 37, 41, 43, 47, 53)

#: What SymPy and `math` raise where a formula has no value: a division by 0, the root of a number below 0.
UNDEFINED = (ZeroDivisionError, ValueError)

OPENED = 60  # parts of a formula over the dimensions of the inputs: beyond, parts keep names of their own

_NOWHERE = SLoc(None, None)

WORKED_OUT = 1 << 16  # numbers of formulas that are kept: branches ask for the same ones again and again


class StaleRead(BaseException):  # not an Exception: the model's own `except` clauses must not catch it
    """The model reads what an earlier call of it left behind."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label


@dataclass(eq=False, frozen=True)
class Moment:
    """A time in which the same is known of the sizes. That of a branch may come again.

    begins: of a branch, how much was written down when it began, as `SizeNotes.written_down` has it
    """

    begins: tuple[int, int] | None = None


@dataclass
class Memory:
    """What formulas were found to be, for as long as nothing else is put into them."""

    canonical: dict[Any, Any] = field(default_factory=dict[Any, Any])  # by themselves
    dims: dict[Any, Any] | None = None  # what `canon_dims` puts in
    expanded: dict[Any, Any] = field(default_factory=dict[Any, Any])
    answers: dict[Any, bool | None] = field(default_factory=dict[Any, "bool | None"])  # of `known`, by path


class SizeSymbols(ShapeEnv):
    """torch's shape environment, with symbols of our own and formulas over them."""

    def __init__(self) -> None:
        super().__init__(specialize_zero_one=False, duck_shape=False)
        self.names: dict[sympy.Symbol, str] = {}
        self.numbers: dict[sympy.Symbol, str] = {}  # inputs that are Python numbers to the model
        self.stale: dict[sympy.Symbol, str] = {}  # numbers that an earlier call left behind
        self.hints: dict[sympy.Symbol, Any] = {}
        # Sizes computed from others that have a symbol of their own.
        self.definitions: dict[sympy.Symbol, Any] = {}
        # Those that are one of two, as a branch on sizes decides; where that stands.
        self.chosen: dict[sympy.Symbol, Any] = {}
        self.truths: set[sympy.Symbol] = set()  # conditions that data decides
        self.either: dict[Any, str] = {}  # formulas of numbers of which data decides the kind: which kinds
        self.ranges: dict[sympy.Symbol, tuple[int, int | None]] = {}  # declared by the caller
        self.moment = Moment()  # another one whenever something else is known of the sizes
        self.decided: dict[Any, Any] = {}
        self.fitting: dict[Any, dict[sympy.Symbol, Any]] = {}  # hints found for a path and those before
        self.unlike: set[Any] = set()  # of these, what sizes that are equal in the example did not do for
        self.multiples: set[Any] = set()  # of these, what only multiples of the example's sizes are tried for
        self._declared_here = ValueRangesSLoc(_NOWHERE, _NOWHERE)
        self._replace: dict[Any, Any] = {}
        self._unknown_hints = itertools.cycle(_UNKNOWN_SIZE_HINTS)
        self._opened: dict[sympy.Symbol, tuple[Any, int]] = {}  # definitions over the inputs' dimensions
        self._bases: dict[sympy.Symbol, frozenset[sympy.Symbol]] = {}
        self._numbers = itertools.count()
        self._inside: dict[Any, tuple[sympy.Symbol, ...]] = {}  # the symbols in a formula
        self._worked_out: dict[Any, Any] = {}  # numbers of formulas, by the hints of these
        self.memory = Memory()  # of what follows from `_replace`, and from the definitions

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
            self.memory = Memory()
            self.chosen[size.node.expr] = None

    def derive(self, size: Size) -> Size:
        """A symbol of its own for a size with a division, minimum … in it, so that formulas over it stay
        short; the number for a size that is one, or has become one.

        Without this, SymPy spends minutes on the nested divisions of a deep network's feature maps.
        """
        if isinstance(size, int):
            return size
        e = self.canon(size.node.expr)
        if e.is_number:
            return int(e)
        if e.is_Symbol or e.is_polynomial():
            return size
        made = self.new_size(int(self.value(e)))
        symbol = made.node.expr
        self.definitions[symbol] = e
        self._replace[e] = symbol
        self.memory.canonical.clear()
        return made

    def _get_stack_summary(
        self, is_debug: bool = False, framework_loc: str | None = None
    ) -> tuple[SLoc, str]:
        """Where torch's logs say that a symbol was made: nobody reads it, and to leave out its own files
        torch imports all of `torch.export`.
        """
        del is_debug, framework_loc
        return _NOWHERE, ""

    def _declare(self, symbol: Any, low: int, high: int | None) -> None:
        """The range of a symbol."""
        self.var_to_range[symbol] = ValueRanges(low, int_oo if high is None else high)
        self.var_to_range_sloc[symbol] = self._declared_here

    def declare_range(self, size: torch.SymInt, low: int, high: int | None) -> None:
        """The caller says that an input's size is within a range."""
        self._declare(size.node.expr, low, high)
        self.ranges[size.node.expr] = low, high
        self.memory = Memory()
        self.learned()

    def learned(self) -> None:
        """What was decided before may be decided in another way now."""
        self.decided.clear()
        self.moment = Moment()

    def canon(self, expression: Any) -> Any:
        """The formula with fixed and unified dimensions put in, and derived sizes by their symbol."""
        if not self._replace:
            return expression
        found = self.memory.canonical.get(expression)
        if found is None:
            found = self.memory.canonical[expression] = expression.xreplace(self._replace)
        return found

    def expand(self, expression: Any) -> Any:
        """The formula over the dimensions of the inputs; over sizes made from them where it would be long."""
        found = self.memory.expanded.get(expression)
        if found is None:
            opened = {t: self._open(t)[0] for t in expression.free_symbols if t in self.definitions}
            found = self.canon_dims(expression.xreplace(opened) if opened else expression)
            found = told_apart(found) if found.has(OneOf) else found
            self.memory.expanded[expression] = found
        return found

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

    def canon_dims(self, expression: Any) -> Any:
        """Fixed and unified dimensions put in, and sizes that are numbers by now."""
        known = self.memory.dims
        if known is None:
            known = {s: v for s, v in self._replace.items() if s in self.names or v.is_number}
            self.memory.dims = known
        return expression.xreplace(known) if known else expression

    def _replace_with(self, replace: dict[Any, Any]) -> None:
        """Other formulas take the place of symbols and formulas from here on."""
        self._replace, self.memory = replace, Memory()

    @contextlib.contextmanager
    def doubting(self) -> Generator[None]:
        """Formulas are what the dimensions of the inputs make them, whatever was written down of them: a
        condition does not prove itself.
        """
        kept = self._replace, self.memory
        self._replace_with({s: v for s, v in self._replace.items() if s in self.names})
        try:
            yield
        finally:
            self._replace, self.memory = kept

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

    def _made_of(self, expression: Any) -> list[sympy.Symbol]:
        """The symbols in a formula, and in the definitions of these."""
        found: dict[sympy.Symbol, None] = {}
        todo = sorted(expression.free_symbols, key=str)
        while todo:
            symbol = todo.pop()
            if symbol not in found:
                found[symbol] = None
                todo += sorted(getattr(self.definitions.get(symbol), "free_symbols", ()), key=str)
        return list(found)

    def is_chosen(self, size: Any) -> bool:
        """Whether a size is one or another, as a branch or data decides: 1 for some inputs only, perhaps."""
        e = self.expr(size)
        return not e.is_number and (self.of_data(e) or self.expand(e).has(OneOf))

    def of_inputs(self, size: Any) -> bool:
        """Whether the sizes of the inputs decide a size, and no element of them."""
        return all(s in self.names for s in self.bases(self.expr(size)))

    def of_data(self, e: Any) -> bool:
        """Whether a formula has anything in it but sizes of the inputs."""
        return not all(s in self.names for s in self.bases(e))

    def is_plain(self, condition: Any) -> bool:
        """Whether sizes for either answer are found at once: no divisions or remainders are in it."""
        return not self.expand(condition).atoms(sympy.Function)

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

    def at(self, sizes: Mapping[Any, Any]) -> dict[Any, Any]:
        """Every symbol that is known where the dimensions of the inputs (those that are free) have these
        sizes: what a formula is evaluated with.
        """
        known: dict[Any, Any] = {s: self.canon_dims(s).xreplace(sizes) for s in self.names} | {**sizes}
        for symbol, definition in self.definitions.items():
            known[symbol] = definition.xreplace(known)
        return known

    def expr(self, size: Any) -> Any:
        """The SymPy formula of an int, SymInt, SymFloat or SymBool."""
        if isinstance(size, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self.canon(size.node.expr)
        return sympy.sympify(size)

    def size(self, e: Any) -> Any:
        """A formula as a size: an int where it is a number."""
        e = self.canon(e)
        if e.is_number:
            return int(e)
        return self.create_symintnode(e, hint=int(self.value(e)))

    def place(self, bound: Any, length: Any) -> Any:
        """Where a slice's bound is, from the beginning: one below 0 counts from the end."""
        from_end, from_start = sympy.Max(bound + length, 0), sympy.Min(bound, length)
        return OneOf(self.canon(bound < 0), from_end, from_start)

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
        symbols = self._inside.get(expression)
        if symbols is None:
            symbols = self._inside[expression] = tuple(expression.free_symbols)
        question = expression, tuple(map(self.hint, symbols))
        found = self._worked_out.get(question)
        if found is None:
            if len(self._worked_out) > WORKED_OUT:
                self._worked_out.clear()
            found = expression.xreplace(dict(zip(symbols, question[1], strict=True)))
            self._worked_out[question] = found
        return found

    def value_or_none(self, expression: Any) -> Any:
        """The same; None where it has none, behind a condition that does not hold for the hints."""
        try:
            return self.value(expression)
        except UNDEFINED:
            return None

    def derive_hints(self, symbols: Iterable[sympy.Symbol]) -> None:
        """The hints of sizes with definitions, as the hints of the others make them."""
        for symbol in symbols:
            self.hints[symbol] = self.value(self.definitions[symbol])

    def put(self, symbol: Any, value: Any) -> None:
        """A symbol or formula is the other formula from here on."""
        moved: dict[Any, Any] = {}
        became: dict[Any, Any] = {}  # derived sizes that are plain ones now: the least of two that are equal
        for k, v in self._replace.items():
            formula, made = k if k.is_Symbol else k.xreplace({symbol: value}), v.xreplace({symbol: value})
            if formula.is_Symbol and not k.is_Symbol and made in self.definitions:
                became[made] = formula
            elif not formula.is_number and formula != made:
                moved[formula] = made
        moved = {k: v.xreplace(became) for k, v in moved.items()} | became
        self._replace_with(moved | {symbol: value.xreplace(became)})
        self.learned()
        numbers: dict[Any, Any] = {}
        for derived, definition in self.definitions.items():
            e = self.canon(definition)
            if not e.is_number:
                e = self.expand(derived)
            if e.is_number:
                numbers[derived] = e
                self._replace_with({**self._replace, derived: e})
        if numbers:
            self._replace_with({k: v.xreplace(numbers) for k, v in self._replace.items()})


def floor_div(a: Any, b: Any) -> Any:
    """a // b as torch writes it."""
    return functions().FloorDiv(a, b)


def product(sizes: Iterable[Any]) -> Any:
    """The number of elements."""
    return functools.reduce(operator.mul, sizes, 1)
