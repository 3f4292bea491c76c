"""Elements that a list holds as many of as data says, kept in tensors: rows of one where they are alike, one
after the other where they differ in one dimension; a column for each tensor or number that an element is
made of.
"""

# Elements may be anything; torch is untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ingot.capture.checks import line, require, require_once
from ingot.capture.choice import Maybe, Parts, Undecided
from ingot.capture.request import recorder
from ingot.capture.scalars import DTYPE, as_tensor, depends_on_data, kind_of, of_truth
from ingot.capture.sharing import link_copy, link_within
from ingot.capture.structure import alike, inside, parts_of, rebuilt
from ingot.capture.tags import tagged
from ingot.capture.where import quoted_line, source_line
from ingot.errors import DataDependentError

_CONSTANTS = (str, bytes, type(None), enum.Enum, torch.dtype, torch.device)
Scope = Callable[[Any], bool]  # whether a size is the same for all elements


def everywhere(_: Any) -> bool:
    """Every size is one that all elements have, until another one says otherwise."""
    return True


@dataclass(eq=False)
class Even:
    """Tensors of one shape, or numbers of one kind: the rows of a tensor."""

    rows: Any
    kind: type

    def tensors(self) -> list[Any]:
        """What the elements are kept in, the one whose length is their number first."""
        return [self.rows]

    def of(self, tensors: Sequence[Any]) -> Even:
        """The same of other tensors."""
        return replace(self, rows=tensors[0])

    @property
    def rank(self) -> int:
        """How many dimensions an element has."""
        return self.rows.dim() - 1

    def reader(self) -> Callable[[Any], Any]:
        """What gives the element at a place."""
        if self.kind is torch.Tensor:
            return lambda i: recorder().choose_tensor(self.rows.select(0, i))
        return lambda i: self.rows.select(0, i).item()

    def take(self, order: torch.Tensor) -> Even:
        """The elements at these places."""
        return replace(self, rows=self.rows.index_select(0, order))

    def is_like(self, other: Any) -> bool:
        """Whether the tensors of one may stand in the place of the other's."""
        return isinstance(other, Even) and self.kind is other.kind


@dataclass(eq=False)
class Ragged:
    """Tensors that differ in one dimension, one after the other along it: it is the first one of `flat`.

    flat: [sum of sizes, …]; sizes: int64 of [elements]; axis: where the dimension stands in an element
    """

    flat: Any
    sizes: Any
    axis: int

    def tensors(self) -> list[Any]:
        """As those of Even."""
        return [self.sizes, self.flat]

    def of(self, tensors: Sequence[Any]) -> Ragged:
        """The same of other tensors."""
        return replace(self, sizes=tensors[0], flat=tensors[1])

    @property
    def rank(self) -> int:
        """How many dimensions an element has."""
        return self.flat.dim()

    def reader(self) -> Callable[[Any], Any]:
        """What gives the element at a place."""
        ends = self.sizes.cumsum(0)

        def at(i: Any) -> torch.Tensor:
            end, size = ends.select(0, i).item(), self.sizes.select(0, i).item()
            return recorder().choose_tensor(self.flat[end - size : end].movedim(0, self.axis))

        return at

    def take(self, order: torch.Tensor) -> Ragged:
        """The elements at these places."""
        sizes = self.sizes.index_select(0, order)
        begins = self.sizes.cumsum(0) - self.sizes
        moved = begins.index_select(0, order) - (sizes.cumsum(0) - sizes)
        moved = moved.repeat_interleave(sizes)
        flat = self.flat.index_select(0, moved + torch.arange(moved.shape[0]))
        return replace(self, flat=flat, sizes=sizes)

    def padded(self, length: Any, value: Any) -> torch.Tensor:
        """[elements, length, …]: what is missing of an element is a value."""
        begins, place = self.sizes.cumsum(0) - self.sizes, torch.arange(length)
        there = place < self.sizes.unsqueeze(1)
        last = self.flat.shape[0]
        filled = torch.cat([self.flat, self.flat.new_full([1, *self.flat.shape[1:]], value)])
        places = torch.where(there, begins.unsqueeze(1) + place, last)
        return filled.index_select(0, places.flatten()).unflatten(0, (self.sizes.shape[0], length))

    def longest(self) -> Any:
        """The largest of the sizes, 0 where there is none."""
        return torch.cat([self.sizes, self.sizes.new_zeros(1)]).max().item()

    def even(self) -> Even:
        """The elements as rows, which the model checks to be of one size."""
        longest = self.longest()
        same = (self.sizes == longest).all()
        torch.ops.aten._assert_async.msg(same, f"{source_line()}: the tensors in this list are of one shape")
        return Even(self.padded(longest, 0).movedim(1, self.axis + 1), torch.Tensor)

    def is_like(self, other: Any) -> bool:
        """Whether the tensors of one may stand in the place of the other's."""
        return isinstance(other, Ragged) and self.axis == other.axis


