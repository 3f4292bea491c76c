"""Attention of many queries: a tile is a few vectors of queries of one head.

Queries lie along the lanes, so that the softmax needs no reduction across lanes, and both products read the
keys and values where they are, one element at a time:

    scores[key, queries] = Σ_d k[key, d] · qᵀ[d, queries]          qᵀ: transposed once for the tile
    outᵀ[d, queries]     = Σ_key v[key, d] · p[key, queries]       p = exp(scores - running maximum)

A block of keys at a time is scored, its maximum joins the running one, and what was summed before is scaled
down accordingly (Milakov and Gimelshein, Online normalizer calculation for softmax, 2018; Dao et al.,
FlashAttention, 2022).
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ingot.codegen import math as vector_math
from ingot.codegen.builder import F32, I8, I32, Builder, Int, Value, vector
from ingot.codegen.elements import gather_element, load_element, memory_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import any_lane, index_lanes
from ingot.codegen.machine import Machine
from ingot.kernels.pack import transpose
from ingot.kernels.scores import SLOTS, Mask, number, start_of, weight_of


@dataclass(frozen=True, slots=True)
class Form:
    """What of an attention changes the code.

    height: keys whose scores are computed at once. pitch: elements from one key to the next (in
    displacements). packed: keys and values of a head are copied into scratch memory once for all of its tiles
    in a row.
    """

    depth: int
    depth_v: int
    pitch: int
    height: int
    vectors: int
    short_tail: bool  # the last queries fit one vector
    mask: Mask | None
    causal: bool
    softcap: bool
    empty_is_zero: bool
    packed: bool


def rows_at_once(machine: Machine) -> int:
    """Rows of a register tile of two vectors, whose sums, operands and what else is alive fit in the
    registers.
    """
    if machine.registers >= 32:
        return 11 if machine.vector_bytes == 16 else 13  # AArch64's FMA reads no operand from memory
    return 6 if machine.fma else 4  # without FMA each product needs a register


@kernel(*SLOTS)
def attend(k: Builder, *, form: Form) -> None:
    """A tile is a block of queries of one head of one batch."""
    heads, blocks, shared = k.arg("heads"), k.arg("blocks"), k.arg("heads_per_key_head")
    width = form.vectors * k.machine.lanes
    in_scratch: list[Value] = [k.int(-1)]  # the number of the head whose keys and values lie there
    with k.loop(k.begin, k.end, carry=in_scratch) as tile:
        others = k.div(tile, blocks)
        head, batch = k.rem(others, heads), k.div(others, heads)
        first = k.mul(k.rem(tile, blocks), width)
        if form.packed:
            # heads is a multiple of it, so this counts key heads through all batches
            key_head = k.div(others, shared)
            with k.when(k.compare("!=", key_head, in_scratch[0])):
                _pack(k, form, batch, k.div(head, shared))
            in_scratch[0] = key_head
        if form.short_tail and form.vectors > 1:
            few = k.compare("<=", k.sub(k.arg("queries"), first), k.machine.lanes)
            with k.when(few):
                _Tile(k, form, 1, tile).emit()
            with k.when(k.ir.not_(few)):
                _Tile(k, form, form.vectors, tile).emit()
        else:
            _Tile(k, form, form.vectors, tile).emit()


def _packed(k: Builder, form: Form) -> tuple[Value, Value]:
    """Where packed keys [L, D] and values [L, Dv] lie in scratch memory."""
    keys = k.at(k.scratch, k.arg("packed"), F32)
    return keys, k.at(keys, k.mul(k.arg("keys"), form.depth), F32)


def _pack(k: Builder, form: Form, batch: Int, head: Int) -> None:
    """Copy a head's rows next to each other: far apart, they compete for few sets of the caches."""
    lanes = k.machine.lanes
    type_ = vector(F32, lanes)
    rows = (k.arg("k_row"), form.depth), (k.arg("v_row"), form.depth_v)
    for name, target, (row, depth) in zip("kv", _packed(k, form), rows, strict=True):
        source = start_of(k, name, batch, head)
        with k.loop(0, k.arg("keys")) as key:
            here, there = k.at(source, k.mul(key, row), F32), k.at(target, k.mul(key, depth), F32)
            for d in range(0, depth, lanes):
                mask = k.lanes_below(depth - d, lanes) if depth - d < lanes else None
                k.store(k.load(here, type_, d, mask=mask), there, d, mask=mask)


