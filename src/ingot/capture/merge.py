"""Two values of one variable, from the two sides of a branch, as one: the slots of an If that this needs."""

# Values may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import onnx_ir as ir
import torch

from ingot.capture import complex_numbers, endless, extent, gradients, structure, unwritten
from ingot.capture.choice import Choice, Maybe, Undecided, Unordered
from ingot.capture.dicts import TracedDict, in_order
from ingot.capture.lists import Rows, TracedList
from ingot.capture.mixed import either, may_stand_for, note, number_of
from ingot.capture.nested import formed
from ingot.capture.objects import held_as, held_in, is_a, is_of_attributes
from ingot.capture.one_of import OneOf
from ingot.capture.request import ACTIVE
from ingot.capture.runs import LEAF, Even, Many, Perhaps, axes_of, is_element, joined, nothing
from ingot.capture.scalars import DTYPE, Symbolic, counts_as, is_own, kind_of, kinds_of, number
from ingot.capture.scope import Scope, is_around
from ingot.capture.sharing import Joins
from ingot.capture.sharing import around as memories_around
from ingot.capture.structure import alike, mapped, parts_of, rebuilt
from ingot.capture.tags import followed, put, tags
from ingot.capture.where import quoted_line, raise_if_ours
from ingot.capture.words import Word, chosen, is_plain, is_thing, leaves_of

if TYPE_CHECKING:
    from ingot.capture.entries import Entry
    from ingot.capture.record import Recorder


_DICTS = (dict, Unordered, TracedDict)
_Make = Callable[[ir.Value], torch.Tensor]


class _Unbound:
    """Stands for a variable that has no value."""

    def __repr__(self) -> str:
        return "no value"


UNBOUND = _Unbound()


class Unmergeable(Exception):
    """No ONNX value can hold both; the message says what they are, `edit` what to do."""

    def __init__(self, what: str, edit: str | None = None) -> None:
        super().__init__(what)
        self.edit = edit or (
            "Give both sides the same kind of value: tensors of one dtype and rank, or numbers of one type."
        )


@dataclass
class Side:
    """One side of a branch after it was recorded."""

    scope: Scope
    error: Exception | None = None  # what the side raises, always
    variables: dict[str, Any] = field(default_factory=dict[str, Any])
    result: Any = None
    contents: list[Any] = field(default_factory=list[Any])
    values: dict[Any, ir.Value] = field(default_factory=dict[Any, ir.Value])  # in the graph, of leaves
    parts: dict[int, Any] = field(default_factory=dict[int, Any])  # real tensors of complex ones
    outer: dict[Any, Any] = field(default_factory=dict[Any, Any])  # memories around that entries may be

    def lower(self, g: Recorder, value: Any) -> None:
        """Note the graph's value of every tensor and symbolic number in `value`, inside the side."""
        for v in structure.inside(value):
            if is_a(v, torch.Tensor) and v.is_complex():
                self.parts[id(v)] = complex_numbers.parts(g, v)
                self.lower(g, self.parts[id(v)])
            elif is_a(v, torch.Tensor):
                around = is_around(g.entry(v).group, self.scope.body)
                if not around and g.entry(v).group.links:
                    self.outer[g.entry(v)] = memories_around(g.entry(v), self.scope.body)
                with g.passing_on() if around else contextlib.nullcontext():
                    self.values[id(v)] = g.val(v)
                    self._lower_view(g, g.entry(v))
            elif is_a(v, Symbolic):  # of which more may be known in the side than around it
                self.values[g.env.expr(v)] = self.values[id(v)] = g.scalar(v)

    def _lower_view(self, g: Recorder, e: Entry) -> None:
        """Note what a view is made from inside the side."""
        while e.view is not None:
            for a in e.view.args:
                if isinstance(a, torch.SymInt) and g.env.of_data(g.env.expr(a)):
                    self.values[g.env.expr(a)] = g.scalar(a)
            e = e.view.parent
            if e.view is None and not is_around(e.group, self.scope.body):
                self.values[id(e.tensor)] = g.val_of(e)


@dataclass
class Slot:
    """One output of the If, and what its value becomes in Python."""

    make: Callable[[ir.Value], Any]
    then: ir.Value
    other: ir.Value
    index: int = -1


@dataclass
class Made:
    """What is made of several outputs of the If: a complex tensor, or one of two containers."""

    parts: tuple[Any, Any]
    make: Callable[[Any, Any], Any]


def nothing_follows() -> bool:
    """No number has to follow the example."""
    return False


def nothing_lasts(_: Any) -> bool:
    """No container is known to others."""
    return False


def nothing_is_shared(_: Any, __: Any) -> bool:
    """Nor found in another place."""
    return False