Column = Even | Ragged


class _Leaf:
    """Stands for a tensor or number in what an element is made of."""


LEAF = _Leaf()


@dataclass(eq=False)
class Perhaps(Undecided, Parts):
    """An element that is there where `there` holds."""

    there: Any  # SymBool
    value: Any

    def parts(self) -> list[Any]:
        """As Parts has it."""
        return [self.there, self.value]

    def of_parts(self, parts: list[Any]) -> Perhaps:
        """As Parts has it."""
        return Perhaps(*parts)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _joined(func, args, kwargs)


@dataclass(eq=False)
class Many(Undecided, Parts):
    """As many elements as its columns have; `like` is what each is made of, LEAF in the place of columns."""

    columns: list[Column]
    like: Any

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _joined(func, args, kwargs)

    @classmethod
    def of_rows(cls, rows: torch.Tensor, kind: type) -> Many:
        """The rows of one tensor, or the numbers in it."""
        return cls([Even(rows, kind)], LEAF)

    def parts(self) -> list[Any]:
        """As Parts has it."""
        return [t for c in self.columns for t in c.tensors()]

    def of_parts(self, parts: list[Any]) -> Many:
        """As Parts has it."""
        rest = iter(parts)
        made = Many([c.of([next(rest) for _ in c.tensors()]) for c in self.columns], self.like)
        made._tie()
        return made

    def is_like(self, other: Any) -> bool:
        """As Parts has it."""
        return (
            isinstance(other, Many)
            and same_form(self.like, other.like)
            and all(a.is_like(b) for a, b in zip(self.columns, other.columns, strict=True))
        )

    def _tie(self) -> None:
        """All columns have as many elements."""
        counts = [c.tensors()[0] for c in self.columns]
        if len(counts) > 1 and all(isinstance(t, torch.Tensor) for t in counts):
            env = recorder().env
            first, *others = (env.expr(t.shape[0]) for t in counts)
            for e in others:
                if e != first and e.is_Symbol and e not in env.definitions and e not in env.names:
                    env.put(e, first)

    @property
    def count(self) -> Any:
        """How many there are."""
        return self.columns[0].tensors()[0].shape[0]

    def reader(self) -> Callable[[Any], Any]:
        """What gives the element at a place."""
        readers = [c.reader() for c in self.columns]
        if self.like is LEAF:
            return readers[0]
        return lambda i: copied_out(refilled(self.like, iter([read(i) for read in readers])))

    def take(self, order: torch.Tensor) -> Many:
        """The elements at these places."""
        return self._linked([c.take(order) for c in self.columns])

    def where(self, there: torch.Tensor, one: Many) -> Many:
        """Another element where it holds, of elements that are rows."""
        columns: list[Column] = []
        for mine, its in zip(self.columns, one.columns, strict=True):
            (rows,), (row,) = mine.tensors(), its.tensors()
            made = torch.where(there.reshape([-1, *[1] * (rows.dim() - 1)]), row, rows)
            link_copy(recorder(), made, [rows, row])
            columns.append(mine.of([made]))
        return Many(columns, self.like)

    def along(self, axes: Sequence[int | None]) -> Many:
        """The same with elements that may differ in these dimensions, one for each column."""
        pairs = zip(self.columns, axes, strict=True)
        return Many([c if axis is None else ragged(c, axis) for c, axis in pairs], self.like)

    @property
    def axes(self) -> list[int | None]:
        """The dimension in which elements may differ, for each column."""
        return [c.axis if isinstance(c, Ragged) else None for c in self.columns]

    def repeated(self, count: Any) -> Many:
        """The elements again and again, each of which is one in several places."""
        times: Any = torch.sym_max(count, 0)
        made = self.take(torch.arange(self.count).repeat(times))
        made.shared()
        return made

    def shared(self) -> None:
        """Some of the elements are one tensor: what is written into one is in others."""
        for c in self.columns:
            link_within(recorder(), c.tensors()[-1])

    def kept(self, there: torch.Tensor) -> Many:
        """Those elements where it holds."""
        return self.take(there.nonzero().squeeze(1))

    def cut(self, where: slice) -> Many:
        """The elements of a slice."""
        if all(isinstance(c, Even) for c in self.columns):
            return Many([c.of([c.tensors()[0][where]]) for c in self.columns], self.like)
        return self.take(torch.arange(self.count)[where])

    def unzipped(self) -> list[Many] | None:
        """A run for each part of the elements, where these are tuples or lists."""
        if not isinstance(self.like, (tuple, list)):
            return None
        rest = iter(self.columns)
        return [Many([next(rest) for _ in leaves_in(part)], part) for part in parts_of(self.like) or ()]

    def _linked(self, columns: list[Column]) -> Many:
        """Elements that were copied out of these."""
        for new, old in zip(columns, self.columns, strict=True):
            link_copy(recorder(), new.tensors()[-1], [old.tensors()[-1]])
        return Many(columns, self.like)


