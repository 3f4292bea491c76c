"""Lists whose length data decides: elements that are there or not, runs of elements, and what can be done
with them.
"""

# Elements may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ingot.capture.choice import Undecided
from ingot.capture.request import asking_frame, cannot_wait, recorder, request, unpacks
from ingot.capture.scalars import DTYPE, as_tensor, kind_of
from ingot.capture.sharing import link_copy
from ingot.capture.where import quoted_line, source_line
from ingot.errors import DataDependentError


@dataclass(eq=False)
class Perhaps(Undecided):
    """An element that is there where `there` holds."""

    there: Any  # SymBool
    value: Any

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return joined(func, args, kwargs or {})


@dataclass(eq=False)
class Many(Undecided):
    """As many elements as `rows` has: each one of its rows, or the number in it."""

    rows: torch.Tensor
    kind: type

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return joined(func, args, kwargs or {})


@dataclass(eq=False)
class Rows(Undecided):
    """Something to loop over whose length only the run knows."""

    length: Any  # SymInt
    at: Callable[[Any], Any]

    def __iter__(self) -> Iterator[Any]:
        frame = asking_frame()
        if frame is not None and unpacks(frame):  # `a, b = …` wants a number of them: the size becomes fixed
            return iter([self.at(i) for i in range(recorder().env.fixed_number(self.length))])
        return cannot_wait("loops over something as long as data says")

    def __len__(self) -> int:
        cannot_wait("needs a length that data decides as a Python number")

    def __eq__(self, other: object) -> bool:
        cannot_wait("compares a list that is as long as data says")

    __hash__ = object.__hash__

    def _listed(self) -> list[Any]:
        from ingot.capture.stage import RUNTIME

        return RUNTIME.list_of(self, lambda v: v, []).parts()

    def __add__(self, other: Any) -> TracedList:
        return TracedList([*self._listed(), *(other._listed() if isinstance(other, Rows) else other)])

    def __radd__(self, other: list[Any]) -> TracedList:
        return TracedList([*list.__iter__(other), *self._listed()])

    def __bool__(self) -> bool:
        cannot_wait("asks whether there is any of what data decides the number of")

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._cut(index.start, index.stop, index.step)
        return self.at(index if isinstance(index, torch.SymInt) or index >= 0 else self.length + index)

    def _cut(self, start: Any, stop: Any, step: Any) -> Rows:
        """Those of a slice, whose places are known."""
        step = 1 if step is None else step
        places = (0 if start is None else start, 0 if stop is None else stop, step)
        if not all(isinstance(p, int) for p in places) or step < 1:
            cannot_wait("takes a slice of something as long as data says, at a place that data decides")
        n = self.length
        first = torch.sym_min(places[0], n) if places[0] >= 0 else torch.sym_max(n + places[0], 0)
        end = n if stop is None else torch.sym_min(stop, n) if stop >= 0 else n + stop
        return Rows(torch.sym_max((end - first + step - 1) // step, 0), lambda i: self.at(first + i * step))


def cut(tensor: torch.Tensor, size: Any, axis: int) -> Rows:
    """torch.split into parts of one size, the last of which may be shorter; of nothing into one part."""
    length, axis = tensor.shape[axis], axis % tensor.dim()
    before = (slice(None),) * axis
    return Rows(
        (torch.sym_max(length, 1) + size - 1) // size,
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
            raise DataDependentError(
                f"{quoted_line()}\nThis goes on with a generator that something has looped over before, and "
                "data decides how far. Keep what it yields in a list."
            )
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


class Given(list[Any]):
    """A list that was made for a call: whoever is called decides what it becomes."""


class TracedList(list[Any]):
    """A list of a rewritten function: it may come to hold Perhaps and Many, and has no length then."""

    @property
    def known(self) -> bool:
        """Whether the number of elements is a Python number."""
        return not any(isinstance(v, (Perhaps, Many)) for v in list.__iter__(self))

    def extend_by(self, rows: torch.Tensor, kind: type) -> None:
        """Append the rows of a tensor, each as a value of this kind."""
        list.append(self, Many(rows, kind))

    def parts(self) -> list[Any]:
        """The elements as they are kept."""
        return list(list.__iter__(self))

    def count(self, *value: Any) -> Any:  # type: ignore[override]
        """As list.count; without a value, how many elements there are."""
        if value:
            return (
                list.count(self, *value) if self.known else cannot_wait("counts in a list of unknown length")
            )
        total: Any = 0
        for v in self.parts():
            if isinstance(v, Many):
                total = total + v.rows.shape[0]
            elif isinstance(v, Perhaps):
                total = total + piece(v).shape[0]
            else:
                total = total + 1
        return total

    def rows(self) -> tuple[torch.Tensor, type]:
        """All elements as rows of one tensor, and their kind."""
        parts = self.parts()
        pieces, kind = self.pieces()
        rows = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        if len(pieces) > 1 or isinstance(parts[0], Perhaps):
            given = [
                v.rows if isinstance(v, Many) else v.value if isinstance(v, Perhaps) else v for v in parts
            ]
            link_copy(recorder(), rows, [v for v in given if isinstance(v, torch.Tensor)])
        return rows, kind

    def pieces(self) -> tuple[list[torch.Tensor], type]:
        """Elements and runs of them as rows, and their kind.

        Raises:
            DataDependentError: they are not alike.
        """
        parts = self.parts()
        kinds = {
            v.kind if isinstance(v, Many) else _kind(v.value if isinstance(v, Perhaps) else v) for v in parts
        }
        pieces = [piece(v) for v in parts]
        for p in pieces[1:]:
            if len(kinds) > 1 or not _alike(pieces[0], p):
                found = " and ".join(f"{p.dtype} of shape {list(p.shape[1:])}" for p in (pieces[0], p))
                raise DataDependentError(
                    f"{quoted_line()}\nData decides how long this list is, or a place in it, and it holds "
                    f"elements of different kinds: {found}. Keep the elements alike, or keep two lists."
                )
        return pieces, kinds.pop()

    def element(self, index: Any) -> Any:
        """The element at a position that data may decide."""
        rows, kind = self.rows()
        row = rows.select(0, index)
        return row if kind is torch.Tensor else row.item()

    def become(self, rows: torch.Tensor, kind: type, *copied: Any) -> None:
        """Hold the rows of a tensor instead, each as a value of this kind; `copied` are what they were copied
        out of.
        """
        link_copy(recorder(), rows, [v for v in copied if isinstance(v, torch.Tensor)])
        list.__setitem__(self, slice(None), [Many(rows, kind)])

    def put(self, index: Any, value: Any) -> None:
        """Replace the element at a position that data may decide."""
        rows, kind = self.rows()
        there = torch.arange(rows.shape[0]) == _place(rows, index)
        there = there.reshape([-1, *[1] * (rows.dim() - 1)])
        self.become(torch.where(there, _row_like(rows, value), rows), kind, rows, value)

    def take(self, index: Any = -1) -> Any:
        """`pop` where data decides the position or the length."""
        rows, kind = self.rows()
        taken = self.element(index)
        place, left = _place(rows, index), rows.shape[0] - 1
        if isinstance(index, int) and index == -1:
            self.become(rows.narrow(0, 0, left), kind)
        else:
            rest = torch.arange(left)
            self.become(rows.index_select(0, rest + (rest >= place).long()), kind, rows)
        return taken

    def put_in(self, index: Any, value: Any) -> None:
        """`insert` where data decides the position or the length."""
        rows, kind = self.rows()
        count = rows.shape[0]
        at = torch.clamp(_from_start(rows, index), 0, count)
        place = torch.arange(count + 1)
        order = torch.where(place == at, count, place - (place > at).long())
        self.become(torch.cat([rows, _row_like(rows, value)]).index_select(0, order), kind, rows, value)

    def __len__(self) -> int:
        return (
            list.__len__(self) if self.known else cannot_wait("needs the length of a list that data decides")
        )

    def __iter__(self) -> Iterator[Any]:
        return list.__iter__(self) if self.known else cannot_wait("loops over a list as long as data says")

    def __reversed__(self) -> Iterator[Any]:
        return (
            list.__reversed__(self) if self.known else cannot_wait("loops over a list as long as data says")
        )

    def __bool__(self) -> bool:
        return (
            list.__len__(self) > 0
            if self.known
            else cannot_wait("asks whether a list that data fills is empty")
        )


def _guarded(name: str) -> Callable[..., Any]:
    """A method of list that needs to know where each element is."""
    plain: Any = getattr(list, name)

    @functools.wraps(plain)
    def method(self: TracedList, *args: Any, **options: Any) -> Any:
        places = any(isinstance(a, torch.SymInt) for a in args)
        if not self.known and name == "__getitem__" and isinstance(args[0], slice):
            return _cut(self, args[0])
        if self.known and not (places and all(kind_of(v) for v in self.parts())):
            made = plain(self, *args, **options)
            new = name in _MAKING or (name == "__getitem__" and isinstance(args[0], slice))
            return TracedList(made) if new and type(made) is list else made
        staged = _STAGED.get(name)
        if staged is None or (args and isinstance(args[0], slice)):
            cannot_wait(f"calls list.{name} on a list, where data decides how long it is or a place in it")
        return staged(self, *args)

    return method


_MAKING = ("__add__", "__mul__", "__rmul__", "copy")


def _cut(items: TracedList, where: slice) -> TracedList:
    rows, kind = items.rows()
    part = TracedList()
    if where == slice(None, None, -1):
        part.become(rows.flip(0), kind, rows)
        return part
    if isinstance(where.step, int) and where.step < 1:
        cannot_wait("takes every so many elements from the end of a list, of which data decides the length")
    part.become(rows[where], kind)
    return part


def _times(items: TracedList, count: Any) -> TracedList:
    if isinstance(count, int):
        return TracedList(items.parts() * count)
    rows, kind = items.rows()
    repeated = TracedList()
    repeated.become(rows.repeat(count, *[1] * (rows.dim() - 1)), kind, rows)
    return repeated


def _copy(items: TracedList) -> TracedList:
    return TracedList(items.parts())


def _plus(items: TracedList, more: Any) -> TracedList:
    return TracedList([*items.parts(), *(more.parts() if isinstance(more, TracedList) else more)])


def _delete(items: TracedList, index: Any) -> None:
    items.take(index)


def _reverse(items: TracedList) -> None:
    rows, kind = items.rows()
    items.become(rows.flip(0), kind, rows)


_STAGED: dict[str, Callable[..., Any]] = {
    "__getitem__": TracedList.element,
    "__setitem__": TracedList.put,
    "__delitem__": _delete,
    "pop": TracedList.take,
    "insert": TracedList.put_in,
    "reverse": _reverse,
    "copy": _copy,
    "__add__": _plus,
    "__mul__": _times,
    "__rmul__": _times,
}
for _name in (
    "__getitem__", "__setitem__", "__delitem__", "__contains__", "__eq__", "__add__", "__mul__", "__rmul__",
    "copy", "index", "insert", "pop", "remove", "reverse", "sort",
):  # fmt: skip
    setattr(TracedList, _name, _guarded(_name))


def _from_start(rows: torch.Tensor, index: Any) -> torch.Tensor:
    """A position as a tensor; negative ones count from the end, whenever it is known that they are."""
    at = as_tensor(recorder(), index, torch.int64)
    return torch.where(at < 0, at + rows.shape[0], at)


def _place(rows: torch.Tensor, index: Any) -> torch.Tensor:
    """The same for a row that must be there, which the model checks."""
    at = _from_start(rows, index)
    inside = (at >= 0) & (at < rows.shape[0])
    torch.ops.aten._assert_async.msg(inside, f"{source_line()}: the list has an element at this position")
    return at


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether rows are of one dtype and shape."""
    if a.dtype != b.dtype or a.dim() != b.dim():
        return False
    return all(map(recorder().same_size, a.shape[1:], b.shape[1:]))


def _row_like(rows: torch.Tensor, value: Any) -> torch.Tensor:
    """A value as one more row.

    Raises:
        DataDependentError: rows of a list are alike in dtype and shape.
    """
    row = _tensor(value).unsqueeze(0)
    if not isinstance(value, torch.Tensor) and rows.dtype.is_floating_point:
        row = row.to(rows.dtype)
    if not _alike(rows, row):
        raise DataDependentError(
            f"{quoted_line()}\nThis puts a {row.dtype} tensor of shape {list(row.shape[1:])} into a list of "
            f"{rows.dtype} tensors of shape {list(rows.shape[1:])}, of which data decides the length. Keep "
            "the elements alike, or keep two lists."
        )
    return row


def _kind(value: Any) -> type:
    return kind_of(value) or torch.Tensor


def piece(v: Any) -> torch.Tensor:
    """An element, or run of elements, as rows."""
    if isinstance(v, Many):
        return v.rows
    if isinstance(v, Perhaps):
        return rows_of([_tensor(v.value).unsqueeze(0)], [_tensor(v.there).unsqueeze(0)])
    return _tensor(v).unsqueeze(0)


def _end_to_end(v: Any, dim: int) -> torch.Tensor:
    """A tensor, or the tensors of a run joined along a dimension."""
    if isinstance(v, torch.Tensor):
        return v
    rows = piece(v)
    at = dim % (rows.dim() - 1)
    return rows.movedim(0, at).flatten(at, at + 1)


def _tensor(v: Any) -> torch.Tensor:
    if isinstance(v, torch.Tensor):
        return v
    if kind_of(v) is None:
        raise DataDependentError(
            f"a list as long as data says holds a {type(v).__name__}; wanted tensors or numbers."
        )
    return as_tensor(recorder(), v, DTYPE[kind_of(v) or int])


def rows_of(columns: Sequence[torch.Tensor], masks: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Rows of all columns in turn, those left out whose mask is false."""
    whole = columns[0] if len(columns) == 1 else torch.stack(list(columns), 1).flatten(0, 1)
    if all(m is None for m in masks):
        return whole
    full = [
        torch.ones(c.shape[:1], dtype=torch.bool) if m is None else m
        for c, m in zip(columns, masks, strict=True)
    ]
    mask = full[0] if len(full) == 1 else torch.stack(full, 1).flatten(0, 1)
    return whole[mask]


def joined(func: Any, args: Any, kwargs: Any) -> Any:
    """torch.stack and torch.cat of a list with runs in it."""
    tensors = args[0] if args else kwargs.get("tensors")
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    parts: list[Any] = tensors.parts() if isinstance(tensors, TracedList) else list(tensors)
    if func is torch.stack:
        whole = torch.cat([piece(v) for v in parts])
        return whole if dim == 0 else whole.movedim(0, dim)
    if func in (torch.cat, torch.concat, torch.concatenate):
        return torch.cat([_end_to_end(v, dim) for v in parts], dim)
    if func is torch.nn.utils.rnn.pad_sequence:  # of one length already
        whole = torch.cat([piece(v) for v in parts])
        first = args[1] if len(args) > 1 else kwargs.get("batch_first", False)
        return whole if first else whole.transpose(0, 1)
    raise DataDependentError(
        f"torch.{getattr(func, '__name__', func)} takes a list as long as data says; wanted "
        "torch.stack or torch.cat, "
        "which turn it into one tensor."
    )
