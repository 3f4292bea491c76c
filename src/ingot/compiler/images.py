"""Images of a batch one after the other.

What a few nodes make of a whole batch may be larger than any cache, and what they make of one image small.
Such nodes are lowered for one image, and their steps come again for each of the batch: what one writes is in
the cache when the next reads it, in memory that the next image takes again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ingot.compiler.index import Index, Walk
from ingot.ops.registry import Facts, Op, attr_int

#: What a node reads and writes of all images has so many times the bytes of L2 before images one after the
#: other pay; of one image it has as many as are worth a step, and no more than stay in L3.
_LARGE, _LEAST, _FITTING = 4, 0.5, 16
#: Of weights, which are read again for each image, so much as a part of what is read and written of one.
_MOST_WEIGHTS = 1
#: Winograd's weights are so many times as large as a filter of 3×3.
_TRANSFORMED = 4
#: They read their inputs from memory, so that whatever waits is computed for them.
_READERS = frozenset(
    ["Conv", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "Concat"]
)
#: They wait for nobody once they are lowered.
_DONE = frozenset(["Concat", "MaxPool", "AveragePool", "LpPool"])


@dataclass(slots=True)
class Region:
    """Nodes that are lowered for one image at a time. inputs: what they read of others, with an image in each
    place of dimension 0. values: what they make; kept: what of that others read.
    """

    positions: list[int]
    batch: int
    inputs: list[ir.Value]
    values: list[ir.Value]
    kept: list[ir.Value]


@dataclass(slots=True)
class _Unit:
    """Nodes that belong together: whatever waits in front of them is computed there anyway. batch: their
    images; 0 where something is not done by images.
    """

    positions: list[int]
    batch: int
    pays: bool
    readers: int


def regions(
    index: Index,
    live: Sequence[int],
    uses: Mapping[ir.Value, Sequence[int]],
    facts: Mapping[ir.Value, Facts],
    outputs: Sequence[ir.Value],
    l2_bytes: int,
) -> list[Region]:
    """Where images one after the other pay. live: the nodes that are lowered, in order; uses: who reads a
    value; outputs: what the plan makes.
    """
    walk = index.walk
    if not _has_large(index, live, facts, l2_bytes):
        return []
    found: list[Region] = []
    run: list[_Unit] = []
    ends = _Unit([], 0, False, 0)
    for unit in (*_units(walk, live, uses, facts, l2_bytes), ends):
        if unit.batch and unit.pays and (not run or run[0].batch == unit.batch):
            run.append(unit)
            continue
        if sum([each.readers for each in run]) > 1:
            positions = [position for each in run for position in each.positions]
            found.append(_region(walk, positions, run[0].batch, uses, facts, outputs))
        run = [unit] if unit.batch and unit.pays else []
    return found


def _has_large(index: Index, live: Sequence[int], facts: Mapping[ir.Value, Facts], l2_bytes: int) -> bool:
    """Whether two convolutions make so much of several images that it may pay: few plans look further."""
    first, last = (live[0], live[-1]) if live else (0, -1)
    large = 0
    for position in index.convolutions:
        if first <= position <= last:
            out = facts.get(index.walk[position][3][0])
            if out is not None and _has_images(out) and 8 * math.prod(out.shape) > _LARGE * l2_bytes:
                large += 1
    return large > 1


def _region(
    walk: Walk,
    positions: list[int],
    batch: int,
    uses: Mapping[ir.Value, Sequence[int]],
    facts: Mapping[ir.Value, Facts],
    outputs: Sequence[ir.Value],
) -> Region:
    inside = set(positions)
    values = dict.fromkeys([walk[position][3][0] for position in positions])
    reads = dict.fromkeys([v for position in positions for v in walk[position][2] if v is not None])
    inputs = [value for value in reads if value not in values and not facts[value].is_known]
    kept = [value for value in values if value in outputs or not inside.issuperset(uses.get(value, ()))]
    return Region(positions, batch, inputs, list(values), kept)


def _units(
    walk: Walk,
    live: Sequence[int],
    uses: Mapping[ir.Value, Sequence[int]],
    facts: Mapping[ir.Value, Facts],
    l2_bytes: int,
) -> Iterator[_Unit]:
    """All nodes, in as many units as can be."""
    unit = _Unit([], 0, False, 0)
    waiting: dict[ir.Value, int] = {}  # and who reads it last
    for position in live:
        node, op, inputs, made = walk[position]
        reads = node.op_type in _READERS and attr_int(node, "group", 1) == 1
        here = set(inputs) if reads else set[ir.Value | None]()
        if all(last < position or value in here for value, last in waiting.items()):
            if unit.positions:
                yield unit
            unit = _Unit([], 0, False, 0)
            waiting.clear()
        batch = _images(node, op, inputs, made, facts)
        unit.batch = batch if not unit.positions or unit.batch == batch else 0
        unit.positions.append(position)
        unit.readers += node.op_type in _READERS
        if batch:
            moved = _moved(inputs, made[0], facts)
            unit.pays |= _pays(moved, batch, l2_bytes)
            if node.op_type == "Conv" and _weights(node, facts) * batch > _MOST_WEIGHTS * moved:
                unit.batch = 0
        for value in here:
            waiting.pop(value, None) if value is not None else None
        if node.op_type not in _DONE:
            for value in made:
                readers = uses.get(value)
                if readers:
                    waiting[value] = readers[-1]
    if unit.positions:
        yield unit


def _images(
    node: ir.Node,
    op: Op,
    inputs: Sequence[ir.Value | None],
    made: Sequence[ir.Value],
    facts: Mapping[ir.Value, Facts],
) -> int:
    """How many images of float32 a node makes, each of the same one of what it reads; 0 if it is not so."""
    if len(made) != 1:
        return 0
    out = facts[made[0]]
    if not _has_images(out):
        return 0
    known = [None if value is None else facts[value] for value in inputs]
    for each in known:
        if each is not None and not each.is_known:
            alike = len(each.shape) == len(out.shape) and each.shape[0] == out.shape[0]
            if not alike or each.dtype != np.float32:
                return 0
    return out.shape[0] if op.is_by_image(node, known) else 0


def _has_images(facts: Facts) -> bool:
    return len(facts.shape) > 2 and facts.dtype == np.float32 and facts.shape[0] > 1


def _moved(inputs: Sequence[ir.Value | None], out: ir.Value, facts: Mapping[ir.Value, Facts]) -> int:
    """The bytes that a node reads and writes of images."""
    read = [facts[value] for value in inputs if value is not None]
    count = sum([math.prod(each.shape) for each in read if not each.is_known])
    return 4 * (count + math.prod(facts[out].shape))


def _pays(moved: int, batch: int, l2_bytes: int) -> bool:
    """Whether images one after the other pay where so many bytes of all are read and written."""
    least = max(_LARGE, _LEAST * batch) * l2_bytes
    return least <= moved <= _FITTING * l2_bytes * batch


def _weights(node: ir.Node, facts: Mapping[ir.Value, Facts]) -> int:
    """The bytes of a convolution's weights as its kernel may have them."""
    weights = node.inputs[1]
    assert weights is not None
    shape = facts[weights].shape
    return 4 * math.prod(shape) * (_TRANSFORMED if shape[2:] == (3, 3) else 1)
