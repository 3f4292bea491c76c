"""LSTM steps whose recurrent weights are small integers, packed as the register tile's (units.py).

At the beginning of a tile the range of all of the direction's states is found, and the tile's own states
become uint8 over it, as DynamicQuantizeLinear does it. Then sums are int32:

    gates += scale · column's scale · (Σ q · r - zero · Σ r)

Every tile of a step finds the range by itself: that is a vector for each row's of the product, and spares a
wave. Weights lie as recurrent_step.py says, with units of 32 bits in the place of floats.
"""
# llvmlite has no type information.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingot.codegen.builder import F32, I8, I32, I64, Builder, Int, Value, vector
from ingot.codegen.elements import I16
from ingot.codegen.kernel import kernel
from ingot.codegen.machine import Machine
from ingot.codegen.products import add_bytes, add_pairs
from ingot.kernels import definitions as plain
from ingot.kernels.call import View, constant
from ingot.kernels.contract import Numbers
from ingot.kernels.pack import aligned_copy
from ingot.kernels.recurrent_form import DEFAULTS, UNROLL, Form, StateWeights
from ingot.kernels.recurrent_step import SLOTS, Rows, Steps, Tile
from ingot.kernels.units import VALUES, numbers_for, steps_of

_GATES = 4


@dataclass(frozen=True, slots=True)
class IntegerWeights(StateWeights):
    """An LSTM's constants but those of its inputs. scales (float32) and sums (int32, of a column's weights):
    [direction][block][gate][lanes].
    """

    numbers: Numbers
    scales: View
    sums: View

    def scratch(self, rows: int, machine: Machine) -> int:
        """Bytes for the states of so many sequences as integers."""
        return rows * _padded(self.hidden, machine) * 4 // VALUES[self.numbers]


