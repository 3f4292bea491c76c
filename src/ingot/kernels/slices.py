"""Float32 values as three signed bytes and a scale, so that tile registers can multiply them.

    a ≈ scale · (high · 2¹⁶ + middle · 2⁸ + low)        each of the bytes in -128 … 127

`scale` is one for a row of a matrix, a band of an image, or a column of weights: the largest of them becomes
LARGEST, the others keep what lies above 2⁻²⁴ of it. Products of bytes are summed exactly, as 32-bit integers.
(This is the scheme of Ootomo, Ozaki and Yokota, "DGEMM on Integer Matrix Multiplication Unit", 2024, with
three slices for float32.)

Pixels are sliced where a thread needs them, into [slice][phase][row][column][channel]: positions whose column
and row agree modulo the convolution's stride lie together, so that neighbouring outputs read neighbours.
Values that are not finite, or far larger than the others, become 0; they stand apart as float32, in memory
that is written only where there are any.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from llvmlite import ir

from ingot.codegen.builder import F32, I8, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import load_element
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.codegen.pages import lent
from ingot.kernels.call import View, constant
from ingot.kernels.pack import PackedWeights, run_now

SLICES = 3
DEPTH = 64  # values of the contraction that one tile register holds of a row
LANES = 16  # float32 values in a vector of the machines that have tile registers
TILE_BYTES = 1024
PANEL = 2 * LANES  # output channels in a panel of weights
STEP_BYTES = SLICES * 2 * TILE_BYTES  # of a panel: [slice][half of its channels][quad of depth][channel][4]

#: A longer contraction could overflow the sum of three products of bytes.
MOST_DEPTH = 2**31 // (3 * 2**14)
#: What the largest value of a scale becomes: below 127 · (2¹⁶ + 2⁸ + 1), with room for rounding.
LARGEST = 8355000.0

#: How many times larger than the mean of those that are not 0 a value is special, in a row and in a band: it
#: would take more than its share of the bits that all have in common.
_ROW_RATIO, _BAND_RATIO = 128.0, 512.0
#: Largest values between 2 to the minus and plus this have a scale that one factor expresses.
_USUAL = 60
_MAGNITUDE, _EXPONENT, _INFINITE = 0x7FFFFFFF, 0x7F800000, 0x7F800000
_I32S, _F32S = vector(I32, LANES), vector(F32, LANES)

PIXEL_SLOTS = (
    "source", "row", "column", "channels", "height", "top", "stride",  # bytes; rows of the image
    "target", "slice", "plane", "line", "width",  # bytes between slices, phases; positions; bytes of one
    "rows", "phase_rows", "phase_columns", "residues", "ranges",
    "scales", "special", "apart",
)  # fmt: skip


def _magnitudes(k: Builder, value: Value) -> Value:
    """|value| as integers, which compare like the numbers, with infinities and NaN above them."""
    return k.ir.and_(k.ir.bitcast(value, _I32S), k.splat(_MAGNITUDE, _I32S))


def _greater(k: Builder, a: Value, b: Value) -> Value:
    return k.intrinsic("smax", a, b)


def _round(k: Builder, value: Value) -> Value:
    function = k.declare("llvm.lrint.v16i32.v16f32", _I32S, [_F32S])
    return k.ir.call(function, [value])


def _digits(k: Builder, whole: Value) -> Value:
    """The balanced digits of integers below 2²³ in base 256: bytes 0, 1 and 2 of each lane."""
    bias = k.splat(0x808080, _I32S)
    return k.ir.xor(k.ir.add(whole, bias), bias)


class _Scale:
    """The factors for values whose largest magnitude is known: by a power of two into [1, 2), then to
    LARGEST. In two steps, since one factor could overflow.
    """

    def __init__(self, k: Builder, largest: Value, limit: Value) -> None:
        """largest: the bits of a float32, as i32; finite. limit: those of what is special."""
        self.limit = limit
        first, last = I32(1 << 23), I32(253 << 23)
        exponent = k.ir.and_(largest, I32(_EXPONENT))
        exponent = k.ir.select(k.ir.icmp_signed("<", exponent, first), first, exponent)
        exponent = k.ir.select(k.ir.icmp_signed(">", exponent, last), last, exponent)
        power = k.ir.bitcast(k.ir.sub(I32(254 << 23), exponent), F32)
        mantissa = k.ir.fmul(k.ir.bitcast(largest, F32), power)
        is_zero = k.ir.icmp_signed("==", largest, I32(0))
        self._k, self.power = k, power
        self.factor = k.ir.select(is_zero, F32(0.0), k.ir.fdiv(F32(LARGEST), mantissa))
        back, back_power = k.ir.fdiv(mantissa, F32(LARGEST)), k.ir.bitcast(exponent, F32)
        small = k.ir.icmp_signed("<", exponent, I32((127 - _USUAL) << 23))
        large = k.ir.icmp_signed(">", exponent, I32((127 + _USUAL) << 23))
        self._extreme = k.ir.and_(k.ir.or_(small, large), k.ir.not_(is_zero))
        self._back = k.ir.select(self._extreme, back, k.ir.fmul(back, back_power))
        self._back_power = k.ir.select(self._extreme, back_power, F32(1.0))

    def keep(self, number: Int, special: Value) -> None:
        """Store what the position's sums are to be multiplied by; by the second only if it is special."""
        k = self._k
        here = k.at(k.pointer("scales"), k.mul(number, 2), F32)
        k.store(self._back, here)
        k.store(self._back_power, here, 1)
        with k.when(self._extreme):
            k.store(I64(1), special)


