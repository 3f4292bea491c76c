"""Symbolic sizes, and which guards the model's Python and torch put on them."""

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
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, BooleanFunction, Not, Or
from torch.fx.experimental.symbolic_shapes import ShapeEnv, ValueRangesSLoc
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from ingot.capture.bounds import INEQUALITIES, as_bound, bounds_of, follows, functions, implied, line_of
from ingot.capture.floats import Comparison
from ingot.capture.one_of import OneOf, told_apart
from ingot.capture.where import asked_by_user, given, source_line, torch_expects
from ingot.errors import ExportError

Size = int | torch.SymInt

# Hints for sizes that only the run knows (the number of selected rows …): unusual, so that they equal
# nothing else.
_UNKNOWN_SIZE_HINTS = (7, 11, 13, 17, 19, 29, 31, 37, 41, 43, 47, 53)


# Operators that fail in ONNX, or have no result of the size that others want, where torch's own refuse sizes.
# Others may give something: a slice that ends behind the last element ends with it.
_STRICT = frozenset(
    (
        "convolution", "conv1d", "conv2d", "conv3d", "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d",
        "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "mm", "bmm",
        "addmm", "baddbmm", "matmul", "linear", "__matmul__", "dot", "mv", "einsum", "view", "reshape",
        "_unsafe_view", "unflatten", "flatten", "split", "split_with_sizes", "index_select", "gather",
        "select", "__getitem__", "topk", "kthvalue", "cat", "concat", "stack", "repeat", "add", "sub",
        "mul", "div", "where", "__add__", "__sub__", "__mul__", "__truediv__", "zeros", "ones", "empty",
        "full", "new_zeros", "new_ones", "new_full", "scaled_dot_product_attention", "embedding",
        "layer_norm", "rms_norm", "batch_norm", "softmax",
    )
)  # fmt: skip
_WRITES = frozenset(("__setitem__", "copy_", "index_put_"))


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
    demanded: bool = False  # where it does not hold, nothing in the graph would fail by itself
    text: str = ""  # what is demanded, in words of the user's
    under: tuple[Any, ...] = ()  # conditions of the branches that it stands in

    @property
    def whole(self) -> Any:
        """What must hold of all sizes: the condition, where the branch that it stands in is taken."""
        return sympy.Or(self.condition, *map(Not, self.under))


