"""All operators that have random cases, and the opsets at which they mean something else."""

from __future__ import annotations

from functools import cache

import onnx
import onnx.defs

from tests.search import contrib, elementwise, layers, ml, quantized, sequences, shapes
from tests.search.draw import TABLE, Case, Draw
from tests.search.mutate import mutated

FAMILIES = (elementwise, shapes, layers, quantized, sequences, ml, contrib)
OPERATORS = list(TABLE)


@cache
def meanings(domain: str, op: str) -> list[int]:
    """The opsets at which the operator changed; without those where it is deprecated."""
    found = [
        s.since_version
        for s in onnx.defs.get_all_schemas_with_history()
        if (s.domain, s.name) == (domain, op) and not s.deprecated
    ]
    return sorted(v for v in set(found) if not (op.startswith("TreeEnsemble") and v >= 5))


def case_of(domain: str, op: str, seed: int, *, wrong: bool = False) -> tuple[Case, Draw]:
    """The operator's case of a seed, at any opset that has it; wrong: with one thing changed."""
    r = Draw(seed, op, domain)
    versions = [1] if domain == contrib.DOMAIN else meanings(domain, op)
    opset = r.one(versions)
    if domain == "" and opset == versions[-1] and not is_gone(op) and r.flag(0.3):
        opset = r.integer(opset, onnx.defs.onnx_opset_version())
    case = TABLE[domain, op](r, opset)
    case.domain, case.opset = domain, opset
    if wrong:
        case, _ = mutated(case, r)
    return case, r


def is_gone(op: str) -> bool:
    """Whether the newest opset has the operator no more."""
    return onnx.defs.get_schema(op).deprecated
