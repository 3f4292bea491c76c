"""Trees as the nodes of ai.onnx.ml spell them, packed for the kernel: every comparison becomes `x <=
threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ingot.errors import ModelError
from ingot.kernels.trees import (
    ABOVE,
    BELOW,
    FEATURE,
    FIRST,
    IF_NAN,
    LAST,
    THRESHOLD,
    TOGETHER,
    WORDS,
    Combine,
    Forest,
)
from ingot.ops.registry import Array, DType, label

#: In the order of TreeEnsemble's numbers; a leaf has none of them.
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(7)
LEAF = -1
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_COMBINE: dict[str, Combine] = {"AVERAGE": "add", "SUM": "add", "MIN": "min", "MAX": "max"}


@dataclass(slots=True)
class Trees:
    """All trees of a node in arrays, one element for each tree node.

    mode: of MODES, or LEAF. yes, no: where a node leads, numbers of nodes. missing: whether NaN leads to yes.
    roots: a node for each tree. leaf, target, weight: the entries that leaves have, in any order. members:
    the sets of nodes that ask whether a value is in one.
    """

    feature: Array
    mode: Array
    value: Array
    yes: Array
    no: Array
    missing: Array
    roots: Array
    leaf: Array
    target: Array
    weight: Array
    members: dict[int, Array]


def pack(node: ir.Node, trees: Trees, targets: int, aggregate: str, base: Array, dtype: DType) -> Forest:
    """The kernel's table for inputs of `dtype`; base: [targets].

    Raises ModelError where the trees are none: places outside of them, circles, unknown modes.
    """
    count = len(trees.mode)
    _check(node, trees, targets)
    table = np.zeros((count, WORDS), np.int32)
    thresholds = trees.value.astype(dtype)
    inner = trees.mode != LEAF
    table[:, FEATURE] = np.where(inner, trees.feature, 0)
    own = np.arange(count, dtype=np.int32)
    yes, no = (
        np.where(inner, trees.yes.astype(np.int32), own),
        np.where(inner, trees.no.astype(np.int32), own),
    )
    # x < t is x <= the number before t; x > t and x >= t are these with the ways exchanged. No number is
    # before -inf, and NaN as a threshold lets no x pass.
    strict = np.flatnonzero((trees.mode == LT) | (trees.mode == GTE))
    bounds = thresholds[strict]
    before = np.nextafter(bounds, np.array(-np.inf, dtype))
    thresholds[strict] = np.where(np.isneginf(bounds), np.array(np.nan, dtype), before)
    swapped = (trees.mode == GTE) | (trees.mode == GT)
    table[:, BELOW], table[:, ABOVE] = np.where(swapped, no, yes), np.where(swapped, yes, no)
    table[:, IF_NAN] = np.where(trees.missing, yes, no)
    more, more_thresholds = _expanded(trees, thresholds, table, yes, no, dtype)
    if len(more):
        table, thresholds = np.concatenate([table, more]), np.concatenate([thresholds, more_thresholds])
    _set_entries(table, trees)
    order = np.argsort(trees.leaf, kind="stable")
    for way in (ABOVE, BELOW, IF_NAN):
        table[:, way] *= WORDS
    words = dtype.itemsize // 4
    table[:, THRESHOLD : THRESHOLD + words] = (
        np.ascontiguousarray(thresholds, dtype).view(np.int32).reshape(-1, words)
    )
    roots = trees.roots.astype(np.int64) * WORDS
    padding = -len(roots) % TOGETHER
    if padding:
        silent = np.zeros((1, WORDS), np.int32)
        silent[0, [ABOVE, BELOW, IF_NAN]] = len(table) * WORDS
        roots = np.concatenate([roots, [len(table) * WORDS] * padding])
        table = np.concatenate([table, silent])
    divisor = float(max(1, len(trees.roots))) if aggregate == "AVERAGE" else 1.0
    return Forest(
        np.ascontiguousarray(table),
        roots.astype(np.int32),
        trees.target[order].astype(np.int32),
        trees.weight[order].astype(np.float64),
        base.astype(np.float64),
        divisor,
        _COMBINE[aggregate],
        dtype,
    )


def _set_entries(table: Array, trees: Trees) -> None:
    counts = np.bincount(trees.leaf.astype(np.int64), minlength=len(table))
    last = np.cumsum(counts)
    table[:, FIRST], table[:, LAST] = last - counts, last


def _check(node: ir.Node, trees: Trees, targets: int) -> None:
    count, inner = len(trees.mode), trees.mode != LEAF
    for what, places, bound in (
        ("a node leads to", np.concatenate([trees.yes[inner], trees.no[inner]]), count),
        ("a leaf says something of target", trees.target, targets),
        ("a weight belongs to node", trees.leaf, count),
        ("a tree begins at node", trees.roots, count),
    ):
        wrong = places[(places < 0) | (places >= bound)]
        if wrong.size:
            raise ModelError(f"{label(node)}: {what} {wrong[0]}, and there are {bound}. The file is damaged.")
    if (trees.feature[inner] < 0).any():
        raise ModelError(f"{label(node)}: a node asks for a feature below 0. The file is damaged.")
    # Trees end: as many turns as the deepest has nodes on its way lead every node to leaves.
    alive = distinct(trees.roots)
    for _ in range(count + 1):
        alive = alive[inner[alive]]
        if not alive.size:
            return
        alive = distinct(np.concatenate([trees.yes[alive], trees.no[alive]]))
    raise ModelError(f"{label(node)}: a tree leads in a circle. The file is damaged.")


def distinct(numbers: Array) -> Array:
    """The different numbers, in order. NumPy's unique hashes them: twenty times as long for a million."""
    ordered = np.sort(numbers)
    return ordered[np.r_[True, ordered[1:] != ordered[:-1]]] if len(ordered) else ordered


