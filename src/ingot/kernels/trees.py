"""Ensembles of decision trees: every row of a table walks down every tree, and what its leaves say is
combined.

A node takes 32 bytes of one table, so each step reads one line of the cache: feature, the places to go to
where x is larger, where it is smaller or equal and where it is NaN, the threshold, and which weights a leaf
has. A leaf goes to itself. Several trees are walked at once without branches, until none of them moves: the
processor then works on all of them while each waits for its own loads.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ingot.codegen.builder import F32, F64, I32, I64, Builder, Value
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.kernels.call import Call, View, constant

Combine = Literal["add", "min", "max"]

#: Words (int32) of a node, and where in it each thing is.
WORDS = 8
FEATURE, ABOVE, BELOW, IF_NAN, THRESHOLD, FIRST, LAST = 0, 1, 2, 3, 4, 6, 7
#: Trees walked at once.
TOGETHER = 8
_START = {"add": 0.0, "min": np.inf, "max": -np.inf}


@dataclass(frozen=True)  # no slots: `features` is worked out once
class Forest:
    """Packed trees. Places are in words: node i is at WORDS · i.

    nodes: int32 [nodes, WORDS]. roots: int32 [trees, padded to TOGETHER with a leaf that says nothing].
    targets int32 and weights float64: what the leaves say, FIRST to LAST of each. dtype: of thresholds and
    of the table's elements. base: float64 [targets], added at the end; divisor: what the combined weights
    are divided by before.
    """

    nodes: np.ndarray
    roots: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    base: np.ndarray
    divisor: float
    combine: Combine
    dtype: np.dtype

    @cached_property
    def features(self) -> int:
        """How many a row must have."""
        return int(self.nodes[:, FEATURE].max(initial=-1)) + 1

    @property
    def thresholds(self) -> np.ndarray:
        """One for each node."""
        words = 2 if self.dtype.itemsize == 8 else 1
        part = np.ascontiguousarray(self.nodes[:, THRESHOLD : THRESHOLD + words])
        return part.view(self.dtype)[:, 0]


def evaluate_forest(forest: Forest, x: np.ndarray) -> np.ndarray:
    """The plain definition, for x [rows, features]: float64 [rows, targets]."""
    nodes, thresholds = forest.nodes, forest.thresholds
    rows = np.arange(len(x))
    total = np.full((len(x), len(forest.base)), _START[forest.combine])
    combine = {"add": np.add, "min": np.minimum, "max": np.maximum}[forest.combine]
    for root in forest.roots // WORDS:
        place = np.full(len(x), root)
        while len(x):
            value = x[rows, nodes[place, FEATURE]] if x.shape[1] else np.zeros(len(x), x.dtype)
            column = np.where(np.isnan(value), IF_NAN, np.where(value <= thresholds[place], BELOW, ABOVE))
            following = nodes[place, column] // WORDS
            if (following == place).all():
                break
            place = following
        first, last = nodes[place, FIRST], nodes[place, LAST]
        for step in range(int((last - first).max(initial=0))):
            some = rows[first + step < last]
            entry = first[some] + step
            total[some, forest.targets[entry]] = combine(
                total[some, forest.targets[entry]], forest.weights[entry]
            )
    total = np.where(np.isinf(total), 0.0, total) if forest.combine != "add" else total
    return total / forest.divisor + forest.base


@kernel(
    *("x", "rows", "step", "nodes", "roots", "trees", "targets", "weights", "count", "base", "divisor"),
    *("out", "block"),
)
def _forest(k: Builder, *, dtype: str, result: str, combine: Combine) -> None:
    """A tile is `block` rows; their sums are float64, in scratch memory."""
    element = F64 if dtype == "float64" else F32
    x, nodes, roots = k.pointer("x"), k.pointer("nodes"), k.pointer("roots")
    targets, weights, base, out = (k.pointer(name) for name in ("targets", "weights", "base", "out"))
    rows, step, trees, count, block = (k.arg(n) for n in ("rows", "step", "trees", "count", "block"))
    divisor = k.load(k.pointer("divisor"), F64)

    def word(place: Value, index: int) -> Value:
        return k.ir.sext(k.load(k.at(k.at(nodes, place, I32), index, I32), I32), I64)

    def following(row: Value, place: Value) -> Value:
        at = k.at(nodes, place, I32)
        value = k.load(row, element, word(place, FEATURE))
        threshold = k.load(k.at(at, THRESHOLD, I32), element, align=4)
        below = k.ir.zext(k.ir.fcmp_ordered("<=", value, threshold), I64)
        if_nan = k.ir.zext(k.ir.fcmp_unordered("uno", value, value), I64)
        column = k.ir.add(k.ir.add(below, k.ir.shl(if_nan, I64(1))), I64(ABOVE))
        return k.ir.sext(k.load(at, I32, column), I64)

    def leaves(row: Value, places: list[Value]) -> list[Value]:
        """Step by step until no tree moves."""
        before, top = k.ir.block, k.function.append_basic_block("down")
        after = k.function.append_basic_block("leaves")
        k.ir.branch(top)
        k.ir.position_at_end(top)
        now = [k.ir.phi(I64) for _ in places]
        then = [following(row, place) for place in now]
        moved = k.ir.icmp_signed("!=", then[0], now[0])
        for a, b in zip(then[1:], now[1:], strict=True):
            moved = k.ir.or_(moved, k.ir.icmp_signed("!=", a, b))
        for phi, place, new in zip(now, places, then, strict=True):
            phi.add_incoming(place, before)
            phi.add_incoming(new, k.ir.block)
        k.ir.cbranch(moved, top, after)
        k.ir.position_at_end(after)
        return then

    def combined(a: Value, b: Value) -> Value:
        if combine == "add":
            return k.ir.fadd(a, b)
        return k.ir.select(k.ir.fcmp_ordered("<" if combine == "min" else ">", b, a), b, a)

    with k.loop(k.begin, k.end) as tile:
        first = k.mul(tile, block)
        here = k.min(block, k.sub(rows, first))
        with k.loop(0, k.mul(here, count)) as i:
            k.store(F64(_START[combine]), k.scratch, i)
        with k.loop(0, trees, TOGETHER) as tree:
            starts = [
                k.ir.sext(k.load(k.at(k.at(roots, tree, I32), i, I32), I32), I64) for i in range(TOGETHER)
            ]
            with k.loop(0, here) as r:
                row = k.at(x, k.mul(k.add(first, r), step), element)
                sums = k.at(k.scratch, k.mul(r, count), F64)
                for place in leaves(row, starts):
                    with k.loop(word(place, FIRST), word(place, LAST)) as entry:
                        target = k.ir.sext(k.load(targets, I32, entry), I64)
                        k.store(
                            combined(k.load(sums, F64, target), k.load(weights, F64, entry)), sums, target
                        )
        with k.loop(0, here) as r, k.loop(0, count) as t:
            total = k.load(k.scratch, F64, k.add(k.mul(r, count), t))
            if combine != "add":  # nothing was said
                none = k.ir.fcmp_ordered("==", k.intrinsic("fabs", total), F64(np.inf))
                total = k.ir.select(none, F64(0.0), total)
            total = k.ir.fadd(k.ir.fdiv(total, divisor), k.load(base, F64, t))
            if result == "float32":
                total = k.ir.fptrunc(total, F32)
            k.store(total, out, k.add(k.mul(k.add(first, r), count), t))


def forest(trees: Forest, x: View, out: View, machine: Machine) -> Call:
    """A call that writes what the trees say of each row of x [rows, features] to out [rows, targets], dense.

    x: of the forest's dtype, features contiguous, at least as many as the trees ask for. out: float32 or
    float64.
    """
    del machine
    rows, count = x.shape[0], len(trees.base)
    if x.dtype != trees.dtype or (x.size and x.shape[1] > 1 and x.strides[1] != 1):
        raise ValueError(
            f"the table is {x.dtype.name} with strides {x.strides}, want {trees.dtype.name} rows"
        )
    if out.shape != (rows, count) or not out.is_contiguous or out.dtype.name not in ("float32", "float64"):
        raise ValueError(f"trees into {out.dtype.name} {out.shape}, want dense floats {(rows, count)}")
    block = max(1, min(64, 8192 // max(1, count), max(8, -(-rows // 64))))
    kernel = _forest(dtype=x.dtype.name, result=out.dtype.name, combine=trees.combine)
    tables = [constant(a) for a in (trees.nodes, trees.roots, trees.targets, trees.weights, trees.base)]
    nodes, roots, targets, weights, base = tables
    divisor = constant(np.array(trees.divisor))
    return Call(
        kernel,
        [
            x,
            rows,
            x.strides[0],
            nodes,
            roots,
            len(trees.roots),
            targets,
            weights,
            count,
            base,
            divisor,
            out,
            block,
        ],
        tiles=-(-rows // block) if count else 0,
        reads=[x, *tables, divisor],
        writes=[out],
        scratch=8 * block * count,
        flops=rows * len(trees.roots) * 32,
        label="trees",
    )
