"""Queries, keys and values as three signed bytes and a scale, in the order in which tile registers read them.

The bytes are those of slices.py; the order is another one. Sums run over four bytes of a 32-bit word at a
time, and which elements of the contraction share a word is free, as long as both factors agree: word i of a
step of 4 n elements has elements i, n + i, 2 n + i and 3 n + i. So four vectors become three vectors of words
lane by lane (`words`), and nothing moves across lanes.

    queries  [step][slice][query][word]                     a scale for each query
    keys     [16 keys][step][slice][word][key]              a scale for each key
    values   [16 columns][64 keys][slice][word][column]     a scale for each column

Numbers that are too large for a scale, infinities and NaN among them, are for the kernel of vectors.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot.codegen.builder import F32, I8, I32, Builder, Int, Value, vector
from ingot.codegen.elements import I16
from ingot.kernels.pack import transpose
from ingot.kernels.slices import DEPTH, LANES, LARGEST, SLICES, TILE_BYTES

#: The bits of 2¹⁰⁰ and 2⁻¹⁰⁰: values beyond the first, or columns below the second, have no scale.
LARGE_VALUE, TINY = (127 + 100) << 23, (127 - 100) << 23
MOST_QUERIES = 32  # in a block: two tile registers

UNIT = 65536.0  # what the sum of the lowest products counts in; it is in the scales of keys and values
F32S, I32S = vector(F32, LANES), vector(I32, LANES)


@dataclass(frozen=True, slots=True)
class Steps:
    """How a contraction over `depth` elements is cut: `number` steps of `words` 32-bit words."""

    depth: int

    @property
    def number(self) -> int:
        return -(-self.depth // DEPTH)

    @property
    def words(self) -> int:
        return -(-self.depth // (4 * self.number))

    @property
    def elements(self) -> int:
        """With the zeros that fill the last words."""
        return self.number * 4 * self.words


def magnitudes(k: Builder, value: Value) -> Value:
    """|value| as integers, which compare like the numbers, with infinities and NaN above them."""
    return k.ir.and_(k.ir.bitcast(value, I32S), k.splat(0x7FFFFFFF, I32S))


def greater(k: Builder, a: Value, b: Value) -> Value:
    return k.intrinsic("smax", a, b)


def whole(k: Builder, value: Value) -> Value:
    """To the nearest integers."""
    return k.ir.call(k.declare("llvm.lrint.v16i32.v16f32", I32S, [F32S]), [value])


def digits(k: Builder, value: Value, factor: Value) -> Value:
    """Values that `factor` scales to at most LARGEST as integers, each digit 128 too large: see `signed`."""
    return k.ir.add(whole(k, k.ir.fmul(value, factor)), k.splat(0x808080, I32S))


def signed(k: Builder, values: Sequence[Value]) -> list[Value]:
    """Words of `digits`, the bytes in -128 … 127."""
    bias = k.splat(-0x7F7F7F80, I32S)  # 0x80808080
    return [k.ir.xor(x, bias) for x in words(k, values)]


def words(k: Builder, values: Sequence[Value]) -> list[Value]:
    """Bytes 2, 1 and 0 of four vectors as three vectors of words of four bytes, one of each vector.

    A choice of bits is an instruction of its own: as shifts, ands and ors they would become shuffles that
    take three times as long.
    """

    def choose(mask: int, a: Value, b: Value) -> Value:
        """The bits of a where mask has ones, of b elsewhere."""
        types = [I32S, I32S, I32S, I32]
        function = k.declare("llvm.x86.avx512.pternlog.d.512", I32S, types)
        return k.ir.call(function, [k.splat(mask, I32S), a, b, I32(0xCA)])

    def shifted(value: Value, bits: int) -> Value:
        """Towards higher bits, or lower ones where negative."""
        count = k.splat(abs(bits), I32S)
        return k.ir.shl(value, count) if bits > 0 else k.ir.lshr(value, count)

    def halves(a: Value, b: Value) -> tuple[Value, Value]:
        return choose(0xFFFF, a, shifted(b, 16)), choose(0xFFFF, shifted(a, -16), b)

    (low0, high0), (low1, high1) = halves(values[0], values[2]), halves(values[1], values[3])
    even = 0x00FF00FF
    return [
        choose(even, high0, shifted(high1, 8)),
        choose(even, shifted(low0, -8), low1),
        choose(even, low0, shifted(low1, 8)),
    ]


def _factor(k: Builder, largest: Value) -> Value:
    """What makes the largest magnitudes LARGEST; 0 for those that are TINY."""
    type_ = F32S if largest.type == I32S else F32
    factor = k.ir.fdiv(k.splat(LARGEST, type_), k.ir.bitcast(largest, type_))
    is_tiny = k.ir.icmp_signed("<", largest, k.splat(TINY, largest.type))
    return k.ir.select(is_tiny, k.splat(0.0, type_), factor)


def _back(k: Builder, largest: Value, unit: float = 1.0) -> Value:
    type_ = F32S if largest.type == I32S else F32
    return k.ir.fmul(k.ir.bitcast(largest, type_), k.splat(unit / LARGEST, type_))


def any_lane(k: Builder, mask: Value) -> Value:
    """Whether a lane of a mask is set."""
    bits = k.ir.bitcast(mask, I16)
    return k.ir.icmp_unsigned("!=", bits, I16(0))


def _reaches(k: Builder, bits: Value, limit: Value) -> Value:
    return any_lane(k, k.ir.icmp_signed(">=", bits, k.broadcast(k.ir.trunc(limit, I32), LANES)))


def too_large(k: Builder, depth: int, source: Value, row: Int, count: Int, limit: Value) -> Value:
    """Whether one of `count` queries, `row` elements apart, reaches the limit (a float32's bits), or is not
    finite.
    """
    seen = [k.splat(0, I32S)]
    with k.loop(0, count, carry=seen) as number:
        here = k.at(source, k.mul(number, row), F32)
        for d in range(0, depth, LANES):
            mask = k.lanes_below(depth - d, LANES) if depth - d < LANES else None
            seen[0] = greater(k, seen[0], magnitudes(k, k.load(here, F32S, d, mask=mask)))
    return _reaches(k, seen[0], limit)


def slice_queries(
    k: Builder, steps: Steps, source: Value, row: Int, count: Int, scale: Value, target: Value, scales: Value
) -> None:
    """`count` queries `row` elements apart; `scale` is multiplied into their scales."""
    step_bytes = SLICES * MOST_QUERIES * DEPTH
    with k.loop(0, count) as query:
        here = k.at(source, k.mul(query, row), F32)
        parts: list[Value] = []
        largest = k.splat(0, I32S)
        for part in range(4 * steps.number):
            first = part * steps.words
            left = max(0, min(steps.words, steps.depth - first))
            if left:
                mask = k.lanes_below(left, LANES) if left < LANES else None
                parts.append(k.load(here, F32S, first, mask=mask))
                largest = greater(k, largest, magnitudes(k, parts[-1]))
            else:
                parts.append(k.splat(0.0, F32S))
        top = k.reduce_lanes(lambda a, b: greater(k, a, b), largest)
        # Not 0, which -inf could not be multiplied by; such a query's sums are 0.
        own = k.ir.fmul(_back(k, top), scale)
        least = k.ir.bitcast(I32(TINY), F32)
        k.store(k.ir.select(k.ir.fcmp_ordered("<", own, least), least, own), scales, query)
        factor = k.broadcast(_factor(k, top), LANES)
        for step in range(steps.number):
            four = [digits(k, x, factor) for x in parts[4 * step : 4 * step + 4]]
            goal = k.at(k.at(target, k.mul(query, DEPTH), I8), step * step_bytes, I8)
            for number, word in enumerate(signed(k, four)):
                k.store(word, k.at(goal, number * MOST_QUERIES * DEPTH, I8))


def slice_keys(
    k: Builder,
    steps: Steps,
    source: Value,
    row: Int,
    keys: Int,
    target: Value,
    scales: Value,
    turned: Value,
    limit: Value,
) -> Value:
    """All keys of a head; beyond the last they repeat it. turned: memory for 16 keys. Whether one reaches the
    limit (a float32's bits), or is not finite.
    """
    tile = steps.words * 64
    for d in range(steps.depth, steps.elements):
        k.store(k.splat(0.0, F32S), turned, d * LANES)
    seen = [k.splat(0, I32S)]
    with k.loop(0, keys, LANES, carry=seen) as key:
        lines = [k.at(source, k.mul(k.min(k.add(key, i), k.sub(keys, 1)), row), F32) for i in range(LANES)]
        largest = [k.splat(0, I32S)]

        def turn(d: Int, count: int, lines: list[Value] = lines, largest: list[Value] = largest) -> None:
            mask = k.lanes_below(count, LANES) if count < LANES else None
            square = [k.load(line, F32S, d, mask=mask) for line in lines]
            here = k.at(turned, k.mul(d, LANES), F32)
            for i, value in enumerate(transpose(k, square)[:count]):
                largest[0] = greater(k, largest[0], magnitudes(k, value))
                k.store(value, here, i * LANES)

        squares = steps.depth // LANES * LANES
        with k.loop(0, squares, LANES, carry=largest) as d:
            turn(d, LANES)
        if squares < steps.depth:
            turn(squares, steps.depth - squares)
        seen[0] = greater(k, seen[0], largest[0])
        k.store(_back(k, largest[0], UNIT), scales, key)
        factor = _factor(k, largest[0])
        goal = k.at(target, k.mul(k.div(key, LANES), steps.number * SLICES * tile), I8)
        for step in range(steps.number):
            with k.loop(0, steps.words) as word:
                here = k.at(turned, k.mul(word, LANES), F32)
                places = ((4 * step + j) * steps.words * LANES for j in range(4))
                four = [digits(k, k.load(here, F32S, place), factor) for place in places]
                there = k.at(goal, k.mul(word, 64), I8)
                for number, value in enumerate(signed(k, four)):
                    k.store(value, k.at(there, (step * SLICES + number) * tile, I8))
    return _reaches(k, seen[0], limit)


def slice_values(
    k: Builder, depth: int, source: Value, row: Int, keys: Int, target: Value, scales: Value
) -> Value:
    """All values of a head, `depth` columns; beyond the last key they repeat it. Whether a column has no
    scale.
    """
    columns = -(-depth // LANES)
    masks = [
        k.lanes_below(depth - c * LANES, LANES) if depth - c * LANES < LANES else None for c in range(columns)
    ]
    largest = [k.splat(0, I32S)] * columns
    with k.loop(0, keys, carry=largest) as key:
        here = k.at(source, k.mul(key, row), F32)
        for c, mask in enumerate(masks):
            value = k.load(here, F32S, c * LANES, mask=mask)
            largest[c] = greater(k, largest[c], magnitudes(k, value))
    bad = k.splat(0, I32S)
    for c, top in enumerate(largest):
        # A column of zeros alone is no tiny one: 0 - 1 is the largest unsigned number.
        size = k.ir.sub(top, k.splat(1, I32S))
        is_tiny = k.ir.icmp_unsigned("<", size, k.splat(TINY - 1, I32S))
        is_large = k.ir.icmp_signed(">=", top, k.splat(LARGE_VALUE, I32S))
        bad = k.ir.or_(bad, k.ir.zext(k.ir.or_(is_tiny, is_large), I32S))
        k.store(_back(k, top, UNIT), scales, c * LANES)
    factors = [_factor(k, top) for top in largest]
    groups = k.ceil_div(keys, DEPTH)
    # Words of none but keys beyond the last stay what they were: all weights there are 0.
    with k.loop(0, groups) as group, k.loop(0, k.min(k.sub(keys, k.mul(group, DEPTH)), LANES)) as word:
        first = k.add(k.mul(group, DEPTH), word)
        lines = [
            k.at(source, k.mul(k.min(k.add(first, j * LANES), k.sub(keys, 1)), row), F32) for j in range(4)
        ]
        goal = k.at(target, k.add(k.mul(group, SLICES * TILE_BYTES), k.mul(word, 64)), I8)
        for c, mask in enumerate(masks):
            four = [digits(k, k.load(line, F32S, c * LANES, mask=mask), factors[c]) for line in lines]
            there = k.at(goal, k.mul(groups, c * SLICES * TILE_BYTES), I8)
            for number, value in enumerate(signed(k, four)):
                k.store(value, k.at(there, number * TILE_BYTES, I8))
    return any_lane(k, k.ir.icmp_signed("!=", bad, k.splat(0, I32S)))
