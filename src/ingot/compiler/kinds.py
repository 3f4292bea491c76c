"""How each node of a graph would be computed, found out by lowering it: nothing is compiled or run."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ingot.codegen.machine import Machine
from ingot.compiler.bodies import Enclosing
from ingot.compiler.facts import infer_facts
from ingot.compiler.index import Index
from ingot.compiler.lower import Lowering
from ingot.compiler.packed import Packed
from ingot.ops.lowering import PlanOptions
from ingot.ops.registry import Facts

#: A node whose outputs depend on data, and with it what comes after: only a run can tell.
UNKNOWN = "depends on data"


def kinds_of(
    index: Index, given: Mapping[ir.Value, Facts], machine: Machine, options: PlanOptions | None = None
) -> list[tuple[ir.Node, str]]:
    """Each node with "native", "host", "view" (no work), "folded" (known from shapes and constants; nobody
    reads it) or UNKNOWN. given: facts of the inputs.

    The node that ends the first plan is the host's; its bodies, where it has some, have plans of their own.
    Bodies that are part of the plan are "native", like their node.
    Raises ShapeError where shapes do not fit.
    """
    known = infer_facts(index, 0, dict(given))
    options, packed = options or PlanOptions(), Packed()
    enclosing = Enclosing(machine, packed, options, threads=1)
    while known.cut and (further := enclosing.beyond(index, known)) is not None:
        known = further
    kinds = dict.fromkeys(range(len(index.nodes)), UNKNOWN)
    if known.cut:
        kinds[known.stop] = "host"
        read = {value for reads in index.reads[known.stop :] for value in reads} | set(index.outputs)
        outputs = [v for v, f in known.facts.items() if v in read and not f.is_known and v not in given]
    else:
        outputs = [value for value in index.outputs if known.facts[value].dtype != object]
    inputs = [value for value in index.inputs if known.facts[value].dtype != object]
    lowered = Lowering(index, known, inputs, outputs, machine, packed, options).lower()
    kinds.update(lowered.kinds)
    return [(node, kinds[position]) for position, node in enumerate(index.nodes)]