def copied_out(x: Any) -> Any:
    """An element of which there are copies from here on."""
    recorder().copies.note(inside(x))
    return x


def same_form(a: Any, b: Any) -> bool:
    """Whether elements are made in the same way."""
    if a is LEAF or b is LEAF:
        return a is b
    parts, more = parts_of(a), parts_of(b)
    if parts is None or more is None:
        return parts is more and type(a) is type(b) and bool(a == b)
    return alike(a, b) and all(map(same_form, parts, more))


def leaves_in(x: Any) -> list[Any]:
    """The tensors and numbers that an element is made of."""
    if kind_of(x) is not None or x is LEAF:
        return [x]
    return [leaf for part in parts_of(x) or () for leaf in leaves_in(part)]


def tensors_of(v: Any) -> list[torch.Tensor]:
    """The tensors of an element that is there perhaps, or of a run."""
    if isinstance(v, Many):
        return [c.tensors()[-1] for c in v.columns]
    found = leaves_in(v.value if isinstance(v, Perhaps) else v)
    return [leaf for leaf in found if isinstance(leaf, torch.Tensor)]


def form_of(x: Any) -> Any:
    """What an element is made of, LEAF in the place of tensors and numbers."""
    if kind_of(x) is not None:
        return LEAF
    parts = parts_of(x)
    return x if parts is None else rebuilt(x, list(map(form_of, parts)))


def refilled(form: Any, leaves: Iterator[Any]) -> Any:
    """An element of this form."""
    if form is LEAF:
        return next(leaves)
    parts = parts_of(form)
    return form if parts is None else rebuilt(form, [refilled(p, leaves) for p in parts])


def is_element(x: Any) -> bool:
    """Whether a list of any length may hold it: it is made of tensors, numbers and constants beside them."""
    x = x.value if isinstance(x, Perhaps) else x
    return isinstance(x, Many) or _is_empty_list(x) or (bool(leaves_in(x)) and _is_made_of_known(x))


def _is_empty_list(x: Any) -> bool:
    return isinstance(x, list) and type(x).__module__.startswith("ingot.") and not parts_of(x)


def _is_made_of_known(x: Any) -> bool:
    parts = parts_of(x)
    if kind_of(x) is not None or parts is None:
        return kind_of(x) is not None or isinstance(x, _CONSTANTS)
    return all(map(_is_made_of_known, parts))


def tensor_of(v: Any) -> torch.Tensor:
    """A tensor, or number as one."""
    return v if isinstance(v, torch.Tensor) else as_tensor(recorder(), v, DTYPE[kind_of(v) or int])


