"""Every rule, in the order in which they are tried at a node: first what removes, then what joins."""

from __future__ import annotations

from ingot.passes.rules import activation, affine, attention, extreme, move, norm, resize, shape

RULES = (
    *shape.RULES,
    *affine.RULES,
    *activation.RULES,
    *extreme.RULES,
    *norm.RULES,
    *attention.RULES,
    *resize.RULES,
    *move.RULES,
)
