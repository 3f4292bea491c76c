"""A plan under construction: what an operator's `lower` may ask of it (`ops/lowering.py`).

Elementwise nodes are not lowered where they stand: they wait (`waiting.py`) until a node that is not
elementwise, or the graph's output, demands a value. Values are strided views (`places.py`): transposes,
slices and splits move nothing, a concat's producers write into their part of it, and images lie channels-last
because their producers choose such strides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.compiler.facts import Known
from ingot.compiler.index import Index
from ingot.compiler.packed import Packed
from ingot.compiler.places import Places, dense, dominant_order, lies_at, nbytes
from ingot.compiler.steps import Check, HostStep, belong
from ingot.compiler.uses import find_uses
from ingot.compiler.waiting import Anchor, Elementwise, Refused, Waiting
from ingot.errors import ModelError
from ingot.kernels.call import Buffer, Call, Nested, Series, View, Weights, arena_view, constant, memory_order
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, identity
from ingot.mapped import forget_pages
from ingot.ops.bands import Rows
from ingot.ops.lowering import Body, ByRows, PlanOptions
from ingot.ops.registry import Array, Facts, facts_of, unfit
from ingot.ops.sized import memory_of
from ingot.ops.window import Window

#: So much is packed before the pages of files that it was read from are let go.
MOST_READ = 1 << 20

T = TypeVar("T")


class Construction:
    """A plan under construction. What `Op.lower` sees of it are the methods without an underscore: `Lowering`
    says what each of them is.
    """

    def __init__(
        self,
        index: Index,
        known: Known,
        inputs: Sequence[ir.Value],
        outputs: Sequence[ir.Value],
        machine: Machine,
        packed: Packed,
        options: PlanOptions,
    ) -> None:
        self.machine, self.options = machine, options
        self._index, self._facts, self._packed = index, known.facts, packed
        self._made = itertools.count()
        self._start, self._stop = known.start, known.end
        self._outputs = list(outputs)
        self._counted: ir.Value | None = None
        if known.bounds:
            self._counted = self._count_value(known)
            self._outputs.append(self._counted)
        self._live, self._uses = find_uses(index, known, self._outputs)
        self._places = Places(index, self._facts, self._uses)
        self._views, self._output_buffers = self._places.views, self._places.outputs
        self._waits = Waiting(self._facts, self._uses, self._output_buffers)
        self._waiting = self._waits.by_value
        self._has_packed = False
        self._forgot_at = packed.nbytes
        #: Of complex128 no register has elements: the host computes what touches it.
        self._has_wide = known.wide
        self._steps: list[Call | Series | Nested | HostStep] = []
        self._checks: list[Check] = []
        self._bodies = known.bodies
        self._kinds: dict[int, str] = {}
        self._position = self._start
        for number, value in enumerate(inputs):
            facts = self._facts[value]
            if facts.dtype != object:  # strings and sequences go from node to node on the host
                self._views[value] = dense(facts, Buffer(nbytes(facts), "input", index=number))
        self._targets = [
            dense(self._facts[value], Buffer(nbytes(self._facts[value]), "output", index=number))
            for number, value in enumerate(self._outputs)
        ]
        for value, target in zip(self._outputs, self._targets, strict=True):
            self._output_buffers.setdefault(value, target)

    # ---- what operators ask --------------------------------------------------------------------------------

    def facts(self, value: ir.Value) -> Facts:
        return self._facts[value]

    def constant(self, value: ir.Value | None) -> Array | None:
        return None if value is None else self._facts[value].value

    def weights(self, value: ir.Value) -> Weights | None:
        facts = self._facts[value]
        if not facts.is_known:
            return None

        def read() -> Array:
            array = facts.value  # once: it may be computed
            assert array is not None
            return array

        return Weights(facts.shape, facts.dtype, read)

    def view(self, value: ir.Value) -> View:
        view = self._views.get(value)
        if view is not None:
            return view
        facts = self._facts[value]
        if facts.is_known:

            def make() -> View:
                array = facts.value
                assert array is not None
                return constant(_contiguous(array))

            key = ("constant", value, facts.shape) if value in self._index.constants else None
            view = memory_of(facts) or self.pack(key, make)
            self._views[value] = view
            return view
        return self._compute(value, None)

    def wants(self, value: ir.Value) -> bool:
        return value in self._uses or value in self._output_buffers

    def plain(self, value: ir.Value) -> View:
        view = self.view(value)
        return view if view.is_contiguous else self.copied(view)

    def copied(self, view: View, order: Sequence[int] | None = None) -> View:
        target = self.temporary(view.shape, view.dtype, order)
        self.emit(copy(view, target, self.machine))
        return target

    def temporary(self, shape: Sequence[int], dtype: Any, order: Sequence[int] | None = None) -> View:
        """It lies in the arena."""
        return arena_view(shape, dtype, order)

    def output(self, value: ir.Value, order: Sequence[int] | None = None, free_order: bool = False) -> View:
        """It is the value's part of a concat that reads it, the caller's array, or in the arena."""
        return self._places.choose(self._position, value, order, free_order)

    def alias(self, value: ir.Value, view: View) -> None:
        self._kinds[self._position] = "view"
        self._views[value] = view

    def wait(
        self, value: ir.Value, op: str, operands: Sequence[ir.Value], attrs: tuple[tuple[str, Any], ...] = ()
    ) -> bool:
        return self._waits.add(self._position, value, op, operands, attrs)

    def anchor(
        self,
        value: ir.Value,
        emit: Callable[[View, Epilogue | None], Sequence[Call | Series]],
        order: Sequence[int] | None = None,
        free_order: bool = False,
        rows: Callable[[], Rows | None] | None = None,
        exact: bool = False,
    ) -> None:
        order = tuple(order or range(len(self._facts[value].shape)))
        self._waits.add_anchor(self._position, value, emit, order, free_order, rows, exact)

    def waits_as(self, value: ir.Value) -> str | None:
        waits = self._waiting.get(value)
        return waits.op if isinstance(waits, Elementwise) else None

    def by_rows(self, value: ir.Value) -> ByRows | None:
        waits = self._waiting.get(value)
        once = self._index.reads[self._position].count(value) <= 1
        if not once or self._uses.get(value) != [self._position] or value in self._output_buffers:
            return None
        members: dict[ir.Value, Elementwise] = {}
        anchor: ir.Value | None = value
        if isinstance(waits, Elementwise):
            members, anchor = self._waits.group(value, None)
        found = None if anchor is None else self._waiting.get(anchor)
        if anchor is None or not isinstance(found, Anchor) or found.rows is None:
            return None
        rows = found.rows()
        if rows is None:
            return None
        expression: Expression | None = None
        leaves: list[ir.Value] = []
        if members:
            expression, leaves = self._waits.expression(value, members, anchor)
        views = [self.view(leaf).broadcast_to(self._facts[value].shape) for leaf in leaves]
        positions = [found.position, *(member.position for member in members.values())]
        self._waits.take(anchor)
        self._waits.done(value, members)

        def whole() -> tuple[View, list[Call | Series]]:
            out = self.output(value, found.order, found.free_order)
            calls = list(found.emit(out, None if expression is None else Epilogue(expression, views)))
            belong(calls, positions)
            return out, calls

        return ByRows(_Rows(rows, expression, views, positions), whole)

    def inline(self, value: ir.Value) -> tuple[Expression, list[View]]:
        shape = self._facts[value].shape
        waits = self._waiting.get(value)
        once = self._index.reads[self._position].count(value) <= 1
        alone = once and self._uses.get(value) == [self._position] and value not in self._output_buffers
        if isinstance(waits, Elementwise) and alone:
            members, anchor = self._waits.group(value, None)
            expression, leaves = self._waits.expression(value, members, None)
            whole = [i for i, leaf in enumerate(leaves) if self._facts[leaf].shape == shape]
            if anchor is None and whole:
                leaves.insert(0, leaves.pop(whole[0]))
                expression, _ = self._waits.expression(value, members, None, leaves)
                views = [self.view(leaf).broadcast_to(shape) for leaf in leaves]
                self._waits.done(value, members)
                self._kinds[self._position] = "native"
                return expression, views
        return identity(name_of(self._facts[value].dtype)), [self.view(value)]

    def emit(self, calls: Call | Nested | Sequence[Call]) -> None:
        """The calls belong to the node that is being lowered."""
        self._append([calls] if isinstance(calls, (Call, Nested)) else calls, [self._position])

    def body(self, graph: ir.Graph) -> Body:
        return self._bodies[graph]

    def watch(self, body: Body) -> list[View]:
        self._checks += [Check(flag, message) for flag, message in body.checks]
        return [flag for flag, _ in body.checks]

    def check(self, message: str) -> View:
        flag = View(Buffer(8, "arena"), 0, np.dtype(np.int64), (), ())
        self._checks.append(Check(flag, message))
        return flag

    @property
    def count(self) -> View:
        """It is the last of the plan's outputs."""
        return self._targets[-1]

    def pack(self, key: Hashable, make: Callable[[], T]) -> T:
        if key is None:
            return make()
        found = self._packed.find(key)
        if found is None:
            found = self._packed.get(key, make)
            self._has_packed = True
            if self._packed.nbytes - self._forgot_at >= MOST_READ:
                self._forget()
        return found

    def afford(self, key: Hashable, nbytes: int, make: Callable[[], T]) -> T | None:
        return None if key is None else self._packed.afford(key, nbytes, make)

    @property
    def packing(self) -> Callable[[Callable[[], Any]], Any]:
        return self._packed.make

    def concat(self, value: ir.Value, inputs: Sequence[ir.Value], axis: int) -> None:
        """What could be written in place was; what waits is written there now, and the rest is copied."""
        target = self._places.joined(value)
        if target is None:
            first = max(inputs, key=lambda v: self._facts[v].shape[axis])
            known = self._views.get(first)
            waits = self._waiting.get(first)
            order = None
            if known is not None:
                order = memory_order(known)
            elif isinstance(waits, Anchor):
                order = waits.order
            target = self.output(value, order, free_order=True)
        self._views[value] = target
        start, step = 0, target.strides[axis] * target.dtype.itemsize
        for source in inputs:
            size = self._facts[source].shape[axis]
            known = self._views.get(source)
            here = target.offset + start * step
            start += size
            if size == 0 or (known is not None and lies_at(known, target, here)):
                continue
            part = target.part(axis, start - size, size)
            waits = self._waiting.get(source)
            writes = isinstance(waits, Elementwise) or (isinstance(waits, Anchor) and waits.writes(part))
            if writes and source not in self._output_buffers:
                self._compute(source, part)
            else:
                self.emit(copy(self.view(source), part, self.machine))

    def _forget(self) -> None:
        """Let go of the pages of files that weights were read from."""
        self._forgot_at = self._packed.nbytes
        for array in self._index.mapped:
            forget_pages(array)

    def known(self, array: Array) -> ir.Value:
        if array.dtype.kind == "O":
            raise TypeError("no kernel reads Python's objects")
        value = self._fresh()
        self._facts[value] = facts_of(array)
        return value

    def intermediate(self, shape: Sequence[int], dtype: Any) -> ir.Value:
        value = self._fresh()
        self._facts[value] = Facts(np.dtype(dtype), tuple(shape))
        self._uses[value] = [self._position]
        return value

    def located(self, view: View) -> ir.Value:
        value = self._fresh()
        self._facts[value] = Facts(view.dtype, view.shape)
        self._views[value] = view
        return value

    def column(self, value: ir.Value, rank: int) -> ir.Value:
        kept = self._index.columns.get((value, rank))
        if kept is None:
            view = self.view(value)
            view = view.with_dims((view.size, *[1] * rank), (*view.strides, *[0] * rank))
            kept = Facts(view.dtype, view.shape), view
            if self._facts[value] is self._index.constants.get(value):
                self._index.columns[value, rank] = kept
        column = self._fresh()
        self._facts[column], self._views[column] = kept
        return column

    def _fresh(self) -> ir.Value:
        """A value of this plan alone. What plans know of values is their own, so the next plan takes the same
        ones, but for those that became a node's output.
        """
        number, spare = next(self._made), self._index.spare
        if number == len(spare):
            spare.append(ir.Value(name=None))
        elif spare[number].producer() is not None:
            spare[number] = ir.Value(name=None)
        return spare[number]

    def _count_value(self, known: Known) -> ir.Value:
        value = self._fresh()
        known.facts[value] = Facts(np.dtype(np.int64), ())
        return value

    # ---- waiting values become kernels ---------------------------------------------------------------------

    def _compute(self, value: ir.Value, target: View | None) -> View:
        """Emit the kernel that computes a waiting value, into `target` or where `output` says."""
        waits = self._waiting.get(value)
        if waits is None:  # a node has computed it on the way to something else, and asks again: so does this
            if value in self._waits.refused:
                raise self._unfit(self._waits.refused[value])
            waits = self._waits.again(value)
        if isinstance(waits, Anchor):
            del self._waiting[value]
            out = target or self.output(value, waits.order, waits.free_order)
            self._views[value] = out
            self._append(waits.emit(out, None), [waits.position])
            return out
        members, anchor = self._waits.group(value, target)
        expression, leaves = self._waits.expression(value, members, anchor)
        shape = self._facts[value].shape
        found = self._views  # most leaves lie somewhere already
        views = [(found.get(leaf) or self.view(leaf)).broadcast_to(shape) for leaf in leaves]
        positions = [member.position for member in members.values()]
        self._waits.done(value, members)
        if anchor is not None:
            waiting = self._waits.take(anchor)
            out = target or self.output(value, waiting.order, waiting.free_order)
            self._views[value] = out
            calls = waiting.emit(out, Epilogue(expression, views))
            self._append(calls, [waiting.position, *positions])
            return out
        out = target or self.output(value, dominant_order(shape, views), free_order=True)
        self._views[value] = out
        self._append([elementwise(expression, views, [out], self.machine)], positions)
        return out

    def _unfit(self, refused: Refused) -> ModelError:
        """A node whose dtypes no kernel takes was lowered as if one did."""
        node = self._index.nodes[refused.position]
        inputs = [None if v is None else self._facts[v] for v in node.inputs]
        return unfit(node, inputs, TypeError(refused.reason))

    def _append(self, calls: Sequence[Call | Series | Nested], positions: list[int]) -> None:
        belong(calls, positions)
        self._steps += calls
        if self._packed.nbytes - self._forgot_at >= MOST_READ:
            self._forget()


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of what waited. views: the expression's operands, but for what `emit` computes."""

    emit: Rows
    expression: Expression | None
    views: list[View]
    positions: list[int]

    @property
    def source(self) -> tuple[int, Window]:
        """See `ops.bands.Rows`."""
        return self.emit.source

    def __call__(self, out: View, image: int, first: int) -> list[Call]:
        operands = [
            v.with_dims(out.shape, v.strides, image * v.strides[0] + first * v.strides[2]) for v in self.views
        ]
        epilogue = None if self.expression is None else Epilogue(self.expression, operands)
        calls = self.emit(out, epilogue, image, first)
        belong(calls, self.positions)
        return calls


def _contiguous(array: Array) -> Array:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)
