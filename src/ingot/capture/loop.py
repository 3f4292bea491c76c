"""`while` and `for` as a Loop: the body recorded until it is known what is carried from one round to the
next.

At first every variable is taken to be the same in every round. What a round turns out to change is carried
with the sizes it has at the start, then without those sizes that a round changes. This settles after two or
three recordings.
"""

# Values may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from ingot.capture import checks, endless, equality, gradients, mixed, turns, unwritten
from ingot.capture.cells import Cells
from ingot.capture.choice import Maybe, perhaps
from ingot.capture.containers import Containers
from ingot.capture.dicts import TracedDict
from ingot.capture.endless import Counters
from ingot.capture.extent import MANY
from ingot.capture.forms import SAME, Constant, Form, Forms, Peel, parts_in, refused
from ingot.capture.graph import Body
from ingot.capture.lists import TracedList
from ingot.capture.merge import UNBOUND, describe, tensor_of
from ingot.capture.nested import as_element, formed, lists_differ
from ingot.capture.options import Options
from ingot.capture.path import assuming
from ingot.capture.request import ACTIVE
from ingot.capture.runs import (
    Even,
    Many,
    Perhaps,
    axes_of,
    in_turn,
    is_element,
    joined,
    leaves_in,
    nothing,
    run_of,
    same_form,
    tensors_of,
)
from ingot.capture.scalars import DTYPE, Symbolic, kind_of, note_kinds, number, require_kind
from ingot.capture.scope import Scope, inside
from ingot.capture.sharing import Carried, link_each, lose, reach
from ingot.capture.structure import inside as inside_of
from ingot.capture.structure import parts_of, rebuilt, settled, settled_in_tuples
from ingot.capture.tensors import dtype_of
from ingot.capture.watched import Whole
from ingot.capture.where import quoted_line
from ingot.capture.words import is_thing, leaves_of
from ingot.capture.writes import put_value
from ingot.errors import DataDependentError

if TYPE_CHECKING:
    from ingot.capture.entries import Entry, Group
    from ingot.capture.record import Recorder

ROUNDS = 24  # recordings of one body before giving up


@dataclass
class Place:
    """A variable, or one slot of a container, that a round may change."""

    what: str
    get: Callable[[], Any]
    put: Callable[[Any], None]
    start: Any
    used: bool  # whether its value matters behind the loop
    form: Any = None  # a structure of Forms; None where no round changes it
    copied: bool = False  # whether lists of any length have copies of what it holds
    given: list[Any] = field(default_factory=list[Any])  # what the containers held that came in


@dataclass
class Growth:
    """A list that rounds append to, or change in another way, in tensors."""

    form: Many  # with a Form for each tensor
    whole: bool = False  # all of the list is carried; else what the rounds before have appended
    given: Many | None = None  # what came in from the round before
    outer: set[Group] = field(default_factory=set["Group"])  # memories from around that elements may be
    again: bool = False  # whether several elements may be one tensor
    written: bool = False  # whether rounds write into elements where they are
    start: Many | None = None  # elements before the first round


@dataclass
class Round:
    """One recording of the body."""

    scope: Scope
    iteration: ir.Value
    condition: ir.Value | None = None
    carried: list[ir.Value] = field(default_factory=list[ir.Value])
    grown: list[int] = field(default_factory=list[int])  # lists that are carried, by place in `held`
    scanned: list[tuple[int, Any, list[ir.Value]]] = field(
        default_factory=list[Any]
    )  # list, elements, values
    going: Any = True  # whether there is another round, as the model's code says it
    given: dict[Any, Any] = field(default_factory=dict[Any, Any])  # numbers that come in, by their place
    left: dict[Any, Any] = field(default_factory=dict[Any, Any])  # those that are left, or came in


