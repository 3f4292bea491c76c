"""Where the values of a plan lie: a concat's producers write into their part of it, the plan's results go to
the caller's arrays, everything else to a buffer of its own, in an order of the dimensions that suits who
writes and who reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ingot.compiler.index import Index
from ingot.kernels.call import Buffer, View, arena_view, memory_order, row_major, strides_in_order
from ingot.kernels.made_again import remembered
from ingot.ops.registry import Facts

#: A product reads a tile of rows side by side. Rows this many bytes apart, or a multiple, all lie on the
#: same lines of L1, of which it keeps fewer than a tile has rows; from FEWEST_ROWS on they are spread by a
#: line.
L1_WAY_BYTES, LINE_BYTES, FEWEST_ROWS = 4096, 64, 8
_READ_BY_COLUMNS = frozenset(["MatMul", "Gemm", "Conv"])
_ONNX = ("", "ai.onnx")


@dataclass(slots=True)
class OneImage:
    """A region of the graph that is lowered for one image of a batch, the one of this number. facts: of its
    values, of all images where those of one are in force. kept: the values that others read, and where all
    their images lie.
    """

    number: int
    facts: dict[ir.Value, Facts]
    kept: dict[ir.Value, View | None]
    #: whether the facts of all images are in force, while it is chosen where they lie
    is_whole: bool = True
    #: the concats whose memory existed before
    joined: dict[ir.Value, View] = field(default_factory=dict[ir.Value, View])

    def swap(self, facts: dict[ir.Value, Facts]) -> None:
        """Put the other facts in force."""
        for value, own in self.facts.items():
            facts[value], self.facts[value] = own, facts[value]
        self.is_whole = not self.is_whole


class Places:
    """Where values lie in a plan under construction. facts, uses: the plan's, see `Waiting`."""

    def __init__(
        self, index: Index, facts: dict[ir.Value, Facts], uses: Mapping[ir.Value, Sequence[int]]
    ) -> None:
        self.views: dict[ir.Value, View] = {}
        #: the caller's arrays
        self.outputs: dict[ir.Value, View] = {}
        self._index, self._facts, self._uses = index, facts, uses
        #: what is lowered for one image at a time, while it is
        self.image: OneImage | None = None
        self._joined: dict[ir.Value, View] = {}  # concats whose memory exists before they are reached

    def enter(self, image: OneImage) -> None:
        """From here on, values are those of one image."""
        self.image = image
        image.joined = self._joined.copy()
        for value in image.kept:  # somebody has written a part of it already
            image.kept[value] = self._joined.get(value)
        image.swap(self._facts)

    def leave(self, done: bool) -> None:
        """From here on, values are those of all images; `done`: what was kept of each lies in place."""
        assert self.image is not None
        self.image.swap(self._facts)
        if not done:
            self._joined = self.image.joined
        self.image = None

    def joined(self, value: ir.Value) -> View | None:
        """The memory of a concat that is reached now, if parts of it were written already."""
        found = self._joined.get(value)
        if found is None:
            return None
        part = self._of_image(found, value)
        if part is found:
            del self._joined[value]
        return part

    def _of_image(self, view: View, value: ir.Value) -> View:
        """The image that is lowered, of memory that may be all images'."""
        if self.image is None or view.shape[0] == self._facts[value].shape[0]:
            return view
        return view.part(0, self.image.number, 1)

    def choose(self, position: int, value: ir.Value, order: Sequence[int] | None, free_order: bool) -> View:
        """Memory for a value that the node at `position` computes; it lies there from now on. order,
        free_order: see `Lowering.output`.
        """
        image = self.image
        if image is None or value not in image.kept:
            return self._choose(position, value, order, free_order)
        if image.kept[value] is None and not image.is_whole:
            image.swap(self._facts)
            image.kept[value] = self._choose(position, value, order, free_order)
            image.swap(self._facts)
        elif image.kept[value] is None:  # the concat of what is placed now
            image.kept[value] = self._choose(position, value, order, free_order)
        place = image.kept[value]
        assert place is not None
        if not image.is_whole:
            place = place.part(0, image.number, 1)
        self.views[value] = place
        return place

    def _choose(self, position: int, value: ir.Value, order: Sequence[int] | None, free_order: bool) -> View:
        facts = self._facts[value]
        rank = len(facts.shape)
        order = tuple(range(rank)) if order is None else tuple(order)
        placed = value in self._index.placed
        place = self._part(position, value, order, free_order) if placed else None
        if (
            place is None
            and value in self.outputs
            and (free_order or _same_order(order, tuple(range(rank)), facts.shape))
        ):
            place = self.outputs[value]
        if place is None:
            wanted = self._order_for_transpose(value, facts.shape) if placed else None
            if wanted is not None and (free_order or wanted[-1] == order[-1]):
                order = wanted
            place = arena_view(facts.shape, facts.dtype, order)
            if self._is_read_by_columns(value, facts, order[-1:]):
                place = _spread(place, order[-1])
        self.views[value] = place
        return place

    def _part(self, position: int, value: ir.Value, order: tuple[int, ...], free_order: bool) -> View | None:
        """The part of a concat that `value` may be written to directly, perhaps moved on the way there."""
        if value in self.outputs:
            return None
        uses = self._uses.get(value, ())
        if len(uses) == 1:
            moved = self._moved_part(position, value, order, free_order)
            if moved is not None:
                return moved
        for use in uses:
            node = self._index.nodes[use]
            if node.op_type != "Concat" or node.domain not in _ONNX or use <= position:
                continue
            joined = node.outputs[0]
            facts = self._facts[joined]
            axis = node.attributes.get_int("axis", 0) % len(facts.shape)
            if joined not in self._joined:
                self._joined[joined] = self.choose(position, joined, order, free_order)
            target = self._of_image(self._joined[joined], joined)
            start = 0
            for source in node.inputs:
                assert source is not None
                if source is value:
                    part = target.part(axis, start, self._facts[source].shape[axis])
                    return part if free_order or part.strides[order[-1]] == 1 else None
                start += self._facts[source].shape[axis]
        return None

    def _moved_part(
        self, position: int, value: ir.Value, order: tuple[int, ...], free_order: bool
    ) -> View | None:
        """The part of a concat that will read `value` through the only node that does, a Transpose or
        Reshape: as `value` lies in it.
        """
        uses = self._uses.get(value, ())
        node = self._index.nodes[uses[0]] if len(uses) == 1 and uses[0] >= position else None
        if node is None or node.op_type not in ("Transpose", "Reshape") or node.domain not in _ONNX:
            return None
        facts, result = self._facts[value], node.outputs[0]
        after = self._facts.get(result)
        if node.inputs[0] is not value or after is None or not facts.shape:
            return None
        dense = View(Buffer(0), 0, facts.dtype, facts.shape, strides_in_order(facts.shape, order))
        if node.op_type == "Reshape":
            moved = dense.reshape(after.shape)
            part = None if moved is None else self._part(position, result, memory_order(moved), free_order)
            part = None if part is None else part.reshape(facts.shape)
        else:
            perm = node.attributes.get_ints("perm", list(range(len(facts.shape)))[::-1])
            part = self._part(position, result, memory_order(dense.transpose(perm)), free_order)
            part = None if part is None else part.transpose([perm.index(d) for d in range(len(perm))])
        return part if part is not None and (free_order or part.strides[order[-1]] == 1) else None

    def _order_for_transpose(self, value: ir.Value, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The order in which the only reader, a Transpose, would find its output contiguous."""
        uses = self._uses.get(value, ())
        if len(uses) != 1 or not shape:
            return None
        node = self._index.nodes[uses[0]]
        if node.op_type != "Transpose" or node.domain not in _ONNX:
            return None
        return tuple(node.attributes.get_ints("perm", list(range(len(shape)))[::-1]))

    def _is_read_by_columns(self, value: ir.Value, facts: Facts, inner: Sequence[int]) -> bool:
        """Whether a product or convolution reads this value, whose rows all begin at the same place of L1."""
        row = facts.shape[inner[0]] * facts.dtype.itemsize if inner else 0
        if row == 0 or row % L1_WAY_BYTES:
            return False
        nodes = [self._index.nodes[use] for use in self._uses.get(value, ())]
        return any(node.op_type in _READ_BY_COLUMNS and node.domain in _ONNX for node in nodes)


def nbytes(facts: Facts) -> int:
    """The bytes of a value without gaps."""
    return math.prod(facts.shape) * facts.dtype.itemsize


def dense(facts: Facts, buffer: Buffer) -> View:
    """A value that lies in the whole of a buffer, row-major."""
    return View(buffer, 0, facts.dtype, facts.shape, row_major(facts.shape))


def lies_at(view: View, whole: View, offset: int) -> bool:
    """Whether a view is the part of `whole` of its own shape that begins at `offset`; strides along
    dimensions of size 1 do not matter.
    """
    if view.buffer is not whole.buffer or view.offset != offset or view.dtype != whole.dtype:
        return False
    if view.strides == whole.strides:
        return True
    return all(n == 1 or s == t for n, s, t in zip(view.shape, view.strides, whole.strides, strict=True))


def dominant_order(shape: tuple[int, ...], views: Sequence[View]) -> tuple[int, ...]:
    """The memory order of the first of these views, all broadcast to `shape`, that has all the elements."""
    for view in views:
        if 0 not in [s for s, n in zip(view.strides, shape, strict=True) if n > 1]:
            return memory_order(view)
    return tuple(range(len(shape)))


def _spread(view: View, inner: int) -> View:
    """A dense view in more memory, if it has rows enough: a cache line further from row to row, and from
    there on outwards.
    """
    row, itemsize = view.shape[inner], view.dtype.itemsize
    rows = view.buffer.nbytes // (row * itemsize)
    wide = row + _gap(rows, itemsize)
    strides = [s if d == inner else s // row * wide for d, s in enumerate(view.strides)]
    return View(Buffer(rows * wide * itemsize), 0, view.dtype, view.shape, tuple(strides))


@remembered(64)
def _gap(rows: int, itemsize: int) -> int:
    """Elements between two rows. A number for recipes: few rows and many are written by the same steps."""
    return LINE_BYTES // itemsize if rows >= FEWEST_ROWS else 0


def _same_order(a: Sequence[int], b: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether two orders lay out this shape alike: dimensions of size 1 do not matter."""
    return [d for d in a if shape[d] > 1] == [d for d in b if shape[d] > 1]