def _expanded(
    trees: Trees, thresholds: Array, table: Array, yes: Array, no: Array, dtype: DType
) -> tuple[Array, Array]:
    """Further nodes for those that ask for equality: x == t is x <= t and not x <= the number before t.

    Sets are searched by halves.
    """
    rows: list[list[int]] = []
    values: list[float] = []
    below = np.array(-np.inf, dtype)

    def add(feature: int, threshold: float, small: int, large: int, nan: int) -> int:
        row = [0] * WORDS
        row[FEATURE], row[BELOW], row[ABOVE], row[IF_NAN] = feature, small, large, nan
        rows.append(row)
        values.append(threshold)
        return len(table) + len(rows) - 1

    def equal(feature: int, value: float, hit: int, miss: int, nan: int) -> tuple[float, int, int]:
        """Threshold and ways of a node that asks whether x is `value`, with another one behind it."""
        at = np.array(value, dtype)
        before = np.nan if np.isneginf(at) else float(np.nextafter(at, below))
        return float(at), add(feature, before, miss, hit, nan), miss

    def member(feature: int, found: Array, hit: int, miss: int, nan: int) -> tuple[float, int, int]:
        if not len(found):
            return float("nan"), miss, miss
        if len(found) == 1:
            return equal(feature, float(found[0]), hit, miss, nan)
        half = len(found) // 2
        left = add(feature, *member(feature, found[:half], hit, miss, nan), nan)
        right = add(feature, *member(feature, found[half:], hit, miss, nan), nan)
        return float(found[half - 1]), left, right

    for i in np.flatnonzero(np.isin(trees.mode, (EQ, NEQ, MEMBER))).tolist():
        hit, miss = int(yes[i]), int(no[i])
        nan = hit if trees.missing[i] or trees.mode[i] == NEQ else miss  # NaN is unequal to everything
        if trees.mode[i] == NEQ:
            hit, miss = miss, hit
        feature = int(trees.feature[i])
        if trees.mode[i] == MEMBER:
            found = np.unique(trees.members[i].astype(dtype))
            threshold, small, large = member(feature, found[~np.isnan(found)], hit, miss, nan)
        else:
            threshold, small, large = equal(feature, float(trees.value[i]), hit, miss, nan)
        thresholds[i] = threshold
        table[i, [BELOW, ABOVE, IF_NAN]] = small, large, nan
    if not rows:
        return np.zeros((0, WORDS), np.int32), np.zeros(0, dtype)
    return np.array(rows, np.int32), np.array(values, dtype)
