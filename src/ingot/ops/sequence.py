"""Sequences and optionals: lists of arrays, and a value or None. The host handles them; what is certain from
the inputs alone (an optional that is a plain tensor) costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, ModelError
from ingot.ops.control import Control, Subgraphs, body_of
from ingot.ops.lowering import Lowering
from ingot.ops.numeric import BOOL, INT64, STRING
from ingot.ops.registry import (
    Array,
    Facts,
    Op,
    Outputs,
    attr_int,
    facts_of,
    first_input,
    given,
    label,
    need,
    normal_axis,
    present,
    register,
    shape_error,
    show,
)


class Rows(list[Any]):
    """A sequence whose tensors lie one after the other, too: `stacked` [n, …], of which they are parts."""

    def __init__(self, stacked: Array) -> None:
        parts = stacked if stacked.ndim > 1 else [part.reshape(()) for part in stacked[:, None]]
        super().__init__(parts)
        self.stacked = stacked

    def followed_by(self, stacked: Array) -> list[Any]:
        """With more tensors."""
        if stacked.shape[1:] != self.stacked.shape[1:]:
            return [*self.apart(), *map(np.array, stacked)]
        return Rows(np.concatenate([self.stacked, stacked]))

    def apart(self) -> list[Any]:
        """A list of tensors of their own."""
        return [part.copy() for part in self]

    __copy__ = apart


def _list(node: ir.Node, inputs: Sequence[Any], index: int = 0) -> list[Any]:
    value = given(inputs, index)
    if not isinstance(value, list):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise ModelError(
            f"{label(node)}: input {index} is {kind}; it must be a sequence. Check what makes it."
        )
    return cast("list[Any]", value)


def _apart(node: ir.Node, inputs: Sequence[Any]) -> list[Any]:
    """A sequence of which others are made: its tensors are no parts of one array."""
    items = _list(node, inputs)
    return items.apart() if isinstance(items, Rows) else items


def _position(node: ir.Node, inputs: Sequence[Any], index: int, size: int, default: int) -> int:
    """An input's position in 0 … size-1; negative ones count from the end."""
    given_position = given(inputs, index)
    if given_position is None:
        return default
    position = int(np.asarray(given_position).reshape(()))
    if not -size <= position < size:
        raise InputError(
            f"{label(node)}: position {position} is outside a sequence of {size}. "
            "Check what makes the position."
        )
    return position + size if position < 0 else position


@register("SequenceConstruct", since=11)
class SequenceConstruct(Op):
    """The inputs, as a sequence."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A list."""
        return cast("list[Array]", [list(inputs)])


@register("SequenceEmpty", since=11)
class SequenceEmpty(Op):
    """A sequence of nothing."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """An empty list."""
        return cast("list[Array]", [[]])


@register("SequenceAt", since=11)
class SequenceAt(Op):
    """The tensor at a position."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Negative positions count from the end."""
        items = _list(node, inputs)
        return [items[_position(node, inputs, 1, len(items), 0)]]


@register("SequenceInsert", since=11)
class SequenceInsert(Op):
    """The sequence with one more tensor, before a position or at the end."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A new list."""
        items = _apart(node, inputs)
        position = given(inputs, 2)
        where = len(items)
        if position is not None:
            where = int(np.asarray(position).reshape(()))
            if not -len(items) <= where <= len(items):
                raise InputError(
                    f"{label(node)}: position {where} is outside a sequence of {len(items)}. "
                    "Check what makes the position."
                )
            where += len(items) if where < 0 else 0
        return cast("list[Array]", [[*items[:where], present(inputs, 1), *items[where:]]])


@register("SequenceErase", since=11)
class SequenceErase(Op):
    """The sequence without the tensor at a position, the last by default."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A new list."""
        items = _apart(node, inputs)
        if not items:
            raise InputError(f"{label(node)}: the sequence is empty. Check what makes it.")
        where = _position(node, inputs, 1, len(items), len(items) - 1)
        return cast("list[Array]", [[*items[:where], *items[where + 1 :]]])


@register("SequenceLength", since=11)
class SequenceLength(Op):
    """How many tensors there are."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """An int64."""
        return [np.array(len(_list(node, inputs)), INT64)]


@register("ConcatFromSequence", since=11)
class ConcatFromSequence(Op):
    """The tensors joined along an axis, or stacked along a new one."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.concatenate or np.stack."""
        items = _list(node, inputs)
        if not items:
            raise InputError(f"{label(node)}: the sequence is empty, there is nothing to join.")
        is_new = bool(attr_int(node, "new_axis", 0))
        axis = normal_axis(node, attr_int(node, "axis", 0), items[0].ndim + is_new)
        if isinstance(items, Rows):
            return joined_rows(items.stacked, is_new, axis)
        try:
            return [np.stack(items, axis) if is_new else np.concatenate(items, axis)]
        except ValueError as error:
            shapes = ", ".join(show(item.shape) for item in items)
            raise shape_error(node, f"shapes {shapes} cannot be joined along axis {axis}") from error