@kernel(*PIXEL_SLOTS)
def slice_pixels(k: Builder, *, dtype: str, each: bool) -> None:
    """Slice a band of an image [height, columns, channels] with channels side by side.

    each: a scale for each position, not one for the band. `scales` gets two float32 for each: the whole is
    (the slices) · first · second. `special` (i64) becomes whether a value stands apart or a scale is extreme;
    if not, every second factor is 1. `apart` has [position][channel] as the slices, in float32.
    """
    band, special = _Band(k, dtype), k.pointer("special")
    k.store(I64(0), special)

    def is_special() -> Value:
        return k.ir.icmp_signed("!=", k.load(special, I64), I64(0))

    def nothing(count: int) -> list[Value]:
        return [k.splat(0, _I32S), *[k.splat(0.0, _F32S)] * (count - 1)]

    if each:

        def positions(marked: bool) -> None:
            number = [I64(0)]
            with band.pixels(carry=number) as (source, target):
                found = nothing(2)
                band.survey(source, found)

                def below(limit: Value, source: Value = source) -> list[Value]:
                    seen = nothing(3)
                    band.survey_below(source, limit, seen)
                    return seen

                scale = band.scale(found, band.channels, _ROW_RATIO, below, special)
                scale.keep(number[0], special)
                band.slice(source, target, scale, marked)
                number[0] = k.add(number[0], 1)

        positions(marked=False)
        with k.when(is_special()):
            positions(marked=True)
        return

    found = [*nothing(2), I64(0)]
    with band.pixels(carry=found) as (source, _):
        own = found[:2]
        band.survey(source, own)
        found[:] = [*own, k.add(found[2], 1)]

    def below(limit: Value) -> list[Value]:
        seen = nothing(3)
        with band.pixels(carry=seen) as (source, _):
            band.survey_below(source, limit, seen)
        return seen

    count = k.max(k.mul(found[2], band.channels), 1)
    scale = band.scale(found[:2], count, _BAND_RATIO, below, special)
    scale.keep(0, special)
    for marked in (False, True):
        wanted = is_special() if marked else k.ir.not_(is_special())
        with k.when(wanted), band.pixels(fill=True, marked=marked) as (source, target):
            band.slice(source, target, scale, marked)


