"""Attention in one streaming pass: softmax(scale · Q Kᵀ + mask) V, without the matrix of scores in memory.

A tile is a few vectors of queries of one head. Queries lie along the lanes, so that the softmax needs no
reduction across lanes, and both products read the keys and values where they are, one element at a time:

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
from typing import Literal

import numpy as np

from ingot.codegen import math as vector_math
from ingot.codegen.builder import F32, I32, Builder, Int, Value, vector
from ingot.codegen.elements import gather_element, load_element, memory_element
from ingot.codegen.kernel import kernel
from ingot.codegen.lanes import Lanes, index_lanes
from ingot.codegen.machine import Machine
from ingot.errors import ShapeError, UnsupportedOperatorError
from ingot.kernels.call import Buffer, Call, View, row_major
from ingot.kernels.contract import register_tile
from ingot.kernels.copy import copy
from ingot.kernels.pack import transpose

_SLOTS = (
    "q", "q_batch", "q_head", "q_row",
    "k", "k_batch", "k_head", "k_row",
    "v", "v_batch", "v_head", "v_row",
    "out", "out_batch", "out_head", "out_row",
    "mask", "mask_batch", "mask_head", "mask_row", "mask_key",
    "heads", "heads_per_key_head", "queries", "keys", "blocks", "block_keys",
    "scale", "softcap", "causal_offset", "packed",
)  # fmt: skip


# 2^f = 1 + f P(f) for |f| <= 1/2: a minimax fit of the relative error (2^-23.4), lowest degree first.
_EXP2 = (
    0.6931470036506653,
    0.24022242426872253,
    0.05550733581185341,
    0.009671512991189957,
    0.001326472731307149,
)
_LOG2E = 1.4426950408889634
_ROUND = (
    12582912.0 + 127.0
)  # 1.5 · 2^23: adding it leaves the integer part, and the exponent's bias, in the low bits


_MOST_PACKED = 16 << 20  # bytes of keys and values a thread copies; more of them are read where they are


@dataclass(frozen=True, slots=True)
class Form:
    """What of an attention changes the code.

    height: keys whose scores are computed at once. pitch: elements from one key to the next (in
    displacements). mask: its dtype and how the mask is reached along queries: "repeated" has one value for
    all of them, "rows" has neighbouring keys side by side, "strided" is neither.
    """

    depth: int
    depth_v: int
    pitch: int
    height: int
    vectors: int
    short_tail: bool  # the last queries fit one vector
    mask: tuple[str, Literal["repeated", "rows", "strided"]] | None
    causal: bool
    softcap: bool
    empty_is_zero: bool
    packed: (
        bool  # keys and values of a head are copied into scratch memory once for all of its tiles in a row
    )

    @property
    def scores_are_binary(self) -> bool:
        """Whether scores are kept times log2(e), so that a power of two is their exponential. A mask of
        numbers forbids it: one near the lowest float32 would become -inf.
        """
        return self.mask is None or self.mask[0] == "bool"


def definition(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    scale: float,
    causal_offset: int | None = None,
    softcap: float = 0.0,
    empty_is_zero: bool = True,
) -> np.ndarray:
    """The plain meaning in float64: q [B, H, N, D], k [B, Hkv, L, D], v [B, Hkv, L, Dv], mask like [B, H, N,
    L].
    """
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    repeats = q.shape[1] // max(k.shape[1], 1)
    with np.errstate(all="ignore"):
        scores = scale * (q @ k.repeat(repeats, 1).swapaxes(-1, -2))
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        if mask is not None:
            scores = scores + (
                np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask.astype(np.float64)
            )
        if causal_offset is not None:
            queries, keys = np.ogrid[: scores.shape[2], : scores.shape[3]]
            scores = np.where(keys <= queries + causal_offset, scores, -np.inf)
        top = scores.max(-1, keepdims=True, initial=-np.inf)
        weights = np.exp(scores - np.where(np.isneginf(top), 0.0, top))
        total = weights.sum(-1, keepdims=True)
        if empty_is_zero:
            total = np.where(total == 0, 1.0, total)
        return (weights / total) @ v.repeat(repeats, 1)


@kernel(*_SLOTS)
def attend(k: Builder, *, form: Form) -> None:
    """A tile is a block of queries of one head of one batch."""
    heads, blocks, shared = k.arg("heads"), k.arg("blocks"), k.arg("heads_per_key_head")
    width = form.vectors * k.machine.lanes
    in_scratch: list[Value] = [k.int(-1)]  # the number of the head whose keys and values lie there
    with k.loop(k.begin, k.end, carry=in_scratch) as tile:
        block, others = k.rem(tile, blocks), k.div(tile, blocks)
        head, batch = k.rem(others, heads), k.div(others, heads)
        first = k.mul(block, width)
        if form.packed:
            number = k.div(
                others, shared
            )  # heads is a multiple of it, so this counts key heads through all batches
            with k.when(k.compare("!=", number, in_scratch[0])):
                _pack(k, form, batch, k.div(head, shared))
            in_scratch[0] = number
        if form.short_tail and form.vectors > 1:
            few = k.compare("<=", k.sub(k.arg("queries"), first), k.machine.lanes)
            with k.when(few):
                _Tile(k, form, 1, batch, head, first).emit()
            with k.when(k.ir.not_(few)):
                _Tile(k, form, form.vectors, batch, head, first).emit()
        else:
            _Tile(k, form, form.vectors, batch, head, first).emit()


def _start(k: Builder, name: str, batch: Int, head: Int, element: object = F32) -> Value:
    """The address of a head's first row of the operand `name`."""
    offset = k.add(k.mul(batch, k.arg(f"{name}_batch")), k.mul(head, k.arg(f"{name}_head")))
    return k.at(k.pointer(name), offset, element)


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
        source = _start(k, name, batch, head)
        with k.loop(0, k.arg("keys")) as key:
            here, there = k.at(source, k.mul(key, row), F32), k.at(target, k.mul(key, depth), F32)
            for d in range(0, depth, lanes):
                mask = k.lanes_below(depth - d, lanes) if depth - d < lanes else None
                k.store(k.load(here, type_, d, mask=mask), there, d, mask=mask)