@register("JoinedRows", since=1, domain="ingot")
class JoinedRows(Op):
    """ConcatFromSequence of rows that lie one after the other."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Raises InputError where there are none."""
        x = need(node, inputs, 0)
        rows, *shape = x.shape
        if not rows:
            raise InputError(f"{label(node)}: the sequence is empty, there is nothing to join.")
        is_new, axis = self._axis(node, len(shape))
        shape[axis : axis + (not is_new)] = [rows if is_new else rows * shape[axis]]
        return [Facts(x.dtype, tuple(shape))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """np.concatenate or np.stack."""
        return joined_rows(present(inputs, 0), *self._axis(node, present(inputs, 0).ndim - 1))

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """Another order of the dimensions; a copy where rows are joined along an inner one."""
        view, value = plan.view(first_input(node)), node.outputs[0]
        is_new, axis = self._axis(node, view.rank - 1)
        moved = view.transpose([*range(1, axis + 1), 0, *range(axis + 1, view.rank)])
        if not is_new:
            shape = plan.facts(value).shape
            moved = moved.reshape(shape) or plan.copied(moved).reshape(shape)
            assert moved is not None
        plan.alias(value, moved)
        return True

    @staticmethod
    def _axis(node: ir.Node, rank: int) -> tuple[bool, int]:
        is_new = bool(attr_int(node, "new_axis", 0))
        return is_new, normal_axis(node, attr_int(node, "axis", 0), rank + is_new)


def joined_rows(rows: Array, is_new: bool, axis: int) -> list[Array]:
    """Rows [n, …] joined along an axis, or stacked along a new one."""
    moved = np.moveaxis(rows, 0, axis)
    if is_new:
        return [moved]
    before, (count, size), after = moved.shape[:axis], moved.shape[axis : axis + 2], moved.shape[axis + 2 :]
    return [moved.reshape(*before, count * size, *after)]


@register("SplitToSequence", since=24)
class SplitToSequence(Op):
    """Parts of a tensor along an axis: of one size (the last may be smaller), or of the sizes given; by
    default single slices, without the axis if keepdims is 0.
    """

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A list of views."""
        x, split = present(inputs, 0), given(inputs, 1)
        axis = normal_axis(node, attr_int(node, "axis", 0), x.ndim)
        size = x.shape[axis]
        if split is None:
            slices = [x.take([i], axis) for i in range(size)]
            keep = attr_int(node, "keepdims", 1)
            return cast("list[Array]", [slices if keep else [part.squeeze(axis) for part in slices]])
        if split.ndim == 0:
            step = int(split)
            if step <= 0:
                raise shape_error(node, f"parts of size {step} were asked for", "Use a positive size.")
            ends = [*range(step, size, step)]
        else:
            sizes = [int(part) for part in split]
            if sum(sizes) != size or min(sizes, default=0) < 0:
                raise shape_error(node, f"sizes {sizes} do not make up {size} in {show(x.shape)}")
            ends = np.cumsum(sizes)[:-1].tolist()
        return cast("list[Array]", [np.split(x, ends, axis)])


@register("SequenceMap", since=17)
class SequenceMap(Control):
    """The body for each element of the first sequence, and of the other sequences beside it; other inputs
    are the same every time. Outputs are sequences of what the body returns.
    """

    def bodies(self, node: ir.Node) -> list[tuple[str, int, int]]:
        """An element, or the whole, of each input."""
        return [("body", len(node.inputs), len(node.outputs))]

    def run(self, node: ir.Node, inputs: Sequence[Any], subgraphs: Subgraphs) -> list[Any]:
        """One run of the body for each element."""
        body, items = body_of(node, "body"), _list(node, inputs)
        made: list[list[Any]] = [[] for _ in node.outputs]
        for i, item in enumerate(items):
            others: list[Any] = []
            for other in inputs[1:]:
                if isinstance(other, list):
                    sequence = cast("list[Any]", other)
                    if len(sequence) != len(items):
                        raise InputError(
                            f"{label(node)}: sequences of {len(items)} and {len(sequence)} elements. "
                            "They must have as many."
                        )
                    other = sequence[i]
                others.append(other)
            for column, result in zip(made, subgraphs.run(body, [item, *others]), strict=True):
                column.append(result)
        return made


@register("Optional", since=28)
class Optional(Op):
    """The input as an optional; without one, an optional that has nothing."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """An array stays one; everything else is the host's."""
        return [given(inputs, 0)] if given(inputs, 0) is not None else None

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The value itself, or None."""
        return [given(inputs, 0)]

    def lower(self, node: ir.Node, plan: Lowering) -> bool:
        """The same memory."""
        plan.alias(node.outputs[0], plan.view(first_input(node)))
        return True


@register("OptionalGetElement", since=28)
class OptionalGetElement(Optional):
    """What an optional has."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The value itself."""
        value = given(inputs, 0)
        if value is None:
            raise InputError(f"{label(node)}: the optional has no element. Ask OptionalHasElement before.")
        return [value]


@register("OptionalHasElement", since=28)
class OptionalHasElement(Op):
    """Whether an optional has something; a tensor or sequence always has."""

    def infer(self, node: ir.Node, inputs: Sequence[Facts | None]) -> Outputs:
        """Certain for an array, and for no input at all."""
        facts = given(inputs, 0)
        if facts is not None and facts.dtype == STRING:
            return [Facts(BOOL, ())]
        return [facts_of(np.array(facts is not None, BOOL))]

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """A truth value."""
        return [np.array(given(inputs, 0) is not None, BOOL)]


__all__ = [
    "ConcatFromSequence",
    "JoinedRows",
    "Optional",
    "OptionalGetElement",
    "OptionalHasElement",
    "Rows",
    "SequenceAt",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceLength",
    "SequenceMap",
    "SplitToSequence",
    "joined_rows",
]