class _Band:
    """The loops over a band's positions, and over a position's channels."""

    def __init__(self, k: Builder, dtype: str) -> None:
        self.k, self.dtype = k, dtype
        self.arg = {slot: k.arg(slot) for slot in PIXEL_SLOTS}
        self.size = {"float32": 4, "float16": 2, "bfloat16": 2}[dtype]
        self.channels = self.arg["channels"]
        self.whole = k.mul(k.div(self.channels, DEPTH), DEPTH)

    @contextmanager
    def pixels(
        self, carry: list[Value] | None = None, fill: bool = False, marked: bool = False
    ) -> Generator[tuple[Value, Value]]:
        """The body runs for each position that lies in the image, with the addresses of its channels and of
        its first slice; with `fill`, the others become zeros. Memory is written upwards, so what a position
        writes past its own end is overwritten.
        """
        k, arg = self.k, self.arg
        carry = [] if carry is None else carry
        residues, ranges = k.pointer("residues"), k.pointer("ranges")
        start, goal = k.pointer("source"), k.pointer("target")
        phase_columns, line, width = arg["phase_columns"], arg["line"], arg["width"]
        with (
            k.loop(0, arg["phase_rows"], carry=carry) as phase_row,
            k.loop(0, phase_columns, carry=carry) as phase_column,
            k.loop(0, arg["rows"], carry=carry) as row,
        ):
            y = k.add(arg["top"], k.load(residues, I64, phase_row), k.mul(row, arg["stride"]))
            limits = k.at(ranges, k.mul(phase_column, 3), I64)
            inside = k.ir.icmp_unsigned("<", y, arg["height"])
            low, high = (k.choose(inside, k.load(limits, I64, i), line) for i in (0, 1))
            phase = k.add(k.mul(phase_row, phase_columns), phase_column)
            target = k.at(goal, k.add(k.mul(phase, arg["plane"]), k.mul(k.mul(row, line), width)), I8)
            source = k.at(start, k.add(k.mul(y, arg["row"]), k.load(limits, I64, 2)), I8)
            if fill:
                self._zeros(target, 0, low, marked)
            with k.loop(low, high, carry=carry) as column:
                here = k.at(source, k.mul(k.sub(column, low), arg["column"]), I8)
                yield here, k.at(target, k.mul(column, width), I8)
            if fill:
                self._zeros(target, high, line, marked)

    def _zeros(self, target: Value, first: Int, last: Int, marked: bool) -> None:
        k, zero = self.k, self.k.zero(vector(I8, DEPTH))
        width = self.arg["width"]
        with k.loop(0, SLICES) as number:
            plane = k.at(target, k.mul(number, self.arg["slice"]), I8)
            with k.loop(k.mul(first, width), k.mul(last, width), DEPTH) as byte:
                k.store(zero, k.at(plane, byte, I8))
        if marked:
            with k.loop(k.mul(first, width), k.mul(last, width), LANES) as value:
                k.store(k.zero(_F32S), self._apart(target, value))

    def _apart(self, target: Value, channel: Int) -> Value:
        """Where the special values of a position lie."""
        k = self.k
        offset = k.ir.sub(k.ir.ptrtoint(target, I64), self.arg["target"])
        return k.at(k.pointer("apart"), k.add(offset, channel), F32)

    def survey(self, source: Value, found: list[Value]) -> None:
        """Bring `found` up to date with a position's channels: the largest magnitude, and their sum, of each
        lane.
        """
        k = self.k

        def take(value: Value) -> None:
            bits = _magnitudes(k, value)
            found[0] = _greater(k, bits, found[0])
            found[1] = k.ir.fadd(found[1], k.ir.bitcast(bits, _F32S))

        self._each_vector(source, found, take)

    def survey_below(self, source: Value, limit: Value, found: list[Value]) -> None:
        """The same for values whose magnitude has bits below `limit`, and how many of them are not 0."""
        k, zero = self.k, self.k.splat(0, _I32S)
        below = k.broadcast(limit, LANES)

        def take(value: Value) -> None:
            bits = _magnitudes(k, value)
            bits = k.ir.select(k.ir.icmp_signed("<", bits, below), bits, zero)
            found[0] = _greater(k, bits, found[0])
            found[1] = k.ir.fadd(found[1], k.ir.bitcast(bits, _F32S))
            one = k.ir.select(k.ir.icmp_signed("!=", bits, zero), k.splat(1.0, _F32S), k.splat(0.0, _F32S))
            found[2] = k.ir.fadd(found[2], one)

        self._each_vector(source, found, take)

    def _each_vector(self, source: Value, found: list[Value], take: Callable[[Value], None]) -> None:
        k = self.k
        with k.loop(0, self.whole, DEPTH, carry=found) as channel:
            for value in self._load(source, channel, None):
                take(value)
        with k.loop(self.whole, self.channels, LANES, carry=found) as channel:
            left = k.sub(self.channels, channel)
            here = k.at(source, k.mul(channel, self.size), I8)
            take(load_element(k, here, self.dtype, LANES, 0, k.lanes_below(left, LANES)))

    def scale(
        self,
        found: list[Value],
        count: Value,
        ratio: float,
        below: Callable[[Value], list[Value]],
        special: Value,
    ) -> _Scale:
        """The scale for `count` values of which `survey` found this. `below(limit)` looks at those below a
        limit. Values that are not finite, or `ratio` times the mean of those that are not 0, have no part in
        the scale: they are special.
        """
        k = self.k

        def largest(value: Value) -> Value:
            return k.reduce_lanes(lambda a, b: _greater(k, a, b), value)

        def total(value: Value) -> Value:
            return k.reduce_lanes(lambda a, b: k.ir.fadd(a, b), value)

        bits, infinite = largest(found[0]), I32(_INFINITE)
        mean = k.ir.fdiv(total(found[1]), k.ir.sitofp(count, F32))
        stands_out = k.ir.fcmp_unordered(">", k.ir.bitcast(bits, F32), k.ir.fmul(mean, F32(ratio)))

        def look_closer() -> list[Value]:
            state = [infinite, infinite, bits]  # the next limit, this one, and the largest below it
            with k.loop(0, 3, carry=state):
                largest_, sum_, number = below(state[0])
                top = largest(largest_)
                some = k.intrinsic("maxnum", total(number), F32(1.0))
                limit = k.ir.fmul(k.ir.fdiv(total(sum_), some), F32(ratio))
                above = k.ir.fcmp_ordered(">", k.ir.bitcast(top, F32), limit)
                state[:] = [k.ir.select(above, k.ir.bitcast(limit, I32), state[0]), state[0], top]
            _, limit, top = state
            is_finite = k.ir.icmp_signed("<", bits, infinite)
            none = k.ir.and_(is_finite, k.ir.icmp_signed("==", limit, infinite))
            with k.when(k.ir.not_(none)):
                k.store(I64(1), special)
            return [top, limit]

        closer = k.ir.or_(stands_out, k.ir.icmp_signed(">=", bits, infinite))
        top, limit = k.either(closer, look_closer, lambda: [bits, infinite])
        return _Scale(k, top, limit)

    def _load(self, source: Value, channel: Int, left: Int | None) -> list[Value]:
        """64 channels from `channel` on, of which `left` exist."""
        k = self.k
        here = k.at(source, k.mul(channel, self.size), I8)
        values: list[Value] = []
        for v in range(DEPTH // LANES):
            mask = None if left is None else k.lanes_below(k.sub(left, v * LANES), LANES)
            values.append(load_element(k, here, self.dtype, LANES, v * LANES, mask))
        return values

    def slice(self, source: Value, target: Value, scale: _Scale, marked: bool) -> None:
        """A position's channels become bytes; up to 63 zeros follow them. marked: special values go apart."""
        k = self.k
        with k.loop(0, self.whole, DEPTH) as channel:
            self._store(self._load(source, channel, None), target, channel, scale, marked)
        with k.when(k.compare("<", self.whole, self.channels)):
            values = self._load(source, self.whole, k.sub(self.channels, self.whole))
            self._store(values, target, self.whole, scale, marked)

    def _store(self, values: list[Value], target: Value, channel: Int, scale: _Scale, marked: bool) -> None:
        k, zero = self.k, self.k.zero(_F32S)
        power, factor, limit = (k.broadcast(x, LANES) for x in (scale.power, scale.factor, scale.limit))
        lanes: list[Value] = []
        for v, value in enumerate(values):
            usual = value
            if marked:
                is_usual = k.ir.icmp_signed("<", _magnitudes(k, value), limit)
                usual = k.ir.select(is_usual, value, zero)
                k.store(k.ir.select(is_usual, zero, value), self._apart(target, k.add(channel, v * LANES)))
            lanes.append(_digits(k, _round(k, k.ir.fmul(k.ir.fmul(usual, power), factor))))
        here = k.at(target, channel, I8)
        for number, bytes_ in enumerate(_by_byte(k, lanes, SLICES)):
            # Byte 0 is the lowest digit, slice 0 the highest.
            k.store(bytes_, k.at(here, k.mul(self.arg["slice"], SLICES - 1 - number), I8))


def _is_negative(k: Builder, value: Value) -> Value:
    return k.ir.icmp_signed("<", k.ir.bitcast(value, _I32S), k.splat(0, _I32S))


def _by_byte(k: Builder, lanes: list[Value], count: int) -> list[Value]:
    """Bytes 0, 1 … of the lanes of four vectors, in order: `count` vectors of 64 bytes.

    Within each 128 bits bytes are sorted, then the vectors' 32-bit words are turned like a 4 × 4 matrix, and
    the words put in order: shuffles that take one instruction each.
    """
    four = range(4)
    sorted_bytes = [16 * q + 4 * i + b for q in four for b in four for i in four]
    words = [_shuffle(k, k.ir.bitcast(v, vector(I8, DEPTH)), None, sorted_bytes) for v in lanes]
    words = [k.ir.bitcast(v, _I32S) for v in words]
    # As the CPU's unpack instructions do it: words 0 and 1, then 2 and 3, of two vectors alternating.
    low = [4 * q + w + o for q in four for w, o in ((0, 0), (0, 16), (1, 0), (1, 16))]
    high = [4 * q + w + o for q in four for w, o in ((2, 0), (2, 16), (3, 0), (3, 16))]
    first = [4 * q + w + o for q in four for o in (0, 16) for w in (0, 1)]
    second = [4 * q + w + o for q in four for o in (0, 16) for w in (2, 3)]
    results: list[Value] = []
    for pairs, picks in ((low, (first, second)), (high, (first, second))):
        a, b = (_shuffle(k, words[i], words[i + 1], pairs) for i in (0, 2))
        results += [_shuffle(k, a, b, pick) for pick in picks]
    in_order = [4 * (i % 4) + i // 4 for i in range(LANES)]
    return [k.ir.bitcast(_shuffle(k, r, None, in_order), vector(I8, DEPTH)) for r in results[:count]]


def _shuffle(k: Builder, a: Value, b: Value | None, indices: list[int]) -> Value:
    other = ir.Constant(a.type, ir.Undefined) if b is None else b
    return k.ir.shuffle_vector(a, other, ir.Constant(vector(I32, len(indices)), indices))


@dataclass(frozen=True, slots=True)
class SlicedWeights:
    """A matrix [k, n] as panels of PANEL columns: [panels][steps][slice][half][quad of k][column][4] bytes.

    scales: for each column of each panel what its sums are multiplied by, the 2¹⁶ of the lowest sum included.
    """

    view: View
    scales: View
    k: int
    n: int
    steps: int

    @property
    def panels(self) -> int:
        return -(-self.n // PANEL)


WEIGHT_SLOTS = ("source", "rows", "target", "steps", "scales")


@kernel(*WEIGHT_SLOTS)
def slice_weights(k: Builder) -> None:
    """Panels begin..end of packed float32 weights [panel][row][PANEL], rows a multiple of 4, to slices."""
    rows, steps = k.arg("rows"), k.arg("steps")
    with k.loop(k.begin, k.end) as panel:
        source = k.at(k.pointer("source"), k.mul(panel, k.mul(rows, PANEL)), F32)
        target = k.at(k.pointer("target"), k.mul(panel, k.mul(steps, STEP_BYTES)), I8)
        largest = [k.splat(0, _I32S)] * 2
        with k.loop(0, rows, carry=largest) as row:
            here = k.at(source, k.mul(row, PANEL), F32)
            for v in range(2):
                bits = _magnitudes(k, k.load(here, _F32S, v * LANES))
                largest[v] = _greater(k, bits, largest[v])
        factors: list[Value] = []
        for v in range(2):
            value = k.ir.bitcast(largest[v], _F32S)
            is_zero = k.ir.icmp_signed("==", largest[v], k.splat(0, _I32S))
            factor = k.ir.fdiv(k.splat(LARGEST, _F32S), value)
            factors.append(k.ir.select(is_zero, k.splat(0.0, _F32S), factor))
            scale = k.ir.fmul(k.ir.fdiv(value, k.splat(LARGEST, _F32S)), k.splat(65536.0, _F32S))
            scale = k.intrinsic(
                "maxnum", scale, k.splat(2.0**-126, _F32S)
            )  # not that of zeros: refused below
            scale = k.ir.select(is_zero, k.splat(0.0, _F32S), scale)
            k.store(scale, k.at(k.pointer("scales"), k.mul(panel, PANEL), F32), v * LANES)
        with k.loop(0, k.mul(steps, DEPTH // 4)) as quad:
            step, within = k.div(quad, DEPTH // 4), k.rem(quad, DEPTH // 4)
            here = k.at(source, k.mul(quad, 4 * PANEL), F32)
            goal = k.at(target, k.add(k.mul(step, STEP_BYTES), k.mul(within, DEPTH)), I8)
            exists = k.compare("<", k.mul(quad, 4), rows)
            for v in range(2):

                def load(v: int = v, here: Value = here) -> list[Value]:
                    return [k.load(here, _F32S, i * PANEL + v * LANES) for i in range(4)]

                values = k.either(exists, load, lambda: [k.splat(0.0, _F32S)] * 4)
                digits = [_digits(k, _nonzero(k, x, factors[v])) for x in values]
                for byte in range(SLICES):
                    word = k.splat(0, _I32S)
                    for i, digit in enumerate(digits):
                        own = k.ir.and_(k.ir.lshr(digit, k.splat(8 * byte, _I32S)), k.splat(255, _I32S))
                        word = k.ir.or_(word, k.ir.shl(own, k.splat(8 * i, _I32S)))
                    k.store(word, k.at(goal, ((SLICES - 1 - byte) * 2 + v) * TILE_BYTES, I8))


def _nonzero(k: Builder, value: Value, factor: Value) -> Value:
    """value · factor as integers; what is not zero stays so, for infinity times a small weight is no NaN."""
    whole = _round(k, k.ir.fmul(value, factor))
    zero = k.splat(0, _I32S)
    one = k.ir.select(_is_negative(k, value), k.splat(-1, _I32S), k.splat(1, _I32S))
    lost = k.ir.and_(k.ir.icmp_signed("==", whole, zero), k.ir.icmp_signed("!=", _magnitudes(k, value), zero))
    return k.ir.select(lost, one, whole)


def sliced(weights: PackedWeights, machine: Machine) -> SlicedWeights | None:
    """Slice weights packed as one matrix; None where one is not finite, a column's largest is so large or
    small that its products with a scale could overflow, or the contraction is longer than MOST_DEPTH.
    """
    if weights.rows > MOST_DEPTH:
        return None
    if weights.batch and math.prod(weights.batch) != 1:
        raise ValueError(f"slices of a batch of matrices {weights.batch} were asked for; they are of one")
    steps = max(1, -(-weights.rows // DEPTH))
    panels = weights.panels
    memory = lent(panels * steps * STEP_BYTES).view(np.int8)
    scales = np.empty(panels * PANEL, np.float32)
    array = weights.view.buffer.array
    assert array is not None
    source = array.ctypes.data + weights.view.offset
    arguments = [source, weights.rows, memory.ctypes.data, steps, scales.ctypes.data]
    run_now(slice_weights(), arguments, panels, machine)
    used = scales[scales != 0]
    if used.size and not (np.isfinite(used).all() and used.max() < 2.0**60 and used.min() > 2.0**-40):
        return None
    return SlicedWeights(constant(memory), constant(scales), weights.k, weights.n, steps)