@dataclass(frozen=True)
class Fixed:
    """A dimension that can only have one size."""

    size: int
    where: str
    by_user: bool


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
        self.chosen: dict[
            sympy.Symbol, Any
        ] = {}  # those that are one of two, as a branch on sizes decides; where that stands
        self.on_chosen: Callable[[Any], None] | None = (
            None  # called before one of these must be something else
        )
        self.fixed: dict[sympy.Symbol, Fixed] = {}
        self.unified: dict[
            sympy.Symbol, tuple[sympy.Symbol, str, bool]
        ] = {}  # kept, line, whether nothing else can do: the user asked, or an operator raises otherwise
        self.held: dict[Any, Guard] = {}
        self.small: dict[Any, set[sympy.Symbol]] = {}  # sizes that are 1 in the example: of which dimensions
        self.asked: list[Any] = []  # conditions on sizes that became branches
        self.on_int: Callable[[Any], None] | None = None  # called before a size becomes a Python number
        self.on_branch: Callable[[Any], None] | None = None  # called before the user's Python takes a branch
        self.on_check: Callable[[Any], bool] | None = None  # the user's own torch._check
        self.truths: set[sympy.Symbol] = set()  # conditions that data decides
        self.ranges: dict[sympy.Symbol, tuple[int, int | None]] = {}  # declared by the caller
        self.operators: list[str] = []  # whose calls are going on
        self.imagined = 0  # how many calls are going on that only say what their results look like
        self.leaned: set[sympy.Symbol] = set()  # whose declared range something was decided by
        self.either: dict[sympy.Symbol, str] = {}  # numbers of which data decides the kind: which kinds
        self.moment = object()  # another one whenever something else is known of the sizes
        self.path: list[Any] = []  # conditions under which the body that is being recorded runs
        here = self._get_sloc()
        self._declared_here = ValueRangesSLoc(here, here)
        self._replace: dict[Any, Any] = {}
        self._unknown_hints = itertools.cycle(_UNKNOWN_SIZE_HINTS)
        self.decided: dict[Any, Any] = {}
        self._opened: dict[sympy.Symbol, tuple[Any, int]] = {}  # definitions over the inputs' dimensions
        self._bases: dict[sympy.Symbol, frozenset[sympy.Symbol]] = {}
        self.fitting: dict[Any, dict[sympy.Symbol, Any]] = {}  # hints found for a path and those before
        self._numbers = itertools.count()
        self._bounds_of: tuple[Any, int, dict[Any, tuple[Any, Any]]] = (None, 0, {})

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
            self.chosen[size.node.expr] = None

    def _declare(self, symbol: Any, low: int, high: int | None) -> None:
        """The range of a symbol."""
        self.var_to_range[symbol] = ValueRanges(low, int_oo if high is None else high)
        self.var_to_range_sloc[symbol] = self._declared_here

    def declare_range(self, size: torch.SymInt, low: int, high: int | None) -> None:
        """The caller says that an input's size is within a range."""
        self._declare(size.node.expr, low, high)
        self.ranges[size.node.expr] = low, high
        self.learned()

    def learned(self) -> None:
        """What was decided before may be decided in another way now."""
        self.decided.clear()
        self.moment = object()

    def canon(self, expression: Any) -> Any:
        """The formula with fixed and unified dimensions put in, and derived sizes by their symbol."""
        return expression.xreplace(self._replace) if self._replace else expression

    def expand(self, expression: Any) -> Any:
        """The formula over the dimensions of the inputs; over sizes made from them where it would be long."""
        opened = {t: self._open(t)[0] for t in expression.free_symbols if t in self.definitions}
        found = self.canon_dims(expression.xreplace(opened) if opened else expression)
        return told_apart(found) if found.has(OneOf) else found

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

    @contextlib.contextmanager
    def doubting(self) -> Generator[None]:
        """Formulas are what the dimensions of the inputs make them, whatever was written down of them: a
        condition does not prove itself.
        """
        kept = self._replace
        self._replace = {s: v for s, v in kept.items() if s in self.names}
        try:
            yield
        finally:
            self._replace = kept

    def is_plain(self, condition: Any) -> bool:
        """Whether sizes for either answer are found at once: no divisions or remainders are in it."""
        return not self.expand(condition).atoms(sympy.Function)

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

    def demand(self, condition: Any, text: str) -> None:
        """The model is another one where a condition on sizes does not hold: the graph must check it."""
        made = Guard(condition, source_line(), False, True, text, tuple(self.path))
        self.held[made.whole] = made

    def learn(self, condition: Any) -> None:
        """The model goes on only where this holds: a size that only the run knows may be another one's."""
        for part in condition.args if isinstance(condition, And) else (condition,):
            if not isinstance(part, sympy.Eq):
                continue
            for side, other in (part.args, part.args[::-1]):
                if side.is_Symbol and self.of_data(side) and not self.of_data(other):
                    self.put(side, other)
                    break

    def _lean(self, e: Any) -> None:
        """Something was decided about a formula: by a declared range, unless it is so for all sizes."""
        for symbol in self.bases(e) & self.ranges.keys() - self.leaned:
            opened = self.expand(e)
            free = {symbol: ValueRanges(0, int_oo)}
            if opened.has(OneOf) or not bound_sympy(opened, free).is_singleton():
                self.leaned.add(symbol)

    # -- torch's entry points

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

    def of_data(self, e: Any) -> bool:
        """Whether a formula has anything in it but sizes of the inputs."""
        return not all(s in self.names for s in self.bases(e))

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
        """The same of the numbers that its sizes are made of, as the condition says itself: a size of 8."""
        numbers = sorted(int(n) for n in e.atoms(sympy.Integer) if n >= 0)
        for symbol in sorted((s for s in self.bases(e) - self.names.keys() - self.numbers.keys()), key=str):
            before = self.hint(symbol)
            for n in numbers:
                self.hints[symbol] = sympy.Integer(n)
                self.derive_hints(self.definitions)
                if self._agrees(e):
                    return
            self.hints[symbol] = before
        self.derive_hints(self.definitions)

    def _agrees(self, e: Any) -> bool:
        """Whether a condition holds by the hints; nothing is divided by 0."""
        try:
            return bool(self.value(e) == True)  # noqa: E712  (a SymPy object)
        except ZeroDivisionError:
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

    @contextlib.contextmanager
    def imagining(self) -> Generator[None]:
        """What is asked meanwhile is about how a result looks, and decides nothing about what is recorded."""
        self.imagined += 1
        try:
            yield
        finally:
            self.imagined -= 1

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

    def known(self, e: Any) -> bool | None:
        """Whether a condition holds for all sizes in the declared ranges, or in the branch being recorded."""
        e = self.canon(e)
        if e in (sympy.true, sympy.false):
            return bool(e)
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
                found = self._maybe_evaluate_static(form, axioms=tuple(self.path) or None)
            if found is None:
                bounds = self.bound_sympy(form)
                found = bounds.lower if bounds.is_singleton() else None
                if found is not None and self.ranges:
                    self._lean(form)
            if found is not None:
                return bool(found)
        return None

    def _follows(self, e: Any) -> bool | None:
        """Whether an inequality of one size follows from the conditions of the branch being recorded."""
        opened = self.expand(e) if self.path else e
        if not self.path or not isinstance(opened, INEQUALITIES):
            return None
        return follows(opened, bounds_of(map(self.expand, self.path)))

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

    def certain(self, e: Any) -> bool | None:
        """Whether an inequality is known to hold, or follows from what was written down."""
        found = self.known(e)
        return self._implied(e) if found is None else found

    def signed(self, e: Any) -> bool:
        """Whether it is known on which side of 0 a formula always is."""
        return any(self.certain(c) is not None for c in (e >= 0, e < 0))

    def place(self, bound: Any, length: Any) -> Any:
        """Where a slice's bound is, from the beginning: one below 0 counts from the end."""
        from_end, from_start = sympy.Max(bound + length, 0), sympy.Min(bound, length)
        return OneOf(self.canon(bound < 0), from_end, from_start)

    def take(self, e: Any) -> bool:
        """Decide the user's own condition by the hints after all, and write it down."""
        holds = bool(self.value(e))
        self._record(e if holds else Not(e), True, False)
        return holds

    # -- branches and loops

    def derive_hints(self, symbols: Iterable[sympy.Symbol]) -> None:
        """The hints of sizes with definitions, as the hints of the others make them."""
        for symbol in symbols:
            self.hints[symbol] = self.value(self.definitions[symbol])

    def saved(self) -> Any:
        """What a branch may change, to be given to `restore`."""
        return dict(self._replace), dict(self.fixed), dict(self.unified), self.moment

    def restore(self, saved: Any) -> None:
        """Forget what was known in a branch only; dimensions that it fixed for good stay so."""
        self._replace, fixed, unified, self.moment = saved
        self.decided.clear()
        for symbol, found in self.fixed.items():
            if symbol not in fixed:
                self.put(symbol, sympy.Integer(found.size))
        for drop, (keep, _, _) in self.unified.items():
            if drop not in unified:
                self.put(drop, self.canon_dims(keep))

    def notes(self) -> Any:
        """What was written down so far, to be given to `forget`."""
        return dict(self.held), dict(self.fixed), dict(self.unified), dict(self._replace), dict(self.small)

    def forget(self, notes: Any) -> None:
        """Only this was written down."""
        self.held, self.fixed, self.unified, self._replace, self.small = notes
        self.learned()

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
            bound = as_bound(opened)
            if bound is not opened:
                self._record(bound, by_user, True)
                side, other = (
                    (condition.lhs, condition.rhs)
                    if condition.lhs.is_Symbol
                    else (condition.rhs, condition.lhs)
                )
                if side in self.definitions:
                    self.put(side, other)
                return
            if not by_user:
                self._narrows(condition)
            left, right = (condition.lhs / condition.rhs).as_numer_denom()
            left, right = (left, right) if not left.is_number else (right, left)
            if left.is_Symbol and right.is_Symbol:
                self._unify(left, right, by_user or check)
                return
            if right in (0, 1) and not condition.free_symbols <= frozenset(self.names):
                # A division came out as 1, as it does for a range of sizes: no reason to fix them.
                self.small[self.expand(condition)] = self.bases(condition)
                self._put_derived(condition, right)
                return
            if right.is_number and not by_user and self.of_data(condition):
                # torch compares a size that only the run knows with a number, to see whether operands fit:
                # where they do not, the operator fails in the graph too.
                self._hold(condition, False, False)
                if left.is_Symbol:
                    self.put(left, right)
                return
            chosen = left.is_Symbol and self.expand(left).has(OneOf)
            if right.is_number and left.is_Symbol and (self.path or chosen) and not by_user:
                # On one side of a branch only, or where one has chosen the size: it is free on the other one.
                self._hold(condition, False, not self._fails_by_itself())
                self.put(left, right)
                return
            if right.is_number and not condition.has(sympy.Mod, functions().Mod, functions().PythonMod):
                self._fix(left.free_symbols)  # what is on both sides may be of any size
                return
        if by_user or check:
            lenient = not by_user and not self._fails_by_itself()
            self._hold(condition, by_user, lenient)

    def _narrows(self, e: Any) -> None:
        """Something must be a number, or another size: what a branch on sizes chose is known in its sides."""
        if self.chosen and self.on_chosen is not None:
            for symbol in self._made_of(e):
                if self.chosen.get(symbol) is not None:
                    self.on_chosen(self.chosen[symbol])

    def _hold(self, condition: Any, by_user: bool, lenient: bool) -> None:
        """Write a condition down, for the branch that is being recorded."""
        made = Guard(condition, source_line(), by_user, lenient, under=tuple(self.path))
        if made.whole != True and not self._follows(condition):  # noqa: E712  (a SymPy object)
            self.held[made.whole] = made

    def _fails_by_itself(self) -> bool:
        """Whether the operators that ask something fail in ONNX too where it does not hold."""
        inner = self.operators[-1] if self.operators else ""
        return inner in _STRICT and _WRITES.isdisjoint(self.operators)

    def _put_derived(self, equation: Any, value: Any) -> None:
        expanded = self.expand(equation)
        if expanded != True:  # noqa: E712  (a SymPy object)
            self._hold(expanded, True, False)
        side = equation.lhs if equation.rhs == value else equation.rhs
        if side.is_Symbol:
            self.put(side, value)

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
            self.put(s, value)

    def _unify(self, left: sympy.Symbol, right: sympy.Symbol, must: bool) -> None:
        order = list(self.names)
        if left in self.names and right in self.names:
            keep, drop = sorted((left, right), key=order.index)
            self.unified[drop] = (keep, source_line(), must)
            self.put(drop, keep)
            return
        equation = sympy.Eq(self.expand(left), self.expand(right))
        if equation != True:  # noqa: E712  (a SymPy object)
            equation = as_bound(equation)
            self._hold(equation, False, not self._fails_by_itself())
        keep, drop = (left, right) if left in self.names or right not in self.names else (right, left)
        self.put(drop, keep)

    def put(self, symbol: Any, value: Any) -> None:
        """A symbol or formula is the other formula from here on."""
        self._replace = {
            k.xreplace({symbol: value}) if not k.is_Symbol else k: v.xreplace({symbol: value})
            for k, v in self._replace.items()
        }
        self._replace = {k: v for k, v in self._replace.items() if not k.is_number and k != v}
        self._replace[symbol] = value
        self.learned()
        numbers: dict[Any, Any] = {}
        for derived, definition in self.definitions.items():
            e = self.canon(definition)
            if not e.is_number:
                e = self.expand(derived)
            if e.is_number:
                numbers[derived] = self._replace[derived] = e
        if numbers:
            self._replace = {k: v.xreplace(numbers) for k, v in self._replace.items()}


def floor_div(a: Any, b: Any) -> Any:
    """a // b as torch writes it."""
    return functions().FloorDiv(a, b)


def product(sizes: Iterable[Any]) -> Any:
    """The number of elements."""
    return functools.reduce(operator.mul, sizes, 1)
