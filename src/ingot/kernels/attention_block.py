"""The code of attention on tile registers for a block of queries: scores, weights, and sums of values.

Between a multiplication and what becomes of it lie integers in memory, one plane for each level of products,
as in sliced_tile.py. A row's weights take the place of its scores.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from ingot.codegen import math as vector_math
from ingot.codegen.builder import F32, I8, I32, VOID, Builder, Int, Value
from ingot.codegen.elements import gather_element, load_element, memory_element
from ingot.codegen.lanes import index_lanes
from ingot.kernels.attention_slices import (
    F32S,
    I32S,
    MOST_QUERIES,
    Steps,
    slice_queries,
    whole,
    words,
)
from ingot.kernels.contract import Frame
from ingot.kernels.scores import LOG2E, SLOTS, Mask, exp2, number, start_of
from ingot.kernels.sliced_tile import Tiles
from ingot.kernels.slices import DEPTH, LANES, SLICES, TILE_BYTES

#: Which slices of the left and of the right side are multiplied for each sum.
LEVELS = (((0, 0),), ((0, 1), (1, 0)), ((0, 2), (1, 1), (2, 0)))
# Not a multiple of 4096: loads would wait for stores to addresses that look alike.
_LEVEL_BYTES = MOST_QUERIES * 2 * LANES * 4 + 256
#: Weights are multiples of 2^-23, so that their highest digit is at most 128.
_WEIGHT_BITS = 23
_SUMS, LEFT, RIGHT = 0, 4, 6  # tile registers
_PLANE = MOST_QUERIES * DEPTH  # bytes of a slice of a block of queries, for one step


_Some = Callable[[Int, int, list[Value]], list[Value]]


@dataclass(frozen=True, slots=True)
class SlicedForm:
    """What of an attention changes the code. single: all keys are one block."""

    depth: int
    depth_v: int
    mask: Mask | None
    causal: bool
    softcap: bool
    empty_is_zero: bool
    single: bool

    @property
    def steps(self) -> Steps:
        return Steps(self.depth)

    @property
    def late(self) -> bool:
        """Whether scores are multiplied by their query's scale only when they become weights."""
        return not self.softcap and (self.mask is None or self.mask.dtype == "bool")

    @property
    def columns(self) -> int:
        """Vectors of a row of values."""
        return -(-self.depth_v // LANES)

    def fixed(self) -> dict[str, int]:
        """Offsets in scratch memory, in bytes, of what does not depend on lengths; "end" is the first byte
        behind it.
        """
        sizes = {
            "frame": -(-len(SLOTS) * 8 // 64) * 64,
            "sums": len(LEVELS) * _LEVEL_BYTES,
            "queries": self.steps.number * SLICES * _PLANE,
            "query_scales": MOST_QUERIES * 4,
            "tops": MOST_QUERIES * 64,
            "shifts": MOST_QUERIES * 4,
            "factors": MOST_QUERIES * 4,
            "bests": MOST_QUERIES * 4,
            "sizes": MOST_QUERIES * 4,
            "value_scales": self.columns * 64,
            "turned": self.steps.elements * 64,
            "out": 0 if self.single else MOST_QUERIES * self.columns * 64,
        }
        offsets: dict[str, int] = {}
        place = 0
        for name, size in sizes.items():
            offsets[name], place = place, place + size
        offsets["end"] = place
        return offsets


class Block:
    """The code for up to `most` queries of one head, from query `first` on."""

    def __init__(
        self,
        k: Builder,
        form: SlicedForm,
        arg: dict[str, Value],
        batch: Value,
        head: Value,
        first: Int,
        most: Int,
    ) -> None:
        self.k, self.form, self.arg, self.first = k, form, arg, first
        self.tiles = Tiles(k)
        self.count = k.min(most, k.sub(arg["queries"], first))
        self.fixed = {n: k.at(k.scratch, at, I8) for n, at in form.fixed().items()}
        self.scores, self.key_scales, self.keys, self.values = (
            k.at(k.scratch, arg[f"at_{name}"], I8) for name in ("scores", "key_scales", "keys", "values")
        )
        self.q = k.at(start_of(k, "q", batch, head), k.mul(first, arg["q_row"]), F32)
        self.out = k.at(start_of(k, "out", batch, head), k.mul(first, arg["out_row"]), F32)
        if form.mask is not None:
            element = memory_element(form.mask.dtype)
            self.mask = k.at(
                start_of(k, "mask", batch, head, element), k.mul(first, arg["mask_row"]), element
            )
        # The keys of the block that is computed: all that these queries see, or, of many, a part of them.
        self.begin: Int = 0
        self.end: Int = arg["keys"]
        if form.causal:
            seen = k.add(first, self.count, arg["causal_offset"])
            self.end = k.max(k.min(self.end, seen), 0)

    def exactly(self, frame: Frame, head: Value) -> None:
        """By the kernel of vectors, which sees nothing but these queries."""
        k, arg = self.k, self.arg
        for name in ("q", "out"):
            offset = k.mul(k.mul(self.first, arg[f"{name}_row"]), 4)
            frame.set(name, k.add(arg[name], offset))
        if self.form.mask is not None:
            element = 1 if self.form.mask.dtype == "bool" else 4
            offset = k.mul(k.mul(self.first, arg["mask_row"]), element)
            frame.set("mask", k.add(arg["mask"], offset))
        frame.set("queries", self.count)
        frame.set("causal_offset", k.add(arg["causal_offset"], self.first))
        scratch = k.at(k.scratch, arg["at_exact"], I8)
        k.call(arg["exact"], frame.pointer, head, k.add(head, 1), scratch)

    def attend(self) -> None:
        """By the tile registers."""
        k, form, arg, end = self.k, self.form, self.arg, self.end
        slice_queries(
            k, form.steps, self.q, arg["q_row"], self.count, number(k, "scale"),
            self.fixed["queries"], self.fixed["query_scales"],
        )  # fmt: skip
        if form.single:
            self._attend_keys()
            return
        with k.loop(0, self.count, at_least_once=True) as row:
            k.store(F32(-math.inf), self.fixed["bests"], row)
            k.store(F32(0.0), self.fixed["sizes"], row)
            for c in range(form.columns):
                place = k.mul(k.add(k.mul(row, form.columns), c), LANES)
                k.store(k.splat(0.0, F32S), self.fixed["out"], place)
        with k.loop(0, end, arg["key_block"]) as key:
            self.begin, self.end = key, k.min(k.add(key, arg["key_block"]), end)
            self._attend_keys()
        with k.loop(0, self.count, at_least_once=True) as row:
            inverse = k.broadcast(self._inverse(k.load(self.fixed["sizes"], F32, row)), LANES)
            here = k.at(self.fixed["out"], k.mul(row, form.columns * LANES), F32)
            for c in range(form.columns):
                self._store(k.ir.fmul(k.load(here, F32S, c * LANES), inverse), row, c)

    def _attend_keys(self) -> None:
        """All keys, or a block of them."""
        self._score()
        self._shift()
        self._weigh()
        self._sum_values()

    # ---- products ------------------------------------------------------------------------------------------

    def _multiply(
        self,
        steps: Int,
        left: Callable[[Int, int], Value],
        pitch: Int,
        right: Callable[[Int, int, int], Value],
        wide: int,
        of_weights: bool,
    ) -> None:
        """sums[level][row][column] = Σ of the level's products over all steps, as integers. left and right
        give the addresses of a step's registers: of a slice, and of a slice and a register.
        """
        k, tiles, sums = self.k, self.tiles, self.fixed["sums"]
        below = k.mul(self.arg["rows"], pitch)
        loaded: tuple[int, int] | None = None  # the slices that the registers hold
        for level, products in enumerate(LEVELS):
            for i in range(2 * wide):
                tiles.zero(_SUMS + i)
            with k.loop(0, steps) as step:
                for of_left, of_right in products:
                    if loaded is None or loaded[0] != of_left:
                        start = left(step, of_left)
                        tiles.load(LEFT, start, pitch)
                        tiles.load(LEFT + 1, k.at(start, below, I8), pitch)
                    if loaded is None or loaded[1] != of_right:
                        for j in range(wide):
                            tiles.load(RIGHT + j, right(step, of_right, j), 64)
                    loaded = (of_left, of_right) if isinstance(steps, int) and steps == 1 else None
                    for i, j in itertools.product(range(2), range(wide)):
                        registers = (_SUMS + i * wide + j, LEFT + i, RIGHT + j)
                        if of_weights and not of_left:  # the highest digit, which has no sign
                            k.ir.call(k.declare("llvm.x86.tdpbusd", VOID, [I8] * 3), [*map(I8, registers)])
                        else:
                            tiles.multiply(*registers)
            goal = k.at(sums, level * _LEVEL_BYTES, I8)
            row_bytes = wide * 64
            for i in range(2):
                start = k.at(goal, k.mul(self.arg["rows"], row_bytes), I8) if i else goal
                for j in range(wide):
                    tiles.store(_SUMS + i * wide + j, k.at(start, j * 64, I8), row_bytes)

    def _whole(self, row: Int, wide: int) -> list[Value]:
        """A row of what `_multiply` left, in units of the lowest level."""
        k = self.k
        here = k.at(self.fixed["sums"], k.mul(row, wide * 64), I8)
        totals: list[Value] = []
        for j in range(wide):
            high, middle, low = (
                k.ir.sitofp(k.load(k.at(here, level * _LEVEL_BYTES, I8), I32S, j * LANES), F32S)
                for level in range(len(LEVELS))
            )
            total = k.fma(middle, k.splat(256.0, F32S), low)
            totals.append(k.fma(high, k.splat(65536.0, F32S), total))
        return totals

    def _configure(self, name: str) -> None:
        """Registers of the size that keys or values want, where they are not the same."""
        if self.form.steps.words != DEPTH // 4:
            self.tiles.configure(self.k.pointer(name))

    # ---- scores --------------------------------------------------------------------------------------------

    def _score(self) -> None:
        """scores[query][key - begin] of all keys, -inf up to a multiple of 16, and each query's largest ones.

        They are yet to be multiplied by the query's scale, unless something is added to them or they are
        capped.
        """
        k = self.k
        self._configure("score_config")
        with k.loop(0, self.count, at_least_once=True) as row:
            k.store(k.splat(-math.inf, F32S), self.fixed["tops"], k.mul(row, LANES))
        whole = k.mul(k.div(k.sub(self.end, self.begin), 2 * LANES), 2 * LANES)
        middle = k.add(self.begin, whole)
        with k.loop(self.begin, middle, 2 * LANES) as key:
            self._multiply_keys(key, 2)
            self._finish(key, 2, is_last=False)
        with k.loop(middle, self.end, LANES) as key:
            self._multiply_keys(key, 1)
            self._finish(key, 1, is_last=True)

    def _multiply_keys(self, key: Int, wide: int) -> None:
        k, steps = self.k, self.form.steps
        tile = steps.words * 64
        keys = k.at(self.keys, k.mul(k.div(key, LANES), steps.number * SLICES * tile), I8)

        def left(step: Int, number: int) -> Value:
            return k.at(k.at(self.fixed["queries"], k.mul(step, SLICES * _PLANE), I8), number * _PLANE, I8)

        def right(step: Int, number: int, j: int) -> Value:
            place = (j * steps.number * SLICES + number) * tile
            return k.at(k.at(keys, k.mul(step, SLICES * tile), I8), place, I8)

        self._multiply(steps.number, left, DEPTH, right, wide, False)

    def _finish(self, key: Int, wide: int, is_last: bool) -> None:
        """Sums become scores. is_last: keys from `end` on score -inf."""
        k, form = self.k, self.form
        scales = [k.load(k.at(self.key_scales, k.mul(key, 4), I8), F32S, j * LANES) for j in range(wide)]
        index = [
            k.ir.add(k.broadcast(k.ir.trunc(k.int(k.add(key, j * LANES)), I32), LANES), index_lanes(LANES))
            for j in range(wide)
        ]
        target = k.at(self.scores, k.sub(key, self.begin), F32)

        def below(limit: Int, j: int, score: Value) -> Value:
            bound = k.broadcast(k.ir.trunc(k.int(limit), I32), LANES)
            return k.ir.select(k.ir.icmp_signed("<", index[j], bound), score, k.splat(-math.inf, F32S))

        with k.loop(0, self.count, at_least_once=True) as row:
            here = k.at(target, k.mul(row, self.arg["score_pitch"]), F32)
            top = k.load(self.fixed["tops"], F32S, k.mul(row, LANES))
            for j, total in enumerate(self._whole(row, wide)):
                score = k.ir.fmul(total, scales[j])
                if not form.late:
                    score = k.ir.fmul(score, self._query_scale(row))
                if form.softcap:
                    cap = k.broadcast(number(k, "softcap"), LANES)
                    score = k.ir.fmul(cap, vector_math.tanh(k, score))  # the queries' scale has 1 / cap in it
                if form.mask is not None:
                    left = k.sub(self.end, k.add(key, j * LANES)) if is_last else None
                    score = form.mask.applied(k, score, self._bias(row, k.add(key, j * LANES), left))
                if form.causal:
                    score = below(k.add(self.first, row, self.arg["causal_offset"], 1), j, score)
                if is_last:
                    score = below(self.end, j, score)
                k.store(score, here, j * LANES)
                top = _larger(k, score, top)
            k.store(top, self.fixed["tops"], k.mul(row, LANES))

    def _query_scale(self, row: Int) -> Value:
        k = self.k
        return k.broadcast(k.load(self.fixed["query_scales"], F32, row), LANES)

    def _bias(self, row: Int, key: Int, left: Int | None) -> Value:
        """The mask of 16 keys for a query, as numbers to add; only `left` of them exist."""
        k, mask = self.k, self.form.mask
        assert mask is not None
        element = memory_element(mask.dtype)
        line = k.at(self.mask, k.mul(row, self.arg["mask_row"]), element)
        if mask.reach == "rows":
            exist = None if left is None else k.lanes_below(left, LANES)
            return mask.bias(k, load_element(k, line, mask.dtype, LANES, key, exist))
        step = self.arg["mask_key"]
        start = k.at(line, k.mul(key, step), element)
        return mask.bias(
            k, gather_element(k, start, mask.dtype, LANES, step, LANES if left is None else left)
        )

    # ---- weights -------------------------------------------------------------------------------------------

    def _shift(self) -> None:
        """What each row's scores are less by: the largest so far."""
        k, fixed, form = self.k, self.fixed, self.form
        with k.loop(0, self.count, at_least_once=True) as row:
            lanes = k.load(fixed["tops"], F32S, k.mul(row, LANES))
            top = k.reduce_lanes(lambda a, b: _larger(k, a, b), lanes)
            if form.late:
                top = k.ir.fmul(top, k.load(fixed["query_scales"], F32, row))
            old = None
            if not form.single:
                old = k.load(fixed["bests"], F32, row)
                top = _larger(k, top, old)
                k.store(top, fixed["bests"], row)
            # Where all scores are -inf, the maximum may not be subtracted: -inf - -inf is NaN.
            is_empty = k.ir.fcmp_ordered("==", top, F32(-math.inf))
            shift = k.ir.select(is_empty, F32(0.0), top)
            k.store(shift, fixed["shifts"], row)
            if old is not None:
                less = k.broadcast(k.ir.fsub(old, shift), LANES)
                shrink = k.ir.extract_element(self._exponential(less, 0), I32(0))
                k.store(shrink, fixed["factors"], row)

    def _weigh(self) -> None:
        """Scores become slices of weights, and each row's sum of weights what its values are multiplied by
        (factors), or, of many blocks of keys, part of a sum (sizes).
        """
        k, fixed = self.k, self.fixed
        keys = k.sub(self.end, self.begin)
        groups = k.div(keys, DEPTH)
        vectors = k.ceil_div(k.rem(keys, DEPTH), LANES)  # after the whole groups
        with k.loop(0, self.count, at_least_once=True) as row:
            line = k.at(self.scores, k.mul(row, self.arg["score_pitch"]), F32)
            goal = line
            shift = k.broadcast(k.load(fixed["shifts"], F32, row), LANES)
            scale = self._query_scale(row)

            def some(
                group: Int, count: int, sums: list[Value], line: Value = line, goal: Value = goal,
                shift: Value = shift, scale: Value = scale,
            ) -> list[Value]:  # fmt: skip
                here = k.at(line, k.mul(group, DEPTH), F32)
                there = k.at(goal, k.mul(group, DEPTH), F32)
                return self._weigh_keys(here, there, shift, scale, sums, count)

            sums = [k.splat(0.0, F32S)] * 4
            with k.loop(0, groups, carry=sums) as group:
                sums[:] = some(group, 4, sums)

            def rest(count: int, sums: list[Value] = sums, some: _Some = some) -> list[Value]:
                if count > 4:
                    return sums
                is_it = k.compare("==", vectors, count)
                return k.either(is_it, lambda: some(groups, count, sums), lambda: rest(count + 1))

            sums = rest(1)
            both = [k.ir.fadd(sums[i], sums[i + 2]) for i in range(2)]
            total = k.reduce_lanes(lambda a, b: k.ir.fadd(a, b), k.ir.fadd(both[0], both[1]))
            if self.form.single:
                k.store(self._inverse(total), fixed["factors"], row)
            else:
                before, shrink = (k.load(fixed[name], F32, row) for name in ("sizes", "factors"))
                k.store(k.fma(before, shrink, total), fixed["sizes"], row)

    def _weigh_keys(
        self, scores: Value, goal: Value, shift: Value, scale: Value, sums: list[Value], count: int
    ) -> list[Value]:
        """64 keys, of which only the first `count` vectors have a weight. The sums, with their weights."""
        k, form = self.k, self.form
        digits = [k.splat(0x8080, I32S)] * 4
        sums = list(sums)
        for i in range(count):
            score = k.load(scores, F32S, i * LANES)
            below = k.fma(score, scale, k.ir.fneg(shift)) if form.late else k.ir.fsub(score, shift)
            weight = self._exponential(below, _WEIGHT_BITS)
            sums[i] = k.ir.fadd(sums[i], weight)
            digits[i] = k.ir.add(whole(k, weight), k.splat(0x8080, I32S))
        high, middle, low = words(k, digits)
        sign = k.splat(-0x7F7F7F80, I32S)  # 0x80808080
        for place, word in enumerate((high, k.ir.xor(middle, sign), k.ir.xor(low, sign))):
            k.store(word, k.at(goal, place * DEPTH, I8))
        return sums

    def _exponential(self, below: Value, bits: int) -> Value:
        """The weight of a score less by the largest, times 2^bits."""
        mask = self.form.mask
        if mask is not None and mask.dtype != "bool":
            below = self.k.ir.fmul(below, self.k.splat(LOG2E, F32S))
        return exp2(self.k, below, bits)

    def _inverse(self, total: Value) -> Value:
        k = self.k
        inverse = k.ir.fdiv(F32(1.0), total)
        if not self.form.empty_is_zero:
            return inverse
        return k.ir.select(k.ir.fcmp_ordered("==", total, F32(0.0)), F32(0.0), inverse)

    # ---- output --------------------------------------------------------------------------------------------

    def _sum_values(self) -> None:
        """The weights times their keys' values, to out, or to what waits for more blocks."""
        k, form = self.k, self.form
        self._configure("value_config")
        groups = k.ceil_div(k.sub(self.end, self.begin), DEPTH)
        start = k.at(self.values, k.mul(k.div(self.begin, DEPTH), SLICES * TILE_BYTES), I8)
        column_bytes = k.mul(k.ceil_div(self.arg["keys"], DEPTH), SLICES * TILE_BYTES)

        def left(step: Int, number: int) -> Value:
            return k.at(k.at(self.scores, k.mul(step, DEPTH), F32), number * DEPTH, I8)

        def columns(first: Int, wide: int) -> None:
            panel = k.at(start, k.mul(column_bytes, first), I8)

            def right(step: Int, number: int, j: int) -> Value:
                here = k.at(panel, k.mul(step, SLICES * TILE_BYTES), I8)
                here = k.at(here, k.mul(column_bytes, j), I8) if j else here
                return k.at(here, number * TILE_BYTES, I8)

            self._multiply(groups, left, k.mul(self.arg["score_pitch"], 4), right, wide, True)
            self._take(first, wide)

        pairs = form.columns // 2 * 2
        with k.loop(0, pairs, 2) as first:
            columns(first, 2)
        if form.columns % 2:
            columns(pairs, 1)

    def _take(self, first: Int, wide: int) -> None:
        """What `_multiply` left for columns from vector `first` on."""
        k, form = self.k, self.form
        start = k.at(self.fixed["value_scales"], k.mul(first, LANES), F32)
        scales = [k.load(start, F32S, j * LANES) for j in range(wide)]
        with k.loop(0, self.count, at_least_once=True) as row:
            factor = k.broadcast(k.load(self.fixed["factors"], F32, row), LANES)
            for j, total in enumerate(self._whole(row, wide)):
                if form.single:
                    self._store(k.ir.fmul(k.ir.fmul(total, scales[j]), factor), row, k.add(first, j))
                else:
                    place = k.mul(k.add(k.mul(row, form.columns), first, j), LANES)
                    here = k.at(self.fixed["out"], place, F32)
                    kept = k.ir.fmul(k.load(here, F32S), factor)
                    k.store(k.fma(total, scales[j], kept), here)

    def _store(self, value: Value, row: Int, column: Int) -> None:
        k, depth = self.k, self.form.depth_v
        here = k.at(self.out, k.mul(row, self.arg["out_row"]), F32)
        mask = k.lanes_below(k.sub(depth, k.mul(column, LANES)), LANES) if depth % LANES else None
        k.store(value, k.at(here, k.mul(column, LANES), F32), mask=mask)


def _larger(k: Builder, a: Value, b: Value) -> Value:
    """The larger; b where a is NaN."""
    return k.ir.select(k.ir.fcmp_ordered(">", a, b), a, b)
