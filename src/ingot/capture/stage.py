"""What rewritten functions call: each decides whether Python or the model has to do it.

Nothing here depends on the form of a model. Plain values take Python's own way at once; what only the run
knows becomes a branch (`branch`), a loop (`loop`), a number (`scalars`) or a check (`checks`).
"""

# Arguments are whatever the model's Python has.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false, reportMissingTypeStubs=false
# pyright: reportPrivateUsage=false

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import inspect
import math
import operator
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

import onnx_ir as ir
import sympy
import torch

from ingot.capture import (
    checks,
    comprehensions,
    early,
    equality,
    iterators,
    kinds,
    mathematics,
    named,
    rounds,
    sorting,
    split,
    structure,
    words,
)
from ingot.capture.branch import Unjoined, branch
from ingot.capture.cells import Cells, contents
from ingot.capture.choice import Choice, Maybe, present
from ingot.capture.containers import Containers
from ingot.capture.dicts import TracedDict
from ingot.capture.intercept import perhaps_none, two_calls
from ingot.capture.lists import Given, Late, Rows, TracedList, Yields, require_may_grow
from ingot.capture.objects import is_a, is_user_class
from ingot.capture.open_dicts import OpenDict, is_grown, is_open_here, noted, open_dict_of, want_open
from ingot.capture.path import require_example
from ingot.capture.record import Recorder
from ingot.capture.request import (
    ACTIVE,
    cannot_say,
    cannot_wait,
    functions,
    place,
    recorder,
    request,
    request_code,
)
from ingot.capture.rewrite import Key
from ingot.capture.scalars import Symbolic, depends_on_data, is_data, kind_of, number, require_kind
from ingot.capture.scope import inside
from ingot.capture.sets import TracedSet, set_of
from ingot.capture.sources import codes_in
from ingot.capture.standins import calls, sequences, subscripts, table, values
from ingot.capture.texts import UNTOLD, filled_in
from ingot.capture.told import opened, told
from ingot.capture.where import (
    NO_SOURCE,
    UNKNOWN,
    is_user_code,
    models_own,
    quoted_line,
    raise_if_ours,
    user_frame,
)
from ingot.capture.words import Word, called, counted, is_thing
from ingot.errors import DataDependentError

iterators.register()
mathematics.register()
#: `+=` and its like, by the names that `ast` has for them.
_UPDATES: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.iadd, "Sub": operator.isub, "Mult": operator.imul, "Div": operator.itruediv,
    "FloorDiv": operator.ifloordiv, "Mod": operator.imod, "Pow": operator.ipow, "MatMult": operator.imatmul,
    "LShift": operator.ilshift, "RShift": operator.irshift, "BitAnd": operator.iand, "BitOr": operator.ior,
    "BitXor": operator.ixor,
}  # fmt: skip