def run_of(v: Any) -> Many:
    """An element, or run of them, as a run.

    Raises:
        DataDependentError: it is nothing that a list of any length may hold.
    """
    from ingot.capture.nested import as_element, of_empty_list

    if isinstance(v, Many):
        return v
    inner = as_element(v.value if isinstance(v, Perhaps) else v)
    if not is_element(inner):
        raise DataDependentError(
            f"{quoted_line()}\nData decides how long this list is, or a place in it, and it holds "
            f"a {type(inner).__name__}. Keep tensors and numbers in it, or tuples, dicts and dataclasses of "
            "them."
        )
    name = tagged(leaves_in(inner))
    if name is not None:
        raise DataDependentError(
            f"{quoted_line()}\nData decides how long this list is, or a place in it, and it holds a tensor "
            f"with the attribute {name!r}, which would be lost. Keep what it says in a list of its own."
        )
    copied_out(inner)
    columns: list[Column] = [
        Even(tensor_of(leaf).unsqueeze(0), kind_of(leaf) or torch.Tensor) for leaf in leaves_in(inner)
    ]
    made = of_empty_list() if _is_empty_list(inner) else Many(columns, form_of(inner))
    columns = made.columns
    if not isinstance(v, Perhaps):
        return made
    there = tensor_of(v.there).unsqueeze(0)
    if len(columns) == 1:
        (column,) = columns
        return Many([column.of([column.tensors()[0][there]])], made.like)
    return made.kept(there)


def joined(parts: Sequence[Any], scope: Scope = everywhere) -> Many:
    """All elements as one run; in tensors that are written and read in their place."""
    from ingot.capture.nested import as_element

    parts = list(map(as_element, parts))
    form = functools.reduce(_perhaps_none, map(_form_in, parts))
    parts = [_with_form(v, form) for v in parts]
    runs = unified([run_of(v) for v in parts], scope)
    made = _end_to_end(runs)
    if len(runs) > 1 or isinstance(parts[0], Perhaps) or any(isinstance(c, Ragged) for c in made.columns):
        for n, column in enumerate(made.columns):
            given = [t for v, r in zip(parts, runs, strict=True) for t in _tensors_in(v, r, n)]
            link_copy(recorder(), column.tensors()[-1], given)
            if len({id(t) for t in given}) < len(given):
                link_within(recorder(), column.tensors()[-1])
    return made


def _tensors_in(v: Any, run: Many, column: int) -> list[torch.Tensor]:
    """The tensor that an element, or a run of them, has in a column of what was made of it."""
    if isinstance(v, Many):
        return [v.columns[column].tensors()[-1]]
    leaves = leaves_in(v.value if isinstance(v, Perhaps) else v)
    if len(leaves) != len(run.columns):  # of lists that became rows
        return [run.columns[column].tensors()[-1]]
    found = leaves[column]
    return [found] if isinstance(found, torch.Tensor) else []


def _end_to_end(runs: Sequence[Many]) -> Many:
    if len(runs) == 1:
        return runs[0]
    columns: list[Column] = []
    for same in zip(*(r.columns for r in runs), strict=True):
        pairs = zip(*(c.tensors() for c in same), strict=True)
        columns.append(same[0].of([torch.cat(list(tensors)) for tensors in pairs]))
    return Many(columns, runs[0].like)


def unified(runs: Sequence[Many], scope: Scope = everywhere) -> list[Many]:
    """The runs with columns of one form.

    Raises:
        DataDependentError: their elements are not alike.
    """
    from ingot.capture.nested import formed

    form = functools.reduce(_perhaps_none, (r.like for r in runs))
    runs = formed([_of_form(r, form) for r in runs])
    axes = axes_of(runs, scope)
    return [r.along(axes) for r in runs]


def _perhaps_none(a: Any, b: Any) -> Any:
    """The form of elements of two forms that differ in what may be None; as far as they do, the first."""
    if isinstance(a, Maybe) or isinstance(b, Maybe):
        values = (v.ingot_value if isinstance(v, Maybe) else v for v in (a, b))
        return Maybe(LEAF, _perhaps_none(*values))
    parts, others = parts_of(a), parts_of(b)
    if parts is None or others is None or len(parts) != len(others):
        return a
    return rebuilt(a, [_perhaps_none(*pair) for pair in zip(parts, others, strict=True)])


