"""Attention of few queries, as when text is generated: a tile is one query of one head, which reads each key
once.

Vectors lie along the head's elements, as keys and values do in memory. The scores of as many keys as a vector
has lanes are summed side by side and folded into one vector; they wait in scratch memory for their maximum.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llvmlite import ir

from ingot.codegen import math as vector_math
from ingot.codegen.builder import F32, I32, Builder, Int, Value, vector
from ingot.codegen.elements import gather_element, load_element, memory_element
from ingot.codegen.kernel import kernel
from ingot.kernels.scores import SLOTS, Mask, number, start_of, weight_of


@dataclass(frozen=True, slots=True)
class RowForm:
    """What of an attention of few queries changes the code. The mask's reach is along keys: "repeated" or
    "rows" where they lie side by side, else "strided".
    """

    depth: int
    depth_v: int
    mask: Mask | None
    causal: bool
    softcap: bool
    empty_is_zero: bool


def fold_sums(k: Builder, values: Sequence[Value]) -> Value:
    """Lane i of the result is the sum of the lanes of values[i]: n vectors of n lanes, in n - 1 additions."""
    vectors, lanes = list(values), len(values)
    size = lanes  # lanes of a vector that belong to one sum
    while size > 1:
        half = size // 2
        low: list[int] = []
        for first in range(0, lanes, size):
            low += [*range(first, first + half), *range(lanes + first, lanes + first + half)]
        masks = [ir.Constant(ir.VectorType(I32, lanes), [i + shift for i in low]) for shift in (0, half)]
        count = len(vectors) // 2
        folded: list[Value] = []
        for a, b in zip(vectors[:count], vectors[count:], strict=True):
            near, far = (k.ir.shuffle_vector(a, b, mask) for mask in masks)
            folded.append(k.ir.fadd(near, far))
        vectors = folded
        size = half
    return vectors[0]


@kernel(*SLOTS)
def attend_row(k: Builder, *, form: RowForm) -> None:
    """A tile is one query of one head of one batch."""
    heads, queries = k.arg("heads"), k.arg("queries")
    with k.loop(k.begin, k.end) as tile:
        query, others = k.rem(tile, queries), k.div(tile, queries)
        _Row(k, form, k.div(others, heads), k.rem(others, heads), query).emit()


class _Row:
    """The code for one query."""

    def __init__(self, k: Builder, form: RowForm, batch: Int, head: Int, query: Int) -> None:
        self.k, self.form, self.lanes, self.query = k, form, k.machine.lanes, query
        self.type = vector(F32, self.lanes)
        key_head = k.div(head, k.arg("heads_per_key_head"))
        self.q = k.at(start_of(k, "q", batch, head), k.mul(query, k.arg("q_row")), F32)
        self.out = k.at(start_of(k, "out", batch, head), k.mul(query, k.arg("out_row")), F32)
        self.key, self.value = start_of(k, "k", batch, key_head), start_of(k, "v", batch, key_head)
        if form.mask is not None:
            element = memory_element(form.mask.dtype)
            self.mask = k.at(
                start_of(k, "mask", batch, head, element), k.mul(query, k.arg("mask_row")), element
            )
        self.keys = k.arg("keys")
        self.end: Int = self.keys
        if form.causal:
            last = k.add(query, k.arg("causal_offset"), 1)
            self.end = k.max(k.min(self.keys, last), 0)

    def emit(self) -> None:
        k, form = self.k, self.form
        infinite = k.splat(-math.inf, self.type)
        top = [infinite]
        with k.loop(0, self.end, self.lanes, carry=top) as key:
            score = self._scores(key)
            k.store(score, k.scratch, key)
            top[0] = k.ir.select(k.ir.fcmp_ordered(">", score, top[0]), score, top[0])
        largest = k.reduce_lanes(lambda a, b: k.ir.select(k.ir.fcmp_ordered(">", a, b), a, b), top[0])
        # Where no score is finite, the maximum may not be subtracted: -inf - -inf is NaN.
        nothing = k.ir.fcmp_ordered("==", largest, k.splat(-math.inf, F32))
        shift = k.broadcast(k.ir.select(nothing, k.zero(F32), largest), self.lanes)
        is_binary = form.mask is None or form.mask.dtype == "bool"
        total = [k.zero(self.type)]
        with k.loop(0, self.end, self.lanes, carry=total) as key:
            weight = weight_of(k, k.load(k.scratch, self.type, key), shift, is_binary)
            k.store(weight, k.scratch, key)
            total[0] = k.ir.fadd(total[0], weight)
        total_sum = k.reduce_lanes(k.ir.fadd, total[0])
        inverse = k.ir.fdiv(k.splat(1.0, F32), total_sum)
        if form.empty_is_zero:
            empty = k.ir.fcmp_ordered("==", total_sum, k.zero(F32))
            inverse = k.ir.select(empty, k.zero(F32), inverse)
        self._mix(k.broadcast(inverse, self.lanes))

    def _pieces(self, depth: int) -> list[tuple[int, Value | None]]:
        """The vectors of a row: where they start, and the mask of a last one that is not whole."""
        lanes = self.lanes
        return [
            (d, self.k.lanes_below(depth - d, lanes) if depth - d < lanes else None)
            for d in range(0, depth, lanes)
        ]

    def _scores(self, key: Int) -> Value:
        """The scores of the keys from `key` on; -inf beyond the last."""
        k, form, lanes = self.k, self.form, self.lanes
        scale = k.broadcast(number(k, "scale"), lanes)
        pieces = self._pieces(form.depth)
        held = [k.ir.fmul(k.load(self.q, self.type, d, mask=mask), scale) for d, mask in pieces]
        last = k.sub(self.keys, 1)
        sums: list[Value] = []
        for i in range(lanes):
            row = k.at(self.key, k.mul(k.min(k.add(key, i), last), k.arg("k_row")), F32)
            total = k.zero(self.type)
            for (d, mask), q in zip(pieces, held, strict=True):
                total = k.fma(q, k.load(row, self.type, d, mask=mask), total)
            sums.append(total)
        score = fold_sums(k, sums)
        if form.softcap:
            score = k.ir.fmul(k.broadcast(number(k, "softcap"), lanes), vector_math.tanh(k, score))
        left = k.sub(self.end, key)
        exist = k.lanes_below(left, lanes)
        if form.mask is not None:
            score = form.mask.applied(k, score, self._bias(form.mask, key, left, exist))
        return k.ir.select(exist, score, k.splat(-math.inf, self.type))

    def _bias(self, mask: Mask, key: Int, left: Int, exist: Value) -> Value:
        """What the mask adds to the scores of the keys from `key` on."""
        k, lanes, step = self.k, self.lanes, self.k.arg("mask_key")
        pointer = k.at(self.mask, k.mul(key, step), memory_element(mask.dtype))
        if mask.reach == "rows":
            return mask.bias(k, load_element(k, pointer, mask.dtype, lanes, mask=exist))
        return mask.bias(k, gather_element(k, pointer, mask.dtype, lanes, step, left))

    def _mix(self, inverse: Value) -> None:
        """out = inverse · Σ weight[key] · value[key], a few vectors of the row at a time."""
        k, lanes, row = self.k, self.lanes, self.k.arg("v_row")
        pieces = self._pieces(self.form.depth_v)
        together = max(k.machine.registers // 4, 1)
        for first in range(0, len(pieces), together):
            part = pieces[first : first + together]
            # Even and odd keys are summed apart: enough sums to hide the latency of an FMA.
            sums = [k.zero(self.type)] * (2 * len(part))

            def add(
                key: Int, which: int, sums: list[Value] = sums, part: list[tuple[int, Value | None]] = part
            ) -> None:
                weight = k.broadcast(k.load(k.scratch, F32, key), lanes)
                values = k.at(self.value, k.mul(key, row), F32)
                for i, (d, mask) in enumerate(part):
                    at = which * len(part) + i
                    sums[at] = k.fma(weight, k.load(values, self.type, d, mask=mask), sums[at])

            even = k.mul(k.div(self.end, 2), 2)
            with k.loop(0, even, 2, carry=sums) as key:
                add(key, 0)
                add(k.add(key, 1), 1)
            with k.loop(even, self.end, carry=sums) as key:
                add(key, 0)
            for i, (d, mask) in enumerate(part):
                total = k.ir.fadd(sums[i], sums[len(part) + i])
                k.store(k.ir.fmul(total, inverse), self.out, d, mask=mask)
