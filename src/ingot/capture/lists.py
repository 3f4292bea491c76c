"""Lists whose length data decides: elements that are there or not, runs of elements, and what can be done
with them.
"""

# Elements may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ingot.capture.checks import demand, insist, line, require_place, require_uncaught
from ingot.capture.choice import Parts, Undecided
from ingot.capture.objects import is_a
from ingot.capture.request import (
    ACTIVE,
    asking_frame,
    cannot_say,
    cannot_wait,
    recorder,
    request,
    unpacked,
    unpacks,
    updates,
)
from ingot.capture.runs import (
    LEAF,
    Even,
    Many,
    Perhaps,
    Scope,
    everywhere,
    is_element,
    joined,
    run_of,
    stacked,
    table,
    unified,
)
from ingot.capture.scalars import as_tensor, kind_of, of_truth
from ingot.capture.where import models_own, quoted_line, source_line
from ingot.errors import DataDependentError


@dataclass(eq=False)
class Rows(Undecided):
    """Something to loop over whose length only the run knows."""

    length: Any  # SymInt
    at: Callable[[Any], Any]

    def __iter__(self) -> Iterator[Any]:
        frame = asking_frame()
        if frame is not None and unpacks(frame):
            return iter([self.at(i) for i in range(self._variables(unpacked(frame)))])
        return cannot_wait("loops over something as long as data says")

    def _variables(self, wanted: int | None) -> int:
        """Into how many variables `a, b = …` takes the elements apart: the model checks that there are as
        many as data says. Where sizes say it, these become fixed.
        """
        g = recorder()
        if g.env.of_inputs(self.length):
            return g.env.fixed_number(self.length)
        if wanted is None:
            cannot_say(
                "takes as many elements as data says apart, of which a starred variable takes some",
                "Take them by their places: `first, rest = items[0], items[1:]`.",
            )
        said = f"{wanted} elements are there to be taken apart"
        require_uncaught(said, "Ask with `if` before.", ValueError)
        insist(g, self.length == wanted, f"{said}: `{line()}`")
        return wanted

    def __len__(self) -> int:
        cannot_wait("needs a length that data decides as a Python number")

    def __eq__(self, other: object) -> bool:
        cannot_wait("compares a list that is as long as data says")

    __hash__ = object.__hash__

    def listed(self) -> list[Any]:
        """The elements as a list keeps them."""
        from ingot.capture.stage import RUNTIME

        return RUNTIME.list_of(self, lambda v: v, []).parts()

    def __add__(self, other: Any) -> TracedList:
        return TracedList([*self.listed(), *_elements_of(other)])

    def __radd__(self, other: list[Any]) -> TracedList:
        return TracedList([*list.__iter__(other), *self.listed()])

    def __bool__(self) -> bool:
        cannot_wait("asks whether there is any of what data decides the number of")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._cut(index.start, index.stop, index.step)
        from ingot.capture.stage import RUNTIME

        require_place(index, self.length, "the list")
        for inside in (index < self.length, index >= -self.length):  # outside, a part of a tensor is empty
            insist(recorder(), inside, "the list has no element at this place")
        return self.at(RUNTIME.choose(index < 0, lambda: self.length + index, lambda: index))

    def _cut(self, start: Any, stop: Any, step: Any) -> Rows:
        """Those of a slice."""
        n = self.length
        if step is not None and not isinstance(step, int):
            cannot_wait("takes every so many of something as long as data says, as data says too")
        if step is not None and step < 0:
            turned = Rows(n, lambda i: self.at(n - 1 - i))
            return turned._cut(_mirrored(start, n), _mirrored(stop, n), -step)
        step = 1 if step is None else step
        first = 0 if start is None else _inside(start, n)
        if isinstance(stop, int) and stop < 0:
            end = n + stop
        else:
            end = n if stop is None else torch.sym_min(_counted(stop, n), n)
        return Rows(torch.sym_max((end - first + step - 1) // step, 0), lambda i: self.at(first + i * step))


@dataclass(eq=False)
class Passing(Rows):
    """The same as Python's iterators have it: each element is given once.

    begun: how many `next` has taken; taken: whether something has looped over the others
    """

    begun: Any = 0
    taken: Any = False

    def __iter__(self) -> Iterator[Any]:
        return iter(self.left())

    def left(self) -> Rows:
        """The others, which nobody may ask for again.

        Raises:
            DataDependentError: somebody has, and what is left now the run alone knows.
        """
        self._require_known()
        self.taken, begun = True, self.begun
        if isinstance(begun, int) and not begun:
            return Rows(self.length, self.at)
        return Rows(self.length - begun, lambda i: self.at(begun + i))

    def take(self, *default: Any) -> Any:
        """`next`: the model checks that there is one, where there is no default."""
        from ingot.capture.stage import RUNTIME

        self._require_known()
        begun = self.begun
        if not default:
            demand(recorder(), begun < self.length, "next() finds no element")
            self.begun = begun + 1
            return self.at(begun)
        self.begun = torch.sym_min(begun + 1, self.length)
        return RUNTIME.choose(begun < self.length, lambda: self.at(begun), lambda: default[0])

    def _require_known(self) -> None:
        if self.taken is not False:
            raise _looped_over("an iterator")


def _looped_over(what: str) -> DataDependentError:
    return DataDependentError(
        f"{quoted_line()}\nThis goes on with {what} that something has looped over before, and data or a "
        "size decides how far. Keep its elements in a list."
    )


def cut(tensor: torch.Tensor, size: Any, axis: int) -> Rows:
    """torch.split into parts of one size, the last of which may be shorter; of nothing into one part."""
    length, axis = tensor.shape[axis], axis % tensor.dim()
    before = (slice(None),) * axis
    return Rows(
        torch.sym_max((length + size - 1) // size, 1),
        lambda i: tensor[(*before, slice(i * size, (i + 1) * size))],
    )


@dataclass(eq=False)
class Yields:
    """What a generator of rewritten code yields, to be looped over once.

    `generate` gives each value to a function in turn, and ends where that says so.
    """

    generate: Callable[[Callable[[Any], Any]], Any]
    taken: Any = False

    def give(self, emit: Callable[[Any], Any]) -> None:
        """Give every value to a function.

        Raises:
            DataDependentError: something has looped over them before.
        """
        if self.taken:
            raise _looped_over("a generator")
        self.taken = True
        self.generate(emit)

    def listed(self) -> TracedList:
        """All values as a list."""
        out = TracedList()

        def add(value: Any) -> bool:
            list.append(out, value)
            return False

        self.give(add)
        return out

    def __iter__(self) -> Iterator[Any]:
        request(asking_frame())
        return iter(self.listed())

    def __next__(self) -> Any:
        cannot_wait("takes the next element of a generator that data steers")


class Late(Iterator[Any]):
    """A generator that must be gone through when Python does: its variables may be others then."""

    def __init__(self, generator: Iterator[Any]) -> None:
        self.generator = generator

    def __next__(self) -> Any:
        return next(self.generator)


class Given(list[Any]):
    """A list that was made for a call: whoever is called decides what it becomes."""


class TracedList(list[Any], Parts):
    """A list of a rewritten function: it may come to hold Perhaps and Many, and has no length then."""

    @property
    def known(self) -> bool:
        """Whether the number of elements is a Python number."""
        return not any(is_a(v, (Perhaps, Many)) for v in list.__iter__(self))

    @property
    def is_counted(self) -> bool:
        """Whether each element stands for itself, there or not."""
        return not any(is_a(v, Many) for v in list.__iter__(self))

    @property
    def may_be_empty(self) -> bool:
        """Whether each element may be there or not."""
        return all(is_a(v, (Perhaps, Many)) for v in list.__iter__(self))

    def parts(self) -> list[Any]:
        """The elements as they are kept."""
        return list(list.__iter__(self))

    def of_parts(self, parts: list[Any]) -> TracedList:
        """A list of its own with these elements."""
        return TracedList(parts)

    def count(self, *value: Any) -> Any:  # type: ignore[override]
        """As list.count; without a value, how many elements there are."""
        if value:
            return self._equal_to(*value)
        total: Any = 0
        for v in self.parts():
            if isinstance(v, Many):
                total = total + v.count
            elif isinstance(v, Perhaps):
                total = total + (run_of(v).count if is_element(v) else of_truth(recorder(), v.there))
            else:
                total = total + 1
        return total

    def _equal_to(self, value: Any) -> Any:
        """How many elements are equal to a value."""
        from ingot.capture.stage import RUNTIME

        if not self.known:
            return self._are(value).sum().item()
        total: Any = 0
        for v in self.parts():
            same = v is value or RUNTIME.equal(v, value)
            total = total + (of_truth(recorder(), same) if isinstance(same, torch.SymBool) else bool(same))
        return total

    def _are(self, value: Any) -> torch.Tensor:
        """For each number in the list, whether it is equal to a value: bool of [elements]."""
        rows, kind = self.rows()
        its = kind_of(value)
        if kind is torch.Tensor or its in (None, torch.Tensor):
            cannot_wait("looks for a value that is no number in a list of unknown length")
        dtype = torch.float64 if float in (kind, its) else torch.int64
        return rows.to(dtype) == as_tensor(recorder(), value, dtype)

    def place_of(self, value: Any) -> Any:
        """`index`: the run fails where no element is equal to the value."""
        there = self._are(value)
        require_uncaught("the value is in the list", "Ask with `in` before.", ValueError)
        found: Any = there.any().item()
        insist(recorder(), found, f"the value is in the list: `{line()}`")
        return torch.cat([there, there.new_ones(1)]).long().argmax().item()

    def take_out(self, value: Any) -> None:
        """`remove`, in the same way."""
        self.take(self.place_of(value))

    def run(self, scope: Scope = everywhere) -> Many:
        """All elements in tensors.

        Raises:
            DataDependentError: they are not alike, or no tensors and numbers.
        """
        return joined(self.parts(), scope)

    def rows(self) -> tuple[torch.Tensor, type]:
        """All elements as rows of one tensor, and their kind.

        Raises:
            DataDependentError: they are made of several tensors.
        """
        run = self.run()
        if run.like is not LEAF:
            kind = "list" if isinstance(run.like, list) else type(run.like).__name__
            cannot_wait(f"does something to a list of {kind}s that data decides the length of")
        (column,) = run.columns
        return stacked(run), getattr(column, "kind", torch.Tensor)

    def numbers(self) -> tuple[torch.Tensor, type]:
        """What torch.tensor makes of it, and the kind of its elements.

        Raises:
            DataDependentError: it makes nothing of them, or they are of several sizes.
        """
        run = self.run()
        rows = None if run.like is LEAF else table(run)
        return self.rows() if rows is None else (rows, torch.Tensor)

    def element(self, index: Any) -> Any:
        """The element at a position that data may decide."""
        run = self.run()
        require_place(index, run.count, "the list")
        return run.reader()(index)

    def become(self, run: Many) -> None:
        """Hold a run instead."""
        list.__setitem__(self, slice(None), [run])

    def put(self, index: Any, value: Any) -> None:
        """Replace the element at a position that data may decide."""
        run = self.run()
        places = torch.arange(run.count)
        there = places == _place(run.count, index)
        run, one = unified([run, run_of(_as_number_in(run, value))])
        if all(isinstance(c, Even) for c in run.columns):
            self.become(run.where(there, one))
        else:
            self.become(joined([run, one]).take(torch.where(there, run.count, places)))

    def take(self, index: Any = -1) -> Any:
        """`pop` where data decides the position or the length."""
        run = self.run()
        taken = run.reader()(index)
        place, left = _place(run.count, index), run.count - 1
        if isinstance(index, int) and index == -1:
            self.become(run.cut(slice(0, left)))
        else:
            rest = torch.arange(left)
            self.become(run.take(rest + (rest >= place).long()))
        return taken

    def extend(self, more: Any) -> None:  # type: ignore[override]
        """As list.extend, with as many elements as data says too."""
        list.extend(self, _elements_of(more))

    def __add__(self, more: Any) -> Any:
        """`items + […]`: what says itself what becomes of a list before it is asked, as by a plain one."""
        asked = hasattr(type(more), "__radd__") and not isinstance(more, TracedList)
        plain = isinstance(more, list) and not asked
        return TracedList([*self.parts(), *list.__iter__(more)]) if plain else NotImplemented

    def __radd__(self, before: Any) -> Any:
        """`[…] + items`: a plain list would take the parts as they are kept for elements. Python asks here of
        `plain += items` too.
        """
        if not isinstance(before, list):
            return NotImplemented
        frame = asking_frame()
        if not self.known and frame is not None and updates(frame):
            request(frame)
            require_may_grow(before, self)
        return TracedList([*list.__iter__(before), *self.parts()])

    def __iadd__(self, more: Any) -> TracedList:  # type: ignore[misc, override]
        self.extend(more)
        return self

    def __imul__(self, count: Any) -> TracedList:  # type: ignore[misc, override]
        made: Any = self * count
        list.__setitem__(self, slice(None), made.parts())
        return self

    def put_in(self, index: Any, value: Any) -> None:
        """`insert` where data decides the position or the length."""
        if not list.__len__(self):  # wherever
            list.append(self, value)
            return
        run = self.run()
        count = run.count
        at = torch.clamp(_from_start(count, index), 0, count)
        place = torch.arange(count + 1)
        order = torch.where(place == at, count, place - (place > at).long())
        self.become(joined([run, _as_number_in(run, value)]).take(order))

    def __len__(self) -> int:
        return (
            list.__len__(self) if self.known else cannot_wait("needs the length of a list that data decides")
        )

    def __iter__(self) -> Iterator[Any]:
        if self.known:
            return list.__iter__(self)
        frame = asking_frame()
        if frame is not None and unpacks(frame):  # as `Rows` has it
            return iter(Rows((run := self.run()).count, run.reader()))
        return cannot_wait("loops over a list as long as data says")

    def __reversed__(self) -> Iterator[Any]:
        return (
            list.__reversed__(self) if self.known else cannot_wait("loops over a list as long as data says")
        )

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """What NumPy makes of it, which would take the parts as they are kept for elements."""
        del copy
        return (
            np.array(self.parts(), dtype)
            if self.known
            else cannot_say(
                "makes an array of a list that data decides the length of",
                "Give it to torch.tensor, and use the tensor's own mean, max, sort and so on.",
            )
        )

    def __bool__(self) -> bool:
        return (
            list.__len__(self) > 0
            if self.known
            else cannot_wait("asks whether a list that data fills is empty")
        )


def require_may_grow(items: Any, *more: Any) -> None:
    """A list that becomes longer by as many elements as data says is one of rewritten code.

    Raises:
        Restart: other code of the model's own has made it.
        DataDependentError: a library has, or the caller.
    """
    grown = any(isinstance(v, TracedList) and not v.known for v in more)
    if not grown or isinstance(items, TracedList) or not isinstance(items, list):
        return
    if recorder().made_by_call(items):
        ACTIVE.marks.take_everything()  # whoever has made it makes one that may grow
    raise DataDependentError(
        f"{quoted_line()}\nThis makes a list longer by as many elements as data or a size says, and code "
        "that is not the model's own has made it. Make another one of both: `items = [*items, *more]`."
    )


_OF_SEQUENTIAL = ("__init__", "__getitem__", "__iter__", "__len__", "__call__", "forward")


def is_called_in_order(kind: type[torch.nn.Sequential]) -> bool:
    """Whether a slice of such a module is one that calls its layers one after the other, and nothing else:
    torch makes it of the same class.
    """
    return all(getattr(kind, name) is getattr(torch.nn.Sequential, name) for name in _OF_SEQUENTIAL)


class Layers(TracedList):
    """Layers of an nn.Sequential, of which data decides some: it is called as that is."""

    def __call__(self, value: Any) -> Any:
        """What the layers make of it, one after the other."""
        from ingot.capture.stage import RUNTIME

        for part in self.parts():
            layer, there = (part.value, part.there) if isinstance(part, Perhaps) else (part, True)
            value = RUNTIME.choose(there, lambda f=layer, v=value: f(v), lambda v=value: v)
        return value


def _guarded(name: str) -> Callable[..., Any]:
    """A method of list that needs to know where each element is."""
    plain: Any = getattr(list, name)

    @functools.wraps(plain)
    def method(self: TracedList, *args: Any, **options: Any) -> Any:
        cut = args[0] if name == "__delitem__" and isinstance(args[0], slice) else slice(None)
        places = any(isinstance(a, torch.SymInt) for a in (*args, cut.start, cut.stop))
        if not self.known and name == "__getitem__" and isinstance(args[0], slice):
            return _cut(self, args[0])
        if self.known and not (places and (name == "__delitem__" or all(kind_of(v) for v in self.parts()))):
            try:
                made = plain(self, *args, **options)
            except IndexError as error:
                # The side of a branch that does this raises always, as far as rounds have filled the list.
                models_own(error)
                raise
            new = name in _MAKING or (name == "__getitem__" and isinstance(args[0], slice))
            return TracedList(made) if new and type(made) is list else made
        staged = _STAGED.get(name)
        if staged is None or (args and isinstance(args[0], slice) and name != "__delitem__"):
            what = "writes to a slice of" if name == "__setitem__" else f"calls list.{name} on"
            cannot_wait(f"{what} a list, where data decides how long it is or a place in it")
        return staged(self, *args)

    return method


_MAKING = ("__mul__", "__rmul__", "copy")


def sliced(items: Any, where: slice) -> TracedList:
    """`items[where]` of a list or tuple, where data or a size decides how long it is or where to cut."""
    parts = TracedList(list.__iter__(items) if isinstance(items, list) else iter(items))
    if parts.known:
        try:
            return _cut(parts, where) if parts.parts() else parts
        except DataDependentError:  # no tensor holds them all
            return TracedList(_those_in(parts.parts(), where))
    return _cut(parts, where)


def _cut(items: TracedList, where: slice) -> TracedList:
    run, step = items.run(), where.step
    if step is not None and not isinstance(step, int):
        cannot_wait("takes every so many elements of a list, as data or a size says")
    if step is not None and step < 0:
        first, end = (_mirrored(p, run.count) for p in (where.start, where.stop))
        run, where = _backwards(run), slice(first, end, -step)
    whole = where.start is None and where.stop is None and where.step in (None, 1)
    return TracedList([run if whole else run.cut(where)])


def _those_in(parts: list[Any], where: slice) -> list[Any]:
    """The elements of a slice, each of which may be there: of lists that no tensor can hold."""
    from ingot.capture.stage import RUNTIME

    if where.step not in (None, 1):
        cannot_wait("takes every so many elements of a list, at a place that data or a size decides")
    n, made = len(parts), list[Any]()
    first = None if where.start is None else _counted(where.start, n)
    end = None if where.stop is None else _counted(where.stop, n)
    for i, v in enumerate(parts):
        after: Any = True if first is None else first <= i
        there = RUNTIME.both(after, lambda i=i: True if end is None else end > i)
        if isinstance(there, torch.SymBool):
            made.append(Perhaps(there, v))
        elif there:
            made.append(v)
    return made


def _counted(place: Any, length: Any) -> Any:
    """A place in a slice as one from the start, which may lie outside."""
    from ingot.capture.stage import RUNTIME

    return RUNTIME.choose(place < 0, lambda: place + length, lambda: place)


def _inside(place: Any, length: Any) -> Any:
    """A place in a slice as one from the start, at most at the end."""
    if isinstance(place, int):
        return torch.sym_min(place, length) if place >= 0 else torch.sym_max(place + length, 0)
    return torch.sym_min(torch.sym_max(_counted(place, length), 0), length)


def _mirrored(place: Any, length: Any) -> Any:
    """The same place in a list that is turned around, for a slice of it."""
    return None if place is None else torch.sym_max(length - 1 - _counted(place, length), 0)


def _backwards(run: Many) -> Many:
    return run.take(torch.arange(run.count).flip(0))


def _times(items: TracedList, count: Any) -> TracedList:
    if isinstance(count, int) or not list.__len__(items):
        return TracedList(items.parts() * (count if isinstance(count, int) else 0))
    return TracedList([items.run().repeated(count)])


def _copy(items: TracedList) -> TracedList:
    return TracedList(items.parts())


def _elements_of(x: Any) -> Any:
    """What a list is made longer with, as it is kept."""
    if isinstance(x, Yields):
        return x.listed().parts()
    if isinstance(x, torch.Tensor) and x.dim() and isinstance(x.shape[0], torch.SymInt):
        return Rows(x.shape[0], lambda i: x.select(0, i)).listed()
    return x.parts() if isinstance(x, TracedList) else x.listed() if isinstance(x, Rows) else x


def _delete(items: TracedList, index: Any) -> None:
    if not isinstance(index, slice):
        items.take(index)
        return
    if index.step not in (None, 1):
        cannot_wait("deletes every so many elements of a list that data decides")
    first, end = index.start, index.stop
    before = [] if first is None else sliced(items, slice(None, first)).parts()
    if first is not None and end is not None:  # nothing is taken out where the end lies before
        count = items.count()
        end = torch.sym_max(_inside(first, count), _inside(end, count))
    after = [] if end is None else sliced(items, slice(end, None)).parts()
    list.__setitem__(items, slice(None), [*before, *after])


def _reverse(items: TracedList) -> None:
    items.become(_backwards(items.run()))


_STAGED: dict[str, Callable[..., Any]] = {
    "__getitem__": TracedList.element,
    "__setitem__": TracedList.put,
    "__delitem__": _delete,
    "pop": TracedList.take,
    "index": TracedList.place_of,
    "remove": TracedList.take_out,
    "insert": TracedList.put_in,
    "reverse": _reverse,
    "copy": _copy,
    "__mul__": _times,
    "__rmul__": _times,
}
for _name in (
    "__getitem__", "__setitem__", "__delitem__", "__contains__", "__eq__", "__ne__", "__lt__", "__le__",
    "__gt__", "__ge__", "__mul__", "__rmul__", "copy", "index", "insert", "pop", "remove",
    "reverse", "sort",
):  # fmt: skip
    setattr(TracedList, _name, _guarded(_name))


def _from_start(count: Any, index: Any) -> torch.Tensor:
    """A position as a tensor; negative ones count from the end, whenever it is known that they are."""
    at = as_tensor(recorder(), index, torch.int64)
    return torch.where(at < 0, at + count, at)


def _place(count: Any, index: Any) -> torch.Tensor:
    """The same for an element that must be there, which the model checks."""
    require_place(index, count, "the list")
    at = _from_start(count, index)
    inside = (at >= 0) & (at < count)
    torch.ops.aten._assert_async.msg(inside, f"{source_line()}: the list has an element at this position")
    return at


def _as_number_in(run: Many, value: Any) -> Any:
    """A number among floats is one."""
    floats = [isinstance(c, Even) and c.kind is float for c in run.columns]
    if run.like is not LEAF or floats != [True] or kind_of(value) not in (int, bool):
        return value
    counted: Any = of_truth(recorder(), value) if isinstance(value, torch.SymBool) else value
    return torch.sym_float(counted) if isinstance(counted, torch.SymInt) else float(counted)
