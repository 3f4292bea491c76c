"""Values that wait to be computed, and which of them one kernel computes together.

An elementwise node waits until somebody demands its value; then everything that waits only for that value is
a *group*. If one of the things it waits for is itself a waiting matrix multiplication, convolution or the
like (an *anchor*), the group becomes that kernel's epilogue.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from ingot.kernels.call import Call, Series, View
from ingot.kernels.contract import Epilogue, name_of
from ingot.kernels.expression import Expression, Step, expression_of, plain_step, supports_step
from ingot.ops.bands import Rows
from ingot.ops.registry import Facts

#: Larger groups gain nothing and compile slowly; their first values are stored and read again.
MOST_STEPS, MOST_LEAVES = 48, 16

#: What each reader computes anew: small integers are read sooner than the floats they become.
_REPEATED = "DequantizeLinear"


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
    #: asked when it is wanted: rows()(out, epilogue, image, first) is the same for some rows of one image
    rows: Callable[[], Rows | None] | None = None
    #: the epilogue gets the value itself, of its own dtype
    exact: bool = False

    def writes(self, out: View) -> bool:
        """Whether it can compute into this view."""
        return self.free_order or out.strides[self.order[-1]] == 1


@dataclass(slots=True)
class Refused:
    """A value that cannot wait: the node that asked for it, and why."""

    position: int
    reason: str


class Waiting:
    """All that waits in a plan under construction.

    facts, uses: the plan's, of each value, and the nodes that read it. outputs: values that are the plan's
    results. All three may grow after this is made.
    """

    def __init__(
        self,
        facts: Mapping[ir.Value, Facts],
        uses: Mapping[ir.Value, Sequence[int]],
        outputs: Collection[ir.Value],
    ) -> None:
        self.by_value: dict[ir.Value, Elementwise | Anchor] = {}
        #: what waits no more and lies nowhere: it became part of a kernel
        self.fused: dict[ir.Value, Elementwise | Anchor] = {}
        #: what no kernel computes of these dtypes; whoever asked may compute it in another way
        self.refused: dict[ir.Value, Refused] = {}
        self._facts, self._uses, self._outputs = facts, uses, outputs
        self._readers: dict[ir.Value, list[ir.Value]] = {}  # of waiting values: who waits to read them
        self._turns = itertools.count()

    def clear(self) -> None:
        """Let go of all. What waits knows the plan, which knows this: Python would have to look for such
        garbage.
        """
        self.by_value.clear()
        self.fused.clear()
        self.refused.clear()

    def add(
        self,
        position: int,
        value: ir.Value,
        op: str,
        operands: Sequence[ir.Value],
        attrs: tuple[tuple[str, Any], ...],
    ) -> bool:
        """`value`, an elementwise operator's result, waits; False: no kernel can do these dtypes."""
        facts, waiting = self._facts, self.by_value
        dtypes = tuple([name_of(facts[operand].dtype) for operand in operands])
        result = name_of(facts[value].dtype)
        if not supports_step(op, dtypes, result, attrs):
            self.refused[value] = Refused(position, f"no kernel has {op} of {', '.join(dtypes)} to {result}")
            return False
        waiting[value] = Elementwise(position, next(self._turns), op, tuple(operands), result, attrs)
        if value in self._uses or value in self._outputs:
            for operand in operands:
                if operand in waiting:
                    self._readers.setdefault(operand, []).append(value)
        return True

    def add_anchor(
        self,
        position: int,
        value: ir.Value,
        emit: Callable[[View, Epilogue | None], Sequence[Call | Series]],
        order: tuple[int, ...],
        free_order: bool,
        rows: Callable[[], Rows | None] | None,
        exact: bool,
    ) -> None:
        """`value` waits for an epilogue; see `Anchor`."""
        self.by_value[value] = Anchor(position, next(self._turns), emit, order, free_order, rows, exact)

    def again(self, value: ir.Value) -> Elementwise | Anchor:
        """A value that was computed on the way to something else, and is asked for again, waits again."""
        waits = self.by_value[value] = self.fused[value]
        return waits

    def take(self, anchor: ir.Value) -> Anchor:
        """An anchor waits no more: its kernel computes what a group makes of its value."""
        waits = self.fused[anchor] = self.by_value.pop(anchor)
        assert isinstance(waits, Anchor)
        return waits

    def done(self, root: ir.Value, members: dict[ir.Value, Elementwise]) -> None:
        """The members wait no more, but for those that others may repeat."""
        for value, waits in members.items():
            if value is root or waits.op != _REPEATED:
                self.by_value.pop(value, None)
                self.fused[value] = waits

    def group(
        self, root: ir.Value, target: View | None
    ) -> tuple[dict[ir.Value, Elementwise], ir.Value | None]:
        """The waiting values that only `root` needs, latest first, and the anchor among them whose epilogue
        they become. target: where the root must go, if that is known.
        """
        facts, waiting, uses = self._facts, self.by_value, self._uses
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
                value in self._outputs
                or facts[value].shape != shape
                or not (is_repeated or self._only_for(value, inside, members))
            ):
                continue
            if isinstance(waits, Anchor):
                fits = target is None or waits.writes(target)
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
        for reader in self._readers.get(value, ()):
            if reader not in members and reader in self.by_value:
                return False
        return True

    def expression(
        self,
        root: ir.Value,
        members: dict[ir.Value, Elementwise],
        anchor: ir.Value | None,
        first: Sequence[ir.Value] = (),
    ) -> tuple[Expression, list[ir.Value]]:
        """A group as an expression, and its leaves in memory; before them comes the anchor's result where
        there is one, then those of `first`.
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
