"""Nodes to kernel calls, for one set of shapes.

The graph is walked once. Elementwise nodes are not lowered where they stand: they wait. When a node that is
not elementwise (or the graph's output) demands a value, everything that waits only for that value becomes one
kernel; and if one of the things it waits for is itself a waiting matrix multiplication, convolution or the
like (an *anchor*), it becomes that kernel's epilogue. Values are strided views: transposes, slices and splits
move nothing, a concat's producers write into their part of it, and images lie channels-last because their
producers choose such strides.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.compiler.facts import Known
from ingot.compiler.index import Index
from ingot.compiler.packed import Packed
from ingot.errors import IngotError, UnsupportedOperatorError
from ingot.kernels.alike import remembering
from ingot.kernels.call import (
    Buffer,
    Call,
    Nested,
    Series,
    View,
    Weights,
    constant,
    memory_order,
    row_major,
    strides_in_order,
)
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.copy import copy
from ingot.kernels.elementwise import elementwise
from ingot.kernels.expression import Expression, Step, expression_of, identity, plain_step, supports_step
from ingot.loading import forget_pages
from ingot.ops.lowering import Body, PlanOptions
from ingot.ops.registry import UNFIT, Array, Facts, facts_of, label, unfit

#: Larger groups gain nothing and compile slowly; their first values are stored and read again.
MOST_STEPS, MOST_LEAVES = 48, 16
#: Which nodes run and who reads what, kept for so many different sets of known values.
MOST_USES = 8

T = TypeVar("T")


@dataclass(slots=True)
class Elementwise:
    """A node of an elementwise operator, waiting to be part of a kernel."""

    position: int
    turn: int  # in which it began to wait: operands before results
    op: str
    operands: tuple[ir.Value, ...]
    dtype: str
    attrs: tuple[tuple[str, Any], ...]


@dataclass(slots=True)
class Anchor:
    """A node whose kernel can apply an expression to what it computes, waiting for that expression.

    emit(out, epilogue) returns the calls. `order` is the memory order of dimensions its output should have,
    outermost first; with `free_order` any other one does as well.
    """

    position: int
    turn: int
    emit: Callable[[View, Epilogue | None], Sequence[Call | Series]]
    order: tuple[int, ...]
    free_order: bool
    #: rows(out, epilogue, image, first): the same for some rows of one image, where the kernel can
    rows: Callable[[View, Epilogue | None, int, int], list[Call]] | None = None
    #: the epilogue gets the value itself, of its own dtype
    exact: bool = False


@dataclass(slots=True)
class HostStep:
    """A node that NumPy evaluates. Inputs are views, arrays that were known while planning, or absent."""

    position: int
    inputs: list[View | Array | None]
    outputs: list[View | None]


@dataclass(slots=True)
class Check:
    """A word in the arena that a kernel sets when it meets data it must refuse, and what to say then."""

    flag: View
    message: str


@dataclass(slots=True)
class Lowered:
    """The outcome: steps in order. They leave the outputs in the buffers of kind "output"."""

    steps: list[Call | Series | Nested | HostStep]
    checks: list[Check]
    #: how each node is computed: "native", "host", "view" (no work) or "folded" (known while planning)
    kinds: dict[int, str] = field(default_factory=dict[int, str])


#: A product reads a tile of rows side by side. Rows this many bytes apart, or a multiple, all lie on the
#: same lines of L1, of which it keeps fewer than a tile has rows; from FEWEST_ROWS on they are spread by a
#: line.
L1_WAY_BYTES, LINE_BYTES, FEWEST_ROWS = 4096, 64, 8
_READ_BY_COLUMNS = frozenset(["MatMul", "Gemm", "Conv"])

#: What each reader computes anew: small integers are read sooner than the floats they become.
_REPEATED = "DequantizeLinear"


class Lowering:
    """A plan under construction. What `Op.lower` sees of it are the methods without an underscore."""

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
        self._made, self._placed = itertools.count(), index.placed
        self._start, self._stop, self._computed = known.start, known.end, known.computed
        self._outputs = list(outputs)
        self._counted: ir.Value | None = None
        if known.bounds:
            self._counted = self._count_value(known)
            self._outputs.append(self._counted)
        self._output_buffers: dict[ir.Value, View] = {}
        self._views: dict[ir.Value, View] = {}
        self._waiting: dict[ir.Value, Elementwise | Anchor] = {}
        self._readers: dict[ir.Value, list[ir.Value]] = {}  # of waiting values: who waits to read them
        self._fused: dict[ir.Value, Elementwise | Anchor] = {}  # what lies nowhere: part of a kernel
        self._slots: dict[ir.Value, View] = {}  # concats whose memory exists before they are reached
        self._has_packed = False
        #: Of complex128 no register has elements: the host computes what touches it.
        self._has_wide = known.wide
        self._turns = itertools.count()
        self._steps: list[Call | Series | Nested | HostStep] = []
        self._checks: list[Check] = []
        self._bodies = known.bodies
        self._kinds: dict[int, str] = {}
        self._position = self._start
        for number, value in enumerate(inputs):
            facts = self._facts[value]
            self._views[value] = _dense(facts, Buffer(_nbytes(facts), "input", index=number))
        self._targets = [
            _dense(self._facts[value], Buffer(_nbytes(self._facts[value]), "output", index=number))
            for number, value in enumerate(self._outputs)
        ]
        for value, target in zip(self._outputs, self._targets, strict=True):
            self._output_buffers.setdefault(value, target)
        self._live, self._uses = self._find_uses()

    def lower(self) -> Lowered:
        """Lower every node that the outputs need."""
        with remembering():
            self._lower_nodes()
        for position in range(self._start, self._stop):
            self._kinds.setdefault(position, "folded")
        # What waited knows this object, which knows it: Python would have to look for such garbage.
        self._waiting.clear()
        self._fused.clear()
        return Lowered(self._steps, self._checks, self._kinds)

    def _lower_nodes(self) -> None:
        walk, live, kinds = self._index.walk, self._live, self._kinds
        for position in range(self._start, self._stop):
            if position not in live:
                continue
            self._position = position
            node, op, _, _ = walk[position]
            kinds[position] = "native"
            try:
                is_native = not (self._has_wide and self._is_wide(node)) and op.lower(node, self)
            except UnsupportedOperatorError as error:
                raise _named(node, error) from error
            except IngotError:
                raise
            except UNFIT as error:  # what a kernel does not take, and `infer` let through
                inputs = [None if v is None else self._facts[v] for v in node.inputs]
                raise unfit(node, inputs, error) from error
            if not is_native:
                kinds[position] = "host"
                self._evaluate_on_host(node)
        if self._has_packed:
            self._forget()  # some weights are packed when it is known how a kernel reads them
        self._position = self._stop
        for value, target in zip(self._outputs, self._targets, strict=True):
            view = target if value is self._counted else self._result(value)
            if view != target:
                self.emit(copy(view, target, self.machine))

    def _result(self, value: ir.Value) -> View:
        """What waits for the end is computed now, and refused by the name of its node."""
        try:
            return self.view(value)
        except IngotError:
            raise
        except UNFIT as error:
            node = value.producer()
            if node is None:
                raise
            inputs = [None if v is None else self._facts[v] for v in node.inputs]
            raise unfit(node, inputs, error) from error

    def _is_wide(self, node: ir.Node) -> bool:
        every = (*node.inputs, *node.outputs)
        return any(v in self._facts and self._facts[v].dtype.itemsize > 8 for v in every if v is not None)

    # ---- what operators ask --------------------------------------------------------------------------------

    def facts(self, value: ir.Value) -> Facts:
        """dtype, shape and, where it is known, the value."""
        return self._facts[value]

    def constant(self, value: ir.Value | None) -> Array | None:
        """The value's array if it is known while planning."""
        return None if value is None else self._facts[value].value

    def weights(self, value: ir.Value) -> Weights | None:
        """Like `constant`, for what a kernel packs: the array is read only where it is."""
        facts = self._facts[value]
        if not facts.is_known:
            return None

        def read() -> Array:
            array = facts.value  # once: it may be computed
            assert array is not None
            return array

        return Weights(facts.shape, facts.dtype, read)

    def view(self, value: ir.Value) -> View:
        """Where the value lies; computes it if it is still waiting."""
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
            view = self.pack(key, make)
            self._views[value] = view
            return view
        return self._compute(value, None)

    def wants(self, value: ir.Value) -> bool:
        """Whether anybody reads this output of a node."""
        return value in self._uses or value in self._output_buffers

    def plain(self, value: ir.Value) -> View:
        """Like `view`, but contiguous in the order of the dimensions."""
        view = self.view(value)
        return view if view.is_contiguous else self.copied(view)

    def copied(self, view: View, order: Sequence[int] | None = None) -> View:
        """A dense copy, contiguous in the order of the dimensions or in `order`."""
        target = self.temporary(view.shape, view.dtype, order)
        self.emit(copy(view, target, self.machine))
        return target

    def temporary(self, shape: Sequence[int], dtype: Any, order: Sequence[int] | None = None) -> View:
        """Memory in the arena, for as long as calls read or write it."""
        shape, dtype = tuple(shape), np.dtype(dtype)
        strides = row_major(shape) if order is None else strides_in_order(shape, order)
        return View(Buffer(math.prod(shape) * dtype.itemsize), 0, dtype, shape, strides)

    def output(self, value: ir.Value, order: Sequence[int] | None = None, free_order: bool = False) -> View:
        """Memory for a value this node computes: its part of a concat that reads it, the caller's array, or
        the arena.

        order: the memory order of the dimensions that suits the kernel, outermost first (default: as they
        are). free_order: the kernel writes any strides equally well.
        """
        facts = self._facts[value]
        rank = len(facts.shape)
        order = tuple(range(rank)) if order is None else tuple(order)
        placed = value in self._placed
        slot = self._slot(value, order, free_order) if placed else None
        if (
            slot is None
            and value in self._output_buffers
            and (free_order or _same_order(order, tuple(range(rank)), facts.shape))
        ):
            slot = self._output_buffers[value]
        if slot is None:
            wanted = self._order_for_transpose(value, facts.shape) if placed else None
            if wanted is not None and (free_order or wanted[-1] == order[-1]):
                order = wanted
            slot = self.temporary(facts.shape, facts.dtype, order)
            if self._is_read_by_columns(value, facts, order[-1:]):
                slot = _spread(slot, order[-1])
        self._views[value] = slot
        return slot

    def alias(self, value: ir.Value, view: View) -> None:
        """`value` is this view of memory that exists already: no work."""
        self._kinds[self._position] = "view"
        self._views[value] = view

    def wait(
        self, value: ir.Value, op: str, operands: Sequence[ir.Value], attrs: tuple[tuple[str, Any], ...] = ()
    ) -> bool:
        """`value` is an elementwise operator's result; it waits for who wants it. False: no kernel can do
        these dtypes.
        """
        facts, waiting = self._facts, self._waiting
        dtypes = tuple([name_of(facts[operand].dtype) for operand in operands])
        result = name_of(facts[value].dtype)
        if not supports_step(op, dtypes, result, attrs):
            return False
        waiting[value] = Elementwise(self._position, next(self._turns), op, tuple(operands), result, attrs)
        if value in self._uses or value in self._output_buffers:
            for operand in operands:
                if operand in waiting:
                    self._readers.setdefault(operand, []).append(value)
        return True

    def anchor(
        self,
        value: ir.Value,
        emit: Callable[[View, Epilogue | None], Sequence[Call | Series]],
        order: Sequence[int] | None = None,
        free_order: bool = False,
        rows: Callable[[View, Epilogue | None, int, int], list[Call]] | None = None,
        exact: bool = False,
    ) -> None:
        """`value` is computed by a kernel that can have an epilogue; it waits for one."""
        rank = len(self._facts[value].shape)
        self._waiting[value] = Anchor(
            self._position, next(self._turns), emit, tuple(order or range(rank)), free_order, rows, exact
        )

    def waits_as(self, value: ir.Value) -> str | None:
        """The elementwise operator as whose result a value waits."""
        waits = self._waiting.get(value)
        return waits.op if isinstance(waits, Elementwise) else None

    def by_rows(self, value: ir.Value) -> Callable[[View, int, int], list[Call]] | None:
        """How to compute some rows of one image [N, C, H, W] of a value that only this node reads: a function
        of where they go [1, C, rows, W], the image and the first row. None if nothing that waits can.
        """
        waits = self._waiting.get(value)
        once = self._index.reads[self._position].count(value) <= 1
        if not once or self._uses.get(value) != [self._position] or value in self._output_buffers:
            return None
        members: dict[ir.Value, Elementwise] = {}
        anchor: ir.Value | None = value
        if isinstance(waits, Elementwise):
            members, anchor = self._group(value, None)
        found = None if anchor is None else self._waiting.get(anchor)
        if anchor is None or not isinstance(found, Anchor) or found.rows is None:
            return None
        expression: Expression | None = None
        leaves: list[ir.Value] = []
        if members:
            expression, leaves = self._expression(value, members, anchor)
        views = [self.view(leaf).broadcast_to(self._facts[value].shape) for leaf in leaves]
        positions = [found.position, *(member.position for member in members.values())]
        self._fused[anchor] = self._waiting.pop(anchor)
        self._done(value, members)
        emit = found.rows

        def compute(out: View, image: int, first: int) -> list[Call]:
            operands = [
                v.with_dims(out.shape, v.strides, image * v.strides[0] + first * v.strides[2]) for v in views
            ]
            calls = emit(out, None if expression is None else Epilogue(expression, operands), image, first)
            _belong(calls, positions)
            return calls

        return compute

    def inline(self, value: ir.Value) -> tuple[Expression, list[View]]:
        """A value that only this node reads, and once, as an expression of what lies in memory; the first
        leaf has all elements.
        """
        shape = self._facts[value].shape
        waits = self._waiting.get(value)
        once = self._index.reads[self._position].count(value) <= 1
        alone = once and self._uses.get(value) == [self._position] and value not in self._output_buffers
        if isinstance(waits, Elementwise) and alone:
            members, anchor = self._group(value, None)
            expression, leaves = self._expression(value, members, None)
            whole = [i for i, leaf in enumerate(leaves) if self._facts[leaf].shape == shape]
            if anchor is None and whole:
                leaves.insert(0, leaves.pop(whole[0]))
                expression, _ = self._expression(value, members, None, leaves)
                views = [self.view(leaf).broadcast_to(shape) for leaf in leaves]
                self._done(value, members)
                self._kinds[self._position] = "native"
                return expression, views
        return identity(name_of(self._facts[value].dtype)), [self.view(value)]

    def emit(self, calls: Call | Nested | Sequence[Call]) -> None:
        """Append calls. They belong to the node that is being lowered."""
        self._append([calls] if isinstance(calls, (Call, Nested)) else calls, [self._position])

    def body(self, graph: ir.Graph) -> Body:
        """A subgraph of this node, lowered."""
        return self._bodies[graph]

    def watch(self, body: Body) -> list[View]:
        """The flags of a body that this node runs; `run` looks at them, too."""
        self._checks += [Check(flag, message) for flag, message in body.checks]
        return [flag for flag, _ in body.checks]

    def check(self, message: str) -> View:
        """A flag (int64) that a kernel sets when it meets data it must refuse; `run` then raises
        InputError(message).
        """
        flag = View(Buffer(8, "arena"), 0, np.dtype(np.int64), (), ())
        self._checks.append(Check(flag, message))
        return flag

    @property
    def count(self) -> View:
        """Where the kernels of a node with a `Bound` put the count: the last of the plan's outputs."""
        return self._targets[-1]

    def pack(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, kept for all plans of the session under `key` (None: not kept). For weights in a kernel's
        own order.
        """
        if key is None:
            return make()
        found = self._packed.find(key)
        if found is None:
            found = self._packed.get(key, make)
            self._has_packed = True
            self._forget()
        return found

    def concat(self, value: ir.Value, inputs: Sequence[ir.Value], axis: int) -> None:
        """Join along `axis`; what could be written in place was, what waits is written there now, the rest is
        copied.
        """
        target = self._slots.pop(value, None)
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
            if size == 0 or (known is not None and _lies_at(known, target, here)):
                continue
            part = _slice(target, axis, start - size, size)
            waits = self._waiting.get(source)
            writes_anywhere = isinstance(waits, Elementwise) or (
                isinstance(waits, Anchor) and (waits.free_order or part.strides[waits.order[-1]] == 1)
            )
            if writes_anywhere and source not in self._output_buffers:
                self._compute(source, part)
            else:
                self.emit(copy(self.view(source), part, self.machine))

    def _forget(self) -> None:
        """Let go of the pages of files that weights were read from."""
        for array in self._index.mapped:
            forget_pages(array)

    def known(self, array: Array) -> ir.Value:
        """A new value that is this constant."""
        value = self._fresh()
        self._facts[value] = facts_of(array)
        return value

    def intermediate(self, shape: Sequence[int], dtype: Any) -> ir.Value:
        """A new value that only this node makes and uses."""
        value = self._fresh()
        self._facts[value] = Facts(np.dtype(dtype), tuple(shape))
        self._uses[value] = [self._position]
        return value

    def located(self, view: View) -> ir.Value:
        """A new value that lies here."""
        value = self._fresh()
        self._facts[value] = Facts(view.dtype, view.shape)
        self._views[value] = view
        return value

    def column(self, value: ir.Value, rank: int) -> ir.Value:
        """A new value: the vector [C] as [C, 1, …], of 1 + `rank` dimensions."""
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

    # ---- uses ----------------------------------------------------------------------------------------------

    def _find_uses(self) -> tuple[set[int], dict[ir.Value, list[int]]]:
        """The nodes that must run, and for each value which of them read it. Both follow from what is known,
        which is mostly the same for all shapes.
        """
        key = (self._start, self._stop, *self._outputs, None, *self._computed)
        found = self._index.uses.get(key)
        if found is None:
            found = self._search_uses()
            if len(self._index.uses) < MOST_USES:
                self._index.uses[key] = found
        live, uses = found
        return live, uses.copy()

    def _search_uses(self) -> tuple[set[int], dict[ir.Value, list[int]]]:
        needed = {value for value in self._outputs if not self._facts[value].is_known}
        live: set[int] = set()
        uses: dict[ir.Value, list[int]] = {}
        facts, nodes, reads = self._facts, self._index.nodes, self._index.reads
        for position in range(self._stop - 1, self._start - 1, -1):
            if needed.isdisjoint(nodes[position].outputs):
                continue
            live.add(position)
            for value in reads[position]:
                if not facts[value].is_known:
                    needed.add(value)
                    readers = uses.setdefault(value, [])
                    if not readers or readers[-1] != position:
                        readers.append(position)
        for readers in uses.values():
            readers.reverse()
        return live, uses

    # ---- waiting values become kernels ---------------------------------------------------------------------

    def _compute(self, value: ir.Value, target: View | None) -> View:
        """Emit the kernel that computes a waiting value, into `target` or where `output` says."""
        waits = self._waiting.get(value)
        if waits is None:  # a node has computed it on the way to something else, and asks again: so does this
            waits = self._waiting[value] = self._fused[value]
        if isinstance(waits, Anchor):
            del self._waiting[value]
            out = target or self.output(value, waits.order, waits.free_order)
            self._views[value] = out
            self._append(waits.emit(out, None), [waits.position])
            return out
        members, anchor = self._group(value, target)
        expression, leaves = self._expression(value, members, anchor)
        shape = self._facts[value].shape
        found = self._views  # most leaves lie somewhere already
        views = [(found.get(leaf) or self.view(leaf)).broadcast_to(shape) for leaf in leaves]
        positions = [member.position for member in members.values()]
        self._done(value, members)
        if anchor is not None:
            waiting = self._fused[anchor] = self._waiting.pop(anchor)
            assert isinstance(waiting, Anchor)
            out = target or self.output(value, waiting.order, waiting.free_order)
            self._views[value] = out
            calls = waiting.emit(out, Epilogue(expression, views))
            self._append(calls, [waiting.position, *positions])
            return out
        out = target or self.output(value, self._dominant_order(shape, views), free_order=True)
        self._views[value] = out
        self._append([elementwise(expression, views, [out], self.machine)], positions)
        return out

    def _done(self, root: ir.Value, members: dict[ir.Value, Elementwise]) -> None:
        """The members wait no more, but for those that others may repeat."""
        for value, waits in members.items():
            if value is root or waits.op != _REPEATED:
                self._waiting.pop(value, None)
                self._fused[value] = waits

    def _append(self, calls: Sequence[Call | Series | Nested], positions: list[int]) -> None:
        _belong(calls, positions)
        self._steps += calls

    def _group(
        self, root: ir.Value, target: View | None
    ) -> tuple[dict[ir.Value, Elementwise], ir.Value | None]:
        """The waiting values that only `root` needs, latest first, and the anchor among them whose epilogue
        they become.
        """
        facts, waiting, uses = self._facts, self._waiting, self._uses
        shape = facts[root].shape
        first = waiting[root]
        assert isinstance(first, Elementwise)
        members: dict[ir.Value, Elementwise] = {root: first}
        inside = {first.position}
        anchor: ir.Value | None = None
        leaves: set[ir.Value] = set(first.operands)
        # Candidates by turn, last first: when one is looked at, all who read it have been.
        queue: list[tuple[int, ir.Value]] = []
        queued: set[ir.Value] = set()
        operands: Sequence[ir.Value] = first.operands
        while True:
            for value in operands:
                waits = waiting.get(value)
                if waits is not None and value not in queued:
                    queued.add(value)
                    heapq.heappush(queue, (-waits.turn, value))
            operands = ()
            if not queue:
                return members, anchor
            _, value = heapq.heappop(queue)
            waits = waiting[value]
            is_repeated = isinstance(waits, Elementwise) and waits.op == _REPEATED
            if (
                value in self._output_buffers
                or facts[value].shape != shape
                or not (is_repeated or self._only_for(value, inside, members))
            ):
                continue
            if isinstance(waits, Anchor):
                fits = target is None or waits.free_order or target.strides[waits.order[-1]] == 1
                floats = facts[value].dtype == facts[root].dtype == np.float32
                narrow = waits.exact and facts[root].dtype.itemsize <= 4
                if anchor is None and fits and (floats or narrow):
                    anchor = value
                continue
            grown = (leaves - {value}) | set(waits.operands)
            if len(members) >= MOST_STEPS or len(grown) > MOST_LEAVES:
                continue
            leaves = grown
            members[value] = waits
            if inside.issuperset(uses[value]):  # else others will read its operands too
                inside.add(waits.position)
                operands = waits.operands

    def _only_for(self, value: ir.Value, inside: set[int], members: dict[ir.Value, Elementwise]) -> bool:
        """Whether only the members read a value: no other node, nothing else of theirs that waits."""
        if not inside.issuperset(self._uses[value]):
            return False
        waiting = self._waiting
        for reader in self._readers.get(value, ()):
            if reader not in members and reader in waiting:
                return False
        return True

    def _expression(
        self,
        root: ir.Value,
        members: dict[ir.Value, Elementwise],
        anchor: ir.Value | None,
        first: Sequence[ir.Value] = (),
    ) -> tuple[Expression, list[ir.Value]]:
        """The group as an expression; leaf 0 is the anchor's result where there is one, then those of
        `first`.
        """
        ordered = list(members.items())[::-1]  # they were found latest first
        leaves: list[ir.Value] = [*first] if anchor is None else [anchor, *first]
        numbers: dict[ir.Value, int] = {leaf: number for number, leaf in enumerate(leaves)}
        for _, member in ordered:
            for operand in member.operands:
                if operand not in members and operand not in numbers:
                    numbers[operand] = len(leaves)
                    leaves.append(operand)
        steps: list[Step] = []
        count = len(leaves)
        for value, member in ordered:
            ids = tuple([numbers[o] for o in member.operands])
            numbers[value] = count
            count += 1
            if member.attrs:
                steps.append(Step(member.op, ids, member.dtype, member.attrs))
            else:
                steps.append(plain_step(member.op, ids, member.dtype))
        facts = self._facts
        dtypes = tuple([name_of(facts[leaf].dtype) for leaf in leaves])
        expression = expression_of(dtypes, tuple(steps), (numbers[root],))
        return expression, leaves if anchor is None else leaves[1:]

    def _dominant_order(self, shape: tuple[int, ...], views: Sequence[View]) -> tuple[int, ...]:
        """The memory order of the first operand that has all the elements."""
        for view in views:
            if 0 not in [s for s, n in zip(view.strides, shape, strict=True) if n > 1]:
                return memory_order(view)
        return tuple(range(len(shape)))

    # ---- places --------------------------------------------------------------------------------------------

    def _slot(self, value: ir.Value, order: tuple[int, ...], free_order: bool) -> View | None:
        """The part of a concat that `value` may be written to directly, perhaps moved on the way there."""
        if value in self._output_buffers:
            return None
        uses = self._uses.get(value, ())
        if len(uses) == 1:
            moved = self._moved_slot(value, order, free_order)
            if moved is not None:
                return moved
        for position in uses:
            node = self._index.nodes[position]
            if node.op_type != "Concat" or node.domain not in ("", "ai.onnx") or position <= self._position:
                continue
            joined = node.outputs[0]
            facts = self._facts[joined]
            axis = node.attributes.get_int("axis", 0) % len(facts.shape)
            if joined not in self._slots:
                self._slots[joined] = self.output(joined, order, free_order)
            target = self._slots[joined]
            start = 0
            for source in node.inputs:
                assert source is not None
                if source is value:
                    part = _slice(target, axis, start, self._facts[source].shape[axis])
                    return part if free_order or part.strides[order[-1]] == 1 else None
                start += self._facts[source].shape[axis]
        return None

    def _moved_slot(self, value: ir.Value, order: tuple[int, ...], free_order: bool) -> View | None:
        """The part of a concat that will read `value` through the only node that does, a Transpose or
        Reshape: as `value` lies in it.
        """
        uses = self._uses.get(value, ())
        node = self._index.nodes[uses[0]] if len(uses) == 1 and uses[0] >= self._position else None
        if node is None or node.op_type not in ("Transpose", "Reshape") or node.domain not in ("", "ai.onnx"):
            return None
        facts, result = self._facts[value], node.outputs[0]
        after = self._facts.get(result)
        if node.inputs[0] is not value or after is None or not facts.shape:
            return None
        dense = View(Buffer(0), 0, facts.dtype, facts.shape, strides_in_order(facts.shape, order))
        if node.op_type == "Reshape":
            moved = dense.reshape(after.shape)
            part = None if moved is None else self._slot(result, memory_order(moved), free_order)
            part = None if part is None else part.reshape(facts.shape)
        else:
            perm = node.attributes.get_ints("perm", list(range(len(facts.shape)))[::-1])
            part = self._slot(result, memory_order(dense.transpose(perm)), free_order)
            part = None if part is None else part.transpose([perm.index(d) for d in range(len(perm))])
        return part if part is not None and (free_order or part.strides[order[-1]] == 1) else None

    def _order_for_transpose(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The order in which the only reader, a Transpose, would find its output contiguous."""
        uses = self._uses.get(value, ())
        if len(uses) != 1 or not shape:
            return None
        node = self._index.nodes[uses[0]]
        if node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
            return None
        return tuple(node.attributes.get_ints("perm", list(range(len(shape)))[::-1]))

    def _is_read_by_columns(self, value: ir.Value, facts: Facts, inner: Sequence[int]) -> bool:
        """Whether a product or convolution reads this value, whose rows all begin at the same place of L1."""
        row = facts.shape[inner[0]] * facts.dtype.itemsize if inner else 0
        if row == 0 or row % L1_WAY_BYTES or _nbytes(facts) < FEWEST_ROWS * row:
            return False
        nodes = [self._index.nodes[use] for use in self._uses.get(value, ())]
        return any(node.op_type in _READ_BY_COLUMNS and node.domain in ("", "ai.onnx") for node in nodes)

    def _evaluate_on_host(self, node: ir.Node) -> None:
        inputs: list[View | Array | None] = []
        for value in node.inputs:
            known = self.constant(value)
            inputs.append(None if value is None else known if known is not None else self.view(value))
        outputs = [self.output(v) if v in self._facts else None for v in node.outputs]
        self._steps.append(HostStep(self._position, inputs, outputs))


def _named(node: ir.Node, error: UnsupportedOperatorError) -> UnsupportedOperatorError:
    """A kernel's error does not know which node wants it."""
    name = label(node)
    return error if name in str(error) else UnsupportedOperatorError(f"{name}: {error}")


def _belong(calls: Sequence[Call | Series | Nested], positions: list[int]) -> None:
    """They compute the nodes at these positions, too."""
    for call in calls:
        if isinstance(call, Call):
            call.origin.extend(positions)
        elif isinstance(call, Nested):
            call.call.origin.extend(positions)
        else:
            _belong(call.body, positions)


def _nbytes(facts: Facts) -> int:
    return math.prod(facts.shape) * facts.dtype.itemsize


def _spread(view: View, inner: int) -> View:
    """A dense view in more memory: a cache line further from row to row, and from there on outwards."""
    row, gap = view.shape[inner], LINE_BYTES // view.dtype.itemsize
    strides = [s if s < row else s // row * (row + gap) for s in view.strides]
    buffer = Buffer(view.buffer.nbytes // row * (row + gap))
    return View(buffer, 0, view.dtype, view.shape, tuple(strides))


def _dense(facts: Facts, buffer: Buffer) -> View:
    return View(buffer, 0, facts.dtype, facts.shape, row_major(facts.shape))


def _contiguous(array: Array) -> Array:
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _slice(view: View, axis: int, start: int, size: int) -> View:
    shape = (*view.shape[:axis], size, *view.shape[axis + 1 :])
    return view.with_dims(shape, view.strides, start * view.strides[axis])


def _lies_at(view: View, whole: View, offset: int) -> bool:
    """Whether a view is the part of `whole` of its own shape that begins at `offset`; strides along
    dimensions of size 1 do not matter.
    """
    if view.buffer is not whole.buffer or view.offset != offset or view.dtype != whole.dtype:
        return False
    if view.strides == whole.strides:
        return True
    return all(n == 1 or s == t for n, s, t in zip(view.shape, view.strides, whole.strides, strict=True))


def _same_order(a: Sequence[int], b: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether two orders lay out this shape alike: dimensions of size 1 do not matter."""
    return [d for d in a if shape[d] > 1] == [d for d in b if shape[d] > 1]