def _padded(hidden: int, machine: Machine) -> int:
    return -(-hidden // machine.lanes) * machine.lanes


def pack_integer_states(
    r: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None,
    p: np.ndarray | None,
    machine: Machine,
    *,
    clip: float | None = None,
    input_forget: bool = False,
) -> IntegerWeights:
    """Pack r [D, H, 4 * H] of int8 or uint8, whose scale and zero point are [D] or [D, 4 * H], and peepholes
    p [D, 3 * H] of float32.
    """
    directions, hidden, width = r.shape
    numbers = numbers_for(r.dtype.name, zero, zero is not None, machine)
    values, lanes, padded = VALUES[numbers], machine.lanes, _padded(hidden, machine)
    less = np.zeros((), np.int16) if zero is None else zero.reshape(directions, 1, -1).astype(np.int16)
    units = -(-hidden // values)
    whole = np.zeros((directions, units * values, _GATES, padded), np.int16)
    whole[:, :hidden, :, :hidden] = (r - less).reshape(directions, hidden, _GATES, hidden)
    blocks = whole.reshape(directions, units, values, _GATES, -1, lanes).transpose(0, 4, 1, 3, 5, 2)
    packed = np.ascontiguousarray(blocks, np.int8 if numbers == "bytes" else np.int16).view(np.int32)

    def columns(array: np.ndarray) -> View:
        """[D, 4, H] as the kernel reads it."""
        wide = np.zeros((directions, _GATES, padded), array.dtype)
        wide[..., :hidden] = array
        return constant(aligned_copy(wide.reshape(directions, _GATES, -1, lanes).swapaxes(1, 2)))

    scales = np.broadcast_to(scale.astype(np.float32).reshape(directions, -1), (directions, width))
    return IntegerWeights(
        "LSTM",
        "float32",
        hidden,
        directions,
        DEFAULTS["LSTM"],
        False,
        clip,
        input_forget,
        constant(aligned_copy(packed)),
        None,
        None,
        None if p is None else constant(np.ascontiguousarray(p, np.float32)),
        1,
        numbers,
        columns(scales.reshape(directions, _GATES, hidden)),
        columns(whole.sum(1, dtype=np.int32)[..., :hidden]),
    )


def definition(
    gates: np.ndarray,
    r: np.ndarray,
    scale: np.ndarray,
    zero: np.ndarray | None,
    p: np.ndarray | None,
    lengths: np.ndarray | None,
    h: np.ndarray,
    c: np.ndarray,
    *,
    reverse: Sequence[bool],
    clip: float | None = None,
    input_forget: bool = False,
    given: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The plain meaning of the layer: gates [T, B, D * 4 * H] is what the inputs contribute; the rest as in
    `pack_integer_states`, h and c [D, B, H]; y [T, D, B, H], the last h and c. Integers as float32 gives
    them, all else in float64.

    given: the states before each step, in the place of the layer's own: one that differs in its last bit may
    become another integer.
    """
    steps, batch, _ = gates.shape
    directions, hidden = r.shape[:2]
    lengths = np.full(batch, steps) if lengths is None else lengths
    h, c = h.astype(np.float64), c.astype(np.float64)
    y = np.zeros((steps, directions, batch, hidden))

    def bounded(x: np.ndarray) -> np.ndarray:
        return x if clip is None else np.clip(x, -clip, clip)

    for t in range(steps):
        if given is not None:
            h, c = (state.astype(np.float64) for state in given[t])
        for d in range(directions):
            alive, reached = t < lengths, t <= lengths
            whole, own, shift = plain.dynamic_quantize(np.where(reached[:, None], h[d], 0).astype(np.float32))
            less = 0 if zero is None else zero.reshape(directions, -1)[d].astype(np.int64)
            sums = (whole.astype(np.int64) - int(shift)) @ (r[d].astype(np.int64) - less)
            times = np.where(alive & reverse[d], lengths - 1 - t, t)
            factor = np.float64(own) * scale.reshape(directions, -1)[d]
            at = gates.reshape(steps, batch, directions, 4 * hidden)[times, range(batch), d] + sums * factor
            i, o, f, g = np.split(at.astype(np.float64), _GATES, 1)
            pi, po, pf = (0.0, 0.0, 0.0) if p is None else np.split(p[d].astype(np.float64), 3)
            admitted = plain.sigmoid(bounded(i + pi * c[d]))
            forget = 1 - admitted if input_forget else plain.sigmoid(bounded(f + pf * c[d]))
            cell = forget * c[d] + admitted * np.tanh(bounded(g))
            state = plain.sigmoid(bounded(o + po * cell)) * np.tanh(cell)
            y[times, d, range(batch)] = np.where(alive[:, None], state, 0)
            h[d], c[d] = (np.where(alive[:, None], new, old[d]) for new, old in ((state, h), (cell, c)))
    return y, h, c


@kernel(*SLOTS, "scales", "sums")
def step_through_integers(k: Builder, *, form: Form, numbers: Numbers) -> None:
    """As `step_through`, with states and recurrent weights that are multiplied as integers."""
    _Steps(k, form, numbers).emit()


class _Steps(Steps):
    def __init__(self, k: Builder, form: Form, numbers: Numbers) -> None:
        super().__init__(k, form)
        self.numbers: Numbers = numbers

    def tile(
        self, step: Value, direction: Value, groups: tuple[Int, Int], units: tuple[Value, Value]
    ) -> Tile:
        """See the class of floats."""
        return _Tile(self, step, direction, groups, units)


class _Tile(Tile):
    """A tile that begins with the integers of its states."""

    clips_cells = False  # ONNX Runtime's quantised LSTM does not

    def __init__(
        self,
        layer: _Steps,
        step: Value,
        direction: Value,
        groups: tuple[Int, Int],
        units: tuple[Value, Value],
    ) -> None:
        super().__init__(layer, step, direction, groups, units)
        k = self.k
        self.numbers: Numbers = layer.numbers
        self.code = I8 if self.numbers == "bytes" else I16
        self.words = vector(I32, layer.lanes)
        self.scale, self.zero = self._range()
        # Behind the sums.
        first = k.at(self.sums(self.count, 0), 0, self.code)
        self.codes = Rows(first, layer.padded)
        with k.loop(0, self.count) as row:
            state = self.of(self.old, k.add(self.first, row))
            self._quantize(state, k.at(first, k.mul(row, layer.padded), self.code))

    def _range(self) -> tuple[Value, Value]:
        """The scale and the zero point, both as floats, of all states of sequences that the step before
        reached; NaN where one of those is no finite number.
        """
        k, lanes = self.k, self.layer.lanes
        ends = [k.zero(self.type)] * 3  # high, low, and 0 or NaN
        with k.loop(0, self.size["batch"], carry=ends) as row:
            state = self.of(self.old, row)
            with k.loop(0, self.size["hidden"], lanes, carry=ends) as unit:
                value = k.load(state, self.type, unit, mask=self.mask(unit))
                if self.form.ragged:
                    value = k.ir.select(self._reached(row), value, k.zero(self.type))
                high, low, odd_one = ends
                ends[:] = [
                    k.ir.select(k.ir.fcmp_ordered(">", value, high), value, high),
                    k.ir.select(k.ir.fcmp_ordered("<", value, low), value, low),
                    k.fma(value, k.zero(self.type), odd_one),
                ]
        high, low = (
            k.reduce_lanes(lambda a, b, r=relation: k.ir.select(k.ir.fcmp_ordered(r, a, b), a, b), end)
            for relation, end in ((">", ends[0]), ("<", ends[1]))
        )
        width = k.ir.fsub(high, low)
        flat = k.ir.fcmp_ordered("==", width, F32(0.0))
        scale = k.ir.fdiv(k.ir.select(flat, F32(1.0), width), F32(255.0))
        # Within 0 and 255 by itself: low is not above 0, and high not below.
        zero = k.intrinsic("rint", k.ir.fdiv(k.ir.fsub(F32(0.0), low), scale))
        scale = k.ir.fadd(scale, k.reduce_lanes(k.ir.fadd, ends[2]))
        return k.broadcast(scale, lanes), k.broadcast(zero, lanes)

    def _reached(self, row: Int) -> Value:
        """Whether the step before this one was a sequence's."""
        length = self.k.ir.sext(self.k.load(self.k.pointer("lengths"), I32, row), I64)
        return self.k.compare("<=", self.step, length)

    def _quantize(self, state: Value, codes: Value) -> None:
        """A sequence's states as integers."""
        k, lanes = self.k, self.layer.lanes
        low = k.ir.fsub(k.zero(self.type), self.zero)
        high = k.ir.fadd(low, k.splat(255.0, self.type))
        shift = k.ir.fptosi(self.zero, self.words)
        with k.loop(0, self.size["hidden"], lanes) as unit:
            value = k.ir.fdiv(k.load(state, self.type, unit, mask=self.mask(unit)), self.scale)
            value = k.intrinsic("rint", value)
            value = k.ir.select(k.ir.fcmp_ordered(">", value, low), value, low)
            value = k.ir.select(k.ir.fcmp_ordered("<", value, high), value, high)
            whole = k.ir.add(k.ir.fptosi(value, self.words), shift)
            k.store(k.ir.trunc(whole, vector(self.code, lanes)), codes, unit)

    @property
    def sum_type(self) -> Value:
        """See the class of floats, as for the following."""
        return self.words

    @property
    def factor(self) -> Value:
        return I32

    @property
    def factors(self) -> Int:
        return self.k.ceil_div(self.size["hidden"], VALUES[self.numbers])

    @property
    def unroll(self) -> int:
        return steps_of(UNROLL, self.numbers, self.k.machine)

    def line(self, rows: Rows, row: Int) -> Value:
        del rows
        k = self.k
        return k.at(self.codes.first, k.mul(k.sub(row, self.first), self.layer.padded), self.code)

    def _fetch(self, rows: Rows) -> None:
        del rows  # these are the tile's own

    def multiply(self, total: Value, factor: Value, weights: Value) -> Value:
        add = add_bytes if self.numbers == "bytes" else add_pairs
        return add(self.k, total, factor, weights)

    def plus(self, a: Value, b: Value) -> Value:
        return self.k.ir.add(a, b)

    def real(self, sums: list[Value]) -> list[Value]:
        k, lanes = self.k, self.layer.lanes
        shift = k.ir.fptosi(self.zero, self.words)
        block = k.mul(self._block, _GATES * lanes)
        reals: list[Value] = []
        for g, total in enumerate(sums):
            factor, column = (
                k.load(k.at(k.pointer(name), block, I32), type_, g * lanes)
                for name, type_ in (("scales", self.type), ("sums", self.words))
            )
            whole = k.ir.sub(total, k.ir.mul(shift, column))
            reals.append(k.ir.fmul(k.ir.sitofp(whole, self.type), k.ir.fmul(self.scale, factor)))
        return reals

    def weights(self, name: str, gates: int, unit: Int) -> Value:
        k = self.k
        own = k.div(unit, self.layer.lanes)
        self._block = k.add(k.mul(self.direction, self.layer.unit_blocks), own)
        block = k.mul(self._block, k.mul(self.factors, gates * self.layer.lanes))
        return k.at(k.pointer(name), block, I32)