class Merger:
    """Plans the outputs of one If."""

    def __init__(self, g: Recorder, condition: Any, test: ir.Value, then: Side, other: Side) -> None:
        self.g = g
        self.condition = condition
        self.then = then
        self.other = other
        self.slots: list[Slot] = []
        self.outputs: list[Any] = []  # what the slots become, once the If is written
        self.unjoined = False  # whether a variable is left without a value
        self.sized: list[Any] = []  # numbers, and sizes of results, that are others on each side
        self.joins = Joins(g, test, self._brought)
        self._of_tensors: dict[tuple[int, int], Slot | Made] = {}  # one for one pair of tensors
        # Whether a Python number may not become one that a condition chooses, where it stands.
        self.numbers_follow: Callable[[], bool] = nothing_follows
        # Whether the sides change tables that the model keeps, so that a number may be the length of one.
        self.tables = False
        # Whether a container or object was there before the branch, so that others may see what changes it.
        self.lasting: Callable[[Any], bool] = nothing_lasts
        # Whether it was, and may be found elsewhere than in a place that held the second before.
        self.shared: Callable[[Any, Any], bool] = nothing_is_shared
        self._of_containers: dict[tuple[int, int], tuple[Any, Any, Any]] = {}  # with what became of them
        self._beside: dict[int, tuple[Any, Any]] = {}  # what stands on the other side
        self.tensors: list[torch.Tensor] = []  # that the slots become
        self.objects: list[tuple[Any, Any, Any]] = []  # that were made in the place of two, with these
        self.by_data = True  # whether data decides the condition, not sizes
        # The side whose sizes fit those that stand around the branch.
        symbolic = isinstance(condition, torch.SymBool)
        self.example = not symbolic or bool(g.env.value_or_none(g.env.expr(condition)))

    def merge(self, a: Any, b: Any, before: Any = UNBOUND) -> Any:
        """The structure with a Slot in the place of what the sides have different.

        before: what was in its place before the branch

        Raises:
            Unmergeable: says what the two are.
        """
        if not (_is_container(a) or _is_container(b)):
            return self._merged(a, b, before)
        known = self._of_containers.get((id(a), id(b)))
        if known is not None:  # two variables that hold one container do so afterwards
            return known[-1]
        for mine, other in ((a, b), (b, a)):
            is_new = _is_container(mine) and _is_container(other) and not self.lasting(mine)
            if is_new and self._beside.setdefault(id(mine), (mine, other))[1] is not other:
                raise Unmergeable(
                    f"{describe(mine)} that one side has in two places, where the other has two of them "
                    "(a copy of it is another)"
                )
        made = self._merged(a, b, before)
        self._of_containers[id(a), id(b)] = a, b, made
        return made

    def _merged(self, a: Any, b: Any, before: Any) -> Any:
        if self.equal(a, b):
            return a
        if a is UNBOUND or b is UNBOUND:
            return self._one_sided(a, b)
        if is_a(a, Maybe) or is_a(b, Maybe) or (a is None) != (b is None):
            return self._maybe(a, b)
        ka, kb = kind_of(a), kind_of(b)
        if ka is not None and kb is not None:
            return self._leaf(a, b, ka, kb)
        if self.lasting(a) and self.lasting(b) and self._are_things(a, b):
            return chosen(self.condition, *self._words(a, b))
        if any(parts_of(v) is not None and self.shared(v, before) for v in (a, b)):
            return self._or_new(a, b)
        if is_a(a, TracedList) and is_a(b, TracedList) and a.is_like(b) and b.is_like(a):
            held = before.parts() if is_a(before, TracedList) else []
            return a.of_parts(self.merge_lists(a.parts(), b.parts(), held))
        if isinstance(a, TracedDict) and isinstance(b, TracedDict) and self.by_data:
            made = TracedDict()
            made.unordered = a.unordered or b.unordered
            held = before if type(before) in _DICTS else {}
            dict.update(made, self.merge_keys(made, *map(_contents, (a, b, held))))
            return made
        if type(a) in _DICTS and type(b) in _DICTS:
            first, second = cast("dict[Any, Any]", a), cast("dict[Any, Any]", b)
            mine, other = dict[Any, Any].keys(first), dict[Any, Any].keys(second)
            if type(a) is type(b) is dict and mine != other and self.by_data:
                ACTIVE.marks.let_grow()
            if mine == other:
                held = before if type(before) in _DICTS else {}
                made = {k: self.merge(a[k], b[k], held.get(k, UNBOUND)) for k in mine}
                is_known = type(a) is type(b) is dict and list(mine) == list(other)
                return made if is_known else Unordered(made)
        if alike(a, b):
            parts = parts_of(a) or []
            held = (parts_of(before) or []) if alike(a, before) else [UNBOUND] * len(parts)
            names = held_in(a) if is_of_attributes(type(a)) else [None] * len(parts)
            pairs = zip(names, parts, parts_of(b) or [], held, strict=True)
            made = rebuilt(a, [self._part(a, *pair) for pair in pairs])
            self.g.copies.follow(made, b)
            self.objects.append((made, a, b))
            return made
        if callable(a) and callable(b):
            return Choice(self.condition, self._words(a, b))
        if self._are_plain(a, b) and not self.numbers_follow():
            self._require_lasting(a, b)
            return chosen(self.condition, *self._words(a, b))
        if type(a) is type(b) and is_of_attributes(type(a)):
            only = sorted(held_in(a).keys() ^ held_in(b).keys())
            if only:
                raise Unmergeable(
                    f"{describe(a)} with {', '.join(map(repr, only))} on one side only",
                    "Give it the same attributes on both sides.",
                )
        raise Unmergeable(f"{describe(a)} on one side and {describe(b)} on the other")

    def _part(self, whole: Any, name: str | None, a: Any, b: Any, before: Any) -> Any:
        """A part of two containers or objects; the attribute that has no common form is named."""
        try:
            made = self.merge(a, b, before)
        except Unmergeable as why:
            if name is None:
                raise
            raise Unmergeable(f"{describe(whole)} whose {name!r} is {why}", why.edit) from why
        if name is not None and isinstance(made, Maybe):
            ACTIVE.marks.take_everything()  # whoever asks the object must see that it may be None
        return made

    def _or_new(self, a: Any, b: Any) -> Made:
        """One of a container that others may see, and one that the other side has made."""
        old, new = (a, b) if self.lasting(a) else (b, a)
        if not (_is_container(new) and self._are_things(a, b)):
            raise Unmergeable(
                f"{describe(a)} on one side and {describe(b)} on the other, of which one is kept in another "
                "place too, where what is written into it would be seen (a copy of it is not)"
            )
        if old is a:
            parts = self._words(a, None)[0], self._one_sided(UNBOUND, b)
        else:
            parts = self._one_sided(a, UNBOUND), self._words(None, b)[1]
        return Made(parts, lambda then, other: chosen(self.condition, then, other))

    def _are_plain(self, a: Any, b: Any) -> bool:
        """Whether both are plain values, or one is and counts as a number as the other does."""
        if is_plain(a) and is_plain(b):
            return True
        word, rest = (a, b) if is_plain(a) else (b, a)
        return type(rest) in DTYPE and all(is_own(v) or type(v) in DTYPE for v in leaves_of(word))

    def _require_lasting(self, *words: Any) -> None:
        """Raises Unmergeable where the side of a branch has made a container that a condition chooses."""
        if any(is_thing(w) and not self.lasting(w) for w in words):
            raise Unmergeable("one of two containers of which a branch inside one side has made one")

    def _are_things(self, a: Any, b: Any) -> bool:
        """Whether a condition may choose between two containers or objects, with what is done to them."""
        if callable(a) and callable(b):
            return False
        leaves = [v for x in (a, b) for v in leaves_of(x)]
        known = all(is_of_attributes(type(v)) or parts_of(v) is not None for v in leaves)
        return known or not isinstance(self.condition, torch.SymBool) or self.by_data

    def _words(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Values of the two sides, whose own conditions come out of the branch."""

        def outside(x: Any, first: bool) -> Any:
            if not isinstance(x, (Word, Choice)):
                return x
            known = (x.ingot_condition, False) if first else (False, x.ingot_condition)
            condition, (then, other) = self.merge(*known), (outside(v, first) for v in x.ingot_sides)
            return Word(condition, then, other) if isinstance(x, Word) else Choice(condition, (then, other))

        return outside(a, True), outside(b, False)

    def merge_keys(
        self, made: TracedDict, a: dict[Any, Any], b: dict[Any, Any], before: dict[Any, Any]
    ) -> dict[Any, Any]:
        """What stands under the keys of a dict after a branch: under some on one side only."""
        keys, ordered = in_order(a, b)
        made.unordered = made.unordered or not ordered
        sides = ((a.get(k, UNBOUND), b.get(k, UNBOUND), before.get(k, UNBOUND)) for k in keys)
        return {k: self._under_key(*held) for k, held in zip(keys, sides, strict=True)}

    def _under_key(self, a: Any, b: Any, before: Any) -> Any:
        """What stands under one key; UNBOUND where it is not there."""
        if a is b or not any(v is UNBOUND or isinstance(v, Perhaps) for v in (a, b)):
            return self.merge(a, b, before)
        pairs = [(v.there, v.value) if isinstance(v, Perhaps) else (v is not UNBOUND, v) for v in (a, b)]
        there = self.merge(*(t for t, _ in pairs))
        first, second = (value for _, value in pairs)
        if first is UNBOUND or second is UNBOUND:
            holds = second is UNBOUND
            return Perhaps(there, self._alone(first if holds else second, holds))
        return Perhaps(
            there, self.merge(first, second, before.value if isinstance(before, Perhaps) else before)
        )

    def merge_lists(self, a: list[Any], b: list[Any], before: Sequence[Any] = ()) -> list[Any]:
        """Elements of a list after a branch: those that one side alone appends are there perhaps."""
        if len(a) == len(b) and not any(isinstance(v, (Many, Perhaps)) for v in (*a, *b)):
            held = [*before[: len(a)], *[UNBOUND] * (len(a) - len(before))]
            return [self.merge(*v) for v in zip(a, b, held, strict=True)]
        common = 0
        while common < min(len(a), len(b)) and a[common] is b[common]:
            common += 1
        merged: list[Any] = list(a[:common])
        if any(isinstance(v, Many) for v in (*a[common:], *b[common:])):
            return [*merged, self._runs(a[common:], b[common:])]
        for extra, holds in ((a[common:], True), (b[common:], False)):
            for v in extra:
                merged.append(self._perhaps(v, holds))
        return merged

    def _runs(self, a: list[Any], b: list[Any]) -> Many:
        """Elements of a list, of which each side has a number of its own, in tensors."""
        runs: list[Many | None] = []
        outside = self.g.sizes.in_scope
        for side, parts in ((self.then, a), (self.other, b)):
            with self.g.graph.writing(side.scope.body):
                self.g.sizes.again(side.values)
                runs.append(joined(parts, outside) if parts else None)
        known = next(r for r in runs if r is not None)
        for i, side in enumerate((self.then, self.other)):
            if runs[i] is None:
                with self.g.graph.writing(side.scope.body):
                    runs[i] = nothing(known)
        first, second = runs
        assert first is not None and second is not None
        bodies = self.then.scope.body, self.other.scope.body
        pair = formed([first, second], lambda n: self.g.graph.writing(bodies[n]))
        axes = axes_of(pair)
        for n, body in enumerate(bodies):
            with self.g.graph.writing(body):
                pair[n] = pair[n].along(axes)
        then, other = pair
        return then.of_parts([self._tensors(x, y) for x, y in zip(then.parts(), other.parts(), strict=True)])

    def _perhaps(self, v: Any, holds: bool) -> Perhaps:
        """An element that the side where the condition is `holds` appends."""
        inner = v.value if isinstance(v, Perhaps) else v
        if not is_element(inner):
            raise Unmergeable(f"a list with {describe(v)} in it on one side only")
        there = v.there if isinstance(v, Perhaps) else True
        flag = self.merge(there, False) if holds else self.merge(False, there)
        return Perhaps(flag, self._alone(inner, holds))

    def _alone(self, x: Any, holds: bool) -> Any:
        """A value of one side, for which anything will do on the other: the same one in another place too."""
        pair = (x, UNBOUND) if holds else (UNBOUND, x)
        if not _is_container(x):
            return self._one_sided(*pair, shaped=True)
        key = id(pair[0]), id(pair[1])
        if key not in self._of_containers:
            if self._beside.setdefault(id(x), (x, UNBOUND))[1] is not UNBOUND:
                raise Unmergeable(
                    f"a list with {describe(x)} in it that a variable holds too (a copy of it is another)"
                )
            self._of_containers[key] = pair[0], pair[1], self._one_sided(*pair, shaped=True)
        return self._of_containers[key][-1]

    def equal(self, a: Any, b: Any) -> bool:
        """Whether the sides have the same, so that no output is needed."""
        if a is b:
            if is_a(a, torch.Tensor):
                return self._unchanged(a)
            return not is_a(a, Symbolic) or self.g.sizes.in_scope(a)
        if any(parts_of(v) is not None and self.lasting(v) for v in (a, b)):
            return False  # two containers, whatever is in them now
        if self.lasting(a) or self.lasting(b):
            return False  # an object that is there, and another one: whatever its class calls equal
        if is_of_attributes(type(a)):
            return False  # two objects, whatever is in them: the model may ask which of them it has
        if is_a(a, torch.Tensor) or is_a(b, torch.Tensor):
            return False
        if is_a(a, Symbolic) and is_a(b, Symbolic):
            same = self.g.env.expr(a) == self.g.env.expr(b)
            return bool(same) and self.g.sizes.in_scope(a)
        if is_a(a, Symbolic) or is_a(b, Symbolic):
            return False
        if is_a(a, set):
            return type(a) is type(b) and bool(a == b)
        parts, more = parts_of(a), parts_of(b)
        if parts is not None and more is not None:
            return alike(a, b) and all(self.equal(x, y) for x, y in zip(parts, more, strict=True))
        return plainly_equal(a, b)

    def _unchanged(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor is the same on both sides and visible here.

        Writes into tensors from outside are merged for themselves.
        """
        a, b = self.then.values.get(id(tensor)), self.other.values.get(id(tensor))
        return a is None or b is None or self.g.graph.visible(a) or a is not b

    # -- leaves

    def _leaf(self, a: Any, b: Any, ka: type, kb: type) -> Any:
        if ka is torch.Tensor and kb is torch.Tensor:
            self._require_free_tables()
            return self._complex(a, b) if a.is_complex() and b.is_complex() else self._tensors(a, b)
        if torch.Tensor in (ka, kb):
            return self._tensor_and_number(a, b)
        if self.numbers_follow():
            length = self._length(a, b) if self.tables and ka is kb is int else None
            if length is None:
                raise Unmergeable(f"{describe(a)} on one side and {describe(b)} on the other")
            return length
        values = self.value(self.then, a), self.value(self.other, b)
        hint = self._hint(a if self.example else b)
        undecided = kinds_of(self.g, a) or kinds_of(self.g, b)
        if ka is kb and undecided is None:
            return self.slot(lambda v: self._number(v, ka, hint, a, b), *values)
        words = " or ".join(sorted(k.__name__ for k in (ka, kb)))
        kinds = undecided or f"{words}, as {quoted_line()} decides"
        kind = float if float in (ka, kb) else int
        cast: list[ir.Value] = []
        for side, value, found in ((self.then, values[0], ka), (self.other, values[1], kb)):
            with self.g.graph.writing(side.scope.body):
                cast.append(self.g.cast(value, DTYPE[found], DTYPE[kind]))
        return self.slot(lambda v: self._either(v, kind, hint, kinds), *cast)

    def _require_free_tables(self) -> None:
        """Raises Unmergeable for a table that the model keeps, where those follow the example."""
        if self.tables and self.numbers_follow():
            if ACTIVE.marks.tables == "fixed":
                raise Unmergeable("another table on each side, of which what the model gives later depends")
            ACTIVE.marks.freed |= ACTIVE.marks.tables == "free"

    def _length(self, a: Any, b: Any) -> Any:
        """A formula over sizes, if both are and never negative: what asks for it next may be known."""
        env, sizes = self.g.env, (self.g.env.expr(a), self.g.env.expr(b))
        of_sizes = all(self.g.sizes.in_scope(x) and not env.of_data(env.expr(x)) for x in (a, b))
        is_free = ACTIVE.marks.tables == "free"
        if not is_free or not of_sizes or not all(e.is_nonnegative for e in sizes):
            return None
        ACTIVE.marks.freed = True
        return env.derive(env.size(OneOf(env.expr(self.condition), *sizes)))

    def _number(self, value: ir.Value, kind: type, hint: Any, a: Any, b: Any) -> Any:
        made = number(self.g, value, kind, hint)
        condition, *sides = map(self.g.env.expr, (self.condition, a, b))
        (symbol,) = made.node.expr.free_symbols
        if isinstance(self.condition, torch.SymBool):
            self.g.merged[symbol] = condition, sides[0], sides[1]
            if kind is int:
                self.g.env.one_of(made, self.condition.node.expr, a, b)
        if kind is int:
            self.g.extents[symbol] = extent.either(*(extent.of_formula(self.g, side) for side in sides))
            self.sized.append(symbol)
        return made

    def _either(self, value: ir.Value, kind: type, hint: Any, kinds: str) -> Any:
        """A number that is of one kind on one side and of another on the other."""
        made = number(self.g, value, kind, hint)
        self.g.env.either[made.node.expr] = kinds  # also of an int that may be a truth
        return made

    def _hint(self, x: Any) -> Any:
        return self.g.env.value_or_none(self.g.env.expr(x)) if isinstance(x, Symbolic) else x

    def _tensors(self, a: torch.Tensor, b: torch.Tensor) -> Slot | Made:
        known = self._of_tensors.get((id(a), id(b)))
        if known is not None:
            return known
        if a.dtype != b.dtype or a.dim() != b.dim():
            raise Unmergeable(f"{describe(a)} on one side and {describe(b)} on the other")
        dims = [
            p if self.g.same_size(p, q) and self.g.sizes.in_scope(p) else None
            for p, q in zip(a.shape, b.shape, strict=True)
        ]
        make = self._tensor_like(a if self.example else b, dims)

        def joined(value: ir.Value) -> torch.Tensor:
            made = make(value)
            if isinstance(self.condition, torch.SymBool):
                for size, dim, p, q in zip(made.shape, dims, a.shape, b.shape, strict=True):
                    if dim is None and isinstance(size, torch.SymInt):
                        self.g.env.one_of(size, self.condition.node.expr, p, q)
                        self.sized.append(size.node.expr)
            return self.g.choose_tensor(made, self.condition, a, b)

        make_either = self._left(self._mixed(joined, a, b), a, b)
        slot = self.slot(make_either, self.value(self.then, a), self.value(self.other, b))
        slot = self._of_tensors[id(a), id(b)] = self._tagged(self._joining(slot, a, b), a, b)
        return slot

    def _tagged(self, slot: Slot, a: Any, b: Any) -> Slot | Made:
        """The tensor that an output becomes, with the attributes that the model's code has put on the two."""
        tensors = [v for v in (a, b) if isinstance(v, torch.Tensor)]
        names = {n for v in tensors for n in followed(v)}  # what one has from before may be new on the other
        if not names:
            return slot
        held = [
            {n: x for n, x in tags(v).items() if n in names} if isinstance(v, torch.Tensor) else {}
            for v in (a, b)
        ]
        alone = a is UNBOUND or b is UNBOUND
        only = held[0].keys() ^ held[1].keys()
        if only and not alone:
            raise Unmergeable(
                f"a tensor with the attribute {sorted(only)[0]!r} on one side only",
                "Set it on both sides, to values of one kind.",
            )
        whole, (then, other) = b if a is UNBOUND else a, held
        made = {
            n: self._part(whole, n, then.get(n, UNBOUND), other.get(n, UNBOUND), UNBOUND)
            for n in (then or other)
        }
        return Made((slot, made), _with_tags)

    def _complex(self, a: torch.Tensor, b: torch.Tensor) -> Made:
        pairs = zip(self.then.parts[id(a)], self.other.parts[id(b)], strict=True)
        re, im = (self.merge(*pair) for pair in pairs)

        def joined(re: torch.Tensor, im: torch.Tensor) -> torch.Tensor:
            with self.g.pause():
                made = torch.empty(re.shape, dtype=a.dtype)
            self.g.bind_complex(made, re, im)
            return made

        return Made((re, im), self._left(joined, a, b))

    def _joining(self, slot: Slot, a: Any, b: Any) -> Slot:
        """The output is one of two tensors; None where there is none."""
        self.joins.add(slot, (self.then, a), (self.other, b))
        return slot

    def _brought(self, side: Side, value: ir.Value, dtype: torch.dtype, like: Any) -> Callable[[], ir.Value]:
        """A value of a side as one of what is around the branch."""
        with self.g.graph.writing((self.other if side is self.then else self.then).scope.body):
            filler = self.g.const(0, dtype) if like is None else nothing_like(self.g, like)
        values = (value, filler) if side is self.then else (filler, value)
        slot = self.slot(lambda v: v, *values)
        return lambda: self.outputs[slot.index]

    def _tensor_and_number(self, a: Any, b: Any) -> Slot | Made:
        tensor, plain = (a, b) if isinstance(a, torch.Tensor) else (b, a)
        if tensor.dim() or not may_stand_for(plain, tensor.dtype):
            raise Unmergeable(f"{describe(a)} on one side and {describe(b)} on the other")
        values: list[ir.Value] = []
        for side, x in ((self.then, a), (self.other, b)):
            value = self.value(side, x)
            if x is plain:
                with self.g.graph.writing(side.scope.body):
                    value = self.g.cast(value, DTYPE[kind_of(plain) or int], tensor.dtype)
            values.append(value)
        make = self._left(self._mixed(self._tensor_like(tensor, []), plain, tensor), tensor)
        slot = self.slot(make, *values)
        return self._tagged(self._joining(slot, *(x if x is tensor else None for x in (a, b))), a, b)

    def _left(self, make: Callable[..., torch.Tensor], *sides: Any) -> Callable[..., torch.Tensor]:
        """What makes a tensor that the branch leaves, of those on its sides."""

        def made(*values: Any) -> torch.Tensor:
            self.tensors.append(gradients.left(lambda: make(*values), sides))
            return self.tensors[-1]

        return made

    def _mixed(self, make: _Make, *sides: Any) -> _Make:
        """What makes a tensor that may be a number, as one of the sides is or may be."""
        dtype = next(x.dtype for x in sides if isinstance(x, torch.Tensor))
        number = either(*(number_of(self.g, x, dtype) for x in sides))
        return lambda value: note(self.g, make(value), number)

    def _maybe(self, a: Any, b: Any) -> Maybe:
        pairs = [
            (x.ingot_is_none, x.ingot_value)
            if isinstance(x, Maybe)
            else (x is None, UNBOUND if x is None else x)
            for x in (a, b)
        ]
        (none_a, value_a), (none_b, value_b) = pairs
        for v in (value_a, value_b):
            if v is not UNBOUND and kind_of(v) is None and not _taken_apart(v) and not self.lasting(v):
                raise Unmergeable(f"None on one side and {describe(v)} on the other")
        ACTIVE.maybes = True
        return Maybe(self.merge(none_a, none_b), self.merge(value_a, value_b))

    def _one_sided(self, a: Any, b: Any, shaped: bool = False) -> Any:
        """A value on one side only: Python would raise on the other, so that anything will do there.

        shaped: of the same shape there too, where that can be said
        """
        known = b if a is UNBOUND else a
        side, empty = (self.other, self.then) if a is UNBOUND else (self.then, self.other)
        self._require_lasting(known)
        if _is_container(known) and self.lasting(known):
            return known
        parts = parts_of(known)
        if parts is not None:
            if (known_as := self._of_containers.get((id(a), id(b)))) is not None:
                return known_as[-1]  # what it holds may hold it in two places
            sides = [(UNBOUND, x) if a is UNBOUND else (x, UNBOUND) for x in parts]
            made = rebuilt(known, [self._one_sided(*pair, shaped=shaped) for pair in sides])
            self.objects.append((made, a, b))
            if _is_container(known):
                self._of_containers[id(a), id(b)] = a, b, made
            return made
        if structure.holds_itself(known):
            raise Unmergeable(f"{describe(known)} on one side only")
        kind = kind_of(known)
        if kind is None:
            return known
        value = self.value(side, known)
        inner: list[Any] = [] if kind is not torch.Tensor else list(known.shape)
        dims = [p if isinstance(p, int) or (shaped and self.g.sizes.in_scope(p)) else None for p in inner]
        with self.g.graph.writing(empty.scope.body):
            filler = (
                self.g.const(0, known.dtype) if kind is torch.Tensor else self.g.const(kind(0), DTYPE[kind])
            )
            if dims:
                filler = self.g.op("Expand", filler, self.g.shape([0 if d is None else d for d in dims]))
        values = (value, filler) if side is self.then else (filler, value)
        if kind is not torch.Tensor:
            return self.slot(lambda v: number(self.g, v, kind, self._hint(known)), *values)
        make = self._tensor_like(known, dims)

        def chosen(v: ir.Value) -> torch.Tensor:
            return self.g.choose_tensor(make(v), self.condition, a, b)

        slot = self.slot(self._left(chosen, known), *values)
        return self._tagged(self._joining(slot, *(None if x is UNBOUND else x for x in (a, b))), a, b)

    def value(self, side: Side, x: Any) -> ir.Value:
        """The graph's value of a leaf inside a side."""
        if isinstance(x, torch.Tensor):
            unwritten.read(self.g, self.g.entry(x))
            found = side.values.get(id(x))
        elif isinstance(x, Symbolic):
            found = side.values.get(self.g.env.expr(x), side.values.get(id(x)))
        else:
            with self.g.graph.writing(side.scope.body):
                return endless.operand(self.g, x, DTYPE[counts_as(x) or int])
        if found is None:
            with self.g.graph.writing(side.scope.body):
                found = self.g.val(x)
        return found

    def slot(self, make: Callable[[ir.Value], Any], then: ir.Value, other: ir.Value) -> Slot:
        """A new output."""
        made = Slot(make, then, other, len(self.slots))
        self.slots.append(made)
        return made

    def _tensor_like(self, tensor: torch.Tensor, dims: Sequence[Any]) -> Callable[[ir.Value], torch.Tensor]:
        hints = [int(self.g.env.value(self.g.env.expr(d))) for d in tensor.shape]
        return lambda v: tensor_of(self.g, v, tensor.dtype, dims, hints)


def _with_tags(tensor: torch.Tensor, held: dict[str, Any]) -> torch.Tensor:
    put(tensor, held)
    return tensor


def plainly_equal(a: Any, b: Any) -> bool:
    """Whether two objects that are no tensors or numbers of the run's are equal to Python.

    The model itself does not ask: where a class's own `==` raises, they are not equal. Nor are two zeros of
    different signs, or two objects with other attributes, whatever their class calls equal.
    """
    if type(a) is not type(b) or is_a(a, Word):
        return False
    if is_a(a, (float, complex)):
        return bool(a == b) and str(a) == str(b)
    try:
        same = bool(a == b)
    except Exception as error:  # whatever the model's own `__eq__` makes of it, NumPy's of several elements
        raise_if_ours(error)
        return False
    held, other = held_as(a, "__dict__"), held_as(b, "__dict__")
    if not same or not isinstance(held, dict) or not isinstance(other, dict) or held is other:
        return same
    return held.keys() == other.keys() and all(_is_one(v, other[k]) for k, v in held.items())


def _is_one(a: Any, b: Any) -> bool:
    """Whether an attribute of two objects is the same: one object, or plain values that are equal."""
    return a is b or (held_as(a, "__dict__") is None and plainly_equal(a, b))


def tensor_of(
    g: Recorder, value: ir.Value, dtype: torch.dtype, dims: Sequence[Any], hints: Sequence[int]
) -> torch.Tensor:
    """A fake tensor that is `value`; a dim of None is a size that only the run knows."""
    sizes = [g.env.new_size(h) if d is None else d for d, h in zip(dims, hints, strict=True)]
    with g.pause():
        made = torch.empty(sizes, dtype=dtype)
    g.bind(made, value)
    g.note_dims(made, value)
    return made


def nothing_like(g: Recorder, tensor: torch.Tensor) -> ir.Value:
    """Zeros where nobody looks, of the same rank, with the dims that are numbers."""
    sizes: list[Any] = list(tensor.shape)
    shape = [d if isinstance(d, int) else 0 for d in sizes]
    zero = g.const(0, tensor.dtype)
    return g.op("Expand", zero, g.const(shape, torch.int64)) if shape else zero


class Filled:
    """Structures with every Slot replaced by what became of it; one thing in two places stays one."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        self.outputs = outputs
        self._made: dict[int, tuple[Any, Any]] = {}

    def __call__(self, x: Any) -> Any:
        """The structure filled."""
        return mapped(x, self._leaf, (), self._made)

    def of(self, x: Any) -> Any:
        """What became of a container; None where it is in nothing that was filled."""
        return self._made.get(id(x), (x, None))[1]

    def _leaf(self, v: Any) -> Any:
        if is_a(v, Made):
            if id(v) not in self._made:
                self._made[id(v)] = v, v.make(*map(self, v.parts))
            return self._made[id(v)][1]
        return self.outputs[v.index] if is_a(v, Slot) else v


def _contents(x: Any) -> dict[Any, Any]:
    """What a dict holds, whatever its class makes of being asked."""
    return dict(dict.items(x))


def _is_container(x: Any) -> bool:
    """Whether it is made of parts that others may be put in the place of."""
    return not is_a(x, (tuple, Undecided, _Unbound)) and parts_of(x) is not None


def _taken_apart(x: Any) -> bool:
    """Whether a value is made of tensors, numbers and what any side may have, such as strings."""
    parts = parts_of(x)
    if parts is None or is_a(x, Word):
        return kind_of(x) is not None or x is None or is_plain(x)
    return all(map(_taken_apart, parts))


def _elements(x: Many) -> str:
    if x.like is not LEAF:
        return f"{type(x.like).__name__}s"
    (column,) = x.columns
    return (
        f"{column.kind.__name__}s"
        if isinstance(column, Even) and column.kind is not torch.Tensor
        else "tensors"
    )


def describe(x: Any) -> str:
    """A value in a message."""
    if isinstance(x, torch.Tensor):
        return f"a {str(x.dtype).removeprefix('torch.')} tensor of {x.dim()} dimensions"
    if isinstance(x, enum.Enum):
        return str(x) if type(x).__str__ is enum.Enum.__str__ else f"{type(x).__name__}.{x.name}"
    kind = kind_of(x)
    if kind is not None:
        return f"{'an' if kind is int else 'a'} {kind.__name__}"
    if x is UNBOUND:
        return "no value"
    if isinstance(x, str):
        return repr(x)
    if isinstance(x, Word):
        return " or ".join(map(describe, x.ingot_sides))
    if isinstance(x, TracedList):
        return f"a list of {list.__len__(x)}" if x.known else "a list as long as data says"
    if isinstance(x, Many):
        return f"as many {_elements(x)} as data says"
    if isinstance(x, (list, tuple)):
        return f"a {type(x).__name__} of {len(x)}"
    if isinstance(x, Undecided):
        return "a list as long as data says" if isinstance(x, Rows) else "something that data decides"
    if isinstance(x, TracedDict):
        return "a dict that data has changed"
    return "None" if x is None else f"a {type(x).__name__}{' that holds itself' * structure.holds_itself(x)}"
