"""What is written down of sizes: conditions that held, dimensions that are one number, or one another's."""

# SymPy and torch's shape environment are untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportIncompatibleMethodOverride=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import sympy
from sympy.logic.boolalg import And

from ingot.capture.bounds import as_bound, functions
from ingot.capture.one_of import OneOf
from ingot.capture.size_facts import Guard, SizeFacts
from ingot.capture.size_symbols import UNDEFINED, Moment
from ingot.capture.where import asked_by_user, source_line
from ingot.errors import ExportError

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
#: Those of them that repeat what has a size of 1, in ONNX as in torch.
_REPEATING = frozenset(
    (
        "add", "sub", "mul", "div", "where", "__add__", "__sub__", "__mul__", "__truediv__", "matmul",
        "__matmul__", "scaled_dot_product_attention", "batch_norm", "layer_norm", "rms_norm",
    )
)  # fmt: skip
#: How many times larger a dimension is tried than the example's.
_TIMES = (2, 3, 5)
_WRITES = frozenset(("__setitem__", "copy_", "index_put_"))


@dataclass(frozen=True)
class Fixed:
    """A dimension that can only have one size."""

    size: int
    where: str
    by_user: bool


class SizeNotes(SizeFacts):
    """What is known of sizes, and what was written down of them.

    torch would narrow a symbol silently once a guard has been taken. Here a guard is recorded with the line
    that asked; an equation with a number fixes its dimensions, an equation between two dimensions unifies
    them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fixed: dict[sympy.Symbol, Fixed] = {}
        # Kept, line, whether nothing else can do: the user asked, or an operator raises otherwise.
        self.unified: dict[sympy.Symbol, tuple[sympy.Symbol, str, bool]] = {}
        self.small: dict[Any, set[sympy.Symbol]] = {}  # sizes that are 1 in the example: of which dimensions
        self.operators: list[str] = []  # whose calls are going on
        self.unfit: Any = None  # why operands did not fit that torch has last refused
        self._branches: dict[Any, Moment] = {}  # the moments at which branches begin, by what is known then
        self.on_chosen: Callable[[Any], None] | None = None  # called before a `chosen` one must be another

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

    def takes_refusal(self) -> None:
        """An operator raises for these sizes: where the model goes on all the same, that is its way."""
        if self.unfit is not None:
            made = Guard(self.unfit, source_line(), True, under=tuple(self.path))
            self.held[made.whole], self.unfit = made, None

    def learn(self, condition: Any) -> None:
        """The model goes on only where this holds: a size that only the run knows may be another one's."""
        for part in condition.args if isinstance(condition, And) else (condition,):
            if not isinstance(part, sympy.Eq):
                continue
            for side, other in (part.args, part.args[::-1]):
                if side.is_Symbol and self.of_data(side) and not self.of_data(other):
                    self.put(side, other)
                    break

    def saved(self) -> Any:
        """What a branch may change, to be given to `restore`."""
        return dict(self._replace), dict(self.fixed), dict(self.unified), self.moment

    def restore(self, saved: Any) -> None:
        """Forget what was known in a branch only; dimensions that it fixed for good stay so."""
        replace, fixed, unified, self.moment = saved
        self._replace_with(replace)
        self.decided.clear()
        for symbol, found in self.fixed.items():
            if symbol not in fixed:
                self.put(symbol, sympy.Integer(found.size))
        for drop, (keep, _, _) in self.unified.items():
            if drop not in unified:
                self.put(drop, self.canon_dims(keep))

    def notes(self) -> Any:
        """What was written down so far, to be given to `forget`."""
        tables = self.held, self.fixed, self.unified, self._replace, self.small
        return *map(dict, tables), self.moment

    def forget(self, notes: Any) -> None:
        """Only this was written down, and is known."""
        self.held, self.fixed, self.unified, replace, self.small, self.moment = notes
        self._replace_with(replace)
        self.decided.clear()

    def written_down(self) -> tuple[int, int]:
        """How much was."""
        return len(self.held), len(self.small)

    def begin_branch(self, since: Moment, condition: Any) -> None:
        """What is known in a branch is what was known before, since that moment, and its condition: the same
        as in another one that begins so.
        """
        hints = tuple(self.hints[s] for s in self.names)
        known = since, condition, hints, tuple(self.path), tuple(self.held), tuple(self.small)
        self.moment = self._branches.setdefault(known, Moment(self.written_down()))

    def _record(self, condition: Any, by_user: bool, check: bool) -> None:
        if isinstance(condition, And):
            for part in condition.args:
                self._record(part, by_user, check)
            return
        if condition in self.path:  # it holds wherever this is recorded, and nowhere else has it to
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
                # where they do not, the operator fails in the graph too, but for sizes of 1.
                self._hold(condition, False, self._may_repeat(condition))
                if left.is_Symbol:
                    self.put(left, right)
                return
            chosen = left.is_Symbol and self.expand(left).has(OneOf)
            if right.is_number and left.is_Symbol and (self.path or chosen) and not by_user:
                # On one side of a branch only, or where one has chosen the size: it is free on the other one.
                self._hold(condition, False, not self._fails_by_itself(condition))
                self.put(left, right)
                return
            if right.is_number and not condition.has(sympy.Mod, functions().Mod, functions().PythonMod):
                free = set[sympy.Symbol]() if by_user else self._not_fixed_by(condition)
                self._fix(s for s in self.bases(left) if s not in free)
                if not free:
                    return  # what is on both sides may be of any size
                self._hold(condition, False, not self._fails_by_itself(condition))
                if left.is_Symbol:
                    self.put(left, right)
                return
        if by_user or check:
            lenient = not by_user and not self._fails_by_itself(condition)
            self._hold(condition, by_user, lenient)

    def _not_fixed_by(self, equation: Any) -> set[sympy.Symbol]:
        """Dimensions for other sizes of which an equation holds as well: multiples of the example's, which
        have all divisors that the example's has. A block of an image that is cut into blocks has as many
        pixels in a larger image, and no formula says so where something may be left over; numbers that are
        given for each row of a batch make as many features in a larger batch, where there are more of them.
        """
        dims = self.bases(equation)
        if equation.free_symbols.isdisjoint(self.definitions) or not dims <= self.names.keys():
            return set()
        now = {s: self.hint(s) for s in self.names}

        def holds(symbols: Iterable[sympy.Symbol], times: int) -> bool:
            sizes = now | {s: sympy.Max(now[s], 1) * times for s in symbols}
            try:
                return bool(equation.xreplace(self.at(sizes)) == True)  # noqa: E712  (a SymPy object)
            except UNDEFINED:
                return False

        def free(*symbols: sympy.Symbol) -> bool:
            return all(holds(symbols, times) for times in _TIMES)

        alone = {s for s in dims if free(s)}
        return alone.union(*(pair for pair in itertools.combinations(dims - alone, 2) if free(*pair)))

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

    def _fails_by_itself(self, condition: Any) -> bool:
        """Whether the operators that ask whether this holds fail in ONNX too where it does not."""
        inner = self.operators[-1] if self.operators else ""
        return inner in _STRICT and _WRITES.isdisjoint(self.operators) and not self._may_repeat(condition)

    def _may_repeat(self, condition: Any) -> bool:
        """Whether the operator that asks would repeat one of two sizes that are not equal: it may be 1."""
        inner = self.operators[-1] if self.operators else ""
        equations = condition.args if isinstance(condition, sympy.Or) else (condition,)
        sizes = [n for e in equations if isinstance(e, sympy.Eq) for n in e.args if not n.is_number]
        return inner in _REPEATING and any(self.known(sympy.Eq(n, 1)) is not False for n in sizes)

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
            self._hold(equation, False, not self._fails_by_itself(equation))
        keep, drop = (left, right) if left in self.names or right not in self.names else (right, left)
        self.put(drop, keep)