class Loop:
    """One loop while it is recorded."""

    def __init__(
        self,
        g: Recorder,
        body: Callable[[Any], Any],
        go: Callable[[], Any] | None,
        condition: Callable[[Any], ir.Value],
        cells: Cells,
        names: Sequence[str],
        head: Sequence[str],
        live: Sequence[str],
        peeled: bool = False,  # whether the first round was recorded by itself
        fixed: int | None = None,  # how many rounds Python knows, and would see what differs in them
    ) -> None:
        self.g = g
        self.body = body
        self.go = go
        self.condition = condition
        self.cells = cells
        self.names = names
        self.start = cells.get(names)
        self.held = Containers.of(cells, names)
        self.writes: list[Entry] = []  # tensors from outside that rounds write to
        self.grown: dict[int, Growth] = {}  # lists that rounds change the length of, by place in `held`
        self.lost: dict[str, str] = {}  # variables that have a value before the loop which has no form
        self.places = [self._variable(n, n in live) for n in names if n in head]
        self.slots: dict[tuple[int, Any], Place] = {}
        self.memory = Carried(g)
        self.peeled, self.fixed = peeled, fixed
        self.forms = Forms(g, self.held.has, self.lost, peeled)
        self.counters = Counters(g)
        self.turn: Any = None  # the number of the round that is recorded
        self.sources: list[torch.Tensor] = []  # what was carried so far, in all recordings
        self.made: list[torch.Tensor] = []  # what stands for it

    def _variable(self, name: str, used: bool) -> Place:
        what = f"the variable {name!r}"
        if self.g.lost_variables.get(id(self.cells.cell(name))) is not None and used:
            self.lost[what] = (
                f"{quoted_line()}\nThis loop gives {what} a value, or none, and before it {name!r} would be "
                f"{self.g.poisoned[name]}: no ONNX value can hold both."
            )
        return Place(
            what,
            lambda: self.cells.get([name])[name],
            lambda value: self.cells.put({name: value}),
            self.start[name],
            used,
        )

    def record(self, trips: Any, first: ir.Value | None) -> None:
        """Write the Loop node.

        trips: the most rounds, an int or SymInt; None for no limit
        first: the condition before the first round, None for true

        Raises:
            Peel: the first round must be recorded by itself.
            DataDependentError: names the variable that changes its kind from round to round.
        """
        self.write(self.settled(), trips, first)

    def settled(self) -> Round:
        """The recording of a round that leaves what it finds, in form."""
        for _ in range(ROUNDS):
            demanded = dict(self.g.env.held)
            done, settled = self._round()
            if settled:
                return done
            done.scope.body.discard()
            self.g.env.held = demanded  # without what was asked of sizes that no other recording has
        raise DataDependentError(
            f"{quoted_line()}\n"
            "What this loop carries from round to round does not settle: shapes change in a new way "
            "each time. "
            "Keep each variable's dtype and number of dimensions the same in every round."
        )

    # -- one recording

    def _round(self) -> tuple[Round, bool]:
        g = self.g
        for index, growth in self.grown.items():
            before: list[Any] = self.held.before[index]
            if growth.whole and growth.start is None and before:
                growth.start = joined(before)
                for v in before:  # the tensors of a run are nobody else's
                    own = [g.entry(leaf).group for leaf in tensors_of(v)]
                    found = set[Any]().union(*map(reach, own))
                    growth.outer |= found - set(own) if isinstance(v, Many) else found
        guards = dict(g.env.held)
        try:
            with inside(g) as scope:
                self.made.clear()
                done = Round(scope, g.graph.body_input("iteration", ir.TensorType(ir.DataType.INT64)))
                done.iteration.shape = ir.Shape([])
                g.graph.body_input("going", ir.TensorType(ir.DataType.BOOL)).shape = ir.Shape([])
                for place in self._all():
                    if place.form is not None:
                        place.put(self._noted(place, self._inputs(place.form)))
                        place.given = _held_in(place.get())
                for index, growth in self.grown.items():
                    self._give(index, growth)
                for e in self.writes:
                    value = g.graph.body_input("written", ir.TensorType(dtype_of(e.tensor.dtype)))
                    put_value(g, e, value)
                gradients.alone(self.made)
                self.memory.begin(
                    self._tensors(lambda place: place.start), self._tensors(lambda place: place.get())
                )
                i = number(g, done.iteration, int, 3)
                self.turn = g.env.expr(i)
                g.extents[self.turn] = 0, MANY
                starts, made = self._numbers(lambda place: place.start), len(g.sizes.written)
                done.given = self._numbers(lambda place: place.get())
                self.counters.begin(starts, done.given)
                if self.fixed is not None:
                    turns.begin(g, self.turn, self.fixed, starts, done.given)
                g.env.declare_range(i, 0, None)
                goes_on = self._goes_on()
                with assuming(g.env, goes_on):
                    self.body(i)
                going = self.go() if self.go is not None else True
                settled = self._compare()
                self._note_sources()
                if settled:
                    settled = self.memory.end(self._tensors(lambda place: place.get()), scope.body)
                done.left = {**done.given, **self._numbers(lambda place: place.get())}
                settled = settled and self.counters.hold(starts, done.given, done.left)
                if settled:
                    checks.demanded_inside(g, guards, goes_on)
                    self._results(done, going)
                if settled and self.fixed is not None:
                    made_here = g.sizes.written[made:]
                    turns.require_bounded(g, self.fixed, starts, done.given, done.left, made_here)
            settled = self._more_writes(scope) and settled
            settled = self.memory.lose(scope.lost) and settled
            if settled:
                done.carried += [next(v for entry, v in scope.written if entry is e) for e in self.writes]
            return done, settled
        finally:
            self.cells.put(self.start)
            self.held.restore()

    def _goes_on(self) -> Any:
        """What is known of sizes in a round, as the loop goes on: a condition on those that are carried."""
        if self.go is None:
            return None
        cells, contents = self.cells.get(self.names), self.held.contents()
        with inside(self.g) as trial:
            going = self.go()
        trial.body.discard()
        self.cells.put(cells)
        self.held.put(contents)
        known = isinstance(going, torch.SymBool) and not trial.body.nodes and not trial.written
        return self.g.env.expr(going) if known else None

    def _note_sources(self) -> None:
        """What a gradient of a carried tensor goes through: any of them, as rounds may give each to it."""
        contents = self.held.contents()
        values = [v for place in self._all() if place.form is not None for v in (place.start, place.get())]
        values += [contents[index] for index in self.grown]
        self.sources += gradients.tracked(v for x in values for v in inside_of(x))

    def _stands_for(self, form: Form, value: ir.Value) -> torch.Tensor:
        """A tensor of this form that comes in, or is left."""

        def make() -> torch.Tensor:
            return tensor_of(self.g, value, form.dtype, form.dims, form.hints)

        self.made.append(gradients.left(make, self.sources if form.tracked else ()))
        return self.made[-1]

    def changes_sizes(self) -> bool:
        """Whether rounds leave tensors of other sizes than they find."""
        forms = (f for place in self._all() for f in inside_of(place.form))
        return any(isinstance(f, Form) and None in f.dims for f in forms)

    def _all(self) -> list[Place]:
        return [*self.places, *self.slots.values()]

    def _tensors(self, value: Callable[[Place], Any]) -> dict[Any, torch.Tensor]:
        """The tensors among what is carried, by their place."""
        return self._leaves(value, (torch.Tensor,))

    def _numbers(self, value: Callable[[Place], Any]) -> dict[Any, Any]:
        """The numbers among it."""
        return self._leaves(value, (int, float, *Symbolic))

    def _leaves(self, value: Callable[[Place], Any], kinds: tuple[type, ...]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for n, place in enumerate(self._all()):
            self._add_leaves(place.form, value(place), (n,), kinds, found)
        return found

    def _add_leaves(
        self, form: Any, value: Any, key: tuple[int, ...], kinds: tuple[type, ...], found: dict[Any, Any]
    ) -> None:
        if isinstance(form, Form):
            if isinstance(value, kinds):
                found[key] = value
        elif form is not None and not isinstance(form, (Constant, Options)) and value is not UNBOUND:
            value = perhaps(value, UNBOUND) if isinstance(form, Maybe) else value
            for i, (f, v) in enumerate(zip(parts_in(form), parts_in(value), strict=True)):
                self._add_leaves(f, v, (*key, i), kinds, found)

    def _inputs(self, form: Any) -> Any:
        """Values of this form that come in from the round before."""
        g = self.g
        if isinstance(form, Form):
            value = g.graph.body_input("carried", ir.TensorType(dtype_of(form.dtype)))
            if form.kind is torch.Tensor:
                return g.choose_tensor(mixed.note(g, self._stands_for(form, value), form.number))
            value.shape = ir.Shape([])
            return note_kinds(g, number(g, value, form.kind, form.hints[0]), form.kinds)
        if isinstance(form, Constant):
            return form.value
        if isinstance(form, Options):
            value = g.graph.body_input("carried", ir.TensorType(ir.DataType.INT64))
            value.shape = ir.Shape([])
            return form.held(g, value)
        return equality.stands_for(rebuilt(form, [self._inputs(f) for f in parts_in(form)]))

    def _compare(self) -> bool:
        """Whether what the round leaves behind has the forms it came with; forms are widened where not."""
        same = True
        for place in self._all():
            now = self._left(place)  # which may make rows of the start
            form = self.forms.after_round(place.form, place.start, now, place.what)
            if self.held.is_shared(place.start, place.start) and any(
                (left := parts_of(x)) is None or not all(map(_is, left, held)) for x, held in place.given
            ):
                raise refused(place.what, "changed by a round while others hold it too")
            if form is not SAME:
                place.form, same = form, False
        for index, (before, now) in enumerate(zip(self.held.before, self.held.contents(), strict=True)):
            if index in self.grown:
                same = self._grew(self.grown[index], before, now) and same
            elif now is not before:
                same = self._changed(index, before, now) and same
        new = [self._is_copied(place) for place in self._all()]
        return same and not any(new)

    def _is_copied(self, place: Place) -> bool:
        """Whether a round leaves something in a place that a list of any length has a copy of."""
        copied = place.form is not None and any(map(self.g.copies.has, inside_of(place.get())))
        new, place.copied = copied and not place.copied, copied or place.copied
        return new

    def _noted(self, place: Place, held: Any) -> Any:
        """What a place holds, which nobody may change where lists have copies of it."""
        if place.copied:
            self.g.copies.note(inside_of(held))
        return held

    def _left(self, place: Place) -> Any:
        """What a round leaves in a place; of containers that the round makes, what is in them."""
        now = settled_in_tuples(place.get(), lambda word: Options.of([word], self.held.has) is not None)
        if isinstance(now, TracedList) or (now is not place.start and lists_differ(place.start, now)):
            now = self._lists_in(place, now)
        place.put(now)
        return now

    def _lists_in(self, place: Place, now: Any) -> Any:
        """A list as a run, where rounds make it longer; so the lists in what a round makes anew."""
        start, form = place.start, place.form
        if isinstance(now, TracedList):
            if is_thing(start) and lists_differ(start, now):
                with self._around():
                    (place.start,) = self._with_copies(TracedList([start])).parts()
            taken = self._with_copies(now)
            return self._as_run(taken, place) if self._is_run(place, taken) else now
        pairs = list(zip(parts_in(start), parts_in(now), strict=True))
        forms = parts_in(form) or [None] * len(pairs)
        inner = [
            replace(place, start=a, form=f) if lists_differ(a, b) else None
            for (a, b), f in zip(pairs, forms, strict=True)
        ]
        made = [b if p is None else self._lists_in(p, b) for p, (_, b) in zip(inner, pairs, strict=True)]
        if any(p is not None and p.start is not a for p, (a, _) in zip(inner, pairs, strict=True)):
            place.start = rebuilt(
                start, [a if p is None else p.start for p, (a, _) in zip(inner, pairs, strict=True)]
            )
        if any(p is not None and p.form is not f for p, f in zip(inner, forms, strict=True)):
            place.form = None
        return rebuilt(now, made)

    def _with_copies(self, items: TracedList) -> TracedList:
        """The list with copies of those containers that a condition chooses: tensors may hold these."""
        parts = items.parts()
        chosen = [v for v in parts if is_thing(v)]
        if not chosen:
            return items
        self.g.copies.note(v for word in chosen for v in leaves_of(word))
        return items.of_parts([settled(v) if is_thing(v) else v for v in parts])

    def _is_run(self, place: Place, now: TracedList) -> bool:
        """Whether a variable holds a list of another length after each round, which is kept in tensors."""
        if place.form is not None:
            return isinstance(place.form, TracedList) and _runs(place.form.parts())
        start = place.start
        if not isinstance(start, TracedList) or now is start:
            return False
        if _runs(start.parts()):
            with self._around():
                place.start = start.of_parts([start.run()])
            return True
        if not _runs(now.parts()) and len(start) == len(now):
            with self._around():
                start = self._with_copies(start)
            if not lists_differ(start.parts(), now.parts()):
                return False
        if len(start) and not self.peeled:
            raise Peel  # rounds after the first may leave it as they find it
        with self._around():
            start = self._with_copies(start)
        if not all(is_element(v) for v in (*start.parts(), *now.parts())):
            return False
        run = now.run(self._is_outside)
        with self._around():
            place.start = start.of_parts([start.run() if len(start) else nothing(run)])
        return True

    def _as_run(self, items: TracedList, place: Place) -> TracedList:
        """The list in tensors; an empty one in such as it had before."""
        if not isinstance(place.start, TracedList):
            return self._as_formed(items, place)
        (start,) = place.start.parts()
        if not items.parts():
            return items.of_parts([nothing(start)])
        around = self._around
        before, run = formed([start, items.run(self._is_outside)], lambda n: nullcontext() if n else around())
        axes = axes_of([before, run], self._is_outside)
        if axes != start.axes or not same_form(before.like, start.like):
            with around():
                place.start = place.start.of_parts([before.along(axes)])
            place.form = None
        return items.of_parts([run.along(axes)])

    def _as_formed(self, items: TracedList, place: Place) -> TracedList:
        """The same of a variable that has no value before the loop."""
        (form,) = place.form.parts()
        if not items.parts():
            return items.of_parts([_none_of(form)])
        run = items.run(self._is_outside)
        axes = [new if old is None else old for old, new in zip(form.axes, run.axes, strict=True)]
        if axes != form.axes:
            place.form = None
        return items.of_parts([run.along(axes)])

    def _around(self) -> Any:
        """Write into the graph around the loop."""
        return self.g.graph.writing(self.g.graph.body.parent or self.g.graph.root)

    def _is_outside(self, size: Any) -> bool:
        """Whether a size is known around the loop."""
        with self._around():
            return self.g.sizes.in_scope(size)

    def _changed(self, index: int, before: Any, now: Any) -> bool:
        """A container was changed by the round: appended to, or other values in its slots."""
        g = self.g
        container = self.held.found[index]
        what = "a list, dict or object that this loop changes"
        if isinstance(container, Whole):
            why = f"{container} with other contents"
            raise refused(what, why, "Keep what the rounds change in a tensor, a number or a list.")
        if isinstance(before, set):
            if g.made_by_call(container):
                ACTIVE.marks.let_grow()
            raise refused(what, "a set with other elements")
        if isinstance(container, TracedList) and (len(now) != len(before) or _runs(before) or _runs(now)):
            return self._grows(index, before, now)
        if isinstance(before, list):
            if len(now) > len(before) and type(container) is list:
                if g.made_by_call(container):
                    ACTIVE.marks.take_everything()  # whoever has made it makes one that may grow
                raise DataDependentError(
                    f"{quoted_line()}\n"
                    "This loop runs as often as data says and appends to a list that code which is not the "
                    "model's own has made, so that its length would not be known. Make the list in the "
                    "function that has the loop (`out = []`)."
                )
            if len(now) != len(before):
                if isinstance(container, deque) and g.made_by_call(container):
                    ACTIVE.marks.let_grow()
                raise refused(what, f"{len(before)} long before the loop and {len(now)} after a round")
            pairs: Any = [(k, before[k], now[k]) for k in range(len(before))]
        else:
            gained = now.keys() - before.keys()
            ordered = self.held.is_ordered(container)
            if gained and ordered and type(container) is dict and g.made_by_call(container):
                ACTIVE.marks.let_grow()
            if isinstance(container, TracedDict) and before.keys() <= now.keys():
                several = len(gained) > 1 and any(isinstance(now[k], Perhaps) for k in gained)
                container.unordered = container.unordered or several
                before = {k: before.get(k, UNBOUND) for k in now}
            if before.keys() != now.keys():
                only = sorted(map(repr, before.keys() ^ now.keys()))
                raise refused(what, f"with or without {', '.join(only)}")
            if ordered and list(before) != list(now):
                raise refused(
                    what,
                    "with its keys in another order",
                    "Give a key another value, and leave it in.",
                )
            pairs = [(k, before[k], now[k]) for k in before]
        same = True
        for key, a, b in pairs:
            if a is b or (index, key) in self.slots:
                continue
            perhaps = isinstance(container, TracedDict) and any(
                v is UNBOUND or isinstance(v, Perhaps) for v in (a, b)
            )
            slot = self._slot_perhaps if perhaps else self._slot
            self.slots[index, key] = slot(index, key, a)
            same = False
        return same

    def _grows(self, index: int, before: list[Any], now: list[Any]) -> bool:
        """A list is longer or shorter after a round: what a round adds or leaves says what its rows are."""
        appended = len(now) > len(before) and all(a is b for a, b in zip(before, now, strict=False))
        runs = formed(self._each_run(now[len(before) :] if appended else [*before, *now]))
        form = self._form_of_run(runs[0].along(axes_of(runs, self._is_outside)))
        self.grown[index] = Growth(form, whole=not appended)
        return False

    def _each_run(self, elements: list[Any]) -> list[Many]:
        """Each of a list's elements in tensors."""
        for v in elements:
            if not is_element(v):
                raise refused(
                    "a list that this loop appends to", f"of unknown length, with {describe(v)} in it"
                )
        return list(map(run_of, elements))

    def _form_of_run(self, run: Many) -> Many:
        """The forms of a run's tensors, of which rounds change the length."""
        with self._around():
            forms = [self.forms.of(t, torch.Tensor) for t in run.parts()]
        for f in forms:
            f.dims[0], f.hints[0] = None, 3
        return run.of_parts(forms)

    def _give(self, index: int, growth: Growth) -> None:
        """The list as the round before has left it."""
        growth.given = given = self._inputs(growth.form)
        self._tie(given, growth)
        contents = self.held.contents()
        contents[index] = [*([] if growth.whole else self.held.before[index]), growth.given]
        self.held.put(contents)

    def _grew(self, growth: Growth, before: list[Any], now: list[Any]) -> bool:
        """Whether the list is what it was taken for: appended to, or of elements that are alike."""
        assert growth.given is not None
        kept = [*before, growth.given]
        whole = growth.whole or not (len(now) >= len(kept) and all(map(_is, kept, now)))
        added = now if whole else now[len(kept) :]
        if not added:
            return whole is growth.whole
        runs = self._each_run([*before, *now] if whole and not growth.whole else added)
        given, *runs = formed([growth.given, *runs])
        axes = axes_of([given, *runs], self._is_outside)
        other = given is not growth.given and not same_form(given.like, growth.form.like)
        if whole is not growth.whole or axes != growth.form.axes or other:
            growth.form, growth.whole = self._form_of_run(runs[0].along(axes)), whole
            return False
        forms = growth.form.parts()
        for r in runs:
            pairs = zip(forms, r.along(axes).parts(), strict=True)
            forms = [self.forms.widened(f, t, "a list that this loop changes") for f, t in pairs]
        same = all(map(_is, forms, growth.form.parts()))
        growth.form = growth.form.of_parts(forms)
        return same

    def _slot(self, index: int, key: Any, start: Any) -> Place:
        container = self.held.found[index]

        def get() -> Any:
            return self.held.contents()[index][key]

        def put(value: Any) -> None:
            contents = self.held.contents()
            changed = type(contents[index])(contents[index])
            changed[key] = value
            contents[index] = changed
            self.held.put(contents)

        return Place(f"{key!r} in a {type(container).__name__}", get, put, start, True)

    def _slot_perhaps(self, index: int, key: Any, start: Any) -> Place:
        """The same of a key that a dict has in some rounds; `start` is UNBOUND where it has not before."""
        slot = self._slot(index, key, _perhaps_there(start))

        def get() -> Any:
            return _perhaps_there(self.held.contents()[index].get(key, UNBOUND))

        slot.get = get
        return slot

    def _more_writes(self, scope: Scope) -> bool:
        known = {id(e) for e in self.writes}
        new = [e for e, _ in scope.written if id(e) not in known]
        self.writes += new
        return not new

    # -- results

    def _results(self, done: Round, going: Any) -> None:
        g = self.g
        for place in self._all():
            if place.form is not None:
                self._lower(place.form, place.get(), done.carried)
        done.going, done.condition = going, self.condition(going)
        contents = self.held.contents()
        carried: list[ir.Value] = []
        for index, growth in self.grown.items():
            assert growth.given is not None
            now = contents[index]
            added = now if growth.whole else now[len(self.held.before[index]) + 1 :]
            added = list(map(as_element, added))
            growth.written = any(g.entry(t).group.version for t in growth.given.parts())
            values = [g.val(t) for t in growth.given.parts()]
            self._keep(growth, added, done.scope.body)
            read = any(v.uses() for v in values) or any(isinstance(v, Many) for v in added)
            if not growth.whole and not read and all(isinstance(c, Even) for c in growth.form.columns):
                for value in values:
                    done.scope.body.inputs.remove(value)
                self._scan(done, index, added)
                continue
            parts = added if growth.whole else [growth.given, *added]
            carried += self._values(growth, joined(parts, self._is_outside) if parts else None)
            done.grown.append(index)
        done.carried += carried

    def _keep(self, growth: Growth, added: list[Any], body: Body) -> None:
        """The elements of a list are copies from here on: those that they are copies of are noted."""
        for v in added:
            for leaf in tensors_of(v):
                found = self.memory.kept(leaf, body)
                growth.outer |= found
                one = bool(found) and not isinstance(v, Many) and not self._is_another(leaf)
                growth.again = growth.again or one

    def _is_another(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor that was there before is another one in each round: that at the round's place."""
        at, turn = self.g.entry(tensor), self.turn
        while at.view is not None:
            places = [self.g.env.expr(a) for a in at.view.args if isinstance(a, torch.SymInt)]
            if at.view.op == "select" and any((e - turn).is_number for e in places):
                return True
            at = at.view.parent
        return False

    def _values(self, growth: Growth, run: Many | None) -> list[ir.Value]:
        """The elements' tensors; None: the list is empty."""
        g = self.g
        if run is not None:
            if not same_form(run.like, growth.form.like):
                run = formed([run, _none_of(growth.form)])[0]
            return [g.val(t) for t in run.along(growth.form.axes).parts()]
        zeros = [(g.const(0, f.dtype), f.dims[1:]) for f in growth.form.parts()]
        return [g.op("Expand", zero, g.shape([0, *dims])) for zero, dims in zeros]

    def _scan(self, done: Round, index: int, added: list[Any]) -> None:
        """What a round appends to a list becomes outputs with a row for each round."""
        g = self.g
        values: list[ir.Value] = []
        for v in added:
            for leaf in leaves_in(v.value if isinstance(v, Perhaps) else v):
                kind = kind_of(leaf)
                values.append(g.val(leaf) if kind is torch.Tensor else g.operand(leaf, DTYPE[kind or int]))
            if isinstance(v, Perhaps):
                values.append(g.operand(v.there, torch.bool))
        done.scanned.append((index, added, values))

    def _lower(self, form: Any, value: Any, out: list[ir.Value]) -> None:
        if isinstance(form, Form):
            if form.kind is not float:
                require_kind(self.g, value, "what a loop carries from round to round")
            if form.kind is torch.Tensor:
                form.left = mixed.number_of(self.g, value, form.dtype)
            out.append(endless.operand(self.g, value, form.dtype))
        elif isinstance(form, Options):
            out.append(form.number_of(self.g, value))
        elif not isinstance(form, Constant):
            self._lower_parts(form, value, out)

    def _lower_parts(self, form: Any, value: Any, out: list[ir.Value]) -> None:
        if isinstance(form, Maybe):
            value = perhaps(value, UNBOUND)
            if value.ingot_value is UNBOUND:  # anything will do
                self._starts(form, value, out)
                return
        for f, v in zip(parts_in(form), parts_in(value), strict=True):
            self._lower(f, v, out)

    def _starts(self, form: Any, value: Any, out: list[ir.Value]) -> None:
        """Values of a place before the first round."""
        g = self.g
        if isinstance(form, Constant):
            return
        if isinstance(form, Options):
            out.append(g.const(0, torch.int64) if value is UNBOUND else form.number_of(g, value))
        elif not isinstance(form, Form):
            value = perhaps(value, UNBOUND) if isinstance(form, Maybe) and value is not UNBOUND else value
            parts = [UNBOUND] * len(parts_in(form)) if value is UNBOUND else parts_in(value)
            for f, v in zip(parts_in(form), parts, strict=True):
                self._starts(f, v, out)
        elif value is not UNBOUND:
            out.append(endless.operand(g, value, form.dtype))
        elif form.kind is torch.Tensor:
            zero = g.const(0, form.dtype)
            shape = [0 if d is None else d for d in form.dims]
            out.append(g.op("Expand", zero, g.shape(shape)) if shape else zero)
        else:
            out.append(g.const(form.kind(0), form.dtype))

    def write(self, done: Round, trips: Any, first: ir.Value | None) -> None:
        """Write the node for a recording that has settled; see `record`."""
        g = self.g
        starts: list[ir.Value] = []
        for place in self._all():
            if place.form is not None:
                self._starts(place.form, place.start, starts)
        for index in done.grown:
            growth = self.grown[index]
            starts += self._values(growth, growth.start)
        with g.passing_on():
            starts += [g.val_of(e) for e in self.writes]
        leaving = list(done.carried)
        check = done.scope.body.check
        if check is not None:
            starts.append(checks.true(g))
            leaving.append(self._checked(done.scope.body, check))
        scanned = [v for _, _, values in done.scanned for v in values]
        assert done.condition is not None
        body = g.graph.graph_of(done.scope.body, [done.condition, *leaving, *scanned], "body")
        g.locate()
        limit = None if trips is None else g.scalar(trips)
        count = max(len(starts) + len(scanned), 1)
        if not starts and not scanned:
            return  # nothing is left behind
        outputs = list(g.ops("Loop", limit, first or checks.true(g), *starts, n=count, body=body))
        for value, inner in zip(outputs, [*leaving, *scanned], strict=True):
            value.type = inner.type
        rest = iter(outputs)
        self.made.clear()
        variables = dict.fromkeys(self.names, UNBOUND)
        self.cells.put(variables)
        for place in self._all():
            found = place.start if place.form is None else self._outputs(place.form, rest)
            place.put(self._noted(place, found))
        results = self._numbers(lambda place: place.get())
        self.counters.end(self._numbers(lambda place: place.start), done.given, done.left, results)
        if self.fixed is not None and self.go is None:
            turns.end(g, done.given, results)
        for index in done.grown:
            growth = self.grown[index]
            run = self._outputs(growth.form, rest)
            kept = [] if growth.whole else self.held.before[index]
            list.__setitem__(self.held.found[index], slice(None), [*kept, run])
            self._tie(run, growth)
            if growth.written and growth.start is not None:  # elements that were taken out before have it too
                lose((g.entry(t).group, quoted_line()) for t in growth.start.parts())
        for e in self.writes:
            put_value(g, e, next(rest))
            if self.go is None and trips is not None:
                unwritten.wrote_in_rounds(g, e, done.scope.unwritten.get(e.group), self.turn, trips)
        if check is not None:
            checks.carry(g, next(rest), [done.scope.body])
        for index, added, values in done.scanned:
            run = self._scanned(self.grown[index].form, added, [next(rest) for _ in values], trips)
            list.append(self.held.found[index], run)
            self._tie(run, self.grown[index])
        self.memory.finish(self._tensors(lambda place: place.get()))
        gradients.alone(self.made)

    def _tie(self, run: Many, growth: Growth) -> None:
        """What a write into an element changes beside it, which nobody would see, is known to be lost."""
        for column in run.columns:
            link_each(self.g, column.tensors()[-1], growth.outer)
        if growth.again:
            run.shared()

    def _checked(self, body: Body, check: ir.Value) -> ir.Value:
        g = self.g
        with g.graph.writing(body):
            before = g.graph.body_input("checked", ir.TensorType(ir.DataType.BOOL))
            before.shape = ir.Shape([])
            return checks.both(g, before, check)

    def _outputs(self, form: Any, rest: Any) -> Any:
        if isinstance(form, Form):
            value = next(rest)
            if form.kind is torch.Tensor:
                made = self._stands_for(form, value)
                found = form.left if self.fixed else form.number  # as Python knows, there are rounds
                return self.g.choose_tensor(mixed.note(self.g, made, found))
            return note_kinds(self.g, number(self.g, value, form.kind, form.hints[0]), form.kinds)
        if isinstance(form, Constant):
            return form.value
        if isinstance(form, Options):
            return form.held(self.g, next(rest))
        return equality.stands_for(rebuilt(form, [self._outputs(f, rest) for f in parts_in(form)]))

    def _scanned(self, form: Many, added: list[Any], outputs: list[ir.Value], trips: Any) -> Many:
        """As many elements as there were rounds, of which each has appended these."""
        g = self.g
        fixed = trips is not None and self.go is None
        known: list[Any] = [trips] if fixed else [None]
        hint = [int(g.env.value(g.env.expr(trips)))] if fixed else [3]
        rest = iter(outputs)
        elements: list[list[torch.Tensor]] = []
        masks: list[torch.Tensor | None] = []
        for v in added:
            elements.append([])
            for leaf in leaves_in(v.value if isinstance(v, Perhaps) else v):
                shape = list(leaf.shape) if isinstance(leaf, torch.Tensor) else []
                dtype = leaf.dtype if isinstance(leaf, torch.Tensor) else DTYPE[kind_of(leaf) or int]
                hints = hint + [int(g.env.value(g.env.expr(d))) for d in shape]
                rows, size = self._shaped(next(rest), shape), known + shape
                make = partial(tensor_of, g, rows, dtype, size, hints)
                made = gradients.left(make, (leaf, *self.sources) if gradients.tracked((leaf,)) else ())
                self.made.append(made)
                known = [made.shape[0]]
                elements[-1].append(made)
            masks.append(
                tensor_of(g, next(rest), torch.bool, known, hint) if isinstance(v, Perhaps) else None
            )
        return in_turn(form, elements, masks)

    def _shaped(self, rows: ir.Value, shape: Sequence[Any]) -> ir.Value:
        """Scanned rows; runtimes leave open what size the other axes have where there was no round."""
        g = self.g
        if all(isinstance(d, int) for d in shape):
            return rows
        count = g.op("Shape", rows, start=0, end=1)
        made = g.op("Reshape", rows, g.op("Concat", count, g.shape(shape), axis=0), allowzero=1)
        made.type = rows.type
        return made


def _perhaps_there(x: Any) -> Perhaps:
    """What stands under a key; UNBOUND where it is not there."""
    return x if isinstance(x, Perhaps) else Perhaps(x is not UNBOUND, x)


def _held_in(x: Any) -> list[tuple[Any, list[Any]]]:
    """The containers in a value that can be changed, with what is in them."""
    return [
        (v, parts) for v in inside_of(x) if not isinstance(v, tuple) and (parts := parts_of(v)) is not None
    ]


def _none_of(form: Many) -> Many:
    """No element, of a run whose tensors have these forms."""
    shapes = [(f.dtype, [0, *(d or 0 for d in f.dims[1:])]) for f in form.parts()]
    return form.of_parts([torch.zeros(shape, dtype=dtype) for dtype, shape in shapes])


def _runs(elements: list[Any]) -> bool:
    return any(isinstance(v, (Many, Perhaps)) for v in elements)


def _is(a: Any, b: Any) -> bool:
    return a is b