class Runtime:
    """The functions that rewritten code calls. It has no state: the recorder has."""

    # -- conditions

    def waits(self, value: Any) -> bool:
        """Whether a condition is known only to the run."""
        if is_a(value, (TracedList, TracedDict, TracedSet, OpenDict, Rows)):
            return is_a(value, Rows) or not value.known
        if is_a(value, (Maybe, Word)):
            return True
        if not is_a(value, (torch.Tensor, *Symbolic)):
            return False
        g = recorder()
        if is_a(value, torch.Tensor):
            return is_data(g, value)
        return g.env.known(_truth(g, value)) is None

    def truth(self, value: Any) -> Any:
        """A value as a condition: a bool, or a SymBool that only the run knows."""
        if is_a(value, (TracedList, TracedDict, TracedSet, OpenDict)) and not value.known:
            return value.count() > 0
        if is_a(value, Rows):
            return value.length > 0
        if is_a(value, Word):
            return value.ingot_either(self.truth)
        if is_a(value, Maybe):
            present = self.truth(value.ingot_value)
            return self.both(self.opposite(value.ingot_is_none), lambda: present)
        if is_a(value, torch.Tensor) and is_data(recorder(), value):
            return _one_element(recorder(), value)
        if is_a(value, Symbolic):
            decided: Any = value if isinstance(value, torch.SymBool) else value != 0
            known = decided if isinstance(decided, bool) else recorder().env.known(decided.node.expr)
            return decided if known is None else known
        return bool(value)

    def truth_now(self, value: Any) -> Any:
        """The same of an operand of which only the truth is asked."""
        value = values.weighed(value)
        return self.truth(value) if self.waits(value) else self._now(value)

    def test(self, value: Any) -> ir.Value:
        """A condition as a BOOL of shape []."""
        found = self.truth(values.weighed(value))
        g = recorder()
        return g.scalar(found) if isinstance(found, torch.SymBool) else g.const(found, torch.bool)

    def none_of(self, *flags: Any) -> Any:
        """Whether no flag is set."""
        if not any(isinstance(f, torch.SymBool) for f in flags):
            return not any(flags)
        whole: Any = False
        for f in flags:
            whole = self.either(whole, lambda f=f: f)
        return self.opposite(whole)

    def opposite(self, value: Any) -> Any:
        """`not value`."""
        value = values.weighed(value)
        if not self.waits(value):
            return not self._now(value)
        return _not(self.truth(value))

    def both(self, a: Any, b: Callable[[], Any], names: Sequence[str] = (), *setters: Any) -> Any:
        """`a and b`; b may assign variables, which functions of the model's have."""
        weighed = values.weighed(a)
        if not self.waits(weighed):
            return b() if self._now(weighed) else a
        quick = None if names else self._sizes_only(a, b, _not)
        if quick is not None:
            return _not(quick)
        sides = (lambda: self._condition(b()), lambda: self._other_operand(a, False))
        return self.choose(weighed, *sides, names, *setters)

    def either(self, a: Any, b: Callable[[], Any], names: Sequence[str] = (), *setters: Any) -> Any:
        """`a or b`, in the same way."""
        weighed = values.weighed(a)
        if not self.waits(weighed):
            return a if self._now(weighed) else b()
        quick = None if names else self._sizes_only(a, b, lambda v: v)
        if quick is not None:
            return quick
        sides = (lambda: self._other_operand(a, True), lambda: self._condition(b()))
        return self.choose(weighed, *sides, names, *setters)

    def _sizes_only(self, a: Any, b: Callable[[], Any], turned: Callable[[Any], Any]) -> Any:
        """turned(a) or turned(b()), where it takes no node to know b."""
        g = recorder()
        decided = self.truth(a)
        if not isinstance(decided, torch.SymBool):
            return None
        cells = Cells(b)
        held = Containers.of(cells, ()) if _calls_functions(b) else None
        notes, assumed = g.env.notes(), list(g.assumptions)
        try:
            with inside(g) as trial:
                try:
                    value = b()
                except Exception as error:  # what the operand raises it raises again, where both are recorded
                    raise_if_ours(error)
                    value = None
            trial.body.discard()
            condition = isinstance(value, torch.SymBool)
            known = condition or (isinstance(value, bool) and isinstance(a, torch.SymBool))
            wrote = trial.body.nodes or trial.written or (held is not None and held.is_changed())
            if wrote or not known:
                g.env.forget(notes)  # what was asked of sizes that the first operand may exclude
                g.assumptions[:] = assumed
                return None
        finally:
            if held is not None:
                held.restore()
        if condition:
            return turned(decided) | turned(value)
        return turned(value) or turned(decided)

    def _condition(self, value: Any) -> Any:
        """An operand of `and` and `or`: a bool where it can be one."""
        return self.truth(value) if is_a(value, torch.Tensor) and value.dtype == torch.bool else value

    def _other_operand(self, value: Any, holds: bool) -> Any:
        """The first operand, which is the result: its truth is known by now."""
        plain = is_a(value, torch.SymBool) or (is_a(value, torch.Tensor) and value.dtype == torch.bool)
        if is_a(value, Maybe) and holds:
            return value.ingot_value
        if is_a(value, Maybe) and kind_of(value.ingot_value) is None:
            return None  # what has no number is true
        return holds if plain else value

    def _now(self, value: Any) -> bool:
        """The truth of what Python knows."""
        if is_a(value, Symbolic):
            g = recorder()
            known = g.env.known(_truth(g, value))
            assert known is not None, "the caller has asked"
            return known
        return bool(value)

    def same(self, a: Any, b: Any) -> Any:
        """`a is b`."""
        return equality.same(self, a, b)

    def class_of(self, x: Any) -> Any:
        """`x.__class__`."""
        require_kind(recorder(), x, "__class__")
        if is_a(x, Maybe):
            cannot_wait("asks for the class of a value of which data decides whether it is None")
        known: Any = sys._getframe(1).f_globals.get("type", kinds.type_of)  # which knows the module's `int`
        return known(x) if is_a(x, (torch.Tensor, *Symbolic)) else x.__class__

    def contains(self, container: Any, value: Any) -> Any:
        """`value in container`."""
        return equality.contains(self, container, value)

    # -- control flow

    def choose(
        self,
        condition: Any,
        then: Callable[[], Any],
        other: Callable[[], Any],
        names: Sequence[str] = (),
        *setters: Any,
    ) -> Any:
        """`then() if condition else other()`, of which both may assign variables that the setters have."""
        cells = Cells(then, other, *setters) if names else None
        return self.branch(condition, then, other, names, names, cells)

    def branch(
        self,
        condition: Any,
        then: Callable[[], Any],
        other: Callable[[], Any],
        names: Sequence[str],
        live: Sequence[str],
        cells: Cells | None = None,
    ) -> Any:
        """`if condition:` with its blocks as functions."""
        condition = values.weighed(condition)
        if not self.waits(condition):
            return then() if self._now(condition) else other()
        g = recorder()
        decided = self.truth(condition)
        if not isinstance(decided, torch.SymBool):
            return then() if decided else other()
        e = g.env.expr(decided)
        test = g.scalar(decided)
        g.env.asked.append(e)
        if depends_on_data(g, e):
            return branch(g, decided, test, then, other, names, live, cells)
        return self._on_sizes(g, decided, test, then, other, names, live, cells)

    def _on_sizes(
        self,
        g: Recorder,
        condition: Any,
        test: ir.Value,
        then: Callable[[], Any],
        other: Callable[[], Any],
        names: Sequence[str],
        live: Sequence[str],
        cells: Cells | None,
    ) -> Any:
        """A branch on sizes: an If where both sides can be recorded, else the example's, written down."""
        split.ask(g, g.env.expr(condition))
        if place() in ACTIVE.marks.recursive:
            return then() if g.env.take(g.env.expr(condition)) else other()
        fixed = set(g.env.fixed)
        try:
            with g.attempt():
                left = branch(g, condition, test, then, other, names, live, cells)
                require_example(g.env, fixed)
                return left
        except Exception as error:  # whatever a side makes of sizes that never take it
            raise_if_ours(error)
            if isinstance(error, Unjoined) and g.env.is_plain(g.env.expr(condition)):
                ACTIVE.marks.start_apart(place(), functions())
            holds = g.env.take(g.env.expr(condition))
        return then() if holds else other()

    def whole(self, body: Callable[[], Any], names: Sequence[str]) -> Any:
        """A function that is taken apart for what it asks about sizes."""
        return split.whole(recorder(), Key.of(sys._getframe(1).f_code), body, names)

    def repeat(self, test: Callable[[], Any], body: Callable[[], Any], *variables: Sequence[str]) -> None:
        """`while test(): body()`; variables: those that it writes, as `rounds.Work` has them."""
        rounds.repeat(self, test, body, *variables)

    def each(
        self,
        items: Any,
        body: Callable[[Any], Any],
        go: Callable[[], Any] | None,
        *parts: Any,
    ) -> None:
        """`for item in items: body(item)`, while `go()`; parts: as `rounds.each` has them."""
        rounds.each(self, items, body, go, *parts)

    def list_of(self, items: Any, element: Callable[[Any], Any], *rest: Any) -> Any:
        """`[element(x) for x in items if …]`."""
        return comprehensions.list_of(self, items, element, *rest)

    def gathered(self, loops: Callable[..., None], *assigned: Any) -> Any:
        """The same of several loops."""
        return comprehensions.gathered(self, loops, *assigned)

    def first_of(self, called: Any, kept: bool, items: Any, *rest: Any) -> Any:
        """`next(element(x) for x in items if …, default)`."""
        return comprehensions.first_of(self, called, kept, items, *rest)

    def first_in(self, called: Any, kept: bool, loops: Callable[..., None], *default: Any) -> Any:
        """The same of several loops."""
        return comprehensions.first_in(self, called, kept, loops, *default)

    def quantified(self, called: Any, kept: bool, items: Any, *rest: Any) -> Any:
        """`any(element(x) for x in items if …)`, or `all`."""
        return early.quantified(self, called, kept, items, *rest)

    def nested(self, called: Any, kept: bool, items: Any, *rest: Any) -> Any:
        """The same with a call of its own in the place of further loops."""
        return early.nested(self, called, kept, items, *rest)

    # -- failures

    def check(self, condition: Any, message: Callable[[], Any] | None) -> None:
        """`assert condition, message`."""
        condition = values.weighed(condition)
        if self.waits(condition):
            g = recorder()
            what = checks.line()
            if what in (UNKNOWN, NO_SOURCE) and message is not None:
                what = str(message())
            checks.require(g, self.test(condition), f"`{what}`")
            if isinstance(condition, torch.SymBool):
                g.env.learn(g.env.expr(condition))
                g.required[g.env.expr(condition)] = True
            return
        if not self._now(condition):
            error = AssertionError(message()) if message is not None else AssertionError()
            raise models_own(error)

    # -- values

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """`function(…)`: what Python's own functions do with numbers and lists that only the run knows."""
        if ACTIVE.words and function is range:
            args = counted(args)
        if ACTIVE.words and any(is_a(a, Word) for a in (*args, *kwargs.values())):
            return called(partial(self.call, function), args, kwargs)
        if any(is_a(a, Maybe) for a in (*args, *kwargs.values())) and calls.takes_none(function, args):
            return called(partial(self.call, function), args, kwargs)
        early.refuse_passed((*args, *kwargs.values()))
        if ACTIVE.maybes and isinstance(function, torch.nn.Module) and not _is_users(function):
            unsure = perhaps_none(type(function).forward, (function, *args), kwargs)
            if unsure is not None:
                return two_calls(partial(self.call, function), args, kwargs, unsure)
        if any(type(a) is Given for a in (*args, *kwargs.values())):
            make = TracedList if _keeps(function) else list
            args = tuple(make(a) if type(a) is Given else a for a in args)
            kwargs = {k: make(a) if type(a) is Given else a for k, a in kwargs.items()}
        found = table.STANDINS.get(id(function))
        if found is not None:
            args = sequences.all_begun(function, args)
        if any(is_a(a, Yields) for a in (*args, *kwargs.values())):
            _must_understand(function)
            if not _is_users(function):
                args = tuple(a.listed() if is_a(a, Yields) else a for a in args)
        if found is not None:
            return found(self, *args, **kwargs)
        if isinstance(function, enum.EnumType) and subscripts.is_lookup(args, kwargs):
            return subscripts.member(self, function, args[0])
        if isinstance(function, (BuiltinMethodType, MethodType)) and function.__name__ in ("sort", "extend"):
            owner = function.__self__
            if is_a(owner, list) and function.__name__ == "sort":
                return sorting.sort(self, owner, **kwargs)
            require_may_grow(owner, *args)
        if getattr(function, "__name__", "") == "update" and any(map(is_grown, args)):
            want_open(getattr(function, "__self__", None))
        if is_a(function, Maybe):
            function = present(function)
        if (sizes := _counted(function)) is not None:
            return math.prod(sizes)
        given, g = (*args, *kwargs.values()), ACTIVE.recorder
        if ACTIVE.words and any(is_a(v, Word) for a in given for v in structure.inside(a)):
            _must_understand(function)
        chosen = g.chosen if g is not None else {}
        inner = (v for a in given for v in structure.inside(a))
        if chosen and _asks_what_is_same(_code_of(function)) and any(id(v) in chosen for v in inner):
            _must_understand(function)
        inside = (*given, *_closed_over(function), getattr(function, "__self__", None))
        if not is_a(function, Choice) and any(map(_needs_care, inside)):
            _must_understand(function)
        kwargs |= _lists_of_fields(function, args, kwargs)
        inner, whole, named = opened(function, args, kwargs)
        if not _is_users(inner) and any(is_a(v, torch.SymBool) for v in (*whole, *named.values())):
            return told(self, inner, whole, named)
        if any(map(values.made_of_symbols, given)):
            return calls.with_symbols(self, function, args, kwargs)
        return function(*args, **kwargs)

    def shown(self, function: Any, plain: Callable[[Any, Runtime], Any], staged: Callable[[Any], Any]) -> Any:
        """A call of a function that shows what it is given, `plain`; `staged` where it is the model's own."""
        own = _is_users(function) or is_a(function, (Word, Choice, Maybe))
        return staged(function) if own else plain(function, self)

    def call_spread(self, function: Any, items: Any) -> Any:
        """`function(*items)`."""
        return sequences.spread(self, function, items)

    def equal(self, a: Any, b: Any) -> Any:
        """`a == b`."""
        return equality.equal(self, a, b)

    def unequal(self, a: Any, b: Any) -> Any:
        """`a != b`."""
        return equality.unequal(self, a, b)

    def matched(self, subject: Any) -> Any:
        """What a `match` that stays Python's looks at."""
        if any(is_a(v, (torch.SymBool, Maybe, Word)) for v in structure.inside(subject)):
            cannot_say("matches a condition that data or a size decides with patterns of this kind")
        return subject

    def has_elements(self, subject: Any, least: int, more: bool) -> Any:
        """Whether a pattern of so many elements, or of more, fits a subject."""
        if is_a(subject, Word):
            return called(self.has_elements, (subject, least, more), {})
        if not is_a(subject, Sequence) or is_a(subject, (str, bytes, bytearray)):
            return False
        count = subject.count() if is_a(subject, TracedList) else len(subject)
        return count >= least if more else self.equal(count, least)

    def rest(self, subject: Any, begin: int, after: int) -> Any:
        """The elements that a starred pattern takes."""
        if is_a(subject, Word):
            return called(self.rest, (subject, begin, after), {})
        return self.new_list(list(subject[begin : len(subject) - after]))

    def text(self, value: Any) -> Any:
        """A value on its way into a string."""
        if is_a(value, Symbolic) and depends_on_data(recorder(), recorder().env.expr(value)):
            cannot_wait("writes a number that data decides into a string")
        return value

    def told(self, value: Any) -> Any:
        """A value on its way into what an error says, which no output has."""
        of_data = is_a(value, Symbolic) and depends_on_data(recorder(), recorder().env.expr(value))
        return UNTOLD if of_data else value

    def told_in(self, text: str, values: Any) -> str:
        """`text % values` in what an error says."""
        return filled_in(text, values, self.told)

    def formatted(self, write: Callable[..., str], *values: Any) -> Any:
        """An f-string of these values."""
        if any(is_a(v, (Word, Maybe)) for v in values):
            return called(partial(self.formatted, write), values, {})
        return write(*values)

    def item(self, container: Any, index: Any) -> Any:
        """`container[index]`."""
        looked_up = is_a(index, Maybe) and is_a(container, dict) and None in container
        if is_a(container, Word) or is_a(index, Word) or looked_up:
            return called(self.item, (container, index), {})
        if is_a(index, Maybe) and is_a(container, (list, tuple, str)):
            index = present(index)  # where None is no place
        unsure = _maybe_in(index) if ACTIVE.maybes and not is_a(container, dict) else None
        if unsure is not None:  # None is an axis there, or an end
            indices = [_with(index, unsure, v) for v in (None, unsure.ingot_value)]
            none, there = (partial(self.item, container, i) for i in indices)
            return self.choose(unsure.ingot_is_none, none, there)
        return subscripts.item(self, container, counted(index) if ACTIVE.words else index)

    def put(self, value: Any, container: Any, index: Any) -> None:
        """`container[index] = value`."""
        if is_a(index, Word) and is_a(container, dict):
            words.put(container, index, value)
        else:
            subscripts.put(self, container, index, value)

    def update(self, container: Any, index: Any, operation: str, value: Callable[[], Any]) -> None:
        """`container[index] += value()`, or another operation, by its name in `ast`."""
        before = self.item(container, index)
        more = value()
        require_may_grow(before, more)
        self.put(self.stored(_UPDATES[operation](before, more)), container, index)

    def item_named(self, container: Any, make: Any, *parts: Any) -> Any:
        """`container[f"a{n}"]` or `container[str(n)]`."""
        return named.item(self, container, make, parts)

    def attribute_named(self, get: Any, owner: Any, make: Any, *parts: Any) -> Any:
        """`getattr(owner, f"a{n}")` or `getattr(owner, str(n))`."""
        return named.attribute(self, get, owner, make, parts)

    def stored(self, value: Any) -> Any:
        """A value on its way into an attribute or container, where code that is not rewritten may find it."""
        if is_a(value, Word) and not is_thing(value):
            g = recorder()
            if not depends_on_data(g, g.env.expr(value.ingot_condition)):
                return value.ingot_now("keeps a value that a condition chooses in an attribute or container")
            ACTIVE.marks.take_everything()  # whoever finds it must see what it is
        if is_a(value, Maybe):
            raise DataDependentError(
                f"{quoted_line()}\n"
                "Data decides whether this value is None, and it is kept in an attribute or "
                "container. Keep a tensor "
                "and a flag instead, or decide with `is None` before."
            )
        return value

    def bound(self, has: Any, value: Any) -> Any:
        """A variable that may have no value here; `has` says whether it has."""
        if self.waits(has):
            checks.require_once(
                recorder().env.expr(self.truth(has)), f"the variable has a value: `{checks.line()}`"
            )
        return value

    def taken_apart(self, value: Any) -> Any:
        """A value on its way into several variables."""
        return present(value) if is_a(value, Maybe) else self.stored(value)

    def returned(self, value: Any) -> Any:
        """A value on its way to the function's caller, which must see what it is."""
        if _undecided(value):
            request(user_frame(sys._getframe(1).f_back))
        return value

    def generator(self, generate: Callable[[Callable[[Any], Any]], Any]) -> Yields:
        """What a call of a generator function gives."""
        return Yields(generate)

    def late(self, generator: Any) -> Late:
        """A generator whose variables may be others by the time that something goes through it."""
        return Late(generator)

    def times(self, items: Any, count: Any) -> Any:
        """`[v] * count`."""
        return TracedList(items) * (values.number_of(count) if is_a(count, torch.Tensor) else count)

    def new_list(self, value: Any) -> Any:
        """A list that may grow as data says."""
        return TracedList(value) if type(value) is list else value

    def new_dict(self, value: Any) -> Any:
        """A dict whose keys data may decide, where there are such dicts."""
        if type(value) is not dict:
            return value
        if is_open_here():
            return open_dict_of(list(value.items()))
        return noted(TracedDict(value) if ACTIVE.marks.may_grow else value)

    def dict_of(self, pairs: list[tuple[Any, Any]]) -> Any:
        """`{key: value for …}`, of a list of its pairs."""
        if is_grown(pairs) or any(structure.undecided(key) for key, _ in pairs):
            return open_dict_of(pairs)
        return self.new_dict(dict(pairs))

    def spread(self, stars: Sequence[bool], *parts: Any) -> TracedList:
        """`[*a, b]`."""
        out = TracedList()
        for starred, part in zip(stars, parts, strict=True):
            list.extend(out, sequences.list_(self, part).parts() if starred else [part])
        return out

    def set_of(self, values: Any) -> Any:
        """`{a, b}`, or a set of a list."""
        return set_of(values)

    def spread_dict(self, stars: Sequence[bool], *parts: Any) -> dict[Any, Any]:
        """`{**a, key: value}`."""
        out: dict[Any, Any] = self.new_dict({})
        for starred, part in zip(stars, parts, strict=True):
            out.update(part if starred else [part])
        return out

    def given_list(self, value: list[Any]) -> Given:
        """A list that is made for a call: it may grow where the model's own code or a container keeps it."""
        return Given(value)