def _form_in(v: Any) -> Any:
    """What an element, or each of a run, is made of."""
    return v.like if isinstance(v, Many) else form_of(v.value if isinstance(v, Perhaps) else v)


def _with_form(v: Any, form: Any) -> Any:
    """An element, or run of them, with None in the forms of others."""
    if isinstance(v, Many):
        return _of_form(v, form)
    if isinstance(v, Perhaps):
        return replace(v, value=_with_form(v.value, form))
    own = form_of(v)
    if same_form(own, form) or not _differ_in_none(own, form):
        return v
    if isinstance(form, Maybe):
        return v if isinstance(v, Maybe) else Maybe(False, _with_form(v, form.ingot_value))
    pairs = zip(parts_of(v) or (), parts_of(form) or (), strict=True)
    return rebuilt(v, [_with_form(*pair) for pair in pairs])


def _of_form(run: Many, form: Any) -> Many:
    """The same elements, with a column that says so where others may be None."""
    columns = iter(run.columns)
    found: list[Column] = []

    def walk(like: Any, wanted: Any) -> None:
        if isinstance(wanted, Maybe) and not isinstance(like, Maybe):
            there = run.columns[0].tensors()[0].shape[0]
            found.append(Even(torch.zeros(there, dtype=torch.bool), bool))
            walk(like, wanted.ingot_value)
            return
        if like is LEAF:
            found.append(next(columns))
            return
        parts, others = parts_of(like) or (), parts_of(wanted) or ()
        for pair in zip(parts, others, strict=True):
            walk(*pair)

    if same_form(run.like, form) or not _differ_in_none(run.like, form):
        return run
    walk(run.like, form)
    return Many(found, form)


def _differ_in_none(like: Any, form: Any) -> bool:
    """Whether a form is another one but for what may be None."""
    if isinstance(form, Maybe):
        return _differ_in_none(like.ingot_value if isinstance(like, Maybe) else like, form.ingot_value)
    parts, others = parts_of(like), parts_of(form)
    if parts is None or others is None or like is LEAF or form is LEAF:
        return like is form or same_form(like, form)
    if type(like) is not type(form) or len(parts) != len(others):
        return False
    return all(_differ_in_none(*pair) for pair in zip(parts, others, strict=True))


def axes_of(runs: Sequence[Many], scope: Scope = everywhere) -> list[int | None]:
    """The dimension in which elements of the runs differ, for each column; None where they are of one shape.

    Raises:
        DataDependentError: their elements are not alike.
    """
    for r in runs[1:]:
        if not same_form(runs[0].like, r.like):
            raise _mixed("are made in different ways")
    return [_axis_of(same, scope) for same in zip(*(r.columns for r in runs), strict=True)]


def _axis_of(columns: Sequence[Column], scope: Scope) -> int | None:
    first, *others = (_shape_of(c) for c in columns)
    kinds = {c.kind if isinstance(c, Even) else torch.Tensor for c in columns}
    for dtype, shape in others:
        if len(kinds) > 1 or dtype != first[0] or len(shape) != len(first[1]):
            found = " and ".join(f"{d} of shape {_written(s)}" for d, s in (first, (dtype, shape)))
            raise _mixed(f"are of different kinds: {found}")
    shapes = [first[1], *(shape for _, shape in others)]
    differ = {
        axis: sizes for axis, sizes in enumerate(zip(*shapes, strict=True)) if not _is_one(sizes, scope)
    }
    if len(differ) > 1:  # sizes of inputs among them are taken to be one, as in the example
        differ = {axis: sizes for axis, sizes in differ.items() if not _is_made_one(sizes)}
    if len(differ) > 1:
        raise _mixed("are tensors of different shapes, in more than one dimension")
    return next(iter(differ), None)


def _is_one(sizes: Sequence[Any], scope: Scope) -> bool:
    """Whether a dimension is the same in all elements."""
    same = recorder().same_size
    return (
        sizes[0] is not None
        and scope(sizes[0])
        and all(s is not None and same(sizes[0], s) for s in sizes[1:])
    )