def _exp2(k: Builder, x: Value) -> Value:
    """2^x for x <= 0, exactly 0 below 2^-127; NaN stays NaN. Within 3 ULP."""
    y = Lanes(k, x).at_least(-127.0)
    shifted = y + _ROUND
    fraction = y - (shifted - _ROUND)
    power = (shifted.bits() << 23).floats()
    return (fraction.polynomial((1.0, *_EXP2)) * power).value


class _Tile:
    """The code for one tile of `vectors` vectors of queries, from query `first` on."""

    def __init__(self, k: Builder, form: Form, vectors: int, batch: Value, head: Value, first: Int) -> None:
        self.k, self.form, self.vectors, self.first = k, form, vectors, first
        self.lanes, self.width = k.machine.lanes, vectors * k.machine.lanes
        self.type = vector(F32, self.lanes)
        self.queries, self.keys, self.block_keys = k.arg("queries"), k.arg("keys"), k.arg("block_keys")
        self.q, self.out = _start(k, "q", batch, head), _start(k, "out", batch, head)
        if form.packed:
            self.key, self.value = _packed(k, form)
            self.v_row: Int = form.depth_v
        else:
            key_head = k.div(head, k.arg("heads_per_key_head"))
            self.key, self.value = _start(k, "k", batch, key_head), _start(k, "v", batch, key_head)
            self.v_row = k.arg("v_row")
        if form.mask is not None:
            element = memory_element(form.mask[0])
            self.mask = k.at(
                _start(k, "mask", batch, head, element), k.mul(first, k.arg("mask_row")), element
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

    def _number(self, name: str) -> Value:
        """A float32 that travels as its bits."""
        return self.k.ir.bitcast(self.k.ir.trunc(self.k.arg(name), I32), F32)

    def _weight(self, score: Value, shift: Value) -> Value:
        """exp(score - shift)."""
        below = self.k.ir.fsub(score, shift)
        if not self.form.scores_are_binary:
            below = self.k.ir.fmul(below, self.k.splat(_LOG2E, self.type))
        return _exp2(self.k, below)

    def _turn_queries(self) -> None:
        """q_turned[d][query] = scale · q[query][d]. Queries beyond the last repeat it: their results are not
        stored.
        """
        k, lanes, depth = self.k, self.lanes, self.form.depth
        scale = k.broadcast(self._number("scale"), lanes)
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
        if form.mask is not None and form.mask[1] == "rows":
            self._turn_mask(base, end)
        top = list(old)
        with k.loop(key, end, form.height, carry=top) as group:
            self._score(k.min(group, k.sub(self.keys, form.height)), base, top)
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

    def _score(self, key: Int, base: Int, top: list[Value]) -> None:
        """scores of `height` keys from `key` on; their maxima join `top`."""
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
                    cap = k.broadcast(self._number("softcap"), lanes)
                    score = k.ir.fmul(cap, vector_math.tanh(k, score))  # the queries' scale has 1 / cap in it
                if form.mask is not None and form.mask[1] == "rows":
                    score = k.ir.fadd(score, k.load(bias, self.type, p * width + v * lanes))
                elif form.mask is not None:
                    score = k.ir.fadd(score, self._mask_of(k.add(key, p), v))
                if form.causal:
                    number = k.broadcast(k.ir.trunc(k.int(k.add(key, p)), I32), lanes)
                    allowed = k.ir.icmp_signed("<=", number, self.limits[v])
                    score = k.ir.select(allowed, score, k.splat(-math.inf, self.type))
                k.store(score, target, p * width + v * lanes)
                top[v] = k.ir.select(k.ir.fcmp_ordered(">", score, top[v]), score, top[v])

    def _mask_of(self, key: Int, v: int) -> Value:
        """The mask of one key for a vector of queries, as numbers to add."""
        k, lanes = self.k, self.lanes
        assert self.form.mask is not None
        dtype, reach = self.form.mask
        element = memory_element(dtype)
        pointer = k.at(self.mask, k.mul(key, k.arg("mask_key")), element)
        if reach == "repeated":
            return k.broadcast(self._bias(load_element(k, pointer, dtype, 1)), lanes)
        row = k.arg("mask_row")
        left = k.sub(self.queries, k.add(self.first, v * lanes))
        return self._bias(
            gather_element(k, k.at(pointer, k.mul(row, v * lanes), element), dtype, lanes, row, left)
        )

    def _bias(self, value: Value) -> Value:
        """A mask's element as a number to add: of a boolean 0 or -inf."""
        if self.form.mask is None or self.form.mask[0] != "bool":
            return value
        type_ = vector(F32, value.type.count) if hasattr(value.type, "count") else F32
        return self.k.ir.select(value, self.k.splat(0.0, type_), self.k.splat(-math.inf, type_))

    def _turn_mask(self, key: Int, end: Int) -> None:
        """bias[key - base][query] of keys key..end from a mask with neighbouring keys side by side."""
        k, lanes = self.k, self.lanes
        assert self.form.mask is not None
        dtype = self.form.mask[0]
        element = memory_element(dtype)
        with k.loop(0, self.vectors) as v:
            left = k.sub(self.queries, k.add(self.first, 1))
            rows = [
                k.at(self.mask, k.mul(k.min(k.add(k.mul(v, lanes), i), left), k.arg("mask_row")), element)
                for i in range(lanes)
            ]
            with k.loop(key, end, lanes) as column:
                mask = k.lanes_below(k.sub(self.keys, column), lanes)
                square = [self._bias(load_element(k, row, dtype, lanes, column, mask)) for row in rows]
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

        parts = -(-form.depth_v // _rows(k.machine))
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


def attention(
    q: View,
    k: View,
    v: View,
    mask: View | None,
    out: View,
    scale: float,
    machine: Machine,
    causal_offset: int | None = None,
    softcap: float = 0.0,
    empty_is_zero: bool = True,
) -> list[Call]:
    """out = softmax(softcap(scale · q kᵀ) + mask) v, all of float32.

    q [B, H, N, D], k [B, Hkv, L, D], v [B, Hkv, L, Dv], out [B, H, N, Dv]; H is a multiple of Hkv, and query
    heads in a row share a key head. Any strides; where the innermost one is not 1, a copy comes first (or, of
    out, last). mask: broadcastable to [B, H, N, L], added to the scores, or boolean (where False, a score is
    -inf). causal_offset: query i sees keys up to i + causal_offset; None: all. softcap c: c · tanh(score /
    c), if not 0. Rows without any finite score are 0 (Attention of ONNX opset 23), or, without
    `empty_is_zero`, NaN as of a Softmax. Raises UnsupportedOperatorError for other dtypes, ShapeError where
    heads do not divide.
    """
    for name, view in (("q", q), ("k", k), ("v", v), ("out", out), *([("mask", mask)] if mask else [])):
        if view.dtype != np.float32 and not (name == "mask" and view.dtype == np.bool_):
            raise UnsupportedOperatorError(
                f"attention: {name} is {view.dtype.name}, the native kernel computes float32 "
                "(and boolean masks); cast it, or leave this node to the host"
            )
    batch, heads, queries, depth = q.shape
    key_heads, keys, depth_v = k.shape[1], k.shape[2], v.shape[3]
    if out.size == 0:
        return []
    if key_heads == 0 or heads % key_heads:
        raise ShapeError(
            f"attention: found {heads} query heads for {key_heads} key heads, wanted a multiple of them"
        )
    before: list[Call] = []
    after: list[Call] = []
    q, k, v = (_rows_side_by_side(view, before, machine) for view in (q, k, v))
    target = out
    if out.strides[3] != 1 and depth_v > 1:
        target = _dense(out)
        after.append(copy(target, out, machine))

    lanes = machine.lanes
    vectors = 1 if queries <= lanes else 2
    width = vectors * lanes
    height = _height(keys, _rows(machine))
    # The scores of a block of keys and their values stay in L1; blocks are nearly equal.
    most = max(machine.l1_bytes // (4 * (width + depth_v)) // height, 1)
    groups = -(-keys // height)
    block_keys = -(-groups // max(-(-groups // most), 1)) * height
    reach: tuple[str, Literal["repeated", "rows", "strided"]] | None = None
    if mask is not None:
        mask = mask.broadcast_to((batch, heads, queries, keys))
        kind = "repeated" if mask.strides[2] == 0 else "rows" if mask.strides[3] == 1 else "strided"
        reach = (mask.dtype.name, kind)
    heads_apart = k.strides[2] != depth or v.strides[2] != depth_v
    packed = heads_apart and queries >= 2 * width and keys * (depth + depth_v) * 4 <= _MOST_PACKED
    scores = (block_keys + height) * (2 if reach and reach[1] == "rows" else 1) + lanes
    unpacked = width * (depth + depth_v + 1 + scores)
    form = Form(
        depth=depth,
        depth_v=depth_v,
        pitch=depth if packed else k.strides[2],
        height=height,
        vectors=vectors,
        short_tail=0 < queries % width <= lanes,
        mask=reach,
        causal=causal_offset is not None,
        softcap=softcap != 0,
        empty_is_zero=empty_is_zero or keys == 0,  # a sum over no keys is 0 in any case
        packed=packed,
    )
    # A softcap divides before tanh and multiplies after it.
    binary = _LOG2E if form.scores_are_binary else 1.0
    q_scale, cap = (scale / softcap, softcap * binary) if softcap else (scale * binary, 0.0)
    blocks = -(-queries // width)
    arguments: list[int | View] = [
        q, *q.strides[:3], k, *k.strides[:3], v, *v.strides[:3], target, *target.strides[:3],
        *([mask, *mask.strides] if mask else [0] * 5),
        heads, heads // key_heads, queries, keys, blocks, block_keys,
        _bits(q_scale), _bits(cap), causal_offset or 0, unpacked,
    ]  # fmt: skip
    call = Call(
        attend(form=form),
        list(arguments),
        tiles=batch * heads * blocks,
        reads=[q, k, v, *([mask] if mask else [])],
        writes=[target],
        scratch=4 * (unpacked + (keys * (depth + depth_v) if packed else 0)),
        flops=2 * batch * heads * queries * keys * (depth + depth_v),
        label="attention",
    )
    return [*before, call, *after]


def _bits(number: float) -> int:
    return int(np.float32(number).view(np.int32))


def _rows(machine: Machine) -> int:
    """Rows of a register tile of two vectors: one less than of a product alone, for what else is alive."""
    return register_tile(machine).pixels - 1 if machine.registers >= 32 else register_tile(machine).pixels


def _height(keys: int, most: int) -> int:
    """Keys in a group: few values, so that few kernels serve all lengths, and such that the last group
    repeats few keys. A group costs about 1.5 keys by itself.
    """
    if keys < most:
        return 1 << max(keys.bit_length() - 1, 0)
    return min(range(most - 2, most + 1), key=lambda height: (-(-keys // height) * (height + 1.5), -height))


def _dense(like: View) -> View:
    """A fresh row-major buffer of the shape of `like`."""
    return View(Buffer(like.size * 4), 0, like.dtype, like.shape, row_major(like.shape))


def _rows_side_by_side(view: View, calls: list[Call], machine: Machine) -> View:
    """`view`, or a copy of it whose innermost elements lie side by side."""
    if view.strides[3] == 1 or view.shape[3] == 1 or view.size == 0:
        return view
    dense = _dense(view)
    calls.append(copy(view, dense, machine))
    return dense
