"""What an integer or a truth value is worked out from by exact arithmetic: small ones alive at the start of a
stage, constants, and the nodes between. (What a comparison of floats says could hang on a kernel's last bit.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from ingot.compiler.facts import KNOWN_ELEMENTS, Known
from ingot.compiler.index import Index
from ingot.ops.registry import Facts

_EXACT = "biu"


@dataclass(slots=True)
class Sources:
    """leaves: what is alive at the start, each with its number. constants: what is known without a run.
    positions: of the nodes between.
    """

    leaves: dict[ir.Value, int] = field(default_factory=dict[ir.Value, int])
    constants: dict[ir.Value, Facts] = field(default_factory=dict[ir.Value, Facts])
    positions: set[int] = field(default_factory=set[int])


def sources_of(
    index: Index,
    known: Known,
    value: ir.Value,
    numbers: Mapping[ir.Value, int],
    is_leaf: Callable[[Facts], bool],
    most_nodes: int,
) -> Sources | None:
    """What `value` follows from; None where that is floats, chance, what a body does, anything large, or more
    than so many nodes.

    numbers: of what is alive at the start. is_leaf: whether such a value may be looked at.
    """
    makers = {v: p for p in range(known.start, known.stop) for v in index.nodes[p].outputs}
    found = Sources()
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        facts = known.facts[value]
        if facts.is_known:
            found.constants[value] = facts
            continue
        if facts.dtype.kind not in _EXACT or math.prod(facts.shape) > KNOWN_ELEMENTS:
            return None
        if value in numbers:
            if not is_leaf(facts):
                return None
            found.leaves[value] = numbers[value]
            continue
        position = makers.get(value)
        if position is None:
            return None
        op = index.ops[position]
        found.positions.add(position)
        if op.random or op.subgraphs or len(found.positions) > most_nodes:
            return None
        waiting += index.reads[position]
    return found