RUNTIME = Runtime()


def _one_element(g: Recorder, tensor: torch.Tensor) -> Any:
    """The truth of a tensor of one element, as Python asks for it."""
    count: Any = tensor.numel()  # a SymInt where a size decides
    if isinstance(count, int) and count != 1:
        bool(torch.empty(count))  # raises what torch raises
    value = g.operand(tensor, torch.bool)
    known = g.memo.get(("truth", value))  # one condition, however often it is asked
    if known is None:
        scalar = g.op("Reshape", value, g.const([], torch.int64)) if tensor.dim() else value
        known = g.memo["truth", value] = number(g, scalar, bool)
    return known


def _truth(g: Recorder, value: Any) -> Any:
    """The formula that says whether a symbolic number is true."""
    e = g.env.expr(value)
    return e if is_a(value, torch.SymBool) else sympy.Ne(e, 0)


def _not(value: Any) -> Any:
    return torch.sym_not(value) if is_a(value, torch.SymBool) else not value


def _undecided(value: Any) -> bool:
    """Whether a value, or one of its parts, may be None, or is one that a condition chooses."""
    return any(is_a(v, (Maybe, Word)) for v in structure.inside(value))


def _calls_functions(thunk: Any) -> bool:
    """Whether an operand calls something, which may change what it gets at: it, or what it closes over."""
    seen, todo = set[int](), [thunk]
    while todo:
        function = todo.pop()
        if is_a(function, FunctionType) and id(function) not in seen:
            seen.add(id(function))
            if any("call" in code.co_names for code in codes_in(function.__code__)):
                return True
            todo += [*_closed_over(function), *(function.__defaults__ or ())]
    return False