def _is_made_one(sizes: Sequence[Any]) -> bool:
    """Whether sizes of the inputs are equal in the example, and are to be in the model."""
    env = recorder().env
    if any(s is None or not env.of_inputs(s) for s in sizes):
        return False
    first, *others = map(env.expr, sizes)
    if any(env.value(e) != env.value(first) for e in others):
        return False
    for e in others:
        env.require_equal(first, e)
    return True


def _shape_of(column: Column) -> tuple[torch.dtype, list[Any]]:
    """What its elements are; None for a dimension in which they differ."""
    if isinstance(column, Even):
        return column.rows.dtype, list(column.rows.shape[1:])
    shape: list[Any] = list(column.flat.shape[1:])
    shape.insert(column.axis, None)
    return column.flat.dtype, shape


def _written(shape: Sequence[Any]) -> str:
    return str([d if isinstance(d, int) else "any" for d in shape]).replace("'", "")


def ragged(column: Column, axis: int) -> Ragged:
    """The column with elements that may differ in one dimension."""
    if isinstance(column, Ragged):
        return column
    rows = column.rows.movedim(axis + 1, 1)
    return Ragged(rows.flatten(0, 1), torch.full([rows.shape[0]], rows.shape[1], dtype=torch.int64), axis)


def in_turn(form: Many, elements: Sequence[Sequence[Any]], masks: Sequence[torch.Tensor | None]) -> Many:
    """Elements of which each has a row in each of its columns, the first rows of all before the second ones;
    those left out whose mask is false.
    """

    def turned(columns: Sequence[torch.Tensor]) -> torch.Tensor:
        return columns[0] if len(columns) == 1 else torch.stack(list(columns), 1).flatten(0, 1)

    rows = [turned(same) for same in zip(*elements, strict=True)]
    made = form.of_parts(rows)
    if all(m is None for m in masks):
        return made
    counts = [own[0].shape[:1] for own in elements]
    full = [torch.ones(n, dtype=torch.bool) if m is None else m for n, m in zip(counts, masks, strict=True)]
    mask = turned(full)
    return form.of_parts([rows[0][mask]]) if len(rows) == 1 else made.kept(mask)


def nothing(form: Many) -> Many:
    """No element, in tensors as the run has them."""
    g = recorder()
    return form.of_parts([g.recorded(torch.zeros, [0, *t.shape[1:]], dtype=t.dtype) for t in form.parts()])


def _mixed(how: str) -> DataDependentError:
    return DataDependentError(
        f"{quoted_line()}\n"
        f"Data or a size decides how long this list is, or a place in it, and its elements {how}. Keep them "
        "alike but for the size of one dimension (pad the others), or keep two lists."
    )


def stacked(run: Many, column: int = 0) -> torch.Tensor:
    """The elements as rows of one tensor."""
    found = run.columns[column]
    return (found if isinstance(found, Even) else found.even()).rows


def table(run: Many) -> torch.Tensor | None:
    """What torch.tensor makes of elements that are tuples or lists of numbers, [elements, numbers, …]; None
    where they are something else. Lists must be of one length, which the model checks.
    """
    columns = iter(run.columns)

    def rows_of_list(inner: Many) -> torch.Tensor | None:
        column = next(columns)
        if inner.like is not LEAF or not isinstance(inner.columns[0], Even):
            return None
        rows = (column if isinstance(column, Even) else column.even()).rows
        return rows.to(torch.get_default_dtype()) if inner.columns[0].kind is float else rows

    def rows_of(form: Any) -> torch.Tensor | None:
        if form is LEAF:
            column = next(columns)
            if not isinstance(column, Even) or column.rank:
                return None
            return column.rows.to(torch.get_default_dtype()) if column.kind is float else column.rows
        if isinstance(form, Maybe):
            g, none = recorder(), next(columns).tensors()[0]
            require(g, g.val(~none.any()), "no element is None")
            return rows_of(form.ingot_value)
        if not isinstance(form, (list, tuple)):
            return None
        held = parts_of(form) or []
        if len(held) == 1 and isinstance(held[0], Many):
            return rows_of_list(held[0])
        found = [rows_of(p) for p in held]
        parts = [p for p in found if p is not None]
        if not parts or len(parts) < len(found) or len({tuple(p.shape[1:]) for p in parts}) > 1:
            return None
        wide = functools.reduce(torch.promote_types, (p.dtype for p in parts))
        return torch.stack([p.to(wide) for p in parts], 1)

    return rows_of(run.like)