class _Tile:
    """The code for one tile of `vectors` vectors of queries."""

    def __init__(self, k: Builder, form: Form, vectors: int, tile: Value) -> None:
        self.k, self.form, self.vectors = k, form, vectors
        heads, self.blocks, shared = k.arg("heads"), k.arg("blocks"), k.arg("heads_per_key_head")
        # The number of the tile in its head, whose queries begin at `first`.
        self.number, others = k.rem(tile, self.blocks), k.div(tile, self.blocks)
        self.first = k.mul(self.number, form.vectors * k.machine.lanes)
        head, batch = k.rem(others, heads), k.div(others, heads)
        key_heads, following = k.div(heads, shared), k.add(k.div(others, shared), 1)
        self.following = k.div(following, key_heads), k.rem(following, key_heads)  # batch and key head
        self.lanes, self.width = k.machine.lanes, vectors * k.machine.lanes
        self.type = vector(F32, self.lanes)
        self.queries, self.keys, self.block_keys = k.arg("queries"), k.arg("keys"), k.arg("block_keys")
        self.q, self.out = start_of(k, "q", batch, head), start_of(k, "out", batch, head)
        if form.packed:
            self.key, self.value = _packed(k, form)
            self.v_row: Int = form.depth_v
        else:
            key_head = k.div(head, shared)
            self.key, self.value = start_of(k, "k", batch, key_head), start_of(k, "v", batch, key_head)
            self.v_row = k.arg("v_row")
        if form.mask is not None:
            element = memory_element(form.mask.dtype)
            self.mask = k.at(
                start_of(k, "mask", batch, head, element), k.mul(self.first, k.arg("mask_row")), element
            )
        # Scratch: the transposed queries, transposed output, its scale, scores and, of a mask with rows, its
        # transpose.
        self.q_turned = k.scratch
        self.out_turned = k.at(self.q_turned, form.depth * self.width, F32)
        self.inverse = k.at(self.out_turned, form.depth_v * self.width, F32)
        self.scores = k.at(self.inverse, self.width, F32)
        self.bias = k.at(self.scores, k.mul(k.add(self.block_keys, form.height), self.width), F32)

    def emit(self) -> None:
        k, form = self.k, self.form
        self._turn_queries()
        end = self.keys
        if form.causal:
            last = k.add(self.first, self.width, k.arg("causal_offset"))
            end = k.max(k.min(end, last), 0)
            lane = k.ir.trunc(k.int(k.add(self.first, k.arg("causal_offset"))), I32)
            base: Value = k.ir.add(k.broadcast(lane, self.lanes), index_lanes(self.lanes))
            self.limits = [k.ir.add(base, k.splat(v * self.lanes, base.type)) for v in range(self.vectors)]
        with k.when(k.compare("==", end, 0)), k.loop(0, form.depth_v * self.vectors) as i:
            k.store(k.zero(self.type), self.out_turned, k.mul(i, self.lanes))
        state = [k.splat(-math.inf, self.type)] * self.vectors + [k.zero(self.type)] * self.vectors
        with k.loop(0, end, self.block_keys, carry=state) as key:
            state[:] = self._block(key, k.min(k.add(key, self.block_keys), end), state)
        for v, total in enumerate(state[self.vectors :]):
            inverse: Value = k.ir.fdiv(k.splat(1.0, self.type), total)
            if form.empty_is_zero:
                empty = k.ir.fcmp_ordered("==", total, k.zero(self.type))
                inverse = k.ir.select(empty, k.zero(self.type), inverse)
            k.store(inverse, self.inverse, v * self.lanes)
        self._turn_output()

    def _weight(self, score: Value, shift: Value) -> Value:
        is_binary = self.form.mask is None or self.form.mask.dtype == "bool"
        return weight_of(self.k, score, shift, is_binary)

    def _turn_queries(self) -> None:
        """q_turned[d][query] = scale · q[query][d]. Queries beyond the last repeat it: their results are not
        stored.
        """
        k, lanes, depth = self.k, self.lanes, self.form.depth
        scale = k.broadcast(number(k, "scale"), lanes)
        with k.loop(0, self.vectors) as v:
            query = k.add(self.first, k.mul(v, lanes))
            rows = [
                k.at(self.q, k.mul(k.min(k.add(query, i), k.sub(self.queries, 1)), k.arg("q_row")), F32)
                for i in range(lanes)
            ]
            target = k.at(self.q_turned, k.mul(v, lanes), F32)

            def turn(d: Int, count: int, rows: list[Value] = rows, target: Value = target) -> None:
                mask = k.lanes_below(count, lanes) if count < lanes else None
                square = [k.load(row, self.type, d, mask=mask) for row in rows]
                here = k.at(target, k.mul(d, self.width), F32)
                for i, value in enumerate(transpose(k, square)[:count]):
                    k.store(k.ir.fmul(value, scale), here, i * self.width)

            with k.loop(0, depth // lanes * lanes, lanes) as d:
                turn(d, lanes)
            if depth % lanes:
                turn(depth // lanes * lanes, depth % lanes)

    def _block(self, key: Int, end: Int, state: list[Value]) -> list[Value]:
        """Take keys key..end in; the new running maxima and sums."""
        k, form, lanes, vectors, width = self.k, self.form, self.lanes, self.vectors, self.width
        old, total = state[:vectors], state[vectors:]
        # The last group of keys starts early enough to be whole; scores of keys it repeats are the same
        # again.
        base = k.min(key, k.sub(self.keys, form.height))
        if form.packed:
            self._fetch(key, end)

        def scores(is_masked: bool) -> list[Value]:
            if is_masked and form.mask is not None and form.mask.reach == "rows":
                self._turn_mask(base, end)
            top = list(old)
            with k.loop(key, end, form.height, carry=top) as group:
                self._score(k.min(group, k.sub(self.keys, form.height)), base, top, is_masked)
            return top

        if form.mask is not None and form.mask.dtype == "bool" and form.mask.reach == "rows":
            top = k.either(self._forbids(base, end), lambda: scores(True), lambda: scores(False))
        else:
            top = scores(True)
        # Where all scores so far are -inf, the maximum may not be subtracted: -inf - -inf is NaN.
        infinite = k.splat(-math.inf, self.type)
        shift = [k.ir.select(k.ir.fcmp_ordered("==", t, infinite), k.zero(self.type), t) for t in top]
        shrink = [self._weight(o, s) for o, s in zip(old, shift, strict=True)]

        weights = k.at(self.scores, k.mul(k.sub(key, base), width), F32)
        count = k.sub(end, key)
        sums = [k.zero(self.type)] * vectors
        with k.loop(0, count, carry=sums, at_least_once=True) as i:
            here = k.at(weights, k.mul(i, width), F32)
            for v in range(vectors):
                weight = self._weight(k.load(here, self.type, v * lanes), shift[v])
                k.store(weight, here, v * lanes)
                sums[v] = k.ir.fadd(sums[v], weight)
        total = [k.fma(t, s, more) for t, s, more in zip(total, shrink, sums, strict=True)]
        self._gather_values(
            k.compare("==", key, 0), k.at(self.value, k.mul(key, self.v_row), F32), weights, count, shrink
        )
        return top + total

    def _fetch(self, key: Int, end: Int) -> None:
        """Start fetching what comes next, so much of it as key..end is of all keys: the next head's keys and
        values, of which each tile fetches a part, the next queries, and this tile's rows of the output.
        """
        k, form = self.k, self.form

        def rows(pointer: Value, row: Value, bytes_: int, begin: Int, last: Int, write: bool = False) -> None:
            with k.loop(begin, last) as i:
                here = k.at(pointer, k.mul(row, i), F32)
                for line in range(0, bytes_, 64):
                    k.prefetch(here, line, I8, locality=2, write=write)

        part = [k.div(k.add(k.mul(self.number, self.keys), at), self.blocks) for at in (key, end)]
        for name, depth in (("k", form.depth), ("v", form.depth_v)):
            rows(start_of(k, name, *self.following), k.arg(f"{name}_row"), 4 * depth, part[0], part[1])
        part = [k.div(k.mul(at, self.width), self.keys) for at in (key, end)]
        left = k.sub(self.queries, self.first)
        begin, last = (k.min(at, left) for at in part)
        here = k.at(self.out, k.mul(self.first, k.arg("out_row")), F32)
        rows(here, k.arg("out_row"), 4 * form.depth_v, begin, last, write=True)
        begin, last = (k.min(at, k.sub(left, self.width)) for at in part)
        here = k.at(self.q, k.mul(k.add(self.first, self.width), k.arg("q_row")), F32)
        rows(here, k.arg("q_row"), 4 * form.depth, begin, last)

    def _score(self, key: Int, base: Int, top: list[Value], is_masked: bool) -> None:
        """scores of `height` keys from `key` on; their maxima join `top`. Not `is_masked`: no mask counts."""
        k, form, lanes, vectors, width = self.k, self.form, self.lanes, self.vectors, self.width
        pointer = k.at(self.key, k.mul(key, self.form.pitch), F32)
        sums = [k.zero(self.type)] * (form.height * vectors)

        def multiply(d: Int, count: int) -> None:
            queries, keys = k.at(self.q_turned, k.mul(d, width), F32), k.at(pointer, d, F32)
            for c in range(count):
                held = [k.load(queries, self.type, c * width + v * lanes) for v in range(vectors)]
                for p in range(form.height):
                    element = k.broadcast(k.load(keys, F32, p * self.form.pitch + c), lanes)
                    for v in range(vectors):
                        sums[p * vectors + v] = k.fma(element, held[v], sums[p * vectors + v])

        unroll = 4
        with k.loop(0, form.depth // unroll * unroll, unroll, carry=sums) as d:
            multiply(d, unroll)
        if form.depth % unroll:
            multiply(form.depth // unroll * unroll, form.depth % unroll)

        row = k.sub(key, base)
        target = k.at(self.scores, k.mul(row, width), F32)
        bias = k.at(self.bias, k.mul(row, width), F32)
        for p in range(form.height):
            for v in range(vectors):
                score = sums[p * vectors + v]
                if form.softcap:
                    cap = k.broadcast(number(k, "softcap"), lanes)
                    score = k.ir.fmul(cap, vector_math.tanh(k, score))  # the queries' scale has 1 / cap in it
                if is_masked and form.mask is not None and form.mask.reach == "rows":
                    score = form.mask.applied(k, score, k.load(bias, self.type, p * width + v * lanes))
                elif is_masked and form.mask is not None:
                    score = form.mask.applied(k, score, self._mask_of(k.add(key, p), v))
                if form.causal:
                    place = k.broadcast(k.ir.trunc(k.int(k.add(key, p)), I32), lanes)
                    allowed = k.ir.icmp_signed("<=", place, self.limits[v])
                    score = k.ir.select(allowed, score, k.splat(-math.inf, self.type))
                k.store(score, target, p * width + v * lanes)
                top[v] = k.ir.select(k.ir.fcmp_ordered(">", score, top[v]), score, top[v])

    def _mask_of(self, key: Int, v: int) -> Value:
        """The mask of one key for a vector of queries, as numbers to add."""
        k, lanes = self.k, self.lanes
        mask = self.form.mask
        assert mask is not None
        element = memory_element(mask.dtype)
        pointer = k.at(self.mask, k.mul(key, k.arg("mask_key")), element)
        if mask.reach == "repeated":
            return k.broadcast(mask.bias(k, load_element(k, pointer, mask.dtype, 1)), lanes)
        row = k.arg("mask_row")
        left = k.sub(self.queries, k.add(self.first, v * lanes))
        first = k.at(pointer, k.mul(row, v * lanes), element)
        return mask.bias(k, gather_element(k, first, mask.dtype, lanes, row, left))

    def _mask_rows(self, v: Int, element: Any) -> list[Value]:
        """Where the mask's rows of a vector of queries begin."""
        k, left = self.k, self.k.sub(self.queries, self.k.add(self.first, 1))
        return [
            k.at(self.mask, k.mul(k.min(k.add(k.mul(v, self.lanes), i), left), k.arg("mask_row")), element)
            for i in range(self.lanes)
        ]

    def _forbids(self, key: Int, end: Int) -> Value:
        """Whether a boolean mask forbids some query some of the keys key..end. Without padding it does not,
        and turning it would take as long as the softmax.
        """
        k = self.k
        whole = k.machine.vector_bytes
        types = [vector(I8, n) for n in (whole, self.lanes)]
        ones: list[Value] = [k.splat(1, type_) for type_ in types]
        middle = k.add(key, k.mul(k.div(k.sub(end, key), whole), whole))
        with k.loop(0, self.vectors, carry=ones) as v:
            rows = self._mask_rows(v, I8)
            with k.loop(key, middle, whole, carry=ones) as column:
                for row in rows:
                    ones[0] = k.ir.and_(ones[0], k.load(row, types[0], column))
            with k.loop(middle, end, self.lanes, carry=ones) as column:
                exist = k.lanes_below(k.sub(end, column), self.lanes)
                for row in rows:
                    some = k.load(row, types[1], column, mask=exist)
                    ones[1] = k.ir.select(exist, k.ir.and_(ones[1], some), ones[1])
        zeros = [
            any_lane(k, k.ir.icmp_unsigned("==", one, k.zero(type_)))
            for one, type_ in zip(ones, types, strict=True)
        ]
        return k.ir.or_(*zeros)

    def _turn_mask(self, key: Int, end: Int) -> None:
        """bias[key - base][query] of keys key..end from a mask with neighbouring keys side by side."""
        k, lanes = self.k, self.lanes
        mask = self.form.mask
        assert mask is not None
        element = memory_element(mask.dtype)
        with k.loop(0, self.vectors) as v:
            rows = self._mask_rows(v, element)
            with k.loop(key, end, lanes) as column:
                exist = k.lanes_below(k.sub(self.keys, column), lanes)
                square = [
                    mask.bias(k, load_element(k, row, mask.dtype, lanes, column, exist)) for row in rows
                ]
                offset = k.add(k.mul(k.sub(column, key), self.width), k.mul(v, lanes))
                here = k.at(self.bias, offset, F32)
                for i, value in enumerate(transpose(k, square)):
                    k.store(value, here, i * self.width)

    def _gather_values(
        self, is_first: Value, value: Value, weights: Value, count: Int, shrink: list[Value]
    ) -> None:
        """out_turned = out_turned · shrink + Σ v[key] · weights[key]; the first block adds to nothing."""
        k, form, lanes, vectors, width = self.k, self.form, self.lanes, self.vectors, self.width

        def rows(d: Int, height: int) -> None:
            target = k.at(self.out_turned, k.mul(d, width), F32)
            places = [(p, v) for p in range(height) for v in range(vectors)]

            def so_far() -> list[Value]:
                return [
                    k.ir.fmul(k.load(target, self.type, p * width + v * lanes), shrink[v]) for p, v in places
                ]

            sums = k.either(is_first, lambda: [k.zero(self.type)] * len(places), so_far)
            with k.loop(0, count, carry=sums, at_least_once=True) as i:
                here = k.at(weights, k.mul(i, width), F32)
                held = [k.load(here, self.type, v * lanes) for v in range(vectors)]
                source = k.at(k.at(value, k.mul(i, self.v_row), F32), d, F32)
                for p in range(height):
                    element = k.broadcast(k.load(source, F32, p), lanes)
                    for v in range(vectors):
                        sums[p * vectors + v] = k.fma(element, held[v], sums[p * vectors + v])
            for (p, v), total in zip(places, sums, strict=True):
                k.store(total, target, p * width + v * lanes)

        parts = -(-form.depth_v // rows_at_once(k.machine))
        height, taller = divmod(form.depth_v, parts)
        with k.loop(0, taller * (height + 1), height + 1) as d:
            rows(d, height + 1)
        with k.loop(taller * (height + 1), form.depth_v, height) as d:
            rows(d, height)

    def _turn_output(self) -> None:
        """out[query][d] = out_turned[d][query] · inverse[query]."""
        k, lanes, depth, row = self.k, self.lanes, self.form.depth_v, self.k.arg("out_row")
        with k.loop(0, self.vectors) as v:
            query = k.add(self.first, k.mul(v, lanes))
            source = k.at(self.out_turned, k.mul(v, lanes), F32)
            inverse = k.load(self.inverse, self.type, k.mul(v, lanes))
            target = k.at(self.out, k.mul(query, row), F32)
            count = k.sub(self.queries, query)

            def turn(
                d: Int,
                size: int,
                source: Value = source,
                inverse: Value = inverse,
                target: Value = target,
                count: Int = count,
            ) -> None:
                here = k.at(source, k.mul(d, self.width), F32)
                square = [
                    k.ir.fmul(k.load(here, self.type, i * self.width), inverse)
                    if i < size
                    else k.zero(self.type)
                    for i in range(lanes)
                ]
                mask = k.lanes_below(size, lanes) if size < lanes else None
                there = k.at(target, d, F32)
                for i, value in enumerate(transpose(k, square)):
                    with k.when(k.compare(">", count, i)):
                        k.store(value, k.at(there, k.mul(row, i), F32), mask=mask)

            with k.loop(0, depth // lanes * lanes, lanes) as d:
                turn(d, lanes)
            if depth % lanes:
                turn(depth // lanes * lanes, depth % lanes)