def _closed_over(function: Any) -> list[Any]:
    """What the variables hold that a function of the model's takes from around it."""
    cells: Any = getattr(function, "__closure__", None) or ()
    return [contents(c) for c in cells]


def _needs_care(value: Any) -> bool:
    """Whether a value is not what Python takes it for: None or not, a number that data decides."""
    if is_a(value, Symbolic):
        g = recorder()
        return g.env.of_data(g.env.expr(value))
    inside = structure.inside(value) if ACTIVE.maybes else (value,)
    return any(is_a(v, Maybe) for v in inside) or is_a(value, Word)


def _must_understand(function: Any) -> None:
    """What may be None, or a number of data, is passed on: whoever gets it must see what it is."""
    code = _code_of(function)
    if code is not None and is_user_code(code):
        request_code(code)


@functools.lru_cache(maxsize=4096)
def _asks_what_is_same(code: Any) -> bool:
    """Whether a function of the model's asks if two things are one, or whether one is in a container."""
    if code is None or not is_user_code(code):
        return False
    looks = any(step.opname == "CONTAINS_OP" for step in dis.get_instructions(code))
    return looks or kinds.asks_what_is_same(code)


def _maybe_in(index: Any) -> Maybe | None:
    """What may be None in a subscript of a tensor or sequence."""
    if is_a(index, slice):
        index = (index.start, index.stop, index.step)
    parts = map(_maybe_in, index) if type(index) is tuple else ()
    return index if is_a(index, Maybe) else next((p for p in parts if p is not None), None)


