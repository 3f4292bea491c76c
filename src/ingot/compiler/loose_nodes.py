"""Which step over loose arrays (`kernels/loose.py`) a node is that is not elementwise: its kernel, the dtype
of its result, and its operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ingot.codegen.kernel import Kernel
from ingot.kernels import loose_dims as dims
from ingot.kernels import loose_elements as elements
from ingot.kernels.contract import name_of
from ingot.kernels.loose import MOST_DIMS
from ingot.ops.registry import Array, Op, attr_int, attr_ints, evaluated

#: What the elements of a loose array may be.
DTYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")
)
_INDICES = frozenset(("int32", "int64"))


class UnsuitedError(Exception):
    """A body that has no such steps."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The words of an array, its dtype, and its value where that is a constant."""

    word: int
    dtype: str
    constant: Array | None = None

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.dtype).itemsize


class Inputs:
    """The inputs of a node."""

    def __init__(self, slots: Sequence[Slot | None]) -> None:
        self.slots = slots

    def __getitem__(self, number: int) -> Slot:
        slot = self.optional(number)
        if slot is None:
            raise UnsuitedError
        return slot

    def optional(self, number: int) -> Slot | None:
        """An input, or None."""
        return self.slots[number] if number < len(self.slots) else None

    def integers(self, number: int) -> Slot:
        """An input of places or sizes."""
        slot = self[number]
        if slot.dtype not in _INDICES:
            raise UnsuitedError
        return slot


Made: TypeAlias = "tuple[Kernel, str, list[Slot | Array | None]]"


def _shape(node: ir.Node, _op: Op, given: Inputs) -> Made:
    end = node.attributes.get("end")
    kernel = dims.shape_of(start=attr_int(node, "start", 0), end=None if end is None else end.as_int())
    return kernel, "int64", [given[0]]


def _size(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    return dims.size_of(), "int64", [given[0]]


def _reshape(node: ir.Node, _op: Op, given: Inputs) -> Made:
    x, shape = given[0], given.integers(1)
    kernel = dims.reshape(dtype=shape.dtype, keeps_zero=bool(attr_int(node, "allowzero", 0)))
    return kernel, x.dtype, [x, shape]


def _flatten(node: ir.Node, _op: Op, given: Inputs) -> Made:
    return dims.flatten(axis=attr_int(node, "axis", 1)), given[0].dtype, [given[0]]


def _unsqueeze(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    axes = given.integers(1)
    return dims.unsqueeze(dtype=axes.dtype), given[0].dtype, [given[0], axes]


def _squeeze(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    axes = None if given.optional(1) is None else given.integers(1)
    return dims.squeeze(dtype=None if axes is None else axes.dtype), given[0].dtype, [given[0], axes]


def _transpose(node: ir.Node, _op: Op, given: Inputs) -> Made:
    perm = attr_ints(node, "perm")
    if perm is None or sorted(perm) != list(range(len(perm))) or len(perm) > MOST_DIMS:
        raise UnsuitedError
    return elements.transpose(perm=perm, size=given[0].size), given[0].dtype, [given[0]]


def _expand(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    x, shape = given[0], given.integers(1)
    return elements.expand(dtype=shape.dtype, size=x.size), x.dtype, [x, shape]


def _slice(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    x, starts = given[0], given.integers(1)
    ends, axes, paces = given[2], given.optional(3), given.optional(4)
    if {slot.dtype for slot in (starts, ends, axes, paces) if slot is not None} != {starts.dtype}:
        raise UnsuitedError
    kernel = elements.slice_of(
        dtype=starts.dtype, axes=axes is not None, steps=paces is not None, size=x.size
    )
    return kernel, x.dtype, [x, starts, ends, axes, paces]


def _concat(node: ir.Node, _op: Op, given: Inputs) -> Made:
    slots = [given[n] for n in range(len(given.slots))]
    if not slots or len({slot.dtype for slot in slots}) != 1:
        raise UnsuitedError
    kernel = elements.concat(len(slots), attr_int(node, "axis", 0), slots[0].size)
    return kernel, slots[0].dtype, list(slots)


def _gather(node: ir.Node, _op: Op, given: Inputs) -> Made:
    x, indices = given[0], given.integers(1)
    kernel = elements.gather(axis=attr_int(node, "axis", 0), dtype=indices.dtype, size=x.size)
    return kernel, x.dtype, [x, indices]


def _gather_nd(node: ir.Node, _op: Op, given: Inputs) -> Made:
    if attr_int(node, "batch_dims", 0):
        raise UnsuitedError
    x, indices = given[0], given.integers(1)
    return elements.gather_nd(dtype=indices.dtype, size=x.size), x.dtype, [x, indices]


def _compress(node: ir.Node, _op: Op, given: Inputs) -> Made:
    x, condition, axis = given[0], given[1], node.attributes.get("axis")
    if condition.dtype != "bool":
        raise UnsuitedError
    kernel = elements.compress(axis=None if axis is None else axis.as_int(), size=x.size)
    return kernel, x.dtype, [x, condition]


def _nonzero(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    return elements.nonzero(dtype=given[0].dtype), "int64", [given[0]]


def _constant_of_shape(node: ir.Node, op: Op, given: Inputs) -> Made:
    shape, one = given.integers(0), evaluated(op, node, [np.array([1])])[0]
    dtype = name_of(one.dtype)
    if dtype not in DTYPES:
        raise UnsuitedError
    return elements.constant_of_shape(dtype=shape.dtype, size=one.itemsize), dtype, [shape, one]


def _range(_node: ir.Node, _op: Op, given: Inputs) -> Made:
    bounds = [given.integers(n) for n in range(3)]
    if len({slot.dtype for slot in bounds}) != 1:
        raise UnsuitedError
    return elements.range_of(dtype=bounds[0].dtype), bounds[0].dtype, list(bounds)


STEPS: dict[str, Callable[[ir.Node, Op, Inputs], Made]] = {
    "Shape": _shape,
    "Size": _size,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Expand": _expand,
    "Slice": _slice,
    "Concat": _concat,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Compress": _compress,
    "NonZero": _nonzero,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
}
