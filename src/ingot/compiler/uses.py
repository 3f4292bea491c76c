"""Which nodes of a graph a plan needs, and who reads what."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ingot.compiler.facts import Known
from ingot.compiler.index import Index

#: They are kept for so many different sets of known values.
MOST_USES = 8


def find_uses(
    index: Index, known: Known, outputs: Sequence[ir.Value]
) -> tuple[set[int], dict[ir.Value, list[int]]]:
    """The nodes that must run, and for each value which of them read it. Both follow from what is known,
    which is mostly the same for all shapes.
    """
    key = (known.start, known.end, *outputs, None, *known.computed)
    found = index.uses.get(key)
    if found is None:
        found = _search(index, known, outputs)
        if len(index.uses) < MOST_USES:
            index.uses[key] = found
    live, uses = found
    return live, uses.copy()


def _search(
    index: Index, known: Known, outputs: Sequence[ir.Value]
) -> tuple[set[int], dict[ir.Value, list[int]]]:
    facts, nodes, reads = known.facts, index.nodes, index.reads
    needed = {value for value in outputs if not facts[value].is_known}
    live: set[int] = set()
    uses: dict[ir.Value, list[int]] = {}
    for position in range(known.end - 1, known.start - 1, -1):
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