def _with(index: Any, old: Any, new: Any) -> Any:
    """A subscript with something else in the place of a part."""
    if is_a(index, slice):
        return slice(*(_with(p, old, new) for p in (index.start, index.stop, index.step)))
    if type(index) is tuple:
        return tuple(_with(p, old, new) for p in index)
    return new if index is old else index


def _is_users(function: Any) -> bool:
    """Whether a function is the model's own Python."""
    code = _code_of(function)
    return code is not None and is_user_code(code)


def _keeps(function: Any) -> bool:
    """Whether a list that is given to a function may be kept: by the model's own code or a container."""
    owner = getattr(function, "__self__", None)
    return (
        _is_users(function)
        or is_a(function, (Choice, Word))
        or function is dict
        or (isinstance(function, type) and is_user_class(function))
        or (
            isinstance(function, (BuiltinMethodType, MethodType))
            and is_a(owner, (list, dict, deque, OpenDict))
        )
    )


def _lists_of_fields(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The lists that a dataclass makes for its own fields, as such that may grow."""
    if not (isinstance(function, type) and dataclasses.is_dataclass(function)):
        return {}
    fields = [f for f in dataclasses.fields(function) if f.init]
    left = [f for f in fields if not f.kw_only][len(args) :] + [f for f in fields if f.kw_only]
    names = [f.name for f in left if f.default_factory is list and f.name not in kwargs]
    return {name: TracedList() for name in names if _makes(function, name)}


def _makes(cls: type, field: str) -> bool:
    """Whether the `__init__` that a class has is the dataclass's, which makes this field itself."""
    given = inspect.signature(cls.__init__).parameters.get(field)
    return given is not None and given.default is getattr(dataclasses, "_HAS_DEFAULT_FACTORY", None)


def _code_of(function: Any) -> Any:
    target: Any = function
    if isinstance(target, torch.nn.Module):
        target = target.forward
    target = getattr(target, "__func__", target)
    return getattr(target, "__code__", None)


def _counted(function: Any) -> torch.Size | None:
    """The sizes of which it is the method `numel`, which would fix each of them."""
    counts = isinstance(function, BuiltinMethodType) and function.__name__ == "numel"
    return function.__self__ if counts and isinstance(function.__self__, torch.Size) else None