def _joined(func: Any, args: Any, kwargs: Any) -> Any:
    return join(func, args, kwargs or {})


def join(func: Any, args: Any, kwargs: Any) -> Any:
    """torch.stack and torch.cat of a list with runs in it."""
    tensors = args[0] if args else kwargs.get("tensors", kwargs.get("sequences"))
    parts: list[Any] = tensors.parts() if isinstance(tensors, Parts) else list(tensors)
    _require_some(parts)
    if func is torch.nn.utils.rnn.pad_sequence:
        names = ("batch_first", "padding_value", "padding_side")
        return _padded(parts, **(dict(zip(names, args[1:], strict=False)) | kwargs))
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    if func in (torch.vstack, torch.row_stack, torch.hstack):
        rank = max(_tensors_only(v).columns[0].rank for v in parts)
        across = func is torch.hstack
        if rank == 0:
            whole = join(torch.stack, (parts,), {})
            return whole if across else whole.unsqueeze(1)
        dim = 1 if across and rank > 1 else 0
        func = torch.cat if across or rank > 1 else torch.stack
    if func is torch.stack:
        whole = torch.cat([stacked(_tensors_only(v)) for v in parts])
        return whole if dim == 0 else whole.movedim(0, dim)
    if func in (torch.cat, torch.concat, torch.concatenate):
        return torch.cat([_along(v, dim) for v in parts], dim)
    name = getattr(func, "__name__", func)
    raise DataDependentError(
        f"{quoted_line()}\ntorch.{name} takes a list as long as data says here. Make it one tensor with "
        "torch.stack or torch.cat, and go on with that."
    )


def _require_some(parts: Sequence[Any]) -> None:
    """The run fails where data leaves nothing to join, as torch does."""
    g = recorder()
    if all(isinstance(v, (Many, Perhaps)) for v in parts):
        counts = (v.count if isinstance(v, Many) else of_truth(g, v.there) for v in parts)
        some = g.env.expr(functools.reduce(operator.add, counts) > 0)
        if depends_on_data(g, some):
            require_once(some, f"there is something to join: `{line()}`")


def _tensors_only(v: Any) -> Many:
    """A run of tensors, or of numbers.

    Raises:
        DataDependentError: its elements are made of several.
    """
    run = run_of(v)
    if run.like is not LEAF:
        raise DataDependentError(
            f"{quoted_line()}\nThis takes a list of tensors, and gets one of {type(run.like).__name__}s as "
            "long as data says. Give it one part of each: `[v[0] for v in items]`."
        )
    return run


def _along(v: Any, dim: int) -> torch.Tensor:
    """A tensor, or the tensors of a run, joined along a dimension."""
    if isinstance(v, torch.Tensor):
        return v
    (column,) = _tensors_only(v).columns
    if column.rank == 0:
        raise DataDependentError(
            f"{quoted_line()}\nThis joins tensors without dimensions, which torch.cat takes none of. Use "
            "torch.stack, or give each a dimension."
        )
    if isinstance(column, Ragged) and column.axis == dim % column.flat.dim():
        return column.flat.movedim(0, column.axis)
    rows = (column if isinstance(column, Even) else column.even()).rows
    at = dim % (rows.dim() - 1)
    return rows.movedim(0, at).flatten(at, at + 1)


def _padded(
    sequences: Sequence[Any],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> torch.Tensor:
    """torch.nn.utils.rnn.pad_sequence."""
    runs = [_tensors_only(v) for v in sequences]
    (column,) = _end_to_end(unified(runs)).columns
    if isinstance(column, Even):
        whole = column.rows
    else:
        if column.axis != 0 or padding_side != "right":
            raise _mixed("differ in another dimension than the first, or are to be padded before them")
        whole = column.padded(column.longest(), padding_value)
    return whole if batch_first else whole.transpose(0, 1)
