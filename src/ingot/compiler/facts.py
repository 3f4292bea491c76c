"""What is known of each value before running: concrete shapes, and the values that follow from shapes and
constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ingot.compiler.index import Index
from ingot.errors import IngotError, ShapeError
from ingot.ops.lowering import Body
from ingot.ops.registry import (
    CHECK,
    KNOWN_ELEMENTS,
    QUICK_ELEMENTS,
    Bound,
    Facts,
    Op,
    shape_error,
    show,
    unfit,
    unfit_kinds,
)
from ingot.ops.sized import known_facts

#: What NumPy can say of an array. What is less, and more than the machine has, is a MemoryError.
MOST_DIMS, MOST_ELEMENTS = 64, 1 << 59


def _has_objects(facts: Iterable[Facts | None]) -> bool:
    # A loop: generator expressions take twice as long, and this runs for each node of each plan.
    for fact in facts:  # noqa: SIM110
        if fact is not None and fact.dtype.kind == "O":
            return True
    return False


def _has_negative(shape: tuple[int, ...]) -> bool:
    for size in shape:  # noqa: SIM110
        if size < 0:
            return True
    return False


def _all_known(facts: Iterable[Facts | None]) -> bool:
    for fact in facts:  # noqa: SIM110
        if fact is not None and not fact.is_known:
            return False
    return True


def _worth_knowing(op: Op, outputs: Sequence[Facts | None]) -> bool:
    most = QUICK_ELEMENTS if op.quick else KNOWN_ELEMENTS
    there = [fact for fact in outputs if fact is not None]
    return not _all_known(there) and sum(math.prod(fact.shape) for fact in there) <= most


@dataclass(slots=True)
class Known:
    """Facts of every value from node `start` on. computed: those known beside the graph's constants. `cut`:
    there is a node whose outputs' shapes depend on data, and the first is at `stop`. bounds: the most that
    its outputs can be, where kernels count them; then it belongs to this stage as well, and `facts` has that
    as their shapes. bodies: the subgraphs of nodes before `stop` that became part of the plan
    (`compiler/bodies.py`).
    """

    facts: dict[ir.Value, Facts]
    start: int
    stop: int
    cut: bool
    computed: list[ir.Value]
    #: whether any value has elements of more than 8 bytes
    wide: bool = False
    bounds: dict[ir.Value, Bound] = field(default_factory=dict[ir.Value, Bound])
    bodies: dict[ir.Graph, Body] = field(default_factory=dict[ir.Graph, Body])

    @property
    def end(self) -> int:
        """One beyond the last node of the stage."""
        return self.stop + bool(self.bounds)


def infer_facts(index: Index, start: int, given: dict[ir.Value, Facts]) -> Known:
    """Walk the graph from node `start`. `given` has the facts of everything that exists by then.

    Raises ShapeError where shapes do not fit.
    """
    facts = dict(index.constants)
    facts.update(given)
    walk, computed = index.walk, [value for value, fact in given.items() if fact.is_known]
    strings = index.has_strings or _has_objects(given.values())
    wide = index.has_wide or any(fact.dtype.itemsize > 8 for fact in given.values())
    for position in range(start, len(walk)):
        node, op, operands, results = walk[position]
        inputs = [None if value is None else facts[value] for value in operands]
        try:
            outputs = None if op.subgraphs else op.infer(node, inputs)
            countable = outputs is None and not op.subgraphs and not _has_objects(inputs)
            bounded = op.bound(node, inputs) if countable else None
        except IngotError:
            raise
        except unfit_kinds(node) as error:
            raise unfit(node, inputs, error) from error
        # Strings are Python objects: they never lie in the arena, so whoever touches them ends the stage.
        if outputs is None or (strings and _has_objects(inputs)) or _has_objects(outputs):
            found = zip(results, bounded or (), strict=False)
            bounds = {value: bound for value, bound in found if bound is not None}
            facts.update((value, Facts(b.dtype, b.shape)) for value, b in bounds.items())
            return Known(facts, start, position, cut=True, computed=computed, wide=wide, bounds=bounds)
        if _all_known(inputs) and not op.random and _worth_knowing(op, outputs):
            outputs = known_facts(op, node, inputs, outputs)
        for value, fact in zip(results, outputs, strict=False):
            if fact is not None:
                shape = fact.shape
                if shape and (
                    _has_negative(shape) or len(shape) > MOST_DIMS or math.prod(shape) > MOST_ELEMENTS
                ):
                    raise shape_error(node, f"its result would have the shape {show(shape)}")
                facts[value] = fact
                wide |= fact.dtype.itemsize > 8
                if fact.is_known:
                    computed.append(value)
    return Known(facts, start, len(walk), cut=False, computed=computed, wide=wide)


def failed_check(index: Index, given: dict[ir.Value, Facts]) -> ShapeError | None:
    """The first check of the model's own that does not hold for inputs of these shapes, wherever it stands in
    the graph; None where all that can be told do.
    """
    facts = {**index.constants, **given}
    for node, op, operands, results in index.walk:
        inputs = [None if value is None else facts.get(value) for value in operands]
        if CHECK in node.metadata_props:  # its first operand is only the check before it
            shape = inputs[1] if len(inputs) > 1 else None
            if shape is not None and shape.value is not None and math.prod(shape.value.tolist()) != 1:
                return shape_error(node, "")
            continue
        if op.subgraphs or any(v is not None and v not in facts for v in operands):
            continue
        try:
            outputs = op.infer(node, inputs)
            if outputs is not None and _all_known(inputs) and not op.random and _worth_knowing(op, outputs):
                outputs = known_facts(op, node, inputs, outputs)
        except (IngotError, *unfit_kinds(node)):
            continue  # what has failed, or what comes of it
        found = zip(results, outputs or (), strict=False)
        facts.update((value, fact) for value, fact in found if fact is not None)
    return None
